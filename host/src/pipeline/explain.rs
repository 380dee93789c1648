//! Draws a pipeline: topics, stages and branches with their types, for people and for machines.

use std::collections::VecDeque;

use serde::Serialize;

use super::plan::{Origin, Plan, PlannedBranch, PlannedSink, PlannedSource, PlannedStage};
use super::quantity::{show_duration, show_size};
use crate::schema::{MappedField, Place, PluginKind, Signature, ValueBase};

/// The plan as a drawing in plain text; colours are [`Explanation::draw`]'s.
pub fn explain(plan: &Plan) -> String {
    Explanation::new(plan).draw(false)
}

/// What there is to say of a pipeline, with names instead of indices. Its serialised form is what `-o json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    name: String,
    engine: &'static str,
    group: String,
    commit: ExplainedCommit,
    dlq: ExplainedTopic,
    sources: Vec<ExplainedSource>,
    stages: Vec<ExplainedStage>,
    /// Sources that are read by the same tasks.
    subtopologies: Vec<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ExplainedCommit {
    interval_ms: u64,
    bytes_max: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ExplainedTopic {
    topic: String,
    format: String,
    key_format: String,
    /// `None`: as many as the source has.
    partitions: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ExplainedSource {
    name: String,
    #[serde(flatten)]
    topic: ExplainedTopic,
    /// `None`: the record's key.
    key: Option<String>,
    /// `None`: the record's timestamp.
    event_time: Option<String>,
    /// The stages that it feeds.
    stages: Vec<ExplainedEntry>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ExplainedEntry {
    stage: String,
    /// The name of the input, where the plugin has several.
    input: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ExplainedStage {
    name: String,
    plugin: String,
    version: String,
    kind: PluginKind,
    summary: String,
    file: String,
    digest: String,
    /// As it was written: variables are not replaced.
    config: serde_json::Value,
    limits: ExplainedLimits,
    #[serde(flatten)]
    signature: Signature,
    /// Where each branch of the signature goes.
    to: Vec<ExplainedBranch>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ExplainedLimits {
    memory_bytes_max: usize,
    call_time_max_ms: u64,
    output_bytes_max: u64,
    output_rows_per_row_max: u64,
    log_lines_per_second_max: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ExplainedBranch {
    branch: String,
    topic: Option<ExplainedTopic>,
    stages: Vec<ExplainedEntry>,
}

impl Explanation {
    /// Describes a plan.
    pub fn new(plan: &Plan) -> Explanation {
        let entry = |stage: usize, input: u32| {
            let stage = &plan.stages[stage];
            let several = stage.signature.inputs.len() > 1;
            let input = stage.signature.inputs.get(input as usize).filter(|_| several);
            ExplainedEntry {
                stage: stage.name.clone(),
                input: input.map(|input| input.name.clone()),
            }
        };
        let sources = plan.sources.iter().enumerate().map(|(at, source)| {
            let feeds = plan
                .stages
                .iter()
                .enumerate()
                .flat_map(|(stage, planned)| planned.feeds.iter().map(move |feed| (stage, feed)));
            let fed = feeds
                .filter(|(_, feed)| feed.from == Origin::Source(at))
                .map(|(stage, feed)| entry(stage, feed.input));
            ExplainedSource::new(source, fed.collect())
        });
        let stages = plan.stages.iter().map(|stage| {
            let to = stage
                .signature
                .branches
                .iter()
                .zip(&stage.branches)
                .map(|(branch, planned)| ExplainedBranch {
                    branch: branch.name.clone(),
                    topic: planned.topic.as_ref().map(ExplainedTopic::new),
                    stages: entries(planned, &entry),
                });
            ExplainedStage::new(stage, to.collect())
        });
        let name = |&source: &usize| plan.sources[source].name.clone();
        Explanation {
            name: plan.name.clone(),
            engine: plan.engine.name(),
            group: plan.group.clone(),
            commit: ExplainedCommit {
                interval_ms: plan.commit_interval.as_millis() as u64,
                bytes_max: plan.commit_bytes_max,
            },
            dlq: ExplainedTopic::new(&plan.dlq),
            sources: sources.collect(),
            stages: stages.collect(),
            subtopologies: plan
                .subtopologies
                .iter()
                .map(|together| together.iter().map(name).collect())
                .collect(),
        }
    }

    /// As text for a terminal: a tree for each source. A stage that several feed is drawn where it is fed first.
    pub fn draw(&self, colour: bool) -> String {
        let mut drawing = Drawing {
            explanation: self,
            colour,
            text: String::new(),
            drawn: Vec::new(),
            later: VecDeque::new(),
        };
        drawing.head();
        for source in &self.sources {
            drawing.source(source);
            while let Some(stage) = drawing.later.pop_front() {
                drawing.text.push('\n');
                drawing.stage(stage, "", "", "", 0);
            }
        }
        drawing.text
    }
}

fn entries(branch: &PlannedBranch, entry: impl Fn(usize, u32) -> ExplainedEntry) -> Vec<ExplainedEntry> {
    branch.stages.iter().map(|to| entry(to.stage, to.input)).collect()
}

impl ExplainedTopic {
    fn new(sink: &PlannedSink) -> ExplainedTopic {
        ExplainedTopic {
            topic: sink.topic.clone(),
            format: sink.value_format.to_string(),
            key_format: sink.key_format.to_string(),
            partitions: sink.partitions,
        }
    }
}

impl ExplainedSource {
    fn new(source: &PlannedSource, stages: Vec<ExplainedEntry>) -> ExplainedSource {
        ExplainedSource {
            name: source.name.clone(),
            topic: ExplainedTopic {
                topic: source.topic.clone(),
                format: source.format.to_string(),
                key_format: source.key_format.to_string(),
                partitions: Some(source.partitions),
            },
            key: source.key_from.clone(),
            event_time: source.time_from.clone(),
            stages,
        }
    }
}

impl ExplainedStage {
    fn new(stage: &PlannedStage, to: Vec<ExplainedBranch>) -> ExplainedStage {
        ExplainedStage {
            name: stage.name.clone(),
            plugin: stage.info.name.clone(),
            version: stage.info.version.clone(),
            kind: stage.kind,
            summary: stage.info.summary.clone(),
            file: stage.plugin.display().to_string(),
            digest: stage.digest.clone(),
            config: serde_json::from_str(stage.config.shown()).unwrap_or_default(),
            limits: ExplainedLimits {
                memory_bytes_max: stage.limits.memory_bytes_max,
                call_time_max_ms: stage.limits.call_time_max.as_millis() as u64,
                output_bytes_max: stage.limits.output_bytes_max,
                output_rows_per_row_max: stage.limits.output_rows_per_row_max,
                log_lines_per_second_max: stage.limits.log_lines_per_second_max,
            },
            signature: stage.signature.clone(),
            to,
        }
    }
}

/// Deeper than this a stage gets a tree of its own.
const DEPTH_MAX: usize = 8;

struct Drawing<'e> {
    explanation: &'e Explanation,
    colour: bool,
    text: String,
    /// Stages that are drawn, or will be.
    drawn: Vec<&'e str>,
    later: VecDeque<&'e ExplainedStage>,
}

/// What hangs below a node.
enum Child<'e> {
    Topic(&'e ExplainedTopic),
    Stage(&'e ExplainedEntry),
    Branch(usize),
    Dropped,
}

impl<'e> Drawing<'e> {
    fn head(&mut self) {
        let explanation = self.explanation;
        let name = self.strong(&explanation.name);
        let interval = show_duration(std::time::Duration::from_millis(explanation.commit.interval_ms));
        self.line(&format!(
            "{name} · engine {} · consumer group {}",
            explanation.engine, explanation.group
        ));
        self.line(&format!(
            "commits every {interval}, or when {} wait",
            show_size(explanation.commit.bytes_max as u64)
        ));
        let dlq = self.topic(&explanation.dlq);
        self.line(&format!("dead letters go to {dlq}"));
    }

    fn source(&mut self, source: &'e ExplainedSource) {
        self.line("");
        let (name, topic) = (self.strong(&source.name), self.topic(&source.topic));
        self.line(&format!("{name} · reads {topic}"));
        let key = source
            .key
            .as_ref()
            .map_or("the record's key".into(), |pointer| format!("{pointer} of the value"));
        self.line(&format!("│  key         {key}, {}", source.topic.key_format));
        let time = source
            .event_time
            .as_ref()
            .map_or("the record's timestamp".into(), |pointer| {
                format!("{pointer} of the value")
            });
        self.line(&format!("│  event time  {time}"));
        self.children(source.stages.iter().map(Child::Stage).collect(), None, "", 0);
    }

    fn stage(&mut self, stage: &'e ExplainedStage, input: &str, first: &str, rest: &str, depth: usize) {
        let name = self.strong(&stage.name);
        let digest = stage.digest.get(..12).unwrap_or(&stage.digest);
        self.line(&format!(
            "{first}{name}{input} · {} {} · {} · sha256 {digest}",
            stage.plugin, stage.version, stage.kind
        ));
        let bar = if stage.to.is_empty() { "   " } else { "│  " };
        let mut detail = |label: &str, text: &str| self.line(&format!("{rest}{bar}{label:<8} {text}"));
        detail("file", &stage.file);
        if stage.config.as_object().is_some_and(|config| !config.is_empty()) {
            detail("config", &stage.config.to_string());
        }
        let limits = &stage.limits;
        let time = show_duration(std::time::Duration::from_millis(limits.call_time_max_ms));
        let (memory, output) = (
            show_size(limits.memory_bytes_max as u64),
            show_size(limits.output_bytes_max),
        );
        let rows = limits.output_rows_per_row_max;
        let lines = limits.log_lines_per_second_max;
        detail(
            "limits",
            &format!(
                "{memory} memory · {time} a call · {output} and {rows} rows a row out · {lines} log lines a second"
            ),
        );
        for input in &stage.signature.inputs {
            let named = if stage.signature.inputs.len() > 1 {
                format!("{}: ", input.name)
            } else {
                String::new()
            };
            let fields = input
                .fields
                .iter()
                .map(|field| show_field(field, '←'))
                .collect::<Vec<_>>()
                .join(", ");
            let fields = if fields.is_empty() { "no fields".into() } else { fields };
            detail("reads", &format!("{named}{fields}"));
        }
        self.children(
            (0..stage.to.len()).map(Child::Branch).collect(),
            Some(stage),
            rest,
            depth,
        );
    }

    fn children(&mut self, children: Vec<Child<'e>>, of: Option<&'e ExplainedStage>, indent: &str, depth: usize) {
        let count = children.len();
        for (at, child) in children.into_iter().enumerate() {
            let last = at + 1 == count;
            let first = format!("{indent}{}", if last { "╰─▶ " } else { "├─▶ " });
            let rest = format!("{indent}{}", if last { "    " } else { "│   " });
            match child {
                Child::Topic(topic) => {
                    let topic = self.topic(topic);
                    self.line(&format!("{first}{topic}"));
                }
                Child::Dropped => self.line(&format!("{first}dropped")),
                Child::Stage(entry) => self.entry(entry, &first, &rest, depth),
                Child::Branch(branch) => {
                    let Some(stage) = of else { continue };
                    self.branch(stage, branch, &first, &rest, depth);
                }
            }
        }
    }

    fn branch(&mut self, stage: &'e ExplainedStage, at: usize, first: &str, rest: &str, depth: usize) {
        let (branch, to) = (&stage.signature.branches[at], &stage.to[at]);
        let name = self.strong(&branch.name);
        let fields = branch
            .fields
            .iter()
            .map(|field| show_field(field, '→'))
            .collect::<Vec<_>>()
            .join(", ");
        let what = match (branch.value, fields.is_empty()) {
            (ValueBase::Same, true) => "the record as it is".into(),
            (ValueBase::Same, false) => format!("the record with {fields}"),
            (ValueBase::New, true) => "a null value".into(),
            (ValueBase::New, false) => format!("a new value of {fields}"),
        };
        self.line(&format!("{first}{name}: {what}"));
        let mut children: Vec<Child<'e>> = to.topic.iter().map(Child::Topic).collect();
        children.extend(to.stages.iter().map(Child::Stage));
        if children.is_empty() {
            children.push(Child::Dropped);
        }
        self.children(children, None, rest, depth);
    }

    fn entry(&mut self, entry: &'e ExplainedEntry, first: &str, rest: &str, depth: usize) {
        let input = entry
            .input
            .as_ref()
            .map(|input| format!(" (input {input})"))
            .unwrap_or_default();
        let Some(stage) = self.explanation.stages.iter().find(|stage| stage.name == entry.stage) else {
            return;
        };
        let known = self.drawn.contains(&stage.name.as_str());
        if !known {
            self.drawn.push(&stage.name);
        }
        if known || depth >= DEPTH_MAX {
            let name = self.strong(&stage.name);
            let place = if known { "drawn above" } else { "drawn below" };
            self.line(&format!("{first}{name}{input}, {place}"));
            if !known {
                self.later.push_back(stage);
            }
            return;
        }
        self.stage(stage, &input, first, rest, depth + 1);
    }

    fn topic(&self, topic: &ExplainedTopic) -> String {
        let partitions = match topic.partitions {
            Some(1) => "1 partition".into(),
            Some(partitions) => format!("{partitions} partitions"),
            None => "partitions as its source".into(),
        };
        format!(
            "topic {} · {} · {partitions}",
            self.paint("36", &topic.topic),
            topic.format
        )
    }

    fn strong(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.into()
        }
    }

    /// One line; control characters in what plugins say of themselves are shown, not sent to the terminal.
    fn line(&mut self, text: &str) {
        let ours = |rest: &str| {
            self.colour
                && ["\u{1b}[1m", "\u{1b}[36m", "\u{1b}[0m"]
                    .iter()
                    .any(|code| rest.starts_with(code))
        };
        let text = text.trim_end();
        for (at, c) in text.char_indices() {
            if !c.is_control() || ours(&text[at..]) {
                self.text.push(c);
            } else {
                self.text.extend(c.escape_default());
            }
        }
        self.text.push('\n');
    }
}

fn show_field(mapped: &MappedField, arrow: char) -> String {
    let place = match &mapped.place {
        Place::Value(pointer) if pointer.is_empty() => "whole value".into(),
        Place::Value(pointer) => pointer.clone(),
        Place::Key(pointer) if pointer.is_empty() => "key".into(),
        Place::Key(pointer) => format!("key {pointer}"),
        Place::Header(name) => format!("header {name}"),
        other => other.to_string(),
    };
    let optional = if mapped.field.optional { "?" } else { "" };
    format!(
        "{}: {}{optional} {arrow} {place}",
        mapped.field.name, mapped.field.field_type
    )
}
