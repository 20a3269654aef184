//! What is to be computed.

use std::fmt;

use anybit_formats::MatrixFormat;

/// What a GEMM writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// The product, scaled.
    F32,
    /// As [`F32`](Self::F32), then rounded to f16: to either neighbour, as drivers do it; subnormals may become 0, and what
    /// lies beyond ±65504 becomes ±65504. Needs no optional feature.
    F16,
    /// The exact product of the integers behind the codes, without scales. For affine operands without groups.
    I32,
}

impl OutputFormat {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 => 2,
        }
    }
}

impl fmt::Display for OutputFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I32 => "i32",
        })
    }
}

/// Several products of one shape in one dispatch. Batched matrices are stacked: batch b of X is rows b·M .. (b + 1)·M.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// How many products.
    pub count: usize,
    /// One X of M rows serves all.
    pub broadcast_activation: bool,
    /// One W of N rows serves all.
    pub broadcast_weight: bool,
}

impl Batch {
    /// One product.
    pub const ONE: Self = Self {
        count: 1,
        broadcast_activation: false,
        broadcast_weight: false,
    };
}

impl Default for Batch {
    fn default() -> Self {
        Self::ONE
    }
}

/// Y = X · Wᵀ: X is M×K activations, W is N×K weights (a row an output channel), Y is M×N.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Rows of X and Y.
    pub m: usize,
    /// Rows of W, columns of Y.
    pub n: usize,
    /// Columns of X and W.
    pub k: usize,
    /// Format of X.
    pub activation: MatrixFormat,
    /// Format of W.
    pub weight: MatrixFormat,
    /// What is written.
    pub output: OutputFormat,
    /// Products at once.
    pub batch: Batch,
    /// Whether a residual of the output's shape is added: Y = R + X · Wᵀ. For f32 output.
    pub residual: bool,
    /// Experts that W is a stack of, N rows each, of which each row of X meets one; `None` if W is one matrix. See
    /// [`with_experts`](Self::with_experts).
    pub experts: Option<usize>,
}

impl Problem {
    /// A single product with f32 output.
    pub fn new(
        (m, n, k): (usize, usize, usize),
        activation: MatrixFormat,
        weight: MatrixFormat,
    ) -> Self {
        Self {
            m,
            n,
            k,
            activation,
            weight,
            output: OutputFormat::F32,
            batch: Batch::ONE,
            residual: false,
            experts: None,
        }
    }

    /// The same with another output.
    #[must_use]
    pub fn with_output(mut self, output: OutputFormat) -> Self {
        self.output = output;
        self
    }

    /// The same, several times.
    #[must_use]
    pub fn with_batch(mut self, batch: Batch) -> Self {
        self.batch = batch;
        self
    }

    /// The same, added to a residual of the output's shape; see [`Context::prepare_with`](crate::Context::prepare_with).
    #[must_use]
    pub fn with_residual(mut self) -> Self {
        self.residual = true;
        self
    }

    /// The same with a mixture of experts: W is `count` matrices of N rows, stacked, and the rows of X are sorted by the expert
    /// that each of them meets. Y\[m\] = W\[e\] · X\[m\] for `offsets[e] <= m < offsets[e + 1]`, with offsets that the device
    /// reads ([`ExpertOffsets`](crate::ExpertOffsets)): how many rows each expert has need not be known on the host. Rows of Y
    /// that no expert has are left as they are.
    ///
    /// It is for one product, not for a [batch](Batch). See
    /// [`Context::prepare_experts`](crate::Context::prepare_experts).
    #[must_use]
    pub fn with_experts(mut self, count: usize) -> Self {
        self.experts = Some(count);
        self
    }

    /// What is computed, as the left half of a kernel's id: `gemm_i8rf_u4g32hm_f32`; `gemv` when M is 1, and `gemm_experts`,
    /// whatever M, with experts; with `_residual` at the end where one is added.
    pub fn contract(&self) -> String {
        let op = match self.experts {
            Some(_) => "gemm_experts",
            None if self.m == 1 => "gemv",
            None => "gemm",
        };
        let residual = if self.residual { "_residual" } else { "" };
        format!(
            "{op}_{}_{}_{}{residual}",
            self.activation, self.weight, self.output
        )
    }

    /// Whether a text is what [`contract`](Self::contract) calls some problem.
    pub(crate) fn is_contract(text: &str) -> bool {
        let parts: Vec<&str> = text.split('_').collect();
        let format = |text: &str| text.parse::<MatrixFormat>().is_ok();
        match parts[..] {
            ["gemv" | "gemm", x, w, "f32" | "f16" | "i32"]
            | ["gemv" | "gemm", x, w, "f32", "residual"]
            | ["gemm", "experts", x, w, "f32" | "f16" | "i32"]
            | ["gemm", "experts", x, w, "f32", "residual"] => format(x) && format(w),
            _ => false,
        }
    }

    /// Rows of X, all batches together.
    pub fn activation_rows(&self) -> usize {
        if self.batch.broadcast_activation {
            self.m
        } else {
            self.m.saturating_mul(self.batch.count)
        }
    }

    /// Rows of W, all batches and experts together.
    pub fn weight_rows(&self) -> usize {
        let rows = self.n.saturating_mul(self.experts.unwrap_or(1));
        if self.batch.broadcast_weight {
            rows
        } else {
            rows.saturating_mul(self.batch.count)
        }
    }

    /// Rows of X that an expert has on average, of experts that have any: all of M without experts.
    pub(crate) fn segment(&self) -> usize {
        let experts = self.experts.unwrap_or(1).min(self.m).max(1);
        self.m.div_ceil(experts)
    }

    /// Rows of Y, all batches together.
    pub fn output_rows(&self) -> usize {
        self.m.saturating_mul(self.batch.count)
    }

    /// Whether there is nothing to compute: an empty output. A K of 0 leaves an output of zeros.
    pub fn is_empty(&self) -> bool {
        self.m == 0 || self.n == 0 || self.batch.count == 0
    }
}
