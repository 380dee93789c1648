//! What is left of a process that was killed. The flusher's tests kill one at every point; here are images of its folder.

use super::*;
use std::fs;
use std::time::SystemTime;

/// Paths in a folder with what changes when a file is written.
fn look(folder: &Path) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(look(&entry.path())),
            Ok(metadata) => found.push((entry.path(), metadata.len(), metadata.modified().ok())),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

pub(super) fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// The folder as a killed process leaves it: copied while its background threads rest.
pub(super) fn image(db: &StateDb) -> tempfile::TempDir {
    loop {
        let image = tempfile::tempdir().unwrap();
        let before = look(db.folder());
        if copy(db.folder(), image.path()).is_ok() && look(db.folder()) == before {
            return image;
        }
    }
}

#[test]
fn a_newer_run_hides_an_older_one_after_every_restart() {
    let mut dir = tempfile::tempdir().unwrap();
    for round in 0..12u64 {
        let db = open(dir.path());
        assert_eq!(db.flushed("c", 0).unwrap(), round.checked_sub(1));
        let value = format!("{round}");
        if round > 0 {
            assert_eq!(all(&db, "c", 0), format!("a={0} b={0}", round - 1));
        }
        db.apply(
            "c",
            0,
            Segmenting::None,
            &[row("a", &value, 0), row("b", &value, 0)],
            round,
        )
        .unwrap();
        // Killed: closed only after the image was taken.
        let killed = image(&db);
        drop(db);
        dir = killed;
    }
    assert_eq!(all(&open(dir.path()), "c", 0), "a=11 b=11");
}

/// The engine forgets how far its own list of keyspaces had counted, and gives a number again that it gave before: what
/// lay under it would be taken for dropped at the next start, and deleted.
#[test]
fn a_segment_with_a_number_that_was_given_before_stays() {
    let dir = tempfile::tempdir().unwrap();
    let by_row = Segmenting::ByRowTime { segment_ms: 1 };
    let db = open(dir.path());
    db.apply("c", 0, Segmenting::None, &[row("a", "1", 0)], 1).unwrap();
    for time in 0..60 {
        db.apply("d", 0, by_row, &[row("a", "1", time)], 1).unwrap();
    }
    db.retire("d", 0, 1000).unwrap();
    let mut killed = image(&db);
    drop(db);
    for start in 0..4 {
        let db = open(killed.path());
        if start == 1 {
            db.apply("e", 0, by_row, &[row("a", "1", 0), row("b", "1", 5)], 1)
                .unwrap();
        }
        let next = image(&db);
        drop(db);
        killed = next;
    }
    let db = open(killed.path());
    assert_eq!(
        (all(&db, "c", 0).as_str(), all(&db, "e", 0).as_str()),
        ("a=1", "a=1 b=1")
    );
    assert_eq!(db.segments("e").unwrap(), [0, 5]);
}

#[test]
fn a_folder_whose_making_was_interrupted_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    folder::take(dir.path()).unwrap();
    fs::create_dir(dir.path().join("engine")).unwrap();
    fs::write(dir.path().join("engine/0.jnl"), b"half").unwrap();
    let db = open(dir.path());
    db.apply("c", 0, Segmenting::None, &[row("a", "1", 0)], 1).unwrap();
}
