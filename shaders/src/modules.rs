//! The table of embedded modules.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Embeds each named file of `wgsl/`.
macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        /// Every module under `shaders/wgsl`: its name (`core/index`) and its text.
        pub const MODULES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../wgsl/", $name, ".wgsl")))),*
        ];
    };
}

modules! {
    "accumulate/grouped",
    "accumulate/whole_f32",
    "accumulate/whole_i32",
    "addend/nothing",
    "addend/residual",
    "ahead/block",
    "ahead/nothing",
    "attended/split",
    "attended/whole",
    "bias/columns",
    "bias/nothing",
    "codes/pieces",
    "codes/planes",
    "codes/words",
    "core/bitplane",
    "core/bytes",
    "core/cache",
    "core/cap",
    "core/decode",
    "core/ext_exp",
    "core/fma",
    "core/gemm",
    "core/integer",
    "core/key",
    "core/l_mul",
    "core/lut",
    "core/operand",
    "core/quantize",
    "core/round",
    "core/row_join",
    "core/row_norm",
    "core/sequence",
    "core/swar",
    "core/texels",
    "encode/affine",
    "encode/codebook",
    "encode/minifloat",
    "feed/subgroup",
    "feed/workgroup",
    "format/affine",
    "format/bf16",
    "format/codebook",
    "format/codebook_large",
    "format/codebook_lanes",
    "format/f16",
    "format/f32",
    "format/minifloat",
    "fragment/eight",
    "fragment/sixteen",
    "head_norm/nothing",
    "head_norm/rms",
    "join/subgroup",
    "join/workgroup",
    "kernel/add_parts",
    "kernel/advance",
    "kernel/attention",
    "kernel/attention_merge",
    "kernel/cross_entropy",
    "kernel/decode",
    "kernel/draw",
    "kernel/gather",
    "kernel/gemm_subgroup_bitplane",
    "kernel/gemm_subgroup_dot4",
    "kernel/gemm_subgroup_fma",
    "kernel/gemm_subgroup_swar",
    "kernel/gemm_tiled_bitplane",
    "kernel/gemm_tiled_dot4",
    "kernel/gemm_tiled_fma",
    "kernel/gemm_tiled_matrix",
    "kernel/gemm_tiled_swar",
    "kernel/gemv_bitplane",
    "kernel/gemv_dot4",
    "kernel/gemv_fma",
    "kernel/gemv_lut",
    "kernel/gemv_lut8",
    "kernel/l_mul",
    "kernel/largest",
    "kernel/quantize_cache",
    "kernel/quantize_groups",
    "kernel/quantize_rows",
    "kernel/rotate",
    "kernel/write_rows",
    "kv/codes",
    "kv/f16",
    "kv/f32",
    "kv/store_f16",
    "kv/store_f32",
    "lift/affine_activation",
    "lift/affine_weight",
    "lift/codebook",
    "lift/minifloat",
    "lift/nested_weight",
    "memory/activation_buffers",
    "memory/activation_texture_codes",
    "memory/buffer_codes",
    "memory/buffer_side",
    "memory/decoded_buffers",
    "memory/decoded_texture_codes",
    "memory/decoded_textures",
    "memory/texture_codes",
    "memory/texture_side",
    "memory/weight_buffers",
    "memory/weight_textures",
    "multiply/f32_pairs",
    "multiply/f32_singles",
    "multiply/u32_pairs",
    "output/f16",
    "output/f32",
    "output/f32_residual",
    "output/i32",
    "parts/split",
    "parts/whole",
    "product/fma",
    "product/l_mul",
    "reduce/subgroup",
    "reduce/team_f32",
    "reduce/team_i32",
    "reduce/workgroup",
    "rows/experts",
    "rows/plain",
    "scale/affine",
    "scale/none",
    "source/gated",
    "source/rms_norm",
    "source/rows",
    "spill/scaled",
    "spill/whole_f32",
    "spill/whole_i32",
    "store/pieces",
    "store/planes",
    "store/texels",
    "table/subgroup",
    "table/workgroup",
    "turns/apart",
    "turns/together",
}

/// A set of modules to link from.
///
/// [`link`](crate::link) uses the embedded set. Tests make sets of their own, or replace a module of the embedded one:
///
/// ```
/// use anybit_shaders::Modules;
///
/// let modules = Modules::embedded().with("kernel/double", "fn double(x: u32) -> u32 { return 2u * x; }");
/// assert!(modules.text("kernel/double").is_some());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Modules<'a> {
    texts: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl Modules<'static> {
    /// The modules of [`MODULES`].
    #[must_use]
    pub fn embedded() -> Self {
        MODULES.iter().fold(Self::new(), |modules, &(name, text)| {
            modules.with(name, text)
        })
    }
}

impl<'a> Modules<'a> {
    /// A set without modules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module, or replaces the one of that name.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'a, str>>, text: impl Into<Cow<'a, str>>) -> Self {
        self.texts.insert(name.into(), text.into());
        self
    }

    /// The text of a module.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(|text| &**text)
    }

    /// The names of all modules, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Collects `folder/name` of every `.wgsl` file under `folder`.
    fn collect(root: &Path, folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            if path.is_dir() {
                collect(root, &path, names);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "wgsl")
            {
                let relative = path.strip_prefix(root).expect("lies under the root");
                let parts: Vec<_> = relative
                    .with_extension("")
                    .iter()
                    .map(|part| part.to_str().expect("names are UTF-8").to_owned())
                    .collect();
                names.insert(parts.join("/"));
            }
        }
    }

    #[test]
    fn table_lists_every_file_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("wgsl");
        let mut on_disk = BTreeSet::new();
        collect(&root, &root, &mut on_disk);
        let listed: BTreeSet<String> = MODULES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(
            listed, on_disk,
            "left: `modules!` in modules.rs; right: shaders/wgsl"
        );
        assert_eq!(listed.len(), MODULES.len(), "a module is listed twice");
    }

    #[test]
    fn sets_can_replace_modules() {
        let modules = Modules::new().with("a", "1").with("b", "2").with("a", "3");
        assert_eq!(modules.text("a"), Some("3"));
        assert_eq!(modules.text("c"), None);
        assert_eq!(modules.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(Modules::embedded().names().count(), MODULES.len());
    }
}
