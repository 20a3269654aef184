//! Keys and values of past tokens on the device, as they are or quantised.

use std::fmt;
use std::str::FromStr;

use anybit_shaders::Header;
use bytemuck::{Pod, Zeroable};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::pipeline::Binding;
use crate::plan::fold_grid;
use crate::prepare::Prepared;
use crate::row_kernels::WORKGROUP;
use crate::sequence::Sequence;
use crate::specialize::{ShaderKey, Specialization};

/// Tokens of a block: those that share a key's scales.
pub(crate) const BLOCK: usize = 32;

/// How keys and values are kept.
///
/// Quantised caches (int8, int4, int2) follow KIVI and GEAR (arXiv:2402.02750, arXiv:2403.05527): blocks of 32 tokens take a
/// scale and a minimum for each channel of the keys, and one for each token and group of up to 64 channels of the values, all in
/// f16; code = round((x − minimum) / scale). The tokens of a query's own block and of the [`RECENT_BLOCKS`](Self::RECENT_BLOCKS)
/// before it are read in f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvFormat {
    /// f32.
    F32,
    /// f16, rounded to either neighbour, as drivers do it.
    F16,
    /// 8-bit codes.
    Int8,
    /// 4-bit codes.
    Int4,
    /// 2-bit codes.
    Int2,
}

impl KvFormat {
    /// Every format, the most precise first.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Int8, Self::Int4, Self::Int2];

    /// Whole blocks of 32 tokens before a query's own that quantised caches still read in f16.
    pub const RECENT_BLOCKS: usize = 1;

    /// The name: `f32`, `f16`, `int8`, `int4` or `int2`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Int2 => "int2",
        }
    }

    /// Bits of a code; `None` of floats.
    pub const fn code_bits(self) -> Option<u32> {
        match self {
            Self::F32 | Self::F16 => None,
            Self::Int8 => Some(8),
            Self::Int4 => Some(4),
            Self::Int2 => Some(2),
        }
    }

    /// The modules that read and write it.
    pub(crate) fn modules(self) -> (&'static str, &'static str) {
        match self {
            Self::F32 => ("kv/f32", "kv/store_f32"),
            Self::F16 => ("kv/f16", "kv/store_f16"),
            Self::Int8 | Self::Int4 | Self::Int2 => ("kv/codes", "kv/store_f16"),
        }
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for KvFormat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| Error::Parameter {
                what: "the format of the KV cache",
                value: format!("{name:?}"),
                expected: "f32, f16, int8, int4 or int2".into(),
            })
    }
}

/// The sizes of a layer's KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Heads of keys and values.
    pub heads: usize,
    /// Channels of a head: a multiple of 8, of 16 for int2, up to 256.
    pub head_dim: usize,
    /// Tokens that there is room for.
    pub capacity: usize,
    /// The most tokens of a step.
    pub step: usize,
}

/// `Cache` of core/cache.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(crate) struct CacheParams {
    ring: u32,
    heads: u32,
    keys: u32,
    values: u32,
    key_codes: u32,
    key_scales: u32,
    value_codes: u32,
    value_scales: u32,
    blocks: u32,
    recent_blocks: u32,
    padding: [u32; 2],
}

/// `QuantizeCacheParams` of kernel/quantize_cache.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct QuantizeCacheParams {
    rows: u32,
    grid_x: u32,
    blocks: u32,
    zero: u32,
    cache: CacheParams,
}

/// A layer's keys and values on the device. Cheap to clone: clones share the buffer.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(crate) format: KvFormat,
    pub(crate) shape: KvShape,
    pub(crate) params: CacheParams,
    pub(crate) buffer: wgpu::Buffer,
}

impl KvCache {
    /// How keys and values are kept.
    pub fn format(&self) -> KvFormat {
        self.format
    }

    /// Its sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Bytes that it takes on the device.
    pub fn bytes(&self) -> u64 {
        self.buffer.size()
    }

    /// Its words on the device, usage COPY_SRC and COPY_DST among others: to keep a cache, to bring one back, and to look at
    /// it.
    ///
    /// Sections follow each other: the ring of keys, the ring of values, and of quantised caches the codes of keys, their scales,
    /// the codes of values, and their scales; each begins at a multiple of four words. Scales are pairs of f16, scale and minimum.
    /// The order inside a section is that of the shaders and may change with a version.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Bytes that a cache takes on a device; `None` if they are past counting.
    pub fn bytes_of(format: KvFormat, shape: KvShape) -> Option<u64> {
        Some(layout(format, shape)?.1)
    }

    pub(crate) fn binding(&self) -> wgpu::BufferBinding<'_> {
        self.buffer.as_entire_buffer_binding()
    }

    /// Refuses what a step over so many rows cannot do with this cache.
    pub(crate) fn check_rows(&self, rows: usize) -> Result<()> {
        if rows <= self.shape.step {
            return Ok(());
        }
        Err(Error::TooLarge {
            what: "the number of a step's tokens",
            value: rows as u64,
            limit: self.shape.step as u64,
        })
    }
}

/// The channels that share a value's scale.
pub(crate) const fn value_group(head_dim: usize) -> usize {
    match head_dim {
        _ if head_dim.is_multiple_of(64) => 64,
        _ if head_dim.is_multiple_of(32) => 32,
        _ => head_dim,
    }
}

/// Where the sections lie, in words, and the bytes of all.
fn layout(format: KvFormat, shape: KvShape) -> Option<(CacheParams, u64)> {
    let (heads, head_dim) = (shape.heads as u64, shape.head_dim as u64);
    let block = BLOCK as u64;
    let capacity = (shape.capacity as u64).checked_next_multiple_of(block)?;
    let ring = match format.code_bits() {
        None => capacity,
        Some(_) => {
            // All that the first query of a step may still read there, and what the step adds.
            let recent = block * (KvFormat::RECENT_BLOCKS as u64 + 2);
            (shape.step as u64)
                .checked_next_multiple_of(block)?
                .checked_add(recent)?
                .min(capacity)
        }
    };
    let per_token = heads.checked_mul(head_dim)?;
    let floats = ring.checked_mul(per_token)? / if format == KvFormat::F32 { 1 } else { 2 };
    let mut end = 0_u64;
    let mut section = |words: u64| -> Option<u64> {
        let start = end;
        end = end.checked_add(words.checked_next_multiple_of(4)?)?;
        Some(start)
    };
    let (keys, values) = (section(floats)?, section(floats)?);
    let mut params = CacheParams {
        ring: u32::try_from(ring).ok()?,
        heads: u32::try_from(heads).ok()?,
        recent_blocks: KvFormat::RECENT_BLOCKS as u32,
        blocks: u32::try_from(capacity / block).ok()?,
        ..CacheParams::default()
    };
    let mut sections = vec![keys, values];
    if let Some(bits) = format.code_bits() {
        let codes = capacity.checked_mul(per_token)? * u64::from(bits) / 32;
        let key_scales = capacity / block * per_token;
        let value_scales = capacity * heads * (head_dim / value_group(shape.head_dim) as u64);
        for words in [codes, key_scales, codes, value_scales] {
            sections.push(section(words)?);
        }
    }
    let mut offsets = sections.iter().map(|&offset| u32::try_from(offset).ok());
    for field in [
        &mut params.keys,
        &mut params.values,
        &mut params.key_codes,
        &mut params.key_scales,
        &mut params.value_codes,
        &mut params.value_scales,
    ] {
        *field = offsets.next().unwrap_or(Some(0))?;
    }
    Some((params, end.checked_mul(4)?))
}

pub(crate) fn cache_constants(header: Header, format: KvFormat, head_dim: usize) -> Header {
    let header = header.constant_u32("HEAD_DIM", head_dim as u32);
    match format.code_bits() {
        None => header,
        Some(bits) => header
            .constant_u32("KV_BITS", bits)
            .constant_u32("VALUE_GROUP", value_group(head_dim) as u32),
    }
}

pub(crate) fn quantize_cache_specialization(format: KvFormat, head_dim: usize) -> Specialization {
    Specialization {
        id: format!("quantize_cache_f16_{format}__{WORKGROUP}_d{head_dim}"),
        key: ShaderKey {
            root: "kernel/quantize_cache",
            slots: Vec::new(),
            header: cache_constants(
                Header::new().constant_u32("WORKGROUP", WORKGROUP),
                format,
                head_dim,
            ),
        },
        workgroup: WORKGROUP,
        workgroup_memory: 4 * head_dim as u32,
        subgroup: false,
    }
}

impl Context {
    /// An empty KV cache for one layer.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] for a shape that the kernels do not take; [`Error::BindingTooLarge`]; [`Error::OutOfMemory`].
    pub fn kv_cache(&self, format: KvFormat, shape: KvShape) -> Result<KvCache> {
        let unit = if format == KvFormat::Int2 { 16 } else { 8 };
        if shape.head_dim == 0 || !shape.head_dim.is_multiple_of(unit) || shape.head_dim > 256 {
            return Err(Error::Parameter {
                what: "the number of channels of a head",
                value: shape.head_dim.to_string(),
                expected: format!("a multiple of {unit}, up to 256"),
            });
        }
        for (what, value) in [
            ("the number of key and value heads", shape.heads),
            ("the capacity of the KV cache", shape.capacity),
            ("the number of a step's tokens", shape.step),
        ] {
            if value == 0 {
                return Err(Error::Parameter {
                    what,
                    value: value.to_string(),
                    expected: "at least 1".into(),
                });
            }
        }
        let limit = self.inner.caps.max_binding;
        let (params, bytes) = layout(format, shape)
            .filter(|(_, bytes)| *bytes <= limit)
            .ok_or_else(|| Error::BindingTooLarge {
                what: "the KV cache of a layer",
                bytes: layout(format, shape).map_or(u64::MAX, |(_, bytes)| bytes),
                limit,
            })?;
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        Ok(KvCache {
            format,
            shape,
            params,
            buffer: self.buffer("a KV cache", bytes, usage)?,
        })
    }

    /// Prepares `quantize_cache`: after a step's keys and values are in the cache, the codes of the blocks that they complete.
    /// Nothing for caches of floats.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for more rows than a step of the cache has.
    pub fn prepare_quantize_cache(
        &self,
        cache: &KvCache,
        sequence: &Sequence,
        rows: usize,
    ) -> Result<Prepared> {
        cache.check_rows(rows)?;
        if cache.format.code_bits().is_none() {
            return Ok(Prepared::new("quantize_cache", Vec::new()));
        }
        let specialization = quantize_cache_specialization(cache.format, cache.shape.head_dim);
        let blocks = rows.div_ceil(BLOCK);
        let workgroups = blocks as u64 * cache.shape.heads as u64;
        let [x, y] = fold_grid(workgroups, self.inner.caps.max_workgroups)?;
        let params = QuantizeCacheParams {
            rows: rows as u32,
            grid_x: x,
            blocks: blocks as u32,
            zero: 0,
            cache: cache.params,
        };
        self.kernel(
            specialization,
            &[Binding::Uniform, Binding::Read, Binding::Write],
            bytemuck::bytes_of(&params),
            &[sequence.buffer.as_entire_buffer_binding(), cache.binding()],
            [x, y, 1],
        )
    }
}
