//! The results as an SVG chart: GOP/s of each precision, for each group of problems.

use std::path::Path;

use plotters::coord::ranged1d::IntoSegmentedCoord;
use plotters::prelude::*;

use crate::Error;
use crate::report::{Row, fastest};

/// The workload of the chart of speed against bits.
pub(crate) const BITS: &str = "bits";

/// Problems that are drawn together.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    precision: String,
    group: String,
    gops: f64,
}

/// Where a chart is drawn.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws charts of this width and height one below the other.
///
/// # Errors
///
/// [`Error::Chart`].
pub(crate) fn stack<T>(
    path: &Path,
    (width, height): (u32, u32),
    charts: &[T],
    draw: impl Fn(&Area<'_>, &T) -> Result<(), String>,
) -> Result<(), Error> {
    let all = || -> Result<(), String> {
        let text = |error: DrawingAreaErrorKind<_>| error.to_string();
        let size = (width, height * charts.len().max(1) as u32);
        let root = SVGBackend::new(path, size).into_drawing_area();
        root.fill(&WHITE).map_err(text)?;
        for (area, chart) in root.split_evenly((charts.len(), 1)).iter().zip(charts) {
            draw(area, chart)?;
        }
        root.present().map_err(text)
    };
    all().map_err(|message| Error::Chart {
        path: path.to_owned(),
        message,
    })
}

/// The rows under one title, in the order of the titles.
pub(crate) fn titled<'a>(
    rows: impl IntoIterator<Item = &'a Row>,
    title: impl Fn(&Row) -> String,
) -> Vec<(String, Vec<&'a Row>)> {
    let mut charts: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let title = title(row);
        match charts.iter_mut().find(|(other, _)| *other == title) {
            Some((_, rows)) => rows.push(row),
            None => charts.push((title, vec![row])),
        }
    }
    charts
}

/// Draws the rows of every adapter, one below the other.
///
/// # Errors
///
/// [`Error::Chart`].
pub(crate) fn draw(rows: &[Row], path: &Path) -> Result<(), Error> {
    let labels: Vec<String> = rows.iter().map(Row::label).collect();
    let precisions = distinct(labels.iter().map(String::as_str)).len();
    let size = (1280.max(110 * precisions as u32), 560);
    let charts = titled(rows, Row::on);
    stack(path, size, &charts, |area, (adapter, rows)| {
        let title = format!("{adapter}: GOP/s, 2 a multiply-accumulate");
        draw_bars(area, &title, &bars(rows.iter().copied()))
    })
}

fn draw_bars(area: &Area<'_>, title: &str, bars: &[Bar]) -> Result<(), String> {
    let precisions = distinct(bars.iter().map(|bar| bar.precision.as_str()));
    let groups = distinct(bars.iter().map(|bar| bar.group.as_str()));
    if bars.is_empty() {
        return Ok(());
    }
    let highest = bars.iter().map(|bar| bar.gops).fold(0.0, f64::max);
    let lowest = bars
        .iter()
        .map(|bar| bar.gops)
        .fold(f64::INFINITY, f64::min);
    // Whole decades, on a logarithmic scale: 1-bit products and single rows of f32 are far apart.
    let bottom = 10f64.powf(lowest.log10().floor());
    let top = 10f64.powf(highest.log10().ceil()).max(bottom * 10.0);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 26))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (0..precisions.len() as i32 - 1).into_segmented(),
            (bottom..top).log_scale(),
        )
        .map_err(|error| error.to_string())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(precisions.len())
        .x_label_formatter(&|position| match position {
            SegmentValue::CenterOf(index) => precisions
                .get(*index as usize)
                .map_or_else(String::new, |name| (*name).to_owned()),
            _ => String::new(),
        })
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 15))
        .x_label_style(("sans-serif", 14))
        .y_desc("GOP/s")
        .y_label_formatter(&|value| format!("{value}"))
        .draw()
        .map_err(|error| error.to_string())?;

    // Bars stand in pixels beside the centre of their precision; the chart's own axis has no such fractions.
    let plot = chart.plotting_area();
    let (width, _) = plot.dim_in_pixel();
    let bar_width =
        (f64::from(width) * 0.8 / (precisions.len() * groups.len()).max(1) as f64).max(1.0);
    let corner = plot.get_base_pixel();
    let pixels = plot.strip_coord_spec();
    for (series, group) in groups.iter().enumerate() {
        let color = Palette99::pick(series).filled();
        for bar in bars.iter().filter(|bar| bar.group == *group) {
            let Some(index) = precisions.iter().position(|name| *name == bar.precision) else {
                continue;
            };
            let centre = SegmentValue::CenterOf(index as i32);
            let (x, y) = plot.map_coordinate(&(centre.clone(), bar.gops));
            let (_, floor) = plot.map_coordinate(&(centre, bottom));
            let left =
                f64::from(x - corner.0) + (series as f64 - groups.len() as f64 / 2.0) * bar_width;
            let rectangle = [
                (left as i32, y - corner.1),
                ((left + bar_width * 0.9) as i32, floor - corner.1),
            ];
            pixels
                .draw(&Rectangle::new(rectangle, color))
                .map_err(|error| error.to_string())?;
        }
    }
    // Only for the legend.
    for (series, group) in groups.iter().enumerate() {
        let color = Palette99::pick(series).filled();
        chart
            .draw_series(std::iter::empty::<Rectangle<(SegmentValue<i32>, f64)>>())
            .map_err(|error| error.to_string())?
            .label(*group)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 16))
        .draw()
        .map_err(|error| error.to_string())
}

/// Draws the speed of integer weights of 1 to 8 bits, a line for each kind of activations: one chart for each adapter and
/// shape, one below the other. Of each problem the fastest kernel counts.
///
/// # Errors
///
/// [`Error::Chart`].
pub(crate) fn draw_bits(rows: &[Row], path: &Path) -> Result<(), Error> {
    let rows = fastest(rows.iter().filter(|row| row.workload == BITS));
    let charts = titled(rows, |row| format!("{}, {}", row.on(), row.shape()));
    stack(path, (900, 480), &charts, |area, (title, rows)| {
        draw_bit_lines(area, title, rows)
    })
}

fn draw_bit_lines(area: &Area<'_>, title: &str, rows: &[&Row]) -> Result<(), String> {
    let text = |error: DrawingAreaErrorKind<_>| error.to_string();
    let highest = rows.iter().filter_map(|row| row.gops).fold(1e-3, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("{title}: GOP/s, 2 a multiply-accumulate"),
            ("sans-serif", 22),
        )
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(65)
        .build_cartesian_2d(0.8..8.2, 0.0..1.1 * highest)
        .map_err(text)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(8)
        .x_label_formatter(&|bits| format!("{bits:.0}"))
        .x_desc("bits of the weights")
        .y_desc("GOP/s")
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 15))
        .draw()
        .map_err(text)?;
    for (index, activation) in [4, 8, 32].into_iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let line = |row: &&&Row| row.activation_bits == activation && row.weight_bits <= 8;
        let mut points: Vec<(f64, f64)> = rows
            .iter()
            .filter(line)
            .filter_map(|row| Some((f64::from(row.weight_bits), row.gops?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let name = match activation {
            32 => "f32 activations".to_owned(),
            bits => format!("{bits}-bit activations"),
        };
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(4))
            .map_err(text)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color.stroke_width(2)));
    }
    let baseline = rows
        .iter()
        .find(|row| row.baseline)
        .and_then(|row| row.gops);
    if let Some(gops) = baseline {
        chart
            .draw_series(LineSeries::new(
                [(0.8, gops), (8.2, gops)],
                BLACK.stroke_width(1),
            ))
            .map_err(text)?
            .label("f32 by f32")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], BLACK.stroke_width(1)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 15))
        .draw()
        .map_err(text)
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut kept = Vec::new();
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

/// GOP/s of each precision and group: the operations of its problems over the sum of their times, of each problem its
/// fastest kernel.
fn bars<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Bar> {
    let mut sums: Vec<(Bar, f64, f64)> = Vec::new();
    for row in fastest(rows) {
        let (Some(seconds), operations) = (row.seconds, row.shape().operations()) else {
            continue;
        };
        let (precision, group) = (row.label(), group(row));
        let found = sums
            .iter_mut()
            .find(|(bar, _, _)| bar.precision == precision && bar.group == group);
        match found {
            Some((_, all, total)) => {
                *all += operations;
                *total += seconds;
            }
            None => {
                let bar = Bar {
                    precision,
                    group,
                    gops: 0.0,
                };
                sums.push((bar, operations, seconds));
            }
        }
    }
    sums.into_iter()
        .map(|(bar, operations, seconds)| Bar {
            gops: operations / seconds / 1e9,
            ..bar
        })
        .collect()
}

fn group(row: &Row) -> String {
    if row.workload.starts_with("blk.0.") {
        format!("block 0, M = {}", row.m)
    } else if row.source == "model" {
        format!("LM head, M = {}", row.m)
    } else {
        row.shape().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::row;

    #[test]
    fn matrices_of_a_block_are_summed_and_the_fastest_kernel_counts() {
        let rows = [
            row("blk.0.a", 1, false, Some(2.0)),
            row("blk.0.a", 1, false, Some(1.0)),
            row("blk.0.b", 1, false, Some(2.0)),
            row("blk.0.b", 1, false, None),
            row("square", 4, true, Some(1.0)),
        ];
        let bars = bars(rows.iter());
        let found: Vec<(&str, &str, f64)> = bars
            .iter()
            .map(|bar| (bar.precision.as_str(), bar.group.as_str(), bar.gops * 1e9))
            .collect();
        assert_eq!(
            found,
            [
                ("W8A8 int8", "block 0, M = 1", 8.0),
                ("W8A8 f32", "4x2x3", 48.0)
            ]
        );
    }

    #[test]
    fn speed_against_bits_is_drawn_for_each_shape() {
        let path = std::env::temp_dir().join(format!("anybit-bits-{}.svg", std::process::id()));
        let mut rows = [
            row(BITS, 1, true, Some(1e-9)),
            row(BITS, 1, false, Some(1e-9)),
            row(BITS, 4, false, Some(1e-9)),
            row(BITS, 4, false, None),
            row("square", 7, false, Some(1e-9)),
        ];
        rows[0].activation_bits = 32;
        rows[0].weight_bits = 32;
        draw_bits(&rows, &path).expect("a chart");
        let svg = std::fs::read_to_string(&path).expect("a file");
        std::fs::remove_file(&path).expect("the file is ours");
        for text in ["<svg", "1x2x3", "4x2x3", "8-bit activations", "f32 by f32"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("7x2x3"));
        draw_bits(&[], &path).expect("an empty chart");
        std::fs::remove_file(&path).expect("the file is ours");
    }

    #[test]
    fn a_chart_is_drawn_without_system_fonts() {
        let path = std::env::temp_dir().join(format!("anybit-chart-{}.svg", std::process::id()));
        let rows = [
            row("blk.0.a", 1, false, Some(1e-9)),
            row("square", 4, true, Some(1e-9)),
        ];
        draw(&rows, &path).expect("a chart");
        let svg = std::fs::read_to_string(&path).expect("a file");
        std::fs::remove_file(&path).expect("the file is ours");
        for text in ["<svg", "block 0, M = 1", "W8A8 int8", "GOP/s"] {
            assert!(svg.contains(text), "{text}");
        }
        draw(&[], &path).expect("an empty chart");
        std::fs::remove_file(&path).expect("the file is ours");
    }
}
