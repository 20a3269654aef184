//! What no shader of anybit may do, though WGSL allows it. Each rule stands for a driver or a compiler that gets it wrong
//! or slow.

use naga::valid::GlobalUse;
use naga::{
    AddressSpace, BinaryOperator, CooperativeRole, Expression, Function, Handle, Literal, Module,
    Scalar, ScalarKind, StorageAccess, Type, TypeInner,
};

use crate::shader::Shader;
use crate::uniform::barriers_in_mixed_code;

/// A rule: what of a shader breaks it.
pub type Rule = fn(&Shader) -> Vec<String>;

/// Every rule, with its name.
pub const RULES: &[(&str, Rule)] = &[
    ("no arithmetic in f16", no_f16_arithmetic),
    (
        "local arrays are indexed by constants only",
        constant_indices,
    ),
    (
        "no signed division or remainder by a variable",
        no_signed_division,
    ),
    ("nothing is compared with itself", no_self_comparison),
    (
        "storage that is never written is read-only",
        read_only_storage,
    ),
    ("no storage goes unused", no_unused_binding),
    ("barriers are reached by all", barriers_in_mixed_code),
];

/// What breaks any rule, each with the rule's name.
pub fn lint(shader: &Shader) -> Vec<String> {
    RULES
        .iter()
        .flat_map(|(name, rule)| {
            rule(shader)
                .into_iter()
                .map(move |what| format!("{name}: {what}"))
        })
        .collect()
}

/// Variables that are declared in a loop without a value, by line. They begin each turn as zeros, but not with every compiler:
/// naga before its release 30 and the Tint of Chromium 156 make them zeros once, before the loop. It is their text that tells:
/// naga's module has the zeros.
pub fn unset_in_loops(wgsl: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Of each open brace, whether it or one around it is a loop's.
    let mut loops = vec![false];
    for (line, text) in (1..).zip(wgsl.lines()) {
        let code = text.split("//").next().unwrap_or_default().trim();
        let inside = loops.last() == Some(&true);
        let unset = code.starts_with("var ") && code.ends_with(';') && !code.contains('=');
        if inside && unset {
            found.push(format!("line {line}: {code}"));
        }
        // A statement a line, as all shaders are written; other code is for braces alone.
        let first = code
            .trim_start_matches(['}', ' '])
            .split([' ', '(', '{'])
            .next();
        let mut is_loop = matches!(first, Some("for" | "while" | "loop"));
        for letter in code.chars() {
            match letter {
                '{' => {
                    loops.push(is_loop || loops.last() == Some(&true));
                    is_loop = false;
                }
                '}' => {
                    loops.pop();
                }
                _ => {}
            }
        }
    }
    found
}

/// The functions of a module with their names and validation results.
fn functions(
    shader: &Shader,
) -> impl Iterator<Item = (String, &Function, &naga::valid::FunctionInfo)> {
    let functions = shader.module.functions.iter().map(|(handle, function)| {
        let name = function.name.clone().unwrap_or_default();
        (name, function, &shader.info[handle])
    });
    let entries = shader
        .module
        .entry_points
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            (
                entry.name.clone(),
                &entry.function,
                shader.info.get_entry_point(index),
            )
        });
    functions.chain(entries)
}

fn scalar(inner: &TypeInner) -> Option<Scalar> {
    inner.scalar()
}

const F16: Scalar = Scalar {
    kind: ScalarKind::Float,
    width: 2,
};

/// f16 may be stored and loaded, never added up: accumulators are i32 or f32. Fragments of cooperative matrices that are
/// multiplied are loaded values; those that take sums up are accumulators.
fn no_f16_arithmetic(shader: &Shader) -> Vec<String> {
    let mut found = Vec::new();
    for (name, function, info) in functions(shader) {
        for (_, variable) in function.local_variables.iter() {
            if holds_f16(&shader.module, variable.ty) {
                let variable = variable.name.as_deref().unwrap_or("?");
                found.push(format!("{name} has the variable {variable}"));
            }
        }
        for (handle, expression) in function.expressions.iter() {
            let arithmetic = matches!(
                expression,
                Expression::Binary { .. } | Expression::Math { .. }
            );
            let inner = info[handle].ty.inner_with(&shader.module.types);
            if arithmetic && scalar(inner) == Some(F16) {
                found.push(format!("{name} computes {expression:?}"));
            }
        }
    }
    found
}

fn holds_f16(module: &Module, ty: Handle<Type>) -> bool {
    match &module.types[ty].inner {
        TypeInner::Array { base, .. } => holds_f16(module, *base),
        TypeInner::CooperativeMatrix {
            role: CooperativeRole::A | CooperativeRole::B,
            ..
        } => false,
        TypeInner::Struct { members, .. } => {
            members.iter().any(|member| holds_f16(module, member.ty))
        }
        inner => scalar(inner) == Some(F16),
    }
}

/// An array that lives in registers must be indexed by constants, or compilers put it into memory.
fn constant_indices(shader: &Shader) -> Vec<String> {
    let mut found = Vec::new();
    for (name, function, info) in functions(shader) {
        for (_, expression) in function.expressions.iter() {
            let Expression::Access { base, index } = *expression else {
                continue;
            };
            if is_constant(function, index) || !is_local(function, base) {
                continue;
            }
            let types = &shader.module.types;
            let indexed = match info[base].ty.inner_with(types) {
                TypeInner::Pointer { base, .. } => &types[*base].inner,
                inner => inner,
            };
            if matches!(indexed, TypeInner::Array { .. }) {
                found.push(format!(
                    "{name}: {:?} by {:?}",
                    function.expressions[base], index
                ));
            }
        }
    }
    found
}

/// Whether an expression is a local variable, a part of one, or a value.
fn is_local(function: &Function, expression: Handle<Expression>) -> bool {
    match function.expressions[expression] {
        Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
            is_local(function, base)
        }
        Expression::GlobalVariable(_) => false,
        Expression::Load { pointer } => is_local(function, pointer),
        _ => true,
    }
}

fn is_constant(function: &Function, expression: Handle<Expression>) -> bool {
    match &function.expressions[expression] {
        Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => true,
        Expression::Splat { value, .. } => is_constant(function, *value),
        Expression::Compose { components, .. } => components
            .iter()
            .all(|&component| is_constant(function, component)),
        _ => false,
    }
}

/// Drivers disagree about rounding and overflow of signed division, and it is slow; −1 as a divisor overflows.
fn no_signed_division(shader: &Shader) -> Vec<String> {
    let mut found = Vec::new();
    for (name, function, info) in functions(shader) {
        for (_, expression) in function.expressions.iter() {
            let Expression::Binary {
                op: BinaryOperator::Divide | BinaryOperator::Modulo,
                right,
                ..
            } = *expression
            else {
                continue;
            };
            let inner = info[right].ty.inner_with(&shader.module.types);
            let signed = scalar(inner).is_some_and(|scalar| scalar.kind == ScalarKind::Sint);
            if signed && !is_constant(function, right) {
                found.push(format!("{name}: {expression:?}"));
            }
        }
    }
    found
}

/// Compilers that assume there is no NaN fold `x != x` away.
fn no_self_comparison(shader: &Shader) -> Vec<String> {
    let mut found = Vec::new();
    for (name, function, _) in functions(shader) {
        for (_, expression) in function.expressions.iter() {
            if let Expression::Binary {
                op: BinaryOperator::Equal | BinaryOperator::NotEqual,
                left,
                right,
            } = *expression
            {
                if same(function, left, right) {
                    found.push(format!("{name}: {:?}", function.expressions[left]));
                }
            }
        }
    }
    found
}

/// Whether two expressions are built alike from the same variables. Literals are no variables.
fn same(function: &Function, left: Handle<Expression>, right: Handle<Expression>) -> bool {
    use Expression as E;
    let (a, b) = (&function.expressions[left], &function.expressions[right]);
    match (a, b) {
        (E::Literal(Literal::Bool(_)), _) => false,
        _ if left == right => !is_constant(function, left),
        (E::Load { pointer: a }, E::Load { pointer: b }) => same(function, *a, *b),
        (E::AccessIndex { base: a, index: i }, E::AccessIndex { base: b, index: j }) => {
            i == j && same(function, *a, *b)
        }
        (E::Access { base: a, index: i }, E::Access { base: b, index: j }) => {
            same(function, *a, *b) && (same(function, *i, *j) || equal_literals(function, *i, *j))
        }
        (E::LocalVariable(a), E::LocalVariable(b)) => a == b,
        (E::GlobalVariable(a), E::GlobalVariable(b)) => a == b,
        (E::FunctionArgument(a), E::FunctionArgument(b)) => a == b,
        _ => false,
    }
}

fn equal_literals(
    function: &Function,
    left: Handle<Expression>,
    right: Handle<Expression>,
) -> bool {
    match (&function.expressions[left], &function.expressions[right]) {
        (Expression::Literal(a), Expression::Literal(b)) => a == b,
        _ => false,
    }
}

/// A binding that may be written keeps drivers from caching it, and wgpu from binding its buffer twice.
fn read_only_storage(shader: &Shader) -> Vec<String> {
    let mut found = Vec::new();
    for (handle, global) in shader.module.global_variables.iter() {
        let AddressSpace::Storage { access } = global.space else {
            continue;
        };
        let written = (0..shader.module.entry_points.len())
            .any(|entry| shader.info.get_entry_point(entry)[handle].contains(GlobalUse::WRITE));
        if !written && access != StorageAccess::LOAD {
            found.push(global.name.clone().unwrap_or_default());
        }
    }
    found
}

/// A binding of the layout that a shader does not use is a mistake in the one or the other, except for side data: bare
/// codes and floats have none.
fn no_unused_binding(shader: &Shader) -> Vec<String> {
    let mut found = Vec::new();
    for (handle, global) in shader.module.global_variables.iter() {
        let name = global.name.as_deref().unwrap_or("?");
        let used = (0..shader.module.entry_points.len())
            .any(|entry| !shader.info.get_entry_point(entry)[handle].is_empty());
        if global.binding.is_some() && !used && !name.ends_with("_side") {
            found.push(name.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use anybit::wgpu::Features;

    use super::*;

    /// The rules that a main function of such a body breaks.
    fn broken(globals: &str, body: &str) -> Vec<&'static str> {
        let wgsl = format!(
            "{globals}
            @group(0) @binding(0) var<storage, read_write> output: array<f32>;
            @compute @workgroup_size(1) fn main(@builtin(local_invocation_index) local: u32) {{
                {body}
                output[local] += 1.0;
            }}"
        );
        let features = Features::SHADER_F16 | Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let shader = Shader::new(&wgsl, features).unwrap_or_else(|error| panic!("{error}"));
        RULES
            .iter()
            .filter(|(_, rule)| !rule(&shader).is_empty())
            .map(|(name, _)| *name)
            .collect()
    }

    #[test]
    fn each_rule_is_broken_by_what_it_forbids() {
        let cases = [
            ("enable f16;", "var sum = 0.0h; sum += 1.0h;", 0),
            (
                "enable f16; enable wgpu_cooperative_matrix; var<workgroup> cells: array<f16, 64>;",
                "var sum = coopLoad<coop_mat8x8<f16, C>>(&cells[0], 8u); coopStore(sum, &cells[0], 8u);",
                0,
            ),
            ("", "var a: array<f32, 4>; output[0] = a[local];", 1),
            (
                "",
                "let a = array<f32, 2>(1.0, 2.0); output[0] = a[local % 2u];",
                1,
            ),
            ("", "let a = 7 / i32(local);", 2),
            ("", "let a = vec2<i32>(7) % vec2<i32>(i32(local));", 2),
            (
                "",
                "let a = output[local]; if (a != a) { output[1] = 0.0; }",
                3,
            ),
            (
                "",
                "var a = output[local]; if (a == a) { output[1] = 0.0; }",
                3,
            ),
            (
                "@group(0) @binding(1) var<storage, read_write> input: array<f32>;",
                "output[0] = input[local];",
                4,
            ),
            (
                "@group(0) @binding(1) var<storage, read> input: array<f32>;",
                "",
                5,
            ),
            ("", "if (local == 1u) { workgroupBarrier(); }", 6),
        ];
        for (globals, body, rule) in cases {
            assert_eq!(broken(globals, body), [RULES[rule].0], "{globals} {body}");
        }
    }

    #[test]
    fn variables_in_loops_need_a_value() {
        let body = "
            var before: u32;
            for (var i = 0u; i < 4u; i++) {
                var a = array<u32, 4>();
                if (i > 2u) {
                    var b: vec4<u32>; // no value
                }
                let c = a[0];
            }
            var after: array<u32, 4>;
            loop { break; }
            while (true) {
                var d: f32;
            }";
        let found = unset_in_loops(body);
        assert_eq!(found, ["line 6: var b: vec4<u32>;", "line 13: var d: f32;"]);
    }

    #[test]
    fn no_rule_is_broken_by_what_is_allowed() {
        let cases = [
            ("", "var a: array<f32, 4>; output[0] = a[2];"),
            (
                "enable f16; enable wgpu_cooperative_matrix; var<workgroup> cells: array<f16, 64>;
                var<workgroup> sums: array<f32, 64>;",
                "var a: array<coop_mat8x8<f16, A>, 2>; a[1] = coopLoad<coop_mat8x8<f16, A>>(&cells[0], 8u);
                let b = coopLoad<coop_mat8x8<f16, B>>(&cells[0], 8u);
                let c = coopMultiplyAdd(a[1], b, coop_mat8x8<f32, C>()); coopStore(c, &sums[0], 8u);",
            ),
            ("", "let a = i32(local) / 4; let b = local % (local + 1u);"),
            (
                "",
                "let a = output[local]; let b = output[local + 1u]; if (a != b) { output[1] = 0.0; }",
            ),
            ("", "var v = vec4<f32>(0.0); output[0] = v[local];"),
            (
                "var<workgroup> cells: array<f32, 4>;",
                "output[0] = cells[local];",
            ),
            (
                "@group(0) @binding(1) var<storage, read> x_side: array<f32>;",
                "",
            ),
        ];
        for (globals, body) in cases {
            assert!(
                broken(globals, body).is_empty(),
                "{globals} {body}: {:?}",
                broken(globals, body)
            );
        }
    }
}
