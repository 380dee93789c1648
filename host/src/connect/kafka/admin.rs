//! Questions of operators to brokers, for which rdkafka has few words and librdkafka all: each is asked, waited for and
//! answered here, in our own types.
#![allow(unsafe_code)]

mod groups;
mod records;
mod topics;

pub(super) use groups::{GroupMember, GroupState};
pub(super) use topics::NewTopic;

use super::context::Quiet;
use super::places::{self, Place, PlaceList};
use crate::connect::{LogError, TopicPartition};
use rdkafka::bindings as c;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::ffi::c_char;
use std::ptr;
use std::slice;
use std::time::{Duration, Instant};

/// An answer of a broker.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How often it is heard meanwhile what librdkafka says of its connections.
const HEAR_INTERVAL: Duration = Duration::from_millis(100);

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: RDKafkaErrorCode,
    /// What the broker says beside it; empty for nothing.
    pub said: String,
}

impl Refusal {
    fn of(code: RDKafkaErrorCode) -> Refusal {
        Refusal {
            code,
            said: String::new(),
        }
    }

    /// # Safety
    /// An error of librdkafka that lives, or null.
    unsafe fn read(error: *const c::rd_kafka_error_t) -> Option<Refusal> {
        if error.is_null() {
            return None;
        }
        // SAFETY: see above.
        unsafe {
            let code = places::code(c::rd_kafka_error_code(error))?;
            let said = places::text(c::rd_kafka_error_string(error));
            Some(Refusal { code, said })
        }
    }
}

/// Who asks: any client.
#[derive(Clone, Copy)]
pub(super) struct Admin<'c>(pub &'c BaseConsumer<Quiet>);

/// What beside the question is said to the broker.
struct Options(*mut c::rd_kafka_AdminOptions_t);

impl Options {
    fn new(client: *mut c::rd_kafka_t, operation: c::rd_kafka_admin_op_t) -> Options {
        let mut text = [0 as c_char; 128];
        // SAFETY: the client lives; given back once, by `drop`; texts have their lengths.
        unsafe {
            let options = c::rd_kafka_AdminOptions_new(client, operation);
            let wait_ms = ANSWER_TIME_MAX.as_millis() as i32;
            c::rd_kafka_AdminOptions_set_request_timeout(options, wait_ms, text.as_mut_ptr(), text.len());
            // For those that it is nothing to this is refused, and not needed.
            c::rd_kafka_AdminOptions_set_operation_timeout(options, wait_ms / 2, text.as_mut_ptr(), text.len());
            Options(options)
        }
    }

    fn read_committed(self) -> Options {
        let level = c::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED;
        // SAFETY: the options live.
        discard(unsafe { c::rd_kafka_AdminOptions_set_isolation_level(self.0, level) });
        self
    }

    fn stable_offsets(self) -> Options {
        // SAFETY: the options live.
        discard(unsafe { c::rd_kafka_AdminOptions_set_require_stable_offsets(self.0, 1) });
        self
    }

    fn with_rights(self) -> Options {
        // SAFETY: the options live.
        discard(unsafe { c::rd_kafka_AdminOptions_set_include_authorized_operations(self.0, 1) });
        self
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `new`.
        unsafe { c::rd_kafka_AdminOptions_destroy(self.0) }
    }
}

/// An option that is not taken leaves the default.
fn discard(error: *mut c::rd_kafka_error_t) {
    if !error.is_null() {
        // SAFETY: it is ours.
        unsafe { c::rd_kafka_error_destroy(error) }
    }
}

/// An answer that is ours, with the event that holds it.
struct Answer(*mut c::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: librdkafka gave it to us.
        unsafe { c::rd_kafka_event_destroy(self.0) }
    }
}

/// A queue that is ours.
struct Queue(*mut c::rd_kafka_queue_t);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it was made for one question.
        unsafe { c::rd_kafka_queue_destroy(self.0) }
    }
}

impl Admin<'_> {
    fn client(self) -> *mut c::rd_kafka_t {
        self.0.client().native_ptr()
    }

    /// Sends a question, and waits for the answer.
    fn ask(self, send: impl FnOnce(*mut c::rd_kafka_t, *mut c::rd_kafka_queue_t)) -> Result<Answer, Refusal> {
        // SAFETY: the client lives.
        let queue = Queue(unsafe { c::rd_kafka_queue_new(self.client()) });
        send(self.client(), queue.0);
        // librdkafka answers when the time is over at the latest; a little later nothing comes any more.
        let end = Instant::now() + ANSWER_TIME_MAX + Duration::from_secs(2);
        loop {
            // SAFETY: the queue lives, and what it gives is ours.
            let event = unsafe { c::rd_kafka_queue_poll(queue.0, HEAR_INTERVAL.as_millis() as i32) };
            self.hear();
            if !event.is_null() {
                let answer = Answer(event);
                // SAFETY: the event lives as long as the answer.
                let refusal = unsafe {
                    places::code(c::rd_kafka_event_error(event)).map(|code| Refusal {
                        code,
                        said: places::text(c::rd_kafka_event_error_string(event)),
                    })
                };
                return refusal.map_or(Ok(answer), Err);
            }
            if Instant::now() >= end {
                return Err(Refusal::of(RDKafkaErrorCode::OperationTimedOut));
            }
        }
    }

    /// What librdkafka has to say would otherwise pile up; its context keeps it.
    fn hear(self) {
        while self.0.poll(Duration::ZERO).is_some() {}
    }

    /// Offsets of places in partitions: each with the timestamp that is asked for, or [`EARLIEST`] or [`LATEST`].
    /// With `committed`, those of what is committed.
    pub fn offsets(self, asked: &[(TopicPartition, i64)], committed: bool) -> Result<Vec<Place>, AskError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let list = PlaceList::of(asked.iter().map(|(tp, at)| (tp, *at)))?;
        let operation = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
        let mut options = Options::new(self.client(), operation);
        if committed {
            options = options.read_committed();
        }
        // SAFETY: all of it lives until librdkafka has copied it, within the call.
        let answer = self.ask(|client, queue| unsafe {
            c::rd_kafka_ListOffsets(client, list.as_ptr(), options.0, queue);
        })?;
        // SAFETY: the results live as long as the answer.
        unsafe {
            let result = c::rd_kafka_event_ListOffsets_result(answer.0);
            let infos = listed(|count| c::rd_kafka_ListOffsets_result_infos(result, count));
            let place = |info| places::read_one(&*c::rd_kafka_ListOffsetsResultInfo_topic_partition(info));
            Ok(infos.iter().map(|&info| place(info)).collect())
        }
    }
}

/// The first record that is there.
pub(super) const EARLIEST: i64 = c::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64;
/// Behind the last record that is committed.
pub(super) const LATEST: i64 = c::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64;

/// Why there is no answer, or no question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AskError {
    Refused(Refusal),
    /// It cannot even be asked.
    Log(LogError),
}

impl From<Refusal> for AskError {
    fn from(refusal: Refusal) -> Self {
        AskError::Refused(refusal)
    }
}

impl From<LogError> for AskError {
    fn from(error: LogError) -> Self {
        AskError::Log(error)
    }
}

impl From<RDKafkaErrorCode> for AskError {
    fn from(code: RDKafkaErrorCode) -> Self {
        AskError::Refused(Refusal::of(code))
    }
}

/// # Safety
/// `ask` gives as many pointers as it says.
unsafe fn listed<'l, T>(ask: impl FnOnce(*mut usize) -> *mut *const T) -> &'l [*const T] {
    let mut count = 0;
    let first = ask(ptr::from_mut(&mut count));
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: see above.
    unsafe { slice::from_raw_parts(first, count) }
}

/// The code of a result of one topic.
fn result_code(error: RDKafkaRespErr) -> Result<(), RDKafkaErrorCode> {
    places::code(error).map_or(Ok(()), Err)
}
