//! Runs damaged inputs one after another, and measures what each takes.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Seek, SeekFrom, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::mutate::Mutator;
use super::{Target, Verdict};

/// An input that takes longer hangs.
pub const LONGEST_RUN: Duration = Duration::from_secs(10);

/// Bytes that an input may make a target hold beyond its own length.
pub const MOST_MEMORY: usize = 64 << 20;

/// The stack that a target has: a thread's, unless a program asks for more.
const STACK: usize = 2 << 20;

/// How often it is looked whether an input hangs.
const GLANCE: Duration = Duration::from_millis(20);

/// The file with the input at hand, in a target's folder of artifacts: it survives a process that is aborted.
const RUNNING: &str = "running";

/// What counts the memory that this process holds.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Begins to look for the most anew, from the bytes held now.
    pub reset: fn(),
    /// Bytes held now.
    pub current: fn() -> usize,
    /// The most held since it was reset.
    pub peak: fn() -> usize,
}

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    /// For so long, the seeds included.
    Time(Duration),
    /// For so many damaged inputs.
    Runs(u64),
}

/// What a target's inputs took.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Inputs that are right, or kept in the corpus.
    pub kept: u64,
    /// Inputs that were damaged.
    pub damaged: u64,
    /// How many of both were read and used.
    pub accepted: u64,
    /// How many of both were refused.
    pub refused: u64,
    /// The longest that one took.
    pub longest: Duration,
    /// The most bytes that one took beyond its length.
    pub memory: usize,
    /// What was wrong, if anything.
    pub failure: Option<Failure>,
}

/// An input that a target does wrong by.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was wrong.
    pub what: String,
    /// The file with the input.
    pub file: PathBuf,
}

/// The inputs of a target's corpus, sorted by name. A folder that is not there has none.
///
/// # Errors
///
/// Those of reading it.
pub fn corpus(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let folder = target.corpus();
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    paths.iter().map(fs::read).collect()
}

/// Runs the seeds and the corpus of a target, then damaged inputs until `extent` or the first that fails. An input that
/// hangs ends the process, since nothing else ends it: `hung` is called first.
///
/// # Errors
///
/// Those of reading the corpus, and of writing inputs.
pub fn run(
    target: &'static Target,
    extent: Extent,
    seed: u64,
    meter: Meter,
    hung: impl FnOnce(&Failure),
) -> io::Result<Report> {
    let start = Instant::now();
    let mut inputs = (target.seeds)();
    inputs.extend(corpus(target)?);
    let mut running = Running::create(target.artifacts())?;
    let path = running.path.clone();
    // Milliseconds from `start` to the beginning of the input at hand, and 1; 0 between inputs.
    let since = AtomicU64::new(0);
    let report = thread::scope(|scope| {
        let work = || -> io::Result<Report> {
            let mut report = Report::default();
            let mut mutator = Mutator::new(target, &inputs, seed);
            loop {
                let kept = inputs.get(report.kept as usize);
                let over = match extent {
                    Extent::Time(time) => start.elapsed() >= time,
                    Extent::Runs(runs) => report.damaged >= runs,
                };
                if kept.is_none() && over {
                    break;
                }
                let damaged;
                let input = match kept {
                    Some(kept) => {
                        report.kept += 1;
                        kept
                    }
                    None => {
                        report.damaged += 1;
                        damaged = mutator.next_input();
                        &damaged
                    }
                };
                running.keep(input)?;
                since.store(start.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
                let measured = measure(target, input, meter);
                since.store(0, Ordering::Relaxed);
                report.longest = report.longest.max(measured.time);
                report.memory = report.memory.max(measured.memory);
                match measured.verdict {
                    Ok(Verdict::Accepted) => report.accepted += 1,
                    Ok(Verdict::Refused) => report.refused += 1,
                    Err(what) => {
                        let kind = what.split(' ').next().unwrap_or_default().to_owned();
                        let file = running.rename(&kind)?;
                        report.failure = Some(Failure { what, file });
                        return Ok(report);
                    }
                }
            }
            fs::remove_file(&running.path)?;
            Ok(report)
        };
        let builder = thread::Builder::new().stack_size(STACK);
        let worker = builder.spawn_scoped(scope, work)?;
        while !worker.is_finished() {
            thread::sleep(GLANCE);
            let since = since.load(Ordering::Relaxed);
            let now = start.elapsed().as_millis() as u64;
            if since > 0 && now.saturating_sub(since) > LONGEST_RUN.as_millis() as u64 {
                let file = rename(&path, "hang")?;
                let what = format!("hang of more than {} seconds", LONGEST_RUN.as_secs());
                hung(&Failure { what, file });
                std::process::exit(1);
            }
        }
        match worker.join() {
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok(report)
}

/// What one input did.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What became of it, or what was wrong; its first word is the kind.
    pub verdict: Result<Verdict, String>,
    /// How long it took.
    pub time: Duration,
    /// Bytes that it took beyond its length.
    pub memory: usize,
}

/// Runs one input.
pub fn measure(target: &'static Target, input: &[u8], meter: Meter) -> Measured {
    (meter.reset)();
    let before = (meter.current)();
    let start = Instant::now();
    let caught = catch_unwind(|| (target.run)(input));
    let time = start.elapsed();
    // The input itself is held already, and most targets take a copy.
    let memory = (meter.peak)().saturating_sub(before + input.len());
    let verdict = match caught {
        Err(_) => Err("panic".to_owned()),
        Ok(_) if memory > MOST_MEMORY => Err(format!("memory of {memory} bytes")),
        Ok(_) if time > LONGEST_RUN => Err(format!("hang of {time:.1?}")),
        Ok(verdict) => Ok(verdict),
    };
    Measured {
        verdict,
        time,
        memory,
    }
}

/// The input at hand, in a file.
struct Running {
    file: File,
    path: PathBuf,
}

impl Running {
    fn create(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let path = folder.join(RUNNING);
        if path.is_file() {
            // An earlier run was aborted in the middle of it.
            rename(&path, "abort")?;
        }
        Ok(Self {
            file: File::create(&path)?,
            path,
        })
    }

    fn keep(&mut self, input: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(input)?;
        self.file.set_len(input.len() as u64)
    }

    fn rename(&self, kind: &str) -> io::Result<PathBuf> {
        rename(&self.path, kind)
    }
}

/// Gives the input at hand a name of its own.
fn rename(path: &Path, kind: &str) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    fs::read(path)?.hash(&mut hasher);
    let file = path.with_file_name(format!("{kind}-{:016x}", hasher.finish()));
    fs::rename(path, &file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{all_text, only_text};

    const fn target(name: &'static str, run: fn(&[u8]) -> Verdict) -> Target {
        Target {
            name,
            run,
            seeds: || vec![b"right".to_vec()],
            text: all_text,
            with_text: only_text,
            longest: 1 << 16,
            words: &[],
        }
    }

    /// Without an allocator that counts, memory is what a target says.
    static HELD: AtomicU64 = AtomicU64::new(0);

    const METER: Meter = Meter {
        reset: || HELD.store(0, Ordering::Relaxed),
        current: || 0,
        peak: || HELD.load(Ordering::Relaxed) as usize,
    };

    fn verdict(run: fn(&[u8]) -> Verdict, input: &[u8]) -> Result<Verdict, String> {
        let target = Box::leak(Box::new(target("unit", run)));
        measure(target, input, METER).verdict
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(verdict(|_| Verdict::Accepted, b""), Ok(Verdict::Accepted));
        assert_eq!(verdict(|_| Verdict::Refused, b""), Ok(Verdict::Refused));
        assert_eq!(
            verdict(|_| panic!("as it should"), b""),
            Err("panic".to_owned())
        );
        let greedy = |input: &[u8]| {
            HELD.store((MOST_MEMORY + 2 * input.len()) as u64, Ordering::Relaxed);
            Verdict::Refused
        };
        assert_eq!(verdict(greedy, b""), Ok(Verdict::Refused));
        let message = verdict(greedy, b"abc").expect_err("more than is allowed");
        assert_eq!(message, "memory of 67108867 bytes");
    }

    #[test]
    fn the_first_failure_ends_a_run_and_is_kept() {
        static TARGET: Target = target("unit-failure", |input| {
            assert!(input == b"right", "as it should");
            Verdict::Accepted
        });
        let report = run(&TARGET, Extent::Runs(1000), 1, METER, |_| ()).expect("a folder to write");
        let failure = report.failure.expect("damaged inputs fail");
        assert_eq!((report.kept, report.accepted), (1, report.damaged));
        assert_eq!(failure.what, "panic");
        let input = fs::read(&failure.file).expect("it was kept");
        assert_ne!(input, b"right");
        fs::remove_dir_all(TARGET.artifacts()).expect("it is there");
    }

    #[test]
    fn a_run_that_finds_nothing_leaves_nothing() {
        static TARGET: Target = target("unit-success", |_| Verdict::Refused);
        let report = run(&TARGET, Extent::Runs(50), 1, METER, |_| ()).expect("a folder to write");
        assert!(report.failure.is_none());
        assert_eq!((report.kept, report.damaged, report.refused), (1, 50, 51));
        let left = fs::read_dir(TARGET.artifacts())
            .expect("the folder is there")
            .count();
        assert_eq!(left, 0);
        fs::remove_dir(TARGET.artifacts()).expect("it is empty");
    }
}
