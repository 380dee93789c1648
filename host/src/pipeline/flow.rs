//! What the records look like on their way: formats and types, from the sources along the stages to the topics.

use super::Spanned;
use super::catalog::Described;
use super::declare::{Destination, Pipeline, Sink, Source};
use super::problem::{Problem, nearest, suggest};
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
    /// By stage of the file, then by branch.
    pub branches: Vec<Vec<Vec<Record>>>,
}

/// More ways than this to one branch are not told apart.
const WAYS_MAX: usize = 64;

/// Follows the records through stages that are all known and in order.
pub(super) fn follow(
    pipeline: &Pipeline,
    described: &[Option<Described>],
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
        let Some(described) = &described[at] else { continue };
        let mut branches = vec![Vec::new(); described.signature.branches.len()];
        for wire in &wiring.wires[at] {
            let Some(records) = flow.of(wire.from) else { continue };
            let input = wire
                .input
                .and_then(|input| described.signature.inputs.get(input as usize));
            for record in records {
                for mapped in input.iter().flat_map(|input| &input.fields) {
                    let problem = unreadable(pipeline, at, wire, record, mapped);
                    problems.extend(problem.filter(|problem| !problems.contains(problem)));
                }
                for (branch, ways) in described.signature.branches.iter().zip(&mut branches) {
                    way(pipeline, at, wire, record, branch, ways, problems);
                }
            }
        }
        for (branch, ways) in described.signature.branches.iter().zip(&mut branches) {
            one_format(pipeline, at, branch, ways, problems);
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
            if !ways.contains(&next) {
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
    let whole = |types: &[FieldType]| matches!(values.as_slice(), [("", field_type)] if types.contains(field_type));
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
        Format::Text if whole(&[FieldType::Text]) => None,
        Format::Raw if whole(&[FieldType::Text, FieldType::Bytes]) => None,
        other => Some((
            format!("the branch makes an object of its fields, which {other} has no place for"),
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

/// Branches of the file that the plugin does not have, and branches of the plugin that go nowhere.
pub(super) fn check_branches(
    pipeline: &Pipeline,
    described: &[Option<Described>],
    wiring: &Wiring,
    problems: &mut Vec<Problem>,
) {
    for (at, (stage, described)) in pipeline.stages.iter().zip(described).enumerate() {
        let Some(described) = described else { continue };
        let branches = &described.signature.branches;
        let names: Vec<&str> = branches.iter().map(|branch| branch.name.as_str()).collect();
        for (name, _) in stage.to.iter().filter(|(name, _)| !names.contains(&name.as_str())) {
            let message = format!(
                "the plugin `{}` of the stage `{}` has no branch `{name}`",
                described.info.name, stage.name
            );
            let help = suggest(name, names.iter().copied(), "its branches");
            problems.push(
                Problem::new(name.span.clone(), message)
                    .label("unknown branch")
                    .help(help),
            );
        }
        for (index, branch) in branches.iter().enumerate() {
            let this = From::Branch {
                stage: at,
                branch: Some(index),
            };
            let reader = wiring.wires.iter().flatten().find(|wire| wire.from == this);
            let mapped = stage.to.iter().find(|(name, _)| name.value == branch.name);
            let misnamed = stage
                .to
                .iter()
                .any(|(name, _)| nearest(name, names.iter().copied()) == Some(&branch.name));
            match (mapped, reader) {
                (None, None) if wiring.complete && !stage.doubtful && !misnamed => {
                    let message = format!(
                        "the branch `{}` of the stage `{}` goes nowhere",
                        branch.name, stage.name
                    );
                    let key = toml_key(&branch.name);
                    let help = format!(
                        "under [stage.{}.to] add `{key} = \"topic\"`, or `{key} = false` to drop its records, or let a stage read \"{}.{}\"",
                        stage.name, stage.name, branch.name
                    );
                    problems.push(
                        Problem::new(stage.name.span.clone(), message)
                            .label(format!("`{}` is not mapped", branch.name))
                            .help(help),
                    );
                }
                (
                    Some((
                        _,
                        Spanned {
                            value: Destination::Dropped,
                            span,
                        },
                    )),
                    Some(wire),
                ) => {
                    let message = format!(
                        "the branch `{}` of the stage `{}` is dropped, and read",
                        branch.name, stage.name
                    );
                    let problem = Problem::new(span.clone(), message)
                        .label("dropped here")
                        .also(wire.reference.span.clone(), "read here");
                    problems.push(problem.help("remove the `false`: a branch that a stage reads needs no topic"));
                }
                _ => {}
            }
        }
    }
}

/// A name as a key of TOML.
fn toml_key(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if bare { name.into() } else { format!("{name:?}") }
}
