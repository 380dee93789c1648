use millstream_sdk::bindings::aggregator::exports::millstream::plugin::aggregator::Guest as _;
use millstream_sdk::bindings::aggregator::exports::millstream::plugin::lifecycle::Guest as _;
use millstream_sdk::table::Column;

use super::*;

fn configured(kind: &str) -> Signature {
    Chaos::configure(format!(r#"{{"kind": "{kind}"}}"#)).expect(kind)
}

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

/// The accumulators of two groups to which rows were added in turn.
fn accumulated(poison: &[bool]) -> std::result::Result<Accumulated, String> {
    let groups = (0..poison.len() as u32)
        .flat_map(|row| (row % 2).to_le_bytes())
        .collect();
    Chaos::accumulate(0, write(&[Kept::default(); 2]), groups, rows(poison))
}

#[test]
fn without_poison_rows_are_counted() {
    configured("failed-row");
    let answer = accumulated(&[false, false, false]).expect("counted");
    let counts: Vec<i64> = read(&answer.accumulators).iter().map(|kept| kept.count).collect();
    assert_eq!(counts, [2, 1]);
    let merged = Chaos::merge(answer.accumulators.clone(), answer.accumulators.clone()).expect("merged");
    assert_eq!(read(&merged)[0].count, 4);
    let outputs = Chaos::finish(answer.accumulators).expect("finished");
    assert_eq!(
        outputs,
        honest_results(&read(&accumulated(&[false; 3]).expect("counted").accumulators))
    );
}

#[test]
fn every_kind_is_another_answer_than_the_honest_one() {
    let accumulate = [
        "accumulate-error",
        "too-few-accumulators",
        "too-many-accumulators",
        "too-few-columns",
        "too-many-columns",
        "other-type",
        "other-order",
        "null-accumulator",
        "huge-accumulator",
        "failed-row",
        "failed-out-of-range",
        "failed-twice",
    ];
    configured("finish-error");
    let honest = accumulated(&[false, true, false]);
    for kind in accumulate {
        configured(kind);
        assert!(accumulated(&[false, true, false]) != honest, "{kind} does nothing");
    }
    let poisoned = honest.expect("counted").accumulators;
    let finish = [
        "finish-error",
        "finish-failed",
        "finish-failed-out-of-range",
        "finish-nothing",
        "finish-twice",
        "finish-origin-out-of-range",
        "finish-origin-falls",
        "finish-too-few-branches",
        "finish-too-few-fields",
        "finish-too-many-fields",
        "finish-other-type",
        "finish-null",
    ];
    for kind in finish {
        configured(kind);
        let outputs = Chaos::finish(poisoned.clone());
        assert!(outputs != Ok(honest_results(&read(&poisoned))), "{kind} does nothing");
    }
    for kind in ["merge-error", "merge-too-few"] {
        configured(kind);
        let merged = Chaos::merge(poisoned.clone(), poisoned.clone());
        assert!(merged.map_or(0, |merged| merged.rows) < 2, "{kind} does nothing");
    }
}

#[test]
fn every_beginning_is_another_than_the_honest_one() {
    configured("failed-row");
    let honest = Chaos::initial();
    let kinds = [
        "initial-no-row",
        "initial-two-rows",
        "initial-no-fields",
        "initial-duplicate-fields",
        "initial-other-columns",
        "initial-other-type",
        "initial-null",
        "changing-initial",
    ];
    for kind in kinds {
        configured(kind);
        assert!(Chaos::initial() != honest, "{kind} does nothing");
    }
    assert_ne!(Chaos::initial(), Chaos::initial(), "it changes");
    assert_eq!(configured("branch-same").branches[0].value, ValueBase::Same);
    assert_eq!(configured("store-declared").stores.len(), 1);
}

#[test]
fn panics_are_panics() {
    for kind in ["initial-panic", "accumulate-panic", "merge-panic", "finish-panic"] {
        let config = format!(r#"{{"kind": "{kind}", "when": "always"}}"#);
        let call = std::panic::catch_unwind(|| {
            Chaos::configure(config).expect(kind);
            let accumulators = write(&[Kept::default()]);
            match kind {
                "initial-panic" => drop(Chaos::initial()),
                "accumulate-panic" => drop(accumulated(&[false])),
                "merge-panic" => drop(Chaos::merge(accumulators.clone(), accumulators)),
                _ => drop(Chaos::finish(accumulators)),
            }
        });
        assert!(call.is_err(), "{kind}");
    }
}
