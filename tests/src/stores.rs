//! What stores hold in the end, as others than their tasks read it, and as their changelogs say it.

use std::collections::BTreeMap;
use std::path::Path;

use millstream::connect::{EmbeddedLog, TopicPartition};
use millstream::state::database::KeyRange;
use millstream::state::{Changelog, STATE_FOLDER};
use millstream::state::{CommittedStore, StateDb, StateOptions};

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

/// A changelog as a table: the last value of each key.
///
/// # Panics
/// If it cannot be read, or has been purged.
pub fn changelog_rows(log: &dyn Changelog, place: &TopicPartition) -> Rows {
    let (first, end) = log.ends(place).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(first, 0, "it is whole");
    let mut rows = Rows::new();
    let mut position = first;
    while position < end {
        let fetched = log.fetch(place, position, 1 << 20).expect("the changelog can be read");
        for record in fetched.records() {
            let key = record.key.expect("a store's records have keys");
            match record.value {
                Some(row) => rows.insert(key.to_vec(), row.to_vec()),
                None => rows.remove(key),
            };
        }
        position = fetched.next_offset();
    }
    rows
}
