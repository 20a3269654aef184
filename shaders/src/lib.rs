//! The WGSL modules of anybit and the linker that joins them.
//!
//! Every file under `wgsl/` is WGSL in syntax. What a file needs of others stands on top of it, in comments that begin
//! with `//#`; WGSL does not care for the order of declarations, so linking is joining.
//!
//! | directive | meaning |
//! |---|---|
//! | `//#import core/index` | join that module, once however often it is imported |
//! | `//#import slot:weight_format as w_` | join the module that the request names for this slot, under the prefix `w_` (`as …` may be left out: no prefix) |
//! | `//#needs codes side` | names that another linked file or the header must declare, under this module's prefix |
//! | `//#unroll` | write out the `for` loop that follows |
//!
//! The first three stand before all code.
//!
//! # Slots
//!
//! Several modules declare the same functions, each for another number format, engine or capability. A kernel imports a
//! *slot*, and the request says which module fills it. The module is joined under the slot's prefix: with `w_`,
//!
//! * every name it declares at module scope gains the prefix (`fmt_load` becomes `w_fmt_load`);
//! * every name it lists in `//#needs` does too (`codes` becomes `w_codes`), and must be declared elsewhere;
//! * an `UPPER_CASE` name it does not declare becomes the header's constant of that name under the prefix in upper case,
//!   if there is one (`BITS` becomes `W_BITS`).
//!
//! So one module can fill several slots of a kernel. What it imports by name is shared and keeps its names.
//!
//! # Header
//!
//! [`Header`] is the one block of generated text: constants and aliases that specialise a kernel.
//!
//! # Unrolling
//!
//! Register tiles must be unrolled, which WGSL cannot say and compilers do unevenly. After `//#unroll`, a loop
//! `for (var i = A; i < B; i++)` (or `<=`, `i += S`, and with a type after the name) becomes a copy of its body for each
//! value of the counter, with the counter replaced by a literal of its type; in braces if the body declares names. The
//! bounds are expressions of integer literals, header constants, module-scope `const` declarations and the counters of
//! unrolled loops outside, with `+ - * / %`, parentheses, `u32(…)` and `i32(…)`.
//!
//! Such expressions between brackets or commas inside the loop are written as their values, and a `let` of one vanishes:
//! `sum[8u * i + j]` becomes `sum[11u]`. Compilers of WGSL make an object of every literal and operator, and naga takes
//! time that grows with the square of their number in a function.
//!
//! # Linked text
//!
//! `enable`, `requires` and `diagnostic` statements come first, each once; then the header; then the modules, each after
//! the ones it imports. Comments are left out, so that editing one changes no pipeline's key; indentation is kept.
//! [`LineMap`] leads from its lines back to the modules.
//!
//! ```
//! use anybit_shaders::{Header, LinkRequest, Modules};
//!
//! let modules = Modules::new()
//!     .with("format/affine", "fn fmt_decode(code: u32) -> u32 { return code & ((1u << BITS) - 1u); }")
//!     .with(
//!         "kernel/sum",
//!         "//#import slot:weight_format as w_
//! fn sum(codes: array<u32, TILE>) -> u32 {
//!     var total = 0u;
//!     //#unroll
//!     for (var i = 0u; i < TILE; i++) { total += w_fmt_decode(codes[i]); }
//!     return total;
//! }",
//!     );
//! let header = Header::new().constant_u32("TILE", 2).constant_u32("W_BITS", 4);
//! let linked = modules.link(&LinkRequest {
//!     root: "kernel/sum",
//!     slots: &[("weight_format", "format/affine")],
//!     header: &header,
//! })?;
//! assert!(linked.wgsl.contains("return code & ((1u << W_BITS) - 1u);"));
//! assert!(linked.wgsl.contains("    total += w_fmt_decode(codes[1u]);"));
//! # Ok::<(), anybit_shaders::LinkError>(())
//! ```

mod constant;
mod error;
mod header;
mod line_map;
mod link;
mod modules;
mod scan;
#[cfg(test)]
mod tests;
mod tokens;
mod unroll;

pub use error::{HEADER_MODULE, LinkError, Location};
pub use header::Header;
pub use line_map::LineMap;
pub use link::{LinkRequest, Linked, MAX_LINES, link};
pub use modules::{MODULES, Modules};
