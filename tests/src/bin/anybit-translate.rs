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

/// Translate every kernel, compare with the hashes that are kept, and run vendors' compilers where they are
#[derive(Debug, Parser)]
#[command(name = "anybit-translate", version)]
struct Arguments {
    /// The file of hashes
    #[arg(long, value_name = "FILE")]
    golden: PathBuf,

    /// Write it anew, unless a translation fails or a compiler refuses one
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
    // Of each compiler, how many it has taken, and of how many it does not know what they are written in.
    let checked: Vec<[AtomicUsize; 2]> = externals.iter().map(|_| Default::default()).collect();
    let next = AtomicUsize::new(0);
    let scratch = std::env::temp_dir().join(format!("anybit-translate-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let workers = thread::available_parallelism().map_or(1, |cores| cores.get().min(8));
    thread::scope(|scope| {
        for worker in 0..workers {
            let file = scratch.join(format!("shader{worker}"));
            let (all, found, wrong, next) = (&all, &found, &wrong, &next);
            let (externals, checked) = (&externals, &checked);
            scope.spawn(move || {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let id = match one.subgroup {
                        true => format!("{} with subgroups", one.id),
                        false => one.id.clone(),
                    };
                    match translate(one, externals, checked, &file) {
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
    println!("{} kernels translated, {} failed", found.len(), wrong.len());
    for (external, count) in externals.iter().zip(&checked) {
        let [taken, unknown] = count.each_ref().map(|n| n.load(Ordering::Relaxed));
        println!("{} has taken {taken}", external.name());
        if unknown > 0 {
            println!("SKIP: {unknown} that it is too old for, of cooperative matrices");
        }
    }
    for name in &missing {
        println!("SKIP: {name} is not there");
    }
    let changed = compare(arguments, &kept, &found, wrong.is_empty())?;
    Ok(wrong.is_empty() && !changed)
}

/// The hashes of a kernel's translations, after each compiler that is there has seen its own. `checked` counts these.
fn translate(
    specialization: &anybit::Specialization,
    externals: &[External],
    checked: &[[AtomicUsize; 2]],
    scratch: &std::path::Path,
) -> Result<BTreeMap<String, String>, String> {
    let translations = Translations::of(specialization)?;
    for (external, count) in externals.iter().zip(checked) {
        if let Some(result) = external.check(&translations, scratch) {
            let [taken, unknown] = count;
            match result? {
                true => taken.fetch_add(1, Ordering::Relaxed),
                false => unknown.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
    Ok(translations.hashes())
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
