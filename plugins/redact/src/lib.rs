//! Drops records by a field of theirs, and removes and sets headers of those that it keeps.

use std::collections::BTreeMap;

use millstream_sdk::prelude::*;
use millstream_sdk::schema::MappedField;
use millstream_sdk::{AnyCell, AnyRow};
use serde_json::Value;

#[derive(Config)]
pub struct Settings {
    /// Records are dropped by this field.
    drop_field: Option<Pointer>,
    /// The values of the field that drop a record, any JSON but null.
    #[config(default)]
    drop_values: Vec<Value>,
    /// Headers that are removed.
    #[config(default)]
    remove_headers: Vec<String>,
    /// Headers that are set, in place of any of the same name.
    #[config(default)]
    set_headers: BTreeMap<String, String>,
}

pub struct Redact {
    drop_field: Option<Pointer>,
    drop_values: Vec<Value>,
    /// What each header becomes; `None` removes it.
    headers: Vec<(String, Option<String>)>,
}

impl Plugin for Redact {
    type Config = Settings;

    fn configure(settings: Settings) -> Result<Self> {
        ensure!(
            settings.drop_field.is_some() || settings.drop_values.is_empty(),
            "`drop_values` needs the field that they are values of: `drop_field`"
        );
        let both = settings
            .remove_headers
            .iter()
            .find(|header| settings.set_headers.contains_key(*header));
        if let Some(header) = both {
            bail!("header {header:?} is both in `remove_headers` and in `set_headers`");
        }
        let removed = settings.remove_headers.into_iter().map(|header| (header, None));
        let set = settings
            .set_headers
            .into_iter()
            .map(|(header, value)| (header, Some(value)));
        Ok(Redact {
            drop_field: settings.drop_field,
            drop_values: settings.drop_values,
            headers: removed.chain(set).collect(),
        })
    }
}

#[derive(Branches)]
pub enum Out<'a> {
    Kept(AnyRow<'a>),
}

impl Processor for Redact {
    type Input = AnyRow<'static>;
    type Output = Out<'static>;

    fn signature(&self, signature: &mut Signature) {
        if let Some(path) = &self.drop_field {
            let field = MappedField::new("drop", FieldType::Json, true, Place::Value(path.clone().into()));
            signature.input_mut("input").fields.push(field);
        }
        for (header, _) in &self.headers {
            let field = MappedField::new(header, FieldType::Text, true, Place::Header(header.clone()));
            signature.branch_mut("kept").fields.push(field);
        }
    }

    fn process(&mut self, row: AnyRow<'_>, out: &mut Output<Out<'static>>) -> Result<()> {
        if let Some(AnyCell::Json(json)) = row.cells.first() {
            let value: Value = json.parse()?;
            if self.drop_values.iter().any(|dropped| same(dropped, &value)) {
                return Ok(());
            }
        }
        let cell = |value: &'_ Option<String>| value.clone().map_or(AnyCell::Null, AnyCell::text);
        out.emit(Out::Kept(AnyRow::new(
            self.headers.iter().map(|(_, value)| cell(value)),
        )));
        Ok(())
    }
}

/// JSON knows one kind of number: 2 is 2.0.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

millstream_sdk::export!(Redact);

#[cfg(test)]
mod tests {
    use super::Redact;
    use millstream_sdk::testing::{Record, run};
    use serde_json::json;

    #[test]
    fn records_are_dropped_by_a_field() {
        let settings = json!({"drop_field": "/payment/type", "drop_values": [3, "void"]});
        let record = |payment| json!({"payment": {"type": payment}});
        let records = [
            record(json!(3.0)),
            record(json!("void")),
            record(json!(4)),
            record(json!("3")),
            json!({}),
        ];
        let outcome = run::<Redact>(settings, records.clone()).unwrap();
        assert_eq!(outcome.values("kept"), records[2..]);
        assert!(outcome.failed.is_empty() && outcome.undecoded.is_empty());
    }

    #[test]
    fn headers_are_removed_and_set() {
        let settings = json!({"remove_headers": ["secret", "none"], "set_headers": {"by": "redact", "old": "new"}});
        let record = Record::bytes("any")
            .with_header("secret", "1")
            .with_header("old", "x")
            .with_header("secret", "2");
        let outcome = run::<Redact>(settings, [record.with_header("kept", "k")]).unwrap();
        let kept = &outcome.branch("kept")[0];
        let text = |text: &str| Some(text.as_bytes().to_owned());
        let expected = [
            ("kept".into(), text("k")),
            ("by".into(), text("redact")),
            ("old".into(), text("new")),
        ];
        assert_eq!(kept.headers, expected);
        assert_eq!(
            kept.value.as_deref(),
            Some(&b"any"[..]),
            "a value that is not JSON passes: no field of it is read"
        );
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let refused = |settings| run::<Redact>(settings, [json!({})]).unwrap_err();
        assert!(refused(json!({"drop_values": [1]})).contains("drop_field"));
        assert!(refused(json!({"remove_headers": ["a"], "set_headers": {"a": "b"}})).contains("\"a\" is both"));
    }
}
