//! The few calls of librdkafka's C interface that rdkafka has no counterpart of: records in batches, of one partition, and
//! records out with timestamp and headers without a look-up of their topic.
#![allow(unsafe_code)]

use crate::connect::{LentRecord, TopicPartition};
use crate::record::RecordRef;
use rdkafka::ClientContext;
use rdkafka::bindings as c;
use rdkafka::bindings::rd_kafka_vtype_t as RDKafkaVType;
use rdkafka::client::Client;
use rdkafka::config::NativeClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::slice;
use std::sync::Arc;

type Notify = Box<dyn Fn() + Send + Sync>;

/// The records of one partition of a consumer, in a queue of their own.
pub(super) struct PartitionQueue<C: ConsumerContext> {
    queue: *mut c::rd_kafka_queue_t,
    /// Called from librdkafka's threads until the queue is dropped.
    _notify: Box<Notify>,
    /// The queue is a part of it.
    _consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl<C: ConsumerContext> Send for PartitionQueue<C> {}
// SAFETY: as above.
unsafe impl<C: ConsumerContext> Sync for PartitionQueue<C> {}

/// Names and values of a record's headers.
type Headers<'q> = std::vec::IntoIter<(&'q str, Option<&'q [u8]>)>;

/// What lies in the queue of a partition.
pub(super) enum Taken<'q> {
    /// A record.
    Record(LentRecord<'q, Headers<'q>>),
    /// All that there is has been taken, up to this offset.
    End(u64),
    /// The partition cannot be read.
    Failed(RDKafkaErrorCode),
}

/// Messages of one call into librdkafka.
const MESSAGES_MAX: usize = 512;

impl<C: ConsumerContext> PartitionQueue<C> {
    /// Gives the partition's records a queue of their own, until it is unassigned. `notify` hears when there is something
    /// in it that was empty. To be called before the partition is assigned.
    pub fn split(
        consumer: &Arc<BaseConsumer<C>>,
        place: &TopicPartition,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> Option<PartitionQueue<C>> {
        unsafe extern "C" fn heard(_: *mut c::rd_kafka_t, notify: *mut c_void) {
            // SAFETY: the pointer is that of the box below, which lives as long as the queue calls.
            let notify = unsafe { &*notify.cast::<Notify>() };
            notify();
        }
        let topic = CString::new(&*place.topic).ok()?;
        let notify: Box<Notify> = Box::new(Box::new(notify));
        // SAFETY: the client lives, the name is a C string; a queue that is there is ours until it is destroyed.
        unsafe {
            let client = consumer.client().native_ptr();
            let queue = c::rd_kafka_queue_get_partition(client, topic.as_ptr(), place.partition as i32);
            if queue.is_null() {
                return None;
            }
            c::rd_kafka_queue_forward(queue, ptr::null_mut());
            let opaque = ptr::from_ref::<Notify>(&notify).cast_mut().cast();
            c::rd_kafka_queue_cb_event_enable(queue, Some(heard), opaque);
            Some(PartitionQueue {
                queue,
                _notify: notify,
                _consumer: consumer.clone(),
            })
        }
    }

    /// Takes what is there, without waiting, until `visit` returns `false` or there is no more.
    pub fn take(&self, mut visit: impl FnMut(Taken<'_>) -> bool) {
        let mut messages: [*mut c::rd_kafka_message_t; MESSAGES_MAX] = [ptr::null_mut(); MESSAGES_MAX];
        loop {
            // SAFETY: the array has as many places; each message that is given is destroyed below, once.
            let count = unsafe { c::rd_kafka_consume_batch_queue(self.queue, 0, messages.as_mut_ptr(), MESSAGES_MAX) };
            let count = usize::try_from(count).unwrap_or(0);
            let mut more = count == MESSAGES_MAX;
            for &message in &messages[..count] {
                // SAFETY: it is valid until it is destroyed, and what is lent of it goes before.
                unsafe {
                    more &= visit(read(&*message, message));
                    c::rd_kafka_message_destroy(message);
                }
            }
            if !more {
                return;
            }
        }
    }
}

impl<C: ConsumerContext> Drop for PartitionQueue<C> {
    fn drop(&mut self) {
        // SAFETY: the queue is ours; after the first call nobody calls `heard` any more.
        unsafe {
            c::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            c::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// # Safety
/// Both are the same message, and what is returned goes before it.
unsafe fn read<'q>(message: &'q c::rd_kafka_message_t, pointer: *mut c::rd_kafka_message_t) -> Taken<'q> {
    match message.err {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => return Taken::End(message.offset.max(0) as u64),
        failed => {
            // SAFETY: the text belongs to the message.
            let said = unsafe { CStr::from_ptr(c::rd_kafka_message_errstr(pointer)) };
            tracing::debug!(target: "millstream::kafka", "{}", said.to_string_lossy());
            return Taken::Failed(failed.into());
        }
    }
    // SAFETY: librdkafka's pointers and lengths belong together and live as long as the message.
    unsafe {
        let part =
            |at: *mut c_void, length: usize| (!at.is_null()).then(|| slice::from_raw_parts(at.cast::<u8>(), length));
        let mut kind = c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        Taken::Record(LentRecord {
            offset: message.offset.max(0) as u64,
            timestamp_ms: c::rd_kafka_message_timestamp(pointer, &mut kind),
            key: part(message.key, message.key_len),
            value: part(message.payload, message.len),
            headers: headers(pointer).into_iter(),
        })
    }
}

/// # Safety
/// The message lives as long as what is returned.
pub(super) unsafe fn headers<'q>(message: *mut c::rd_kafka_message_t) -> Vec<(&'q str, Option<&'q [u8]>)> {
    let mut found = Vec::new();
    let mut headers = ptr::null_mut();
    // SAFETY: the headers belong to the message; names are C strings, values have their lengths.
    unsafe {
        if c::rd_kafka_message_headers(message, &mut headers) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return found;
        }
        for at in 0.. {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            let outcome = c::rd_kafka_header_get_all(headers, at, &mut name, &mut value, &mut length);
            if outcome != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                break;
            }
            let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), length));
            match CStr::from_ptr(name).to_string_lossy() {
                Cow::Borrowed(name) => found.push((name, value)),
                Cow::Owned(name) => {
                    tracing::warn!(target: "millstream::kafka", name, "a header was left out: its name is not UTF-8");
                }
            }
        }
    }
    found
}

/// The topics that a producer writes, looked up once.
pub(super) struct Topics {
    handles: HashMap<Arc<str>, *mut c::rd_kafka_topic_t>,
}

// SAFETY: librdkafka's topics may be used from any thread.
unsafe impl Send for Topics {}

/// Why a record was not taken.
pub(super) enum Refused {
    /// There is no room: some have to be delivered first.
    Full,
    /// It is not taken so.
    Code(RDKafkaErrorCode),
}

impl Topics {
    pub fn new() -> Topics {
        Topics {
            handles: HashMap::new(),
        }
    }

    /// Hands a record to the producer, which copies it. The delivery report has `opaque`; timestamps before 1970 are
    /// written as its first millisecond, as Kafka has none.
    pub fn produce<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        topic: &Arc<str>,
        partition: u32,
        record: &RecordRef<'_>,
        opaque: usize,
    ) -> Result<(), Refused> {
        let topic = self.handle(client, topic)?;
        let bytes = |part: Option<&[u8]>| c::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
            ptr: part.map_or(ptr::null_mut(), |part| part.as_ptr().cast_mut().cast()),
            size: part.map_or(0, <[u8]>::len),
        };
        type Of = c::rd_kafka_vu_s__bindgen_ty_1;
        let unit = |vtype, u| c::rd_kafka_vu_t { vtype, u };
        let headers = if record.headers.is_empty() {
            ptr::null_mut()
        } else {
            make_headers(record)
        };
        let units = [
            unit(RDKafkaVType::RD_KAFKA_VTYPE_RKT, Of { rkt: topic }),
            unit(RDKafkaVType::RD_KAFKA_VTYPE_PARTITION, Of { i32_: partition as i32 }),
            unit(
                RDKafkaVType::RD_KAFKA_VTYPE_MSGFLAGS,
                Of {
                    i: c::RD_KAFKA_MSG_F_COPY,
                },
            ),
            unit(
                RDKafkaVType::RD_KAFKA_VTYPE_VALUE,
                Of {
                    mem: bytes(record.value),
                },
            ),
            unit(RDKafkaVType::RD_KAFKA_VTYPE_KEY, Of { mem: bytes(record.key) }),
            unit(
                RDKafkaVType::RD_KAFKA_VTYPE_TIMESTAMP,
                Of {
                    i64_: record.timestamp_ms.max(1),
                },
            ),
            unit(
                RDKafkaVType::RD_KAFKA_VTYPE_OPAQUE,
                Of {
                    ptr: ptr::without_provenance_mut(opaque),
                },
            ),
            unit(RDKafkaVType::RD_KAFKA_VTYPE_HEADERS, Of { headers }),
        ];
        let used = if headers.is_null() {
            units.len() - 1
        } else {
            units.len()
        };
        // SAFETY: every unit has what its type says, and what it points to lives until the call is over.
        let error = unsafe { c::rd_kafka_produceva(client.native_ptr(), units.as_ptr(), used) };
        if error.is_null() {
            // The producer has the headers now.
            return Ok(());
        }
        // SAFETY: the error is ours, and so are the headers of a record that was not taken.
        let code = unsafe {
            let code = c::rd_kafka_error_code(error);
            c::rd_kafka_error_destroy(error);
            if !headers.is_null() {
                c::rd_kafka_headers_destroy(headers);
            }
            code
        };
        Err(match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__QUEUE_FULL => Refused::Full,
            code => Refused::Code(code.into()),
        })
    }

    fn handle<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        topic: &Arc<str>,
    ) -> Result<*mut c::rd_kafka_topic_t, Refused> {
        if let Some(handle) = self.handles.get(topic) {
            return Ok(*handle);
        }
        let invalid = Refused::Code(RDKafkaErrorCode::InvalidTopic);
        let Ok(name) = CString::new(&**topic) else {
            return Err(invalid);
        };
        // SAFETY: the client lives, the name is a C string; no configuration is the default one.
        let handle = unsafe { c::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        if handle.is_null() {
            return Err(invalid);
        }
        self.handles.insert(topic.clone(), handle);
        Ok(handle)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        for handle in self.handles.values() {
            // SAFETY: each was made above and is given back once.
            unsafe { c::rd_kafka_topic_destroy(*handle) };
        }
    }
}

fn make_headers(record: &RecordRef<'_>) -> *mut c::rd_kafka_headers_t {
    // SAFETY: librdkafka copies names and values, whose lengths are said.
    unsafe {
        let headers = c::rd_kafka_headers_new(4);
        for (name, value) in record.headers.iter() {
            let (at, length) = value.map_or((ptr::null(), 0), |value| (value.as_ptr(), value.len() as isize));
            c::rd_kafka_header_add(headers, name.as_ptr().cast(), name.len() as isize, at.cast(), length);
        }
        headers
    }
}

/// The end of a partition as the consumer's last fetch saw it; none before the first.
pub(super) fn known_end<C: ConsumerContext>(consumer: &BaseConsumer<C>, place: &TopicPartition) -> Option<u64> {
    let topic = CString::new(&*place.topic).ok()?;
    let (mut low, mut high) = (0, 0);
    // SAFETY: the client lives, the name is a C string, both numbers are written before the call returns.
    let outcome = unsafe {
        let client = consumer.client().native_ptr();
        c::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), place.partition as i32, &mut low, &mut high)
    };
    (outcome == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high as u64)
}

/// The names of a configuration's properties.
pub(super) fn property_names(config: &NativeClientConfig) -> Vec<String> {
    let mut count = 0;
    // SAFETY: names and values, one behind the other, are C strings until the array is given back.
    unsafe {
        let dumped = c::rd_kafka_conf_dump(config.ptr(), &mut count);
        if dumped.is_null() {
            return Vec::new();
        }
        let texts = slice::from_raw_parts(dumped, count);
        let name = |&name: &*const std::ffi::c_char| CStr::from_ptr(name).to_string_lossy().into_owned();
        let names = texts.iter().step_by(2).map(name).collect();
        c::rd_kafka_conf_dump_free(dumped, count);
        names
    }
}
