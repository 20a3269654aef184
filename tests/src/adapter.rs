//! Which adapters the GPU tests run on.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use anybit::{ContextOptions, wgpu};

/// The adapters that the environment asks for. Empty if there is none and none is required, which is then reported as a
/// skip of `test`.
///
/// # Panics
///
/// If no adapter fits although `ANYBIT_REQUIRE_ADAPTER=1`, or although one was asked for by backend or name.
pub fn selected(test: &str) -> Vec<wgpu::Adapter> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (backend, name) = (variable("ANYBIT_BACKEND"), variable("ANYBIT_ADAPTER"));
    let mut options = ContextOptions::default();
    if let Some(backend) = &backend {
        let backends =
            parse_backend(backend).unwrap_or_else(|error| panic!("ANYBIT_BACKEND: {error}"));
        options = options.with_backends(backends);
    }
    if let Some(name) = &name {
        options = options.with_adapter(name);
    }
    let mut found =
        pollster::block_on(anybit::adapters(&options)).expect("the tests are built with backends");
    if found.is_empty() {
        let required = variable("ANYBIT_REQUIRE_ADAPTER").as_deref() == Some("1");
        assert!(
            !required && backend.is_none() && name.is_none(),
            "{test}: no adapter (backend {backend:?}, name {name:?}); found {:?}",
            names(
                &pollster::block_on(anybit::adapters(&ContextOptions::default()))
                    .unwrap_or_default()
            ),
        );
        skip(test, "there is no adapter with compute shaders");
    }
    if variable("ANYBIT_ALL_ADAPTERS").as_deref() != Some("1") {
        found.truncate(1);
    }
    found
}

/// Notes on stderr, past the capturing of test output, that a test or a part of one did not run.
pub fn skip(test: &str, reason: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "SKIP {count}: {test}: {reason}");
}

/// An adapter's name with its backend and driver.
pub fn describe(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    format!(
        "{} ({}, {} {})",
        info.name, info.backend, info.driver, info.driver_info
    )
}

fn names(adapters: &[wgpu::Adapter]) -> Vec<String> {
    adapters.iter().map(describe).collect()
}

/// The graphics APIs of a list such as `vulkan` or `gl,metal`.
///
/// # Errors
///
/// If there is none of these names.
pub fn parse_backend(name: &str) -> Result<wgpu::Backends, String> {
    let backends = wgpu::Backends::from_comma_list(name);
    match backends.is_empty() {
        true => Err(format!(
            "`{name}` is no backend; there are vulkan, metal, dx12 and gl"
        )),
        false => Ok(backends),
    }
}
