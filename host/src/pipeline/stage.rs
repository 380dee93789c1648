//! From the table of a stage to a stage: what it reads, by which key and in which windows, and where it leads.

use super::declare::{Destination, Sink, Stage, StageInput};
use super::draft::{Drafter, pointer, texts};
use super::problem::Problem;
use super::quantity::show_duration_ms;
use super::walk::{Fields, Value};
use super::{Span, Spanned};
use crate::limits::{StageLimits, WINDOWS_OF_RECORD_MAX};
use crate::window::{Emit, Window};

impl Drafter<'_> {
    pub fn stage(&mut self, name: Spanned<String>, value: Spanned<Value>) -> Option<Stage> {
        let Value::Section(mut fields) = value.value else {
            return None;
        };
        self.name("stage", &name)?;
        let mut to = Vec::new();
        let mut sound = true;
        for (branch, value) in fields.named("to").map(|to| to.value.entries).unwrap_or_default() {
            match self.destination(value) {
                Some(destination) => to.push((branch, destination)),
                None => sound = false,
            }
        }
        let config = fields.take("config").and_then(|config| match config.value {
            Value::Free(value) => Some(Spanned::new(value, config.span)),
            _ => None,
        });
        let mut limits = StageLimits::default();
        if let Some(mut fields) = fields.section("limits") {
            let fields = &mut fields.value;
            limits.memory_bytes_max = fields
                .size("memory")
                .map_or(limits.memory_bytes_max, |bytes| bytes as usize);
            limits.call_time_max = fields.duration("time").unwrap_or(limits.call_time_max);
            limits.output_bytes_max = fields.size("output").unwrap_or(limits.output_bytes_max);
            limits.output_rows_per_row_max = fields.count("rows").unwrap_or(limits.output_rows_per_row_max);
            limits.log_lines_per_second_max = fields
                .count("log-lines")
                .map_or(limits.log_lines_per_second_max, |lines| lines as u32);
        }
        let grants = fields.take("grant").map(texts).unwrap_or_default();
        let key = fields.text("key").map(|key| key.map(|field| pointer(&field)));
        let partitions = number(&mut fields, "partitions");
        let emit = fields.text("emit").map(|word| word.map(|word| emit(&word)));
        let window = match fields.take("window") {
            Some(window) => {
                let window = self.window(window);
                sound &= window.is_some();
                window
            }
            None => None,
        };
        // What was wrong may be what is missing here.
        if sound && !fields.doubtful {
            self.lonely(&name, &key, &partitions, &window, &emit);
        }
        let plugin = fields.text("plugin");
        let input = fields.take("input").and_then(|input| self.input(input));
        Some(Stage {
            plugin: plugin?.map(|plugin| self.folder.join(plugin)),
            input: input?,
            config,
            key,
            partitions,
            window,
            emit,
            to,
            limits,
            grants,
            doubtful: fields.doubtful || !sound,
            name,
        })
    }

    fn input(&mut self, input: Spanned<Value>) -> Option<Spanned<StageInput>> {
        let span = input.span.clone();
        let read = match input.value {
            Value::Named(named) => StageInput::ByName(
                named
                    .entries
                    .into_iter()
                    .map(|(name, value)| (name, texts(value)))
                    .collect(),
            ),
            _ => StageInput::Only(texts(input)),
        };
        let empty = match &read {
            StageInput::Only(names) => names.is_empty(),
            StageInput::ByName(inputs) => inputs.is_empty() || inputs.iter().any(|(_, names)| names.is_empty()),
        };
        if empty {
            let problem = Problem::new(span, "the stage's `input` names nothing that it could read");
            self.problems
                .push(problem.help("name a source, or a stage's branch as \"stage.branch\""));
            return None;
        }
        Some(Spanned::new(read, span))
    }

    fn destination(&mut self, value: Spanned<Value>) -> Option<Spanned<Destination>> {
        let span = value.span.clone();
        let destination = match value.value {
            Value::False => Destination::Dropped,
            Value::Text(topic) => {
                let topic = self.topic(Spanned::new(topic, span.clone()))?;
                Destination::Topic(Sink {
                    topic,
                    format: None,
                    partitions: None,
                })
            }
            Value::Section(mut fields) => {
                let topic = fields.text("topic");
                let format = match fields.take("format") {
                    Some(format) => Some(self.format(format)?),
                    None => None,
                };
                Destination::Topic(Sink {
                    topic: self.topic(topic?)?,
                    format,
                    partitions: fields.count("partitions").map(|count| count as u32),
                })
            }
            _ => return None,
        };
        Some(Spanned::new(destination, span))
    }

    /// Keys of a stage that say nothing without another one.
    fn lonely(
        &mut self,
        stage: &str,
        key: &Option<Spanned<String>>,
        partitions: &Option<Spanned<u32>>,
        window: &Option<Spanned<Window>>,
        emit: &Option<Spanned<Emit>>,
    ) {
        if let (None, Some(partitions)) = (key, partitions) {
            let message = format!(
                "`partitions` of the stage `{stage}` is for its internal topic, which a stage has only with a `key`"
            );
            let help = "add `key = \"FIELD\"`, or say at the topic of a branch how many partitions it gets";
            self.problems
                .push(Problem::new(partitions.span.clone(), message).help(help));
        }
        if let (None, Some(emit)) = (window, emit)
            && emit.value == Emit::Close
        {
            let message = format!("the stage `{stage}` sends results when windows close, but has no `window`");
            let help = "add `window = \"1m\"`, or leave `emit` out";
            self.problems.push(Problem::new(emit.span.clone(), message).help(help));
        }
    }

    /// A window that makes sense.
    fn window(&mut self, value: Spanned<Value>) -> Option<Spanned<Window>> {
        let span = value.span.clone();
        let window = match value.value {
            Value::Duration(size) => {
                let size_ms = size.as_millis() as i64;
                Window {
                    size_ms,
                    advance_ms: size_ms,
                    offset_ms: 0,
                    grace_ms: 0,
                }
            }
            // What was wrong with one of its keys was said.
            Value::Section(fields) if fields.doubtful => return None,
            Value::Section(fields) => {
                let before = self.problems.len();
                let window = self.window_table(fields, &value.span)?;
                if self.problems.len() > before {
                    return None;
                }
                window
            }
            _ => return None,
        };
        Some(Spanned::new(window, span))
    }

    fn window_table(&mut self, mut fields: Fields, span: &Span) -> Option<Window> {
        let mut refuse = |span: &Span, message: String, help: String| {
            self.problems.push(Problem::new(span.clone(), message).help(help));
            None
        };
        let tumbling = length(&mut fields, "tumbling");
        let hopping = length(&mut fields, "hopping");
        let advance = length(&mut fields, "advance");
        let (size, advance) = match (tumbling, hopping, advance) {
            (Some(_), Some(hopping), _) => {
                let message = "a stage has one window, and this one is tumbling and hopping".into();
                let help = "keep one of the two; for both kinds of results let two stages read the same input".into();
                return refuse(&hopping.span, message, help);
            }
            (None, None, _) => {
                let message = "the window does not say how long it is".into();
                let help = "write `tumbling = \"1m\"`, or `hopping = \"5m\", advance = \"1m\"`".into();
                return refuse(span, message, help);
            }
            (Some(_), None, Some(advance)) => {
                let message = "`advance` is for windows that overlap, and tumbling ones do not".into();
                return refuse(
                    &advance.span,
                    message,
                    "remove it, or write `hopping` for `tumbling`".into(),
                );
            }
            (Some(size), None, None) => (size.clone(), size),
            (None, Some(size), Some(advance)) => (size, advance),
            (None, Some(hopping), None) => {
                let message = "the hopping window needs the key `advance`".into();
                let help = "add `advance = \"1m\"`: from the start of one window to the next".into();
                return refuse(&hopping.span, message, help);
            }
        };
        let (size_ms, advance_ms) = (size.value, advance.value);
        let shown = show_duration_ms;
        if advance_ms > size_ms {
            let (advance_shown, size_shown) = (shown(advance_ms), shown(size_ms));
            let message = format!(
                "`advance` is {advance_shown}, longer than the window, which is {size_shown}: what lies between two windows would be in none"
            );
            refuse(&advance.span, message, format!("write at most \"{size_shown}\""));
        } else if (size_ms - 1) / advance_ms >= WINDOWS_OF_RECORD_MAX {
            let message = format!(
                "each record would lie in {} windows; {WINDOWS_OF_RECORD_MAX} are allowed",
                (size_ms - 1) / advance_ms + 1
            );
            let least = shown((size_ms - 1) / WINDOWS_OF_RECORD_MAX + 1);
            refuse(
                &advance.span,
                message,
                format!("write an `advance` of at least \"{least}\""),
            );
        }
        let offset = length(&mut fields, "offset");
        let offset_ms = offset.as_ref().map_or(0, |offset| offset.value);
        if let Some(offset) = offset.filter(|offset| offset.value >= advance_ms) {
            let message = format!(
                "`offset` is {}, but a window begins every {}",
                shown(offset_ms),
                shown(advance_ms)
            );
            let same = shown(offset_ms % advance_ms);
            refuse(&offset.span, message, format!("\"{same}\" gives the same windows"));
        }
        let grace_ms = length(&mut fields, "grace").map_or(0, |grace| grace.value);
        Some(Window {
            size_ms,
            advance_ms,
            offset_ms,
            grace_ms,
        })
    }
}

/// A duration in milliseconds.
fn length(fields: &mut Fields, name: &str) -> Option<Spanned<i64>> {
    let Spanned { value, span } = fields.take(name)?;
    match value {
        Value::Duration(duration) => Some(Spanned::new(duration.as_millis() as i64, span)),
        _ => None,
    }
}

fn number(fields: &mut Fields, name: &str) -> Option<Spanned<u32>> {
    let Spanned { value, span } = fields.take(name)?;
    match value {
        Value::Count(count) => Some(Spanned::new(count as u32, span)),
        _ => None,
    }
}

/// The word is one of the grammar's.
fn emit(word: &str) -> Emit {
    match word {
        "close" => Emit::Close,
        "every-update" => Emit::EveryUpdate,
        _ => Emit::Update,
    }
}
