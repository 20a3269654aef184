//! Products of mixtures of experts: which rows of X each expert has, as the device reads it.

use std::sync::Arc;

use crate::bind_groups::Life;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::prepare::{Epilogue, Operands, Prepared};

const WHAT: &str = "the offsets of the experts";

/// Where each expert's rows of X begin, on the device: a u32 for each expert and one more for the end of the last. Expert e
/// has the rows m with `offsets[e] <= m < offsets[e + 1]`.
///
/// Offsets ascend and are at most M; experts may have no rows, and rows may have no expert. Kernels rely on none of this: of
/// other tables, some rows of Y may be those of another expert, or be left as they were, but nothing beside X, W and Y is read
/// or written. So a kernel may write the table, such as that which routes tokens to experts.
#[derive(Clone, Debug)]
pub struct ExpertOffsets {
    buffer: wgpu::Buffer,
    offset: u64,
    experts: usize,
    life: Arc<Life>,
}

impl ExpertOffsets {
    /// A table in a buffer of the caller, `offset` bytes into it: a u32 for each of the experts, and one more.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] if the buffer lacks the STORAGE usage, the offset is no multiple of 256, or the table runs past the
    /// buffer's end; [`Error::Parameter`] without experts.
    pub fn from_buffer(buffer: &wgpu::Buffer, offset: u64, experts: usize) -> Result<Self> {
        let problem = |problem: String| Error::Buffer {
            what: WHAT,
            problem,
        };
        check_count(experts)?;
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(problem("it lacks the usage STORAGE".into()));
        }
        if !offset.is_multiple_of(256) {
            return Err(problem(format!(
                "the offset {offset} is no multiple of 256"
            )));
        }
        let end = bytes(experts).and_then(|bytes| offset.checked_add(bytes));
        if end.is_none_or(|end| end > buffer.size()) {
            return Err(problem(format!(
                "{experts} + 1 numbers of 4 bytes from byte {offset} run past its {} bytes",
                buffer.size()
            )));
        }
        Ok(Self {
            buffer: buffer.clone(),
            offset,
            experts,
            life: Life::new(),
        })
    }

    /// How many experts it is for.
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// The buffer that it lies in.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Where it begins, in bytes from the buffer's start.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn binding(&self) -> wgpu::BufferBinding<'_> {
        wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: self.offset,
            size: bytes(self.experts).and_then(wgpu::BufferSize::new),
        }
    }

    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

/// Bytes of a table.
fn bytes(experts: usize) -> Option<u64> {
    (experts as u64).checked_add(1)?.checked_mul(4)
}

fn check_count(experts: usize) -> Result<()> {
    if experts == 0 {
        return Err(Error::Parameter {
            what: "the number of experts",
            value: experts.to_string(),
            expected: "1 or more".to_owned(),
        });
    }
    Ok(())
}

impl Context {
    /// A table of zeros: no expert has a row until the host ([`write_expert_offsets`](Self::write_expert_offsets)) or a kernel
    /// writes it.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] without experts; [`Error::BindingTooLarge`]; [`Error::OutOfMemory`].
    pub fn expert_offsets(&self, experts: usize) -> Result<ExpertOffsets> {
        check_count(experts)?;
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_DST
            | wgpu::BufferUsages::COPY_SRC;
        let buffer = self.buffer(WHAT, bytes(experts).unwrap_or(u64::MAX), usage)?;
        ExpertOffsets::from_buffer(&buffer, 0, experts)
    }

    /// Writes a table before whatever is submitted next: a number for each expert, and one more.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] for another count of numbers, and for numbers that do not ascend; [`Error::Buffer`] for a buffer of
    /// the caller without the usage COPY_DST; [`Error::DeviceLost`].
    pub fn write_expert_offsets(&self, table: &ExpertOffsets, offsets: &[u32]) -> Result<()> {
        if offsets.len() != table.experts + 1 {
            return Err(Error::Parameter {
                what: "the count of the experts' offsets",
                value: offsets.len().to_string(),
                expected: format!("one more than the {} experts", table.experts),
            });
        }
        if let Some(pair) = offsets.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(Error::Parameter {
                what: "an offset of an expert",
                value: pair[1].to_string(),
                expected: format!("at least the {} before it", pair[0]),
            });
        }
        if !table.buffer.usage().contains(wgpu::BufferUsages::COPY_DST) {
            return Err(Error::Buffer {
                what: WHAT,
                problem: "it lacks the usage COPY_DST".into(),
            });
        }
        self.write(&table.buffer, table.offset, offsets)
    }

    /// [`prepare_with`](Self::prepare_with) for a problem [with experts](crate::Problem::with_experts). The table is read when
    /// the work runs, so the same work serves whatever the table holds by then.
    ///
    /// # Errors
    ///
    /// Those of [`prepare_with`](Self::prepare_with), [`Error::BindingTooLarge`] for weights over the binding limit too;
    /// [`Error::Experts`] for a table of another number of experts, or a problem without; [`Error::Aliased`] if the table lies
    /// in the output's buffer.
    pub fn prepare_experts(
        &self,
        plan: &Plan,
        operands: Operands<'_>,
        offsets: &ExpertOffsets,
        epilogue: &Epilogue<'_>,
    ) -> Result<Prepared> {
        self.check_passed(plan)?;
        self.prepare_unchecked(plan, operands, epilogue, Some(offsets))
    }
}
