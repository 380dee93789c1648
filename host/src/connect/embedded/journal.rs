//! A look at the engine's journals before it opens them.
//!
//! The engine ends a journal at the first entry that it cannot read, and cuts the rest off: right for the batch that
//! was being written when the process died, wrong for a byte that was changed in the middle, behind which thousands of
//! commits may lie. We can tell the two apart: each of our batches holds its number beside a mark. Where numbers are
//! found behind the break that no torn batch can have, the folder is damaged, and nothing in it is touched.
//!
//! The layout of entries is that of fjall 3.1 (journal/entry.rs); all other bytes are the engine's business.

use memchr::memmem;
use std::fs;
use std::io;
use std::path::Path;

/// Stands before the number in each batch's row of it.
const MARK: [u8; 8] = *b"\x00MScommt";
/// Mark, number, and the number's sum.
pub(super) const NUMBER_ROW_BYTES: usize = 20;

/// The value of the row that holds a batch's number.
pub(crate) fn encode_number(number: u64) -> Vec<u8> {
    let sum = crc32fast::hash(&number.to_le_bytes());
    [&MARK[..], &number.to_le_bytes(), &sum.to_le_bytes()].concat()
}

/// The number in such a row.
pub(crate) fn decode_number(row: &[u8]) -> Option<u64> {
    let row = row.get(..NUMBER_ROW_BYTES)?.strip_prefix(&MARK)?;
    let (number, sum) = row.split_at(8);
    (crc32fast::hash(number).to_le_bytes() == *sum).then(|| u64::from_le_bytes(number.try_into().unwrap_or_default()))
}

/// What is wrong with the journals in a folder of the engine, if something is.
///
/// # Errors
/// Where they cannot be read.
pub(super) fn find_damage(engine: &Path) -> io::Result<Option<String>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(engine)? {
        let path = entry?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse::<u64>().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|extension| extension == "jnl")) {
            journals.push((number, path));
        }
    }
    journals.sort();
    let last = journals.last().map(|(number, _)| *number);
    for (number, path) in journals {
        let bytes = fs::read(&path)?;
        let end = readable_end(&bytes);
        let Some(found) = numbers(&bytes[end..]).max() else {
            continue;
        };
        // A torn batch at the end of the newest journal is the one number that follows the last.
        let before = numbers(&bytes[..end]).max();
        let torn = Some(number) == last && before.is_none_or(|before| found <= before + 1);
        if !torn {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            return Ok(Some(format!(
                "the journal {name} breaks off at byte {end}, and commits up to number {found} lie behind it"
            )));
        }
    }
    Ok(None)
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    memmem::find_iter(bytes, &MARK).filter_map(|at| decode_number(&bytes[at..]))
}

/// Where the entries end that can be read, or the last whole batch where the break is within one.
fn readable_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    let mut whole = 0;
    while let Some((length, ends_batch)) = entry(&bytes[at..]) {
        at += length;
        if ends_batch {
            whole = at;
        }
    }
    whole
}

/// Length of the entry at the front, and whether it ends a batch.
fn entry(bytes: &[u8]) -> Option<(usize, bool)> {
    let (length, ends_batch) = match bytes.first()? {
        // Number of items (u32), number of the write (u64).
        1 => (13, false),
        // Kind, compression, keyspace (u64), lengths of key (u16), value (u32) and stored value (u32); key and value.
        2 => {
            let at = |from: usize, to: usize| bytes.get(from..to);
            let kind = *bytes.get(1)?;
            let key = u16::from_le_bytes(at(11, 13)?.try_into().ok()?) as usize;
            let value = u32::from_le_bytes(at(13, 17)?.try_into().ok()?);
            let stored = u32::from_le_bytes(at(17, 21)?.try_into().ok()?);
            if kind > 4 || bytes.get(2) != Some(&0) || value != stored {
                return None;
            }
            (21 + key + stored as usize, false)
        }
        // Sum (u64) and a trailer.
        3 if bytes.get(9..13)? == b"FJL\x03" => (13, true),
        // Keyspace (u64).
        4 => (9, false),
        _ => return None,
    };
    (bytes.len() >= length).then_some((length, ends_batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: u64) -> Vec<u8> {
        let value = encode_number(number);
        let mut bytes = vec![1, 1, 0, 0, 0];
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&[2, 0, 0]);
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(&1u16.to_le_bytes());
        bytes.extend_from_slice(&[(value.len() as u32).to_le_bytes(); 2].concat());
        bytes.push(b'c');
        bytes.extend_from_slice(&value);
        bytes.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(b"FJL\x03");
        bytes
    }

    #[test]
    fn a_torn_end_is_told_from_a_break_in_the_middle() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        let damage = || find_damage(dir.path()).unwrap();
        let length = batch(1).len();
        let mut whole: Vec<u8> = (1..5).flat_map(batch).collect();
        whole.resize(whole.len() + 1000, 0);
        write("0.jnl", &whole);
        write("other.txt", b"x");
        assert_eq!(damage(), None);
        // The last batch is torn: its end is missing.
        let mut torn = whole.clone();
        torn[4 * length - 5..].fill(0);
        write("0.jnl", &torn);
        assert_eq!(damage(), None);
        // A changed tag in the second of four.
        let mut broken = whole.clone();
        broken[length] = 9;
        write("0.jnl", &broken);
        let text = damage().unwrap();
        assert!(
            text.contains(&format!("0.jnl breaks off at byte {length}")) && text.contains("number 4"),
            "{text}"
        );
        // In a journal that is not the newest even the last batch is whole.
        write("0.jnl", &torn);
        write("1.jnl", &batch(5));
        assert!(damage().is_some());
    }

    #[test]
    fn a_number_is_itself_or_none() {
        let row = encode_number(7);
        assert_eq!((row.len(), decode_number(&row)), (NUMBER_ROW_BYTES, Some(7)));
        for at in 0..row.len() {
            let mut changed = row.clone();
            changed[at] ^= 1;
            assert_eq!(decode_number(&changed), None, "{at}");
        }
        assert_eq!(decode_number(&row[..19]), None);
    }
}
