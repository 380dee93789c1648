//! What commands print and records hold, as JSON.

use std::path::Path;
use std::process::Command;

use millstream::record::Record;
use serde_json::Value;

use crate::{millstream, succeed};

/// A command on a data folder.
pub fn on(data: &Path, args: &[&str]) -> Command {
    let mut command = millstream(args);
    command.arg("--data").arg(data);
    command
}

/// What a command printed, as JSON lines.
///
/// # Panics
/// If a line is none.
pub fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// What a command prints, as one JSON document.
///
/// # Panics
/// If the command fails, or it is none.
pub fn document(command: &mut Command) -> Value {
    let text = succeed(command);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A record's value.
///
/// # Panics
/// If it is null, or no JSON.
pub fn value(record: &Record) -> Value {
    serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON")
}

/// The last value of a header, as text.
pub fn header<'r>(record: &'r Record, name: &str) -> Option<&'r str> {
    record
        .headers
        .as_ref()
        .last(name)
        .flatten()
        .map(|value| std::str::from_utf8(value).expect("a header of UTF-8"))
}
