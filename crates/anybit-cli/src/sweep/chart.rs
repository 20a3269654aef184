//! The pairs of a sweep as an SVG chart: perplexity against bits per weight.

use std::ops::Range;

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::Row;

/// Perplexities this far apart are drawn on a logarithmic scale.
const LARGE_RANGE: f64 = 4.0;

/// A pair that ran.
struct Point<'a> {
    bits: f64,
    perplexity: f64,
    row: &'a Row,
}

/// Draws the rows that have a finite perplexity.
pub(super) fn draw(rows: &[Row]) -> Result<String, String> {
    let points: Vec<Point> = rows
        .iter()
        .filter_map(|row| {
            Some(Point {
                bits: row.bits_per_weight?,
                perplexity: row.perplexity.filter(|perplexity| perplexity.is_finite())?,
                row,
            })
        })
        .collect();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (960, 640)).into_drawing_area();
        root.fill(&WHITE).map_err(|error| error.to_string())?;
        if !points.is_empty() {
            let bits = padded(points.iter().map(|point| point.bits));
            let perplexities = extent(points.iter().map(|point| point.perplexity));
            if perplexities.end > LARGE_RANGE * perplexities.start {
                let logarithmic = (perplexities.start / 1.5..perplexities.end * 1.5).log_scale();
                draw_points(&root, &points, bits, logarithmic)?;
            } else {
                let linear = padded(points.iter().map(|point| point.perplexity));
                draw_points(&root, &points, bits, linear)?;
            }
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

fn draw_points<Y>(
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    points: &[Point],
    bits: Range<f64>,
    perplexities: Y,
) -> Result<(), String>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(root)
        .caption("Perplexity and bits per weight", ("sans-serif", 24))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(bits, perplexities)
        .map_err(|error| error.to_string())?;
    chart
        .configure_mesh()
        .x_desc("bits per weight, scales included")
        .y_desc("perplexity")
        .x_label_formatter(&|bits| format!("{bits:.1}"))
        .y_label_formatter(&|perplexity| short(*perplexity))
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .draw()
        .map_err(|error| error.to_string())?;
    let mut activations: Vec<&str> = Vec::new();
    for point in points {
        let activation = point.row.activation_format.as_str();
        if !activations.contains(&activation) {
            activations.push(activation);
        }
    }
    for (series, activation) in activations.iter().enumerate() {
        let color = Palette99::pick(series).to_rgba();
        let of_series = points
            .iter()
            .filter(|point| point.row.activation_format == *activation);
        let marks = of_series.map(|point| {
            EmptyElement::at((point.bits, point.perplexity))
                + Circle::new((0, 0), 4, color.filled())
                + Text::new(
                    point.row.weight_format.clone(),
                    (7, -7 + 12 * series as i32),
                    ("sans-serif", 13).into_font().color(&color),
                )
        });
        chart
            .draw_series(marks)
            .map_err(|error| error.to_string())?
            .label(format!("activations {activation}"))
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 14))
        .draw()
        .map_err(|error| error.to_string())
}

fn extent(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        low = low.min(value);
        high = high.max(value);
    }
    low..high
}

/// The extent with room at both ends, also where it is a single value.
fn padded(values: impl Iterator<Item = f64>) -> Range<f64> {
    let Range { start, end } = extent(values);
    let room = ((end - start) * 0.1).max(start.abs() * 0.05).max(1e-6);
    start - room..end + room
}

/// A label of an axis: no more digits than needed.
fn short(value: f64) -> String {
    if value >= 1e5 {
        format!("{value:.0e}")
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(weight: &str, activation: &str, bits: f64, perplexity: f64) -> Row {
        Row {
            weight_format: weight.into(),
            activation_format: activation.into(),
            bits_per_weight: Some(bits),
            perplexity: Some(perplexity),
            ..Row::default()
        }
    }

    #[test]
    fn points_are_labelled() {
        for worst in [25.0, 1e9, f64::INFINITY] {
            let rows = [
                row("stored", "f32", 5.0, 20.0),
                row("int2", "int8", 2.5, worst),
                Row {
                    weight_format: "nosuch".into(),
                    ..Row::default()
                },
            ];
            let svg = draw(&rows).expect("a chart");
            for text in [
                "<svg",
                "</svg>",
                "stored",
                "activations f32",
                "bits per weight",
            ] {
                assert!(svg.contains(text), "{worst}: {text}");
            }
            assert_eq!(svg.contains("int2"), worst.is_finite(), "{worst}");
            assert!(!svg.contains("nosuch"));
        }
    }

    #[test]
    fn one_point_and_none() {
        assert!(draw(&[row("int4", "int8", 4.5, 20.0)]).is_ok_and(|svg| svg.contains("int4")));
        assert!(draw(&[]).is_ok_and(|svg| svg.contains("</svg>")));
    }
}
