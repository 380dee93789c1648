//! Plugins that keep state: honest ones, and those that use their stores against the rules.

use std::sync::{Arc, Mutex, PoisonError};

use millstream::guest::{CallError, Scanned, Stores, StoresError};
use millstream::table::Table;

use crate::allocations::allocations;
use crate::guest::{Data, Guest, SCRATCH_AT, STATE, consts};
use crate::memory::{Memory, Owned, Row};
use crate::run::guest;
use crate::{Sandbox, limits, rows, start};

/// Stores that the test looks into while they are lent.
#[derive(Clone)]
struct Shared(Arc<Mutex<Memory>>);

impl Shared {
    fn lent(&self) -> Option<Box<dyn Stores>> {
        Some(Box::new(self.clone()))
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stores for Shared {
    fn get(&mut self, store: usize, keys: &Table, bytes_max: usize) -> Result<(Vec<u8>, Table), StoresError> {
        self.memory().get(store, keys, bytes_max)
    }
    fn put(&mut self, store: usize, keys: &Table, values: &Table) -> Result<(), StoresError> {
        self.memory().put(store, keys, values)
    }
    fn delete(&mut self, store: usize, keys: &Table) -> Result<(), StoresError> {
        self.memory().delete(store, keys)
    }
    fn scan(
        &mut self,
        store: usize,
        prefix: &Table,
        after: &Table,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Scanned, StoresError> {
        self.memory().scan(store, prefix, after, limit, bytes_max)
    }
}

/// Calls a guest once with stores that say this to each call.
fn call(sandbox: &Sandbox, guest: &Guest, refusal: Option<StoresError>) -> Result<(), CallError> {
    let (configured, mut instance) =
        start(sandbox, guest, &Arc::default()).unwrap_or_else(|error| panic!("{}: {error}", guest.name));
    let stores = Shared(Arc::new(Mutex::new(Memory::new(configured.signature()))));
    stores.memory().refusal = refusal;
    let mut lent = stores.lent();
    let answer = instance.process(0, &rows(3), 0, &mut lent);
    assert!(lent.is_some(), "{}: the stores came back", guest.name);
    assert_eq!(instance.is_poisoned(), answer.is_err(), "{}", guest.name);
    if answer.is_err() {
        let again = instance.process(0, &rows(3), 0, &mut lent);
        assert!(matches!(again, Err(CallError::Poisoned)), "{}", guest.name);
        assert!(lent.is_some(), "{}", guest.name);
    }
    answer.map(drop)
}

/// Each guest with the words that its failure is told in, and its kind.
fn assert_failures(cases: Vec<(&str, &str, Guest)>) {
    let mut sandbox = Sandbox::new();
    for (kind, expected, guest) in cases {
        sandbox.case(&guest.name, |sandbox| {
            let error = call(sandbox, &guest, None).expect_err(&guest.name);
            let text = error.to_string();
            assert!(
                text.contains(expected),
                "{}: {text:?} does not say {expected:?}",
                guest.name
            );
            assert_eq!(error.kind(), kind, "{}: {text}", guest.name);
            assert!(!error.is_unavailable());
        });
    }
}

fn get(store: u32, keys: [u32; 3]) -> String {
    format!(
        "(call $get {} {} (i32.const {SCRATCH_AT}))",
        consts(&[store]),
        consts(&keys)
    )
}

fn put(store: u32, keys: [u32; 3], values: [u32; 3]) -> String {
    format!("(call $put {} {} {})", consts(&[store]), consts(&keys), consts(&values))
}

fn delete(store: u32, keys: [u32; 3]) -> String {
    format!("(call $delete {} {})", consts(&[store]), consts(&keys))
}

fn scan(store: u32, prefix: [u32; 3], after: [u32; 3], limit: u32) -> String {
    format!(
        "(call $scan {} {} {} {} (i32.const {SCRATCH_AT}))",
        consts(&[store]),
        consts(&prefix),
        consts(&after),
        consts(&[limit])
    )
}

/// A trap unless the word at this place of the answer is this.
fn expect(offset: u32, word: u32) -> String {
    format!(
        "(if (i32.ne (i32.load (i32.const {})) (i32.const {word})) (then (unreachable)))",
        SCRATCH_AT + offset
    )
}

fn keys(data: &mut Data, ids: &[i64]) -> [u32; 3] {
    let ids_column = data.integers(ids);
    data.table(ids.len() as u32, &[ids_column])
}

fn names(data: &mut Data, names: &[&str], ids: &[i64]) -> [u32; 3] {
    let columns = [data.texts(names), data.integers(ids)];
    data.table(ids.len() as u32, &columns)
}

/// The whole store, from its beginning.
fn everything(data: &mut Data) -> ([u32; 3], [u32; 3]) {
    let nothing = [data.column(&[], &[]), data.column(&[], &[])];
    (data.table(1, &[]), data.table(0, &nothing))
}

fn integer(value: i64) -> Row {
    vec![Owned::Integer(value)]
}

#[test]
fn an_honest_plugin_keeps_its_state_in_what_is_lent() {
    let mut sandbox = Sandbox::new();
    let keeping = Guest::keeping("keeping", |data| {
        let (two, three) = (keys(data, &[1, 2]), keys(data, &[2, 3, 2]));
        let values = keys(data, &[10, 20]);
        let some = names(data, &["b", "a", "b"], &[1, 2, -3]);
        let none = data.table(3, &[]);
        let (all, beginning) = everything(data);
        let b = data.texts(&["b"]);
        let b = data.table(1, &[b]);
        let before = names(data, &["b"], &[-3]);
        [
            put(0, two, values),
            get(0, three),
            // Absent marks of three keys, then three values: 20, nothing, 20.
            expect(4, 3),
            expect(8, 3),
            format!(
                "(if (i32.ne (i32.load16_u (i32.load (i32.const {SCRATCH_AT}))) (i32.const 0x0100)) (then (unreachable)))
                 (if (i64.ne (i64.load (i32.load offset=16 (i32.load (i32.const {})))) (i64.const 20)) (then (unreachable)))",
                SCRATCH_AT + 12
            ),
            delete(0, keys(data, &[1, 7])),
            put(1, some, none),
            scan(1, all, beginning, 2),
            expect(0, 2),
            expect(12, 2),
            expect(24, 0),
            scan(1, b, before, 10_000),
            expect(0, 1),
            expect(24, 1),
            // No columns are no key either.
            scan(1, b, [0, 0, 0], 1),
            expect(0, 1),
            expect(24, 0),
        ]
        .concat()
    });
    sandbox.case("keeping", |sandbox| {
        let (configured, mut instance) = start(sandbox, &keeping, &Arc::default()).expect("starts");
        assert_eq!(configured.signature().stores.len(), 2);
        let stores = Shared(Arc::new(Mutex::new(Memory::new(configured.signature()))));
        let mut lent = stores.lent();
        for _ in 0..2 {
            let outputs = instance.process(0, &rows(3), 0, &mut lent).expect("works");
            assert_eq!(outputs.branches[0].origins, [0, 1, 2]);
            assert!(lent.is_some(), "the stores came back");
        }
        let memory = stores.memory();
        assert_eq!(memory.rows[0], [(integer(2), integer(20))].into());
        let kept: Vec<_> = memory.rows[1].keys().map(|key| format!("{key:?}")).collect();
        assert_eq!(
            kept,
            [
                "[Text(\"a\"), Integer(2)]",
                "[Text(\"b\"), Integer(-3)]",
                "[Text(\"b\"), Integer(1)]"
            ]
        );
    });
}

#[test]
fn stores_are_not_there_before_the_first_call() {
    let mut sandbox = Sandbox::new();
    let calling = |name: &str, change: fn(&mut Guest, String)| {
        guest(name, |g| {
            g.imports = STATE.into();
            change(g, get(0, [0, 0, 0]));
        })
    };
    let describe = calling("describe", |g, call| g.describe = call + &g.describe);
    sandbox.case("describe", |sandbox| {
        let error = sandbox.load(&describe.component()).expect_err("refused").to_string();
        assert!(
            error.contains("`state.get` was called in describe, where only `log` may be"),
            "{error}"
        );
    });
    let configure = calling("configure", |g, call| g.configure = call + &g.configure);
    sandbox.case("configure", |sandbox| {
        let plugin = sandbox.load(&configure.component()).expect("loads");
        let error = plugin.configure("{}", &limits()).expect_err("refused").to_string();
        assert!(
            error.contains("`state.get` was called in configure, where only `log` may be"),
            "{error}"
        );
    });
    let not_lent = Guest::keeping("not-lent", |_| get(0, [0, 0, 0]));
    sandbox.case("not-lent", |sandbox| {
        let (_, mut instance) = start(sandbox, &not_lent, &Arc::default()).expect("starts");
        let error = instance.process(0, &rows(3), 0, &mut None).expect_err("refused");
        assert!(error.to_string().contains("where the host lends no stores"), "{error}");
        assert_eq!(error.kind(), "misuse");
    });
}

#[test]
fn keys_and_values_that_break_the_contract() {
    let case = |name: &str, expected, body: fn(&mut Data) -> String| ("misuse", expected, Guest::keeping(name, body));
    assert_failures(vec![
        case(
            "unknown-store",
            "`state.get` was called for store 2, which does not exist: the signature has 2",
            |data| get(2, keys(data, &[1])),
        ),
        case("store-4-gi", "`state.delete` was called for store 4294967295", |data| {
            delete(u32::MAX, keys(data, &[1]))
        }),
        case(
            "two-columns",
            "`state.get` of store \"counts\": the table `keys` has 2 columns, but its schema has 1 fields",
            |data| {
                let columns = [data.integers(&[1]), data.integers(&[1])];
                get(0, data.table(1, &columns))
            },
        ),
        case("no-columns", "the table `keys` has 0 columns", |data| {
            put(0, [1, 0, 0], keys(data, &[1]))
        }),
        case(
            "short-data",
            "the table `keys` field \"id\": `data` has 7 bytes",
            |data| {
                let column = data.column(&[], &[0; 7]);
                delete(0, data.table(1, &[column]))
            },
        ),
        case("short-ends", "field \"name\": `ends` has 4 bytes", |data| {
            let columns = [data.column(&[1], b"ab"), data.integers(&[1, 2])];
            get(1, data.table(2, &columns))
        }),
        case("ends-outside", "ends at byte 9, but `data` has 2", |data| {
            let columns = [data.column(&[1, 9], b"ab"), data.integers(&[1, 2])];
            get(1, data.table(2, &columns))
        }),
        case("not-utf-8", "field \"name\", row 1: is not UTF-8", |data| {
            let columns = [data.column(&[1, 2], b"a\xff"), data.integers(&[1, 2])];
            get(1, data.table(2, &columns))
        }),
        case("null-key", "row 0: is null, but the field is not optional", |data| {
            let mut column = data.integers(&[1]);
            let nulls = data.bytes(&[1]);
            column[..2].copy_from_slice(&[nulls.0, nulls.1]);
            get(0, data.table(1, &[column]))
        }),
        case(
            "put-ragged",
            "`state.put` of store \"counts\": the table `values` has 1 rows, but `keys` has 2",
            |data| put(0, keys(data, &[1, 2]), keys(data, &[1])),
        ),
        case(
            "put-value",
            "the table `values` has 1 columns, but its schema has 0 fields",
            |data| put(1, names(data, &["a"], &[1]), keys(data, &[1])),
        ),
        case(
            "rows-4-gi",
            "the table `keys` has 4294967295 rows, but may have 100000",
            |data| {
                let column = data.integers(&[1]);
                get(0, data.table(u32::MAX, &[column]))
            },
        ),
    ]);
}

#[test]
fn scans_that_break_the_contract() {
    let case = |name: &str, expected, body: fn(&mut Data) -> String| ("misuse", expected, Guest::keeping(name, body));
    assert_failures(vec![
        case(
            "unordered",
            "`state.scan` of store \"counts\": it is not ordered",
            |_| scan(0, [1, 0, 0], [0, 0, 0], 1),
        ),
        case("limit-0", "`limit` is 0, but must be 1 to 10000", |_| {
            scan(1, [1, 0, 0], [0, 0, 0], 0)
        }),
        case("limit-4-gi", "`limit` is 4294967295, but must be 1 to 10000", |_| {
            scan(1, [1, 0, 0], [0, 0, 0], u32::MAX)
        }),
        case("prefix-none", "the table `prefix` has 0 rows, not one", |_| {
            scan(1, [0, 0, 0], [0, 0, 0], 1)
        }),
        case("prefix-two", "the table `prefix` has 2 rows, not one", |data| {
            scan(1, names(data, &["a", "b"], &[1, 2]), [0, 0, 0], 1)
        }),
        case(
            "prefix-wide",
            "`prefix` has 3 columns, but the key has 2 fields",
            |data| {
                let columns = [data.texts(&["a"]), data.integers(&[1]), data.integers(&[1])];
                scan(1, data.table(1, &columns), [0, 0, 0], 1)
            },
        ),
        case(
            "prefix-other",
            "the table `prefix` field \"name\": `ends` has 0 bytes",
            |data| scan(1, keys(data, &[1]), [0, 0, 0], 1),
        ),
        case("after-two", "the table `after` has 2 rows, not one or none", |data| {
            scan(1, [1, 0, 0], names(data, &["a", "b"], &[1, 2]), 1)
        }),
        case(
            "after-part",
            "the table `after` has 1 columns, but its schema has 2 fields",
            |data| {
                let column = data.texts(&["a"]);
                scan(1, [1, 0, 0], data.table(1, &[column]), 1)
            },
        ),
    ]);
}

/// 10,000 keys that are all 0, where nothing else lies.
fn many_zeros(data: &mut Data) -> [u32; 3] {
    data.table(10_000, &[vec![0, 0, 0, 0, 0x8_0000, 80_000]])
}

/// Does this again and again, with the memory that it took given back.
fn again(body: &str) -> String {
    format!("(loop $again {body} (global.set $heap (i32.const 0x40000)) (br $again))")
}

#[test]
fn what_crosses_is_bounded() {
    let case = |kind, name: &str, expected, body: fn(&mut Data) -> String| (kind, expected, Guest::keeping(name, body));
    assert_failures(vec![
        case("output", "data-4-gib", "cannot be read", |data| {
            get(0, data.table(1, &[vec![0, 0, 0, 0, 8, u32::MAX]]))
        }),
        case("output", "columns-4-gib", "cannot be read", |_| {
            get(0, [1, 1024, u32::MAX])
        }),
        case("output", "columns-unaligned", "cannot be read", |_| {
            get(0, [1, 1025, 1])
        }),
        case(
            "misuse",
            "at-once",
            "it passed more than 9437184 bytes to the host at once",
            |data| {
                let table = data.table(1, &[vec![0, 0, 0, 0, 0, 10 << 20]]);
                format!("(drop (memory.grow (i32.const 200))) {}", get(0, table))
            },
        ),
        case(
            "state",
            "writes",
            "`state.put` of store \"counts\": the call has written more than 1048576 bytes",
            |data| {
                let zeros = many_zeros(data);
                again(&put(0, zeros, zeros))
            },
        ),
        case(
            "state",
            "deletes",
            "`state.delete` of store \"counts\": the call has written more than 1048576 bytes",
            |data| again(&delete(0, many_zeros(data))),
        ),
        case(
            "state",
            "reads",
            "`state.get` of store \"counts\": the call has read more than 16777216 bytes",
            |data| again(&get(0, many_zeros(data))),
        ),
        case("time", "loop", "did not end within 100ms", |data| {
            let one = keys(data, &[1]);
            again(&get(0, one))
        }),
    ]);
}

#[test]
fn a_store_that_refuses_is_told_from_one_that_is_not_there() {
    let mut sandbox = Sandbox::new();
    let putting = Guest::keeping("putting", |data| {
        let one = keys(data, &[1]);
        put(0, one, one)
    });
    let failing = |sandbox: &Sandbox, refusal| call(sandbox, &putting, Some(refusal)).expect_err("fails");
    sandbox.case("row", |sandbox| {
        let error = failing(sandbox, StoresError::Row("row 0 is too long".into()));
        assert_eq!(
            error.to_string(),
            "a store refused what the plugin asks: `state.put` of store \"counts\": row 0 is too long"
        );
        assert_eq!(error.kind(), "state");
        assert!(!error.is_unavailable());
        assert_eq!(error.frames().last().expect("it was running"), "process");
    });
    sandbox.case("unavailable", |sandbox| {
        let error = failing(sandbox, StoresError::Unavailable("no such file".into()));
        assert_eq!(error.to_string(), "the local store cannot be read: no such file");
        assert_eq!(error.kind(), "unavailable");
        assert!(error.is_unavailable());
    });
    sandbox.case("trap", |sandbox| {
        let mut trapping = putting.clone();
        trapping.process = format!("{} (unreachable)", trapping.process);
        // `call` sees that the stores come back.
        let error = call(sandbox, &trapping, None).expect_err("traps");
        assert_eq!(error.kind(), "trap");
    });
}

/// Stores in which every key is there, without looking.
struct Zeros;

impl Stores for Zeros {
    fn get(&mut self, _store: usize, keys: &Table, _bytes_max: usize) -> Result<(Vec<u8>, Table), StoresError> {
        Ok((vec![], crate::rows(keys.rows)))
    }
    fn put(&mut self, _store: usize, keys: &Table, values: &Table) -> Result<(), StoresError> {
        assert_eq!(keys, values);
        Ok(())
    }
    fn delete(&mut self, _store: usize, _keys: &Table) -> Result<(), StoresError> {
        unreachable!("the guest deletes nothing")
    }
    fn scan(&mut self, _: usize, _: &Table, _: &Table, _: usize, _: usize) -> Result<Scanned, StoresError> {
        unreachable!("the guest scans nothing")
    }
}

#[test]
fn rows_of_integers_cross_without_an_allocation_for_each() {
    let sandbox = Sandbox::new();
    let count = |keys_count: i64| {
        let name = format!("keys-{keys_count}");
        let guest = Guest::keeping(&name, |data| {
            let ids = keys(data, &(0..keys_count).collect::<Vec<_>>());
            get(0, ids) + &put(0, ids, ids)
        });
        let (_, mut instance) = start(&sandbox, &guest, &Arc::default()).expect("starts");
        let mut lent: Option<Box<dyn Stores>> = Some(Box::new(Zeros));
        let batch = rows(3);
        instance.process(0, &batch, 0, &mut lent).expect("works");
        let before = allocations();
        instance.process(0, &batch, 0, &mut lent).expect("works");
        allocations() - before
    };
    let (few, many) = (count(10), count(1000));
    // What grows by doubling may do so a few times more.
    assert!(many <= few + 16, "{few} allocations for 10 keys, {many} for 1000");
}
