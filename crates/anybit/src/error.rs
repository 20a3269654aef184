//! What can go wrong, and what to do about it.

use anybit_formats::{DeviceLayout, ElementFormat, FormatError, MatrixFormat, Nesting};
use anybit_shaders::LinkError;

use crate::plan::Refusal;

/// An error of this crate. Nothing that was uploaded is lost by one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter fits the options. Install a driver, or change the options to one of those found.
    #[error(
        "no adapter matches {wanted}; found: {}",
        if found.is_empty() { "none (is a graphics driver installed?)".to_string() } else { found.join(", ") }
    )]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// Names of the adapters that were found.
        found: Vec<String>,
    },
    /// The crate was built without a backend for this platform. Turn on one of its backend features.
    #[error(
        "anybit was built without a graphics backend for this platform; enable a feature such as `vulkan`"
    )]
    NoBackend,
    /// The adapter refused to make a device.
    #[error("adapter {adapter} made no device: {source}")]
    RequestDevice {
        /// The adapter's name.
        adapter: String,
        /// What wgpu says.
        #[source]
        source: wgpu::RequestDeviceError,
    },
    /// A format, layout or packed matrix is wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Two shapes that belong together differ.
    #[error("{what}: expected {}x{}, got {}x{}", expected.0, expected.1, actual.0, actual.1)]
    ShapeMismatch {
        /// Which operand.
        what: &'static str,
        /// Rows and columns that the plan has.
        expected: (usize, usize),
        /// Rows and columns of the operand.
        actual: (usize, usize),
    },
    /// An operand has another format than the plan.
    #[error("{what}: the plan expects the format {expected}, the operand has {actual}")]
    FormatMismatch {
        /// Which operand.
        what: &'static str,
        /// The plan's format.
        expected: MatrixFormat,
        /// The operand's format.
        actual: MatrixFormat,
    },
    /// An operand is laid out otherwise than the plan reads it. Upload it with the plan's layout, or plan with
    /// [`PlanOptions::weight_layout`](crate::PlanOptions::weight_layout).
    #[error("{what}: the plan reads the layout {expected:?}, the operand has {actual:?}")]
    LayoutMismatch {
        /// Which operand.
        what: &'static str,
        /// The plan's layout.
        expected: DeviceLayout,
        /// The operand's layout.
        actual: DeviceLayout,
    },
    /// The weights are read at fewer bits than they are stored in, and the plan is for others, or the reverse. Plan with
    /// [`PlanOptions::with_weight`](crate::PlanOptions::with_weight).
    #[error(
        "the plan takes {}, the weights are {}; plan with PlanOptions::with_weight", nesting(*expected), nesting(*actual)
    )]
    NestingMismatch {
        /// How the plan reads weights at fewer bits; none if they are stored as they are read.
        expected: Option<Nesting>,
        /// How the weights are to be read.
        actual: Option<Nesting>,
    },
    /// An int8 matrix in planes has no carry plane for the width. Upload it with one
    /// ([`Context::upload_with_carries`](crate::Context::upload_with_carries)), or use truncation.
    #[error(
        "the matrix has no carry plane for {bits} bits, only for {stored:?}; upload it with one, or use truncation"
    )]
    CarryPlane {
        /// The width asked for.
        bits: u8,
        /// The widths that it has carry planes for.
        stored: Vec<u8>,
    },
    /// A matrix read at fewer bits than it is stored in can only be the weights of a product. Use the stored matrix.
    #[error(
        "{what}: a matrix that is read at fewer bits than it is stored in can only be the weights of a product; use the stored matrix"
    )]
    Nested {
        /// Which operand.
        what: &'static str,
    },
    /// A matrix in textures can only be the weights of a product. Upload it with a layout in buffers for other work.
    #[error(
        "{what}: a matrix in textures can only be the weights of a product; upload it with a layout in buffers"
    )]
    InTextures {
        /// Which operand.
        what: &'static str,
    },
    /// An output of another kind than the plan writes.
    #[error("the plan writes {expected}, the output holds {actual}")]
    OutputMismatch {
        /// The plan's output.
        expected: crate::OutputFormat,
        /// What the output holds.
        actual: crate::OutputFormat,
    },
    /// A residual where the plan has none, or none where it has one. Plan with
    /// [`Problem::with_residual`](crate::Problem::with_residual) exactly where one is given.
    #[error(
        "the plan {} a residual; plan with Problem::with_residual exactly where one is given",
        if *expected { "adds" } else { "does not add" }
    )]
    Residual {
        /// Whether the plan adds one.
        expected: bool,
    },
    /// A table of experts where the plan has none, none where it has some, or one of another number. Plan with
    /// [`Problem::with_experts`](crate::Problem::with_experts), and prepare with
    /// [`Context::prepare_experts`](crate::Context::prepare_experts).
    #[error(
        "the plan is for {}, the table of offsets for {}; plan with Problem::with_experts and prepare with prepare_experts",
        experts(*expected), experts(*actual)
    )]
    Experts {
        /// The plan's number of experts; none if W is one matrix.
        expected: Option<usize>,
        /// The table's number of experts; none if there is no table.
        actual: Option<usize>,
    },
    /// A parameter of a kernel is out of its range.
    #[error("{what} is {value}: it must be {expected}")]
    Parameter {
        /// Which parameter.
        what: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// A matrix or a part of it does not fit a binding. Request larger limits with [`wanted_limits`](crate::wanted_limits)
    /// or split the matrix along its rows.
    #[error("{what}: {bytes} bytes are more than the device's limit of {limit} bytes a binding")]
    BindingTooLarge {
        /// What was to be bound.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The device's limit.
        limit: u64,
    },
    /// A buffer of the caller is too small, misaligned, or lacks a usage.
    #[error("{what}: {problem}")]
    Buffer {
        /// Which operand.
        what: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// The output buffer is also an input. Use another buffer: a dispatch cannot read and write one.
    #[error("the output buffer is also bound as {what}; use another buffer")]
    Aliased {
        /// The input that shares it.
        what: &'static str,
    },
    /// No kernel can do this on this device.
    #[error("no kernel for {contract} on this device: {}", list(refusals))]
    Unsupported {
        /// What was asked for.
        contract: String,
        /// Each kernel that was weighed, with the reason against it.
        refusals: Vec<Refusal>,
    },
    /// The exact product could pass an i32.
    #[error(
        "with K = {k} a product of {activation} and {weight} can pass an i32; the largest safe K is {max_k}"
    )]
    AccumulatorOverflow {
        /// The K asked for.
        k: usize,
        /// The largest K that is safe.
        max_k: usize,
        /// Activation format.
        activation: ElementFormat,
        /// Weight format.
        weight: ElementFormat,
    },
    /// A size that no kernel can address.
    #[error("{what} is {value}, more than {limit}")]
    TooLarge {
        /// Which size.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// A kernel's shader did not link: a bug of anybit. Please report it.
    #[error("kernel {kernel} does not link: {source}")]
    Link {
        /// The kernel's id.
        kernel: String,
        /// The linker's message.
        #[source]
        source: LinkError,
    },
    /// The driver or wgpu rejected a kernel: a bug of anybit or of the driver. Please report it.
    #[error("kernel {kernel} was rejected: {message}")]
    Pipeline {
        /// The kernel's id.
        kernel: String,
        /// wgpu's message, with positions in the linked shader.
        message: String,
    },
    /// A kernel that needs a self-check has not passed one on this device. Plan with
    /// [`Context::plan_checked`](crate::Context::plan_checked), or check the plan
    /// ([`Context::self_check`](crate::Context::self_check)) and look at the verdict.
    #[error(
        "{kernel} has not passed a self-check on this device; plan with Context::plan_checked, or run Context::self_check on the plan"
    )]
    Unchecked {
        /// The kernel's id.
        kernel: String,
    },
    /// A kernel that rounds by design, or whose format has no values with exact sums, has no self-check. Use it without.
    #[error("{kernel} has no self-check, since its results are not exact by design")]
    NoSelfCheck {
        /// The kernel's id.
        kernel: String,
    },
    /// The device ran out of memory: drop matrices, or work in smaller pieces.
    #[error("the device has no memory for {what} ({})", size(*bytes))]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Its size; 0 where the driver alone knows.
        bytes: u64,
    },
    /// wgpu refuses a call, and the device is not lost: the caller recorded something that is no work, or handed over what
    /// belongs to another device.
    #[error("wgpu refuses the work: {reason}")]
    Refused {
        /// What wgpu said.
        reason: String,
    },
    /// The device is gone. Host-side matrices are intact: make a new context and upload them again.
    #[error("the device was lost: {reason}")]
    DeviceLost {
        /// What the driver or wgpu said.
        reason: String,
    },
}

fn size(bytes: u64) -> String {
    match bytes {
        0 => "of a size that its driver alone knows".to_owned(),
        bytes => format!("{bytes} bytes"),
    }
}

fn nesting(nesting: Option<Nesting>) -> String {
    match nesting {
        None => "weights of the width they are stored in".to_owned(),
        Some(nesting) => format!("int8 weights at fewer bits by {nesting:?}"),
    }
}

fn experts(count: Option<usize>) -> String {
    count.map_or_else(
        || "no experts".to_owned(),
        |count| format!("{count} experts"),
    )
}

fn list(refusals: &[Refusal]) -> String {
    refusals
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
