//! A quantised weight, taken apart: codes, scales, and which scale serves which element.

use std::ops::Range;

use anybit_formats::{
    ElementFormat, FormatError, Granularity, MatrixFormat, PackedMatrix, ScaleLayout, ScaleType,
    SideData, ZeroKind, Zeros,
};

use super::WeightLayout;
use crate::ImportError;
use crate::gguf::{reserve, shorten};

/// Which scale serves the element at a row and a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// One for the matrix.
    Tensor,
    /// One for each row.
    Rows,
    /// One for each so many columns of a row; the last group may be shorter.
    Groups(usize),
    /// One for each row and group; a column's group is listed. The columns of a group need not be adjacent.
    Listed { groups: usize, of_column: Vec<u32> },
    /// One for each block of so many rows and columns; the last ones may be smaller.
    Blocks { rows: usize, columns: usize },
    /// One for each so many elements of the matrix, row after row.
    Flat(usize),
}

impl Places {
    /// Scales of a matrix.
    pub(super) fn count(&self, rows: usize, columns: usize) -> usize {
        match *self {
            Self::Tensor => 1,
            Self::Rows => rows,
            Self::Groups(group) => rows.saturating_mul(columns.div_ceil(group)),
            Self::Listed { groups, .. } => rows.saturating_mul(groups),
            Self::Blocks {
                rows: block_rows,
                columns: block_columns,
            } => rows
                .div_ceil(block_rows)
                .saturating_mul(columns.div_ceil(block_columns)),
            Self::Flat(block) => rows.saturating_mul(columns).div_ceil(block),
        }
    }

    /// The scale of the element at a place in a matrix of so many columns.
    fn index(&self, columns: usize, row: usize, column: usize) -> usize {
        match self {
            Self::Tensor => 0,
            Self::Rows => row,
            Self::Groups(group) => row * columns.div_ceil(*group) + column / group,
            Self::Listed { groups, of_column } => {
                row * groups + of_column.get(column).map_or(0, |&group| group as usize)
            }
            Self::Blocks {
                rows: block_rows,
                columns: block_columns,
            } => row / block_rows * columns.div_ceil(*block_columns) + column / block_columns,
            Self::Flat(block) => (row * columns + column) / block,
        }
    }

    /// Columns that have one scale wherever they begin, of a matrix of so many; all of them where that is the row.
    fn run(&self, columns: usize) -> usize {
        match *self {
            Self::Tensor | Self::Rows => columns,
            Self::Groups(group) | Self::Blocks { columns: group, .. } if group >= columns => {
                columns
            }
            Self::Groups(group) => group,
            // Blocks of the matrix, or of its rows, end where the columns do: the common divisor ends there too.
            Self::Blocks { columns: block, .. } | Self::Flat(block) => {
                common_divisor(block, columns)
            }
            Self::Listed { .. } => 1,
        }
    }

    /// How a packed matrix of so many columns scales so; `None` if none does.
    fn granularity(&self, columns: usize) -> Option<Granularity> {
        if *self == Self::Tensor {
            return Some(Granularity::Tensor);
        }
        let run = self.run(columns);
        if run == columns {
            return Some(Granularity::Row);
        }
        let whole = columns.is_multiple_of(run) && (run == 16 || run.is_multiple_of(32));
        (whole && run > 0).then_some(Granularity::Group(u32::try_from(run).ok()?))
    }
}

fn common_divisor(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What is known of a quantised weight before its codes are read.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) element: ElementFormat,
    /// The stored type of the scales; `None` for bare codes.
    pub(super) scale: Option<ScaleType>,
    /// Whether each scale has a zero point.
    pub(super) zeros: bool,
    pub(super) places: Places,
}

impl Plan {
    /// The format of the packed matrix that keeps the weight; `None` if none does.
    pub(super) fn matrix_format(&self) -> Option<MatrixFormat> {
        let Some(scale) = self.scale else {
            return MatrixFormat::new(self.element, None).ok();
        };
        let layout = ScaleLayout {
            granularity: self.places.granularity(self.columns)?,
            scale,
            zero: if self.zeros {
                ZeroKind::Integer
            } else {
                ZeroKind::None
            },
        };
        MatrixFormat::new(self.element, Some(layout)).ok()
    }
}

/// A quantised weight: `value = scale · (element of the code − zero point)`.
pub(super) struct CodedWeight {
    pub(super) plan: Plan,
    /// Row-major.
    pub(super) codes: Vec<u8>,
    /// As many as the places have.
    pub(super) scales: Vec<f32>,
    /// One for each scale, if the plan has them. Those of GPTQ go up to 256.
    pub(super) zeros: Vec<u16>,
    /// The factor of all scales, if the scale type has one.
    pub(super) second: Option<f32>,
}

impl CodedWeight {
    /// Checks scales and codes. `name` is for errors.
    pub(super) fn check(self, name: &str) -> Result<Self, ImportError> {
        let Plan {
            columns, element, ..
        } = self.plan;
        if self.plan.scale.is_some() {
            let count = self.plan.places.count(self.plan.rows, columns);
            debug_assert_eq!(self.scales.len(), count, "scales of {name}");
        }
        let wrong = self.scales.iter().position(|scale| !scale.is_finite());
        if let Some(index) = wrong {
            let per_row = (self.scales.len() / self.plan.rows.max(1)).max(1);
            return Err(ImportError::NonFiniteScale {
                tensor: shorten(name),
                row: (index / per_row) as u64,
                block: (index % per_row) as u64,
                part: crate::ScalePart::Scale,
                value: self.scales.get(index).copied().unwrap_or(f32::NAN),
            });
        }
        let valid: [bool; 256] = std::array::from_fn(|code| {
            element
                .code_value(code as u8)
                .is_some_and(|value| value.is_finite())
        });
        let wrong = self
            .codes
            .iter()
            .position(|&code| !valid.get(usize::from(code)).is_some_and(|&valid| valid));
        if let (Some(index), Some(&code)) = (wrong, wrong.and_then(|index| self.codes.get(index))) {
            return Err(ImportError::Matrix {
                tensor: shorten(name),
                source: FormatError::NonFiniteCode {
                    row: index / columns.max(1),
                    column: index % columns.max(1),
                    code,
                    value: element.code_value(code).unwrap_or(f32::NAN),
                    element,
                },
            });
        }
        Ok(self)
    }

    /// The scale of a place, both levels.
    fn scale(&self, index: usize) -> f32 {
        // Bare codes have none.
        let first = self.scales.get(index).copied().unwrap_or(1.0);
        self.second.map_or(first, |second| first * second)
    }

    /// Appends the values of rows.
    pub(super) fn values(
        &self,
        rows: Range<usize>,
        values: &mut Vec<f32>,
    ) -> Result<(), ImportError> {
        let Plan {
            columns,
            element,
            ref places,
            ..
        } = self.plan;
        let count = (rows.end.saturating_sub(rows.start) as u64).saturating_mul(columns as u64);
        reserve(values, count, "the values of a tensor")?;
        // Codes have been checked.
        let table: [f32; 256] =
            std::array::from_fn(|code| element.code_value(code as u8).unwrap_or(0.0));
        let run = places.run(columns).max(1);
        for row in rows {
            let codes = self
                .codes
                .get(row * columns..(row + 1) * columns)
                .unwrap_or_default();
            for (index, codes) in codes.chunks(run).enumerate() {
                let place = places.index(columns, row, index * run);
                let scale = self.scale(place);
                let zero = self.zeros.get(place).map_or(0.0, |&zero| f32::from(zero));
                let decode = |&code: &u8| {
                    scale * (table.get(usize::from(code)).copied().unwrap_or(0.0) - zero)
                };
                values.extend(codes.iter().map(decode));
            }
        }
        Ok(())
    }

    /// The weight as a packed matrix, and the order of its columns where that is another.
    pub(super) fn matrix(
        mut self,
        name: &str,
        stored: WeightLayout,
    ) -> Result<(PackedMatrix, Option<Vec<u32>>), ImportError> {
        let not_packable = |reason| ImportError::NotPackable {
            weight: shorten(name),
            layout: stored,
            reason,
        };
        let permutation = self.sort_columns(&not_packable)?;
        let Plan {
            rows,
            columns,
            ref places,
            ..
        } = self.plan;
        let format = self.plan.matrix_format().ok_or_else(|| {
            not_packable("its scales do not each serve 16 columns of a row, or a multiple of 32")
        })?;
        if self.zeros.iter().any(|&zero| zero > u16::from(u8::MAX)) {
            return Err(not_packable(
                "a zero point is 256, and those of matrices go up to 255",
            ));
        }

        // One scale for each group of the matrix, which may be part of what a scale of the file serves.
        let count = format.scale_count(rows, columns);
        let group = format.group_len(columns).max(1);
        let groups = format.groups(columns).max(1);
        let place = |index: usize| match places {
            Places::Tensor => 0,
            _ => places.index(columns, index / groups, index % groups * group),
        };
        let mut scales = Vec::new();
        reserve(&mut scales, count as u64, "the scales of a tensor")?;
        scales
            .extend((0..count).map(|index| self.scales.get(place(index)).copied().unwrap_or(0.0)));
        let mut zeros = Vec::new();
        if self.plan.zeros {
            reserve(&mut zeros, count as u64, "the zero points of a tensor")?;
            zeros.extend(
                (0..count).map(|index| self.zeros.get(place(index)).map_or(0, |&zero| zero as u8)),
            );
        }
        let second: Vec<f32> = self.second.into_iter().collect();
        let side = SideData {
            scales: &scales,
            second: &second,
            zeros: if self.plan.zeros {
                Zeros::Integer(&zeros)
            } else {
                Zeros::None
            },
            second_minima: &[],
        };
        let matrix = PackedMatrix::from_parts(format, rows, columns, &self.codes, side).map_err(
            |source| ImportError::Matrix {
                tensor: shorten(name),
                source,
            },
        )?;
        Ok((matrix, permutation))
    }

    /// Puts the columns of each group together, if the groups are listed, and gives which column came to each place.
    fn sort_columns(
        &mut self,
        not_packable: &impl Fn(&'static str) -> ImportError,
    ) -> Result<Option<Vec<u32>>, ImportError> {
        let Places::Listed { groups, of_column } = &self.plan.places else {
            return Ok(None);
        };
        let columns = self.plan.columns;
        let group = columns.div_ceil((*groups).max(1));
        let mut order = Vec::new();
        reserve(&mut order, columns as u64, "the order of columns")?;
        order.extend(0..of_column.len() as u32);
        // Stable: the columns of a group stay in their order.
        order.sort_by_key(|&column| of_column.get(column as usize));
        let sorted = order.iter().enumerate().all(|(place, &column)| {
            of_column
                .get(column as usize)
                .is_some_and(|&of| of as usize == place / group)
        });
        if !sorted {
            return Err(not_packable("its groups are not all of one size"));
        }
        let mut row = Vec::new();
        reserve(&mut row, columns as u64, "a row of codes")?;
        for codes in self.codes.chunks_exact_mut(columns.max(1)) {
            row.clear();
            row.extend(
                order
                    .iter()
                    .map(|&column| codes.get(column as usize).copied().unwrap_or(0)),
            );
            codes.copy_from_slice(&row);
        }
        self.plan.places = Places::Groups(group);
        Ok(Some(order))
    }
}

/// The `bits`-bit field number `index` of a row of little-endian words; fields may straddle words.
pub(super) fn field(words: impl Fn(usize) -> u32, bits: u32, index: usize) -> u8 {
    let bit = index as u64 * u64::from(bits);
    let (word, shift) = ((bit / 32) as usize, (bit % 32) as u32);
    let mut value = words(word) >> shift;
    if shift + bits > 32 {
        value |= words(word + 1) << (32 - shift);
    }
    (value & ((1 << bits) - 1)) as u8
}
