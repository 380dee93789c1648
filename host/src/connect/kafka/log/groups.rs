//! Consumer groups of a cluster: described, set, dropped.

use super::KafkaLog;
use crate::connect::kafka::admin::{AskError, GroupMember, GroupState, Refusal};
use crate::connect::kafka::places::Place;
use crate::connect::{
    CommitError, GroupDescription, GroupOffset, GroupPartition, LogError, TopicPartition, check_group,
};
use rdkafka::error::RDKafkaErrorCode;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How long a transaction may keep offsets undecided.
const STABLE_TIME_MAX: Duration = Duration::from_secs(20);
/// How often they are looked at meanwhile, and a coordinator that is just starting.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl KafkaLog {
    /// All groups that may be seen, by name.
    pub(super) fn describe_groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        let failed = |error| self.refused("asking for groups", None, error);
        let names = patiently(|| self.group_admin()?.group_names()).map_err(failed)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let states = self.group_states(&names).map_err(failed)?;
        let mut offsets: Vec<(GroupState, Vec<Place>)> = Vec::with_capacity(states.len());
        for state in states {
            let committed = match state.refusal {
                // Of other kinds of groups nothing else is to be told.
                Some(_) => Vec::new(),
                None => patiently(|| self.group_admin()?.group_offsets(&state.group, None, false)).map_err(failed)?,
            };
            offsets.push((state, committed));
        }
        let mut places: Vec<TopicPartition> = offsets
            .iter()
            .flat_map(|(_, committed)| committed)
            .map(|place| place.tp.clone())
            .collect();
        places.sort();
        places.dedup();
        let ends = self.ends(&places)?;
        let described = offsets
            .iter()
            .map(|(state, committed)| describe(state, committed, &ends));
        let mut described: Vec<_> = described.collect();
        described.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(described)
    }

    /// Where a group goes on reading a partition, when no transaction is about to change that.
    pub(super) fn find_committed(&self, group: &str, tp: &TopicPartition) -> Result<Option<(u64, String)>, LogError> {
        let asked = std::slice::from_ref(tp);
        let places = patiently(|| {
            let places = self.group_admin()?.group_offsets(group, Some(asked), true)?;
            let failed = places.iter().find_map(|place| place.error);
            failed.map_or(Ok(places), |code| Err(code.into()))
        });
        let places = places.map_err(|error| {
            self.refused(
                &format!("asking where the group {group:?} goes on in {tp}"),
                None,
                error,
            )
        })?;
        let committed = places.into_iter().find(|place| place.tp == *tp && place.offset >= 0);
        Ok(committed.map(|place| (place.offset as u64, place.metadata)))
    }

    /// Forgets a group that has no members.
    pub(super) fn drop_group(&self, group: &str) -> Result<(), CommitError> {
        check_group(group)?;
        let dropped = patiently(|| self.group_admin()?.delete_group(group));
        match dropped {
            Err(AskError::Refused(Refusal {
                code: RDKafkaErrorCode::GroupIdNotFound,
                ..
            })) => Err(LogError::UnknownGroup { group: group.into() }.into()),
            Err(AskError::Refused(Refusal {
                code: RDKafkaErrorCode::NonEmptyGroup,
                ..
            })) => Err(self.in_use(group).into()),
            outcome => {
                Ok(outcome.map_err(|error| self.refused(&format!("deleting the group {group:?}"), None, error))?)
            }
        }
    }

    /// Sets where groups go on that have no members.
    pub(super) fn set_offsets(&self, offsets: &[GroupOffset]) -> Result<(), LogError> {
        let mut by_group: BTreeMap<&str, Vec<(TopicPartition, u64, &str)>> = BTreeMap::new();
        for offset in offsets {
            check_group(&offset.group)?;
            offset.check_metadata()?;
            let tp = TopicPartition::new(offset.topic.clone(), offset.partition);
            let of_group = by_group.entry(&offset.group).or_default();
            // Of a partition that is named twice the last counts.
            of_group.retain(|(named, ..)| *named != tp);
            of_group.push((tp, offset.next_offset, &offset.metadata));
        }
        for (group, offsets) in by_group {
            match patiently(|| self.group_admin()?.set_group_offsets(group, &offsets)) {
                Err(AskError::Refused(Refusal {
                    code: RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::NonEmptyGroup,
                    ..
                })) => return Err(self.in_use(group)),
                outcome => {
                    let doing = format!("setting the offsets of the group {group:?}");
                    outcome.map_err(|error| self.refused(&doing, None, error))?;
                }
            }
        }
        Ok(())
    }

    /// Groups with their members, once their coordinators know them.
    fn group_states(&self, names: &[&str]) -> Result<Vec<GroupState>, AskError> {
        patiently(|| {
            let states = self.group_admin()?.groups(names)?;
            let refusals = states.iter().filter_map(|state| state.refusal.as_ref());
            match refusals.into_iter().find(|refusal| passes(refusal.code)) {
                Some(refusal) => Err(refusal.clone().into()),
                None => Ok(states),
            }
        })
    }

    /// # Errors
    /// [`LogError::GroupInUse`] where a group has members.
    pub(super) fn check_unused(&self, group: &str) -> Result<(), LogError> {
        match self.live_members(group)? {
            0 => Ok(()),
            members => Err(LogError::GroupInUse {
                group: group.into(),
                members,
            }),
        }
    }

    fn in_use(&self, group: &str) -> LogError {
        LogError::GroupInUse {
            group: group.into(),
            members: self.live_members(group).unwrap_or(0).max(1),
        }
    }

    fn live_members(&self, group: &str) -> Result<usize, LogError> {
        let states = self.group_states(&[group]);
        let states = states.map_err(|error| self.refused(&format!("asking for the group {group:?}"), None, error))?;
        match states.into_iter().next() {
            None => Ok(0),
            Some(GroupState {
                refusal: Some(refusal), ..
            }) if refusal.code != RDKafkaErrorCode::GroupIdNotFound => {
                Err(self.refused(&format!("asking for the group {group:?}"), None, refusal.into()))
            }
            Some(state) => Ok(state.members.len()),
        }
    }
}

/// Whether a coordinator says so that is just starting or moving, or while a transaction keeps offsets undecided.
fn passes(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::UnstableOffsetCommit
    )
}

/// Asks again while a coordinator is just starting or moving, or a transaction keeps offsets undecided.
fn patiently<T>(mut ask: impl FnMut() -> Result<T, AskError>) -> Result<T, AskError> {
    let end = Instant::now() + STABLE_TIME_MAX;
    loop {
        match ask() {
            Err(AskError::Refused(refusal)) if passes(refusal.code) && Instant::now() < end => {
                std::thread::sleep(LOOK_INTERVAL);
            }
            outcome => return outcome,
        }
    }
}

fn describe(state: &GroupState, committed: &[Place], ends: &HashMap<TopicPartition, (u64, u64)>) -> GroupDescription {
    let holder = |tp: &TopicPartition| state.members.iter().find(|member| member.holds.contains(tp));
    let partition = |place: &Place| {
        let committed_offset = u64::try_from(place.offset).ok()?;
        let (first_offset, next_offset) = ends.get(&place.tp).copied().unwrap_or_default();
        Some(GroupPartition {
            topic: place.tp.topic.to_string(),
            partition: place.tp.partition,
            committed_offset,
            committed_ms: None,
            metadata: place.metadata.clone(),
            next_offset,
            lag: next_offset.saturating_sub(committed_offset.max(first_offset)),
            member: holder(&place.tp).map(member_text),
        })
    };
    let mut partitions: Vec<_> = committed.iter().filter_map(partition).collect();
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    GroupDescription {
        group: state.group.clone(),
        members: state.members.iter().map(member_text).collect(),
        partitions,
    }
}

fn member_text(member: &GroupMember) -> String {
    format!("{} on {}", member.name, member.host)
}
