//! A device that goes away ends in an error, in time.

use std::sync::mpsc;
use std::time::Duration;

use anybit::formats::MatrixFormat;
use anybit::{Context, Error, Operands, OutputFormat, Problem};
use anybit_tests::adapter;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` on a thread of its own, so that a hang is a failure.
fn in_time<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::spawn(move || sender.send(body()));
    let result = receiver.recv_timeout(PATIENCE);
    match result {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("no answer within {PATIENCE:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{:?}", worker.join().err()),
    }
}

fn lost<T: std::fmt::Debug>(what: &str, result: Result<T, Error>) {
    assert!(
        matches!(result, Err(Error::DeviceLost { .. })),
        "{what}: {result:?}"
    );
}

#[test]
fn a_destroyed_device_is_an_error() {
    for adapter in adapter::selected("a_destroyed_device_is_an_error") {
        in_time(move || {
            let context = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
            let ones = vec![1.0; 64];
            let problem = Problem::new((8, 8, 8), MatrixFormat::F32, MatrixFormat::F32);
            let plan = context.plan(&problem).expect("a plan");
            let x = context.upload_f32(&ones, 8, 8).expect("an upload");
            let other = context.upload_f32(&ones, 8, 8).expect("an upload");
            let y = context.output(OutputFormat::F32, 8, 8).expect("an output");
            let operands = Operands {
                activation: &x,
                weight: &x,
                output: &y,
            };
            let prepared = context.prepare(&plan, operands).expect("a product");
            let before = context.run(&prepared, &y).expect("a product").into_f32();
            assert_eq!(before, Some(vec![8.0; 64]));

            // A read is under way.
            let pending = context.submit_and_read(&[&prepared], &y).expect("a submit");
            context.device().destroy();
            match pending.read_blocking() {
                // It may have been in time.
                Ok(values) => assert_eq!(values.into_f32(), Some(vec![8.0; 64])),
                Err(error) => assert!(matches!(error, Error::DeviceLost { .. }), "{error}"),
            }
            lost("run", context.run(&prepared, &y));
            lost("download", context.download(&x));
            lost(
                "upload",
                context
                    .upload_f32(&ones, 8, 8)
                    .and_then(|x| context.download(&x)),
            );
            // Through staging memory.
            lost(
                "a large upload",
                context
                    .upload_f32(&vec![1.0; 1 << 20], 1 << 10, 1 << 10)
                    .and_then(|x| context.download(&x)),
            );
            lost(
                "output",
                context
                    .output(OutputFormat::F32, 8, 8)
                    .and_then(|y| context.run(&prepared, &y)),
            );
            let others = Operands {
                weight: &other,
                ..operands
            };
            lost("prepare", context.prepare(&plan, others).map(|_| ()));
            // What is prepared again was there before.
            lost(
                "prepare again",
                context
                    .prepare(&plan, operands)
                    .and_then(|prepared| context.run(&prepared, &y)),
            );
        });
    }
}

#[test]
fn reads_of_a_dropped_context_still_arrive() {
    for adapter in adapter::selected("reads_of_a_dropped_context_still_arrive") {
        in_time(move || {
            let context = pollster::block_on(Context::from_adapter(&adapter)).expect("a device");
            let x = context.upload_f32(&[2.0; 16], 4, 4).expect("an upload");
            let y = context.output(OutputFormat::F32, 4, 4).expect("an output");
            let decoding = context.prepare_decode(&x, &y).expect("decoding");
            let pending = context.submit_and_read(&[&decoding], &y).expect("a submit");
            drop((context, x, y, decoding));
            let values = pending.read_blocking().expect("the values").into_f32();
            assert_eq!(values, Some(vec![2.0; 16]));
        });
    }
}
