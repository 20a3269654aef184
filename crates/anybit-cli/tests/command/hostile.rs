//! Files that are damaged, or not what was expected.

use crate::support::{Folder, npy, npy_of_header, values};

const QUANTIZE: &str = "quantize in.npy --format int4 --output out.npy";

#[test]
fn truncated_files() {
    let folder = Folder::new();
    folder.write_f32("whole.npy", &[2, 32], &values(64, 1));
    let whole = std::fs::read(folder.path("whole.npy")).expect("just written");
    for length in (0..80).chain([whole.len() - 1]) {
        folder.write("in.npy", &whole[..length]);
        let error = folder.anybit(QUANTIZE).failed(1);
        assert!(error.contains("in.npy: expected"), "{length}: {error}");
        assert!(error.contains("found"), "{length}: {error}");
    }
    let longer = [&whole[..], &[0; 4]].concat();
    folder.write("in.npy", &longer);
    let error = folder.anybit(QUANTIZE).failed(1);
    assert!(
        error.contains("expected 256 bytes of values for the shape [2, 32], found 260"),
        "{error}"
    );
    assert_eq!(folder.files(), ["in.npy", "whole.npy"]);
}

#[test]
fn what_was_expected_and_what_was_found() {
    let folder = Folder::new();
    let header = |shape: &str| {
        npy_of_header(
            &format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"),
            &[0; 16],
        )
    };
    for (bytes, problem) in [
        (
            b"GGUF".to_vec(),
            "found one that does not begin with \\x93NUMPY",
        ),
        (
            npy("<f4", true, &[2, 2], &[0; 16]),
            "expected an array in C order, found Fortran order",
        ),
        (
            npy("<i4", false, &[2, 2], &[0; 16]),
            "expected values of the type f32 ('<f4'; f64 and f16 are converted), found '<i4'",
        ),
        (npy("|O", false, &[2], &[0; 16]), "found '|O'"),
        (npy("<c8", false, &[2], &[0; 16]), "found '<c8'"),
        (
            header("(4611686018427387905, 4)"),
            "more elements than can be addressed",
        ),
        (
            header("(1000000000000, 1000)"),
            "expected 4000000000000000 bytes of values",
        ),
        (
            header("(2, -2)"),
            "expected the length of an axis in the header",
        ),
        (header("(0, 1000000000000)"), "expected 0 bytes"),
        (npy("<f4", false, &[0, 4], &[]), "the array is empty"),
        (
            npy("<f4", false, &[], &[0; 4]),
            "expected an array of one axis or more",
        ),
        (
            npy_of_header(&"[".repeat(9000), &[]),
            "expected '{' in the header",
        ),
    ] {
        folder.write("in.npy", &bytes);
        let error = folder.anybit(QUANTIZE).failed(1);
        assert!(error.contains(problem), "{problem}: {error}");
    }
    folder
        .anybit("quantize none.npy --format int4 --output out.npy")
        .failed(1);
    folder
        .anybit("quantize . --format int4 --output out.npy")
        .failed(1);
}

/// An empty matrix of many rows has scales for each, which its file does not pay for.
#[test]
fn empty_matrices_of_many_rows() {
    let folder = Folder::new();
    folder.write("in.npy", &npy("<f4", false, &[4_000_000_000, 0], &[]));
    let error = folder.anybit(QUANTIZE).failed(1);
    assert!(error.contains("the array is empty"), "{error}");
    let error = folder
        .anybit(
            "matmul --activations in.npy --weights in.npy --weight-format int4 \
             --activation-format int8 --output out.npy",
        )
        .failed(1);
    assert!(error.contains("the array is empty"), "{error}");
}
