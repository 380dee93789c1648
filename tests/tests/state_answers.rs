//! Promise: what stages that keep something answer over rides is what the same rides give in a few lines of plain Rust over
//! the CSV: counts by vendor, per minute and vendor, what comes too late, statistics by zone, the greatest tips of an hour.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use millstream::connect::Options;
use millstream::record::Record;
use millstream_tests::{InProcess, append, header, make_topic, read_topic, real_rides, skip};
use serde_json::{Map, Value, json};

const LONG: Duration = Duration::from_secs(60);
const MINUTE_MS: i64 = 60_000;
const GRACE_MS: i64 = 10_000;
const HOUR_MS: i64 = 3_600_000;
const TIPS: usize = 3;

const PIPELINES: [(&str, &str); 2] = [
    (
        "vendors",
        r#"
        [source.rides]
        timestamp = "tpep_pickup_datetime"
        [stage.all]
        plugin = "@count-by-vendor"
        input = "rides"
        key = "VendorID"
        partitions = 1
        to = { counted = "vendors", unkeyed = "no-vendor" }
        [stage.minutes]
        plugin = "@count"
        input = "rides"
        key = "VendorID"
        partitions = 1
        window = { tumbling = "1m", grace = "10s" }
        emit = "close"
        to = { counted = "minutes", late = "late", unkeyed = false }
        "#,
    ),
    (
        "zones",
        r#"
        [source.rides]
        timestamp = "tpep_pickup_datetime"
        [stage.fares]
        plugin = "@statistics"
        input = "rides"
        key = "PULocationID"
        config = { field = "/fare_amount" }
        to.statistics = "fares"
        [stage.tips]
        plugin = "@top-n"
        input = "rides"
        key = "VendorID"
        config = { field = "/tip_amount", label = "/PULocationID", n = 3 }
        window = { tumbling = "1h", grace = "24000h" }
        emit = "close"
        to = { top = "tips", late = false, unkeyed = false }
        "#,
    ),
];

/// A ride as JSON, with what the answers need of it.
struct Ride {
    value: Value,
    pickup_ms: i64,
    vendor: Option<String>,
    zone: String,
    fare: f64,
    tip: f64,
}

fn rides(file: &Path) -> Vec<Ride> {
    let mut reader = csv::Reader::from_path(file).expect("a CSV file");
    let columns = reader.headers().expect("a header").clone();
    let ride = |row: csv::StringRecord| {
        let cell = |name: &str| &row[columns.iter().position(|column| column == name).expect("the column")];
        let member = |(column, cell): (&str, &str)| {
            let value = if cell.is_empty() {
                Value::Null
            } else if let Ok(whole) = cell.parse::<i64>() {
                json!(whole)
            } else {
                cell.parse::<f64>().map_or(json!(cell), |number| json!(number))
            };
            (column.to_owned(), value)
        };
        let pickup = cell("tpep_pickup_datetime").replace(' ', "T") + "Z";
        Ride {
            value: Value::Object(columns.iter().zip(&row).map(member).collect::<Map<_, _>>()),
            pickup_ms: pickup.parse::<jiff::Timestamp>().expect("a time").as_millisecond(),
            vendor: Some(cell("VendorID"))
                .filter(|vendor| !vendor.is_empty())
                .map(str::to_owned),
            zone: cell("PULocationID").to_owned(),
            fare: cell("fare_amount").parse().expect("a number"),
            tip: cell("tip_amount").parse().expect("a number"),
        }
    };
    reader.records().map(|row| ride(row.expect("a row"))).collect()
}

/// Results by key and the start of their window.
type Results = BTreeMap<(String, i64), Value>;

/// The last result of each key and window, without the bounds; how many results there were.
fn results(running: &InProcess, topic: &str) -> (Results, usize) {
    let records = read_topic(running.log(), topic).concat();
    let mut results = Results::new();
    for record in &records {
        let mut value: Value = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        let members = value.as_object_mut().expect("an object");
        let start = members.remove("window_start");
        members.remove("window_end");
        let start = start.map_or(0, |start| {
            let start: jiff::Timestamp = start.as_str().and_then(|text| text.parse().ok()).expect("a time");
            start.as_millisecond()
        });
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("UTF-8");
        results.insert((key, start), value);
    }
    (results, records.len())
}

fn pickups(records: &[Record]) -> Vec<i64> {
    records.iter().map(|record| record.timestamp_ms).collect()
}

fn assert_answers(dir: &Path, file: &Path) {
    let rides = rides(file);
    let mut running = InProcess::open(&dir.join("data"), 2, Options::default());
    make_topic(running.log(), "rides", 1);
    let record = |ride: &Ride| Record {
        value: Some(ride.value.to_string().into_bytes()),
        ..Record::default()
    };
    for chunk in rides.chunks(50) {
        append(running.log(), "rides", 0, &chunk.iter().map(record).collect::<Vec<_>>());
    }
    for (name, text) in PIPELINES {
        running.start(name, text);
    }
    running.until_end(LONG);
    assert!(running.host.close_windows(&|| false), "they close");

    let mut all = BTreeMap::<_, i64>::new();
    let (mut minutes, mut late, mut unkeyed) = (BTreeMap::<_, i64>::new(), Vec::new(), Vec::new());
    let mut fares = BTreeMap::<_, Vec<f64>>::new();
    let mut tips = BTreeMap::<_, Vec<(f64, i64)>>::new();
    let mut now = i64::MIN;
    for ride in &rides {
        fares.entry((ride.zone.clone(), 0)).or_default().push(ride.fare);
        let Some(vendor) = &ride.vendor else {
            unkeyed.push(ride.pickup_ms);
            continue;
        };
        *all.entry(vendor.clone()).or_default() += 1;
        now = now.max(ride.pickup_ms);
        let minute = ride.pickup_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
        if minute + MINUTE_MS + GRACE_MS > now {
            *minutes.entry((vendor.clone(), minute)).or_default() += 1;
        } else {
            late.push(ride.pickup_ms);
        }
        let hour = ride.pickup_ms.div_euclid(HOUR_MS) * HOUR_MS;
        let zone = ride.zone.parse().expect("a number");
        tips.entry((vendor.clone(), hour)).or_default().push((ride.tip, zone));
    }

    // Each ride is told the count of its vendor so far.
    let mut counts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in read_topic(running.log(), "vendors").concat() {
        let value: Value = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        counts
            .entry(value["vendor"].to_string())
            .or_default()
            .push(value["count"].as_i64().expect("a count"));
    }
    let expected = all
        .iter()
        .map(|(vendor, count)| (vendor.clone(), (1..=*count).collect::<Vec<_>>()));
    assert_eq!(counts, expected.collect());
    assert_eq!(pickups(&read_topic(running.log(), "no-vendor").concat()), unkeyed);

    let (found, count) = results(&running, "minutes");
    assert_eq!(count, found.len(), "one result for each minute and vendor");
    let expected: Results = minutes
        .into_iter()
        .map(|(group, count)| (group, json!({"count": count})))
        .collect();
    assert_eq!(found, expected);
    let stragglers = read_topic(running.log(), "late").concat();
    assert_eq!(pickups(&stragglers), late);
    assert!(
        stragglers
            .iter()
            .all(|ride| header(ride, "__millstream.late").is_some_and(|why| why.starts_with("closed: ")))
    );

    let (found, _) = results(&running, "fares");
    assert_eq!(found.len(), fares.len());
    for (zone, fares) in &fares {
        let number = |name: &str| found[zone][name].as_f64().expect("a number");
        let sum: f64 = fares.iter().sum();
        assert_eq!(number("count"), fares.len() as f64, "{zone:?}");
        assert!(
            (number("sum") - sum).abs() < 1e-6 && (number("mean") - sum / fares.len() as f64).abs() < 1e-6,
            "{zone:?}"
        );
        assert_eq!(
            number("min"),
            fares.iter().copied().fold(f64::INFINITY, f64::min),
            "{zone:?}"
        );
        assert_eq!(
            number("max"),
            fares.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            "{zone:?}"
        );
    }

    let (found, count) = results(&running, "tips");
    assert_eq!(count, found.len(), "one result for each hour and vendor");
    assert_eq!(found.len(), tips.len());
    for (group, mut tips) in tips {
        tips.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.to_string().cmp(&b.1.to_string())));
        let expected: Vec<_> = tips.iter().take(TIPS).map(|(tip, zone)| (*tip, *zone)).collect();
        let list = found[&group]["top"].as_array().expect("a list").iter();
        let found: Vec<_> = list
            .map(|entry| {
                (
                    entry["value"].as_f64().expect("a tip"),
                    entry["label"].as_i64().expect("a zone"),
                )
            })
            .collect();
        assert_eq!(found, expected, "{group:?}");
    }
    for dlq in ["vendors-dlq", "zones-dlq"] {
        let letters = read_topic(running.log(), dlq).concat();
        let reasons: Vec<_> = letters
            .iter()
            .map(|letter| header(letter, "__millstream.reason"))
            .collect();
        assert_eq!(reasons, [] as [Option<&str>; 0], "{dlq}");
    }
    println!(
        "{} rides, {} too late, {} without a vendor",
        rides.len(),
        late.len(),
        unkeyed.len()
    );
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
    for (seed, count) in [(1, 5000), (20_200_701, 700)] {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("rides.csv");
        let mut csv = Vec::new();
        millstream::cli::rides::write_csv(&mut csv, count, seed).expect("memory takes it");
        std::fs::write(&file, csv).expect("written");
        println!("seed {seed}");
        assert_answers(dir.path(), &file);
    }
}
