//! Every shader has its twin, and every twin its shader.

use std::collections::BTreeSet;
use std::path::Path;

use anybit_reference::kernel::KERNELS;

/// Stems of the files of a folder.
fn stems(folder: &Path, extension: &str) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

#[test]
fn every_kernel_has_a_file_of_its_name() {
    let listed: BTreeSet<String> = KERNELS.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(listed.len(), KERNELS.len());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let twins = stems(&root.join("src/kernel"), "rs");
    assert!(twins.is_superset(&listed), "{:?}", &listed - &twins);
    let shaders = root.join("../../shaders/wgsl/kernel");
    // A published crate comes without the shaders.
    if shaders.is_dir() {
        // Kernels that are others with another way to multiply.
        let shared = |name: &String| {
            name.replace("_integer_fma", "_swar")
                .replace("_lmul", "_fma")
        };
        assert_eq!(stems(&shaders, "wgsl"), listed.iter().map(shared).collect());
    }
}
