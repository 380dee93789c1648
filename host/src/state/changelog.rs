//! Stores as whoever has no local store of them sees them: read from their changelogs, from the first record to the last.

use super::codec::RowRef;
use super::log::Changelog;
use super::notes::Notes;
use super::query::{FoundRow, Past, QueryError, RowQuery, StateAccess, StoreSize, notes};
use crate::connect::kafka::KafkaLog;
use crate::connect::{Broker, LogError, StoreSchema, TopicPartition, TopicRole};
use crate::limits::STORE_SCAN_BYTES_MAX;
use std::collections::{BTreeMap, HashSet};
use std::ops::RangeBounds;
use std::sync::Arc;

/// One fetch of a changelog.
const FETCH_BYTES: usize = 4 << 20;
/// What a row costs in memory beside its bytes.
const ROW_BYTES: usize = 128;

/// The stores of a cluster.
pub struct ChangelogState {
    log: Arc<KafkaLog>,
}

/// A store that is read.
struct Scanned {
    topic: Arc<str>,
    partitions: u32,
    stage: String,
    schema: StoreSchema,
    /// How far its tasks have come.
    notes: Vec<Notes>,
}

/// Sees a partition's changes: a key, and its row, or none where it counts no more.
type Visit<'v> = dyn FnMut(u32, &[u8], Option<&[u8]>) -> Result<(), QueryError> + 'v;

impl ChangelogState {
    /// Of this cluster.
    pub fn new(log: Arc<KafkaLog>) -> ChangelogState {
        ChangelogState { log }
    }

    fn scanned(&self, changelog: &str) -> Result<Scanned, QueryError> {
        let topic = self.log.topic(changelog)?.spec;
        let no_store = || QueryError::NoStore {
            topic: changelog.to_owned(),
        };
        let Some(TopicRole::Changelog {
            pipeline,
            stage,
            schemas,
            ..
        }) = topic.role.as_deref()
        else {
            return Err(no_store());
        };
        Ok(Scanned {
            topic: changelog.into(),
            partitions: topic.partitions,
            stage: stage.clone(),
            schema: schemas.last().ok_or_else(no_store)?.clone(),
            // Before the rows: a window that closes meanwhile may be shown or not, but none that is open is left out.
            notes: notes(&*self.log, pipeline, topic.partitions)?,
        })
    }

    /// Shows all changes of a store, those of a key in their order, with whether the row counts no more.
    fn each(&self, store: &Scanned, visit: &mut Visit<'_>) -> Result<(), QueryError> {
        let changelogs = self.log.kafka_changelogs();
        for (partition, notes) in (0..store.partitions).zip(&store.notes) {
            let past = Past::of(&store.schema, notes, &store.stage);
            let tp = TopicPartition::new(store.topic.clone(), partition);
            let (mut from, end) = changelogs.ends(&tp)?;
            while from < end {
                let fetched = changelogs.fetch(&tp, from, FETCH_BYTES)?;
                for record in fetched.records() {
                    let Some(key) = record.key else { continue };
                    let row = record.value.filter(|row| !past.holds(key, row));
                    visit(partition, key, row)?;
                }
                if fetched.next_offset() <= from {
                    return Err(stuck(&tp, from).into());
                }
                from = fetched.next_offset();
            }
        }
        Ok(())
    }
}

fn stuck(tp: &TopicPartition, at: u64) -> LogError {
    LogError::Unavailable {
        detail: format!("{tp} cannot be read behind offset {at}, though there is more: try again"),
    }
}

impl StateAccess for ChangelogState {
    fn rows(&self, query: &RowQuery, visit: &mut dyn FnMut(FoundRow<'_>) -> bool) -> Result<(), QueryError> {
        let store = self.scanned(&query.changelog)?;
        let windowed = store.schema.window_size_ms.is_some();
        let range = query.range(store.schema.window_size_ms);
        let bounds = (
            range.from.as_ref().map(Vec::as_slice),
            range.to.as_ref().map(Vec::as_slice),
        );
        let mut rows: BTreeMap<(Vec<u8>, u32), Vec<u8>> = BTreeMap::new();
        let mut bytes = 0;
        self.each(&store, &mut |partition, key, row| {
            let in_range = RangeBounds::<[u8]>::contains(&bounds, key);
            if !in_range || !query.wants(key, windowed) {
                return Ok(());
            }
            let size = |row: &Vec<u8>| key.len() + row.len() + ROW_BYTES;
            let place = (key.to_vec(), partition);
            let before = match row.filter(|row| RowRef::parse(row).is_some()) {
                Some(row) => {
                    bytes += key.len() + row.len() + ROW_BYTES;
                    rows.insert(place, row.to_vec())
                }
                None => rows.remove(&place),
            };
            bytes -= before.as_ref().map_or(0, size);
            if bytes > STORE_SCAN_BYTES_MAX {
                return Err(QueryError::TooMany {
                    topic: query.changelog.clone(),
                    bytes_max: STORE_SCAN_BYTES_MAX,
                });
            }
            Ok(())
        })?;
        let is_before = |place: &(Vec<u8>, u32)| query.after.as_ref().is_some_and(|after| place <= after);
        for ((key, partition), row) in rows.iter().skip_while(|(place, _)| is_before(place)) {
            let found = FoundRow {
                partition: *partition,
                key,
                row,
            };
            if !visit(found) {
                break;
            }
        }
        Ok(())
    }

    fn size(&self, changelog: &str) -> Result<StoreSize, QueryError> {
        let store = self.scanned(changelog)?;
        // A hash of 128 bits in place of each key: that two are the same does not happen.
        let mut keys: HashSet<u128> = HashSet::new();
        self.each(&store, &mut |partition, key, row| {
            let hash = xxhash_rust::xxh3::xxh3_128_with_seed(key, partition.into());
            match row {
                Some(_) => keys.insert(hash),
                None => keys.remove(&hash),
            };
            Ok(())
        })?;
        Ok(StoreSize {
            rows: keys.len() as u64,
            bytes: 0,
        })
    }

    fn drop_store(&self, _changelog: &str) -> Result<(), QueryError> {
        // Local stores lie with the hosts, which find by themselves that the changelog is another one.
        Ok(())
    }

    fn running(&self) -> Result<Vec<String>, QueryError> {
        // Whoever runs a pipeline is a member of its group, and that is known by itself.
        Ok(Vec::new())
    }
}
