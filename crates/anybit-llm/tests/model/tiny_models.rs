//! The tiny models themselves: that they are what they claim to be, and broken where they are meant to be.

use anybit_import::gguf::GgufFile;

use crate::reference::Reference;
use crate::tiny::writer::Value;
use crate::tiny::{Damage, Storage, Tiny};

#[test]
fn logits_vary_with_the_token_and_the_place() {
    for tiny in Tiny::all() {
        let reference = Reference::load(&tiny.file()).expect("the tiny model is right");
        let tokens = Tiny::text(30, 1);
        let logits = reference
            .forward(&tokens)
            .expect("the tokens are the model's");
        let rows: Vec<_> = logits.chunks_exact(reference.vocabulary()).collect();
        for row in &rows {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let deviation = variance.sqrt();
            assert!(
                (1.0..16.0).contains(&deviation),
                "{}: {deviation}",
                tiny.architecture
            );
        }
        let mut likeliest: Vec<_> = rows
            .iter()
            .map(|row| crate::reference::math::argmax(row))
            .collect();
        likeliest.sort_unstable();
        likeliest.dedup();
        assert!(likeliest.len() > 10, "{}: {likeliest:?}", tiny.architecture);
    }
}

/// Values of `tensor` as stored, and as they were before, in blocks of 32.
fn stored(storage: Storage, tensor: &str) -> (Vec<f32>, Vec<f32>) {
    let values = |storage| {
        let file = Tiny::qwen2().stored(storage).file();
        file.values(tensor).expect("the tensor can be read")
    };
    (values(storage), values(Storage::F32))
}

#[test]
fn tensors_are_stored_as_close_as_their_type_allows() {
    for storage in Storage::ALL {
        let (found, exact) = stored(storage, "blk.1.ffn_down.weight");
        assert_eq!(found.len(), exact.len());
        for (found, exact) in found.chunks(32).zip(exact.chunks(32)) {
            let largest = exact.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let range = exact.iter().copied().fold(f32::MIN, f32::max)
                - exact.iter().copied().fold(f32::MAX, f32::min);
            // Half a step, and a little for the rounding of scales to f16. Q4_0 has no code for the largest value of
            // the sign that the largest of all does not have: a whole step.
            let bound = match storage {
                Storage::F32 => 0.0,
                Storage::F16 => largest / 2048.0,
                Storage::Q8_0 => 0.52 * largest / 127.0 + largest / 2048.0,
                Storage::Q4_0 => 1.02 * largest / 8.0,
                Storage::Q4_1 => 0.52 * range / 15.0 + range / 1024.0,
            };
            for (found, exact) in found.iter().zip(exact) {
                assert!(
                    (found - exact).abs() <= bound,
                    "{storage:?}: {found} for {exact}"
                );
            }
        }
    }
}

#[test]
fn every_architecture_can_be_stored_in_every_type() {
    for tiny in Tiny::all() {
        for storage in Storage::ALL {
            let tiny = tiny.clone().stored(storage);
            let file = tiny.file();
            let id = |name| {
                file.tensor(name)
                    .expect("the model has it")
                    .tensor_type()
                    .id()
            };
            assert_eq!(id("blk.0.attn_q.weight"), storage.id());
            assert_eq!(id("token_embd.weight"), tiny.embedding_storage.id());
            assert_eq!(id("output_norm.weight"), Storage::F32.id());
            let reference = Reference::load(&file).expect("the tiny model is right");
            let logits = reference
                .forward(&Tiny::text(4, 2))
                .expect("the tokens are the model's");
            assert!(logits.iter().all(|logit| logit.is_finite()));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_file() {
    let bytes = Tiny::llama().bytes();
    assert!(bytes == Tiny::llama().bytes());
    assert!(
        bytes
            != Tiny {
                seed: 9,
                ..Tiny::llama()
            }
            .bytes()
    );
}

#[test]
fn broken_models_are_refused() {
    let damages = [
        (
            Damage::NoTensor("blk.1.ffn_up.weight".to_owned()),
            "blk.1.ffn_up.weight",
        ),
        (
            Damage::NoTensor("token_embd.weight".to_owned()),
            "token_embd.weight",
        ),
        (
            Damage::Shape("blk.2.attn_k.weight".to_owned(), vec![64, 64]),
            "blk.2.attn_k.weight",
        ),
        (
            Damage::Shape("output_norm.weight".to_owned(), vec![32]),
            "output_norm.weight",
        ),
        (
            Damage::ExtraTensor("blk.0.ffn_gate_inp.weight".to_owned(), 8),
            "blk.0.ffn_gate_inp.weight",
        ),
        (
            Damage::NoKey("llama.block_count".to_owned()),
            "llama.block_count",
        ),
        (
            Damage::Key(
                "general.architecture".to_owned(),
                Value::String("mamba".to_owned()),
            ),
            "mamba",
        ),
        (
            Damage::Key("llama.attention.head_count_kv".to_owned(), Value::U32(3)),
            "3",
        ),
        (
            Damage::Key("llama.attention.head_count".to_owned(), Value::U32(0)),
            "head_count",
        ),
    ];
    for (damage, named) in damages {
        let file = Tiny::llama().damaged(damage.clone()).file();
        let error = Reference::load(&file).err();
        let error = error.unwrap_or_else(|| panic!("{damage:?} goes unnoticed"));
        assert!(error.to_string().contains(named), "{damage:?}: {error}");
    }
    let length = Tiny::llama().bytes().len();
    for kept in [3, 100, length / 2, length - 64] {
        let bytes = Tiny::llama().damaged(Damage::Truncate(kept)).bytes();
        assert_eq!(bytes.len(), kept);
        assert!(GgufFile::from_bytes(bytes).is_err(), "{kept}");
    }
}

#[test]
fn a_vocabulary_can_be_cut_and_filled() {
    for length in [Tiny::vocabulary() - 3, Tiny::vocabulary() + 3] {
        let file = Tiny::llama().damaged(Damage::Vocabulary(length)).file();
        let tokens = file
            .metadata()
            .get_strings("tokenizer.ggml.tokens")
            .expect("a vocabulary");
        assert_eq!(tokens.len(), length);
        let rows = file
            .tensor("token_embd.weight")
            .expect("an embedding")
            .rows();
        assert_eq!(rows, Tiny::vocabulary() as u64);
    }
}
