//! Which partition a record goes to: by its key as Java clients choose it, so that a topic that both write to stays
//! partitioned by key.

/// Chooses partitions for one producer: keyed records by their key, all others of a call to the same partition, so
/// that a call makes few and large blocks.
#[derive(Clone, Debug)]
pub struct Partitioner {
    partitions: u32,
    sticky: u32,
}

impl Partitioner {
    /// For a topic of so many partitions; the first call's records without a key go to partition `start` of them.
    pub fn new(partitions: u32, start: u32) -> Self {
        let partitions = partitions.max(1);
        Partitioner {
            partitions,
            sticky: start % partitions,
        }
    }

    /// The partition for a record with this key.
    pub fn partition(&self, key: Option<&[u8]>) -> u32 {
        match key {
            Some(key) => partition_of(key, self.partitions),
            None => self.sticky,
        }
    }

    /// The next call begins: records without a key go to the next partition.
    pub fn next_call(&mut self) {
        self.sticky = (self.sticky + 1) % self.partitions;
    }
}

/// The partition of a key, of so many.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// The 32-bit hash that Kafka's Java clients partition by: MurmurHash2 (Austin Appleby, public domain) with the seed
/// 0x9747b28c.
pub fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_in_java() {
        // The values that Kafka's own clients test against.
        for (key, hash) in [
            (&b"21"[..], -973_932_308i32),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key) as i32, hash, "{key:?}");
        }
    }

    #[test]
    fn records_without_a_key_stay_together_for_a_call() {
        let mut partitioner = Partitioner::new(3, 5);
        assert_eq!(partitioner.partition(None), 2);
        assert_eq!(partitioner.partition(Some(b"21")), partition_of(b"21", 3));
        partitioner.next_call();
        assert_eq!(partitioner.partition(None), 0);
    }
}
