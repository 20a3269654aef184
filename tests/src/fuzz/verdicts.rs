//! Verdicts of self-checks that were kept from an earlier run.

use anybit::{Caps, PlanOptions, Problem, Verdict as Found, Verdicts, plan};

use super::{Target, Verdict, all_text, only_text};
use crate::operand::format;

pub(super) const TARGET: Target = Target {
    name: "verdicts",
    run,
    seeds,
    text: all_text,
    with_text: only_text,
    longest: 4 << 20,
    words: &[
        "\"version\"",
        "\"adapter\"",
        "\"driver\"",
        "\"backend\"",
        "\"shaders\"",
        "\"verdicts\"",
        "\"passed\"",
        "\"wrong\"",
        "\"rejected\"",
        "\"count\"",
        "\"row\"",
        "\"column\"",
        "\"expected\"",
        "\"found\"",
    ],
};

fn caps() -> Caps {
    Caps {
        name: "adapter".into(),
        driver: "driver 1.2".into(),
        ..Caps::floor()
    }
}

fn problem() -> Problem {
    Problem::new((4, 32, 64), format("i8rf"), format("i4g32h"))
}

fn run(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return Verdict::Refused;
    };
    let caps = caps();
    let verdicts = Verdicts::from_json(text, &caps);
    for (id, verdict) in verdicts.iter() {
        assert_eq!(verdicts.get(id), Some(verdict));
        assert!(!verdict.to_string().is_empty());
    }
    let written = verdicts.to_json(&caps);
    assert_eq!(Verdicts::from_json(&written, &caps), verdicts, "{written}");
    if verdicts.iter().len() == 0 {
        return Verdict::Refused;
    }
    let options = PlanOptions::default().with_verdicts(verdicts.clone());
    if let Ok(plan) = plan(&problem(), &caps, &options) {
        let known = verdicts.get(plan.id());
        assert!(
            matches!(known, None | Some(Found::Passed)),
            "{} is planned: {known:?}",
            plan.id()
        );
    }
    Verdict::Accepted
}

fn seeds() -> Vec<Vec<u8>> {
    let caps = caps();
    let plan = plan(&problem(), &caps, &PlanOptions::default()).expect("every device can do it");
    let wrong = Found::Wrong {
        count: 3,
        row: 1,
        column: 2,
        expected: "5".into(),
        found: "Some(4)".into(),
    };
    let passed = Verdicts::default().with(plan.id(), Found::Passed);
    let denied = Verdicts::default().with(plan.id(), wrong);
    let several = denied
        .clone()
        .with("another", Found::Rejected("no \"reason\"".into()))
        .with("a third", Found::Passed);
    [passed, denied, several]
        .iter()
        .map(|verdicts| verdicts.to_json(&caps).into_bytes())
        .collect()
}
