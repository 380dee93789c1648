//! Lists of partitions as librdkafka has them, with offsets, notes and errors beside each.
#![allow(unsafe_code)]

use crate::connect::{LogError, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::bindings as c;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::ffi::{CStr, CString};
use std::ptr;
use std::slice;

/// A partition with what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub tp: TopicPartition,
    /// Below 0 where there is none.
    pub offset: i64,
    /// What a group noted beside the offset; none where it is no text, as another program's may be.
    pub metadata: String,
    /// Why there is no answer.
    pub error: Option<RDKafkaErrorCode>,
}

/// A list that is ours.
pub(super) struct PlaceList(*mut c::rd_kafka_topic_partition_list_t);

impl PlaceList {
    pub fn new() -> PlaceList {
        // SAFETY: given back once, by `drop`.
        PlaceList(unsafe { c::rd_kafka_topic_partition_list_new(8) })
    }

    /// These, each with an offset.
    ///
    /// # Errors
    /// Where a topic cannot be called so.
    pub fn of<'p>(places: impl IntoIterator<Item = (&'p TopicPartition, i64)>) -> Result<PlaceList, LogError> {
        let mut list = PlaceList::new();
        for (tp, offset) in places {
            list.push(tp, offset, "")?;
        }
        Ok(list)
    }

    /// Adds one.
    ///
    /// # Errors
    /// Where the topic cannot be called so.
    pub fn push(&mut self, tp: &TopicPartition, offset: i64, metadata: &str) -> Result<(), LogError> {
        let topic = c_name(&tp.topic)?;
        // SAFETY: the name is copied; the place is the list's until the next one is added; what a note lies in is
        // allocated as the list frees it.
        unsafe {
            let place = c::rd_kafka_topic_partition_list_add(self.0, topic.as_ptr(), tp.partition as i32);
            (*place).offset = offset;
            if !metadata.is_empty() {
                let room = c::rd_kafka_mem_malloc(ptr::null_mut(), metadata.len());
                ptr::copy_nonoverlapping(metadata.as_ptr(), room.cast(), metadata.len());
                (*place).metadata = room;
                (*place).metadata_size = metadata.len();
            }
        }
        Ok(())
    }

    pub fn as_ptr(&self) -> *mut c::rd_kafka_topic_partition_list_t {
        self.0
    }
}

impl Drop for PlaceList {
    fn drop(&mut self) {
        // SAFETY: it was made by `new`.
        unsafe { c::rd_kafka_topic_partition_list_destroy(self.0) }
    }
}

/// A name as C has it.
///
/// # Errors
/// Where it has a NUL.
pub(super) fn c_name(topic: &str) -> Result<CString, LogError> {
    CString::new(topic).map_err(|_| LogError::InvalidTopic {
        topic: topic.to_owned(),
        reason: "a name has no NUL".into(),
    })
}

/// What stands in a list of rdkafka's, which itself takes notes of other programs for text, and panics where they are none.
pub(super) fn of(list: &TopicPartitionList) -> Vec<Place> {
    // SAFETY: it lives as long as the call.
    unsafe { read(list.ptr()) }
}

/// # Safety
/// A list that lives as long as this call, or null.
pub(super) unsafe fn read(list: *const c::rd_kafka_topic_partition_list_t) -> Vec<Place> {
    // SAFETY: as many elements as it says.
    unsafe {
        if list.is_null() || (*list).cnt <= 0 {
            return Vec::new();
        }
        let elements = slice::from_raw_parts((*list).elems, (*list).cnt as usize);
        elements.iter().map(|element| read_one(element)).collect()
    }
}

/// # Safety
/// Its name is a C string, its note as long as it says.
pub(super) unsafe fn read_one(element: &c::rd_kafka_topic_partition_t) -> Place {
    // SAFETY: see above.
    let (topic, metadata) = unsafe {
        let metadata = if element.metadata.is_null() {
            &[]
        } else {
            slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size)
        };
        (text(element.topic), metadata)
    };
    Place {
        tp: TopicPartition::new(topic, element.partition.max(0) as u32),
        offset: element.offset,
        metadata: std::str::from_utf8(metadata).unwrap_or_default().to_owned(),
        error: code(element.err),
    }
}

/// # Safety
/// A C string, or null.
pub(super) unsafe fn text(at: *const std::ffi::c_char) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: see above.
    unsafe { CStr::from_ptr(at).to_string_lossy().into_owned() }
}

/// The code, where it is one of an error.
pub(super) fn code(error: RDKafkaRespErr) -> Option<RDKafkaErrorCode> {
    (error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into())
}
