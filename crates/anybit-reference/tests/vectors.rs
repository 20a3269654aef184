//! Published examples.

mod common;

use anybit_formats::{
    ElementFormat, Granularity, MatrixFormat, PackedMatrix, ScaleType, ZeroKind, Zeros, quantize,
};
use anybit_reference::kernel::{self, Tile};
use anybit_reference::{Batches, exact};
use common::{integers, scaled};

/// The integer product of two rows, by every integer kernel.
fn product(x: &PackedMatrix, w: &PackedMatrix) -> i64 {
    let expected = exact::gemm_i64(x, w).unwrap();
    let tile = Tile::of(x, w);
    for y in [
        kernel::gemm_tiled_dot4::<i32>(x, w, Batches::ONE, tile),
        kernel::gemm_tiled_bitplane(x, w, Batches::ONE, tile),
        kernel::gemv_dot4(x, w, Batches::ONE, tile),
        kernel::gemv_bitplane(x, w, Batches::ONE, tile),
    ] {
        assert_eq!(vec![i64::from(y.unwrap()[0])], expected);
    }
    expected[0]
}

/// A row of 2-bit words as they stand, so that two's complement words have their top bit flipped to become codes.
fn words(element: ElementFormat, words: &[u8]) -> PackedMatrix {
    let flip = if element == ElementFormat::INT2 { 2 } else { 0 };
    let codes: Vec<u8> = words.iter().map(|word| word ^ flip).collect();
    let format = MatrixFormat::new(element, None).unwrap();
    PackedMatrix::from_codes(format, 1, codes.len(), &codes, &[], Zeros::None).unwrap()
}

/// APMM, arXiv:2409.17870.
#[test]
fn apmm_products() {
    let (a, b) = ([0, 1, 2, 3], [3, 0, 2, 1]);
    let of = |x, w| product(&words(x, &a), &words(w, &b));
    use ElementFormat as E;
    assert_eq!(of(E::BIPOLAR2, E::BIPOLAR2), -8);
    assert_eq!(of(E::UINT2, E::UINT2), 7);
    assert_eq!(of(E::INT2, E::INT2), 3);
    assert_eq!(of(E::BIPOLAR2, E::INT2), 4);
}

/// T-MAC, arXiv:2407.00088: the planes of w look up 10 and 6, and the tables of bytes have the scale 6.5 / 127.
#[test]
fn t_mac_products() {
    // Columns 0, 4, 8 and 12 are a group.
    let spread = |values: [f32; 4]| {
        let mut row = vec![0.0; 16];
        for (i, value) in values.into_iter().enumerate() {
            row[4 * i] = value;
        }
        row
    };
    let x = anybit_reference::activations(&spread([1.0, -2.0, 3.0, 0.5]), 16).unwrap();
    let w: Vec<i32> = spread([-2.0, 1.0, 0.0, -1.0])
        .iter()
        .map(|&w| w as i32)
        .collect();
    let w = integers(ElementFormat::INT2, 16, &w);
    let tile = Tile::of(&x, &w);
    assert_eq!(exact::gemm_f64(&x, &w).unwrap(), [-4.5]);
    assert_eq!(
        kernel::gemv_lut(&x, &w, Batches::ONE, tile).unwrap(),
        [-4.5]
    );
    // ½·T[10] + T[6] − ½·Σ x with T[10] = −107 and T[6] = −10 in units of the scale.
    let rounded = kernel::gemv_lut8(&x, &w, Batches::ONE, tile).unwrap()[0];
    let expected = (-0.5 * 107.0 - 10.0) * 6.5 / 127.0 - 0.5 * 2.5;
    assert!(
        (f64::from(rounded) - expected).abs() < 1e-6,
        "{rounded} {expected}"
    );
}

/// Bipolar from unsigned sums: 4 Σuu − 2(2^q − 1) Σu_w − 2(2^p − 1) Σu_x + K (2^p − 1)(2^q − 1).
#[test]
fn apmm_bipolar_from_unsigned() {
    for (x, w, bits) in [
        (ElementFormat::UINT3, ElementFormat::UINT5, (3, 5)),
        (ElementFormat::UINT8, ElementFormat::UINT1, (8, 1)),
    ] {
        let k = 77;
        let unsigned = |element| common::matrix(MatrixFormat::new(element, None).unwrap(), 1, k, 9);
        let (x, w) = (unsigned(x), unsigned(w));
        let bipolar = |matrix: &PackedMatrix, bits| {
            let affine = anybit_formats::AffineFormat::new(bits, anybit_formats::Encoding::Bipolar);
            let format = MatrixFormat::new(affine.unwrap().into(), None).unwrap();
            let codes = matrix.unpack_codes();
            PackedMatrix::from_codes(format, 1, k, &codes, &[], Zeros::None).unwrap()
        };
        let sum = |matrix: &PackedMatrix| -> i64 {
            matrix.unpack_codes().iter().map(|&u| i64::from(u)).sum()
        };
        let (q, p) = ((1 << bits.0) - 1, (1 << bits.1) - 1);
        assert_eq!(
            product(&bipolar(&x, bits.0), &bipolar(&w, bits.1)),
            4 * product(&x, &w) - 2 * q * sum(&w) - 2 * p * sum(&x) + k as i64 * p * q
        );
    }
}

#[test]
fn apmm_values() {
    let decode = |element: ElementFormat, codes: &[u8]| {
        let format = MatrixFormat::new(element, None).unwrap();
        let matrix =
            PackedMatrix::from_codes(format, 1, codes.len(), codes, &[], Zeros::None).unwrap();
        kernel::decode(&matrix)
    };
    assert_eq!(
        decode(ElementFormat::BIPOLAR3, &[0, 1, 2, 3, 4, 5, 6, 7]),
        [-7.0, -5.0, -3.0, -1.0, 1.0, 3.0, 5.0, 7.0]
    );
    // −2 to 1 as int2 are the codes of −3 to 3 as bipolar2.
    let codes = integers(ElementFormat::INT2, 4, &[-2, -1, 0, 1]).unpack_codes();
    assert_eq!(
        decode(ElementFormat::BIPOLAR2, &codes),
        [-3.0, -1.0, 1.0, 3.0]
    );
}

/// The nibbles of COMET, arXiv:2410.12168: [1, −3, 7, −8, 0, 5, −1, 2] in the order 0 4 1 5 2 6 3 7 are 0x28f75d01.
/// That is the order of a word here; the codes differ by the flipped top bit of two's complement.
#[test]
fn comet_nibbles() {
    let values = [1, -3, 7, -8, 0, 5, -1, 2];
    let matrix = integers(ElementFormat::INT4, 8, &values);
    let word = matrix.pieces().next().unwrap()[0];
    assert_eq!(word ^ 0x8888_8888, 0x28f7_5d01);
    // Its trick, nibbles in the high half of a byte, is 16 times the value.
    let high = |word: u32| (word & 0xf0f0_f0f0).to_le_bytes().map(|byte| byte as i8);
    assert_eq!(high((word ^ 0x8888_8888) << 4), [16, -48, 112, -128]);
    assert_eq!(high(word ^ 0x8888_8888), [0, 80, -16, 32]);
    assert_eq!(product(&matrix, &matrix), 153);
}

/// Y = s_w·s_x·(Σ q_w·q_x − z_w·Σ q_x), the correction that COMET's asymmetric caches need.
#[test]
fn comet_zero_point() {
    let x = integers(ElementFormat::INT8, 4, &[3, -5, 100, 7]);
    let format = scaled(
        ElementFormat::UINT4,
        Granularity::Row,
        ScaleType::F32,
        ZeroKind::Integer,
    );
    let codes = [1, 15, 0, 9];
    let w = PackedMatrix::from_codes(format, 1, 4, &codes, &[0.5], Zeros::Integer(&[6])).unwrap();
    let (products, sum) = (3 - 5 * 15 + 7 * 9, 3 - 5 + 100 + 7);
    assert_eq!(product(&x, &w), products - 6 * sum);
    assert_eq!(
        exact::gemm_f64(&x, &w).unwrap(),
        [0.5 * (products - 6 * sum) as f64]
    );
}

#[test]
fn ternary_products() {
    let w = integers(ElementFormat::TERNARY, 8, &[1, -1, 0, 1, -1, 0, 0, 1]);
    let x = integers(ElementFormat::TERNARY, 8, &[1, 1, -1, 0, -1, -1, 1, 1]);
    assert_eq!(product(&x, &w), 2);
    let mask = |matrix: &PackedMatrix, value: i32| -> u8 {
        let values = matrix.integer_values().unwrap();
        (0..8).fold(0, |mask, k| mask | u8::from(values[k] == value) << k)
    };
    let (wp, wn, xp, xn) = (mask(&w, 1), mask(&w, -1), mask(&x, 1), mask(&x, -1));
    assert_eq!([wp, wn, xp, xn], [0x89, 0x12, 0xc3, 0x34]);
    let count = |mask: u8| i64::from(mask.count_ones());
    assert_eq!(
        product(&x, &w),
        count(wp & xp) + count(wn & xn) - count(wp & xn) - count(wn & xp)
    );
}

/// BitNet b1.58, arXiv:2402.17764: the scale is the mean magnitude, and codes are rounded to even.
#[test]
fn ternary_weights() {
    let values = [0.9, -0.2, 0.05, -1.4];
    let expected = [1, 0, 0, -1];
    let format = MatrixFormat::activation_default(ElementFormat::TERNARY);
    let twin = kernel::quantize_rows(&values, 1, 4, &format, 64).unwrap();
    assert_eq!(twin.matrix.integer_values().unwrap(), expected);
    assert!((twin.matrix.scale(0, 0) - 0.6375).abs() < 1e-7);
    let host = quantize(&values, 1, 4, format, None).unwrap();
    assert_eq!(host.integer_values().unwrap(), expected);
}

/// sign(0) is +1, of either zero.
#[test]
fn binary_signs() {
    let values = [0.5, -0.5, 0.0, -0.0];
    let binary = MatrixFormat::activation_default(ElementFormat::BINARY);
    let twin = kernel::quantize_rows(&values, 1, 4, &binary, 64).unwrap();
    assert_eq!(twin.matrix.integer_values().unwrap(), [1, -1, 1, 1]);
    assert_eq!(twin.matrix.scale(0, 0), 0.25);
}

/// Symmetric: scale = absmax / (2ⁿ⁻¹ − 1), ties to even.
#[test]
fn symmetric_codes() {
    let values = [0.2_f32, -0.625, 0.5, 1.75];
    let int4 = MatrixFormat::activation_default(ElementFormat::INT4);
    let twin = kernel::quantize_rows(&values, 1, 4, &int4, 64).unwrap();
    assert_eq!(twin.matrix.scale(0, 0), 0.25);
    // 0.8, −2.5, 2, 7.
    assert_eq!(twin.matrix.integer_values().unwrap(), [1, -2, 2, 7]);
}
