//! Committed rows, with the embedded log and the local store in folders of their own.

use super::*;
use crate::state::flush::tests::{Parts, flush, place};
use crate::state::segment::Segmenting;
use proptest::prelude::*;

fn text(store: &CommittedStore, range: &KeyRange) -> String {
    let rows = store.rows(range, |_, row| row == b"past").unwrap();
    let text = rows.map(|row| {
        let (key, value) = row.unwrap();
        format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value))
    });
    text.collect::<Vec<_>>().join(" ")
}

fn open(parts: &Parts, range: &KeyRange) -> CommittedStore {
    CommittedStore::open(&parts.db, &*parts.log, &place(), range).unwrap()
}

#[test]
fn rows_of_changelog_and_store_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::make(dir.path(), 1 << 20);
    let flusher = parts.flusher(1 << 20);
    let all = KeyRange::all();
    assert_eq!(text(&open(&parts, &all), &all), "");
    // Never flushed.
    let to = parts.commit(&[("b", "1", 0), ("a", "1", 0), ("c", "past", 0)]);
    let before = open(&parts, &all);
    assert_eq!((text(&before, &all).as_str(), before.next_offset()), ("a=1 b=1", to));
    flush(&flusher, to, Segmenting::None, None).unwrap();
    assert_eq!(text(&open(&parts, &all), &all), "a=1 b=1");
    let to = parts.commit(&[("a", "", 0), ("b", "2", 0), ("d", "1", 0), ("c", "1", 0)]);
    let mixed = open(&parts, &all);
    assert_eq!(text(&mixed, &all), "b=2 c=1 d=1");
    assert_eq!(mixed.get(b"a"), Ok(None));
    assert_eq!(mixed.get(b"b").unwrap().as_deref(), Some(&b"2"[..]));
    // As of the offset at which it was opened, whatever is flushed and purged meanwhile.
    parts.commit(&[("b", "3", 0)]);
    flush(&flusher, to + 1, Segmenting::None, None).unwrap();
    assert_eq!((text(&mixed, &all).as_str(), mixed.next_offset()), ("b=2 c=1 d=1", to));
    assert_eq!(text(&before, &all), "a=1 b=1");
    let prefix = KeyRange::prefix(b"b").after(b"a");
    assert_eq!(text(&open(&parts, &prefix), &prefix), "b=3");
    assert_eq!(text(&open(&parts, &all), &KeyRange::prefix(b"b").after(b"z")), "");
}

#[test]
fn what_does_not_fit_together_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::make(dir.path(), 1);
    let value = "x".repeat(100);
    let mut to = 0;
    for n in 0..20 {
        to = parts.commit(&[(&format!("{n}"), &value, 0)]);
    }
    let all = KeyRange::all();
    let behind = CommittedStore::open_bounded(&parts.db, &*parts.log, &place(), &all, 1000);
    assert!(matches!(behind.err(), Some(ReadError::Behind { bytes_max: 1000, .. })));
    // Of few keys little is held.
    let one = KeyRange::prefix(b"7");
    let few = CommittedStore::open_bounded(&parts.db, &*parts.log, &place(), &one, 1000).unwrap();
    assert_eq!(few.get(b"7").unwrap().as_deref(), Some(value.as_bytes()));
    let flusher = parts.flusher(1 << 20);
    flush(&flusher, to, Segmenting::None, None).unwrap();
    // The changelog was purged, and then the store was lost.
    parts.db.drop_store("c").unwrap();
    let error = CommittedStore::open(&parts.db, &*parts.log, &place(), &all)
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            ReadError::Incomplete {
                flushed: 0,
                first: 1..,
                ..
            }
        ),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn committed_rows_are_those_of_the_model(
        steps in proptest::collection::vec((proptest::collection::vec((0u8..12, 0u8..4), 0..8), any::<bool>()), 1..12),
        by_row in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let parts = Parts::make(dir.path(), 200);
        let flusher = parts.flusher(100);
        let segmenting = if by_row { Segmenting::ByRowTime { segment_ms: 3 } } else { Segmenting::None };
        let mut model = BTreeMap::new();
        let mut time = 0;
        for (rows, flushes) in steps {
            let rows: Vec<_> = rows
                .iter()
                .map(|(key, value)| (format!("k{key}"), if *value == 0 { String::new() } else { format!("v{value}") }))
                .collect();
            let timed: Vec<_> = rows.iter().map(|(key, value)| { time += 1; (key.as_str(), value.as_str(), time) }).collect();
            let to = parts.commit(&timed);
            for (key, value) in &rows {
                if value.is_empty() { model.remove(key); } else { model.insert(key.clone(), value.clone()); }
            }
            if flushes {
                flush(&flusher, to, segmenting, None).unwrap();
            }
            let all = KeyRange::all();
            let store = open(&parts, &all);
            let expected: Vec<_> = model.iter().map(|(key, value)| format!("{key}={value}")).collect();
            prop_assert_eq!(text(&store, &all), expected.join(" "));
            let range = KeyRange { from: Bound::Excluded(b"k1".to_vec()), to: Bound::Included(b"k5".to_vec()) };
            let within: Vec<_> = model
                .iter()
                .filter(|(key, _)| range.contains(key.as_bytes()))
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            prop_assert_eq!(text(&open(&parts, &range), &range), within.join(" "));
            for key in 0..12 {
                let key = format!("k{key}");
                let row = store.get(key.as_bytes()).unwrap();
                prop_assert_eq!(row.as_deref(), model.get(&key).map(String::as_bytes));
            }
        }
    }
}
