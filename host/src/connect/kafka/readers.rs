//! Readers of partitions that stay open from one read to the next, as many as there is room for.

use crate::connect::TopicPartition;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A partition that is being read, or was lately; locked while it is.
pub(super) type SharedReader<R> = Arc<Mutex<Option<R>>>;

/// The partitions that are read, or were lately.
pub(super) struct Readers<R> {
    most: usize,
    used: Mutex<Used<R>>,
}

struct Used<R> {
    /// With the number of the last use.
    by_place: HashMap<TopicPartition, (SharedReader<R>, u64)>,
    uses: u64,
}

impl<R> Readers<R> {
    /// At most so many, beside those that are in use.
    pub fn new(most: usize) -> Readers<R> {
        let used = Used {
            by_place: HashMap::new(),
            uses: 0,
        };
        Readers {
            most,
            used: Mutex::new(used),
        }
    }

    /// The reader of a partition, or room for one; what was not used for longest is given up.
    pub fn of(&self, tp: &TopicPartition) -> SharedReader<R> {
        let mut readers = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        readers.uses += 1;
        let uses = readers.uses;
        let entry = readers.by_place.entry(tp.clone());
        let (reader, used) = entry.or_insert_with(|| (Arc::default(), 0));
        *used = uses;
        let reader = reader.clone();
        while readers.by_place.len() > self.most {
            let unused = readers
                .by_place
                .iter()
                .filter(|(place, (shared, _))| *place != tp && Arc::strong_count(shared) == 1);
            let oldest = unused
                .min_by_key(|(_, (_, used))| *used)
                .map(|(place, _)| place.clone());
            match oldest {
                Some(oldest) => readers.by_place.remove(&oldest),
                None => break,
            };
        }
        reader
    }
}
