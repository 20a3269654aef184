//! Metadata of every type, and asking for the wrong one.

use anybit_import::ImportError;
use anybit_import::gguf::{Array, GgufFile, Metadata, Value, ValueType};

use crate::writer::{Writer, array, string, value_type};

fn metadata() -> Metadata {
    let strings = [string("a"), string("ü"), string("")].concat();
    let inner = [
        array(value_type::U8, 2, &[1, 2]),
        array(value_type::STRING, 3, &strings),
    ]
    .concat();
    let file = Writer::new()
        .metadata("u8", value_type::U8, &[200])
        .metadata("i8", value_type::I8, &[200])
        .metadata("u16", value_type::U16, &60_000u16.to_le_bytes())
        .metadata("i16", value_type::I16, &(-3i16).to_le_bytes())
        .metadata("u32", value_type::U32, &4_000_000_000u32.to_le_bytes())
        .metadata("i32", value_type::I32, &(-7i32).to_le_bytes())
        .metadata("f32", value_type::F32, &1e-5f32.to_le_bytes())
        .metadata("bool", value_type::BOOL, &[1])
        .metadata("string", value_type::STRING, &string("llama"))
        .metadata("u64", value_type::U64, &u64::MAX.to_le_bytes())
        .metadata("i64", value_type::I64, &i64::MIN.to_le_bytes())
        .metadata("f64", value_type::F64, &0.1f64.to_le_bytes())
        .metadata(
            "strings",
            value_type::ARRAY,
            &array(value_type::STRING, 3, &strings),
        )
        .metadata(
            "bools",
            value_type::ARRAY,
            &array(value_type::BOOL, 2, &[0, 1]),
        )
        .metadata(
            "i16s",
            value_type::ARRAY,
            &array(value_type::I16, 2, &[0xFF, 0xFF, 2, 0]),
        )
        .metadata("empty", value_type::ARRAY, &array(value_type::F64, 0, &[]))
        .metadata(
            "nested",
            value_type::ARRAY,
            &array(value_type::ARRAY, 2, &inner),
        )
        .build();
    let file = GgufFile::from_bytes(file).expect("the file is right");
    file.metadata().clone()
}

#[test]
fn values_of_every_type_are_read_in_order() {
    let metadata = metadata();
    let strings = Array::String(vec!["a".into(), "ü".into(), String::new()]);
    let expected = [
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-56)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-3)),
        ("u32", Value::U32(4_000_000_000)),
        ("i32", Value::I32(-7)),
        ("f32", Value::F32(1e-5)),
        ("bool", Value::Bool(true)),
        ("string", Value::String("llama".into())),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f64", Value::F64(0.1)),
        ("strings", Value::Array(strings.clone())),
        ("bools", Value::Array(Array::Bool(vec![false, true]))),
        ("i16s", Value::Array(Array::I16(vec![-1, 2]))),
        ("empty", Value::Array(Array::F64(vec![]))),
        (
            "nested",
            Value::Array(Array::Array(vec![Array::U8(vec![1, 2]), strings])),
        ),
    ];
    assert_eq!(metadata.len(), expected.len());
    for ((key, value), (expected_key, expected_value)) in metadata.iter().zip(&expected) {
        assert_eq!((key, value), (*expected_key, expected_value));
        assert_eq!(metadata.get(key), Some(expected_value));
    }
}

#[test]
fn typed_access_converts_integers_that_fit_and_nothing_else() {
    let metadata = metadata();
    assert_eq!(metadata.get_u32("u8").expect("fits"), 200);
    assert_eq!(metadata.get_u64("u64").expect("fits"), u64::MAX);
    assert_eq!(metadata.required::<i64>("i8").expect("fits"), -56);
    assert_eq!(metadata.get_f32("f32").expect("f32"), 1e-5);
    assert_eq!(
        metadata.required::<f64>("f32").expect("f32"),
        f64::from(1e-5f32)
    );
    assert_eq!(metadata.required::<f64>("f64").expect("f64"), 0.1);
    assert!(metadata.get_bool("bool").expect("bool"));
    assert_eq!(metadata.get_str("string").expect("string"), "llama");
    assert_eq!(
        metadata.get_strings("strings").expect("strings"),
        ["a", "ü", ""]
    );
    assert_eq!(
        metadata.get_array("i16s").expect("array"),
        &Array::I16(vec![-1, 2])
    );
    assert_eq!(
        metadata.get_array("empty").expect("array").element_type(),
        ValueType::F64
    );
    assert_eq!(metadata.optional::<u32>("absent").expect("absent"), None);
    assert_eq!(metadata.optional::<u32>("u8").expect("fits"), Some(200));
}

#[test]
fn wrong_types_ranges_and_keys_are_named() {
    let metadata = metadata();
    let missing = metadata.get_u32("absent").expect_err("no such key");
    assert!(
        matches!(&missing, ImportError::MissingKey { key } if key == "absent"),
        "{missing:?}"
    );

    for (key, found) in [
        ("f32", ValueType::F32),
        ("bool", ValueType::Bool),
        ("string", ValueType::String),
        ("strings", ValueType::Array),
    ] {
        let error = metadata.get_u32(key).expect_err("no integer");
        assert!(
            matches!(&error, ImportError::WrongValueType { key: named, found: what, .. } if named == key && *what == found),
            "{error:?}"
        );
    }
    for error in [
        metadata.get_f32("f64").expect_err("f64 would lose bits"),
        metadata.get_f32("u8").expect_err("an integer"),
        metadata.get_str("u8").expect_err("an integer"),
        metadata.get_bool("u8").expect_err("an integer"),
        metadata.get_array("string").expect_err("a string"),
        metadata.get_strings("i16s").expect_err("integers"),
    ] {
        assert!(
            matches!(error, ImportError::WrongValueType { .. }),
            "{error:?}"
        );
    }

    for (error, value) in [
        (metadata.get_u32("i8").expect_err("negative"), -56),
        (
            metadata.get_u32("u64").expect_err("large"),
            i128::from(u64::MAX),
        ),
        (
            metadata.get_u64("i64").expect_err("negative"),
            i128::from(i64::MIN),
        ),
        (
            metadata.required::<i64>("u64").expect_err("large"),
            i128::from(u64::MAX),
        ),
    ] {
        assert!(
            matches!(error, ImportError::ValueOutOfRange { value: found, .. } if found == value),
            "{error:?}"
        );
    }
}
