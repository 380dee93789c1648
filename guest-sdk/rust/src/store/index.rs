//! Where in a store's memory a key is.

use std::hash::{Hash, Hasher};

/// An odd number without a pattern in its bits: the golden ratio's fraction, as in Knuth's multiplicative hashing.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Buckets that are kept from call to call; more are given back.
const KEPT_BUCKETS_MAX: usize = 1 << 16;

/// A fast hash of a key, by multiplication. It does not withstand keys that are made to collide; a call has few, and
/// a deadline.
#[inline]
pub(super) fn hash<Q: Hash + ?Sized>(key: &Q) -> u32 {
    let mut hasher = Multiplying(0);
    key.hash(&mut hasher);
    (hasher.finish() >> 32) as u32
}

struct Multiplying(u64);

impl Multiplying {
    #[inline]
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(MULTIPLIER);
    }
}

impl Hasher for Multiplying {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for &word in words {
            self.add(u64::from_le_bytes(word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.add(u64::from_le_bytes(word) ^ (rest.len() as u64) << 56);
        }
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.add(value.into());
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.add(value.into());
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }

    #[inline]
    fn write_i64(&mut self, value: i64) {
        self.add(value as u64);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    /// All bits of the product count in its upper half only: it is folded, and multiplied once more.
    #[inline]
    fn finish(&self) -> u64 {
        (self.0 ^ (self.0 >> 32)).wrapping_mul(MULTIPLIER)
    }
}

/// A hash table of positions, with linear probing. What lies at the positions is the store's; nothing is ever taken
/// out but everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// Position and 1; 0 is free. A power of two of them, or none.
    buckets: Vec<u32>,
    taken: usize,
}

impl Index {
    /// The position that `is` says is the one, or the bucket that is free for it.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut is: impl FnMut(usize) -> bool) -> Result<usize, usize> {
        let mask = self.buckets.len().wrapping_sub(1);
        let mut bucket = hash as usize & mask;
        loop {
            match self.buckets.get(bucket) {
                Some(0) | None => return Err(bucket),
                Some(&position) if is(position as usize - 1) => return Ok(position as usize - 1),
                Some(_) => bucket = (bucket + 1) & mask,
            }
        }
    }

    /// Whether there must be more buckets before one more position is put into one.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.taken * 2 >= self.buckets.len()
    }

    /// Doubles the buckets. `hashes` are those of the positions from 0.
    #[cold]
    pub(super) fn grow(&mut self, hashes: impl Iterator<Item = u32>) {
        let buckets = (self.buckets.len() * 2).max(64);
        self.buckets.clear();
        self.buckets.resize(buckets, 0);
        self.taken = 0;
        for (position, hash) in hashes.enumerate() {
            if let Err(bucket) = self.find(hash, |_| false) {
                self.put(bucket, position);
            }
        }
    }

    /// Puts a position into a bucket that `find` said is free.
    #[inline]
    pub(super) fn put(&mut self, bucket: usize, position: usize) {
        self.buckets[bucket] = position as u32 + 1;
        self.taken += 1;
    }

    pub(super) fn clear(&mut self) {
        if self.taken == 0 {
            return;
        }
        if self.buckets.len() > KEPT_BUCKETS_MAX {
            self.buckets = Vec::new();
        } else {
            self.buckets.fill(0);
        }
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_where_it_was_put() {
        let keys: Vec<i64> = (0..5000).map(|number: i64| number.pow(3) << 20).collect();
        let mut index = Index::default();
        for (position, key) in keys.iter().enumerate() {
            if index.is_full() {
                index.grow(keys[..position].iter().map(hash));
            }
            let bucket = index.find(hash(key), |at| keys[at] == *key).unwrap_err();
            index.put(bucket, position);
        }
        for (position, key) in keys.iter().enumerate() {
            assert_eq!(index.find(hash(key), |at| keys[at] == *key), Ok(position));
        }
        assert!(index.find(hash(&-1_i64), |at| keys[at] == -1).is_err());
        index.clear();
        assert!(index.find(hash(&keys[7]), |_| true).is_err());
    }

    /// With half of the buckets free, a fair hash probes one and a half buckets for a key.
    #[test]
    fn keys_with_a_pattern_do_not_crowd() {
        type Pattern = (&'static str, fn(u64) -> u64);
        let patterns: [Pattern; 4] = [
            ("in a row", |n| n),
            ("high bits", |n| n << 48),
            ("steps", |n| n * 1000),
            ("floats", |n| (n as f64).to_bits()),
        ];
        for (name, key) in patterns {
            let mut used = vec![0_u32; 4096];
            for n in 0..2048 {
                used[hash(&key(n)) as usize % 4096] += 1;
            }
            let most = used.iter().max().unwrap();
            assert!(*most <= 10, "{name}: {most} keys in one bucket");
        }
        let texts: std::collections::HashSet<u32> = (0..5000).map(|n| hash(&*format!("vendor-{n}"))).collect();
        assert!(texts.len() > 4990, "{} hashes of 5000 texts", texts.len());
        assert_eq!(
            hash("ab"),
            hash(&"ab".to_owned()),
            "a key is found by what it borrows as"
        );
    }
}
