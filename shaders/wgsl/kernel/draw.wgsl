// Draws the next token from logits and appends it to the sequence, whose tokens are then done: the largest, or by softmax at a
// temperature from the `top_k` likeliest and of them the fewest that hold `top_p` of the probability. One workgroup.
//
// Probabilities are integers, in units of 2^-31 of the largest; their sums have 64 bits, so that they do not depend on order.
//#import core/cap
//#import core/key
//#import core/round
//#import core/sequence

struct DrawParams {
    columns: u32,
    // Stretches whose largest logits are known.
    parts: u32,
    // Tokens of the step that are done with it.
    rows: u32,
    // 0: all.
    top_k: u32,
    // As a fraction of 2^32; 2^32 - 1: all.
    top_p: u32,
    seed: u32,
    // 0: the largest.
    temperature: f32,
    // 0: none.
    cap: f32,
}

@group(0) @binding(0) var<uniform> params: DrawParams;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> parts: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> sequence: array<u32>;

const BINS: u32 = 256u;

var<workgroup> cells: array<vec2<u32>, WORKGROUP>;
var<workgroup> bins_low: array<atomic<u32>, BINS>;
var<workgroup> bins_high: array<atomic<u32>, BINS>;
// What one invocation found for all.
var<workgroup> found: vec4<u32>;

// Integers of 64 bits: low and high words.
fn wide_add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn wide_subtract(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn wide_less(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let middle_a = (a >> 16u) * (b & 0xffffu);
    let middle_b = (a & 0xffffu) * (b >> 16u);
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (low >> 16u) + (middle_a & 0xffffu) + (middle_b & 0xffffu);
    return vec2<u32>(
        (low & 0xffffu) | (middle << 16u),
        (a >> 16u) * (b >> 16u) + (middle_a >> 16u) + (middle_b >> 16u) + (middle >> 16u),
    );
}

// A fraction of 2^32 of an integer, rounded down.
fn wide_part(whole: vec2<u32>, fraction: u32) -> vec2<u32> {
    return wide_add(wide_product(whole.y, fraction), vec2<u32>(wide_product(whole.x, fraction).y, 0u));
}

fn capped(logit: f32) -> f32 {
    if (params.cap == 0.0) {
        return logit;
    }
    return cap_soft(vec4<f32>(logit), params.cap).x;
}

// The probability of a logit in units of 2^-31 of that of the largest.
fn mass(logit: f32, largest: f32) -> u32 {
    let x = min((capped(logit) - largest) / params.temperature, 0.0);
    return u32(exp(max(x, -80.0)) * 2147483648.0);
}

// The largest key so that the logits of this key and above, none below `least`, hold `need`: in number, or in mass.
fn threshold(local: u32, need: vec2<u32>, by_mass: bool, least: u32, largest: f32) -> u32 {
    var prefix = 0u;
    var left = need;
    for (var digit = 0u; digit < 4u; digit++) {
        let shift = 24u - 8u * digit;
        for (var bin = local; bin < BINS; bin += WORKGROUP) {
            atomicStore(&bins_low[bin], 0u);
            atomicStore(&bins_high[bin], 0u);
        }
        workgroupBarrier();
        for (var i = local; i < params.columns; i += WORKGROUP) {
            let logit = logits[i];
            let key = key_of(logit);
            // Of the first digit, all keys have the prefix; shifts count modulo 32.
            let is_of_prefix = digit == 0u || ((key ^ prefix) >> ((shift + 8u) & 31u)) == 0u;
            if (key >= least && is_of_prefix) {
                var count = 1u;
                if (by_mass) {
                    count = mass(logit, largest);
                }
                let bin = (key >> shift) & 0xffu;
                let old = atomicAdd(&bins_low[bin], count);
                if (old + count < old) {
                    atomicAdd(&bins_high[bin], 1u);
                }
            }
        }
        workgroupBarrier();
        if (local == 0u) {
            var above = vec2<u32>(0u);
            var bin = BINS - 1u;
            loop {
                let held = wide_add(above, vec2<u32>(atomicLoad(&bins_low[bin]), atomicLoad(&bins_high[bin])));
                if (!wide_less(held, left) || bin == 0u) {
                    break;
                }
                above = held;
                bin -= 1u;
            }
            let rest = wide_subtract(left, above);
            found = vec4<u32>(bin, rest.x, rest.y, 0u);
        }
        workgroupBarrier();
        prefix |= found.x << shift;
        left = found.yz;
        workgroupBarrier();
    }
    return max(prefix, least);
}

// The mass of this invocation's logits of a key of at least `least`.
fn own_mass(local: u32, least: u32, largest: f32) -> vec2<u32> {
    var sum = vec2<u32>(0u);
    for (var i = local; i < params.columns; i += WORKGROUP) {
        let logit = logits[i];
        if (key_of(logit) >= least) {
            sum = wide_add(sum, vec2<u32>(mass(logit, largest), 0u));
        }
    }
    return sum;
}

// The sum over the workgroup; each invocation's own part stays in `cells`.
fn total_mass(local: u32, least: u32, largest: f32) -> vec2<u32> {
    workgroupBarrier();
    cells[local] = own_mass(local, least, largest);
    workgroupBarrier();
    if (local == 0u) {
        var sum = vec2<u32>(0u);
        for (var i = 0u; i < WORKGROUP; i++) {
            sum = wide_add(sum, cells[i]);
        }
        found = vec4<u32>(sum, 0u, 0u);
    }
    workgroupBarrier();
    let total = found.xy;
    workgroupBarrier();
    return total;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) local: u32) {
    var best = vec2<u32>(0u, 0xffffffffu);
    for (var i = local; i < params.parts; i += WORKGROUP) {
        best = key_larger(best, parts[i]);
    }
    //#unroll
    for (var e = 0u; e < WORKGROUP_LOG2; e++) {
        workgroupBarrier();
        cells[local] = best;
        workgroupBarrier();
        best = key_larger(best, cells[local ^ (1u << e)]);
    }
    var token = best.y;

    if (params.temperature > 0.0) {
        let largest = capped(logits[best.y]);
        var least = 0u;
        if (params.top_k > 0u && params.top_k < params.columns) {
            least = threshold(local, vec2<u32>(params.top_k, 0u), false, least, largest);
        }
        if (params.top_p != 0xffffffffu) {
            // At least one unit, so that the likeliest is always kept.
            let need = wide_add(wide_part(total_mass(local, least, largest), params.top_p), vec2<u32>(1u, 0u));
            least = threshold(local, need, true, least, largest);
        }
        let total = total_mass(local, least, largest);
        if (local == 0u) {
            let place = vec4<u32>(sequence[SEQUENCE_DONE] + params.rows);
            let drawn = wide_part(total, round_random(params.seed, place, vec4<u32>(0u)).x);
            // Invocation by invocation, and of each its own logits in order.
            var before = vec2<u32>(0u);
            var owner = 0u;
            loop {
                let held = wide_add(before, cells[owner]);
                if (wide_less(drawn, held) || owner == WORKGROUP - 1u) {
                    break;
                }
                before = held;
                owner += 1u;
            }
            for (var i = owner; i < params.columns; i += WORKGROUP) {
                let logit = logits[i];
                if (key_of(logit) >= least) {
                    before = wide_add(before, vec2<u32>(mass(logit, largest), 0u));
                    if (wide_less(drawn, before)) {
                        token = i;
                        break;
                    }
                }
            }
        }
    }

    if (local == 0u) {
        let done = sequence[SEQUENCE_DONE] + params.rows;
        sequence[SEQUENCE_IDS + done] = token;
        sequence[SEQUENCE_DRAWN] = token;
        sequence[SEQUENCE_DONE] = done;
    }
}
