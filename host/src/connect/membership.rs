//! Members of consumer groups and the partitions that they hold: in the memory of whoever holds the folder.
//!
//! A partition moves in two steps, so that two members never hold it at once: the member that loses it gives it up
//! with its next poll, before which it commits what it has done; the one that gets it has it from its own next poll.
//! Whoever is not heard of for [`SESSION_TIME_MAX`] has left. Time is passed in; nothing here waits or wakes up.

use super::{GroupOffset, LogError, TopicPartition, check_group};
use crate::limits::SESSION_TIME_MAX;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// What a member of a group holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The group's name.
    pub group: Arc<str>,
    /// The member's name, given at its first join.
    pub member: Arc<str>,
    /// Counts up whenever partitions move.
    pub generation: u64,
    /// What this member, and nobody else, reads and commits.
    pub partitions: Vec<TopicPartition>,
    /// Partitions will be this member's that another has yet to give up: poll again soon.
    pub pending: bool,
}

impl Assignment {
    /// Who this is, for a commit.
    pub fn fence(&self) -> Fence {
        Fence {
            group: self.group.clone(),
            member: self.member.clone(),
            generation: self.generation,
        }
    }
}

/// Which member commits, and on the strength of which generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The group's name.
    pub group: Arc<str>,
    /// The member's name.
    pub member: Arc<str>,
    /// Of its last assignment.
    pub generation: u64,
}

/// All groups that have members.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    groups: HashMap<Arc<str>, Group>,
    members_so_far: u64,
}

#[derive(Debug, Default)]
struct Group {
    generation: u64,
    members: BTreeMap<Arc<str>, Member>,
    /// Who shall have a partition.
    targets: BTreeMap<TopicPartition, Arc<str>>,
    /// Who has it, and since which generation.
    holders: BTreeMap<TopicPartition, (Arc<str>, u64)>,
}

#[derive(Debug)]
struct Member {
    topics: BTreeSet<Arc<str>>,
    heard_of: Instant,
}

impl Membership {
    /// A new member of a group, or the same again. `partitions_of` says how many partitions a topic has.
    pub(crate) fn join(
        &mut self,
        group: &str,
        topics: &[Arc<str>],
        now: Instant,
        partitions_of: impl Fn(&str) -> Option<u32>,
    ) -> Result<Assignment, LogError> {
        check_group(group)?;
        for topic in topics {
            if partitions_of(topic).is_none() {
                return Err(LogError::UnknownTopic {
                    topic: topic.to_string(),
                });
            }
        }
        self.members_so_far += 1;
        // Chance tells it from a member of the same number that another holder of the folder knew.
        let member: Arc<str> = format!("member-{}-{:08x}", self.members_so_far, rand::random::<u32>()).into();
        let group: Arc<str> = group.into();
        let state = self.groups.entry(group.clone()).or_default();
        let topics = topics.iter().cloned().collect();
        state.members.insert(member.clone(), Member { topics, heard_of: now });
        self.poll(&group, &member, now, partitions_of)
    }

    /// The member is alive, has committed what it wants to commit, and asks what it holds from now on.
    pub(crate) fn poll(
        &mut self,
        group: &str,
        member: &str,
        now: Instant,
        partitions_of: impl Fn(&str) -> Option<u32>,
    ) -> Result<Assignment, LogError> {
        let unknown = || LogError::UnknownMember {
            group: group.into(),
            member: member.into(),
        };
        let (name, state) = self.groups.get_key_value(group).ok_or_else(unknown)?;
        let name = name.clone();
        let (member, _) = state.members.get_key_value(member).ok_or_else(unknown)?;
        let member = member.clone();
        let Some(state) = self.groups.get_mut(group) else {
            return Err(unknown());
        };
        if let Some(own) = state.members.get_mut(&member) {
            own.heard_of = now;
        }
        state.expire(now);
        state.assign(partitions_of);
        let generation = state.generation;
        state
            .holders
            .retain(|tp, (holder, _)| *holder != member || state.targets.get(tp) == Some(&member));
        let mut pending = false;
        for (tp, target) in &state.targets {
            if *target == member {
                let (holder, _) = state.holders.entry(tp.clone()).or_insert((member.clone(), generation));
                pending |= *holder != member;
            }
        }
        let held = |(tp, (holder, _)): (&TopicPartition, &(Arc<str>, u64))| (*holder == member).then(|| tp.clone());
        let partitions = state.holders.iter().filter_map(held).collect();
        Ok(Assignment {
            group: name,
            member,
            generation,
            partitions,
            pending,
        })
    }

    /// The member goes; what it held is free at once.
    pub(crate) fn leave(&mut self, group: &str, member: &str) {
        if let Some(state) = self.groups.get_mut(group) {
            state.members.remove(member);
            state.holders.retain(|_, (holder, _)| &**holder != member);
            if state.members.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    /// Whether the member may commit these offsets.
    pub(crate) fn check(&mut self, fence: &Fence, offsets: &[GroupOffset], now: Instant) -> Result<(), LogError> {
        let unknown = || LogError::UnknownMember {
            group: fence.group.to_string(),
            member: fence.member.to_string(),
        };
        let state = self.groups.get_mut(&fence.group).ok_or_else(unknown)?;
        if let Some(own) = state.members.get_mut(&fence.member)
            && now.saturating_duration_since(own.heard_of) < SESSION_TIME_MAX
        {
            own.heard_of = now;
        }
        state.expire(now);
        if !state.members.contains_key(&fence.member) {
            return Err(unknown());
        }
        for offset in offsets {
            let tp = TopicPartition::new(offset.topic.clone(), offset.partition);
            let holds = offset.group == fence.group
                && state
                    .holders
                    .get(&tp)
                    .is_some_and(|(holder, since)| *holder == fence.member && fence.generation >= *since);
            if !holds {
                return Err(LogError::Fenced {
                    group: fence.group.to_string(),
                    member: fence.member.to_string(),
                    generation: fence.generation,
                    topic: offset.topic.to_string(),
                    partition: offset.partition,
                });
            }
        }
        Ok(())
    }

    /// Groups with live members.
    pub(crate) fn live(&mut self, now: Instant) -> BTreeMap<Arc<str>, LiveGroup> {
        self.groups.retain(|_, state| {
            state.expire(now);
            !state.members.is_empty()
        });
        let holders = |state: &Group| {
            state
                .holders
                .iter()
                .map(|(tp, (m, _))| (tp.clone(), m.clone()))
                .collect()
        };
        let live = |state: &Group| LiveGroup {
            members: state.members.keys().cloned().collect(),
            holders: holders(state),
        };
        self.groups
            .iter()
            .map(|(name, state)| (name.clone(), live(state)))
            .collect()
    }
}

/// Who is alive in a group, and who holds what.
#[derive(Debug, Default)]
pub(crate) struct LiveGroup {
    pub(crate) members: Vec<Arc<str>>,
    pub(crate) holders: BTreeMap<TopicPartition, Arc<str>>,
}

impl Group {
    fn expire(&mut self, now: Instant) {
        self.members
            .retain(|_, member| now.saturating_duration_since(member.heard_of) < SESSION_TIME_MAX);
        self.holders.retain(|_, (holder, _)| self.members.contains_key(holder));
    }

    /// Spreads each topic's partitions over those who asked for it, the ones who have one keeping it where that is
    /// fair; a new generation where anything moved.
    fn assign(&mut self, partitions_of: impl Fn(&str) -> Option<u32>) {
        let mut targets = BTreeMap::new();
        let topics: BTreeSet<_> = self
            .members
            .values()
            .flat_map(|member| member.topics.iter().cloned())
            .collect();
        let mut load: BTreeMap<Arc<str>, usize> = self.members.keys().map(|m| (m.clone(), 0)).collect();
        for topic in topics {
            let takers: Vec<_> = self
                .members
                .iter()
                .filter(|(_, m)| m.topics.contains(&topic))
                .map(|(n, _)| n)
                .collect();
            let partitions = partitions_of(&topic).unwrap_or(0) as usize;
            let share_max = partitions.div_ceil(takers.len().max(1));
            let larger_shares = match partitions % takers.len().max(1) {
                0 => takers.len(),
                rest => rest,
            };
            let mut shares: BTreeMap<&Arc<str>, usize> = takers.iter().map(|&m| (m, 0)).collect();
            let mut free = Vec::new();
            for partition in 0..partitions as u32 {
                let tp = TopicPartition::new(topic.clone(), partition);
                let full = shares.values().filter(|&&share| share == share_max).count();
                let keeper = self.targets.get(&tp).filter(|m| {
                    shares
                        .get(m)
                        .is_some_and(|&s| s + 1 < share_max || (s + 1 == share_max && full < larger_shares))
                });
                match keeper.and_then(|m| shares.get_key_value(m)).map(|(&m, _)| m) {
                    Some(keeper) => {
                        *shares.entry(keeper).or_default() += 1;
                        targets.insert(tp, keeper.clone());
                    }
                    None => free.push(tp),
                }
            }
            for tp in free {
                let least = takers.iter().min_by_key(|&&m| (shares[m], load[m]));
                if let Some(&least) = least {
                    *shares.entry(least).or_default() += 1;
                    targets.insert(tp, least.clone());
                }
            }
            for (member, share) in shares {
                *load.entry(member.clone()).or_default() += share;
            }
        }
        if targets != self.targets {
            self.generation += 1;
            self.targets = targets;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn four(topic: &str) -> Option<u32> {
        (topic == "t").then_some(4)
    }

    fn offset(partition: u32) -> Vec<GroupOffset> {
        vec![GroupOffset {
            group: "g".into(),
            topic: "t".into(),
            partition,
            next_offset: 1,
            metadata: String::new(),
        }]
    }

    fn numbers(assignment: &Assignment) -> Vec<u32> {
        assignment.partitions.iter().map(|tp| tp.partition).collect()
    }

    #[test]
    fn a_partition_is_given_up_before_another_gets_it() {
        let (mut groups, now) = (Membership::default(), Instant::now());
        let topics = ["t".into()];
        let first = groups.join("g", &topics, now, four).unwrap();
        assert_eq!(numbers(&first), [0, 1, 2, 3]);
        let second = groups.join("g", &topics, now, four).unwrap();
        assert_eq!((numbers(&second), second.pending), (vec![], true));
        // The first still holds all, and commits on the strength of its generation.
        groups.check(&first.fence(), &offset(3), now).unwrap();
        let refused = groups.check(&second.fence(), &offset(3), now).unwrap_err();
        assert!(matches!(refused, LogError::Fenced { partition: 3, .. }));
        let again = groups.poll("g", &first.member, now, four).unwrap();
        assert_eq!((numbers(&again), again.generation), (vec![0, 1], first.generation + 1));
        let second = groups.poll("g", &second.member, now, four).unwrap();
        assert_eq!((numbers(&second), second.pending), (vec![2, 3], false));
        // What it lost it cannot commit, whatever generation it names.
        groups.check(&first.fence(), &offset(3), now).unwrap_err();
        groups.check(&again.fence(), &offset(3), now).unwrap_err();
        groups.check(&again.fence(), &offset(1), now).unwrap();
    }

    #[test]
    fn a_stale_generation_is_refused_after_the_partition_came_back() {
        let (mut groups, now) = (Membership::default(), Instant::now());
        let topics = ["t".into()];
        let first = groups.join("g", &topics, now, four).unwrap();
        let second = groups.join("g", &topics, now, four).unwrap();
        groups.poll("g", &first.member, now, four).unwrap();
        groups.poll("g", &second.member, now, four).unwrap();
        groups.leave("g", &second.member);
        let back = groups.poll("g", &first.member, now, four).unwrap();
        assert_eq!(numbers(&back), [0, 1, 2, 3]);
        groups.check(&first.fence(), &offset(3), now).unwrap_err();
        groups.check(&back.fence(), &offset(3), now).unwrap();
    }

    #[test]
    fn more_members_than_partitions_idle_and_the_silent_leave() {
        let (mut groups, now) = (Membership::default(), Instant::now());
        let topics = ["t".into()];
        let members: Vec<_> = (0..5)
            .map(|_| groups.join("g", &topics, now, four).unwrap().member)
            .collect();
        let mut held = Vec::new();
        for _ in 0..2 {
            held = members
                .iter()
                .map(|m| groups.poll("g", m, now, four).unwrap().partitions.len())
                .collect();
        }
        assert_eq!(held, [1, 1, 1, 1, 0]);
        // The first falls silent; the others are heard of.
        let later = now + SESSION_TIME_MAX - Duration::from_millis(1);
        for member in &members[1..] {
            groups.poll("g", member, later, four).unwrap();
        }
        let end = now + SESSION_TIME_MAX;
        let held: usize = members[1..]
            .iter()
            .map(|m| groups.poll("g", m, end, four).unwrap().partitions.len())
            .sum();
        assert_eq!(held, 4);
        let gone = groups.poll("g", &members[0], end, four).unwrap_err();
        assert!(matches!(gone, LogError::UnknownMember { .. }));
        assert_eq!(groups.live(end)["g"].members.len(), 4);
        assert!(groups.live(end + SESSION_TIME_MAX).is_empty());
    }

    #[test]
    fn nobody_joins_for_a_topic_that_is_not_there() {
        let mut groups = Membership::default();
        let error = groups.join("g", &["u".into()], Instant::now(), four).unwrap_err();
        assert_eq!(error, LogError::UnknownTopic { topic: "u".into() });
        let error = groups.join("", &["t".into()], Instant::now(), four).unwrap_err();
        assert_eq!(error, LogError::InvalidGroup { group: String::new() });
    }
}
