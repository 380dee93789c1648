//! An engine as a host has it: its log, and what pipelines keep beside it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::HostError;
use crate::connect::{EngineLog, LogError, TopicPartition, TopicRole, TopicSpec};
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
        let of_sources = self.partitions_of_sources(&plan)?;
        for (index, repartition) in plan.repartitions.iter().enumerate() {
            let partitions = plan.repartition_partitions(index, |source| of_sources[&source.topic]);
            let role = TopicRole::Repartition {
                pipeline: plan.name.clone(),
                stage: plan.stages[repartition.stage].name.clone(),
            };
            let topic = &plan.sources[repartition.source].topic;
            // What is there stays, though sources may have got partitions since: any number does.
            let there = self.partitions(topic)?;
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
        let mut counts = BTreeMap::new();
        for source in &plan.sources {
            counts.insert(source.topic.clone(), self.places(source)?.len() as u32);
        }
        for topic in plan.written_topics().map(|sink| &sink.topic) {
            counts.insert(topic.clone(), self.partitions(topic)?);
        }
        let partitions = |topic: &str| counts.get(topic).copied().unwrap_or(0);
        Ok(PipelineRuntime::new(
            plan, configured, logs, stores, backend, partitions,
        )?)
    }

    /// A topic, where it is there.
    ///
    /// # Errors
    /// Where the log does not say.
    pub fn find(&self, topic: &str) -> Result<Option<TopicSpec>, LogError> {
        match self.log.topic(topic) {
            Ok(found) => Ok(Some(found.spec)),
            Err(LogError::UnknownTopic { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many partitions a topic has; 0 where it is not there.
    ///
    /// # Errors
    /// As [`EngineHost::find`].
    pub fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        Ok(self.find(topic)?.map_or(0, |spec| spec.partitions))
    }

    /// How many partitions each source has, by its topic: where it is several topics, as many as the largest.
    ///
    /// # Errors
    /// As [`EngineHost::find`].
    pub fn partitions_of_sources(&self, plan: &Plan) -> Result<BTreeMap<String, u32>, LogError> {
        let mut counts = BTreeMap::new();
        for source in &plan.sources {
            let most = self.places(source)?.iter().map(|place| place.partition + 1).max();
            counts.insert(source.topic.clone(), most.unwrap_or(0));
        }
        Ok(counts)
    }

    /// All partitions of a source.
    ///
    /// # Errors
    /// As [`EngineHost::find`].
    pub fn places(&self, source: &PlannedSource) -> Result<Vec<TopicPartition>, LogError> {
        let of_topic = |topic: &str, partitions| {
            let place = |partition| TopicPartition::new(topic, partition);
            (0..partitions).map(place).collect::<Vec<_>>()
        };
        let Some(pattern) = &source.pattern else {
            return Ok(of_topic(&source.topic, self.partitions(&source.topic)?));
        };
        let topics = self.log.topics()?;
        let matching = topics
            .iter()
            .filter(|topic| topic.spec.role.is_none() && pattern.matches(&topic.spec.name));
        Ok(matching
            .flat_map(|topic| of_topic(&topic.spec.name, topic.spec.partitions))
            .collect())
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
