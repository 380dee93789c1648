//! Plugins that fail, or lie, when they are given records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::guest::CallError;

use crate::guest::{Guest, Slice};
use crate::{Lines, Sandbox, call, limits, rows, start};

pub const SPIN: &str = "(loop $l (br $l))";
const LOG: &str = "(import \"millstream:plugin/log@0.1.0\" \"write\" (func $log (param i32 i32 i32)))";
const METRICS: &str = "(import \"millstream:plugin/metrics@0.1.0\" \"update\" (func $update (param i32 f64)))";

pub fn guest(name: &str, change: impl FnOnce(&mut Guest)) -> Guest {
    let mut guest = Guest::new(name);
    change(&mut guest);
    guest
}

/// A guest with this body of `process`.
pub fn processing(name: &str, body: &str) -> Guest {
    guest(name, |guest| guest.process = body.into())
}

/// A guest that always gives this answer.
fn answering(name: &str, answer: impl FnOnce(&mut Guest) -> u32) -> Guest {
    guest(name, |guest| {
        let at = answer(guest);
        guest.process = format!("(i32.const {at})");
    })
}

/// A guest whose memory is given out by this body, but only for lists of columns: it starts honestly.
fn allocating(name: &str, body: &str) -> Guest {
    guest(name, |guest| {
        let lists = "(i32.eq (local.get $align) (i32.const 4))";
        guest.realloc = format!("(if {lists} (then {body})) {}", guest.realloc);
    })
}

/// Each guest with the words that its failure is told in, and its kind.
pub fn assert_failures(cases: Vec<(&str, &str, Guest)>) {
    let mut sandbox = Sandbox::new();
    for (kind, expected, guest) in cases {
        sandbox.case(&guest.name, |sandbox| {
            let error = call(sandbox, &guest).expect_err(&guest.name);
            let text = error.to_string();
            assert!(
                text.contains(expected),
                "{}: {text:?} does not say {expected:?}",
                guest.name
            );
            assert_eq!(error.kind(), kind, "{}: {text}", guest.name);
        });
    }
}

#[test]
fn time() {
    let fill = "(loop $l (memory.fill (i32.const 0) (i32.const 0) (i32.const 0x100000)) (br $l)) (unreachable)";
    assert_failures(vec![
        (
            "time",
            "did not end within 100ms",
            processing("spin", &format!("{SPIN}(unreachable)")),
        ),
        (
            "time",
            "did not end within 100ms",
            guest("spin-after", |g| g.after_process = Some(SPIN.into())),
        ),
        ("time", "did not end within 100ms", allocating("spin-realloc", SPIN)),
        ("time", "did not end within 100ms", processing("fill", fill)),
        (
            "time",
            "did not end within 100ms",
            guest("calls-host", |g| {
                g.imports = LOG.into();
                g.process =
                    "(loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 64)) (br $l)) (unreachable)".into();
            }),
        ),
        (
            "trap",
            "call stack exhausted",
            processing(
                "recursion",
                "(call $process (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
            ),
        ),
        (
            "trap",
            "call stack exhausted",
            guest("recursion-wide", |g| {
                g.items = format!(
                    "(func $wide (param {}) (call $wide {}))",
                    "i64 ".repeat(200),
                    "(local.get 0)".repeat(200)
                );
                g.process = format!("(call $wide {}) (unreachable)", "(i64.const 1)".repeat(200));
            }),
        ),
    ]);
}

#[test]
fn deadlines_are_kept() {
    let sandbox = Sandbox::new();
    let spin = processing("spin", &format!("{SPIN}(unreachable)"));
    let (configured, _) = start(&sandbox, &spin, &Arc::default()).expect("starts");
    for _ in 0..3 {
        let mut instance = configured.instantiate(Arc::new(Lines::default())).expect("starts");
        let began = Instant::now();
        let error = instance.process(0, &rows(1), 0, &mut None).expect_err("spins");
        assert!(matches!(error, CallError::Deadline { limit, .. } if limit == Duration::from_millis(100)));
        assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert!(instance.call_time() >= Duration::from_millis(100));
    }
}

#[test]
fn traps() {
    assert_failures(vec![
        ("trap", "unreachable", processing("unreachable", "(unreachable)")),
        (
            "trap",
            "divide by zero",
            processing("divide", "(i32.div_u (i32.const 1) (i32.const 0))"),
        ),
        (
            "trap",
            "out of bounds memory access",
            processing("load", "(i32.load (i32.const -8))"),
        ),
        (
            "trap",
            "out of bounds table access",
            guest("table", |g| {
                g.items = "(type $f (func)) (table 1 funcref)".into();
                g.process = "(call_indirect (type $f) (i32.const 7)) (unreachable)".into();
            }),
        ),
        (
            "trap",
            "unreachable",
            guest("after", |g| g.after_process = Some("(unreachable)".into())),
        ),
        ("trap", "unreachable", allocating("realloc-traps", "(unreachable)")),
        (
            "trap",
            "cannot leave component instance",
            Guest {
                imports: LOG.into(),
                ..allocating(
                    "realloc-calls-host",
                    "(call $log (i32.const 2) (i32.const 0) (i32.const 1))",
                )
            },
        ),
    ]);
}

#[test]
fn a_trap_tells_the_panic_and_the_functions_by_their_names() {
    let mut sandbox = Sandbox::new();
    let panicking = guest("panicking", |g| {
        let [first, last] = ["an error before", "ride 7 has no\nfare"].map(|text| g.data.text(text));
        g.imports = LOG.into();
        g.items = format!(
            "(func $_ZN4ride5split17h0123456789abcdefE
               (call $log (i32.const 4) (i32.const {}) (i32.const {}))
               (call $log (i32.const 4) (i32.const {}) (i32.const {}))
               (unreachable))",
            first.0, first.1, last.0, last.1
        );
        g.process = "(call $_ZN4ride5split17h0123456789abcdefE) (unreachable)".into();
    });
    sandbox.case("panicking", |sandbox| {
        let error = call(sandbox, &panicking).expect_err("panics");
        assert!(
            error.to_string().contains("the plugin trapped: ride 7 has no\\nfare ("),
            "{error}"
        );
        assert_eq!(error.frames(), ["ride::split", "process"]);
    });
    let deep = guest("deep", |g| {
        g.items = "(func $down (param i32) (if (i32.eqz (local.get 0)) (then (unreachable)))
                     (call $down (i32.sub (local.get 0) (i32.const 1))))"
            .into();
        g.process = "(call $down (i32.const 500)) (unreachable)".into();
    });
    sandbox.case("deep", |sandbox| {
        let error = call(sandbox, &deep).expect_err("traps");
        assert_eq!(error.frames(), vec!["down"; 32]);
    });
}

#[test]
fn memory() {
    let page_by_page = "(local $at i32)
        (loop $l
          (local.set $at (memory.grow (i32.const 1)))
          (if (i32.eq (local.get $at) (i32.const -1)) (then (unreachable)))
          (memory.fill (i32.shl (local.get $at) (i32.const 16)) (i32.const 1) (i32.const 65536))
          (br $l))
        (unreachable)";
    let grow = |pages: u32| {
        format!("(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then (unreachable))) (unreachable)")
    };
    assert_failures(vec![
        (
            "memory",
            "wanted 4294901760 bytes of memory, but its limit is 16777216",
            processing("at-once", &grow(65519)),
        ),
        (
            "memory",
            "its limit is 16777216",
            processing("page-by-page", page_by_page),
        ),
        (
            "memory",
            "its limit is 16777216",
            guest("tables", |g| {
                g.items = "(table $t 0 funcref)".into();
                g.process = "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1)))) (unreachable)".into();
            }),
        ),
        (
            "memory",
            "its limit is 16777216",
            allocating("leak-in-realloc", "(drop (memory.grow (i32.const 1000))) (unreachable)"),
        ),
    ]);
}

#[test]
fn a_growth_that_is_refused_and_borne_is_no_failure() {
    let mut sandbox = Sandbox::new();
    let modest = guest("modest", |g| {
        g.process = format!("(drop (memory.grow (i32.const 60000))) {}", g.process)
    });
    sandbox.case("modest", |sandbox| {
        let (_, mut instance) = start(sandbox, &modest, &Arc::default()).expect("starts");
        for _ in 0..3 {
            instance.process(0, &rows(3), 0, &mut None).expect("works without");
        }
        assert_eq!(instance.memory_bytes(), 16 << 16);
    });
}

#[test]
fn memory_comes_back() {
    let mut sandbox = Sandbox::new();
    let greedy = guest("greedy", |g| {
        g.process = format!(
            "(if (i32.eq (memory.size) (i32.const 16)) (then
               (drop (memory.grow (i32.const 200)))
               (memory.fill (i32.const 0x100000) (i32.const 7) (i32.const {})))) {}",
            200 << 16,
            g.process
        );
    });
    sandbox.case("greedy", |sandbox| {
        let (configured, _) = start(sandbox, &greedy, &Arc::default()).expect("starts");
        let before = crate::resident_bytes();
        let mut instances: Vec<_> = (0..20)
            .map(|_| configured.instantiate(Arc::new(Lines::default())).expect("starts"))
            .collect();
        for instance in &mut instances {
            instance.process(0, &rows(3), 0, &mut None).expect("works");
            assert_eq!(instance.memory_bytes(), 216 << 16);
        }
        assert!(
            crate::resident_bytes() > before + (200 << 20),
            "the memory was really taken"
        );
        drop(instances);
        assert!(crate::resident_bytes() < before + (16 << 20), "and is given back");
    });
}

#[test]
fn pointers() {
    let list = |at: u32, length: u32| {
        move |g: &mut Guest| {
            let columns = Slice(0, 0);
            g.data.outputs(&[(Slice(at, length), columns)], &[])
        }
    };
    assert_failures(vec![
        (
            "output",
            "cannot be read",
            processing("result-outside", "(i32.const 0x7ffffff0)"),
        ),
        (
            "output",
            "cannot be read",
            processing("result-at-the-end", "(i32.const 0xfffff)"),
        ),
        (
            "output",
            "cannot be read",
            processing("result-unaligned", "(i32.const 1026)"),
        ),
        (
            "output",
            "cannot be read",
            answering("origins-4-gib", list(0, u32::MAX)),
        ),
        (
            "output",
            "cannot be read",
            answering("origins-outside", list(0xffff0, 64)),
        ),
        (
            "output",
            "cannot be read",
            answering("origins-wrap", list(u32::MAX - 3, 8)),
        ),
        (
            "output",
            "cannot be read",
            answering("branches-4-gib", |g| g.data.words(&[&[0, 1024, u32::MAX, 0, 0]]).0),
        ),
        (
            "output",
            "cannot be read",
            answering("branches-unaligned", |g| g.data.words(&[&[0, 1025, 1, 0, 0]]).0),
        ),
        (
            "output",
            "cannot be read",
            answering("failed-4-gib", |g| g.data.words(&[&[0, 1024, 1, 1024, u32::MAX]]).0),
        ),
        (
            "output",
            "cannot be read",
            answering("discriminant", |g| g.data.words(&[&[2, 0, 0, 0, 0]]).0),
        ),
        (
            "output",
            "cannot be read",
            answering("message-not-utf-8", |g| {
                let text = g.data.bytes(&[b'a', 0xff, 0xfe]);
                g.data.outputs(&[(Slice(0, 0), Slice(0, 0))], &[(0, text)])
            }),
        ),
        (
            "output",
            "cannot be read",
            answering("error-not-utf-8", |g| {
                let text = g.data.bytes(&[0xc0, 0x80]);
                g.data.words(&[&[1, text.0, text.1, 0, 0]]).0
            }),
        ),
        (
            "output",
            "cannot be read",
            allocating("realloc-outside", "(return (i32.const -16))"),
        ),
        (
            "output",
            "cannot be read",
            allocating("realloc-at-the-end", "(return (i32.const 0xffff8))"),
        ),
        (
            "output",
            "cannot be read",
            allocating("realloc-unaligned", "(return (i32.const 0x40001))"),
        ),
    ]);
}

#[test]
fn answers_that_break_the_contract() {
    let origins = |rows: &'static [u32]| {
        move |g: &mut Guest| {
            let origins = g.data.origins(rows);
            g.data.outputs(&[(origins, Slice(0, 0))], &[])
        }
    };
    assert_failures(vec![
        (
            "output",
            "row 3, but only 3 rows went in",
            answering("origin-outside", origins(&[0, 3])),
        ),
        (
            "output",
            "row 4294967295",
            answering("origin-negative", origins(&[u32::MAX])),
        ),
        (
            "output",
            "falls from row 2 to row 1",
            answering("origin-falls", origins(&[2, 1])),
        ),
        (
            "output",
            "no multiple of 4",
            answering("origin-ragged", |g| {
                let origins = g.data.origins(&[0, 1]);
                g.data.outputs(&[(Slice(origins.0, 7), Slice(0, 0))], &[])
            }),
        ),
        (
            "output",
            "returned 0 branches, but its signature has 1",
            answering("no-branches", |g| g.data.outputs(&[], &[])),
        ),
        (
            "output",
            "returned 3 branches",
            answering("more-branches", |g| {
                g.data.outputs(&[(Slice(0, 0), Slice(0, 0)); 3], &[])
            }),
        ),
        (
            "output",
            "has 1 columns, but its schema has 0 fields",
            answering("columns", |g| {
                let column = g.data.words(&[&[0, 0, 0, 0, 0, 0]]);
                g.data.outputs(&[(Slice(0, 0), column)], &[])
            }),
        ),
        (
            "output",
            "row 9 does not exist",
            answering("failed-outside", |g| {
                let text = g.data.text("bad");
                g.data.outputs(&[(Slice(0, 0), Slice(0, 0))], &[(9, text)])
            }),
        ),
        (
            "output",
            "is named twice",
            answering("failed-twice", |g| {
                let text = g.data.text("bad");
                g.data.outputs(&[(Slice(0, 0), Slice(0, 0))], &[(1, text), (1, text)])
            }),
        ),
        (
            "output",
            "among the failed rows",
            answering("failed-and-emitted", |g| {
                let (text, origins) = (g.data.text("bad"), g.data.origins(&[1]));
                g.data.outputs(&[(origins, Slice(0, 0))], &[(1, text)])
            }),
        ),
        (
            "output",
            "returned 31 rows, but the stage's limit is 30",
            answering("too-many-rows", |g| {
                let origins = g.data.origins(&[0; 31]);
                g.data.outputs(&[(origins, Slice(0, 0))], &[])
            }),
        ),
        (
            "output",
            "bytes, but the stage's limit is 1048576",
            guest("too-many-bytes", |g| {
                let at = g.data.outputs(&[(Slice(0, 0x20_0000), Slice(0, 0))], &[]);
                g.process = format!("(drop (memory.grow (i32.const 100))) (i32.const {at})");
            }),
        ),
        (
            "output-size",
            "more than the 1048576 bytes",
            guest("far-too-many-bytes", |g| {
                let at = g.data.outputs(&[(Slice(0, 0xc0_0000), Slice(0, 0))], &[]);
                g.process = format!("(drop (memory.grow (i32.const 200))) (i32.const {at})");
            }),
        ),
        (
            "output-size",
            "more than the 1048576 bytes",
            guest("the-same-bytes-often", |g| {
                // 1,000 branches that all name the same megabyte.
                let at = g.data.outputs(&vec![(Slice(0, 0x10_0000), Slice(0, 0)); 1000], &[]);
                g.process = format!("(i32.const {at})");
            }),
        ),
    ]);
}

#[test]
fn a_typed_column_is_held_against_its_field() {
    // Types are positions in the contract's list: boolean, integer, float, text.
    let column = |name: &str, field_type: u8, nulls: &'static [u8], ends: &'static [u32], data: &'static [u8]| {
        guest(name, |g| {
            let input = g.data.input("in", &[]);
            let field = g.data.mapped_field("f", field_type, false, 0, "/f");
            let branch = g.data.branch("out", 0, &[field]);
            let at = g.data.signature(&[input], &[branch], &[]);
            g.configure = format!("(i32.const {at})");
            let (origins, nulls, ends, data) = (
                g.data.origins(&[0]),
                g.data.bytes(nulls),
                g.data.origins(ends),
                g.data.bytes(data),
            );
            let column = g.data.words(&[&[nulls.0, nulls.1, ends.0, ends.1, data.0, data.1]]);
            let at = g.data.outputs(&[(origins, column)], &[]);
            g.process = format!("(i32.const {at})");
        })
    };
    assert_failures(vec![
        (
            "output",
            "row 0: is not UTF-8",
            column("text-not-utf-8", 3, &[], &[2], &[0xc3, 0x28]),
        ),
        ("output", "ends at byte 9", column("text-end", 3, &[], &[9], b"ab")),
        (
            "output",
            "a boolean is 0 or 1, not 2",
            column("boolean", 0, &[], &[], &[2]),
        ),
        ("output", "`data` has 7 bytes", column("integer", 1, &[], &[], &[0; 7])),
        ("output", "not optional", column("null", 1, &[1], &[], &[0; 8])),
    ]);
    let mut sandbox = Sandbox::new();
    sandbox.case("good", |sandbox| {
        let outputs = call(sandbox, &column("good", 3, &[], &[2], b"ab")).expect("by the rules");
        assert_eq!(outputs.branches[0].table.columns[0].data, b"ab");
    });
}

#[test]
fn an_error_of_the_plugin_is_no_failure_of_the_instance() {
    let mut sandbox = Sandbox::new();
    let refusing = guest("refusing", |g| {
        let message = g.data.text(&"no ".repeat(3000));
        let at = g.data.words(&[&[1, message.0, message.1, 0, 0]]).0;
        g.process = format!(
            "(if (result i32) (i32.eq (local.get $rows) (i32.const 3)) (then (i32.const {at})) (else {}))",
            g.process
        );
    });
    sandbox.case("refusing", |sandbox| {
        let (_, mut instance) = start(sandbox, &refusing, &Arc::default()).expect("starts");
        let CallError::Refused(message) = instance.process(0, &rows(3), 0, &mut None).expect_err("refuses") else {
            panic!("another failure")
        };
        assert_eq!(message.len(), 4096, "cut");
        assert!(!instance.is_poisoned());
        instance.process(0, &rows(2), 0, &mut None).expect("goes on");
    });
}

#[test]
fn metrics_and_state() {
    let with_metrics = |name: &str, body: &str| {
        guest(name, |g| {
            let input = g.data.input("in", &[]);
            let branch = g.data.branch("out", 0, &[]);
            let (seen, nothing) = (g.data.text("seen"), Slice(0, 0));
            let at = g
                .data
                .signature(&[input], &[branch], &[vec![seen.0, seen.1, nothing.0, nothing.1, 0]]);
            g.configure = format!("(i32.const {at})");
            g.imports = METRICS.into();
            g.process = format!("{body} {}", g.process);
        })
    };
    let update = |metric: u32, value: &str| format!("(call $update (i32.const {metric}) (f64.const {value}))");
    assert_failures(vec![
        (
            "misuse",
            "metric 1 does not exist",
            with_metrics("metric-outside", &update(1, "1")),
        ),
        (
            "misuse",
            "must be finite",
            with_metrics("metric-nan", &update(0, "nan")),
        ),
        (
            "misuse",
            "must be finite",
            with_metrics("metric-infinite", &update(0, "inf")),
        ),
        (
            "misuse",
            "counters only grow",
            with_metrics("metric-falls", &update(0, "-1")),
        ),
        (
            "misuse",
            "more than 10000 metric updates",
            with_metrics("metric-bomb", &format!("(loop $l {} (br $l))", update(0, "1"))),
        ),
        (
            "misuse",
            "`state.get` was called for store 5, which does not exist: the signature has 0",
            guest("state", |g| {
                g.imports =
                    "(import \"millstream:plugin/state@0.1.0\" \"get\" (func $get (param i32 i32 i32 i32 i32)))".into();
                g.process = format!(
                    "(call $get (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2048)) {}",
                    g.process
                );
            }),
        ),
    ]);
    let mut sandbox = Sandbox::new();
    let once = with_metrics("once", &update(0, "2.5"));
    sandbox.case("once", |sandbox| {
        let (_, mut instance) = start(sandbox, &once, &Arc::default()).expect("starts");
        for _ in 0..2 {
            instance.process(0, &rows(3), 0, &mut None).expect("works");
            assert_eq!(instance.metrics().len(), 1, "of the last call alone");
            assert_eq!((instance.metrics()[0].metric, instance.metrics()[0].value), (0, 2.5));
        }
    });
}

#[test]
fn logs() {
    let mut sandbox = Sandbox::new();
    let flood = guest("flood", |g| {
        let line = g.data.text("one\n\u{1b}[31m{\"level\":\"error\"}");
        g.imports = LOG.into();
        g.process = format!(
            "(loop $l
               (call $log (i32.const 2) (i32.const {}) (i32.const {}))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $i) (i32.const 1000)))) {}",
            line.0, line.1, g.process
        );
    });
    sandbox.case("flood", |sandbox| {
        let lines = Arc::new(Lines::default());
        let (_, mut instance) = start(sandbox, &flood, &lines).expect("starts");
        instance.process(0, &rows(1), 0, &mut None).expect("works");
        drop(instance);
        let written = lines.lines.lock().unwrap();
        let suppressed = *lines.suppressed.lock().unwrap();
        assert_eq!(written.len() as u64 + suppressed, 1000);
        assert!(written.len() <= 200, "{} lines in a moment", written.len());
        assert!(
            written
                .iter()
                .all(|(_, line)| line == "one\\n\\u{1b}[31m{\"level\":\"error\"}")
        );
    });
    let huge = guest("huge", |g| {
        g.imports = LOG.into();
        g.process = format!(
            "(drop (memory.grow (i32.const 200))) (call $log (i32.const 3) (i32.const 0x100000) (i32.const 0xb00000)) {}",
            g.process
        );
    });
    sandbox.case("huge", |sandbox| {
        let lines = Arc::new(Lines::default());
        let (_, mut instance) = start(sandbox, &huge, &lines).expect("starts");
        let error = instance.process(0, &rows(1), 0, &mut None).expect_err("too much");
        assert!(error.to_string().contains("bytes to the host at once"), "{error}");
    });
    let mut large = huge.clone();
    large.name = "large".into();
    large.process = large.process.replace("0xb00000", "0x400000");
    sandbox.case("large", |sandbox| {
        let lines = Arc::new(Lines::default());
        let (_, mut instance) = start(sandbox, &large, &lines).expect("starts");
        instance.process(0, &rows(1), 0, &mut None).expect("works");
        let written = lines.lines.lock().unwrap();
        assert_eq!(written.len(), 1);
        assert!(written[0].1.len() <= 4096 && written[0].1.ends_with('…'));
    });
    drop(sandbox);
    assert_failures(vec![
        (
            "output",
            "cannot be read",
            guest("log-level", |g| {
                g.imports = LOG.into();
                g.process = "(call $log (i32.const 9) (i32.const 0) (i32.const 0)) (unreachable)".into();
            }),
        ),
        (
            "output",
            "cannot be read",
            guest("log-outside", |g| {
                g.imports = LOG.into();
                g.process = "(call $log (i32.const 1) (i32.const 8) (i32.const -1)) (unreachable)".into();
            }),
        ),
    ]);
}

/// The part of WASI that the guests below use.
const WASI: &str = "
    package wasi:io@0.2.0 {
      interface error { resource error; }
      interface poll { resource pollable { block: func(); } }
      interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream {
          blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
        }
        resource input-stream {
          blocking-read: func(len: u64) -> result<list<u8>, stream-error>;
        }
      }
    }
    package wasi:cli@0.2.0 {
      interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
      interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }
      interface stdin { use wasi:io/streams@0.2.0.{input-stream}; get-stdin: func() -> input-stream; }
      interface exit { exit: func(status: result); }
      interface environment {
        get-environment: func() -> list<tuple<string, string>>;
        get-arguments: func() -> list<string>;
      }
    }
    package wasi:clocks@0.2.0 {
      interface monotonic-clock {
        use wasi:io/poll@0.2.0.{pollable};
        now: func() -> u64;
        subscribe-duration: func(when: u64) -> pollable;
      }
    }
    package wasi:random@0.2.0 { interface random { get-random-bytes: func(len: u64) -> list<u8>; get-random-u64: func() -> u64; } }
    package wasi:filesystem@0.2.0 {
      interface types { resource descriptor; }
      interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
    }";

fn with_wasi(name: &str, imports: &str, process: impl FnOnce(&mut Guest) -> String) -> Guest {
    guest(name, |g| {
        g.packages = WASI.into();
        g.world = "import wasi:cli/stdout@0.2.0; import wasi:cli/stderr@0.2.0; import wasi:cli/stdin@0.2.0;
            import wasi:cli/exit@0.2.0; import wasi:cli/environment@0.2.0; import wasi:clocks/monotonic-clock@0.2.0;
            import wasi:random/random@0.2.0; import wasi:filesystem/preopens@0.2.0;"
            .into();
        g.imports = imports.into();
        let body = process(g);
        g.process = format!("{body} {}", g.process);
    })
}

const STREAMS: &str = "
    (import \"wasi:cli/stdout@0.2.0\" \"get-stdout\" (func $stdout (result i32)))
    (import \"wasi:cli/stderr@0.2.0\" \"get-stderr\" (func $stderr (result i32)))
    (import \"wasi:io/streams@0.2.0\" \"[method]output-stream.blocking-write-and-flush\"
      (func $write (param i32 i32 i32 i32)))";

#[test]
fn wasi_is_empty() {
    let mut sandbox = Sandbox::new();
    // Traps unless all of it is empty, still, or at its end.
    let nothing = with_wasi(
        "nothing",
        "(import \"wasi:cli/environment@0.2.0\" \"get-environment\" (func $environment (param i32)))
         (import \"wasi:cli/environment@0.2.0\" \"get-arguments\" (func $arguments (param i32)))
         (import \"wasi:filesystem/preopens@0.2.0\" \"get-directories\" (func $directories (param i32)))
         (import \"wasi:cli/stdin@0.2.0\" \"get-stdin\" (func $stdin (result i32)))
         (import \"wasi:io/streams@0.2.0\" \"[method]input-stream.blocking-read\" (func $read (param i32 i64 i32)))
         (import \"wasi:clocks/monotonic-clock@0.2.0\" \"now\" (func $now (result i64)))
         (import \"wasi:clocks/monotonic-clock@0.2.0\" \"subscribe-duration\" (func $after (param i64) (result i32)))
         (import \"wasi:io/poll@0.2.0\" \"[method]pollable.block\" (func $block (param i32)))
         (import \"wasi:random/random@0.2.0\" \"get-random-u64\" (func $random (result i64)))",
        |_| {
            "(call $environment (i32.const 2048)) (if (i32.load (i32.const 2052)) (then (unreachable)))
             (call $arguments (i32.const 2048)) (if (i32.load (i32.const 2052)) (then (unreachable)))
             (call $directories (i32.const 2048)) (if (i32.load (i32.const 2052)) (then (unreachable)))
             ;; err(closed)
             (call $read (call $stdin) (i64.const 10) (i32.const 2048))
             (if (i32.ne (i32.load8_u (i32.const 2048)) (i32.const 1)) (then (unreachable)))
             (if (i32.ne (i32.load8_u (i32.const 2052)) (i32.const 1)) (then (unreachable)))
             ;; an hour's sleep takes no time
             (call $block (call $after (i64.const 3600000000000)))
             (if (i64.ne (call $now) (i64.const 1700000000000000000)) (then (unreachable)))
             (if (i64.ne (call $random) (i64.load (i32.const 2064))) (then
               (if (i64.ne (i64.load (i32.const 2064)) (i64.const 0)) (then (unreachable)))))
             (i64.store (i32.const 2064) (i64.const 0))"
                .into()
        },
    );
    sandbox.case("nothing", |sandbox| {
        let (_, mut instance) = start(sandbox, &nothing, &Arc::default()).expect("starts");
        let began = Instant::now();
        for _ in 0..3 {
            instance
                .process(0, &rows(3), 1_700_000_000_000, &mut None)
                .expect("finds nothing");
        }
        assert!(began.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn wasi_output_becomes_log_lines() {
    let mut sandbox = Sandbox::new();
    let printing = with_wasi("printing", STREAMS, |g| {
        let text = g.data.text("one\ntwo\n\u{1b}[2Jthree\nunfinished");
        format!(
            "(call $write (call $stdout) (i32.const {}) (i32.const {}) (i32.const 4096))",
            text.0, text.1
        )
    });
    sandbox.case("printing", |sandbox| {
        let lines = Arc::new(Lines::default());
        let (_, mut instance) = start(sandbox, &printing, &lines).expect("starts");
        instance.process(0, &rows(3), 0, &mut None).expect("works");
        drop(instance);
        let written: Vec<String> = lines
            .lines
            .lock()
            .unwrap()
            .iter()
            .map(|(_, line)| line.clone())
            .collect();
        assert_eq!(written, ["one", "two", "\\u{1b}[2Jthree", "unfinished"]);
    });
    let flood = with_wasi("flood", STREAMS, |_| {
        "(loop $l
           (call $write (call $stdout) (i32.const 0) (i32.const 4096) (i32.const 0x80000))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $l (i32.lt_u (local.get $i) (i32.const 1000))))"
            .into()
    });
    sandbox.case("flood", |sandbox| {
        let lines = Arc::new(Lines::default());
        let (_, mut instance) = start(sandbox, &flood, &lines).expect("starts");
        instance
            .process(0, &rows(3), 0, &mut None)
            .expect("4 MB without an end of line are one line");
        drop(instance);
        let written = lines.lines.lock().unwrap();
        assert_eq!(written.len(), 1);
        assert!(written[0].1.len() <= 4096);
    });
    let rust_panic = with_wasi("rust-panic", STREAMS, |g| {
        let text = g
            .data
            .text("thread 'main' panicked at src/lib.rs:7:5:\nno fare\nnote: run with `RUST_BACKTRACE=1`\n");
        format!(
            "(call $write (call $stderr) (i32.const {}) (i32.const {}) (i32.const 4096)) (unreachable)",
            text.0, text.1
        )
    });
    sandbox.case("rust-panic", |sandbox| {
        let error = call(sandbox, &rust_panic).expect_err("panics").to_string();
        assert!(
            error.contains("the plugin trapped: thread 'main' panicked at src/lib.rs:7:5: no fare ("),
            "{error}"
        );
    });
}

#[test]
fn wasi_attacks() {
    let exit = "(import \"wasi:cli/exit@0.2.0\" \"exit\" (func $exit (param i32)))";
    let random = "(import \"wasi:random/random@0.2.0\" \"get-random-bytes\" (func $bytes (param i64 i32)))";
    assert_failures(vec![
        (
            "trap",
            "it called `exit` with status 1",
            with_wasi("exit", exit, |_| "(call $exit (i32.const 1))".into()),
        ),
        (
            "trap",
            "it called `exit` with status 0",
            with_wasi("exit-0", exit, |_| "(call $exit (i32.const 0))".into()),
        ),
        (
            "misuse",
            "random bytes were asked for at once",
            with_wasi("random-bytes", random, |_| {
                "(call $bytes (i64.const 0x7fffffffffff) (i32.const 2048))".into()
            }),
        ),
        (
            "output",
            "",
            with_wasi("handles", STREAMS, |_| "(loop $l (drop (call $stdout)) (br $l))".into()),
        ),
    ]);
}

/// Ten thousand failures in a row cost no more memory than one.
#[test]
fn failures_leave_nothing_behind() {
    let mut sandbox = Sandbox::new();
    let trapping = processing("trapping", "(unreachable)");
    sandbox.case("trapping", |sandbox| {
        let (configured, _) = start(sandbox, &trapping, &Arc::default()).expect("starts");
        let mut settled = 0;
        for round in 0..3000 {
            let mut instance = configured.instantiate(Arc::new(Lines::default())).expect("starts");
            instance.process(0, &rows(10), 0, &mut None).expect_err("traps");
            if round == 500 {
                settled = crate::resident_bytes();
            }
        }
        let now = crate::resident_bytes();
        assert!(
            now < settled + (4 << 20),
            "{settled} bytes after 500 failures, {now} after 3000"
        );
    });
}

/// The neighbour keeps its rate while another thread runs nothing but runaways.
#[test]
fn a_neighbour_is_not_slowed_by_runaways_on_another_thread() {
    let mut sandbox = Sandbox::new();
    let spin = processing("spin", &format!("{SPIN}(unreachable)"));
    let plugin = sandbox.load(&spin.component()).expect("loads");
    let configured = plugin.configure("{}", &limits()).expect("configures");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let runaways = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut ended = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || ended < 3 {
                let mut instance = configured.instantiate(Arc::new(Lines::default())).expect("starts");
                assert!(matches!(
                    instance.process(0, &rows(1), 0, &mut None),
                    Err(CallError::Deadline { .. })
                ));
                ended += 1;
            }
        }
    });
    let batch = rows(1000);
    for _ in 0..20_000 {
        let outputs = sandbox
            .honest
            .process(0, &batch, 0, &mut None)
            .expect("the neighbour works");
        assert_eq!(outputs.branches[0].origins.len(), 1000);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    runaways.join().expect("each runaway was ended");
    sandbox.neighbour_works();
}

/// How often threads of this name went to sleep by themselves.
fn sleeps_of_threads(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
        .filter(|status| status.starts_with(&format!("Name:\t{name}\n")))
        .filter_map(|status| {
            let line = status
                .lines()
                .find(|line| line.starts_with("voluntary_ctxt_switches:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

#[test]
fn an_idle_host_does_not_wake_up() {
    let mut sandbox = Sandbox::new();
    sandbox.neighbour_works();
    // The clock stops some time after the last call.
    let mut before = sleeps_of_threads("guest-clock");
    let asleep = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut before, sleeps_of_threads("guest-clock")) == before
    });
    assert!(asleep, "the clock goes on without a call");
    // And is there for the next one.
    let spin = processing("spin", &format!("{SPIN}(unreachable)"));
    assert!(matches!(call(&sandbox, &spin), Err(CallError::Deadline { .. })));
    assert!(sleeps_of_threads("guest-clock") > before);
}

/// Recursion that runs out of a stack which the guest keeps in its memory, as compiled languages do.
#[test]
fn deep_recursion_is_named() {
    let mut sandbox = Sandbox::new();
    let deep = guest("deep", |g| {
        g.items = "(global $stack (mut i32) (i32.const 65536))
            (func $down (param i32)
              (global.set $stack (i32.sub (global.get $stack) (i32.const 4096)))
              (i32.store (global.get $stack) (local.get 0))
              (call $down (i32.add (local.get 0) (i32.const 1)))
              (i32.store (global.get $stack) (local.get 0)))"
            .into();
        g.process = "(call $down (i32.const 0)) (unreachable)".into();
    });
    // 16 steps down would leave too few frames to tell.
    let mut deeper = deep.clone();
    deeper.items = deeper.items.replace("65536", "0x40000");
    sandbox.case("deep", |sandbox| {
        let error = call(sandbox, &deeper).expect_err("runs out").to_string();
        assert!(
            error.contains("out of bounds memory access: `down` calls itself without end"),
            "{error}"
        );
        let error = call(sandbox, &deep).expect_err("runs out").to_string();
        assert!(!error.contains("calls itself"), "{error}");
    });
}
