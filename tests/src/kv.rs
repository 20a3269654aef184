//! KV caches of the device as those of the reference.

use anybit::{Context, KvCache, KvFormat, KvShape};
use anybit_formats::FloatFormat;
use anybit_reference::cache::{Cache, CacheFormat, CacheShape, Section};

use crate::model::{Outcome, words, write_words};
use crate::random::Random;

/// The reference's shape of a cache.
pub fn shape_of(format: KvFormat, shape: KvShape) -> CacheShape {
    CacheShape {
        format: match format.code_bits() {
            Some(bits) => CacheFormat::Codes(bits),
            None if format == KvFormat::F32 => CacheFormat::F32,
            None => CacheFormat::F16,
        },
        heads: shape.heads,
        head_dim: shape.head_dim,
        capacity: shape.capacity,
        step: shape.step,
    }
}

/// What a cache holds.
///
/// # Errors
///
/// A size that is not that of the reference, and those of reading.
pub fn download(context: &Context, cache: &KvCache) -> Outcome<Cache> {
    let shape = shape_of(cache.format(), cache.shape());
    Ok(Cache::from_words(shape, words(context, cache.buffer())?)?)
}

/// Writes all that a cache holds.
///
/// # Errors
///
/// A size that is not that of the reference.
pub fn upload(context: &Context, cache: &KvCache, host: &Cache) -> Outcome<()> {
    if cache.bytes() != 4 * host.words().len() as u64 {
        return Err(format!(
            "the cache has {} bytes, the reference {} words",
            cache.bytes(),
            host.words().len()
        )
        .into());
    }
    write_words(context, cache.buffer(), host.words());
    Ok(())
}

/// A cache full of random keys and values of up to `size`.
pub fn random_cache(shape: CacheShape, size: f32, random: &mut Random) -> Cache {
    let mut cache = Cache::new(shape);
    let f16 = |value: f32| FloatFormat::F16.encode(value);
    for section in Section::ALL {
        let levels = match shape.format {
            CacheFormat::Codes(bits) => ((1_u32 << bits) - 1) as f32,
            _ => 1.0,
        };
        for word in cache.section_mut(section) {
            let [first, second] = [random.signed(), random.signed()];
            *word = match section {
                Section::Keys | Section::Values if shape.format == CacheFormat::F32 => {
                    (size * first).to_bits()
                }
                Section::Keys | Section::Values => f16(size * first) | f16(size * second) << 16,
                Section::KeyCodes | Section::ValueCodes => random.bits() as u32,
                // From a minimum of up to −size on, up to twice as far.
                Section::KeyScales | Section::ValueScales => {
                    let scale = 2.0 * size * first.abs() / levels;
                    f16(scale) | f16(-size * second.abs()) << 16
                }
            };
        }
    }
    cache
}
