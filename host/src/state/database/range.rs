//! A stretch of keys.

use std::ops::Bound;

/// From one key to another, within a partition of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first.
    pub from: Bound<Vec<u8>>,
    /// The last.
    pub to: Bound<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        KeyRange {
            from: Bound::Unbounded,
            to: Bound::Unbounded,
        }
    }

    /// Keys that begin with these bytes.
    pub fn prefix(prefix: &[u8]) -> Self {
        // The next prefix is where the last byte that can be counted up is, and nothing behind it.
        let mut next = prefix.to_vec();
        while next.last() == Some(&u8::MAX) {
            next.pop();
        }
        let to = match next.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(next)
            }
            None => Bound::Unbounded,
        };
        KeyRange {
            from: Bound::Included(prefix.to_vec()),
            to,
        }
    }

    /// The same, without keys up to this one.
    pub fn after(mut self, key: &[u8]) -> Self {
        let before = match &self.from {
            Bound::Included(from) => key < from.as_slice(),
            Bound::Excluded(from) => key <= from.as_slice(),
            Bound::Unbounded => false,
        };
        if !before {
            self.from = Bound::Excluded(key.to_vec());
        }
        self
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        let behind = match &self.from {
            Bound::Included(from) => key >= from.as_slice(),
            Bound::Excluded(from) => key > from.as_slice(),
            Bound::Unbounded => true,
        };
        let before = match &self.to {
            Bound::Included(to) => key <= to.as_slice(),
            Bound::Excluded(to) => key < to.as_slice(),
            Bound::Unbounded => true,
        };
        behind && before
    }

    /// Whether it can have no key: the engine takes no such range.
    pub(in crate::state) fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        }
    }

    /// The same among the keys of all partitions.
    pub(super) fn of_partition(&self, partition: u32) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let key = |key: &Vec<u8>| [&partition.to_be_bytes()[..], key].concat();
        let from = match &self.from {
            Bound::Included(from) => Bound::Included(key(from)),
            Bound::Excluded(from) => Bound::Excluded(key(from)),
            Bound::Unbounded => Bound::Included(partition.to_be_bytes().to_vec()),
        };
        let to = match &self.to {
            Bound::Included(to) => Bound::Included(key(to)),
            Bound::Excluded(to) => Bound::Excluded(key(to)),
            Bound::Unbounded => match partition.checked_add(1) {
                Some(next) => Bound::Excluded(next.to_be_bytes().to_vec()),
                None => Bound::Unbounded,
            },
        };
        (from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_keys() {
        let range = KeyRange::prefix(b"ab");
        for (key, inside) in [("ab", true), ("abz", true), ("aa", false), ("ac", false), ("a", false)] {
            assert_eq!(range.contains(key.as_bytes()), inside, "{key}");
        }
        let after = range.clone().after(b"abc");
        assert!(!after.contains(b"abc") && after.contains(b"abd") && !after.contains(b"ab"));
        assert_eq!(range.clone().after(b"aa"), range);
        assert_eq!(KeyRange::prefix(b"a\xff\xff").to, Bound::Excluded(b"b".to_vec()));
        assert_eq!(KeyRange::prefix(b"\xff").to, Bound::Unbounded);
        assert!(KeyRange::prefix(b"\xff").contains(b"\xff\xff"));
        assert_eq!(KeyRange::prefix(b"").to, Bound::Unbounded);
        assert!(KeyRange::prefix(b"ab").after(b"b").is_empty());
        assert!(!KeyRange::all().is_empty() && !range.is_empty());
    }
}
