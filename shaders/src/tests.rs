//! Tests of linking as a whole.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::tokens::tokenize;
use crate::{HEADER_MODULE, Header, LinkError, LinkRequest, Linked, Location, MODULES, Modules};

/// Links `root` of the modules given as pairs.
fn link_all(
    modules: &[(&str, &str)],
    slots: &[(&str, &str)],
    header: &Header,
) -> Result<Linked, LinkError> {
    let set = modules
        .iter()
        .fold(Modules::new(), |set, &(name, text)| set.with(name, text));
    set.link(&LinkRequest {
        root: "root",
        slots,
        header,
    })
}

/// Links a single module.
fn link_one(text: &str, header: &Header) -> Result<Linked, LinkError> {
    link_all(&[("root", text)], &[], header)
}

/// The linked text of a single module, without the comment over it.
fn body(text: &str, header: &Header) -> String {
    let linked = link_one(text, header).unwrap_or_else(|error| panic!("{error}"));
    let (_, body) = linked
        .wgsl
        .split_once("// root\n")
        .expect("the module has a title");
    body.to_owned()
}

/// The error of linking a single module.
fn error(text: &str) -> LinkError {
    let header = Header::new()
        .constant_u32("TILE", 2)
        .constant_bool("FLAG", true);
    link_one(text, &header).expect_err("is refused")
}

fn at(line: u32) -> Location {
    Location::new("root", line)
}

#[test]
fn imports_come_once_and_first() {
    let linked = link_all(
        &[
            ("root", "//#import b\n//#import a\nfn root() {}"),
            ("a", "fn a() {}"),
            ("b", "//#import a\nfn b() {}"),
        ],
        &[],
        &Header::new(),
    )
    .expect("links");
    assert_eq!(
        linked.wgsl,
        "// a\nfn a() {}\n\n// b\nfn b() {}\n\n// root\nfn root() {}\n"
    );
    let places: Vec<_> = (0..=9).map(|line| linked.line_map.locate(line)).collect();
    let place = |module, line| Some(Location::new(module, line));
    assert_eq!(
        places,
        [
            None,
            None,
            place("a", 1),
            None,
            None,
            place("b", 2),
            None,
            None,
            place("root", 3),
            None
        ]
    );
}

#[test]
fn global_directives_are_hoisted_once() {
    let linked = link_all(
        &[
            (
                "root",
                "//#import a\nenable f16;\nenable  subgroups;\ndiagnostic(off, derivative_uniformity);\nfn root() {}",
            ),
            ("a", "enable f16; requires x,y;\n\n\nfn a() {}"),
        ],
        &[],
        &Header::new().constant_u32("A", 1),
    )
    .expect("links");
    assert_eq!(
        linked.wgsl,
        "enable f16;\nrequires x, y;\nenable subgroups;\ndiagnostic(off, derivative_uniformity);\n\
         const A: u32 = 1u;\n\n// a\nfn a() {}\n\n// root\nfn root() {}\n"
    );
    assert_eq!(linked.line_map.locate(2), Some(Location::new("a", 1)));
    assert_eq!(linked.line_map.locate(3), Some(at(3)));
    assert_eq!(
        linked.line_map.locate(5),
        Some(Location::new(HEADER_MODULE, 1))
    );
}

#[test]
fn one_module_fills_two_slots() {
    let affine = "//#import core/bits
//#needs codes side LIMIT
const MASK: u32 = (1u << BITS) - 1u;
alias word = u32;
struct Code { MASK: word, codes: u32 }
override over = 1;
var<private> private: u32;
fn fmt_load(i: u32) -> word {
    let made = Code(MASK, codes[i]);
    return made.MASK + made.codes * side[LIMIT] + core_bits(BITS) + SHARED + over + private;
}
@compute @workgroup_size(BITS) fn codes_of(@builtin(codes_of) codes_: u32) {}
";
    let kernel = "//#import slot:weight as w_
//#import slot:activation as a_
var<storage> w_codes: array<u32>;
var<storage> a_codes: array<u32>;
const w_side = 1;
const a_side = 2;
fn main() { let x = w_fmt_load(0u) + a_fmt_load(1u); }
";
    let header = Header::new()
        .constant_u32("W_BITS", 4)
        .constant_u32("A_BITS", 8)
        .constant_u32("W_LIMIT", 4)
        .constant_u32("A_LIMIT", 8)
        .constant_u32("SHARED", 3);
    let linked = link_all(
        &[
            ("root", kernel),
            ("format/affine", affine),
            (
                "core/bits",
                "fn core_bits(x: u32) -> u32 { return x * BITS; }",
            ),
        ],
        &[("weight", "format/affine"), ("activation", "format/affine")],
        &header,
    )
    .expect("links");
    for (prefix, upper) in [("w_", "W_"), ("a_", "A_")] {
        let expected = format!(
            "// format/affine as {prefix}
const {prefix}MASK: u32 = (1u << {upper}BITS) - 1u;
alias {prefix}word = u32;
struct {prefix}Code {{ MASK: {prefix}word, codes: u32 }}
override {prefix}over = 1;
var<private> {prefix}private: u32;
fn {prefix}fmt_load(i: u32) -> {prefix}word {{
    let made = {prefix}Code({prefix}MASK, {prefix}codes[i]);
    return made.MASK + made.codes * {prefix}side[{upper}LIMIT] + core_bits({upper}BITS) + SHARED + {prefix}over + {prefix}private;
}}
@compute @workgroup_size({upper}BITS) fn {prefix}codes_of(@builtin(codes_of) codes_: u32) {{}}
"
        );
        assert!(
            linked.wgsl.contains(&expected),
            "{}\nlacks\n{expected}",
            linked.wgsl
        );
    }
    // Shared imports come once, under their own names, with the header's names untouched.
    assert_eq!(linked.wgsl.matches("// core/bits\n").count(), 1);
    assert!(linked.wgsl.contains("return x * BITS;"));
}

#[test]
fn slots_without_prefix_keep_names() {
    let linked = link_all(
        &[
            (
                "root",
                "//#import slot:reduce\n//#import sum\nfn root() { reduce(); }",
            ),
            ("sum", "fn reduce() {}"),
        ],
        &[("reduce", "sum")],
        &Header::new(),
    )
    .expect("links");
    assert_eq!(
        linked.wgsl,
        "// sum\nfn reduce() {}\n\n// root\nfn root() { reduce(); }\n"
    );
}

#[test]
fn import_errors() {
    let none = Header::new();
    assert_eq!(
        Modules::new()
            .link(&LinkRequest {
                root: "absent",
                slots: &[],
                header: &none
            })
            .err(),
        Some(LinkError::UnknownRoot {
            name: "absent".to_owned()
        })
    );
    assert_eq!(
        error("\n//#import x/y"),
        LinkError::UnknownImport {
            at: at(2),
            name: "x/y".to_owned()
        }
    );
    assert_eq!(
        error("//#import slot:s as w_"),
        LinkError::UnfilledSlot {
            at: at(1),
            slot: "s".to_owned()
        }
    );
    let slot = ("root", "//#import slot:s as w_");
    assert_eq!(
        link_all(&[slot], &[("s", "x")], &none).err(),
        Some(LinkError::UnknownSlotModule {
            at: at(1),
            slot: "s".to_owned(),
            name: "x".to_owned()
        })
    );
    assert_eq!(
        link_all(&[("root", "")], &[("s", "x")], &none).err(),
        Some(LinkError::UnusedSlotArgument {
            slot: "s".to_owned()
        })
    );
    assert_eq!(
        link_all(&[slot], &[("s", "x"), ("s", "x")], &none).err(),
        Some(LinkError::DuplicateSlotArgument {
            slot: "s".to_owned()
        })
    );
    assert_eq!(
        link_all(
            &[slot, ("x", "\n//#import slot:t as t_")],
            &[("s", "x"), ("t", "x")],
            &none
        )
        .err(),
        Some(LinkError::SlotInSlot {
            at: Location::new("x", 2),
            slot: "t".to_owned()
        })
    );
}

#[test]
fn circles_name_their_path() {
    let modules = [
        ("root", "//#import a"),
        ("a", "//#import b"),
        ("b", "\n//#import slot:s as w_"),
        ("c", "//#import a"),
    ];
    let result = link_all(&modules, &[("s", "c")], &Header::new());
    assert_eq!(
        result.err(),
        Some(LinkError::ImportCycle {
            at: Location::new("c", 1),
            path: ["a", "b", "c", "a"].map(str::to_owned).to_vec(),
        })
    );
    assert!(matches!(
        error("//#import root"),
        LinkError::ImportCycle { .. }
    ));
}

#[test]
fn symbols_and_needs() {
    let duplicate = |first, second, name: &str| LinkError::DuplicateSymbol {
        name: name.to_owned(),
        first,
        second,
    };
    assert_eq!(
        error("fn f() {}\n\nconst f = 1;"),
        duplicate(at(1), at(3), "f")
    );
    assert_eq!(
        error("\nconst TILE = 1;"),
        duplicate(Location::new(HEADER_MODULE, 1), at(2), "TILE")
    );
    let clash = link_all(
        &[
            ("root", "//#import slot:s as w_\nvar<private> w_f: u32;"),
            ("x", "struct f { a: u32 }"),
        ],
        &[("s", "x")],
        &Header::new(),
    );
    assert_eq!(
        clash.err(),
        Some(duplicate(Location::new("x", 1), at(2), "w_f"))
    );
    assert_eq!(
        error("\n//#needs TILE other"),
        LinkError::UnmetNeed {
            at: at(2),
            name: "other".to_owned()
        }
    );
    let unmet = link_all(
        &[("root", "//#import slot:s as w_"), ("x", "//#needs BITS")],
        &[("s", "x")],
        &Header::new().constant_u32("BITS", 1),
    );
    assert_eq!(
        unmet.err(),
        Some(LinkError::UnmetNeed {
            at: Location::new("x", 1),
            name: "W_BITS".to_owned()
        })
    );
    assert_eq!(
        error("//#needs f\nfn f() {}"),
        LinkError::NeedDeclared {
            at: at(1),
            name: "f".to_owned()
        }
    );
}

#[test]
fn header_is_checked() {
    let header = Header::new().constant_u32("not a name", 1);
    assert!(matches!(
        link_one("", &header),
        Err(LinkError::HeaderName { .. })
    ));
}

#[test]
fn errors_name_file_and_line() {
    assert_eq!(
        error("\n\n//#import a\n").to_string(),
        "root.wgsl:3: imports `a`, but no module has that name"
    );
    assert_eq!(
        error("fn f() {\n//#unroll\nfor (var i = 0u; i < COUNT + 1u; i++) {}\n}").to_string(),
        "root.wgsl:3: cannot evaluate `COUNT + 1u`, a bound of an unrolled loop: \
         `COUNT` is no header constant or module-scope const"
    );
}

#[test]
fn unrolls_with_typed_literals() {
    let header = Header::new().constant_u32("TILE", 2);
    assert_eq!(
        body(
            "fn f() {
    //#unroll
    for (var t = 0u; t < TILE; t++) {
        let k = words[t * 4u / 8u]; // of t
        v.t = k + w.t;
    }
    done(t);
}
",
            &header
        ),
        "fn f() {
    {
        let k = words[0u];
        v.t = k + w.t;
    }
    {
        let k = words[0u];
        v.t = k + w.t;
    }
    done(t);
}
"
    );
    for (head, values) in [
        ("var i = 0; i < 2; i++", "0 1"),
        ("var i = 0i; i < 2; i++", "0i 1i"),
        ("var i: u32 = 0; i < 2u; i++", "0u 1u"),
        ("var i: i32 = -1; i < 1i; i += 1", "i32(-1) 0i"),
        ("var i = -1; i <= 1; i++", "(-1) 0 1"),
        ("var i = TILE; i <= 3 * TILE; i += TILE", "2u 4u 6u"),
        ("var i = 0u; i <= 7u; i += 3u", "0u 3u 6u"),
        ("var i = 0x0Fu; i < 16u; i++", "15u"),
        (
            "var i = u32(i32(TILE) - 2); i < (TILE + 7u) % 5u / 2u; i++",
            "0u 1u",
        ),
        ("var i = 10u - 4u - 3u; i < 4u; i++", "3u"),
        ("var i = 3u; i < TILE; i++", ""),
        ("var i = A; i < C; i++", "1u 2u"),
    ] {
        let text = format!(
            "const A = 1u;\nconst B: u32 = A + 1;\nconst C = B * 2u - A;\nfn f() {{\n//#unroll\nfor ({head}) {{ g(i); }}\n}}\n"
        );
        let linked = body(&text, &header);
        let found: Vec<_> = linked
            .lines()
            .filter_map(|line| line.trim().strip_prefix("g(")?.strip_suffix(");"))
            .collect();
        assert_eq!(found.join(" "), values, "{head}");
    }
}

#[test]
fn unrolls_under_prefixes() {
    let linked = link_all(
        &[
            ("root", "//#import slot:s as w_\n//#import slot:s as a_"),
            (
                "x",
                "const LAST = BITS - 1u;\nfn f() {\n//#unroll\nfor (var i = LAST; i < BITS; i++) { g(i); }\n}",
            ),
        ],
        &[("s", "x")],
        &Header::new()
            .constant_u32("W_BITS", 4)
            .constant_u32("A_BITS", 8),
    )
    .expect("links");
    assert!(linked.wgsl.contains("fn w_f() {\ng(3u);\n}"));
    assert!(linked.wgsl.contains("fn a_f() {\ng(7u);\n}"));
}

#[test]
fn unrolls_nested_loops() {
    let text = "fn f() {
  //#unroll
  for (var i = 0u; i < TILE; i++) {
    //#unroll
    for (var j = i; j < TILE; j++) { g(i, j); }
    for (var k = 0u; k < i; k++) { if (k == i) { break; } else { continue; } }
    switch i { case 0u: { break; } default: {} }
  }
}
";
    let linked = body(text, &Header::new().constant_u32("TILE", 2));
    assert_eq!(
        linked,
        "fn f() {
    g(0u, 0u);
    g(0u, 1u);
    for (var k = 0u; k < 0u; k++) { if (k == 0u) { break; } else { continue; } }
    switch 0u { case 0u: { break; } default: {} }
    g(1u, 1u);
    for (var k = 0u; k < 1u; k++) { if (k == 1u) { break; } else { continue; } }
    switch 1u { case 0u: { break; } default: {} }
}
"
    );
}

#[test]
fn unrolled_lines_map_to_the_loop() {
    let text = "fn f() {\n//#unroll\nfor (var i = 0u;\n  i < 2u; i++)\n      {\n  g(i);\n} h();\n}";
    let linked = link_one(text, &Header::new()).expect("links");
    assert_eq!(
        linked.wgsl,
        "// root\nfn f() {\n  g(0u);\n  g(1u);\nh();\n}\n"
    );
    let lines: Vec<_> = (2..=6)
        .map(|line| linked.line_map.locate(line).map(|at| at.line))
        .collect();
    assert_eq!(lines, [1, 6, 6, 7, 8].map(Some));
}

#[test]
fn unrolled_loops_hold_values_for_expressions() {
    let text = "const W = 4u;
fn f(p: u32) {
  //#unroll
  for (var i = 1u; i < 2u; i++) {
    let at = (W * i + 3u) % 4u;
    let abstract_at = 2 * 3;
    let other = at + p;
    x[at + 8u][p + at * 2u] += g(at, 2u * W, h(i + W, p)) >> (8u * i);
    {
      let p = W - 1u;
      y[p + 1u] = p;
    }
    y[p + 1u] = abstract_at;
    let big = 4294967295u;
    y[0u] = (big + i);
  }
  //#unroll
  for (var i = 0u; i < 1u; i++) {
    let hidden = W * 2u;
    { let hidden = p; y[hidden] = 1u; }
    y[1u + 1u] = v.W;
  }
  y[1u + W] = 0u;
}
";
    assert_eq!(
        body(text, &Header::new()),
        "const W = 4u;
fn f(p: u32) {
  {
    let other = 3u + p;
    x[11u][p + 3u * 2u] += g(3u, 8u, h(5u, p)) >> (8u);
    {
      y[4u] = 3u;
    }
    y[p + 1u] = 6i;
    y[0u] = (4294967295u + 1u);
  }
  {
    let hidden = W * 2u;
    { let hidden = p; y[hidden] = 1u; }
    y[2u] = v.W;
  }
  y[1u + W] = 0u;
}
"
    );
}

#[test]
fn loops_that_cannot_be_unrolled() {
    let in_function = |code: &str| error(&format!("fn f(p: u32) {{\n//#unroll\n{code}\n}}"));
    for head in [
        "for {}",
        "for (var i = 0u; i < 2u; i++) return;",
        "for (var i = 0u; i < 2u) {}",
        "for (;;) {}",
        "for (var i = 0u; i < 2u; i++;) {}",
        "for (let i = 0u; i < 2u; i++) {}",
        "for (i = 0u; i < 2u; i++) {}",
        "for (var i: f32 = 0; i < 2; i++) {}",
        "for (var i = 0u; i > 2u; i++) {}",
        "for (var i = 0u; i >= 2u; i++) {}",
        "for (var i = 0u; j < 2u; i++) {}",
        "for (var i = 0u; i < 2u; j++) {}",
        "for (var i = 0u; i < 2u; i--) {}",
        "for (var i = 0u; i < 2u; i *= 2u) {}",
    ] {
        let error = in_function(head);
        assert!(
            matches!(&error, LinkError::UnrollForm { at: place, .. } if *place == at(3)),
            "{head}: {error}"
        );
    }
    for (head, expression) in [
        ("var i = 0u; i < N; i++", "N"),
        ("var i = 0u; i < p; i++", "p"),
        ("var i = 0u; i < FLAG; i++", "FLAG"),
        ("var i = 0u; i < 2i; i++", "2i"),
        ("var i = 0; i < TILE; i++", "TILE"),
        ("var i = 0; i < 2147483648; i++", "2147483648"),
        ("var i = 1u - 2u; i < 2u; i++", "1u - 2u"),
        ("var i = -1u; i < 2u; i++", "-1u"),
        ("var i = 1u / 0u; i < 2u; i++", "1u / 0u"),
        (
            "var i = 0; i < 9223372036854775807 + 1; i++",
            "9223372036854775807 + 1",
        ),
        ("var i = 0u; i < 1.5; i++", "1.5"),
        ("var i = 0u; i < ; i++", ""),
        ("var i = 0u; i < (1u; i++", ""),
        ("var i = 0u; i < 1u 2u; i++", "1u 2u"),
        ("var i = 0u; i < ~1u; i++", "~1u"),
        ("var i = 0u; i < i; i++", "i"),
        ("var i = 0u; i < 2u; i += 0u", "0u"),
        ("var i = 0; i < 2; i += -1", "-1"),
        ("var i = 0u; i < f(1); i++", "f(1)"),
        ("var i: u32 = -1; i < 2u; i++", "var i: u32 = -1"),
        ("var i: u32 = 1i; i < 2u; i++", "var i: u32 = 1i"),
    ] {
        let error = in_function(&format!("for ({head}) {{}}"));
        match &error {
            LinkError::UnrollBound {
                at: place,
                expression: found,
                ..
            } => {
                assert_eq!(*place, at(3), "{head}");
                assert_eq!(found, expression, "{head}: {error}");
            }
            LinkError::UnbalancedBracket { .. } => assert!(head.contains("(1u;"), "{head}"),
            _ => panic!("{head}: {error}"),
        }
    }
    // A variable of the function hides the constant.
    let hidden = error(
        "const N = 2u;\nfn f() {\nlet N = g();\n//#unroll\nfor (var i = 0u; i < N; i++) {}\n}",
    );
    assert!(matches!(hidden, LinkError::UnrollBound { at: place, .. } if place == at(5)));
}

#[test]
fn constants_that_depend_on_themselves() {
    let in_loop = "fn f() {\n//#unroll\nfor (var i = 0u; i < A; i++) {}\n}";
    for constants in [
        "const A = B; const B = A;",
        "const A = A + A;",
        "const A: f32 = 1.0;",
        "const A = vec2(1, 2);",
        "const A;",
    ] {
        let error = error(&format!("{constants}\n{in_loop}"));
        assert!(
            matches!(error, LinkError::UnrollBound { .. }),
            "{constants}"
        );
    }
    // 2^40 evaluations if values were not remembered.
    let mut text = "const C0 = 0u;\n".to_owned();
    for index in 1..40 {
        let before = index - 1;
        text += &format!("const C{index} = C{before} + C{before};\n");
    }
    text += "const A = C39;\n";
    let header = Header::new();
    link_one(&format!("{text}{in_loop}"), &header).expect("links");
    let nested = format!("{}1u{}", "(".repeat(5000), ")".repeat(5000));
    let error = error(&format!("const A = {nested};\n{in_loop}"));
    assert!(matches!(error, LinkError::UnrollBound { .. }));
}

#[test]
fn bodies_that_cannot_be_unrolled() {
    let in_loop = |code: &str| {
        link_one(
            &format!("fn f() {{\n//#unroll\nfor (var i = 0u; i < 2u; i++) {{\n{code}\n}}\n}}"),
            &Header::new(),
        )
    };
    for code in [
        "let i = 1;",
        "var i = 1;",
        "var<function> i = 1;",
        "const i = 1;",
        "for (var i = 0u; i < 3u; i++) {}",
        "//#unroll\nfor (var i = 0u; i < 3u; i++) {}",
    ] {
        assert!(
            matches!(in_loop(code), Err(LinkError::CounterShadowed { counter, .. }) if counter == "i"),
            "{code}"
        );
    }
    for code in [
        "i = 1;",
        "i += 1;",
        "i++;",
        "i--;",
        "i >>= 1u;",
        "i <<= 1u;",
        "g(&i);",
        "let p = &i;",
        "return &i;",
    ] {
        assert_eq!(
            in_loop(code).err(),
            Some(LinkError::CounterAssigned {
                at: at(4),
                counter: "i".to_owned()
            }),
            "{code}"
        );
    }
    for (code, keyword) in [
        ("break;", "break"),
        ("if (a) { continue; }", "continue"),
        ("switch i { default: { continue; } }", "continue"),
        ("while (a) { break; } break;", "break"),
        ("switch i { default: {} } break;", "break"),
        (
            "//#unroll\nfor (var j = 0u; j < 3u; j++) { break; }",
            "break",
        ),
    ] {
        assert!(
            matches!(in_loop(code), Err(LinkError::UnrollExit { keyword: found, .. }) if found == keyword),
            "{code}"
        );
    }
    for code in [
        "a.i = 1; a[i] = 1; if (i == 1u) {} if (i >= 1u) {} let x = a & i; let y = b[0] & i;",
        "while (a) { break; } loop { continue; continuing { break if a; } }",
        "for (;;) { switch i { default: { continue; } } while (b) {} break; }",
        "switch i { default: { break; } case 1u: { loop { break; } } }",
        "return;",
    ] {
        assert!(in_loop(code).is_ok(), "{code}");
    }
}

#[test]
fn unrolling_a_short_text_takes_neither_much_memory_nor_long() {
    // One long line many times.
    let long = format!(
        "fn f() {{\n//#unroll\nfor (var i = 0u; i < 19000u; i++) {{ f({}); }}\n}}",
        "i, ".repeat(5000)
    );
    assert!(matches!(
        error(&long),
        LinkError::TooManyBytes { at: found, .. } if found == at(3)
    ));
    // Names that become values leave no text, a loop that does not run neither, and brackets are read again and again.
    let names: String = (0..4000).map(|i| format!("let a{i} = i + 1u;")).collect();
    let nothing = format!(
        "//#unroll\nfor (var j = 0u; j < 0u; j++) {{ {} }}",
        "x;".repeat(15_000)
    );
    let brackets = format!("g({}1u{});", "(".repeat(20_000), ")".repeat(20_000));
    for body in [names, nothing, brackets] {
        let text =
            format!("fn f() {{\n//#unroll\nfor (var i = 0u; i < 19000u; i++) {{\n{body}\n}}\n}}");
        assert!(matches!(
            error(&text),
            LinkError::TooMuchUnrolling { .. } | LinkError::TooManyBytes { .. }
        ));
    }
}

#[test]
fn chains_of_imports_are_bounded() {
    let chain = |length: usize| {
        let mut modules = Modules::new();
        for index in 0..length {
            let text = format!("//#import m{}\n", index + 1);
            modules = modules.with(format!("m{index}"), text);
        }
        let modules = modules.with(format!("m{length}"), "fn f() {}");
        let header = Header::new();
        let request = LinkRequest {
            root: "m0",
            slots: &[],
            header: &header,
        };
        modules.link(&request).map(|_| ())
    };
    assert_eq!(chain(100), Ok(()));
    assert!(matches!(
        chain(100_000),
        Err(LinkError::ImportTooDeep { limit: 128, .. })
    ));
}

#[test]
fn sizes_are_capped() {
    let endless = "fn f() {\n//#unroll\nfor (var i = 0u; i <= 4294967295u; i++) {}\n}";
    assert_eq!(
        error(endless),
        LinkError::TooManyLines {
            at: at(3),
            limit: crate::MAX_LINES
        }
    );
    let set = Modules::new().with("root", "fn f() {\n\n}\n");
    let header = Header::new();
    let request = LinkRequest {
        root: "root",
        slots: &[],
        header: &header,
    };
    assert_eq!(
        set.link_within(&request, 2),
        Err(LinkError::TooManyLines {
            at: at(3),
            limit: 2
        })
    );
    assert!(set.link_within(&request, 3).is_ok());

    let (open, close) = ("{".repeat(100_000), "}".repeat(100_000));
    let blocks =
        format!("fn f() {{\n//#unroll\nfor (var i = 0u; i < 1u; i++) {{ {open}{close} }}\n}}");
    assert!(link_one(&blocks, &Header::new()).is_ok());

    let mut nested = String::new();
    for level in 0..17 {
        nested += &format!("//#unroll\nfor (var i{level} = 0u; i{level} < 1u; i{level}++) {{\n");
    }
    nested += &"}".repeat(17);
    assert_eq!(
        error(&format!("fn f() {{\n{nested}\n}}")),
        LinkError::UnrollTooDeep {
            at: at(35),
            limit: 16
        }
    );
}

#[test]
fn layout_is_kept_and_comments_are_not() {
    let text = "// title\n\n/* about\n   f */ fn f(\n    a: u32, // first\n    b: u32,\n) {\n\tlet x =\n\t\ta /* + */ +b;\n\n\treturn;\n}\n\n\n\n@compute\n@workgroup_size(1)\nfn g() {} struct S {\n  a: u32,\n};\nconst_assert true;\n";
    assert_eq!(
        body(text, &Header::new()),
        "   fn f(\n    a: u32,\n    b: u32,\n) {\n\tlet x =\n\t\ta +b;\n\treturn;\n}\n\n@compute\n@workgroup_size(1)\nfn g() {} struct S {\n  a: u32,\n};\nconst_assert true;\n"
    );
    assert_eq!(
        link_one("", &Header::new()).expect("links").wgsl,
        "// root\n"
    );
}

#[test]
fn embedded_modules_scan() {
    for (name, text) in MODULES {
        if let Err(error) = crate::scan::scan(name, text) {
            panic!("{error}");
        }
    }
}

/// The texts of a module's tokens, by line.
fn tokens_by_line(text: &str) -> BTreeMap<u32, Vec<String>> {
    let mut lines: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for token in tokenize("test", text).expect("tokenizes").tokens {
        lines
            .entry(token.line)
            .or_default()
            .push(token.text.into_owned());
    }
    lines
}

/// Checks that the line map leads to lines that exist.
fn check_line_map(linked: &Linked, texts: &[(&str, &str)]) {
    assert_eq!(linked.wgsl.lines().count(), linked.line_map.len());
    for line in 1..=u32::try_from(linked.line_map.len()).expect("few lines") {
        let Some(place) = linked.line_map.locate(line) else {
            continue;
        };
        let text = texts.iter().find(|(name, _)| *name == place.module);
        let count = text.map_or(0, |(_, text)| text.split('\n').count());
        assert!(
            (1..=count).contains(&(place.line as usize)),
            "{line} -> {place}"
        );
    }
}

/// Pieces of WGSL and of directives, for texts that get past the tokeniser.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "fn ",
        "f",
        "g",
        "(",
        ")",
        "{",
        "}",
        "{}",
        "()",
        ";",
        ";\n",
        "\n",
        "\n    ",
        "[",
        "]",
        "<",
        ">",
        "=",
        "const ",
        "let ",
        "var ",
        "var<private> ",
        "struct ",
        "alias ",
        "override ",
        "S ",
        "a: u32,",
        ".",
        "@",
        "@compute ",
        "@builtin(position) ",
        "for (var i = 0u; i < TILE; i++) {",
        "for (var j = i; j <= 3u; j += 2u) {",
        "//#unroll\n",
        "\n//#unroll\n",
        "//#import slot:s as w_\n",
        "//#import slot:s as a_\n",
        "//#import other\n",
        "//#needs g\n",
        "enable f16;",
        "break;",
        "continue;",
        "i",
        "j",
        "N",
        "TILE",
        "1u",
        "2",
        "-",
        "+",
        "/",
        "/*",
        "*/",
        "// x\n",
        " ",
        "é",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// A valid module: declarations, statements, comments and white space of all kinds.
fn valid_module() -> impl Strategy<Value = String> {
    let space = || {
        prop::sample::select(vec![
            " ",
            "\n",
            "\n\n    ",
            " // c\n  ",
            " /* d */ ",
            " /* d\n /* e */ */ ",
            "\r\n\t",
        ])
    };
    let statement = prop::sample::select(vec![
        "let@x@=@v.y@+@1u;",
        "v[0]@=@-2.5e-3f;",
        "if@(a@<@b)@{@return;@}",
        "for@(var@i@=@0u;@i@<@4u;@i++)@{@g(i);@}",
        "loop@{@break;@}",
    ]);
    let function = prop::collection::vec(statement, 0..6)
        .prop_map(|statements| format!("fn@NAME(a:@u32,@b:@u32)@{{@{}@}}", statements.join("@")));
    let item = prop_oneof![
        function,
        Just("struct@NAME@{@a:@u32,@}".to_owned()),
        Just("const@NAME@=@1u;".to_owned()),
        Just("var<workgroup>@NAME:@array<vec4<u32>,@2>;".to_owned()),
        Just("const_assert@true;".to_owned()),
    ];
    prop::collection::vec((item, space()), 0..8).prop_flat_map(move |items| {
        let mut text = String::new();
        for (index, (item, after)) in items.iter().enumerate() {
            text += &item.replace("NAME", &format!("name{index}"));
            text += after;
        }
        let holes = text.matches('@').count();
        prop::collection::vec(space(), holes).prop_map(move |spaces| {
            let mut spaces = spaces.into_iter();
            text.split('@')
                .flat_map(|part| [part, spaces.next().unwrap_or_default()])
                .collect()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn lines_map_to_equal_tokens(text in valid_module(), other in valid_module()) {
        let other = other.replace("name", "other");
        let text = format!("// title\n//#import other\n{text}");
        let texts = [("root", text.as_str()), ("other", other.as_str())];
        let linked = link_all(&texts, &[], &Header::new()).expect("links");
        check_line_map(&linked, &texts);
        let source: BTreeMap<&str, _> =
            texts.iter().map(|(name, text)| (*name, tokens_by_line(text))).collect();
        let linked_lines = tokens_by_line(&linked.wgsl);
        let mut seen = 0;
        for (line, tokens) in &linked_lines {
            let place = linked.line_map.locate(*line).expect("code comes from a module");
            prop_assert_eq!(tokens, &source[&*place.module][&place.line]);
            seen += 1;
        }
        prop_assert_eq!(seen, source.values().map(BTreeMap::len).sum::<usize>());
    }

    #[test]
    fn any_text_links_or_is_refused(text in any::<String>()) {
        let _ = link_one(&text, &Header::new());
        let _ = link_all(
            &[("root", "//#import slot:s as w_"), ("x", &text)],
            &[("s", "x")],
            &Header::new(),
        );
    }

    #[test]
    fn any_pieces_link_or_are_refused(text in pieces(), other in pieces()) {
        let header = Header::new().constant_u32("TILE", 3).constant_u32("W_TILE", 2);
        for slots in [&[][..], &[("s", "other")][..]] {
            let texts = [("root", text.as_str()), ("other", other.as_str()), (HEADER_MODULE, "\n")];
            if let Ok(linked) = link_all(&texts, slots, &header) {
                check_line_map(&linked, &texts);
            }
        }
    }

    #[test]
    fn any_header_links_or_is_refused(name in "[A-Z_é][a-z0-9 _;]{0,4}", target in "[a-z<>;\n/ ]{0,8}", value in any::<f32>()) {
        let header = Header::new().alias(name, target).constant_f32("VALUE", value);
        if let Ok(linked) = link_one("fn f() {}", &header) {
            prop_assert_eq!(linked.wgsl.lines().count(), 5);
            let (_, literal) = linked.wgsl.split_once("f32 = ").expect("has the constant");
            let (literal, _) = literal.split_once("f;").expect("has a suffix");
            let read: f32 = literal.parse().expect("is a number");
            prop_assert_eq!(read.to_bits(), value.to_bits());
        }
    }
}
