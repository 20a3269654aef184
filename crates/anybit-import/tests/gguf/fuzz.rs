//! Random damage to a right file: an error or a matrix, never a panic. What it may allocate is tested in
//! `tests/allocation.rs`.

use std::sync::LazyLock;

use anybit_import::gguf::GgufFile;
use proptest::prelude::*;

use crate::ggml;
use crate::golden::TYPES;
use crate::writer::{Writer, array, string, value_type};

/// A file with a tensor of every type.
static RIGHT_FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let strings = [string("one"), string("two")].concat();
    let nested = [
        array(value_type::U16, 1, &[1, 2]),
        array(value_type::STRING, 2, &strings),
    ]
    .concat();
    let mut writer = Writer::new()
        .metadata("general.alignment", value_type::U32, &32u32.to_le_bytes())
        .metadata("bool", value_type::BOOL, &[1])
        .metadata("f64", value_type::F64, &1f64.to_le_bytes())
        .metadata(
            "nested",
            value_type::ARRAY,
            &array(value_type::ARRAY, 2, &nested),
        );
    for tensor_type in ggml::ALL {
        let bytes = ggml::random_tensor(tensor_type, 128, 9);
        writer = writer.tensor(tensor_type.name, &[64, 2], tensor_type.id, bytes);
    }
    for tensor_type in TYPES {
        let dimensions = [tensor_type.block_elements as u64, 2];
        let name = format!("golden {}", tensor_type.name);
        writer = writer.tensor(name, &dimensions, tensor_type.id, tensor_type.blocks(2));
    }
    writer.build()
});

/// Opens a file and reads all there is in it.
fn read_everything(file: Vec<u8>) {
    let Ok(file) = GgufFile::from_bytes(file) else {
        return;
    };
    for (key, value) in file.metadata().iter() {
        assert_eq!(
            file.metadata().get(key).map(std::ptr::from_ref),
            Some(std::ptr::from_ref(value))
        );
    }
    for info in file.tensors() {
        if let Ok(matrix) = file.matrix(info.name()) {
            assert_eq!(matrix.rows() as u64, info.rows());
            assert_eq!(matrix.columns() as u64, info.columns());
        }
        let row = usize::try_from(info.rows())
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        if let Ok(values) = file.rows(info.name(), &[row]) {
            assert_eq!(values.len() as u64, info.columns());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_never_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut file = RIGHT_FILE.clone();
        for (position, byte) in damage {
            let position = position.index(file.len());
            file[position] = byte;
        }
        read_everything(file);
    }

    /// Lengths, counts, dimensions and offsets are words of eight bytes: values at the edges, wherever they land.
    #[test]
    fn damaged_words_never_panic(
        position in any::<prop::sample::Index>(),
        word in prop_oneof![
            any::<u64>(),
            (0u32..64).prop_map(|bit| 1 << bit),
            (0u64..64).prop_map(|below| u64::MAX - below),
            0u64..256,
        ],
    ) {
        let mut file = RIGHT_FILE.clone();
        let position = position.index(file.len() - 8);
        file[position..position + 8].copy_from_slice(&word.to_le_bytes());
        read_everything(file);
    }

    #[test]
    fn random_bytes_after_the_magic_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let mut file = b"GGUF\x03\x00\x00\x00".to_vec();
        file.extend_from_slice(&bytes);
        read_everything(file);
    }

    #[test]
    fn removed_and_inserted_bytes_never_panic(
        at in any::<prop::sample::Index>(),
        removed in 0usize..16,
        inserted in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        let mut file = RIGHT_FILE.clone();
        let at = at.index(file.len());
        let end = (at + removed).min(file.len());
        file.splice(at..end, inserted);
        read_everything(file);
    }
}
