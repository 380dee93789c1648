//! What a record costs to decode and encode, against serde structs of the same fields: a batch of 1,000 rides.
//!
//! `RIDES=FILE.csv` takes the long rides from a file of New York's trip records instead of making them up.

use std::hint::black_box;
use std::time::Duration;

use bumpalo::Bump;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream::format::{CsvFile, CsvOptions, Decoder, Encoder, Format};
use millstream::limits::BATCH_ROWS_MAX;
use millstream::output::Emitted;
use millstream::record::{Record, RecordRef};
use millstream::schema::{Branch, Field, FieldType, MappedField, Place, ValueBase};
use serde::{Deserialize, Serialize};

/// One field of a record with few others.
#[derive(Deserialize)]
struct Amount {
    total_amount: f64,
}

/// Three fields; the text borrowed, as who cares about speed would have it.
#[derive(Deserialize)]
struct Ride<'r> {
    #[serde(borrow)]
    tpep_pickup_datetime: &'r str,
    #[serde(rename = "PULocationID")]
    zone: i64,
    total_amount: f64,
}

/// All that a native program that adds two fields has to carry along.
#[derive(Deserialize, Serialize)]
struct Whole<'r> {
    id: i64,
    #[serde(borrow)]
    tpep_pickup_datetime: &'r str,
    #[serde(borrow)]
    tpep_dropoff_datetime: &'r str,
    #[serde(rename = "PULocationID")]
    pickup_zone: i64,
    #[serde(rename = "DOLocationID")]
    dropoff_zone: i64,
    payment_type: i64,
    trip_distance: f64,
    tip_amount: f64,
    total_amount: f64,
    #[serde(default)]
    tip_share: f64,
    #[serde(default)]
    zone_name: &'r str,
}

fn field(field_type: FieldType, pointer: &str) -> MappedField {
    MappedField {
        field: Field {
            name: pointer.trim_start_matches('/').to_owned(),
            field_type,
            optional: false,
        },
        place: Place::Value(pointer.to_owned()),
    }
}

fn one() -> Vec<MappedField> {
    vec![field(FieldType::Float, "/total_amount")]
}

fn three() -> Vec<MappedField> {
    vec![
        field(FieldType::Text, "/tpep_pickup_datetime"),
        field(FieldType::Integer, "/PULocationID"),
        field(FieldType::Float, "/total_amount"),
    ]
}

fn records(value: impl Fn(u64) -> String) -> Vec<Record> {
    // A fixed sequence of odd numbers (Knuth's multiplier): same rides on every machine.
    (0..BATCH_ROWS_MAX as u64)
        .map(|row| Record {
            value: Some(
                value(
                    row.wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407)
                        >> 33,
                )
                .into(),
            ),
            ..Record::default()
        })
        .collect()
}

/// About 230 bytes.
fn short(n: u64) -> String {
    format!(
        r#"{{"id":{},"tpep_pickup_datetime":"2020-07-01 {:02}:25:32","tpep_dropoff_datetime":"2020-07-01 {:02}:33:39","PULocationID":{},"DOLocationID":{},"payment_type":{},"trip_distance":{}.{},"tip_amount":{}.{},"total_amount":{}.{}}}"#,
        n % 10_000_000,
        n % 23,
        n % 23,
        n % 265,
        n % 263,
        n % 4,
        n % 30,
        n % 10,
        n % 9,
        n % 100,
        n % 90,
        n % 97,
    )
}

/// About 390 bytes: a whole ride.
fn long(n: u64) -> String {
    format!(
        r#"{{"VendorID":{},"tpep_pickup_datetime":"2020-07-01 {:02}:25:32","tpep_dropoff_datetime":"2020-07-01 {:02}:33:39","passenger_count":{},"trip_distance":{}.{},"RatecodeID":1,"store_and_fwd_flag":"N","PULocationID":{},"DOLocationID":{},"payment_type":{},"fare_amount":{},"extra":0.5,"mta_tax":0.5,"tip_amount":0,"tolls_amount":0,"improvement_surcharge":0.3,"total_amount":{}.{},"congestion_surcharge":2.5}}"#,
        n % 3,
        n % 23,
        n % 23,
        n % 6,
        n % 30,
        n % 100,
        n % 265,
        n % 263,
        n % 4,
        n % 50,
        n % 90,
        n % 97,
    )
}

fn rides() -> Vec<Record> {
    let Ok(path) = std::env::var("RIDES") else {
        return records(long);
    };
    let mut file = CsvFile::new(std::fs::File::open(path).expect("a file"), b',', true).expect("a header");
    let mut records = Vec::new();
    while records.len() < BATCH_ROWS_MAX && file.next_row().expect("a row") {
        let mut value = Vec::new();
        file.write_json(&mut value);
        records.push(Record {
            value: Some(value),
            ..Record::default()
        });
    }
    records
}

fn refs(records: &[Record]) -> Vec<RecordRef<'_>> {
    records.iter().map(|record| record.at(0)).collect()
}

fn decode(criterion: &mut Criterion) {
    let (short, long) = (records(short), rides());
    for (name, records, fields) in [
        ("1 field of 230 B", &short, one()),
        ("3 fields of 230 B", &short, three()),
        ("1 field of 390 B", &long, one()),
        ("3 fields of 390 B", &long, three()),
    ] {
        let refs = refs(records);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(refs.len() as u64));
        let mut decoder = Decoder::new(&Format::Json, &Format::Text, &fields).expect("readable");
        assert!(decoder.decode(&refs).failed.is_empty());
        group.bench_function("host", |bencher| bencher.iter(|| decoder.decode(black_box(&refs))));
        if fields.len() == 1 {
            group.bench_function("serde", |bencher| {
                bencher.iter(|| {
                    let mut sum = 0.0;
                    for record in black_box(&refs) {
                        sum += serde_json::from_slice::<Amount>(record.value.unwrap_or_default())
                            .expect("a ride")
                            .total_amount;
                    }
                    sum
                });
            });
        } else {
            group.bench_function("serde", |bencher| {
                bencher.iter(|| {
                    for record in black_box(&refs) {
                        let ride: Ride<'_> = serde_json::from_slice(record.value.unwrap_or_default()).expect("a ride");
                        black_box((ride.tpep_pickup_datetime, ride.zone, ride.total_amount));
                    }
                });
            });
        }
        group.finish();
    }
}

fn csv(criterion: &mut Criterion) {
    let columns = "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,PULocationID,total_amount";
    let lines = records(|n| {
        format!(
            "1,2020-07-01 {:02}:25:32,2020-07-01 00:33:39,{},{},{}.5",
            n % 23,
            n % 6,
            n % 265,
            n % 90
        )
    });
    let format = Format::Csv(CsvOptions {
        columns: columns.split(',').map(str::to_owned).collect(),
        delimiter: b',',
    });
    let refs = refs(&lines);
    let mut group = criterion.benchmark_group("3 fields of CSV");
    group.throughput(Throughput::Elements(refs.len() as u64));
    let mut decoder = Decoder::new(&format, &Format::Text, &three()).expect("readable");
    assert!(decoder.decode(&refs).failed.is_empty());
    group.bench_function("host", |bencher| bencher.iter(|| decoder.decode(black_box(&refs))));
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let short = records(short);
    let refs = refs(&short);
    let fields = vec![
        field(FieldType::Float, "/tip_share"),
        field(FieldType::Text, "/zone_name"),
    ];
    let read = vec![
        field(FieldType::Float, "/total_amount"),
        field(FieldType::Text, "/tpep_pickup_datetime"),
    ];
    let decoded = Decoder::new(&Format::Json, &Format::Text, &read)
        .expect("readable")
        .decode(&refs);
    let emitted = Emitted {
        origins: decoded.rows,
        table: decoded.table,
    };
    for (name, value) in [
        ("2 fields into 230 B", ValueBase::Same),
        ("2 fields alone", ValueBase::New),
    ] {
        let branch = Branch {
            name: "out".into(),
            value,
            fields: fields.clone(),
        };
        let encoder =
            Encoder::new(&branch, &Format::Json, &Format::Text, &Format::Json, &Format::Text).expect("writable");
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(refs.len() as u64));
        let mut arena = Bump::new();
        group.bench_function("host", |bencher| {
            bencher.iter(|| {
                arena.reset();
                black_box(encoder.encode(&arena, black_box(&refs), &emitted).records.len())
            });
        });
        if value == ValueBase::Same {
            group.bench_function("serde", |bencher| {
                bencher.iter(|| {
                    arena.reset();
                    for record in black_box(&refs) {
                        let mut ride: Whole<'_> =
                            serde_json::from_slice(record.value.unwrap_or_default()).expect("a ride");
                        ride.tip_share = ride.total_amount;
                        ride.zone_name = ride.tpep_pickup_datetime;
                        black_box(arena.alloc_slice_copy(&serde_json::to_vec(&ride).expect("JSON")));
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = decode, csv, encode
}
criterion_main!(benches);
