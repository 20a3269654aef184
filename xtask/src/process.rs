//! Running other programs.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Why a task failed: a message for the user and the exit code of the process.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
        }
    }

    /// A failure that the caller tells from others by its exit code.
    pub(crate) fn with_code(message: impl Into<String>, code: u8) -> Self {
        Self {
            message: message.into(),
            code,
        }
    }

    /// A program that ended with `status`; its exit code is handed on.
    fn of_status(command: &Command, status: ExitStatus) -> Self {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Self {
            message: format!("`{}` ended with {status}", line(command)),
            code: code.filter(|code| *code != 0).unwrap_or(1),
        }
    }

    /// Says which step of a longer task this happened in.
    pub(crate) fn in_step(mut self, step: &str) -> Self {
        self.message = format!("step `{step}` failed: {}", self.message);
        self
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// The root of the repository: the folder above this package.
pub(crate) fn repository_root() -> PathBuf {
    // Cargo sets the variable for `cargo run`; the compiled-in path serves a directly started binary.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_path_buf)
}

/// The cargo that started this process, or the one on the path.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program in the folder of the profile, next to the folder that this program is in.
pub(crate) fn built_program(name: &str, profile: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let folder = own.parent()?.with_file_name(profile);
    let program = folder.join(format!("{name}{}", env::consts::EXE_SUFFIX));
    program.is_file().then_some(program)
}

/// Prints the command line, then runs it with this process's input and output.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    println!("$ {}", line(command));
    let status = command
        .status()
        .map_err(|error| cannot_start(command, &error))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::of_status(command, status))
    }
}

/// Runs a command out of sight and returns what it wrote to standard output. If it fails, the failure tells all that it wrote.
pub(crate) fn capture(command: &mut Command) -> Result<String, Failure> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| cannot_start(command, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut failure = Failure::of_status(command, output.status);
    for bytes in [&output.stdout, &output.stderr] {
        let detail = String::from_utf8_lossy(bytes);
        if !detail.trim().is_empty() {
            failure.message = format!("{}\n{}", failure.message, detail.trim_end());
        }
    }
    Err(failure)
}

fn cannot_start(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot start `{}`: {error}", line(command)))
}

/// The command as it would be typed into a shell, variables first.
pub(crate) fn line(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)))
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), quoted(value)));
    let program = Path::new(command.get_program());
    // The full path of cargo says nothing that the reader needs.
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program)
        .chain(command.get_args())
        .map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "-_=./:,+@%\\~".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A line for the system's shell, of what both kinds understand.
#[cfg(test)]
pub(crate) fn shell(line: &str) -> Command {
    let (program, flag) = match cfg!(windows) {
        true => ("cmd", "/C"),
        false => ("sh", "-c"),
    };
    let mut command = Command::new(program);
    command.args([flag, line]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_can_be_pasted() {
        let mut command = Command::new("/opt/rust/bin/cargo");
        command
            .args(["test", "--", "it's", "gemm_*", ""])
            .env("RUSTDOCFLAGS", "-D warnings")
            .env_remove("ANYBIT_ADAPTER");
        assert_eq!(
            line(&command),
            r"RUSTDOCFLAGS='-D warnings' cargo test -- 'it'\''s' 'gemm_*' ''"
        );
    }

    #[test]
    fn what_a_failing_program_wrote_is_told() {
        let mut command = shell("echo FAILED a case&& echo error: reason>&2&& exit 3");
        let failure = capture(&mut command).expect_err("it fails");
        assert_eq!(failure.code(), 3);
        let text = failure.to_string();
        let lines: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
        assert_eq!(lines, ["FAILED a case", "error: reason"]);
    }

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(repository_root().join("xtask/Cargo.toml").is_file());
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let failure =
            run(&mut Command::new("anybit-no-such-program")).expect_err("there is no such program");
        assert!(failure.to_string().contains("anybit-no-such-program"));
    }
}
