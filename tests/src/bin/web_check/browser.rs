//! A Chromium without a window, with a profile of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// What makes WebGPU work where there is no GPU, no display and no user.
const FLAGS: [&str; 8] = [
    "--headless=new",
    // It sees no page but ours, and its sandbox does not start for root.
    "--no-sandbox",
    // WebGPU is off by default on Linux, and where there is no GPU.
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--no-first-run",
    "--disable-extensions",
    // Containers keep little shared memory.
    "--disable-dev-shm-usage",
];

/// A running browser, which ends with this value.
#[derive(Debug)]
pub(crate) struct Browser {
    process: Child,
    // Removed after the browser has ended.
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser on a page.
    pub(crate) fn start(program: &Path, address: &str) -> Result<Self, String> {
        let profile = tempfile::Builder::new().prefix("anybit-web-").tempdir();
        let profile = profile.map_err(|error| format!("no folder for a profile: {error}"))?;
        let process = Command::new(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        Ok(Self {
            process,
            _profile: profile,
        })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.process.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("the browser ended with {status}")),
            Err(error) => Some(format!("the browser cannot be asked how it is: {error}")),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
