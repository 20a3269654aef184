//! Compiling in a process of its own, one for each family: the family is chosen by a variable that the driver reads once,
//! and a driver that crashes or never ends takes no report with it.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::family::Family;
use super::spirv::Shader;
use super::vulkan::{Binding, Compiled, Device, VulkanError};
use crate::Error;

/// The hidden task of this program that a compiler's process runs.
pub(crate) const TASK: &str = "isa-compiler";

/// Names the driver's manifest where it is in none of the usual folders.
const MANIFEST_VARIABLE: &str = "ANYBIT_RADV";

/// The longest that a driver may take over a kernel, or to start. Nobody would wait for it longer either.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The same for kernels of which a busy machine is a likelier reason than the driver.
pub(super) const MUCH_PATIENCE: Duration = Duration::from_secs(600);

/// The first line that a compiler writes.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    driver: String,
}

/// The line that a compiler writes for each shader that it reads.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    statistics: BTreeMap<String, u64>,
    subgroup_size: u32,
    assembly: String,
    /// Empty if it went well.
    failure: String,
}

/// The manifest of Mesa's driver for Radeon GPUs, where the loader would look for it too.
pub(super) fn manifest() -> Option<PathBuf> {
    let named = env::var_os(MANIFEST_VARIABLE).filter(|name| !name.is_empty());
    if let Some(name) = named {
        return Some(name.into()).filter(|path: &PathBuf| path.is_file());
    }
    let folders = ["/etc", "/usr/local/etc", "/usr/local/share", "/usr/share"];
    folders
        .iter()
        .filter_map(|folder| Path::new(folder).join("vulkan/icd.d").read_dir().ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.path())
        .filter(|path| is_manifest(path))
        // Where there are several, the one for this processor.
        .max_by_key(|path| path.to_string_lossy().contains(env::consts::ARCH))
}

fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("radeon_icd") && name.ends_with(".json")
}

/// A process that compiles shaders for a family.
pub(super) struct Compiler {
    family: Family,
    child: Child,
    shaders: BufWriter<ChildStdin>,
    lines: Receiver<io::Result<String>>,
    patience: Duration,
    /// `Mesa 22.3.6`.
    pub(super) driver: String,
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // It may have ended already, and has nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Compiler {
    /// Starts this program again, with the driver and the family in its environment.
    ///
    /// # Errors
    ///
    /// [`Error::Compiler`].
    pub(super) fn start(
        family: Family,
        manifest: &Path,
        patience: Duration,
    ) -> Result<Self, Error> {
        let broken = |message: String| Error::Compiler {
            family: family.name(),
            message,
        };
        let program = env::current_exe().map_err(|error| broken(error.to_string()))?;
        let mut child = Command::new(program)
            .arg(TASK)
            .env("RADV_FORCE_FAMILY", family.name())
            // The loader's variable, and the one that older loaders know.
            .env("VK_DRIVER_FILES", manifest)
            .env("VK_ICD_FILENAMES", manifest)
            .env("MESA_SHADER_CACHE_DISABLE", "true")
            // What is measured is what the driver does if left alone.
            .env_remove("RADV_DEBUG")
            .env_remove("RADV_PERFTEST")
            .env_remove("ACO_DEBUG")
            .env_remove("VK_INSTANCE_LAYERS")
            .env("VK_LOADER_LAYERS_DISABLE", "~all~")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The driver warns that such a device is not for use.
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| broken(error.to_string()))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| broken("it has no pipes".to_owned()))?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut compiler = Self {
            family,
            child,
            shaders: BufWriter::new(stdin),
            lines,
            patience,
            driver: String::new(),
        };
        let line = compiler.line()?;
        let greeting: Greeting = serde_json::from_str(&line).map_err(|_| broken(line))?;
        compiler.driver = greeting.driver;
        Ok(compiler)
    }

    /// Compiles a kernel's shader.
    ///
    /// # Errors
    ///
    /// [`Error::Compiler`]; it is of no use afterwards.
    pub(super) fn compile(&mut self, kernel: &str, shader: &Shader) -> Result<Compiled, Error> {
        let sent = write_shader(&mut self.shaders, shader).and_then(|()| self.shaders.flush());
        sent.map_err(|error| self.broken(format!("{kernel}: {error}")))?;
        let line = self.line().map_err(|error| match error {
            Error::Compiler { message, .. } => self.broken(format!("{kernel}: {message}")),
            other => other,
        })?;
        let reply: Reply = serde_json::from_str(&line)
            .map_err(|error| self.broken(format!("{kernel}: {error}")))?;
        if !reply.failure.is_empty() {
            return Err(self.broken(format!("{kernel}: {}", reply.failure)));
        }
        Ok(Compiled {
            statistics: reply.statistics,
            subgroup_size: reply.subgroup_size,
            assembly: reply.assembly,
        })
    }

    fn broken(&self, message: String) -> Error {
        Error::Compiler {
            family: self.family.name(),
            message,
        }
    }

    fn line(&mut self) -> Result<String, Error> {
        match self.lines.recv_timeout(self.patience) {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(error)) => Err(self.broken(error.to_string())),
            Err(RecvTimeoutError::Timeout) => Err(self.broken(format!(
                "the driver did not finish within {} seconds",
                self.patience.as_secs()
            ))),
            Err(RecvTimeoutError::Disconnected) => {
                let end = match self.child.wait() {
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                Err(self.broken(format!("the driver ended its process: {end}")))
            }
        }
    }
}

/// The task of a compiler's process: a line for each shader on standard input, until there are no more.
///
/// # Errors
///
/// [`Error::Pipe`]. What the driver cannot do is said in the lines.
pub(crate) fn serve() -> Result<(), Error> {
    let mut input = io::stdin().lock();
    let mut output = io::stdout().lock();
    let device = match Device::open() {
        Ok(device) => device,
        Err(error) => return Ok(writeln!(output, "{error}")?),
    };
    write_line(
        &mut output,
        &Greeting {
            driver: device.driver.clone(),
        },
    )?;
    while let Some(shader) = read_shader(&mut input)? {
        let reply = reply(device.compile(&shader.spirv, &shader.bindings));
        write_line(&mut output, &reply)?;
    }
    Ok(())
}

fn reply(compiled: Result<Compiled, VulkanError>) -> Reply {
    match compiled {
        Ok(compiled) => Reply {
            statistics: compiled.statistics,
            subgroup_size: compiled.subgroup_size,
            assembly: compiled.assembly,
            failure: String::new(),
        },
        Err(error) => Reply {
            statistics: BTreeMap::new(),
            subgroup_size: 0,
            assembly: String::new(),
            failure: error.to_string(),
        },
    }
}

fn write_line(output: &mut impl Write, line: &impl Serialize) -> Result<(), io::Error> {
    serde_json::to_writer(&mut *output, line)?;
    output.write_all(b"\n")?;
    output.flush()
}

/// Words: the number of bindings, the bindings, the number of words of SPIR-V, the SPIR-V.
fn write_shader(output: &mut impl Write, shader: &Shader) -> io::Result<()> {
    let bindings: Vec<u32> = shader
        .bindings
        .iter()
        .map(|binding| u32::from(*binding == Binding::Storage))
        .collect();
    for words in [&bindings, &shader.spirv] {
        output.write_all(&(words.len() as u32).to_le_bytes())?;
        for word in words {
            output.write_all(&word.to_le_bytes())?;
        }
    }
    Ok(())
}

/// The next shader; `None` at the end.
fn read_shader(input: &mut impl BufRead) -> io::Result<Option<Shader>> {
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let bindings = read_words(input)?
        .into_iter()
        .map(|word| match word {
            0 => Binding::Uniform,
            _ => Binding::Storage,
        })
        .collect();
    let spirv = read_words(input)?;
    Ok(Some(Shader { spirv, bindings }))
}

fn read_words(input: &mut impl Read) -> io::Result<Vec<u32>> {
    let mut word = [0; 4];
    input.read_exact(&mut word)?;
    let count = u32::from_le_bytes(word);
    (0..count)
        .map(|_| {
            input.read_exact(&mut word)?;
            Ok(u32::from_le_bytes(word))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shaders_pass_through_a_pipe() {
        let shaders = [
            Shader {
                spirv: vec![0x0723_0203, 7],
                bindings: vec![Binding::Uniform, Binding::Storage],
            },
            Shader {
                spirv: Vec::new(),
                bindings: Vec::new(),
            },
        ];
        let mut pipe = Vec::new();
        for shader in &shaders {
            write_shader(&mut pipe, shader).expect("a vector takes all");
        }
        let mut input = pipe.as_slice();
        for shader in shaders {
            assert_eq!(read_shader(&mut input).expect("whole"), Some(shader));
        }
        assert_eq!(read_shader(&mut input).expect("whole"), None);
        assert!(read_shader(&mut &pipe[..6]).is_err());
    }

    #[test]
    fn only_the_radeon_driver_will_do() {
        assert!(is_manifest(Path::new("/a/radeon_icd.x86_64.json")));
        assert!(is_manifest(Path::new("/a/radeon_icd.json")));
        assert!(!is_manifest(Path::new("/a/lvp_icd.x86_64.json")));
        assert!(!is_manifest(Path::new("/a/radeon_icd.x86_64.json.bak")));
    }
}
