//! Consumer groups: listed, described, set, dropped.

use super::{Admin, AskError, Options, Refusal, listed};
use crate::connect::kafka::places::{self, Place, PlaceList};
use crate::connect::{LogError, TopicPartition};
use rdkafka::bindings as c;
use std::ffi::CString;

/// A group as it stands.
#[derive(Clone, Debug, Default)]
pub(in crate::connect::kafka) struct GroupState {
    pub group: String,
    pub members: Vec<GroupMember>,
    /// Why it may not be looked at.
    pub refusal: Option<Refusal>,
}

/// A member that is alive.
#[derive(Clone, Debug)]
pub(in crate::connect::kafka) struct GroupMember {
    /// Its name, which begins with its client's.
    pub name: String,
    /// From where it speaks.
    pub host: String,
    pub holds: Vec<TopicPartition>,
}

impl Admin<'_> {
    /// The names of all groups.
    pub fn group_names(self) -> Result<Vec<String>, AskError> {
        let operation = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS;
        let options = Options::new(self.client(), operation);
        // SAFETY: client, options and queue live.
        let answer = self.ask(|client, queue| unsafe { c::rd_kafka_ListConsumerGroups(client, options.0, queue) })?;
        // SAFETY: the results live as long as the answer.
        unsafe {
            let result = c::rd_kafka_event_ListConsumerGroups_result(answer.0);
            // A broker that does not answer hides its groups: half a list is none.
            let failed = listed(|count| c::rd_kafka_ListConsumerGroups_result_errors(result, count));
            if let Some(refusal) = failed.iter().find_map(|&error| Refusal::read(error)) {
                return Err(refusal.into());
            }
            let groups = listed(|count| c::rd_kafka_ListConsumerGroups_result_valid(result, count));
            let name = |&group: &*const _| places::text(c::rd_kafka_ConsumerGroupListing_group_id(group));
            Ok(groups.iter().map(name).collect())
        }
    }

    /// Groups with their members; one that is not there has none.
    pub fn groups(self, names: &[&str]) -> Result<Vec<GroupState>, AskError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<CString> = names.iter().map(|name| group_name(name)).collect::<Result<_, _>>()?;
        let mut asked: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let operation = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let options = Options::new(self.client(), operation);
        // SAFETY: names are copied within the call.
        let answer = self.ask(|client, queue| unsafe {
            c::rd_kafka_DescribeConsumerGroups(client, asked.as_mut_ptr(), asked.len(), options.0, queue);
        })?;
        // SAFETY: the results live as long as the answer.
        unsafe {
            let result = c::rd_kafka_event_DescribeConsumerGroups_result(answer.0);
            let groups = listed(|count| c::rd_kafka_DescribeConsumerGroups_result_groups(result, count));
            Ok(groups.iter().map(|&group| read_group(group)).collect())
        }
    }

    /// Where a group goes on: in these partitions, or in all where none are named. With `stable`, offsets that a
    /// transaction is about to change are waited for.
    pub fn group_offsets(
        self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
        stable: bool,
    ) -> Result<Vec<Place>, AskError> {
        let name = group_name(group)?;
        let list = match partitions {
            Some(partitions) => Some(PlaceList::of(partitions.iter().map(|tp| (tp, -1)))?),
            None => None,
        };
        let operation = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
        let mut options = Options::new(self.client(), operation);
        if stable {
            options = options.stable_offsets();
        }
        // SAFETY: name and list are copied; what is asked for is given back once, and copied by the call before.
        unsafe {
            let asked = list
                .as_ref()
                .map_or(std::ptr::null(), |list| list.as_ptr().cast_const());
            let mut asked = c::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), asked);
            let answer = self.ask(|client, queue| {
                c::rd_kafka_ListConsumerGroupOffsets(client, &mut asked, 1, options.0, queue);
            });
            c::rd_kafka_ListConsumerGroupOffsets_destroy(asked);
            let answer = answer?;
            let result = c::rd_kafka_event_ListConsumerGroupOffsets_result(answer.0);
            of_group(listed(|count| {
                c::rd_kafka_ListConsumerGroupOffsets_result_groups(result, count)
            }))
        }
    }

    /// Sets where a group without members goes on, with what it notes there.
    pub fn set_group_offsets(self, group: &str, offsets: &[(TopicPartition, u64, &str)]) -> Result<(), AskError> {
        let name = group_name(group)?;
        let mut list = PlaceList::new();
        for (tp, offset, metadata) in offsets {
            list.push(tp, *offset as i64, metadata)?;
        }
        let operation = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS;
        let options = Options::new(self.client(), operation);
        // SAFETY: as above.
        let places = unsafe {
            let mut asked = c::rd_kafka_AlterConsumerGroupOffsets_new(name.as_ptr(), list.as_ptr());
            let answer = self.ask(|client, queue| {
                c::rd_kafka_AlterConsumerGroupOffsets(client, &mut asked, 1, options.0, queue);
            });
            c::rd_kafka_AlterConsumerGroupOffsets_destroy(asked);
            let answer = answer?;
            let result = c::rd_kafka_event_AlterConsumerGroupOffsets_result(answer.0);
            of_group(listed(|count| {
                c::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, count)
            }))?
        };
        places
            .into_iter()
            .find_map(|place| place.error)
            .map_or(Ok(()), |code| Err(code.into()))
    }

    /// Forgets a group.
    pub fn delete_group(self, group: &str) -> Result<(), AskError> {
        let name = group_name(group)?;
        let options = Options::new(self.client(), c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETEGROUPS);
        // SAFETY: as above.
        unsafe {
            let mut gone = c::rd_kafka_DeleteGroup_new(name.as_ptr());
            let answer = self.ask(|client, queue| {
                c::rd_kafka_DeleteGroups(client, &mut gone, 1, options.0, queue);
            });
            c::rd_kafka_DeleteGroup_destroy(gone);
            let answer = answer?;
            let result = c::rd_kafka_event_DeleteGroups_result(answer.0);
            of_group(listed(|count| c::rd_kafka_DeleteGroups_result_groups(result, count))).map(drop)
        }
    }
}

fn group_name(group: &str) -> Result<CString, LogError> {
    CString::new(group).map_err(|_| LogError::InvalidGroup { group: group.into() })
}

/// # Safety
/// Results that live.
unsafe fn of_group(results: &[*const c::rd_kafka_group_result_t]) -> Result<Vec<Place>, AskError> {
    let Some(&result) = results.first() else {
        return Ok(Vec::new());
    };
    // SAFETY: see above.
    unsafe {
        if let Some(refusal) = Refusal::read(c::rd_kafka_group_result_error(result)) {
            return Err(refusal.into());
        }
        Ok(places::read(c::rd_kafka_group_result_partitions(result)))
    }
}

/// # Safety
/// A description that lives.
unsafe fn read_group(group: *const c::rd_kafka_ConsumerGroupDescription_t) -> GroupState {
    // SAFETY: see above.
    unsafe {
        let count = c::rd_kafka_ConsumerGroupDescription_member_count(group);
        let member = |at| {
            let member = c::rd_kafka_ConsumerGroupDescription_member(group, at);
            let assignment = c::rd_kafka_MemberDescription_assignment(member);
            let holds = if assignment.is_null() {
                Vec::new()
            } else {
                places::read(c::rd_kafka_MemberAssignment_partitions(assignment))
            };
            GroupMember {
                name: places::text(c::rd_kafka_MemberDescription_consumer_id(member)),
                host: places::text(c::rd_kafka_MemberDescription_host(member))
                    .trim_start_matches('/')
                    .to_owned(),
                holds: holds.into_iter().map(|place| place.tp).collect(),
            }
        };
        GroupState {
            group: places::text(c::rd_kafka_ConsumerGroupDescription_group_id(group)),
            members: (0..count).map(member).collect(),
            refusal: Refusal::read(c::rd_kafka_ConsumerGroupDescription_error(group)),
        }
    }
}
