//! `anybit sweep`.

use serde_json::Value as Json;

use crate::language::{Bench, keys};

const KEYS: [&str; 10] = [
    "activation_format",
    "bits_per_weight",
    "error",
    "generated_tokens_per_second",
    "kv_format",
    "perplexity",
    "prompt_tokens_per_second",
    "reason",
    "tokens",
    "weight_format",
];

const SWEEP: &str = "sweep tiny.gguf text.txt --tokens 40 --context 20";

fn rows(report: &Json) -> &[Json] {
    let rows = report["rows"].as_array().expect("a list");
    for row in rows {
        assert_eq!(keys(row), KEYS);
    }
    rows
}

#[test]
fn pairs_of_formats() {
    let Some(bench) = Bench::new("pairs_of_formats") else {
        return;
    };
    let flags = "--weight-format int4,i4g64h --activation-format f32,int8 --svg chart.svg";
    let run = bench.line(&format!("{SWEEP} {flags} --json"));
    // Drivers have lines of their own.
    let lines: Vec<&str> = run.stderr.lines().collect();
    let first = lines
        .iter()
        .position(|line| line.starts_with("1/4 int4 x f32: perplexity "));
    assert_eq!(first.map(|first| lines.len() - first), Some(4), "{run:?}");
    let report = run.json();
    assert_eq!(keys(&report), ["adapter", "backend", "context", "rows"]);
    assert_eq!(report["context"], 20);
    let pairs: Vec<(&Json, &Json)> = rows(&report)
        .iter()
        .map(|row| (&row["weight_format"], &row["activation_format"]))
        .collect();
    let names = ["int4", "i4g64h"];
    let expected: Vec<(Json, Json)> = names
        .iter()
        .flat_map(|weight| ["f32", "int8"].map(|activation| ((*weight).into(), activation.into())))
        .collect();
    assert!(
        pairs
            .iter()
            .copied()
            .eq(expected.iter().map(|(a, b)| (a, b))),
        "{report}"
    );
    for row in rows(&report) {
        if row["weight_format"] == "i4g64h" {
            let reason = row["reason"].as_str().expect("a reason");
            assert!(reason.contains("160 columns"), "{row}");
            assert!(row["perplexity"].is_null(), "{row}");
            continue;
        }
        assert!(row["reason"].is_null(), "{row}");
        assert_eq!(row["tokens"], 38);
        for key in [
            "perplexity",
            "error",
            "bits_per_weight",
            "prompt_tokens_per_second",
            "generated_tokens_per_second",
        ] {
            assert!(
                row[key].as_f64().is_some_and(|value| value > 0.0),
                "{key}: {row}"
            );
        }
    }

    // The same figures as those of `perplexity`.
    let alone = bench
        .line("perplexity tiny.gguf text.txt --tokens 40 --context 20 --weight-format int4 --activation-format f32 --json")
        .json();
    let found = &rows(&report)[0];
    assert_eq!(found["perplexity"], alone["perplexity"]);
    assert_eq!(found["bits_per_weight"], alone["bits_per_weight"]);

    let chart = std::fs::read_to_string(bench.folder.path("chart.svg")).expect("a chart");
    for text in [
        "<svg",
        "</svg>",
        "int4",
        "activations f32",
        "activations int8",
    ] {
        assert!(chart.contains(text), "{text}");
    }
    assert!(!chart.contains("i4g64h"));
}

#[test]
fn tables() {
    let Some(bench) = Bench::new("tables") else {
        return;
    };
    let flags = "--weight-format int8,nosuch --activation-format f32 --kv-format f32";
    let table = bench.line(&format!("{SWEEP} {flags}")).passed().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(
        lines[0].starts_with("weights  activations  KV cache  bits/weight"),
        "{table}"
    );
    assert!(lines[1].starts_with("int8     f32          f32"), "{table}");
    assert!(lines[1].contains(" ± "), "{table}");
    assert!(lines[2].contains("nosuch"), "{table}");
    let table = bench
        .line(&format!("{SWEEP} {flags} --markdown"))
        .passed()
        .stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert_eq!(lines[1], "|---|---|---|---:|---:|---:|---:|");
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with('|') && line.ends_with('|')),
        "{table}"
    );
}

#[test]
fn a_sweep_of_nothing() {
    let Some(bench) = Bench::new("a_sweep_of_nothing") else {
        return;
    };
    let before = bench.folder.files();
    let error = bench
        .line(&format!(
            "{SWEEP} --weight-format nosuch,i4g64h --svg chart.svg"
        ))
        .failed(1);
    assert!(
        error.contains("none of the 2 pairs of formats could be run"),
        "{error}"
    );
    assert!(error.contains("160 columns"), "{error}");
    let error = bench.line("sweep tiny.gguf text.txt --tokens 1").failed(1);
    assert!(error.contains("too few"), "{error}");
    assert_eq!(bench.folder.files(), before);
}
