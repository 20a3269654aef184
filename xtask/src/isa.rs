//! `cargo xtask isa`, which `anybit-benches` carries out.

use std::ffi::OsString;

use crate::bench;
use crate::cli::IsaArguments;
use crate::process::Failure;

/// The exit code of `anybit-benches` for what this machine cannot do, with nothing wrong. It has said why.
pub(crate) const SKIPPED: u8 = 77;

/// Forwards the flags.
pub(crate) fn run(arguments: &IsaArguments) -> Result<(), Failure> {
    if let Some(file) = &arguments.json {
        bench::check_writable_place(file)?;
    }
    match bench::forward("isa", arguments.forwarded()) {
        // Nothing was written, so an update that did not happen is no success.
        Err(failure) if failure.code() == SKIPPED && !arguments.update => Ok(()),
        other => other,
    }
}

impl IsaArguments {
    /// The flags as `anybit-benches isa` takes them.
    fn forwarded(&self) -> Vec<OsString> {
        let mut flags: Vec<OsString> = Vec::new();
        if let Some(contract) = &self.contract {
            flags.extend(["--contract".into(), contract.into()]);
        }
        if !self.family.is_empty() {
            let names: Vec<&str> = self.family.iter().map(|family| family.name()).collect();
            flags.extend(["--family".into(), names.join(",").into()]);
        }
        if let Some(file) = &self.json {
            flags.extend(["--json".into(), file.into()]);
        }
        if let Some(id) = &self.print {
            flags.extend(["--print".into(), id.into()]);
        }
        if self.check {
            flags.push("--check".into());
        }
        if self.update {
            flags.push("--update".into());
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Task};

    fn forwarded(line: &str) -> Vec<OsString> {
        match Cli::try_parse_from(line.split(' ')).map(|cli| cli.task) {
            Ok(Task::Isa(arguments)) => arguments.forwarded(),
            other => panic!("expected a report, got {other:?}"),
        }
    }

    #[test]
    fn every_flag_is_handed_on() {
        let report = "--contract gemm_* --family gfx1100,vega10 --json a.jsonl";
        for flags in [
            report,
            "--family navi21 --print gemm_a__b",
            "--check",
            "--update",
        ] {
            let line = format!("xtask isa {flags}");
            assert_eq!(forwarded(&line).join(" ".as_ref()), flags);
        }
        assert_eq!(forwarded("xtask isa"), [""; 0]);
    }
}
