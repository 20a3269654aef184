//! Translates every kernel to what drivers are fed, for `cargo xtask shaders`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anybit_tests::translation::{
    External, Hashes, Translations, differences, externals, specializations,
};
use clap::Parser;

/// Translate every kernel, compare with the hashes that are kept, and run vendors' compilers, where they are, on what changed
#[derive(Debug, Parser)]
#[command(name = "anybit-translate", version)]
struct Arguments {
    /// The file of hashes
    #[arg(long, value_name = "FILE")]
    golden: PathBuf,

    /// Write it anew, after vendors' compilers have taken all translations
    #[arg(long)]
    update: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Differences that are listed at most.
const LISTED: usize = 20;

fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let all = specializations();
    let kept = match arguments.golden.is_file() {
        true => serde_json::from_str(&fs::read_to_string(&arguments.golden)?)?,
        false => Hashes::new(),
    };
    let (externals, missing) = externals();
    let found: Mutex<Hashes> = Mutex::new(BTreeMap::new());
    let wrong: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let scratch = std::env::temp_dir().join(format!("anybit-translate-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let workers = thread::available_parallelism().map_or(1, |cores| cores.get().min(8));
    thread::scope(|scope| {
        for worker in 0..workers {
            let file = scratch.join(format!("shader{worker}"));
            let (all, found, wrong, next, externals) = (&all, &found, &wrong, &next, &externals);
            let kept = &kept;
            scope.spawn(move || {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let id = match one.subgroup {
                        true => format!("{} with subgroups", one.id),
                        false => one.id.clone(),
                    };
                    // What has the hashes of an update has been compiled by its compilers.
                    let known = kept.get(&id).filter(|_| !arguments.update);
                    match translate(one, known, externals, &file) {
                        Ok(hashes) => {
                            if let Ok(mut found) = found.lock() {
                                found.insert(id, hashes);
                            }
                        }
                        Err(error) => {
                            if let Ok(mut wrong) = wrong.lock() {
                                wrong.push(format!("{id}: {error}"));
                            }
                        }
                    }
                }
            });
        }
    });
    // Left-over files in the temporary folder harm nobody.
    let _ = fs::remove_dir_all(&scratch);
    let found = found.into_inner().map_err(|_| "a thread panicked")?;
    let wrong = wrong.into_inner().map_err(|_| "a thread panicked")?;
    for problem in &wrong {
        println!("FAILED {problem}");
    }
    let mut checked: Vec<String> = externals
        .iter()
        .map(|external| external.program.display().to_string())
        .collect();
    checked.dedup();
    println!(
        "{} kernels translated, {} failed; compilers of what changed: {}; not there: {}",
        found.len(),
        wrong.len(),
        list(&checked),
        list(&missing)
    );
    let changed = compare(arguments, &kept, &found, wrong.is_empty())?;
    Ok(wrong.is_empty() && !changed)
}

fn translate(
    specialization: &anybit::Specialization,
    known: Option<&BTreeMap<String, String>>,
    externals: &[External],
    scratch: &std::path::Path,
) -> Result<BTreeMap<String, String>, String> {
    let translations = Translations::of(specialization)?;
    let hashes = translations.hashes();
    if known == Some(&hashes) {
        return Ok(hashes);
    }
    for external in externals {
        if let Some(result) = external.check(&translations, scratch) {
            result?;
        }
    }
    Ok(hashes)
}

/// Whether hashes differ from those that are kept. An update keeps these.
fn compare(
    arguments: &Arguments,
    kept: &Hashes,
    found: &Hashes,
    right: bool,
) -> Result<bool, Box<dyn Error>> {
    if arguments.update && right {
        let mut text = serde_json::to_string_pretty(found)?;
        text.push('\n');
        fs::write(&arguments.golden, text)?;
        return Ok(false);
    }
    let lines = differences(kept, found);
    for line in lines.iter().take(LISTED) {
        println!("{line}");
    }
    if !lines.is_empty() {
        println!(
            "{} translations differ from {}: if that was meant, cargo xtask shaders --update",
            lines.len(),
            arguments.golden.display()
        );
    }
    Ok(!lines.is_empty())
}

fn list<T: AsRef<str>>(names: &[T]) -> String {
    match names {
        [] => "none".to_owned(),
        _ => names
            .iter()
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join(", "),
    }
}
