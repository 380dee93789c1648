use super::*;
use crate::state::codec::write_start;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;

#[derive(Default)]
struct Disk {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    reads: Cell<usize>,
}

impl Cold for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ColdError> {
        self.reads.set(self.reads.get() + 1);
        Ok(self.rows.get(key).cloned())
    }

    fn range(&self, from: Bound<&[u8]>, limit: usize) -> Result<Vec<KeyedRow>, ColdError> {
        let rows = self.rows.range::<[u8], _>((from, Bound::Unbounded)).take(limit);
        Ok(rows.map(|(key, row)| (key.clone(), row.clone())).collect())
    }
}

fn row(timestamp_ms: i64, tail: &[u8]) -> Vec<u8> {
    let mut row = vec![0];
    row.extend_from_slice(&timestamp_ms.to_le_bytes());
    row.extend_from_slice(tail);
    row
}

fn never() -> StreamTime {
    StreamTime::default()
}

#[test]
fn what_is_all_in_memory_is_not_looked_for_elsewhere() {
    let disk = Disk::default();
    let mut hot = Hot::new(Windowing::Forever, false, true);
    assert_eq!(hot.get(b"a", never(), &disk), Ok(None));
    hot.put(b"a", b"1");
    hot.committed();
    assert_eq!(hot.get(b"a", never(), &disk), Ok(Some(&b"1"[..])));
    assert_eq!(disk.reads.get(), 0);
}

#[test]
fn a_row_that_is_not_in_the_store_yet_stays_in_memory() {
    let disk = Disk::default();
    let mut hot = Hot::new(Windowing::Forever, false, true);
    hot.put(b"a", b"1");
    let commit = hot.committed();
    hot.evict(0);
    assert_eq!(hot.len(), 1);
    hot.flushed(commit);
    assert_eq!(hot.dirty_bytes(), 0);
    hot.evict(0);
    assert!(hot.is_empty());
    assert_eq!(hot.bytes(), 0);
    // Here it is gone from the store too: it is asked, and not remembered wrongly.
    assert_eq!(hot.get(b"a", never(), &disk), Ok(None));
    assert_eq!(disk.reads.get(), 1);
}

#[test]
fn rows_that_are_asked_for_are_evicted_last() {
    let mut disk = Disk::default();
    let mut hot = Hot::new(Windowing::Forever, false, true);
    for n in 0..100u8 {
        hot.put(&[n], b"1");
        disk.rows.insert(vec![n], b"1".to_vec());
    }
    let commit = hot.committed();
    hot.flushed(commit);
    hot.evict(hot.bytes() - 1);
    for n in 0..10u8 {
        hot.get(&[n], never(), &disk).expect("readable");
    }
    hot.evict(hot.bytes() / 2);
    let reads = disk.reads.get();
    for n in 0..10u8 {
        hot.get(&[n], never(), &disk).expect("readable");
    }
    assert!(disk.reads.get() <= reads + 1, "rows that were asked for went first");
}

#[test]
fn a_row_is_past_when_its_time_to_live_is_over() {
    let disk = Disk::default();
    let mut hot = Hot::new(Windowing::TimeToLive(10), true, true);
    hot.put(b"a", &row(100, b""));
    let mut now = StreamTime::default();
    now.advance(109);
    assert!(hot.get(b"a", now, &disk).expect("readable").is_some());
    now.advance(110);
    assert_eq!(hot.get(b"a", now, &disk), Ok(None));
    assert_eq!(hot.scan(b"", None, 10, now, &disk), Ok((vec![], true)));
}

#[test]
fn windows_are_dropped_as_a_whole() {
    let disk = Disk::default();
    let mut hot = Hot::new(Windowing::Windows, false, true);
    let key = |start, key: &[u8]| {
        let mut bytes = Vec::new();
        write_start(start, &mut bytes);
        bytes.extend_from_slice(key);
        bytes
    };
    for start in [0, 10, 20] {
        for name in [&b"b"[..], b"a"] {
            hot.put(&key(start, name), &row(start, name));
        }
    }
    hot.committed();
    let rows = |hot: &Hot, start, after: Option<&[u8]>| {
        let mut cursor = hot.window(start, after);
        let mut all = Vec::new();
        loop {
            let rows = hot.window_rows(&mut cursor, 1, &disk).expect("readable");
            if rows.is_empty() {
                return all;
            }
            all.extend(rows.into_iter().map(|(key, _)| key));
        }
    };
    assert_eq!(rows(&hot, 0, None), [key(0, b"a"), key(0, b"b")]);
    assert_eq!(rows(&hot, 0, Some(&key(0, b"a"))), [key(0, b"b")]);
    assert_eq!(hot.next_window(1, 20, &disk), Ok(Some(10)));
    assert_eq!(hot.next_window(11, 20, &disk), Ok(None));
    hot.drop_windows(20);
    assert_eq!(hot.len(), 2);
    assert_eq!(hot.next_window(0, 100, &disk), Ok(Some(20)));
    hot.drop_windows(i64::MAX);
    assert_eq!((hot.bytes(), hot.dirty_bytes()), (0, 0));
}

#[test]
fn a_window_has_the_rows_that_were_evicted_too() {
    let mut disk = Disk::default();
    let mut hot = Hot::new(Windowing::Windows, false, true);
    let key = |start, n: u32| {
        let mut bytes = Vec::new();
        write_start(start, &mut bytes);
        bytes.extend_from_slice(&n.to_be_bytes());
        bytes
    };
    for start in [0, 10] {
        for n in 0..700 {
            hot.put(&key(start, n), &row(start, b"1"));
            disk.rows.insert(key(start, n), row(start, b"1"));
        }
    }
    let commit = hot.committed();
    hot.flushed(commit);
    hot.evict(0);
    hot.evict(0);
    assert!(hot.is_empty());
    hot.put(&key(0, 3), &row(0, b"2"));
    hot.delete(&key(0, 4));
    assert_eq!(hot.next_window(0, 100, &disk), Ok(Some(0)));
    assert_eq!(hot.next_window(1, 10, &disk), Ok(None));
    let mut cursor = hot.window(0, None);
    let mut all = Vec::new();
    loop {
        let rows = hot.window_rows(&mut cursor, 97, &disk).expect("readable");
        if rows.is_empty() {
            break;
        }
        all.extend(rows);
    }
    let mut expected: Vec<_> = (0..700).map(|n| (key(0, n), row(0, b"1"))).collect();
    expected[3].1 = row(0, b"2");
    expected.remove(4);
    assert_eq!(all, expected);
}

#[derive(Clone, Debug)]
enum Op {
    Get(u8),
    Put(u8, u8),
    Delete(u8),
    BeginCall,
    UndoCall,
    Commit,
    Abort,
    Flush,
    Evict(u16),
    Scan(u8, u8, u8),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => any::<u8>().prop_map(|k| Op::Get(k % 40)),
        6 => (any::<u8>(), any::<u8>()).prop_map(|(k, v)| Op::Put(k % 40, v)),
        2 => any::<u8>().prop_map(|k| Op::Delete(k % 40)),
        3 => Just(Op::BeginCall),
        1 => Just(Op::UndoCall),
        2 => Just(Op::Commit),
        1 => Just(Op::Abort),
        1 => Just(Op::Flush),
        2 => any::<u16>().prop_map(|bytes| Op::Evict(bytes % 4000)),
        2 => (any::<u8>(), any::<u8>(), 1..6u8).prop_map(|(p, a, l)| Op::Scan(p % 40, a % 40, l)),
        1 => Just(Op::Restart),
    ]
}

/// Short keys and long ones, alone and as prefixes of each other.
fn key(k: u8) -> Vec<u8> {
    let mut key = vec![k / 8];
    key.resize(1 + usize::from(k % 8) * 7, b'k');
    key
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Against maps: what a commit holds, what the last call began with, and what the task has written.
    #[test]
    fn a_store_is_a_map(ops in prop::collection::vec(op(), 1..120)) {
        let mut disk = Disk::default();
        let mut hot = Hot::new(Windowing::Forever, true, true);
        let (mut committed, mut at_call, mut now) = (Rows::new(), Rows::new(), Rows::new());
        let mut changelog: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        let mut commit = 0;
        hot.begin_call();
        for op in ops {
            match op {
                Op::Get(k) => {
                    let key = key(k);
                    prop_assert_eq!(hot.get(&key, never(), &disk).expect("readable").map(<[u8]>::to_vec), now.get(&key).cloned());
                }
                Op::Put(k, v) => {
                    // Values that fit into a slot, and values that do not.
                    let row = row(0, &vec![v; usize::from(v % 40)]);
                    hot.put(&key(k), &row);
                    now.insert(key(k), row);
                }
                Op::Delete(k) => {
                    hot.delete(&key(k));
                    now.remove(&key(k));
                }
                Op::BeginCall => {
                    hot.begin_call();
                    at_call = now.clone();
                }
                Op::UndoCall => {
                    hot.undo_call();
                    now = at_call.clone();
                }
                Op::Commit => {
                    changelog.extend(hot.pending().map(|(key, row)| (key.to_vec(), row.map(<[u8]>::to_vec))));
                    commit = hot.committed();
                    hot.begin_call();
                    committed = now.clone();
                    at_call = now.clone();
                    prop_assert!(hot.is_unchanged());
                }
                Op::Abort => {
                    hot.abort();
                    hot.begin_call();
                    now = committed.clone();
                    at_call = now.clone();
                }
                Op::Flush => {
                    for (key, row) in changelog.drain(..) {
                        match row {
                            Some(row) => disk.rows.insert(key, row),
                            None => disk.rows.remove(&key),
                        };
                    }
                    hot.flushed(commit);
                    prop_assert_eq!(hot.dirty_bytes(), 0);
                    prop_assert_eq!(&disk.rows, &committed);
                }
                Op::Evict(bytes) => hot.evict(bytes.into()),
                Op::Scan(prefix, after, limit) => {
                    let (prefix, after) = (key(prefix), key(after));
                    let after = Some(&after[..]).filter(|_| limit % 2 == 0);
                    let (rows, complete) = hot.scan(&prefix, after, limit.into(), never(), &disk).expect("readable");
                    let all: Vec<_> = now
                        .iter()
                        .filter(|(key, _)| key.starts_with(&prefix) && after.is_none_or(|after| &key[..] > after))
                        .map(|(key, row)| (key.clone(), row.clone()))
                        .collect();
                    prop_assert_eq!(complete, all.len() <= limit.into());
                    prop_assert_eq!(rows, all.into_iter().take(limit.into()).collect::<Vec<_>>());
                }
                Op::Restart => {
                    hot.clear(disk.rows.is_empty());
                    for (key, row) in &changelog {
                        hot.replay(key, row.as_deref());
                    }
                    commit = hot.committed();
                    hot.begin_call();
                    now = committed.clone();
                    at_call = now.clone();
                }
            }
            // What differs from the store is dirty; more may be.
            let keys: std::collections::BTreeSet<_> = committed.keys().chain(disk.rows.keys()).collect();
            let differs = keys.into_iter().filter(|&key| committed.get(key) != disk.rows.get(key));
            let bytes = differs.map(|key| key.len() + committed.get(key).map_or(0, Vec::len));
            prop_assert!(hot.dirty_bytes() >= bytes.sum::<usize>());
        }
        hot.abort();
        hot.flushed(commit);
        hot.evict(0);
        hot.evict(0);
        prop_assert_eq!((hot.len(), hot.bytes(), hot.dirty_bytes()), (0, 0, 0));
    }
}

/// Ten thousand by a flag: `MILLSTREAM_MODEL_RUNS`.
fn cases() -> u32 {
    let set = std::env::var("MILLSTREAM_MODEL_RUNS").ok();
    set.and_then(|runs| runs.parse().ok()).unwrap_or(256)
}
