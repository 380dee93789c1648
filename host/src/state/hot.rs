//! The rows of one store that a task has in memory.
//!
//! A task owns them; nobody else reads them, so there is no lock. A row is in one *slot*, found by its key:
//!
//! ```text
//!          put, delete               commit                        flush
//! absent ─────────────▶ pending ──────────────▶ committed, dirty ─────────▶ committed, clean ──▶ evicted
//!                          │ undo, abort                                          ▲                  │
//!                          ▼                                                      └── read by a get ─┘
//!                       as before
//! ```
//!
//! *Pending* is what was written since the last commit. A call of a plugin that fails is undone alone; a commit that
//! fails is undone as a whole. *Dirty* rows are in the changelog and not yet in the local store ([`Cold`]): they stay.
//! Clean ones may go, the ones first that were not asked for lately (the clock, or second chance, algorithm).

mod walk;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::Bound;

use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;

use super::codec::{RowRef, read_start};
use crate::window::StreamTime;

pub use walk::WindowCursor;

/// Most keys and rows are numbers: they need no memory of their own.
type Small = SmallVec<[u8; 24]>;

/// What a slot takes beside bytes that do not fit into it: itself, its place in the index, and some room in both.
const SLOT_BYTES: usize = std::mem::size_of::<Slot>() + 16;

/// A key and its row.
pub type KeyedRow = (Vec<u8>, Vec<u8>);

/// The rows that are not in memory.
pub trait Cold {
    /// The row of a key.
    ///
    /// # Errors
    /// Where the local store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ColdError>;

    /// The first rows from a bound on, in the order of their keys; fewer than `limit` only at the end.
    ///
    /// # Errors
    /// Where the local store cannot be read.
    fn range(&self, from: Bound<&[u8]>, limit: usize) -> Result<Vec<KeyedRow>, ColdError>;
}

/// The local store cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ColdError(pub String);

/// When rows of a store are past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windowing {
    /// Never.
    Forever,
    /// With the window whose start their keys begin with.
    Windows,
    /// So many milliseconds of stream time after they were written.
    TimeToLive(i64),
}

/// What is known of a key as of the last commit.
#[derive(Debug)]
enum Committed {
    /// It may be in the local store.
    Unknown,
    Absent,
    Row(Small),
}

/// What was done to a key since the last commit.
#[derive(Debug)]
enum Pending {
    Nothing,
    Row(Small),
    Deleted,
}

#[derive(Debug)]
struct Slot {
    key: Small,
    committed: Committed,
    pending: Pending,
    /// The commit that changed it last; 0: it is as in the local store.
    changed: u32,
    /// The call that wrote it last.
    call: u32,
    /// Its place in the list of its window.
    at: u32,
    /// Asked for since the hand of the clock passed it.
    asked: bool,
}

/// The rows of one store and one task; see the module.
#[derive(Debug)]
pub struct Hot {
    windowing: Windowing,
    hasher: DefaultHashBuilder,
    index: HashTable<u32>,
    /// Of an ordered store: its keys.
    order: Option<BTreeMap<Small, u32>>,
    /// Of a store with windows: the slots of each.
    windows: BTreeMap<i64, Vec<u32>>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Slots with something pending, in the order in which they were first written.
    pending: Vec<u32>,
    pending_bytes: usize,
    /// What the current call changed: the slot, what was pending before, and whether the slot is listed since this call.
    undo: Vec<(u32, Pending, bool)>,
    call: u32,
    commit: u32,
    flushed: u32,
    /// Whether every row is here, so that what is not here is nowhere.
    complete: bool,
    bytes: usize,
    dirty_bytes: usize,
    hand: usize,
}

impl Hot {
    /// An empty one. `complete` says that the local store has no row either.
    pub fn new(windowing: Windowing, ordered: bool, complete: bool) -> Hot {
        Hot {
            windowing,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            order: ordered.then(BTreeMap::new),
            windows: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            undo: Vec::new(),
            call: 0,
            commit: 0,
            flushed: 0,
            complete,
            bytes: 0,
            dirty_bytes: 0,
            hand: 0,
        }
    }

    /// Bytes that its rows take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of keys and rows that are not in the local store, as of the last commit.
    pub fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Bytes that were written since the last commit.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Slots in memory, of absent keys too.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing is in memory.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The row of a key, as this task has written it.
    ///
    /// # Errors
    /// Where it is not in memory and the local store cannot be read.
    pub fn get(&mut self, key: &[u8], now: StreamTime, cold: &dyn Cold) -> Result<Option<&[u8]>, ColdError> {
        self.get_at(None, key, now, cold)
    }

    /// Where keys are in memory, for [`Hot::get_at`]. They are looked up one right behind the other, so that the
    /// processor waits for the memory of several at once.
    pub fn find_all<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Vec<Option<u32>> {
        keys.map(|key| self.find(key)).collect()
    }

    /// As [`Hot::get`], for a key that was found at this place. Nothing but this may have been called since.
    ///
    /// # Errors
    /// As [`Hot::get`].
    pub fn get_at(
        &mut self,
        place: Option<u32>,
        key: &[u8],
        now: StreamTime,
        cold: &dyn Cold,
    ) -> Result<Option<&[u8]>, ColdError> {
        // What was not found may be there since the key came before.
        let at = match place.or_else(|| self.find(key)) {
            Some(at) => at,
            None => {
                let committed = if self.complete { None } else { cold.get(key)? };
                let committed = committed.map_or(Committed::Absent, |row| Committed::Row(Small::from_vec(row)));
                self.insert(key, committed)
            }
        };
        if let Some(slot) = self.slots[at as usize].as_mut() {
            slot.asked = true;
        }
        let windowing = self.windowing;
        let row = self.slots[at as usize].as_ref().and_then(Slot::row);
        Ok(row.filter(|row| !is_past(windowing, row, now)))
    }

    /// Writes a row.
    pub fn put(&mut self, key: &[u8], row: &[u8]) {
        self.change(key, Pending::Row(Small::from_slice(row)));
    }

    /// Removes a row, if there is one.
    pub fn delete(&mut self, key: &[u8]) {
        self.change(key, Pending::Deleted);
    }

    /// Drops the windows that start before `before_ms`: what is in them counts no more.
    pub fn drop_windows(&mut self, before_ms: i64) {
        let open = self.windows.split_off(&before_ms);
        let closed = std::mem::replace(&mut self.windows, open);
        for at in closed.into_values().flatten() {
            self.remove_from_index(at);
        }
    }

    /// A call begins: what it writes can be undone.
    pub fn begin_call(&mut self) {
        self.call = self.call.wrapping_add(1);
        self.undo.clear();
    }

    /// The call failed: what it wrote is as before it.
    pub fn undo_call(&mut self) {
        while let Some((at, before, listed)) = self.undo.pop() {
            let Some(slot) = self.slots[at as usize].as_mut() else {
                continue;
            };
            let now = std::mem::replace(&mut slot.pending, before);
            slot.call = self.call.wrapping_sub(1);
            let (key, before) = (slot.key.len(), slot.pending.bytes());
            self.pending_bytes -= key + now.bytes();
            if listed {
                self.pending.pop();
                self.bytes -= heap(&now);
                self.forget_if_unknown(at);
            } else {
                self.pending_bytes += key + before;
                self.bytes = self.bytes + heap_of(self.slots[at as usize].as_ref()) - heap(&now);
            }
        }
    }

    /// What was written since the last commit: keys with their rows, or none where they were deleted.
    pub fn pending(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.pending.iter().filter_map(|&at| {
            let slot = self.slots[at as usize].as_ref()?;
            match (&slot.pending, &slot.committed) {
                (Pending::Row(row), _) => Some((&slot.key[..], Some(&row[..]))),
                (Pending::Nothing, _) | (Pending::Deleted, Committed::Absent) => None,
                (Pending::Deleted, _) => Some((&slot.key[..], None)),
            }
        })
    }

    /// Whether nothing was written since the last commit.
    pub fn is_unchanged(&self) -> bool {
        self.pending.is_empty()
    }

    /// The commit is true. Returns its number, for [`Hot::flushed`].
    pub fn committed(&mut self) -> u32 {
        self.commit += 1;
        self.undo.clear();
        self.pending_bytes = 0;
        for at in std::mem::take(&mut self.pending) {
            let Some(slot) = self.slots[at as usize].as_mut() else {
                continue;
            };
            if matches!((&slot.pending, &slot.committed), (Pending::Deleted, Committed::Absent)) {
                // Not in the changelog: it stays as clean as it was.
                slot.pending = Pending::Nothing;
                continue;
            }
            let was_dirty = slot.changed > self.flushed;
            let before = slot.committed.bytes();
            self.bytes -= slot.committed.heap();
            slot.committed = match std::mem::replace(&mut slot.pending, Pending::Nothing) {
                Pending::Row(row) => Committed::Row(row),
                Pending::Deleted | Pending::Nothing => Committed::Absent,
            };
            slot.changed = self.commit;
            let key = slot.key.len();
            self.dirty_bytes += slot.committed.bytes() + key;
            if was_dirty {
                self.dirty_bytes -= before + key;
            }
        }
        self.commit
    }

    /// The commit failed: everything is as of the last one.
    pub fn abort(&mut self) {
        self.undo.clear();
        self.pending_bytes = 0;
        for at in std::mem::take(&mut self.pending) {
            if let Some(slot) = self.slots[at as usize].as_mut() {
                let pending = std::mem::replace(&mut slot.pending, Pending::Nothing);
                self.bytes -= heap(&pending);
                self.forget_if_unknown(at);
            }
        }
    }

    /// Takes a committed change as it stands in the changelog: at a restart, or where it was not known whether a commit
    /// had become true.
    pub fn replay(&mut self, key: &[u8], row: Option<&[u8]>) {
        match row {
            Some(row) => self.put(key, row),
            None => self.delete(key),
        }
    }

    /// The local store holds everything up to the commit of this number.
    pub fn flushed(&mut self, commit: u32) {
        self.flushed = commit;
        let dirty = self.slots.iter().flatten().filter(|slot| slot.changed > commit);
        self.dirty_bytes = dirty.map(|slot| slot.key.len() + slot.committed.bytes()).sum();
    }

    /// Makes room: drops clean rows, until at most `bytes_max` are taken or no clean row is left.
    pub fn evict(&mut self, bytes_max: usize) {
        // Twice around: the first time those that were asked for only lose their mark.
        let mut left = self.slots.len() * 2;
        while self.bytes > bytes_max && left > 0 && !self.slots.is_empty() {
            left -= 1;
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(slot) = self.slots[self.hand].as_mut() else {
                continue;
            };
            if slot.changed > self.flushed || !matches!(slot.pending, Pending::Nothing) {
                continue;
            }
            if std::mem::take(&mut slot.asked) {
                continue;
            }
            if matches!(slot.committed, Committed::Row(_)) {
                self.complete = false;
            }
            self.remove(self.hand as u32);
        }
    }

    /// Everything that is in memory goes, and what the local store has counts.
    pub fn clear(&mut self, complete: bool) {
        let ordered = self.order.is_some();
        *self = Hot::new(self.windowing, ordered, complete);
    }

    fn change(&mut self, key: &[u8], pending: Pending) {
        let at = match self.find(key) {
            Some(at) => at,
            None => {
                let committed = if self.complete {
                    Committed::Absent
                } else {
                    Committed::Unknown
                };
                self.insert(key, committed)
            }
        };
        let slot = self.slots[at as usize].as_mut().expect("it was found or made");
        slot.asked = true;
        let listed = matches!(slot.pending, Pending::Nothing);
        if listed {
            self.pending.push(at);
        } else {
            self.pending_bytes -= key.len() + slot.pending.bytes();
        }
        self.pending_bytes += key.len() + pending.bytes();
        self.bytes = self.bytes + heap(&pending) - heap(&slot.pending);
        let before = std::mem::replace(&mut slot.pending, pending);
        if slot.call != self.call || listed {
            slot.call = self.call;
            self.undo.push((at, before, listed));
        }
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let is_it = |&at: &u32| matches!(&self.slots[at as usize], Some(slot) if *slot.key == *key);
        self.index.find(hash, is_it).copied()
    }

    fn insert(&mut self, key: &[u8], committed: Committed) -> u32 {
        let slot = Slot {
            key: Small::from_slice(key),
            committed,
            pending: Pending::Nothing,
            changed: 0,
            call: self.call.wrapping_sub(1),
            at: 0,
            asked: true,
        };
        self.bytes += SLOT_BYTES + slot.heap();
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                u32::try_from(self.slots.len() - 1).expect("memory is bounded far below four billion rows")
            }
        };
        let hasher = &self.hasher;
        let slots = &self.slots;
        let rehash = |&at: &u32| {
            slots[at as usize]
                .as_ref()
                .map_or(0, |slot| hasher.hash_one(&slot.key[..]))
        };
        self.index.insert_unique(hasher.hash_one(key), at, rehash);
        if let Some(order) = &mut self.order {
            order.insert(Small::from_slice(key), at);
        }
        if self.windowing == Windowing::Windows
            && let Some((start, _)) = read_start(key)
        {
            let window = self.windows.entry(start).or_default();
            window.push(at);
            let place = window.len() as u32 - 1;
            if let Some(slot) = self.slots[at as usize].as_mut() {
                slot.at = place;
            }
        }
        at
    }

    /// A key of which only what was pending is known is forgotten with that.
    fn forget_if_unknown(&mut self, at: u32) {
        if matches!(&self.slots[at as usize], Some(slot) if matches!(slot.committed, Committed::Unknown)) {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: u32) {
        if let Some(slot) = &self.slots[at as usize]
            && let Some((start, _)) = read_start(&slot.key).filter(|_| self.windowing == Windowing::Windows)
            && let Some(window) = self.windows.get_mut(&start)
        {
            let place = slot.at;
            window.swap_remove(place as usize);
            match window.get(place as usize).copied() {
                Some(moved) => {
                    if let Some(slot) = self.slots[moved as usize].as_mut() {
                        slot.at = place;
                    }
                }
                None if window.is_empty() => {
                    self.windows.remove(&start);
                }
                None => {}
            }
        }
        self.remove_from_index(at);
    }

    fn remove_from_index(&mut self, at: u32) {
        let Some(slot) = self.slots[at as usize].take() else {
            return;
        };
        if let Ok(entry) = self
            .index
            .find_entry(self.hasher.hash_one(&slot.key[..]), |&other| other == at)
        {
            entry.remove();
        }
        if let Some(order) = &mut self.order {
            order.remove(&slot.key);
        }
        self.bytes -= SLOT_BYTES + slot.heap();
        if slot.changed > self.flushed {
            self.dirty_bytes = self.dirty_bytes.saturating_sub(slot.key.len() + slot.committed.bytes());
        }
        self.free.push(at);
    }
}

/// Whether a row counts no more.
fn is_past(windowing: Windowing, row: &[u8], now: StreamTime) -> bool {
    let Windowing::TimeToLive(time_to_live_ms) = windowing else {
        return false;
    };
    match (now.get(), RowRef::parse(row)) {
        (Some(now), Some(row)) => row.timestamp_ms.saturating_add(time_to_live_ms) <= now,
        _ => false,
    }
}

/// Bytes of its own.
fn heap(pending: &Pending) -> usize {
    match pending {
        Pending::Row(row) => spilled(row),
        Pending::Nothing | Pending::Deleted => 0,
    }
}

fn heap_of(slot: Option<&Slot>) -> usize {
    slot.map_or(0, |slot| heap(&slot.pending))
}

fn spilled(bytes: &Small) -> usize {
    if bytes.spilled() { bytes.capacity() } else { 0 }
}

impl Slot {
    /// The row as this task has written it.
    fn row(&self) -> Option<&[u8]> {
        match (&self.pending, &self.committed) {
            (Pending::Row(row), _) | (Pending::Nothing, Committed::Row(row)) => Some(row),
            _ => None,
        }
    }

    fn heap(&self) -> usize {
        spilled(&self.key) + self.committed.heap() + heap(&self.pending)
    }
}

impl Committed {
    fn bytes(&self) -> usize {
        match self {
            Committed::Row(row) => row.len(),
            Committed::Unknown | Committed::Absent => 0,
        }
    }

    fn heap(&self) -> usize {
        match self {
            Committed::Row(row) => spilled(row),
            Committed::Unknown | Committed::Absent => 0,
        }
    }
}

impl Pending {
    fn bytes(&self) -> usize {
        match self {
            Pending::Row(row) => row.len(),
            Pending::Nothing | Pending::Deleted => 0,
        }
    }
}

#[cfg(test)]
mod tests;
