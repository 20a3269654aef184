//! Joins modules into one shader text.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use crate::constant::Constants;
use crate::error::{HEADER_MODULE, LinkError, Location};
use crate::header::Header;
use crate::line_map::LineMap;
use crate::modules::Modules;
use crate::scan::{DeclarationKind, ImportTarget, ScannedModule, scan};
use crate::tokens::{Token, is_upper_case};
use crate::unroll::{Emitter, Output};

/// The most lines a linked text may have; only unrolling gets there.
pub const MAX_LINES: usize = 20_000;

/// The longest chain of modules that import each other: bounds the recursion.
const MAX_IMPORTS: usize = 128;

/// What to link.
#[derive(Clone, Copy, Debug)]
pub struct LinkRequest<'a> {
    /// The module to begin with, such as `kernel/gemv_dot4`.
    pub root: &'a str,
    /// For each slot that a linked file imports, the module that fills it: `("weight_format", "format/affine")`.
    pub slots: &'a [(&'a str, &'a str)],
    /// The constants and aliases that specialise the kernel.
    pub header: &'a Header,
}

/// A linked shader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The WGSL text.
    pub wgsl: String,
    /// From its lines to the modules' lines.
    pub line_map: LineMap,
}

/// Links embedded modules, up to [`MAX_LINES`] lines.
///
/// # Errors
///
/// A [`LinkError`] that names file and line if an import, slot, directive, unrolled loop or header line is not as it must
/// be, or if two declarations have one name. The text is not checked beyond that: whether it is valid WGSL is for the
/// shader compiler to say.
pub fn link(request: &LinkRequest<'_>) -> Result<Linked, LinkError> {
    static EMBEDDED: LazyLock<Modules<'static>> = LazyLock::new(Modules::embedded);
    EMBEDDED.link(request)
}

impl Modules<'_> {
    /// Links modules of this set, up to [`MAX_LINES`] lines.
    ///
    /// # Errors
    ///
    /// As [`link`].
    pub fn link(&self, request: &LinkRequest<'_>) -> Result<Linked, LinkError> {
        self.link_within(request, MAX_LINES)
    }

    /// Links modules of this set into a text of at most `max_lines` lines.
    ///
    /// # Errors
    ///
    /// As [`link`].
    pub fn link_within(
        &self,
        request: &LinkRequest<'_>,
        max_lines: usize,
    ) -> Result<Linked, LinkError> {
        request.header.check()?;
        let instances = Resolver::resolve(self, request)?;
        let declared = check_symbols(&instances, request.header)?;
        check_needs(&instances, &declared)?;
        emit(&instances, request.header, max_lines)
    }
}

/// A module as it is joined: under a prefix, which is empty for modules imported by name.
struct Instance<'a> {
    name: &'a str,
    prefix: &'a str,
    module: ScannedModule<'a>,
}

impl Instance<'_> {
    fn at(&self, line: u32) -> Location {
        Location::new(self.name, line)
    }

    /// What the module's name `name` for something outside is called in the linked text.
    fn outside_name(&self, name: &str) -> String {
        if is_upper_case(name) {
            format!("{}{name}", self.prefix.to_ascii_uppercase())
        } else {
            format!("{}{name}", self.prefix)
        }
    }

    /// Renames the tokens as the prefix demands; members and attributes keep their names.
    fn rename(&mut self, header: &Header) -> Result<(), LinkError> {
        let module = &self.module;
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for declaration in &module.declarations {
            let name = module.tokens[declaration.name].text.to_string();
            let renamed = format!("{}{name}", self.prefix);
            names.insert(name, renamed);
        }
        for need in &module.needs {
            if module
                .declarations
                .iter()
                .any(|declaration| module.tokens[declaration.name].is(need.name))
            {
                return Err(LinkError::NeedDeclared {
                    at: self.at(need.line),
                    name: need.name.to_owned(),
                });
            }
            names.insert(need.name.to_owned(), self.outside_name(need.name));
        }
        if self.prefix.is_empty() {
            return Ok(());
        }
        for index in 0..self.module.tokens.len() {
            let token = &self.module.tokens[index];
            if !token.is_identifier() || token.fixed || token.hoisted {
                continue;
            }
            let renamed = match names.get(&*token.text) {
                Some(name) => name.clone(),
                None if is_upper_case(&token.text) => {
                    let name = self.outside_name(&token.text);
                    if !header.contains(&name) {
                        continue;
                    }
                    name
                }
                None => continue,
            };
            self.module.tokens[index].text = Cow::Owned(renamed);
        }
        Ok(())
    }
}

/// Finds the modules of a link, in dependency order.
struct Resolver<'a> {
    modules: &'a Modules<'a>,
    request: &'a LinkRequest<'a>,
    slots: BTreeMap<&'a str, &'a str>,
    used_slots: BTreeSet<&'a str>,
    /// Modules and prefixes that are joined already.
    finished: BTreeSet<(&'a str, &'a str)>,
    /// Modules and prefixes whose imports are being followed.
    open: Vec<(&'a str, &'a str)>,
    instances: Vec<Instance<'a>>,
}

impl<'a> Resolver<'a> {
    fn resolve(
        modules: &'a Modules<'a>,
        request: &'a LinkRequest<'a>,
    ) -> Result<Vec<Instance<'a>>, LinkError> {
        let mut slots = BTreeMap::new();
        for &(slot, module) in request.slots {
            if slots.insert(slot, module).is_some() {
                return Err(LinkError::DuplicateSlotArgument {
                    slot: slot.to_owned(),
                });
            }
        }
        let mut resolver = Self {
            modules,
            request,
            slots,
            used_slots: BTreeSet::new(),
            finished: BTreeSet::new(),
            open: Vec::new(),
            instances: Vec::new(),
        };
        let text = modules
            .text(request.root)
            .ok_or_else(|| LinkError::UnknownRoot {
                name: request.root.to_owned(),
            })?;
        resolver.visit(request.root, text, "", false)?;
        match resolver
            .slots
            .keys()
            .find(|slot| !resolver.used_slots.contains(*slot))
        {
            Some(slot) => Err(LinkError::UnusedSlotArgument {
                slot: (*slot).to_owned(),
            }),
            None => Ok(resolver.instances),
        }
    }

    /// Joins the imports of a module, then the module.
    fn visit(
        &mut self,
        name: &'a str,
        text: &'a str,
        prefix: &'a str,
        fills_slot: bool,
    ) -> Result<(), LinkError> {
        let module = scan(name, text)?;
        self.open.push((name, prefix));
        for import in &module.imports {
            let at = || Location::new(name, import.line);
            let (target, target_prefix) = match import.target {
                ImportTarget::Module(target) => (target, ""),
                ImportTarget::Slot { slot, .. } if fills_slot => {
                    return Err(LinkError::SlotInSlot {
                        at: at(),
                        slot: slot.to_owned(),
                    });
                }
                ImportTarget::Slot { slot, prefix } => match self.slots.get(slot) {
                    Some(target) => {
                        self.used_slots.insert(slot);
                        (*target, prefix)
                    }
                    None => {
                        return Err(LinkError::UnfilledSlot {
                            at: at(),
                            slot: slot.to_owned(),
                        });
                    }
                },
            };
            let key = (target, target_prefix);
            if self.finished.contains(&key) {
                continue;
            }
            if let Some(start) = self.open.iter().position(|open| *open == key) {
                let circle = self.open[start..].iter().chain([&key]);
                return Err(LinkError::ImportCycle {
                    at: at(),
                    path: circle.map(|(name, _)| (*name).to_owned()).collect(),
                });
            }
            let Some(text) = self.modules.text(target) else {
                return Err(match import.target {
                    ImportTarget::Module(_) => LinkError::UnknownImport {
                        at: at(),
                        name: target.to_owned(),
                    },
                    ImportTarget::Slot { slot, .. } => LinkError::UnknownSlotModule {
                        at: at(),
                        slot: slot.to_owned(),
                        name: target.to_owned(),
                    },
                });
            };
            if self.open.len() >= MAX_IMPORTS {
                return Err(LinkError::ImportTooDeep {
                    at: at(),
                    name: target.to_owned(),
                    limit: MAX_IMPORTS,
                });
            }
            let fills_slot = matches!(import.target, ImportTarget::Slot { .. });
            self.visit(target, text, target_prefix, fills_slot)?;
        }
        self.open.pop();
        self.finished.insert((name, prefix));
        let mut instance = Instance {
            name,
            prefix,
            module,
        };
        instance.rename(self.request.header)?;
        self.instances.push(instance);
        Ok(())
    }
}

/// Collects all names of the linked text and refuses those declared twice.
fn check_symbols(
    instances: &[Instance<'_>],
    header: &Header,
) -> Result<BTreeMap<String, Location>, LinkError> {
    let mut declared = BTreeMap::new();
    for (name, line) in header.names().zip(1..) {
        declared.insert(name.to_owned(), Location::new(HEADER_MODULE, line));
    }
    for instance in instances {
        for declaration in &instance.module.declarations {
            let token = &instance.module.tokens[declaration.name];
            let second = instance.at(token.line);
            if let Some(first) = declared.insert(token.text.to_string(), second.clone()) {
                return Err(LinkError::DuplicateSymbol {
                    name: token.text.to_string(),
                    first,
                    second,
                });
            }
        }
    }
    Ok(declared)
}

fn check_needs(
    instances: &[Instance<'_>],
    declared: &BTreeMap<String, Location>,
) -> Result<(), LinkError> {
    for instance in instances {
        for need in &instance.module.needs {
            let name = instance.outside_name(need.name);
            if !declared.contains_key(&name) {
                return Err(LinkError::UnmetNeed {
                    at: instance.at(need.line),
                    name,
                });
            }
        }
    }
    Ok(())
}

fn emit(
    instances: &[Instance<'_>],
    header: &Header,
    max_lines: usize,
) -> Result<Linked, LinkError> {
    let mut names = vec![HEADER_MODULE.to_owned()];
    names.extend(instances.iter().map(|instance| instance.name.to_owned()));
    let mut output = Output::new(max_lines);

    let mut hoisted = BTreeSet::new();
    for (index, instance) in instances.iter().enumerate() {
        for range in &instance.module.hoisted {
            let tokens = &instance.module.tokens[range.clone()];
            let text = statement_text(tokens);
            let line = tokens.first().map(|first| (index + 1, first.line));
            if !hoisted.contains(&text) {
                output.line(&text, line);
                hoisted.insert(text);
            }
        }
    }
    for (line, number) in header.to_string().lines().zip(1..) {
        output.line(line, Some((0, number)));
    }

    let constants = Constants::new(
        header,
        instances.iter().flat_map(|instance| {
            let constants = instance
                .module
                .declarations
                .iter()
                .filter(|declaration| declaration.kind == DeclarationKind::Constant);
            constants.map(|declaration| &instance.module.tokens[declaration.tokens.clone()])
        }),
    );
    for (index, instance) in instances.iter().enumerate() {
        if !output.is_empty() {
            output.line("", None);
        }
        let title = if instance.prefix.is_empty() {
            format!("// {}", instance.name)
        } else {
            format!("// {} as {}", instance.name, instance.prefix)
        };
        output.line(&title, None);
        Emitter::new(
            instance.name,
            index + 1,
            &instance.module,
            &constants,
            &mut output,
        )
        .emit_module()?;
    }
    let (wgsl, lines) = output.finish();
    Ok(Linked {
        wgsl,
        line_map: LineMap {
            modules: names,
            lines,
        },
    })
}

/// A statement on one line, spaced the same however it was written.
fn statement_text(tokens: &[Token<'_>]) -> String {
    let mut text = String::new();
    for (index, token) in tokens.iter().enumerate() {
        let glued = index == 0
            || token.is(";")
            || token.is(",")
            || token.is(")")
            || token.is("(")
            || token.is(".")
            || tokens[index - 1].is("(")
            || tokens[index - 1].is(".");
        if !glued {
            text.push(' ');
        }
        text.push_str(&token.text);
    }
    text
}
