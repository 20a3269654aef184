//! What sessions promise: how many tokens fit, where generating stops and goes on, what is drawn, what it costs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anybit::{Context, KvCache, KvFormat, KvShape, Sampling};
use anybit_import::ModelFile;
use anybit_llm::{Error, GenerateStats, LoadOptions, Model, Precision, Session};

use crate::reference::math;
use crate::tiny::Tiny;
use crate::{rig, sample};

const PROMPT: [u32; 6] = [40, 50, 60, 70, 80, 90];

fn exact(context: &Context, tiny: &Tiny) -> Model {
    rig::load(context, tiny, &LoadOptions::new(Precision::exact()))
}

fn session(model: &Model, capacity: usize) -> Session {
    Session::new(model, capacity).expect("a session")
}

/// Generates greedily, and breaks after `stop` tokens.
fn generate_until(
    session: &mut Session,
    prompt: &[u32],
    most: usize,
    stop: usize,
) -> (Vec<u32>, GenerateStats) {
    let mut tokens = Vec::new();
    let stats = session
        .generate(prompt, most, &Sampling::GREEDY, &mut |token| {
            tokens.push(token);
            if tokens.len() == stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .expect("the prompt fits");
    (tokens, stats)
}

fn needed_and_limit<T: std::fmt::Debug>(result: Result<T, Error>) -> (usize, usize) {
    match result {
        Err(Error::Context { needed, limit }) => (needed, limit),
        other => panic!("{other:?} instead of a context that is too small"),
    }
}

#[test]
fn a_token_costs_four_bytes() {
    let Some(context) = rig::context("a_token_costs_four_bytes") else {
        return;
    };
    let model = exact(context, &Tiny::llama());
    for most in [1, 2, 9] {
        let (tokens, stats) = generate_until(&mut session(&model, 64), &PROMPT, most, usize::MAX);
        assert_eq!(tokens.len(), most);
        assert_eq!(stats.prompt_tokens, PROMPT.len());
        assert_eq!(stats.generated_tokens, most);
        assert_eq!(stats.submissions, most - 1);
        assert_eq!(stats.read_bytes, 4 * (most as u64 - 1));
        assert!(stats.prompt_rate() > 0.0);
        assert_eq!(stats.generation_rate() > 0.0, most > 1);
    }
}

#[test]
fn looking_ahead_changes_nothing() {
    let Some(context) = rig::context("looking_ahead_changes_nothing") else {
        return;
    };
    // A prompt of 30 tokens, so that the step that is taken back may complete a block of the cache.
    let prompt: Vec<u32> = (40..70).collect();
    for kv in [KvFormat::F16, KvFormat::Int4] {
        let precision = Precision::exact().with_kv(kv);
        let model = rig::load(context, &Tiny::llama(), &LoadOptions::new(precision));
        for (most, stop) in [(1, 9), (9, 9), (9, 1), (9, 2), (9, 3), (9, 8), (35, 9)] {
            let run = |look_ahead| {
                let mut session = session(&model, prompt.len() + 34 + 8);
                session.set_look_ahead(look_ahead);
                let (tokens, stats) = generate_until(&mut session, &prompt, most, stop);
                let length = session.len();
                // Whatever was worked on too early must not show in what follows.
                let last = tokens.last().copied().into_iter().collect::<Vec<_>>();
                let after = rig::greedy(&mut session, &last, 6);
                (tokens, length, after, stats.submissions, stats.read_bytes)
            };
            assert_eq!(run(true), run(false), "{kv}, {stop} of {most}");
        }
    }
}

/// The number that the queue gives its next submission. wgpu numbers a buffer's mapping for a read as well.
fn submissions(context: &Context) -> u64 {
    let index = format!("{:?}", context.queue().submit([]));
    let digits: String = index.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a submission has a number")
}

#[test]
fn a_token_costs_one_submission() {
    let Some(adapter) = rig::adapter("a_token_costs_one_submission") else {
        return;
    };
    // Others' submissions are not to be counted.
    let context = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
    let model = exact(&context, &Tiny::llama());
    let mut costs = Vec::new();
    for most in [10, 10, 30] {
        let mut session = session(&model, 64);
        let before = submissions(&context);
        generate_until(&mut session, &PROMPT, most, usize::MAX);
        costs.push(submissions(&context) - before);
    }
    // Twenty tokens more are a submission and a read each.
    assert_eq!(costs[2] - costs[1], 2 * 20, "{costs:?}");
}

#[test]
fn what_fits_and_what_does_not() {
    let Some(context) = rig::context("what_fits_and_what_does_not") else {
        return;
    };
    let model = exact(context, &Tiny::llama());
    assert_eq!(model.capacity(), 128);
    assert_eq!(needed_and_limit(Session::new(&model, 129)), (129, 128));
    let longer = LoadOptions::new(Precision::exact()).with_context(129);
    let file = ModelFile::Gguf(Tiny::llama().file());
    let refused = Model::load(context, &file, &longer, &mut |_| ());
    assert_eq!(needed_and_limit(refused), (129, 128));

    const ROOM: usize = 20;
    let text = Tiny::text(ROOM + 2, 31);
    let greedy = |session: &mut Session, prompt: &[u32], most: usize| {
        session.generate(prompt, most, &Sampling::GREEDY, &mut |_| {
            ControlFlow::Continue(())
        })
    };
    // A prompt as long as the room leaves one token to be drawn.
    let mut full = session(&model, ROOM);
    let stats = greedy(&mut full, &text[..ROOM], 1).expect("it fits");
    assert_eq!((stats.generated_tokens, full.len()), (1, ROOM));
    assert_eq!(needed_and_limit(full.feed(&text[..1])), (ROOM + 1, ROOM));
    assert_eq!(
        needed_and_limit(greedy(&mut full, &text[..1], 1)),
        (ROOM + 1, ROOM)
    );
    assert_eq!(full.len(), ROOM);

    let mut empty = session(&model, ROOM);
    assert_eq!(
        needed_and_limit(greedy(&mut empty, &text[..ROOM], 2)),
        (ROOM + 1, ROOM)
    );
    assert_eq!(
        needed_and_limit(greedy(&mut empty, &text[..ROOM + 1], 0)),
        (ROOM + 1, ROOM)
    );
    assert_eq!(
        needed_and_limit(greedy(&mut empty, &text[..ROOM + 1], 1)),
        (ROOM + 1, ROOM)
    );
    assert_eq!(
        needed_and_limit(empty.feed(&text[..ROOM + 1])),
        (ROOM + 1, ROOM)
    );
    assert_eq!(needed_and_limit(empty.feed(&text)), (ROOM + 2, ROOM));
    assert_eq!(
        needed_and_limit(empty.logits(&text[..ROOM + 1], &mut |_| ())),
        (ROOM + 1, ROOM)
    );
    assert_eq!(
        needed_and_limit(empty.logits(&text, &mut |_| ())),
        (ROOM + 2, ROOM)
    );
    assert_eq!(
        needed_and_limit(empty.cross_entropies(&text)),
        (ROOM + 2, ROOM)
    );
    let (_, limit) = needed_and_limit(greedy(&mut empty, &text[..2], usize::MAX));
    assert_eq!(limit, ROOM);
    assert!(empty.is_empty());
    // Nothing of what was refused is left behind.
    assert_eq!(
        rig::greedy(&mut empty, &PROMPT, 5),
        rig::greedy(&mut session(&model, 64), &PROMPT, 5)
    );
    // The last token of a text that is judged is not worked on.
    let losses = empty.cross_entropies(&text[..ROOM + 1]).expect("it fits");
    assert_eq!(losses.len(), ROOM);
}

/// A long prompt can be stopped from another thread, between chunks, and goes on from there.
#[test]
fn a_long_prompt_is_stopped_and_goes_on() {
    let Some(context) = rig::context("a_long_prompt_is_stopped_and_goes_on") else {
        return;
    };
    let model = exact(context, &Tiny::llama());
    let text = Tiny::text(40, 3);
    let chunked = || Session::with_chunk(&model, 64, 8).expect("a session");
    let whole = rig::greedy(&mut chunked(), &text, 5);

    let flag = Arc::new(AtomicBool::new(false));
    let mut stopped = chunked();
    stopped.stop_with(Some(Arc::clone(&flag)));
    stopped.feed(&text[..16]).expect("nobody stops it");
    flag.store(true, Ordering::Relaxed);
    let continues = &mut |_| ControlFlow::Continue(());
    let errors = [
        stopped.feed(&text[16..32]).err(),
        stopped
            .generate(&text[16..], 5, &Sampling::GREEDY, continues)
            .err(),
        stopped.logits(&text[16..], &mut |_| ()).err(),
    ];
    for error in errors {
        assert!(
            matches!(error, Some(Error::Stopped { done: 16 })),
            "{error:?}"
        );
    }
    assert_eq!(stopped.len(), 16);
    flag.store(false, Ordering::Relaxed);
    assert_eq!(rig::greedy(&mut stopped, &text[16..], 5), whole);

    // Among new tokens: it ends with those it has, and goes on from there. The last one drawn is not cached yet.
    let mut stopped = chunked();
    stopped.stop_with(Some(Arc::clone(&flag)));
    let mut tokens = Vec::new();
    let stats = stopped
        .generate(&text, 5, &Sampling::GREEDY, &mut |token| {
            tokens.push(token);
            flag.store(tokens.len() == 3, Ordering::Relaxed);
            ControlFlow::Continue(())
        })
        .expect("new tokens are no error");
    assert_eq!((stats.generated_tokens, &tokens[..]), (3, &whole[..3]));
    assert_eq!(stopped.len(), text.len() + 2);
    flag.store(false, Ordering::Relaxed);
    assert_eq!(rig::greedy(&mut stopped, &tokens[2..], 2), whole[3..]);

    // In the midst of it, by another thread: it ends within the text, at a chunk, or had ended before.
    let flag = Arc::new(AtomicBool::new(false));
    let mut racing = chunked();
    racing.stop_with(Some(Arc::clone(&flag)));
    let stopper = std::thread::spawn(move || flag.store(true, Ordering::Relaxed));
    match racing.feed(&text) {
        Ok(()) => assert_eq!(racing.len(), text.len()),
        Err(Error::Stopped { done }) => {
            assert!(done < text.len() && done.is_multiple_of(8), "{done}");
            assert_eq!(racing.len(), done);
        }
        Err(error) => panic!("{error}"),
    }
    stopper.join().expect("it only sets a flag");
}

#[test]
fn nothing_to_draw_or_to_draw_from() {
    let Some(context) = rig::context("nothing_to_draw_or_to_draw_from") else {
        return;
    };
    let model = exact(context, &Tiny::llama());
    let mut session = session(&model, 64);
    let (tokens, stats) = generate_until(&mut session, &PROMPT, 0, usize::MAX);
    assert_eq!(
        (tokens.len(), stats.generated_tokens, stats.submissions),
        (0, 0, 0)
    );
    assert_eq!(
        (stats.prompt_tokens, session.len()),
        (PROMPT.len(), PROMPT.len())
    );
    for (result, actual) in [
        (
            session
                .generate(
                    &[],
                    3,
                    &Sampling::GREEDY,
                    &mut |_| ControlFlow::Continue(()),
                )
                .map(|_| ()),
            0,
        ),
        (session.cross_entropies(&[]).map(|_| ()), 0),
        (session.cross_entropies(&[5]).map(|_| ()), 1),
    ] {
        let Err(Error::TooFewTokens { actual: found, .. }) = result else {
            panic!("{result:?} of too few tokens");
        };
        assert_eq!(found, actual);
    }
    session.feed(&[]).expect("nothing can be fed");
    session
        .logits(&[], &mut |_| panic!("a row of nothing"))
        .expect("nothing has no logits");
    assert_eq!(session.len(), PROMPT.len());
}

#[test]
fn generating_stops_anywhere_and_goes_on() {
    let Some(context) = rig::context("generating_stops_anywhere_and_goes_on") else {
        return;
    };
    const ALL: usize = 12;
    for (tiny, kv) in [
        (Tiny::llama(), KvFormat::F32),
        (Tiny::gemma3(), KvFormat::Int8),
    ] {
        // Kernels of one row and of many round alike, so that tokens are the same beyond doubt.
        let options = LoadOptions::new(Precision::exact().with_kv(kv)).with_deterministic(true);
        let model = rig::load(context, &tiny, &options);
        let whole = rig::greedy(&mut session(&model, 64), &PROMPT, ALL);
        for stop in 1..ALL {
            let mut session = session(&model, 64);
            let (first, stats) = generate_until(&mut session, &PROMPT, ALL, stop);
            assert_eq!(first, whole[..stop], "{stop}");
            assert_eq!(
                (stats.generated_tokens, stats.submissions),
                (stop, stop - 1)
            );
            // The last token drawn is not cached.
            assert_eq!(session.len(), PROMPT.len() + stop - 1);
            let rest = rig::greedy(&mut session, &first[stop - 1..], ALL - stop);
            assert_eq!(rest, whole[stop..], "{stop}");
        }
    }
}

#[test]
fn seeds_decide_what_is_drawn() {
    let Some(context) = rig::context("seeds_decide_what_is_drawn") else {
        return;
    };
    let model = exact(context, &Tiny::llama());
    let draw = |sampling: Sampling| rig::generate(&mut session(&model, 64), &PROMPT, 16, &sampling);
    let warm = |seed| Sampling::temperature(1.0, seed);
    let greedy = draw(Sampling::GREEDY);
    assert_eq!(draw(warm(1)), draw(warm(1)));
    let different: std::collections::HashSet<_> = (0..8).map(|seed| draw(warm(seed))).collect();
    assert_eq!(different.len(), 8);
    for seed in 0..4 {
        assert_eq!(draw(warm(seed).with_top_k(1)), greedy);
        assert_eq!(draw(warm(seed).with_top_p(1e-6)), greedy);
        // Cold enough that the likeliest has all of the probability.
        assert_eq!(draw(Sampling::temperature(1e-4, seed)), greedy);
    }
    // Steps are prepared for one way of drawing; another one is not taken for it.
    let mut one = session(&model, 64);
    let first = rig::generate(&mut one, &PROMPT, 16, &warm(3));
    one.truncate(0).expect("a text can be forgotten");
    assert_eq!(rig::greedy(&mut one, &PROMPT, 16), greedy);
    one.truncate(0).expect("a text can be forgotten");
    assert_eq!(rig::generate(&mut one, &PROMPT, 16, &warm(3)), first);
    let wrong = [
        Sampling::temperature(f32::NAN, 0),
        Sampling::temperature(-1.0, 0),
        warm(0).with_top_p(2.0),
    ];
    for sampling in wrong {
        let result = one.generate(&PROMPT, 1, &sampling, &mut |_| ControlFlow::Continue(()));
        assert!(
            matches!(result, Err(Error::Gpu(_))),
            "{sampling:?}: {result:?}"
        );
    }
}

/// Draws of one token are as frequent as its probability says.
#[test]
fn tokens_are_as_frequent_as_likely() {
    let Some(context) = rig::context("tokens_are_as_frequent_as_likely") else {
        return;
    };
    const DRAWS: u32 = 400;
    let model = exact(context, &Tiny::llama());
    let mut session = session(&model, 64);
    let logits = rig::logits(&mut session, &PROMPT);
    let mut likely = logits[logits.len() - Tiny::vocabulary()..].to_vec();
    math::softmax(&mut likely);
    let best = math::argmax(&likely);
    let mut hits = 0;
    for seed in 0..DRAWS {
        session
            .truncate(PROMPT.len() - 1)
            .expect("floats stay where they are");
        let drawn = rig::generate(
            &mut session,
            &PROMPT[5..],
            1,
            &Sampling::temperature(1.0, seed),
        );
        hits += u32::from(drawn[0] as usize == best);
    }
    let (found, expected) = (f64::from(hits) / f64::from(DRAWS), likely[best]);
    // Five standard errors.
    let bound = 5.0 * (expected * (1.0 - expected) / f64::from(DRAWS)).sqrt();
    assert!(
        (found - expected).abs() <= bound,
        "{found} instead of {expected}"
    );
}

#[test]
fn cross_entropies_are_those_of_the_logits() {
    let Some(context) = rig::context("cross_entropies_are_those_of_the_logits") else {
        return;
    };
    let capped = Tiny {
        logit_cap: Some(3.0),
        ..Tiny::llama()
    };
    for tiny in [Tiny::llama(), Tiny::qwen2(), Tiny::gemma3(), capped] {
        let model = exact(context, &tiny);
        let tokens = Tiny::text(75, 32);
        let mut session = Session::with_chunk(&model, 80, 32).expect("a session");
        let found = session.cross_entropies(&tokens).expect("the text fits");
        assert_eq!((found.len(), session.len()), (74, 74));
        let again = session.cross_entropies(&tokens).expect("the text fits");
        assert_eq!(again, found);
        session.truncate(0).expect("a text can be forgotten");
        let logits = rig::logits(&mut session, &tokens);
        let losses = rig::reference(&tiny).losses(&tokens).expect("known tokens");
        let rows = logits.chunks_exact(Tiny::vocabulary());
        for (place, (row, &next)) in rows.zip(&tokens[1..]).enumerate() {
            let expected = math::log_sum_exp(row) - row[next as usize];
            let found = f64::from(found[place]);
            // The same logits in f32: the error is that of a sum of exponentials and a logarithm.
            assert!(
                (found - expected).abs() <= 1e-5 * (1.0 + expected),
                "{place}: {found} for {expected}"
            );
            assert!(
                (found - losses[place]).abs() <= 1e-3,
                "{place}: {found} for {}",
                losses[place]
            );
        }
    }
}

/// Weights as they are in the file, the KV cache, and 64 MiB for everything else.
fn check_memory(
    model: &Model,
    file: &ModelFile,
    (session, chunk): (&Session, usize),
    kv: KvFormat,
    name: &str,
) {
    let config = model.config();
    let packed: u64 = file
        .weights()
        .iter()
        .filter_map(|weight| weight.byte_size)
        .sum();
    let shape = KvShape {
        heads: config.kv_heads,
        head_dim: config.head_dim,
        capacity: session.capacity(),
        step: chunk,
    };
    let cache = KvCache::bytes_of(kv, shape).expect("a countable size") * config.blocks as u64;
    let memory = session.memory();
    eprintln!("{name}, KV {kv}: {memory:?}, {packed} packed");
    assert_eq!(memory.kv_cache, cache, "{name}");
    assert_eq!(memory.weights, model.weight_bytes());
    assert_eq!(
        memory.total(),
        memory.weights + memory.kv_cache + memory.activations
    );
    assert!(
        memory.total() <= packed + cache + (64 << 20),
        "{name}: {memory:?}, {packed} packed"
    );
}

/// Bytes that the driver's allocator has given out; none where it does not say.
fn allocated(context: &Context) -> Option<u64> {
    let report = context.device().generate_allocator_report()?;
    Some(report.total_allocated_bytes)
}

#[test]
fn memory_is_what_it_is_said_to_be() {
    let Some(adapter) = rig::adapter("memory_is_what_it_is_said_to_be") else {
        return;
    };
    let context = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
    let mut models = vec![
        ("llama", Tiny::llama().file(), 128),
        ("gemma3", Tiny::gemma3().file(), 128),
    ];
    if let Some(file) = sample::open("memory_is_what_it_is_said_to_be") {
        models.push(("the sample model", file, 2048));
    }
    for (name, file, capacity) in models {
        let file = ModelFile::Gguf(file);
        // A whole prompt is the dearest step; in the deterministic mode its attention is split, too.
        for (precision, deterministic, chunk) in [
            (Precision::default(), false, 128),
            (Precision::exact(), false, 16),
            (Precision::default().with_kv(KvFormat::Int4), true, 32),
        ] {
            let before = allocated(&context);
            let options = LoadOptions::new(precision).with_deterministic(deterministic);
            let model =
                Model::load(&context, &file, &options, &mut |_| ()).expect("the model loads");
            let mut session = Session::with_chunk(&model, capacity, chunk).expect("a session");
            rig::greedy(&mut session, &vec![5; (chunk + 1).min(capacity - 1)], 2);
            check_memory(&model, &file, (&session, chunk), precision.kv, name);
            let (Some(before), Some(after)) = (before, allocated(&context)) else {
                sample::skip(
                    "memory_is_what_it_is_said_to_be",
                    "the allocator does not report",
                );
                continue;
            };
            let (said, found) = (session.memory().total(), after - before);
            eprintln!("{name}: {said} bytes said, {found} allocated");
            // Parameters, staging and pipelines are not counted.
            assert!(
                found <= said + (8 << 20),
                "{name}: {said} bytes said, {found} allocated"
            );
        }
    }
}
