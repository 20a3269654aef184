//! What the browser is given: every kernel, every family of formats. No browser is needed to know.

use anybit_formats::{FORMATS, MatrixFormat, ScaleType, ZeroKind};
use anybit_shaders::MODULES;
use anybit_tests::operand::format;
use anybit_tests::web::{Case, Device, gemm, rows};

#[test]
fn every_kernel_is_among_the_cases_of_the_browser() {
    let devices = [
        Device::FLOOR,
        Device {
            subgroup: Some((4, 4)),
            runs: true,
        },
        Device::GPU,
    ];
    let cases: Vec<Case> = devices
        .into_iter()
        .flat_map(|device| {
            let products = gemm::cases(device, false).into_iter();
            products.chain(rows::cases(device, false))
        })
        .collect();
    let mut ids: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    ids.sort_unstable();
    assert!(
        ids.windows(2).all(|pair| pair[0] != pair[1]),
        "two cases have one id"
    );
    let kernels = MODULES
        .iter()
        .filter_map(|(name, _)| name.strip_prefix("kernel/"));
    for kernel in kernels {
        let met = cases
            .iter()
            .any(|case| case.kernel == kernel || case.id.starts_with(kernel));
        // No browser has cooperative matrices.
        assert_eq!(met, kernel != "gemm_tiled_matrix", "{kernel}");
    }
    for contract in gemm::contracts() {
        let met = cases.iter().any(|case| case.contract.contains(&contract));
        assert!(met, "{contract} comes with no kernel");
    }
}

#[test]
fn contracts_of_the_browser_meet_every_family_and_scale() {
    let contracts = gemm::contracts();
    let formats: Vec<MatrixFormat> = contracts
        .iter()
        .flat_map(|contract| contract.split('_').take(2))
        .map(format)
        .collect();
    for row in FORMATS {
        let family = row.element.family();
        let met = formats
            .iter()
            .any(|format| format.element().family() == family);
        assert!(met, "{family:?}");
    }
    for scale in ScaleType::ALL {
        let is_it =
            |format: &MatrixFormat| format.scales().map(|layout| layout.scale) == Some(scale);
        assert!(formats.iter().any(is_it), "{scale:?}");
    }
    for zero in [ZeroKind::Integer, ZeroKind::Minimum, ZeroKind::Choice] {
        assert!(
            formats.iter().any(|format| format.zero_kind() == zero),
            "{zero:?}"
        );
    }
    for output in ["f32", "f16", "i32"] {
        assert!(
            contracts.iter().any(|contract| contract.ends_with(output)),
            "{output}"
        );
    }
}
