// A register loop: how fast one step of arithmetic can be, without any load.
//
// Every step takes another x, and over the unrolled steps each accumulator meets different words w, so that no compiler
// can fold x·w + x'·w into (x + x')·w.
//#import slot:step

struct Probe {
    iterations: u32,
    seed: u32,
}

@group(0) @binding(0) var<uniform> probe: Probe;
@group(0) @binding(1) var<storage, read_write> output: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var acc: array<step_acc_t, ACCUMULATORS>;
    var w: array<step_word_t, ACCUMULATORS>;
    //#unroll
    for (var i = 0u; i < ACCUMULATORS; i++) {
        w[i] = step_word((id.x + probe.seed) * 2654435761u + i * 2246822519u);
    }
    var x = step_word(id.x * 3266489917u + probe.seed);
    for (var n = 0u; n < probe.iterations; n++) {
        //#unroll
        for (var u = 0u; u < UNROLL; u++) {
            x = step_next(x);
            //#unroll
            for (var i = 0u; i < ACCUMULATORS; i++) {
                acc[i] = step_add(acc[i], x, w[(i + u) % ACCUMULATORS]);
            }
        }
    }
    var bits = 0u;
    //#unroll
    for (var i = 0u; i < ACCUMULATORS; i++) {
        bits ^= step_bits(acc[i]);
    }
    output[id.x] = bits;
}
