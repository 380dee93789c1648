//! Dropping records that nobody needs any more.
#![allow(unsafe_code)]

use super::super::places::{self, Place, PlaceList};
use super::{Admin, AskError, Options};
use crate::connect::TopicPartition;
use rdkafka::bindings as c;

impl Admin<'_> {
    /// Drops what lies before an offset of each of these; says of each what became of it.
    pub fn delete_records(self, before: &[(TopicPartition, u64)]) -> Result<Vec<Place>, AskError> {
        let list = PlaceList::of(before.iter().map(|(tp, offset)| (tp, *offset as i64)))?;
        let options = Options::new(self.client(), c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETERECORDS);
        // SAFETY: the list lives until librdkafka has copied it; the question is given back once, copied by the call before.
        unsafe {
            let mut asked = c::rd_kafka_DeleteRecords_new(list.as_ptr());
            let answer = self.ask(|client, queue| {
                c::rd_kafka_DeleteRecords(client, &mut asked, 1, options.0, queue);
            });
            c::rd_kafka_DeleteRecords_destroy(asked);
            let answer = answer?;
            let result = c::rd_kafka_event_DeleteRecords_result(answer.0);
            Ok(places::read(c::rd_kafka_DeleteRecords_result_offsets(result)))
        }
    }
}
