//! `anybit quantize`.

use anybit::formats::{
    Calibration, CodebookFormat, MatrixFormat, QuantizeOptions, Rounding, ScaleRule, quantize_with,
};

use crate::support::{Folder, npy, values};

/// What the library makes of values.
fn rounded(values: &[f32], columns: usize, format: &str, options: &QuantizeOptions) -> Vec<f32> {
    let format: MatrixFormat = format.parse().expect("a format");
    quantize_with(values, values.len() / columns, columns, format, options)
        .expect("values to quantise")
        .decode()
}

fn same_bits(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, expected)| found.to_bits() == expected.to_bits())
}

#[test]
fn formats_and_options_are_the_library_s() {
    let folder = Folder::new();
    let input = values(6 * 256, 1);
    folder.write_f32("in.npy", &[6, 256], &input);
    let default = QuantizeOptions::default();
    let calibrated = |calibration| QuantizeOptions {
        calibration: Some(calibration),
        ..default
    };
    let rounding = |rounding| QuantizeOptions {
        rounding,
        ..default
    };
    let scale_rule = |scale_rule| QuantizeOptions {
        scale_rule,
        ..default
    };
    for (flags, format, options) in [
        ("--format int4", "i4g32h", default),
        ("--format e4m3", "e4m3g32h", default),
        ("--format nf4", "nf4g32h", default),
        ("--format bitmod3", "bitmod3g128qc", default),
        ("--format mxfp4", "e2m1g32e", default),
        ("--format nvfp4", "e2m1g16k", default),
        ("--format q4_k", "u4g32sm", default),
        ("--format bf16", "bf16", default),
        ("--format i5g64f", "i5g64f", default),
        ("--format int4 --group 64 --scale f32", "i4g64f", default),
        ("--format int4 --group row", "i4rh", default),
        ("--format int4 --group tensor --scale f32", "i4f", default),
        ("--format e2m1 --scale e4m3 --group 16", "e2m1g16k", default),
        ("--format uint4 --zero minimum", "u4g32hm", default),
        (
            "--format uint4 --zero integer --scale f32",
            "u4g32fz",
            default,
        ),
        ("--format q4_1 --zero none", "u4g32h", default),
        ("--format int4 --scale none", "i4", default),
        ("--format e5m2 --scale none", "e5m2", default),
        ("--format i4 --group 32", "i4g32h", default),
        (
            "--format int4 --calibration mean-square-error",
            "i4g32h",
            calibrated(Calibration::MeanSquareError),
        ),
        (
            "--format ternary --calibration abs-max",
            "tg32h",
            calibrated(Calibration::AbsMax),
        ),
        (
            "--format int3 --rounding truncate",
            "i3g32h",
            rounding(Rounding::Truncate),
        ),
        (
            "--format e3m2 --rounding half-away",
            "e3m2g32h",
            rounding(Rounding::HalfAway),
        ),
        (
            "--format int3 --rounding stochastic:7",
            "i3g32h",
            rounding(Rounding::Stochastic { seed: 7 }),
        ),
        (
            "--format mxfp4 --scale-rule ceil",
            "e2m1g32e",
            scale_rule(ScaleRule::Ceil),
        ),
        (
            "--format int5 --scale e8m0 --scale-rule nearest",
            "i5g32e",
            scale_rule(ScaleRule::Nearest),
        ),
    ] {
        let run = folder
            .anybit(&format!("quantize in.npy {flags} --output out.npy"))
            .passed();
        assert_eq!(
            (run.stdout.as_str(), run.stderr.as_str()),
            ("", ""),
            "{flags}"
        );
        let (shape, found) = folder.read_f32("out.npy");
        assert_eq!(shape, [6, 256]);
        let expected = rounded(&input, 256, format, &options);
        assert!(same_bits(&found, &expected), "{flags}");
        assert!(!same_bits(&found, &input), "{flags} changes values");
    }
}

#[test]
fn arrays_of_any_axes_keep_their_shape() {
    let folder = Folder::new();
    let input = values(2 * 3 * 64, 2);
    for shape in [vec![384], vec![6, 64], vec![2, 3, 64], vec![2, 1, 3, 1, 64]] {
        folder.write_f32("in.npy", &shape, &input);
        folder
            .anybit("quantize in.npy --format int4 --output out.npy")
            .passed();
        let (found_shape, found) = folder.read_f32("out.npy");
        assert_eq!(found_shape, shape);
        // Groups of 32 do not care how the rows are cut.
        let expected = rounded(&input, 64, "i4g32h", &QuantizeOptions::default());
        assert!(same_bits(&found, &expected), "{shape:?}");
    }
}

#[test]
fn the_output_may_be_the_input_and_leaves_nothing_beside_it() {
    let folder = Folder::new();
    let input = values(64, 3);
    folder.write_f32("in.npy", &[64], &input);
    folder
        .anybit("quantize in.npy --format int4 --output in.npy")
        .passed();
    let expected = rounded(&input, 64, "i4g32h", &QuantizeOptions::default());
    assert!(same_bits(&folder.read_f32("in.npy").1, &expected));
    assert_eq!(folder.files(), ["in.npy"]);
}

#[test]
fn wide_and_narrow_inputs_are_rounded_to_f32() {
    let folder = Folder::new();
    let input = [0.5_f32, -1.25, 3.0, 0.0];
    let doubles: Vec<u8> = input
        .iter()
        .flat_map(|&value| f64::from(value).to_be_bytes())
        .collect();
    let halves = [0x3800_u16, 0xbd00, 0x4200, 0];
    let halves: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    for (descr, data) in [(">f8", doubles), ("<f2", halves)] {
        folder.write("in.npy", &npy(descr, false, &[2, 2], &data));
        folder
            .anybit("quantize in.npy --format f32 --output out.npy")
            .passed();
        assert_eq!(folder.read_f32("out.npy"), (vec![2, 2], input.to_vec()));
    }
}

#[test]
fn groups_nobody_asked_for_give_way() {
    let folder = Folder::new();
    for (columns, flags, format, note) in [
        (40, "--format int4", "i4rh", "one scale a row (i4rh)"),
        (
            48,
            "--format int4",
            "i4g16h",
            "one scale per 16 columns (i4g16h)",
        ),
        (96, "--format bitmod4", "bitmod4g32qc", "per 32 columns"),
        (
            40,
            "--format uint4 --zero minimum",
            "u4rhm",
            "one scale a row",
        ),
    ] {
        let input = values(3 * columns, 4);
        folder.write_f32("in.npy", &[3, columns], &input);
        let run = folder
            .anybit(&format!("quantize in.npy {flags} --output out.npy"))
            .passed();
        assert!(run.stderr.contains("note: "), "{run:?}");
        assert!(run.stderr.contains(note), "{run:?}");
        let expected = rounded(&input, columns, format, &QuantizeOptions::default());
        assert!(same_bits(&folder.read_f32("out.npy").1, &expected));
    }
    folder.write_f32("in.npy", &[3, 40], &values(120, 5));
    std::fs::remove_file(folder.path("out.npy")).expect("an output");
    for flags in [
        "--format int4 --group 32",
        "--format mxfp4",
        "--format i4g32h",
    ] {
        let error = folder
            .anybit(&format!("quantize in.npy {flags} --output out.npy"))
            .failed(1);
        assert!(
            error.contains("40 columns do not make whole groups of 32"),
            "{error}"
        );
    }
    assert_eq!(folder.files(), ["in.npy"]);
}

#[test]
fn values_must_be_finite() {
    let folder = Folder::new();
    for (value, name) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
    ] {
        let mut input = values(64, 6);
        input[37] = value;
        folder.write_f32("in.npy", &[2, 32], &input);
        for flags in [
            "--format int4",
            "--format mxfp4",
            "--format nf4",
            "--format e4m3",
            "--format e4m3 --scale none",
            "--format int4 --scale none",
            "--format f16",
            "--format f32",
            "--format int4 --rounding truncate",
        ] {
            let error = folder
                .anybit(&format!("quantize in.npy {flags} --output out.npy"))
                .failed(1);
            assert!(
                error.contains(&format!("row 1, column 5 is {name};")),
                "{flags}: {error}"
            );
        }
    }
    // f16 has no room for this one, and an f64 may be beyond f32.
    folder.write_f32("in.npy", &[1, 2], &[1.0, 1e6]);
    let error = folder
        .anybit("quantize in.npy --format f16 --output out.npy")
        .failed(1);
    assert!(error.contains("too large for f16"), "{error}");
    folder.write("in.npy", &npy("<f8", false, &[1], &1e300_f64.to_le_bytes()));
    let error = folder
        .anybit("quantize in.npy --format f32 --output out.npy")
        .failed(1);
    assert!(error.contains("is inf;"), "{error}");
    assert_eq!(folder.files(), ["in.npy"]);
}

#[test]
fn reports_are_right() {
    let folder = Folder::new();
    let input = values(4 * 64, 7);
    folder.write_f32("in.npy", &[4, 64], &input);
    let report = folder
        .anybit("quantize in.npy --format int4 --output out.npy --json")
        .json();
    let (_, found) = folder.read_f32("out.npy");
    let pairs = || {
        input
            .iter()
            .zip(&found)
            .map(|(&x, &y)| (f64::from(x), f64::from(y)))
    };
    let noise: f64 = pairs().map(|(x, y)| (x - y).powi(2)).sum();
    let signal: f64 = pairs().map(|(x, _)| x * x).sum();
    let max = pairs().fold(0.0_f64, |max, (x, y)| max.max((x - y).abs()));
    let number = |key: &str| report["error"][key].as_f64().expect("a number");
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs();
    assert_eq!(report["format"], "i4g32h");
    assert_eq!(report["bits_per_element"], 4.5);
    assert_eq!(number("max"), max);
    assert!(close(number("rms"), (noise / 256.0).sqrt()));
    assert!(close(number("relative_rms"), (noise / signal).sqrt()));
    assert!(close(number("sqnr_db"), 10.0 * (signal / noise).log10()));
    let text = folder
        .anybit("quantize in.npy --format int4 --output out.npy --report")
        .passed()
        .stdout;
    assert!(text.contains("i4g32h, 4.5000 bits an element"), "{text}");
    assert!(text.contains("SQNR"), "{text}");
    // Nothing lost: infinite decibels have a name.
    let report = folder
        .anybit("quantize in.npy --format f32 --output out.npy --json")
        .json();
    assert_eq!(report["error"]["sqnr_db"], "inf");
}

#[test]
fn a_user_s_table_is_a_format() {
    let folder = Folder::new();
    let input = values(64, 8);
    folder.write_f32("in.npy", &[64], &input);
    folder.write("levels.txt", b"-4 -1 0 1 2 8");
    folder
        .anybit("quantize in.npy --format mylevels --output out.npy --codebook mylevels=levels.txt")
        .passed();
    let levels = CodebookFormat::user("mylevels", &[-4.0, -1.0, 0.0, 1.0, 2.0, 8.0]);
    assert!(levels.is_ok());
    let expected = rounded(&input, 64, "mylevelsg32h", &QuantizeOptions::default());
    assert!(same_bits(&folder.read_f32("out.npy").1, &expected));
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    folder.write_f32("in.npy", &[2, 64], &values(128, 9));
    for (flags, problem) in [
        ("--format int9", "did you mean int8"),
        ("--format f16 --group 32", "takes no scales"),
        ("--format int4 --group 24", "not 24"),
        (
            "--format nf4 --rounding truncate",
            "no other rounding than to nearest",
        ),
        (
            "--format f32 --rounding stochastic",
            "no other rounding than to nearest",
        ),
        (
            "--format int4 --scale-rule ceil",
            "--scale-rule is for e8m0 scales",
        ),
        (
            "--format int4 --scale none --group 32",
            "no group and no zero",
        ),
        ("--format int4 --zero integer", "integer zero points"),
        ("--format nf4 --zero minimum", "cannot have zeros"),
        ("--format int4 --calibration min-max", "does not apply"),
        ("--format int4 --scale e4m3 --group row", "cannot be scaled"),
        ("--format bitmod3 --scale none", "cannot have zeros"),
    ] {
        let error = folder
            .anybit(&format!("quantize in.npy {flags} --output out.npy"))
            .failed(1);
        assert!(error.contains(problem), "{flags}: {error}");
    }
    for flags in [
        "--format int4 --rounding up",
        "--format int4 --rounding stochastic:x",
        "--format int4 --scale f64",
        "--format int4 --group many",
        "--format int4 --zero maximum",
        "",
    ] {
        folder
            .anybit(&format!("quantize in.npy {flags} --output out.npy"))
            .failed(2);
    }
    assert_eq!(folder.files(), ["in.npy"]);
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = Folder::new();
    folder.write_f32("in.npy", &[2, 64], &values(128, 10));
    for output in ["none/out.npy", ".", "in.npy/out.npy"] {
        let error = folder
            .run(&["quantize", "in.npy", "--format", "int4", "--output", output])
            .failed(1);
        assert!(error.contains("cannot write"), "{error}");
    }
    assert_eq!(folder.files(), ["in.npy"]);
}

/// A device file stays one.
#[cfg(unix)]
#[test]
fn device_files_are_written_to() {
    use std::os::unix::fs::FileTypeExt;
    let folder = Folder::new();
    folder.write_f32("in.npy", &[2, 64], &values(128, 11));
    folder
        .anybit("quantize in.npy --format int4 --output /dev/null")
        .passed();
    let metadata = std::fs::metadata("/dev/null").expect("a device");
    assert!(metadata.file_type().is_char_device());
}
