//! GGUF files.

use anybit_import::ModelFile;
use anybit_import::gguf::{Array, GgufFile, Metadata, TensorType};

use super::model::use_model;
use super::{Target, Verdict, check_error, no_text, only_text};
use writer::{Writer, array, string, value_type};

#[path = "../../../crates/anybit-import/tests/gguf/writer.rs"]
#[expect(dead_code, reason = "the tests of the reader use all of it")]
mod writer;

pub(super) const TARGET: Target = Target {
    name: "gguf",
    run,
    seeds,
    text: no_text,
    with_text: only_text,
    longest: 1 << 19,
    words: &[
        "general.alignment",
        "general.architecture",
        "llama.block_count",
        "tokenizer.ggml.tokens",
    ],
};

fn run(input: &[u8]) -> Verdict {
    match GgufFile::from_bytes(input.to_vec()) {
        Ok(file) => {
            use_metadata(file.metadata());
            for info in file.tensors() {
                assert_eq!(file.tensor(info.name()), Some(info));
                assert_eq!(
                    info.is_readable_matrix(),
                    info.elements() > 0
                        && info
                            .dimensions()
                            .iter()
                            .skip(2)
                            .all(|&dimension| dimension == 1)
                        && info.tensor_type().matrix_format().is_some()
                );
            }
            use_model(&ModelFile::Gguf(file));
            Verdict::Accepted
        }
        Err(error) => {
            check_error(&error);
            Verdict::Refused
        }
    }
}

/// Asks for every entry as every type.
fn use_metadata(metadata: &Metadata) {
    for (key, value) in metadata.iter() {
        let found = metadata.get(key).expect("the key was listed");
        assert!(std::ptr::eq(found, value), "{key:?} is found elsewhere");
        let refusals = [
            metadata.get_u32(key).err(),
            metadata.get_u64(key).err(),
            metadata.required::<i64>(key).err(),
            metadata.get_f32(key).err(),
            metadata.required::<f64>(key).err(),
            metadata.get_bool(key).err(),
            metadata.get_str(key).err(),
            metadata.get_strings(key).err(),
            metadata.get_array(key).err(),
        ];
        for error in refusals.iter().flatten() {
            check_error(error);
        }
        if let Ok(array) = metadata.get_array(key) {
            use_array(array);
        }
    }
}

fn use_array(array: &Array) {
    let length = array.len();
    assert_eq!(array.is_empty(), length == 0);
    assert!(!array.element_type().to_string().is_empty());
    if let Array::Array(inner) = array {
        inner.iter().for_each(use_array);
    }
}

const TYPES: [TensorType; 29] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q1_0,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q2_K,
    TensorType::Q3_K,
    TensorType::Q4_K,
    TensorType::Q5_K,
    TensorType::Q6_K,
    TensorType::Q8_K,
    TensorType::IQ1_S,
    TensorType::IQ1_M,
    TensorType::IQ2_XXS,
    TensorType::IQ2_XS,
    TensorType::IQ2_S,
    TensorType::IQ3_XXS,
    TensorType::IQ3_S,
    TensorType::IQ4_NL,
    TensorType::IQ4_XS,
    TensorType::TQ1_0,
    TensorType::TQ2_0,
    TensorType::MXFP4,
    TensorType::NVFP4,
    TensorType::F32,
];

/// Bytes that are right in every type: no pair of bits is 3, and as any float they are small.
const BYTES: [u8; 7] = [0x11, 0x2a, 0x1a, 0x21, 0x06, 0x12, 0x28];

/// A file of metadata of every type, one of many small tensors, and one of two rows of each type.
fn seeds() -> Vec<Vec<u8>> {
    let mut files = vec![metadata().build(), small_tensors().build()];
    for tensor_type in TYPES {
        let columns = tensor_type.block_elements().expect("a known type").max(32);
        let bytes = columns / tensor_type.block_elements().expect("a known type")
            * tensor_type.block_bytes().expect("a known type");
        let data = BYTES.iter().copied().cycle().take(2 * bytes as usize);
        let name = tensor_type.name().expect("a known type");
        let writer = Writer::new().metadata("general.alignment", value_type::U32, &[32, 0, 0, 0]);
        let file = writer.tensor(name, &[columns, 2], tensor_type.id(), data.collect());
        files.push(file.build());
    }
    files
}

fn metadata() -> Writer {
    let strings = [string("one"), string("two"), string("")].concat();
    let nested = [
        array(value_type::U16, 1, &[1, 2]),
        array(value_type::STRING, 3, &strings),
    ]
    .concat();
    let numbers = [
        ("u8", value_type::U8, &[1][..]),
        ("i8", value_type::I8, &[0xff]),
        ("u16", value_type::U16, &[1, 2]),
        ("i16", value_type::I16, &[0xff; 2]),
        ("u32", value_type::U32, &[1, 0, 0, 0]),
        ("i32", value_type::I32, &[0xff; 4]),
        ("f32", value_type::F32, &[0, 0, 0x80, 0x3f]),
        ("bool", value_type::BOOL, &[1]),
        ("u64", value_type::U64, &[1; 8]),
        ("i64", value_type::I64, &[0xff; 8]),
        ("f64", value_type::F64, &[1; 8]),
    ];
    let mut writer = Writer::new()
        .metadata("general.architecture", value_type::STRING, &string("llama"))
        .metadata(
            "nested",
            value_type::ARRAY,
            &array(value_type::ARRAY, 2, &nested),
        );
    for (name, value_type, bytes) in numbers {
        writer = writer.metadata(name, value_type, bytes);
        let many = array(value_type, 3, &bytes.repeat(3));
        writer = writer.metadata(format!("{name}s"), self::value_type::ARRAY, &many);
    }
    writer
}

/// Shapes of no dimension to four, a type that is not read, and one that is not known.
fn small_tensors() -> Writer {
    let mut writer = Writer::new();
    writer.alignment = 8;
    let alignment = 8_u64.to_le_bytes();
    writer = writer.metadata("general.alignment", value_type::U64, &alignment);
    let f32_type = TensorType::F32.id();
    for (name, dimensions) in [
        ("none", &[][..]),
        ("one", &[3]),
        ("two", &[3, 2]),
        ("four", &[2, 1, 1, 3]),
        ("empty", &[0, 5]),
    ] {
        let elements = dimensions.iter().product::<u64>() as usize;
        let data = 1.5_f32.to_le_bytes().repeat(elements);
        writer = writer.tensor(name, dimensions, f32_type, data);
    }
    // I8, of which only the size is known.
    writer = writer.tensor("listed", &[4], 24, vec![1; 4]);
    writer.tensor("unknown", &[4], 99, vec![1; 4])
}
