//! From the bytes of a file to values that have the shapes of the grammar, with every error on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::config::Config;
use super::grammar::{Key, Section, Shape};
use super::keys::SECTIONS;
use super::problem::{Problem, suggest};
use super::quantity::{duration, show_duration, show_size, size};
use super::variable::{Environment, Expanded, expand};
use super::{Span, Spanned};

/// A value that has the shape that was asked for.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Count(u64),
    Duration(Duration),
    Size(u64),
    Flag(bool),
    False,
    List(Vec<Spanned<Value>>),
    Section(Fields),
    Named(Named),
    Free(Config),
}

/// What stands under names that the person chose, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub entries: Vec<(Spanned<String>, Spanned<Value>)>,
    /// Whether some are missing here because they have the wrong type.
    pub lacking: bool,
}

/// The keys of a section that were there and sound.
#[derive(Debug)]
pub(super) struct Fields {
    entries: BTreeMap<&'static str, Spanned<Value>>,
    /// Whether one of its own keys is unknown: another one may be missing because of it.
    pub misspelt: bool,
    /// Whether something in it was wrong, so that what follows from it is not worth saying.
    pub doubtful: bool,
}

impl Fields {
    /// Takes the value out.
    pub fn take(&mut self, name: &str) -> Option<Spanned<Value>> {
        self.entries.remove(name)
    }

    pub fn text(&mut self, name: &str) -> Option<Spanned<String>> {
        self.take_as(name, |value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    pub fn count(&mut self, name: &str) -> Option<u64> {
        let count = self.take_as(name, |value| match value {
            Value::Count(count) => Some(count),
            _ => None,
        });
        count.map(|count| count.value)
    }

    pub fn duration(&mut self, name: &str) -> Option<Duration> {
        let duration = self.take_as(name, |value| match value {
            Value::Duration(duration) => Some(duration),
            _ => None,
        });
        duration.map(|duration| duration.value)
    }

    pub fn size(&mut self, name: &str) -> Option<u64> {
        let size = self.take_as(name, |value| match value {
            Value::Size(size) => Some(size),
            _ => None,
        });
        size.map(|size| size.value)
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let flag = self.take_as(name, |value| match value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        });
        flag.map(|flag| flag.value)
    }

    pub fn section(&mut self, name: &str) -> Option<Spanned<Fields>> {
        self.take_as(name, |value| match value {
            Value::Section(fields) => Some(fields),
            _ => None,
        })
    }

    pub fn named(&mut self, name: &str) -> Option<Spanned<Named>> {
        self.take_as(name, |value| match value {
            Value::Named(named) => Some(named),
            _ => None,
        })
    }

    /// All sections in it.
    pub fn sections(&mut self) -> Vec<(&'static str, Spanned<Fields>)> {
        let names: Vec<_> = self.entries.keys().copied().collect();
        names
            .into_iter()
            .filter_map(|name| Some((name, self.section(name)?)))
            .collect()
    }

    fn take_as<T>(&mut self, name: &str, as_type: impl FnOnce(Value) -> Option<T>) -> Option<Spanned<T>> {
        let Spanned { value, span } = self.take(name)?;
        as_type(value).map(|value| Spanned::new(value, span))
    }
}

/// Whoever has more of them has the wrong file.
const SYNTAX_ERRORS_MAX: usize = 20;

/// Walks one file.
pub(super) struct Walker<'w> {
    pub text: &'w str,
    pub environment: Environment<'w>,
    pub problems: Vec<Problem>,
    /// Lines that are not TOML: what is read from them, and what is missing because of them, is not worth saying.
    torn: BTreeSet<usize>,
    /// Where the lines begin.
    lines: Vec<usize>,
}

impl<'w> Walker<'w> {
    pub fn new(text: &'w str, environment: Environment<'w>) -> Walker<'w> {
        Walker {
            text,
            environment,
            problems: Vec::new(),
            torn: BTreeSet::new(),
            lines: std::iter::once(0)
                .chain(text.match_indices('\n').map(|(at, _)| at + 1))
                .collect(),
        }
    }

    /// Reads the whole file as the section.
    pub fn file(&mut self, section: &'static Section) -> Fields {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            self.not_toml(error.span(), error.message());
        }
        // Keys below a header that cannot be read belong to nobody knows what.
        let headless = self.torn.iter().any(|&line| self.is_header(line));
        let nothing = DeTable::new();
        let table = if headless { &nothing } else { table.get_ref() };
        let end = self.text.len()..self.text.len();
        self.section(section, table, &end)
    }

    /// Whether the whole file is TOML.
    pub fn is_toml(&self) -> bool {
        self.torn.is_empty()
    }

    fn not_toml(&mut self, span: Option<Span>, message: &str) {
        let span = span.unwrap_or(0..0);
        let line = self.line(span.start);
        // The parser goes on behind an error as well as it can; what it says of the rest of the line, or of the keys
        // below a header, is nothing new.
        let header = (0..=line).rev().take(100).find(|&line| self.is_header(line));
        let known = self.torn.contains(&line) || header.is_some_and(|header| self.torn.contains(&header));
        if known || self.torn.len() >= SYNTAX_ERRORS_MAX {
            return;
        }
        self.torn.insert(line);
        let found = self.text.get(span.clone()).unwrap_or("");
        let word = found.starts_with(char::is_alphabetic) && !found.contains(['\n', '"']);
        let (message, help) = match message {
            "duplicate key" => (
                message,
                "a key and a table stand only once: remove one of the two, or rename it".into(),
            ),
            // The parser takes a word for a misspelt `true` or `inf`; most likely it is a string.
            _ if word && message.starts_with("invalid") => ("a string stands in quotes", format!("write \"{found}\"")),
            _ => (
                message,
                "a line is `key = value`, `[table]` or `# comment`; strings are in \"quotes\"".into(),
            ),
        };
        self.problems
            .push(Problem::new(span, format!("this is not TOML: {message}")).help(help));
    }

    /// The line of a byte, counted from 0.
    fn line(&self, byte: usize) -> usize {
        self.lines.partition_point(|&start| start <= byte) - 1
    }

    fn is_header(&self, line: usize) -> bool {
        let start = self.lines.get(line).copied().unwrap_or(self.text.len());
        self.text[start..].trim_start_matches([' ', '\t']).starts_with('[')
    }

    pub fn push(&mut self, problem: Problem) {
        let torn = problem
            .labels
            .first()
            .is_some_and(|label| self.torn.contains(&self.line(label.span.start)));
        if !torn {
            self.problems.push(problem);
        }
    }

    fn section(&mut self, section: &'static Section, table: &DeTable<'_>, span: &Span) -> Fields {
        let before = self.problems.len();
        let (mut entries, mut misspelt) = (BTreeMap::new(), false);
        for (key, value) in in_file_order(table) {
            match section.key(&key.value) {
                None => {
                    misspelt = true;
                    self.unknown(section, &key);
                }
                // What was read from a line that is not TOML is a guess of the parser.
                Some(_) if self.torn.contains(&self.line(key.span.start)) => {}
                Some(known) => {
                    if let Some(value) = self.value(&known.shape, &key.value, value.get_ref(), value.span()) {
                        entries.insert(known.name, value);
                    }
                }
            }
        }
        let missing = |key: &&Key| key.required && !table.contains_key(key.name);
        // With a torn line nobody knows what is missing.
        if self.torn.is_empty() {
            for key in section.keys.iter().filter(missing) {
                self.push(
                    Problem::new(span.clone(), format!("{} needs the key `{}`", section.what, key.name))
                        .label(format!("no `{}` here", key.name))
                        .help(format!("add `{} = {}`: {}", key.name, key.example, key.summary)),
                );
            }
        }
        Fields {
            entries,
            misspelt,
            doubtful: self.problems.len() > before,
        }
    }

    fn unknown(&mut self, section: &'static Section, key: &Spanned<String>) {
        let mut help = suggest(&key.value, section.keys.iter().map(|key| key.name), "keys here");
        if let Some(elsewhere) = SECTIONS.iter().find(|place| place.key(&key.value).is_some()) {
            let here = section
                .keys
                .iter()
                .map(|key| format!("`{}`", key.name))
                .collect::<Vec<_>>()
                .join(", ");
            help = format!("`{}` is a key of {}; keys here: {here}", key.value, elsewhere.what);
        }
        let message = format!("{} has no key `{}`", section.what, key.value);
        self.push(Problem::new(key.span.clone(), message).label("unknown key").help(help));
    }

    fn value(&mut self, shape: &'static Shape, name: &str, value: &DeValue<'_>, span: Span) -> Option<Spanned<Value>> {
        let read = match (shape, value) {
            (Shape::Any(shapes), _) => {
                let fits = shapes.iter().find(|shape| shape.toml_type() == value.type_str());
                return match fits {
                    Some(Shape::False) if !matches!(value, DeValue::Boolean(false)) => {
                        self.mistyped(shape, name, value, span)
                    }
                    Some(shape) => self.value(shape, name, value, span),
                    None => self.mistyped(shape, name, value, span),
                };
            }
            (Shape::Flag, DeValue::Boolean(flag)) => Value::Flag(*flag),
            (Shape::False, DeValue::Boolean(false)) => Value::False,
            (Shape::Count { min, max }, DeValue::Integer(integer)) => {
                self.count(name, integer.as_str(), integer.radix(), (*min, *max), &span)?
            }
            (Shape::List(each), DeValue::Array(array)) => {
                let before = self.problems.len();
                let elements = array
                    .iter()
                    .filter_map(|v| self.value(each, name, v.get_ref(), v.span()))
                    .collect();
                if self.problems.len() > before {
                    return None;
                }
                Value::List(elements)
            }
            (Shape::Section(section), DeValue::Table(table)) => Value::Section(self.section(section, table, &span)),
            (Shape::Named(each), DeValue::Table(table)) => {
                let mut named = Named::default();
                for (key, value) in in_file_order(table) {
                    match self.value(each, &key.value, value.get_ref(), value.span()) {
                        Some(value) => named.entries.push((key, value)),
                        None => named.lacking = true,
                    }
                }
                Value::Named(named)
            }
            (Shape::Free, DeValue::Table(table)) => Value::Free(self.config(table)?),
            (_, DeValue::String(text)) => {
                let expanded = self.expand(text, &span)?;
                return self.string(shape, name, expanded, value, span);
            }
            _ => return self.mistyped(shape, name, value, span),
        };
        Some(Spanned::new(read, span))
    }

    /// A string, its variables replaced, as what is asked for.
    fn string(
        &mut self,
        shape: &'static Shape,
        name: &str,
        expanded: Expanded,
        value: &DeValue<'_>,
        span: Span,
    ) -> Option<Spanned<Value>> {
        let text = expanded.text;
        let unsound = |walker: &mut Self, span: &Span| {
            let message = format!("`{name}` is {}, but \"{text}\" was found", shape.expected());
            walker.push(Problem::new(span.clone(), message));
            None
        };
        let outside = |walker: &mut Self, span: &Span, min: String, max: String| {
            let message = format!("`{name}` is {text}, which is out of bounds");
            walker.push(Problem::new(span.clone(), message).help(format!("it may be from {min} to {max}")));
            None
        };
        let read = match shape {
            Shape::Text => Value::Text(text),
            Shape::Word(words) if words.contains(&text.as_str()) => Value::Text(text),
            Shape::Word(words) => {
                let message = format!("`{name}` cannot be \"{text}\"");
                let help = suggest(&text, words.iter().copied(), "possible values");
                self.push(Problem::new(span, message).label("unknown value").help(help));
                return None;
            }
            Shape::Duration { min, max } => match duration(&text) {
                None => return unsound(self, &span),
                Some(read) if read < *min || read > *max => {
                    return outside(self, &span, show_duration(*min), show_duration(*max));
                }
                Some(read) => Value::Duration(read),
            },
            Shape::Size { min, max } => match size(&text) {
                None => return unsound(self, &span),
                Some(read) if read < *min || read > *max => {
                    return outside(self, &span, show_size(*min), show_size(*max));
                }
                Some(read) => Value::Size(read),
            },
            // TOML has no variables outside of strings: "${PARTITIONS:-4}" is as good as a number can be.
            Shape::Count { min, max } if expanded.varied => self.count(name, &text, 10, (*min, *max), &span)?,
            _ => return self.mistyped(shape, name, value, span),
        };
        Some(Spanned::new(read, span))
    }

    fn count(&mut self, name: &str, digits: &str, radix: u32, (min, max): (u64, u64), span: &Span) -> Option<Value> {
        match u64::from_str_radix(digits, radix) {
            Ok(count) if (min..=max).contains(&count) => Some(Value::Count(count)),
            _ => {
                let message = format!("`{name}` is {digits}, which is out of bounds");
                self.push(Problem::new(span.clone(), message).help(format!("it may be from {min} to {max}")));
                None
            }
        }
    }

    fn mistyped(&mut self, shape: &Shape, name: &str, value: &DeValue<'_>, span: Span) -> Option<Spanned<Value>> {
        let found = match value {
            DeValue::String(text) => format!("the string \"{}\"", text.escape_debug()),
            DeValue::Integer(integer) => format!("the integer {integer}"),
            DeValue::Float(float) => format!("the float {float}"),
            DeValue::Boolean(boolean) => format!("the boolean {boolean}"),
            DeValue::Datetime(datetime) => format!("the datetime {datetime}"),
            DeValue::Array(_) => "an array".into(),
            DeValue::Table(_) => "a table".into(),
        };
        let message = format!(
            "`{name}` has the wrong type: expected {}; found {found}",
            shape.expected()
        );
        let problem = Problem::new(span, message).label(format!("this is {found}"));
        self.push(match (shape, value) {
            (Shape::Duration { .. } | Shape::Size { .. }, _) => problem.help("write number and unit in quotes"),
            (Shape::Text, DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)) => {
                problem.help("put it in quotes")
            }
            (Shape::Count { .. }, DeValue::String(_)) => problem.help("take the quotes away"),
            (Shape::Section(_) | Shape::Named(_), _) => problem.help(format!("a table is written `{name} = {{ … }}`")),
            _ => problem,
        });
        None
    }

    pub fn expand(&mut self, text: &str, span: &Span) -> Option<Expanded> {
        match expand(text, self.environment) {
            Ok(expanded) => Some(expanded),
            Err(errors) => {
                for error in errors {
                    let variable = &text[error.at];
                    // Escapes in the string move what stands behind them, so it is searched for.
                    let found = self.text.get(span.clone()).and_then(|raw| raw.find(variable));
                    let place = found.map_or(span.clone(), |at| span.start + at..span.start + at + variable.len());
                    self.push(Problem::new(place, error.message).help(error.help));
                }
                None
            }
        }
    }
}

/// Tables keep their keys sorted; people read files from top to bottom.
fn in_file_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(Spanned<String>, &'t toml::Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| (Spanned::new(key.get_ref().to_string(), key.span()), value))
        .collect();
    entries.sort_by_key(|(key, _)| key.span.start);
    entries
}
