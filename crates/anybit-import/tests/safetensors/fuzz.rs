//! Random damage to right files: an error or a matrix, never a panic. What it may allocate is tested in
//! `tests/allocation_safetensors.rs`.

use std::io::Cursor;
use std::sync::LazyLock;

use anybit_import::safetensors::{PackedWriter, SafetensorsFile};
use proptest::prelude::*;

use crate::golden::{LAYOUTS, with_own_config};
use crate::random::matrix;
use crate::writer::{Writer, with_header};

/// A file of one matrix of each format, called as the format.
pub(crate) fn packed_file(formats: &[&str]) -> Vec<u8> {
    let mut writer = PackedWriter::new(Cursor::new(Vec::new())).unwrap();
    for format in formats {
        let matrix = matrix(format.parse().unwrap(), 2, 64, 1);
        writer.matrix(format, &matrix).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Files of every layout, and one of packed matrices without the room that the writer leaves in its header.
static RIGHT_FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let formats = [
        "i4g32h",
        "u5g32sm",
        "tg32h",
        "e4m3g32e",
        "e2m1g16k",
        "bitmod4g32qc",
        "u8rfz",
        "f32",
        "bf16",
    ];
    let mut files: Vec<_> = LAYOUTS.iter().map(|layout| layout.bytes()).collect();
    files.push(Writer::read(&packed_file(&formats)).build());
    files
});

fn header_length(file: &[u8]) -> usize {
    u64::from_le_bytes(file[..8].try_into().unwrap()) as usize
}

/// Opens a file and reads all there is in it.
fn read_everything(file: Vec<u8>) {
    let Ok(file) = with_own_config(file) else {
        return;
    };
    for info in file.tensors() {
        assert_eq!(
            file.tensor_bytes(info.name()).unwrap().len() as u64,
            info.byte_size()
        );
    }
    for weight in file.weights() {
        assert_eq!(file.weight(weight.name()), Some(weight));
        let matrix = file.permuted_matrix(weight.name());
        if let Ok(matrix) = &matrix {
            assert_eq!(matrix.matrix.rows() as u64, weight.rows());
            assert_eq!(matrix.matrix.columns() as u64, weight.columns());
        }
        if let Ok(values) = file.values(weight.name()) {
            assert_eq!(values.len() as u64, weight.elements());
        } else {
            assert!(matrix.is_err());
        }
    }
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    any::<prop::sample::Index>().prop_map(|index| index.get(&RIGHT_FILES).clone())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_never_panic(
        mut file in any_file(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        for (position, byte) in damage {
            let position = position.index(file.len());
            file[position] = byte;
        }
        read_everything(file);
    }

    /// Names, types, shapes and places, digit by digit.
    #[test]
    fn damaged_headers_never_panic(
        mut file in any_file(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), "[0-9a-zA-Z\\[\\]{}:,\". _-]"), 1..4),
    ) {
        let length = header_length(&file);
        for (position, text) in damage {
            file[8 + position.index(length)] = text.as_bytes()[0];
        }
        read_everything(file);
    }

    /// Numbers of the header become others, and its length is kept right.
    #[test]
    fn other_numbers_never_panic(
        file in any_file(),
        which in any::<prop::sample::Index>(),
        number in prop_oneof![any::<u64>(), 0u64..512, (0u32..64).prop_map(|bit| 1 << bit)],
    ) {
        let length = header_length(&file);
        let header = String::from_utf8(file[8..8 + length].to_vec()).unwrap();
        let starts: Vec<usize> = header
            .match_indices(['[', ','])
            .map(|(index, _)| index + 1)
            .filter(|&index| header[index..].starts_with(|c: char| c.is_ascii_digit()))
            .collect();
        let start = *which.get(&starts);
        let end = start + header[start..].find(|c: char| !c.is_ascii_digit()).unwrap();
        let changed = format!("{}{number}{}", &header[..start], &header[end..]);
        read_everything(with_header(&changed, &file[8 + length..]));
    }

    /// Shapes change together with what the tensor takes, so that the file is whole and the parts do not fit.
    #[test]
    fn parts_of_other_sizes_never_panic(
        file in any_file(),
        which in any::<prop::sample::Index>(),
        dimension in any::<prop::sample::Index>(),
        size in 0u64..70,
        byte in any::<u8>(),
    ) {
        let mut writer = Writer::read(&file);
        let index = which.index(writer.tensors.len());
        let tensor = &mut writer.tensors[index];
        if tensor.shape.is_empty() {
            return Ok(());
        }
        let elements: u64 = tensor.shape.iter().product();
        let each = tensor.bytes.len() as u64 / elements.max(1);
        let dimension = dimension.index(tensor.shape.len());
        tensor.shape[dimension] = size;
        let length = tensor.shape.iter().product::<u64>() * each;
        tensor.bytes.resize(length as usize, byte);
        read_everything(writer.build());
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let mut file = (bytes.len() as u64 / 2).to_le_bytes().to_vec();
        file.push(b'{');
        file.extend_from_slice(&bytes);
        read_everything(file);
    }

    #[test]
    fn removed_and_inserted_bytes_never_panic(
        mut file in any_file(),
        at in any::<prop::sample::Index>(),
        removed in 0usize..16,
        inserted in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        let at = at.index(file.len());
        let end = (at + removed).min(file.len());
        file.splice(at..end, inserted);
        read_everything(file);
    }
}

#[test]
fn right_files_read() {
    for file in RIGHT_FILES.iter() {
        let file = SafetensorsFile::from_bytes(file.clone()).unwrap();
        assert!(!file.weights().is_empty());
    }
}
