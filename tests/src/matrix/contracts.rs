//! What the matrix multiplies.

use anybit::{OutputFormat, Problem};

use crate::operand::format;

/// A contract: formats of X and W, and of the output.
#[derive(Clone, Copy, Debug)]
pub struct Contract {
    /// What users call it.
    pub name: &'static str,
    /// The format of X.
    pub x: &'static str,
    /// The format of W.
    pub w: &'static str,
    /// The format of Y.
    pub output: OutputFormat,
}

const fn i32_of(name: &'static str, x: &'static str, w: &'static str) -> Contract {
    Contract {
        name,
        x,
        w,
        output: OutputFormat::I32,
    }
}

const fn f32_of(name: &'static str, x: &'static str, w: &'static str) -> Contract {
    Contract {
        name,
        x,
        w,
        output: OutputFormat::F32,
    }
}

const fn f16_of(name: &'static str, x: &'static str, w: &'static str) -> Contract {
    Contract {
        name,
        x,
        w,
        output: OutputFormat::F16,
    }
}

/// One or more of each family of formats, kind of scales and output.
pub const CONTRACTS: &[Contract] = &[
    i32_of("W8A8", "i8", "i8"),
    i32_of("W8A8 unsigned", "u8", "u8"),
    i32_of("W4A8", "i8", "u4"),
    i32_of("W4A4", "i4", "i4"),
    i32_of("W5A3", "i3", "u5"),
    i32_of("W6A7", "u7", "i6"),
    i32_of("W2A2", "i2", "i2"),
    i32_of("W2A4 bipolar", "b4", "b2"),
    i32_of("W1A1", "b1", "b1"),
    i32_of("ternary × int8", "i8", "t"),
    f32_of("int8 × Q8_0", "i8rf", "i8g32h"),
    f32_of("int8 × Q4_1", "i8rf", "u4g32hm"),
    f32_of("int4 × Q4_1", "i4rf", "u4g32hm"),
    f32_of("int8 × int3", "i8rf", "i3g32h"),
    f32_of("int8 with zero points × AWQ", "u8rfz", "u4g128hz"),
    f32_of("int2 × int2", "i2rf", "i2g32h"),
    f32_of("binary × binary", "b1rf", "b1g32h"),
    f32_of("ternary × int8, scaled", "i8rf", "tg32h"),
    f32_of("MXFP4 × int8", "i8rf", "e2m1g32e"),
    f32_of("MXFP4 × MXFP4", "e2m1g32e", "e2m1g32e"),
    f32_of("MXFP6 × MXFP6", "e2m3g32e", "e3m2g32e"),
    f32_of("MXFP8 × MXFP8", "e4m3g32e", "e4m3g32e"),
    f32_of("NVFP4 × NVFP4", "e2m1g16k", "e2m1g16k"),
    f32_of("FP8 × FP8", "e4m3rf", "e5m2rf"),
    f32_of("f32 × f32", "f32", "f32"),
    f32_of("f32 × f16", "f32", "f16"),
    f32_of("bf16 × bf16", "bf16", "bf16"),
    f32_of("f32 × Q8_0", "f32", "i8g32h"),
    f32_of("f32 × Q4_1", "f32", "u4g32hm"),
    f32_of("f32 × int3", "f32", "i3rf"),
    f32_of("f32 × int2", "f32", "i2g32h"),
    f32_of("f32 × binary", "f32", "b1g32h"),
    f32_of("f32 × MXFP4", "f32", "e2m1g32e"),
    f32_of("f32 × E3M2", "f32", "e3m2rh"),
    f32_of("f32 × NF4", "f32", "nf4g64h"),
    f16_of("f16 × Q4_0, f16 outputs", "f16", "u4g32h"),
    f16_of("int8 × int4, f16 outputs", "i8rf", "i4rh"),
];

impl Contract {
    /// The problems that stand for it: one row of X, and a few, with ragged tiles.
    pub fn problems(&self) -> [Problem; 2] {
        let k = match self.w.contains("g64") || self.w.contains("g128") {
            true => 256,
            false => 160,
        };
        [(1, 37), (9, 70)].map(|(m, n)| {
            Problem::new((m, n, k), format(self.x), format(self.w)).with_output(self.output)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use anybit::{Caps, KERNELS};

    use super::*;
    use crate::case::Kernel;

    #[test]
    fn names_are_unique() {
        let names: HashSet<&str> = CONTRACTS.iter().map(|contract| contract.name).collect();
        assert_eq!(names.len(), CONTRACTS.len());
    }

    /// But for cooperative matrices, which are taken only after a self-check.
    #[test]
    fn every_kernel_has_a_contract() {
        let caps = Caps {
            subgroup: Some((8, 32)),
            ..Caps::floor()
        };
        let met: HashSet<(anybit::Engine, anybit::Skeleton)> = CONTRACTS
            .iter()
            .flat_map(Contract::problems)
            .flat_map(|problem| Kernel::all_for(&problem, &caps, false))
            .map(|kernel| (kernel.engine, kernel.skeleton))
            .collect();
        for row in KERNELS {
            let needed = row.engine != anybit::Engine::Matrix;
            assert_eq!(
                met.contains(&(row.engine, row.skeleton)),
                needed,
                "{}",
                row.stem
            );
        }
    }
}
