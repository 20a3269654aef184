//! The figures that are kept, so that a change shows in review: docs/isa.json, and what docs/isa.md tells of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::family::Family;
use super::figures::{Figures, percent, wide_share};
use crate::{Error, docs};

/// What docs/isa.json holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Golden {
    /// Other drivers compile to other code.
    pub(super) driver: String,
    /// In the order of their keys.
    pub(super) rows: Vec<Figures>,
}

/// A kernel on a family, with what it falls short of.
type Judged<'a> = (Family, &'a Figures, Vec<String>);

/// Around the part of docs/isa.md that is generated.
const BEGIN: &str = "<!-- `cargo xtask isa --update` writes what follows. -->\n";
const END: &str = "<!-- Up to here. -->\n";

impl Golden {
    pub(super) fn new(driver: String, mut rows: Vec<Figures>) -> Self {
        rows.sort_by(|a, b| a.key().cmp(&b.key()));
        Self { driver, rows }
    }

    /// The file in the checkout.
    ///
    /// # Errors
    ///
    /// [`Error::File`], also for a file of another form.
    pub(super) fn read() -> Result<Self, Error> {
        let path = docs::path("isa.json");
        let text = read(&path)?;
        serde_json::from_str(&text).map_err(|error| Error::File {
            action: "use",
            path,
            source: error.into(),
        })
    }

    /// Writes the file and the page's part.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(super) fn write(&self) -> Result<(), Error> {
        let page = docs::path("isa.md");
        let text = self.page(&page, &read(&page)?)?;
        for (path, text) in [(docs::path("isa.json"), self.json()?), (page, text)] {
            fs::write(&path, text).map_err(|source| Error::File {
                action: "write",
                path: path.clone(),
                source,
            })?;
            println!("wrote {}", path.display());
        }
        Ok(())
    }

    /// Whether the page tells of these figures.
    ///
    /// # Errors
    ///
    /// [`Error::IsaOutOfDate`] if not; [`Error::File`].
    pub(super) fn check_page(&self) -> Result<(), Error> {
        let path = docs::path("isa.md");
        // A checkout may have turned line ends.
        let text = read(&path)?.replace("\r\n", "\n");
        if self.page(&path, &text)? == text {
            return Ok(());
        }
        Err(Error::IsaOutOfDate {
            what: format!("{} does not tell of isa.json", path.display()),
        })
    }

    /// A row a line, so that a change of one is a change of one line.
    fn json(&self) -> Result<String, Error> {
        let failed = |error: serde_json::Error| Error::File {
            action: "write",
            path: docs::path("isa.json"),
            source: error.into(),
        };
        let driver = serde_json::to_string(&self.driver).map_err(failed)?;
        let rows = self
            .rows
            .iter()
            .map(|row| serde_json::to_string(row).map_err(failed))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(format!(
            "{{\"driver\":{driver},\"rows\":[\n{}\n]}}\n",
            rows.join(",\n")
        ))
    }

    /// The page with its generated part anew.
    fn page(&self, path: &Path, text: &str) -> Result<String, Error> {
        let parts = text
            .split_once(BEGIN)
            .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, after) = parts.ok_or_else(|| Error::File {
            action: "find the place for the figures in",
            path: path.to_owned(),
            source: std::io::Error::other(format!("it lacks {BEGIN}or {END}")),
        })?;
        Ok(format!("{before}{BEGIN}{}{END}{after}", self.summary()))
    }

    /// Whether the aims hold, kernel by kernel.
    fn summary(&self) -> String {
        let families = Family::KEPT;
        let mut kernels: BTreeMap<(&str, &str), Vec<Judged<'_>>> = BTreeMap::new();
        for family in families {
            for row in self.rows.iter().filter(|row| row.family == family.name()) {
                if let Some(misses) = row.misses(family) {
                    let key = (row.contract.as_str(), row.kernel.as_str());
                    kernels.entry(key).or_default().push((family, row, misses));
                }
            }
        }
        let mut text = format!("\nCompiled by {}.", self.driver);
        for family in families {
            let of_family = || {
                let all = kernels.values().flatten();
                all.filter(move |(other, _, _)| *other == family)
            };
            let hold = of_family()
                .filter(|(_, _, misses)| misses.is_empty())
                .count();
            // Writing to a `String` cannot fail.
            let _ = write!(
                text,
                " On {}, {hold} of {} kernels meet all their aims.",
                family.name(),
                of_family().count()
            );
        }
        let names = families.map(Family::name);
        let _ = write!(
            text,
            "\n\nFigures are those of {}.\n\n\
             | kernel | waves | VGPRs | share of products | falls short by |\n|---|---|---|---|---|\n",
            names.join(" / ")
        );
        for ((_, kernel), rows) in kernels {
            let each = |figure: &dyn Fn(&Figures) -> String| -> String {
                let figures: Vec<String> = rows.iter().map(|(_, row, _)| figure(row)).collect();
                figures.join(" / ")
            };
            let misses: Vec<String> = rows
                .iter()
                .filter(|(_, _, misses)| !misses.is_empty())
                .map(|(family, _, misses)| format!("{}: {}", family.name(), misses.join(", ")))
                .collect();
            let _ = writeln!(
                text,
                "| `{kernel}` | {} | {} | {} | {} |",
                each(&|row| row.waves.to_string()),
                each(&|row| row.vgprs.to_string()),
                each(&|row| percent(row.share_of_products())),
                if misses.is_empty() {
                    "nothing".to_owned()
                } else {
                    misses.join("; ")
                }
            );
        }
        text.push('\n');
        text
    }

    /// What differs from the figures of now by more than the tolerance; better figures too, since a later loss would not
    /// show against those of before.
    pub(super) fn differences(&self, now: &[Figures]) -> Vec<String> {
        let by_key = |rows: &[Figures]| -> BTreeMap<(String, String), Figures> {
            rows.iter()
                .map(|row| ((row.kernel.clone(), row.family.clone()), row.clone()))
                .collect()
        };
        let (kept, now) = (by_key(&self.rows), by_key(now));
        let mut differences = Vec::new();
        for ((kernel, family), row) in &now {
            match kept.get(&(kernel.clone(), family.clone())) {
                None => differences.push(format!("{kernel} on {family}: new")),
                Some(before) => {
                    let changes = changes(before, row);
                    if !changes.is_empty() {
                        differences.push(format!("{kernel} on {family}: {}", changes.join(", ")));
                    }
                }
            }
        }
        for (kernel, family) in kept.keys() {
            if !now.contains_key(&(kernel.clone(), family.clone())) {
                differences.push(format!("{kernel} on {family}: gone"));
            }
        }
        differences
    }
}

/// The figures that a change of a kernel must not move unseen, with what they may move by unmentioned.
fn changes(before: &Figures, now: &Figures) -> Vec<String> {
    let mut changes = Vec::new();
    // More is better, or worse.
    let mut compare = |name: &str, before: f64, now: f64, tolerance: f64, more_is_better: bool| {
        let change = now - before;
        // Figures are written to a thousandth.
        if change.abs() > tolerance + 1e-9 {
            let verdict = if (change > 0.0) == more_is_better {
                "better"
            } else {
                "WORSE"
            };
            let digits = if name.contains("share") { 3 } else { 0 };
            changes.push(format!(
                "{name} {before:.digits$} -> {now:.digits$} ({verdict})"
            ));
        }
    };
    let mut count = |name: &str, figure: &dyn Fn(&Figures) -> u64, tolerance: f64, better: bool| {
        let (before, now) = (figure(before) as f64, figure(now) as f64);
        compare(name, before, now, tolerance * before, better);
    };
    count("waves", &|row| row.waves, 0.0, true);
    count("VGPRs", &|row| row.vgprs, 0.1, false);
    count("spilled VGPRs", &|row| row.spilled_vgprs, 0.0, false);
    count("spilled SGPRs", &|row| row.spilled_sgprs, 0.0, false);
    count("scratch", &|row| row.scratch, 0.0, false);
    count("LDS", &|row| row.lds, 0.0, false);
    count("code size", &|row| row.code_size, 0.1, false);
    let barriers = |row: &Figures| row.hot.as_ref().map_or(0, |hot| hot.barriers.into());
    count("barriers", &barriers, 0.0, false);
    let mut share = |name: &str, figure: &dyn Fn(&Figures) -> f64, tolerance: f64| {
        compare(name, figure(before), figure(now), tolerance, true);
    };
    share("useful share", &|row| row.useful_share, 0.02);
    let global = |row: &Figures| wide_share_of(row, false);
    let workgroup = |row: &Figures| wide_share_of(row, true);
    share("share of wide global loads", &global, 0.1);
    share("share of wide workgroup loads", &workgroup, 0.1);
    changes
}

fn wide_share_of(row: &Figures, workgroup: bool) -> f64 {
    row.hot.as_ref().map_or(1.0, |hot| {
        wide_share(if workgroup {
            &hot.workgroup_loads
        } else {
            &hot.global_loads
        })
    })
}

fn read(path: &PathBuf) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File {
        action: "read",
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::row;
    use super::*;

    fn golden() -> Golden {
        Golden::new(
            "Mesa 1".to_owned(),
            vec![
                row(Family::Navi21, "gemm_b__dot4_1x2x3"),
                row(Family::Gfx1100, "gemm_b__dot4_1x2x3"),
                row(Family::Gfx1100, "gemm_a__dot4_1x2x3"),
            ],
        )
    }

    #[test]
    fn the_file_has_a_row_a_line_in_a_stable_order() {
        let golden = golden();
        let text = golden.json().expect("JSON");
        let again = Golden::new(
            golden.driver.clone(),
            golden.rows.iter().rev().cloned().collect(),
        );
        assert_eq!(again.json().expect("JSON"), text);
        assert_eq!(
            serde_json::from_str::<Golden>(&text).expect("the same"),
            golden
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(
            lines[1].contains("gemm_a") && lines[2].contains("gfx1100"),
            "{text}"
        );
    }

    #[test]
    fn the_same_figures_do_not_differ() {
        let golden = golden();
        assert_eq!(golden.differences(&golden.rows), [""; 0]);
    }

    #[test]
    fn small_changes_pass_and_others_are_named() {
        let golden = golden();
        let mut now = golden.rows.clone();
        now[0].vgprs += 8;
        now[0].code_size -= 400;
        now[0].useful_share += 0.02;
        assert_eq!(golden.differences(&now), [""; 0]);
        now[0].vgprs += 1;
        now[0].waves -= 1;
        now[0].useful_share -= 0.1;
        now[0].spilled_vgprs = 2;
        now[1].waves += 2;
        assert_eq!(
            golden.differences(&now),
            [
                "gemm_a__dot4_1x2x3 on gfx1100: waves 12 -> 11 (WORSE), VGPRs 80 -> 89 (WORSE), \
                 spilled VGPRs 0 -> 2 (WORSE), useful share 0.900 -> 0.820 (WORSE)",
                "gemm_b__dot4_1x2x3 on gfx1100: waves 12 -> 14 (better)",
            ]
        );
    }

    #[test]
    fn kernels_that_come_and_go_are_named() {
        let golden = golden();
        let mut now = golden.rows[1..].to_vec();
        now.push(row(Family::Navi21, "gemm_c__dot4_1x2x3"));
        assert_eq!(
            golden.differences(&now),
            [
                "gemm_c__dot4_1x2x3 on navi21: new",
                "gemm_a__dot4_1x2x3 on gfx1100: gone"
            ]
        );
    }

    #[test]
    fn only_the_generated_part_of_the_page_changes() {
        let golden = golden();
        let path = Path::new("isa.md");
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        let text = golden.page(path, &page).expect("it has the marks");
        assert!(
            text.starts_with("before\n") && text.ends_with("after\n"),
            "{text}"
        );
        assert!(!text.contains("old"), "{text}");
        assert!(
            text.contains("On gfx1100, 2 of 2 kernels meet all their aims."),
            "{text}"
        );
        assert_eq!(golden.page(path, &text).expect("it has the marks"), text);
        assert!(golden.page(path, "no marks").is_err());
    }
}
