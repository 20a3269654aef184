//! Runs the command, and makes and reads its files.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anybit::{ContextOptions, wgpu};
use serde_json::Value;

/// What a run left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The run of a command that must succeed.
    pub(crate) fn passed(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The errors of a command that must fail with this exit code, without a panic.
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains("error: "), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self.stderr
    }

    pub(crate) fn json(self) -> Value {
        let run = self.passed();
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
    }
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anybit"));
    command.args(arguments).stdin(Stdio::null());
    command
}

pub(crate) fn anybit(arguments: &[&str]) -> Run {
    run(&mut command(arguments))
}

fn run(command: &mut Command) -> Run {
    let output = command.output().expect("the command starts");
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A temporary folder, in which commands run.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the command in the folder. Words are parted by spaces.
    pub(crate) fn anybit(&self, line: &str) -> Run {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        run(command(arguments).current_dir(self.0.path()))
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("a writable folder");
    }

    pub(crate) fn write_f32(&self, name: &str, shape: &[usize], values: &[f32]) {
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.write(name, &npy("<f4", false, shape, &data));
    }

    /// The shape and values of a file that the command wrote.
    pub(crate) fn read_f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let bytes = std::fs::read(self.path(name)).expect("the command wrote a file");
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!((10 + length) % 64, 0, "values are aligned");
        let header = std::str::from_utf8(&bytes[10..10 + length]).expect("text");
        let rest = header
            .strip_prefix("{'descr': '<f4', 'fortran_order': False, 'shape': (")
            .unwrap_or_else(|| panic!("{header}"));
        let (shape, _) = rest.split_once(')').expect("a shape");
        let shape = shape
            .split(',')
            .map(str::trim)
            .filter(|axis| !axis.is_empty())
            .map(|axis| axis.parse().expect("a number"))
            .collect();
        let values = bytes[10 + length..]
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")))
            .collect();
        (shape, values)
    }

    /// The names of all files.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .expect("a readable folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into()
            })
            .collect();
        names.sort();
        names
    }
}

/// A .npy file.
pub(crate) fn npy(descr: &str, fortran_order: bool, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let axes: Vec<String> = shape.iter().map(|axis| format!("{axis},")).collect();
    let fortran_order = if fortran_order { "True" } else { "False" };
    npy_of_header(
        &format!(
            "{{'descr': '{descr}', 'fortran_order': {fortran_order}, 'shape': ({})}}\n",
            axes.concat()
        ),
        data,
    )
}

pub(crate) fn npy_of_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Values about 0, of many magnitudes. The same seed gives the same values.
pub(crate) fn values(count: usize, seed: u32) -> Vec<f32> {
    use anybit::formats::quantize::rounding::random;
    (0..count as u64)
        .map(|index| {
            let word = random(seed, index);
            let magnitude = (word >> 8) as f32 / 16_777_216.0;
            let scale = [1.0, 0.25, 2.0, 0.5][(word >> 4 & 3) as usize];
            if word & 1 == 0 {
                magnitude * scale
            } else {
                -magnitude * scale
            }
        })
        .collect()
}

/// Flags for the adapter that the environment asks for; `None`, reported as a skip, if there is
/// none and none is required.
pub(crate) fn adapter_flags(test: &str) -> Option<Vec<String>> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (backend, name) = (variable("ANYBIT_BACKEND"), variable("ANYBIT_ADAPTER"));
    let mut options = ContextOptions::default();
    let mut flags = Vec::new();
    if let Some(backend) = &backend {
        options = options.with_backends(match backend.as_str() {
            "vulkan" => wgpu::Backends::VULKAN,
            "metal" => wgpu::Backends::METAL,
            "dx12" => wgpu::Backends::DX12,
            "gl" => wgpu::Backends::GL,
            other => panic!("ANYBIT_BACKEND={other} is none of vulkan, metal, dx12, gl"),
        });
        flags.extend(["--backend".to_owned(), backend.clone()]);
    }
    if let Some(name) = &name {
        options = options.with_adapter(name);
        flags.extend(["--adapter".to_owned(), name.clone()]);
    }
    let found =
        pollster::block_on(anybit::adapters(&options)).expect("the tests are built with backends");
    if !found.is_empty() {
        return Some(flags);
    }
    let required = variable("ANYBIT_REQUIRE_ADAPTER").as_deref() == Some("1");
    assert!(
        !required && backend.is_none() && name.is_none(),
        "{test}: no adapter (backend {backend:?}, name {name:?})"
    );
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // Past the capturing of test output. A closed stderr is no reason to fail.
    let _ = writeln!(
        std::io::stderr(),
        "SKIP {count}: {test}: there is no adapter with compute shaders"
    );
    None
}
