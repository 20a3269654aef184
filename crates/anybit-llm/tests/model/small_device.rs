//! Devices that are too small for a model say so, and how small they are.

use anybit::{Context, KvFormat, wgpu};
use anybit_import::ModelFile;
use anybit_llm::{Error, LoadOptions, Model, Precision, Session};

use crate::rig;
use crate::tiny::writer::Value;
use crate::tiny::{Damage, Tiny};

/// A device whose buffers and bindings have so many bytes at most.
fn device(adapter: &wgpu::Adapter, bytes: u64) -> Context {
    let limits = wgpu::Limits {
        max_buffer_size: bytes,
        max_storage_buffer_binding_size: bytes,
        max_uniform_buffer_binding_size: bytes.min(64 << 10),
        ..wgpu::Limits::default()
    };
    let descriptor = wgpu::DeviceDescriptor {
        required_limits: limits,
        ..wgpu::DeviceDescriptor::default()
    };
    let made = pollster::block_on(adapter.request_device(&descriptor));
    let (device, queue) = made.expect("the adapter makes smaller devices");
    let context = Context::from_device(device, queue);
    assert_eq!(context.caps().max_binding, bytes);
    context
}

fn load(context: &Context, tiny: &Tiny, precision: Precision) -> Result<Model, Error> {
    let file = ModelFile::Gguf(tiny.file());
    Model::load(context, &file, &LoadOptions::new(precision), &mut |_| ())
}

fn needed<T: std::fmt::Debug>(result: Result<T, Error>, limit: u64) -> u64 {
    let Err(Error::DeviceTooSmall {
        needed, available, ..
    }) = result
    else {
        panic!("{result:?} instead of a device that is too small");
    };
    assert_eq!(available, limit);
    assert!(needed > available, "{needed} of {available}");
    needed
}

fn long(tokens: u32) -> Tiny {
    Tiny {
        blocks: 1,
        ..Tiny::llama()
    }
    .damaged(Damage::Key(
        "llama.context_length".to_owned(),
        Value::U32(tokens),
    ))
}

#[test]
fn a_cache_that_does_not_fit() {
    let Some(adapter) = rig::adapter("a_cache_that_does_not_fit") else {
        return;
    };
    // WebGPU's own limits.
    const LIMIT: u64 = 128 << 20;
    let context = device(&adapter, LIMIT);
    // Two heads of 16 keys and values in f32 are 256 bytes a token.
    const TOKENS: u32 = 1 << 20;
    let model = load(&context, &long(TOKENS), Precision::exact()).expect("the weights fit");
    let most = (LIMIT / 256) as usize;
    assert_eq!(
        needed(Session::new(&model, TOKENS as usize), LIMIT),
        256 << 20
    );
    assert_eq!(
        needed(Session::new(&model, most + 1), LIMIT),
        LIMIT + 32 * 256
    );
    // Half of it is a buffer that every device has room for.
    let mut session = Session::new(&model, most / 2).expect("the cache fits");
    assert_eq!(session.memory().kv_cache, LIMIT / 2);
    session.feed(&[5, 6, 7]).expect("the tokens fit");
    // In four bits the same text fits in an eighth, and in scales.
    let model = load(
        &context,
        &long(TOKENS),
        Precision::exact().with_kv(KvFormat::Int4),
    )
    .expect("the weights fit");
    Session::new(&model, most).expect("the cache fits");
}

#[test]
fn logits_that_do_not_fit() {
    let Some(adapter) = rig::adapter("logits_that_do_not_fit") else {
        return;
    };
    // 128 rows of 305 logits take more than this, the weights less.
    const LIMIT: u64 = 100 << 10;
    let context = device(&adapter, LIMIT);
    let model = load(&context, &Tiny::llama(), Precision::exact()).expect("the weights fit");
    let mut session = Session::new(&model, 128).expect("the cache fits");
    let text = Tiny::text(128, 61);
    let expected = rig::reference(&Tiny::llama())
        .forward(&text)
        .expect("known tokens");
    // They are made in stretches of rows that fit, or refused; never wrong.
    let mut found = Vec::new();
    match session.logits(&text, &mut |row| {
        found.extend(row.iter().map(|&logit| f64::from(logit)))
    }) {
        Ok(()) => assert!(rig::worst_row(&found, &expected, Tiny::vocabulary()) <= 1e-4),
        other => assert!(needed(other, LIMIT) > LIMIT),
    }
}

#[test]
fn nothing_fits_a_device_of_a_few_kilobytes() {
    let Some(adapter) = rig::adapter("nothing_fits_a_device_of_a_few_kilobytes") else {
        return;
    };
    for kib in [1, 2, 4, 8, 16, 32, 64] {
        let context = device(&adapter, kib << 10);
        let result = load(&context, &Tiny::llama(), Precision::exact()).and_then(|model| {
            let mut session = Session::new(&model, 128)?;
            session.cross_entropies(&Tiny::text(100, 62))
        });
        match result {
            Ok(values) => assert_eq!(values.len(), 99),
            Err(Error::DeviceTooSmall {
                needed, available, ..
            }) => {
                assert!(
                    needed > available && available <= kib << 10,
                    "{needed} of {available}"
                );
            }
            Err(error) => panic!("{kib} KiB: {error:?}"),
        }
    }
}
