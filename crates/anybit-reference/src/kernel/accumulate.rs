//! What an integer kernel does with a span's integers: `accumulate/*.wgsl`.

use anybit_formats::{MatrixFormat, ZeroKind};

use super::integer::{Scale, Span, integer_product};
use super::{Tile, check_whole};
use crate::ReferenceError;
use crate::bound::Accumulation;

/// The header constants of the accumulate slot and of the identity of `core/integer.wgsl`.
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    /// Multiplier and offset of the activations' integers, and the code that stands for s = 0.
    pub activation: [i32; 2],
    pub centre: i32,
    /// Multiplier and offset of the weights' integers.
    pub weight: [i32; 2],
    /// `A_GROUP != 0`: the activations' scale changes along K.
    pub activation_grouped: bool,
    /// `W_ZERO == 2`: the weights have minima.
    pub weight_minimum: bool,
    /// What the units of lifted operands multiply to: a power of two.
    pub fold: f32,
}

/// An accumulate slot.
pub trait Accumulate: Copy + Send + Sync {
    /// `acc_t`.
    type Sum: Copy + Default;
    /// `out_t`.
    type Out: Output + Default + Send;

    /// `acc_span`: adds a span.
    fn span(
        self,
        sum: Self::Sum,
        codes: i32,
        weight_codes: i32,
        span: &Span,
        scale: &Scale,
    ) -> Self::Sum;

    /// `team_sum`: the sum of two lanes.
    fn join(self, a: Self::Sum, b: Self::Sum) -> Self::Sum;

    /// `acc_finish`: the output, from the sum over all of K.
    fn finish(self, sum: Self::Sum, weight_codes: i32, total: &Span, scale: &Scale) -> Self::Out;
}

/// `accumulate/grouped.wgsl`: integers inside a span, f32 across spans.
#[derive(Clone, Copy)]
pub(super) struct Grouped(pub(super) Constants);

impl Accumulate for Grouped {
    type Sum = f32;
    type Out = f32;

    fn span(self, sum: f32, codes: i32, weight_codes: i32, span: &Span, scale: &Scale) -> f32 {
        let product = integer_product(&self.0, codes, weight_codes, span, scale.zero);
        let value = product as f32 * scale.scale;
        let shift = || span.integers as f32 * scale.minimum;
        match (self.0.activation_grouped, self.0.weight_minimum) {
            (true, true) => sum + (value + shift()) * span.scale,
            (true, false) => sum + value * span.scale,
            (false, true) => sum + value + shift(),
            (false, false) => sum + value,
        }
    }

    fn join(self, a: f32, b: f32) -> f32 {
        a + b
    }

    fn finish(self, sum: f32, _: i32, total: &Span, _: &Scale) -> f32 {
        let scaled = if self.0.activation_grouped {
            sum
        } else {
            sum * total.scale
        };
        scaled * self.0.fold
    }
}

/// `accumulate/whole_i32.wgsl`: the exact integer product.
#[derive(Clone, Copy)]
pub(super) struct WholeI32(pub(super) Constants);

impl Accumulate for WholeI32 {
    type Sum = i32;
    type Out = i32;

    fn span(self, sum: i32, codes: i32, _: i32, _: &Span, _: &Scale) -> i32 {
        sum.wrapping_add(codes)
    }

    fn join(self, a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }

    fn finish(self, sum: i32, weight_codes: i32, total: &Span, scale: &Scale) -> i32 {
        integer_product(&self.0, sum, weight_codes, total, scale.zero)
    }
}

/// `accumulate/whole_f32.wgsl`: integers to the end, then one conversion.
#[derive(Clone, Copy)]
pub(super) struct WholeF32(pub(super) Constants);

impl Accumulate for WholeF32 {
    type Sum = i32;
    type Out = f32;

    fn span(self, sum: i32, codes: i32, _: i32, _: &Span, _: &Scale) -> i32 {
        sum.wrapping_add(codes)
    }

    fn join(self, a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }

    fn finish(self, sum: i32, weight_codes: i32, total: &Span, scale: &Scale) -> f32 {
        let product = integer_product(&self.0, sum, weight_codes, total, scale.zero);
        let mut value = product as f32 * scale.scale;
        if self.0.weight_minimum {
            value += total.integers as f32 * scale.minimum;
        }
        value * total.scale * self.0.fold
    }
}

mod sealed {
    use super::{Accumulate, Constants, MatrixFormat, ReferenceError, Tile};

    /// What an accumulate slot can be applied to.
    pub trait Kernel {
        fn run<A: Accumulate>(self, accumulate: A) -> Result<Vec<A::Out>, ReferenceError>;
    }

    pub trait Slot: Sized {
        /// The sum of two parts of K.
        fn plus(self, other: Self) -> Self;

        fn dispatch(
            kernel: impl Kernel,
            constants: Constants,
            tile: Tile,
            activation: &MatrixFormat,
            weight: &MatrixFormat,
        ) -> Result<Vec<Self>, ReferenceError>;
    }
}

pub(super) use sealed::{Kernel, Slot};

/// The output type of an integer kernel: i32 for the exact integer product, without scales, or f32.
pub trait Output: Slot + Copy {}

impl Output for i32 {}

impl Output for f32 {}

impl Slot for i32 {
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn dispatch(
        kernel: impl Kernel,
        constants: Constants,
        _: Tile,
        activation: &MatrixFormat,
        weight: &MatrixFormat,
    ) -> Result<Vec<Self>, ReferenceError> {
        // Scales do not matter to an integer product, but zero points do.
        for format in [activation, weight] {
            if format.zero_kind() == ZeroKind::Integer {
                check_whole(format)?;
            }
        }
        kernel.run(WholeI32(constants))
    }
}

impl Slot for f32 {
    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn dispatch(
        kernel: impl Kernel,
        constants: Constants,
        tile: Tile,
        activation: &MatrixFormat,
        weight: &MatrixFormat,
    ) -> Result<Vec<Self>, ReferenceError> {
        match tile.accumulation {
            Accumulation::Grouped => kernel.run(Grouped(constants)),
            Accumulation::Whole => {
                check_whole(activation)?;
                check_whole(weight)?;
                kernel.run(WholeF32(constants))
            }
        }
    }
}
