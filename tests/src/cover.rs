//! Few combinations that meet every pair.

use std::collections::HashSet;

use crate::full;
use crate::random::Random;

/// Rows over factors of so many levels, such that each two levels of different factors stand in a row together, if any
/// allowed row has them. `allowed` says which combinations make sense.
///
/// Greedy: each row is the best of some random ones that contain a pair still missing.
pub fn pairwise(levels: &[usize], allowed: impl Fn(&[usize]) -> bool) -> Vec<Vec<usize>> {
    const CANDIDATES: usize = 24;
    const TRIES: usize = 400;
    let mut random = Random::new(0x0c0f_fee0);
    let mut missing = Vec::new();
    for (first, &count) in levels.iter().enumerate() {
        for (second, &other) in levels.iter().enumerate().skip(first + 1) {
            for a in 0..count {
                missing.extend((0..other).map(|b| (first, a, second, b)));
            }
        }
    }
    let has = |row: &[usize], &(first, a, second, b): &(usize, usize, usize, usize)| {
        row[first] == a && row[second] == b
    };
    let mut rows: Vec<Vec<usize>> = Vec::new();
    while let Some(&(first, a, second, b)) = missing.first() {
        let mut best: Option<(usize, Vec<usize>)> = None;
        let mut found = 0;
        for _ in 0..TRIES {
            let mut row: Vec<usize> = levels.iter().map(|&count| random.below(count)).collect();
            (row[first], row[second]) = (a, b);
            if !allowed(&row) {
                continue;
            }
            let gain = missing.iter().filter(|pair| has(&row, pair)).count();
            if best.as_ref().is_none_or(|(most, _)| gain > *most) {
                best = Some((gain, row));
            }
            found += 1;
            if found == CANDIDATES {
                break;
            }
        }
        match best {
            Some((_, row)) => {
                missing.retain(|pair| !has(&row, pair));
                rows.push(row);
            }
            // No allowed row has this pair, as far as was tried.
            None => {
                missing.swap_remove(0);
            }
        }
    }
    rows
}

/// Some rows of [`pairwise`], unless `full`: every so many, and those that bring a level which none before them had.
pub fn each_level(
    levels: &[usize],
    allowed: impl Fn(&[usize]) -> bool,
    every: usize,
) -> Vec<Vec<usize>> {
    let rows = pairwise(levels, allowed);
    if full() { rows } else { thinned(rows, every) }
}

fn thinned(mut rows: Vec<Vec<usize>>, every: usize) -> Vec<Vec<usize>> {
    let (mut met, mut turn) = (HashSet::new(), every - 1);
    rows.retain(|row| {
        let met_before = met.len();
        met.extend(row.iter().copied().enumerate());
        turn = (turn + 1) % every;
        turn == 0 || met.len() > met_before
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_left() {
        let levels = [4, 3, 5, 7];
        let rows = pairwise(&levels, |_| true);
        // A step that takes but the first row: what is left beside it is there for a level.
        let few = thinned(rows.clone(), rows.len());
        assert!(few.len() < rows.len() && few.iter().all(|row| rows.contains(row)));
        for (factor, &count) in levels.iter().enumerate() {
            for level in 0..count {
                assert!(few.iter().any(|row| row[factor] == level));
            }
        }
    }

    #[test]
    fn every_pair_that_is_allowed_is_met() {
        let levels = [4, 3, 5, 2];
        let allowed = |row: &[usize]| !(row[0] == 1 && row[3] == 1);
        let rows = pairwise(&levels, allowed);
        assert!(rows.iter().all(|row| allowed(row)));
        for (first, &count) in levels.iter().enumerate() {
            for (second, &other) in levels.iter().enumerate().skip(first + 1) {
                for a in 0..count {
                    for b in 0..other {
                        let met = rows.iter().any(|row| row[first] == a && row[second] == b);
                        assert_eq!(met, !(first == 0 && second == 3 && a == 1 && b == 1));
                    }
                }
            }
        }
        assert!(rows.len() < 40, "{} rows", rows.len());
    }
}
