//! Rotary position embedding and grouped-query attention over a KV cache.

use std::f64::consts::TAU;

use anybit_shaders::Header;
use bytemuck::{Pod, Zeroable};

use crate::cache::{CacheParams, KvCache, KvFormat, cache_constants};
use crate::caps::Caps;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::matrix::{DeviceMatrix, OutputMatrix, STORAGE};
use crate::pipeline::Binding;
use crate::plan::fold_grid;
use crate::prepare::{Dispatch, Prepared};
use crate::row_kernels::WORKGROUP;
use crate::row_source::{check_epsilon, check_f32};
use crate::sequence::{Sequence, check_cap, check_output, join_module};
use crate::specialize::{ShaderKey, Specialization};

/// Positions in the table of low angles.
const LOW_POSITIONS: usize = 256;

/// Tokens that an invocation of attention weighs at once.
const TOKENS: u32 = 2;

/// Tokens of a stretch that is attended to apart, a multiple of a block.
const SPLIT: u32 = 256;

/// `RotateParams` of kernel/rotate.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct RotateParams {
    rows: u32,
    grid_x: u32,
    input_row: u32,
    key_column: u32,
    value_column: u32,
    query_heads: u32,
    query_row: u32,
    epsilon: f32,
    cache: CacheParams,
}

/// Parameters, input, sequence, angles, queries, cache; then a bias and the norm's weights, where there are any.
const ROTATE_BINDINGS: [Binding; 6] = [
    Binding::Uniform,
    Binding::Read,
    Binding::Read,
    Binding::Read,
    Binding::Write,
    Binding::Write,
];

/// `AttentionParams` of kernel/attention.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct AttentionParams {
    rows: u32,
    grid_x: u32,
    head_tiles: u32,
    row_tiles: u32,
    splits: u32,
    query_heads: u32,
    group: u32,
    query_row: u32,
    output_row: u32,
    window: u32,
    scale: f32,
    cap: f32,
    cache: CacheParams,
}

/// `MergeParams` of kernel/attention_merge.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct MergeParams {
    rows: u32,
    grid_x: u32,
    splits: u32,
    query_heads: u32,
    output_row: u32,
    window: u32,
    padding: [u32; 2],
}

/// Which channels of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// Neighbours, 2i and 2i + 1: GGUF's llama models.
    Neighbours,
    /// i and i + half of the rotated channels: GPT-NeoX, Qwen, Gemma.
    Halves,
}

/// Cosines and sines of rotary position embedding on the device.
///
/// An angle is position · frequency. Both are exact in f64 here; the device multiplies the rotations by the position's multiple
/// of 256 and by the rest, each rounded to f32 once, so that far positions are as precise as near ones.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    buffer: wgpu::Buffer,
    rotated: usize,
    positions: usize,
}

impl RotaryTable {
    /// Channels of a head that it rotates.
    pub fn rotated(&self) -> usize {
        self.rotated
    }

    /// Positions that it covers.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Bytes that it takes on the device.
    pub fn bytes(&self) -> u64 {
        self.buffer.size()
    }
}

/// What is done to queries, keys and values on their way to attention.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// The angles.
    pub table: &'a RotaryTable,
    /// Which channels go together.
    pub pairing: Pairing,
    /// Heads of queries.
    pub query_heads: usize,
    /// The columns at which the keys and the values of the input begin; queries begin at 0.
    pub columns: [usize; 2],
    /// A bias for each column of the input that queries, keys and values lie in, one row of f32.
    pub bias: Option<&'a DeviceMatrix>,
    /// RMSNorm of each head of queries and keys before they are rotated.
    pub norm: Option<HeadNorm<'a>>,
}

/// RMSNorm over the channels of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm<'a> {
    /// Weights of the queries' heads, one row of f32.
    pub query: &'a DeviceMatrix,
    /// Weights of the keys' heads, one row of f32.
    pub key: &'a DeviceMatrix,
    /// What is added to the mean square.
    pub epsilon: f32,
}

/// How attention weighs tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Attention {
    /// What scores are multiplied by: 1 / √head_dim, most often.
    pub scale: f32,
    /// Tokens that a query sees, its own included; all before it, if there is none.
    pub window: Option<usize>,
    /// cap · tanh(score / cap).
    pub cap: Option<f32>,
    /// One kernel for every number of rows, so that a row's result does not depend on what is computed with it.
    pub deterministic: bool,
}

impl Attention {
    /// With this scale, over all tokens, without a cap.
    pub fn new(scale: f32) -> Self {
        Self {
            scale,
            window: None,
            cap: None,
            deterministic: false,
        }
    }

    /// Over so many tokens.
    #[must_use]
    pub fn with_window(mut self, window: Option<usize>) -> Self {
        self.window = window;
        self
    }

    /// With a soft cap.
    #[must_use]
    pub fn with_cap(mut self, cap: Option<f32>) -> Self {
        self.cap = cap;
        self
    }

    /// With one kernel for every number of rows, or with the fastest.
    #[must_use]
    pub fn with_deterministic(mut self, deterministic: bool) -> Self {
        self.deterministic = deterministic;
        self
    }
}

/// The tile of an attention kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttentionTile {
    pub(crate) rows: u32,
    pub(crate) heads: u32,
    pub(crate) split: u32,
}

impl AttentionTile {
    /// The tile for a step of so many rows.
    pub(crate) fn new(rows: usize, group: usize, head_dim: usize, capacity: usize) -> Self {
        // Registers and workgroup memory hold eight rows of up to 128 channels.
        let most = if head_dim > 128 { 4 } else { 8 };
        if rows == 1 {
            let heads = (1..=most)
                .rev()
                .find(|heads| group.is_multiple_of(*heads))
                .unwrap_or(1);
            return Self {
                rows: 1,
                heads: heads as u32,
                split: if capacity > SPLIT as usize { SPLIT } else { 0 },
            };
        }
        Self {
            rows: most as u32,
            heads: 1,
            split: 0,
        }
    }
}

pub(crate) fn rotate_specialization(
    format: KvFormat,
    head_dim: usize,
    rotated: usize,
    pairing: Pairing,
    [bias, norm]: [bool; 2],
) -> Specialization {
    let (_, store) = format.modules();
    let stored = if format == KvFormat::F32 {
        "f32"
    } else {
        "f16"
    };
    let mut header = Header::new()
        .constant_u32("WORKGROUP", WORKGROUP)
        .constant_u32("HEAD_DIM", head_dim as u32)
        .constant_u32("ROTATED", rotated as u32)
        .constant_bool("HALVES", pairing == Pairing::Halves);
    let (mut bias_slot, mut norm_slot) = ("bias/nothing", "head_norm/nothing");
    let mut binding = ROTATE_BINDINGS.len() as u32;
    if bias {
        bias_slot = "bias/columns";
        header = header.constant_u32("BIAS_BINDING", binding);
        binding += 1;
    }
    if norm {
        norm_slot = "head_norm/rms";
        header = header.constant_u32("NORM_BINDING", binding);
    }
    let halves = match pairing {
        Pairing::Neighbours => "",
        Pairing::Halves => "_halves",
    };
    let bias_name = if bias { "_bias" } else { "" };
    let norm_name = if norm { "_norm" } else { "" };
    Specialization {
        id: format!(
            "rotate_f32_{stored}{bias_name}{norm_name}__{WORKGROUP}_d{head_dim}_r{rotated}{halves}"
        ),
        key: ShaderKey {
            root: "kernel/rotate",
            slots: vec![
                ("store", store),
                ("bias", bias_slot),
                ("head_norm", norm_slot),
            ],
            header,
        },
        workgroup: WORKGROUP,
        workgroup_memory: 0,
        subgroup: false,
    }
}

pub(crate) fn attention_specialization(
    caps: &Caps,
    format: KvFormat,
    head_dim: usize,
    tile: AttentionTile,
    capped: bool,
) -> Specialization {
    let (join, variant) = join_module(caps);
    let (read, _) = format.modules();
    // A tile has up to eight rows, a lane for each.
    let (feed, feed_tokens) = match caps.subgroup {
        // Teams have a lane for each eight channels.
        Some((8.., _)) if head_dim.is_multiple_of(64) => ("feed/subgroup", 8),
        Some((8.., _)) => ("feed/subgroup", 1),
        _ => ("feed/workgroup", 1),
    };
    let header = cache_constants(
        Header::new()
            .constant_u32("WORKGROUP", WORKGROUP)
            .constant_u32("ROWS", tile.rows)
            .constant_u32("HEADS", tile.heads)
            .constant_u32("TOKENS", TOKENS)
            .constant_u32("SPLIT", tile.split)
            .constant_u32("FEED_TOKENS", feed_tokens)
            .constant_bool("SOFT_CAP", capped),
        format,
        head_dim,
    );
    let lanes = tile.rows * tile.heads;
    let cap = if capped { "_capped" } else { "" };
    let (attended, split) = match tile.split {
        0 => ("attended/whole", String::new()),
        split => ("attended/split", format!("_split{split}")),
    };
    Specialization {
        id: format!(
            "attention_f32_{format}_f32{cap}__{}x{}x{}_d{head_dim}{split}{variant}",
            tile.rows,
            tile.heads,
            WORKGROUP * TOKENS
        ),
        key: ShaderKey {
            root: "kernel/attention",
            slots: vec![
                ("kv", read),
                ("join", join),
                ("feed", feed),
                ("attended", attended),
            ],
            header,
        },
        workgroup: WORKGROUP,
        // The tile's queries, the block's weights, and what is joined.
        workgroup_memory: 4 * head_dim as u32 * lanes
            + 16 * WORKGROUP * TOKENS * lanes.div_ceil(4)
            + 16 * WORKGROUP,
        subgroup: caps.subgroup.is_some(),
    }
}

pub(crate) fn merge_specialization(head_dim: usize, split: u32) -> Specialization {
    Specialization {
        id: format!("attention_merge_f32_f32__{WORKGROUP}_d{head_dim}_split{split}"),
        key: ShaderKey {
            root: "kernel/attention_merge",
            slots: Vec::new(),
            header: Header::new()
                .constant_u32("WORKGROUP", WORKGROUP)
                .constant_u32("HEAD_DIM", head_dim as u32)
                .constant_u32("SPLIT", split),
        },
        workgroup: WORKGROUP,
        workgroup_memory: 0,
        subgroup: false,
    }
}

impl Context {
    /// The table of rotary position embedding for positions 0 to `positions` − 1: `frequencies` holds the angle of a pair of
    /// channels at position 1, in radians, base^(−2i/d) most often.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] unless there is an even number of frequencies, all finite; [`Error::BindingTooLarge`];
    /// [`Error::OutOfMemory`].
    pub fn rotary_table(&self, frequencies: &[f64], positions: usize) -> Result<RotaryTable> {
        if frequencies.is_empty() || !frequencies.len().is_multiple_of(2) {
            return Err(Error::Parameter {
                what: "the number of rotary frequencies",
                value: frequencies.len().to_string(),
                expected: "even and at least 2".into(),
            });
        }
        if let Some(frequency) = frequencies.iter().find(|frequency| !frequency.is_finite()) {
            return Err(Error::Parameter {
                what: "a rotary frequency",
                value: frequency.to_string(),
                expected: "finite".into(),
            });
        }
        let high = positions.div_ceil(LOW_POSITIONS).max(1);
        let entries = (LOW_POSITIONS as u64 + high as u64).saturating_mul(frequencies.len() as u64);
        let bytes = entries.saturating_mul(8);
        let limit = self.inner.caps.max_binding;
        if bytes > limit {
            return Err(Error::BindingTooLarge {
                what: "the rotary table",
                bytes,
                limit,
            });
        }
        let places = (0..LOW_POSITIONS).chain((0..high).map(|place| place * LOW_POSITIONS));
        let words: Vec<u32> = places
            .flat_map(|position| {
                frequencies.iter().flat_map(move |frequency| {
                    let angle = (position as f64 * frequency) % TAU;
                    [angle.cos(), angle.sin()].map(|value| (value as f32).to_bits())
                })
            })
            .collect();
        let buffer = self.buffer("a rotary table", bytes, STORAGE)?;
        self.write(&buffer, 0, &words)?;
        Ok(RotaryTable {
            buffer,
            rotated: 2 * frequencies.len(),
            positions,
        })
    }

    /// Prepares `rotate`: from rows of queries, keys and values, of the sequence's next tokens, the rotated queries, and the
    /// rotated keys and the values in the cache.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for matrices that do not hold the heads; [`Error::Parameter`] where the table rotates more than
    /// a head or covers fewer positions than the cache, and for a norm's epsilon;
    /// [`Error::TooLarge`] for more rows than a step of the cache has;
    /// [`Error::FormatMismatch`], [`Error::OutputMismatch`]; [`Error::Aliased`].
    pub fn prepare_rotate(
        &self,
        rotary: &Rotary<'_>,
        input: &OutputMatrix,
        sequence: &Sequence,
        queries: &OutputMatrix,
        cache: &KvCache,
    ) -> Result<Prepared> {
        let head_dim = cache.shape.head_dim;
        let rows = queries.rows;
        check_output(input)?;
        check_output(queries)?;
        cache.check_rows(rows)?;
        rotary.check(input, queries, cache)?;
        let specialization = rotate_specialization(
            cache.format,
            head_dim,
            rotary.table.rotated,
            rotary.pairing,
            [rotary.bias.is_some(), rotary.norm.is_some()],
        );
        let (Some(source), Some(target)) = (input.binding(), queries.binding()) else {
            return Ok(Prepared::new(specialization.id, Vec::new()));
        };
        if input.buffer == queries.buffer {
            return Err(Error::Aliased { what: "the input" });
        }
        let heads = rotary.query_heads + 2 * cache.shape.heads;
        let invocations = rows as u64 * heads as u64 * (head_dim / 4) as u64;
        let [x, y] = fold_grid(
            invocations.div_ceil(u64::from(WORKGROUP)),
            self.inner.caps.max_workgroups,
        )?;
        let params = RotateParams {
            rows: rows as u32,
            grid_x: x,
            input_row: input.row_stride,
            key_column: rotary.columns[0] as u32,
            value_column: rotary.columns[1] as u32,
            query_heads: rotary.query_heads as u32,
            query_row: queries.row_stride,
            epsilon: rotary.norm.map_or(0.0, |norm| norm.epsilon),
            cache: cache.params,
        };
        let mut layout = ROTATE_BINDINGS.to_vec();
        let mut bindings = vec![
            source,
            sequence.buffer.as_entire_buffer_binding(),
            rotary.table.buffer.as_entire_buffer_binding(),
            target,
            cache.binding(),
        ];
        for (_, vector, _) in rotary.vectors(input.columns, head_dim) {
            for chunk in &vector.chunks {
                let [codes, _] = chunk.bindings("a vector of the rotation")?;
                layout.push(Binding::Read);
                bindings.push(codes);
            }
        }
        self.kernel(
            specialization,
            &layout,
            bytemuck::bytes_of(&params),
            &bindings,
            [x, y, 1],
        )
    }

    /// Prepares `attention` of the sequence's next tokens, whose keys and values are in the cache already: queries and output
    /// are M × (query heads · head_dim). Where the cache is long and rows are few, stretches of it are attended to apart and
    /// merged in a fixed order.
    ///
    /// Softmax follows arXiv:2001.04438, with the running exponent of an online softmax: rescaling is by powers of two, exact.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] unless queries and output hold the same whole number of query heads for each head of the
    /// cache; [`Error::Parameter`] for the numbers of [`Attention`]; [`Error::TooLarge`] for more rows than a step of the cache
    /// has; [`Error::OutputMismatch`]; [`Error::Aliased`].
    pub fn prepare_attention(
        &self,
        attention: &Attention,
        queries: &OutputMatrix,
        cache: &KvCache,
        sequence: &Sequence,
        output: &OutputMatrix,
    ) -> Result<Prepared> {
        let (rows, head_dim) = (queries.rows, cache.shape.head_dim);
        check_output(queries)?;
        check_output(output)?;
        cache.check_rows(rows)?;
        let cap = check_cap(attention.cap)?;
        attention.check()?;
        let query_heads = queries.columns / head_dim;
        let group = query_heads / cache.shape.heads;
        if group == 0 || group * cache.shape.heads * head_dim != queries.columns {
            return Err(Error::ShapeMismatch {
                what: "the queries",
                expected: (rows, group.max(1) * cache.shape.heads * head_dim),
                actual: (rows, queries.columns),
            });
        }
        if (output.rows, output.columns) != (rows, queries.columns) {
            return Err(Error::ShapeMismatch {
                what: "the output",
                expected: (rows, queries.columns),
                actual: (output.rows, output.columns),
            });
        }
        let one = if attention.deterministic { 1 } else { rows };
        let tile = AttentionTile::new(one, group, head_dim, cache.shape.capacity);
        let specialization =
            attention_specialization(&self.inner.caps, cache.format, head_dim, tile, cap != 0.0);
        let (Some(source), Some(target)) = (queries.binding(), output.binding()) else {
            return Ok(Prepared::new(specialization.id, Vec::new()));
        };
        if queries.buffer == output.buffer {
            return Err(Error::Aliased {
                what: "the queries",
            });
        }
        let window = attention
            .window
            .map_or(u32::MAX, |window| u32::try_from(window).unwrap_or(u32::MAX));
        let splits = match tile.split {
            0 => 1,
            split => (cache.shape.capacity as u64).div_ceil(u64::from(split)),
        };
        let head_tiles = (query_heads as u32 / tile.heads) as u64;
        // Tiles begin at multiples of their rows, so the first and last may be cut.
        let row_tiles = match tile.rows {
            1 => rows as u64,
            tile_rows => (rows as u64).div_ceil(u64::from(tile_rows)) + 1,
        };
        let [x, y] = fold_grid(
            head_tiles.saturating_mul(row_tiles).saturating_mul(splits),
            self.inner.caps.max_workgroups,
        )?;
        let params = AttentionParams {
            rows: rows as u32,
            grid_x: x,
            head_tiles: head_tiles as u32,
            row_tiles: row_tiles as u32,
            splits: splits as u32,
            query_heads: query_heads as u32,
            group: group as u32,
            query_row: queries.row_stride,
            output_row: output.row_stride,
            window,
            scale: attention.scale,
            cap,
            cache: cache.params,
        };
        let layout = [
            Binding::Uniform,
            Binding::Read,
            Binding::Read,
            Binding::Read,
            Binding::Write,
        ];
        let parts = match tile.split {
            0 => None,
            _ => {
                let part = (head_dim + 4) as u64 * 4;
                let count = (rows as u64 * query_heads as u64).saturating_mul(splits);
                let bytes = part.saturating_mul(count);
                if bytes > self.inner.caps.max_binding {
                    return Err(Error::BindingTooLarge {
                        what: "the parts of attention",
                        bytes,
                        limit: self.inner.caps.max_binding,
                    });
                }
                Some(self.scratch("parts of attention", bytes)?.0)
            }
        };
        let attended = match &parts {
            None => target.clone(),
            Some(parts) => parts.as_entire_buffer_binding(),
        };
        let attend = self.kernel(
            specialization,
            &layout,
            bytemuck::bytes_of(&params),
            &[
                source,
                cache.binding(),
                sequence.buffer.as_entire_buffer_binding(),
                attended,
            ],
            [x, y, 1],
        )?;
        let Some(parts) = parts else {
            return Ok(attend);
        };
        let invocations = rows as u64 * query_heads as u64 * (head_dim / 4) as u64;
        let [x, y] = fold_grid(
            invocations.div_ceil(u64::from(WORKGROUP)),
            self.inner.caps.max_workgroups,
        )?;
        let params = MergeParams {
            rows: rows as u32,
            grid_x: x,
            splits: splits as u32,
            query_heads: query_heads as u32,
            output_row: output.row_stride,
            window,
            padding: [0; 2],
        };
        let merge = self.kernel(
            merge_specialization(head_dim, tile.split),
            &[
                Binding::Uniform,
                Binding::Read,
                Binding::Read,
                Binding::Write,
            ],
            bytemuck::bytes_of(&params),
            &[
                parts.as_entire_buffer_binding(),
                sequence.buffer.as_entire_buffer_binding(),
                target,
            ],
            [x, y, 1],
        )?;
        let id = attend.id().to_owned();
        let mut dispatches = attend.dispatches;
        dispatches.extend(merge.dispatches.into_iter().map(|merge| Dispatch {
            joined: true,
            ..merge
        }));
        Ok(Prepared::new(id, dispatches))
    }
}

impl Attention {
    fn check(&self) -> Result<()> {
        if !self.scale.is_finite() {
            return Err(Error::Parameter {
                what: "the scale of attention",
                value: self.scale.to_string(),
                expected: "finite".into(),
            });
        }
        if self.window == Some(0) {
            return Err(Error::Parameter {
                what: "the window of attention",
                value: "0".into(),
                expected: "at least 1".into(),
            });
        }
        Ok(())
    }
}

impl<'a> Rotary<'a> {
    /// The vectors in the order of their bindings: what they are, and their columns.
    fn vectors(
        &self,
        input_columns: usize,
        head_dim: usize,
    ) -> impl Iterator<Item = (&'static str, &'a DeviceMatrix, usize)> + use<'a> {
        let bias = self.bias.map(|bias| ("the bias", bias, input_columns));
        let norm = self.norm.map(|norm| {
            [
                ("the norm's weights of the queries", norm.query, head_dim),
                ("the norm's weights of the keys", norm.key, head_dim),
            ]
        });
        bias.into_iter().chain(norm.into_iter().flatten())
    }

    fn check(&self, input: &OutputMatrix, queries: &OutputMatrix, cache: &KvCache) -> Result<()> {
        let (head_dim, rows) = (cache.shape.head_dim, queries.rows);
        let query_columns = self.query_heads.saturating_mul(head_dim);
        if queries.columns != query_columns || self.query_heads == 0 {
            return Err(Error::ShapeMismatch {
                what: "the queries",
                expected: (rows, query_columns.max(head_dim)),
                actual: (rows, queries.columns),
            });
        }
        let columns = cache.shape.heads * head_dim;
        let [keys, values] = self.columns;
        let needed = query_columns
            .max(keys.saturating_add(columns))
            .max(values.saturating_add(columns));
        if input.rows != rows || input.columns < needed {
            return Err(Error::ShapeMismatch {
                what: "the queries, keys and values",
                expected: (rows, needed),
                actual: (input.rows, input.columns),
            });
        }
        let rotated = self.table.rotated;
        if rotated > head_dim || !rotated.is_multiple_of(4) {
            return Err(Error::Parameter {
                what: "the number of rotated channels",
                value: rotated.to_string(),
                expected: format!("a multiple of 4, up to the head's {head_dim}"),
            });
        }
        if self.table.positions < cache.shape.capacity {
            return Err(Error::Parameter {
                what: "the positions of the rotary table",
                value: self.table.positions.to_string(),
                expected: format!("at least the cache's {}", cache.shape.capacity),
            });
        }
        if let Some(norm) = self.norm {
            check_epsilon(norm.epsilon)?;
        }
        for (what, vector, columns) in self.vectors(input.columns, head_dim) {
            check_f32(what, vector)?;
            if (vector.rows, vector.columns) != (1, columns) {
                return Err(Error::ShapeMismatch {
                    what,
                    expected: (1, columns),
                    actual: (vector.rows, vector.columns),
                });
            }
            let written = [queries.buffer.as_ref(), Some(&cache.buffer)];
            if written
                .into_iter()
                .flatten()
                .any(|buffer| vector.is_in(buffer))
            {
                return Err(Error::Aliased { what });
            }
        }
        Ok(())
    }
}
