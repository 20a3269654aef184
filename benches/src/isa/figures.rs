//! The figures of a kernel on a family, and what they are meant to be.

use std::fmt::Write;

use anybit::{Candidate, Skeleton};
use serde::{Deserialize, Serialize};

use super::assembly::{Assembly, Counts, Loads};
use super::family::Family;
use super::vulkan::Compiled;

/// A kernel compiled for a family. The fields are the JSON keys, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) family: String,
    /// What is computed: the part of the kernel's id left of `__`.
    pub(super) contract: String,
    pub(super) kernel: String,
    pub(super) engine: String,
    /// How the work is shared out: `tiled`, `subgroup` or `gemv`.
    pub(super) skeleton: String,
    /// Invocations in a wave.
    pub(super) wave_size: u32,
    /// Waves of a SIMD at once, as the driver counts them: RDNA's of 64 invocations count as two.
    pub(super) waves: u64,
    pub(super) vgprs: u64,
    pub(super) sgprs: u64,
    pub(super) spilled_vgprs: u64,
    pub(super) spilled_sgprs: u64,
    /// Bytes that a wave keeps in memory for want of registers.
    pub(super) scratch: u64,
    /// Bytes of workgroup memory.
    pub(super) lds: u64,
    /// Bytes.
    pub(super) code_size: u64,
    /// All of the code, waits left out.
    pub(super) instructions: u32,
    /// Share of dot products, bit counts and multiply-adds in the loop.
    pub(super) useful_share: f64,
    /// The innermost loop around the products; null if they are in no loop.
    #[serde(rename = "loop")]
    pub(super) hot: Option<Counts>,
}

/// The part of a candidate that figures name.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) contract: String,
    pub(super) id: String,
    pub(super) engine: &'static str,
    pub(super) skeleton: &'static str,
}

impl Kernel {
    pub(super) fn of(candidate: &Candidate) -> Self {
        let id = candidate.specialization.id.clone();
        Self {
            contract: id.split("__").next().unwrap_or_default().to_owned(),
            id,
            engine: candidate.engine.name(),
            skeleton: match candidate.skeleton {
                Skeleton::Tiled => "tiled",
                Skeleton::Subgroup => "subgroup",
                Skeleton::Gemv => "gemv",
                _ => "other",
            },
        }
    }
}

impl Figures {
    pub(super) fn new(family: Family, kernel: &Kernel, compiled: &Compiled) -> Self {
        let assembly = Assembly::parse(&compiled.assembly);
        let hot = assembly.hot_loop();
        // Drivers name their statistics as they like; Mesa has had these names since it has had statistics.
        let statistic = |name: &str| compiled.statistics.get(name).copied().unwrap_or(0);
        let share = hot.as_ref().map_or(0.0, |hot| share(hot.useful(), hot));
        Self {
            family: family.name().to_owned(),
            contract: kernel.contract.clone(),
            kernel: kernel.id.clone(),
            engine: kernel.engine.to_owned(),
            skeleton: kernel.skeleton.to_owned(),
            wave_size: compiled.subgroup_size,
            waves: statistic("Subgroups per SIMD"),
            vgprs: statistic("VGPRs"),
            sgprs: statistic("SGPRs"),
            spilled_vgprs: statistic("Spilled VGPRs"),
            spilled_sgprs: statistic("Spilled SGPRs"),
            scratch: statistic("Scratch size"),
            lds: statistic("LDS size"),
            code_size: statistic("Code size"),
            instructions: assembly.whole().instructions,
            useful_share: share,
            hot,
        }
    }

    /// Sorts by contract, kernel and family, whatever order they were compiled in.
    pub(super) fn key(&self) -> (&str, &str, &str) {
        (&self.contract, &self.kernel, &self.family)
    }

    /// The share that the aims are about: a product of bit planes takes an and or xor before it is counted, so there such
    /// an instruction for each bit count is useful too.
    pub(super) fn share_of_products(&self) -> f64 {
        match &self.hot {
            Some(hot) if self.engine == "bitplane" => {
                share(hot.useful() + hot.logic.min(hot.bit_count), hot)
            }
            _ => self.useful_share,
        }
    }

    /// What the kernel falls short of; `None` if there are no aims for it.
    pub(super) fn misses(&self, family: Family) -> Option<Vec<String>> {
        let (least_share, least_waves) = match (self.engine.as_str(), self.skeleton.as_str()) {
            _ if !family.has_aims() => return None,
            // What looks sums up hardly multiplies.
            ("lut" | "lut8" | "lmul", _) => return None,
            (_, "gemv") => (0.25, 16),
            ("dot4" | "bitplane", _) => (0.85, 12),
            _ => return None,
        };
        let mut misses = Vec::new();
        let Some(hot) = &self.hot else {
            return Some(vec!["no loop".to_owned()]);
        };
        if self.share_of_products() < least_share {
            misses.push(format!("share {}", percent(self.share_of_products())));
        }
        if self.waves < least_waves {
            misses.push(format!("{} waves", self.waves));
        }
        let spills = self.spilled_vgprs + self.spilled_sgprs;
        if spills > 0 {
            misses.push(format!("{spills} spills"));
        }
        if self.scratch > 0 {
            misses.push(format!("{} B scratch", self.scratch));
        }
        for (memory, loads) in [
            ("global", &hot.global_loads),
            ("workgroup", &hot.workgroup_loads),
        ] {
            let wide = wide_share(loads);
            if wide < 0.5 {
                misses.push(format!("{memory} loads {} wide", percent(wide)));
            }
        }
        Some(misses)
    }
}

/// To a thousandth, as it is written.
fn share(useful: u32, counts: &Counts) -> f64 {
    let share = f64::from(useful) / f64::from(counts.instructions.max(1));
    (1000.0 * share).round() / 1000.0
}

/// The share of what is loaded that comes 128 bits at a time; 1 where nothing is loaded.
pub(super) fn wide_share(loads: &Loads) -> f64 {
    let bits = |loads: &mut dyn Iterator<Item = (&u32, &u32)>| -> u32 {
        loads.map(|(bits, count)| bits * count).sum()
    };
    let all = bits(&mut loads.iter());
    if all == 0 {
        return 1.0;
    }
    let wide = bits(&mut loads.iter().filter(|(bits, _)| **bits >= 128));
    f64::from(wide) / f64::from(all)
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// `14x128 2x32`: the widest first.
pub(super) fn loads(loads: &Loads) -> String {
    let mut text = String::new();
    for (bits, count) in loads.iter().rev() {
        let space = if text.is_empty() { "" } else { " " };
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{space}{count}x{bits}");
    }
    if text.is_empty() {
        text.push('-');
    }
    text
}

/// The figures of one family, a kernel a line.
pub(super) fn print(family: Family, rows: &[Figures]) {
    let width = rows.iter().map(|row| row.kernel.len()).max().unwrap_or(0);
    let width = width.max("kernel".len());
    println!(
        "{:<width$}  {:>5} {:>5} {:>5} {:>6} {:>7} {:>6} {:>6} | {:>5} {:>5} {:>5} {:>5} {:>6} {:>4}  {:<16}  {:<16}  aims",
        "kernel",
        "waves",
        "VGPRs",
        "SGPRs",
        "spills",
        "scratch",
        "LDS",
        "code",
        "loop",
        "dot",
        "bits",
        "mad",
        "useful",
        "bar",
        "global loads",
        "LDS loads",
    );
    let mut contract = "";
    for row in rows {
        if row.contract != contract {
            contract = &row.contract;
            println!("-- {contract}");
        }
        let none = Counts::default();
        let hot = row.hot.as_ref().unwrap_or(&none);
        println!(
            "{:<width$}  {:>5} {:>5} {:>5} {:>6} {:>7} {:>6} {:>6} | {:>5} {:>5} {:>5} {:>5} {:>6} {:>4}  {:<16}  {:<16}  {}",
            row.kernel,
            row.waves,
            row.vgprs,
            row.sgprs,
            row.spilled_vgprs + row.spilled_sgprs,
            row.scratch,
            row.lds,
            row.code_size,
            hot.instructions,
            hot.dot,
            hot.bit_count,
            hot.multiply_add,
            percent(row.useful_share),
            hot.barriers,
            loads(&hot.global_loads),
            loads(&hot.workgroup_loads),
            match row.misses(family) {
                None => "-".to_owned(),
                Some(misses) if misses.is_empty() => "ok".to_owned(),
                Some(misses) => misses.join(", "),
            },
        );
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A dot4 kernel that meets every aim.
    pub(in super::super) fn row(family: Family, kernel: &str) -> Figures {
        Figures {
            family: family.name().to_owned(),
            contract: kernel.split("__").next().unwrap_or_default().to_owned(),
            kernel: kernel.to_owned(),
            engine: "dot4".to_owned(),
            skeleton: "tiled".to_owned(),
            wave_size: 64,
            waves: 12,
            vgprs: 80,
            sgprs: 32,
            spilled_vgprs: 0,
            spilled_sgprs: 0,
            scratch: 0,
            lds: 6144,
            code_size: 4000,
            instructions: 500,
            useful_share: 0.9,
            hot: Some(Counts {
                instructions: 100,
                dot: 90,
                global_loads: Loads::from([(128, 2), (32, 1)]),
                workgroup_loads: Loads::from([(128, 4)]),
                ..Counts::default()
            }),
        }
    }

    #[test]
    fn json_has_exactly_the_promised_keys() {
        let row = row(Family::Gfx1100, "gemm_a__dot4_1x2x3");
        let text = serde_json::to_string(&row).expect("a row");
        // In this order, which is that of the documentation.
        let promised = "family contract kernel engine skeleton wave_size waves vgprs sgprs spilled_vgprs \
                        spilled_sgprs scratch lds code_size instructions useful_share loop instructions nested dot \
                        bit_count logic multiply_add integer_multiply cross_lane branches barriers scalar_loads \
                        global_loads 32 128 workgroup_loads 128";
        let found: Vec<&str> = text
            .split('"')
            .zip(text.split('"').skip(1))
            .zip(text.split('"').skip(2))
            .filter(|((_, _), after)| after.starts_with(':'))
            .map(|((_, key), _)| key)
            .collect();
        assert_eq!(found, promised.split_whitespace().collect::<Vec<_>>());
        assert_eq!(
            serde_json::from_str::<Figures>(&text).expect("the same"),
            row
        );
    }

    #[test]
    fn aims_name_what_is_missed() {
        let good = row(Family::Gfx1100, "gemm_a__dot4_1x2x3");
        assert_eq!(good.misses(Family::Gfx1100), Some(vec![]));
        assert_eq!(good.misses(Family::Vega20), None);
        let mut bad = good.clone();
        bad.waves = 8;
        bad.useful_share = 0.5;
        bad.spilled_vgprs = 3;
        bad.scratch = 16;
        if let Some(hot) = &mut bad.hot {
            hot.global_loads = Loads::from([(32, 2)]);
        }
        let misses = bad.misses(Family::Navi21).expect("there are aims");
        assert_eq!(
            misses.join(", "),
            "share 50 %, 8 waves, 3 spills, 16 B scratch, global loads 0 % wide"
        );
        bad.engine = "fma".to_owned();
        assert_eq!(bad.misses(Family::Navi21), None);
        bad.skeleton = "gemv".to_owned();
        assert!(bad.misses(Family::Navi21).is_some());
        bad.engine = "lut".to_owned();
        assert_eq!(bad.misses(Family::Navi21), None);
    }

    #[test]
    fn of_bit_planes_the_product_counts_too() {
        let mut planes = row(Family::Gfx1100, "gemm_a__bitplane_1x2x3");
        planes.engine = "bitplane".to_owned();
        planes.hot = Some(Counts {
            instructions: 100,
            bit_count: 45,
            logic: 60,
            ..Counts::default()
        });
        planes.useful_share = 0.45;
        assert_eq!(planes.share_of_products(), 0.9);
        assert_eq!(planes.misses(Family::Gfx1100), Some(vec![]));
    }

    #[test]
    fn loads_are_listed_by_width() {
        assert_eq!(loads(&Loads::from([(32, 3), (128, 14)])), "14x128 3x32");
        assert_eq!(loads(&Loads::new()), "-");
        assert_eq!(wide_share(&Loads::new()), 1.0);
        assert_eq!(wide_share(&Loads::from([(128, 1), (32, 4)])), 0.5);
    }
}
