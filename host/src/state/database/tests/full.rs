//! A full disk: flushes say so, reads go on, and all goes on by itself when there is room.

use super::*;
use std::process::Command;

#[test]
fn below_the_reserve_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let options = StateOptions {
        disk_reserve_bytes: u64::MAX / 2,
        ..small()
    };
    let db = StateDb::open(dir.path(), options).unwrap().db;
    let error = db.apply("c", 1, Segmenting::None, &[row("a", "1", 0)], 1).unwrap_err();
    assert!(
        matches!(&error, StateError::DiskFull { needed_bytes, .. } if *needed_bytes > u64::MAX / 2),
        "{error}"
    );
    assert!(error.to_string().contains("for c[1]"), "{error}");
    assert_eq!((db.flushed("c", 1), db.get("c", 1, b"a")), (Ok(None), Ok(None)));
}

/// A small file system of its own, where this user may mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("no file system may be mounted here: only the reserve is tested");
            return None;
        }
        Some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// With a reserve flushes stop before the disk is full; without one the engine itself meets its end.
#[test]
fn a_disk_that_fills_up_loses_nothing_and_goes_on_when_there_is_room() {
    for reserve in [4 << 20, 0] {
        let Some(disk) = SmallDisk::mount(64) else {
            return;
        };
        let options = StateOptions {
            disk_reserve_bytes: reserve,
            ..small()
        };
        let path = disk.0.path().join("state");
        let db = StateDb::open(&path, options.clone()).unwrap().db;
        let ballast = disk.0.path().join("ballast");
        std::fs::write(&ballast, vec![1; 24 << 20]).unwrap();
        // Bytes that no compression makes less.
        let noise: Vec<u8> = (0..1u32 << 20)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
            .collect();
        let apply = |n: u64| {
            let keys: Vec<_> = (0..1000).map(|k| format!("{n:03} {k:04}")).collect();
            let rows: Vec<_> = keys
                .iter()
                .enumerate()
                .map(|(k, key)| StoreRow {
                    key: key.as_bytes(),
                    value: Some(&noise[k * 1000..][..1000]),
                    timestamp_ms: 0,
                })
                .collect();
            db.apply("c", 0, Segmenting::None, &rows, n + 1)
        };
        let whole = |db: &StateDb| {
            let rows = db.range("c", 0, &KeyRange::all()).unwrap();
            rows.map(|row| row.unwrap().1.len())
                .filter(|length| *length == 1000)
                .count() as u64
        };
        let mut done = 0;
        let mut full = 0;
        for _ in 0..300 {
            match apply(done) {
                Ok(()) => done += 1,
                Err(StateError::DiskFull { .. }) => full += 1,
                Err(StateError::Unavailable { .. }) => std::thread::sleep(REOPEN_TIME_MIN),
                Err(error) => panic!("reserve {reserve}: {error}"),
            }
            if full > 5 {
                break;
            }
        }
        assert!(
            full > 5 && done > 5,
            "reserve {reserve}: {done} flushes, {full} refusals"
        );
        let since = Instant::now();
        loop {
            match db.flushed("c", 0) {
                Ok(flushed) => {
                    assert_eq!(flushed, Some(done));
                    break;
                }
                Err(error) => assert!(since.elapsed() < Duration::from_secs(20), "{error}"),
            }
        }
        // What was flushed is there; of what was not, some may be.
        assert!(whole(&db) >= done * 1000);
        std::fs::remove_file(&ballast).unwrap();
        while let Err(error) = apply(done) {
            assert!(since.elapsed() < Duration::from_secs(20), "reserve {reserve}: {error}");
        }
        db.close();
        let opened = StateDb::open(&path, options).unwrap();
        assert_eq!(opened.set_aside, None);
        assert_eq!(opened.db.flushed("c", 0), Ok(Some(done + 1)));
        assert_eq!(whole(&opened.db), (done + 1) * 1000);
    }
}
