//! `shaders --print ID`: from a kernel's id back to its shader.

use anybit::{
    Caps, DeviceClass, Fragment, OutputFormat, PlanOptions, Problem, Specialization, candidates,
};
use anybit::{decode_specialization, quantize_specialization};
use anybit_formats::layout::{PieceLayout, SumLayout};
use anybit_formats::{DeviceLayout, Granularity, MatrixFormat, Memory, Nesting};

use crate::Error;

/// Prints the linked WGSL of a kernel.
///
/// # Errors
///
/// [`Error::Kernel`], which lists the kernels of the contract if the contract is one; [`Error::Link`].
pub(crate) fn print(id: &str) -> Result<(), Error> {
    let kernel = find(id)?;
    let linked = kernel.link().map_err(|source| Error::Link {
        kernel: id.to_owned(),
        source,
    })?;
    println!("// {id}");
    println!(
        "// {} invocations a workgroup, {} bytes of workgroup memory{}",
        kernel.workgroup,
        kernel.workgroup_memory,
        if kernel.subgroup { ", subgroups" } else { "" }
    );
    print!("{}", linked.wgsl);
    Ok(())
}

/// The kernel of an id.
///
/// # Errors
///
/// [`Error::Kernel`], which lists the kernels of the contract if the contract is one.
pub(crate) fn find(id: &str) -> Result<Specialization, Error> {
    let kernels = kernels_like(id).ok_or_else(|| Error::Kernel {
        id: id.to_owned(),
        known: Vec::new(),
    })?;
    let known: Vec<String> = kernels.iter().map(|kernel| kernel.id.clone()).collect();
    kernels
        .into_iter()
        .find(|kernel| kernel.id == id)
        .ok_or_else(|| Error::Kernel {
            id: id.to_owned(),
            known,
        })
}

/// Every kernel of the contract that the id begins with; `None` if that is no contract.
fn kernels_like(id: &str) -> Option<Vec<Specialization>> {
    let contract = id.split("__").next()?;
    let (op, operands) = contract.split_once('_')?;
    let mut kernels = match (op, operands.split('_').collect::<Vec<_>>().as_slice()) {
        ("gemm" | "gemv", [activation, weight, output]) => {
            let output = match *output {
                "f32" => OutputFormat::F32,
                "f16" => OutputFormat::F16,
                "i32" => OutputFormat::I32,
                _ => return None,
            };
            // Up to eight rows are what every skeleton takes.
            let m = if op == "gemv" { 1 } else { 8 };
            gemm_kernels(m, activation.parse().ok()?, weight.parse().ok()?, output)
        }
        ("quantize", ["rows" | "groups", "f32", format]) => {
            let format: MatrixFormat = format.parse().ok()?;
            classes()
                .iter()
                .flat_map(|caps| {
                    layouts()
                        .filter_map(|layout| quantize_specialization(caps, &format, &layout).ok())
                })
                .collect()
        }
        ("decode", [format, "f32"]) => {
            let format: MatrixFormat = format.parse().ok()?;
            layouts()
                .map(|layout| decode_specialization(&format, &layout))
                .collect()
        }
        _ => return None,
    };
    kernels.sort_by(|a, b| a.id.cmp(&b.id));
    kernels.dedup_by(|a, b| a.id == b.id);
    Some(kernels)
}

fn layouts() -> impl Iterator<Item = DeviceLayout> {
    let pieces = [PieceLayout::Pieces, PieceLayout::Planes];
    let sums = [SumLayout::None, SumLayout::Blocks, SumLayout::Groups];
    pieces.into_iter().flat_map(move |pieces| {
        sums.into_iter().flat_map(move |sums| {
            [1, 2, 4, 8, 16, 32].map(|interleave| DeviceLayout {
                pieces,
                interleave,
                sums,
                memory: Memory::Buffers,
            })
        })
    })
}

fn gemm_kernels(
    m: usize,
    activation: MatrixFormat,
    weight: MatrixFormat,
    output: OutputFormat,
) -> Vec<Specialization> {
    // A K that both groups divide.
    let group = |format: &MatrixFormat| match format.scales().map(|scales| scales.granularity) {
        Some(Granularity::Group(group)) => group as usize,
        _ => 1,
    };
    let k = 32 * group(&activation).saturating_mul(group(&weight));
    let problem = Problem::new((m, 64, k), activation, weight).with_output(output);
    let nestings = Nesting::ALL.map(|nesting| PlanOptions::default().with_nesting(nesting));
    all_caps()
        .iter()
        .flat_map(|caps| {
            let problem = &problem;
            [PlanOptions::default()
                .with_uploaded(true)
                .with_unchecked(true)]
            .into_iter()
            .chain(nestings.clone())
            .filter_map(move |options| candidates(problem, caps, &options).ok())
        })
        .flat_map(|(accepted, _)| accepted)
        .map(|candidate| candidate.specialization)
        .collect()
}

/// A device of each class, which is what row kernels differ by.
fn classes() -> [Caps; 2] {
    [DeviceClass::Gpu, DeviceClass::Software].map(|class| Caps {
        class,
        ..Caps::floor()
    })
}

/// Devices that together have every kernel: large, with subgroups of each size and without.
fn all_caps() -> Vec<Caps> {
    [
        None,
        Some((4, 4)),
        Some((8, 8)),
        Some((16, 16)),
        Some((32, 32)),
        Some((64, 64)),
        Some((128, 128)),
    ]
    .into_iter()
    .flat_map(|subgroup| [DeviceClass::Gpu, DeviceClass::Software].map(|class| (subgroup, class)))
    .map(|(subgroup, class)| Caps {
        subgroup,
        // Software adapters have those that read textures.
        class,
        matrix: match subgroup {
            Some((8, _)) => Ok(Fragment::Eight),
            Some((32, _)) => Ok(Fragment::Sixteen),
            _ => Caps::floor().matrix,
        },
        max_invocations: 1024,
        max_workgroup_memory: 1 << 20,
        ..Caps::floor()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use anybit::KERNELS;

    use super::*;

    #[test]
    fn every_gemm_kernel_is_found_by_its_id() {
        let contracts = [
            "gemm_f32_f32_f32",
            "gemm_i8rf_u4g32hm_f32",
            "gemv_b1rf_b1g32h_f32",
            "gemm_i8rf_i4g32h_f32",
        ];
        let mut found = 0;
        for contract in contracts {
            for kernel in kernels_like(contract).expect("a contract") {
                assert_eq!(find(&kernel.id).expect("a kernel").id, kernel.id);
                found += 1;
            }
        }
        assert!(found > KERNELS.len(), "{found}");
    }

    #[test]
    fn row_kernels_are_found_by_their_ids() {
        let format: MatrixFormat = "i3rf".parse().expect("a format");
        for layout in layouts() {
            let decode = decode_specialization(&format, &layout);
            assert_eq!(find(&decode.id).expect("a kernel").id, decode.id);
            for caps in classes() {
                let Ok(quantize) = quantize_specialization(&caps, &format, &layout) else {
                    continue;
                };
                assert_eq!(find(&quantize.id).expect("a kernel").id, quantize.id);
            }
        }
    }

    #[test]
    fn a_wrong_tile_lists_the_right_ones() {
        let Err(Error::Kernel { known, .. }) = find("gemm_i8rf_i4g32h_f32__dot4_1x1x1") else {
            panic!("there is no such tile");
        };
        assert!(!known.is_empty());
        for id in [
            "",
            "gemm",
            "gemm_i9_i4_f32__dot4",
            "gemm_f32_f32_f64",
            "conv_f32_f32_f32__x",
        ] {
            assert!(
                matches!(find(id), Err(Error::Kernel { known, .. }) if known.is_empty()),
                "{id}"
            );
        }
    }
}
