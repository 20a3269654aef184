//! What a file makes the reader allocate is bounded by the file's length, whatever the file announces.
//!
//! A test of its own: the allocator counts for the whole process.

use std::alloc::System;
use std::sync::LazyLock;

use anybit_import::gguf::GgufFile;
use cap::Cap;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[path = "gguf/ggml.rs"]
#[expect(dead_code, reason = "the other test uses all of it")]
mod ggml;
#[path = "gguf/golden.rs"]
#[expect(dead_code, reason = "the other test uses all of it")]
mod golden;
#[path = "gguf/writer.rs"]
#[expect(dead_code, reason = "the other test uses all of it")]
mod writer;

use writer::{Writer, array, string, value_type};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes allocated for each byte of a file, freed ones included. The most costly are short entries: a tensor's takes 25
/// bytes in the file and 88 in memory, twice with the growth of the list, and as much again while places are checked.
const FACTOR: usize = 16;

/// The same for a large tensor as a matrix. Its codes are first put in a byte each, and Q1_0 has 7 in a byte of the
/// file.
const MATRIX_FACTOR: usize = 10;

/// The buffer that the header is read through, and the texts of errors.
const FIXED: usize = 16 << 10;

/// Opens a file and reads all there is in it; gives the bytes that were allocated on the way.
fn allocated_by_reading(file: Vec<u8>) -> usize {
    let before = ALLOCATOR.total_allocated();
    if let Ok(file) = GgufFile::from_bytes(file) {
        for info in file.tensors() {
            drop(file.matrix(info.name()));
            drop(file.rows(info.name(), &[0]));
        }
    }
    ALLOCATOR.total_allocated() - before
}

/// A file with a tensor of every type.
static RIGHT_FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let strings = [string(""), string("two"), string(""), string("")].concat();
    let nested = [
        array(value_type::U64, 1, &[1; 8]),
        array(value_type::STRING, 4, &strings),
    ]
    .concat();
    let mut writer = Writer::new()
        .metadata(
            "floats",
            value_type::ARRAY,
            &array(value_type::F32, 4, &[0; 16]),
        )
        .metadata(
            "nested",
            value_type::ARRAY,
            &array(value_type::ARRAY, 2, &nested),
        );
    for tensor_type in ggml::ALL {
        let bytes = ggml::random_tensor(tensor_type, 128, 9);
        writer = writer.tensor(tensor_type.name, &[64, 2], tensor_type.id, bytes);
    }
    for tensor_type in golden::TYPES {
        let dimensions = [tensor_type.block_elements as u64, 2];
        let name = format!("golden {}", tensor_type.name);
        writer = writer.tensor(name, &dimensions, tensor_type.id, tensor_type.blocks(2));
    }
    writer.build()
});

/// Arrays that each announce as many arrays as the rest of the file could hold.
fn greedy_nesting(element_type: u32, count: u64) -> Vec<u8> {
    let mut value = array(element_type, count, &[0; 16 << 10]);
    for _ in 0..7 {
        value = array(value_type::ARRAY, (value.len() / 12) as u64, &value);
    }
    Writer::new()
        .metadata("k", value_type::ARRAY, &value)
        .build()
}

/// An array of empty strings.
fn many_strings() -> Vec<u8> {
    let strings = array(value_type::STRING, 1 << 12, &[0; 8 << 12]);
    Writer::new()
        .metadata("k", value_type::ARRAY, &strings)
        .build()
}

/// The shortest entries there can be.
fn many_entries() -> Vec<u8> {
    let names = || (0..1000).filter_map(char::from_u32).map(String::from);
    let mut writer = Writer::new();
    for name in names() {
        writer = writer.metadata(name, value_type::U8, &[0]);
    }
    for name in names() {
        writer = writer.tensor_at(0, name, &[], 99, vec![]);
    }
    writer.build()
}

/// What each type takes for a tensor of many blocks: as a matrix, and as values, 4 bytes an element.
fn check_types() {
    for tensor_type in golden::TYPES {
        let blocks = tensor_type.blocks((1 << 20) / tensor_type.block_bytes);
        let elements = blocks.len() / tensor_type.block_bytes * tensor_type.block_elements;
        let length = blocks.len();
        let file = Writer::new().tensor("t", &[elements as u64], tensor_type.id, blocks);
        let file = GgufFile::from_bytes(file.build()).expect("the file is right");

        let before = ALLOCATOR.total_allocated();
        drop(file.matrix("t"));
        let matrix = ALLOCATOR.total_allocated();
        drop(file.values("t"));
        let (matrix, values) = (matrix - before, ALLOCATOR.total_allocated() - matrix);
        assert!(
            matrix <= FIXED + MATRIX_FACTOR * length,
            "{}: {matrix} bytes for {length}",
            tensor_type.name
        );
        // The chunk that is read, and the values.
        assert!(
            values <= FIXED + length + 4 * elements,
            "{}: {values} bytes for {elements} elements",
            tensor_type.name
        );
    }
}

#[test]
fn allocation_is_bounded_by_the_length_of_the_file() {
    check_types();
    for file in [
        RIGHT_FILE.clone(),
        many_strings(),
        many_entries(),
        greedy_nesting(value_type::STRING, 1 << 11),
        greedy_nesting(value_type::U8, 1 << 14),
    ] {
        let length = file.len();
        let allocated = allocated_by_reading(file);
        assert!(
            allocated <= FIXED + FACTOR * length,
            "{allocated} bytes for {length}"
        );
    }

    let words = prop_oneof![
        any::<u64>(),
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u64..64).prop_map(|below| u64::MAX - below),
        0u64..4096,
    ];
    let damage = (any::<prop::sample::Index>(), words);
    let mut runner = TestRunner::new(Config {
        cases: 4000,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&damage, |(position, word)| {
        let mut file = RIGHT_FILE.clone();
        let length = file.len();
        let position = position.index(length - 8);
        file[position..position + 8].copy_from_slice(&word.to_le_bytes());
        let allocated = allocated_by_reading(file);
        prop_assert!(
            allocated <= FIXED + FACTOR * length,
            "{} bytes for {}",
            allocated,
            length
        );
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
