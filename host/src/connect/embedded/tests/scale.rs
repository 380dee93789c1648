//! Many topics in one folder.

use super::*;

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
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
