//! Prints what a GGUF file holds: `cargo run --example gguf_info -- model.gguf [tensor]`.
//!
//! With the name of a tensor, that tensor is read and its first values and its format are printed too.

use std::error::Error;
use std::process::ExitCode;

use anybit_import::gguf::{Array, GgufFile, Value};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: gguf_info model.gguf [tensor]");
        return ExitCode::FAILURE;
    };
    let tensor = arguments
        .next()
        .map(|name| name.to_string_lossy().into_owned());
    match print(&path, tensor.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn print(path: &std::ffi::OsStr, tensor: Option<&str>) -> Result<(), Box<dyn Error>> {
    let file = GgufFile::open(path)?;
    let architecture = file.metadata().optional::<&str>("general.architecture")?;
    println!(
        "GGUF version {}, architecture {}, alignment {}",
        file.version(),
        architecture.unwrap_or("not named"),
        file.alignment()
    );

    println!("\n{} metadata entries", file.metadata().len());
    for (key, value) in file.metadata().iter() {
        println!("  {key} = {}", describe(value));
    }

    println!("\n{} tensors (rows x columns)", file.tensors().len());
    for info in file.tensors() {
        let format = match info.tensor_type().matrix_format() {
            Some(format) => format.to_string(),
            None if info.tensor_type().is_readable() => "values".to_owned(),
            None => "not readable".to_owned(),
        };
        println!(
            "  {:<32} {:>8} x {:<8} {:<7} {format:<12} {:>11} bytes",
            info.name(),
            info.rows(),
            info.columns(),
            info.tensor_type(),
            info.byte_size()
                .map_or("?".to_owned(), |size| size.to_string()),
        );
    }

    if let Some(name) = tensor {
        let values = file.rows(name, &[0])?;
        let shown = values.get(..8).unwrap_or(&values);
        println!("\n{name}: row 0 begins {shown:?}");
        let matrix = file.matrix(name)?;
        println!(
            "packed: {} x {} {}",
            matrix.rows(),
            matrix.columns(),
            matrix.format()
        );
    }
    Ok(())
}

fn describe(value: &Value) -> String {
    const SHOWN: usize = 80;
    match value {
        Value::Array(Array::String(strings)) => {
            let first: Vec<_> = strings.iter().take(4).collect();
            format!("{} strings, beginning {first:?}", strings.len())
        }
        Value::Array(array) => format!("{} elements: {}", array.len(), array.element_type()),
        Value::String(text) if text.chars().count() > SHOWN => {
            let start: String = text.chars().take(SHOWN).collect();
            format!("{start:?}…")
        }
        other => format!("{other:?}"),
    }
}
