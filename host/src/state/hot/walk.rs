//! Rows in the order of their keys: those in memory and those in the local store, as one.

use std::iter::Peekable;
use std::ops::Bound;
use std::vec::IntoIter;

use super::{Cold, ColdError, Hot, KeyedRow, is_past};
use crate::state::codec::{read_start, start_bytes};
use crate::window::StreamTime;

impl Hot {
    /// Rows of an ordered store whose keys begin with `prefix`, behind the key `after`, at most `limit`; and whether
    /// these are the last.
    ///
    /// # Errors
    /// Where the local store cannot be read.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        now: StreamTime,
        cold: &dyn Cold,
    ) -> Result<(Vec<KeyedRow>, bool), ColdError> {
        let from = match after.filter(|&after| after >= prefix) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let mut found = Vec::new();
        let complete = self.merged(from, cold, |key, row| {
            if !key.starts_with(prefix) {
                return false;
            }
            if found.len() == limit {
                return false;
            }
            if !is_past(self.windowing, row, now) {
                found.push((key.to_vec(), row.to_vec()));
            }
            true
        })?;
        let complete = match complete {
            End::Reached => true,
            End::Stopped(key) => !key.starts_with(prefix),
        };
        Ok((found, complete))
    }

    /// The first window that starts from `from_ms` on and before `before_ms` and has a row.
    ///
    /// # Errors
    /// Where the local store cannot be read.
    pub fn next_window(&self, from_ms: i64, before_ms: i64, cold: &dyn Cold) -> Result<Option<i64>, ColdError> {
        if from_ms >= before_ms {
            return Ok(None);
        }
        let hot = self.windows.range(from_ms..before_ms).map(|(start, _)| *start).next();
        let mut first = hot;
        if !self.complete {
            let rows = cold.range(Bound::Included(&start_bytes(from_ms)), 1)?;
            let cold = rows.first().and_then(|(key, _)| Some(read_start(key)?.0));
            first = hot.into_iter().chain(cold.filter(|&start| start < before_ms)).min();
        }
        Ok(first)
    }

    /// The rows of a window, in the order of their keys, behind the key `after`.
    pub fn window(&self, start_ms: i64, after: Option<&[u8]>) -> WindowCursor {
        let slots = self.windows.get(&start_ms).map_or(&[][..], Vec::as_slice);
        let key = |at: &u32| self.slots[*at as usize].as_ref().map_or(&[][..], |slot| &slot.key[..]);
        let mut slots: Vec<u32> = slots
            .iter()
            .copied()
            .filter(|at| after.is_none_or(|after| key(at) > after))
            .collect();
        slots.sort_unstable_by(|a, b| key(a).cmp(key(b)));
        WindowCursor {
            start_ms,
            slots: slots.into_iter().peekable(),
            cold: Vec::new().into_iter().peekable(),
            cold_after: (!self.complete).then(|| match after {
                Some(after) => Bound::Excluded(after.to_vec()),
                None => Bound::Included(start_bytes(start_ms).to_vec()),
            }),
        }
    }

    /// The next rows of a window, at most `limit`; none at its end. Nothing may have been written or dropped since the
    /// cursor was made.
    ///
    /// # Errors
    /// Where the local store cannot be read.
    pub fn window_rows(
        &self,
        cursor: &mut WindowCursor,
        limit: usize,
        cold: &dyn Cold,
    ) -> Result<Vec<KeyedRow>, ColdError> {
        let mut rows = Vec::new();
        while rows.len() < limit {
            if cursor.cold.peek().is_none()
                && let Some(after) = cursor.cold_after.take()
            {
                let mut more = cold.range(after.as_ref().map(Vec::as_slice), COLD_ROWS)?;
                let end = more.len() < COLD_ROWS;
                let last = more.last().map(|(key, _)| key.clone());
                let of_window = |key: &[u8]| read_start(key).is_some_and(|(start, _)| start == cursor.start_ms);
                let is_end = end || !last.as_deref().is_some_and(of_window);
                more.retain(|(key, _)| of_window(key));
                cursor.cold_after = last.filter(|_| !is_end).map(Bound::Excluded);
                cursor.cold = more.into_iter().peekable();
                continue;
            }
            let slot = cursor.slots.peek().and_then(|&at| self.slots[at as usize].as_ref());
            let hot_first = match (slot, cursor.cold.peek()) {
                (None, None) => break,
                (Some(slot), Some((key, _))) => slot.key[..] <= key[..],
                (slot, _) => slot.is_some(),
            };
            let Some(slot) = slot.filter(|_| hot_first) else {
                rows.extend(cursor.cold.next());
                continue;
            };
            // The one in memory is as new or newer.
            cursor.cold.next_if(|(key, _)| key[..] == slot.key[..]);
            cursor.slots.next();
            rows.extend(slot.row().map(|row| (slot.key.to_vec(), row.to_vec())));
        }
        Ok(rows)
    }

    /// Goes through the rows of an ordered store, here and in the local store, until `take` says that it is enough.
    fn merged(
        &self,
        from: Bound<&[u8]>,
        cold: &dyn Cold,
        mut take: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<End, ColdError> {
        let Some(order) = &self.order else {
            return Ok(End::Reached);
        };
        let mut hot = order.range::<[u8], _>((from, Bound::Unbounded)).peekable();
        let mut stopped = None;
        let mut give = |key: &[u8], row: &[u8]| {
            let more = take(key, row);
            if !more {
                stopped = Some(key.to_vec());
            }
            more
        };
        let give_hot = |at: u32, give: &mut dyn FnMut(&[u8], &[u8]) -> bool| {
            let slot = self.slots[at as usize].as_ref();
            match slot.and_then(|slot| Some((&slot.key[..], slot.row()?))) {
                Some((key, row)) => give(key, row),
                None => true,
            }
        };
        if !self.complete {
            let mut enough = false;
            self.cold_rows(from, cold, |key, row| {
                while let Some((_, at)) = hot.next_if(|(hot, _)| &hot[..] < key) {
                    if !give_hot(*at, &mut give) {
                        enough = true;
                        return false;
                    }
                }
                // The one in memory is as new or newer.
                let more = match hot.next_if(|(hot, _)| &hot[..] == key) {
                    Some((_, at)) => give_hot(*at, &mut give),
                    None => give(key, row),
                };
                enough = !more;
                more
            })?;
            if enough {
                return Ok(stopped.map_or(End::Reached, End::Stopped));
            }
        }
        for (_, at) in hot {
            if !give_hot(*at, &mut give) {
                break;
            }
        }
        Ok(stopped.map_or(End::Reached, End::Stopped))
    }

    fn cold_rows(
        &self,
        from: Bound<&[u8]>,
        cold: &dyn Cold,
        mut take: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), ColdError> {
        let mut rows = cold.range(from, COLD_ROWS)?;
        loop {
            for (key, row) in &rows {
                if !take(key, row) {
                    return Ok(());
                }
            }
            if rows.len() < COLD_ROWS {
                return Ok(());
            }
            let last = rows.pop().map(|(key, _)| key).unwrap_or_default();
            rows = cold.range(Bound::Excluded(&last), COLD_ROWS)?;
        }
    }
}

/// Where one is in the rows of a window.
#[derive(Debug)]
pub struct WindowCursor {
    start_ms: i64,
    /// What is in memory, in the order of keys.
    slots: Peekable<IntoIter<u32>>,
    /// What was read of the local store.
    cold: Peekable<IntoIter<KeyedRow>>,
    /// What is to be read there next.
    cold_after: Option<Bound<Vec<u8>>>,
}

/// Rows that are read from the local store at a time.
const COLD_ROWS: usize = 256;

/// How a walk over rows ended.
enum End {
    /// There are no more.
    Reached,
    /// At this key, which was not taken.
    Stopped(Vec<u8>),
}
