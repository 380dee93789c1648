//! How rows of an earlier version of a plugin become rows of this one, held against the contract's rules.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::bindings::schema as wit;
use super::signature::{name, shown};
use crate::limits::CONSTANT_BYTES_MAX;
use crate::schema::{Carried, Field, FieldType};

/// Takes over what a store says of its value fields: nothing, or something of each.
pub fn carry_over(value: &[Field], carried: Vec<wit::Carried>) -> Result<Vec<Carried>, String> {
    if carried.is_empty() {
        return Ok(Vec::new());
    }
    if carried.len() != value.len() {
        return Err(format!(
            "its carry-over has {} entries for {} value fields: it is empty or has one for each",
            carried.len(),
            value.len()
        ));
    }
    let one = |(field, carried): (&Field, wit::Carried)| {
        one(field, carried).map_err(|problem| format!("carry-over of {}: {problem}", shown(&field.name)))
    };
    value.iter().zip(carried).map(one).collect()
}

fn one(field: &Field, carried: wit::Carried) -> Result<Carried, String> {
    match carried {
        wit::Carried::Same(earlier) => {
            name(&earlier).map_err(|problem| format!("the earlier field {}: {problem}", shown(&earlier)))?;
            Ok(Carried::Field(earlier))
        }
        wit::Carried::Constant(json) => {
            check_constant(field, &json)?;
            Ok(Carried::Constant(json))
        }
    }
}

fn check_constant(field: &Field, json: &str) -> Result<(), String> {
    if json.len() > CONSTANT_BYTES_MAX {
        return Err(format!(
            "the constant has {} bytes, but may have {CONSTANT_BYTES_MAX}",
            json.len()
        ));
    }
    let value: Value =
        serde_json::from_str(json).map_err(|error| format!("the constant {} is not JSON: {error}", shown(json)))?;
    if value.is_null() {
        if field.optional {
            return Ok(());
        }
        return Err("the constant is null, but the field is not optional".into());
    }
    let fits = match field.field_type {
        FieldType::Boolean => value.is_boolean(),
        FieldType::Integer | FieldType::Time => value.is_i64(),
        FieldType::Float => value.is_number(),
        FieldType::Text => value.is_string(),
        FieldType::Bytes => value.as_str().is_some_and(|text| STANDARD.decode(text).is_ok()),
        FieldType::Json => true,
    };
    if fits {
        return Ok(());
    }
    let wanted = match field.field_type {
        FieldType::Time => "time: milliseconds".to_owned(),
        FieldType::Bytes => "bytes: base64".to_owned(),
        other => other.to_string(),
    };
    Err(format!("the constant {} is not of type {wanted}", shown(json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(field_type: FieldType, optional: bool) -> Field {
        Field {
            name: "f".into(),
            field_type,
            optional,
        }
    }

    fn constant(json: &str) -> wit::Carried {
        wit::Carried::Constant(json.into())
    }

    #[test]
    fn nothing_or_something_of_each_field_is_carried_over() {
        use FieldType::{Boolean, Bytes, Float, Integer, Json, Text, Time};
        assert_eq!(carry_over(&[field(Integer, false)], vec![]), Ok(vec![]));
        let good = [
            (Boolean, "true"),
            (Integer, "-5"),
            (Float, "1"),
            (Float, "1.5e3"),
            (Text, "\"\""),
            (Bytes, "\"AP8=\""),
            (Time, "1700000000000"),
            (Json, "{\"a\":[]}"),
        ];
        for (field_type, json) in good {
            let taken = carry_over(&[field(field_type, false)], vec![constant(json)]);
            assert_eq!(taken, Ok(vec![Carried::Constant(json.into())]), "{field_type}");
        }
        let taken = carry_over(
            &[field(Integer, false), field(Text, true)],
            vec![wit::Carried::Same("n".into()), constant("null")],
        );
        assert_eq!(
            taken,
            Ok(vec![Carried::Field("n".into()), Carried::Constant("null".into())])
        );
    }

    #[test]
    fn each_broken_rule_is_named() {
        use FieldType::{Boolean, Bytes, Float, Integer, Json, Text, Time};
        let cases = [
            (Integer, constant("1.5"), "the constant \"1.5\" is not of type integer"),
            (Integer, constant("9223372036854775808"), "not of type integer"),
            (Boolean, constant("0"), "not of type boolean"),
            (Float, constant("\"1\""), "not of type float"),
            (Text, constant("1"), "not of type text"),
            (Bytes, constant("\"#\""), "not of type bytes: base64"),
            (Time, constant("\"today\""), "not of type time: milliseconds"),
            (Json, constant("null"), "is null, but the field is not optional"),
            (Json, constant("{"), "is not JSON"),
            (Integer, constant(""), "is not JSON"),
            (Text, constant(&format!("\"{}\"", "x".repeat(5000))), "has 5002 bytes"),
            (Integer, wit::Carried::Same(String::new()), "its name is empty"),
            (Integer, wit::Carried::Same("a\nb".into()), "control characters"),
        ];
        for (field_type, carried, expected) in cases {
            let problem = carry_over(&[field(field_type, false)], vec![carried]).expect_err(expected);
            assert!(problem.contains(expected), "{problem:?} does not say {expected:?}");
            assert!(problem.starts_with("carry-over of \"f\": "), "{problem:?}");
        }
        let problem = carry_over(&[], vec![constant("1")]).expect_err("too many");
        assert!(problem.contains("1 entries for 0 value fields"), "{problem}");
        let problem = carry_over(
            &[field(Integer, false), field(Integer, false)],
            vec![wit::Carried::Same("n".into())],
        )
        .expect_err("too few");
        assert!(problem.contains("1 entries for 2 value fields"), "{problem}");
    }
}
