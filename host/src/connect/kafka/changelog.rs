//! Changelogs of stores in a cluster: compacted topics that others read as tables.
//!
//! A compacted topic keeps the last change of each key by itself, so nothing is purged behind local stores; but what was
//! deleted it keeps for [`CHANGELOG_DELETES_TIME`] only, and a local store that has not read it for nearly so long is made
//! anew.

use super::ClusterSettings;
use super::catalog::Catalog;
use super::reader::{Ended, Isolation, Lent, PartitionReader, Reading};
use super::readers::Readers;
use super::recent::Recent;
use super::restorer::Restorer;
use crate::connect::{BlockBuilder, Fetched, FetchedBuilder, LentRecord, LogError, TopicPartition};
use crate::limits::{CHANGELOG_DELETES_TIME, CHANGELOG_READERS_MAX, LOCAL_STORE_AGE_MAX, OPEN_TRANSACTION_TIME_MAX};
use crate::record::{Headers, RecordRef};
use crate::state::codec::RowRef;
use crate::state::{Changelog, MarkError, SCHEMA_HEADER, TableBuffers, TableCodec, TableError, TableForm, Wake};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What brokers bring of a partition, within this.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether a transaction has ended that others wait for.
pub(super) const STABLE_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Settings with which a changelog is made, for as many partitions as there are tasks.
pub fn changelog_settings() -> Vec<(&'static str, String)> {
    vec![
        ("cleanup.policy", "compact".into()),
        ("delete.retention.ms", CHANGELOG_DELETES_TIME.as_millis().to_string()),
        // The last segment is never compacted: so much is read twice at most in a restore.
        ("segment.bytes", (64 << 20).to_string()),
        // A row of the largest size with its key, as bytes or as JSON.
        ("max.message.bytes", crate::limits::KAFKA_MESSAGE_BYTES_MAX.to_string()),
        // A record's time is its row's, which may be of long ago.
        ("message.timestamp.type", "CreateTime".into()),
        ("message.timestamp.before.max.ms", i64::MAX.to_string()),
        ("message.timestamp.after.max.ms", i64::MAX.to_string()),
    ]
}

/// The changelogs of a cluster. Dropping it ends its threads.
pub struct KafkaChangelogs {
    source: Arc<Source>,
    restorer: Restorer,
}

/// Where changes are read from: what this host just wrote, or the brokers.
pub(super) struct Source {
    settings: ClusterSettings,
    catalog: Arc<Catalog>,
    committed: OnceLock<Arc<Reading>>,
    uncommitted: OnceLock<Arc<Reading>>,
    /// Made now, by one at a time: a client is threads.
    making: Mutex<()>,
    codecs: Mutex<HashMap<Arc<str>, Arc<TableCodec>>>,
    readers: Readers<PartitionReader>,
    recent: Recent,
}

impl KafkaChangelogs {
    /// Of this cluster; nothing is asked yet.
    pub fn new(settings: ClusterSettings, catalog: Arc<Catalog>) -> Arc<KafkaChangelogs> {
        let source = Arc::new(Source {
            settings,
            catalog,
            committed: OnceLock::new(),
            uncommitted: OnceLock::new(),
            making: Mutex::default(),
            codecs: Mutex::default(),
            readers: Readers::new(CHANGELOG_READERS_MAX),
            recent: Recent::default(),
        });
        Arc::new(KafkaChangelogs {
            restorer: Restorer::new(source.clone()),
            source,
        })
    }

    /// Keeps what was just committed, so that it need not be fetched: these changes, whose last record is the last of its
    /// commit, at `base + blocks.len() - 1`; `from` as [`TableAppend`](crate::connect::TableAppend) has it.
    pub fn remember(&self, tp: &TopicPartition, from: u64, base: u64, blocks: BlockBuilder) {
        self.source.recent.remember(tp, from, base, blocks);
    }

    /// Partitions that tasks restore from now, each with how many offsets are left.
    pub fn restoring(&self) -> Vec<(TopicPartition, u64)> {
        self.restorer.restoring()
    }

    /// The offset of the first record, and the one behind what is committed now, whatever is on its way.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn committed_ends(&self, tp: &TopicPartition) -> Result<(u64, u64), LogError> {
        self.source.committed()?.ends(tp)
    }
}

impl Changelog for KafkaChangelogs {
    fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, LogError> {
        self.source.fetch(tp, from, bytes_max)
    }

    fn ends(&self, tp: &TopicPartition) -> Result<(u64, u64), LogError> {
        let written = self.source.written_end(tp)?;
        let until = Instant::now() + OPEN_TRANSACTION_TIME_MAX;
        loop {
            if let Some(ends) = self.source.ends_behind(tp, written)? {
                return Ok(ends);
            }
            if Instant::now() >= until {
                return Err(still_open(tp));
            }
            std::thread::sleep(STABLE_LOOK_INTERVAL);
        }
    }

    fn mark(&self, _pipeline: &Arc<str>, tp: &TopicPartition, up_to: u64) -> Result<(), MarkError> {
        self.source.recent.forget(tp, up_to);
        Ok(())
    }

    fn ends_soon(&self, tp: &TopicPartition, wake: &Wake) -> Result<Option<(u64, u64)>, LogError> {
        self.restorer.ends(tp, wake)
    }

    fn fetch_soon(
        &self,
        tp: &TopicPartition,
        from: u64,
        bytes_max: usize,
        wake: &Wake,
    ) -> Result<Option<Fetched>, LogError> {
        self.restorer.fetch(tp, from, bytes_max, wake)
    }

    fn deletes_stay(&self) -> Option<Duration> {
        Some(LOCAL_STORE_AGE_MAX)
    }
}

/// A transaction that does not end.
pub(super) fn still_open(tp: &TopicPartition) -> LogError {
    LogError::Unavailable {
        detail: format!(
            "{tp} has a transaction that has not ended for {} s: its host is gone and its `transaction.timeout.ms` is long, \
             or it is hanging (`kafka-transactions.sh find-hanging` lists those)",
            OPEN_TRANSACTION_TIME_MAX.as_secs()
        ),
    }
}

impl Source {
    fn committed(&self) -> Result<&Arc<Reading>, LogError> {
        self.reading(&self.committed, Isolation::Committed)
    }

    fn reading<'s>(
        &'s self,
        reading: &'s OnceLock<Arc<Reading>>,
        isolation: Isolation,
    ) -> Result<&'s Arc<Reading>, LogError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = reading.get() {
            return Ok(reading);
        }
        let made = Reading::new(&self.settings, isolation)?;
        Ok(reading.get_or_init(|| made))
    }

    /// Behind the last record that was written, committed or not.
    pub(super) fn written_end(&self, tp: &TopicPartition) -> Result<u64, LogError> {
        let uncommitted = self.reading(&self.uncommitted, Isolation::Uncommitted)?;
        uncommitted.ends(tp).map(|(_, next)| next)
    }

    /// The ends of what is committed, where all is decided that was written before an offset.
    pub(super) fn ends_behind(&self, tp: &TopicPartition, written: u64) -> Result<Option<(u64, u64)>, LogError> {
        let ends = self.committed()?.ends(tp)?;
        Ok((ends.1 >= written).then_some(ends))
    }

    pub(super) fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, LogError> {
        if let Some(fetched) = self.recent.fetch(tp, from, bytes_max) {
            return Ok(fetched);
        }
        match self.fetch_from_brokers(tp, from, bytes_max) {
            Err(Undecoded::Schema) => {
                // Another host runs a newer version of the plugin: the catalog has its fields by now.
                self.codecs().remove(&tp.topic);
                self.catalog.role(&tp.topic)?;
                self.fetch_from_brokers(tp, from, bytes_max)
            }
            fetched => fetched,
        }
        .map_err(|undecoded| match undecoded {
            Undecoded::Log(error) => error,
            Undecoded::Schema => LogError::Unavailable {
                detail: format!("{tp} has rows of a version of the store that the catalog does not know"),
            },
        })
    }

    /// Waits for records, or for the end.
    fn fetch_from_brokers(&self, tp: &TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, Undecoded> {
        let codec = self.codec(&tp.topic)?;
        let shared = self.readers.of(tp);
        let mut slot = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = match slot.take() {
            Some(reader) if reader.position == from => reader,
            before => {
                drop(before);
                PartitionReader::start(self.committed()?, tp, from)?
            }
        };
        let mut decoding = Decoding::new(&codec, tp, from);
        let until = Instant::now() + FETCH_TIME_MAX;
        let ended = reader.read(until, |record| {
            decoding.push(&record)?;
            Ok(decoding.fetched.bytes() < bytes_max)
        });
        let ended = match ended {
            Err(_) if decoding.unknown_schema => return Err(Undecoded::Schema),
            Err(LogError::OffsetOutOfRange { .. }) => return Err(self.out_of_range(tp, from).into()),
            ended => ended?,
        };
        match ended {
            Ended::Enough => *slot = Some(reader),
            // At the end it would go on asking: whoever comes next begins anew.
            Ended::AtEnd(next) => decoding.fetched.pass_to(next),
            Ended::Late if decoding.fetched.is_empty() => {
                return Err(Undecoded::Log(LogError::Unavailable {
                    detail: format!(
                        "reading {tp} at offset {from}: no answer within {} s",
                        FETCH_TIME_MAX.as_secs()
                    ),
                }));
            }
            Ended::Late => {}
        }
        Ok(decoding.fetched.finish())
    }

    fn out_of_range(&self, tp: &TopicPartition, offset: u64) -> LogError {
        let ends = self.committed().and_then(|committed| committed.ends(tp));
        ends.map_or_else(
            |error| error,
            |(first, next)| LogError::OffsetOutOfRange {
                topic: tp.topic.to_string(),
                partition: tp.partition,
                offset,
                first,
                next,
            },
        )
    }

    fn codec(&self, topic: &Arc<str>) -> Result<Arc<TableCodec>, LogError> {
        if let Some(codec) = self.codecs().get(topic) {
            return Ok(codec.clone());
        }
        let role = self.catalog.role_as_known(topic)?;
        // Both forms are read, whatever is written.
        let codec = role.and_then(|role| TableCodec::of(&role, TableForm::default()));
        let codec = codec.map(Arc::new).ok_or_else(|| LogError::Unavailable {
            detail: format!(
                "the catalog {:?} does not say what the changelog {topic:?} has: it was deleted, or the changelog is not \
                 of a pipeline",
                self.catalog.topic()
            ),
        })?;
        self.codecs().insert(topic.clone(), codec.clone());
        Ok(codec)
    }

    fn codecs(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<TableCodec>>> {
        self.codecs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why records could not be made changes.
enum Undecoded {
    Log(LogError),
    /// Their fields are not known here yet.
    Schema,
}

impl From<LogError> for Undecoded {
    fn from(error: LogError) -> Self {
        Undecoded::Log(error)
    }
}

/// Records that become changes.
struct Decoding<'d> {
    codec: &'d TableCodec,
    tp: &'d TopicPartition,
    buffers: TableBuffers,
    fetched: FetchedBuilder,
    unknown_schema: bool,
}

impl<'d> Decoding<'d> {
    fn new(codec: &'d TableCodec, tp: &'d TopicPartition, from: u64) -> Decoding<'d> {
        Decoding {
            codec,
            tp,
            buffers: TableBuffers::default(),
            fetched: FetchedBuilder::at(from),
            unknown_schema: false,
        }
    }

    fn push(&mut self, record: &Lent<'_>) -> Result<(), LogError> {
        let headers: Headers = match record.header(c"schema") {
            Some(schema) => [(SCHEMA_HEADER, schema)].into_iter().collect(),
            None => Headers::default(),
        };
        let change = RecordRef {
            key: record.key,
            value: record.value,
            headers: headers.as_ref(),
            timestamp_ms: record.timestamp_ms,
            offset: record.offset,
        };
        let (key, row) = self.codec.decode(change, &mut self.buffers).map_err(|error| {
            self.unknown_schema = matches!(error, TableError::Schema(_));
            LogError::Foreign {
                topic: self.tp.topic.to_string(),
                partition: self.tp.partition,
                offset: record.offset,
                detail: error.to_string(),
            }
        })?;
        let row_time = row.and_then(RowRef::parse).map(|row| row.timestamp_ms);
        self.fetched.push(LentRecord {
            offset: record.offset,
            timestamp_ms: row_time.unwrap_or(record.timestamp_ms),
            key: Some(key),
            value: row,
            headers: std::iter::empty(),
        });
        Ok(())
    }
}
