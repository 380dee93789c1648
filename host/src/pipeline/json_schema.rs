//! The grammar as a JSON Schema, for editors: completion, and errors while typing.

use serde_json::{Map, Value, json};

use super::grammar::{Section, Shape};
use super::keys::FILE;

/// The JSON Schema (2020-12) of a pipeline file.
pub fn json_schema() -> Value {
    let Value::Object(mut schema) = section(&FILE) else {
        unreachable!("a section is an object")
    };
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), "Millstream pipeline".into());
    Value::Object(schema)
}

fn section(section: &Section) -> Value {
    let mut properties = Map::new();
    for key in section.keys {
        let mut property = shape(&key.shape);
        property["description"] = key.summary.into();
        properties.insert(key.name.into(), property);
    }
    let required: Vec<&str> = section
        .keys
        .iter()
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn shape(described: &Shape) -> Value {
    match described {
        Shape::Text => json!({ "type": "string" }),
        Shape::Word(words) => json!({ "anyOf": [{ "enum": words }, variable()] }),
        Shape::Count { min, max } => {
            json!({ "anyOf": [{ "type": "integer", "minimum": min, "maximum": max }, variable()] })
        }
        Shape::Duration { .. } => {
            json!({ "type": "string", "pattern": or_variable(r"[0-9]+(\.[0-9]+)? *(ms|s|m|min|h|d)") })
        }
        Shape::Size { .. } => {
            json!({ "type": "string", "pattern": or_variable(r"[0-9]+(\.[0-9]+)? *([kKmMgG][iI]?)?[bB]") })
        }
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::False => json!({ "const": false }),
        Shape::List(each) => json!({ "type": "array", "items": shape(each) }),
        Shape::Section(fixed) => section(fixed),
        Shape::Named(each) => json!({ "type": "object", "additionalProperties": shape(each) }),
        Shape::Free => json!({ "type": "object" }),
        Shape::Any(shapes) => json!({ "anyOf": shapes.iter().map(shape).collect::<Vec<_>>() }),
    }
}

/// A string that becomes something else.
fn variable() -> Value {
    json!({ "type": "string", "pattern": r"\$\{" })
}

/// A string may be one that becomes sound when its variables are replaced.
fn or_variable(pattern: &str) -> String {
    format!(r"^({pattern}|.*\$\{{.*)$")
}
