//! From the values of a file to a pipeline: names, defaults, and what the grammar cannot say.

use std::path::Path;

use crate::format::{CsvOptions, Format};
use crate::limits::{FUTURE_TIME_MAX, KAFKA_COMMIT_BYTES_MAX};
use crate::state::TableForm;

use super::declare::{Commit, Declared, Dlq, Engine, Guarantee, Pipeline, Source};
use super::keys::FILE;
use super::pattern::TopicPattern;
use super::plan::StateLimits;
use super::problem::{Problem, Report};
use super::topic::check_topic_name;
use super::variable::Environment;
use super::walk::{Fields, Named, Value, Walker};
use super::{Span, Spanned};

/// A file as far as it can be understood, and what is wrong with it.
pub(super) struct Draft {
    pub declared: Declared,
    /// `None` if too much is missing to look further.
    pub pipeline: Option<Pipeline>,
    pub problems: Vec<Problem>,
}

/// A pipeline file is at most this long: thousands of stages.
const FILE_BYTES_MAX: u64 = 1 << 20;

pub(super) fn read(file: &Path) -> Result<String, Report> {
    let cannot = |message: String, help: &str| {
        let problem = Problem {
            message,
            labels: Vec::new(),
            help: Some(help.into()),
        };
        Report::new(file.display().to_string(), "".into(), vec![problem])
    };
    let unreadable = |error: std::io::Error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path: it is relative to the current folder",
            std::io::ErrorKind::PermissionDenied => "make it readable for the user that the host runs as",
            _ => "a pipeline is declared in a TOML file",
        };
        cannot(format!("the pipeline file cannot be read: {error}"), help)
    };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        let message = format!("the file has {length} bytes; a pipeline file has at most {FILE_BYTES_MAX}");
        return Err(cannot(message, "is it the right file? A pipeline is declared in TOML"));
    }
    let bytes = std::fs::read(file).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = format!("the pipeline file is not UTF-8 text: byte {at} is the first that is not");
        cannot(
            message,
            "is it the right file? A pipeline is declared in TOML, in UTF-8",
        )
    })
}

/// TOML has no control characters, and a terminal that shows the line should not get them either.
fn not_text(text: &str) -> Option<Problem> {
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    let at = text.find(control)?;
    let line = text[..at].matches('\n').count() + 1;
    let character = text[at..].chars().next()?;
    Some(Problem {
        message: format!(
            "this is not TOML: line {line} has the control character {}",
            character.escape_unicode()
        ),
        labels: Vec::new(),
        help: Some("is it the right file? A pipeline is declared in TOML".into()),
    })
}

pub(super) fn draft(text: &str, file: &Path, environment: Environment<'_>) -> Draft {
    if let Some(problem) = not_text(text) {
        let declared = Declared {
            file: file.display().to_string(),
            text: "".into(),
        };
        return Draft {
            declared,
            pipeline: None,
            problems: vec![problem],
        };
    }
    let mut walker = Walker::new(text, environment);
    let fields = walker.file(&FILE);
    let declared = Declared {
        file: file.display().to_string(),
        text: text.into(),
    };
    let mut drafter = Drafter {
        is_toml: walker.is_toml(),
        folder: file.parent().unwrap_or(Path::new("")),
        end: text.len()..text.len(),
        problems: walker.problems,
    };
    let pipeline = drafter.pipeline(fields, file, declared.clone());
    Draft {
        declared,
        pipeline,
        problems: drafter.problems,
    }
}

/// Makes types of values that have the right shapes; what is left to say is about names.
pub(super) struct Drafter<'d> {
    is_toml: bool,
    /// What plugins are relative to.
    pub folder: &'d Path,
    end: Span,
    pub problems: Vec<Problem>,
}

impl Drafter<'_> {
    fn pipeline(&mut self, mut fields: Fields, file: &Path, declared: Declared) -> Option<Pipeline> {
        let name = match fields.text("name") {
            Some(name) => name,
            None => {
                let stem = file
                    .file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned())
                    .unwrap_or_default();
                Spanned::new(stem, 0..0)
            }
        };
        if let Err(rule) = check_topic_name(&name.value) {
            let message = format!("the pipeline's name \"{name}\" {rule}");
            let help = if name.span == (0..0) {
                "it comes from the file's name: add `name = \"…\"`"
            } else {
                "it is a consumer group and a part of topics' names: give it a name by their rules"
            };
            self.problems.push(Problem::new(name.span.clone(), message).help(help));
        }
        let (word, section) = (fields.text("engine"), fields.section("kafka"));
        let engine = self.engine(word, section);
        let declared_sources = self.table("source", "[source.rides]", fields.named("source"));
        let declared_stages = self.table("stage", "[stage.split]", fields.named("stage"));
        let lacking = declared_sources.lacking || declared_stages.lacking;
        let named = declared_sources.entries.len() + declared_stages.entries.len();
        let sources = declared_sources
            .entries
            .into_iter()
            .filter_map(|(name, value)| self.source(name, value));
        let sources: Vec<_> = sources.collect();
        let stages = declared_stages
            .entries
            .into_iter()
            .filter_map(|(name, value)| self.stage(name, value));
        let stages: Vec<_> = stages.collect();
        let complete = self.is_toml && !fields.misspelt && !lacking && sources.len() + stages.len() == named;
        let dlq = self.dlq(fields.section("dlq"), &name);
        let mut commit = Commit::default();
        if matches!(engine, Engine::Kafka(_)) {
            commit.bytes_max = KAFKA_COMMIT_BYTES_MAX;
        }
        if let Some(mut fields) = fields.section("commit") {
            commit.interval = fields.value.duration("interval").unwrap_or(commit.interval);
            commit.bytes_max = fields
                .value
                .size("bytes")
                .map_or(commit.bytes_max, |bytes| bytes as usize);
            if fields
                .value
                .text("guarantee")
                .is_some_and(|word| word.value == "at-least-once")
            {
                commit.guarantee = Guarantee::AtLeastOnce;
            }
        }
        let mut state = StateLimits::default();
        if let Some(mut fields) = fields.section("state") {
            let memory = fields.value.size("memory");
            state.memory_bytes_max = memory.map_or(state.memory_bytes_max, |bytes| bytes as usize);
            state.quota_bytes_max = fields.value.size("quota");
            if fields
                .value
                .text("changelog")
                .is_some_and(|word| word.value == "binary")
            {
                state.changelog = TableForm::Binary;
            }
        }
        let complete = complete && !sources.is_empty() && !stages.is_empty();
        complete.then_some(Pipeline {
            name,
            engine,
            sources,
            stages,
            dlq: dlq?,
            commit,
            state,
            declared,
        })
    }

    /// A table that has to have something in it; where it is missing, that was said.
    fn table(&mut self, key: &str, header: &str, table: Option<Spanned<Named>>) -> Named {
        let Some(Spanned { value: named, span }) = table else {
            return Named::default();
        };
        if named.entries.is_empty() && !named.lacking {
            let problem = Problem::new(span, format!("`{key}` is empty"));
            self.problems
                .push(problem.help(format!("give it a table under a name of your choice: `{header}`")));
        }
        named
    }

    fn source(&mut self, name: Spanned<String>, value: Spanned<Value>) -> Option<Source> {
        let Value::Section(mut fields) = value.value else {
            return None;
        };
        self.name("source", &name)?;
        let (topic, pattern) = self.source_topic(&name, &mut fields)?;
        let format = match fields.take("format") {
            Some(format) => self.format(format)?,
            None => Spanned::new(Format::Json, name.span.clone()),
        };
        let key_format = fields
            .text("key-format")
            .unwrap_or_else(|| Spanned::new("text".into(), name.span.clone()));
        let pointer = |field: Spanned<String>| field.map(|field| pointer(&field));
        Some(Source {
            topic,
            pattern,
            format,
            key_format: key_format.map(|word| plain_format(&word)),
            timestamp: fields.text("timestamp").map(pointer),
            key: fields.text("key").map(pointer),
            partitions: fields.count("partitions").unwrap_or(1) as u32,
            future_max: fields.duration("future").unwrap_or(FUTURE_TIME_MAX),
            idle: fields.duration("idle"),
            name,
        })
    }

    /// The topic of a source, or the pattern of several with its text in the place of one.
    fn source_topic(
        &mut self,
        name: &Spanned<String>,
        fields: &mut Fields,
    ) -> Option<(Spanned<String>, Option<TopicPattern>)> {
        let (topic, pattern) = (fields.text("topic"), fields.text("topic-pattern"));
        let Some(text) = pattern else {
            return Some((self.topic(topic.unwrap_or_else(|| name.clone()))?, None));
        };
        if let Some(topic) = topic {
            let message = format!("the source `{name}` has a `topic` and a `topic-pattern`");
            let problem = Problem::new(topic.span, message).also(text.span, "the pattern");
            self.problems
                .push(problem.help("remove one of them: a pattern may name the topic among others, as \"a|b-.*\""));
            return None;
        }
        match TopicPattern::new(&text.value) {
            Ok(pattern) => Some((text, Some(pattern))),
            Err(rule) => {
                let problem = Problem::new(text.span.clone(), format!("the pattern `{text}` {rule}"));
                let help = "characters, `.`, `[…]`, `(…|…)`, `?`, `*`, `+`, `{n,m}`, and `\\` before one of these";
                self.problems.push(problem.help(help));
                None
            }
        }
    }

    fn dlq(&mut self, fields: Option<Spanned<Fields>>, pipeline: &Spanned<String>) -> Option<Dlq> {
        let mut fields = fields.map(|fields| fields.value);
        let (topic, partitions) = match &mut fields {
            Some(fields) => (fields.text("topic"), fields.count("partitions")),
            None => (None, None),
        };
        if topic.is_none() && check_topic_name(pipeline).is_err() {
            return None;
        }
        let topic = topic.unwrap_or_else(|| pipeline.clone().map(|name| format!("{name}-dlq")));
        Some(Dlq {
            topic: self.topic(topic)?,
            partitions: partitions.unwrap_or(1) as u32,
        })
    }

    pub fn format(&mut self, value: Spanned<Value>) -> Option<Spanned<Format>> {
        let span = value.span.clone();
        let format = match value.value {
            Value::Text(word) if word == "csv" => {
                let problem = Problem::new(span, "`csv` needs the names of its columns");
                self.problems.push(
                    problem.help("write `format = { csv = { columns = [\"a\", \"b\"] } }`, in the order of the lines"),
                );
                return None;
            }
            Value::Text(word) => plain_format(&word),
            Value::Section(mut fields) => {
                let mut formats = fields.sections();
                if formats.len() != 1 {
                    let message = format!("`format` names {} formats", formats.len());
                    let help = "name one: \"json\", \"text\", \"raw\", or `{ csv = { columns = [\"a\", \"b\"] } }`";
                    // A section in which everything was wrong has said so already.
                    if !fields.doubtful {
                        self.problems.push(Problem::new(span, message).help(help));
                    }
                    return None;
                }
                let (word, settings) = formats.remove(0);
                if word == "csv" {
                    Format::Csv(self.csv(settings)?)
                } else {
                    plain_format(word)
                }
            }
            _ => return None,
        };
        Some(Spanned::new(format, span))
    }

    fn csv(&mut self, mut settings: Spanned<Fields>) -> Option<CsvOptions> {
        let delimiter = settings
            .value
            .text("delimiter")
            .unwrap_or_else(|| Spanned::new(",".into(), settings.span.clone()));
        let columns = settings.value.take("columns")?;
        let span = columns.span.clone();
        let columns = texts(columns);
        let before = self.problems.len();
        if columns.is_empty() {
            self.problems
                .push(Problem::new(span, "`columns` names none").help("name the columns in the order of the lines"));
        }
        for (at, column) in columns.iter().enumerate() {
            if let Some(first) = columns[..at].iter().find(|other| *other == column) {
                let problem = Problem::new(column.span.clone(), format!("the column `{column}` is named twice"));
                self.problems.push(
                    problem
                        .also(first.span.clone(), "the first time")
                        .help("give each column a name of its own"),
                );
            }
        }
        let byte = match delimiter.value.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Some(*byte),
            _ => {
                let message = format!(
                    "`delimiter` is {:?}, but it is one ASCII character, and no quote or line break",
                    delimiter.value
                );
                self.problems
                    .push(Problem::new(delimiter.span, message).help("usual are \",\", \";\", \"\\t\" and \"|\""));
                None
            }
        };
        if self.problems.len() > before {
            return None;
        }
        Some(CsvOptions {
            columns: columns.into_iter().map(|column| column.value).collect(),
            delimiter: byte?,
        })
    }

    /// Names of sources and stages stand before a dot in "stage.branch", in metrics and in logs.
    pub fn name(&mut self, what: &str, name: &Spanned<String>) -> Option<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !name.is_empty() && name.len() <= 64 && name.chars().all(plain) {
            return Some(());
        }
        let message = format!("the {what} \"{name}\" has no proper name");
        let help = "a name has 1 to 64 letters, digits, `-` and `_`";
        self.problems.push(Problem::new(name.span.clone(), message).help(help));
        None
    }

    pub fn topic(&mut self, topic: Spanned<String>) -> Option<Spanned<String>> {
        let Err(rule) = check_topic_name(&topic.value) else {
            return Some(topic);
        };
        let span = if topic.span.is_empty() {
            self.end.clone()
        } else {
            topic.span.clone()
        };
        let problem = Problem::new(span, format!("the topic \"{topic}\" {rule}"));
        self.problems
            .push(problem.help("a topic has 1 to 249 letters, digits, `.`, `_` and `-`"));
        None
    }
}

pub(super) fn texts(value: Spanned<Value>) -> Vec<Spanned<String>> {
    match value.value {
        Value::Text(text) => vec![Spanned::new(text, value.span)],
        Value::List(list) => list.into_iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

fn plain_format(word: &str) -> Format {
    match word {
        "text" => Format::Text,
        "raw" => Format::Raw,
        _ => Format::Json,
    }
}

/// A field's name is the pointer to that member.
pub(super) fn pointer(field: &str) -> String {
    if field.is_empty() || field.starts_with('/') {
        return field.into();
    }
    format!("/{}", field.replace('~', "~0").replace('/', "~1"))
}
