//! From lines of linked text back to lines of modules.

use crate::error::Location;

/// Where each line of a linked text came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineMap {
    /// Names of the modules that `lines` refers to.
    pub(crate) modules: Vec<String>,
    /// For each line, the index of its module and the line there.
    pub(crate) lines: Vec<Option<(usize, u32)>>,
}

impl LineMap {
    /// Where line `line` (from 1, as naga and wgpu count) of the linked text came from.
    ///
    /// `None` for lines the linker wrote itself (blank lines and the comment over each module) and for lines past the
    /// end.
    #[must_use]
    pub fn locate(&self, line: u32) -> Option<Location> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let (module, line) = (*self.lines.get(index)?)?;
        Some(Location::new(self.modules.get(module)?, line))
    }

    /// Number of lines of the linked text.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether the linked text has no lines.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}
