//! The flusher, with the embedded log and the local store in folders of their own.

mod crash;

use super::*;
use crate::connect::{Append, BlockBuilder, Commit, EmbeddedLog, Options, TopicRole, TopicSpec};
use crate::record::Record;
use crate::state::database::{KeyRange, StateOptions};
use std::path::Path;
use std::sync::mpsc::channel;

pub(in crate::state) struct Parts {
    pub(in crate::state) log: Arc<EmbeddedLog>,
    pub(in crate::state) db: Arc<StateDb>,
}

impl Parts {
    pub(in crate::state) fn open(folder: &Path, generation_bytes_max: u64) -> Parts {
        let options = Options {
            disk_reserve_bytes: 1 << 20,
            generation_bytes_max,
            ..Options::default()
        };
        let log = EmbeddedLog::open(folder, options).unwrap();
        let options = StateOptions {
            disk_reserve_bytes: 1 << 20,
            ..StateOptions::default()
        };
        let opened = StateDb::open(&folder.join("state"), options).unwrap();
        assert_eq!(opened.set_aside, None);
        let db = opened.db;
        Parts { log, db }
    }

    pub(in crate::state) fn make(folder: &Path, generation_bytes_max: u64) -> Parts {
        let parts = Parts::open(folder, generation_bytes_max);
        let role = TopicRole::Changelog {
            pipeline: "p".into(),
            stage: "s".into(),
            store: None,
            schemas: Vec::new(),
        };
        let spec = TopicSpec {
            role: Some(Arc::new(role)),
            ..TopicSpec::new("c", 2)
        };
        if parts.log.topic("c").is_err() {
            parts.log.create_topic(&spec).unwrap();
        }
        parts
    }

    /// Rows of partition 0, deletes where the value is empty.
    pub(in crate::state) fn commit(&self, rows: &[(&str, &str, i64)]) -> u64 {
        let mut blocks = BlockBuilder::new();
        for (key, value, timestamp_ms) in rows {
            let record = Record {
                key: Some(key.as_bytes().to_vec()),
                value: (!value.is_empty()).then(|| value.as_bytes().to_vec()),
                timestamp_ms: *timestamp_ms,
                ..Record::default()
            };
            blocks.push(record.at(0)).unwrap();
        }
        let append = Append {
            topic: "c".into(),
            partition: 0,
            blocks,
        };
        let commit = Commit {
            appends: vec![append],
            ..Commit::default()
        };
        self.log.commit(commit).unwrap().base_offsets[0] + rows.len() as u64
    }

    pub(in crate::state) fn flusher(&self, piece_bytes: usize) -> Flusher {
        Flusher::with_piece_bytes(self.db.clone(), self.log.clone(), piece_bytes).unwrap()
    }

    pub(in crate::state) fn all(&self) -> String {
        let rows = self.db.range("c", 0, &KeyRange::all()).unwrap();
        let text = rows.map(|row| {
            let (key, value) = row.unwrap();
            format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value))
        });
        text.collect::<Vec<_>>().join(" ")
    }
}

pub(in crate::state) fn place() -> TopicPartition {
    TopicPartition::new("c", 0)
}

/// Flushes, and waits for the outcome.
pub(in crate::state) fn flush(
    flusher: &Flusher,
    to: u64,
    segmenting: Segmenting,
    before_ms: Option<i64>,
) -> Result<Flushed, FlushError> {
    let (send, receive) = channel();
    let job = FlushJob {
        pipeline: "p".into(),
        changelog: place(),
        from: 0,
        to,
        segmenting,
        before_ms,
        as_of_ms: None,
        done: Box::new(move |outcome| send.send(outcome).unwrap()),
    };
    flusher.submit(job).map_err(drop).unwrap();
    receive.recv().unwrap()
}

#[test]
fn of_each_key_the_last_change_is_written_and_the_mark_follows() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::make(dir.path(), 1 << 20);
    parts.commit(&[("b", "1", 0), ("a", "1", 0), ("b", "2", 0), ("d", "1", 0)]);
    let to = parts.commit(&[("c", "1", 0), ("a", "", 0), ("b", "3", 0)]);
    let later = parts.commit(&[("b", "not yet", 0)]);
    let flusher = parts.flusher(1 << 20);
    let flushed = flush(&flusher, to, Segmenting::None, None).unwrap();
    assert_eq!((flushed.up_to, flushed.records, flushed.rows), (to, 7, 4));
    assert_eq!(parts.all(), "b=3 c=1 d=1");
    assert_eq!(parts.db.flushed("c", 0), Ok(Some(to)));
    assert_eq!(parts.log.committed("p", &place()), Ok(Some(to)));
    // The store knows how far it is, whatever the job says; what it has is not written again.
    let flushed = flush(&flusher, later, Segmenting::None, None).unwrap();
    assert_eq!((flushed.up_to, flushed.records, flushed.rows), (later, 1, 1));
    let flushed = flush(&flusher, to, Segmenting::None, None).unwrap();
    assert_eq!((flushed.up_to, flushed.records), (later, 0));
    assert_eq!(parts.all(), "b=not yet c=1 d=1");
}

#[test]
fn a_long_stretch_is_flushed_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::make(dir.path(), 1 << 20);
    let mut to = 0;
    for n in 0..50 {
        let value = n.to_string().repeat(100);
        to = parts.commit(&[(&format!("k{}", n % 7), &value, 0), ("last", &value, 0)]);
    }
    let flusher = parts.flusher(1000);
    let flushed = flush(&flusher, to, Segmenting::None, None).unwrap();
    assert_eq!((flushed.up_to, flushed.records), (100, 100));
    assert!(flushed.rows > 60, "{flushed:?}");
    assert_eq!(parts.all().split(' ').count(), 8);
    assert!(parts.all().ends_with(&format!("last={}", "49".repeat(100))));
}

#[test]
fn rows_that_are_past_are_not_written_and_their_segments_go() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::make(dir.path(), 1 << 20);
    let flusher = parts.flusher(1 << 20);
    let by_row = Segmenting::ByRowTime { segment_ms: 10 };
    let to = parts.commit(&[("a", "1", 5), ("b", "1", 15)]);
    flush(&flusher, to, by_row, None).unwrap();
    assert_eq!(parts.db.segments("c").unwrap(), [0, 10]);
    let to = parts.commit(&[("c", "1", 18), ("d", "1", 25)]);
    let flushed = flush(&flusher, to, by_row, Some(21)).unwrap();
    assert_eq!(flushed.rows, 1);
    assert_eq!(parts.all(), "d=1");
    assert_eq!(parts.db.segments("c").unwrap(), [20]);
}

#[test]
fn a_partition_has_one_job_and_errors_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::make(dir.path(), 1 << 20);
    let to = parts.commit(&[("a", "1", 0)]);
    let flusher = Arc::new(parts.flusher(1 << 20));
    let (send, receive) = channel();
    let (go, wait) = channel::<()>();
    let job = |partition: u32, to: u64, done: Box<dyn FnOnce(Result<Flushed, FlushError>) + Send>| FlushJob {
        pipeline: "p".into(),
        changelog: TopicPartition::new("c", partition),
        from: 0,
        to,
        segmenting: Segmenting::None,
        before_ms: None,
        as_of_ms: None,
        done,
    };
    // The thread is held in an answer, so that what follows waits.
    let held = job(1, 0, Box::new(move |_| wait.recv().unwrap()));
    flusher.submit(held).map_err(drop).unwrap();
    let answer = |name: &'static str| {
        let send = send.clone();
        Box::new(move |outcome| send.send((name, outcome)).unwrap())
    };
    flusher.submit(job(0, to, answer("first"))).map_err(drop).unwrap();
    assert!(flusher.is_busy(&place()));
    let refused = flusher.submit(job(0, to, answer("second"))).unwrap_err();
    assert_eq!(refused.to, to);
    go.send(()).unwrap();
    assert!(matches!(receive.recv().unwrap(), ("first", Ok(_))));
    // A changelog that ends earlier, one that is not there, and a record that is not a row.
    let missing = flush(&flusher, to + 1, Segmenting::None, None).unwrap_err();
    assert!(
        matches!(missing, FlushError::Log(LogError::OffsetOutOfRange { .. })),
        "{missing}"
    );
    let mut strange = job(0, 1, answer("strange"));
    strange.changelog = TopicPartition::new("nowhere", 0);
    flusher.submit(strange).map_err(drop).unwrap();
    let (_, unknown) = receive.recv().unwrap();
    assert!(matches!(unknown, Err(FlushError::Log(LogError::UnknownTopic { .. }))));
    let mut blocks = BlockBuilder::new();
    blocks.push(Record::default().at(0)).unwrap();
    let append = Append {
        topic: "c".into(),
        partition: 1,
        blocks,
    };
    let appends = vec![append];
    parts
        .log
        .commit(Commit {
            appends,
            ..Commit::default()
        })
        .unwrap();
    flusher.submit(job(1, 1, answer("no key"))).map_err(drop).unwrap();
    let (_, no_key) = receive.recv().unwrap();
    assert!(
        no_key
            .unwrap_err()
            .to_string()
            .contains("c[1] has a record without a key at offset 0")
    );
    // A callback that panics is not the end of the thread.
    flusher
        .submit(job(0, 0, Box::new(|_| panic!("ours"))))
        .map_err(drop)
        .unwrap();
    while flusher.is_busy(&place()) {
        std::thread::yield_now();
    }
    assert!(flush(&flusher, to, Segmenting::None, None).is_ok());
    parts.db.close();
    let closed = flush(&flusher, to, Segmenting::None, None).unwrap_err();
    assert_eq!(closed, FlushError::State(StateError::Closed));
    flusher.close();
    assert!(flusher.submit(job(0, to, answer("late"))).is_err());
}

#[test]
fn closing_refuses_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::make(dir.path(), 1 << 20);
    let to = parts.commit(&[("a", "1", 0)]);
    let flusher = Arc::new(parts.flusher(1 << 20));
    let (send, receive) = channel();
    let closer = flusher.clone();
    let (started, wait) = channel();
    let job = |partition: u32, done: Box<dyn FnOnce(Result<Flushed, FlushError>) + Send>| FlushJob {
        pipeline: "p".into(),
        changelog: TopicPartition::new("c", partition),
        from: 0,
        to: to * u64::from(partition == 0),
        segmenting: Segmenting::None,
        before_ms: None,
        as_of_ms: None,
        done,
    };
    let closing = job(
        1,
        Box::new(move |_| {
            wait.recv().unwrap();
            closer.close();
        }),
    );
    flusher.submit(closing).map_err(drop).unwrap();
    let waiting = job(0, Box::new(move |outcome| send.send(outcome).unwrap()));
    flusher.submit(waiting).map_err(drop).unwrap();
    started.send(()).unwrap();
    assert_eq!(receive.recv().unwrap(), Err(FlushError::Closed));
    assert_eq!(parts.db.flushed("c", 0), Ok(None));
}
