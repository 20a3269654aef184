//! An `int8` matrix at fewer bits, and its carry planes.

use super::{DeviceImage, PackedMatrix};
use crate::layout::{BLOCK, padded_rows, row_words};
use crate::nested::{STORED_BITS, carry_bytes};
use crate::parallel::for_each_chunk_mut;
use crate::{DeviceLayout, FormatError, Nesting, Sections, SideData};

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

    /// [`to_device`](Self::to_device) of an `int8` matrix in planes, with a carry plane for each of these widths.
    ///
    /// # Errors
    ///
    /// Those of [`Sections::with_carries`].
    pub fn to_device_with_carries(
        &self,
        layout: &DeviceLayout,
        widths: &[u8],
    ) -> Result<DeviceImage, FormatError> {
        let sections =
            Sections::with_carries(&self.format, self.rows, self.columns, layout, widths)?;
        let mut image = self.to_device(layout)?;
        image.codes.resize(sections.codes_words, 0);
        let blocks = row_words(1, self.columns);
        let words = padded_rows(self.rows, layout.interleave) * blocks;
        let interleave = layout.interleave as usize;
        for carry in &sections.carries {
            let bits = u32::from(carry.bits);
            let stream = &mut image.codes[carry.offset as usize..][..words];
            for_each_chunk_mut(stream, interleave * blocks, |index, chunk| {
                for (lane, row) in self.row_group(index, interleave) {
                    for block in 0..self.columns.div_ceil(BLOCK) {
                        let plane = self.block(row, block);
                        chunk[block * interleave + lane] =
                            plane.plane_of(|word| carry_bytes(word, bits));
                    }
                }
            });
        }
        image.sections = sections;
        Ok(image)
    }
}
