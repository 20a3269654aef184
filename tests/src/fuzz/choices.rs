//! Files of measured choices.

use anybit::{
    Caps, Choices, DeviceClass, PlanOptions, Problem, ShapeClass, explain, plan, plan_with,
};

use super::{Target, Verdict, all_text, check_message, only_text};
use crate::operand::format;

pub(super) const TARGET: Target = Target {
    name: "choices",
    run,
    seeds,
    text: all_text,
    with_text: only_text,
    longest: 8 << 20,
    words: &[
        "\"format\"",
        "\"anybit choices\"",
        "\"version\"",
        "\"devices\"",
        "\"class\"",
        "\"software\"",
        "\"gpu\"",
        "\"adapter\"",
        "\"driver\"",
        "\"backend\"",
        "\"choices\"",
        "\"contract\"",
        "\"shape\"",
        "\"kernels\"",
        "\"id\"",
        "\"seconds\"",
        "1e-9",
        "1e400",
        "513+x1-256x257-1024",
    ],
};

fn caps(class: DeviceClass) -> Caps {
    Caps {
        name: "adapter".into(),
        driver: "driver 1.2".into(),
        class,
        subgroup: Some((8, 8)),
        ..Caps::floor()
    }
}

/// Problems of which seeds have choices, and one of which they have none.
fn problems() -> [Problem; 3] {
    [
        Problem::new((1, 576, 512), format("i8rf"), format("u4g32hm")),
        Problem::new((64, 576, 512), format("f32"), format("i4g32h")),
        Problem::new((9, 64, 64), format("f16"), format("nf4g64f")),
    ]
}

fn run(input: &[u8]) -> Verdict {
    // As from a file: what is not UTF-8 cannot be read at all.
    let Ok(text) = std::str::from_utf8(input) else {
        return Verdict::Refused;
    };
    let choices = Choices::parse(text);
    for warning in choices.warnings() {
        check_message(&warning.to_string());
    }
    let mut used = false;
    for class in [DeviceClass::Gpu, DeviceClass::Software] {
        let caps = caps(class);
        for warning in choices.warnings_on(&caps) {
            check_message(&warning.to_string());
        }
        assert!(choices.len_on(&caps) <= choices.len());
        for problem in problems() {
            // Planning takes far longer than reading.
            if !used && choices.figures(&problem, &caps).is_some() {
                used = true;
                use_choice(&choices, &problem, &caps);
            }
        }
    }
    // What was kept is written so that it is read again, without a warning.
    let written = choices.to_json();
    let again = Choices::parse(&written);
    assert_eq!(again.warnings(), [], "{written}");
    assert_eq!(again.to_json(), written);
    let mut merged = again;
    merged.merge(choices.clone());
    assert_eq!(merged.len(), choices.len());
    match text.split('"').nth(1).map(str::parse::<ShapeClass>) {
        Some(Ok(class)) => assert_eq!(class.to_string().parse(), Ok(class)),
        Some(Err(error)) => check_message(&error.to_string()),
        None => {}
    }
    match choices.warnings() {
        [] => Verdict::Accepted,
        _ => Verdict::Refused,
    }
}

/// A choice takes one of the kernels that can do the problem anyway.
fn use_choice(choices: &Choices, problem: &Problem, caps: &Caps) {
    let options = PlanOptions::default();
    plan(problem, caps, &options).expect("every device can do it");
    let chosen = plan_with(problem, caps, &options, choices).expect("a choice makes no plan fail");
    let explanation = explain(problem, caps, &options, choices).expect("as above");
    let first = explanation.candidates.first().expect("there is a plan");
    assert_eq!(
        first.candidate.specialization.id,
        chosen.specialization().id,
        "the plan is another than the one explained"
    );
}

fn seeds() -> Vec<Vec<u8>> {
    let mut files = vec![
        Choices::none().to_json(),
        Choices::builtin().to_json(),
        file(r#""class": "gpu""#, false),
        file(r#""class": "software""#, true),
        file(
            r#""adapter": "adapter", "driver": "driver 1.2", "backend": "noop""#,
            true,
        ),
    ];
    let two = [&files[2], &files[4]].map(|text| Choices::parse(text));
    let [mut one, other] = two;
    one.merge(other);
    files.push(one.to_json());
    files.into_iter().map(String::into_bytes).collect()
}

/// A file for one device in which the kernels that the planner likes least are the fastest.
fn file(device: &str, all: bool) -> String {
    let caps = caps(DeviceClass::Software);
    let mut choices = Vec::new();
    for problem in problems().iter().take(if all { 2 } else { 1 }) {
        let (accepted, _) = anybit::candidates(problem, &caps, &PlanOptions::default())
            .expect("every device can do it");
        let kernels: Vec<String> = accepted
            .iter()
            .rev()
            .take(4)
            .enumerate()
            .map(|(index, candidate)| {
                let seconds = (index + 1) as f64 * 1e-3;
                let id = &candidate.specialization.id;
                format!(r#"{{"id": "{id}", "seconds": {seconds}}}"#)
            })
            .collect();
        let class = ShapeClass::of(problem).expect("the shape is not empty");
        choices.push(format!(
            r#"{{"contract": "{}", "shape": "{class}", "kernels": [{}]}}"#,
            problem.contract(),
            kernels.join(", ")
        ));
    }
    format!(
        r#"{{"format": "anybit choices", "version": 1, "devices": [{{{device}, "choices": [{}]}}]}}"#,
        choices.join(", ")
    )
}
