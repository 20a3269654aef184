//! Tables against files, both ways.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anybit::KERNELS;
use anybit_shaders::MODULES;
use anybit_tests::lint::unset_in_loops;

/// Kernels that work row by row; they have no row in the table of GEMMs.
const ROW_KERNELS: [&str; 15] = [
    "add_parts",
    "advance",
    "attention",
    "attention_merge",
    "cross_entropy",
    "decode",
    "draw",
    "gather",
    "l_mul",
    "largest",
    "quantize_cache",
    "quantize_groups",
    "quantize_rows",
    "rotate",
    "write_rows",
];

/// The stems of the files with an extension in a folder of the repository.
fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    fs::read_dir(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

fn table() -> BTreeSet<String> {
    KERNELS.iter().map(|row| row.stem.to_owned()).collect()
}

fn with_row_kernels(mut stems: BTreeSet<String>) -> BTreeSet<String> {
    stems.extend(ROW_KERNELS.map(str::to_owned));
    stems
}

#[test]
fn every_kernel_has_its_row_and_every_row_its_module() {
    assert_eq!(table().len(), KERNELS.len(), "a stem is listed twice");
    for row in KERNELS {
        // The lmul kernels are the fma kernels with other products, and those of integer_fma the swar kernels.
        let shader = row.stem.replace("integer_fma", "swar");
        let shader = shader.replace("_lmul", "_fma");
        assert_eq!(row.module, format!("kernel/{shader}"));
        assert!(row.stem.ends_with(row.engine.name()), "{}", row.stem);
        assert!(!row.tiles.is_empty(), "{} has no tile", row.stem);
    }
    let modules = KERNELS
        .iter()
        .map(|row| row.module.replace("kernel/", ""))
        .collect();
    assert_eq!(
        with_row_kernels(modules),
        stems("shaders/wgsl/kernel", "wgsl")
    );
}

#[test]
fn every_kernel_has_its_rust_file() {
    assert_eq!(table(), stems("crates/anybit/src/kernel", "rs"));
}

#[test]
fn every_kernel_has_its_twin() {
    let twins: BTreeSet<String> = anybit_reference::kernel::KERNELS
        .iter()
        .map(|&name| name.to_owned())
        .collect();
    assert_eq!(with_row_kernels(table()), twins);
    let files = stems("crates/anybit-reference/src/kernel", "rs");
    assert!(twins.is_subset(&files), "{:?}", twins.difference(&files));
}

#[test]
fn variables_in_loops_have_a_value() {
    let unset = MODULES.iter().flat_map(|(name, text)| {
        let unset = unset_in_loops(text).into_iter();
        unset.map(move |variable| format!("{name}, {variable}"))
    });
    let unset: Vec<String> = unset.collect();
    assert!(unset.is_empty(), "{}", unset.join("\n"));
}
