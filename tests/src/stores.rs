//! What stores hold in the end, as others than their tasks read it, and as their changelogs say it.

use std::collections::BTreeMap;
use std::path::Path;

use millstream::connect::{EmbeddedLog, TopicPartition};
use millstream::state::STATE_FOLDER;
use millstream::state::database::KeyRange;
use millstream::state::{CommittedStore, StateDb, StateOptions};

use crate::read_topic;

/// Keys and rows of one partition.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The committed rows of a store by partition, read from the local store and what the changelog has behind it.
///
/// # Panics
/// If they cannot be read, or the local store was damaged.
pub fn committed_rows(dir: &Path, log: &EmbeddedLog, changelogs: &[&str]) -> Vec<Vec<Rows>> {
    let opened = StateDb::open(&dir.join(STATE_FOLDER), StateOptions::default()).expect("the local store opens");
    assert_eq!(opened.set_aside, None, "the local store is sound");
    let of_partition = |changelog: &str, partition: u32| {
        let place = TopicPartition::new(changelog, partition);
        let store = CommittedStore::open(&opened.db, log, &place, &KeyRange::all());
        let store = store.unwrap_or_else(|error| panic!("{changelog} {partition}: {error}"));
        let rows = store.rows(&KeyRange::all(), |_, _| false).expect("rows");
        let rows = rows.map(|row| row.unwrap_or_else(|error| panic!("{changelog} {partition}: {error}")));
        rows.map(|(key, row)| (key.to_vec(), row.to_vec())).collect()
    };
    let of_store = |changelog: &&str| {
        let topic = log.topic(changelog).unwrap_or_else(|error| panic!("{error}"));
        (0..topic.spec.partitions)
            .map(|partition| of_partition(changelog, partition))
            .collect()
    };
    let rows = changelogs.iter().map(of_store).collect();
    opened.db.close();
    rows
}

/// A changelog as a table, by partition: the last value of each key.
///
/// # Panics
/// If it cannot be read, or has been purged.
pub fn changelog_rows(log: &EmbeddedLog, changelog: &str) -> Vec<Rows> {
    let topic = log.topic(changelog).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        topic.partition_ranges.iter().all(|range| range.first_offset == 0),
        "it is whole"
    );
    let partitions = read_topic(log, changelog).into_iter();
    let table = partitions.map(|records| {
        let mut rows = Rows::new();
        for record in records {
            let key = record.key.expect("a store's records have keys");
            match record.value {
                Some(row) => rows.insert(key, row),
                None => rows.remove(&key),
            };
        }
        rows
    });
    table.collect()
}
