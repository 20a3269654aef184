//! What a driver remembers of compiled pipelines, as bytes that a program keeps from one run to the next.
//!
//! wgpu wants such bytes to be what it gave out itself, and cannot tell: a driver reads them without distrust. They are
//! therefore wrapped with a checksum, and nothing reaches wgpu that was cut, changed, or made for another adapter.

use sha2::{Digest, Sha256};

use crate::context::scoped;

/// What the bytes begin with: a name, and the version of the form.
const MAGIC: &[u8; 16] = b"anybit pipes\0\0\0\x01";
const CHECKSUM_BYTES: usize = 32;

/// The driver's memory of a device, filled from earlier bytes if those are whole and this adapter's. None where the device
/// lacks the feature.
pub(crate) fn create(device: &wgpu::Device, saved: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
        return None;
    }
    let key = wgpu::util::pipeline_cache_key(&device.adapter_info())?;
    let data = saved.and_then(|saved| unwrap(saved, &key));
    create_from(device, data).or_else(|| create_from(device, None))
}

/// The bytes to keep.
pub(crate) fn save(device: &wgpu::Device, cache: &wgpu::PipelineCache) -> Option<Vec<u8>> {
    let key = wgpu::util::pipeline_cache_key(&device.adapter_info())?;
    Some(wrap(&cache.get_data()?, &key))
}

#[expect(
    unsafe_code,
    reason = "wgpu leaves it to the caller that the bytes are its own"
)]
fn create_from(device: &wgpu::Device, data: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    // SAFETY: `data` must be what `PipelineCache::get_data` returned. It is none, or what `unwrap` has found whole: bytes that
    // `wrap` has put a SHA-256 checksum to, which `save` alone calls, with the output of `get_data` for this adapter's key.
    // Only who forges the checksum on purpose gets other bytes past it, and the documentation of
    // `ContextOptions::pipeline_cache` says that the bytes must come from a place where nobody can. wgpu then checks its own
    // header, with the driver's identity and version, and drops what is of another.
    let cache = scoped(device, |device| unsafe {
        device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
            label: Some("anybit"),
            data,
            fallback: true,
        })
    });
    cache.ok()
}

/// Magic, lengths of key and data, the checksum of all else, key, data.
fn wrap(data: &[u8], key: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + 16 + CHECKSUM_BYTES + key.len() + data.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(key.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(data.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&checksum(data, key));
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The data, if nothing of it or around it has changed since [`wrap`], and the key is this one.
fn unwrap<'a>(bytes: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (key_len, rest) = rest.split_first_chunk()?;
    let (data_len, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
    let key_len = usize::try_from(u64::from_le_bytes(*key_len)).ok()?;
    let (found, data) = rest.split_at_checked(key_len)?;
    let whole = found == key.as_bytes()
        && u64::from_le_bytes(*data_len) == data.len() as u64
        && *sum == checksum(data, key);
    whole.then_some(data)
}

fn checksum(data: &[u8], key: &str) -> [u8; CHECKSUM_BYTES] {
    let mut hash = Sha256::new();
    hash.update(MAGIC);
    hash.update((key.len() as u64).to_le_bytes());
    hash.update((data.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(data);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "wgpu_pipeline_cache_vulkan_1_2";

    #[test]
    fn what_was_wrapped_is_found() {
        for data in [&b""[..], b"some bytes", &[7; 1000]] {
            assert_eq!(unwrap(&wrap(data, KEY), KEY), Some(data));
        }
    }

    #[test]
    fn foreign_and_damaged_bytes_are_not() {
        let data: Vec<u8> = (0..=255).collect();
        let whole = wrap(&data, KEY);
        assert_eq!(unwrap(&whole, "wgpu_pipeline_cache_vulkan_1_3"), None);
        assert_eq!(unwrap(&whole, ""), None);
        assert_eq!(unwrap(&data, KEY), None);
        for len in 0..whole.len() {
            assert_eq!(unwrap(&whole[..len], KEY), None, "{len} bytes");
        }
        for index in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[index] ^= 1 << bit;
                assert_eq!(unwrap(&changed, KEY), None, "bit {bit} of byte {index}");
            }
        }
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(unwrap(&longer, KEY), None);
        // Bytes that move from the key to the data change the sum.
        let moved = wrap(b"2data", &KEY[..KEY.len() - 1]);
        assert_eq!(unwrap(&moved, KEY), None);
    }
}
