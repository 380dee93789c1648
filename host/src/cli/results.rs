//! What the demo's pipelines have found, as small tables.

use std::collections::BTreeMap;

use miette::IntoDiagnostic;
use serde_json::Value;

use super::table::{Alignment, Streamed, count, plural};
use crate::connect::{EmbeddedLog, TopicPartition};
use crate::pipeline::PlannedStage;
use crate::record::RecordRef;
use crate::state::typed::time_text;
use crate::task::LATE_HEADER;

/// Rows that are shown of more.
const ROWS_SHOWN: usize = 6;
/// Columns of a ride that are worth a look.
const RIDE_COLUMNS: [&str; 7] = [
    "tpep_pickup_datetime",
    "VendorID",
    "PULocationID",
    "DOLocationID",
    "trip_distance",
    "payment_type",
    "total_amount",
];
const FETCH_BYTES: usize = 1 << 20;

/// Shows the first rides, and how many there are.
pub(super) fn first_rides(log: &EmbeddedLog, topic: &str, total: u64) -> miette::Result<()> {
    let mut rides = Vec::new();
    each(log, topic, &mut |record| {
        rides.push(object(record));
        rides.len() < ROWS_SHOWN
    })?;
    let rows: Vec<Vec<Value>> = rides
        .iter()
        .map(|ride| {
            RIDE_COLUMNS
                .iter()
                .map(|column| ride.get(column).cloned().unwrap_or_default())
                .collect()
        })
        .collect();
    eprintln!("\nthe rides:");
    table(&RIDE_COLUMNS.map(str::to_owned), rows, total)
}

/// Shows what an aggregator has found: of each group its last result, and what came too late for its windows.
pub(super) fn show(log: &EmbeddedLog, stage: &PlannedStage) -> miette::Result<()> {
    if stage.accumulator.is_none() {
        return Ok(());
    }
    for target in stage.branches.iter().filter_map(|branch| branch.topic.as_ref()) {
        groups(log, &target.topic, stage.window.is_some())?;
    }
    match stage.late.as_ref().and_then(|late| late.topic.as_ref()) {
        Some(late) => stragglers(log, &late.topic),
        None => Ok(()),
    }
}

fn groups(log: &EmbeddedLog, topic: &str, windowed: bool) -> miette::Result<()> {
    let mut last: BTreeMap<(String, String), Value> = BTreeMap::new();
    each(log, topic, &mut |record| {
        let value = object(record);
        let window = value
            .get("window_start")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        last.insert((window, key_text(record)), value);
        true
    })?;
    let Some(fields) = last.values().next().and_then(Value::as_object) else {
        return Ok(());
    };
    let fields: Vec<String> = fields
        .keys()
        .filter(|name| !name.starts_with("window_"))
        .cloned()
        .collect();
    let mut columns: Vec<String> = windowed.then(|| "window".to_owned()).into_iter().collect();
    columns.push("key".into());
    columns.extend(fields.iter().cloned());
    let rows = last.iter().take(ROWS_SHOWN).map(|((window, key), value)| {
        let mut row: Vec<Value> = windowed.then(|| window.as_str().into()).into_iter().collect();
        // Numbers stand right, as they would in a field.
        row.push(key.parse::<i64>().map_or_else(|_| key.as_str().into(), Value::from));
        row.extend(fields.iter().map(|field| value.get(field).cloned().unwrap_or_default()));
        row
    });
    let what = if windowed {
        "groups of a window and a key"
    } else {
        "groups"
    };
    eprintln!("\n{what}, in {topic}:");
    table(&columns, rows.collect(), last.len() as u64)
}

fn stragglers(log: &EmbeddedLog, topic: &str) -> miette::Result<()> {
    let (mut rows, mut total) = (Vec::new(), 0);
    each(log, topic, &mut |record| {
        total += 1;
        if rows.len() < ROWS_SHOWN / 2 {
            let why = record.headers.last(LATE_HEADER).flatten().unwrap_or_default();
            let why = String::from_utf8_lossy(why);
            rows.push(vec![
                time_text(record.timestamp_ms).into(),
                key_text(record).into(),
                why.into(),
            ]);
        }
        true
    })?;
    if total == 0 {
        eprintln!("nothing came too late");
        return Ok(());
    }
    eprintln!("\n{} came too late, in {topic}:", plural(total, "record"));
    table(&["time", "key", "why"].map(str::to_owned), rows, total)
}

fn table(columns: &[String], rows: Vec<Vec<Value>>, total: u64) -> miette::Result<()> {
    let alignment = |at: usize| {
        let numbers = rows.iter().all(|row| row[at].is_number() || row[at].is_null());
        if numbers { Alignment::Right } else { Alignment::Left }
    };
    let header = columns
        .iter()
        .enumerate()
        .map(|(at, name)| (name.clone(), alignment(at)))
        .collect();
    let shown = rows.len() as u64;
    let mut table = Streamed::new(header);
    for row in &rows {
        table.push(row.iter().map(text).collect())?;
    }
    table.finish()?;
    if total > shown {
        eprintln!("… and {} more", count(total - shown));
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{:.2}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

fn object(record: &RecordRef<'_>) -> Value {
    record
        .value
        .and_then(|value| serde_json::from_slice(value).ok())
        .unwrap_or_default()
}

fn key_text(record: &RecordRef<'_>) -> String {
    String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned()
}

/// Shows the records of a topic to `visit`, partition by partition, until it returns `false`.
fn each(log: &EmbeddedLog, topic: &str, visit: &mut dyn FnMut(&RecordRef<'_>) -> bool) -> miette::Result<()> {
    let partitions = log.topic(topic).into_diagnostic()?.spec.partitions;
    for partition in 0..partitions {
        let place = TopicPartition::new(topic, partition);
        let mut from = 0;
        loop {
            let fetched = log.fetch(&place, from, FETCH_BYTES).into_diagnostic()?;
            if fetched.is_empty() {
                break;
            }
            for record in fetched.records() {
                if !visit(&record) {
                    return Ok(());
                }
            }
            from = fetched.next_offset();
        }
    }
    Ok(())
}
