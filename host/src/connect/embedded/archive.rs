//! A look at the engine's tables and lists of tables before it opens them.
//!
//! Each such file ends with a list of its sections, and the engine makes room for as many as the list says it has before
//! it looks at the list's checksum: one changed byte there can ask for more memory than there is, which ends the process
//! where an error should be. The layout is that of sfa 1 (toc, trailer); whether everything else is as it was written the
//! engine finds out itself.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The end of a file: magic, version, kind of checksum, checksum of the list, its place, its length.
const TRAILER_BYTES: u64 = 4 + 1 + 1 + 16 + 8 + 8;
const TRAILER_MAGIC: &[u8; 4] = b"SFA!";
/// Magic and number of entries.
const LIST_HEAD_BYTES: u64 = 4 + 4;
/// Place, length, and the length of a name.
const ENTRY_BYTES_MIN: u64 = 8 + 8 + 2;

/// What is wrong with the lists of sections in a folder of the engine, if something is.
///
/// # Errors
/// Where they cannot be read.
pub(super) fn find_damage(engine: &Path) -> io::Result<Option<String>> {
    let keyspaces = engine.join("keyspaces");
    if !keyspaces.exists() {
        return Ok(None);
    }
    for keyspace in fs::read_dir(keyspaces)? {
        let keyspace = keyspace?.path();
        for folder in [keyspace.clone(), keyspace.join("tables"), keyspace.join("blobs")] {
            if !folder.is_dir() {
                continue;
            }
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_file() && !is_bounded(&mut File::open(&path)?)? {
                    let name = path.strip_prefix(engine).unwrap_or(&path).display();
                    return Ok(Some(format!(
                        "the list of sections of the file {name} is not what was written"
                    )));
                }
            }
        }
    }
    Ok(None)
}

/// Whether the list of sections, if the file has one, can have as many as it says.
fn is_bounded(file: &mut File) -> io::Result<bool> {
    let Some(trailer_at) = file.metadata()?.len().checked_sub(TRAILER_BYTES) else {
        return Ok(true);
    };
    let mut trailer = [0; TRAILER_BYTES as usize];
    file.seek(SeekFrom::Start(trailer_at))?;
    file.read_exact(&mut trailer)?;
    if !trailer.starts_with(TRAILER_MAGIC) {
        return Ok(true);
    }
    let list_at = u64::from_le_bytes(trailer[22..30].try_into().unwrap_or_default());
    let Some(room) = trailer_at
        .checked_sub(list_at)
        .and_then(|room| room.checked_sub(LIST_HEAD_BYTES))
    else {
        return Ok(false);
    };
    let mut head = [0; LIST_HEAD_BYTES as usize];
    file.seek(SeekFrom::Start(list_at))?;
    file.read_exact(&mut head)?;
    let entries = u32::from_le_bytes(head[4..].try_into().unwrap_or_default());
    Ok(u64::from(entries) * ENTRY_BYTES_MIN <= room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A file with a list of `entries` sections of which there is room for two.
    fn file(entries: u32, list_at: u64) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"sections").unwrap();
        file.write_all(b"TOC!").unwrap();
        file.write_all(&entries.to_le_bytes()).unwrap();
        file.write_all(&[0; 2 * ENTRY_BYTES_MIN as usize]).unwrap();
        file.write_all(TRAILER_MAGIC).unwrap();
        file.write_all(&[1, 0]).unwrap();
        file.write_all(&[0; 16]).unwrap();
        file.write_all(&list_at.to_le_bytes()).unwrap();
        file.write_all(&[0; 8]).unwrap();
        file
    }

    #[test]
    fn a_list_has_no_more_sections_than_there_is_room_for() {
        for (entries, list_at, bounded) in [(2, 8, true), (3, 8, false), (1 << 31, 8, false), (0, 1 << 40, false)] {
            let is = is_bounded(&mut file(entries, list_at)).unwrap();
            assert_eq!(is, bounded, "{entries} entries at {list_at}");
        }
        // What is no such file is somebody else's to judge.
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(&[7; 100]).unwrap();
        assert!(is_bounded(&mut other).unwrap());
    }
}
