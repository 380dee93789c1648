//! What the records look like on their way: formats and types, from the sources along the stages to the topics.

use super::Spanned;
use super::declare::{Pipeline, Sink, Source, Stage};
use super::exit::{Exit, ExitKind, leads};
use super::known::Known;
use super::problem::{Problem, suggest};
use super::shape::{Mismatch, Shape};
use super::wiring::{From, Wire, Wiring};
use crate::format::Format;
use crate::schema::{Branch, Field, FieldType, MappedField, Place, ValueBase};

/// What records of one way look like.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub value: Shape,
    pub key: Shape,
}

/// What the records of each source and branch may look like: one entry for each way that they can come. Never empty.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub sources: Vec<Vec<Record>>,
    /// By stage of the file, then by way out of it.
    pub branches: Vec<Vec<Vec<Record>>>,
}

/// More ways than this to one branch are not told apart.
const WAYS_MAX: usize = 64;

/// Follows the records through stages that are all known and in order.
pub(super) fn follow(
    pipeline: &Pipeline,
    known: &[Option<Known>],
    wiring: &Wiring,
    order: &[usize],
    problems: &mut Vec<Problem>,
) -> Flow {
    let sources = pipeline
        .sources
        .iter()
        .map(|source| vec![source_record(source)])
        .collect();
    let mut flow = Flow {
        sources,
        branches: vec![Vec::new(); pipeline.stages.len()],
    };
    for &at in order {
        let Some(Known { described, exits, .. }) = &known[at] else {
            continue;
        };
        let stage = &pipeline.stages[at];
        let mut branches = vec![Vec::new(); exits.len()];
        for wire in &wiring.wires[at] {
            let Some(records) = flow.of(wire.from) else { continue };
            let input = wire
                .input
                .and_then(|input| described.signature.inputs.get(input as usize));
            for arriving in records {
                // With a key of its own a stage sees its records as they are read from its internal topic.
                let entering = match &stage.key {
                    None => arriving.clone(),
                    Some(key) => {
                        let problem = no_such_key(stage, key, wire, arriving);
                        problems.extend(problem.filter(|problem| !problems.contains(problem)));
                        arriving.rekeyed()
                    }
                };
                for mapped in input.iter().flat_map(|input| &input.fields) {
                    let problem = unreadable(pipeline, at, wire, &entering, mapped);
                    problems.extend(problem.filter(|problem| !problems.contains(problem)));
                }
                for (Exit { branch, kind }, ways) in exits.iter().zip(&mut branches) {
                    let record = if *kind == ExitKind::Unkeyed {
                        arriving
                    } else {
                        &entering
                    };
                    way(pipeline, at, wire, record, branch, ways, problems);
                }
            }
        }
        problems.extend(two_formats(stage, &wiring.wires[at], &flow));
        for (index, (exit, ways)) in exits.iter().zip(&mut branches).enumerate() {
            let this = From::Branch {
                stage: at,
                branch: Some(index),
            };
            if leads(stage, exit, this, wiring) {
                one_format(pipeline, at, &exit.branch, ways, problems);
            }
        }
        flow.branches[at] = branches;
    }
    flow
}

impl Flow {
    /// What the records of a wire look like; `None` if that is unknown because of another error.
    pub fn of(&self, from: From) -> Option<&[Record]> {
        let records = match from {
            From::Source(source) => self.sources.get(source)?,
            From::Branch { stage, branch } => self.branches[stage].get(branch?)?,
        };
        (!records.is_empty()).then_some(records)
    }
}

impl Record {
    /// The same behind a stage's `key`: keys are text.
    fn rekeyed(&self) -> Record {
        Record {
            value: self.value.clone(),
            key: Shape::unknown(Format::Text),
        }
    }
}

fn source_record(source: &Source) -> Record {
    let by = format!("the source `{}`", source.name);
    Record {
        value: Shape::of_topic(&source.format, &by),
        key: Shape::of_topic(&source.key_format, &by),
    }
}

fn way(
    pipeline: &Pipeline,
    at: usize,
    wire: &Wire,
    record: &Record,
    branch: &Branch,
    ways: &mut Vec<Record>,
    problems: &mut Vec<Problem>,
) {
    let stage = &pipeline.stages[at];
    let by = format!("the stage `{}`", stage.name);
    match record.value.value_after(branch, &by) {
        Ok(value) => {
            let next = Record {
                value,
                key: record.key.key_after(branch, &by),
            };
            // Beyond the bound only what is of another format still matters.
            let alike = |way: &Record| way.value.format == next.value.format && way.key.format == next.key.format;
            let enough = ways.len() > WAYS_MAX && ways.iter().any(alike);
            if !enough && !ways.contains(&next) {
                ways.push(next);
            }
        }
        Err(format) => {
            let message = format!(
                "the branch `{}` of the stage `{}` adds fields to a value that is {format}",
                branch.name, stage.name
            );
            let problem = Problem::new(wire.reference.span.clone(), message)
                .label(format!("{format} values come from here"))
                .help("fields can be added to JSON and CSV; set the source's `format`, or use a plugin that makes new values");
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
}

/// A topic and a stage's feed have one format, whichever way a record came.
fn one_format(pipeline: &Pipeline, at: usize, branch: &Branch, ways: &mut Vec<Record>, problems: &mut Vec<Problem>) {
    let stage = &pipeline.stages[at];
    let Some(first) = ways.first() else { return };
    for (what, formats) in [
        ("values", ways.iter().map(|way| &way.value.format).collect::<Vec<_>>()),
        ("keys", ways.iter().map(|way| &way.key.format).collect()),
    ] {
        if let Some(other) = formats.iter().find(|format| **format != formats[0]) {
            let detail = if other.to_string() == formats[0].to_string() {
                " with other columns".into()
            } else {
                format!(" and {other}")
            };
            let message = format!(
                "the branch `{}` of the stage `{}` forwards {what} of two formats: {}{detail}",
                branch.name, stage.name, formats[0]
            );
            let help = "a topic has one format: read the inputs in a stage each, or give their sources the same format";
            problems.push(Problem::new(stage.input.span.clone(), message).help(help));
        }
    }
    if ways.len() > WAYS_MAX {
        let known = Record {
            value: Shape::unknown(first.value.format.clone()),
            key: Shape::unknown(first.key.format.clone()),
        };
        *ways = vec![known];
    }
}

/// Why a field cannot be read from the records of a wire.
fn unreadable(pipeline: &Pipeline, at: usize, wire: &Wire, record: &Record, mapped: &MappedField) -> Option<Problem> {
    let stage = &pipeline.stages[at];
    let (pointer, shape, part) = match &mapped.place {
        Place::Value(pointer) => (pointer, &record.value, "value"),
        Place::Key(pointer) => (pointer, &record.key, "key"),
        _ => return None,
    };
    let Field { name, field_type, .. } = &mapped.field;
    let mismatch = shape.read(pointer, &mapped.field).err()?;
    let place = if pointer.is_empty() {
        format!("the whole {part}")
    } else {
        format!("`{pointer}` in the {part}")
    };
    let reads = format!(
        "the stage `{}` reads its field `{name}` ({place}) as {field_type}",
        stage.name
    );
    let span = wire.reference.span.clone();
    Some(match mismatch {
        Mismatch::Type { written, by } => {
            let article = if written.starts_with(['a', 'e', 'i', 'o']) {
                "an"
            } else {
                "a"
            };
            let message = format!("{reads}, but {by} writes {article} {written} there");
            Problem::new(span, message)
                .label(format!("{written} comes from here, {field_type} is wanted"))
                .help(type_help(&written, *field_type))
        }
        Mismatch::Absent(members) => {
            let shown: Vec<&str> = members.iter().map(String::as_str).collect();
            let (message, what) = match wire.from {
                From::Source(_) => (
                    format!("{reads}, but `{}` has no such column", wire.reference),
                    "its columns",
                ),
                From::Branch { .. } => (format!("{reads}, but `{}` does not have it", wire.reference), "it has"),
            };
            let problem = Problem::new(span, message).label(format!("no `{pointer}` in here"));
            problem.help(suggest(pointer, shown, what))
        }
        Mismatch::Format(why) => {
            let message = format!(
                "{reads}, but what `{}` gives is {}, which {why}",
                wire.reference, shape.format
            );
            let help = match (part, &shape.format) {
                ("key", _) if stage.key.is_some() => "a stage's `key` makes text keys, which are read as a whole",
                ("key", _) => "where keys are JSON, say `key-format = \"json\"` at the source",
                (_, Format::Csv(_)) => "a CSV cell is one plain value",
                _ => "where values are JSON, say `format = \"json\"` at the source",
            };
            Problem::new(span, message)
                .label(format!("{} comes from here", shape.format))
                .help(help)
        }
    })
}

/// Why the field of a stage's `key` cannot be read from the records of a wire.
fn no_such_key(stage: &Stage, key: &Spanned<String>, wire: &Wire, record: &Record) -> Option<Problem> {
    let field = Field {
        name: "key".into(),
        field_type: key_type(&record.value.format),
        optional: false,
    };
    let says = format!("`key` of the stage `{}` is {:?}", stage.name, key.value);
    if let Err(fault) = check_pointer(key) {
        return Some(Problem::new(key.span.clone(), format!("{says}: {fault}")));
    }
    let problem =
        |message: String, here: String| Problem::new(key.span.clone(), message).also(wire.reference.span.clone(), here);
    let reference = &wire.reference;
    Some(match record.value.read(key, &field).err()? {
        Mismatch::Absent(members) => {
            let (has, what) = match wire.from {
                From::Source(_) => ("has no such column", "its columns"),
                From::Branch { .. } => ("does not have it", "it has"),
            };
            let names: Vec<&str> = members.iter().map(String::as_str).collect();
            problem(
                format!("{says}, but `{reference}` {has}"),
                format!("no `{}` in here", key.value),
            )
            .help(suggest(key, names, what))
        }
        Mismatch::Type { written, by } => problem(
            format!("{says}, but {by} writes {written} above it, which has no members"),
            format!("{written} comes from here"),
        )
        .help("name a field that the records have"),
        Mismatch::Format(why) => {
            let format = &record.value.format;
            let help = match format {
                Format::Csv(_) => "a CSV cell is one plain value",
                _ => "where values are JSON, say `format = \"json\"` at the source; `key = \"\"` takes the whole value",
            };
            problem(
                format!("{says}, but what `{reference}` gives is {format}, which {why}"),
                format!("{format} comes from here"),
            )
            .help(help)
        }
    })
}

/// As what a key is read from values of a format.
fn key_type(format: &Format) -> FieldType {
    match format {
        Format::Json => FieldType::Json,
        Format::Raw => FieldType::Bytes,
        Format::Text | Format::Csv(_) => FieldType::Text,
    }
}

/// Values of different formats that would come to an input through one internal topic.
fn two_formats(stage: &Stage, wires: &[Wire], flow: &Flow) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen: Vec<(&Wire, &Format)> = Vec::new();
    for wire in wires.iter().filter(|_| stage.key.is_some()) {
        // Where one branch has several, that was said there.
        let Some(record) = flow.of(wire.from).and_then(|records| records.first()) else {
            continue;
        };
        let format = &record.value.format;
        let first = seen.iter().find(|(other, _)| other.input == wire.input);
        if let Some((first, other)) = first.filter(|(_, other)| *other != format) {
            let (other, other_columns) = (other.to_string(), format.to_string() == other.to_string());
            let detail = if other_columns {
                " with other columns".into()
            } else {
                format!(" and {format}")
            };
            let message = format!(
                "values of two formats come to the stage `{}` through its internal topic: {other}{detail}",
                stage.name
            );
            problems.push(
                Problem::new(wire.reference.span.clone(), message)
                    .also(first.reference.span.clone(), format!("{other} comes from here"))
                    .help("a topic has one format: read the inputs in a stage each, or give their sources the same format"),
            );
        }
        seen.push((wire, format));
    }
    problems
}

fn type_help(written: &str, read: FieldType) -> String {
    let also = match read {
        FieldType::Float => "float is read from float and integer",
        FieldType::Time => "time is read from time, from text and from integer (milliseconds)",
        FieldType::Text => "text is read from text and from time",
        FieldType::Integer => "integer is read from integer alone, as a float may have a fraction",
        _ => return format!("change one of the plugins, so that both say {written} or both {read}"),
    };
    format!("change one of the plugins: {also}")
}

/// How a branch's values are written to its topic.
pub(super) fn sink_format(
    branch: &Branch,
    stage: &str,
    sink: &Sink,
    made: &Format,
    problems: &mut Vec<Problem>,
) -> Format {
    let Some(wanted) = &sink.format else {
        return made.clone();
    };
    if wanted.value == *made {
        return made.clone();
    }
    let values: Vec<(&str, FieldType)> = branch
        .fields
        .iter()
        .filter_map(|field| match &field.place {
            Place::Value(pointer) => Some((pointer.as_str(), field.field.field_type)),
            _ => None,
        })
        .collect();
    let raw = branch.fields.iter().any(|field| field.place == Place::RawValue);
    let forwards = values.is_empty() && branch.value == ValueBase::Same && !raw;
    let whole = match values.as_slice() {
        [("", field_type)] => Some(*field_type),
        _ => None,
    };
    let refused = match &wanted.value {
        Format::Csv(_) => Some((
            "CSV is read, but not written".into(),
            "leave `format` out, or write \"json\"",
        )),
        _ if forwards => Some((
            format!("the branch forwards values as they are, which is {made}"),
            "leave `format` out: the topic holds what came in",
        )),
        _ if raw || values.is_empty() => None,
        Format::Json => None,
        Format::Text if whole.is_some() => None,
        Format::Raw if matches!(whole, Some(FieldType::Text | FieldType::Bytes | FieldType::Json)) => None,
        other => Some((
            format!("the branch's fields make JSON, which {other} has no place for"),
            "leave `format` out, or write \"json\"",
        )),
    };
    if let Some((why, help)) = refused {
        let message = format!(
            "the branch `{}` of the stage `{stage}` cannot be written as {wanted}: {why}",
            branch.name
        );
        problems.push(Problem::new(wanted.span.clone(), message).help(help));
    }
    wanted.value.clone()
}

/// Key and event time of the sources: whether the formats have such fields.
pub(super) fn check_sources(pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    for source in &pipeline.sources {
        let shape = source_record(source).value;
        for (key, pointer, field_type) in [
            ("timestamp", &source.timestamp, FieldType::Time),
            ("key", &source.key, FieldType::Text),
        ] {
            let Some(pointer) = pointer else { continue };
            let field = Field {
                name: key.into(),
                field_type,
                optional: false,
            };
            match shape.read(pointer, &field) {
                Ok(()) => {}
                Err(Mismatch::Absent(columns)) => {
                    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
                    let message = format!(
                        "`{key}` of the source `{}` is {pointer:?}, but its csv has no such column",
                        source.name
                    );
                    let problem = Problem::new(pointer.span.clone(), message).label("unknown column");
                    problems.push(problem.help(suggest(pointer, names, "its columns")));
                }
                Err(Mismatch::Format(why)) => {
                    let message = format!(
                        "`{key}` of the source `{}` is {pointer:?}, but its values are {}, which {why}",
                        source.name, source.format.value
                    );
                    problems.push(
                        Problem::new(pointer.span.clone(), message)
                            .help("where values are JSON, say `format = \"json\"`"),
                    );
                }
                Err(Mismatch::Type { .. }) => unreachable!("a topic's members have no types"),
            }
            if let Err(fault) = check_pointer(pointer) {
                problems.push(Problem::new(
                    pointer.span.clone(),
                    format!("`{key}` of the source `{}` is {pointer:?}: {fault}", source.name),
                ));
            }
        }
    }
}

/// The rules of RFC 6901 that a pointer which begins with `/` can still break.
fn check_pointer(pointer: &str) -> Result<(), String> {
    let tildes = pointer.match_indices('~');
    for (at, _) in tildes {
        if !pointer[at + 1..].starts_with(['0', '1']) {
            return Err("in a JSON Pointer `~` is written `~0`, and `/` in a name `~1`".into());
        }
    }
    Ok(())
}
