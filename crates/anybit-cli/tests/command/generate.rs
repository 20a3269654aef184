//! `anybit generate`.

use serde_json::Value as Json;

use crate::language::{Bench, keys, sample};
use crate::support::Run;
use crate::tiny::writer::Value;
use crate::tiny::{Damage, Storage, Tiny};

const KEYS: [&str; 18] = [
    "activation_format",
    "adapter",
    "backend",
    "bits_per_weight",
    "generated_tokens",
    "generated_tokens_per_second",
    "ids",
    "kv_format",
    "memory",
    "prompt_ids",
    "prompt_tokens",
    "prompt_tokens_per_second",
    "readback_bytes_per_token",
    "stop",
    "submissions_per_token",
    "text",
    "time_to_first_token_seconds",
    "weight_format",
];

const PARIS: &str = "The capital of France is";

fn ids(report: &Json) -> Vec<u64> {
    let ids = report["ids"].as_array().expect("a list");
    ids.iter().map(|id| id.as_u64().expect("an id")).collect()
}

fn text(report: &Json) -> &str {
    report["text"].as_str().expect("a text")
}

/// Checks what holds of every report.
fn check(report: &Json) {
    assert_eq!(keys(report), KEYS);
    let memory = &report["memory"];
    assert_eq!(
        keys(memory),
        ["activations", "kv_cache", "total", "weights"]
    );
    let bytes = |key: &str| memory[key].as_u64().expect("bytes");
    let parts = ["weights", "kv_cache", "activations"].map(bytes);
    assert!(parts.iter().all(|&bytes| bytes > 0), "{memory}");
    assert_eq!(bytes("total"), parts.iter().sum::<u64>());
    assert_eq!(report["generated_tokens"], ids(report).len());
    let prompt = report["prompt_ids"].as_array().expect("a list");
    assert_eq!(report["prompt_tokens"], prompt.len());
    if ids(report).len() > 1 {
        assert_eq!(report["submissions_per_token"], 1.0);
        assert_eq!(report["readback_bytes_per_token"], 4.0);
        for key in [
            "prompt_tokens_per_second",
            "generated_tokens_per_second",
            "time_to_first_token_seconds",
        ] {
            assert!(
                report[key].as_f64().is_some_and(|rate| rate > 0.0),
                "{report}"
            );
        }
    }
}

#[test]
fn the_capital_of_france() {
    const TEST: &str = "the_capital_of_france";
    let (Some(model), Some(bench)) = (sample(TEST), Bench::new(TEST)) else {
        return;
    };
    let generate = |flags: &[&str]| {
        let arguments = ["generate", &model, PARIS, "--max-tokens", "4"];
        bench.run(&[&arguments, flags].concat())
    };
    let report = generate(&["--json"]).json();
    check(&report);
    assert!(text(&report).starts_with(" Paris"), "{report}");
    assert_eq!(report["prompt_tokens"], 5);
    assert_eq!(report["stop"], "length");
    assert_eq!(
        [
            &report["weight_format"],
            &report["activation_format"],
            &report["kv_format"]
        ],
        ["stored", "int8", "f16"]
    );
    let bits = report["bits_per_weight"].as_f64().expect("a number");
    // Q4_1 takes 5 bits, and Q8_0 8.5.
    assert!((5.0..8.5).contains(&bits), "{bits}");
    let weights = report["memory"]["weights"].as_u64().expect("bytes");
    assert!((90_000_000..110_000_000).contains(&weights), "{weights}");

    let again = generate(&["--stats"]).passed();
    assert_eq!(again.stdout, format!("{}\n", text(&report)));
    assert!(again.stderr.contains("prompt        5 tokens"), "{again:?}");
    assert!(again.stderr.contains("stored, "), "{again:?}");

    let question = [
        "generate",
        &model,
        PARIS,
        "--chat",
        "--max-tokens",
        "2",
        "--json",
    ];
    let chat = bench.run(&question).json();
    check(&chat);
    assert!(chat["prompt_tokens"].as_u64() > Some(5), "{chat}");
    assert_ne!(chat["prompt_ids"], report["prompt_ids"]);
    assert_ne!(ids(&chat), ids(&report)[..2]);
}

/// Runs the tiny model on a prompt of two words, in f32, whose kernels are the quickest to compile.
fn tiny(bench: &Bench, flags: &str) -> Run {
    quantised(bench, &format!("{flags} --exact"))
}

/// The same with the usual activations.
fn quantised(bench: &Bench, flags: &str) -> Run {
    let mut arguments = vec!["generate", "tiny.gguf", "the rest"];
    arguments.extend(flags.split_whitespace());
    bench.run(&arguments)
}

#[test]
fn lengths_and_ends() {
    let Some(bench) = Bench::new("lengths_and_ends") else {
        return;
    };
    let none = tiny(&bench, "--max-tokens 0 --json").json();
    check(&none);
    assert_eq!((ids(&none).len(), text(&none)), (0, ""));
    assert_eq!(none["stop"], "length");
    assert!(none["time_to_first_token_seconds"].is_null(), "{none}");
    assert_eq!(tiny(&bench, "--max-tokens 0").passed().stdout, "\n");
    let one = tiny(&bench, "--max-tokens 1 --json").json();
    check(&one);
    assert_eq!(ids(&one).len(), 1);
    let checked = tiny(&bench, "--max-tokens 1 --json --self-check").json();
    assert_eq!(ids(&checked), ids(&one));
    assert!(one["generated_tokens_per_second"].is_null(), "{one}");

    // At its temperature every token comes sooner or later, also one that ends the text.
    let hot = "--temperature 100 --max-tokens 100000 --json --seed";
    let reports: Vec<Json> = (0..8)
        .map(|seed| tiny(&bench, &format!("{hot} {seed}")).json())
        .collect();
    for report in &reports {
        check(report);
        let prompt = report["prompt_tokens"].as_u64().expect("a number");
        let length = ids(report).len() as u64;
        match report["stop"].as_str() {
            Some("end") => assert!(prompt + length < 128, "{report}"),
            Some("context") => assert_eq!(prompt + length, 128, "{report}"),
            _ => panic!("{report}"),
        }
        assert!(
            !ids(report).iter().any(|id| [0, 2].contains(id)),
            "{report}"
        );
    }
    assert!(reports.iter().any(|report| report["stop"] == "end"));
    assert!(reports.iter().any(|report| report["stop"] == "context"));
}

#[test]
fn drawing() {
    let Some(bench) = Bench::new("drawing") else {
        return;
    };
    let of = |flags: &str| ids(&tiny(&bench, &format!("--max-tokens 12 --json {flags}")).json());
    let greedy = of("");
    assert_eq!(of("--temperature 0 --top-k 3 --top-p 0.5 --seed 7"), greedy);
    assert_eq!(of("--temperature 5 --top-k 1 --seed 7"), greedy);
    let drawn = of("--temperature 5 --seed 7");
    assert_eq!(of("--temperature 5 --seed 7"), drawn);
    assert_ne!(of("--temperature 5 --seed 8"), drawn);
    assert_ne!(drawn, greedy);
}

#[test]
fn texts_come_as_they_are_reported() {
    let Some(bench) = Bench::new("texts_come_as_they_are_reported") else {
        return;
    };
    // Bytes that are no characters among them.
    for seed in 0..3 {
        let flags = format!("--temperature 3 --seed {seed} --max-tokens 40");
        let report = tiny(&bench, &format!("{flags} --json")).json();
        let stream = tiny(&bench, &flags).passed();
        assert_eq!(stream.stdout, format!("{}\n", text(&report)));
    }
}

#[test]
fn precisions() {
    let Some(bench) = Bench::new("precisions") else {
        return;
    };
    bench
        .folder
        .write("tiny.gguf", &Tiny::qwen2().stored(Storage::Q4_1).bytes());
    let report = |flags: &str| {
        let report = quantised(&bench, &format!("--max-tokens 3 --json {flags}")).json();
        check(&report);
        report
    };
    let names = |report: &Json| {
        ["weight_format", "activation_format", "kv_format"]
            .map(|key| report[key].as_str().expect("a name").to_owned())
    };
    let exact = report("--exact");
    assert_eq!(names(&exact), ["stored", "f32", "f32"]);
    // The embedding and the LM head are Q8_0 in the file, and stay so unless the weights are floats.
    let stored = exact["bits_per_weight"].as_f64();
    let int4 = report("--weight-format int4 --kv-format int4 --activation-format int8");
    assert_eq!(names(&int4), ["int4", "int8", "int4"]);
    assert!(int4["bits_per_weight"].as_f64() < stored, "{int4}");
    let floats = report("--weight-format f32 --exact --deterministic");
    assert_eq!(floats["bits_per_weight"], 32.0);
    let kept = report("--weight-format f32 --head-format stored --exact");
    assert!(kept["bits_per_weight"].as_f64() < Some(32.0), "{kept}");
    let smallest = report("--weight-format int2 --head-format int2 --exact");
    assert_eq!(smallest["bits_per_weight"], 2.5);
    let weights = |report: &Json| report["memory"]["weights"].as_u64();
    assert!(weights(&smallest) < weights(&exact), "{smallest}");
    bench.folder.write("levels.txt", b"-1 -0.3 0 0.4");
    assert_eq!(
        names(&report(
            "--activation-format mxfp4 --weight-format generatelevels --codebook generatelevels=levels.txt"
        )),
        ["generatelevels", "mxfp4", "f16"]
    );
}

#[test]
fn conversations() {
    let Some(bench) = Bench::new("conversations") else {
        return;
    };
    let template = |text: &str| {
        let damage = Damage::Key(
            "tokenizer.chat_template".into(),
            Value::String(text.to_owned()),
        );
        bench
            .folder
            .write("tiny.gguf", &Tiny::llama().damaged(damage).bytes());
    };
    let plain = tiny(&bench, "--max-tokens 2 --json").json();
    let error = tiny(&bench, "--chat").failed(1);
    assert!(
        error.contains("the file has no tokenizer.chat_template"),
        "{error}"
    );
    template(
        "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}",
    );
    let chat = tiny(&bench, "--chat --max-tokens 2 --json").json();
    let prompt: Vec<u64> = chat["prompt_ids"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Json::as_u64)
        .collect();
    // Names of control tokens are the tokens in a template, and text in a prompt.
    assert_eq!((prompt.first(), prompt.last()), (Some(&1), Some(&2)));
    assert_ne!(chat["prompt_ids"], plain["prompt_ids"]);
    let marked = bench
        .run(&[
            "generate",
            "tiny.gguf",
            "<|im_start|>",
            "--max-tokens",
            "0",
            "--json",
            "--exact",
        ])
        .json();
    assert!(marked["prompt_tokens"].as_u64() > Some(1), "{marked}");
    for (text, problem) in [
        ("{{ raise_exception('no users') }}", "no users"),
        ("{% for %}", "cannot be parsed"),
    ] {
        template(text);
        let error = tiny(&bench, "--chat").failed(1);
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn prompts() {
    let Some(bench) = Bench::new("prompts") else {
        return;
    };
    let given = tiny(&bench, "--max-tokens 3 --json").json();
    let mut child =
        crate::support::command(&["generate", "tiny.gguf", "-", "--max-tokens", "3", "--json"])
            .arg("--exact")
            .args(bench.adapter())
            .current_dir(bench.folder.path(""))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, b"the rest\n").expect("the command reads");
    drop(stdin);
    let output = child.wait_with_output().expect("the command ends");
    let piped: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(piped["prompt_ids"], given["prompt_ids"]);
    assert_eq!(piped["ids"], given["ids"]);

    let error = bench.run(&["generate", "tiny.gguf", ""]).failed(1);
    assert!(error.contains("the prompt is empty"), "{error}");
    let error = bench.run(&["generate", "tiny.gguf", "-"]).failed(1);
    assert!(error.contains("the prompt is empty"), "{error}");
    let long = "x".repeat(129);
    let error = bench.run(&["generate", "tiny.gguf", &long]).failed(1);
    assert!(
        error.contains("the prompt has 129 tokens, and the model's context is 128"),
        "{error}"
    );
    let full = bench
        .run(&["generate", "tiny.gguf", &long[1..], "--json", "--exact"])
        .json();
    assert_eq!(full["stop"], "context");
    assert_eq!(ids(&full).len(), 0);
    let last = bench
        .run(&["generate", "tiny.gguf", &long[2..], "--json", "--exact"])
        .json();
    assert_eq!(ids(&last).len(), 1);
}

/// What a device has no room for is told before it is tried.
#[test]
fn an_adapter_too_small() {
    let Some(bench) = Bench::new("an_adapter_too_small") else {
        return;
    };
    let tiny = Tiny {
        context: (1 << 24) - 1,
        kv_heads: 4,
        ..Tiny::llama()
    };
    bench.folder.write("long.gguf", &tiny.bytes());
    let error = bench
        .line("generate long.gguf x --max-tokens 16000000 --exact")
        .failed(1);
    assert!(
        error.contains("takes 8192016384 bytes on the device, which has "),
        "{error}"
    );
    bench
        .line("generate long.gguf x --max-tokens 1 --exact")
        .passed();
}

/// Ctrl-C ends a text where it is.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_text() {
    use std::io::Read;
    use std::process::{Command, Stdio};

    let Some(bench) = Bench::new("an_interrupt_ends_the_text") else {
        return;
    };
    let tiny = Tiny {
        context: 1 << 20,
        ..Tiny::llama()
    };
    bench.folder.write("long.gguf", &tiny.bytes());
    // The likeliest token is no control token here.
    let line = ["generate", "long.gguf", "x", "--max-tokens", "100000"];
    let mut child = crate::support::command(&line)
        .args(bench.adapter())
        .current_dir(bench.folder.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    // The text comes as it is generated: its beginning shows that the command is at work.
    let mut beginning = [0; 4];
    stdout
        .read_exact(&mut beginning)
        .expect("the command writes");
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill is there");
    assert!(interrupt.success());
    let mut rest = Vec::new();
    stdout
        .read_to_end(&mut rest)
        .expect("the command ends its text");
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(rest.last(), Some(&b'\n'));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.ends_with(
            "error: interrupted
"
        ),
        "{errors}"
    );
}
