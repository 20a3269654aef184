//! `anybit format`.

use std::process::Stdio;

use anybit::formats::{ElementFormat, FORMATS, FloatFormat, NAMED_FORMATS};
use serde_json::{Value, json};

use crate::support::{Folder, anybit, command};

/// The value as JSON has it, down to the sign of zero.
fn same(found: &Value, expected: f32) -> bool {
    if expected.is_nan() {
        found == "NaN"
    } else if expected == f32::INFINITY {
        found == "inf"
    } else if expected == f32::NEG_INFINITY {
        found == "-inf"
    } else {
        found
            .as_f64()
            .is_some_and(|found| found.to_bits() == f64::from(expected).to_bits())
    }
}

fn check_codes(listing: &Value, element: ElementFormat) {
    assert_eq!(listing["bits"], element.bits(), "{listing}");
    let codes = listing["codes"].as_array().expect("a list");
    let count = match element.max_code() {
        Some(max) => usize::from(max) + 1,
        None => 65_536,
    };
    assert_eq!(codes.len(), count, "{}", element.name());
    for (index, entry) in codes.iter().enumerate() {
        assert_eq!(entry["code"], index);
        let expected = match element {
            ElementFormat::Float(float) => float.decode(index as u32),
            _ => element.code_value(index as u8).expect("a valid code"),
        };
        assert!(
            same(&entry["value"], expected),
            "{}: {entry}",
            element.name()
        );
    }
}

#[test]
fn every_code_of_every_element_format() {
    for row in FORMATS {
        if row.element == ElementFormat::Float(FloatFormat::F32) {
            continue;
        }
        let listing = anybit(&["format", row.name, "--json"]).json();
        assert_eq!(listing["name"], row.name);
        check_codes(&listing, row.element);
        assert_eq!(
            listing.as_object().expect("an object").len(),
            if row.element.has_choices() { 4 } else { 3 }
        );
    }
}

#[test]
fn every_named_format_has_its_element_and_scales() {
    for row in NAMED_FORMATS {
        let listing = anybit(&["format", row.name, "--json"]).json();
        assert_eq!(listing["name"], row.name);
        assert_eq!(listing["format"], row.format.to_string());
        assert_eq!(listing["element"], row.format.element().name());
        check_codes(&listing, row.format.element());
        let scales = row.format.scales().expect("named formats have scales");
        assert_eq!(listing["scales"]["type"], scales.scale.name());
        assert_eq!(listing["scales"]["bits"], scales.scale.bits());
        assert_eq!(listing["scales"]["group"], row.format.group_len(1 << 20));
    }
    let listing = anybit(&["format", "nvfp4", "--json"]).json();
    assert_eq!(
        listing["scales"]["second"],
        json!({"type": "f32", "group": "tensor"})
    );
    let listing = anybit(&["format", "u4g128fz", "--json"]).json();
    assert_eq!(listing["scales"]["zero"], "integer");
    check_codes(&listing, ElementFormat::UINT4);
}

#[test]
fn zeros_keep_their_sign_and_special_values_are_strings() {
    let e2m1 = anybit(&["format", "e2m1", "--json"]).passed().stdout;
    assert!(e2m1.contains(r#"{"code":8,"value":-0.0}"#), "{e2m1}");
    assert!(e2m1.contains(r#"{"code":0,"value":0.0}"#), "{e2m1}");
    let e4m3 = anybit(&["format", "e4m3", "--json"]).passed().stdout;
    assert!(e4m3.contains(r#"{"code":127,"value":"NaN"}"#), "{e4m3}");
    let e5m2 = anybit(&["format", "e5m2", "--json"]).passed().stdout;
    for code in [
        r#"{"code":124,"value":"inf"}"#,
        r#"{"code":252,"value":"-inf"}"#,
        r#"{"code":255,"value":"NaN"}"#,
    ] {
        assert!(e5m2.contains(code), "{e5m2}");
    }
    let e8m0 = anybit(&["format", "e8m0", "--json"]).json();
    assert_eq!(e8m0["codes"][128]["value"], 2.0);
    assert_eq!(e8m0["codes"][255]["value"], "NaN");
}

#[test]
fn choices_are_told() {
    let listing = anybit(&["format", "bitmod4", "--json"]).json();
    assert_eq!(
        listing["choice"],
        json!({"code": 8, "values": [10.0, -10.0, 16.0, -16.0]})
    );
    let text = anybit(&["format", "bitmod3"]).passed().stdout;
    assert!(text.contains("one of 3, -3, 6, -6"), "{text}");
}

#[test]
fn names_are_listed() {
    let names = anybit(&["format", "--json"]).json();
    let expected: Vec<&str> = FORMATS
        .iter()
        .map(|row| row.name)
        .chain(NAMED_FORMATS.iter().map(|row| row.name))
        .collect();
    assert_eq!(names, json!(expected));
    let text = anybit(&["format"]).passed().stdout;
    for name in expected {
        assert!(
            text.lines()
                .any(|line| line.split_whitespace().next() == Some(name)),
            "{name}"
        );
    }
}

#[test]
fn text_tells_the_range_and_every_code() {
    let text = anybit(&["format", "e4m3"]).passed().stdout;
    for line in [
        "maximum             448",
        "smallest normal     0.015625",
        "smallest subnormal  0.001953125",
        "special codes       NaN 0x7f, -0 0x80, NaN 0xff",
        "0x01  0 0000 001  0.001953125",
        "0x80  1 0000 000  -0",
        "0xfe  1 1111 110  -448",
        "0xff  1 1111 111  NaN",
    ] {
        assert!(
            text.lines().any(|found| found.trim_end() == line),
            "{line:?} is not in\n{text}"
        );
    }
    let text = anybit(&["format", "mxfp4"]).passed().stdout;
    assert!(text.contains("e8m0 of 8 bits, per 32 columns"), "{text}");
    assert!(text.contains("maximum             6"), "{text}");
    let text = anybit(&["format", "f16"]).passed().stdout;
    assert!(text.contains("maximum             65504"), "{text}");
    let text = anybit(&["format", "bipolar3"]).passed().stdout;
    assert!(text.contains("value               2 code - 7"), "{text}");
    // No row is without a value: exact decimals read back.
    for row in FORMATS.iter().filter(|row| row.element.has_codes()) {
        let text = anybit(&["format", row.name]).passed().stdout;
        let (_, table) = text.split_once("value\n").expect("a table");
        let max = row.element.max_code().expect("codes");
        assert_eq!(table.lines().count(), usize::from(max) + 1, "{text}");
        if row.element.has_choices() {
            continue;
        }
        for (line, code) in table.lines().zip(0..=u8::MAX) {
            let value: f32 = line
                .split_whitespace()
                .next_back()
                .and_then(|value| value.parse().ok())
                .unwrap_or_else(|| panic!("{line}"));
            let expected = row.element.code_value(code).expect("a valid code");
            assert!(
                value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan(),
                "{line}"
            );
        }
    }
}

#[test]
fn f32_is_too_large_to_list() {
    let error = anybit(&["format", "f32", "--json"]).failed(1);
    assert!(error.contains("2^32 codes"), "{error}");
    let text = anybit(&["format", "f32"]).passed().stdout;
    assert!(
        text.contains("3.4028234663852885981170418348451692544e38"),
        "{text}"
    );
}

#[test]
fn unknown_names_get_the_nearest() {
    for (name, similar) in [
        ("mxfp5", "did you mean mxfp4?"),
        ("e4m4", "did you mean e4m3 or"),
        ("int9", "did you mean int8 or"),
        ("INT4", "did you mean int4"),
        ("q4_2", "q4_1"),
        ("nf5", "nf4"),
        ("quux", "`anybit format` lists the names"),
        ("i4g32x", "is not a matrix format"),
        (
            "i4g33h",
            "a group has 16 columns or a positive multiple of 32, not 33",
        ),
        ("", "no format is named"),
    ] {
        let error = anybit(&["format", name]).failed(1);
        assert!(error.contains(similar), "{name}: {error}");
    }
}

#[test]
fn a_user_s_table() {
    let folder = Folder::new();
    folder.write(
        "levels.txt",
        b"# levels\n-1, -0.25\n0 0.5\t2.0  # the largest\n",
    );
    let listing = folder
        .anybit("format levels --json --codebook levels=levels.txt")
        .json();
    assert_eq!(
        listing,
        json!({"name": "levels", "bits": 3, "codes": [
            {"code": 0, "value": -1.0},
            {"code": 1, "value": -0.25},
            {"code": 2, "value": 0.0},
            {"code": 3, "value": 0.5},
            {"code": 4, "value": 2.0},
        ]})
    );
    folder.write_f32("levels.npy", &[3], &[-1.0, 0.0, 1.0]);
    let names = folder
        .anybit("format --json --codebook other=levels.npy")
        .json();
    assert!(names.as_array().expect("a list").contains(&json!("other")));
    folder.write("words.txt", b"1\n2 three\n");
    folder.write("long.txt", "x".repeat(60_000).as_bytes());
    folder.write("many.txt", "1 2 ".repeat(129).as_bytes());
    folder.write("infinite.txt", b"1 inf");
    folder.write("huge.txt", " ".repeat(1 << 17).as_bytes());
    for (codebook, problem) in [
        ("a=words.txt", "line 2: expected a number, found \"three\""),
        ("a=long.txt", "line 1: expected a number, found \"xxx"),
        ("a=many.txt", "2 to 256 values, not 258"),
        ("a=infinite.txt", "not a normal number"),
        ("a=huge.txt", "at most 65536 bytes"),
        ("a=none.txt", "cannot read none.txt"),
        ("int4=levels.txt", "\"int4\""),
        ("A=levels.txt", "cannot name a codebook"),
    ] {
        let error = folder.run(&["format", "--codebook", codebook]).failed(1);
        assert!(error.contains(problem), "{codebook}: {error}");
        assert!(error.len() < 1000, "{codebook}: {error}");
    }
    folder.anybit("format --codebook levels.txt").failed(2);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = command(&["format", "f16", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
