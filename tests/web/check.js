// Runs pieces of work that the server hands out, and sends back what they write. The server compares.
//
// A message, either way, is the length of its JSON as a little-endian u32, the JSON, and bytes that the JSON counts.
// tests/src/web/job.rs is the other end.

"use strict";

class Refused extends Error {}

// Devices are made with default limits, one for each set of features.
async function deviceWith(devices, features) {
  const key = features.join();
  if (!devices.has(key)) {
    // An adapter makes one device.
    const adapter = await navigator.gpu.requestAdapter();
    const device = await adapter.requestDevice({ requiredFeatures: features });
    devices.set(key, device);
    device.lost.then(() => devices.delete(key));
  }
  return devices.get(key);
}

// Calls WebGPU, and throws what it complains of.
async function checked(device, call) {
  const filters = ["validation", "out-of-memory", "internal"];
  filters.forEach((filter) => device.pushErrorScope(filter));
  const [outcome] = await Promise.allSettled([call()]);
  const complaints = [];
  for (const _ of filters) {
    const error = await device.popErrorScope();
    complaints.push(...(error ? [error.message] : []));
  }
  // What was thrown says more than the scopes do.
  if (outcome.status === "rejected") {
    throw outcome.reason;
  }
  if (complaints.length > 0) {
    throw new Error(complaints.join("; "));
  }
  return outcome.value;
}

function layoutEntry(kind, binding) {
  const visibility = GPUShaderStage.COMPUTE;
  if (kind === "texture" || kind === "write-texture") {
    const access = kind === "texture" ? "read-only" : "write-only";
    return { binding, visibility, storageTexture: { access, format: "rgba32uint" } };
  }
  return { binding, visibility, buffer: { type: kind } };
}

async function moduleOf(device, shader, warnings) {
  const module = device.createShaderModule({ label: shader.label, code: shader.wgsl });
  const info = await module.getCompilationInfo();
  const errors = [];
  for (const { type, lineNum, linePos, message } of info.messages) {
    const line = shader.wgsl.split("\n")[lineNum - 1]?.trim() ?? "";
    const text = `${type} in line ${lineNum}:${linePos}: ${message} [${line}]`;
    (type === "error" ? errors : warnings).push(text);
  }
  if (errors.length > 0) {
    throw new Refused(errors.join("; "));
  }
  return module;
}

async function pipelineOf(device, shader, warnings) {
  const module = await moduleOf(device, shader, warnings);
  const layout = device.createBindGroupLayout({ entries: shader.bindings.map(layoutEntry) });
  const pipelineLayout = device.createPipelineLayout({ bindGroupLayouts: [layout] });
  try {
    const pipeline = await device.createComputePipelineAsync({
      label: shader.label,
      layout: pipelineLayout,
      compute: { module, entryPoint: "main" },
    });
    return { pipeline, layout };
  } catch (error) {
    throw new Refused(error.message);
  }
}

function bufferOf(device, { at, size }, bytes) {
  const usage =
    GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffer = device.createBuffer({ size, usage });
  device.queue.writeBuffer(buffer, 0, bytes, at, size);
  return buffer;
}

function textureOf(device, { at, width, height }, bytes) {
  const usage = GPUTextureUsage.STORAGE_BINDING | GPUTextureUsage.COPY_DST;
  const texture = device.createTexture({ size: [width, height], format: "rgba32uint", usage });
  device.queue.writeTexture({ texture }, bytes, { offset: at, bytesPerRow: 16 * width }, [width, height]);
  return texture;
}

function dispatch(encoder, device, job, pipelines, buffers, textures) {
  const pass = encoder.beginComputePass();
  for (const { shader, bindings, workgroups } of job.dispatches) {
    const entries = bindings.map(({ buffer, texture }, binding) => ({
      binding,
      resource: texture
        ? textures[texture.index].createView()
        : { buffer: buffers[buffer.index], offset: buffer.offset, size: buffer.size },
    }));
    pass.setPipeline(pipelines[shader].pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: pipelines[shader].layout, entries }));
    pass.dispatchWorkgroups(...workgroups);
  }
  pass.end();
}

// Bytes of all buffers that are wanted, one after the other.
async function run(devices, job, bytes, warnings) {
  const device = await deviceWith(devices, job.features);
  const lost = device.lost.then(({ message }) => {
    throw new Error(`the device was lost: ${message}`);
  });
  const work = async () => {
    // Compilers judge a module, drivers a pipeline, which takes a software one seconds.
    const make = job.dispatches.length === 0 ? moduleOf : pipelineOf;
    const pipelines = [];
    for (const shader of job.shaders) {
      pipelines.push(await checked(device, () => make(device, shader, warnings)));
    }
    if (job.dispatches.length === 0) {
      return [];
    }
    const made = [];
    const staging = await checked(device, async () => {
      const buffers = job.buffers.map((buffer) => bufferOf(device, buffer, bytes));
      const textures = job.textures.map((texture) => textureOf(device, texture, bytes));
      made.push(...buffers, ...textures);
      const encoder = device.createCommandEncoder();
      dispatch(encoder, device, job, pipelines, buffers, textures);
      const copies = [];
      job.buffers.forEach(({ read, size }, index) => {
        if (read) {
          const copy = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
          encoder.copyBufferToBuffer(buffers[index], 0, copy, 0, size);
          copies.push(copy);
        }
      });
      device.queue.submit([encoder.finish()]);
      return copies;
    });
    made.push(...staging);
    const written = [];
    for (const copy of staging) {
      await copy.mapAsync(GPUMapMode.READ);
      written.push(copy.getMappedRange().slice(0));
    }
    made.forEach((resource) => resource.destroy());
    return written;
  };
  return Promise.race([work(), lost]);
}

function parse(message) {
  const length = new DataView(message).getUint32(0, true);
  const json = new TextDecoder().decode(new Uint8Array(message, 4, length));
  return { job: JSON.parse(json), bytes: new Uint8Array(message, 4 + length) };
}

function messageOf(answer, written) {
  const json = new TextEncoder().encode(JSON.stringify(answer));
  const length = new DataView(new ArrayBuffer(4));
  length.setUint32(0, json.length, true);
  return new Blob([length, json, ...written]);
}

async function post(path, body) {
  const response = await fetch(path, { method: "POST", body });
  if (!response.ok) {
    throw new Error(`${path}: ${response.status}`);
  }
  return response;
}

// How many pieces of work to run at once; none without an adapter.
async function greet() {
  const hello = { browser: navigator.userAgent };
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    if (adapter) {
      const { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize } = adapter.info;
      hello.adapter = [vendor, architecture, device, description].filter((part) => part).join(" ");
      hello.subgroups = adapter.features.has("subgroups") ? [subgroupMinSize, subgroupMaxSize] : null;
    } else {
      hello.reason = navigator.gpu ? "there is no adapter" : "there is no WebGPU";
    }
  } catch (error) {
    hello.reason = String(error);
  }
  const response = await post("hello", JSON.stringify(hello));
  const { lanes } = await response.json();
  return hello.reason ? 0 : lanes;
}

// Runs one piece of work after the other. Error scopes are a device's, so each lane has devices of its own.
async function lane() {
  const devices = new Map();
  for (;;) {
    const response = await post("next", "");
    const { job, bytes } = parse(await response.arrayBuffer());
    const warnings = [];
    let answer = { number: job.number, status: "ran", warnings };
    let written = [];
    try {
      written = await run(devices, job, bytes, warnings);
    } catch (error) {
      const status = error instanceof Refused ? "refused" : "failed";
      answer = { number: job.number, status, reason: error.message, warnings };
    }
    await post("answer", messageOf(answer, written));
  }
}

const lanes = await greet();
for (let number = 0; number < lanes; number++) {
  lane();
}
