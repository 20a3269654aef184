//! The device that the tests run on, and what they have in common: models of the library, their logits and how far these
//! are from the reference's.
//!
//! `ANYBIT_BACKEND` and `ANYBIT_ADAPTER` choose the adapter; where there is none, tests are skipped, each with a line on
//! stderr, unless `ANYBIT_REQUIRE_ADAPTER=1` makes that a failure.

use std::ops::ControlFlow;
use std::sync::{Mutex, OnceLock, PoisonError};

use anybit::formats::MatrixFormat;
use anybit::{Context, ContextOptions, KvFormat, Sampling, wgpu};
use anybit_import::ModelFile;
use anybit_llm::{LoadOptions, Model, Precision, Session};

use crate::reference::{Kept, Reference};
use crate::sample;
use crate::tiny::Tiny;

/// The adapter to be tested on, or a note that `test` is skipped.
///
/// # Panics
/// If no adapter fits although one is required, or asked for by backend or name.
pub(crate) fn adapter(test: &str) -> Option<wgpu::Adapter> {
    let text = |name| sample::variable(name).map(|value| value.to_string_lossy().into_owned());
    let (backend, name) = (text("ANYBIT_BACKEND"), text("ANYBIT_ADAPTER"));
    let mut options = ContextOptions::default();
    if let Some(backend) = &backend {
        let backends = wgpu::Backends::from_comma_list(backend);
        assert!(
            !backends.is_empty(),
            "ANYBIT_BACKEND={backend}: no such backend"
        );
        options = options.with_backends(backends);
    }
    if let Some(name) = &name {
        options = options.with_adapter(name);
    }
    let found =
        pollster::block_on(anybit::adapters(&options)).expect("the tests are built with backends");
    let adapter = found.into_iter().next();
    if adapter.is_none() {
        let required = text("ANYBIT_REQUIRE_ADAPTER").as_deref() == Some("1");
        assert!(
            !required && backend.is_none() && name.is_none(),
            "{test}: no adapter (backend {backend:?}, name {name:?})"
        );
        sample::skip(test, "there is no adapter with compute shaders");
    }
    adapter
}

/// Whether every combination is to be tested (`ANYBIT_TESTS=full`), not just covering ones.
pub(crate) fn full() -> bool {
    sample::variable("ANYBIT_TESTS").is_some_and(|value| value == "full")
}

/// The step in which a list is gone through: by so many, or one by one in full tests.
pub(crate) fn every(step: usize) -> usize {
    if full() { 1 } else { step }
}

/// Devices that the tests share, as their pipelines take longer to make than most tests to run. Two, since drivers compile
/// where they are called, one call at a time: tests that run at once have one each.
const DEVICES: usize = 2;

/// Tests that use each of the devices.
static USERS: Mutex<[usize; DEVICES]> = Mutex::new([0; DEVICES]);

/// The device of a test's thread.
struct Seat(usize);

impl Seat {
    fn take() -> Self {
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        let (seat, count) = (users.iter_mut().enumerate())
            .min_by_key(|(_, count)| **count)
            .expect("there are devices");
        *count += 1;
        Self(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        USERS.lock().unwrap_or_else(PoisonError::into_inner)[self.0] -= 1;
    }
}

thread_local! {
    static SEAT: Seat = Seat::take();
}

/// The device of the calling test, the same whenever it asks.
pub(crate) fn context(test: &str) -> Option<&'static Context> {
    static CONTEXTS: [OnceLock<Option<Context>>; DEVICES] = [const { OnceLock::new() }; DEVICES];
    let own = &CONTEXTS[SEAT.with(|seat| seat.0)];
    // Without an adapter each test has its own note.
    if let Some(None) = own.get() {
        adapter(test);
    }
    let context = own.get_or_init(|| {
        let adapter = adapter(test)?;
        Some(
            pollster::block_on(Context::from_adapter(&adapter))
                .expect("the adapter makes a device"),
        )
    });
    context.as_ref()
}

/// The library's model.
pub(crate) fn load(context: &Context, tiny: &Tiny, options: &LoadOptions) -> Model {
    let file = ModelFile::Gguf(tiny.file());
    Model::load(context, &file, options, &mut |_| ())
        .unwrap_or_else(|error| panic!("{}: {error}", tiny.architecture))
}

/// The reference's model.
pub(crate) fn reference(tiny: &Tiny) -> Reference {
    Reference::load(&tiny.file()).expect("the tiny model is right")
}

/// The reference's model, with activations and KV cache rounded to a precision's formats.
pub(crate) fn rounded(mut reference: Reference, precision: Precision) -> Reference {
    reference.kept = match precision.kv {
        KvFormat::F32 => Kept::Exact,
        format => format.code_bits().map_or(Kept::F16, Kept::Codes),
    };
    reference.activation = Some(precision.activation).filter(|format| *format != MatrixFormat::F32);
    reference
}

/// The most that a row of logits, the row in the middle and the best one may differ from those of the reference with
/// activations and KV cache rounded to the same formats. Rows differ by what f32 sums do until a value that is nearly between two
/// codes goes the other way for a sum that differs in its last bit; it takes others in later layers and, over the cache, in
/// later rows with it. Seen are rows of up to 4e-2, and 1e-2 in the middle where one of the first tokens had such a value; the
/// best rows are those before it. Faults of a kernel take all rows as far as 0.17 to 1.2 where a block of the cache is another's,
/// 0.06 to 0.3 where one scale of a matrix is twice what it should be.
const ROUNDED: [f64; 3] = [0.1, 0.03, 0.001];

/// Compares logits to those of the reference with the formats of a precision.
pub(crate) fn check_rounded(name: &str, found: &[f64], expected: &[f64]) {
    let rows = row_errors(found, expected, Tiny::vocabulary());
    let errors = [rows.len() - 1, rows.len() / 2, 0].map(|row| rows[row]);
    let [worst, median, best] = errors;
    let text = format!(
        "{name}: the worst row {worst:.1e}, the middle one {median:.1e}, the best {best:.1e}"
    );
    eprintln!("{text}");
    let within = errors
        .iter()
        .zip(ROUNDED)
        .all(|(error, bound)| *error <= bound);
    assert!(within, "{text}");
}

/// The logits after each token, which are cached, before any soft cap.
pub(crate) fn raw_logits(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    let mut logits = Vec::new();
    session
        .logits(tokens, &mut |row| logits.extend_from_slice(row))
        .expect("the tokens are the model's, and fit");
    logits
}

/// The same, capped as the model has it.
pub(crate) fn logits(session: &mut Session, tokens: &[u32]) -> Vec<f64> {
    let cap = session.model().config().logit_cap.map(f64::from);
    let capped = |logit: f64| cap.map_or(logit, |cap| cap * (logit / cap).tanh());
    let logits = raw_logits(session, tokens);
    logits
        .iter()
        .map(|&logit| capped(f64::from(logit)))
        .collect()
}

/// The tokens that the library draws after a prompt, the likeliest each time.
pub(crate) fn greedy(session: &mut Session, prompt: &[u32], count: usize) -> Vec<u32> {
    generate(session, prompt, count, &Sampling::GREEDY)
}

pub(crate) fn generate(
    session: &mut Session,
    prompt: &[u32],
    count: usize,
    sampling: &Sampling,
) -> Vec<u32> {
    let mut tokens = Vec::new();
    session
        .generate(prompt, count, sampling, &mut |token| {
            tokens.push(token);
            ControlFlow::Continue(())
        })
        .expect("the prompt is the model's, and fits");
    tokens
}

/// How far rows of logits are from what they should be: the root of the mean square of the differences, relative to that
/// of the expected logits; of the row where it is largest. A fault at one position cannot hide among right ones.
///
/// # Panics
/// If the numbers of logits differ, or a logit is not finite.
pub(crate) fn worst_row(found: &[f64], expected: &[f64], columns: usize) -> f64 {
    assert_eq!(found.len(), expected.len());
    let rows = found
        .chunks_exact(columns)
        .zip(expected.chunks_exact(columns));
    let errors = rows.map(|(found, expected)| relative_rms(found, expected));
    errors.fold(0.0, f64::max)
}

/// As [`worst_row`], of each row, the best first.
fn row_errors(found: &[f64], expected: &[f64], columns: usize) -> Vec<f64> {
    let rows = found
        .chunks_exact(columns)
        .zip(expected.chunks_exact(columns));
    let mut errors: Vec<f64> = rows
        .map(|(found, expected)| relative_rms(found, expected))
        .collect();
    errors.sort_by(f64::total_cmp);
    errors
}

/// As [`worst_row`], of all rows as one.
pub(crate) fn relative_rms(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let difference = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let error = (difference / square(&mut expected.iter().copied())).sqrt();
    assert!(error.is_finite(), "a logit is not finite");
    error
}

/// The format of weights of a name, as the command line takes it.
pub(crate) fn weight(name: &str) -> MatrixFormat {
    MatrixFormat::parse_weight(name).expect("the tests name known formats")
}

/// The same of activations.
pub(crate) fn activation(name: &str) -> MatrixFormat {
    anybit_llm::Precision::parse_activation(name).expect("the tests name known formats")
}
