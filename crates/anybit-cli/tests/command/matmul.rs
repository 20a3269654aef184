//! `anybit matmul`, against products in f64.

use anybit::formats::{
    CodebookFormat, MatrixFormat, PackedMatrix, QuantizeOptions, Rounding, quantize_with,
};
use anybit_reference::bound;

use crate::support::{Folder, Run, adapter_flags, values};

/// Writes X of M×K and W of N×K.
fn operands(folder: &Folder, (m, n, k): (usize, usize, usize)) -> (Vec<f32>, Vec<f32>) {
    let (x, w) = (values(m * k, 20), values(n * k, 21));
    folder.write_f32("x.npy", &[m, k], &x);
    folder.write_f32("w.npy", &[n, k], &w);
    (x, w)
}

fn matmul(folder: &Folder, flags: &str, adapter: &[String]) -> Run {
    let mut line: Vec<&str> = "matmul --activations x.npy --weights w.npy --output y.npy"
        .split(' ')
        .collect();
    line.extend(flags.split_whitespace());
    line.extend(adapter.iter().map(String::as_str));
    folder.run(&line)
}

/// X·Wᵀ in f64.
fn product(x: &[f64], w: &[f64], k: usize) -> Vec<f64> {
    x.chunks(k)
        .flat_map(|x| {
            w.chunks(k)
                .map(move |w| x.iter().zip(w).map(|(x, w)| x * w).sum())
        })
        .collect()
}

fn packed(values: &[f32], k: usize, format: &str, options: &QuantizeOptions) -> PackedMatrix {
    let format: MatrixFormat = format.parse().expect("a format");
    quantize_with(values, values.len() / k, k, format, options).expect("values to quantise")
}

/// Runs a product and checks every value of it, and the report.
fn check(
    folder: &Folder,
    shape: (usize, usize, usize),
    flags: &str,
    (x, w): (&PackedMatrix, &PackedMatrix),
    given: (&[f32], &[f32]),
    adapter: &[String],
) {
    let (m, n, k) = shape;
    let report = matmul(folder, &format!("{flags} --json"), adapter).json();
    assert_eq!(
        report["weights"]["format"],
        w.format().to_string(),
        "{flags}"
    );
    assert_eq!(
        report["activations"]["format"],
        x.format().to_string(),
        "{flags}"
    );
    let (found_shape, found) = folder.read_f32("y.npy");
    assert_eq!(found_shape, [m, n], "{flags}");

    let expected = product(&x.decode_f64(), &w.decode_f64(), k);
    let engine = report["engine"].as_str().expect("an engine");
    let bounds = match engine {
        "fma" => bound::gemm_fma_bound(x, w),
        _ => bound::gemm_integer_bound(x, w),
    }
    .expect("a bound");
    let kernel = report["kernel"].as_str().expect("a kernel");
    assert!(kernel.contains(&format!("__{engine}_")), "{report}");
    assert_eq!(found.len(), m * n);
    for (index, ((&found, expected), bound)) in found.iter().zip(&expected).zip(bounds).enumerate()
    {
        let difference = (f64::from(found) - expected).abs();
        assert!(
            difference <= bound,
            "{flags} {shape:?} {kernel}: {found} at {index} is {difference:e} from {expected}, \
             the bound is {bound:e}"
        );
    }

    let wide = |values: &[f32]| -> Vec<f64> { values.iter().copied().map(f64::from).collect() };
    let unquantised = product(&wide(given.0), &wide(given.1), k);
    for (key, exact) in [("error", &unquantised), ("kernel_error", &expected)] {
        let max = found.iter().zip(exact).fold(0.0_f64, |max, (&y, exact)| {
            max.max((f64::from(y) - exact).abs())
        });
        let reported = report[key]["max"].as_f64().expect("a number");
        // The order of the sums in f64 may differ.
        assert!(
            (reported - max).abs() <= 1e-12 * (1.0 + max),
            "{key}: {report}, {max}"
        );
    }
}

#[test]
fn pairs_of_formats_against_f64() {
    let Some(adapter) = adapter_flags("pairs_of_formats_against_f64") else {
        return;
    };
    let folder = Folder::new();
    folder.write("levels.txt", b"-3 -1.5 0 0.75 1 6");
    CodebookFormat::user("levels", &[-3.0, -1.5, 0.0, 0.75, 1.0, 6.0]).expect("a codebook");
    for (shape, flags, weight, activation) in [
        (
            (3, 7, 96),
            "--weight-format int4 --activation-format int8",
            "i4g32h",
            "i8rf",
        ),
        (
            (1, 5, 96),
            "--weight-format int4 --activation-format f32",
            "i4g32h",
            "f32",
        ),
        (
            (5, 9, 40),
            "--weight-format int4 --activation-format int8",
            "i4rh",
            "i8rf",
        ),
        (
            (2, 6, 64),
            "--weight-format uint4 --zero minimum --activation-format int8",
            "u4g32hm",
            "i8rf",
        ),
        (
            (2, 6, 64),
            "--weight-format uint4 --zero integer --activation-format uint8 --activation-zero integer",
            "u4g32hz",
            "u8rfz",
        ),
        (
            (9, 33, 70),
            "--weight-format binary --activation-format binary",
            "b1rh",
            "b1rf",
        ),
        (
            (4, 3, 64),
            "--weight-format ternary --activation-format int8",
            "tg32h",
            "i8rf",
        ),
        (
            (3, 5, 33),
            "--weight-format int2 --activation-format int3 --engine bitplane",
            "i2rh",
            "i3rf",
        ),
        (
            (3, 5, 33),
            "--weight-format int2 --activation-format int3 --engine fma",
            "i2rh",
            "i3rf",
        ),
        (
            (3, 5, 64),
            "--weight-format mxfp4 --activation-format mxfp8e4m3",
            "e2m1g32e",
            "e4m3g32e",
        ),
        (
            (3, 5, 64),
            "--weight-format nvfp4 --activation-format int8 --engine dot4",
            "e2m1g16k",
            "i8rf",
        ),
        (
            (2, 5, 64),
            "--weight-format nf4 --group 64 --scale f32 --activation-format f16",
            "nf4g64f",
            "f16",
        ),
        (
            (2, 5, 128),
            "--weight-format bitmod4 --activation-format int8",
            "bitmod4g128qc",
            "i8rf",
        ),
        (
            (2, 5, 256),
            "--weight-format q4_k --activation-format f32",
            "u4g32sm",
            "f32",
        ),
        (
            (2, 5, 32),
            "--weight-format levels --codebook levels=levels.txt --activation-format f32",
            "levelsg32h",
            "f32",
        ),
        (
            (2, 5, 32),
            "--weight-format bf16 --activation-format bf16",
            "bf16",
            "bf16",
        ),
        (
            (2, 5, 64),
            "--weight-format e5m2 --scale none --activation-format e4m3 --activation-group 32 --activation-scale e8m0",
            "e5m2",
            "e4m3g32e",
        ),
    ] {
        let (x, w) = operands(&folder, shape);
        let options = QuantizeOptions::default();
        let (packed_x, packed_w) = (
            packed(&x, shape.2, activation, &options),
            packed(&w, shape.2, weight, &options),
        );
        check(
            &folder,
            shape,
            flags,
            (&packed_x, &packed_w),
            (&x, &w),
            &adapter,
        );
    }
}

/// Rounding and calibration reach each operand that has a use for them.
#[test]
fn options_of_both_operands() {
    let Some(adapter) = adapter_flags("options_of_both_operands") else {
        return;
    };
    let folder = Folder::new();
    let shape = (3, 4, 64);
    let (x, w) = operands(&folder, shape);
    let stochastic = |seed| QuantizeOptions {
        rounding: Rounding::Stochastic { seed },
        ..QuantizeOptions::default()
    };
    check(
        &folder,
        shape,
        "--weight-format int4 --activation-format int8 --rounding stochastic:5",
        (
            &packed(&x, 64, "i8rf", &stochastic(6)),
            &packed(&w, 64, "i4g32h", &stochastic(5)),
        ),
        (&x, &w),
        &adapter,
    );
    let truncate = QuantizeOptions {
        rounding: Rounding::Truncate,
        ..QuantizeOptions::default()
    };
    check(
        &folder,
        shape,
        "--weight-format int4 --activation-format f16 --rounding truncate",
        (
            &packed(&x, 64, "f16", &QuantizeOptions::default()),
            &packed(&w, 64, "i4g32h", &truncate),
        ),
        (&x, &w),
        &adapter,
    );
}

#[test]
fn reports_and_silence() {
    let Some(adapter) = adapter_flags("reports_and_silence") else {
        return;
    };
    let folder = Folder::new();
    operands(&folder, (3, 4, 64));
    let flags = "--weight-format int4 --activation-format int8";
    let run = matmul(&folder, flags, &adapter).passed();
    assert_eq!(run.stdout, "");
    let text = matmul(&folder, &format!("{flags} --self-check --report"), &adapter)
        .passed()
        .stdout;
    for part in [
        "M = 3, N = 4, K = 64",
        "i4g32h, 4.5000 bits an element",
        "i8rf, 8.5000 bits an element",
        "gemm_i8rf_i4g32h_f32__",
        "adapter ",
        "SQNR",
        "kernel error",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn impossible_pairs_say_what_each_engine_has_against_them() {
    let Some(adapter) = adapter_flags("impossible_pairs") else {
        return;
    };
    let folder = Folder::new();
    operands(&folder, (3, 4, 64));
    for (engine, weight) in [("bitplane", "e4m3"), ("dot4", "e5m2"), ("bitplane", "nf4")] {
        let error = matmul(
            &folder,
            &format!("--weight-format {weight} --activation-format int8 --engine {engine}"),
            &adapter,
        )
        .failed(1);
        assert!(
            error.contains(&format!("no kernel for gemm_i8rf_{weight}g32h_f32 on ")),
            "{error}"
        );
        let lines = |start: &str| error.lines().filter(|line| line.starts_with(start)).count();
        for name in ["fma", "dot4", "bitplane"] {
            assert_eq!(lines(&format!("  {name}: ")), 1, "{error}");
        }
        assert_eq!(
            lines(&format!("  {engine}: does not take {weight}g32h weights")),
            1,
            "{error}"
        );
        assert!(
            error.contains(&format!("ruled out by --engine {engine}")),
            "{error}"
        );
        assert!(error.contains("without --engine"), "{error}");
    }
    assert_eq!(folder.files(), ["w.npy", "x.npy"]);
}

#[test]
fn wrong_operands() {
    let folder = Folder::new();
    operands(&folder, (3, 4, 64));
    let error = matmul(
        &folder,
        "--weight-format int9 --activation-format int8",
        &[],
    )
    .failed(1);
    assert!(
        error.contains("weights: no format is named \"int9\"; did you mean int8"),
        "{error}"
    );
    let error = matmul(
        &folder,
        "--weight-format int4 --activation-format mxfp5",
        &[],
    )
    .failed(1);
    assert!(
        error.contains("activations: no format is named \"mxfp5\"; did you mean mxfp4"),
        "{error}"
    );
    folder.write_f32("w.npy", &[4, 32], &values(128, 1));
    let error = matmul(
        &folder,
        "--weight-format int4 --activation-format int8",
        &[],
    )
    .failed(1);
    assert!(error.contains("found K = 64 and K = 32"), "{error}");
    folder.write_f32("w.npy", &[128], &values(128, 1));
    let error = matmul(
        &folder,
        "--weight-format int4 --activation-format int8",
        &[],
    )
    .failed(1);
    assert!(
        error.contains("w.npy: expected a matrix, an array of two axes, found the shape [128]"),
        "{error}"
    );
    let mut bad = values(4 * 64, 1);
    bad[70] = f32::NAN;
    folder.write_f32("w.npy", &[4, 64], &bad);
    let error = matmul(
        &folder,
        "--weight-format int4 --activation-format int8",
        &[],
    )
    .failed(1);
    assert!(
        error.contains("weights: the value at row 1, column 6 is NaN"),
        "{error}"
    );
    folder.write_f32("w.npy", &[4, 64], &values(4 * 64, 1));
    let error = matmul(
        &folder,
        "--weight-format int4 --activation-format int8 --adapter nosuchadapter",
        &[],
    )
    .failed(1);
    assert!(
        error.contains("no adapter matches the name \"nosuchadapter\""),
        "{error}"
    );
    matmul(
        &folder,
        "--weight-format int4 --activation-format int8 --engine cuda",
        &[],
    )
    .failed(2);
    matmul(
        &folder,
        "--weight-format int4 --activation-format int8 --backend cuda",
        &[],
    )
    .failed(2);
    matmul(&folder, "--weight-format int4", &[]).failed(2);
    assert_eq!(folder.files(), ["w.npy", "x.npy"]);
}
