//! How a product is cut into dispatches: what each of them binds is within the device's limits, and none runs longer than a
//! driver's watchdog waits.
//!
//! Cuts go along batches, rows of X and rows of W, never along K. Each output is thus the same sum in the same order, however a
//! product is cut.

use std::ops::Range;

use anybit_formats::layout::BLOCK;

/// A part of a product: all of K, and of the outputs what one dispatch makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) batches: Range<usize>,
    /// Rows of X and Y in each batch. All of them, if there are several batches.
    pub(crate) m: Range<usize>,
    /// Rows of W, columns of Y, in each batch. All of them, if there are several batches.
    pub(crate) n: Range<usize>,
}

impl Stretch {
    /// Its rows of X or Y where batches have `of_batch` rows each, stacked; 0 if all batches read the same.
    pub(crate) fn rows(&self, of_batch: usize) -> Range<usize> {
        stacked(&self.batches, of_batch, &self.m)
    }

    /// So its rows of W.
    pub(crate) fn columns(&self, of_batch: usize) -> Range<usize> {
        stacked(&self.batches, of_batch, &self.n)
    }
}

/// The rows of a stretch of a batch, or of several whole batches.
fn stacked(batches: &Range<usize>, of_batch: usize, rows: &Range<usize>) -> Range<usize> {
    let last = batches.end.saturating_sub(1).max(batches.start);
    batches.start * of_batch + rows.start..last * of_batch + rows.end
}

/// What stands in the way of a product in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The activations lie in several buffers, or take more than a binding.
    Activation,
    /// So do the weights.
    Weight,
    /// The output takes more than a binding.
    Output,
    /// There are more batches than workgroups along a dimension of the grid.
    Batches,
}

/// Rows that kernels of rows take at once: of all operands, those of one chunk, and `most` at most. `None` if they cannot be cut
/// so at multiples of [`ROW_STEP`].
pub(crate) fn row_stretches(
    rows: usize,
    operands: &[&[Range<usize>]],
    most: usize,
) -> Option<Vec<Range<usize>>> {
    let mut stretches = Vec::new();
    let mut first = 0;
    while first < rows {
        let held = first.saturating_add(most).min(rows);
        let ends = operands.iter().filter_map(|chunks| {
            let chunk = chunks.iter().find(|chunk| chunk.contains(&first));
            chunk.map(|chunk| chunk.end)
        });
        let mut end = ends.fold(held, usize::min);
        if end < rows {
            end -= end % ROW_STEP;
        }
        if end <= first {
            return None;
        }
        stretches.push(first..end);
        first = end;
    }
    Some(stretches)
}

/// Of such rows, even one word each may be bound from here on.
pub(crate) const ROW_STEP: usize = 64;

/// The rows of an operand, of all batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    /// Which of them lie together: consecutive, from row 0 to the last.
    pub(crate) chunks: &'a [Range<usize>],
    /// Rows of a batch; 0 if all batches read the same.
    pub(crate) of_batch: usize,
    /// The most that a binding holds.
    pub(crate) most: usize,
}

impl Rows<'_> {
    /// The chunk in which a row lies, and the rows of it before that row.
    fn place(&self, row: usize) -> Option<(usize, usize)> {
        let chunk = self.chunks.iter().position(|chunk| chunk.contains(&row))?;
        Some((chunk, row - self.chunks[chunk].start))
    }

    /// Whether a binding may begin at a row.
    fn begins(&self, row: usize) -> bool {
        self.place(row)
            .is_some_and(|(_, before)| before.is_multiple_of(BLOCK))
    }

    /// How many of these rows, from the first on, one binding holds.
    fn held(&self, range: &Range<usize>) -> usize {
        let end = self
            .chunks
            .iter()
            .find(|chunk| chunk.contains(&range.start))
            .map_or(range.end, |chunk| chunk.end);
        (end.min(range.end) - range.start).min(self.most)
    }
}

/// The columns of Y that one dispatch makes after the other where a product is cut along N alone: `outputs` in each, of `m` rows,
/// but no fewer columns than a few tiles have.
pub(crate) fn column_stretches(m: usize, n: usize, outputs: f64) -> Vec<Range<usize>> {
    let mut width = n.max(1);
    while m as f64 * width as f64 > outputs && width >= LEAST {
        let half = (width / 2).next_multiple_of(LEAST / 2);
        if half == width {
            break;
        }
        width = half;
    }
    let starts = (0..n).step_by(width);
    starts.map(|start| start..(start + width).min(n)).collect()
}

/// What a product is cut by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cuts<'a> {
    pub(crate) activation: Rows<'a>,
    pub(crate) weight: Rows<'a>,
    /// The most rows of Y that a binding holds.
    pub(crate) output_rows: usize,
    /// The most batches of a dispatch.
    pub(crate) batches: usize,
    /// The most outputs that a dispatch should make.
    pub(crate) outputs: f64,
}

/// Rows of a stretch that is not halved any more to save time: a few tiles.
const LEAST: usize = 256;

impl Cuts<'_> {
    /// The stretches of a product of `batches` times M×N, in order: those of the same batches and rows of X stand together,
    /// unless they are cut to save time.
    ///
    /// # Errors
    ///
    /// What does not fit, if it cannot be cut: a binding may begin at a multiple of 32 rows only.
    pub(crate) fn stretches(
        &self,
        batches: usize,
        m: usize,
        n: usize,
    ) -> Result<Vec<Stretch>, Obstacle> {
        let mut left = vec![Stretch {
            batches: 0..batches,
            m: 0..m,
            n: 0..n,
        }];
        let mut stretches = Vec::new();
        while let Some(stretch) = left.pop() {
            match self.cut(&stretch, m)? {
                None => stretches.push(stretch),
                // The first goes on first.
                Some([first, second]) => left.extend([second, first]),
            }
        }
        Ok(stretches)
    }

    fn cut(&self, stretch: &Stretch, m: usize) -> Result<Option<[Stretch; 2]>, Obstacle> {
        let Stretch {
            batches,
            m: rows,
            n: columns,
        } = stretch;
        let x = stretch.rows(self.activation.of_batch);
        let w = stretch.columns(self.weight.of_batch);
        let outputs = stretch.rows(m);
        let held = [
            (Obstacle::Activation, x.len(), self.activation.held(&x)),
            (
                Obstacle::Output,
                outputs.len(),
                outputs.len().min(self.output_rows),
            ),
            (Obstacle::Weight, w.len(), self.weight.held(&w)),
            (
                Obstacle::Batches,
                batches.len(),
                batches.len().min(self.batches),
            ),
        ];
        let obstacle = held.into_iter().find(|(_, needed, held)| held < needed);
        // The middle, or the batch next to it at which all operands may begin.
        let among_batches = || {
            let middle = batches.start + batches.len() / 2;
            (0..batches.len())
                .flat_map(|distance| [middle.checked_sub(distance), Some(middle + distance)])
                .flatten()
                .filter(|middle| *middle > batches.start && *middle < batches.end)
                .find_map(|middle| self.halves(stretch, m, [Some(middle), None, None]))
        };
        let at_row = |middle: usize| self.halves(stretch, m, [None, Some(middle), None]);
        let at_column = |middle: usize| self.halves(stretch, m, [None, None, Some(middle)]);
        if let Some((obstacle, _, held)) = obstacle {
            let halves = if batches.len() > 1 {
                among_batches()
            } else {
                let within = |range: &Range<usize>| {
                    let (least, end) = (range.start + 1, range.start + held);
                    // Where a chunk ends, or a multiple of 32 rows before the binding is full.
                    (least..=end).rev().take(BLOCK)
                };
                match obstacle {
                    Obstacle::Weight => within(columns).find_map(at_column),
                    Obstacle::Batches => None,
                    Obstacle::Activation | Obstacle::Output => within(rows).find_map(at_row),
                }
            };
            return halves.map(Some).ok_or(obstacle);
        }
        let work = batches.len() as f64 * rows.len() as f64 * columns.len() as f64;
        if work <= self.outputs {
            return Ok(None);
        }
        if batches.len() > 1 {
            return Ok(among_batches());
        }
        let middle = |range: &Range<usize>| {
            let half = (range.len() / 2).next_multiple_of(LEAST / 2);
            (range.len() >= LEAST && half < range.len()).then_some(range.start + half)
        };
        let (by_row, by_column) = (
            middle(rows).and_then(at_row),
            middle(columns).and_then(at_column),
        );
        Ok(match rows.len() > columns.len() {
            true => by_row.or(by_column),
            false => by_column.or(by_row),
        })
    }

    /// The two parts of a stretch that is cut at a batch, a row of X or a row of W, if the second may begin there.
    fn halves(
        &self,
        stretch: &Stretch,
        m: usize,
        [batch, row, column]: [Option<usize>; 3],
    ) -> Option<[Stretch; 2]> {
        let (mut first, mut second) = (stretch.clone(), stretch.clone());
        for (at, ends, begins) in [
            (batch, &mut first.batches, &mut second.batches),
            (row, &mut first.m, &mut second.m),
            (column, &mut first.n, &mut second.n),
        ] {
            if let Some(at) = at {
                ends.end = at;
                begins.start = at;
            }
        }
        let x = second.rows(self.activation.of_batch);
        let w = second.columns(self.weight.of_batch);
        (self.activation.begins(x.start)
            && self.weight.begins(w.start)
            && second.rows(m).start.is_multiple_of(BLOCK))
        .then_some([first, second])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(ends: &[usize]) -> Vec<Range<usize>> {
        let starts = std::iter::once(&0).chain(ends);
        starts.zip(ends).map(|(&start, &end)| start..end).collect()
    }

    fn cuts<'a>(x: &'a [Range<usize>], w: &'a [Range<usize>]) -> Cuts<'a> {
        let rows = |chunks| Rows {
            chunks,
            of_batch: 0,
            most: usize::MAX,
        };
        Cuts {
            activation: rows(x),
            weight: rows(w),
            output_rows: usize::MAX,
            batches: 65_535,
            outputs: f64::INFINITY,
        }
    }

    /// Every output is in one stretch, each of which binds what a binding holds, from where one may begin.
    fn check(cuts: &Cuts<'_>, batches: usize, m: usize, n: usize) -> Vec<Stretch> {
        let stretches = cuts
            .stretches(batches, m, n)
            .unwrap_or_else(|obstacle| panic!("{obstacle:?}"));
        let mut made = vec![0_u8; batches * m * n];
        for stretch in &stretches {
            if stretch.batches.len() > 1 {
                assert_eq!((&stretch.m, &stretch.n), (&(0..m), &(0..n)));
            }
            for (rows, range) in [
                (&cuts.activation, stretch.rows(cuts.activation.of_batch)),
                (&cuts.weight, stretch.columns(cuts.weight.of_batch)),
            ] {
                let (chunk, before) = rows.place(range.start).expect("a row that is there");
                assert!(before.is_multiple_of(BLOCK) && range.len() <= rows.most);
                assert!(range.end <= rows.chunks[chunk].end, "{stretch:?}");
            }
            let output = stretch.batches.start * m + stretch.m.start;
            assert!(output.is_multiple_of(BLOCK), "{stretch:?}");
            assert!(stretch.batches.len() * stretch.m.len() <= cuts.output_rows);
            for batch in stretch.batches.clone() {
                for row in stretch.m.clone() {
                    for column in stretch.n.clone() {
                        made[(batch * m + row) * n + column] += 1;
                    }
                }
            }
        }
        assert!(made.iter().all(|&times| times == 1), "{stretches:?}");
        stretches
    }

    #[test]
    fn what_fits_is_in_one_piece() {
        let (x, w) = (chunks(&[33]), chunks(&[70]));
        let whole = check(&cuts(&x, &w), 1, 33, 70);
        assert_eq!(
            whole,
            [Stretch {
                batches: 0..1,
                m: 0..33,
                n: 0..70
            }]
        );
    }

    #[test]
    fn chunks_of_either_operand_are_met_one_by_one() {
        let (x, w) = (chunks(&[64, 128, 130]), chunks(&[32, 64, 65]));
        let stretches = check(&cuts(&x, &w), 1, 130, 65);
        assert_eq!(stretches.len(), 9);
        // For kernels that split K: what adds to the same rows of Y stands together.
        let rows: Vec<usize> = stretches.iter().map(|stretch| stretch.m.start).collect();
        assert!(rows.is_sorted(), "{rows:?}");
    }

    #[test]
    fn outputs_and_floats_of_the_caller_are_cut_to_what_a_binding_holds() {
        let (x, w) = (chunks(&[1000]), chunks(&[70]));
        let mut cuts = cuts(&x, &w);
        cuts.output_rows = 100;
        let stretches = check(&cuts, 1, 1000, 70);
        assert!(stretches.iter().all(|stretch| stretch.m.len() <= 96));
        cuts.activation.most = 65;
        cuts.weight.most = 40;
        check(&cuts, 1, 1000, 70);
        cuts.output_rows = 31;
        assert_eq!(cuts.stretches(1, 1000, 70), Err(Obstacle::Output));
        // Where nothing follows, any number of rows will do.
        assert_eq!(check(&cuts, 1, 31, 70).len(), 2);
    }

    #[test]
    fn rows_are_cut_at_multiples_of_64() {
        let x = chunks(&[128, 256, 300]);
        let w = chunks(&[192, 300]);
        let cut = |most| row_stretches(300, &[&x, &w], most);
        assert_eq!(cut(1000), Some(vec![0..128, 128..192, 192..256, 256..300]));
        assert_eq!(
            cut(70),
            Some(vec![0..64, 64..128, 128..192, 192..256, 256..300])
        );
        assert_eq!(cut(63), None);
        assert_eq!(row_stretches(300, &[&chunks(&[32, 300])], 1000), None);
        assert_eq!(row_stretches(63, &[&x], 63), Some(chunks(&[63])));
        assert_eq!(row_stretches(0, &[&[]], 0), Some(vec![]));
    }

    #[test]
    fn batches_are_cut_where_all_operands_may_begin() {
        let (x, w) = (chunks(&[6 * 8, 12 * 8]), chunks(&[12 * 16]));
        let mut cuts = cuts(&x, &w);
        cuts.activation.of_batch = 8;
        cuts.weight.of_batch = 16;
        // Row 48 is in the middle of four batches of 8 rows, which begin at multiples of 32.
        assert_eq!(cuts.stretches(12, 8, 16), Err(Obstacle::Activation));
        let x = chunks(&[64, 96]);
        cuts.activation.chunks = &x;
        let stretches = check(&cuts, 12, 8, 16);
        assert!(stretches.len() >= 2, "{stretches:?}");
        cuts.batches = 4;
        let stretches = check(&cuts, 12, 8, 16);
        assert!(stretches.iter().all(|stretch| stretch.batches.len() <= 4));
        // Batches that share W, which lies in several buffers.
        let w = chunks(&[32, 40]);
        cuts.weight = Rows {
            chunks: &w,
            of_batch: 0,
            most: usize::MAX,
        };
        assert_eq!(cuts.stretches(12, 8, 40), Err(Obstacle::Weight));
        let x = chunks(&[12 * 64]);
        cuts.activation = Rows {
            chunks: &x,
            of_batch: 64,
            most: usize::MAX,
        };
        assert_eq!(check(&cuts, 12, 64, 40).len(), 24);
    }

    #[test]
    fn columns_are_cut_as_far_as_it_pays() {
        assert_eq!(column_stretches(10, 1000, 1e4), vec![0..1000]);
        assert_eq!(column_stretches(10, 1000, 9e3), vec![0..512, 512..1000]);
        let least = column_stretches(10, 1000, 1.0);
        assert!(least.iter().all(|columns| columns.start % 128 == 0));
        assert_eq!(least.len(), 8);
        assert_eq!(least.last(), Some(&(896..1000)));
        assert_eq!(column_stretches(10, 255, 1.0), vec![0..255]);
        assert_eq!(column_stretches(10, 0, 1.0), vec![]);
    }

    #[test]
    fn long_work_is_cut_as_far_as_it_pays() {
        let (x, w) = (chunks(&[1000]), chunks(&[3000]));
        let mut cuts = cuts(&x, &w);
        cuts.outputs = 400_000.0;
        let stretches = check(&cuts, 1, 1000, 3000);
        let outputs = stretches
            .iter()
            .map(|stretch| stretch.m.len() * stretch.n.len());
        assert!(outputs.max() <= Some(400_000), "{stretches:?}");
        // However short the time, a few tiles are done at once.
        cuts.outputs = 1.0;
        let stretches = check(&cuts, 1, 1000, 3000);
        assert!(stretches.len() < 500, "{}", stretches.len());
        // Batches of 48 rows, of which every other one begins where a binding can.
        let (x, w) = (chunks(&[10 * 48]), chunks(&[10 * 64]));
        let of_batch = |chunks, of_batch| Rows {
            chunks,
            of_batch,
            most: usize::MAX,
        };
        (cuts.activation, cuts.weight) = (of_batch(&x, 48), of_batch(&w, 64));
        assert_eq!(check(&cuts, 10, 48, 64).len(), 5);
        // Where nothing can be cut, the work stays whole.
        let (x, w) = (chunks(&[7 * 5]), chunks(&[7 * 9]));
        cuts.activation = Rows {
            chunks: &x,
            of_batch: 5,
            most: usize::MAX,
        };
        cuts.weight = Rows {
            chunks: &w,
            of_batch: 9,
            most: usize::MAX,
        };
        assert_eq!(check(&cuts, 7, 5, 9).len(), 1);
    }
}
