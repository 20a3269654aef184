//! Worked examples from the papers, and the bit-plane identities that kernels rest on.

mod support;

use anybit_formats::{
    Calibration, DeviceLayout, ElementFormat, MatrixFormat, Memory, PackedMatrix, PieceLayout,
    SumLayout, Zeros, quantize,
};
use support::Random;

/// The asymmetric forms differ where a value sits on a tie.
#[test]
fn minimum_and_zero_point_of_the_same_values() {
    let values = [0.2, -1.0, 0.5, 2.0];
    let minimum = quantize(&values, 1, 4, "u4fm".parse().unwrap(), None).unwrap();
    assert_eq!(minimum.scale(0, 0), 0.2);
    assert_eq!(minimum.minimum(0, 0), -1.0);
    assert_eq!(minimum.unpack_codes(), [6, 0, 8, 15]);
    let point = quantize(&values, 1, 4, "u4fz".parse().unwrap(), None).unwrap();
    assert_eq!(point.zero_point(0, 0), 5);
    assert_eq!(point.unpack_codes(), [6, 0, 7, 15]);
}

#[test]
fn ternary_by_mean_magnitude() {
    let matrix = quantize(&[0.9, -0.2, 0.05, -1.4], 1, 4, "tf".parse().unwrap(), None).unwrap();
    assert!((matrix.scale(0, 0) - 0.6375).abs() < 1e-7);
    assert_eq!(matrix.integer_values().unwrap(), [1, 0, 0, -1]);
}

#[test]
fn bipolar_values_of_two_and_three_bits() {
    let values = |element: ElementFormat| {
        let affine = element.affine().unwrap();
        (0..=affine.max_code())
            .map(|code| affine.value(code))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        values(ElementFormat::BIPOLAR3),
        [-7, -5, -3, -1, 1, 3, 5, 7]
    );
    assert_eq!(values(ElementFormat::BIPOLAR2), [-3, -1, 1, 3]);
    assert_eq!(values(ElementFormat::INT2), [-2, -1, 0, 1]);
}

/// The planes of a one-row matrix: `planes[i]` are the words of bit i.
fn planes(element: ElementFormat, codes: &[u8]) -> Vec<Vec<u32>> {
    let format = MatrixFormat::new(element, None).unwrap();
    let matrix = PackedMatrix::from_codes(format, 1, codes.len(), codes, &[], Zeros::None).unwrap();
    let layout = DeviceLayout {
        pieces: PieceLayout::Planes,
        interleave: 1,
        sums: SumLayout::None,
        memory: Memory::Buffers,
    };
    let image = matrix.to_device(&layout).unwrap();
    let words = codes.len().div_ceil(32);
    image
        .sections
        .pieces
        .iter()
        .map(|&start| image.codes[start as usize..][..words].to_vec())
        .collect()
}

/// The same with column k at bit k.
fn natural_planes(bits: u32, codes: &[u8]) -> Vec<Vec<u32>> {
    (0..bits)
        .map(|bit| {
            let word = |codes: &[u8]| {
                codes
                    .iter()
                    .zip(0..)
                    .fold(0, |word, (&code, k)| word | u32::from(code >> bit & 1) << k)
            };
            codes.chunks(32).map(word).collect()
        })
        .collect()
}

fn popcounts(a: &[Vec<u32>], b: &[Vec<u32>], op: fn(u32, u32) -> u32) -> Vec<Vec<i64>> {
    let count = |a: &[u32], b: &[u32]| {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| i64::from(op(a, b).count_ones()))
            .sum()
    };
    a.iter()
        .map(|a| b.iter().map(|b| count(a, b)).collect())
        .collect()
}

fn and(a: u32, b: u32) -> u32 {
    a & b
}

fn xor(a: u32, b: u32) -> u32 {
    a ^ b
}

/// Σ over plane pairs of term(i, j, popcount) · 2^(i + j).
fn recover(counts: &[Vec<i64>], term: impl Fn(usize, usize, i64) -> i64) -> i64 {
    let pairs = counts
        .iter()
        .enumerate()
        .flat_map(|(i, row)| row.iter().enumerate().map(move |(j, &n)| (i, j, n)));
    pairs.map(|(i, j, n)| term(i, j, n) << (i + j)).sum()
}

#[test]
fn two_bit_plane_products() {
    let (a, b) = ([0_u8, 1, 2, 3], [3_u8, 0, 2, 1]);
    assert_eq!(natural_planes(2, &a), [[0b1010], [0b1100]]);
    assert_eq!(natural_planes(2, &b), [[0b1001], [0b0101]]);
    // Our order puts codes 0 to 3 at bits 0, 8, 16, 24; counts do not mind.
    assert_eq!(
        planes(ElementFormat::UINT2, &a),
        [[0x0100_0100], [0x0101_0000]]
    );
    for (planes_a, planes_b) in [
        (natural_planes(2, &a), natural_planes(2, &b)),
        (
            planes(ElementFormat::UINT2, &a),
            planes(ElementFormat::UINT2, &b),
        ),
    ] {
        let xor_counts = popcounts(&planes_a, &planes_b, xor);
        let and_counts = popcounts(&planes_a, &planes_b, and);
        assert_eq!(xor_counts, [[2, 4], [2, 2]]);
        assert_eq!(and_counts, [[1, 0], [1, 1]]);
        assert_eq!(recover(&xor_counts, |_, _, n| 4 - 2 * n), -8);
        assert_eq!(recover(&and_counts, |_, _, n| n), 7);
    }
    // Two's-complement words keep their sign bit: flip the top bit of stored codes, and the top
    // plane counts negative.
    let words = |codes: &[u8]| -> Vec<u8> { codes.iter().map(|code| code ^ 2).collect() };
    let value = |codes: &[u8], element: ElementFormat| -> Vec<i64> {
        codes
            .iter()
            .map(|&code| i64::from(element.affine().unwrap().value(code)))
            .collect()
    };
    let dot = |a: &[i64], b: &[i64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<i64>();
    let (int2, bipolar2) = (ElementFormat::INT2, ElementFormat::BIPOLAR2);
    assert_eq!(dot(&value(&words(&a), int2), &value(&words(&b), int2)), 3);
    assert_eq!(dot(&value(&a, bipolar2), &value(&words(&b), int2)), 4);
    let sign = |plane: usize| if plane == 1 { -1 } else { 1 };
    let (planes_a, planes_b) = (planes(int2, &a), planes(int2, &b));
    let counts = popcounts(&planes_a, &planes_b, and);
    assert_eq!(recover(&counts, |i, j, n| sign(i) * sign(j) * n), 3);
    let ones: Vec<i64> = planes_b
        .iter()
        .map(|plane| plane.iter().map(|word| i64::from(word.count_ones())).sum())
        .collect();
    assert_eq!(recover(&counts, |_, j, n| sign(j) * (2 * n - ones[j])), 4);
}

/// Σ(a_w·u_w + b_w)(a_x·u_x + b_x) from one unsigned dot, two sums of codes and the real K, for
/// every pair of formats; the unsigned dot from the planes.
#[test]
fn one_unsigned_dot_serves_every_pair() {
    let mut random = Random(11);
    for columns in [1, 31, 32, 33, 576] {
        let mut operands = Vec::new();
        for element in support::affine_elements() {
            let codes_of = u64::from(element.affine().unwrap().max_code()) + 1;
            let codes: Vec<u8> = (0..columns).map(|_| random.below(codes_of) as u8).collect();
            let format = MatrixFormat::new(element, None).unwrap();
            let matrix =
                PackedMatrix::from_codes(format, 1, columns, &codes, &[], Zeros::None).unwrap();
            let layout = DeviceLayout {
                pieces: PieceLayout::Planes,
                interleave: 4,
                sums: SumLayout::Groups,
                memory: Memory::Buffers,
            };
            let image = matrix.to_device(&layout).unwrap();
            let sum = i64::from(image.side[image.sections.sums as usize]);
            operands.push((
                element.affine().unwrap(),
                matrix,
                planes(element, &codes),
                sum,
            ));
        }
        for (w, w_matrix, w_planes, w_sum) in &operands {
            for (x, x_matrix, x_planes, x_sum) in &operands {
                let unsigned = recover(&popcounts(w_planes, x_planes, and), |_, _, n| n);
                let ((aw, bw), (ax, bx)) = (w.coefficients(), x.coefficients());
                let [aw, bw, ax, bx] = [aw, bw, ax, bx].map(i64::from);
                let k = columns as i64;
                let dot = aw * ax * unsigned + aw * bx * w_sum + bw * ax * x_sum + k * bw * bx;
                let integers = |matrix: &PackedMatrix| {
                    matrix.integer_values().unwrap().into_iter().map(i64::from)
                };
                let expected: i64 = integers(w_matrix)
                    .zip(integers(x_matrix))
                    .map(|(w, x)| w * x)
                    .sum();
                assert_eq!(dot, expected, "{w:?} {x:?} {columns}");
            }
        }
    }
}

/// Masks of the positive and negative weights.
#[test]
fn ternary_dot_by_masks() {
    let (w, x) = (
        [1_i64, -1, 0, 1, -1, 0, 0, 1],
        [1_i64, 1, -1, 0, -1, -1, 1, 1],
    );
    let codes =
        |values: &[i64]| -> Vec<u8> { values.iter().map(|&value| (value + 1) as u8).collect() };
    let mask = |values: &[i64], of: i64| -> u32 {
        values
            .iter()
            .zip(0..)
            .fold(0, |mask, (&value, k)| mask | u32::from(value == of) << k)
    };
    assert_eq!(
        (mask(&w, 1), mask(&w, -1), mask(&x, 1), mask(&x, -1)),
        (0x89, 0x12, 0xc3, 0x34)
    );
    let by_masks = |wp: u32, wn: u32, xp: u32, xn: u32| {
        let ones = |word: u32| i64::from(word.count_ones());
        let nonzero = (wp | wn) & (xp | xn);
        let dot = ones(wp & xp) + ones(wn & xn) - ones(wp & xn) - ones(wn & xp);
        assert_eq!(dot, ones(nonzero) - 2 * ones(nonzero & (wn ^ xn)));
        dot
    };
    assert_eq!(by_masks(0x89, 0x12, 0xc3, 0x34), 2);
    // From our planes: bit 1 of the code says +1; −1 is neither bit, among the real columns.
    let (w_planes, x_planes) = (
        planes(ElementFormat::TERNARY, &codes(&w)),
        planes(ElementFormat::TERNARY, &codes(&x)),
    );
    let real = 0x0303_0303;
    let negative = |planes: &[Vec<u32>]| real & !(planes[0][0] | planes[1][0]);
    assert_eq!(
        by_masks(
            w_planes[1][0],
            negative(&w_planes),
            x_planes[1][0],
            negative(&x_planes)
        ),
        2
    );
    // And as the affine format it is: Σ(u_w − 1)(u_x − 1).
    let counts = popcounts(&w_planes, &x_planes, and);
    let sum = |values: &[i64]| values.iter().map(|value| value + 1).sum::<i64>();
    assert_eq!(recover(&counts, |_, _, n| n) - sum(&w) - sum(&x) + 8, 2);
}

#[test]
fn binary_takes_zero_as_plus_one() {
    let matrix = quantize(&[0.0, -0.0, -0.5, 1.5], 1, 4, "b1rf".parse().unwrap(), None).unwrap();
    assert_eq!(matrix.integer_values().unwrap(), [1, 1, -1, 1]);
    assert_eq!(matrix.scale(0, 0), 0.5);
}

#[test]
fn symmetric_codes_leave_the_most_negative_unused() {
    let values = [-7.0, -3.5, 0.0, 2.5, 7.0];
    let matrix = quantize(
        &values,
        1,
        5,
        "i4rf".parse().unwrap(),
        Some(Calibration::AbsMax),
    )
    .unwrap();
    assert_eq!(matrix.scale(0, 0), 1.0);
    // Ties go to even.
    assert_eq!(matrix.integer_values().unwrap(), [-7, -4, 0, 2, 7]);
    // Elsewhere the least value is used.
    assert_eq!(
        quantize(&[-9.0], 1, 1, "i4".parse().unwrap(), None)
            .unwrap()
            .integer_values()
            .unwrap(),
        [-8]
    );
    let matrix = quantize(&[-1.0, 0.7, 0.2, -0.4], 1, 4, "i1rf".parse().unwrap(), None).unwrap();
    assert_eq!(matrix.integer_values().unwrap(), [-1, 0, 0, 0]);
}
