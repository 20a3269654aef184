//! Scales, zeros and the second level of both: on the host, and in the device's side array.

use std::ops::Range;

use super::check_len;
use crate::layout::{padded_rows, side_index};
use crate::parallel::for_each_chunk_mut;
use crate::{
    DeviceLayout, FloatFormat, FormatError, Granularity, MatrixFormat, ScaleType, Sections,
    ZeroKind,
};

/// Zero points, minima or choices of a matrix, one for each scale, row-major.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Zeros<'a> {
    /// For [`ZeroKind::None`].
    #[default]
    None,
    /// For [`ZeroKind::Integer`].
    Integer(&'a [u8]),
    /// For [`ZeroKind::Minimum`].
    Minimum(&'a [f32]),
    /// For [`ZeroKind::Choice`].
    Choice(&'a [u8]),
}

impl Zeros<'_> {
    /// The kind of zero.
    pub const fn kind(&self) -> ZeroKind {
        match self {
            Self::None => ZeroKind::None,
            Self::Integer(_) => ZeroKind::Integer,
            Self::Minimum(_) => ZeroKind::Minimum,
            Self::Choice(_) => ZeroKind::Choice,
        }
    }
}

/// All that a matrix has beside its codes, row-major.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SideData<'a> {
    /// [`MatrixFormat::scale_count`] scales. Of two levels, the first: for [`ScaleType::Int8`] and
    /// [`ScaleType::Super`], integers.
    pub scales: &'a [f32],
    /// [`MatrixFormat::second_count`] entries of the second level; none where scales have one level.
    pub second: &'a [f32],
    /// A zero for each scale. Minima have the levels that the scales have.
    pub zeros: Zeros<'a>,
    /// The second level of the minima, as many as `second`; none where minima have one level.
    pub second_minima: &'a [f32],
}

/// [`SideData`], owned and checked.
#[derive(Clone, PartialEq)]
pub(crate) struct Side {
    scales: Vec<f32>,
    second: Vec<f32>,
    zeros: StoredZeros,
    second_minima: Vec<f32>,
}

#[derive(Clone, PartialEq)]
enum StoredZeros {
    None,
    Integer(Vec<u8>),
    Minimum(Vec<f32>),
    Choice(Vec<u8>),
}

/// `values` after `round`, or the index of the first that is not finite then.
fn round_all(values: &[f32], round: impl Fn(f32) -> f32) -> Result<Vec<f32>, usize> {
    let rounded: Vec<f32> = values.iter().map(|&value| round(value)).collect();
    match rounded.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(index),
        None => Ok(rounded),
    }
}

fn round_float(float: FloatFormat, values: &[f32]) -> Result<Vec<f32>, usize> {
    round_all(values, |value| float.decode(float.encode(value)))
}

impl Side {
    /// No side data.
    pub(crate) const EMPTY: Self = Self {
        scales: Vec::new(),
        second: Vec::new(),
        zeros: StoredZeros::None,
        second_minima: Vec::new(),
    };

    /// The side data of a matrix without rows. What serves the whole matrix is 1 or 0.
    pub(crate) fn empty_rows(format: &MatrixFormat, columns: usize) -> Result<Self, FormatError> {
        let ones = vec![1.0; format.scale_count(0, columns)];
        let second = vec![1.0; format.second_count(0, columns)];
        let bytes = vec![0; ones.len()];
        let minima = vec![0.0; ones.len()];
        let zeros = match format.zero_kind() {
            ZeroKind::None => Zeros::None,
            ZeroKind::Integer => Zeros::Integer(&bytes),
            ZeroKind::Minimum => Zeros::Minimum(&minima),
            ZeroKind::Choice => Zeros::Choice(&bytes),
        };
        // Two-level minima have no type with a second level for the whole matrix.
        let data = SideData {
            scales: &ones,
            second: &second,
            zeros,
            second_minima: &[],
        };
        Self::new(format, 0, columns, data)
    }

    /// The data as stored, checked against format and shape.
    pub(crate) fn new(
        format: &MatrixFormat,
        rows: usize,
        columns: usize,
        data: SideData<'_>,
    ) -> Result<Self, FormatError> {
        let count = format.scale_count(rows, columns);
        let second_count = format.second_count(rows, columns);
        check_len("scales", count, data.scales.len())?;
        check_len("second-level scales", second_count, data.second.len())?;
        let kind = format.zero_kind();
        if data.zeros.kind() != kind {
            return Err(FormatError::ZeroKind {
                format: *format,
                expected: kind,
                found: data.zeros.kind(),
            });
        }
        let two_level_minima = kind == ZeroKind::Minimum && format.second().is_some();
        check_len(
            "second-level minima",
            if two_level_minima { second_count } else { 0 },
            data.second_minima.len(),
        )?;

        let stored = format
            .scales()
            .map_or(ScaleType::F32, |layout| layout.scale);
        let at = |index: usize| format.scale_position(index, columns);
        // The first scale that an entry of the second level serves says where it is wrong.
        let second_at = |index: usize| match format.second_groups(columns) {
            0 => (0, 0),
            groups => {
                let first = index % groups * 256 / format.group_len(columns).max(1);
                (index / groups, first)
            }
        };
        let scale_error = |(row, group), value| FormatError::ScaleOverflow { row, group, value };
        let minimum_error =
            |(row, group), value| FormatError::MinimumOverflow { row, group, value };
        let second_float = stored
            .second()
            .map_or(FloatFormat::F32, |level| level.float);

        let scales = round_all(data.scales, |value| stored.round(value))
            .map_err(|index| scale_error(at(index), data.scales[index]))?;
        let second = round_float(second_float, data.second)
            .map_err(|index| scale_error(second_at(index), data.second[index]))?;
        let second_minima = round_float(second_float, data.second_minima)
            .map_err(|index| minimum_error(second_at(index), data.second_minima[index]))?;
        let zeros = match data.zeros {
            Zeros::None => StoredZeros::None,
            Zeros::Integer(points) => {
                check_len("zero points", count, points.len())?;
                StoredZeros::Integer(points.to_vec())
            }
            Zeros::Minimum(minima) => {
                check_len("minima", count, minima.len())?;
                StoredZeros::Minimum(
                    round_all(minima, |value| stored.round(value))
                        .map_err(|index| minimum_error(at(index), minima[index]))?,
                )
            }
            Zeros::Choice(choices) => {
                check_len("choices", count, choices.len())?;
                let choice_count = format.element().choice_count();
                if let Some(index) = choices
                    .iter()
                    .position(|&choice| usize::from(choice) >= choice_count)
                {
                    let (row, group) = at(index);
                    return Err(FormatError::ChoiceTooLarge {
                        row,
                        group,
                        choice: choices[index],
                        count: choice_count,
                    });
                }
                StoredZeros::Choice(choices.to_vec())
            }
        };
        let side = Self {
            scales,
            second,
            zeros,
            second_minima,
        };
        // Both levels may be finite and their product not.
        if format.second().is_some() {
            for index in 0..count {
                let scale = side.scale(format, columns, index);
                if !scale.is_finite() {
                    return Err(scale_error(at(index), scale));
                }
                let minimum = side.minimum(format, columns, index);
                if !minimum.is_finite() {
                    return Err(minimum_error(at(index), minimum));
                }
            }
        }
        Ok(side)
    }

    pub(crate) fn data(&self) -> SideData<'_> {
        SideData {
            scales: &self.scales,
            second: &self.second,
            zeros: match &self.zeros {
                StoredZeros::None => Zeros::None,
                StoredZeros::Integer(points) => Zeros::Integer(points),
                StoredZeros::Minimum(minima) => Zeros::Minimum(minima),
                StoredZeros::Choice(choices) => Zeros::Choice(choices),
            },
            second_minima: &self.second_minima,
        }
    }

    /// The scale at `index`, both levels; 1 past the end.
    pub(crate) fn scale(&self, format: &MatrixFormat, columns: usize, index: usize) -> f32 {
        let [first, second] = self.scale_levels(format, columns, index);
        first * second
    }

    /// The levels of the scale at `index`; 1 for what there is not.
    pub(crate) fn scale_levels(
        &self,
        format: &MatrixFormat,
        columns: usize,
        index: usize,
    ) -> [f32; 2] {
        let Some(&first) = self.scales.get(index) else {
            return [1.0; 2];
        };
        let second = self.second.get(format.second_index(index, columns));
        [first, second.copied().unwrap_or(1.0)]
    }

    /// The zero point at `index`; 0 where there is none.
    pub(crate) fn zero_point(&self, index: usize) -> i32 {
        match &self.zeros {
            StoredZeros::Integer(points) => points.get(index).map_or(0, |&point| i32::from(point)),
            _ => 0,
        }
    }

    /// The minimum at `index`, both levels; 0 where there is none.
    pub(crate) fn minimum(&self, format: &MatrixFormat, columns: usize, index: usize) -> f32 {
        let [first, second] = self.minimum_levels(format, columns, index);
        first * second
    }

    /// The levels of the minimum at `index`; 0 and 1 for what there is not.
    pub(crate) fn minimum_levels(
        &self,
        format: &MatrixFormat,
        columns: usize,
        index: usize,
    ) -> [f32; 2] {
        let StoredZeros::Minimum(minima) = &self.zeros else {
            return [0.0, 1.0];
        };
        let Some(&first) = minima.get(index) else {
            return [0.0, 1.0];
        };
        let second = self.second_minima.get(format.second_index(index, columns));
        [first, second.copied().unwrap_or(1.0)]
    }

    /// The choice at `index`; 0 where there is none.
    pub(crate) fn choice(&self, index: usize) -> u8 {
        match &self.zeros {
            StoredZeros::Choice(choices) => choices.get(index).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// The side data of a range of rows. What serves the whole matrix stays with every part.
    pub(crate) fn row_range(
        &self,
        format: &MatrixFormat,
        columns: usize,
        rows: &Range<usize>,
    ) -> Self {
        let scales = match format.scales() {
            None => 0..0,
            Some(layout) if layout.granularity == Granularity::Tensor => 0..1,
            Some(_) => {
                let groups = format.groups(columns);
                rows.start * groups..rows.end * groups
            }
        };
        let second = match format.second_groups(columns) {
            0 => 0..self.second.len(),
            groups => rows.start * groups..rows.end * groups,
        };
        Self {
            zeros: match &self.zeros {
                StoredZeros::None => StoredZeros::None,
                StoredZeros::Integer(points) => {
                    StoredZeros::Integer(points[scales.clone()].to_vec())
                }
                StoredZeros::Minimum(minima) => {
                    StoredZeros::Minimum(minima[scales.clone()].to_vec())
                }
                StoredZeros::Choice(choices) => {
                    StoredZeros::Choice(choices[scales.clone()].to_vec())
                }
            },
            scales: self.scales[scales].to_vec(),
            second_minima: if self.second_minima.is_empty() {
                Vec::new()
            } else {
                self.second_minima[second.clone()].to_vec()
            },
            second: self.second[second].to_vec(),
        }
    }

    /// Appends the side data of more rows. `false` if what serves the whole matrix differs.
    pub(crate) fn append(&mut self, format: &MatrixFormat, part: &Self) -> bool {
        let tensor = |granularity| granularity == Granularity::Tensor;
        if format
            .second()
            .is_some_and(|level| tensor(level.granularity))
        {
            if (&self.second, &self.second_minima) != (&part.second, &part.second_minima) {
                return false;
            }
        } else {
            self.second.extend_from_slice(&part.second);
            self.second_minima.extend_from_slice(&part.second_minima);
        }
        if format
            .scales()
            .is_some_and(|layout| tensor(layout.granularity))
        {
            return self.scales == part.scales && self.zeros == part.zeros;
        }
        self.scales.extend_from_slice(&part.scales);
        match (&mut self.zeros, &part.zeros) {
            (StoredZeros::Integer(all), StoredZeros::Integer(some))
            | (StoredZeros::Choice(all), StoredZeros::Choice(some)) => all.extend_from_slice(some),
            (StoredZeros::Minimum(all), StoredZeros::Minimum(some)) => all.extend_from_slice(some),
            _ => {}
        }
        true
    }

    /// Bits of everything as stored.
    pub(crate) fn storage_bits(&self, format: &MatrixFormat) -> u64 {
        let Some(layout) = format.scales() else {
            return 0;
        };
        let zero_bits = match layout.zero {
            ZeroKind::None => 0,
            ZeroKind::Integer | ZeroKind::Choice => 8,
            ZeroKind::Minimum => layout.scale.bits(),
        };
        let second_bits = format.second().map_or(0, |level| level.float.bits());
        u64::from(layout.scale.bits() + zero_bits) * self.scales.len() as u64
            + u64::from(second_bits) * (self.second.len() + self.second_minima.len()) as u64
    }

    /// Writes everything into the side array.
    pub(crate) fn store(
        &self,
        format: &MatrixFormat,
        columns: usize,
        sections: &Sections,
        layout: &DeviceLayout,
        side: &mut [u32],
    ) {
        let Some(scale_layout) = format.scales() else {
            return;
        };
        let (stored, bits) = (scale_layout.scale, scale_layout.scale.bits());
        let places = Places::of_scales(format, columns, layout);
        let scales = &mut side[sections.scales as usize..];
        // What is stored is exact in its type.
        let encode = |&scale: &f32| match stored {
            ScaleType::F16 => f16_bits(scale),
            _ => stored.encode(scale),
        };
        places.store(&self.scales, bits, scales, encode);
        let zeros = &mut side[sections.zeros as usize..];
        match &self.zeros {
            StoredZeros::None => {}
            StoredZeros::Integer(bytes) | StoredZeros::Choice(bytes) => {
                places.store(bytes, 8, zeros, |&byte| u32::from(byte));
            }
            StoredZeros::Minimum(minima) => {
                places.store(minima, bits, zeros, encode);
            }
        }
        if let Some(level) = stored.second() {
            let places = Places::of_second(format, columns, layout);
            for (section, entries) in [
                (sections.second, &self.second),
                (sections.second_minima, &self.second_minima),
            ] {
                let section = &mut side[section as usize..];
                let bits = level.float.bits();
                places.store(entries, bits, section, |&entry| level.float.encode(entry));
            }
        }
    }

    /// Reads back what [`store`](Self::store), or a shader, wrote.
    pub(crate) fn load(
        format: &MatrixFormat,
        rows: usize,
        columns: usize,
        sections: &Sections,
        layout: &DeviceLayout,
        side: &[u32],
    ) -> Result<Self, FormatError> {
        let Some(scale_layout) = format.scales() else {
            return Self::new(format, rows, columns, SideData::default());
        };
        let (stored, bits) = (scale_layout.scale, scale_layout.scale.bits());
        let places = Places::of_scales(format, columns, layout);
        let count = format.scale_count(rows, columns);
        let entries = |section: u32, bits: u32| {
            let section = &side[section as usize..];
            (0..count).map(move |index| take(section, bits, places.of(index)))
        };
        let floats = |section: u32| -> Vec<f32> {
            entries(section, bits)
                .map(|bits| stored.decode(bits))
                .collect()
        };
        let (mut bytes, mut minima) = (Vec::new(), Vec::new());
        match scale_layout.zero {
            ZeroKind::None => {}
            ZeroKind::Integer | ZeroKind::Choice => {
                bytes = entries(sections.zeros, 8).map(|byte| byte as u8).collect();
            }
            ZeroKind::Minimum => minima = floats(sections.zeros),
        }
        let (mut second, mut second_minima) = (Vec::new(), Vec::new());
        if let Some(level) = stored.second() {
            let places = Places::of_second(format, columns, layout);
            let entries = |section: u32| -> Vec<f32> {
                let section = &side[section as usize..];
                (0..format.second_count(rows, columns))
                    .map(|index| take(section, level.float.bits(), places.of(index)))
                    .map(|bits| level.float.decode(bits))
                    .collect()
            };
            second = entries(sections.second);
            if scale_layout.zero == ZeroKind::Minimum {
                second_minima = entries(sections.second_minima);
            }
        }
        let data = SideData {
            scales: &floats(sections.scales),
            second: &second,
            zeros: match scale_layout.zero {
                ZeroKind::None => Zeros::None,
                ZeroKind::Integer => Zeros::Integer(&bytes),
                ZeroKind::Minimum => Zeros::Minimum(&minima),
                ZeroKind::Choice => Zeros::Choice(&bytes),
            },
            second_minima: &second_minima,
        };
        Self::new(format, rows, columns, data)
    }
}

/// Where the entries of a row-major array stand in their device section.
#[derive(Clone, Copy)]
struct Places {
    /// Entries a row; 0 where one serves the matrix.
    groups: usize,
    interleave: u32,
}

impl Places {
    fn of_scales(format: &MatrixFormat, columns: usize, layout: &DeviceLayout) -> Self {
        let tensor = format
            .scales()
            .is_some_and(|scales| scales.granularity == Granularity::Tensor);
        Self {
            groups: if tensor { 0 } else { format.groups(columns) },
            interleave: layout.interleave,
        }
    }

    fn of_second(format: &MatrixFormat, columns: usize, layout: &DeviceLayout) -> Self {
        Self {
            groups: format.second_groups(columns),
            interleave: layout.interleave,
        }
    }

    /// Place of entry `index`.
    fn of(&self, index: usize) -> usize {
        match self.groups {
            0 => 0,
            groups => side_index(self.interleave, groups, index / groups, index % groups),
        }
    }

    /// Writes the entries of a row-major array, each of so many bits, in a zeroed section.
    fn store<T: Sync>(
        &self,
        entries: &[T],
        bits: u32,
        section: &mut [u32],
        encode: impl Fn(&T) -> u32 + Send + Sync,
    ) {
        match bits {
            8 => self.store_as::<8, T>(entries, section, encode),
            16 => self.store_as::<16, T>(entries, section, encode),
            _ => self.store_as::<32, T>(entries, section, encode),
        }
    }

    fn store_as<const BITS: usize, T: Sync>(
        &self,
        entries: &[T],
        section: &mut [u32],
        encode: impl Fn(&T) -> u32 + Send + Sync,
    ) {
        let groups = self.groups;
        if groups == 0 {
            for entry in entries {
                put(section, BITS as u32, 0, encode(entry));
            }
            return;
        }
        // So many rows begin and end with a word and a group of interleaved rows, whatever the layout.
        const ROWS: usize = 32;
        let rows = padded_rows(entries.len() / groups, self.interleave);
        let words = (rows * groups * BITS).div_ceil(32);
        for_each_chunk_mut(&mut section[..words], groups * BITS, |index, words| {
            let rows = entries.chunks_exact(groups).skip(index * ROWS).take(ROWS);
            for (row, entries) in rows.enumerate() {
                let places = (side_index(self.interleave, groups, row, 0)..)
                    .step_by(self.interleave.max(1) as usize);
                for (place, entry) in places.zip(entries) {
                    let per_word = 32 / BITS;
                    words[place / per_word] |= encode(entry) << (BITS * (place % per_word));
                }
            }
        });
    }
}

/// The bits of an f16 that is there as f32, without rounding and without asking what the processor can do.
fn f16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let exact = if magnitude < 0x3880_0000 {
        // Subnormal: a multiple of 2^-24.
        (f32::from_bits(magnitude) * 16_777_216.0) as u32
    } else {
        (magnitude >> 13).wrapping_sub(112 << 10)
    };
    exact | bits >> 16 & 0x8000
}

/// Writes entry `index` of `bits` bits (8, 16 or 32) in a zeroed section.
fn put(section: &mut [u32], bits: u32, index: usize, value: u32) {
    let per_word = 32 / bits as usize;
    section[index / per_word] |= value << (bits as usize * (index % per_word));
}

/// Reads entry `index` of `bits` bits (8, 16 or 32) of a section.
fn take(section: &[u32], bits: u32, index: usize) -> u32 {
    let per_word = 32 / bits as usize;
    let mask = u32::MAX >> (32 - bits);
    section[index / per_word] >> (bits as usize * (index % per_word)) & mask
}

#[cfg(test)]
mod tests {
    use super::f16_bits;
    use half::f16;

    #[test]
    fn every_f16_keeps_its_bits() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            if value.is_finite() {
                assert_eq!(f16_bits(value.to_f32()), u32::from(bits), "{value}");
            }
        }
    }
}
