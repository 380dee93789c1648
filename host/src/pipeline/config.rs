//! The settings of a plugin, which may hold secrets.

use std::fmt;

use serde_json::Value;
use toml::de::{DeInteger, DeTable, DeValue};

use super::Span;
use super::problem::Problem;
use super::variable::is_variable;
use super::walk::Walker;

/// What a plugin is configured with: JSON, whose variables were replaced. `Debug` and [`shown`](Config::shown) show it
/// as it was written, `${TOKEN}` and all, so that a secret of the environment is in no log and no error.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    json: String,
    shown: String,
    from_environment: Vec<(String, String)>,
    /// JSON Pointers to strings that were a variable and nothing else.
    variables: Vec<String>,
}

impl Config {
    /// The JSON text for `configure`; an object.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The same for people: variables are named, not replaced.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// A message of a plugin with what came from the environment taken out again. Values of less than four bytes
    /// stay: they are no secrets, and their bytes are everywhere.
    pub fn conceal(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for (name, value) in self.from_environment.iter().filter(|(_, value)| value.len() >= 4) {
            message = message.replace(value.as_str(), &format!("${{{name}}}"));
        }
        message
    }

    /// Whether a string in it is a variable and nothing else, so that the plugin's schema may want something else.
    pub(super) fn has_variables(&self) -> bool {
        !self.variables.is_empty()
    }

    /// The same with strings that are one variable as what the plugin's JSON Schema wants there: TOML has no variables
    /// outside of strings. A string stays one where the schema takes strings, or says nothing, or where the text is
    /// no such number or boolean: then the plugin has its say.
    pub(super) fn typed(mut self, schema: &str) -> Config {
        let (Ok(schema), Ok(mut value)) = (serde_json::from_str(schema), serde_json::from_str::<Value>(&self.json))
        else {
            return self;
        };
        for pointer in &self.variables {
            let Some(place) = value.pointer_mut(pointer) else {
                continue;
            };
            let mut wanted = Wanted {
                nodes_left: NODES_MAX,
                ..Wanted::default()
            };
            let names: Vec<String> = pointer.split('/').skip(1).map(unescaped).collect();
            wanted.find(&schema, &schema, &names);
            if let Some(typed) = place.as_str().and_then(|text| wanted.read(text)) {
                *place = typed;
            }
        }
        self.json = value.to_string();
        self
    }
}

/// Schemas come from plugins: what refers to itself is not followed for ever.
const NODES_MAX: usize = 1000;

/// The JSON types that a schema takes at a place.
#[derive(Debug, Default)]
struct Wanted {
    string: bool,
    integer: bool,
    number: bool,
    boolean: bool,
    nodes_left: usize,
}

impl Wanted {
    /// Adds what `node` of `schema` says of the place below it.
    fn find(&mut self, schema: &Value, node: &Value, below: &[String]) {
        let Some(left) = self.nodes_left.checked_sub(1) else {
            return;
        };
        self.nodes_left = left;
        if let Some(there) = node["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'))
            && let Some(node) = schema.pointer(there)
        {
            self.find(schema, node, below);
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for node in node[key].as_array().into_iter().flatten() {
                self.find(schema, node, below);
            }
        }
        let Some((name, below)) = below.split_first() else {
            return self.take(&node["type"]);
        };
        let property = node["properties"]
            .get(name)
            .or_else(|| node.get("additionalProperties"));
        let element = || name.parse::<usize>().is_ok().then(|| node.get("items")).flatten();
        if let Some(node) = property.or_else(element) {
            self.find(schema, node, below);
        }
    }

    fn take(&mut self, types: &Value) {
        let several = types.as_array().map_or(std::slice::from_ref(types), Vec::as_slice);
        for name in several.iter().filter_map(Value::as_str) {
            match name {
                "string" => self.string = true,
                "integer" => self.integer = true,
                "number" => self.number = true,
                "boolean" => self.boolean = true,
                _ => {}
            }
        }
    }

    /// The text as something that is wanted, if it is no string.
    fn read(&self, text: &str) -> Option<Value> {
        if self.string {
            return None;
        }
        match serde_json::from_str(text).ok()? {
            Value::Bool(boolean) if self.boolean => Some(boolean.into()),
            Value::Number(number) if self.number || self.integer && !number.is_f64() => Some(number.into()),
            _ => None,
        }
    }
}

fn unescaped(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

impl Default for Config {
    fn default() -> Config {
        Config {
            json: "{}".into(),
            shown: "{}".into(),
            from_environment: Vec::new(),
            variables: Vec::new(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// What is found while the variables are replaced.
#[derive(Default)]
struct Replaced {
    from_environment: Vec<(String, String)>,
    variables: Vec<String>,
}

impl Walker<'_> {
    /// A plugin's settings as JSON, with and without the variables' values.
    pub fn config(&mut self, table: &DeTable<'_>) -> Option<Config> {
        let before = self.problems.len();
        let mut replaced = Replaced::default();
        let expanded = self.json_object(table, "", &mut Some(&mut replaced));
        let shown = self.json_object(table, "", &mut None);
        if self.problems.len() > before {
            return None;
        }
        Some(Config {
            json: expanded.to_string(),
            shown: shown.to_string(),
            from_environment: replaced.from_environment,
            variables: replaced.variables,
        })
    }

    fn json_object(&mut self, table: &DeTable<'_>, place: &str, replace: &mut Option<&mut Replaced>) -> Value {
        let members = table.iter().filter_map(|(key, value)| {
            let name = key.get_ref().to_string();
            let place = format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
            Some((name, self.json(value.get_ref(), value.span(), &place, replace)?))
        });
        Value::Object(members.collect())
    }

    /// `place` is a JSON Pointer to the value.
    fn json(
        &mut self,
        value: &DeValue<'_>,
        span: Span,
        place: &str,
        replace: &mut Option<&mut Replaced>,
    ) -> Option<Value> {
        Some(match value {
            DeValue::String(text) => match replace {
                None => text.as_ref().into(),
                Some(replaced) => {
                    let expanded = self.expand(text, &span)?;
                    replaced.from_environment.extend(expanded.from_environment);
                    if is_variable(text) {
                        replaced.variables.push(place.into());
                    }
                    expanded.text.into()
                }
            },
            DeValue::Boolean(boolean) => (*boolean).into(),
            DeValue::Datetime(datetime) => datetime.to_string().into(),
            DeValue::Array(array) => array
                .iter()
                .enumerate()
                .filter_map(|(at, element)| {
                    self.json(element.get_ref(), element.span(), &format!("{place}/{at}"), replace)
                })
                .collect(),
            DeValue::Table(table) => self.json_object(table, place, replace),
            DeValue::Integer(integer) => match json_integer(integer) {
                Some(number) => number,
                None => return self.not_json(span, replace.is_some()),
            },
            DeValue::Float(float) => match float.as_str().parse().ok().and_then(serde_json::Number::from_f64) {
                Some(number) => number.into(),
                None => return self.not_json(span, replace.is_some()),
            },
        })
    }

    fn not_json(&mut self, span: Span, say: bool) -> Option<Value> {
        if say {
            let message = "a plugin is configured in JSON, which has no such number";
            self.push(
                Problem::new(span, message).help("write a finite number of at most 64 bits, or put it in quotes"),
            );
        }
        None
    }
}

fn json_integer(integer: &DeInteger<'_>) -> Option<Value> {
    let (digits, radix) = (integer.as_str(), integer.radix());
    i64::from_str_radix(digits, radix)
        .map(Into::into)
        .or_else(|_| u64::from_str_radix(digits, radix).map(Into::into))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(json: &str, variables: &[&str], schema: &str) -> String {
        let config = Config {
            json: json.into(),
            variables: variables.iter().map(|pointer| (*pointer).into()).collect(),
            ..Config::default()
        };
        config.typed(schema).json
    }

    #[test]
    fn a_variable_is_what_the_schema_wants() {
        let cases = [
            (r#"{"type":"integer"}"#, "4", "4"),
            (r#"{"type":"integer"}"#, "-4", "-4"),
            (r#"{"type":"integer"}"#, "4.5", "\"4.5\""),
            (r#"{"type":"integer"}"#, "four", "\"four\""),
            (r#"{"type":"number"}"#, "4", "4"),
            (r#"{"type":"number"}"#, "4.5", "4.5"),
            (r#"{"type":"number"}"#, "NaN", "\"NaN\""),
            (r#"{"type":"number"}"#, "1e999", "\"1e999\""),
            (r#"{"type":"boolean"}"#, "true", "true"),
            (r#"{"type":"boolean"}"#, "yes", "\"yes\""),
            (r#"{"type":"boolean"}"#, "1", "\"1\""),
            (r#"{"type":"string"}"#, "4", "\"4\""),
            (r#"{"type":["string","integer"]}"#, "4", "\"4\""),
            (r#"{"type":["integer","null"]}"#, "4", "4"),
            (r#"{"anyOf":[{"type":"number"},{"type":"null"}]}"#, "4", "4"),
            (r#"{"anyOf":[{"type":"number"},{"type":"string"}]}"#, "4", "\"4\""),
            (r##"{"$ref":"#/$defs/count"}"##, "4", "4"),
            (r##"{"$ref":"#/properties/a"}"##, "4", "\"4\""),
            (r#"{"type":"object"}"#, "{}", "\"{}\""),
            ("{}", "4", "\"4\""),
            ("true", "4", "\"4\""),
        ];
        for (schema, text, expected) in cases {
            let whole = format!(r#"{{"properties":{{"a":{schema}}},"$defs":{{"count":{{"type":"integer"}}}}}}"#);
            let json = format!(r#"{{"a":{text:?}}}"#);
            assert_eq!(
                typed(&json, &["/a"], &whole),
                format!(r#"{{"a":{expected}}}"#),
                "{schema}"
            );
            assert_eq!(typed(&json, &[], &whole), json, "only variables are");
        }
    }

    #[test]
    fn variables_are_found_wherever_they_stand() {
        let schema =
            r#"{"properties":{"list":{"items":{"type":"number"}},"a/b":{"additionalProperties":{"type":"boolean"}}}}"#;
        let json = r#"{"a/b":{"x":"true"},"list":["1","2"]}"#;
        assert_eq!(
            typed(json, &["/list/1", "/a~1b/x"], schema),
            r#"{"a/b":{"x":true},"list":["1",2]}"#
        );
        assert_eq!(typed(json, &["/list/1"], "not a schema"), json);
    }

    #[test]
    fn a_schema_that_turns_in_circles_ends() {
        let all: Vec<String> = (0..50).map(|_| r##"{"$ref":"#"}"##.to_owned()).collect();
        let schema = format!(r#"{{"anyOf":[{0}],"oneOf":[{0}],"allOf":[{0}]}}"#, all.join(","));
        assert_eq!(typed(r#"{"a":"1"}"#, &["/a"], &schema), r#"{"a":"1"}"#);
    }
}
