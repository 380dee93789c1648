//! A task's store held against a map, on whatever log: random operations, failed calls and commits, flushes, evictions,
//! restarts, and a local store that is lost while its changelog is whole.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream::connect::{BlockBuilder, TableAppend, TopicPartition, TopicRole};
use millstream::record::write_varint;
use millstream::schema::{Field, FieldType, Store};
use millstream::state::codec::{read_start, write_start};
use millstream::state::database::KeyRange;
use millstream::state::{
    Backend, CaughtUp, Changelog, CommittedStore, Flusher, StateDb, StateOptions, StoreShape, TaskStore, Wake,
};
use millstream::window::{StreamTime, Window};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A log that the model commits to.
pub trait StoreLog {
    /// The changelogs in it.
    fn changelogs(&self) -> Arc<dyn Changelog>;
    /// Makes a changelog of one partition.
    fn create(&self, topic: &str, role: TopicRole);
    /// Makes changes true, and says the offset of the first.
    fn commit(&self, place: &TopicPartition, blocks: BlockBuilder, table: TableAppend) -> u64;
    /// A commit of these changes fails.
    fn fail(&self, place: &TopicPartition, blocks: BlockBuilder, table: TableAppend);
    /// Drops a changelog.
    fn delete(&self, topic: &str);
    /// Gives it back.
    fn close(&self);
}

/// Opens the log of a folder.
pub type OpenLog = dyn Fn(&Path) -> Box<dyn StoreLog>;

/// What a store may have in memory: some rows.
const MEMORY_BYTES: usize = 3000;
const TIME_TO_LIVE_MS: i64 = 100;
const WINDOW: Window = Window {
    size_ms: 40,
    advance_ms: 40,
    offset_ms: 0,
    grace_ms: 20,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Ordered,
    TimeToLive,
    Windows,
}

#[derive(Clone, Debug)]
enum Op {
    Get(u8),
    Put(u8, u8),
    Delete(u8),
    Scan(u8, u8),
    Call,
    Undo,
    Commit,
    /// The commit fails, and that is known.
    Abort,
    /// The commit becomes true, and the task does not hear of it.
    Unheard,
    /// So much stream time passes.
    Time(u8),
    Tend,
    /// Waits for the flush that was begun.
    Flushed,
    Restart,
    /// The local store is lost.
    Lose,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => any::<u8>().prop_map(Op::Get),
        30 => any::<(u8, u8)>().prop_map(|(key, value)| Op::Put(key, value)),
        8 => any::<u8>().prop_map(Op::Delete),
        8 => (any::<u8>(), 1..9u8).prop_map(|(key, limit)| Op::Scan(key, limit)),
        10 => Just(Op::Call),
        3 => Just(Op::Undo),
        12 => Just(Op::Commit),
        2 => Just(Op::Abort),
        2 => Just(Op::Unheard),
        8 => (0..40u8).prop_map(Op::Time),
        10 => Just(Op::Tend),
        6 => Just(Op::Flushed),
        1 => Just(Op::Restart),
        1 => Just(Op::Lose),
    ]
}

fn shape(kind: Kind, changelog: &str) -> StoreShape {
    let field = |name: &str| Field {
        name: name.into(),
        field_type: FieldType::Bytes,
        optional: false,
    };
    if kind == Kind::Windows {
        return StoreShape::of_groups("model", "stage", changelog.into(), &[field("value")], Some(WINDOW));
    }
    let store = Store {
        name: "store".into(),
        key: vec![field("key")],
        value: vec![field("value")],
        ordered: kind == Kind::Ordered,
        time_to_live_ms: if kind == Kind::TimeToLive {
            TIME_TO_LIVE_MS as u64
        } else {
            0
        },
        carry_over: Vec::new(),
    };
    StoreShape::of_store("model", "stage", changelog.into(), &store)
}

/// A row's bytes: the schema, the time, and its one field.
fn row(time_ms: i64, value: u8) -> Vec<u8> {
    let mut row = vec![0];
    row.extend_from_slice(&time_ms.to_le_bytes());
    write_varint(&mut row, u64::from(value) * 2);
    row.resize(row.len() + usize::from(value) * 2, value);
    row
}

fn time_of(row: &[u8]) -> i64 {
    i64::from_le_bytes(*row[1..].first_chunk().expect("a time"))
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The folder, and everything that is open in it.
struct Opened {
    log: Box<dyn StoreLog>,
    backend: Backend,
}

impl Opened {
    fn open(folder: &Path, open_log: &OpenLog) -> Opened {
        let log = open_log(folder);
        let opened = StateDb::open(&folder.join("state"), StateOptions::default()).expect("it opens");
        assert_eq!(opened.set_aside, None);
        let changelog = log.changelogs();
        let flusher = Flusher::start(opened.db.clone(), changelog.clone()).expect("a thread");
        let backend = Backend {
            db: opened.db,
            flusher: Arc::new(flusher),
            log: changelog,
        };
        Opened { log, backend }
    }

    fn close(self) {
        self.backend.flusher.close();
        self.backend.db.close();
        self.log.close();
    }
}

/// A store beside its model.
struct Model<'m> {
    folder: PathBuf,
    open_log: &'m OpenLog,
    kind: Kind,
    shape: Arc<StoreShape>,
    opened: Option<Opened>,
    store: Option<TaskStore>,
    committed: Rows,
    at_call: Rows,
    now: Rows,
    time: StreamTime,
    time_committed: StreamTime,
    woken: Arc<AtomicBool>,
}

impl<'m> Model<'m> {
    fn new(folder: &Path, open_log: &'m OpenLog, kind: Kind, changelog: &str, opened: Opened) -> Model<'m> {
        let mut shape = shape(kind, changelog);
        let role = shape.join("stage", Some("store"), None).expect("nothing was there");
        opened.log.create(changelog, role);
        let shape = Arc::new(shape);
        let store = TaskStore::open(shape.clone(), 0, opened.backend.clone()).expect("it opens");
        let mut model = Model {
            folder: folder.to_owned(),
            open_log,
            kind,
            shape,
            opened: Some(opened),
            store: Some(store),
            committed: Rows::new(),
            at_call: Rows::new(),
            now: Rows::new(),
            time: StreamTime::default(),
            time_committed: StreamTime::default(),
            woken: Arc::default(),
        };
        model.catch_up();
        model.store().begin_call();
        model
    }

    fn store(&mut self) -> &mut TaskStore {
        self.store.as_mut().expect("it is open")
    }

    /// Keys of a few lengths, and of windows that are open.
    fn key(&self, key: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.kind == Kind::Windows {
            let start = self.time.get().unwrap_or(0).div_euclid(WINDOW.size_ms) * WINDOW.size_ms;
            write_start(start + i64::from(key % 3) * WINDOW.size_ms, &mut bytes);
        }
        bytes.push(b'0' + key % 5);
        bytes.resize(bytes.len() + usize::from(key % 23), b'k');
        if self.kind != Kind::Windows {
            // The end of a field.
            bytes.extend_from_slice(&[0, 0]);
        }
        bytes
    }

    fn is_past(&self, row: &[u8]) -> bool {
        self.kind == Kind::TimeToLive && self.time.get().is_some_and(|now| time_of(row) + TIME_TO_LIVE_MS <= now)
    }

    fn visible(&self) -> Rows {
        let mut rows = self.now.clone();
        rows.retain(|_, row| !self.is_past(row));
        rows
    }

    fn first_open(&self) -> i64 {
        if self.kind == Kind::Windows {
            WINDOW.first_open(self.time_committed)
        } else {
            i64::MIN
        }
    }

    fn changes(&mut self) -> Option<(TopicPartition, BlockBuilder, TableAppend)> {
        let time = self.time;
        let store = self.store();
        let blocks = store.changes(time)?;
        let table = TableAppend {
            append: 0,
            codec: store.shape().table().expect("it has joined").clone(),
            from: store.applied(),
        };
        Some((store.changelog().clone(), blocks, table))
    }

    fn commit(&mut self, heard: bool) {
        let time = self.time;
        if let Some((place, blocks, table)) = self.changes() {
            let (records, bytes) = (blocks.len(), blocks.bytes() as u64);
            let log = &self.opened.as_ref().expect("it is open").log;
            let base = log.commit(&place, blocks, table);
            if heard {
                self.store().committed(base, records, bytes);
            }
        }
        self.time_committed = time;
        self.committed = self.now.clone();
        let first_open = self.first_open();
        if self.kind == Kind::Windows {
            let is_open = |key: &[u8]| read_start(key).is_some_and(|(start, _)| start >= first_open);
            self.committed.retain(|key, _| is_open(key));
            self.now = self.committed.clone();
        }
        if heard {
            self.store().committed_nothing();
            self.store().drop_windows(first_open);
            self.call();
        } else {
            self.abort();
        }
    }

    fn call(&mut self) {
        self.at_call = self.now.clone();
        self.store().begin_call();
    }

    fn abort(&mut self) {
        self.store().abort();
        self.time = self.time_committed;
        self.now = self.committed.clone();
        self.catch_up();
        let first_open = self.first_open();
        self.store().drop_windows(first_open);
        self.call();
    }

    fn catch_up(&mut self) {
        let first_open = self.first_open();
        let (woken, waits) = std::sync::mpsc::channel();
        let wake: Wake = Arc::new(move || woken.send(()).unwrap_or_default());
        loop {
            match self
                .store()
                .catch_up(first_open, &wake)
                .expect("the changelog can be read")
            {
                CaughtUp::Done => break,
                CaughtUp::More => {}
                CaughtUp::Waits => waits.recv_timeout(Duration::from_secs(60)).expect("it is woken"),
            }
        }
    }

    fn tend(&mut self) {
        let before_ms = match self.kind {
            Kind::Ordered => None,
            Kind::Windows => Some(self.first_open()),
            Kind::TimeToLive => self.time_committed.get().map(|now| now - TIME_TO_LIVE_MS + 1),
        };
        let woken = self.woken.clone();
        self.store().tend(Instant::now(), MEMORY_BYTES, before_ms, move || {
            woken.store(true, Ordering::Release)
        });
    }

    fn wait(&mut self) {
        let place = self.store().changelog().clone();
        let flusher = self.opened.as_ref().expect("it is open").backend.flusher.clone();
        while flusher.is_busy(&place) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn restart(&mut self, lose: bool) {
        self.store = None;
        self.opened.take().expect("it is open").close();
        if lose {
            std::fs::remove_dir_all(self.folder.join("state")).expect("it is there");
        }
        let opened = Opened::open(&self.folder, self.open_log);
        self.store = Some(TaskStore::open(self.shape.clone(), 0, opened.backend.clone()).expect("it opens"));
        self.opened = Some(opened);
        self.abort();
    }

    fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::Get(key) => {
                let (key, time) = (self.key(key), self.time);
                let expected = self.now.get(&key).filter(|row| !self.is_past(row)).cloned();
                let found = self
                    .store()
                    .get(&key, time)
                    .expect("it can be read")
                    .map(<[u8]>::to_vec);
                prop_assert_eq!(found, expected);
            }
            Op::Put(key, value) => {
                let (key, row) = (self.key(key), row(self.time.get().unwrap_or(0), value));
                self.store().put(&key, &row);
                self.now.insert(key, row);
            }
            // Groups are never deleted.
            Op::Delete(_) if self.kind == Kind::Windows => {}
            Op::Delete(key) => {
                let key = self.key(key);
                self.store().delete(&key);
                self.now.remove(&key);
            }
            Op::Scan(key, limit) if self.kind == Kind::Ordered => {
                let (key, time) = (self.key(key), self.time);
                let (prefix, after) = (&key[..1], Some(&key[..]).filter(|_| limit % 2 == 0));
                let (rows, complete) = self
                    .store()
                    .scan(prefix, after, limit.into(), time)
                    .expect("it can be read");
                let behind = |k: &&Vec<u8>| k.starts_with(prefix) && after.is_none_or(|after| &k[..] > after);
                let all: Vec<_> = self
                    .now
                    .iter()
                    .filter(|(k, _)| behind(k))
                    .map(|(k, r)| (k.clone(), r.clone()))
                    .collect();
                prop_assert_eq!(complete, all.len() <= usize::from(limit));
                prop_assert_eq!(rows, all.into_iter().take(limit.into()).collect::<Vec<_>>());
            }
            Op::Scan(..) => {}
            Op::Call => self.call(),
            Op::Undo => {
                self.store().undo_call();
                self.now = self.at_call.clone();
            }
            Op::Commit => self.commit(true),
            Op::Abort => {
                if let Some((place, blocks, table)) = self.changes() {
                    self.opened
                        .as_ref()
                        .expect("it is open")
                        .log
                        .fail(&place, blocks, table);
                }
                self.abort();
            }
            Op::Unheard => self.commit(false),
            Op::Time(ms) => self.time.advance(self.time.get().unwrap_or(0) + i64::from(ms)),
            Op::Tend => self.tend(),
            Op::Flushed => {
                self.wait();
                self.tend();
            }
            Op::Restart => self.restart(false),
            Op::Lose => self.restart(true),
        }
        Ok(())
    }

    /// The whole of it, as the task has it and as others read it.
    fn check(&mut self) -> Result<(), TestCaseError> {
        self.commit(true);
        let (time, expected) = (self.time, self.visible());
        for (key, row) in &expected {
            prop_assert_eq!(self.store().get(key, time).expect("it can be read"), Some(&row[..]));
        }
        if self.kind == Kind::Windows {
            let (mut from, mut found) = (self.first_open(), Rows::new());
            while let Some(start) = self.store().next_window(from, i64::MAX).expect("it can be read") {
                let mut cursor = self.store().window(start, None);
                loop {
                    let rows = self.store().window_rows(&mut cursor, 3).expect("it can be read");
                    if rows.is_empty() {
                        break;
                    }
                    found.extend(rows);
                }
                from = start + 1;
            }
            prop_assert_eq!(&found, &expected);
        }
        let opened = self.opened.as_ref().expect("it is open");
        let place = TopicPartition::new(self.shape.changelog.clone(), 0);
        let others =
            CommittedStore::open(&opened.backend.db, &*opened.backend.log, &place, &KeyRange::all()).expect("it opens");
        let first_open = self.first_open();
        let closed =
            |key: &[u8]| self.kind == Kind::Windows && read_start(key).is_none_or(|(start, _)| start < first_open);
        let rows = others
            .rows(&KeyRange::all(), |key, row| closed(key) || self.is_past(row))
            .expect("it can be read");
        let found: Rows = rows
            .map(|row| row.map(|(k, r)| (k.to_vec(), r.to_vec())).expect("a row"))
            .collect();
        prop_assert_eq!(&found, &expected);
        Ok(())
    }
}

/// Random operations on stores of every kind, so many cases of at most `ops_max` each.
///
/// # Panics
/// Where a store is not the map; the case is printed, and kept smallest.
pub fn check(cases: u32, ops_max: usize, open_log: &OpenLog) {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = RefCell::new(Some(Opened::open(dir.path(), open_log)));
    let number = Cell::new(0);
    // Names that no run before has used, where the log stays.
    let run = rand::random::<u32>();
    let config = Config {
        cases,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let kind = prop_oneof![Just(Kind::Ordered), Just(Kind::TimeToLive), Just(Kind::Windows)];
    let case = (kind, prop::collection::vec(op(), 1..ops_max));
    let outcome = TestRunner::new(config).run(&case, |(kind, ops)| {
        let n = number.replace(number.get() + 1);
        let here = opened.borrow_mut().take();
        let here = here.unwrap_or_else(|| Opened::open(dir.path(), open_log));
        let changelog = format!("model-{run}-{n}-changelog");
        let mut model = Model::new(dir.path(), open_log, kind, &changelog, here);
        let outcome = ops
            .iter()
            .try_for_each(|op| model.apply(op))
            .and_then(|()| model.check());
        model.wait();
        let here = model.opened.take().expect("it is open");
        drop(model);
        // What was lost in one case must not be missed in the next.
        here.log.delete(&changelog);
        *opened.borrow_mut() = Some(here);
        outcome
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
