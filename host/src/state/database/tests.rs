//! The local store as its users see it, against the real engine.

mod crash;
mod damage;
mod figures;
mod full;
mod model;

use super::*;

fn small() -> StateOptions {
    StateOptions {
        cache_bytes: 4 << 20,
        disk_reserve_bytes: 1 << 20,
    }
}

fn open(folder: &Path) -> Arc<StateDb> {
    let opened = StateDb::open(folder, small()).unwrap();
    assert_eq!(opened.set_aside, None);
    opened.db
}

fn row<'a>(key: &'a str, value: &'a str, timestamp_ms: i64) -> StoreRow<'a> {
    StoreRow {
        key: key.as_bytes(),
        value: (!value.is_empty()).then_some(value.as_bytes()),
        timestamp_ms,
    }
}

fn all(db: &StateDb, changelog: &str, partition: u32) -> String {
    let rows = db.range(changelog, partition, &KeyRange::all()).unwrap();
    let text = rows.map(|row| {
        let (key, value) = row.unwrap();
        format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value))
    });
    text.collect::<Vec<_>>().join(" ")
}

#[test]
fn rows_are_there_after_a_restart_with_their_offset() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    for round in 0..3u64 {
        let db = open(&folder);
        assert_eq!(db.flushed("c", 1), Ok(round.checked_sub(1)));
        assert_eq!(db.flushed("c", 2), Ok(None));
        let value = round.to_string();
        let rows = [row("a", &value, 0), row("b", if round == 1 { "" } else { "x" }, 0)];
        db.apply("c", 1, Segmenting::None, &rows, round).unwrap();
        let expected = if round == 1 {
            "a=1".into()
        } else {
            format!("a={round} b=x")
        };
        assert_eq!(all(&db, "c", 1), expected);
        assert_eq!(all(&db, "c", 0), "");
        assert_eq!(db.get("c", 1, b"a").unwrap().as_deref(), Some(value.as_bytes()));
        assert_eq!(db.get("c", 0, b"a"), Ok(None));
        assert_eq!(db.get("other", 0, b"a"), Ok(None));
        // Not a row, but how far it is.
        db.apply("d", u32::MAX, Segmenting::None, &[], 7).unwrap();
        db.close();
        assert_eq!(db.flushed("c", 1), Err(StateError::Closed));
    }
    let db = open(&folder);
    assert_eq!(all(&db, "c", 1), "a=2 b=x");
    assert_eq!(db.flushed("d", u32::MAX), Ok(Some(7)));
    assert_eq!(db.stores().unwrap(), ["c".into(), "d".into()]);
    assert!(db.bytes(["c"]).unwrap() > 0);
    db.drop_store("c").unwrap();
    assert_eq!(db.stores().unwrap(), ["d".into()]);
    assert_eq!((db.flushed("c", 1), db.bytes(["c"])), (Ok(None), Ok(0)));
    assert_eq!(all(&db, "c", 1), "");
}

#[test]
fn by_row_time_the_last_change_counts_wherever_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let by_row = Segmenting::ByRowTime { segment_ms: 10 };
    let db = open(dir.path());
    let rows = [row("a", "1", 5), row("b", "1", 5), row("c", "1", 5)];
    db.apply("c", 0, by_row, &rows, 1).unwrap();
    let rows = [row("a", "2", 25), row("b", "", 25)];
    db.apply("c", 0, by_row, &rows, 2).unwrap();
    assert_eq!(db.segments("c").unwrap(), [0, 20]);
    assert_eq!(all(&db, "c", 0), "a=2 c=1");
    assert_eq!(
        (db.get("c", 0, b"b"), db.get("c", 0, b"c").unwrap().is_some()),
        (Ok(None), true)
    );
    // A clock that went back does not bring an older row back.
    db.apply("c", 0, by_row, &[row("a", "3", 7)], 3).unwrap();
    assert_eq!(db.get("c", 0, b"a").unwrap().as_deref(), Some(&b"3"[..]));
    // Another partition needs the first segment still.
    db.apply("c", 1, by_row, &[row("z", "1", 9)], 1).unwrap();
    db.retire("c", 0, 19).unwrap();
    assert_eq!(all(&db, "c", 0), "a=3");
    assert_eq!(db.segments("c").unwrap(), [0, 20]);
    db.retire("c", 1, 9).unwrap();
    assert_eq!(db.segments("c").unwrap(), [0, 20]);
    db.retire("c", 1, 10).unwrap();
    assert_eq!(db.segments("c").unwrap(), [20]);
    // What comes too late for its segment is not written.
    db.apply("c", 1, by_row, &[row("z", "2", 9)], 2).unwrap();
    assert_eq!(
        (db.segments("c").unwrap(), db.flushed("c", 1).unwrap()),
        (vec![20], Some(2))
    );
    db.close();
    let db = open(dir.path());
    assert_eq!((all(&db, "c", 0).as_str(), all(&db, "c", 1).as_str()), ("a=3", ""));
    // Which partitions have rows in a segment was found again.
    db.retire("c", 1, 1000).unwrap();
    assert_eq!(db.segments("c").unwrap(), [20]);
    db.retire("c", 0, 1000).unwrap();
    assert!(db.segments("c").unwrap().is_empty());
}

#[test]
fn by_key_time_a_key_has_one_segment_and_a_store_keeps_its_cut() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let key = |time: i64, text: &str| [&super::super::codec::encode_time(time)[..], text.as_bytes()].concat();
    let keys = [key(-5, "a"), key(3, "a"), key(3, "b"), key(12, "a")];
    let rows: Vec<_> = keys
        .iter()
        .map(|key| StoreRow {
            key,
            value: Some(b"1"),
            timestamp_ms: 999,
        })
        .collect();
    db.apply("c", 0, Segmenting::ByKeyTime { segment_ms: 10 }, &rows, 1)
        .unwrap();
    assert_eq!(db.segments("c").unwrap(), [-10, 0, 10]);
    // Another length would look in the wrong places: the first counts.
    let delete = [StoreRow { value: None, ..rows[1] }];
    db.apply("c", 0, Segmenting::ByKeyTime { segment_ms: 7 }, &delete, 2)
        .unwrap();
    assert_eq!(db.segments("c").unwrap(), [-10, 0, 10]);
    let found = |range: &KeyRange| {
        let rows = db.range("c", 0, range).unwrap();
        rows.map(|row| row.unwrap().0.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(found(&KeyRange::all()), [&keys[0][..], &keys[2], &keys[3]]);
    assert_eq!(found(&KeyRange::prefix(&keys[2][..8])), [&keys[2][..]]);
    assert_eq!(found(&KeyRange::prefix(&keys[2][..4])), found(&KeyRange::all())[1..]);
    assert_eq!(found(&KeyRange::all().after(&keys[2])), [&keys[3][..]]);
    assert_eq!(
        (db.get("c", 0, &keys[1]), db.get("c", 0, &keys[3]).unwrap().is_some()),
        (Ok(None), true)
    );
    db.retire("c", 0, 0).unwrap();
    assert_eq!(db.segments("c").unwrap(), [0, 10]);
    assert_eq!(db.get("c", 0, &keys[0]), Ok(None));
    // No time to begin with.
    assert_eq!(db.get("c", 0, b"short"), Ok(None));
    let refused = db
        .apply("c", 0, Segmenting::None, &[row("short", "1", 0)], 3)
        .unwrap_err();
    assert!(matches!(refused, StateError::Refused { .. }), "{refused}");
    assert_eq!(db.flushed("c", 0), Ok(Some(2)));
}

#[test]
fn rows_that_no_store_takes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let long = "k".repeat(70_000);
    let by_row = Segmenting::ByRowTime { segment_ms: 10 };
    let empty = StoreRow {
        value: Some(b""),
        ..row("a", "1", 0)
    };
    for (segmenting, rows) in [
        (Segmenting::None, vec![row("b", "1", 0), row("a", "1", 0)]),
        (Segmenting::None, vec![row("a", "1", 0), row("a", "1", 0)]),
        (Segmenting::None, vec![row(&long, "1", 0)]),
        (by_row, vec![empty]),
    ] {
        let error = db.apply("c", 0, segmenting, &rows, 1).unwrap_err();
        assert!(matches!(error, StateError::Refused { .. }), "{error}");
    }
    assert_eq!(db.flushed("c", 0), Ok(None));
    db.apply("c", 0, Segmenting::None, &[empty], 1).unwrap();
    assert_eq!(db.get("c", 0, b"a").unwrap().as_deref(), Some(&b""[..]));
    db.apply("d", 0, Segmenting::None, &[row("", "of the empty key", 0)], 1)
        .unwrap();
    assert_eq!(all(&db, "d", 0), "=of the empty key");
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let by_row = Segmenting::ByRowTime { segment_ms: 10 };
    let nothing = db.snapshot("c").unwrap();
    db.apply("c", 0, by_row, &[row("a", "1", 0)], 1).unwrap();
    let one = db.snapshot("c").unwrap();
    db.apply("c", 0, by_row, &[row("a", "2", 0), row("b", "2", 0)], 2)
        .unwrap();
    let two = db.snapshot("c").unwrap();
    db.apply("c", 0, by_row, &[row("a", "", 20)], 3).unwrap();
    db.retire("c", 0, 1000).unwrap();
    for (snapshot, flushed, a, count) in [
        (nothing, None, None, 0),
        (one, Some(1), Some(&b"1"[..]), 1),
        (two, Some(2), Some(&b"2"[..]), 2),
    ] {
        assert_eq!(snapshot.flushed(0), Ok(flushed));
        assert_eq!(snapshot.get(0, b"a").unwrap().as_deref(), a);
        assert_eq!(snapshot.range(0, &KeyRange::all()).unwrap().count(), count);
    }
    assert_eq!(db.get("c", 0, b"a"), Ok(None));
}

#[test]
fn a_folder_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.apply("c", 0, Segmenting::None, &[row("a", "1", 0)], 1).unwrap();
    db.close();
    let format = dir.path().join("FORMAT");
    let text = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, text.replace("state 1", "state 2")).unwrap();
    let error = StateDb::open(dir.path(), small()).err().unwrap();
    assert!(
        error.to_string().contains("has format 2, this program reads format 1"),
        "{error}"
    );
    std::fs::write(&format, text).unwrap();
    assert_eq!(all(&open(dir.path()), "c", 0), "a=1");
}
