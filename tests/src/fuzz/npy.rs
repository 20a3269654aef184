//! Arrays in .npy files.

use std::ops::Range;

use anybit_import::npy::{self, NpyArray};

use super::{Target, Verdict, check_error};

pub(super) const TARGET: Target = Target {
    name: "npy",
    run,
    seeds,
    text: header,
    with_text: with_header,
    longest: 1 << 20,
    words: &[
        "'descr'",
        "'fortran_order'",
        "'shape'",
        "True",
        "False",
        "'<f4'",
        "'>f8'",
        "'<f2'",
        "(1, 2, 3)",
        "18446744073709551615",
    ],
};

fn run(input: &[u8]) -> Verdict {
    let array = match NpyArray::from_bytes(input) {
        Ok(array) => array,
        Err(error) => {
            check_error(&error);
            return Verdict::Refused;
        }
    };
    for shape in [array.matrix_shape(), array.rows_shape()] {
        match shape {
            Ok((rows, columns)) => assert_eq!(rows * columns, array.values.len()),
            Err(error) => check_error(&error),
        }
    }
    let mut file = Vec::new();
    if npy::write(&mut file, &array.shape, &array.values).is_ok() {
        // More axes than a header may list can be written, but not read.
        match NpyArray::from_bytes(&file) {
            Ok(again) => {
                let bits =
                    |array: &NpyArray| array.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!((&again.shape, bits(&again)), (&array.shape, bits(&array)));
            }
            Err(error) => panic!("what was written is refused: {error}"),
        }
    }
    Verdict::Accepted
}

/// Where the header of version 1 is.
fn header(input: &[u8]) -> Option<Range<usize>> {
    let length = u16::from_le_bytes([*input.get(8)?, *input.get(9)?]);
    let end = usize::from(length) + 10;
    (input.starts_with(b"\x93NUMPY\x01\x00") && end <= input.len()).then_some(10..end)
}

/// A file of version 1, or 2 if the header is too long for that.
fn with_header(header: &[u8], data: &[u8]) -> Vec<u8> {
    let mut file = b"\x93NUMPY".to_vec();
    match u16::try_from(header.len()) {
        Ok(length) => {
            file.extend([1, 0]);
            file.extend(length.to_le_bytes());
        }
        Err(_) => {
            file.extend([2, 0]);
            file.extend((header.len() as u32).to_le_bytes());
        }
    }
    file.extend(header);
    file.extend(data);
    file
}

fn seeds() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for shape in [&[2, 3][..], &[6], &[1, 2, 3], &[], &[0, 5]] {
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|index| index as f32 - 2.5)
            .collect();
        let mut file = Vec::new();
        npy::write(&mut file, shape, &values).expect("writes into memory");
        files.push(file);
    }
    for (descr, bytes) in [("<f2", 2), (">f4", 4), ("<f8", 8)] {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2, 3L), }}\n");
        files.push(with_header(text.as_bytes(), &vec![0x3c; 6 * bytes]));
    }
    files
}
