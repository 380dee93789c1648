//! An engine as a host has it: its log, and what pipelines keep beside it.

use std::sync::{Arc, OnceLock};

use super::HostError;
use crate::connect::{EngineLog, TopicRole};
use crate::guest::{Configured, GuestSink};
use crate::pipeline::Plan;
use crate::state::{Backend, Flusher, StateFolder};
use crate::task::PipelineRuntime;

/// A plugin as a stage configures it, with where its log lines go.
pub(super) type StagePlugin = (Configured, Arc<dyn GuestSink>);

/// An engine; see the module.
pub(super) struct EngineHost {
    pub log: Arc<dyn EngineLog>,
    folder: Arc<StateFolder>,
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
        for source in plan.sources.iter().filter(|source| source.repartition.is_none()) {
            self.make_topic(&plan, &source.topic, source.partitions)?;
        }
        for (index, repartition) in plan.repartitions.iter().enumerate() {
            let partitions = plan.repartition_partitions(index, |source| self.partitions(&source.topic));
            let role = TopicRole::Repartition {
                pipeline: plan.name.clone(),
                stage: plan.stages[repartition.stage].name.clone(),
            };
            let topic = &plan.sources[repartition.source].topic;
            self.make_internal_topic(&plan, topic, partitions, role)?;
        }
        // Before the topics that it writes are made: they would get a number of partitions that is nobody's wish.
        self.check_partitions(&plan)?;
        self.make_sinks(&plan)?;
        let stores = self.make_stores(&plan)?;
        let backend = if stores.iter().all(Vec::is_empty) {
            None
        } else {
            Some(self.backend()?)
        };
        let (configured, logs) = configured.into_iter().unzip();
        let partitions = |topic: &str| self.partitions(topic);
        Ok(PipelineRuntime::new(
            plan, configured, logs, stores, backend, partitions,
        )?)
    }

    /// How many partitions a topic has; 0 where it is not there.
    pub fn partitions(&self, topic: &str) -> u32 {
        self.log.topic(topic).map_or(0, |topic| topic.spec.partitions)
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
