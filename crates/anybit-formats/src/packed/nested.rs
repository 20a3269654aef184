//! An `int8` matrix at fewer bits.

use super::PackedMatrix;
use crate::nested::STORED_BITS;
use crate::{FormatError, Nesting, SideData};

impl PackedMatrix {
    /// An `int8` matrix as it is read at `bits` bits: codes of `int{bits}`, and scales 2^(8 − bits) times as large (of
    /// two levels, the second is). Minima are as they were. A matrix without scales has no place for the factor; its
    /// numbers are the integers of `bits` bits themselves.
    ///
    /// # Errors
    ///
    /// Those of [`MatrixFormat::nested`](crate::MatrixFormat::nested); [`FormatError::ScaleOverflow`] where the larger scale
    /// passes its stored type.
    pub fn nested(&self, bits: u8, nesting: Nesting) -> Result<Self, FormatError> {
        let format = self.format.nested(bits)?;
        if bits == STORED_BITS {
            return Ok(self.clone());
        }
        let mut table = [0; 256];
        for (entry, code) in table.iter_mut().zip(0..=u8::MAX) {
            *entry = nesting.code(code, bits)?;
        }
        let mut codes = self.unpack_codes();
        for code in &mut codes {
            *code = table[usize::from(*code)];
        }
        let side = self.side();
        let unit = f32::from(1_u8 << (STORED_BITS - bits));
        let enlarge =
            |scales: &[f32]| -> Vec<f32> { scales.iter().map(|scale| scale * unit).collect() };
        let (scales, second) = match self.format.second() {
            None => (enlarge(side.scales), Vec::new()),
            Some(_) => (side.scales.to_vec(), enlarge(side.second)),
        };
        let side = SideData {
            scales: &scales,
            second: &second,
            ..side
        };
        Self::from_parts(format, self.rows, self.columns, &codes, side)
    }
}
