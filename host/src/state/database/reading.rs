//! Reading rows of a store, as it is now or as it was when a snapshot was taken.

use super::error::{Place, StateError};
use super::merge::{Entry, Merge};
use super::range::KeyRange;
use super::store::Store;
use crate::connect::embedded::stopped;
use crate::state::segment::{Segmenting, key_time};
use bytes::Bytes;
use fjall::{Keyspace, Readable, Snapshot};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is seen of a keyspace.
#[derive(Clone, Copy)]
pub(super) enum View<'a> {
    Latest,
    At(&'a Snapshot),
}

impl View<'_> {
    fn get(self, keyspace: &Keyspace, key: &[u8]) -> fjall::Result<Option<fjall::Slice>> {
        match self {
            View::Latest => keyspace.get(key),
            View::At(snapshot) => snapshot.get(keyspace, key),
        }
    }

    fn range(self, keyspace: &Keyspace, range: (Bound<Vec<u8>>, Bound<Vec<u8>>)) -> fjall::Iter {
        match self {
            View::Latest => keyspace.range::<Vec<u8>, _>(range),
            View::At(snapshot) => snapshot.range::<Vec<u8>, _>(keyspace, range),
        }
    }
}

/// Calls into the engine where it reads files: it has assertions on their bytes.
pub(super) fn guarded<T>(place: Place<'_>, read: impl FnOnce() -> fjall::Result<T>) -> Result<T, StateError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(outcome) => outcome.map_err(|error| place.read_error(&error)),
        Err(panic) => Err(place.damaged(stopped(&*panic))),
    }
}

/// The row of a key.
pub(super) fn get(view: View<'_>, store: &Store, place: Place<'_>, key: &[u8]) -> Result<Option<Bytes>, StateError> {
    let full_key = [&place.partition.to_be_bytes()[..], key].concat();
    let get = |keyspace: &Keyspace| guarded(place, || view.get(keyspace, &full_key));
    let found = match store.segmenting {
        Segmenting::None => match &store.whole {
            Some(whole) => get(&whole.keyspace)?,
            None => None,
        },
        Segmenting::ByKeyTime { .. } => {
            let start = key_time(key).and_then(|time| store.segmenting.segment_of(time));
            let start = start.filter(|start| *start >= store.needed_from(place.partition));
            match start.and_then(|start| store.segments.get(&start)) {
                Some(segment) => get(&segment.keyspace)?,
                None => None,
            }
        }
        Segmenting::ByRowTime { .. } => {
            let mut found = None;
            for (_, segment) in store.newest_first(place.partition) {
                found = get(&segment.keyspace)?;
                if found.is_some() {
                    break;
                }
            }
            found.filter(|row| !row.is_empty())
        }
    };
    Ok(found.map(Bytes::from_owner))
}

/// Rows of a stretch of keys, in their order.
pub(super) fn scan(view: View<'_>, store: &Store, place: Place<'_>, range: &KeyRange) -> Result<Rows, StateError> {
    let mut sources = Vec::new();
    if !range.is_empty() {
        for (start, segment) in store.newest_first(place.partition) {
            if start.is_some_and(|start| !reaches(range, store.segmenting, start)) {
                continue;
            }
            let bounds = range.of_partition(place.partition);
            sources.push(SegmentRows {
                iter: guarded(place, || Ok(view.range(&segment.keyspace, bounds)))?,
                store: place.store.to_string(),
                partition: place.partition,
                marks_deletes: store.marks_deletes(),
            });
        }
    }
    Ok(Rows(Merge::new(sources)))
}

/// Whether keys of a range can lie in a segment, where keys say so.
fn reaches(range: &KeyRange, segmenting: Segmenting, start: i64) -> bool {
    if !matches!(segmenting, Segmenting::ByKeyTime { .. }) {
        return true;
    }
    let segment_of = |bound: &Bound<Vec<u8>>| match bound {
        Bound::Included(key) | Bound::Excluded(key) => key_time(key).and_then(|time| segmenting.segment_of(time)),
        Bound::Unbounded => None,
    };
    let after = segment_of(&range.from).is_some_and(|from| start < from);
    let before = segment_of(&range.to).is_some_and(|to| start > to);
    !after && !before
}

/// Rows of a store in the order of their keys, read as they are asked for. Ends at the first error.
pub struct Rows(Merge<SegmentRows, StateError>);

impl Iterator for Rows {
    type Item = Result<(Bytes, Bytes), StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl Rows {
    pub(super) fn none() -> Self {
        Rows(Merge::new([]))
    }
}

/// Rows of one keyspace.
struct SegmentRows {
    iter: fjall::Iter,
    store: String,
    partition: u32,
    marks_deletes: bool,
}

impl Iterator for SegmentRows {
    type Item = Result<Entry, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = Place {
            store: &self.store,
            partition: self.partition,
        };
        let next = guarded(place, || self.iter.next().map(|guard| guard.into_inner()).transpose());
        let (key, row) = match next.transpose()? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        if key.len() < 4 {
            return Some(Err(place.damaged("a key without a partition")));
        }
        let row = (!self.marks_deletes || !row.is_empty()).then(|| Bytes::from_owner(row));
        Some(Ok((Bytes::from_owner(key).slice(4..), row)))
    }
}
