//! What a pipeline may set: read from JSON with all mistakes at once, and described by a JSON Schema.

mod duration;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A type that a setting can have: `bool`, integers, floats, `String`, [`Pointer`], [`Value`], a
/// [`Duration`](std::time::Duration) (`"30s"`), an [`Option`], `Vec` or `BTreeMap<String, _>` of them, and structs and
/// enums that derive it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a setting",
    note = "a setting is a `bool`, a number, a `String`, a `Pointer`, a `Duration`, a `serde_json::Value`, an `Option`, `Vec` or `BTreeMap<String, _>` of one, or derives `Config`"
)]
pub trait Config: Sized {
    /// Whether there is nothing to set.
    const NOTHING: bool = false;

    /// A JSON Schema of it.
    fn schema() -> Value;

    /// Reads it. `None` where it cannot be read: each reason is then among `problems`.
    fn read(value: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<Self>;

    /// What a setting is that is left out; `None` where it must be there.
    fn missing() -> Option<Self> {
        None
    }
}

/// The place of a setting, for messages.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    name: &'a str,
}

impl<'a> At<'a> {
    /// The place of the whole configuration.
    pub const ROOT: At<'static> = At { parent: None, name: "" };

    /// The place of a member.
    pub fn member(&'a self, name: &'a str) -> At<'a> {
        At {
            parent: Some(self),
            name,
        }
    }

    fn path(&self) -> String {
        match self.parent {
            None => String::new(),
            Some(parent) if parent.parent.is_none() => self.name.into(),
            Some(parent) => format!("{}.{}", parent.path(), self.name),
        }
    }

    /// A message that begins with the place.
    pub fn problem(&self, problem: impl std::fmt::Display) -> String {
        match self.path().as_str() {
            "" => format!("the configuration {problem}"),
            path => format!("`{path}` {problem}"),
        }
    }
}

/// Reads a configuration from JSON text.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse<C: Config>(text: &str) -> Result<C, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("the configuration is not JSON: {error}"))?;
    let mut problems = Vec::new();
    let config = C::read(&value, &At::ROOT, &mut problems);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems.join("; ")),
    }
}

fn expected<T>(what: &str, found: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<T> {
    let mut text = found.to_string();
    if text.len() > 60 {
        let end = text.floor_char_boundary(57);
        text.truncate(end);
        text.push_str("...");
    }
    problems.push(at.problem(format_args!("must be {what}, but is {text}")));
    None
}

impl Config for bool {
    fn schema() -> Value {
        json!({"type": "boolean"})
    }

    fn read(value: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<bool> {
        value
            .as_bool()
            .or_else(|| expected("true or false", value, at, problems))
    }
}

impl Config for f64 {
    fn schema() -> Value {
        json!({"type": "number"})
    }

    fn read(value: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<f64> {
        value.as_f64().or_else(|| expected("a number", value, at, problems))
    }
}

macro_rules! integer {
    ($($integer:ty),*) => {$(
        impl Config for $integer {
            fn schema() -> Value {
                json!({"type": "integer", "minimum": <$integer>::MIN, "maximum": <$integer>::MAX})
            }

            fn read(value: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<$integer> {
                let integer = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
                integer.and_then(|integer| integer.try_into().ok()).or_else(|| {
                    let what = format!("an integer from {} to {}", <$integer>::MIN, <$integer>::MAX);
                    expected(&what, value, at, problems)
                })
            }
        }
    )*};
}

integer!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Config for String {
    fn schema() -> Value {
        json!({"type": "string"})
    }

    fn read(value: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<String> {
        value
            .as_str()
            .map(str::to_owned)
            .or_else(|| expected("a text", value, at, problems))
    }
}

/// Any JSON.
impl Config for Value {
    fn schema() -> Value {
        json!({})
    }

    fn read(value: &Value, _: &At<'_>, _: &mut Vec<String>) -> Option<Value> {
        Some(value.clone())
    }
}

impl<T: Config> Config for Option<T> {
    fn schema() -> Value {
        json!({"anyOf": [T::schema(), {"type": "null"}]})
    }

    fn read(value: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<Option<T>> {
        match value {
            Value::Null => Some(None),
            value => T::read(value, at, problems).map(Some),
        }
    }

    fn missing() -> Option<Option<T>> {
        Some(None)
    }
}

impl<T: Config> Config for Vec<T> {
    fn schema() -> Value {
        json!({"type": "array", "items": T::schema()})
    }

    fn read(value: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<Vec<T>> {
        let Some(items) = value.as_array() else {
            return expected("a list", value, at, problems);
        };
        let read = |(index, item): (usize, &Value)| T::read(item, &at.member(&index.to_string()), problems);
        items
            .iter()
            .enumerate()
            .map(read)
            .collect::<Vec<_>>()
            .into_iter()
            .collect()
    }
}

impl<T: Config> Config for BTreeMap<String, T> {
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": T::schema()})
    }

    fn read(value: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<BTreeMap<String, T>> {
        let Some(members) = value.as_object() else {
            return expected("an object", value, at, problems);
        };
        let read =
            |(name, member): (&String, &Value)| Some((name.clone(), T::read(member, &at.member(name), problems)?));
        members.iter().map(read).collect::<Vec<_>>().into_iter().collect()
    }
}

/// The path of a field: a JSON Pointer (RFC 6901), `""` for the whole value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Pointer {
    /// For defaults, which the author wrote: they are not checked.
    fn from(text: &str) -> Pointer {
        Pointer(text.into())
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> String {
        pointer.0
    }
}

impl Config for Pointer {
    fn schema() -> Value {
        json!({"type": "string", "format": "json-pointer"})
    }

    fn read(value: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<Pointer> {
        let what = "a path such as \"/total_amount\" (a JSON Pointer)";
        let Some(text) = value.as_str() else {
            return expected(what, value, at, problems);
        };
        let escapes_end = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if (text.is_empty() || text.starts_with('/')) && escapes_end {
            return Some(Pointer(text.into()));
        }
        expected(what, value, at, problems)
    }
}

/// The members of an object that is being read; for the derive macro.
#[derive(Debug)]
pub struct Members<'v> {
    members: &'v Map<String, Value>,
    names: &'static [&'static str],
}

impl<'v> Members<'v> {
    /// The members of `value`. Unknown ones are problems.
    pub fn of(
        value: &'v Value,
        names: &'static [&'static str],
        at: &At<'_>,
        problems: &mut Vec<String>,
    ) -> Option<Self> {
        let Some(members) = value.as_object() else {
            return expected("an object", value, at, problems);
        };
        for name in members.keys().filter(|name| !names.contains(&name.as_str())) {
            problems.push(at.member(name).problem(unknown("is not a setting", name, names)));
        }
        Some(Members { members, names })
    }

    /// Reads a member, or takes its default.
    pub fn read<T: Config>(
        &self,
        name: usize,
        default: Option<fn() -> T>,
        at: &At<'_>,
        problems: &mut Vec<String>,
    ) -> Option<T> {
        let name = self.names[name];
        let at = at.member(name);
        if let Some(value) = self.members.get(name) {
            return T::read(value, &at, problems);
        }
        let value = default.map(|default| default()).or_else(T::missing);
        if value.is_none() {
            problems.push(at.problem("is missing"));
        }
        value
    }
}

/// Reads the name of one of an enum's variants; for the derive macro.
pub fn variant(
    value: &Value,
    names: &'static [&'static str],
    at: &At<'_>,
    problems: &mut Vec<String>,
) -> Option<usize> {
    let Some(text) = value.as_str() else {
        return expected(&format!("one of {}", names.join(", ")), value, at, problems);
    };
    let found = names.iter().position(|name| *name == text);
    if found.is_none() {
        problems.push(at.problem(unknown(&format!("cannot be {text:?}"), text, names)));
    }
    found
}

fn unknown(what: &str, name: &str, names: &[&str]) -> String {
    let nearest = names
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .min();
    match nearest {
        Some((distance, known)) if distance <= 1 + name.len() / 4 => format!("{what}: did you mean `{known}`?"),
        _ if names.is_empty() => format!("{what}: there are none"),
        _ => format!("{what}: there are {}", names.join(", ")),
    }
}

/// A property of an object; for the derive macro.
#[derive(Debug)]
pub struct Property {
    /// The member's name.
    pub name: &'static str,
    /// Its documentation.
    pub description: &'static str,
    /// Its own schema.
    pub schema: Value,
    /// What it is when left out, as JSON.
    pub default: Option<Value>,
    /// Whether it must be there.
    pub required: bool,
}

/// The schema of an object; for the derive macro.
pub fn object_schema(description: &str, properties: Vec<Property>) -> Value {
    let mut members = Map::new();
    let mut required = Vec::new();
    for mut property in properties {
        if !property.description.is_empty() {
            property.schema["description"] = property.description.into();
        }
        if let Some(default) = property.default {
            property.schema["default"] = default;
        }
        if property.required {
            required.push(Value::from(property.name));
        }
        members.insert(property.name.into(), property.schema);
    }
    let mut schema = json!({"type": "object", "properties": members, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    if !description.is_empty() {
        schema["description"] = description.into();
    }
    schema
}

/// The schema of an enum; for the derive macro.
pub fn choice_schema(description: &str, names: &[&str]) -> Value {
    let mut schema = json!({"type": "string", "enum": names});
    if !description.is_empty() {
        schema["description"] = description.into();
    }
    schema
}
