//! What a description of a pipeline file's keys is made of.

use std::time::Duration;

/// What may stand behind a key.
#[derive(Debug)]
pub(super) enum Shape {
    /// Any string.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number.
    Count { min: u64, max: u64 },
    /// A string such as "100ms".
    Duration { min: Duration, max: Duration },
    /// A string such as "64MB".
    Size { min: u64, max: u64 },
    /// `true` or `false`.
    Flag,
    /// `false` and nothing else.
    False,
    /// An array, each element of this shape.
    List(&'static Shape),
    /// A table with keys that are known.
    Section(&'static Section),
    /// A table whose keys are names that the person chooses.
    Named(&'static Shape),
    /// A table of which nothing is known here: settings of a plugin.
    Free,
    /// One of these, told apart by their TOML types.
    Any(&'static [Shape]),
}

/// A table whose keys are known.
#[derive(Debug)]
pub(super) struct Section {
    /// What it describes, as errors call it.
    pub what: &'static str,
    pub keys: &'static [Key],
}

/// A key of a section.
#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    /// One line for people; begins in lower case.
    pub summary: &'static str,
    /// A value as TOML: shown as a remedy, and proof that the key does something.
    pub example: &'static str,
}

impl Shape {
    /// What is expected here, in words that follow "expected".
    pub fn expected(&self) -> String {
        match self {
            Shape::Text => "a string".into(),
            Shape::Word(words) => words
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(" or "),
            Shape::Count { .. } => "a whole number".into(),
            Shape::Duration { .. } => "a duration such as \"100ms\", \"5s\", \"1m\" or \"1h\"".into(),
            Shape::Size { .. } => "a size such as \"64MB\", \"64MiB\" or \"1GB\"".into(),
            Shape::Flag => "true or false".into(),
            Shape::False => "false".into(),
            Shape::List(each) => format!("an array, each element of it {}", each.expected()),
            Shape::Section(section) => {
                let keys = section.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
                if keys.is_empty() {
                    "an empty table".into()
                } else {
                    format!("a table with {keys}")
                }
            }
            Shape::Named(_) | Shape::Free => "a table".into(),
            Shape::Any(shapes) => shapes.iter().map(Shape::expected).collect::<Vec<_>>().join(", or "),
        }
    }

    /// The TOML type of what is expected, as `toml` calls it.
    pub fn toml_type(&self) -> &'static str {
        match self {
            Shape::Text | Shape::Word(_) | Shape::Duration { .. } | Shape::Size { .. } => "string",
            Shape::Count { .. } => "integer",
            Shape::Flag | Shape::False => "boolean",
            Shape::List(_) => "array",
            Shape::Section(_) | Shape::Named(_) | Shape::Free => "table",
            Shape::Any(_) => "any",
        }
    }
}

impl Section {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
