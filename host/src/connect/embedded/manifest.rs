//! A look at the engine's lists of tables before it opens them.
//!
//! Each keyspace has a file `current`, which names the newest list, `vN`, and holds its sum. The engine writes the sum and
//! never compares it: a byte that was changed in `current` opens an older list, where that is still there, and one in a
//! list moves a table's number. Both would bring old rows back without a word.
//!
//! The layout is that of lsm-tree 3.1 (version/persist.rs): number of the list (u64, little-endian), its XXH3 of 128 bits,
//! little-endian, and 0.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// What is wrong with the lists in a folder of the engine, if something is.
///
/// # Errors
/// Where they cannot be read.
pub(super) fn find_damaged_list(engine: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(engine.join("keyspaces"))? {
        let keyspace = entry?.path();
        let current = match fs::read(keyspace.join("current")) {
            Ok(current) => current,
            // A keyspace that was being made or dropped; one that is missed is missed by name.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error),
        };
        let named = parse(&current).map(|(number, sum)| (keyspace.join(format!("v{number}")), sum));
        let holds = match named {
            Some((list, sum)) => match fs::read(list) {
                Ok(bytes) => xxhash_rust::xxh3::xxh3_128(&bytes) == sum,
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            },
            None => false,
        };
        if !holds {
            let name = keyspace.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Some(format!(
                "the storage engine's list of the tables of keyspace {name} is not what was written"
            )));
        }
    }
    Ok(None)
}

/// The number of the newest list, and its sum.
fn parse(current: &[u8]) -> Option<(u64, u128)> {
    let (number, rest) = current.split_first_chunk::<8>()?;
    let (sum, kind) = rest.split_first_chunk::<16>()?;
    (kind == [0]).then(|| (u64::from_le_bytes(*number), u128::from_le_bytes(*sum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_in_any_list_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let db = fjall::Database::builder(dir.path()).open().unwrap();
        let keyspace = db.keyspace("a", Default::default).unwrap();
        for n in 0..3u8 {
            let mut run = keyspace.start_ingestion().unwrap();
            run.write([n], [n]).unwrap();
            run.finish().unwrap();
        }
        drop((keyspace, db));
        assert_eq!(find_damaged_list(dir.path()).unwrap(), None);
        let folder = dir.path().join("keyspaces/1");
        let (number, _) = parse(&fs::read(folder.join("current")).unwrap()).unwrap();
        for file in ["current".to_string(), format!("v{number}")] {
            let bytes = fs::read(folder.join(&file)).unwrap();
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 2;
                fs::write(folder.join(&file), &changed).unwrap();
                let found = find_damaged_list(dir.path()).unwrap();
                assert!(found.is_some_and(|text| text.contains("keyspace 1")), "{file} {at}");
            }
            fs::write(folder.join(&file), &bytes[..bytes.len() / 2]).unwrap();
            assert!(find_damaged_list(dir.path()).unwrap().is_some(), "{file}");
            fs::write(folder.join(&file), &bytes).unwrap();
        }
        assert_eq!(find_damaged_list(dir.path()).unwrap(), None);
    }
}
