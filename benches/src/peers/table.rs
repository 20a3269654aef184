//! Peers and ours side by side, with ratios.

use super::{Line, OwnRow, Time};
use crate::problem::Shape;
use crate::report::duration;

/// A peer's product, and those of ours that stand beside it.
#[derive(Debug)]
struct Comparison<'a> {
    line: &'a Line,
    beside: Vec<(&'a OwnRow, Time)>,
}

/// The precisions of ours beside a peer's: the same first, then others that serve the same weights.
fn beside(activation_bits: u32, weight: &str) -> &'static [(&'static str, &'static str)] {
    match (activation_bits, weight) {
        (32, "f32") => &[("f32", "f32")],
        (32, "nf4") => &[("f32", "nf4"), ("int8", "q4_1")],
        (32, "int4") => &[("f32", "q4_1"), ("int8", "q4_1")],
        (32, "int8") => &[("f32", "q8_0"), ("int8", "q8_0"), ("int8", "q4_1")],
        (8, "int4") => &[("int8", "q4_1")],
        (8, "int8") => &[("int8", "q8_0")],
        _ => &[],
    }
}

/// Of each product of a peer the fastest of its kernels, beside the fastest of ours.
fn compare<'a>(ours: &'a [OwnRow], lines: &'a [Line]) -> Vec<Comparison<'a>> {
    let mut fastest: Vec<&Line> = Vec::new();
    for line in lines {
        let same = |other: &&mut &Line| {
            let key = |line: &Line| (line.shape(), line.activation_bits, line.weight.clone());
            key(other) == key(line)
        };
        let cost = |line: &Line| line.time().map_or(f64::INFINITY, Time::cost);
        match fastest.iter_mut().find(same) {
            Some(other) if cost(other) <= cost(line) => {}
            Some(other) => *other = line,
            None => fastest.push(line),
        }
    }
    let best = |shape: Shape, formats: (&str, &str)| {
        ours.iter()
            .filter(|row| row.own.shape() == shape)
            .filter(|row| (row.own.activation.as_str(), row.own.weight.as_str()) == formats)
            .filter_map(|row| Some((row, row.own.time()?)))
            .min_by(|(_, one), (_, other)| one.cost().total_cmp(&other.cost()))
    };
    let comparison = |line: &'a Line| Comparison {
        line,
        beside: beside(line.activation_bits, &line.weight)
            .iter()
            .filter_map(|formats| best(line.shape(), *formats))
            .collect(),
    };
    fastest.into_iter().map(comparison).collect()
}

/// How many times faster ours is: by wall clock, and by CPU time where both have it.
fn ratios(theirs: Time, ours: Time) -> (f64, Option<f64>) {
    let cpu = theirs.cpu_seconds.zip(ours.cpu_seconds);
    (
        theirs.seconds / ours.seconds,
        cpu.map(|(theirs, ours)| theirs / ours),
    )
}

/// The table of one adapter.
pub(super) fn print((adapter, backend): (&str, &str), ours: &[OwnRow], lines: &[Line]) {
    let Some(first) = lines.first() else {
        return;
    };
    println!("\n== {} and anybit on {adapter} ({backend})", first.peer);
    println!("{}", heading());
    for comparison in compare(ours, lines) {
        for text in rows(&comparison) {
            println!("{text}");
        }
    }
}

fn heading() -> String {
    format!(
        "{:<15} {:<27} {:>8} {:>9} {:>9}  {:<10} {:>9} {:>9}  {:>7} {:>7}",
        "shape",
        "theirs",
        "off by",
        "time",
        "CPU time",
        "ours",
        "time",
        "CPU time",
        "x wall",
        "x CPU",
    )
}

fn rows(comparison: &Comparison<'_>) -> Vec<String> {
    let line = comparison.line;
    let start = format!("{:<15} {:<27}", line.shape(), line.kernel);
    let Some(theirs) = line.time() else {
        let fault = line.fault().unwrap_or_else(|| "was not timed".to_owned());
        return vec![format!("{start} FAILED: {fault}")];
    };
    let cpu = |time: Time| time.cpu_seconds.map_or_else(|| "-".to_owned(), duration);
    let start = format!(
        "{start} {:>8} {:>9} {:>9}",
        format!("{:.0e}", line.error.unwrap_or_default()),
        duration(theirs.seconds),
        cpu(theirs),
    );
    if comparison.beside.is_empty() {
        return vec![start];
    }
    let row = |(index, (row, ours)): (usize, &(&OwnRow, Time))| {
        // What is said once need not be said again.
        let start = if index == 0 { &start[..] } else { "" };
        let (wall, by_cpu) = ratios(theirs, *ours);
        format!(
            "{start:<72}  {:<10} {:>9} {:>9}  {wall:>7.1} {:>7}",
            row.own.label(),
            duration(ours.seconds),
            cpu(*ours),
            by_cpu.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}")),
        )
    };
    comparison.beside.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::{line, own};
    use super::*;

    fn time(seconds: f64, cpu_seconds: Option<f64>) -> Time {
        Time {
            seconds,
            cpu_seconds,
        }
    }

    #[test]
    fn ratios_say_how_much_faster_we_are() {
        let theirs = time(3.0, Some(4.0));
        assert_eq!(ratios(theirs, time(1.5, Some(1.0))), (2.0, Some(4.0)));
        assert_eq!(ratios(theirs, time(6.0, None)), (0.5, None));
    }

    #[test]
    fn the_best_of_a_peer_stands_beside_the_best_of_ours() {
        let lines = [
            line(&[("kernel", "vec".into()), ("cpu_seconds", 3.0.into())]),
            line(&[]),
            line(&[
                ("kernel", "wrong".into()),
                ("cpu_seconds", 0.1.into()),
                ("error", 1.0.into()),
            ]),
        ];
        let q8_0 = ("weight", Value::from("q8_0"));
        let ours = [
            own(&[q8_0.clone(), ("cpu_seconds", 0.5.into())]),
            own(&[q8_0.clone(), ("cpu_seconds", 0.4.into())]),
            own(&[q8_0.clone(), ("n", 32.into())]),
            own(&[q8_0, ("seconds", Value::Null)]),
        ];
        let compared = compare(&ours, &lines);
        assert_eq!(compared.len(), 1);
        assert_eq!(compared[0].line.kernel, "mat");
        let times: Vec<Time> = compared[0].beside.iter().map(|(_, time)| *time).collect();
        assert_eq!(times, [time(0.25, Some(0.4))]);
    }

    #[test]
    fn every_line_fits_the_heading() {
        let ours = [
            own(&[("weight", "q8_0".into())]),
            own(&[("weight", "q4_1".into())]),
        ];
        let lines = [line(&[]), line(&[("weight", "other".into())])];
        let compared = compare(&ours, &lines);
        let texts: Vec<String> = compared.iter().flat_map(rows).collect();
        let lengths: Vec<usize> = texts.iter().map(String::len).collect();
        assert_eq!(
            lengths,
            [heading().len(), heading().len(), 72],
            "{texts:#?}"
        );
    }

    #[test]
    fn a_failure_says_why() {
        let line = line(&[("failure", "no adapter".into())]);
        let rows = rows(&Comparison {
            line: &line,
            beside: Vec::new(),
        });
        assert!(rows[0].ends_with("FAILED: no adapter"), "{rows:?}");
    }
}
