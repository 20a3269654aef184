//! Validation, reflection, translation and lints of every shader.

use std::borrow::Borrow;

use anybit::GEMM_PARAMS_BYTES;
use anybit_tests::lint::lint;
use anybit_tests::shader::{Bound, Shader};
use naga::back::glsl::Version;
use naga::back::hlsl::ShaderModel;

use super::every::{
    Text, decoders, expert_gemms, gemms, l_muls, matrix_gemms, model_kernels, nested_gemms,
    quantizers, split_gemms,
};

/// How many problems a failing test prints.
const SHOWN: usize = 8;

/// Checks every shader on all cores, and panics with what is wrong.
fn check_all<T>(what: &str, texts: &[T], check: impl Fn(&Text) -> Result<(), String> + Sync)
where
    T: Borrow<Text> + Sync,
{
    assert!(!texts.is_empty(), "no {what}");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = texts.len().div_ceil(threads);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = texts
            .chunks(part)
            .map(|texts| {
                scope.spawn(|| {
                    texts
                        .iter()
                        .filter_map(|text| {
                            let text = text.borrow();
                            let error = check(text).err()?;
                            Some(format!("{}: {error}", text.specialization.id))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<String>>| {
            worker.join().expect("a worker does not panic")
        };
        workers.into_iter().flat_map(join).collect()
    });
    println!("{}: {} {what}", failures.len(), texts.len());
    assert!(
        failures.is_empty(),
        "{} of {} {what} fail:\n{}",
        failures.len(),
        texts.len(),
        failures
            .iter()
            .take(SHOWN)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    );
}

/// Everything that holds of every shader. The first binding's size is compared where it is known.
fn check(text: &Text, params: Option<u32>, bindings: &[Bound]) -> Result<(), String> {
    let specialization = &text.specialization;
    let wgsl = text.wgsl.as_ref().map_err(String::clone)?;
    let shader = Shader::new(wgsl, specialization.features())?;
    shader.entry_point()?;

    let found = shader.bindings()?;
    // Those of a kernel that takes several kinds of input are its own; wgpu compares them when the GPU tests bind them.
    let mut expected = match bindings {
        [] => found.clone(),
        _ => bindings.to_vec(),
    };
    if let (None, Some(Bound::Uniform(size))) = (params, found.first()) {
        // Its Rust twin is private; wgpu compares them when the GPU tests bind it.
        expected[0] = Bound::Uniform(*size);
    }
    if found != expected {
        return Err(format!(
            "has the bindings {found:?}; the pipeline layout, {expected:?}"
        ));
    }
    if shader.workgroup_memory() > specialization.workgroup_memory {
        return Err(format!(
            "uses {} bytes of workgroup memory and declares {}",
            shader.workgroup_memory(),
            specialization.workgroup_memory
        ));
    }
    if shader.invocations() != specialization.workgroup {
        return Err(format!(
            "has {} invocations a workgroup and declares {}",
            shader.invocations(),
            specialization.workgroup
        ));
    }

    shader.spirv(true)?;
    shader.spirv(false)?;
    shader.msl()?;
    let matrices = specialization.has_cooperative_matrices();
    if matrices != shader.has_cooperative_matrices() {
        return Err(format!("declares cooperative matrices: {matrices}"));
    }
    if !matrices {
        shader.hlsl(ShaderModel::V6_4)?;
    }
    if !specialization.subgroup {
        shader.hlsl(ShaderModel::V5_1)?;
        shader.glsl(Version::new_gles(310))?;
        shader.glsl(Version::Desktop(430))?;
    }
    let broken = lint(&shader);
    match broken.is_empty() {
        true => Ok(()),
        false => Err(broken.join("\n    ")),
    }
}

/// What a shader reads a packed matrix from, codes and side data, by what its id says after these words.
fn operand_bounds(text: &Text, whole: &[&str], codes: &[&str]) -> [Bound; 2] {
    let id = &text.specialization.id;
    // Ids of L-Mul end in the multiplier; its operands lie in buffers.
    let ends = |ends: &[&str]| ends.iter().any(|end| id.ends_with(end));
    if ends(codes) {
        [Bound::Texture, Bound::Read]
    } else if ends(whole) {
        [Bound::Texture; 2]
    } else {
        [Bound::Read; 2]
    }
}

/// Every seventh of many shaders, of which neighbours differ little; all with `--full`. All kinds of kernels are translated, and
/// their texts compared, by `anybit-translate` as well.
fn some(texts: &[Text]) -> Vec<&Text> {
    let step = if anybit_tests::full() { 1 } else { 7 };
    texts.iter().step_by(step).collect()
}

fn check_gemms(what: &str, texts: &[Text]) {
    let params = GEMM_PARAMS_BYTES as u32;
    check_all(what, &some(texts), |text| {
        let activation = operand_bounds(text, &[], &["_all_textures", "_activation_textures"]);
        let weight = match text.specialization.id.ends_with("_activation_textures") {
            true => [Bound::Read; 2],
            false => operand_bounds(text, &["_textures"], &[]),
        };
        let mut bindings = vec![
            Bound::Uniform(params),
            activation[0],
            activation[1],
            weight[0],
            weight[1],
            Bound::Write,
        ];
        // A residual, unless it is for the kernel that adds parts up; then the offsets of experts.
        let (contract, kernel) = text.specialization.id.split_once("__").unwrap_or_default();
        let residual = contract.contains("_residual") && !kernel.contains("_split");
        let additions = [residual, contract.contains("_experts")];
        bindings.extend(
            additions
                .into_iter()
                .filter(|&there| there)
                .map(|_| Bound::Read),
        );
        check(text, Some(params), &bindings)
    });
}

#[test]
fn gemm_shaders() {
    check_gemms("GEMM shaders", gemms());
}

#[test]
fn matrix_gemm_shaders() {
    check_gemms("GEMM shaders of cooperative matrices", &matrix_gemms());
}

#[test]
fn nested_gemm_shaders() {
    check_gemms("GEMM shaders of nested weights", &nested_gemms());
}

#[test]
fn expert_gemm_shaders() {
    check_gemms("GEMM shaders of mixtures of experts", &expert_gemms());
}

#[test]
fn split_gemm_shaders() {
    check_gemms("GEMM shaders that split K", &split_gemms());
}

#[test]
fn quantizing_shaders() {
    check_all("quantising shaders", &quantizers(), |text| {
        let codes = match text.specialization.id.ends_with("_texture_codes") {
            true => Bound::WriteTexture,
            false => Bound::Write,
        };
        let bindings = [
            Bound::Uniform(0),
            Bound::Read,
            codes,
            Bound::Write,
            Bound::Write,
        ];
        check(text, None, &bindings)
    });
}

#[test]
fn decoding_shaders() {
    check_all("decoding shaders", &decoders(), |text| {
        let [codes, side] = operand_bounds(text, &["_textures"], &["_texture_codes"]);
        let bindings = [Bound::Uniform(0), codes, side, Bound::Write];
        check(text, None, &bindings)
    });
}

#[test]
fn l_mul_shaders() {
    let bindings = [Bound::Uniform(0), Bound::Read, Bound::Read, Bound::Write];
    check_all("L-Mul shaders", &l_muls(), |text| {
        check(text, None, &bindings)
    });
}

#[test]
fn model_shaders() {
    check_all("shaders of language models", &model_kernels(), |text| {
        check(text, None, &[])
    });
}

#[test]
fn subgroup_shaders_are_refused_without_the_feature() {
    let texts = gemms();
    let subgroups = texts.iter().filter(|text| text.specialization.subgroup);
    let mut count = 0;
    // They differ in what does not matter here.
    let some = subgroups.step_by(8);
    for (text, wgsl) in some.filter_map(|text| Some((text, text.wgsl.as_ref().ok()?))) {
        let shader = Shader::new(wgsl, anybit::wgpu::Features::empty());
        assert!(
            shader.is_err(),
            "{} validates without subgroups",
            text.specialization.id
        );
        count += 1;
    }
    assert!(count > 0, "no shader uses subgroups");
}

#[test]
fn matrix_shaders_are_refused_without_any_of_their_features() {
    let texts = matrix_gemms();
    assert!(texts.len() > 100, "{} shaders", texts.len());
    for text in &texts {
        assert!(text.specialization.has_cooperative_matrices());
    }
    // They differ in what does not matter here.
    for text in texts.iter().step_by(32) {
        let specialization = &text.specialization;
        let wgsl = text.wgsl.as_ref().expect("it links");
        let needed = specialization.features();
        assert_eq!(needed.iter().count(), 3, "{needed:?}");
        for feature in needed.iter() {
            let shader = Shader::new(wgsl, needed - feature);
            assert!(shader.is_err(), "{} without {feature:?}", specialization.id);
        }
        // Translators that would panic are not reached.
        let shader = Shader::new(wgsl, needed).expect("it validates");
        assert!(shader.hlsl(ShaderModel::V6_4).is_err());
        assert!(shader.glsl(Version::Desktop(430)).is_err());
    }
}

#[test]
fn packed_dot_products_reach_the_hardware() {
    // OpSDot and OpUDot of SPIR-V.
    const DOTS: [u32; 2] = [4450, 4451];
    let texts = gemms();
    let text = texts
        .iter()
        .find(|text| text.specialization.id.contains("__dot4_"))
        .expect("some shader uses dot4");
    let wgsl = text.wgsl.as_ref().expect("it links");
    let shader = Shader::new(wgsl, text.specialization.features()).expect("it validates");
    let uses = |words: Vec<u32>| {
        // A header of five words, then instructions: length and opcode, operands.
        let mut at = 5;
        let mut found = false;
        while let Some(&word) = words.get(at) {
            found |= DOTS.contains(&(word & 0xffff));
            at += (word >> 16).max(1) as usize;
        }
        found
    };
    assert!(uses(shader.spirv(true).expect("SPIR-V")));
    assert!(!uses(shader.spirv(false).expect("SPIR-V")));
}
