//! Ways to misuse stores. Each call first looks for what a failed one has written, and fails the whole call if it finds
//! that.

use std::hint::black_box;

use millstream_sdk::schema::{Field, FieldType, Store};
use millstream_sdk::state;
use millstream_sdk::table::{Column, Table};

use crate::{Kind, Settings, running};

/// What a call writes that must not be seen by the next.
const LEAK: &[u8] = b"leak";

/// Numbers of keys in one call of the host.
const KEYS_PER_CALL: u64 = 10_000;

/// The stores that a kind needs.
pub(crate) fn stores(kind: Kind) -> Vec<Store> {
    let text = |name: &str| {
        vec![Field {
            name: name.into(),
            type_: FieldType::Text,
            optional: false,
        }]
    };
    let uses_a_store = kind.keeps();
    uses_a_store
        .then(|| Store {
            name: "kept".into(),
            key: text("key"),
            value: text("value"),
            ordered: kind == Kind::StateEndlessScan,
            time_to_live: 0,
            carry_over: Vec::new(),
        })
        .into_iter()
        .collect()
}

/// Fails if a call that failed has left something.
pub(crate) fn look_for_leaks(settings: &Settings) -> Result<(), String> {
    if settings.kind.leaks() && state::get(0, &texts(&[LEAK])).absent != [1] {
        return Err("what a failed call wrote is still there".into());
    }
    Ok(())
}

/// Does what the kind does to its store.
pub(crate) fn misbehave(settings: &Settings) -> Result<(), String> {
    use Kind::*;
    let amount = |default: u64| settings.amount.unwrap_or(default);
    let one = || texts(&[b"1"]);
    match settings.kind {
        StateTrap => {
            state::put(0, &texts(&[LEAK]), &one());
            running::trap();
        }
        StateError => {
            state::put(0, &texts(&[LEAK]), &one());
            return Err("written, and refused".into());
        }
        StateFailedRow => {
            state::put(0, &texts(&[b"written"]), &one());
            state::delete(0, &texts(&[b"never there"]));
        }
        StateAbsent => {
            let found = state::get(0, &texts(&[b"never there", b"nor this", b"never there"]));
            if found.absent != [1, 1, 1] || found.values.rows != 3 {
                return Err(format!("keys that are not there were found: {found:?}"));
            }
        }
        StateRepeatedKeys => {
            state::put(0, &texts(&[b"twice", b"twice"]), &texts(&[b"first", b"last"]));
            let found = state::get(0, &texts(&[b"twice", b"twice"]));
            if found.values != texts(&[b"last", b"last"]) {
                return Err(format!("the last value does not count: {found:?}"));
            }
            state::delete(0, &texts(&[b"twice", b"twice"]));
        }
        StateManyKeys => {
            let keys = amount(1_000_000);
            for start in (0..keys).step_by(KEYS_PER_CALL as usize) {
                let end = keys.min(start + KEYS_PER_CALL);
                let names: Vec<Vec<u8>> = (start..end).map(|key| format!("key-{key:07}").into_bytes()).collect();
                let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
                let keys = texts(&names);
                state::put(0, &keys, &keys);
            }
        }
        StateHugeKey => state::put(0, &texts(&[&b"k".repeat(amount(1 << 20) as usize)]), &one()),
        StateHugeValue => state::put(0, &one(), &texts(&[&b"v".repeat(amount(100_000_000) as usize)])),
        StateUnknownStore => drop(state::get(7, &one())),
        StateTooFewValues => state::put(0, &texts(&[b"1", b"2"]), &one()),
        StateTooManyValues => state::put(0, &one(), &texts(&[b"1", b"2"])),
        StateTooFewColumns => {
            let mut keys = one();
            keys.columns.clear();
            drop(state::get(0, &keys));
        }
        StateTooManyColumns => {
            let mut keys = one();
            keys.columns.extend(one().columns);
            drop(state::get(0, &keys));
        }
        StateNullKey => {
            let mut keys = one();
            keys.columns[0].nulls = vec![1];
            state::put(0, &keys, &one());
        }
        StateBadUtf8 => state::put(0, &texts(&[&[0xff]]), &one()),
        StateUnorderedScan => drop(state::scan(0, &nothing(1), &nothing(0), 10)),
        StateEndlessScan => {
            state::put(0, &one(), &one());
            loop {
                black_box(state::scan(0, &nothing(1), &texts(&[]), u32::MAX));
            }
        }
        StateLoop => loop {
            black_box(state::get(0, &one()));
        },
        _ => {}
    }
    Ok(())
}

/// A table of no columns.
fn nothing(rows: u32) -> Table {
    Table {
        rows,
        columns: Vec::new(),
    }
}

/// A table of a column of texts.
pub(crate) fn texts(cells: &[&[u8]]) -> Table {
    let mut end = 0;
    let ends = cells.iter().flat_map(|cell| {
        end += cell.len() as u32;
        end.to_le_bytes()
    });
    Table {
        rows: cells.len() as u32,
        columns: vec![Column {
            nulls: Vec::new(),
            ends: ends.collect(),
            data: cells.concat(),
        }],
    }
}
