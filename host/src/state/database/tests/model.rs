//! Random operations against a plain model in memory, with restarts and crashes in between.

use super::crash::image;
use super::*;
use crate::state::codec::encode_time;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Operation {
    Apply {
        store: usize,
        partition: u32,
        rows: BTreeMap<u8, bool>,
        later_ms: i64,
    },
    Retire {
        store: usize,
        partition: u32,
        ago_ms: i64,
    },
    Drop {
        store: usize,
    },
    Reopen,
    Crash,
}

fn operation() -> impl Strategy<Value = Operation> {
    let rows = || proptest::collection::btree_map(0u8..10, proptest::bool::weighted(0.7), 0..6);
    prop_oneof![
        12 => (0usize..3, 0u32..3, rows(), 0i64..8)
            .prop_map(|(store, partition, rows, later_ms)| Operation::Apply { store, partition, rows, later_ms }),
        3 => (0usize..3, 0u32..3, 0i64..40)
            .prop_map(|(store, partition, ago_ms)| Operation::Retire { store, partition, ago_ms }),
        1 => (0usize..3).prop_map(|store| Operation::Drop { store }),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Crash),
    ]
}

const STORES: [(&str, Segmenting); 3] = [
    ("whole", Segmenting::None),
    ("by-row", Segmenting::ByRowTime { segment_ms: 10 }),
    ("by-key", Segmenting::ByKeyTime { segment_ms: 10 }),
];

#[derive(Default)]
struct Model {
    now_ms: i64,
    written: u64,
    /// By store, partition and key: the row, and the time by which it is in a segment.
    rows: BTreeMap<(usize, u32, Vec<u8>), (String, i64)>,
    flushed: BTreeMap<(usize, u32), u64>,
    retired: BTreeMap<(usize, u32), i64>,
}

impl Model {
    /// A key of the store by key time lies a little before or behind now.
    fn key(&self, store: usize, number: u8) -> (Vec<u8>, i64) {
        if store == 2 {
            let time = self.now_ms / 5 * 5 + i64::from(number % 4) * 6;
            ([&encode_time(time)[..], &[number]].concat(), time)
        } else {
            (vec![number], self.now_ms)
        }
    }

    fn apply(&mut self, db: &StateDb, store: usize, partition: u32, numbers: &BTreeMap<u8, bool>) {
        self.written += 1;
        let (name, segmenting) = STORES[store];
        let mut made = BTreeMap::new();
        for (number, there) in numbers {
            let (key, time) = self.key(store, *number);
            made.insert(key, (there.then(|| format!("{} {number}", self.written)), time));
        }
        let rows: Vec<_> = made
            .iter()
            .map(|(key, (value, _))| StoreRow {
                key,
                value: value.as_deref().map(str::as_bytes),
                timestamp_ms: self.now_ms,
            })
            .collect();
        db.apply(name, partition, segmenting, &rows, self.written).unwrap();
        self.flushed.insert((store, partition), self.written);
        for (key, (value, time)) in made {
            match value {
                Some(value) => self.rows.insert((store, partition, key), (value, time)),
                None => self.rows.remove(&(store, partition, key)),
            };
        }
        self.forget();
    }

    fn retire(&mut self, db: &StateDb, store: usize, partition: u32, time_ms: i64) {
        let before = self.retired.entry((store, partition)).or_insert(time_ms);
        *before = time_ms.max(*before);
        db.retire(STORES[store].0, partition, time_ms).unwrap();
        self.forget();
    }

    /// Rows of segments that their partition does not need.
    fn forget(&mut self) {
        let retired = &self.retired;
        self.rows.retain(|(store, partition, _), (_, time)| {
            let segmenting = STORES[*store].1;
            let before = retired.get(&(*store, *partition)).copied().unwrap_or(i64::MIN);
            segmenting.segment_of(*time) >= segmenting.segment_of(before)
        });
    }

    /// What a task does after a start: it says again what it does not need.
    fn retire_all(&self, db: &StateDb) {
        for ((store, partition), time_ms) in &self.retired {
            db.retire(STORES[*store].0, *partition, *time_ms).unwrap();
        }
    }

    fn check(&self, db: &StateDb) {
        for (at, (name, segmenting)) in STORES.iter().enumerate() {
            for partition in 0..3 {
                assert_eq!(
                    db.flushed(name, partition).unwrap(),
                    self.flushed.get(&(at, partition)).copied()
                );
                let expected: Vec<_> = self
                    .rows
                    .iter()
                    .filter(|((store, p, _), _)| (*store, *p) == (at, partition))
                    .map(|((_, _, key), (value, _))| (key.clone(), value.clone()))
                    .collect();
                let snapshot = db.snapshot(name).unwrap();
                assert_eq!(snapshot.flushed(partition), db.flushed(name, partition));
                for rows in [
                    db.range(name, partition, &KeyRange::all()).unwrap(),
                    snapshot.range(partition, &KeyRange::all()).unwrap(),
                ] {
                    let found: Vec<_> = rows
                        .map(|row| row.map(|(key, row)| (key.to_vec(), String::from_utf8_lossy(&row).into_owned())))
                        .collect::<Result<_, _>>()
                        .unwrap();
                    assert_eq!(found, expected, "{name} {partition}");
                }
                for (key, value) in &expected {
                    assert_eq!(db.get(name, partition, key).unwrap().as_deref(), Some(value.as_bytes()));
                    let behind: Vec<_> = expected
                        .iter()
                        .filter(|(other, _)| other > key)
                        .map(|(key, _)| key)
                        .collect();
                    let range = KeyRange::all().after(key);
                    let found: Vec<_> = db
                        .range(name, partition, &range)
                        .unwrap()
                        .map(|row| row.unwrap().0.to_vec())
                        .collect();
                    assert_eq!(found.iter().collect::<Vec<_>>(), behind);
                }
                for number in 0..10 {
                    let (key, _) = self.key(at, number);
                    let row = self
                        .rows
                        .get(&(at, partition, key.clone()))
                        .map(|(row, _)| row.as_bytes());
                    assert_eq!(db.get(name, partition, &key).unwrap().as_deref(), row);
                }
            }
            let needed = (0..3).filter_map(|p| segmenting.segment_of(*self.retired.get(&(at, p))?));
            let (oldest, count) = (needed.clone().min(), needed.count());
            if count == 3 {
                let segments = db.segments(name).unwrap();
                assert!(
                    segments.iter().all(|start| Some(*start) >= oldest),
                    "{segments:?} {oldest:?}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_as_the_model(operations in proptest::collection::vec(operation(), 1..40)) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut db = open(dir.path());
        let mut model = Model::default();
        for operation in operations {
            match operation {
                Operation::Apply { store, partition, rows, later_ms } => {
                    model.now_ms += later_ms;
                    model.apply(&db, store, partition, &rows);
                }
                Operation::Retire { store, partition, ago_ms } => {
                    let time_ms = model.now_ms - ago_ms;
                    model.retire(&db, store, partition, time_ms);
                }
                Operation::Drop { store } => {
                    db.drop_store(STORES[store].0).unwrap();
                    model.rows.retain(|key, _| key.0 != store);
                    model.flushed.retain(|key, _| key.0 != store);
                    model.retired.retain(|key, _| key.0 != store);
                }
                Operation::Reopen => {
                    db.close();
                    db = open(dir.path());
                    model.retire_all(&db);
                }
                Operation::Crash => {
                    let killed = image(&db);
                    db.close();
                    dir = killed;
                    db = open(dir.path());
                    model.retire_all(&db);
                }
            }
            model.check(&db);
        }
    }
}
