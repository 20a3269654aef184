//! The reference against models of a few weights, computed independently by tests/data/make_miniatures.py.

use anybit_import::gguf::GgufFile;
use serde_json::{Map, Value as Json};

use crate::reference::Reference;
use crate::tiny::Storage;
use crate::tiny::writer::{self, Tensor, Value};

/// Both sides compute in f64, in another order.
const TOLERANCE: f64 = 1e-12;

fn numbers(json: &Json) -> Vec<f64> {
    let numbers = json.as_array().expect("an array");
    numbers
        .iter()
        .map(|number| number.as_f64().expect("a number"))
        .collect()
}

fn metadata(json: &Map<String, Json>) -> Vec<(String, Value)> {
    let value = |json: &Json| match json {
        Json::String(text) => Value::String(text.clone()),
        number => match number.as_u64() {
            Some(integer) => Value::U32(integer as u32),
            None => Value::F32(number.as_f64().expect("a number") as f32),
        },
    };
    json.iter()
        .map(|(key, json)| (key.clone(), value(json)))
        .collect()
}

fn tensors(json: &Map<String, Json>) -> Vec<Tensor> {
    let tensor = |(name, json): (&String, &Json)| {
        let values: Vec<f32> = numbers(&json["values"])
            .iter()
            .map(|&value| value as f32)
            .collect();
        Tensor {
            name: name.clone(),
            dimensions: numbers(&json["dimensions"])
                .iter()
                .map(|&dimension| dimension as u64)
                .collect(),
            id: Storage::F32.id(),
            bytes: Storage::F32.store(&values),
        }
    };
    json.iter().map(tensor).collect()
}

#[test]
fn the_reference_computes_what_plain_python_computes() {
    let json: Map<String, Json> =
        serde_json::from_str(include_str!("../data/miniatures.json")).expect("the file is JSON");
    assert_eq!(json.len(), 6);
    for (name, model) in &json {
        let metadata = metadata(model["metadata"].as_object().expect("an object"));
        let tensors = tensors(model["tensors"].as_object().expect("an object"));
        let file = GgufFile::from_bytes(writer::write(&metadata, &tensors)).expect("a right file");
        let reference = Reference::load(&file).expect("a right model");
        let tokens: Vec<u32> = numbers(&model["tokens"])
            .iter()
            .map(|&token| token as u32)
            .collect();
        let found = reference.forward(&tokens).expect("known tokens");
        let expected: Vec<f64> = model["logits"]
            .as_array()
            .expect("an array")
            .iter()
            .flat_map(numbers)
            .collect();
        assert_eq!(found.len(), expected.len(), "{name}");
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let difference = (found - expected).abs();
            assert!(
                difference <= TOLERANCE,
                "{name}: logit {place} is {found} instead of {expected}"
            );
        }
    }
}
