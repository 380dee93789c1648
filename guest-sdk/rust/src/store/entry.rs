//! The place of a key.

use super::{Store, Value};
use crate::stored::{Key, Stored};

/// The place of a key in a store, with or without a value.
pub struct Entry<'s, K, V> {
    store: &'s mut Store<K, V>,
    slot: usize,
}

impl<K, V> std::fmt::Debug for Entry<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl<'s, K: Key, V: Stored> Entry<'s, K, V> {
    #[inline]
    pub(super) fn new(store: &'s mut Store<K, V>, slot: usize) -> Self {
        Entry { store, slot }
    }

    /// The value, if there is one.
    #[inline]
    pub fn get(&self) -> Option<&V> {
        self.store.slots[self.slot].value.present()
    }

    /// The value; where there is none, that of the type's default is put there.
    #[inline]
    pub fn or_default(self) -> &'s mut V
    where
        V: Default,
    {
        self.or_insert_with(V::default)
    }

    /// The value; where there is none, `value` is put there.
    #[inline]
    pub fn or_insert(self, value: V) -> &'s mut V {
        self.or_insert_with(|| value)
    }

    /// The value; where there is none, what `value` makes is put there.
    #[inline]
    pub fn or_insert_with(self, value: impl FnOnce() -> V) -> &'s mut V {
        let at = self.store.change(self.slot);
        if !matches!(at, Value::Present(_)) {
            *at = Value::Present(value());
        }
        match at {
            Value::Present(value) => value,
            _ => unreachable!("it was put there"),
        }
    }

    /// Changes the value, if there is one.
    #[inline]
    #[must_use]
    pub fn and_modify(self, change: impl FnOnce(&mut V)) -> Self {
        if let Value::Present(_) = self.store.slots[self.slot].value
            && let Value::Present(value) = self.store.change(self.slot)
        {
            change(value);
        }
        self
    }
}
