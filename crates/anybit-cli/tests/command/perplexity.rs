//! `anybit perplexity`.

use serde_json::Value as Json;

use crate::language::{Bench, keys, library_data, sample};
use crate::tiny::writer::Value;
use crate::tiny::{Damage, Tiny};

const KEYS: [&str; 10] = [
    "activation_format",
    "bits_per_weight",
    "context",
    "error",
    "kv_format",
    "mean_nll",
    "perplexity",
    "tokens",
    "tokens_per_second",
    "weight_format",
];

fn number(report: &Json, key: &str) -> f64 {
    report[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} in {report}"))
}

/// The mean of −ln of the probabilities of `ids`, whose logits are rows, in contexts of so many.
fn mean_nll(logits: &[f32], ids: &[u32], context: usize) -> f64 {
    let width = logits.len() / ids.len();
    let rows: Vec<&[f32]> = logits.chunks_exact(width).collect();
    let mut losses = Vec::new();
    for (rows, ids) in rows.chunks(context).zip(ids.chunks(context)) {
        for (row, &next) in rows.iter().zip(&ids[1..]) {
            let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            losses.push(sum.ln() - f64::from(row[next as usize]));
        }
    }
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[test]
fn the_sample_text() {
    const TEST: &str = "the_sample_text";
    let (Some(model), Some(bench)) = (sample(TEST), Bench::new(TEST)) else {
        return;
    };
    let text = library_data("text.txt");
    let arguments = [
        "perplexity",
        &model,
        &text,
        "--tokens",
        "256",
        "--context",
        "256",
    ];
    let figures = std::fs::read(library_data("perplexity.json")).expect("the figures are there");
    let figures: Json = serde_json::from_slice(&figures).expect("JSON");
    let expected = number(&figures["first_256"], "mean_nll").exp();

    let exact = ["--exact", "--logits", "logits.npy", "--json"];
    let report = bench.run(&[&arguments[..], &exact].concat()).json();
    assert_eq!(keys(&report), KEYS);
    assert_eq!(report["tokens"], 255);
    assert_eq!(report["context"], 256);
    assert_eq!(report["activation_format"], "f32");
    let found = number(&report, "perplexity");
    assert!(
        (found / expected - 1.0).abs() < 0.005,
        "{found}, not {expected}"
    );
    assert!((number(&report, "mean_nll").exp() - found).abs() < 1e-9);
    assert!((0.0..found).contains(&number(&report, "error")));

    let ids = std::fs::read(library_data("text.ids.json")).expect("the ids are there");
    let ids: Vec<u32> = serde_json::from_slice(&ids).expect("JSON");
    let (shape, logits) = bench.folder.read_f32("logits.npy");
    assert_eq!(shape, [256, 49152]);
    let mean = mean_nll(&logits, &ids[..256], 256);
    assert!(
        (mean - number(&report, "mean_nll")).abs() < 1e-6,
        "{mean}: {report}"
    );
}

#[test]
fn lines_and_contexts() {
    let Some(bench) = Bench::new("lines_and_contexts") else {
        return;
    };
    let report = |flags: &str| {
        let report = bench
            .line(&format!("perplexity tiny.gguf text.txt --json {flags}"))
            .json();
        assert_eq!(keys(&report), KEYS);
        report
    };
    // The model's context is 128.
    let whole = report("--exact");
    assert_eq!(whole["context"], 128);
    let tokens = whole["tokens"].as_u64().expect("a number");
    assert!((60..400).contains(&tokens), "{whole}");
    // A context foretells all its tokens but the first; the last context of one token none.
    let first = report("--tokens 41 --context 20 --exact");
    assert_eq!(
        (&first["tokens"], &first["context"]),
        (&38.into(), &20.into())
    );

    let line = bench
        .line("perplexity tiny.gguf text.txt --tokens 41 --context 20 --exact")
        .passed();
    let words: Vec<&str> = line.stdout.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("perplexity", "±"), "{line:?}");
    assert_eq!(
        words[4..].join(" "),
        "(38 tokens, contexts of 20)",
        "{line:?}"
    );
    let printed: f64 = words[1].parse().expect("a number");
    assert!(
        (printed - number(&first, "perplexity")).abs() < 1e-3,
        "{line:?}"
    );

    // From the logits come the same figures.
    let logits = report("--tokens 41 --context 20 --exact --logits logits.npy");
    let difference = number(&logits, "mean_nll") - number(&first, "mean_nll");
    assert!(difference.abs() < 1e-4, "{difference}");
    let (shape, _) = bench.folder.read_f32("logits.npy");
    assert_eq!(shape, [40, Tiny::vocabulary()]);
    let quantised = report("--weight-format int2 --activation-format int4 --kv-format int8");
    assert!(number(&quantised, "bits_per_weight") < 32.0);
    assert_ne!(quantised["mean_nll"], whole["mean_nll"]);
}

/// A token that begins texts is given before each context, and soft caps are applied to logits.
#[test]
fn begun_and_capped() {
    let Some(bench) = Bench::new("begun_and_capped") else {
        return;
    };
    let tiny = Tiny {
        logit_cap: Some(2.0),
        ..Tiny::gemma3()
    };
    let damage = Damage::Key("tokenizer.ggml.add_bos_token".into(), Value::Bool(true));
    bench
        .folder
        .write("begun.gguf", &tiny.damaged(damage).bytes());
    let run = |flags: &str| {
        let line = format!(
            "perplexity begun.gguf text.txt --tokens 30 --context 16 --exact --json {flags}"
        );
        bench.line(&line).json()
    };
    let report = run("--logits logits.npy");
    // Every token is foretold: 15 a context, after the one that begins it.
    assert_eq!(report["tokens"], 30);
    let (shape, logits) = bench.folder.read_f32("logits.npy");
    assert_eq!(shape, [32, Tiny::vocabulary()]);
    assert!(logits.iter().all(|logit| logit.abs() <= 2.0));
    assert!(logits.iter().any(|logit| logit.abs() > 1.5));
    let mean = number(&report, "mean_nll");
    assert!(
        (mean - number(&run(""), "mean_nll")).abs() < 1e-4,
        "{report}"
    );
}

#[test]
fn texts_that_cannot_be_judged() {
    let Some(bench) = Bench::new("texts_that_cannot_be_judged") else {
        return;
    };
    bench.folder.write("empty.txt", b"");
    bench.folder.write("short.txt", b"a");
    bench.folder.write("bytes.txt", b"\xff\xfe");
    let before = bench.folder.files();
    for (line, problem) in [
        ("empty.txt", "0 tokens are too few, 2 are needed"),
        ("short.txt", "1 tokens are too few, 2 are needed"),
        ("text.txt --tokens 1", "1 tokens are too few"),
        ("text.txt --context 1", "the context: 1 tokens are too few"),
        ("bytes.txt", "cannot read bytes.txt"),
        ("none.txt", "cannot read none.txt"),
        ("text.txt --logits none/logits.npy", "cannot write"),
        ("text.txt --weight-format int9 --logits logits.npy", "int8"),
    ] {
        let error = bench
            .line(&format!("perplexity tiny.gguf {line}"))
            .failed(1);
        assert!(error.contains(problem), "{line}: {error}");
        assert_eq!(bench.folder.files(), before, "{line}");
    }
}

/// Ctrl-C leaves no half of a file of logits.
#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing_behind() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let Some(bench) = Bench::new("an_interrupt_leaves_nothing_behind") else {
        return;
    };
    bench
        .folder
        .write("text.txt", "so many words ".repeat(100_000).as_bytes());
    let before = bench.folder.files();
    let line = "perplexity tiny.gguf text.txt --context 16 --logits logits.npy";
    let arguments: Vec<&str> = line.split(' ').collect();
    let mut child = crate::support::command(&arguments)
        .args(bench.adapter())
        .current_dir(bench.folder.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let start = Instant::now();
    while bench.folder.files() == before && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill is there");
    assert!(interrupt.success());
    let code = child.wait().expect("the command ends").code();
    assert_eq!(code, Some(130));
    assert_eq!(bench.folder.files(), before);
}
