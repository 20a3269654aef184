//! Every shader that a plan can ask for: links, validates for the features it declares, has the bindings that the
//! pipelines expect, translates to every language, and breaks no rule.

mod bindings;
mod completeness;
mod every;
mod web;
