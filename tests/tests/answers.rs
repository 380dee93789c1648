//! Promise: what the demo's pipelines answer is what the same rides give in a few lines of plain Rust over the CSV.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use millstream::connect::EmbeddedLog;
use millstream::record::Record;
use millstream_tests::{header, millstream, open, read_topic, real_rides, root, skip, succeed, value};
use serde_json::{Map, Value, json};

/// Records by what they say, however often each: key, time and value, the value's members in order and its numbers as
/// twelve digits.
type Bag = BTreeMap<String, u64>;

fn canonical(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("{:.11e}", number.as_f64().expect("a float")),
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            let members: Vec<_> = sorted
                .iter()
                .map(|(name, value)| format!("{name}={}", canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}

fn entry(key: Option<&str>, timestamp_ms: i64, value: &Value) -> String {
    format!("{key:?} {timestamp_ms} {}", canonical(value))
}

fn bag_of(records: &[Record]) -> Bag {
    let mut bag = Bag::new();
    for record in records {
        let value = value(record);
        let key = record
            .key
            .as_deref()
            .map(|key| std::str::from_utf8(key).expect("UTF-8"));
        *bag.entry(entry(key, record.timestamp_ms, &value)).or_default() += 1;
    }
    bag
}

/// A pickup or dropoff, `2020-07-01 00:25:32`, in seconds since the epoch.
fn seconds(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("digits");
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days since the epoch of the civil calendar, counted by years that begin in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19)
}

#[derive(Default)]
struct Expected {
    topics: BTreeMap<&'static str, Bag>,
    /// Messages of dead letters.
    refused: BTreeMap<String, u64>,
    rides: u64,
}

impl Expected {
    fn add(&mut self, topic: &'static str, key: &str, time: i64, value: &Value) {
        *self
            .topics
            .entry(topic)
            .or_default()
            .entry(entry(Some(key), time, value))
            .or_default() += 1;
    }

    /// The answers, calculated from the file.
    fn of(file: &Path) -> Expected {
        let mut expected = Expected::default();
        let mut reader = csv::Reader::from_path(file).expect("a CSV file");
        let columns = reader.headers().expect("a header").clone();
        for row in reader.records() {
            let row = row.expect("a row");
            let cell = |name: &str| &row[columns.iter().position(|column| column == name).expect("the column")];
            let number = |name: &str| cell(name).parse::<f64>().expect("a number");
            let ride: Map<String, Value> = columns
                .iter()
                .zip(&row)
                .map(|(column, cell)| {
                    let value = if cell.is_empty() {
                        Value::Null
                    } else {
                        cell.parse::<f64>().map_or(json!(cell), |n| json!(n))
                    };
                    (column.to_owned(), value)
                })
                .collect();
            let key = cell("PULocationID");
            let (pickup, dropoff) = (
                seconds(cell("tpep_pickup_datetime")),
                seconds(cell("tpep_dropoff_datetime")),
            );
            let time = pickup * 1000;
            expected.rides += 1;
            let branch = if number("total_amount") >= 40.0 {
                "rides-high"
            } else {
                "rides-low"
            };
            expected.add(branch, key, time, &Value::Object(ride.clone()));
            if cell("payment_type") != "2" {
                expected.add("rides-shared", key, time, &Value::Object(ride.clone()));
            }

            let duration = dropoff - pickup;
            if duration < 0 {
                let message = format!("the ride ends {} s before it begins", -duration);
                *expected.refused.entry(message).or_default() += 1;
                continue;
            }
            let mut enriched = ride;
            let fare = number("fare_amount");
            let speed = number("trip_distance") * 1.609_344 / (duration as f64 / 3600.0);
            enriched.insert("duration_s".into(), json!(duration));
            enriched.insert(
                "speed_kmh".into(),
                if duration > 0 { json!(speed) } else { Value::Null },
            );
            let share = number("tip_amount") / fare;
            enriched.insert("tip_share".into(), if fare > 0.0 { json!(share) } else { Value::Null });
            let enriched = Value::Object(enriched);
            expected.add("rides-enriched", key, time, &enriched);
            let paid = match cell("payment_type") {
                "1" => "rides-card",
                "2" => "rides-cash",
                _ => "rides-other",
            };
            expected.add(paid, key, time, &enriched);
            for (charge, column) in [
                ("fare", "fare_amount"),
                ("tip", "tip_amount"),
                ("tolls", "tolls_amount"),
            ] {
                if number(column) != 0.0 {
                    expected.add(
                        "charges",
                        charge,
                        time,
                        &json!({"charge": charge, "amount": number(column)}),
                    );
                }
            }
        }
        expected
    }
}

fn size(bag: Option<&Bag>) -> u64 {
    bag.map_or(0, |bag| bag.values().sum())
}

fn dead_letters(log: &Arc<EmbeddedLog>, topic: &str) -> BTreeMap<String, u64> {
    let mut messages = BTreeMap::new();
    for letter in read_topic(log, topic).concat() {
        assert_eq!(header(&letter, "__streams.errors.topic"), Some("rides"));
        let message = header(&letter, "__streams.errors.message").expect("a message");
        *messages.entry(message.to_owned()).or_default() += 1;
    }
    messages
}

/// A group: its key, and where its window starts, 0 without.
type Group = (String, i64);

/// What the demo's pipelines keep of the rides, calculated from the rides in the order in which each partition has them.
#[derive(Default)]
struct Kept {
    by_vendor: BTreeMap<Group, i64>,
    per_minute: BTreeMap<Group, i64>,
    per_zone: BTreeMap<Group, i64>,
    /// Rides that came when their minute had been closed for half a minute.
    late: u64,
    /// Number and amounts in cents, by how they were paid.
    paid: BTreeMap<Group, Vec<i64>>,
}

impl Kept {
    fn of(log: &Arc<EmbeddedLog>) -> Kept {
        let mut kept = Kept::default();
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        for partition in read_topic(log, "rides") {
            let mut newest = i64::MIN;
            for record in partition {
                let ride = value(&record);
                let time = seconds(ride["tpep_pickup_datetime"].as_str().expect("a time")) * 1000;
                let minute = time - time.rem_euclid(60_000);
                newest = newest.max(time);
                let zone = String::from_utf8(record.key.clone().expect("a key")).expect("UTF-8");
                if minute + 60_000 + 30_000 <= newest {
                    kept.late += 1;
                } else {
                    *kept.per_zone.entry((zone, minute)).or_default() += 1;
                }
                if let Some(vendor) = text(&ride["VendorID"]) {
                    *kept.by_vendor.entry((vendor.clone(), 0)).or_default() += 1;
                    *kept.per_minute.entry((vendor, minute)).or_default() += 1;
                }
                if let Some(paid) = text(&ride["payment_type"]) {
                    let cents = (ride["total_amount"].as_f64().expect("an amount") * 100.0).round() as i64;
                    kept.paid.entry((paid, 0)).or_default().push(cents);
                }
            }
        }
        kept
    }

    fn assert(&self, log: &Arc<EmbeddedLog>) {
        let counts = |topic: &str| -> (BTreeMap<Group, i64>, usize) {
            let results = results(log, topic);
            let records = read_topic(log, topic).concat().len();
            let count = |(group, value): (Group, Value)| (group, value["count"].as_i64().expect("a count"));
            (results.into_iter().map(count).collect(), records)
        };
        assert_eq!(counts("rides-by-vendor").0, self.by_vendor);
        // A window has one result.
        assert_eq!(
            counts("rides-per-minute"),
            (self.per_minute.clone(), self.per_minute.len())
        );
        assert_eq!(read_topic(log, "rides-per-minute-late").concat(), []);
        assert_eq!(counts("rides-per-zone"), (self.per_zone.clone(), self.per_zone.len()));
        let late = read_topic(log, "rides-late").concat();
        assert_eq!(late.len() as u64, self.late);
        for record in &late {
            let why = header(record, "__millstream.late").expect("a reason");
            assert!(why.starts_with("closed: "), "{why}");
        }
        let paid = results(log, "rides-by-payment");
        assert!(paid.keys().eq(self.paid.keys()), "{:?}", paid.keys());
        for (group, cents) in &self.paid {
            let (count, sum) = (cents.len() as i64, cents.iter().sum::<i64>());
            let found = &paid[group];
            let near = |name: &str, cents: f64| {
                let found = found[name].as_f64().expect("a number");
                assert!((found - cents / 100.0).abs() < 1e-6, "{name} of {group:?}: {found}");
            };
            assert_eq!(found["count"].as_i64(), Some(count), "{group:?}");
            near("sum", sum as f64);
            near("mean", sum as f64 / count as f64);
            near("min", *cents.iter().min().expect("one at least") as f64);
            near("max", *cents.iter().max().expect("one at least") as f64);
        }
    }
}

/// The last result of each group.
fn results(log: &Arc<EmbeddedLog>, topic: &str) -> BTreeMap<Group, Value> {
    let records = read_topic(log, topic).concat();
    let result = |record: &Record| {
        let value = value(record);
        let start = value["window_start"]
            .as_str()
            .map_or(0, |start| seconds(&start.replace('T', " ")) * 1000);
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("UTF-8");
        ((key, start), value)
    };
    records.iter().map(result).collect()
}

/// Runs the demo and holds every topic of it against the calculation.
fn assert_answers(dir: &Path, file: &Path) {
    let demo = dir.join("demo");
    let mut command = millstream(["demo", "--pipelines", "plugins/demo", "--dir"]);
    succeed(command.arg(&demo).arg(file).current_dir(root()));
    let expected = Expected::of(file);
    let log = open(&demo.join("data"));
    assert_eq!(read_topic(&log, "rides").concat().len() as u64, expected.rides);
    for topic in [
        "rides-high",
        "rides-low",
        "rides-enriched",
        "rides-shared",
        "rides-card",
        "rides-cash",
        "rides-other",
        "charges",
    ] {
        let found = bag_of(&read_topic(&log, topic).concat());
        let wanted = expected.topics.get(topic);
        println!("{topic}: {}", size(Some(&found)));
        assert_eq!(size(Some(&found)), size(wanted), "records in {topic}");
        let none = Bag::new();
        let wanted = wanted.unwrap_or(&none);
        let missing = wanted.iter().find(|(record, count)| found.get(*record) != Some(count));
        assert_eq!(
            missing,
            None,
            "{topic}; among what was found: {:?}",
            found.keys().find(|f| !wanted.contains_key(*f))
        );
    }
    for shared in read_topic(&log, "rides-shared").concat() {
        assert_eq!(header(&shared, "shared-by"), Some("millstream demo"));
    }
    assert_eq!(dead_letters(&log, "enrich-dlq"), expected.refused);
    assert_eq!(dead_letters(&log, "branch-by-amount-dlq"), BTreeMap::new());
    let kept = Kept::of(&log);
    println!(
        "{} groups of zones and minutes, {} late",
        kept.per_zone.len(),
        kept.late
    );
    kept.assert(&log);
}

#[test]
fn real_rides_are_answered_as_calculated() {
    let Some(file) = real_rides() else {
        skip("real_rides_are_answered_as_calculated", "the real rides are not here");
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    assert_answers(dir.path(), &file);
}

#[test]
fn made_up_rides_are_answered_as_calculated() {
    let dir = tempfile::tempdir().expect("a folder");
    for (seed, count) in [(1, 20_000), (20_200_701, 3000)] {
        let file = dir.path().join(format!("rides-{seed}.csv"));
        let mut csv = Vec::new();
        millstream::cli::rides::write_csv(&mut csv, count, seed).expect("memory takes it");
        std::fs::write(&file, csv).expect("written");
        println!("seed {seed}");
        assert_answers(dir.path(), &file);
    }
}

#[test]
fn the_calculation_knows_the_calendar() {
    assert_eq!(seconds("1970-01-01 00:00:00"), 0);
    assert_eq!(seconds("2020-07-01 00:25:32"), 1_593_563_132);
    assert_eq!(seconds("2000-02-29 23:59:59"), 951_868_799);
}
