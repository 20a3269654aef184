//! Models whose weights are quantised anew as they are loaded, times activations of every kind: against the reference with
//! the decoded weights and rounded activations.

use std::collections::HashMap;

use anybit::Context;
use anybit::formats::QuantizeOptions;
use anybit_import::ModelFile;
use anybit_llm::{LoadOptions, Model, Precision, Session};

use crate::reference::Reference;
use crate::rig;
use crate::tiny::Tiny;

const TOKENS: usize = 40;

/// As of every architecture.
const EXACT: f64 = 1e-4;

/// Every K is a multiple of 128, whatever the group.
fn tiny() -> Tiny {
    Tiny {
        blocks: 2,
        hidden: 128,
        heads: 8,
        kv_heads: 4,
        feed_forward: 256,
        ..Tiny::llama()
    }
}

/// The values that a model's matrices have once they are loaded in the formats of a precision.
fn requantised(file: &ModelFile, precision: Precision) -> HashMap<String, Vec<f32>> {
    let mut values = HashMap::new();
    for weight in file
        .weights()
        .into_iter()
        .filter(|weight| weight.shape.len() == 2)
    {
        let format = match weight.name.as_str() {
            "token_embd.weight" | "output.weight" => precision.head,
            _ => precision.weight,
        };
        let Some(format) = format else { continue };
        let matrix = file.matrix_as(&weight.name, format, &QuantizeOptions::default());
        let matrix = matrix.expect("the columns make whole groups").matrix;
        values.insert(weight.name, matrix.decode());
    }
    values
}

/// The library's logits of a text, and the reference's with the same weights.
fn logits(context: &Context, tiny: &Tiny, precision: Precision) -> [Vec<f64>; 2] {
    let file = ModelFile::Gguf(tiny.file());
    let values = requantised(&file, precision);
    let reference = Reference::load_with(&tiny.file(), values).expect("the tiny model is right");
    let reference = rig::rounded(reference, precision);
    let model = Model::load(context, &file, &LoadOptions::new(precision), &mut |_| ())
        .unwrap_or_else(|error| panic!("{precision:?}: {error}"));
    let text = Tiny::text(TOKENS, 71);
    let mut session = Session::new(&model, TOKENS).expect("a session");
    let found = rig::logits(&mut session, &text);
    let expected = reference.forward(&text);
    [found, expected.expect("the tokens are the model's")]
}

fn check_exact(name: &str, [found, expected]: [Vec<f64>; 2]) {
    let error = rig::worst_row(&found, &expected, Tiny::vocabulary());
    eprintln!("{name}: {error:.1e}");
    assert!(error <= EXACT, "{name}: {error:e}");
}

#[test]
fn weights_of_every_kind() {
    let Some(context) = rig::context("weights_of_every_kind") else {
        return;
    };
    let names = [
        "f32",
        "f16",
        "bf16",
        "int8",
        "int4",
        "int3",
        "int2",
        "i4rf",
        "u4g32hz",
        "u4g64hm",
        "ternary",
        "binary",
        "e4m3",
        "mxfp6e2m3",
        "mxfp4",
        "nvfp4",
        "nf4",
        "bitmod4",
        "q4_0",
        "q5_1",
        "q6_k",
        "q8_0",
    ];
    for name in names.into_iter().step_by(rig::every(2)) {
        let precision = Precision::exact().with_weight(rig::weight(name));
        // Blocks of 256 need as many columns.
        let tiny = match name {
            "q6_k" => Tiny {
                hidden: 256,
                heads: 16,
                ..tiny()
            },
            _ => tiny(),
        };
        check_exact(name, logits(context, &tiny, precision));
    }
}

#[test]
fn embeddings_and_heads_of_every_kind() {
    let Some(context) = rig::context("embeddings_and_heads_of_every_kind") else {
        return;
    };
    for output in [false, true] {
        for name in [
            "f16", "int4", "ternary", "e4m3", "mxfp4", "u4g32hm", "nvfp4",
        ] {
            let precision = Precision::exact().with_head(rig::weight(name));
            let logits = logits(context, &Tiny { output, ..tiny() }, precision);
            check_exact(&format!("{name}, apart: {output}"), logits);
        }
    }
}

/// Every kind of activations, and every kind of weights: with int8 each of the weights, with the others those that take
/// other kernels.
const PAIRS: [(&str, &[&str]); 9] = [
    (
        "int8",
        &[
            "int8", "int4", "int2", "ternary", "e4m3", "mxfp4", "nf4", "f16", "f32", "q4_0", "q4_1",
        ],
    ),
    ("i8g32f", &["int4", "f32"]),
    ("int6", &["int2"]),
    ("int4", &["int4", "nf4"]),
    ("i4g32f", &["q4_1"]),
    ("e4m3", &["int8", "e4m3", "f16"]),
    ("e5m2", &["q4_0"]),
    ("mxfp8e4m3", &["mxfp4", "int4"]),
    ("mxfp4", &["mxfp4"]),
];

#[test]
fn activations_times_weights() {
    let Some(context) = rig::context("activations_times_weights") else {
        return;
    };
    let pairs = PAIRS.into_iter().flat_map(|(activation, weights)| {
        let of_activation = weights.iter();
        of_activation.map(move |weight| (activation, *weight))
    });
    // Integer kernels take long to compile: of the pairs, which go from one kind to the next, every third shows most kinds.
    for (activation, weight) in pairs.step_by(rig::every(3)) {
        let precision = Precision::exact()
            .with_weight(rig::weight(weight))
            .with_activation(rig::activation(activation));
        let [found, expected] = logits(context, &tiny(), precision);
        rig::check_rounded(&format!("{activation} times {weight}"), &found, &expected);
    }
}
