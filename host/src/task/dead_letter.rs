//! Records that could not be processed, as they stand in the dead-letter queue.
//!
//! Key and value are the bytes that the stage was given, the timestamp is the record's. The headers are the
//! record's own, and behind them those of [KIP-1034] (`__streams.errors.…`), so that tools made for Kafka Streams
//! show them, and ours (`__millstream.…`) for what those have no place for.
//!
//! [KIP-1034]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-1034%3A+Dead+letter+queue+in+Kafka+Streams

use bumpalo::Bump;

use crate::limits::{HEADERS_BYTES_MAX, HEADERS_MAX};
use crate::record::{Headers, HeadersRef, RecordRef};

/// Why a record could not be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its bytes are not what the plugin's fields, or the source's key or time, need.
    Decode,
    /// The plugin refused the row.
    Refused,
    /// What the plugin emitted for it cannot be written.
    Encode,
    /// The call with this row alone trapped, ran out of time or memory, or broke the contract.
    Call,
    /// It has no key where a stage needs one.
    Unkeyed,
}

impl Reason {
    /// As it stands in the header.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Decode => "decode",
            Reason::Refused => "refused",
            Reason::Encode => "encode",
            Reason::Call => "call",
            Reason::Unkeyed => "unkeyed",
        }
    }
}

/// The names of the headers, for those who read a dead-letter queue.
pub mod header {
    /// [`super::Reason::name`].
    pub const REASON: &str = "__millstream.reason";
    /// The pipeline's name.
    pub const PIPELINE: &str = "__millstream.pipeline";
    /// The stage's name, or that of the source where the record failed before any stage.
    pub const STAGE: &str = "__millstream.stage";
    /// The plugin's name.
    pub const PLUGIN: &str = "__millstream.plugin";
    /// The plugin's version.
    pub const VERSION: &str = "__millstream.plugin.version";
    /// SHA-256 of the plugin's component, in hexadecimal.
    pub const DIGEST: &str = "__millstream.plugin.digest";
    /// What kind of failure it was.
    pub const EXCEPTION: &str = "__streams.errors.exception";
    /// What happened, for people.
    pub const MESSAGE: &str = "__streams.errors.message";
    /// The names of the guest's frames, one a line, innermost first.
    pub const STACKTRACE: &str = "__streams.errors.stacktrace";
    /// The topic that the record was read from.
    pub const TOPIC: &str = "__streams.errors.topic";
    /// Its partition.
    pub const PARTITION: &str = "__streams.errors.partition";
    /// Its offset.
    pub const OFFSET: &str = "__streams.errors.offset";
    /// How many of the record's own headers were left out, where there was no room for them beside ours.
    pub const LEFT_OUT: &str = "__millstream.headers.left-out";
    /// Headers that this module adds at most, and room for them.
    pub(super) const OURS_MAX: usize = 13;
    pub(super) const OURS_BYTES_MAX: usize = 16 << 10;
}

/// What is to be said of a failure beside the record's place.
pub(super) struct Cause<'c> {
    pub reason: Reason,
    pub exception: &'c str,
    pub message: &'c str,
    pub frames: &'c [String],
}

/// Where a record failed.
pub(super) struct FailedAt<'c> {
    pub pipeline: &'c str,
    pub stage: &'c str,
    /// Name, version and digest of the plugin; none for a source.
    pub plugin: Option<(&'c str, &'c str, &'c str)>,
    pub topic: &'c str,
    pub partition: u32,
}

/// The record for the dead-letter queue, its headers written into the arena.
pub(super) fn dead_letter<'a>(
    arena: &'a Bump,
    record: &RecordRef<'a>,
    at: &FailedAt<'_>,
    cause: &Cause<'_>,
) -> RecordRef<'a> {
    let own = record.headers.iter().count();
    let room = own + header::OURS_MAX <= HEADERS_MAX
        && record.headers.encoded().len() + header::OURS_BYTES_MAX <= HEADERS_BYTES_MAX;
    let mut headers: Headers = if room {
        record.headers.iter().collect()
    } else {
        Headers::default()
    };
    if !room {
        headers.push(header::LEFT_OUT, Some(own.to_string().as_bytes()));
    }
    let mut push = |name, value: &str| headers.push(name, Some(value.as_bytes()));
    push(header::EXCEPTION, cause.exception);
    push(header::MESSAGE, cut(cause.message));
    if !cause.frames.is_empty() {
        push(header::STACKTRACE, cut(&cause.frames.join("\n")));
    }
    push(header::TOPIC, at.topic);
    push(header::PARTITION, &at.partition.to_string());
    push(header::OFFSET, &record.offset.to_string());
    push(header::REASON, cause.reason.name());
    push(header::PIPELINE, at.pipeline);
    push(header::STAGE, at.stage);
    if let Some((name, version, digest)) = at.plugin {
        push(header::PLUGIN, name);
        push(header::VERSION, version);
        push(header::DIGEST, digest);
    }
    RecordRef {
        headers: HeadersRef::trusted(arena.alloc_slice_copy(headers.as_ref().encoded())),
        ..*record
    }
}

/// At most a third of the room for our headers, between two characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(header::OURS_BYTES_MAX / 3)]
}
