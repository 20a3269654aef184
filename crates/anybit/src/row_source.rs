//! What row kernels work on, RMSNorm and gated products among it, and the kernel that writes it as f32.

use anybit_formats::MatrixFormat;
use anybit_shaders::Header;
use bytemuck::{Pod, Zeroable};

use crate::caps::Caps;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::matrix::{DeviceMatrix, OutputMatrix};
use crate::pipeline::Binding;
use crate::plan::fold_grid;
use crate::prepare::Prepared;
use crate::problem::OutputFormat;
use crate::row_kernels::{ROW_MEMORY, row_workgroup};
use crate::specialize::{ShaderKey, Specialization};
use crate::stretches::row_stretches;

/// `WriteParams` of kernel/write_rows.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct WriteParams {
    rows: u32,
    columns: u32,
    grid_x: u32,
    input_row: u32,
    output_row: u32,
    residual_row: u32,
    up: u32,
    epsilon: f32,
}

/// The function of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// x / (1 + e^−x): SwiGLU.
    Silu,
    /// GELU by its tanh approximation, x / (1 + e^−2z) with z = √(2/π)·(x + 0.044715·x³): GeGLU.
    GeluTanh,
}

/// What a row kernel makes of rows of f32 before it goes on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum RowSource<'a> {
    /// The rows as they are.
    Rows,
    /// RMSNorm: x · weight / √(mean of x² + epsilon).
    RmsNorm {
        /// The weights: f32, one row of as many columns as the rows have.
        weight: &'a DeviceMatrix,
        /// What is added to the mean square. Where it is 0, a row of zeros becomes NaN.
        epsilon: f32,
    },
    /// act(gate) · up, where a row holds `columns` gates and, from column `up` on, as many factors.
    Gated {
        /// The function of the gates.
        gate: Gate,
        /// Columns of the result.
        columns: usize,
        /// The column of the first factor, a multiple of 4.
        up: usize,
    },
}

/// A source without its operands: what decides a shader's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceKind {
    Rows,
    RmsNorm,
    Gated(Gate),
}

impl SourceKind {
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::Rows => "source/rows",
            Self::RmsNorm => "source/rms_norm",
            Self::Gated(_) => "source/gated",
        }
    }

    /// The operation's name in ids; none of plain rows, which take that of their kernel.
    pub(crate) fn op(self) -> Option<&'static str> {
        match self {
            Self::Rows => None,
            Self::RmsNorm => Some("rms_norm"),
            Self::Gated(Gate::Silu) => Some("swiglu"),
            Self::Gated(Gate::GeluTanh) => Some("geglu"),
        }
    }

    /// The constants that the module reads; its binding, if it has one, is `binding`.
    pub(crate) fn constants(self, header: Header, binding: u32) -> Header {
        match self {
            Self::Rows => header,
            Self::RmsNorm => header.constant_u32("SRC_BINDING", binding),
            Self::Gated(Gate::Silu) => header.constant_u32("GATE", 0),
            Self::Gated(Gate::GeluTanh) => header.constant_u32("GATE", 1),
        }
    }
}

impl RowSource<'_> {
    /// The shape of the result for an input; checks both.
    pub(crate) fn check(&self, input: &DeviceMatrix) -> Result<(usize, usize)> {
        check_f32("the rows", input)?;
        match *self {
            Self::Rows => Ok((input.rows, input.columns)),
            Self::RmsNorm { weight, epsilon } => {
                check_f32("the norm's weights", weight)?;
                if (weight.rows, weight.columns) != (1, input.columns) {
                    return Err(Error::ShapeMismatch {
                        what: "the norm's weights",
                        expected: (1, input.columns),
                        actual: (weight.rows, weight.columns),
                    });
                }
                check_epsilon(epsilon)?;
                Ok((input.rows, input.columns))
            }
            Self::Gated { columns, up, .. } => {
                let needed = up.saturating_add(columns);
                if needed > input.columns || up < columns {
                    return Err(Error::ShapeMismatch {
                        what: "the rows of gates and factors",
                        expected: (input.rows, needed.max(columns.saturating_mul(2))),
                        actual: (input.rows, input.columns),
                    });
                }
                if !up.is_multiple_of(4) {
                    return Err(Error::Parameter {
                        what: "the column of the first factor",
                        value: up.to_string(),
                        expected: "a multiple of 4".into(),
                    });
                }
                Ok((input.rows, columns))
            }
        }
    }

    pub(crate) fn kind(&self) -> SourceKind {
        match *self {
            Self::Rows => SourceKind::Rows,
            Self::RmsNorm { .. } => SourceKind::RmsNorm,
            Self::Gated { gate, .. } => SourceKind::Gated(gate),
        }
    }

    pub(crate) fn weight_binding(&self) -> Result<Option<wgpu::BufferBinding<'_>>> {
        match self {
            Self::RmsNorm { weight, .. } => match weight.chunks.first() {
                Some(chunk) => {
                    let [codes, _] = chunk.bindings("the norm's weights")?;
                    Ok(Some(codes))
                }
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Refuses an output that is also an operand of the source.
    pub(crate) fn check_apart(&self, output: Option<&wgpu::Buffer>) -> Result<()> {
        match self {
            Self::RmsNorm { weight, .. } if output.is_some_and(|output| weight.is_in(output)) => {
                Err(Error::Aliased {
                    what: "the norm's weights",
                })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn up(&self) -> u32 {
        match *self {
            // It lies inside a row, whose words a u32 counts.
            Self::Gated { up, .. } => up as u32,
            _ => 0,
        }
    }

    pub(crate) fn epsilon(&self) -> f32 {
        match *self {
            Self::RmsNorm { epsilon, .. } => epsilon,
            _ => 0.0,
        }
    }
}

pub(crate) fn check_epsilon(epsilon: f32) -> Result<()> {
    if epsilon.is_finite() && epsilon >= 0.0 {
        return Ok(());
    }
    Err(Error::Parameter {
        what: "the norm's epsilon",
        value: epsilon.to_string(),
        expected: "finite and at least 0".into(),
    })
}

pub(crate) fn check_f32(what: &'static str, matrix: &DeviceMatrix) -> Result<()> {
    if matrix.format == MatrixFormat::F32 {
        return Ok(());
    }
    Err(Error::FormatMismatch {
        what,
        expected: MatrixFormat::F32,
        actual: matrix.format,
    })
}

/// The shader that writes a source as f32, with a residual added or not.
pub(crate) fn write_specialization(
    caps: &Caps,
    source: SourceKind,
    residual: bool,
) -> Specialization {
    let first = 3;
    let workgroup = row_workgroup(caps);
    let header = Header::new().constant_u32("WORKGROUP", workgroup);
    let mut header = source.constants(header, first);
    let mut addend = "addend/nothing";
    if residual {
        addend = "addend/residual";
        header = header.constant_u32(
            "ADD_BINDING",
            first + u32::from(source == SourceKind::RmsNorm),
        );
    }
    Specialization {
        id: format!(
            "{}_f32_f32{}__{workgroup}",
            source.op().unwrap_or("copy_rows"),
            if residual { "_residual" } else { "" }
        ),
        key: ShaderKey {
            root: "kernel/write_rows",
            slots: vec![("source", source.module()), ("addend", addend)],
            header,
        },
        workgroup,
        workgroup_memory: ROW_MEMORY,
        subgroup: false,
    }
}

impl Context {
    /// Prepares what a source makes of rows, written as f32, with a residual added if there is one: RMSNorm, SwiGLU, GeGLU.
    ///
    /// A row is one workgroup's, so its result does not depend on the other rows.
    ///
    /// # Errors
    ///
    /// [`Error::FormatMismatch`] for an input that is not f32; [`Error::ShapeMismatch`]; [`Error::Parameter`] for a source's
    /// numbers; [`Error::OutputMismatch`]; [`Error::Aliased`] if the output is an input; [`Error::Buffer`] for a residual of
    /// another stride; [`Error::BindingTooLarge`].
    pub fn prepare_rows(
        &self,
        input: &DeviceMatrix,
        source: &RowSource<'_>,
        residual: Option<&OutputMatrix>,
        output: &OutputMatrix,
    ) -> Result<Prepared> {
        let shape = source.check(input)?;
        let specialization = write_specialization(self.caps(), source.kind(), residual.is_some());
        if shape != (output.rows, output.columns) {
            return Err(Error::ShapeMismatch {
                what: "the output",
                expected: shape,
                actual: (output.rows, output.columns),
            });
        }
        if output.format != OutputFormat::F32 {
            return Err(Error::OutputMismatch {
                expected: OutputFormat::F32,
                actual: output.format,
            });
        }
        if let Some(residual) = residual {
            output.check_like("the residual", residual)?;
        }
        let Some(buffer) = output.buffer.as_ref().filter(|_| !input.chunks.is_empty()) else {
            return Ok(Prepared::new(specialization.id, Vec::new()));
        };
        if input.is_in(buffer) {
            return Err(Error::Aliased { what: "the rows" });
        }
        source.check_apart(Some(buffer))?;
        let limit = self.inner.caps.max_binding;
        let too_large = || Error::BindingTooLarge {
            what: "the rows",
            bytes: input.bytes(),
            limit,
        };
        let most = input.most_rows(limit).min(output.most_rows(limit));
        let stretches =
            row_stretches(shape.0, &[&input.chunk_rows()], most).ok_or_else(too_large)?;
        let weight = source.weight_binding()?;
        let mut layout = vec![Binding::Uniform, Binding::Read, Binding::Write];
        let extra = usize::from(weight.is_some()) + usize::from(residual.is_some());
        layout.extend([Binding::Read; 2].into_iter().take(extra));
        let pipeline = self.pipeline(&specialization, &layout)?;
        let mut dispatches = Vec::with_capacity(stretches.len());
        for rows in stretches {
            let chunk = input.stretch(rows.clone()).ok_or_else(too_large)?;
            let [values, _] = chunk.bindings("the rows")?;
            let [x, y] = fold_grid(rows.len() as u64, self.inner.caps.max_workgroups)?;
            let params = WriteParams {
                rows: rows.len() as u32,
                columns: shape.1 as u32,
                grid_x: x,
                input_row: chunk.row_words,
                output_row: output.row_stride,
                residual_row: output.row_stride,
                up: source.up(),
                epsilon: source.epsilon(),
            };
            let mut bindings = vec![values];
            bindings.extend(output.rows_binding(rows.clone()));
            bindings.extend(weight.clone());
            bindings.extend(residual.and_then(|residual| residual.rows_binding(rows)));
            dispatches.push(self.dispatch(
                &pipeline,
                &specialization,
                &layout,
                bytemuck::bytes_of(&params),
                &bindings,
                [x, y, 1],
            )?);
        }
        Ok(Prepared::new(specialization.id, dispatches))
    }

    /// One dispatch of a row kernel.
    pub(crate) fn kernel(
        &self,
        specialization: Specialization,
        layout: &[Binding],
        params: &[u8],
        bindings: &[wgpu::BufferBinding<'_>],
        grid: [u32; 3],
    ) -> Result<Prepared> {
        let pipeline = self.pipeline(&specialization, layout)?;
        let dispatch = self.dispatch(&pipeline, &specialization, layout, params, bindings, grid)?;
        Ok(Prepared::new(specialization.id, vec![dispatch]))
    }
}
