//! How far the stages of a pipeline have come in event time, as it is noted beside the offsets that their group commits.

use std::collections::BTreeMap;

use crate::window::{StreamTime, Window};

/// How far a stage has come in event time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Stream time.
    pub now: StreamTime,
    /// Where results are sent when windows close: how far that has been done.
    pub closed: Option<Closed>,
}

/// How far windows have been closed, where that is less far than stream time allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Windows that start before this have been closed.
    pub before_ms: i64,
    /// Of the window that starts there those groups, by their keys, up to this one.
    pub after: Option<Vec<u8>>,
}

/// A key of a group that can be noted beside an offset.
const NOTED_KEY_BYTES_MAX: usize = 256;

/// Room that the notes of one task's stages take at most, by the stages' names. In the middle of a window is one of them
/// at most: the next is closed when it is through.
pub(crate) fn notes_bytes_max<'s>(stages: impl Iterator<Item = &'s str>) -> usize {
    /// Quotes, signs, and two times.
    const PROGRESS_BYTES: usize = 52;
    let stages: usize = stages.map(|name| name.len() + PROGRESS_BYTES).sum();
    stages + 2 * NOTED_KEY_BYTES_MAX
}

/// The first window of which something counts.
pub(crate) fn first_open(window: Option<Window>, progress: &Progress) -> i64 {
    let Some(window) = window else { return i64::MIN };
    let open = window.first_open(progress.now);
    progress
        .closed
        .as_ref()
        .map_or(open, |closed| closed.before_ms.min(open))
}

impl Closed {
    /// Whether it can be noted as it is: groups with long keys are closed with those behind them.
    pub fn can_be_noted(&self) -> bool {
        self.after
            .as_ref()
            .is_none_or(|after| after.len() <= NOTED_KEY_BYTES_MAX)
    }
}

/// How far the stages of a task have come, as text beside the offsets that its group commits: for each stage its stream
/// time, and where windows are half closed the start of the first and the last key that is.
#[derive(Debug, Default)]
pub(crate) struct Notes(BTreeMap<String, Progress>);

impl Notes {
    /// Takes over what stands beside one offset: the furthest counts, as time never goes back.
    pub fn read(&mut self, metadata: &str) {
        let Ok(serde_json::Value::Object(stages)) = serde_json::from_str(metadata) else {
            return;
        };
        for (stage, value) in stages {
            let Some(progress) = read_progress(&value) else {
                continue;
            };
            let known = self.0.entry(stage).or_default();
            if progress.now > known.now || progress.now == known.now && further(&progress, known) {
                *known = progress;
            }
        }
    }

    /// Of one stage, by its name.
    pub fn progress(&self, stage: &str) -> Progress {
        self.0.get(stage).cloned().unwrap_or_default()
    }

    /// What is to stand beside the next offsets; empty where no stage has a time.
    pub fn write<'s>(stages: impl Iterator<Item = (&'s str, &'s Progress)>) -> String {
        let timed = stages.filter_map(|(stage, progress)| Some((stage.to_owned(), write_progress(progress)?)));
        let notes: serde_json::Map<_, _> = timed.collect();
        if notes.is_empty() {
            String::new()
        } else {
            serde_json::Value::Object(notes).to_string()
        }
    }
}

/// Whether what stands beside an offset says that a stage has kept something.
pub fn has_kept(metadata: &str, stage: &str) -> bool {
    let mut notes = Notes::default();
    notes.read(metadata);
    notes.0.contains_key(stage)
}

/// Of two with the same stream time: whether more is closed in the first.
fn further(a: &Progress, b: &Progress) -> bool {
    let place = |progress: &Progress| {
        let closed = progress.closed.as_ref();
        // Where nothing is said all that can be closed is.
        closed.map_or((i64::MAX, None), |closed| (closed.before_ms, closed.after.clone()))
    };
    place(a) > place(b)
}

fn write_progress(progress: &Progress) -> Option<serde_json::Value> {
    let now = progress.now.get()?;
    Some(match &progress.closed {
        None => serde_json::json!(now),
        Some(closed) => match &closed.after {
            None => serde_json::json!([now, closed.before_ms]),
            Some(after) => {
                let hex: String = after.iter().map(|byte| format!("{byte:02x}")).collect();
                serde_json::json!([now, closed.before_ms, hex])
            }
        },
    })
}

fn read_progress(value: &serde_json::Value) -> Option<Progress> {
    let mut now = StreamTime::default();
    let closed = match value.as_array() {
        None => {
            now.advance(value.as_i64()?);
            None
        }
        Some(parts) => {
            now.advance(parts.first()?.as_i64()?);
            let after = match parts.get(2) {
                None => None,
                Some(hex) => Some(read_hex(hex.as_str()?)?),
            };
            Some(Closed {
                before_ms: parts.get(1)?.as_i64()?,
                after,
            })
        }
    };
    Some(Progress { now, closed })
}

fn read_hex(hex: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(now_ms: i64, closed: Option<(i64, Option<&[u8]>)>) -> Progress {
        let mut now = StreamTime::default();
        now.advance(now_ms);
        let closed = closed.map(|(before_ms, after)| Closed {
            before_ms,
            after: after.map(<[u8]>::to_vec),
        });
        Progress { now, closed }
    }

    #[test]
    fn progress_is_noted_and_read_back() {
        for progress in [
            progress(-5, None),
            progress(i64::MAX, Some((60_000, None))),
            progress(7, Some((0, Some(&[0, 255, 16])))),
        ] {
            let value = write_progress(&progress).expect("it has a time");
            assert_eq!(read_progress(&value), Some(progress));
        }
        assert_eq!(write_progress(&Progress::default()), None);
    }

    #[test]
    fn of_several_notes_the_furthest_counts() {
        let mut notes = Notes::default();
        for metadata in [
            r#"{"a":5}"#,
            "",
            "no json",
            r#"{"a":[9,1,"00"]}"#,
            r#"{"a":[9,1]}"#,
            r#"{"a":3,"b":"x"}"#,
        ] {
            notes.read(metadata);
        }
        assert_eq!(notes.progress("a"), progress(9, Some((1, Some(&[0])))));
        assert_eq!(notes.progress("b"), Progress::default());
    }
}
