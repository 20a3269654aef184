//! Adapters: choosing them, and listing what decides the choice of kernels.

use anybit::wgpu::{Adapter, Backend};
use anybit::{Caps, Context, ContextOptions, DeviceClass};

use crate::Error;
use crate::cli::AdapterChoice;

/// The adapters that a choice leaves, best first.
///
/// # Errors
///
/// [`anybit::Error::NoAdapter`], which lists what there is instead.
pub(crate) fn find(choice: &AdapterChoice) -> Result<Vec<Adapter>, Error> {
    let mut options = ContextOptions::default();
    if let Some(backend) = choice.backend {
        options = options.with_backends(backend.backends());
    }
    if let Some(name) = &choice.adapter {
        options = options.with_adapter(name);
    }
    let found = pollster::block_on(anybit::adapters(&options))?;
    if found.is_empty() {
        // The library's own error says what was wanted and what there is.
        return Err(match pollster::block_on(Context::request(&options)) {
            Err(error) => error.into(),
            Ok(_) => Error::AdapterVanished,
        });
    }
    Ok(found)
}

/// An API as the command line and the results call it.
pub(crate) fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Dx12 => "dx12",
        other => other.to_str(),
    }
}

/// `adapters`: one block of lines for each adapter.
///
/// # Errors
///
/// [`anybit::Error::NoAdapter`] if there is none.
pub(crate) fn list(choice: &AdapterChoice) -> Result<(), Error> {
    for (index, adapter) in find(choice)?.iter().enumerate() {
        if index > 0 {
            println!();
        }
        print(&Caps::of_adapter(adapter));
    }
    Ok(())
}

fn print(caps: &Caps) {
    println!("{} ({})", caps.name, backend_name(caps.backend));
    let line = |what: &str, value: String| println!("  {what:<26}{value}");
    line(
        "driver",
        if caps.driver.is_empty() {
            "not named".to_owned()
        } else {
            caps.driver.clone()
        },
    );
    line(
        "class",
        match caps.class {
            DeviceClass::Software => "software: shaders run on the CPU",
            _ => "GPU",
        }
        .to_owned(),
    );
    line(
        "subgroups",
        match caps.subgroup {
            Some((smallest, largest)) if smallest == largest => format!("{smallest} lanes"),
            Some((smallest, largest)) => format!("{smallest} to {largest} lanes"),
            None => "no: subgroup kernels are left out".to_owned(),
        },
    );
    line(
        "timestamps",
        if caps.timestamps { "yes" } else { "no" }.to_owned(),
    );
    line("storage binding", mebibytes(caps.max_binding));
    line("buffer", mebibytes(caps.max_buffer));
    line(
        "workgroup memory",
        format!("{} KiB", caps.max_workgroup_memory / 1024),
    );
    line("invocations a workgroup", caps.max_invocations.to_string());
    line("workgroups a dimension", caps.max_workgroups.to_string());
}

fn mebibytes(bytes: u64) -> String {
    format!("up to {} MiB", bytes >> 20)
}
