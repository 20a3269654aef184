//! Barriers that not every invocation of a workgroup reaches together. naga does not look for them.
//!
//! A value is *mixed* if it may differ between the invocations of a workgroup: the invocation's own indices, what comes
//! from memory that invocations write, and all that is computed from either. Code is mixed where a mixed condition
//! decides whether it runs. What cannot be told is taken for mixed.

use std::collections::{HashMap, HashSet};

use naga::{
    AddressSpace, Binding, Block, BuiltIn, Expression, Function, Handle, LocalVariable, Module,
    Statement, StorageAccess, SwitchCase, Type, TypeInner,
};

use crate::shader::Shader;

/// The barriers in mixed code, each with the function it is in.
pub fn barriers_in_mixed_code(shader: &Shader) -> Vec<String> {
    let mut found = Vec::new();
    for entry in &shader.module.entry_points {
        let mixed = entry
            .function
            .arguments
            .iter()
            .map(|argument| {
                argument_is_mixed(&shader.module, argument.ty, argument.binding.as_ref())
            })
            .collect();
        let mut walk = Walk {
            module: &shader.module,
            name: entry.name.clone(),
            function: &entry.function,
            arguments: mixed,
            locals: HashSet::new(),
            results: HashMap::new(),
            returns_mixed: false,
            found: &mut found,
        };
        walk.function(false);
    }
    found.dedup();
    found
}

fn argument_is_mixed(module: &Module, ty: Handle<Type>, binding: Option<&Binding>) -> bool {
    match (&module.types[ty].inner, binding) {
        (_, Some(Binding::BuiltIn(builtin))) => !matches!(
            builtin,
            BuiltIn::WorkGroupId
                | BuiltIn::NumWorkGroups
                | BuiltIn::WorkGroupSize
                | BuiltIn::NumSubgroups
        ),
        (TypeInner::Struct { members, .. }, None) => members
            .iter()
            .any(|member| argument_is_mixed(module, member.ty, member.binding.as_ref())),
        _ => true,
    }
}

/// How code that runs for some invocations only may leave the block it is in.
#[derive(Clone, Copy, Default)]
struct Exits {
    returns: bool,
    breaks: bool,
}

impl Exits {
    const fn any(self) -> bool {
        self.returns || self.breaks
    }
}

struct Walk<'a> {
    module: &'a Module,
    name: String,
    function: &'a Function,
    arguments: Vec<bool>,
    /// Local variables that hold something mixed.
    locals: HashSet<Handle<LocalVariable>>,
    /// Calls and other statements with a result, and whether it is mixed.
    results: HashMap<Handle<Expression>, bool>,
    returns_mixed: bool,
    found: &'a mut Vec<String>,
}

impl Walk<'_> {
    /// Walks the function until nothing more turns mixed. True if its result is mixed.
    fn function(&mut self, mixed: bool) -> bool {
        let before = self.found.len();
        loop {
            let known = (self.locals.len(), self.mixed_results(), self.returns_mixed);
            self.found.truncate(before);
            let function = self.function;
            self.block(&function.body, mixed);
            if known == (self.locals.len(), self.mixed_results(), self.returns_mixed) {
                return self.returns_mixed;
            }
        }
    }

    fn mixed_results(&self) -> usize {
        self.results.values().filter(|mixed| **mixed).count()
    }

    fn is_mixed(&self, expression: Handle<Expression>) -> bool {
        use Expression as E;
        let any = |parts: &[Handle<Expression>]| parts.iter().any(|&part| self.is_mixed(part));
        match &self.function.expressions[expression] {
            E::Literal(_) | E::Constant(_) | E::Override(_) | E::ZeroValue(_) => false,
            E::Compose { components, .. } => any(components),
            E::Access { base, index } => any(&[*base, *index]),
            E::AccessIndex { base, .. } => any(&[*base]),
            E::Splat { value, .. } => any(&[*value]),
            E::Swizzle { vector, .. } => any(&[*vector]),
            E::FunctionArgument(index) => self.arguments[*index as usize],
            E::GlobalVariable(global) => match self.module.global_variables[*global].space {
                AddressSpace::Uniform => false,
                AddressSpace::Storage { access } => access != StorageAccess::LOAD,
                _ => true,
            },
            E::LocalVariable(variable) => self.locals.contains(variable),
            E::Load { pointer } => any(&[*pointer]),
            E::Unary { expr, .. } | E::As { expr, .. } => any(&[*expr]),
            E::Binary { left, right, .. } => any(&[*left, *right]),
            E::Select {
                condition,
                accept,
                reject,
            } => any(&[*condition, *accept, *reject]),
            E::Relational { argument, .. } => any(&[*argument]),
            E::Math {
                arg,
                arg1,
                arg2,
                arg3,
                ..
            } => {
                any(&[*arg])
                    || [arg1, arg2, arg3]
                        .into_iter()
                        .flatten()
                        .any(|&arg| any(&[arg]))
            }
            E::CallResult(_) => self.results.get(&expression).copied().unwrap_or(false),
            // Workgroup-uniform by definition.
            E::WorkGroupUniformLoadResult { .. } => false,
            _ => true,
        }
    }

    /// The local variable that a pointer points into.
    fn local(&self, pointer: Handle<Expression>) -> Option<Handle<LocalVariable>> {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(variable) => Some(variable),
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
                self.local(base)
            }
            _ => None,
        }
    }

    fn block(&mut self, block: &Block, mut mixed: bool) -> Exits {
        let mut exits = Exits::default();
        for statement in block {
            let left = self.statement(statement, mixed);
            // Who stayed runs on without those who left.
            mixed |= left.any();
            exits.returns |= left.returns;
            exits.breaks |= left.breaks;
        }
        exits
    }

    fn statement(&mut self, statement: &Statement, mixed: bool) -> Exits {
        let mut exits = Exits::default();
        match statement {
            Statement::Block(block) => return self.block(block, mixed),
            Statement::If {
                condition,
                accept,
                reject,
            } => {
                let inner = mixed || self.is_mixed(*condition);
                for block in [accept, reject] {
                    let left = self.block(block, inner);
                    exits.returns |= left.returns;
                    exits.breaks |= left.breaks;
                }
            }
            Statement::Switch { selector, cases } => {
                let inner = mixed || self.is_mixed(*selector);
                for SwitchCase { body, .. } in cases {
                    // A break leaves only the switch.
                    exits.returns |= self.block(body, inner).returns;
                }
            }
            Statement::Loop {
                body,
                continuing,
                break_if,
            } => {
                let mut inner = mixed;
                loop {
                    let mut left = self.block(body, inner);
                    let after = self.block(continuing, inner || left.any());
                    left.returns |= after.returns;
                    left.breaks |= after.breaks || break_if.is_some_and(|end| self.is_mixed(end));
                    exits.returns |= left.returns;
                    // Some are in later rounds than others: the whole body is mixed.
                    if inner || !left.any() {
                        break;
                    }
                    inner = true;
                }
            }
            Statement::Break | Statement::Continue => exits.breaks = mixed,
            Statement::Return { value } => {
                exits.returns = mixed;
                self.returns_mixed |= mixed || value.is_some_and(|value| self.is_mixed(value));
            }
            Statement::ControlBarrier(_) if mixed => {
                self.found
                    .push(format!("{} has a barrier in mixed code", self.name));
            }
            Statement::Store { pointer, value }
                if mixed || self.is_mixed(*value) || self.is_mixed(*pointer) =>
            {
                self.locals.extend(self.local(*pointer));
            }
            Statement::Call {
                function,
                arguments,
                result,
            } => {
                // What a callee does through a pointer is not followed.
                let pointers: Vec<_> = arguments
                    .iter()
                    .filter_map(|&argument| self.local(argument))
                    .collect();
                self.locals.extend(pointers);
                let callee = &self.module.functions[*function];
                let arguments = arguments
                    .iter()
                    .map(|&argument| self.is_mixed(argument))
                    .collect();
                let returned = Walk {
                    module: self.module,
                    name: callee.name.clone().unwrap_or_default(),
                    function: callee,
                    arguments,
                    locals: HashSet::new(),
                    results: HashMap::new(),
                    returns_mixed: false,
                    found: &mut *self.found,
                }
                .function(mixed);
                if let Some(result) = result {
                    let before = self.results.get(result).copied().unwrap_or(false);
                    self.results.insert(*result, before || returned);
                }
            }
            _ => {}
        }
        exits
    }
}

#[cfg(test)]
mod tests {
    use anybit::wgpu::Features;

    use super::*;

    fn mixed(body: &str) -> bool {
        let wgsl = format!(
            "struct Params {{ k: u32 }}
            @group(0) @binding(0) var<uniform> params: Params;
            @group(0) @binding(1) var<storage, read_write> output: array<u32>;
            var<workgroup> cells: array<u32, 8>;
            fn wait(x: u32) -> u32 {{ workgroupBarrier(); return x; }}
            fn early(x: u32) -> u32 {{ if (x > 3u) {{ return 1u; }} workgroupBarrier(); return 2u; }}
            @compute @workgroup_size(8)
            fn main(
                @builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32,
                @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32,
            ) {{
                {body}
                output[local] = cells[local];
            }}"
        );
        let shader =
            Shader::new(&wgsl, Features::SUBGROUP).unwrap_or_else(|error| panic!("{error}"));
        !barriers_in_mixed_code(&shader).is_empty()
    }

    #[test]
    fn barriers_that_some_miss_are_found() {
        for body in [
            "if (local < 4u) { workgroupBarrier(); }",
            "if (local < 4u) { return; } workgroupBarrier();",
            "for (var i = local; i < 8u; i++) { workgroupBarrier(); }",
            "for (var i = 0u; i < 8u; i++) { workgroupBarrier(); if (i == local) { break; } }",
            "for (var i = 0u; i < 8u; i++) { if (i == local) { continue; } workgroupBarrier(); }",
            "if (cells[0] == 0u) { workgroupBarrier(); }",
            "var x = 0u; if (local == 0u) { x = 1u; } if (x == 1u) { workgroupBarrier(); }",
            "let x = early(local);",
            "if (local == 0u) { let x = wait(group.x); }",
            "let x = wait(local); if (x == 0u) { workgroupBarrier(); }",
            "switch local { case 0u: { workgroupBarrier(); } default: {} }",
            "for (var i = subgroup; i < 8u; i += subgroups) { workgroupBarrier(); }",
        ] {
            assert!(mixed(body), "{body}");
        }
    }

    #[test]
    fn barriers_that_all_reach_are_not() {
        for body in [
            "workgroupBarrier();",
            "if (group.x > params.k) { return; } workgroupBarrier();",
            "for (var i = 0u; i < params.k; i++) { cells[local] = i; workgroupBarrier(); }",
            "for (var i = local; i < 8u; i++) { cells[i] = i; } workgroupBarrier();",
            "if (local < 4u) { cells[local] = 1u; } workgroupBarrier();",
            "var x = 0u; x += local; workgroupBarrier();",
            "let x = wait(local); let y = early(group.x);",
            "let x = wait(group.x); if (x == 0u) { workgroupBarrier(); }",
            "switch group.x { case 0u: { workgroupBarrier(); } default: {} }",
            "for (var i = 0u; i < 8u; i += subgroups) { workgroupBarrier(); }",
        ] {
            assert!(!mixed(body), "{body}");
        }
    }
}
