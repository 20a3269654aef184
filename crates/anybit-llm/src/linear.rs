//! Linear layers on the device: matrices that read the same activations, side by side.

use std::ops::Range;

use anybit::formats::{DeviceLayout, MatrixFormat, PackedMatrix};
use anybit::{Context, DeviceMatrix, Plan, PlanOptions, Problem};

use crate::error::Result;

/// Outputs of parts begin at multiples of so many columns, since a binding begins at a multiple of 256 bytes.
pub(crate) const ALIGNMENT: usize = 64;

/// Matrices of the same columns whose outputs lie side by side in one row. Neighbours of one format are one matrix.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) parts: Vec<Part>,
    /// The columns of the output at which each of the given matrices begins.
    pub(crate) starts: Vec<usize>,
    /// Columns of the output, gaps between parts included.
    pub(crate) width: usize,
}

/// One matrix and the columns of the output that it makes.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) columns: Range<usize>,
    pub(crate) matrix: DeviceMatrix,
}

impl Linear {
    /// Uploads matrices, as products with one row of activations of a format read them.
    pub(crate) fn upload(
        context: &Context,
        matrices: Vec<PackedMatrix>,
        activation: MatrixFormat,
        options: &PlanOptions,
    ) -> Result<Self> {
        let mut joined: Vec<PackedMatrix> = Vec::new();
        let mut starts = Vec::new();
        let mut offsets: Vec<usize> = Vec::new();
        let mut end: usize = 0;
        for matrix in matrices {
            let rows = matrix.rows();
            // Kernels load four columns at once.
            let like =
                |last: &mut PackedMatrix| last.format() == matrix.format() && end.is_multiple_of(4);
            match joined.pop_if(like) {
                None => joined.push(matrix),
                Some(last) => {
                    let columns = matrix.columns();
                    let pair = [last, matrix];
                    match PackedMatrix::concat_rows(*pair[0].format(), columns, &pair) {
                        Ok(whole) => joined.push(whole),
                        // Matrices of one format may differ in a scale of the whole.
                        Err(_) => joined.extend(pair),
                    }
                }
            }
            if offsets.len() < joined.len() {
                end = end.next_multiple_of(ALIGNMENT);
                offsets.push(end);
            }
            starts.push(end);
            end += rows;
        }
        let mut parts = Vec::new();
        for (matrix, first) in joined.iter().zip(offsets) {
            let shape = (1, matrix.rows(), matrix.columns());
            let problem = Problem::new(shape, activation, *matrix.format());
            let layout = context.plan_with(&problem, options)?.weight_layout();
            parts.push(Part {
                columns: first..first + matrix.rows(),
                matrix: context.upload(matrix, &layout)?,
            });
        }
        Ok(Self {
            parts,
            starts,
            width: end,
        })
    }

    /// Bytes on the device.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.matrix.bytes()).sum()
    }
}

impl Part {
    /// The plan for so many rows of activations.
    pub(crate) fn plan(
        &self,
        context: &Context,
        rows: usize,
        activation: MatrixFormat,
        residual: bool,
        options: &PlanOptions,
    ) -> Result<Plan> {
        let shape = (rows, self.columns.len(), self.matrix.columns());
        let mut problem = Problem::new(shape, activation, *self.matrix.format());
        problem.residual = residual;
        let options = options.clone().with_weight(&self.matrix);
        Ok(context.plan_with(&problem, &options)?)
    }
}

/// Activations in the layouts that the products of a layer read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activations {
    by_layout: Vec<(DeviceLayout, DeviceMatrix)>,
}

impl Activations {
    pub(crate) fn get(&self, layout: DeviceLayout) -> Option<&DeviceMatrix> {
        self.by_layout
            .iter()
            .find(|(found, _)| *found == layout)
            .map(|(_, matrix)| matrix)
    }

    pub(crate) fn insert(&mut self, layout: DeviceLayout, matrix: DeviceMatrix) {
        self.by_layout.push((layout, matrix));
    }
}
