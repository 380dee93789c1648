//! An engine as a host has it: its log, and what pipelines keep beside it.

use std::sync::{Arc, OnceLock};

use super::HostError;
use crate::connect::{EngineLog, TopicPartition, TopicRole};
use crate::guest::{Configured, GuestSink};
use crate::pipeline::{Plan, PlannedSource};
use crate::state::{Backend, Flusher, StateFolder};
use crate::task::PipelineRuntime;

/// A plugin as a stage configures it, with where its log lines go.
pub(super) type StagePlugin = (Configured, Arc<dyn GuestSink>);

/// An engine; see the module.
pub(super) struct EngineHost {
    pub log: Arc<dyn EngineLog>,
    pub(super) folder: Arc<StateFolder>,
    /// Opened with the first pipeline that keeps any state.
    backend: OnceLock<Backend>,
}

impl EngineHost {
    /// With the folder of the local store.
    pub fn new(log: Arc<dyn EngineLog>, folder: Arc<StateFolder>) -> EngineHost {
        EngineHost {
            log,
            folder,
            backend: OnceLock::new(),
        }
    }

    /// Makes the topics that are missing, and puts the pipeline together.
    ///
    /// # Errors
    /// Topics that were made stay.
    pub fn prepare(&self, plan: Plan, configured: Vec<StagePlugin>) -> Result<PipelineRuntime, HostError> {
        let named = |source: &&PlannedSource| source.repartition.is_none() && source.pattern.is_none();
        for source in plan.sources.iter().filter(named) {
            self.make_topic(&plan, &source.topic, source.partitions)?;
        }
        for (index, repartition) in plan.repartitions.iter().enumerate() {
            let partitions = plan.repartition_partitions(index, |source| self.source_partitions(source));
            let role = TopicRole::Repartition {
                pipeline: plan.name.clone(),
                stage: plan.stages[repartition.stage].name.clone(),
            };
            let topic = &plan.sources[repartition.source].topic;
            // What is there stays, though sources may have got partitions since: any number does.
            let there = self.partitions(topic);
            let partitions = match repartition.partitions {
                None if there > 0 => there,
                _ => partitions,
            };
            self.make_internal_topic(&plan, topic, partitions, role)?;
        }
        // Before the topics that it writes are made: they would get a number of partitions that is nobody's wish.
        self.check_partitions(&plan)?;
        self.make_sinks(&plan)?;
        let stores = self.make_stores(&plan)?;
        let backend = if stores.shapes.iter().all(Vec::is_empty) {
            None
        } else {
            Some(self.backend()?)
        };
        let (configured, logs) = configured.into_iter().unzip();
        let patterns: Vec<(String, u32)> = plan
            .sources
            .iter()
            .filter(|source| source.pattern.is_some())
            .map(|source| (source.topic.clone(), self.places(source).len() as u32))
            .collect();
        let partitions = |topic: &str| match patterns.iter().find(|(pattern, _)| pattern == topic) {
            Some((_, partitions)) => *partitions,
            None => self.partitions(topic),
        };
        Ok(PipelineRuntime::new(
            plan, configured, logs, stores, backend, partitions,
        )?)
    }

    /// How many partitions a topic has; 0 where it is not there.
    pub fn partitions(&self, topic: &str) -> u32 {
        self.log.topic(topic).map_or(0, |topic| topic.spec.partitions)
    }

    /// How many partitions a source has: where it is several topics, as many as the largest.
    pub fn source_partitions(&self, source: &PlannedSource) -> u32 {
        let places = self.places(source);
        places.iter().map(|place| place.partition + 1).max().unwrap_or(0)
    }

    /// All partitions of a source.
    pub fn places(&self, source: &PlannedSource) -> Vec<TopicPartition> {
        let of_topic = |topic: &str, partitions| {
            let place = |partition| TopicPartition::new(topic, partition);
            (0..partitions).map(place).collect::<Vec<_>>()
        };
        let Some(pattern) = &source.pattern else {
            return of_topic(&source.topic, self.partitions(&source.topic));
        };
        let topics = self.log.topics().unwrap_or_default();
        let matching = topics
            .iter()
            .filter(|topic| topic.spec.role.is_none() && pattern.matches(&topic.spec.name));
        matching
            .flat_map(|topic| of_topic(&topic.spec.name, topic.spec.partitions))
            .collect()
    }

    /// What state is kept with, where a pipeline that keeps any was started.
    pub fn backend_if_open(&self) -> Option<&Backend> {
        self.backend.get()
    }

    fn backend(&self) -> Result<Backend, HostError> {
        if let Some(backend) = self.backend.get() {
            return Ok(backend.clone());
        }
        let db = self.folder.db()?;
        let log = self.log.clone().changelogs();
        let flusher = Flusher::start(db.clone(), log.clone()).map_err(HostError::Thread)?;
        let backend = Backend {
            db,
            flusher: Arc::new(flusher),
            log,
        };
        Ok(self.backend.get_or_init(|| backend).clone())
    }

    /// Gives the local store back; what is not flushed is replayed.
    pub fn close(&self) {
        if let Some(backend) = self.backend.get() {
            backend.flusher.close();
        }
        self.folder.close();
    }
}
