//! Stores: typed maps that outlive a call. The host keeps them, one for each partition.

mod entry;
mod index;
mod scan;

use std::borrow::Borrow;
use std::cell::Cell;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use crate::schema;
use crate::state;
use crate::stored::{Key, Stored, table};
use index::Index;

pub use entry::Entry;
pub use scan::Scan;

/// Keys that are asked for in one call of the host: what they and their values take must fit into the guest's memory
/// twice.
const KEYS_PER_CALL: usize = 1 << 16;

thread_local! {
    /// The row that is being processed, a number of its own for each; 0 where rows are not told apart.
    static ROW: Cell<u64> = const { Cell::new(0) };
    static ROWS: Cell<u64> = const { Cell::new(0) };
}

/// A map that outlives the call, kept by the host: what one batch writes, the next one of the same partition reads.
/// A field of the plugin; `#[derive(Config, Plugin)]` sees it by its type, and it is no setting.
///
/// Keys are given by reference: `&ride.vendor`, and a `&str` where the key is a `String`. What is asked for is fetched
/// from the host, and kept until the call ends; a call of the host costs far more than a row, so a processor says in
/// [`Processor::prefetch`](crate::Processor::prefetch) which keys a row will ask for, and all those of a batch are
/// fetched at once. A key that was not announced is fetched when it is asked for. What was changed is written once, when
/// the call has succeeded. A row whose `process` returns an error leaves no change.
///
/// ```
/// use millstream_sdk::prelude::*;
/// use millstream_sdk::testing::Tester;
/// use serde_json::json;
///
/// #[derive(Config, Plugin)]
/// struct CountByVendor {
///     counts: Store<i64, i64>,
/// }
///
/// #[derive(Fields)]
/// struct Ride {
///     #[field(path = "/VendorID")]
///     vendor: i64,
/// }
///
/// #[derive(Branches)]
/// enum Out {
///     #[branch(value = new)]
///     Counted { vendor: i64, count: i64 },
/// }
///
/// impl Processor for CountByVendor {
///     type Input = Ride;
///     type Output = Out;
///
///     fn prefetch(&mut self, ride: Ride) {
///         self.counts.prefetch(&ride.vendor);
///     }
///
///     fn process(&mut self, ride: Ride, out: &mut Output<Out>) -> Result<()> {
///         let count = self.counts.entry(&ride.vendor).or_default();
///         *count += 1;
///         out.emit(Out::Counted { vendor: ride.vendor, count: *count });
///         Ok(())
///     }
/// }
///
/// let mut tester = Tester::<CountByVendor>::new(json!({})).unwrap();
/// tester.process("input", [json!({"VendorID": 1}), json!({"VendorID": 2}), json!({"VendorID": 1})]).unwrap();
/// assert_eq!(tester.rows::<i64, i64>("counts"), [(1, 2), (2, 1)]);
/// ```
///
/// `#[store(…)]` on the field says more:
///
/// | attribute | meaning |
/// | --- | --- |
/// | `name = "…"` | the store's name; otherwise the field's, with hyphens |
/// | `ordered` | keys can be gone through in their order: [`Store::scan`] |
/// | `time_to_live = Duration::from_hours(24)` | a row that was not written again for so long is gone, in stream time |
///
/// Where a setting says so, [`Processor::signature`](crate::Processor::signature) changes
/// `signature.store_mut("…")`. A plugin that is made in a `configure` of its own makes its stores by [`Store::new`]
/// and names them in [`Plugin::stores`](crate::Plugin::stores).
pub struct Store<K, V> {
    declared: Declared,
    /// The store's number, and whether it is ordered, once the plugin is configured.
    opened: Option<Opened>,
    index: Index,
    slots: Vec<Slot<K, V>>,
    /// Slots whose values are yet to be fetched, and perhaps some that are no longer.
    pending: Vec<usize>,
    /// What the row `undo_row` changed.
    undo: Vec<Undo<V>>,
    undo_row: u64,
}

#[derive(Clone, Debug)]
struct Declared {
    name: String,
    ordered: bool,
    time_to_live: Duration,
}

#[derive(Clone, Debug)]
struct Opened {
    number: u32,
    ordered: bool,
    key: Vec<schema::Field>,
    value: Vec<schema::Field>,
}

/// What is known of a key.
struct Slot<K, V> {
    key: K,
    hash: u32,
    value: Value<V>,
    changed: bool,
    /// The row that put this slot into `undo` last.
    saved_in: u64,
}

#[derive(Clone)]
enum Value<V> {
    /// Not fetched yet.
    Unknown,
    Absent,
    Present(V),
}

struct Undo<V> {
    slot: usize,
    value: Value<V>,
    changed: bool,
}

impl<K, V> fmt::Debug for Store<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("name", &self.declared.name)
            .field("keys", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl<K: Key, V: Stored> Store<K, V> {
    /// A store with a name: lower case, digits and hyphens.
    pub fn new(name: impl Into<String>) -> Store<K, V> {
        Store {
            declared: Declared {
                name: name.into(),
                ordered: false,
                time_to_live: Duration::ZERO,
            },
            opened: None,
            index: Index::default(),
            slots: Vec::new(),
            pending: Vec::new(),
            undo: Vec::new(),
            undo_row: 0,
        }
    }

    /// The store, ordered: [`Store::scan`] may be called. An unordered store is cheaper.
    #[must_use]
    pub fn ordered(mut self) -> Store<K, V> {
        self.declared.ordered = true;
        self
    }

    /// The store, without the rows that were not written again for so long, in stream time.
    #[must_use]
    pub fn time_to_live(mut self, time_to_live: Duration) -> Store<K, V> {
        self.declared.time_to_live = time_to_live;
        self
    }

    /// Says that a key will be asked for. It is fetched with all others of which this was said, once the first of them
    /// is asked for.
    #[inline]
    pub fn prefetch<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.find(key);
    }

    /// The value of a key.
    #[inline]
    pub fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let slot = self.fetched(key);
        self.slots[slot].value.present()
    }

    /// Whether there is a value for a key.
    #[inline]
    pub fn contains<Q>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.get(key).is_some()
    }

    /// The value of a key, to be changed in place. It is written at the end, changed or not.
    #[inline]
    pub fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let slot = self.fetched(key);
        match self.slots[slot].value {
            Value::Present(_) => self.change(slot).present_mut(),
            _ => None,
        }
    }

    /// The place of a key, for what depends on whether there is a value: `entry(&key).or_default()`.
    #[inline]
    pub fn entry<Q>(&mut self, key: &Q) -> Entry<'_, K, V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let slot = self.fetched(key);
        Entry::new(self, slot)
    }

    /// Sets the value of a key. What was there is not fetched for it.
    #[inline]
    pub fn insert<Q>(&mut self, key: &Q, value: V)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let slot = self.find(key);
        *self.change(slot) = Value::Present(value);
    }

    /// Takes a key out. What was there is not fetched for it.
    #[inline]
    pub fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let slot = self.find(key);
        *self.change(slot) = Value::Absent;
    }

    /// The slot of a key, which is perhaps not fetched.
    #[inline]
    fn find<Q>(&mut self, key: &Q) -> usize
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = index::hash(key);
        let is = |slot: usize| self.slots[slot].hash == hash && self.slots[slot].key.borrow() == key;
        match self.index.find(hash, is) {
            Ok(slot) => slot,
            Err(bucket) => self.add(key.to_owned(), hash, bucket),
        }
    }

    fn add(&mut self, key: K, hash: u32, mut bucket: usize) -> usize {
        // A store that is never shown would lose what is written.
        self.opened();
        if self.index.is_full() {
            self.index.grow(self.slots.iter().map(|slot| slot.hash));
            bucket = self.index.find(hash, |_| false).unwrap_or_else(|bucket| bucket);
        }
        let slot = self.slots.len();
        self.index.put(bucket, slot);
        self.slots.push(Slot {
            key,
            hash,
            value: Value::Unknown,
            changed: false,
            saved_in: 0,
        });
        self.pending.push(slot);
        slot
    }

    /// The slot of a key, fetched.
    #[inline]
    fn fetched<Q>(&mut self, key: &Q) -> usize
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let slot = self.find(key);
        if matches!(self.slots[slot].value, Value::Unknown) {
            self.fetch();
        }
        slot
    }

    #[cold]
    fn fetch(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|&slot| matches!(self.slots[slot].value, Value::Unknown));
        let opened = self.opened();
        let mut fetched = Vec::with_capacity(pending.len());
        for slots in pending.chunks(KEYS_PER_CALL) {
            let keys = table(&opened.key, slots.iter().map(|&slot| &self.slots[slot].key));
            let found = state::get(opened.number, &keys);
            let rows = slots.len();
            if found.values.rows as usize != rows || !(found.absent.is_empty() || found.absent.len() == rows) {
                self.broken(format_args!("{} values came for {rows} keys", found.values.rows));
            }
            let columns = V::columns(&found.values).unwrap_or_else(|problem| self.broken(problem));
            fetched.extend((0..rows).map(|row| match found.absent.get(row) {
                Some(1) => Value::Absent,
                _ => Value::Present(V::read(&columns, row)),
            }));
        }
        for (slot, value) in pending.drain(..).zip(fetched) {
            self.slots[slot].value = value;
        }
        // The memory serves the next batch.
        self.pending = pending;
    }

    /// The value of a slot, which will be written; what it was before is kept in case the row fails.
    #[inline]
    fn change(&mut self, slot: usize) -> &mut Value<V> {
        let row = ROW.get();
        let at = &mut self.slots[slot];
        if at.saved_in != row {
            at.saved_in = row;
            if self.undo_row != row {
                self.undo.clear();
                self.undo_row = row;
            }
            self.undo.push(Undo {
                slot,
                value: at.value.clone(),
                changed: at.changed,
            });
        }
        at.changed = true;
        &mut at.value
    }

    #[inline]
    fn opened(&self) -> &Opened {
        match &self.opened {
            Some(opened) => opened,
            None => panic!(
                "the store {:?} is not among those that the plugin names in `Plugin::stores`",
                self.declared.name
            ),
        }
    }

    #[cold]
    fn broken(&self, problem: impl fmt::Display) -> ! {
        panic!("store {:?}: {problem}", self.declared.name)
    }

    fn clear(&mut self) {
        self.index.clear();
        self.slots.clear();
        self.pending.clear();
        self.undo.clear();
        self.undo_row = 0;
    }
}

impl<V> Value<V> {
    #[inline]
    fn present(&self) -> Option<&V> {
        match self {
            Value::Present(value) => Some(value),
            _ => None,
        }
    }

    #[inline]
    fn present_mut(&mut self) -> Option<&mut V> {
        match self {
            Value::Present(value) => Some(value),
            _ => None,
        }
    }
}

/// A store, whatever it holds: what the SDK does with the stores of a plugin.
pub trait AnyStore {
    /// What the plugin says of it.
    #[doc(hidden)]
    fn declare(&self) -> schema::Store;

    /// Tells it its number, and what became of its declaration.
    #[doc(hidden)]
    fn open(&mut self, number: u32, declared: &schema::Store);

    /// Forgets everything: a call begins, or has failed.
    #[doc(hidden)]
    fn forget(&mut self);

    /// Takes back what the current row changed.
    #[doc(hidden)]
    fn undo(&mut self);

    /// Writes what was changed.
    #[doc(hidden)]
    fn flush(&mut self);
}

impl<K: Key, V: Stored> AnyStore for Store<K, V> {
    fn declare(&self) -> schema::Store {
        schema::Store {
            name: self.declared.name.clone(),
            key: K::fields("key"),
            value: V::fields("value"),
            ordered: self.declared.ordered,
            time_to_live: u64::try_from(self.declared.time_to_live.as_millis()).unwrap_or(u64::MAX),
            carry_over: V::carry_over("value"),
        }
    }

    fn open(&mut self, number: u32, declared: &schema::Store) {
        self.opened = Some(Opened {
            number,
            ordered: declared.ordered,
            key: declared.key.clone(),
            value: declared.value.clone(),
        });
    }

    fn forget(&mut self) {
        self.clear();
    }

    fn undo(&mut self) {
        if self.undo_row != ROW.get() {
            return;
        }
        for before in self.undo.drain(..) {
            if matches!(before.value, Value::Unknown) {
                self.pending.push(before.slot);
            }
            let slot = &mut self.slots[before.slot];
            slot.value = before.value;
            slot.changed = before.changed;
            slot.saved_in = 0;
        }
    }

    fn flush(&mut self) {
        let changed = |slot: &&Slot<K, V>| slot.changed;
        if !self.slots.iter().any(|slot| slot.changed) {
            return self.clear();
        }
        let opened = self.opened();
        let (mut keys, mut values, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for slot in self.slots.iter().filter(changed) {
            match &slot.value {
                Value::Present(value) => {
                    keys.push(&slot.key);
                    values.push(value);
                }
                _ => gone.push(&slot.key),
            }
        }
        for (keys, values) in keys.chunks(KEYS_PER_CALL).zip(values.chunks(KEYS_PER_CALL)) {
            let (keys, values) = (keys.iter().copied(), values.iter().copied());
            state::put(opened.number, &table(&opened.key, keys), &table(&opened.value, values));
        }
        for keys in gone.chunks(KEYS_PER_CALL) {
            state::delete(opened.number, &table(&opened.key, keys.iter().copied()));
        }
        self.clear();
    }
}

/// What is changed from here belongs to another row.
#[inline]
pub(crate) fn next_row() {
    let row = ROWS.get() + 1;
    ROWS.set(row);
    ROW.set(row);
}

/// What is changed from here belongs to no row, and is not taken back.
#[inline]
pub(crate) fn no_row() {
    ROW.set(0);
}
