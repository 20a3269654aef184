//! web-rwkv's operands: made, multiplied, and the product in f64.

use half::f16;
use web_rwkv::context::Context;
use web_rwkv::runtime::infer::rnn::MIN_TOKEN_CHUNK_SIZE;
use web_rwkv::tensor::kind::ReadWrite;
use web_rwkv::tensor::matrix::{Float4Quant, Matrix};
use web_rwkv::tensor::ops::{Activation, TensorOp};
use web_rwkv::tensor::shape::Shape;
use web_rwkv::tensor::{TensorError, TensorGpu};

use crate::Error;

/// How web-rwkv stores weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// A byte each, with a least and a greatest value every 128.
    Int8,
    /// Four bits each, with a largest magnitude every 64.
    Nf4,
}

impl Weights {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Nf4 => "nf4",
        }
    }

    pub(crate) const fn bits(self) -> u32 {
        match self {
            Self::Int8 => 8,
            Self::Nf4 => 4,
        }
    }
}

/// web-rwkv's two kernels for a product: a dot product a workgroup, and tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Vector,
    Matrix,
}

impl Kind {
    /// The kernels for so many tokens: tiles where web-rwkv itself takes them, for whole chunks, else whichever is faster.
    pub(crate) const fn of(tokens: usize) -> &'static [Self] {
        if tokens.is_multiple_of(MIN_TOKEN_CHUNK_SIZE) {
            &[Self::Matrix]
        } else {
            &[Self::Vector, Self::Matrix]
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vector => "vec",
            Self::Matrix => "mat",
        }
    }
}

/// X of M×K and W of N×K on the device, Y of M×N, and X·Wᵀ in f64.
pub(crate) struct Operands {
    input: TensorGpu<f32, ReadWrite>,
    matrix: Matrix,
    output: TensorGpu<f32, ReadWrite>,
    /// Some rows of the product, each with its index.
    reference: Vec<(usize, Vec<f64>)>,
}

/// How many rows of the product are checked: all of a small one.
const CHECKED_ROWS: usize = 128;

impl Operands {
    pub(crate) fn new(
        context: &Context,
        weights: Weights,
        m: usize,
        n: usize,
        k: usize,
    ) -> Result<Self, Error> {
        let block = match weights {
            Weights::Int8 => TensorOp::INT8_BLOCK_SIZE,
            Weights::Nf4 => TensorOp::NF4_BLOCK_SIZE,
        } as usize;
        if !k.is_multiple_of(block) || !n.is_multiple_of(8) {
            return Err(format!(
                "web-rwkv's {} takes K in multiples of {block} and N in multiples of 8",
                weights.name()
            )
            .into());
        }
        let mut random = Random((m as u64) << 42 ^ (n as u64) << 21 ^ k as u64);
        let x: Vec<f32> = (0..m * k).map(|_| random.value()).collect();
        let w: Vec<f16> = (0..n * k).map(|_| f16::from_f32(random.value())).collect();

        let full: TensorGpu<f16, ReadWrite> =
            context.tensor_from_data(Shape::new(k, n, 1, 1), w)?;
        let matrix = match weights {
            Weights::Int8 => Matrix::quant_u8(&full)?,
            Weights::Nf4 => Matrix::quant_nf4(&full)?,
        };
        let rounded = decoded(&matrix, block);
        let step = m.div_ceil(CHECKED_ROWS);
        let reference = (0..m)
            .step_by(step)
            .map(|row| (row, product(&x[row * k..(row + 1) * k], &rounded)))
            .collect();
        Ok(Self {
            input: context.tensor_from_data(Shape::new(k, m, 1, 1), x)?,
            matrix,
            output: context.tensor_init(Shape::new(n, m, 1, 1)),
            reference,
        })
    }

    /// The product, so many times.
    pub(crate) fn product(&self, kind: Kind, count: usize) -> Result<TensorOp, TensorError> {
        let one = || match kind {
            Kind::Vector => self
                .matrix
                .matmul_vec_op(&self.input, &self.output, Activation::None),
            Kind::Matrix => self
                .matrix
                .matmul_mat_op(&self.input, &self.output, Activation::None),
        };
        (0..count)
            .map(|_| one())
            .collect::<Result<_, _>>()
            .map(TensorOp::List)
    }

    /// The largest difference of the output from the product, against the product's largest value.
    pub(crate) fn error(&self) -> f64 {
        let output = self.output.back_in_place().to_vec();
        let (mut difference, mut largest) = (0.0_f64, 0.0_f64);
        for (row, expected) in &self.reference {
            let found = &output[row * expected.len()..(row + 1) * expected.len()];
            for (expected, found) in expected.iter().zip(found) {
                let off = (expected - f64::from(*found)).abs();
                // A NaN is an infinite error; `max` would drop it.
                difference = difference.max(if off.is_nan() { f64::INFINITY } else { off });
                largest = largest.max(expected.abs());
            }
        }
        difference / largest
    }
}

/// The weights as the matrix stands for them, row by row.
fn decoded(matrix: &Matrix, block: usize) -> Vec<f32> {
    match matrix {
        Matrix::Fp16(values) => values
            .back_in_place()
            .iter()
            .map(|value| value.to_f32())
            .collect(),
        Matrix::Int8 { w, m } => {
            let (codes, limits) = (w.back_in_place().to_vec(), m.back_in_place().to_vec());
            let value = |(index, code): (usize, &u8)| {
                let place = index / block * 2;
                let (least, greatest) = (limits[place].to_f32(), limits[place + 1].to_f32());
                least + f32::from(*code) / 255.0 * (greatest - least)
            };
            codes.iter().enumerate().map(value).collect()
        }
        Matrix::Fp4 { w, m, .. } => {
            let (codes, magnitudes) = (w.back_in_place().to_vec(), m.back_in_place().to_vec());
            let table = Float4Quant::default().0.to_vec();
            let halves = codes.iter().flat_map(|byte| [byte & 15, byte >> 4]);
            let value = |(index, code): (usize, u8)| {
                table[usize::from(code)] * magnitudes[index / block].to_f32()
            };
            halves.enumerate().map(value).collect()
        }
    }
}

/// One row of X·Wᵀ.
fn product(x: &[f32], weights: &[f32]) -> Vec<f64> {
    let dot = |row: &[f32]| {
        let products = x
            .iter()
            .zip(row)
            .map(|(x, w)| f64::from(*x) * f64::from(*w));
        products.sum()
    };
    weights.chunks_exact(x.len()).map(dot).collect()
}

/// SplitMix64, as in anybit's bench.
struct Random(u64);

impl Random {
    /// The sum of four uniform values: bell-shaped, as weights are.
    fn value(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let sum: u64 = (0..4).map(|i| (z >> (16 * i)) & 0xffff).sum();
        sum as f32 / 65536.0 - 2.0
    }
}
