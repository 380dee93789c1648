//! Aggregators: an honest one, and those that fail, or lie.

use std::sync::Arc;

use millstream::guest::{CallError, GuestError, Instance, inspect};
use millstream::table::{Column, Table};

use crate::guest::{Aggregator, Data, Guest, SCRATCH_AT, STATE, Slice, consts};
use crate::run::SPIN;
use crate::{Sandbox, limits, rows, start};

/// A table of one integer column.
fn table(cells: &[i64]) -> Table {
    Table {
        rows: cells.len() as u32,
        columns: vec![Column {
            data: cells.iter().flat_map(|cell| cell.to_le_bytes()).collect(),
            ..Column::default()
        }],
    }
}

/// An aggregator that is honest but for what is changed.
fn aggregating(name: &str, change: impl FnOnce(&mut Data, &mut Aggregator)) -> Guest {
    let mut guest = Guest::aggregating(name);
    let mut aggregator = guest.aggregator.take().expect("an aggregator");
    change(&mut guest.data, &mut aggregator);
    guest.aggregator = Some(aggregator);
    guest
}

#[test]
fn an_honest_aggregator_adds_merges_and_finishes() {
    let mut sandbox = Sandbox::new();
    let summing = Guest::aggregating("summing");
    sandbox.case("summing", |sandbox| {
        let (configured, mut instance) = start(sandbox, &summing, &Arc::default()).expect("starts");
        let accumulator = configured.accumulator().expect("an aggregator has one");
        assert_eq!(accumulator.fields[0].name, "sum");
        assert_eq!(accumulator.start, table(&[0]));
        for _ in 0..3 {
            let accumulated = instance
                .accumulate(0, &table(&[100, 200, 0]), &[1, 0, 1, 2], &table(&[1, 2, 3, 4]), 0)
                .expect("works");
            assert_eq!(accumulated.accumulators, table(&[102, 204, 4]));
            assert!(accumulated.failed.is_empty());
            let merged = instance.merge(&table(&[1, 2]), &table(&[10, -2]), 0).expect("works");
            assert_eq!(merged, table(&[11, 0]));
            let outputs = instance.finish(&table(&[7, 8]), 0).expect("works");
            assert_eq!(outputs.branches[0].origins, [0, 1]);
            assert_eq!(outputs.branches[0].table, table(&[7, 8]));
        }
        let error = instance.process(0, &rows(3), 0, &mut None).expect_err("cannot");
        assert_eq!(error.to_string(), "the plugin is an aggregator, which has no `process`");
        assert!(!instance.is_poisoned());
    });
    sandbox.case("processor", |sandbox| {
        let (configured, mut instance) = start(sandbox, &Guest::new("other"), &Arc::default()).expect("starts");
        assert!(configured.accumulator().is_none());
        let error = instance.finish(&table(&[1]), 0).expect_err("cannot");
        assert_eq!(error.to_string(), "the plugin is a processor, which has no `finish`");
    });
    let path = sandbox.folder.path().join("summing.wasm");
    std::fs::write(&path, summing.component()).expect("written");
    let inspection = inspect(&sandbox.runtime, &path).expect("inspects");
    assert_eq!(inspection.accumulator.expect("has one")[0].name, "sum");
}

/// Each aggregator with the words that it is refused in when it is configured.
#[test]
fn accumulators_that_break_the_contract() {
    fn initial(name: &str, answer: fn(&mut Data) -> u32) -> Guest {
        aggregating(name, |data, aggregator| {
            let at = answer(data);
            aggregator.initial = format!("(i32.const {at})");
        })
    }
    let mut sandbox = Sandbox::new();
    let cases = vec![
        (
            "what `initial` answers breaks the contract: `start` has 0 rows, not one",
            initial("no-rows", |data| {
                let (field, column) = (data.field("sum", 1, false), data.integers(&[]));
                data.accumulator(&[field], 0, &[column])
            }),
        ),
        (
            "`start` has 2 rows, not one",
            initial("two-rows", |data| {
                let (field, column) = (data.field("sum", 1, false), data.integers(&[1, 2]));
                data.accumulator(&[field], 2, &[column])
            }),
        ),
        (
            "the accumulator has no fields",
            initial("no-fields", |data| data.accumulator(&[], 1, &[])),
        ),
        (
            "the accumulator: two fields are called \"sum\"",
            initial("twice", |data| {
                let (field, column) = (data.field("sum", 1, false), data.integers(&[1]));
                data.accumulator(&[field.clone(), field], 1, &[column.clone(), column])
            }),
        ),
        (
            "`start` has 2 columns, but its schema has 1 fields",
            initial("wide", |data| {
                let (field, column) = (data.field("sum", 1, false), data.integers(&[1]));
                data.accumulator(&[field], 1, &[column.clone(), column])
            }),
        ),
        (
            "`start` field \"sum\": `data` has 8 bytes, but 1 rows of type boolean need 1",
            initial("other-type", |data| {
                let (field, column) = (data.field("sum", 0, false), data.integers(&[1]));
                data.accumulator(&[field], 1, &[column])
            }),
        ),
        (
            "`initial` failed: what the plugin passes cannot be read",
            initial("fields-4-gib", |data| data.words(&[&[1024, u32::MAX, 1, 0, 0]]).0),
        ),
        (
            "`initial` failed: the plugin trapped",
            aggregating("trap", |_, aggregator| aggregator.initial = "(unreachable)".into()),
        ),
        (
            "`initial` failed: the call did not end within 300ms",
            aggregating("spin", |_, aggregator| {
                aggregator.initial = format!("{SPIN} (unreachable)")
            }),
        ),
        ("`state.get` was called in initial, where only `log` may be", {
            let mut guest = aggregating("state", |_, aggregator| {
                aggregator.initial = format!(
                    "(call $get {} (i32.const {SCRATCH_AT})) {}",
                    consts(&[0; 4]),
                    aggregator.initial
                );
            });
            guest.world = "import millstream:plugin/state@0.1.0;".into();
            guest.imports = STATE.into();
            guest
        }),
        ("branch \"out\": its value is the input row's (`same`)", {
            let mut guest = Guest::aggregating("same");
            let data = &mut guest.data;
            let (input, branch) = (data.input("in", &[]), data.branch("out", 0, &[]));
            let at = data.signature(&[input], &[branch], &[]);
            guest.configure = format!("(i32.const {at})");
            guest
        }),
        ("branch \"out\", field \"k\": it is written to key:", {
            let mut guest = Guest::aggregating("key");
            let data = &mut guest.data;
            let key = data.mapped_field("k", 1, false, 1, "");
            let (input, branch) = (data.input("in", &[]), data.branch("out", 1, &[key]));
            let at = data.signature(&[input], &[branch], &[]);
            guest.configure = format!("(i32.const {at})");
            guest
        }),
        ("it has stores, which only a processor may have", {
            let mut guest = Guest::aggregating("stores");
            let data = &mut guest.data;
            let id = data.field("id", 1, false);
            let (input, store) = (data.input("in", &[]), data.store("s", &[id], &[], false));
            let at = data.signature_with_stores(&[input], &[], &[store], &[]);
            guest.configure = format!("(i32.const {at})");
            guest
        }),
    ];
    for (expected, guest) in cases {
        sandbox.case(&guest.name, |sandbox| {
            let plugin = sandbox
                .load(&guest.component())
                .unwrap_or_else(|error| panic!("{}: {error}", guest.name));
            let error: GuestError = plugin.configure("{}", &limits()).expect_err(&guest.name);
            let text = error.to_string();
            assert!(
                text.contains(expected),
                "{}: {text:?} does not say {expected:?}",
                guest.name
            );
        });
    }
}

/// Calls all three functions until one fails.
fn call(instance: &mut Instance) -> Result<(), CallError> {
    instance.accumulate(0, &table(&[0, 0]), &[0, 1, 0], &table(&[1, 2, 3]), 0)?;
    instance.merge(&table(&[1, 2]), &table(&[3, 4]), 0)?;
    instance.finish(&table(&[1, 2]), 0)?;
    Ok(())
}

/// Each aggregator with the words that its failure is told in, and its kind.
fn assert_failures(cases: Vec<(&str, &str, Guest)>) {
    let mut sandbox = Sandbox::new();
    for (kind, expected, guest) in cases {
        sandbox.case(&guest.name, |sandbox| {
            let (_, mut instance) =
                start(sandbox, &guest, &Arc::default()).unwrap_or_else(|error| panic!("{}: {error}", guest.name));
            let error = call(&mut instance).expect_err(&guest.name);
            let text = error.to_string();
            assert!(
                text.contains(expected),
                "{}: {text:?} does not say {expected:?}",
                guest.name
            );
            assert_eq!(error.kind(), kind, "{}: {text}", guest.name);
            assert_eq!(instance.is_poisoned(), kind != "refused", "{}", guest.name);
            if instance.is_poisoned() {
                assert!(
                    matches!(call(&mut instance), Err(CallError::Poisoned)),
                    "{}",
                    guest.name
                );
            }
        });
    }
}

/// `accumulate` answers with these accumulators and failed rows.
fn accumulating(name: &str, sums: &[i64], failed: &[u32]) -> Guest {
    aggregating(name, |data, aggregator| {
        let column = data.integers(sums);
        let [rows, columns, count] = data.table(sums.len() as u32, &[column]);
        let message = data.text("no");
        let failed: Vec<[u32; 3]> = failed.iter().map(|&row| [row, message.0, message.1]).collect();
        let failed = data.words(&failed.iter().map(<[u32; 3]>::as_slice).collect::<Vec<_>>());
        let at = data.words(&[&[0, rows, columns, count, failed.0, failed.1]]).0;
        aggregator.accumulate = format!("(i32.const {at})");
    })
}

#[test]
fn accumulations_that_break_the_contract() {
    assert_failures(vec![
        (
            "output",
            "the plugin returned 3 accumulators for 2",
            accumulating("more", &[1, 2, 3], &[]),
        ),
        (
            "output",
            "the plugin returned 0 accumulators for 2",
            accumulating("none", &[], &[]),
        ),
        (
            "output",
            "failed rows: row 3 does not exist: 3 rows went in",
            accumulating("failed-outside", &[1, 2], &[0, 3]),
        ),
        (
            "output",
            "failed rows: row 1 is named twice",
            accumulating("failed-twice", &[1, 2], &[1, 0, 1]),
        ),
        (
            "output",
            "the table of accumulators field \"sum\": `data` has 15 bytes, but 2 rows of type integer need 16",
            aggregating("short", |data, aggregator| {
                let column = data.column(&[], &[0; 15]);
                let [rows, columns, count] = data.table(2, &[column]);
                let at = data.words(&[&[0, rows, columns, count, 0, 0]]).0;
                aggregator.accumulate = format!("(i32.const {at})");
            }),
        ),
        (
            "output",
            "the table of accumulators has 0 columns, but its schema has 1 fields",
            aggregating("no-columns", |data, aggregator| {
                let at = data.words(&[&[0, 2, 0, 0, 0, 0]]).0;
                aggregator.accumulate = format!("(i32.const {at})");
            }),
        ),
        (
            "output",
            "returned 2000000 bytes, but the stage's limit is 1048576",
            aggregating("bytes", |data, aggregator| {
                let column = vec![0, 0, 0, 0, 0, 2_000_000];
                let [rows, columns, count] = data.table(2, &[column]);
                let at = data.words(&[&[0, rows, columns, count, 0, 0]]).0;
                aggregator.accumulate = format!("(drop (memory.grow (i32.const 20))) (i32.const {at})");
            }),
        ),
        (
            "output",
            "cannot be read",
            aggregating("4-gib", |data, aggregator| {
                let at = data.words(&[&[0, 2, 1024, u32::MAX, 0, 0]]).0;
                aggregator.accumulate = format!("(i32.const {at})");
            }),
        ),
        (
            "trap",
            "unreachable",
            aggregating("trap", |_, aggregator| aggregator.accumulate = "(unreachable)".into()),
        ),
        (
            "time",
            "did not end within 100ms",
            aggregating("spin", |_, aggregator| {
                aggregator.accumulate = format!("{SPIN} (unreachable)")
            }),
        ),
        (
            "refused",
            "the plugin failed the call: not today",
            aggregating("refuses", |data, aggregator| {
                let message = data.text("not today");
                let at = data.words(&[&[1, message.0, message.1, 0, 0, 0]]).0;
                aggregator.accumulate = format!("(i32.const {at})");
            }),
        ),
        (
            "misuse",
            "`state.get` was called in accumulate, but an aggregator has no stores",
            {
                let mut guest = aggregating("state", |_, aggregator| {
                    aggregator.accumulate = format!(
                        "(call $get {} (i32.const {SCRATCH_AT})) {}",
                        consts(&[0; 4]),
                        aggregator.accumulate
                    );
                });
                guest.world = "import millstream:plugin/state@0.1.0;".into();
                guest.imports = STATE.into();
                guest
            },
        ),
    ]);
    let mut sandbox = Sandbox::new();
    sandbox.case("failed", |sandbox| {
        let (_, mut instance) =
            start(sandbox, &accumulating("failed", &[1, 2], &[2, 0]), &Arc::default()).expect("starts");
        let accumulated = instance
            .accumulate(0, &table(&[0, 0]), &[0, 1, 0], &table(&[1, 2, 3]), 0)
            .expect("works");
        assert_eq!(accumulated.accumulators, table(&[1, 2]));
        let failed: Vec<_> = accumulated.failed.iter().map(|failure| failure.row).collect();
        assert_eq!(failed, [2, 0]);
        assert_eq!(accumulated.failed[0].message, "no");
    });
}

#[test]
fn merges_that_break_the_contract() {
    let merging = |name: &str, sums: &'static [i64]| {
        aggregating(name, |data, aggregator| {
            let column = data.integers(sums);
            let [rows, columns, count] = data.table(sums.len() as u32, &[column]);
            let at = data.words(&[&[0, rows, columns, count]]).0;
            aggregator.merge = format!("(i32.const {at})");
        })
    };
    assert_failures(vec![
        (
            "output",
            "the plugin returned 1 accumulators for 2",
            merging("fewer", &[1]),
        ),
        (
            "output",
            "the plugin returned 3 accumulators for 2",
            merging("more", &[1, 2, 3]),
        ),
        (
            "trap",
            "unreachable",
            aggregating("trap", |_, aggregator| aggregator.merge = "(unreachable)".into()),
        ),
    ]);
}

#[test]
fn results_that_break_the_contract() {
    let finishing = |name: &str, origins: &'static [u32], columns: usize| {
        aggregating(name, |data, aggregator| {
            let column = data.integers(&vec![0; origins.len()]);
            let columns = data.table(0, &vec![column; columns]);
            let origins = data.origins(origins);
            let at = data.outputs(&[(origins, Slice(columns[1], columns[2]))], &[]);
            aggregator.finish = format!("(i32.const {at})");
        })
    };
    assert_failures(vec![
        (
            "output",
            "branch \"out\": origin 1 is row 2, but only 2 rows went in",
            finishing("outside", &[0, 2], 1),
        ),
        ("output", "falls from row 1 to row 0", finishing("falls", &[1, 0], 1)),
        (
            "output",
            "branch \"out\" has 2 columns, but its schema has 1 fields",
            finishing("wide", &[0], 2),
        ),
        (
            "output",
            "branch \"out\" has 0 columns",
            finishing("no-columns", &[0], 0),
        ),
        (
            "output",
            "returned 21 rows, but the stage's limit is 20",
            finishing("many", &[0; 21], 1),
        ),
        (
            "trap",
            "unreachable",
            aggregating("trap", |_, aggregator| aggregator.finish = "(unreachable)".into()),
        ),
        (
            "time",
            "did not end within 100ms",
            aggregating("spin", |_, aggregator| {
                aggregator.finish = format!("{SPIN} (unreachable)")
            }),
        ),
    ]);
}
