//! What the tests of the kernels of language models share: outputs with values in them, and words of buffers.

use anybit::{Context, DeviceMatrix, OutputFormat, OutputMatrix, Prepared, wgpu};
use anybit_reference::bound::Bounded;

use crate::compare::{self, Wrong};
use crate::random::Random;
use crate::rig::buffer_of;

/// In words that no kernel may use or write: a NaN as f32.
pub const CANARY: u32 = 0x7fc0_beef;

/// What a test of several steps ends with.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// An output of the caller that holds these values, `columns` a row, with canaries after each row.
///
/// # Errors
///
/// Those of [`OutputMatrix::from_buffer`].
pub fn filled(
    context: &Context,
    values: &[f32],
    (rows, columns): (usize, usize),
    extra: usize,
) -> Result<OutputMatrix, anybit::Error> {
    let stride = columns.next_multiple_of(4) + 4 * extra;
    let mut words = vec![CANARY; rows * stride];
    for (row, values) in values.chunks(columns.max(1)).enumerate() {
        for (word, value) in words[row * stride..].iter_mut().zip(values) {
            *word = value.to_bits();
        }
    }
    let buffer = buffer_of(context, words.into_iter());
    OutputMatrix::from_buffer(&buffer, 0, OutputFormat::F32, (rows, columns), stride)
}

/// The same as an input of row kernels.
///
/// # Errors
///
/// Those of [`OutputMatrix::from_buffer`].
///
/// # Panics
///
/// Never: f32 values can be activations.
pub fn input(
    context: &Context,
    values: &[f32],
    shape: (usize, usize),
    extra: usize,
) -> Result<DeviceMatrix, anybit::Error> {
    let output = filled(context, values, shape, extra)?;
    Ok(output.as_activation().expect("f32 can be activations"))
}

/// Records work in order and submits it.
pub fn submit(context: &Context, works: &[&Prepared]) {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    for work in works {
        work.encode_pass(&mut encoder);
    }
    context.queue().submit([encoder.finish()]);
}

/// The values of an f32 output, as they are by now.
///
/// # Errors
///
/// Those of [`Context::encode_read`].
pub fn read(context: &Context, output: &OutputMatrix) -> Outcome<Vec<f32>> {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let pending = context.encode_read(&mut encoder, output)?;
    context.queue().submit([encoder.finish()]);
    Ok(pending
        .read_blocking()?
        .into_f32()
        .ok_or("the output holds f32")?)
}

/// The words of a buffer, of which there is a multiple of four.
///
/// # Errors
///
/// Those of [`Context::encode_read`].
pub fn words(context: &Context, buffer: &wgpu::Buffer) -> Outcome<Vec<u32>> {
    let count = (buffer.size() / 4) as usize;
    let view = OutputMatrix::from_buffer(buffer, 0, OutputFormat::I32, (1, count), count)?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let pending = context.encode_read(&mut encoder, &view)?;
    context.queue().submit([encoder.finish()]);
    let words = pending
        .read_blocking()?
        .into_i32()
        .ok_or("the words are read as integers")?;
    Ok(words.into_iter().map(i32::cast_unsigned).collect())
}

/// Writes all words of a buffer.
pub fn write_words(context: &Context, buffer: &wgpu::Buffer, words: &[u32]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    context.queue().write_buffer(buffer, 0, &bytes);
}

/// Values that must lie within their bounds.
pub fn bounded(found: &[f32], expected: &[Bounded]) -> Option<Wrong> {
    let values: Vec<f64> = expected.iter().map(|bounded| bounded.value).collect();
    let bounds: Vec<f64> = expected.iter().map(|bounded| bounded.bound).collect();
    compare::bounded(found, &values, &bounds)
}

/// Values in [−size, size).
pub fn values(count: usize, size: f32, random: &mut Random) -> Vec<f32> {
    (0..count).map(|_| size * random.signed()).collect()
}
