//! Rooflines: what an adapter's arithmetic and loads allow at most for a row, which of them binds, and the chart of it.
//!
//! *Arithmetic* is the ceiling of the kernel's engine, from the probes; a product of p by q bits is p·q one-bit products of
//! `bitplane`. *Loads* are the bytes that must be loaded at least, by the rate of the probe `load`. On a GPU, whose caches
//! serve what is loaded again, these are both operands and the output once. On a software adapter a load costs the same
//! wherever it goes, so there they are what the kernel's workgroups load: each its rows of X and its rows of W, scales
//! included, once. Loads of workgroup memory, and loads that invocations repeat, come on top in both.
//!
//! On software adapters both are of one core, and what is reached is by CPU time, since wall time there depends on what
//! else the machine does.

use std::path::Path;

use anybit::{DeviceClass, Plan};
use plotters::prelude::*;
use serde::Serialize;

use crate::Error;
use crate::chart::{self, Area};
use crate::probe::Ceilings;
use crate::report::Row;
use crate::timing::Timing;

/// Which ceiling is the lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Bound {
    Arithmetic,
    Loads,
}

impl Bound {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "arith",
            Self::Loads => "loads",
        }
    }
}

/// The ceilings of a row, in 10⁹ operations a second; on software adapters of a core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Roof {
    /// `None` of engines that no probe is for.
    pub(crate) arithmetic: Option<f64>,
    pub(crate) loads: f64,
    /// Operations for each byte that must be loaded.
    pub(crate) intensity: f64,
    /// What is reached.
    pub(crate) reached: f64,
}

impl Roof {
    pub(crate) fn new(
        ceilings: &Ceilings,
        plan: &Plan,
        bits: (u32, u32),
        operations: f64,
        loaded: u64,
        timing: Timing,
    ) -> Self {
        let rate = |ceiling: crate::probe::Ceiling| match timing.cpu_seconds {
            Some(_) => ceiling.rate_per_core.unwrap_or(ceiling.rate),
            None => ceiling.rate,
        };
        let intensity = operations / (loaded as f64).max(1.0);
        Self {
            arithmetic: ceilings
                .arithmetic(plan.engine(), bits)
                .map(|(ceiling, products)| rate(ceiling) / f64::from(products)),
            loads: intensity * rate(ceilings.load),
            intensity,
            reached: operations / timing.cpu_seconds.unwrap_or(timing.seconds) / 1e9,
        }
    }

    pub(crate) fn bound(&self) -> Bound {
        match self.arithmetic {
            Some(arithmetic) if arithmetic <= self.loads => Bound::Arithmetic,
            _ => Bound::Loads,
        }
    }

    /// The lower of both ceilings.
    pub(crate) fn height(&self) -> f64 {
        self.arithmetic.unwrap_or(f64::INFINITY).min(self.loads)
    }

    /// The fraction of the lower ceiling that is reached.
    pub(crate) fn fraction(&self) -> f64 {
        self.reached / self.height()
    }
}

/// Bytes that a plan must load at least, of operands and output of so many bytes. Each row of W meets so many rows of X: all
/// of them, but with experts.
pub(crate) fn loaded(class: DeviceClass, plan: &Plan, rows: usize, [x, w, y]: [u64; 3]) -> u64 {
    match class {
        DeviceClass::Software => {
            let (problem, tile) = (plan.problem(), plan.tile());
            let tiles = |size: usize, tile: u32| (size as u64).div_ceil(u64::from(tile.max(1)));
            // Every tile of columns goes through all of X, every tile of rows through all of W.
            tiles(problem.n, tile.n) * x + tiles(rows, tile.m) * w
        }
        _ => x + w + y,
    }
}

/// Draws the rows of every adapter under its ceilings, one below the other.
///
/// # Errors
///
/// [`Error::Chart`].
pub(crate) fn draw(rows: &[Row], path: &Path) -> Result<(), Error> {
    let charts = chart::titled(rows, Row::on);
    chart::stack(path, (1000, 640), &charts, |area, (title, rows)| {
        let points: Vec<(&Row, Roof)> = rows
            .iter()
            .filter_map(|&row| Some((row, row.roof?)))
            .collect();
        draw_adapter(area, title, &points)
    })
}

fn draw_adapter(area: &Area<'_>, title: &str, points: &[(&Row, Roof)]) -> Result<(), String> {
    let Some((first, roof)) = points.first() else {
        return Ok(());
    };
    let text = |error: DrawingAreaErrorKind<_>| error.to_string();
    let unit = match first.cpu_seconds {
        Some(_) => "GOP/s a core",
        None => "GOP/s",
    };
    let bandwidth = roof.loads / roof.intensity;
    // Engines by name, with their ceilings as they occur.
    let mut engines: Vec<&str> = Vec::new();
    let mut levels: Vec<(String, f64)> = Vec::new();
    for (row, roof) in points {
        if !engines.contains(&row.engine) {
            engines.push(row.engine);
        }
        let products = row.activation_bits * row.weight_bits;
        let name = match row.engine {
            "bitplane" => format!("{} {products}", row.engine),
            engine => engine.to_owned(),
        };
        if let (Some(level), false) = (
            roof.arithmetic,
            levels.iter().any(|(other, _)| *other == name),
        ) {
            levels.push((name, level));
        }
    }
    let spread = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    let (left, right) = spread(&mut points.iter().map(|(_, roof)| roof.intensity));
    let (left, right) = (left / 2.0, right * 2.0);
    let (bottom, _) = spread(&mut points.iter().map(|(_, roof)| roof.reached));
    let (_, top) = spread(
        &mut levels
            .iter()
            .map(|(_, level)| *level)
            .chain(points.iter().map(|(_, roof)| roof.reached)),
    );
    let (bottom, top) = (bottom / 2.0, top * 2.0);
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("{title}: {unit}, 2 a multiply-accumulate"),
            ("sans-serif", 24),
        )
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(70)
        .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())
        .map_err(text)?;
    chart
        .configure_mesh()
        .x_desc("operations for each byte loaded")
        .y_desc(unit)
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .x_label_formatter(&|value| format!("{value}"))
        .y_label_formatter(&|value| format!("{value}"))
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(text)?;
    // Ceilings, as far as both hold.
    let line = |name: &str| format!("{name}: {bandwidth:.1} GB/s");
    chart
        .draw_series(LineSeries::new(
            [left, right].map(|x| (x, bandwidth * x)),
            BLACK.stroke_width(2),
        ))
        .map_err(text)?
        .label(line("loads"))
        .legend(|(x, y)| PathElement::new([(x, y), (x + 12, y)], BLACK.stroke_width(2)));
    for (name, level) in &levels {
        let engine = name.split(' ').next().unwrap_or(name);
        let index = engines.iter().position(|other| *other == engine);
        let color = Palette99::pick(index.unwrap_or_default()).to_rgba();
        let start = (level / bandwidth).clamp(left, right);
        chart
            .draw_series(LineSeries::new(
                [(start, *level), (right, *level)],
                color.stroke_width(2),
            ))
            .map_err(text)?;
        let label = match name.split_once(' ') {
            Some((engine, products)) => format!("{engine}, {products} one-bit products"),
            None => name.clone(),
        };
        chart
            .draw_series([Text::new(
                label,
                (right / 1.05, level * 1.04),
                ("sans-serif", 12).into_font().color(&color).pos(
                    plotters::style::text_anchor::Pos::new(
                        plotters::style::text_anchor::HPos::Right,
                        plotters::style::text_anchor::VPos::Bottom,
                    ),
                ),
            )])
            .map_err(text)?;
    }
    for (index, engine) in engines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(
                points
                    .iter()
                    .filter(|(row, _)| row.engine == *engine)
                    .map(|(_, roof)| {
                        Circle::new((roof.intensity, roof.reached), 3, color.filled())
                    }),
            )
            .map_err(text)?
            .label(*engine)
            .legend(move |(x, y)| Circle::new((x + 6, y), 4, color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 14))
        .draw()
        .map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::row;
    use anybit::{Caps, PlanOptions, Problem, plan};

    #[test]
    fn workgroups_of_software_load_their_operands_each() {
        let format = |name: &str| name.parse().expect("a format");
        let problem = Problem::new((40, 300, 64), format("f32"), format("f32"));
        let plan = plan(&problem, &Caps::floor(), &PlanOptions::default()).expect("a plan");
        let tile = plan.tile();
        let (columns, rows) = (300_u32.div_ceil(tile.n), 40_u32.div_ceil(tile.m));
        let software = loaded(
            DeviceClass::Software,
            &plan,
            plan.problem().m,
            [1000, 10, 7],
        );
        assert_eq!(software, u64::from(columns * 1000 + rows * 10));
        assert_eq!(
            loaded(DeviceClass::Gpu, &plan, plan.problem().m, [1000, 10, 7]),
            1017
        );
    }

    #[test]
    fn the_lower_ceiling_binds() {
        let mut roof = Roof {
            arithmetic: Some(10.0),
            loads: 4.0,
            intensity: 2.0,
            reached: 1.0,
        };
        assert_eq!((roof.bound(), roof.fraction()), (Bound::Loads, 0.25));
        roof.loads = 40.0;
        assert_eq!((roof.bound(), roof.fraction()), (Bound::Arithmetic, 0.1));
        roof.arithmetic = None;
        assert_eq!((roof.bound(), roof.height()), (Bound::Loads, 40.0));
    }

    #[test]
    fn a_roofline_is_drawn_without_system_fonts() {
        let path = std::env::temp_dir().join(format!("anybit-roofline-{}.svg", std::process::id()));
        let mut rows = [
            row("a", 1, false, Some(1e-9)),
            row("b", 4, true, Some(1e-9)),
            row("c", 4, true, None),
        ];
        for (row, arithmetic) in rows.iter_mut().zip([Some(30.0), None]) {
            row.roof = Some(Roof {
                arithmetic,
                loads: 8.0,
                intensity: 4.0,
                reached: 2.0,
            });
        }
        draw(&rows, &path).expect("a chart");
        let svg = std::fs::read_to_string(&path).expect("a file");
        std::fs::remove_file(&path).expect("the file is ours");
        for text in ["<svg", "operations for each byte loaded", "loads: 2.0 GB/s"] {
            assert!(svg.contains(text), "{text}");
        }
        draw(&[], &path).expect("an empty chart");
        std::fs::remove_file(&path).expect("the file is ours");
    }
}
