//! `anybit pack`.

use anybit::formats::{
    CodebookFormat, MatrixFormat, PackedMatrix, QuantizeOptions, Rounding, quantize_with,
};
use anybit_import::ModelFile;
use anybit_import::safetensors::{Dtype, SafetensorsFile};

use crate::support::{Folder, values};

const F32: u32 = 0;
const Q4_0: u32 = 2;

/// A tensor: name, dimensions with the fastest first, type, bytes.
type Tensor<'a> = (&'a str, Vec<u64>, u32, Vec<u8>);

/// A GGUF file with one entry of metadata.
fn gguf(tensors: &[Tensor]) -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(1_u64.to_le_bytes());
    file.extend(string("general.architecture"));
    file.extend(8_u32.to_le_bytes());
    file.extend(string("llama"));
    let mut data: Vec<u8> = Vec::new();
    for (name, dimensions, tensor_type, bytes) in tensors {
        data.resize(data.len().next_multiple_of(32), 0);
        file.extend(string(name));
        file.extend((dimensions.len() as u32).to_le_bytes());
        file.extend(dimensions.iter().flat_map(|axis| axis.to_le_bytes()));
        file.extend(tensor_type.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

/// A safetensors file of f32 tensors.
fn safetensors(tensors: &[(&str, Vec<u64>, Vec<u8>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        header.insert(
            (*name).to_owned(),
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    header.insert("__metadata__".into(), serde_json::json!({"format": "pt"}));
    let header = serde_json::Value::from(header).to_string();
    [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        &data,
    ]
    .concat()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn quantised(values: &[f32], columns: usize, format: &str, rounding: Rounding) -> PackedMatrix {
    let format: MatrixFormat = format.parse().expect("a format");
    let options = QuantizeOptions {
        rounding,
        ..QuantizeOptions::default()
    };
    quantize_with(values, values.len() / columns, columns, format, &options)
        .expect("values to quantise")
}

struct Model {
    up: Vec<f32>,
    down: Vec<f32>,
    norm: Vec<f32>,
}

/// Two f32 weights and a norm as model.gguf, with a Q4_0 weight, and as model.safetensors.
fn models(folder: &Folder) -> Model {
    let model = Model {
        up: values(6 * 64, 1),
        down: values(64 * 40, 2),
        norm: values(7, 3),
    };
    // Two blocks of 32: a scale of 1 and 0.5, and codes.
    let blocks = [0x3c00_u16, 0x3800].map(|scale| {
        let codes = (0..16).map(|byte| byte * 17);
        scale
            .to_le_bytes()
            .into_iter()
            .chain(codes)
            .collect::<Vec<u8>>()
    });
    folder.write(
        "model.gguf",
        &gguf(&[
            ("blk.0.up.weight", vec![64, 6], F32, bytes(&model.up)),
            ("blk.0.down.weight", vec![40, 64], F32, bytes(&model.down)),
            ("norm.weight", vec![7], F32, bytes(&model.norm)),
            ("embed.weight", vec![32, 2], Q4_0, blocks.concat()),
        ]),
    );
    folder.write(
        "model.safetensors",
        &safetensors(&[
            ("up", vec![6, 64], bytes(&model.up)),
            ("norm", vec![7], bytes(&model.norm)),
            ("stack", vec![2, 3, 64], bytes(&model.up)),
        ]),
    );
    model
}

fn check_norm(file: &SafetensorsFile, name: &str, norm: &[f32]) {
    let info = file.tensor(name).expect("the norm is there");
    assert_eq!((info.dtype(), info.shape()), (Dtype::F32, &[7][..]));
    assert_eq!(file.tensor_bytes(name).expect("readable"), bytes(norm));
}

#[test]
fn a_gguf_model_round_trips() {
    let folder = Folder::new();
    let model = models(&folder);
    let run = folder
        .anybit("pack model.gguf --weight-format int4 --output out.safetensors")
        .passed();
    let note =
        "note: 40 columns are no multiple of 32; the int4 weights take one scale a row (i4rh)\n";
    assert_eq!(run.stderr, note);
    let file = SafetensorsFile::open(folder.path("out.safetensors")).expect("a model");
    assert!(file.is_packed());
    let even = Rounding::NearestEven;
    assert_eq!(
        file.matrix("blk.0.up.weight").expect("packed"),
        quantised(&model.up, 64, "i4g32h", even)
    );
    assert_eq!(
        file.matrix("blk.0.down.weight").expect("packed"),
        quantised(&model.down, 40, "i4rh", even)
    );
    check_norm(&file, "norm.weight", &model.norm);
    // Q4_0 is int4 with f16 scales per 32 already: no second rounding.
    let stored = ModelFile::open(folder.path("model.gguf"))
        .and_then(|model| model.matrix("embed.weight"))
        .expect("readable");
    assert_eq!(file.matrix("embed.weight").expect("packed"), stored);
    assert!(
        file.metadata()
            .any(|entry| entry == ("general.architecture", "llama"))
    );

    let row = |name: &str| {
        let line = run.stdout.lines().find(|line| line.starts_with(name));
        let words: Vec<String> = line
            .unwrap_or_else(|| panic!("{name} is not in\n{}", run.stdout))
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        words
    };
    assert_eq!(
        row("blk.0.up.weight")[1..5],
        ["6x64", "F32", "i4g32h", "4.5000"]
    );
    assert_eq!(
        row("blk.0.down.weight")[1..5],
        ["64x40", "F32", "i4rh", "4.4000"]
    );
    assert_eq!(
        row("norm.weight")[1..],
        ["7", "F32", "f32", "32.0000", "kept"]
    );
    assert_eq!(
        row("embed.weight")[3..],
        ["i4g32h", "4.5000", "0.000e0", "inf", "dB"]
    );
    assert!(run.stdout.contains("3 quantised, 1 kept"), "{}", run.stdout);
    assert_eq!(
        folder.files(),
        ["model.gguf", "model.safetensors", "out.safetensors"]
    );
}

#[test]
fn a_safetensors_model_round_trips() {
    let folder = Folder::new();
    let model = models(&folder);
    let report = folder
        .anybit("pack model.safetensors --weight-format mxfp4 --output out.safetensors --json")
        .json();
    let file = SafetensorsFile::open(folder.path("out.safetensors")).expect("a model");
    let packed = quantised(&model.up, 64, "e2m1g32e", Rounding::NearestEven);
    assert_eq!(file.matrix("up").expect("packed"), packed);
    check_norm(&file, "norm", &model.norm);
    // Only matrices are quantised.
    assert_eq!(
        file.tensor_bytes("stack").expect("readable"),
        bytes(&model.up)
    );
    assert!(file.metadata().any(|entry| entry == ("format", "pt")));

    let length = std::fs::metadata(folder.path("out.safetensors"))
        .expect("a file")
        .len();
    assert_eq!(report["bytes"], length);
    let tensors = report["tensors"].as_array().expect("a list");
    assert_eq!(tensors.len(), 3);
    let line = |name: &str| {
        tensors
            .iter()
            .find(|line| line["name"] == name)
            .unwrap_or_else(|| panic!("{name} is not in {report}"))
    };
    assert_eq!(line("up")["format"], "e2m1g32e");
    assert_eq!(line("up")["bits_per_element"], 4.25);
    let (mut noise, mut signal) = (0.0, 0.0);
    for (&value, decoded) in model.up.iter().zip(packed.decode()) {
        noise += (f64::from(value) - f64::from(decoded)).powi(2);
        signal += f64::from(value).powi(2);
    }
    let relative = line("up")["error"]["relative_rms"]
        .as_f64()
        .expect("a number");
    assert!((relative - (noise / signal).sqrt()).abs() < 1e-12);
    assert!(line("norm")["error"].is_null());
    assert_eq!(line("stack")["shape"], serde_json::json!([2, 3, 64]));

    // Packed models are models.
    folder
        .anybit("pack out.safetensors --weight-format int8 --output again.safetensors")
        .passed();
    let again = SafetensorsFile::open(folder.path("again.safetensors")).expect("a model");
    assert_eq!(
        again.matrix("up").expect("packed"),
        quantised(&packed.decode(), 64, "i8g32h", Rounding::NearestEven)
    );
}

#[test]
fn tensors_are_chosen_by_name() {
    let folder = Folder::new();
    let model = models(&folder);
    let names = |flags: &str| -> Vec<(String, String)> {
        let line =
            format!("pack model.gguf --weight-format int4 --output out.safetensors --json {flags}");
        let report = folder.anybit(&line).json();
        let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
        report["tensors"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|line| (text(&line["name"]), text(&line["format"])))
            .collect()
    };
    let pair = |name: &str, format: &str| (name.to_owned(), format.to_owned());
    assert_eq!(
        names("--include blk.* --exclude *.down.*"),
        [pair("blk.0.up.weight", "i4g32h")]
    );
    assert_eq!(
        names("--keep blk.0.up* --keep embed* --include *.weight --exclude blk.0.down.weight"),
        [
            pair("blk.0.up.weight", "f32"),
            pair("norm.weight", "f32"),
            pair("embed.weight", "i4g32h")
        ]
    );
    let file = SafetensorsFile::open(folder.path("out.safetensors")).expect("a model");
    assert_eq!(
        file.tensor_bytes("blk.0.up.weight").expect("kept"),
        bytes(&model.up)
    );
    std::fs::remove_file(folder.path("out.safetensors")).expect("an output");
    let error = folder
        .anybit("pack model.gguf --weight-format int4 --output out.safetensors --include none*")
        .failed(1);
    assert!(error.contains("there is no tensor to write"), "{error}");
    assert_eq!(folder.files(), ["model.gguf", "model.safetensors"]);
}

#[test]
fn options_reach_the_quantiser() {
    let folder = Folder::new();
    let model = models(&folder);
    folder
        .anybit(
            "pack model.gguf --weight-format int3 --group 16 --scale f32 --rounding stochastic:9 \
             --exclude *.down.* --output out.safetensors",
        )
        .passed();
    let file = SafetensorsFile::open(folder.path("out.safetensors")).expect("a model");
    assert_eq!(
        file.matrix("blk.0.up.weight").expect("packed"),
        quantised(&model.up, 64, "i3g16f", Rounding::Stochastic { seed: 9 })
    );
    // The second weight takes the second seed.
    let embed = ModelFile::open(folder.path("model.gguf"))
        .and_then(|model| model.values("embed.weight"))
        .expect("readable");
    assert_eq!(
        file.matrix("embed.weight").expect("packed"),
        quantised(&embed, 32, "i3g16f", Rounding::Stochastic { seed: 10 })
    );

    folder.write("levels.txt", b"-2 -0.5 0 0.5 2");
    CodebookFormat::user("packlevels", &[-2.0, -0.5, 0.0, 0.5, 2.0]).expect("a codebook");
    folder
        .anybit(
            "pack model.gguf --weight-format packlevels --codebook packlevels=levels.txt \
             --include blk.0.up.weight --output out.safetensors",
        )
        .passed();
    let file = SafetensorsFile::open(folder.path("out.safetensors")).expect("a model");
    assert_eq!(
        file.matrix("blk.0.up.weight").expect("packed"),
        quantised(&model.up, 64, "packlevelsg32h", Rounding::NearestEven)
    );
}

#[test]
fn models_that_cannot_be_packed() {
    let folder = Folder::new();
    models(&folder);
    let mut bad = values(64, 4);
    bad[33] = f32::NAN;
    folder.write("bad.gguf", &gguf(&[("w", vec![32, 2], F32, bytes(&bad))]));
    folder.write("empty.gguf", b"");
    let whole = std::fs::read(folder.path("model.gguf")).expect("just written");
    folder.write("half.gguf", &whole[..whole.len() / 2]);
    folder.write("text.gguf", b"this is no model");
    let before = folder.files();
    for (line, problem) in [
        (
            "bad.gguf --weight-format int4 --output out.safetensors",
            "NaN",
        ),
        (
            "empty.gguf --weight-format int4 --output out.safetensors",
            "empty.gguf: ",
        ),
        (
            "half.gguf --weight-format int4 --output out.safetensors",
            "half.gguf: ",
        ),
        (
            "text.gguf --weight-format int4 --output out.safetensors",
            "text.gguf: ",
        ),
        (
            "none.gguf --weight-format int4 --output out.safetensors",
            "none.gguf",
        ),
        (
            "model.gguf --weight-format int9 --output out.safetensors",
            "did you mean int8",
        ),
        (
            "model.gguf --weight-format int4 --output none/out.safetensors",
            "cannot write",
        ),
        ("model.gguf --weight-format int4 --output .", "cannot write"),
        (
            "model.gguf --weight-format int4 --group 32 --output out.safetensors",
            "tensor \"blk.0.down.weight\": 40 columns do not make whole groups of 32",
        ),
        (
            "model.gguf --weight-format mxfp4 --output out.safetensors",
            "tensor \"blk.0.down.weight\": 40 columns do not make whole groups of 32",
        ),
    ] {
        let error = folder.anybit(&format!("pack {line}")).failed(1);
        assert!(error.contains(problem), "{line}: {error}");
        assert_eq!(folder.files(), before, "{line}");
    }
}

/// Ctrl-C leaves no half of a file.
#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing_behind() {
    use std::process::Command;
    use std::time::{Duration, Instant};

    let folder = Folder::new();
    let weight = bytes(&values(1024 * 1024, 5));
    let names: Vec<String> = (0..12).map(|index| format!("w{index}")).collect();
    let tensors: Vec<Tensor> = names
        .iter()
        .map(|name| (name.as_str(), vec![1024, 1024], F32, weight.clone()))
        .collect();
    folder.write("model.gguf", &gguf(&tensors));
    let line = "pack model.gguf --weight-format nf4 --calibration mse --output out.safetensors";
    let arguments: Vec<&str> = line.split(' ').collect();
    let mut child = crate::support::command(&arguments)
        .current_dir(folder.path(""))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the command starts");
    // The unfinished file shows that the command is at work.
    let start = Instant::now();
    while folder.files().len() < 2 && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill is there");
    assert!(interrupt.success());
    let code = child.wait().expect("the command ends").code();
    assert_eq!(code, Some(130));
    assert_eq!(folder.files(), ["model.gguf"]);
}
