//! Many topics in one folder.

use super::*;

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Cumulated time on a processor of all threads of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn five_hundred_topics_in_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let before = resident_bytes();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    let since = Instant::now();
    for n in 0..500 {
        log.create_topic(&TopicSpec::new(format!("topic-{n}"), 4)).unwrap();
    }
    println!("500 topics of 4 partitions made in {:?}", since.elapsed());
    let since = Instant::now();
    for n in 0..500 {
        log.commit(appends(vec![append(&format!("topic-{n}"), n % 4, &["a"])]))
            .unwrap();
    }
    println!("a first record in each in {:?}", since.elapsed());
    println!("RSS {} MB more", resident_bytes().saturating_sub(before) >> 20);
    let since = Instant::now();
    log.close();
    println!("closed in {:?}", since.elapsed());
    let since = Instant::now();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    println!(
        "opened in {:?}, RSS {} MB more",
        since.elapsed(),
        resident_bytes().saturating_sub(before) >> 20
    );
    for n in 0..500 {
        assert_eq!(
            texts(&log, &TopicPartition::new(format!("topic-{n}"), n % 4), 0).len(),
            1
        );
    }
}

#[test]
fn figures() {
    if std::env::var("FIG").is_err() {
        return;
    }
    let dir = tempfile::tempdir_in("/work").unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    log.create_topic(&TopicSpec::new("t", 4)).unwrap();
    let value = vec![b'x'; 200];
    let n = 2_000_000u64;
    for per_commit in [1000u64, 10000] {
        let (since, cpu) = (Instant::now(), cpu_time());
        let mut waits = Vec::new();
        for i in 0..n / per_commit {
            let mut appends = Vec::new();
            for p in 0..4 {
                let mut blocks = BlockBuilder::new();
                for j in 0..per_commit / 4 {
                    let key = (i * j).to_le_bytes();
                    blocks
                        .push(crate::record::RecordRef {
                            key: Some(&key),
                            value: Some(&value),
                            headers: Default::default(),
                            timestamp_ms: j as i64,
                            offset: 0,
                        })
                        .unwrap();
                }
                appends.push(Append {
                    topic: "t".into(),
                    partition: p,
                    blocks,
                });
            }
            let t = Instant::now();
            log.commit(Commit {
                appends,
                ..Commit::default()
            })
            .unwrap();
            waits.push(t.elapsed());
        }
        waits.sort();
        println!(
            "append {per_commit}/commit: {:?} per record wall, {:?} cpu; commit p50 {:?} p99 {:?} max {:?}",
            since.elapsed() / n as u32,
            (cpu_time() - cpu) / n as u32,
            waits[waits.len() / 2],
            waits[waits.len() * 99 / 100],
            waits.last()
        );
    }
    for round in 0..2 {
        let (since, cpu) = (Instant::now(), cpu_time());
        let mut count = 0u64;
        let mut sum = 0u64;
        for p in 0..4 {
            let tp = TopicPartition::new("t", p);
            let mut from = 0;
            loop {
                let f = log.fetch(&tp, from, 1 << 20).unwrap();
                if f.is_empty() {
                    break;
                }
                for r in f.records() {
                    sum += r.value.unwrap().len() as u64 + r.timestamp_ms as u64;
                    count += 1;
                }
                from = f.next_offset();
            }
        }
        println!(
            "read {round}: {count} {sum} {:?} wall {:?} cpu",
            since.elapsed() / count as u32,
            (cpu_time() - cpu) / count as u32
        );
    }
    let (since, cpu) = (Instant::now(), cpu_time());
    std::thread::sleep(Duration::from_secs(2));
    println!("idle 2 s: cpu {:?} of {:?}", cpu_time() - cpu, since.elapsed());
    println!("RSS {}", resident_bytes() >> 20);
    let since = Instant::now();
    let log2 = super::damage::image(&log);
    println!("copied in {:?}", since.elapsed());
    let since = Instant::now();
    let log2 = EmbeddedLog::open(log2.path(), small()).unwrap();
    println!("opened killed image in {:?}", since.elapsed());
    log2.close();
    let since = Instant::now();
    log.close();
    println!("closed in {:?}", since.elapsed());
    let since = Instant::now();
    let _log = EmbeddedLog::open(dir.path(), small()).unwrap();
    println!("opened in {:?}", since.elapsed());
}
