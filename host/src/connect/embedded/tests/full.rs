//! A full disk: commits say so, reads go on, and all goes on by itself when there is room.

use super::*;
use std::process::Command;

#[test]
fn below_the_reserve_nothing_is_written_and_topics_can_be_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    log.commit(appends(vec![append("t", 0, &["a"])])).unwrap();
    log.close();
    let full = Options {
        disk_reserve_bytes: u64::MAX / 2,
        ..small()
    };
    let log = EmbeddedLog::open(dir.path(), full).unwrap();
    let error = log.commit(appends(vec![append("t", 0, &["b"])])).unwrap_err();
    assert!(matches!(error, CommitError::DiskFull { needed_bytes, .. } if needed_bytes > u64::MAX / 2));
    assert!(matches!(log.writable(), Err(CommitError::DiskFull { .. })));
    assert!(matches!(
        log.create_topic(&TopicSpec::new("u", 1)),
        Err(CommitError::DiskFull { .. })
    ));
    assert_eq!(texts(&log, &TopicPartition::new("t", 0), 0).len(), 1);
    log.delete_topic("t").unwrap();
    assert_eq!(log.topics(), Ok(vec![]));
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

/// With a reserve commits stop before the disk is full; without one the engine itself meets its end.
#[test]
fn a_disk_that_fills_up_loses_nothing_and_goes_on_when_there_is_room() {
    for reserve in [8 << 20, 0] {
        let Some(disk) = SmallDisk::mount(96) else {
            return;
        };
        let options = Options {
            disk_reserve_bytes: reserve,
            ..small()
        };
        let path = disk.0.path().join("data");
        let log = EmbeddedLog::open(&path, options.clone()).unwrap();
        log.create_topic(&TopicSpec::new("t", 1)).unwrap();
        let tp = TopicPartition::new("t", 0);
        let ballast = disk.0.path().join("ballast");
        std::fs::write(&ballast, vec![1; 24 << 20]).unwrap();
        let filler = "x".repeat(300 << 10);
        let mut acknowledged = 0u64;
        let mut commit = |log: &EmbeddedLog| {
            let text = format!("{acknowledged} {filler}");
            let outcome = log.commit(appends(vec![append("t", 0, &[&text])]));
            match &outcome {
                Ok(committed) => {
                    assert_eq!(committed.base_offsets, [acknowledged]);
                    acknowledged += 1;
                }
                // What is not known is asked for, as a task does.
                Err(CommitError::Unknown { .. }) => acknowledged = log.next_offset(&tp).unwrap(),
                Err(_) => {}
            }
            (acknowledged, outcome)
        };
        let mut full = 0;
        for _ in 0..1000 {
            match commit(&log).1 {
                Ok(_) => {}
                Err(CommitError::DiskFull { .. }) => full += 1,
                Err(CommitError::Unavailable { .. } | CommitError::Unknown { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            if full > 5 {
                break;
            }
        }
        assert!(full > 5, "the disk was never full");
        let (before, _) = commit(&log);
        assert_eq!(texts(&log, &tp, 0).len() as u64, before, "reserve {reserve}");
        // Room again: the same log goes on without anybody's help.
        std::fs::remove_file(&ballast).unwrap();
        let since = Instant::now();
        while let Err(error) = commit(&log).1 {
            assert!(since.elapsed() < Duration::from_secs(20), "reserve {reserve}: {error}");
        }
        let (count, _) = commit(&log);
        assert!(count > before);
        log.close();
        let log = EmbeddedLog::open(&path, options).unwrap();
        let numbers: Vec<_> = texts(&log, &tp, 0)
            .into_iter()
            .map(|(n, text)| {
                (
                    n,
                    text[..4]
                        .trim_end_matches(" x")
                        .trim_end_matches('x')
                        .trim()
                        .to_string(),
                )
            })
            .collect();
        assert_eq!(numbers.len() as u64, count, "reserve {reserve}");
        assert!(numbers.iter().all(|(n, text)| n.to_string() == *text), "{numbers:?}");
    }
}
