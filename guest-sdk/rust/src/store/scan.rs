//! The rows of an ordered store, one after the other.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;

use super::{Store, Value};
use crate::state;
use crate::stored::{Key, Stored, table};
use crate::table::Table;

/// Rows of the first page; each page is twice the one before, as those who ask for more may want all.
const FIRST_PAGE_ROWS: u32 = 64;
const PAGE_ROWS_MAX: u32 = 4096;

impl<K: Key + Ord, V: Stored> Store<K, V> {
    /// The rows whose keys begin with `prefix`, in the order of the keys: `()` for all rows; a value for the first field
    /// of the key; a row that derives `Fields` for the first fields. What the call changed so far is seen. Rows are
    /// fetched as they are asked for.
    ///
    /// The order is that of the store, field by field: a key that is a struct has its fields in the same order as its
    /// derived [`Ord`].
    ///
    /// ```
    /// use millstream_sdk::prelude::*;
    ///
    /// #[derive(Fields, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
    /// struct Ride {
    ///     zone: String,
    ///     at: Time,
    /// }
    ///
    /// fn last_fare(fares: &mut Store<Ride, f64>, zone: &str) -> Option<f64> {
    ///     fares.scan(zone.to_owned()).last().map(|(_, fare)| fare)
    /// }
    /// ```
    ///
    /// # Panics
    /// If the store is not ordered, or its key does not begin with such fields.
    pub fn scan<P: Stored + PartialEq>(&mut self, prefix: P) -> Scan<'_, K, V> {
        let opened = self.opened();
        let name = &self.declared.name;
        assert!(opened.ordered, "the store {name:?} is not ordered: `#[store(ordered)]`");
        let fields = P::fields("prefix");
        let fits = fields.len() <= opened.key.len()
            && fields
                .iter()
                .zip(&opened.key)
                .all(|(one, other)| one.type_ == other.type_ && one.optional == other.optional);
        assert!(
            fits,
            "the key of the store {name:?} does not begin with the fields of this prefix"
        );
        let own = self.own_changes(&prefix, fields.len());
        let prefix = table(&fields, std::iter::once(&prefix));
        Scan {
            store: self,
            prefix,
            own,
            page: VecDeque::new(),
            after: None,
            page_rows: FIRST_PAGE_ROWS,
            complete: false,
        }
    }

    /// The slots with that prefix which the call has changed, in the order of their keys.
    fn own_changes<P: Stored + PartialEq>(&self, prefix: &P, prefix_fields: usize) -> VecDeque<usize> {
        let changed = (0..self.slots.len()).filter(|&slot| self.slots[slot].changed);
        let mut changed: Vec<usize> = changed.collect();
        let keys = changed.iter().map(|&slot| &self.slots[slot].key);
        let mut keys = table(&self.opened().key, keys.collect::<Vec<_>>().into_iter());
        keys.columns.truncate(prefix_fields);
        let columns = P::columns(&keys).unwrap_or_else(|problem| self.broken(problem));
        let mut row = 0..changed.len();
        changed.retain(|_| row.next().is_some_and(|row| P::read(&columns, row) == *prefix));
        changed.sort_by(|&one, &other| self.slots[one].key.cmp(&self.slots[other].key));
        changed.into()
    }
}

/// The rows of [`Store::scan`].
pub struct Scan<'s, K, V> {
    store: &'s Store<K, V>,
    prefix: Table,
    /// Slots that the call has changed, which stand for what the host has.
    own: VecDeque<usize>,
    page: VecDeque<(K, V)>,
    after: Option<K>,
    page_rows: u32,
    complete: bool,
}

impl<K, V> fmt::Debug for Scan<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl<K: Key + Ord, V: Stored> Scan<'_, K, V> {
    fn next_page(&mut self) {
        let opened = self.store.opened();
        let after = table(&opened.key, self.after.as_slice().iter());
        let scanned = state::scan(opened.number, &self.prefix, &after, self.page_rows);
        let rows = scanned.keys.rows;
        if scanned.values.rows != rows || (rows == 0 && !scanned.complete) {
            let values = scanned.values.rows;
            self.store
                .broken(format_args!("a scan found {rows} keys with {values} values"));
        }
        let keys = K::columns(&scanned.keys).unwrap_or_else(|problem| self.store.broken(problem));
        let values = V::columns(&scanned.values).unwrap_or_else(|problem| self.store.broken(problem));
        let read = |row| (K::read(&keys, row), V::read(&values, row));
        self.page.extend((0..rows as usize).map(read));
        self.after = self.page.back().map(|(key, _)| key.clone());
        self.complete = scanned.complete;
        self.page_rows = (self.page_rows * 2).min(PAGE_ROWS_MAX);
    }
}

impl<K: Key + Ord, V: Stored> Iterator for Scan<'_, K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        loop {
            if self.page.is_empty() && !self.complete {
                self.next_page();
            }
            let own = self.own.front().map(|&slot| &self.store.slots[slot]);
            let order = match (own, self.page.front()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(own), Some((key, _))) => own.key.cmp(key),
            };
            if order == Ordering::Greater {
                return self.page.pop_front();
            }
            self.own.pop_front();
            if order == Ordering::Equal {
                self.page.pop_front();
            }
            if let Some(own) = own
                && let Value::Present(value) = &own.value
            {
                return Some((own.key.clone(), value.clone()));
            }
        }
    }
}
