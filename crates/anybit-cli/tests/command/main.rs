//! The command as a black box.

mod format;
mod generate;
mod hostile;
mod info;
mod language;
mod matmul;
mod pack;
mod perplexity;
mod quantize;
mod support;
mod sweep;

#[path = "../../../anybit-llm/tests/common/sample_file.rs"]
mod sample_file;
#[path = "../../../anybit-llm/tests/model/tiny/mod.rs"]
#[expect(dead_code, reason = "the library's tests use more of it")]
mod tiny;
