//! Measured choices: which kernels were fastest for a contract and a class of shapes. Data that the planner reads.
//!
//! A choice moves a kernel to the front of those that can do the problem under the options at hand. It makes none
//! eligible, so it can make no plan fail, and no integer result another.
//!
//! A file of choices may come from a stranger. One of more than 8 MiB is not read, and none takes more than 64 MiB beyond its
//! own length, or a time that grows faster than it: kernels are checked as they are read, and what is of no use is not kept.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::caps::{Caps, DeviceClass};
use crate::kernel::KERNELS;
use crate::plan::{Candidate, PlanOptions, Refusal, candidates, plan_of};
use crate::problem::Problem;
use crate::{Plan, Result};

/// The choices that come with the crate, by class of device.
const BUILTIN: &str = include_str!("choices/builtin.json");

/// What a file of choices says it is.
const FORMAT: &str = "anybit choices";

/// The version of the file's form.
const VERSION: u64 = 1;

/// Bytes of the largest file that is read. A file of all contracts and classes of a device is far smaller.
const LARGEST_FILE: u64 = 8 << 20;

/// Characters of the longest message about a file's syntax, which names what the file has in place of what it should.
const LONGEST_MESSAGE: usize = 400;

/// Warnings that are kept of one file.
const MOST_WARNINGS: usize = 16;

/// No kernel takes less, and none that is worth choosing takes more.
const SECONDS: std::ops::RangeInclusive<f64> = 1e-8..=1e5;

/// The first sizes of the classes.
const ROWS: [usize; 8] = [1, 2, 3, 5, 9, 33, 129, 513];
const SIZES: [usize; 5] = [1, 257, 1025, 4097, 16385];

/// Shapes for which one kernel is taken to be the best.
///
/// M, the rows of X, falls into 1, 2, 3–4, 5–8, 9–32, 33–128, 129–512 and 513 or more. N and K fall into 1–256, 257–1024,
/// 1025–4096, 4097–16384 and 16385 or more; N counts the rows of W of all products of a batch. With
/// experts, M is the rows of X that an expert has on average, and N the rows of W of one. Written as
/// `33-128x1025-4096x257-1024`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShapeClass {
    m: usize,
    n: usize,
    k: usize,
}

impl ShapeClass {
    /// The class of a problem's shape; `None` of an empty one.
    pub fn of(problem: &Problem) -> Option<Self> {
        let index = |starts: &[usize], size: usize| starts.iter().rposition(|start| size >= *start);
        Some(Self {
            m: index(&ROWS, problem.segment())?,
            n: index(&SIZES, problem.n.saturating_mul(problem.batch.count))?,
            k: index(&SIZES, problem.k)?,
        })
    }
}

fn range(starts: &[usize], index: usize) -> String {
    let first = starts.get(index).copied().unwrap_or_default();
    match starts.get(index + 1).map(|next| next - 1) {
        Some(last) if last == first => format!("{first}"),
        Some(last) => format!("{first}-{last}"),
        None => format!("{first}+"),
    }
}

impl fmt::Display for ShapeClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (m, n, k) = (
            range(&ROWS, self.m),
            range(&SIZES, self.n),
            range(&SIZES, self.k),
        );
        formatter.pad(&format!("{m}x{n}x{k}"))
    }
}

impl FromStr for ShapeClass {
    type Err = UnknownClass;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownClass> {
        let mut parts = text.split('x');
        let mut next = |starts: &[usize]| {
            let part = parts.next()?;
            (0..starts.len()).find(|index| range(starts, *index) == part)
        };
        match (next(&ROWS), next(&SIZES), next(&SIZES), parts.next()) {
            (Some(m), Some(n), Some(k), None) => Ok(Self { m, n, k }),
            _ => Err(UnknownClass),
        }
    }
}

/// A text that names no [`ShapeClass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no class of shapes; one is written as 33-128x1025-4096x257-1024")]
pub struct UnknownClass;

/// What one kernel took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// The kernel's id.
    pub id: String,
    /// Seconds for one product; of several shapes of a class, the geometric mean.
    pub seconds: f64,
}

/// Whose choices they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Device {
    /// Every device of a class, by its name, as a default.
    Class(&'static str),
    /// One adapter with one driver.
    Adapter {
        name: String,
        driver: String,
        backend: String,
    },
}

impl Device {
    fn of(caps: &Caps) -> Self {
        Self::Adapter {
            name: caps.name.clone(),
            driver: caps.driver.clone(),
            backend: caps.backend.to_str().to_owned(),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => formatter.write_str(class),
            Self::Adapter {
                name,
                driver,
                backend,
            } => write!(
                formatter,
                "{} ({}, {})",
                excerpt(name),
                excerpt(backend),
                excerpt(driver)
            ),
        }
    }
}

const fn class_name(class: DeviceClass) -> &'static str {
    match class {
        DeviceClass::Gpu => "gpu",
        DeviceClass::Software => "software",
    }
}

/// A contract and class of shapes.
type Case = (String, ShapeClass);

/// Of a device and case: the fastest kernel of each engine and skeleton, the fastest first. One map for all devices, since a
/// map of its own for each would take more than a file has of it.
type Table = BTreeMap<(Arc<Device>, Case), Vec<Figure>>;

/// Which kernels were fastest: a file's, or those that a [tuning](crate::Tuning) found, for any number of devices.
///
/// [`Choices::builtin`] is what a [`Context`](crate::Context) starts from; [`Context::with_choices`](crate::Context::with_choices)
/// adds others. Nothing is read from a disk unless [`load`](Self::load) is called.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices {
    table: Table,
    warnings: Vec<ChoicesWarning>,
}

/// Why a file of choices, or a part of one, is ignored. None is an error: planning goes on without.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChoicesWarning {
    /// The file cannot be read.
    #[error("the file of choices {} cannot be read: {message}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        message: String,
    },
    /// The file is larger than any that anybit writes.
    #[error("the choices take more than {limit} bytes, so they are ignored")]
    TooLarge {
        /// The largest size that is read.
        limit: u64,
    },
    /// The text is not a file of choices.
    #[error("the choices are no file of anybit's, so they are ignored: {message}")]
    Syntax {
        /// What is wrong with it.
        message: String,
    },
    /// The file has another version.
    #[error("the choices have version {found}, not {expected}, so they are ignored; tune again")]
    Version {
        /// The file's.
        found: u64,
        /// The one that is read.
        expected: u64,
    },
    /// A device that is none.
    #[error("choices of the device class {0} are ignored: there is no such class")]
    Class(String),
    /// The choices are for other adapters or drivers than the one in use.
    #[error("there are choices for {}, none for {device}, which goes by the cost model; tune it", found.join(" and "))]
    OtherDevice {
        /// The adapters that there are choices for, with their backends and drivers.
        found: Vec<String>,
        /// The adapter in use.
        device: String,
    },
    /// A choice for no contract or class of shapes.
    #[error(
        "the choice for {contract}, {shape} is ignored: there is no such contract or class of shapes"
    )]
    Shape {
        /// What the file calls the contract.
        contract: String,
        /// What it calls the class.
        shape: String,
    },
    /// A kernel that this version does not have, or not for the contract.
    #[error("{contract}: the kernel {kernel} is ignored, since this version has none such for it")]
    Kernel {
        /// The contract.
        contract: String,
        /// What the file calls the kernel.
        kernel: String,
    },
    /// A time that nothing takes.
    #[error("{kernel} is ignored: it cannot have taken {seconds} seconds")]
    Seconds {
        /// The kernel.
        kernel: String,
        /// The time.
        seconds: f64,
    },
    /// More warnings than are worth reading.
    #[error("and {0} more of this kind")]
    More(usize),
}

/// Why a kernel stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChosenBy {
    /// The cost model puts it first, and nothing measured says otherwise.
    CostModel,
    /// A choice for the class of device that comes with the crate.
    Builtin,
    /// A choice measured on this adapter.
    Tuned,
}

impl fmt::Display for ChosenBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::CostModel => "cost model",
            Self::Builtin => "built-in default",
            Self::Tuned => "tuned",
        })
    }
}

/// A candidate as [`explain`] lists it.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The kernel.
    pub candidate: Candidate,
    /// The cost model's estimate, in units of the least of all candidates.
    pub estimate: f64,
    /// What it took when it was measured, in seconds, if the choices know. Of another shape, maybe.
    pub measured: Option<f64>,
}

/// How the planner comes to a kernel.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Every kernel that can do the problem: the one chosen, then the others by the cost model.
    pub candidates: Vec<Explained>,
    /// Every kernel that cannot, with the reason.
    pub refusals: Vec<Refusal>,
    /// Why the first one stands first.
    pub by: ChosenBy,
}

/// How [`plan_with`](crate::plan_with) comes to a kernel. Touches no GPU.
///
/// # Errors
///
/// Those of [`candidates`].
pub fn explain(
    problem: &Problem,
    caps: &Caps,
    options: &PlanOptions,
    choices: &Choices,
) -> Result<Explanation> {
    let (mut accepted, refusals) = candidates(problem, caps, options)?;
    let least = accepted
        .first()
        .map_or(1.0, |candidate| candidate.cost.max(f64::MIN_POSITIVE));
    let mut by = ChosenBy::CostModel;
    if let Some(choice) = choices.choose(problem, caps, options, &accepted) {
        by = choice.by;
        // Moved to the front; the others keep their order.
        accepted[..=choice.index].rotate_right(1);
    }
    let figures = choices
        .lookup(&counted(problem, options), caps)
        .map(|(figures, _)| figures);
    let candidates = accepted
        .into_iter()
        .map(|candidate| Explained {
            estimate: candidate.cost / least,
            measured: figures.and_then(|figures| seconds_of(figures, &candidate)),
            candidate,
        })
        .collect();
    Ok(Explanation {
        candidates,
        refusals,
        by,
    })
}

/// A choice among candidates.
pub(crate) struct Choice {
    pub(crate) index: usize,
    pub(crate) plan: Plan,
    by: ChosenBy,
}

/// The problem that decides the kernel: deterministic plans have that of one row of X.
fn counted(problem: &Problem, options: &PlanOptions) -> Problem {
    let mut problem = problem.clone();
    if options.deterministic {
        problem.m = problem.m.min(1);
    }
    problem
}

/// The half of an id that says how.
fn implementation(id: &str) -> &str {
    id.split_once("__")
        .map_or(id, |(_, implementation)| implementation)
}

fn seconds_of(figures: &[Figure], candidate: &Candidate) -> Option<f64> {
    let id = implementation(&candidate.specialization.id);
    let figure = figures
        .iter()
        .find(|figure| implementation(&figure.id) == id);
    figure.map(|figure| figure.seconds)
}

impl Choices {
    /// No choices: the cost model decides.
    pub fn none() -> Self {
        Self::default()
    }

    /// The choices that come with this version, by class of device.
    pub fn builtin() -> &'static Self {
        static CHOICES: LazyLock<Choices> = LazyLock::new(|| Choices::parse(BUILTIN));
        &CHOICES
    }

    /// Reads choices from the text of a file. What cannot be used is left out with a [warning](Self::warnings), be it all
    /// of the text.
    pub fn parse(text: &str) -> Self {
        let mut choices = Self::default();
        if text.len() as u64 > LARGEST_FILE {
            choices.warn(ChoicesWarning::TooLarge {
                limit: LARGEST_FILE,
            });
            return choices;
        }
        // The version first, since another may have another form.
        let head: Head = match serde_json::from_str(text) {
            Ok(head) => head,
            Err(error) => {
                choices.warn(ChoicesWarning::Syntax {
                    message: bounded(&error.to_string(), LONGEST_MESSAGE),
                });
                return choices;
            }
        };
        if head.format != FORMAT {
            choices.warn(ChoicesWarning::Syntax {
                message: format!("its format is {}, not {FORMAT:?}", excerpt(&head.format)),
            });
            return choices;
        }
        if head.version != VERSION {
            choices.warn(ChoicesWarning::Version {
                found: head.version,
                expected: VERSION,
            });
            return choices;
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = FileReader(&mut choices).deserialize(&mut reader);
        if let Err(error) = read.and_then(|()| reader.end()) {
            // Nothing of a file that is cut off or damaged.
            choices = Self::default();
            choices.warn(ChoicesWarning::Syntax {
                message: bounded(&error.to_string(), LONGEST_MESSAGE),
            });
        }
        choices
    }

    /// Reads choices from a file. What cannot be used is left out with a [warning](Self::warnings), be it all of the file
    /// or its lack.
    pub fn load(path: impl AsRef<Path>) -> Self {
        use std::io::Read;
        let path = path.as_ref();
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(LARGEST_FILE + 1).read_to_string(&mut text));
        match read {
            Ok(_) => Self::parse(&text),
            Err(error) => Self {
                table: Table::new(),
                warnings: vec![ChoicesWarning::Unreadable {
                    path: path.to_owned(),
                    message: error.to_string(),
                }],
            },
        }
    }

    /// Where `cargo xtask tune` keeps the choices of this machine: the file that the environment variable `ANYBIT_TUNING`
    /// names, else `anybit/tuning.json` in the user's cache folder. `None` without either. Whether it exists is not asked.
    pub fn user_file() -> Option<PathBuf> {
        user_file(std::env::consts::OS, &|name| {
            std::env::var_os(name).filter(|value| !value.is_empty())
        })
    }

    /// Reads the choices of [`user_file`](Self::user_file), for a program that is to heed them; without such a file there are
    /// none. One that `ANYBIT_TUNING` names and that is not there is a warning.
    pub fn load_user() -> Self {
        let named = std::env::var_os("ANYBIT_TUNING").is_some_and(|name| !name.is_empty());
        match Self::user_file() {
            Some(file) if named || file.exists() => Self::load(file),
            _ => Self::none(),
        }
    }

    /// Why parts of the text are ignored.
    pub fn warnings(&self) -> &[ChoicesWarning] {
        &self.warnings
    }

    /// [`warnings`](Self::warnings), and one more if there are choices of adapters, but none of this.
    pub fn warnings_on(&self, caps: &Caps) -> Vec<ChoicesWarning> {
        let mut warnings = self.warnings.clone();
        let device = Device::of(caps);
        let adapters = || {
            self.devices()
                .filter(|device| matches!(device, Device::Adapter { .. }))
        };
        if adapters().next().is_some() && !adapters().any(|other| *other == device) {
            warnings.push(ChoicesWarning::OtherDevice {
                found: adapters().take(4).map(ToString::to_string).collect(),
                device: device.to_string(),
            });
        }
        warnings
    }

    /// How many contracts and classes of shapes have a choice, on all devices together.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// How many there are for this adapter with its driver, without those of its class.
    pub fn len_on(&self, caps: &Caps) -> usize {
        let device = Arc::new(Device::of(caps));
        let class = ShapeClass { m: 0, n: 0, k: 0 };
        let first = (Arc::clone(&device), (String::new(), class));
        let entries = self.table.range(first..);
        entries
            .take_while(|((other, _), _)| *other == device)
            .count()
    }

    /// Takes other choices in, and their warnings. Where both have one for a device, contract and class, the other's
    /// counts.
    pub fn merge(&mut self, other: Self) {
        self.table.extend(other.table);
        for warning in other.warnings {
            self.warn(warning);
        }
    }

    /// The figures that decide a problem's kernel on a device, fastest first: those of its contract, else of the contract
    /// without residual, in its class; of the adapter, else of the class of device.
    pub fn figures(&self, problem: &Problem, caps: &Caps) -> Option<&[Figure]> {
        self.lookup(problem, caps).map(|(figures, _)| figures)
    }

    /// The text of a file with these choices.
    pub fn to_json(&self) -> String {
        let mut devices: Vec<Written<'_>> = Vec::new();
        let mut last = None;
        for ((device, (contract, class)), kernels) in &self.table {
            if last != Some(device) {
                devices.push(Written::of(device));
                last = Some(device);
            }
            if let Some(written) = devices.last_mut() {
                written.choices.push(WrittenChoice {
                    contract,
                    shape: class.to_string(),
                    kernels,
                });
            }
        }
        let file = File {
            format: FORMAT,
            version: VERSION,
            devices,
        };
        // Strings and finite numbers always have a JSON text.
        let mut text = serde_json::to_string_pretty(&file).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Adds the figures of a contract and class on an adapter.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn insert(&mut self, caps: &Caps, problem: &Problem, mut figures: Vec<Figure>) {
        figures.retain(|figure| SECONDS.contains(&figure.seconds));
        if let (Some(class), false) = (ShapeClass::of(problem), figures.is_empty()) {
            let device = Arc::new(Device::of(caps));
            self.table
                .insert((device, (problem.contract(), class)), figures);
        }
    }

    /// The candidate to be put first, by what was measured. `None` leaves it to the cost model.
    pub(crate) fn choose(
        &self,
        problem: &Problem,
        caps: &Caps,
        options: &PlanOptions,
        accepted: &[Candidate],
    ) -> Option<Choice> {
        let (figures, by) = self.lookup(&counted(problem, options), caps)?;
        let kind =
            |candidate: &Candidate| (candidate.engine, candidate.skeleton, candidate.memories);
        let measured: Vec<(usize, f64)> = accepted
            .iter()
            .enumerate()
            .filter_map(|(index, candidate)| Some((index, seconds_of(figures, candidate)?)))
            .collect();
        // Options may leave kernels that nothing is known of, and one of them may be what the cost model is for.
        let first = kind(accepted.first()?);
        if !measured
            .iter()
            .any(|(index, _)| kind(&accepted[*index]) == first)
        {
            return None;
        }
        let (index, _) = measured.into_iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        if options.deterministic {
            // The kernel must not depend on M, so it must do for every M.
            let outputs = problem.n.saturating_mul(problem.batch.count).max(1);
            let most = Problem {
                m: (u32::MAX / 2) as usize / outputs,
                ..problem.clone()
            };
            plan_of(&most, caps, accepted[index].clone()).ok()?;
        }
        let plan = plan_of(problem, caps, accepted[index].clone()).ok()?;
        Some(Choice { index, plan, by })
    }

    fn lookup(&self, problem: &Problem, caps: &Caps) -> Option<(&[Figure], ChosenBy)> {
        let class = ShapeClass::of(problem)?;
        let mut contracts = vec![problem.contract()];
        if problem.residual {
            let plain = Problem {
                residual: false,
                ..problem.clone()
            };
            contracts.push(plain.contract());
        }
        let devices = [
            (Device::of(caps), ChosenBy::Tuned),
            (Device::Class(class_name(caps.class)), ChosenBy::Builtin),
        ];
        devices.into_iter().find_map(|(device, by)| {
            let device = Arc::new(device);
            let figures = contracts.iter().find_map(|contract| {
                let case = (contract.clone(), class);
                self.table.get(&(Arc::clone(&device), case))
            })?;
            Some((figures.as_slice(), by))
        })
    }

    /// Those that there are choices for, once each.
    fn devices(&self) -> impl Iterator<Item = &Device> {
        let mut last = None;
        self.table.keys().filter_map(move |(device, _)| {
            let new = last != Some(device);
            last = Some(device);
            new.then_some(&**device)
        })
    }

    fn warn(&mut self, warning: ChoicesWarning) {
        warn(&mut self.warnings, warning);
    }
}

/// Keeps the first warnings, and how many more there were.
fn warn(warnings: &mut Vec<ChoicesWarning>, warning: ChoicesWarning) {
    let count = match warning {
        ChoicesWarning::More(count) => count,
        _ => 1,
    };
    if let Some(ChoicesWarning::More(more)) = warnings.last_mut() {
        *more += count;
    } else if warnings.len() < MOST_WARNINGS {
        warnings.push(warning);
    } else {
        warnings.push(ChoicesWarning::More(count));
    }
}

/// Whether a kernel of the table could have an id: its contract, engine and tile. Whether it can do a problem on a device
/// is for the planner to say.
fn is_known(id: &str, contract: &str) -> bool {
    let Some((left, implementation)) = id.split_once("__") else {
        return false;
    };
    let mut rows = KERNELS.iter().flat_map(|row| {
        let name = row.engine.name();
        row.tiles.iter().map(move |tile| (name, tile.m, tile.n))
    });
    let ascii = implementation
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    ascii
        && left == contract
        && implementation.len() < 128
        && rows.any(|(engine, m, n)| {
            implementation
                .strip_prefix(engine)
                .is_some_and(|rest| rest.starts_with(&format!("_{m}x{n}x")))
        })
}

/// A text of a file, safe to be shown and not too long.
fn excerpt(text: &str) -> String {
    bounded(text, 96)
}

/// A text of so many characters at most, safe to be shown.
fn bounded(text: &str, longest: usize) -> String {
    let mut shown: String = text
        .chars()
        .take(longest)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(longest).is_some() {
        shown.push('…');
    }
    shown
}

/// Looks up an environment variable; tests pass their own.
type Variables<'a> = &'a dyn Fn(&str) -> Option<std::ffi::OsString>;

fn user_file(system: &str, variables: Variables<'_>) -> Option<PathBuf> {
    if let Some(file) = variables("ANYBIT_TUNING") {
        return Some(file.into());
    }
    let home = || variables("HOME").map(PathBuf::from);
    let base = match system {
        "windows" => variables("LOCALAPPDATA").map(PathBuf::from),
        "macos" => home().map(|home| home.join("Library/Caches")),
        _ => variables("XDG_CACHE_HOME")
            .map(PathBuf::from)
            // A relative path is invalid by the XDG standard, and to be ignored.
            .filter(|folder| folder.is_absolute())
            .or_else(|| home().map(|home| home.join(".cache"))),
    };
    base.map(|base| base.join("anybit").join("tuning.json"))
}

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

#[derive(Serialize)]
struct File<'a> {
    format: &'a str,
    version: u64,
    devices: Vec<Written<'a>>,
}

/// A device has the first three fields, or the fourth.
#[derive(Default, Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    choices: Vec<WrittenChoice<'a>>,
}

#[derive(Serialize)]
struct WrittenChoice<'a> {
    contract: &'a str,
    shape: String,
    kernels: &'a [Figure],
}

impl<'a> Written<'a> {
    fn of(device: &'a Device) -> Self {
        match device {
            Device::Class(class) => Self {
                class: Some(class),
                ..Self::default()
            },
            Device::Adapter {
                name,
                driver,
                backend,
            } => Self {
                adapter: Some(name),
                driver: Some(driver),
                backend: Some(backend),
                ..Self::default()
            },
        }
    }
}

/// A choice as a file has it, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FoundChoice {
    contract: String,
    shape: String,
    kernels: Vec<Figure>,
}

/// What of a device's choices is of use, and why the rest is not.
#[derive(Default)]
struct Found {
    table: BTreeMap<Case, Vec<Figure>>,
    warnings: Vec<ChoicesWarning>,
}

impl Found {
    fn take(&mut self, choice: FoundChoice) {
        let FoundChoice {
            contract,
            shape,
            mut kernels,
        } = choice;
        let class = shape.parse::<ShapeClass>();
        let (Ok(class), true) = (class, Problem::is_contract(&contract)) else {
            self.warn(ChoicesWarning::Shape {
                contract: excerpt(&contract),
                shape: excerpt(&shape),
            });
            return;
        };
        kernels.retain(|figure| {
            let warning = if !SECONDS.contains(&figure.seconds) {
                ChoicesWarning::Seconds {
                    kernel: excerpt(&figure.id),
                    seconds: figure.seconds,
                }
            } else if !is_known(&figure.id, &contract) {
                ChoicesWarning::Kernel {
                    contract: excerpt(&contract),
                    kernel: excerpt(&figure.id),
                }
            } else {
                return true;
            };
            self.warn(warning);
            false
        });
        // The first of an id counts.
        let mut seen = HashSet::new();
        let first: Vec<bool> = kernels
            .iter()
            .map(|figure| seen.insert(figure.id.as_str()))
            .collect();
        let mut first = first.into_iter();
        kernels.retain(|_| first.next().unwrap_or_default());
        if !kernels.is_empty() {
            kernels.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
            kernels.shrink_to_fit();
            self.table.insert((contract, class), kernels);
        }
    }

    fn warn(&mut self, warning: ChoicesWarning) {
        warn(&mut self.warnings, warning);
    }
}

/// Reads the devices of a file into choices. One at a time, and of each one choice at a time: what a list of all of them
/// would take before it is checked is many times what the file has.
struct FileReader<'a>(&'a mut Choices);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum FileField {
    Devices,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for FileReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FileReader<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a file of choices")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let mut found = false;
        while let Some(field) = map.next_key()? {
            match field {
                FileField::Devices if found => return Err(A::Error::duplicate_field("devices")),
                FileField::Devices => {
                    map.next_value_seed(DevicesReader(&mut *self.0))?;
                    found = true;
                }
                FileField::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match found {
            true => Ok(()),
            false => Err(A::Error::missing_field("devices")),
        }
    }
}

/// Reads the list of devices.
struct DevicesReader<'a>(&'a mut Choices);

impl<'de> DeserializeSeed<'de> for DevicesReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for DevicesReader<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of devices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        while list
            .next_element_seed(DeviceReader(&mut *self.0))?
            .is_some()
        {}
        Ok(())
    }
}

/// Reads one device.
struct DeviceReader<'a>(&'a mut Choices);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum DeviceField {
    Adapter,
    Driver,
    Backend,
    Class,
    Choices,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for DeviceReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DeviceReader<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a device with its choices")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let (mut adapter, mut driver, mut backend) = (None, None, None);
        let mut class: Option<String> = None;
        let mut found = None;
        while let Some(field) = map.next_key()? {
            match field {
                DeviceField::Adapter => set(&mut adapter, "adapter", &mut map)?,
                DeviceField::Driver => set(&mut driver, "driver", &mut map)?,
                DeviceField::Backend => set(&mut backend, "backend", &mut map)?,
                DeviceField::Class => set(&mut class, "class", &mut map)?,
                DeviceField::Choices => set(&mut found, "choices", &mut map)?,
                DeviceField::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let Some(found): Option<Found> = found else {
            return Err(A::Error::missing_field("choices"));
        };
        let device = match (adapter, driver, backend, class) {
            (Some(name), Some(driver), Some(backend), _) => Device::Adapter {
                name,
                driver,
                backend,
            },
            (.., Some(class)) => {
                let classes = [DeviceClass::Gpu, DeviceClass::Software].map(class_name);
                match classes.into_iter().find(|known| **known == *class) {
                    Some(class) => Device::Class(class),
                    None => {
                        self.0.warn(ChoicesWarning::Class(excerpt(&class)));
                        return Ok(());
                    }
                }
            }
            _ => {
                return Err(A::Error::custom(
                    "a device has neither a class nor an adapter with its driver and backend",
                ));
            }
        };
        let device = Arc::new(device);
        for (case, figures) in found.table {
            self.0.table.insert((Arc::clone(&device), case), figures);
        }
        for warning in found.warnings {
            self.0.warn(warning);
        }
        Ok(())
    }
}

/// Reads the value of a field, which may be there once.
fn set<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    field: &mut Option<T>,
    name: &'static str,
    map: &mut A,
) -> std::result::Result<(), A::Error> {
    if field.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *field = Some(map.next_value()?);
    Ok(())
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct FoundVisitor;

        impl<'de> Visitor<'de> for FoundVisitor {
            type Value = Found;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> std::result::Result<Found, A::Error> {
                let mut found = Found::default();
                while let Some(choice) = list.next_element()? {
                    found.take(choice);
                }
                Ok(found)
            }
        }

        deserializer.deserialize_seq(FoundVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_choices_are_flawless() {
        assert_eq!(Choices::builtin().warnings(), []);
    }

    #[test]
    fn the_users_file_follows_the_system() {
        let variables = |name: &str| match name {
            "HOME" => Some("/home/user".into()),
            "LOCALAPPDATA" => Some("/AppData/Local".into()),
            _ => None,
        };
        let named = |name: &str| match name {
            "ANYBIT_TUNING" => Some("mine.json".into()),
            other => variables(other),
        };
        let relative = |name: &str| match name {
            "XDG_CACHE_HOME" => Some("cache".into()),
            other => variables(other),
        };
        let file = |system, variables: Variables<'_>| user_file(system, variables);
        let path = |text: &str| Some(PathBuf::from(text));
        let in_home = path("/home/user/.cache/anybit/tuning.json");
        assert_eq!(file("linux", &variables), in_home);
        assert_eq!(file("linux", &relative), in_home);
        assert_eq!(file("linux", &named), path("mine.json"));
        assert_eq!(
            file("macos", &variables),
            path("/home/user/Library/Caches/anybit/tuning.json")
        );
        assert_eq!(
            file("windows", &variables),
            path("/AppData/Local/anybit/tuning.json")
        );
        assert_eq!(file("linux", &|_| None), None);
    }
}
