//! The topics of a pipeline: those that it writes, and those that it keeps for itself.

use std::sync::Arc;

use super::HostError;
use super::engine::EngineHost;
use crate::connect::{CommitError, LogError, TopicPartition, TopicRole, TopicSettings, TopicSpec};
use crate::pipeline::{Engine, Plan, PlannedStage, changelog_topic};
use crate::state::{StoreShape, has_kept};
use crate::task::Stores;

fn topic_settings(plan: &Plan) -> TopicSettings {
    match &plan.engine {
        Engine::Embedded => TopicSettings::default(),
        Engine::Kafka(engine) => engine.topics.clone(),
    }
}

impl EngineHost {
    pub(super) fn make_sinks(&self, plan: &Plan) -> Result<(), HostError> {
        // Where the file does not say, an output has as many partitions as the largest input.
        let most = self.partitions_of_sources(plan)?.into_values().max().unwrap_or(1);
        for sink in plan.written_topics() {
            self.make_topic(plan, &sink.topic, sink.partitions.unwrap_or(most))?;
        }
        Ok(())
    }

    pub(super) fn make_topic(&self, plan: &Plan, topic: &str, partitions: u32) -> Result<(), HostError> {
        if self.find(topic)?.is_some() {
            return Ok(());
        }
        if let Engine::Kafka(engine) = &plan.engine
            && !engine.makes_topics
        {
            return Err(HostError::TopicMissing {
                pipeline: plan.name.clone(),
                topic: topic.to_owned(),
            });
        }
        let spec = TopicSpec::new(topic, partitions);
        match self.log.make_topic(&spec, &topic_settings(plan)) {
            Ok(()) => tracing::info!(pipeline = plan.name, topic, partitions, "made a topic that was missing"),
            // Another host of the pipeline made it at the same moment.
            Err(CommitError::Refused {
                refusal: LogError::TopicExists { .. },
            }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// A topic of the pipeline's own, or what is there already under its name.
    pub(super) fn make_internal_topic(
        &self,
        plan: &Plan,
        topic: &str,
        partitions: u32,
        role: TopicRole,
    ) -> Result<(), HostError> {
        let Some(there) = self.find(topic)? else {
            let spec = TopicSpec {
                role: Some(Arc::new(role)),
                ..TopicSpec::new(topic, partitions)
            };
            // What else a topic of its own needs follows from its role.
            let settings = TopicSettings {
                replication: topic_settings(plan).replication,
                ..TopicSettings::default()
            };
            return Ok(self.log.make_topic(&spec, &settings)?);
        };
        match there.role.as_deref() {
            Some(TopicRole::Repartition { pipeline, .. } | TopicRole::Changelog { pipeline, .. })
                if *pipeline == plan.name =>
            {
                let found = there.partitions;
                if found != partitions {
                    return Err(HostError::InternalPartitions {
                        pipeline: plan.name.clone(),
                        topic: topic.to_owned(),
                        found,
                        wanted: partitions,
                    });
                }
                if there.role.as_deref() != Some(&role) {
                    self.log.set_topic_role(topic, role)?;
                }
                Ok(())
            }
            _ => Err(HostError::TopicTaken {
                pipeline: plan.name.clone(),
                topic: topic.to_owned(),
            }),
        }
    }

    /// The stores of each stage: held against the rows that are there, with topics for their changes.
    pub(super) fn make_stores(&self, plan: &Plan) -> Result<Stores, HostError> {
        let mut stores = Stores {
            shapes: Vec::with_capacity(plan.stages.len()),
            partitions: Vec::with_capacity(plan.stages.len()),
        };
        for stage in &plan.stages {
            let mut shapes = Vec::new();
            if let Some(accumulator) = &stage.accumulator {
                let topic = changelog_topic(&plan.name, &stage.name, None);
                let fields = &accumulator.fields;
                let shape = StoreShape::of_groups(&plan.name, &stage.name, topic, fields, stage.window)
                    .by(stage.key.as_deref())
                    .written(plan.state.changelog);
                shapes.push((shape, None));
            }
            for store in &stage.signature.stores {
                let topic = changelog_topic(&plan.name, &stage.name, Some(&store.name));
                let shape = StoreShape::of_store(&plan.name, &stage.name, topic, store)
                    .by(stage.key.as_deref())
                    .written(plan.state.changelog);
                shapes.push((shape, Some(store.name.as_str())));
            }
            let source = stage.sources.first().map(|&source| &plan.sources[source].topic);
            let mut partitions = source.map_or(Ok(1), |topic| self.partitions(topic))?;
            let mut any_is_there = false;
            for (shape, _) in &shapes {
                any_is_there |= self.find(&shape.changelog)?.is_some();
            }
            if let Some((shape, _)) = shapes.first().filter(|_| !any_is_there)
                && self.has_kept(plan, stage)?
            {
                return Err(HostError::ChangelogGone {
                    pipeline: plan.name.clone(),
                    stage: stage.name.clone(),
                    topic: shape.changelog.to_string(),
                });
            }
            let mut joined = Vec::with_capacity(shapes.len());
            for (mut shape, store) in shapes {
                let there = self.find(&shape.changelog)?;
                if let Some(there) = there.as_ref().filter(|there| there.partitions < partitions) {
                    self.say_grown(plan, stage, there, partitions);
                    partitions = there.partitions;
                }
                let role = match &there {
                    None => shape.join(&stage.name, store, None)?,
                    Some(spec) => match spec.role.as_deref() {
                        Some(role) => shape.join(&stage.name, store, Some(role))?,
                        None => {
                            return Err(HostError::TopicTaken {
                                pipeline: plan.name.clone(),
                                topic: shape.changelog.to_string(),
                            });
                        }
                    },
                };
                self.make_internal_topic(plan, &shape.changelog, partitions, role)?;
                self.keep_with(plan, stage, &shape.changelog)?;
                joined.push(Arc::new(shape));
            }
            stores.partitions.push((!joined.is_empty()).then_some(partitions));
            stores.shapes.push(joined);
        }
        Ok(stores)
    }

    /// A topic has got partitions since its records began to be counted: those that it had are processed as before.
    fn say_grown(&self, plan: &Plan, stage: &PlannedStage, changelog: &TopicSpec, partitions: u32) {
        tracing::error!(
            pipeline = plan.name,
            stage = stage.name,
            "its sources have {partitions} partitions, and what it keeps was made for {}: the others stay unread, as keys that \
             moved there would begin anew; give the stage a `key`, so that its records meet in a topic of the pipeline's \
             own, or begin anew with `millstream reset {}`",
            changelog.partitions,
            plan.name
        );
    }

    /// Whether a stage has kept something, by what stands beside the offsets of its sources.
    pub(super) fn has_kept(&self, plan: &Plan, stage: &PlannedStage) -> Result<bool, LogError> {
        for topic in stage.sources.iter().map(|&source| &plan.sources[source].topic) {
            for partition in 0..self.partitions(topic)? {
                let place = TopicPartition::new(topic.as_str(), partition);
                let committed = self.log.committed_with_metadata(&plan.group, &place)?;
                if committed.is_some_and(|(_, metadata)| has_kept(&metadata, &stage.name)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub(super) fn check_partitions(&self, plan: &Plan) -> Result<(), HostError> {
        for sources in &plan.subtopologies {
            let topics = || sources.iter().map(|&source| &plan.sources[source].topic);
            let Some(first) = topics().next() else { continue };
            for second in topics() {
                let (first_partitions, second_partitions) = (self.partitions(first)?, self.partitions(second)?);
                if first_partitions != second_partitions {
                    return Err(HostError::Partitions {
                        pipeline: plan.name.clone(),
                        first: first.clone(),
                        first_partitions,
                        second: second.clone(),
                        second_partitions,
                    });
                }
            }
        }
        Ok(())
    }
}
