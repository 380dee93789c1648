//! Files of the folder are changed behind our back: the outcome has a name, and is never a panic or silence.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;

const RECORDS: u64 = 300;

/// A folder with flushed tables and a journal that is not flushed; killed, not closed.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    for n in 0..RECORDS {
        let text = format!("{n} {}", "x".repeat(20 << 10));
        log.commit(appends(vec![append("t", 0, &[&text])])).unwrap();
        if n == RECORDS / 2 {
            // Flushes what is there, so that tables have half and the journal has all.
            flush(log.shared.state().as_ref().ok().unwrap());
        }
    }
    image(&log)
}

/// The folder as a killed process leaves it: copied while the committer rests.
pub(super) fn image(log: &EmbeddedLog) -> tempfile::TempDir {
    log.commit(Commit::default()).unwrap();
    let image = tempfile::tempdir().unwrap();
    copy(log.path(), image.path());
    image
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found.sort();
    found
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Refused(String),
    Read(u64, Option<String>),
}

fn outcome(path: &Path) -> Outcome {
    let log = match EmbeddedLog::open(path, small()) {
        Ok(log) => log,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let tp = TopicPartition::new("t", 0);
    let mut from = 0;
    loop {
        match log.fetch(&tp, from, 1 << 20) {
            Ok(fetched) if fetched.is_empty() => return Outcome::Read(from, None),
            Ok(fetched) => {
                for record in fetched.records() {
                    assert!(
                        record
                            .value
                            .unwrap()
                            .starts_with(format!("{} x", record.offset).as_bytes())
                    );
                }
                from = fetched.next_offset();
            }
            Err(error) => return Outcome::Read(from, Some(error.to_string())),
        }
    }
}

#[test]
fn a_changed_or_cut_file_is_told() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let image = folder();
    assert_eq!(outcome(image.path()), Outcome::Read(RECORDS, None));
    let mut told = 0;
    for file in files(image.path()) {
        let relative = file.strip_prefix(image.path()).unwrap();
        let bytes = fs::read(&file).unwrap();
        let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        if used == 0 {
            continue;
        }
        for case in 0..5 {
            let copied = tempfile::tempdir().unwrap();
            copy(image.path(), copied.path());
            let target = copied.path().join(relative);
            let at = random.random_range(0..used);
            let mut changed = bytes.clone();
            match case {
                0..3 => changed[at] ^= 1 << random.random_range(0..8),
                3 => changed.truncate(at),
                _ => {}
            }
            fs::write(&target, &changed).unwrap();
            if case == 4 {
                fs::remove_file(&target).unwrap();
            }
            let outcome = outcome(copied.path());
            let what = format!("{} case {case} at {at}: {outcome:?}", relative.display());
            match outcome {
                // Not needed, or an older copy of what is elsewhere.
                Outcome::Read(RECORDS, None) => {}
                Outcome::Refused(text) => {
                    let format = relative == Path::new("FORMAT");
                    let other = text.contains("no data folder") || text.contains("use the newer program");
                    let named = text.contains("is damaged") || (format && other);
                    assert!(named, "{what}");
                    told += 1;
                }
                Outcome::Read(_, Some(text)) => {
                    assert!(text.contains("is damaged at offset"), "{what}");
                    told += 1;
                }
                // The end of the newest journal is what a torn write looks like; but never less than was flushed.
                Outcome::Read(n, None) => {
                    let journal = relative.extension().is_some_and(|extension| extension == "jnl");
                    assert!(journal && n > RECORDS / 2 && (case == 3 || n == RECORDS - 1), "{what}");
                }
            }
        }
    }
    assert!(told > 20, "{told}");
}

#[test]
fn a_break_in_the_middle_of_the_journal_is_told_and_nothing_is_touched() {
    let image = folder();
    let journal = image.path().join("engine/0.jnl");
    let bytes = fs::read(&journal).unwrap();
    // The first byte of a batch in the middle: an entry that the engine cannot read ends the journal for it.
    let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let middle = used / 2;
    let trailer = memchr::memmem::find(&bytes[middle..], b"FJL\x03").unwrap();
    let mut changed = bytes.clone();
    changed[middle + trailer + 4] ^= 0x40;
    fs::write(&journal, &changed).unwrap();
    let Outcome::Refused(text) = outcome(image.path()) else {
        panic!("opened");
    };
    assert!(text.contains("0.jnl breaks off"), "{text}");
    assert_eq!(fs::read(&journal).unwrap(), changed);
    fs::write(&journal, &bytes).unwrap();
    assert_eq!(outcome(image.path()), Outcome::Read(RECORDS, None));
}

#[test]
fn commits_that_were_there_at_a_clean_stop_are_missed() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    let early = image(&log);
    log.commit(appends(vec![append("t", 0, &["0 x"])])).unwrap();
    log.close();
    assert_eq!(outcome(dir.path()), Outcome::Read(1, None));
    // The engine as it was before, beside the FORMAT of now.
    fs::remove_dir_all(dir.path().join("engine")).unwrap();
    let Outcome::Refused(text) = outcome(dir.path()) else {
        panic!("opened without an engine");
    };
    assert!(text.contains("file version is missing"), "{text}");
    copy(&early.path().join("engine"), &dir.path().join("engine"));
    let Outcome::Refused(text) = outcome(dir.path()) else {
        panic!("opened with an engine of yesterday");
    };
    assert!(
        text.contains("it had 2 commits when it was closed, and has 1"),
        "{text}"
    );
}

#[test]
fn a_damaged_block_is_left_behind_by_who_wants_to_read_on() {
    let image = folder();
    let blobs = files(image.path())
        .into_iter()
        .find(|file| file.ends_with("blobs/0"))
        .unwrap();
    let mut bytes = fs::read(&blobs).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&blobs, &bytes).unwrap();
    let log = EmbeddedLog::open(image.path(), small()).unwrap();
    let tp = TopicPartition::new("t", 0);
    let (mut from, mut read, mut gaps) = (0, 0, Vec::new());
    while from < RECORDS {
        match log.fetch(&tp, from, 100_000) {
            Ok(fetched) => {
                read += fetched.len() as u64;
                from = fetched.next_offset();
            }
            Err(LogError::Damaged { offset, resume, .. }) => {
                gaps.push((offset, resume));
                from = resume;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(gaps.len(), 1);
    assert_eq!((read, gaps[0].1), (RECORDS - 1, gaps[0].0 + 1));
}

#[test]
fn a_folder_whose_making_was_interrupted_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataFolder::take(dir.path()).unwrap());
    fs::create_dir(dir.path().join("engine")).unwrap();
    fs::write(dir.path().join("engine/0.jnl"), b"half").unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
}
