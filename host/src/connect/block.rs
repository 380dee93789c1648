//! Blocks: runs of records in one run of bytes, as they lie in the log, on the local socket and in a reader's memory.
//!
//! ```text
//!  0  magic "MBLK"      8  crc32 of all that follows    24  largest timestamp   40  records, one behind the other
//!  4  version (1)      12  number of records (u32)      32  appended at
//!  5  flags (0)        16  timestamp of the first
//!  6  zero (u16)           (times: i64, milliseconds since the epoch)
//!
//! a record: zig-zag(timestamp − timestamp of the first) · key length + 1 (0 is null) · key
//!           · value length + 1 (0 is null) · value · headers length · headers as `record::Headers` encodes them
//! ```
//!
//! Numbers in the head are little-endian, lengths and zig-zags LEB128. A block does not know its offset: the log gives
//! it at commit, so that blocks are built and summed where the records are made, not by the one thread that commits.

use crate::limits::{BLOCK_BYTES_MAX, DERIVED_RECORD_BYTES_MAX, RECORD_BYTES_MAX};
use crate::record::{HeadersRef, RecordRef, write_varint};
use bytes::Bytes;

/// Bytes before the first record of a block.
pub const BLOCK_HEAD_BYTES: usize = 40;
/// The block version that is written.
pub const BLOCK_VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"MBLK";
const CRC_FROM: usize = 12;

/// Why bytes are not a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Fewer bytes than a head.
    #[error("the block ends within its head: {length} bytes of {BLOCK_HEAD_BYTES}")]
    TooShort {
        /// Bytes there are.
        length: usize,
    },
    /// The first bytes are not a block's.
    #[error("the bytes do not begin as a block does")]
    Magic,
    /// Written by a newer version of the program.
    #[error("the block has version {found}, this program reads version {BLOCK_VERSION}")]
    Version {
        /// The version in the head.
        found: u8,
    },
    /// Flags that this version does not know.
    #[error("the block has flags {found:#04x} that this program does not know")]
    Flags {
        /// The flags in the head.
        found: u8,
    },
    /// Bytes were changed after the block was written.
    #[error("checksum mismatch: written as {expected:08x}, read as {found:08x}")]
    Checksum {
        /// In the head.
        expected: u32,
        /// Of the bytes.
        found: u32,
    },
    /// The sum holds, but the bytes are not records.
    #[error("record {index} of the block does not parse")]
    Record {
        /// Its place in the block, from 0.
        index: u32,
    },
    /// The sum holds, but bytes follow the last record.
    #[error("{extra} bytes behind the last record of the block")]
    Extra {
        /// How many.
        extra: usize,
    },
}

/// A record that is larger than a log takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of {bytes} bytes (key, value and headers) is larger than {RECORD_BYTES_MAX}: make it smaller")]
pub struct RecordTooLarge {
    /// Key, value and headers.
    pub bytes: usize,
}

/// A finished block and how many records it has.
#[derive(Clone, Debug)]
pub struct Block {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u32,
    pub(crate) timestamp_max: i64,
}

/// Makes blocks of records; begins a new one at [`BLOCK_BYTES_MAX`].
#[derive(Clone, Debug, Default)]
pub struct BlockBuilder {
    finished: Vec<Block>,
    open: Vec<u8>,
    count: u32,
    timestamp_first: i64,
    timestamp_max: i64,
    records: u64,
    bytes: usize,
}

impl BlockBuilder {
    /// Without any record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies a record behind the others; its offset is not looked at.
    ///
    /// # Errors
    /// Where the record is larger than a log takes; the builder is as before.
    pub fn push(&mut self, record: RecordRef<'_>) -> Result<(), RecordTooLarge> {
        self.push_bounded(record, RECORD_BYTES_MAX)
    }

    /// As [`BlockBuilder::push`], for what a pipeline makes of a record that the log has taken: it may have grown by a
    /// key and headers ([`DERIVED_RECORD_BYTES_MAX`]), and must not be refused for it.
    ///
    /// # Errors
    /// Where the record has grown by more; the builder is as before.
    pub fn push_derived(&mut self, record: RecordRef<'_>) -> Result<(), RecordTooLarge> {
        self.push_bounded(record, DERIVED_RECORD_BYTES_MAX)
    }

    fn push_bounded(&mut self, record: RecordRef<'_>, bytes_max: usize) -> Result<(), RecordTooLarge> {
        let bytes = record.size_bytes();
        if bytes > bytes_max {
            return Err(RecordTooLarge { bytes });
        }
        if self.count > 0 && self.open.len() + bytes > BLOCK_BYTES_MAX {
            self.finish_block();
        }
        if self.count == 0 {
            self.open.resize(BLOCK_HEAD_BYTES, 0);
            self.timestamp_first = record.timestamp_ms;
            self.timestamp_max = record.timestamp_ms;
        }
        self.timestamp_max = self.timestamp_max.max(record.timestamp_ms);
        let open = &mut self.open;
        let before = open.len();
        write_varint(open, zigzag(record.timestamp_ms.wrapping_sub(self.timestamp_first)));
        for part in [record.key, record.value] {
            match part {
                None => open.push(0),
                Some(part) => {
                    write_varint(open, part.len() as u64 + 1);
                    open.extend_from_slice(part);
                }
            }
        }
        let headers = record.headers.encoded();
        write_varint(open, headers.len() as u64);
        open.extend_from_slice(headers);
        self.bytes += open.len() - before;
        self.count += 1;
        self.records += 1;
        Ok(())
    }

    /// Records so far.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of the encoded records so far, heads of blocks left out.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Shows the records in their order, each at offset 0.
    pub fn each(&self, mut visit: impl FnMut(RecordRef<'_>)) {
        let finished = self.finished.iter().map(|block| {
            let first = i64::from_le_bytes(block.bytes[16..24].try_into().unwrap_or_default());
            (&block.bytes[..], first)
        });
        let open = (self.count > 0).then_some((&self.open[..], self.timestamp_first));
        for (bytes, timestamp_first) in finished.chain(open) {
            let mut at = BLOCK_HEAD_BYTES;
            while at < bytes.len() {
                let slot = parse_record(bytes, &mut at).expect("it was written here");
                let timestamp_ms = timestamp_first.wrapping_add(slot.timestamp_ms);
                visit(Slot { timestamp_ms, ..slot }.lend(bytes));
            }
        }
    }

    /// Adds a block that somebody else built.
    ///
    /// # Errors
    /// Where the bytes are not a block, or hold no record.
    pub fn push_block(&mut self, bytes: Vec<u8>) -> Result<(), BlockError> {
        let mut slots = Vec::new();
        let head = parse_block(&bytes, 0, 0, 0, &mut slots)?;
        if head.count == 0 {
            return Err(BlockError::TooShort { length: bytes.len() });
        }
        self.finish_block();
        self.records += u64::from(head.count);
        self.bytes += bytes.len() - BLOCK_HEAD_BYTES;
        self.finished.push(Block {
            bytes,
            count: head.count,
            timestamp_max: head.timestamp_max,
        });
        Ok(())
    }

    /// The blocks.
    pub fn finish(mut self) -> Vec<Block> {
        self.finish_block();
        self.finished
    }

    fn finish_block(&mut self) {
        if self.count == 0 {
            return;
        }
        let mut bytes = std::mem::take(&mut self.open);
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = BLOCK_VERSION;
        bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.timestamp_first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.timestamp_max.to_le_bytes());
        bytes[32..40].copy_from_slice(&crate::record::now_ms().to_le_bytes());
        let crc = crc32fast::hash(&bytes[CRC_FROM..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        self.finished.push(Block {
            bytes,
            count: self.count,
            timestamp_max: self.timestamp_max,
        });
        self.count = 0;
    }
}

/// The head of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHead {
    pub(crate) count: u32,
    pub(crate) timestamp_first: i64,
    pub(crate) timestamp_max: i64,
    pub(crate) appended_ms: i64,
}

/// Reads a block's head; its records are not looked at and its sum is not checked.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<BlockHead, BlockError> {
    if bytes.len() < BLOCK_HEAD_BYTES {
        return Err(BlockError::TooShort { length: bytes.len() });
    }
    if bytes[..4] != MAGIC {
        return Err(BlockError::Magic);
    }
    if bytes[4] != BLOCK_VERSION {
        return Err(BlockError::Version { found: bytes[4] });
    }
    if bytes[5] != 0 {
        return Err(BlockError::Flags { found: bytes[5] });
    }
    let i64_at = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    Ok(BlockHead {
        count: u32_at(bytes, 12),
        timestamp_first: i64_at(16),
        timestamp_max: i64_at(24),
        appended_ms: i64_at(32),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

const NULL: u32 = u32::MAX;

/// Where a record's parts lie in its block.
#[derive(Clone, Copy, Debug)]
struct Slot {
    offset: u64,
    timestamp_ms: i64,
    block: u32,
    key_at: u32,
    key_length: u32,
    value_at: u32,
    value_length: u32,
    headers_at: u32,
    headers_length: u32,
}

/// Checks a whole block and notes where its records are, from `from` on.
fn parse_block(bytes: &[u8], block: u32, base: u64, from: u64, slots: &mut Vec<Slot>) -> Result<BlockHead, BlockError> {
    let head = parse_head(bytes)?;
    let expected = u32_at(bytes, 8);
    let found = crc32fast::hash(&bytes[CRC_FROM..]);
    if expected != found {
        return Err(BlockError::Checksum { expected, found });
    }
    // A record has at least four bytes: no count makes us reserve more than the block's own size allows.
    slots.reserve((head.count as usize).min(bytes.len() / 4));
    let mut at = BLOCK_HEAD_BYTES;
    for index in 0..head.count {
        let slot = parse_record(bytes, &mut at).ok_or(BlockError::Record { index })?;
        let offset = base + u64::from(index);
        if offset >= from {
            let timestamp_ms = head.timestamp_first.wrapping_add(slot.timestamp_ms);
            slots.push(Slot {
                offset,
                timestamp_ms,
                block,
                ..slot
            });
        }
    }
    if at != bytes.len() {
        return Err(BlockError::Extra {
            extra: bytes.len() - at,
        });
    }
    Ok(head)
}

#[inline]
fn parse_record(bytes: &[u8], at: &mut usize) -> Option<Slot> {
    let timestamp_ms = unzigzag(varint(bytes, at)?);
    let (key_at, key_length) = part(bytes, at)?;
    let (value_at, value_length) = part(bytes, at)?;
    let headers_length = varint(bytes, at)?;
    let headers_at = u32::try_from(*at).ok()?;
    take(bytes, at, headers_length)?;
    Some(Slot {
        offset: 0,
        timestamp_ms,
        block: 0,
        key_at,
        key_length,
        value_at,
        value_length,
        headers_at,
        headers_length: headers_length as u32,
    })
}

#[inline]
fn part(bytes: &[u8], at: &mut usize) -> Option<(u32, u32)> {
    match varint(bytes, at)? {
        0 => Some((0, NULL)),
        length => {
            let start = u32::try_from(*at).ok()?;
            take(bytes, at, length - 1)?;
            Some((start, (length - 1) as u32))
        }
    }
}

#[inline]
fn take(bytes: &[u8], at: &mut usize, length: u64) -> Option<()> {
    let rest = bytes.len() - *at;
    if length > rest as u64 || length >= u64::from(NULL) {
        return None;
    }
    *at += length as usize;
    Some(())
}

#[inline]
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(u64::from(first));
    }
    let mut rest = bytes.get(*at..)?;
    let before = rest.len();
    let value = crate::record::read_varint(&mut rest)?;
    *at += before - rest.len();
    Some(value)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Records that were read from one partition, in their order: they lie in the blocks as they were stored, nothing is
/// copied. Their sums were checked and every record was parsed, so that what is here can be lent without an error.
#[derive(Debug, Default)]
pub struct Fetched {
    blocks: Vec<(u64, Bytes)>,
    slots: Vec<Slot>,
    next_offset: u64,
    block_bytes: usize,
}

impl Fetched {
    /// Nothing, at this offset.
    pub(crate) fn nothing_at(offset: u64) -> Self {
        Fetched {
            next_offset: offset,
            ..Fetched::default()
        }
    }

    /// Adds a block that begins at offset `base`; records before [`Fetched::next_offset`] are left out.
    pub(crate) fn push(&mut self, base: u64, bytes: Bytes) -> Result<(), BlockError> {
        let length = self.slots.len();
        let parsed = parse_block(
            &bytes,
            self.blocks.len() as u32,
            base,
            self.next_offset,
            &mut self.slots,
        );
        match parsed {
            Ok(head) => {
                self.next_offset = self.next_offset.max(base + u64::from(head.count));
                self.block_bytes += bytes.len();
                self.blocks.push((base, bytes));
                Ok(())
            }
            Err(error) => {
                self.slots.truncate(length);
                Err(error)
            }
        }
    }

    /// The offset to ask for next: behind the last record, or the one that was asked for where there is none.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// The offsets at which its blocks begin, and when those were appended (milliseconds since the epoch); ascending.
    pub fn appended(&self) -> Vec<(u64, i64)> {
        let appended = |(base, bytes): &(u64, Bytes)| Some((*base, parse_head(bytes).ok()?.appended_ms));
        self.blocks.iter().filter_map(appended).collect()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of the blocks that are held, those of left-out records included.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// The record at this place, counted from 0.
    #[inline]
    pub fn get(&self, index: usize) -> Option<RecordRef<'_>> {
        self.slots.get(index).map(|slot| self.lend(slot))
    }

    /// The records in their order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        self.slots.iter().map(|slot| self.lend(slot))
    }

    /// When the log took the newest of these records, in milliseconds since the epoch.
    pub fn appended_ms(&self) -> Option<i64> {
        let (_, bytes) = self.blocks.last()?;
        parse_head(bytes).ok().map(|head| head.appended_ms)
    }

    /// Offsets and bytes of the blocks, for sending them on.
    pub(crate) fn into_blocks(self) -> Vec<(u64, Bytes)> {
        self.blocks
    }

    #[inline]
    fn lend(&self, slot: &Slot) -> RecordRef<'_> {
        slot.lend(&self.blocks[slot.block as usize].1)
    }
}

impl Slot {
    #[inline]
    fn lend<'b>(&self, bytes: &'b [u8]) -> RecordRef<'b> {
        let part = |at: u32, length: u32| (length != NULL).then(|| &bytes[at as usize..][..length as usize]);
        RecordRef {
            key: part(self.key_at, self.key_length),
            value: part(self.value_at, self.value_length),
            headers: HeadersRef::trusted(&bytes[self.headers_at as usize..][..self.headers_length as usize]),
            timestamp_ms: self.timestamp_ms,
            offset: self.offset,
        }
    }
}

/// Records that come from elsewhere than a block, each with an offset of its own, copied one behind the other.
#[derive(Debug)]
pub struct FetchedBuilder {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    next_offset: u64,
}

/// A record that is no more than lent, with headers as they come.
#[derive(Debug)]
pub struct LentRecord<'r, H> {
    /// Where it lies in its partition.
    pub offset: u64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// `None` is null.
    pub key: Option<&'r [u8]>,
    /// `None` is null, a tombstone.
    pub value: Option<&'r [u8]>,
    /// Names and values.
    pub headers: H,
}

impl FetchedBuilder {
    /// Without any, at the offset that was asked for.
    pub fn at(offset: u64) -> FetchedBuilder {
        let mut bytes = vec![0; BLOCK_HEAD_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = BLOCK_VERSION;
        FetchedBuilder {
            bytes,
            slots: Vec::new(),
            next_offset: offset,
        }
    }

    /// Copies a record behind the others. One that lies before [`FetchedBuilder::next_offset`] is left out.
    pub fn push<'r>(&mut self, record: LentRecord<'r, impl Iterator<Item = (&'r str, Option<&'r [u8]>)>>) {
        if record.offset < self.next_offset {
            return;
        }
        self.next_offset = record.offset + 1;
        let (key_at, key_length) = self.part(record.key);
        let (value_at, value_length) = self.part(record.value);
        let headers_at = self.bytes.len() as u32;
        for (name, value) in record.headers {
            crate::record::write_header(&mut self.bytes, name, value);
        }
        self.slots.push(Slot {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            block: 0,
            key_at,
            key_length,
            value_at,
            value_length,
            headers_at,
            headers_length: self.bytes.len() as u32 - headers_at,
        });
    }

    fn part(&mut self, part: Option<&[u8]>) -> (u32, u32) {
        let Some(part) = part else { return (0, NULL) };
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(part);
        (at, part.len() as u32)
    }

    /// What lies before this offset is no record: it is passed.
    pub fn pass_to(&mut self, offset: u64) {
        self.next_offset = self.next_offset.max(offset);
    }

    /// The offset behind what was pushed and passed.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Bytes so far; they must stay below 4 GiB.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of records so far.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The records. As nobody says when they were appended, that is now.
    pub fn finish(mut self) -> Fetched {
        let Some(first) = self.slots.first() else {
            return Fetched::nothing_at(self.next_offset);
        };
        let base = first.offset;
        self.bytes[32..40].copy_from_slice(&crate::record::now_ms().to_le_bytes());
        Fetched {
            block_bytes: self.bytes.len(),
            blocks: vec![(base, self.bytes.into())],
            slots: self.slots,
            next_offset: self.next_offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Headers, Record};
    use proptest::prelude::*;

    pub(crate) fn any_record() -> impl Strategy<Value = Record> {
        let part = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        let header = ("[a-zé]{0,5}", part());
        (part(), part(), proptest::collection::vec(header, 0..3), any::<i64>()).prop_map(
            |(key, value, headers, timestamp_ms)| Record {
                key,
                value,
                headers: headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect(),
                timestamp_ms,
            },
        )
    }

    fn one_block(records: &[Record]) -> Vec<u8> {
        let mut builder = BlockBuilder::new();
        for record in records {
            builder.push(record.at(0)).unwrap();
        }
        let mut blocks = builder.finish();
        assert_eq!(blocks.len(), 1);
        blocks.pop().unwrap().bytes
    }

    proptest! {
        #[test]
        fn records_survive(records in proptest::collection::vec(any_record(), 1..20), base in 0u64..1 << 40, skip in 0u64..25) {
            let bytes = one_block(&records);
            let from = base + skip.min(records.len() as u64);
            let mut fetched = Fetched::nothing_at(from);
            fetched.push(base, bytes.into()).unwrap();
            let expected: Vec<_> = records.iter().enumerate().map(|(i, r)| r.at(base + i as u64)).filter(|r| r.offset >= from).collect();
            prop_assert_eq!(fetched.records().collect::<Vec<_>>(), expected);
            prop_assert_eq!(fetched.next_offset(), base + records.len() as u64);
        }

        #[test]
        fn a_changed_byte_is_an_error(records in proptest::collection::vec(any_record(), 1..5), at in any::<prop::sample::Index>(), xor in 1u8..) {
            let mut bytes = one_block(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
            let outcome = Fetched::nothing_at(0).push(0, bytes.into());
            // The two zero bytes of the head are not read and not summed.
            prop_assert_eq!(outcome.is_ok(), at == 6 || at == 7);
        }

        #[test]
        fn strange_bytes_with_a_right_sum_are_an_error_or_records(tail in proptest::collection::vec(any::<u8>(), 0..60), count in 0u32..10) {
            let mut bytes = one_block(&[Record::default()]);
            bytes.truncate(BLOCK_HEAD_BYTES);
            bytes[12..16].copy_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&tail);
            let crc = crc32fast::hash(&bytes[CRC_FROM..]);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            let mut fetched = Fetched::nothing_at(0);
            if fetched.push(0, bytes.into()).is_ok() {
                let headers: usize = fetched.records().map(|record| record.headers.iter().count()).sum();
                prop_assert!(headers <= tail.len());
                prop_assert_eq!(fetched.len(), count as usize);
            }
        }
    }

    #[test]
    fn blocks_end_at_their_size_and_a_large_record_has_its_own() {
        let record = |bytes: usize| Record {
            value: Some(vec![7; bytes]),
            ..Record::default()
        };
        let mut builder = BlockBuilder::new();
        for bytes in [100, BLOCK_BYTES_MAX - 200, 200, 2 * BLOCK_BYTES_MAX, 1] {
            builder.push(record(bytes).at(0)).unwrap();
        }
        assert_eq!(builder.len(), 5);
        let counts: Vec<_> = builder.finish().iter().map(|b| b.count).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
        let too_large = BlockBuilder::new().push(record(RECORD_BYTES_MAX + 1).at(0));
        assert_eq!(
            too_large,
            Err(RecordTooLarge {
                bytes: RECORD_BYTES_MAX + 1
            })
        );
    }

    proptest! {
        #[test]
        fn a_builder_shows_what_was_pushed(records in proptest::collection::vec(any_record(), 0..20)) {
            let mut builder = BlockBuilder::new();
            for (at, record) in records.iter().enumerate() {
                builder.push(record.at(0)).unwrap();
                if at % 7 == 6 {
                    builder.finish_block();
                }
            }
            let mut seen = Vec::new();
            builder.each(|record| seen.push(record.to_record()));
            prop_assert_eq!(seen, records);
        }

        #[test]
        fn records_from_elsewhere_keep_their_offsets(records in proptest::collection::vec((any_record(), 0u64..3), 0..20), marker in 0u64..3) {
            let mut builder = FetchedBuilder::at(5);
            let mut offset = 3;
            let mut expected = Vec::new();
            for (record, gap) in &records {
                offset += gap;
                builder.push(LentRecord {
                    offset,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                    headers: record.headers.as_ref().iter(),
                });
                if offset >= 5 {
                    expected.push(record.at(offset));
                }
                offset += 1;
            }
            builder.pass_to(offset + marker);
            let fetched = builder.finish();
            prop_assert_eq!(fetched.records().collect::<Vec<_>>(), expected);
            prop_assert_eq!(fetched.next_offset(), (offset + marker).max(5));
        }
    }

    #[test]
    fn headers_come_back_as_pairs() {
        let headers: Headers = [("a", Some(&b"1"[..])), ("a", None)].into_iter().collect();
        let record = Record {
            headers,
            ..Record::default()
        };
        let mut fetched = Fetched::nothing_at(0);
        fetched
            .push(0, one_block(std::slice::from_ref(&record)).into())
            .unwrap();
        assert_eq!(fetched.get(0).unwrap().to_record(), record);
        assert_eq!(fetched.get(1), None);
    }
}
