use millstream_sdk::bindings::processor::exports::millstream::plugin::lifecycle::Guest as _;
use millstream_sdk::bindings::processor::exports::millstream::plugin::processor::Guest as _;

use super::*;

/// Kinds whose answer breaks a rule or asks for much, with what is then other than in an honest answer.
const ANSWERS: &[&str] = &[
    "failed-row",
    "failed-rows",
    "failed-out-of-range",
    "failed-twice",
    "failed-and-emitted",
    "huge-failure",
    "origin-out-of-range",
    "origin-falls",
    "origins-ragged",
    "too-few-branches",
    "too-many-branches",
    "too-few-columns",
    "too-many-columns",
    "column-too-short",
    "column-too-long",
    "ends-fall",
    "ends-past-data",
    "ends-missing",
    "ends-of-numbers",
    "nulls-too-short",
    "nulls-not-boolean",
    "required-null",
    "bad-utf8",
    "cut-utf8",
    "bad-boolean",
    "bad-json",
    "json-null",
    "many-rows",
    "huge-key",
    "huge-value",
    "nan",
    "time-min",
    "time-max",
];

fn rows(poison: &[bool]) -> Table {
    Table {
        rows: poison.len() as u32,
        columns: vec![Column {
            nulls: Vec::new(),
            ends: Vec::new(),
            data: poison.iter().map(|&poison| u8::from(poison)).collect(),
        }],
    }
}

fn configured(kind: &str, when: &str) -> Signature {
    Chaos::configure(format!(r#"{{"kind": "{kind}", "when": "{when}"}}"#)).expect(kind)
}

#[test]
fn without_poison_every_kind_forwards() {
    for kind in ANSWERS {
        let signature = configured(kind, "poison");
        let outputs = Chaos::process(0, rows(&[false, false, false])).expect(kind);
        assert_eq!(
            outputs.branches[0].origins,
            [0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
            "{kind}"
        );
        assert_eq!(
            outputs.branches[0].columns.len(),
            signature.branches[0].fields.len(),
            "{kind}"
        );
        assert!(outputs.failed.is_empty());
    }
}

#[test]
fn with_poison_every_answer_is_another_also_for_a_single_row() {
    for kind in ANSWERS {
        configured(kind, "poison");
        for poison in [&[false, true, false][..], &[true]] {
            let outputs = Chaos::process(0, rows(poison)).expect(kind);
            let honest = Chaos::process(0, rows(&vec![false; poison.len()])).expect(kind);
            assert!(outputs != honest, "{kind} does nothing to {poison:?}");
        }
    }
}

#[test]
fn always_needs_no_poison_and_null_is_none() {
    configured("failed-row", "always");
    assert_eq!(
        Chaos::process(0, rows(&[false, false])).expect("answers").failed[0].row,
        0
    );
    configured("failed-row", "poison");
    let mut null = rows(&[true, true]);
    null.columns[0].nulls = vec![1, 0];
    assert_eq!(Chaos::process(0, null).expect("answers").failed[0].row, 1);
}

#[test]
fn signatures_that_cannot_be_are_given() {
    assert_eq!(configured("many-branches", "poison").branches.len(), 1_000_000);
    assert_eq!(configured("duplicate-branches", "poison").branches.len(), 2);
    assert_eq!(configured("duplicate-fields", "poison").branches[0].fields.len(), 2);
    assert!(configured("no-inputs", "poison").inputs.is_empty());
    assert_ne!(
        configured("changing-signature", "poison"),
        configured("changing-signature", "poison")
    );
    assert!(Chaos::configure(r#"{"kind": "configure-error"}"#.into()).is_err());
    let unknown = Chaos::configure(r#"{"kind": "painc"}"#.into()).unwrap_err();
    assert!(unknown.contains("did you mean `panic`?"), "{unknown}");
}

/// What a kind does to its store, natively.
fn keep(kind: &str, amount: u64) -> std::result::Result<Outputs, String> {
    let config = format!(r#"{{"kind": "{kind}", "amount": {amount}}}"#);
    let signature = Chaos::configure(config).expect(kind);
    millstream_sdk::testing::with_stores(&signature.stores, || {
        Chaos::process(0, rows(&[false])).expect("honest");
        Chaos::process(0, rows(&[true])).and_then(|_| Chaos::process(0, rows(&[true])))
    })
}

#[test]
fn stores_are_used_by_the_rules_by_some_kinds() {
    assert_eq!(
        keep("state-failed-row", 1).expect("goes on").failed[0].message,
        "this row is poisoned"
    );
    for kind in [
        "state-absent",
        "state-repeated-keys",
        "state-many-keys",
        "state-huge-key",
        "state-huge-value",
    ] {
        assert!(keep(kind, 20_001).expect(kind).failed.is_empty(), "{kind}");
    }
}

/// The stores of a test do not take back what a failed call wrote, so that the next call finds it.
#[test]
fn what_a_failed_call_leaves_is_found() {
    let signature = Chaos::configure(r#"{"kind": "state-error"}"#.into()).expect("configured");
    millstream_sdk::testing::with_stores(&signature.stores, || {
        assert_eq!(Chaos::process(0, rows(&[true])).unwrap_err(), "written, and refused");
        let error = Chaos::process(0, rows(&[false])).unwrap_err();
        assert_eq!(error, "what a failed call wrote is still there");
    });
}

#[test]
fn stores_are_misused_by_the_others() {
    let kinds = [
        "state-unknown-store",
        "state-too-few-values",
        "state-too-many-values",
        "state-too-few-columns",
        "state-too-many-columns",
        "state-null-key",
        "state-bad-utf8",
        "state-unordered-scan",
    ];
    for kind in kinds {
        let refused = std::panic::catch_unwind(|| keep(kind, 1));
        assert!(refused.is_err(), "{kind} is not refused: {refused:?}");
    }
}

#[test]
#[should_panic(expected = "a poisoned row")]
fn a_panic_panics() {
    configured("panic", "poison");
    let _ = Chaos::process(0, rows(&[true]));
}
