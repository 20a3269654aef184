//! Prepared work as a browser's WebGPU takes it: shaders, words, bindings, grids.
//!
//! A message is the length of its JSON as a little-endian u32, the JSON, and the bytes that the JSON counts.

use std::collections::HashMap;

use anybit::{BoundResource, Context, Prepared, Specialization, wgpu};
use serde::{Deserialize, Serialize};

use crate::shader::{Bound, Shader};

/// What scratch holds before: the bits of a NaN as f32, which nobody may read.
const SCRATCH: [u8; 4] = 0x7fc0_beef_u32.to_le_bytes();

/// Words of textures, which wgpu's noop backend does not keep: by binding, of the first dispatch.
pub type Texels = Vec<(usize, Vec<u32>)>;

/// A piece of work for a browser.
#[derive(Debug)]
pub struct Job {
    description: Description,
    bytes: Vec<u8>,
    /// Where what the browser has written goes, in the order in which it comes.
    written: Vec<wgpu::Buffer>,
}

#[derive(Debug, Default, Serialize)]
struct Description {
    number: u32,
    /// Features that the device needs beyond the floor, by WebGPU's names.
    features: Vec<&'static str>,
    buffers: Vec<BufferOf>,
    textures: Vec<TextureOf>,
    shaders: Vec<ShaderOf>,
    /// None if the compiler is only to judge the shaders.
    dispatches: Vec<DispatchOf>,
}

/// A buffer with its bytes.
#[derive(Debug, Serialize)]
struct BufferOf {
    at: usize,
    size: usize,
    /// Whether its bytes are wanted in the end.
    read: bool,
}

/// A texture with its texels of four words, row by row.
#[derive(Debug, Serialize)]
struct TextureOf {
    at: usize,
    width: u32,
    height: u32,
}

#[derive(Debug, Serialize)]
struct ShaderOf {
    label: String,
    wgsl: String,
    /// What the pipeline's layout says of each binding.
    bindings: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct DispatchOf {
    shader: usize,
    bindings: Vec<BindingOf>,
    workgroups: [u32; 3],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum BindingOf {
    Buffer {
        index: usize,
        offset: u64,
        size: u64,
    },
    Texture {
        index: usize,
    },
}

/// What a browser says of a piece of work.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// Which one it is.
    pub number: u32,
    /// How it went.
    pub status: AnswerStatus,
    /// Why it went wrong.
    #[serde(default)]
    pub reason: String,
    /// What the compiler warns of.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What was written.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

/// How a piece of work went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerStatus {
    /// It ran.
    Ran,
    /// The compiler, or the validation of pipelines, refused a shader.
    Refused,
    /// Anything else went wrong.
    Failed,
}

impl Job {
    /// Work on the noop backend, with all that its bindings hold now.
    ///
    /// # Errors
    ///
    /// What naga says of a shader; work without dispatches; a texture without texels.
    pub fn new(context: &Context, works: &[&Prepared], texels: &Texels) -> Result<Self, String> {
        let mut job = Self::empty();
        let (mut shaders, mut buffers) = (HashMap::new(), Vec::new());
        let recorded = works.iter().flat_map(|work| work.recorded());
        for (turn, recorded) in recorded.enumerate() {
            let id = &recorded.specialization.id;
            let (shader, layout) = match shaders.get(id) {
                Some(known) => known,
                None => {
                    let added = job.shader(recorded.specialization)?;
                    &*shaders.entry(id.clone()).or_insert(added)
                }
            };
            if layout.len() != recorded.bindings.len() {
                return Err(format!("{id} has {} bindings", layout.len()));
            }
            let mut bindings = Vec::new();
            for (number, (resource, bound)) in recorded.bindings.iter().zip(layout).enumerate() {
                bindings.push(match resource {
                    BoundResource::Buffer {
                        buffer,
                        offset,
                        size,
                    } => {
                        let index = buffers.iter().position(|known| known == buffer);
                        let index = index.unwrap_or_else(|| {
                            buffers.push(buffer.clone());
                            job.buffer(context, buffer);
                            buffers.len() - 1
                        });
                        job.description.buffers[index].read |= *bound == Bound::Write
                            && buffer.usage().contains(wgpu::BufferUsages::COPY_DST);
                        BindingOf::Buffer {
                            index,
                            offset: *offset,
                            size: *size,
                        }
                    }
                    BoundResource::Texture(texture) => {
                        let words = texels.iter().find(|(at, _)| *at == number && turn == 0);
                        let (_, words) =
                            words.ok_or_else(|| format!("{id}: no texels for binding {number}"))?;
                        BindingOf::Texture {
                            index: job.texture(texture, words)?,
                        }
                    }
                    _ => return Err(format!("{id}: binding {number} is nothing known")),
                });
            }
            job.description.dispatches.push(DispatchOf {
                shader: *shader,
                bindings,
                workgroups: recorded.workgroups,
            });
        }
        if job.description.dispatches.is_empty() {
            return Err("there is nothing to run".to_owned());
        }
        let wanted = job.description.buffers.iter().zip(buffers);
        job.written = wanted
            .filter(|(buffer, _)| buffer.read)
            .map(|(_, buffer)| buffer)
            .collect();
        Ok(job)
    }

    /// A shader for the compiler to judge, and no more.
    ///
    /// # Errors
    ///
    /// What the linker says.
    pub fn judge(specialization: &Specialization) -> Result<Self, String> {
        let mut job = Self::empty();
        let linked = specialization.link().map_err(|error| error.to_string())?;
        job.add(specialization, linked.wgsl, Vec::new());
        Ok(job)
    }

    fn empty() -> Self {
        Self {
            description: Description::default(),
            bytes: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Adds a shader: its number, and its bindings.
    fn shader(&mut self, specialization: &Specialization) -> Result<(usize, Vec<Bound>), String> {
        let id = &specialization.id;
        let linked = specialization.link().map_err(|error| error.to_string())?;
        let shader = Shader::new(&linked.wgsl, specialization.features())
            .map_err(|error| format!("{id}: {error}"))?;
        let layout = shader
            .bindings()
            .map_err(|error| format!("{id}: {error}"))?;
        let bindings = layout.iter().map(|bound| match bound {
            Bound::Uniform(_) => "uniform",
            Bound::Read => "read-only-storage",
            Bound::Write => "storage",
            Bound::Texture => "texture",
            Bound::WriteTexture => "write-texture",
        });
        self.add(specialization, linked.wgsl, bindings.collect());
        Ok((self.description.shaders.len() - 1, layout))
    }

    fn add(
        &mut self,
        specialization: &Specialization,
        mut wgsl: String,
        bindings: Vec<&'static str>,
    ) {
        if specialization.subgroup {
            // WGSL wants it, and naga, which has subgroups without it, refuses it.
            wgsl.insert_str(0, "enable subgroups;\n");
            if self.description.features.is_empty() {
                self.description.features.push("subgroups");
            }
        }
        self.description.shaders.push(ShaderOf {
            label: specialization.id.clone(),
            wgsl,
            bindings,
        });
    }

    fn buffer(&mut self, context: &Context, buffer: &wgpu::Buffer) {
        let size = buffer.size() as usize;
        let at = self.bytes.len();
        if buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            self.bytes.extend(contents(context, buffer));
        } else {
            self.bytes.extend(SCRATCH.iter().cycle().take(size));
        }
        let read = false;
        self.description.buffers.push(BufferOf { at, size, read });
    }

    fn texture(&mut self, texture: &wgpu::Texture, words: &[u32]) -> Result<usize, String> {
        let (width, height) = (texture.width(), texture.height());
        let room = 4 * width as usize * height as usize;
        if words.len() > room {
            return Err(format!(
                "{} words do not fit a texture of {width} x {height} texels",
                words.len()
            ));
        }
        let at = self.bytes.len();
        let padding = std::iter::repeat_n(0, room - words.len());
        let words = words.iter().copied().chain(padding);
        self.bytes.extend(words.flat_map(u32::to_le_bytes));
        let textures = &mut self.description.textures;
        textures.push(TextureOf { at, width, height });
        Ok(textures.len() - 1)
    }

    /// The same with every `from` of a shader's text replaced: a shader that is wrong on purpose.
    ///
    /// # Panics
    ///
    /// If no text has it.
    #[must_use]
    pub fn mutated(mut self, from: &str, to: &str) -> Self {
        let mut found = false;
        for shader in &mut self.description.shaders {
            found |= shader.wgsl.contains(from);
            shader.wgsl = shader.wgsl.replace(from, to);
        }
        assert!(
            found,
            "no shader has `{from}`: the mutation needs another place"
        );
        self
    }

    /// The message to the browser.
    ///
    /// # Panics
    ///
    /// Never: numbers and texts are JSON.
    pub fn message(&mut self, number: u32) -> Vec<u8> {
        self.description.number = number;
        let json = serde_json::to_vec(&self.description).expect("numbers and texts");
        let mut message = (json.len() as u32).to_le_bytes().to_vec();
        message.extend(json);
        message.extend(&self.bytes);
        message
    }

    /// Puts what the browser has written into the buffers on the noop backend, as if that had run the work.
    ///
    /// # Errors
    ///
    /// If there are not as many bytes as were asked for.
    pub fn write_back(&self, context: &Context, answer: &Answer) -> Result<(), String> {
        let expected: u64 = self.written.iter().map(wgpu::Buffer::size).sum();
        if answer.bytes.len() as u64 != expected {
            return Err(format!(
                "the browser sent {} bytes in place of {expected}",
                answer.bytes.len()
            ));
        }
        let mut rest = &answer.bytes[..];
        for buffer in &self.written {
            let (bytes, others) = rest.split_at(buffer.size() as usize);
            context.queue().write_buffer(buffer, 0, bytes);
            rest = others;
        }
        Ok(())
    }
}

impl Answer {
    /// Reads a message of the browser.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(message: &[u8]) -> Result<Self, String> {
        let cut = "the browser's message is cut off";
        let (length, rest) = message.split_first_chunk().ok_or(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (json, bytes) = rest.split_at_checked(length).ok_or(cut)?;
        let mut answer: Self = serde_json::from_slice(json)
            .map_err(|error| format!("the browser's message is not understood: {error}"))?;
        answer.bytes = bytes.to_vec();
        Ok(answer)
    }
}

/// All bytes of a buffer on the noop backend.
fn contents(context: &Context, buffer: &wgpu::Buffer) -> Vec<u8> {
    let device = context.device();
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: buffer.size(),
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
    context.queue().submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |result| {
        result.expect("the noop backend maps every buffer");
    });
    device
        .poll(wgpu::PollType::wait_indefinitely())
        .expect("the noop backend is done at once");
    let mapped = staging.get_mapped_range(..).expect("it is mapped");
    mapped.to_vec()
}
