//! The GPU-against-reference matrix: every contract of a list by every kind of kernel, on one adapter, a small case each.
//!
//! An operand's words depend on the contract alone, so what is exact is equal on all adapters, and a report keeps a digest of
//! it. The reports of several adapters make docs/adapters.md ([`table`]).

pub mod contracts;
pub mod report;
pub mod run;
pub mod table;
