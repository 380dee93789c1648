//! Draws an explanation: a tree for each source, with stages and branches below it.

use std::collections::VecDeque;
use std::time::Duration;

use super::explain::{
    ExplainedBranch, ExplainedEntry, ExplainedSource, ExplainedStage, ExplainedTopic, ExplainedWindow, Explanation,
};
use super::quantity::{show_duration, show_duration_ms, show_size};
use crate::limits::FUTURE_TIME_MAX;
use crate::schema::{Field, MappedField, Place, PluginKind, ValueBase};

impl Explanation {
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
        for source in self.sources.iter().filter(|source| source.internal.is_none()) {
            drawing.source(source);
            while let Some(stage) = drawing.later.pop_front() {
                drawing.text.push('\n');
                drawing.stage(stage, "", "", "", 0);
            }
        }
        drawing.text
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
    /// A topic of the pipeline's own, by its name.
    Internal(&'e str),
    Stage(&'e ExplainedEntry),
    Branch(usize),
    Dropped,
    DeadLetters,
}

impl<'e> Drawing<'e> {
    fn head(&mut self) {
        let explanation = self.explanation;
        let name = self.strong(&explanation.name);
        let interval = show_duration(Duration::from_millis(explanation.commit.interval_ms));
        let brokers = explanation.brokers.as_ref();
        let brokers = brokers.map_or(String::new(), |brokers| format!(" at {brokers}"));
        self.line(&format!(
            "{name} · engine {}{brokers} · consumer group {}",
            explanation.engine, explanation.group
        ));
        self.line(&format!(
            "commits {}, every {interval} or when {} wait",
            explanation.commit.guarantee,
            show_size(explanation.commit.bytes_max as u64)
        ));
        if let Some(state) = &explanation.state {
            let memory = show_size(state.memory_bytes_max as u64);
            let quota = state.quota_bytes_max.map_or("no quota".into(), |quota| {
                format!("at most {} in all", show_size(quota))
            });
            self.line(&format!("state takes at most {memory} of memory · {quota}"));
        }
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
        if source.future_max_ms != FUTURE_TIME_MAX.as_millis() as u64 {
            let future = show_duration(Duration::from_millis(source.future_max_ms));
            self.line(&format!("│  future      at most {future} ahead"));
        }
        if let Some(idle) = source.idle_ms {
            let idle = show_duration(Duration::from_millis(idle));
            self.line(&format!(
                "│  idle        after {idle}, then stream time moves with the clock"
            ));
        }
        let stages = source.stages.iter().map(Child::Stage);
        let internal = self.explanation.sources.iter().filter(|other| {
            let internal = other.internal.as_ref();
            internal.is_some_and(|internal| internal.from.contains(&source.name))
        });
        let internal = internal.map(|other| Child::Internal(&other.topic.topic));
        self.children(stages.chain(internal).collect(), None, "", 0);
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
        let time = show_duration(Duration::from_millis(limits.call_time_max_ms));
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
        self.state(stage, rest, bar);
        self.children(
            (0..stage.to.len()).map(Child::Branch).collect(),
            Some(stage),
            rest,
            depth,
        );
    }

    /// What a stage keeps, by which key and in which windows.
    fn state(&mut self, stage: &ExplainedStage, rest: &str, bar: &str) {
        let mut detail = |label: &str, text: &str| self.line(&format!("{rest}{bar}{label:<8} {text}"));
        let aggregates = stage.kind == PluginKind::Aggregator;
        match &stage.key {
            Some(key) => detail("key", &show_pointer(key)),
            None if aggregates => detail("key", "the record's key, in each partition"),
            None => {}
        }
        if let Some(window) = &stage.window {
            detail("window", &show_window(window));
        }
        if let Some(emit) = stage.emit {
            detail("emits", emit_words(emit));
        }
        let mut changelogs = stage.changelogs.iter();
        if let Some(topic) = changelogs.next().filter(|_| aggregates) {
            let kept = stage
                .accumulator
                .as_ref()
                .map_or(String::new(), |fields| format!("{} · ", show_fields(fields)));
            let topic = self.paint("36", topic);
            self.line(&format!("{rest}{bar}{:<8} {kept}topic {topic}", "keeps"));
        }
        for (store, topic) in stage.signature.stores.iter().zip(&stage.changelogs) {
            let value = if store.value.is_empty() {
                "nothing".into()
            } else {
                show_fields(&store.value)
            };
            let ordered = if store.ordered { " · ordered" } else { "" };
            let lives = match store.time_to_live_ms {
                0 => String::new(),
                ms => format!(" · gone after {}", show_duration(Duration::from_millis(ms))),
            };
            let (name, key, topic) = (&store.name, show_fields(&store.key), self.paint("36", topic));
            self.line(&format!(
                "{rest}{bar}{:<8} {name}: {key} → {value}{ordered}{lives} · topic {topic}",
                "store"
            ));
        }
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
                Child::Internal(topic) => self.internal(topic, &first, &rest, depth),
                Child::Dropped => self.line(&format!("{first}dropped")),
                Child::DeadLetters => self.line(&format!("{first}dead letters")),
                Child::Stage(entry) => self.entry(entry, &first, &rest, depth),
                Child::Branch(branch) => {
                    let Some(stage) = of else { continue };
                    self.branch(stage, branch, &first, &rest, depth);
                }
            }
        }
    }

    fn branch(&mut self, stage: &'e ExplainedStage, at: usize, first: &str, rest: &str, depth: usize) {
        let to = &stage.to[at];
        let name = self.strong(&to.branch);
        let Some(branch) = stage.signature.branches.get(at) else {
            let why = if to.branch == "late" {
                "too late for its windows, or too far ahead"
            } else {
                "without a key"
            };
            self.line(&format!("{first}{name}: the record as it came in, {why}"));
            return self.way(to, rest, depth);
        };
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
        self.way(to, rest, depth);
    }

    fn way(&mut self, to: &'e ExplainedBranch, rest: &str, depth: usize) {
        let mut children: Vec<Child<'e>> = to.topic.iter().map(Child::Topic).collect();
        children.extend(to.stages.iter().map(Child::Stage));
        children.extend(to.internal.iter().map(|topic| Child::Internal(topic)));
        if children.is_empty() {
            children.push(if to.dead_letters {
                Child::DeadLetters
            } else {
                Child::Dropped
            });
        }
        self.children(children, None, rest, depth);
    }

    /// A topic of the pipeline's own, and behind it the stage that reads it.
    fn internal(&mut self, topic: &'e str, first: &str, rest: &str, depth: usize) {
        let Some(source) = self
            .explanation
            .sources
            .iter()
            .find(|source| source.topic.topic == topic)
        else {
            return;
        };
        let Some(internal) = &source.internal else { return };
        let topic = self.topic(&source.topic);
        let key = show_pointer(&internal.key);
        self.line(&format!("{first}{topic} · internal, by {key}"));
        self.children(source.stages.iter().map(Child::Stage).collect(), None, rest, depth);
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

fn show_fields(fields: &[Field]) -> String {
    let shown = fields.iter().map(|field| {
        let optional = if field.optional { "?" } else { "" };
        format!("{}: {}{optional}", field.name, field.field_type)
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn show_pointer(pointer: &str) -> String {
    match pointer {
        "" => "the whole value".into(),
        pointer => format!("{pointer} of the value"),
    }
}

fn show_window(window: &ExplainedWindow) -> String {
    let shown = show_duration_ms;
    let size = shown(window.size_ms);
    let kind = if window.advance_ms == window.size_ms {
        format!("tumbling, {size}")
    } else {
        format!("hopping, {size} every {}", shown(window.advance_ms))
    };
    let offset = match window.offset_ms {
        0 => String::new(),
        offset => format!(" · {} after the epoch", shown(offset)),
    };
    let grace = match window.grace_ms {
        0 => "no grace".into(),
        grace => format!("grace {}", shown(grace)),
    };
    format!("{kind}{offset} · {grace}")
}

fn emit_words(emit: &str) -> &'static str {
    match emit {
        "close" => "once for each window, when it closes",
        "every-update" => "for each record",
        _ => "for each group that changed, once a commit",
    }
}
