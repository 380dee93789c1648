//! Rows as fields, of a role that was written down by hand.

use super::*;
use crate::state::codec::{write_row, write_start};

fn field(name: &str, field_type: FieldType, optional: bool) -> Field {
    Field {
        name: name.into(),
        field_type,
        optional,
    }
}

fn role(key: Vec<Field>, values: Vec<Vec<Field>>, window_size_ms: Option<i64>) -> TopicRole {
    let schema = |value| StoreSchema {
        key: key.clone(),
        value,
        window_size_ms,
        window_grace_ms: 0,
        by: None,
        time_to_live_ms: 0,
    };
    TopicRole::Changelog {
        pipeline: "p".into(),
        stage: "s".into(),
        store: None,
        schemas: values.into_iter().map(schema).collect(),
    }
}

fn row(schema: u32, fields: &[Field], cells: &[Cell<'_>]) -> Vec<u8> {
    let mut columns = vec![Column::default(); fields.len()];
    for ((field, column), cell) in fields.iter().zip(&mut columns).zip(cells) {
        column.push(field.field_type, 0, *cell);
    }
    let mut out = Vec::new();
    write_row(schema, 7, fields, &Table { rows: 1, columns }, 0, &mut out);
    out
}

fn value_text(reader: &RowReader<'_>, row: &[u8]) -> Result<String, Unreadable> {
    let mut out = Vec::new();
    reader.write_value(row, &mut out)?;
    Ok(String::from_utf8(out).expect("JSON"))
}

#[test]
fn rows_have_the_fields_of_the_version_that_wrote_them() {
    let first = vec![field("n", FieldType::Integer, false)];
    let second = vec![field("n", FieldType::Float, false), field("at", FieldType::Time, true)];
    let role = role(vec![], vec![first.clone(), second.clone()], None);
    let reader = RowReader::of(&role).expect("a changelog");
    let names: Vec<_> = reader
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name, field.field_type))
        .collect();
    assert_eq!(names, ["n float", "at time"]);
    let old = row(0, &first, &[Cell::Integer(3)]);
    assert_eq!(value_text(&reader, &old).as_deref(), Ok(r#"{"n":3}"#));
    let new = row(1, &second, &[Cell::Float(0.5), Cell::Time(1000)]);
    assert_eq!(
        value_text(&reader, &new).as_deref(),
        Ok(r#"{"n":0.5,"at":"1970-01-01T00:00:01Z"}"#)
    );
    let odd = row(1, &second, &[Cell::Float(f64::NAN), Cell::Null]);
    assert_eq!(value_text(&reader, &odd).as_deref(), Ok(r#"{"n":"NaN","at":null}"#));
    for bytes in [&b""[..], &row(2, &first, &[Cell::Integer(3)]), &new[..new.len() - 1]] {
        assert_eq!(value_text(&reader, bytes), Err(ROW));
    }
}

fn key_text(reader: &RowReader<'_>, key: &[u8]) -> Result<String, Unreadable> {
    let mut out = Vec::new();
    reader.write_key_members(key, &mut out)?;
    Ok(String::from_utf8(out).expect("JSON"))
}

#[test]
fn groups_have_windows_and_the_keys_of_their_records() {
    let role = role(vec![], vec![vec![]], Some(60_000));
    let reader = RowReader::of(&role).expect("a changelog");
    let key = |record_key: &[u8]| {
        let mut key = Vec::new();
        write_start(60_000, &mut key);
        key.extend_from_slice(record_key);
        key
    };
    let window = r#""window_start":"1970-01-01T00:01:00Z","window_end":"1970-01-01T00:02:00Z""#;
    assert_eq!(key_text(&reader, &key(b"a\"")), Ok(format!(r#"{window},"key":"a\"""#)));
    assert_eq!(
        key_text(&reader, &key(b"\xff")),
        Ok(format!(r#"{window},"key_base64":"/w==""#))
    );
    assert_eq!(key_text(&reader, b"short"), Err(KEY));
    assert_eq!(reader.one_key("a"), Ok(KeyFilter::Is(b"a".to_vec())));
    assert_eq!(reader.prefix("[1"), Ok(KeyFilter::StartsWith(b"[1".to_vec())));
}

#[test]
fn keys_are_written_as_text_or_json() {
    let fields = vec![
        field("zone", FieldType::Text, false),
        field("n", FieldType::Integer, false),
        field("ok", FieldType::Boolean, false),
    ];
    let three = role(fields.clone(), vec![vec![]], None);
    let three = RowReader::of(&three).expect("a changelog");
    let KeyFilter::Is(key) = three.one_key(r#"["a", -1, true]"#).expect("a key") else {
        panic!("one key");
    };
    assert_eq!(
        key_text(&three, &key).as_deref(),
        Ok(r#""key":{"zone":"a","n":-1,"ok":true}"#)
    );
    assert_eq!(
        three.one_key(r#"{"ok":true,"n":-1,"zone":"a"}"#),
        Ok(KeyFilter::Is(key.clone()))
    );
    for (prefix, begins) in [
        ("", true),
        ("a", true),
        ("b", false),
        (r#"["a"]"#, true),
        (r#"["a",-1]"#, true),
        (r#"["a",1]"#, false),
        (r#"{"zone":"a"}"#, true),
        (r#"[""]"#, false),
    ] {
        let KeyFilter::StartsWith(bytes) = three.prefix(prefix).expect("a prefix") else {
            panic!("a prefix");
        };
        assert_eq!(key.starts_with(&bytes), begins, "{prefix}");
    }
    for (text, said) in [
        ("a", "JSON array or object"),
        (r#"["a",1]"#, "2 are given"),
        (r#"["a",1,true,4]"#, "4 values"),
        (r#"["a","x",true]"#, "no integer"),
        (r#"["a",null,true]"#, "never null"),
        (r#"{"zoo":1}"#, "no field \"zoo\""),
        (r#"{"n":1,"ok":true}"#, "first fields"),
        ("7", "JSON array or object"),
    ] {
        let error = three.one_key(text).expect_err(text);
        assert!(error.contains(said), "{text}: {error}");
    }

    let cases = [
        (FieldType::Integer, "-5", "-5"),
        (FieldType::Text, "[x", "\"[x\""),
        (FieldType::Time, "1970-01-01T00:00:02Z", "\"1970-01-01T00:00:02Z\""),
        (FieldType::Time, "2000", "\"1970-01-01T00:00:02Z\""),
        (FieldType::Bytes, "/w==", "\"/w==\""),
        (FieldType::Json, "[1, 2]", "[1, 2]"),
        (FieldType::Float, "1e3", "1000.0"),
    ];
    for (field_type, text, shown) in cases {
        let one = role(vec![field("k", field_type, false)], vec![vec![]], None);
        let one = RowReader::of(&one).expect("a changelog");
        let KeyFilter::Is(key) = one.one_key(text).expect("a key") else {
            panic!("one key");
        };
        assert_eq!(key_text(&one, &key), Ok(format!(r#""key":{{"k":{shown}}}"#)), "{text}");
    }
}
