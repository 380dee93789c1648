//! Changes as records and back, held against the rows that they stand for.

use super::*;
use crate::record::{Headers, RecordRef};
use crate::state::codec::{write_key, write_row};
use crate::table::{Column, Table};
use proptest::prelude::*;

const TYPES: [FieldType; 7] = [
    FieldType::Boolean,
    FieldType::Integer,
    FieldType::Float,
    FieldType::Text,
    FieldType::Bytes,
    FieldType::Time,
    FieldType::Json,
];

#[derive(Clone, Debug)]
enum Own {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    Time(i64),
    Json(String),
}

impl Own {
    fn cell(&self) -> Cell<'_> {
        match self {
            Own::Null => Cell::Null,
            Own::Boolean(value) => Cell::Boolean(*value),
            Own::Integer(value) => Cell::Integer(*value),
            Own::Float(bits) => Cell::Float(f64::from_bits(*bits)),
            Own::Text(value) => Cell::Text(value),
            Own::Bytes(value) => Cell::Bytes(value),
            Own::Time(value) => Cell::Time(*value),
            Own::Json(value) => Cell::Json(value),
        }
    }
}

fn own(field_type: FieldType) -> BoxedStrategy<Own> {
    let odd = prop::sample::select(vec![
        f64::NAN.to_bits(),
        (-f64::NAN).to_bits(),
        f64::NAN.to_bits() + 1,
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        (-0.0f64).to_bits(),
        f64::MIN_POSITIVE.to_bits(),
        1,
        1e16f64.to_bits(),
        0.1f64.to_bits(),
    ]);
    let json = prop_oneof![
        "[0-9]{1,4}",
        Just("null".to_owned()),
        Just(" [1, {\"a\" : null}]\n".to_owned()),
        Just("{\"$json\":\"x\"}".to_owned()),
        Just("{\"$json\":1,\"b\":2}".to_owned()),
        Just("1,\"other\":2".to_owned()),
        Just("\"é\\u0000\"".to_owned()),
        Just("[".repeat(126) + &"]".repeat(126)),
        Just("[".repeat(127) + &"]".repeat(127)),
        "\\PC{0,6}",
    ];
    match field_type {
        FieldType::Boolean => any::<bool>().prop_map(Own::Boolean).boxed(),
        FieldType::Integer => any::<i64>().prop_map(Own::Integer).boxed(),
        FieldType::Float => prop_oneof![odd, any::<u64>(), any::<f32>().prop_map(|f| f64::from(f).to_bits())]
            .prop_map(Own::Float)
            .boxed(),
        FieldType::Text => prop_oneof!["\\PC{0,8}", "[\\x00-\\x1f\"\\\\{}|é]{0,6}"]
            .prop_map(Own::Text)
            .boxed(),
        FieldType::Bytes => prop::collection::vec(any::<u8>(), 0..9).prop_map(Own::Bytes).boxed(),
        FieldType::Time => prop_oneof![any::<i64>(), -62_167_219_200_001i64..253_402_300_800_001]
            .prop_map(Own::Time)
            .boxed(),
        FieldType::Json => json.prop_map(Own::Json).boxed(),
    }
}

fn field(name: &str, field_type: FieldType, optional: bool) -> Field {
    Field {
        name: name.into(),
        field_type,
        optional,
    }
}

fn named(number: usize) -> String {
    const NAMES: [&str; 5] = ["count", "a \"quoted\" name", "window_start", "é\n", "z"];
    NAMES[number].to_owned()
}

/// Fields with a row of values.
fn rows(count: std::ops::Range<usize>, null: bool) -> impl Strategy<Value = (Vec<Field>, Vec<Own>)> {
    let types = prop::collection::vec((prop::sample::select(&TYPES[..]), any::<bool>()), count);
    (types, 0usize..5).prop_flat_map(move |(types, first)| {
        let fields: Vec<Field> = types
            .iter()
            .enumerate()
            .map(|(at, (field_type, optional))| field(&named((first + at) % 5), *field_type, null && *optional))
            .collect();
        let values: Vec<_> = fields
            .iter()
            .map(|field| match field.optional {
                true => prop_oneof![Just(Own::Null), own(field.field_type)].boxed(),
                false => own(field.field_type),
            })
            .collect();
        (Just(fields), values)
    })
}

fn table(fields: &[Field], values: &[Own]) -> Table {
    let mut columns: Vec<Column> = fields.iter().map(|_| Column::default()).collect();
    for ((field, column), value) in fields.iter().zip(&mut columns).zip(values) {
        column.push(field.field_type, 0, value.cell());
    }
    Table { rows: 1, columns }
}

fn schema(key: &[Field], value: &[Field], window_size_ms: Option<i64>) -> StoreSchema {
    StoreSchema {
        key: key.to_vec(),
        value: value.to_vec(),
        window_size_ms,
        by: None,
        window_grace_ms: 0,
        time_to_live_ms: 0,
    }
}

fn change<'r>(key: &'r [u8], value: Option<&'r [u8]>, timestamp_ms: i64) -> RecordRef<'r> {
    RecordRef {
        key: Some(key),
        value,
        headers: Default::default(),
        timestamp_ms,
        offset: 0,
    }
}

/// A value, or none where it was deleted.
type Part = Option<Vec<u8>>;

/// What comes back of a change, and the record in between.
fn round(codec: &TableCodec, change: RecordRef<'_>) -> (Vec<u8>, Part, Vec<u8>, Part) {
    let mut buffers = TableBuffers::default();
    let written = codec.encode(change, &mut buffers);
    let headers: Headers = written
        .schema
        .map(|schema| (SCHEMA_HEADER, Some(schema)))
        .into_iter()
        .collect();
    let record = RecordRef {
        key: Some(written.key),
        value: written.value,
        headers: headers.as_ref(),
        timestamp_ms: written.timestamp_ms,
        offset: 5,
    };
    assert!(written.timestamp_ms > 0);
    let mut others = TableBuffers::default();
    let (key, row) = codec.decode(record, &mut others).expect("what was encoded is decoded");
    let owned = (written.key.to_vec(), written.value.map(<[u8]>::to_vec));
    (key.to_vec(), row.map(<[u8]>::to_vec), owned.0, owned.1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn rows_come_back_byte_for_byte(
        (fields, values) in rows(0..5, true),
        earlier in 0u32..3,
        timestamp in prop_oneof![any::<i64>(), -1i64..2, 0i64..2_000_000_000_000],
        form in prop::sample::select(vec![TableForm::Json, TableForm::Binary]),
        window in any::<bool>(),
        start in prop_oneof![any::<i64>(), 0i64..2_000_000_000_000],
    ) {
        let window_size_ms = window.then_some(60_000);
        let mut schemas = vec![schema(&[], &[field("other", FieldType::Text, false)], window_size_ms); earlier as usize];
        schemas.push(schema(&[], &fields, window_size_ms));
        let codec = TableCodec::of_schemas(&schemas, form).expect("schemas");
        let mut row = Vec::new();
        write_row(earlier, timestamp, &fields, &table(&fields, &values), 0, &mut row);
        let mut key = Vec::new();
        if window {
            write_start(start, &mut key);
        }
        key.extend_from_slice(&[0xff, 0, b'|']);
        let (same_key, same_row, _, value) = round(&codec, change(&key, Some(&row), timestamp));
        prop_assert_eq!(&same_key, &key);
        prop_assert_eq!(same_row.as_ref(), Some(&row));
        let value = value.expect("a value");
        if form == TableForm::Json && timestamp > 0 {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&value).expect("an object");
            for field in &fields {
                prop_assert!(object.contains_key(&field.name));
            }
            prop_assert_eq!(object.contains_key("window_end"), window && fields.iter().all(|f| f.name != "window_start"));
        } else {
            prop_assert_eq!(value[0], 0);
        }
        let (same_key, none, ..) = round(&codec, change(&key, None, timestamp));
        prop_assert_eq!((same_key, none), (key, None));
    }

    #[test]
    fn keys_come_back_and_no_two_are_one((fields, values) in rows(1..4, false), other in any::<prop::sample::Index>()) {
        let codec = TableCodec::of_schemas(&[schema(&fields, &[], None)], TableForm::Json).expect("schemas");
        let mut key = Vec::new();
        write_key(&fields, &table(&fields, &values), 0, &mut key);
        let (same, _, written, _) = round(&codec, change(&key, None, 0));
        prop_assert_eq!(&same, &key);
        if let ([Field { field_type: FieldType::Text, .. }], [Own::Text(text)]) = (&fields[..], &values[..]) {
            prop_assert_eq!(&written[..], text.as_bytes());
        }
        prop_assert_eq!(codec.key_of(&written), Some(key));
        // A record that was cut off or changed is another key or none; it never panics.
        let mut cut = written.clone();
        cut.truncate(other.index(written.len() + 1));
        if let Some(key) = codec.key_of(&cut) {
            let (_, _, again, _) = round(&codec, change(&key, None, 0));
            prop_assert_eq!(codec.key_of(&again), Some(key));
        }
    }

    #[test]
    fn keys_stand_in_the_order_of_their_windows(a in any::<i64>(), b in prop_oneof![any::<i64>(), 0i64..9_000_000_000_000], c in -62_167_219_200_002i64..253_402_300_800_002) {
        let text = |start| { let mut out = Vec::new(); write_window(start, &mut out); out };
        for (one, other) in [(a, b), (b, c), (a, c)] {
            prop_assert_eq!(text(one).cmp(&text(other)), one.cmp(&other));
        }
        let whole = [text(c), b"key".to_vec()].concat();
        prop_assert_eq!(read_window(&whole), Some((c, &b"key"[..])));
    }

    #[test]
    fn no_record_is_too_strange(
        (fields, _) in rows(0..4, true),
        key in prop::option::of("[0-9T:.Z|!~{}\",a-f-]{0,40}"),
        value in prop::option::of(prop_oneof!["[{}\"\\[\\]:,a-z0-9.]{0,30}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..20)]),
        window in any::<bool>(),
    ) {
        let codec = TableCodec::of_schemas(&[schema(&fields[..fields.len() / 2], &fields, window.then_some(5))], TableForm::Json);
        let record = RecordRef { key: key.as_deref().map(str::as_bytes), value: value.as_deref(), headers: Default::default(), timestamp_ms: 3, offset: 0 };
        let _ = codec.expect("schemas").decode(record, &mut TableBuffers::default());
    }
}

#[test]
fn others_read_keys_and_rows() {
    let fields = [
        field("count", FieldType::Integer, false),
        field("last", FieldType::Time, true),
    ];
    let row = |values: &[Own]| {
        let mut row = Vec::new();
        write_row(0, 1_714_560_000_000, &fields, &table(&fields, values), 0, &mut row);
        row
    };
    let text = |codec: &TableCodec, key: &[u8], row: &[u8]| {
        let (_, _, key, value) = round(codec, change(key, Some(row), 1_714_560_000_000));
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(key), text(value.expect("a row")))
    };
    let full = row(&[Own::Integer(5), Own::Time(1_714_560_000_000)]);
    let groups = TableCodec::of_schemas(&[schema(&[], &fields, Some(60_000))], TableForm::Json).expect("schemas");
    let mut key = Vec::new();
    write_start(1_714_560_000_000, &mut key);
    key.extend_from_slice(b"2");
    let value = r#"{"window_start":"2024-05-01T10:40:00Z","window_end":"2024-05-01T10:41:00Z","count":5,"last":"2024-05-01T10:40:00Z"}"#;
    assert_eq!(
        text(&groups, &key, &full),
        ("2024-05-01T10:40:00.000Z|2".into(), value.into())
    );
    let keyed = |key: &[Field], values: &[Own]| {
        let codec = TableCodec::of_schemas(&[schema(key, &fields, None)], TableForm::Json).expect("schemas");
        let mut bytes = Vec::new();
        write_key(key, &table(key, values), 0, &mut bytes);
        text(&codec, &bytes, &row(&[Own::Integer(-1), Own::Null]))
    };
    let value = r#"{"count":-1,"last":null}"#;
    let (vendor, zone) = (
        field("vendor", FieldType::Integer, false),
        field("zone", FieldType::Text, false),
    );
    assert_eq!(
        keyed(std::slice::from_ref(&vendor), &[Own::Integer(7)]),
        ("7".into(), value.into())
    );
    assert_eq!(
        keyed(std::slice::from_ref(&zone), &[Own::Text("é \"x\"".into())]),
        ("é \"x\"".into(), value.into())
    );
    let both = keyed(&[vendor, zone], &[Own::Integer(7), Own::Text("x".into())]);
    assert_eq!(both, (r#"{"vendor":7,"zone":"x"}"#.into(), value.into()));
}

#[test]
fn a_record_that_no_store_wrote_is_refused_with_the_reason() {
    let codec = TableCodec::of_schemas(
        &[schema(&[], &[field("n", FieldType::Integer, false)], None)],
        TableForm::Json,
    );
    let codec = codec.expect("schemas");
    let read = |value: &[u8], headers: &Headers| {
        let record = RecordRef {
            headers: headers.as_ref(),
            ..change(b"k", Some(value), 7)
        };
        codec
            .decode(record, &mut TableBuffers::default())
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let none = Headers::default();
    assert_eq!(
        read(br#" { "m" : 2, "n" : 1 } "#, &none),
        Ok(()),
        "spaces and other members do not matter"
    );
    let cases: [(&[u8], &str); 5] = [
        (
            b"{}",
            "its value is no row of the store: the field \"n\" is of type integer, but it is not there",
        ),
        (
            br#"{"n":"x"}"#,
            "its value is no row of the store: the field \"n\" is of type integer, but the string `\"x\"` was found",
        ),
        (b"[1]", "its value is no row of the store: it is no JSON object"),
        (&[0, 0, 1], "its value is no row of the store: its head is cut off"),
        (&[0xff], "its value is no row of the store: it is no UTF-8"),
    ];
    for (value, expected) in cases {
        assert_eq!(read(value, &none), Err(expected.into()));
    }
    let headers: Headers = [(SCHEMA_HEADER, Some(&b"3"[..]))].into_iter().collect();
    assert_eq!(codec_error(&codec, &headers), TableError::Schema(3));
}

fn codec_error(codec: &TableCodec, headers: &Headers) -> TableError {
    let record = RecordRef {
        headers: headers.as_ref(),
        ..change(b"k", Some(b"{}"), 7)
    };
    codec.decode(record, &mut TableBuffers::default()).expect_err("refused")
}
