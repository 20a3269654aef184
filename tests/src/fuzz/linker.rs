//! The linker of WGSL modules.
//!
//! An input is text in sections, each after a line that begins with `===`: `module NAME` and its text, `root NAME`,
//! `slot NAME MODULE`, `u32 NAME VALUE`, `i32 …`, `f32 …`, `bool …`, `alias NAME TYPE`, and `embedded` for the library's own
//! modules.

use anybit_shaders::{Header, LinkRequest, Linked, Modules};

use super::{Target, Verdict, all_text, only_text};

pub(super) const TARGET: Target = Target {
    name: "linker",
    run,
    seeds,
    text: all_text,
    with_text: only_text,
    longest: super::LONGEST,
    words: &[
        "\n=== module a\n",
        "\n=== root a\n",
        "\n=== slot s a\n",
        "\n=== u32 N 4\n",
        "\n=== embedded\n",
        "\n//#import a\n",
        "\n//#import slot:s as w_\n",
        "\n//#needs x N\n",
        "\n//#unroll\nfor (var i = 0u; i < N; i++) { ",
        "\nenable f16;",
        "/*",
        "*/",
        "//",
        "let x = i;",
        "const C: u32 = 2u * N;",
        "@builtin(position)",
        "<<=",
        "i += 2u",
        "u32(",
        "fn f() {",
        "}",
    ],
};

/// What an input asks for.
#[derive(Default)]
struct Request<'a> {
    modules: Modules<'a>,
    root: Option<&'a str>,
    slots: Vec<(&'a str, &'a str)>,
    header: Header,
}

fn read(text: &str) -> Request<'_> {
    let mut request = Request::default();
    // What stands before the first section has no name.
    let sections = text
        .split("\n===")
        .map(|section| section.trim_start_matches("==="));
    for section in sections {
        let (line, rest) = section.split_once('\n').unwrap_or((section, ""));
        let mut words = line.split_whitespace();
        let (keyword, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let value = words.next().unwrap_or("");
        let header = std::mem::take(&mut request.header);
        request.header = match keyword {
            "u32" => header.constant_u32(name, value.parse().unwrap_or(1)),
            "i32" => header.constant_i32(name, value.parse().unwrap_or(-1)),
            "f32" => header.constant_f32(name, value.parse().unwrap_or(0.5)),
            "bool" => header.constant_bool(name, value == "true"),
            "alias" => header.alias(name, value),
            _ => header,
        };
        match keyword {
            "module" => {
                request.root = request.root.or(Some(name));
                request.modules = std::mem::take(&mut request.modules).with(name, rest);
            }
            "root" => request.root = Some(name),
            "slot" => request.slots.push((name, value)),
            "embedded" => request.modules = Modules::embedded(),
            _ => {}
        }
    }
    request
}

fn run(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let request = read(&text);
    let result = request.modules.link(&LinkRequest {
        root: request.root.unwrap_or("root"),
        slots: &request.slots,
        header: &request.header,
    });
    match result {
        Ok(linked) => {
            check(&linked);
            Verdict::Accepted
        }
        Err(error) => {
            // It quotes the modules as they are: who links them wrote them.
            assert!(!error.to_string().is_empty());
            Verdict::Refused
        }
    }
}

/// Every line has its place in the map, and the text can be linked again.
fn check(linked: &Linked) {
    let lines = linked.wgsl.split_terminator('\n').count();
    assert_eq!(lines, linked.line_map.len(), "{}", linked.wgsl);
    for line in 0..=lines + 1 {
        let line = line as u32;
        if let Some(location) = linked.line_map.locate(line) {
            assert!(location.line > 0, "line {line} comes from {location}");
        }
    }
    // What loops make of a short text may be long.
    if linked.wgsl.len() > 1 << 16 {
        return;
    }
    let modules = Modules::new().with("linked", linked.wgsl.as_str());
    let request = LinkRequest {
        root: "linked",
        slots: &[],
        header: &Header::new(),
    };
    if let Err(error) = modules.link_within(&request, usize::MAX) {
        panic!("what was linked cannot be linked: {error}\n{}", linked.wgsl);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    [SLOTS, UNROLLED, CONSTANTS, EMBEDDED]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

const SLOTS: &str = "=== module kernel/sum
//#import core/index
//#import slot:weight as w_
//#import slot:activation
enable f16;
@group(0) @binding(0) var<storage, read> codes: array<u32>;
@compute @workgroup_size(SIZE)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let place = index(id.x); // a comment
    total += w_decode(codes[place]) * decode(place) /* and /* another */ one */;
}
=== module core/index
enable f16;
fn index(x: u32) -> u32 { return x * STRIDE; }
var<workgroup> total: f32;
=== module format/affine
//#needs scale BITS
struct Pair { low: u32, high: u32 }
fn decode(code: u32) -> f32 { return scale * f32(code & ((1u << BITS) - 1u)); }
const scale_of_two = 2.0;
=== module format/plain
alias lane_t = vec4<f32>;
fn decode(code: u32) -> f32 { return f32(code); }
=== module scale/one
const w_scale = 1.0;
=== root kernel/sum
=== slot weight format/affine
=== slot activation format/plain
=== u32 SIZE 64
=== u32 STRIDE 4
=== u32 W_BITS 4
=== alias w_scale f32
=== bool FLAG true
=== f32 EPSILON 0.5
=== i32 LOW -8
";

const UNROLLED: &str = "=== module a
fn f(codes: array<u32, 4>) -> u32 {
    var total = 0u;
    //#unroll
    for (var i = 0u; i < TILE; i++) {
        let twice = 2u * i;
        //#unroll
        for (var j: i32 = -1; j <= 2 * (3 - 1); j += 2) {
            total += codes[8u * i + 1u] + u32(j) + twice;
            if (total > i) { let i_more = i + 1u; total -= i_more; }
        }
        switch i { case 0u: { break; } default: {} }
        for (var k = 0; k < 2; k++) { if (k == 1) { continue; } }
    }
    return total;
}
=== u32 TILE 3
";

const CONSTANTS: &str = "=== module a
//#import b
const A = B * 2u + u32(N) % 3u;
const _unused: u32 = (A - 1u) / 2u;
@must_use fn f() {
    //#unroll
    for (var i = A; i < A + B; i += B) { g(i, A, -1); }
}
=== module b
const B: u32 = N - (1u + 1u);
override width: u32 = 4;
fn g(x: u32, y: u32, z: i32) {}
=== u32 N 5
";

const EMBEDDED: &str = "=== embedded
=== root kernel/advance
";
