//! What texts and files at the size limits of their parsers take: memory beyond their own length, and time.
//!
//! A test of its own: the allocator counts for the whole process.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anybit::{Caps, Choices, Verdict, Verdicts};
use anybit_import::ImportError;
use anybit_import::gguf::GgufFile;
use anybit_import::npy::NpyArray;
use anybit_import::safetensors::{QuantizationConfig, SafetensorsFile};
use anybit_tests::fuzz::runner::MOST_MEMORY;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// One test at a time, since the allocator counts for all.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ten times what is needed in proportion to the length or more, and far less than its square takes: the kernels of a file of
/// choices, each compared with all before it, take a minute in place of a quarter of a second.
const LONGEST: Duration = Duration::from_secs(10);

/// What a call gives, and the most bytes that it held at a time. Fails where it takes long.
fn measured<T>(what: &str, call: impl FnOnce() -> T) -> (T, usize) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let start = Instant::now();
    let result = call();
    let time = start.elapsed();
    let memory = ALLOCATOR.peak_usage() - before;
    println!("{what}: {} KiB in {time:.1?}", memory >> 10);
    assert!(time < LONGEST, "{what}: {time:.1?}");
    (result, memory)
}

/// `start`, elements as many as there is room for, and `end`, so that it is `length` bytes at most.
fn list(length: usize, start: &str, element: impl Fn(usize) -> String, end: &str) -> String {
    let mut text = String::with_capacity(length);
    text.push_str(start);
    for index in 0.. {
        let element = element(index);
        if text.len() + 1 + element.len() + end.len() > length {
            break;
        }
        if index > 0 {
            text.push(',');
        }
        text.push_str(&element);
    }
    text.push_str(end);
    assert!(text.len() > length - 4096 && text.len() <= length);
    text
}

/// A short name for each number, of characters that JSON need not escape.
fn name(mut index: usize) -> String {
    const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-+*/.:;<>()[]{}!#$%&=?@^|~";
    let mut text = String::new();
    loop {
        text.push(char::from(LETTERS[index % LETTERS.len()]));
        index /= LETTERS.len();
        if index == 0 {
            return text;
        }
    }
}

const CHOICES: usize = 8 << 20;

const CONTRACT: &str = "gemm_i8_i8_i32";

fn kernel(id: &str) -> String {
    format!(r#"{{"id":"{CONTRACT}__fma_8x128x{id}","seconds":1}}"#)
}

fn choice(kernels: &str) -> String {
    format!(r#"{{"contract":"{CONTRACT}","shape":"1x1-256x1-256","kernels":[{kernels}]}}"#)
}

fn choices(kind: &str) -> String {
    let head = r#"{"format":"anybit choices","version":1,"devices":["#;
    let class = format!(r#"{head}{{"class":"gpu","choices":["#);
    let kernels =
        format!(r#"{class}{{"contract":"{CONTRACT}","shape":"1x1-256x1-256","kernels":["#);
    let end = "]}]}";
    match kind {
        "an unknown field" => list(CHOICES, &format!(r#"{head}{{"x":["#), |_| "0".into(), end),
        "unknown lists" => list(
            CHOICES,
            &format!(r#"{head}{{"x":["#),
            |_| "[[[]]]".into(),
            end,
        ),
        "empty devices" => list(
            CHOICES,
            head,
            |_| r#"{"class":"","choices":[]}"#.into(),
            "]}",
        ),
        "devices" => {
            let device = |index| {
                let name = name(index);
                let choice = choice(&kernel("8"));
                format!(r#"{{"adapter":"{name}","driver":"","backend":"","choices":[{choice}]}}"#)
            };
            list(CHOICES, head, device, "]}")
        }
        "wrong choices" => {
            let choice = |_| r#"{"contract":"","shape":"","kernels":[]}"#.into();
            list(CHOICES, &class, choice, end)
        }
        "choices" => list(CHOICES, &class, |_| choice(&kernel("8")), end),
        "wrong kernels" => {
            let kernel = |_| r#"{"id":"","seconds":1}"#.into();
            list(CHOICES, &kernels, kernel, "]}]}]}")
        }
        "wrong times" => {
            let kernel = |_| r#"{"id":"","seconds":0}"#.into();
            list(CHOICES, &kernels, kernel, "]}]}]}")
        }
        "kernels" => {
            let kernel = |index: usize| kernel(&format!("8_{index:x}"));
            list(CHOICES, &kernels, kernel, "]}]}]}")
        }
        "brackets" => format!(r#"{head}{{"x":{}"#, "[".repeat(CHOICES - 100)),
        _ => unreachable!("{kind}"),
    }
}

#[test]
fn choices_take_no_more_than_64_mib_beyond_their_length() {
    let _alone = alone();
    for kind in [
        "an unknown field",
        "unknown lists",
        "empty devices",
        "devices",
        "wrong choices",
        "choices",
        "wrong kernels",
        "wrong times",
        "kernels",
        "brackets",
    ] {
        let text = choices(kind);
        let (choices, memory) = measured(kind, || Choices::parse(&text));
        assert!(memory <= MOST_MEMORY, "{kind}: {memory} bytes");
        // Each is what it is meant to be: what is right is taken, what is wrong is told.
        let taken = match kind {
            "devices" => choices.len() > 40_000,
            "kernels" | "choices" => choices.len() == 1,
            _ => choices.is_empty() && !choices.warnings().is_empty(),
        };
        let warnings = choices.warnings();
        assert!(taken, "{kind}: {} choices, {warnings:?}", choices.len());
        assert!(warnings.len() <= 17, "{kind}: {}", warnings.len());
    }
}

#[test]
fn verdicts_take_no_more_than_64_mib_beyond_their_length() {
    let _alone = alone();
    let caps = Caps::floor();
    let empty = Verdicts::default().with("", Verdict::Passed).to_json(&caps);
    let (head, _) = empty.split_once("\"\":").expect("a verdict");
    let wrong = r#"{"wrong":{"count":1,"row":1,"column":1,"expected":"","found":""}}"#;
    for (kind, verdict) in [
        ("passed", r#""passed""#),
        ("rejected", r#"{"rejected":""}"#),
        ("wrong", wrong),
    ] {
        let verdict = |index| format!(r#""{}":{verdict}"#, name(index));
        let text = list(4 << 20, head, verdict, "}}");
        let (verdicts, memory) = measured(kind, || Verdicts::from_json(&text, &caps));
        assert!(verdicts.iter().len() > 10_000, "{kind}");
        assert!(memory <= MOST_MEMORY, "{kind}: {memory} bytes");
    }
    let long = list(
        5 << 20,
        head,
        |index| format!(r#""{}":"passed""#, name(index)),
        "}}",
    );
    let (verdicts, memory) = measured("too long", || Verdicts::from_json(&long, &caps));
    assert!(
        verdicts.iter().len() == 0 && memory < 1 << 10,
        "{memory} bytes"
    );
}

#[test]
fn configurations_take_their_length() {
    let _alone = alone();
    let limit = 1 << 20;
    for (kind, text) in [
        ("a list", list(limit, "[", |_| "0".into(), "]")),
        ("a field", list(limit, r#"{"x":["#, |_| "0".into(), "]}")),
        (
            "lists",
            list(limit, r#"{"x":["#, |_| "[[[0]]]".into(), "]}"),
        ),
        (
            "fields",
            list(limit, "{", |index| format!(r#""{}":0"#, name(index)), "}"),
        ),
        (
            "groups",
            list(
                limit,
                r#"{"quantization_config":{"config_groups":{"#,
                |index| format!(r#""{}":{{}}"#, name(index)),
                "}}}",
            ),
        ),
        (
            "a version",
            list(limit, r#"{"bits":4,"version":["#, |_| "0".into(), "]}"),
        ),
    ] {
        let (config, memory) = measured(kind, || QuantizationConfig::from_json(text.as_bytes()));
        assert_eq!(config.is_ok(), kind != "a list", "{kind}: {config:?}");
        assert!(memory <= 2 * limit, "{kind}: {memory} bytes");
    }
    let long = vec![b' '; limit + 1];
    let (config, memory) = measured("too long", || QuantizationConfig::from_json(&long));
    assert!(
        matches!(config, Err(ImportError::TooLong { .. })),
        "{config:?}"
    );
    assert!(memory < 1 << 10, "{memory} bytes");
}

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anybit-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A header and data as a file.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

#[test]
fn indices_take_no_more_than_16_mib_beyond_their_length() {
    let _alone = alone();
    let directory = Directory::new("index-limits");
    directory.file(
        "a",
        safetensors(
            r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
            1,
        ),
    );
    let limit = 1 << 26;
    type Is = fn(&ImportError) -> bool;
    let files: Is = |error| matches!(error, ImportError::TooManyFiles { limit: 16_384 });
    let absent: Is = |error| matches!(error, ImportError::NotInFile { .. });
    let syntax: Is = |error| matches!(error, ImportError::InvalidJson { .. });
    let long: Is = |error| matches!(error, ImportError::TooLong { .. });
    let map = r#"{"weight_map":{"#;
    for (kind, length, is, text) in [
        (
            "files",
            limit,
            files,
            list(limit, map, |index| format!(r#""":"x{index:x}""#), "}}"),
        ),
        (
            "tensors",
            limit,
            absent,
            list(limit, map, |_| r#""":"a""#.into(), "}}"),
        ),
        (
            "an unknown field",
            limit,
            syntax,
            list(limit, r#"{"x":["#, |_| "0".into(), "]}"),
        ),
        (
            "a long name",
            1 << 20,
            long,
            format!(r#"{map}"t":"{}"}}}}"#, "x".repeat(1 << 20)),
        ),
        ("a long file", limit, long, " ".repeat(limit + 1)),
    ] {
        let path = directory.file("x.json", text);
        let (opened, memory) = measured(kind, || SafetensorsFile::open(path));
        let error = opened.expect_err("it is wrong");
        assert!(is(&error), "{kind}: {error:?}");
        assert!(error.to_string().len() < 1000, "{kind}: {error}");
        assert!(memory <= length + (16 << 20), "{kind}: {memory} bytes");
    }
}

/// Opening a file of packed descriptions or tensors takes so many times the length of the header at most, as the module says.
const SAFETENSORS: usize = 32;

#[test]
fn headers_of_safetensors_take_a_multiple_of_their_length() {
    let _alone = alone();
    let limit = 8 << 20;
    let tensor = |index| {
        let name = name(index);
        format!(r#""{name}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)
    };
    let matrix = |index| format!(r#""anybit.matrix.{}":"u5g32sm 9x256""#, name(index));
    let metadata = r#"{"__metadata__":{"#;
    let version = r#"{"__metadata__":{"anybit.version":"1","#;
    for (kind, header) in [
        ("tensors", list(limit, "{", tensor, "}")),
        (
            "metadata",
            list(
                limit,
                metadata,
                |index| format!(r#""{}":"""#, name(index)),
                "}}",
            ),
        ),
        (
            "the same metadata",
            list(limit, metadata, |_| r#""":"""#.into(), "}}"),
        ),
        ("matrices", list(limit, version, matrix, "}}")),
        (
            "a shape",
            list(limit, r#"{"a":{"shape":["#, |_| "0".into(), "]}}"),
        ),
        (
            "an unknown field",
            list(limit, r#"{"a":{"x":["#, |_| "0".into(), "]}}"),
        ),
    ] {
        let file = safetensors(&header, 0);
        drop(header);
        let length = file.len();
        let (opened, memory) = measured(kind, || SafetensorsFile::from_bytes(file));
        let right = matches!(kind, "tensors" | "metadata");
        assert!(opened.is_ok() || !right, "{kind}: {opened:?}");
        println!("  {:.1} times its length", memory as f64 / length as f64);
        assert!(memory <= SAFETENSORS * length, "{kind}: {memory} bytes");
    }
}

#[test]
fn headers_of_gguf_take_a_multiple_of_their_length() {
    let _alone = alone();
    let length = 8 << 20;
    let string = |text: &[u8]| [&(text.len() as u64).to_le_bytes()[..], text].concat();
    let head = |tensors: u64, entries: u64| {
        let counts = [tensors, entries].map(u64::to_le_bytes).concat();
        [b"GGUF", &3_u32.to_le_bytes()[..], &counts].concat()
    };
    let array = |element: u32, count: u64| {
        let header = [
            &9_u32.to_le_bytes()[..],
            &element.to_le_bytes(),
            &count.to_le_bytes(),
        ];
        [string(b"k"), header.concat()].concat()
    };
    let many = |count: u64, entry: &dyn Fn(u64) -> Vec<u8>| -> Vec<u8> {
        (0..count).flat_map(entry).collect()
    };
    let strings = (length / 8) as u64;
    let arrays = (length / 12) as u64;
    let entries = (length / 19) as u64;
    let tensors = (length / 36) as u64;
    let key = |index: u64| string(format!("{index:06x}").as_bytes());
    for (kind, file) in [
        (
            "strings",
            [head(0, 1), array(8, strings), vec![0; length]].concat(),
        ),
        (
            "arrays",
            [head(0, 1), array(9, arrays), vec![0; length]].concat(),
        ),
        (
            "entries",
            [
                head(0, entries),
                many(entries, &|index| [key(index), vec![0, 0, 0, 0, 0]].concat()),
            ]
            .concat(),
        ),
        (
            "tensors",
            [
                head(tensors, 0),
                many(tensors, &|index| [key(index), vec![0; 4 + 4 + 8]].concat()),
            ]
            .concat(),
        ),
    ] {
        let size = file.len();
        let (opened, memory) = measured(kind, || GgufFile::from_bytes(file));
        println!(
            "  {:.1} times its length, {:?}",
            memory as f64 / size as f64,
            opened.is_ok()
        );
        assert!(memory <= 16 * size, "{kind}: {memory} bytes");
    }
}

#[test]
fn arrays_of_numpy_take_a_multiple_of_their_length() {
    let _alone = alone();
    let length = 32 << 20;
    for (kind, bytes) in [("<f2", 2), ("<f4", 4), ("<f8", 8)] {
        let count = length / bytes;
        let header =
            format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({count},), }}\n");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend_from_slice(&(header.len() as u16).to_le_bytes());
        file.extend_from_slice(header.as_bytes());
        file.resize(file.len() + length, 0);
        let size = file.len() as u64;
        let (array, memory) = measured(kind, || NpyArray::from_reader(Cursor::new(&file), size));
        assert_eq!(array.map(|array| array.values.len()).ok(), Some(count));
        assert!(memory <= 4 * count + (256 << 10), "{kind}: {memory} bytes");
    }
}
