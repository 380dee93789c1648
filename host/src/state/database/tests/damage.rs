//! Files of the folder are changed behind our back: the outcome has a name, and is never a panic or a wrong row.

use super::crash::{copy, image};
use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;

const BY_ROW: Segmenting = Segmenting::ByRowTime { segment_ms: 10 };
const ROWS: usize = 600;

/// A folder with runs of two stores; killed, not closed.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for round in 1..=3u64 {
        let keys: Vec<_> = (0..ROWS).map(|n| format!("k{n:04}")).collect();
        let values: Vec<_> = keys.iter().map(|key| format!("{key} in round {round}")).collect();
        let time = round as i64 * 10;
        let rows: Vec<_> = keys
            .iter()
            .zip(&values)
            .map(|(key, value)| row(key, value, time))
            .collect();
        db.apply("c", 3, Segmenting::None, &rows, round).unwrap();
        // A third of the keys changes in each round.
        let some: Vec<_> = rows.iter().skip(round as usize - 1).step_by(3).copied().collect();
        db.apply("d", 0, BY_ROW, &some, round).unwrap();
    }
    image(&db)
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Whole,
    SetAside(String),
    /// Of a store, and nothing wrong before it.
    Told(String),
    /// Some offset is lower, so that the changelog is replayed from there.
    Earlier,
}

fn outcome(path: &Path) -> Outcome {
    let folder = path.join("state");
    let opened = StateDb::open(&folder, small()).unwrap();
    if let Some(aside) = opened.set_aside {
        assert_eq!(aside.folder, path.join("state.damaged-1"));
        assert!(aside.folder.exists() && opened.db.stores().unwrap().is_empty());
        return Outcome::SetAside(aside.detail);
    }
    let db = opened.db;
    let mut outcome = Outcome::Whole;
    for (store, partition) in [("c", 3), ("d", 0)] {
        if db.flushed(store, partition).unwrap() != Some(3) {
            outcome = Outcome::Earlier;
            continue;
        }
        let mut count = 0;
        let mut told = None;
        for found in db.range(store, partition, &KeyRange::all()).unwrap() {
            match found {
                Ok((key, value)) => {
                    let key = std::str::from_utf8(&key).unwrap();
                    let n: usize = key[1..].parse().unwrap();
                    let round = if store == "c" { 3 } else { n % 3 + 1 };
                    assert_eq!(value, format!("{key} in round {round}"));
                    count += 1;
                }
                Err(error) => told = Some(error),
            }
        }
        assert!(told.is_some() || count == ROWS, "{count} rows of {store} and no word");
        for n in 0..ROWS {
            match db.get(store, partition, format!("k{n:04}").as_bytes()) {
                Ok(value) => assert!(value.is_some_and(|value| value.starts_with(b"k")), "{store} {n}"),
                Err(error) => told = Some(error),
            }
        }
        if let Some(error) = told {
            assert!(
                matches!(&error, StateError::Damaged { store: named, partition: at, .. } if named == store && *at == partition)
            );
            outcome = Outcome::Told(error.to_string());
        }
    }
    outcome
}

#[test]
fn a_changed_cut_or_missing_file_is_told() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let image = folder();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for file in files(image.path()) {
        let relative = file.strip_prefix(image.path()).unwrap();
        let bytes = fs::read(&file).unwrap();
        let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        if used == 0 {
            continue;
        }
        for case in ["whole", "changed", "changed", "cut", "missing"] {
            let copied = tempfile::tempdir().unwrap();
            let target = copied.path().join("state").join(relative);
            copy(image.path(), &copied.path().join("state")).unwrap();
            let at = random.random_range(0..used);
            let mut changed = bytes.clone();
            match case {
                "changed" => changed[at] ^= 1 << random.random_range(0..8),
                "cut" => changed.truncate(at),
                _ => {}
            }
            fs::write(&target, &changed).unwrap();
            if case == "missing" {
                fs::remove_file(&target).unwrap();
            }
            let outcome = outcome(copied.path());
            let journal = relative.extension().is_some_and(|extension| extension == "jnl");
            // Those of the engine's own list of keyspaces are merged at once, and some wait for being removed.
            let table = relative.to_string_lossy().contains("tables") && !relative.starts_with("engine/keyspaces/0");
            let what = format!("{} {case} at {at}: {outcome:?}", relative.display());
            match (&outcome, case) {
                (Outcome::Whole, "whole" | "changed") => {}
                // Locks and lists of earlier tables, which nobody reads.
                (Outcome::Whole, _) => assert!(!table && !journal, "{what}"),
                (Outcome::SetAside(detail), _) => assert!(!detail.is_empty(), "{what}"),
                (Outcome::Told(text), _) => assert!(text.contains("is damaged") && table, "{what}"),
                // What a torn write looks like.
                (Outcome::Earlier, _) => assert!(journal && case != "missing", "{what}"),
            }
            let kind = if table {
                "table"
            } else if journal {
                "journal"
            } else {
                "other"
            };
            let name = match outcome {
                Outcome::Whole => "whole",
                Outcome::SetAside(_) => "set aside",
                Outcome::Told(_) => "told",
                Outcome::Earlier => "earlier",
            };
            *seen.entry(format!("{kind} {case}: {name}")).or_default() += 1;
        }
    }
    println!("{seen:#?}");
    assert!(
        seen.keys()
            .all(|key| !key.contains(" whole:") || key.ends_with("whole")),
        "{seen:?}"
    );
    for key in ["table missing: set aside", "journal missing: set aside"] {
        assert!(seen.contains_key(key), "{key}");
    }
}

/// The engine does not compare the sums of its lists of tables: it would open an older list, and old rows with it.
#[test]
fn an_older_list_of_tables_is_not_taken_for_the_newest() {
    let image = folder();
    let mut older = 0;
    for keyspace in fs::read_dir(image.path().join("engine/keyspaces")).unwrap() {
        let path = keyspace.unwrap().path().join("current");
        let bytes = fs::read(&path).unwrap();
        for number in 0..bytes[0] {
            let copied = tempfile::tempdir().unwrap();
            copy(image.path(), &copied.path().join("state")).unwrap();
            let target = copied
                .path()
                .join("state")
                .join(path.strip_prefix(image.path()).unwrap());
            let mut changed = bytes.clone();
            changed[0] = number;
            older += u32::from(target.with_file_name(format!("v{number}")).exists());
            fs::write(&target, &changed).unwrap();
            let Outcome::SetAside(detail) = outcome(copied.path()) else {
                panic!("an older list was opened");
            };
            assert!(detail.contains("list of the tables"), "{detail}");
        }
    }
    assert!(older > 0, "no older list was there");
}

#[test]
fn a_torn_offset_goes_back_to_the_one_before() {
    let image = folder();
    let journal = image.path().join("engine/0.jnl");
    let bytes = fs::read(&journal).unwrap();
    let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    fs::write(&journal, &bytes[..used - 3]).unwrap();
    let db = open(image.path());
    assert_eq!((db.flushed("c", 3), db.flushed("d", 0)), (Ok(Some(3)), Ok(Some(2))));
    // The same flush again is right.
    let rows = [row("k0002", "k0002 again", 30)];
    db.apply("d", 0, BY_ROW, &rows, 3).unwrap();
    assert_eq!(db.get("d", 0, b"k0002").unwrap().as_deref(), Some(&b"k0002 again"[..]));
}

#[test]
fn damaged_folders_get_names_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    for n in 1..=3 {
        let db = StateDb::open(&path, small()).unwrap().db;
        db.apply("c", 0, Segmenting::None, &[row("a", "1", 0)], n).unwrap();
        db.close();
        fs::remove_file(path.join("FORMAT")).unwrap();
        let opened = StateDb::open(&path, small()).unwrap();
        let aside = opened.set_aside.unwrap();
        assert_eq!(aside.folder, dir.path().join(format!("state.damaged-{n}")));
        assert_eq!(aside.detail, "the file FORMAT is missing");
        assert_eq!(opened.db.flushed("c", 0), Ok(None));
    }
}
