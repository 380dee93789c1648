//! Changes of topics and groups, and the dropping of what is kept no longer: all of it on the committer's thread.
//!
//! Retention drops whole generations: of a large one the files go at once; the first offset moves with it. It counts from
//! when a record was appended, so that old records that are replayed are kept as long as others. What is to be kept
//! for a time or a size is kept at least so long, and at most half longer.
//!
//! Topics that a pipeline made for itself are purged: a generation goes as soon as the pipeline's group has passed it in
//! all partitions. That is looked at when an offset of such a topic moves, and when a generation begins.

use super::committer::{Change, Committer, Plan, check_offset};
use super::engine::{Engine, end_key, generation_key, offset_key, topic_key};
use super::topic::{Generation, Head, Topic, TopicRow, bytes_between};
use crate::connect::{CommitError, GroupOffset, LogError, TopicPartition, TopicRole, TopicSpec, check_group};
use crate::crash::crash_point;
use crate::record::now_ms;
use fjall::Keyspace;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// After an error of the disk retention waits so long before it tries again.
const RETRY_TIME: Duration = Duration::from_secs(5);

impl Committer {
    pub(super) fn change(&mut self, change: Change) -> Result<(), CommitError> {
        match change {
            Change::CreateTopic(spec) => self.create_topic(&spec),
            Change::DeleteTopic(name) => self.reset(&[name], &[]),
            Change::Reset(topics, offsets) => self.reset(&topics, &offsets),
            Change::DeleteGroup(group) => self.delete_group(&group),
            Change::SetTopicRole(name, role) => self.set_topic_role(&name, *role),
        }
    }

    fn create_topic(&mut self, spec: &TopicSpec) -> Result<(), CommitError> {
        spec.check()?;
        self.shared.ready(1 << 20)?;
        if self.shared.with_engine(|engine| engine.topic(&spec.name)).is_ok() {
            let topic = spec.name.clone();
            return Err(LogError::TopicExists { topic }.into());
        }
        crash_point("topic-begin");
        self.write(1 << 20, |engine, plan| {
            let id = engine.next_topic_id.load(Ordering::Relaxed);
            let heads: Vec<Head> = (0..spec.partitions)
                .map(|_| Head::new(super::topic::End::ZERO))
                .collect();
            let first = Generation::empty(0, plan.now_ms, heads.iter().map(Head::end).collect());
            let row = TopicRow {
                id,
                spec: spec.clone(),
                created_ms: plan.now_ms,
            };
            plan.put(engine, b"i".to_vec(), (id + 1).to_le_bytes().to_vec());
            plan.put(
                engine,
                topic_key(&spec.name),
                serde_json::to_vec(&row).unwrap_or_default(),
            );
            plan.put(engine, generation_key(id, 0), first.encode());
            let topic = Topic {
                id,
                role: RwLock::new(row.spec.role.clone()),
                spec: row.spec,
                created_ms: row.created_ms,
                heads,
                generations: RwLock::new(vec![Arc::new(first)]),
            };
            plan.after(move |engine| {
                engine.next_topic_id.store(id + 1, Ordering::Relaxed);
                let mut topics = engine.topics.write().unwrap_or_else(|e| e.into_inner());
                topics.insert(topic.spec.name.as_str().into(), Arc::new(topic));
            });
            Ok(())
        })?;
        crash_point("topic-synced");
        Ok(())
    }

    /// Drops topics with the groups' offsets in them, and sets other offsets, all in one batch.
    fn reset(&mut self, topics: &[String], offsets: &[GroupOffset]) -> Result<(), CommitError> {
        self.shared.revive()?;
        self.shared.with_engine(|engine| {
            topics.iter().try_for_each(|name| engine.topic(name).map(drop))?;
            offsets.iter().try_for_each(|offset| check_offset(engine, offset))
        })?;
        let mut dropped = Vec::new();
        self.write(0, |engine, plan| {
            dropped.clear();
            for topic in topics.iter().filter_map(|name| engine.topic(name).ok()) {
                drop_topic(engine, plan, &topic, &mut dropped);
            }
            offsets.iter().for_each(|offset| plan.set_offset(engine, offset));
            Ok(())
        })?;
        crash_point("topic-synced");
        self.drop_keyspaces(dropped);
        // Whoever waits for it to grow shall learn that it is gone.
        self.shared.subscriptions.notify_all();
        Ok(())
    }

    fn set_topic_role(&mut self, name: &str, role: TopicRole) -> Result<(), CommitError> {
        self.shared.ready(1 << 20)?;
        self.shared.with_engine(|engine| engine.topic(name).map(drop))?;
        let role = Arc::new(role);
        self.write(1 << 20, |engine, plan| {
            let Ok(topic) = engine.topic(name) else {
                return Ok(());
            };
            let spec = TopicSpec {
                role: Some(role.clone()),
                ..topic.spec()
            };
            let row = TopicRow {
                id: topic.id,
                spec,
                created_ms: topic.created_ms,
            };
            plan.put(engine, topic_key(name), serde_json::to_vec(&row).unwrap_or_default());
            let role = role.clone();
            plan.after(move |_| topic.set_role(role));
            Ok(())
        })?;
        Ok(())
    }

    fn delete_group(&mut self, group: &str) -> Result<(), CommitError> {
        check_group(group)?;
        self.shared.revive()?;
        let live = self
            .shared
            .membership
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .live(Instant::now());
        if let Some(live) = live.get(group) {
            let (group, members) = (group.to_string(), live.members.len());
            return Err(LogError::GroupInUse { group, members }.into());
        }
        let known = |engine: &Engine| {
            engine
                .offsets
                .read()
                .unwrap_or_else(|e| e.into_inner())
                .contains_key(group)
        };
        if !self.shared.with_engine(|engine| Ok(known(engine)))? {
            return Err(LogError::UnknownGroup { group: group.into() }.into());
        }
        self.write(0, |engine, plan| {
            let offsets = engine.offsets.read().unwrap_or_else(|e| e.into_inner());
            for tp in offsets.get(group).into_iter().flat_map(|partitions| partitions.keys()) {
                plan.remove(engine, offset_key(group, tp));
            }
            let group = group.to_string();
            plan.after(move |engine| {
                engine
                    .offsets
                    .write()
                    .unwrap_or_else(|e| e.into_inner())
                    .remove(&*group);
            });
            Ok(())
        })?;
        Ok(())
    }

    /// Drops what is due, and says when something is due next: never, where nothing has a retention.
    pub(super) fn retain(&mut self) -> Option<Instant> {
        let due = self.retention_deadline.is_some_and(|at| Instant::now() >= at);
        if !due && !self.retention_changed {
            return self.retention_deadline;
        }
        // A step may make the next one due: a generation that is begun lets the one before it go.
        for _ in 0..3 {
            self.retention_changed = false;
            let now = now_ms();
            let surveyed = self.shared.with_engine(|engine| Ok(survey(engine, now)));
            let Ok((next, steps)) = surveyed else {
                self.retention_deadline = None;
                return None;
            };
            if steps.is_empty() {
                self.retention_deadline = next.map(|ms| Instant::now() + Duration::from_millis(ms.min(DAY_MS)));
                return self.retention_deadline;
            }
            crash_point("retention-begin");
            if let Err(error) = self.take(&steps) {
                tracing::warn!(%error, "what retention drops stays for now");
                break;
            }
        }
        self.retention_changed = false;
        self.retention_deadline = Some(Instant::now() + RETRY_TIME);
        self.retention_deadline
    }

    /// Topics that a pipeline made for itself, have a generation that may be dropped, and of which an offset moved.
    pub(super) fn passed_topics<'a>(&self, offsets: impl Iterator<Item = &'a GroupOffset>) -> BTreeSet<Arc<str>> {
        let state = self.shared.state();
        let Ok(engine) = &*state else {
            return BTreeSet::new();
        };
        let may_be_dropped = |offset: &&GroupOffset| {
            engine.topic(&offset.topic).is_ok_and(|topic| {
                reader(&topic).is_some_and(|reader| reader == &*offset.group)
                    && topic.generations.read().unwrap_or_else(|e| e.into_inner()).len() > 1
            })
        };
        offsets
            .filter(may_be_dropped)
            .map(|offset| offset.topic.clone())
            .collect()
    }

    /// Drops the generations of these topics that their readers have passed.
    pub(super) fn purge(&mut self, topics: &BTreeSet<Arc<str>>) {
        if topics.is_empty() {
            return;
        }
        let steps = self.shared.with_engine(|engine| {
            let step = |name: &Arc<str>| {
                let topic = engine.topic(name).ok()?;
                let generations = topic.generations.read().unwrap_or_else(|e| e.into_inner()).clone();
                let keep_from = first_unread(engine, &topic, &generations)?;
                let topic = name.clone();
                (keep_from > generations.first()?.number).then_some(Step {
                    topic,
                    begin: None,
                    keep_from,
                })
            };
            Ok(topics.iter().filter_map(step).collect::<Vec<_>>())
        });
        let Ok(steps) = steps else {
            return;
        };
        if steps.is_empty() {
            return;
        }
        crash_point("purge-begin");
        let changed = self.retention_changed;
        if let Err(error) = self.take(&steps) {
            tracing::warn!(%error, "what readers have passed stays for now");
            let retry = Instant::now() + RETRY_TIME;
            self.retention_deadline = Some(self.retention_deadline.map_or(retry, |at| at.min(retry)));
            return;
        }
        // What was dropped makes nothing else due.
        self.retention_changed = changed;
    }

    fn take(&mut self, steps: &[Step]) -> Result<(), CommitError> {
        let mut dropped = Vec::new();
        self.write(0, |engine, plan| {
            dropped.clear();
            for step in steps {
                let Ok(topic) = engine.topic(&step.topic) else {
                    continue;
                };
                if let Some(number) = step.begin {
                    plan.begin_generation(engine, &topic, number);
                }
                let generations = topic.generations.read().unwrap_or_else(|e| e.into_inner()).clone();
                let ends = topic.ends();
                for (at, generation) in generations
                    .iter()
                    .enumerate()
                    .filter(|(_, g)| g.number < step.keep_from)
                {
                    let ends = generations.get(at + 1).map_or(&ends, |next| &next.bases);
                    dropped.extend(plan.drop_generation(engine, &topic, generation, ends));
                }
                let keep_from = step.keep_from;
                let topic = topic.clone();
                plan.after(move |_| {
                    let mut generations = topic.generations.write().unwrap_or_else(|e| e.into_inner());
                    generations.retain(|g| g.number >= keep_from);
                });
            }
            Ok(())
        })?;
        crash_point("retention-synced");
        self.drop_keyspaces(dropped);
        Ok(())
    }

    /// Their files go with the last reader. Where that fails they go when the folder is opened next.
    fn drop_keyspaces(&self, keyspaces: Vec<Keyspace>) {
        for keyspace in keyspaces {
            let outcome = self.shared.with_engine(|engine| Ok(engine.drop_keyspace(keyspace)));
            if let Ok(Err(error)) = outcome {
                tracing::warn!(%error, "a dropped part of a topic stays on the disk for now");
            }
        }
    }
}

/// What retention does to one topic.
struct Step {
    topic: Arc<str>,
    /// Begin this generation.
    begin: Option<u64>,
    /// Drop those before this one.
    keep_from: u64,
}

/// What is due now, and in how many milliseconds the next is.
fn survey(engine: &Engine, now_ms: i64) -> (Option<u64>, Vec<Step>) {
    let mut next: Option<u64> = None;
    let mut steps = Vec::new();
    let topics = engine.topics.read().unwrap_or_else(|e| e.into_inner());
    for (name, topic) in topics.iter() {
        let generations = topic.generations.read().unwrap_or_else(|e| e.into_inner());
        let Some((active, sealed)) = generations.split_last() else {
            continue;
        };
        let mut keep_from = sealed.first().map_or(active.number, |g| g.number);
        let mut begin = None;
        // Milliseconds from `since` until now, and until `span` of them are over; a clock that was set back counts as none.
        let left =
            |since: i64, span: u64| span.saturating_sub(u64::try_from(now_ms.saturating_sub(since)).unwrap_or(0));
        if let Some(retention_ms) = topic.spec.retention_ms {
            let generation_ms = (retention_ms / 4).clamp(1, DAY_MS);
            if let (Some(begun_ms), Some(_)) = (active.begun_ms, active.home.get()) {
                match left(begun_ms, generation_ms) {
                    0 => begin = Some(active.number + 1),
                    ms => next = Some(next.map_or(ms, |n| n.min(ms))),
                }
            }
            for after in generations.iter().skip(1) {
                match left(after.made_ms, retention_ms) {
                    0 => keep_from = keep_from.max(after.number),
                    ms => {
                        next = Some(next.map_or(ms, |n| n.min(ms)));
                        break;
                    }
                }
            }
        }
        if let Some(retention_bytes) = topic.spec.retention_bytes {
            let ends = topic.ends();
            for after in generations.iter().skip(1) {
                if bytes_between(&after.bases, &ends) < retention_bytes {
                    break;
                }
                keep_from = keep_from.max(after.number);
            }
        }
        if let Some(unread) = first_unread(engine, topic, &generations) {
            keep_from = keep_from.max(unread);
        }
        let oldest = generations.first().map_or(0, |g| g.number);
        if begin.is_some() || keep_from > oldest {
            steps.push(Step {
                topic: name.clone(),
                begin,
                keep_from,
            });
        }
    }
    (next, steps)
}

/// Drops a topic with the groups' offsets in it; what goes with it as a whole is added to `dropped`.
fn drop_topic(engine: &Engine, plan: &mut Plan, topic: &Topic, dropped: &mut Vec<Keyspace>) {
    let name = topic.spec.name.clone();
    plan.remove(engine, topic_key(&name));
    let generations = topic.generations.read().unwrap_or_else(|e| e.into_inner()).clone();
    let ends = topic.ends();
    for (at, generation) in generations.iter().enumerate() {
        let ends = generations.get(at + 1).map_or(&ends, |next| &next.bases);
        dropped.extend(plan.drop_generation(engine, topic, generation, ends));
    }
    for partition in 0..topic.spec.partitions {
        plan.remove(engine, end_key(topic.id, partition));
    }
    let offsets = engine.offsets.read().unwrap_or_else(|e| e.into_inner());
    for (group, partitions) in offsets.iter() {
        for tp in partitions.keys().filter(|tp| *tp.topic == *name) {
            plan.remove(engine, offset_key(group, tp));
        }
    }
    plan.after(move |engine| {
        engine.topics.write().unwrap_or_else(|e| e.into_inner()).remove(&*name);
        let mut offsets = engine.offsets.write().unwrap_or_else(|e| e.into_inner());
        offsets
            .values_mut()
            .for_each(|partitions| partitions.retain(|tp, _| *tp.topic != *name));
        offsets.retain(|_, partitions| !partitions.is_empty());
    });
}

/// The group that reads a topic that a pipeline made for itself.
fn reader(topic: &Topic) -> Option<&str> {
    match topic.spec.role.as_deref()? {
        TopicRole::Repartition { pipeline, .. } | TopicRole::Changelog { pipeline, .. } => Some(pipeline),
    }
}

/// The first generation with a record that the reader of such a topic has not passed; the active one at the latest.
fn first_unread(engine: &Engine, topic: &Topic, generations: &[Arc<Generation>]) -> Option<u64> {
    let reader = reader(topic)?;
    let active = generations.last()?;
    let offsets = engine.offsets.read().unwrap_or_else(|e| e.into_inner());
    let passed = offsets.get(reader)?;
    let mut tp = TopicPartition::new(topic.spec.name.as_str(), 0);
    // A generation ends where the next one begins.
    for (generation, next) in generations.iter().zip(generations.iter().skip(1)) {
        for (partition, (base, end)) in generation.bases.iter().zip(&next.bases).enumerate() {
            tp.partition = partition as u32;
            let has_records = base.next_offset < end.next_offset;
            if has_records
                && passed
                    .get(&tp)
                    .is_none_or(|stored| stored.next_offset < end.next_offset)
            {
                return Some(generation.number);
            }
        }
    }
    Some(active.number)
}
