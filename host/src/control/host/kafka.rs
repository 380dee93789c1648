//! A cluster that pipelines of this host run on.

use std::path::Path;
use std::sync::Arc;

use super::HostError;
use super::engine::{EngineHost, StagePlugin};
use super::purge::Purger;
use super::running::Running;
use super::tasks::PipelineTasks;
use crate::connect::kafka::{ClusterSettings, KafkaCluster, KafkaLog, MemberSpec};
use crate::pipeline::{Guarantee, KafkaEngine, Plan, PlannedSource};
use crate::state::{STATE_FOLDER, StateFolder};
use crate::task::Scheduler;

/// A cluster with what this host keeps beside it.
pub(super) struct KafkaHost {
    pub engine: EngineHost,
    cluster: KafkaCluster,
    purger: Purger,
}

impl KafkaHost {
    /// Finds the cluster, and takes a folder for it in the data folder.
    ///
    /// # Errors
    /// Where no broker answers, and where no folder can be had.
    pub fn open(settings: &ClusterSettings, data_dir: &Path) -> Result<KafkaHost, HostError> {
        let log = KafkaLog::open(settings.clone())?;
        let cluster = KafkaCluster::open(&log, data_dir)?;
        let folder = StateFolder::new(cluster.folder().join(STATE_FOLDER));
        Ok(KafkaHost {
            purger: Purger::new(log.clone()),
            engine: EngineHost::new(log, Arc::new(folder)),
            cluster,
        })
    }

    /// Makes the pipeline a member of its group: tasks start as partitions become its.
    ///
    /// # Errors
    /// Topics that were made stay.
    pub fn start(
        &self,
        plan: Plan,
        kafka: &KafkaEngine,
        configured: Vec<StagePlugin>,
        scheduler: Arc<Scheduler>,
    ) -> Result<Running, HostError> {
        let spec = MemberSpec {
            group: plan.group.clone(),
            topics: plan.sources.iter().map(subscription).collect(),
            together: plan.subtopologies.iter().any(|sources| sources.len() > 1),
            exactly_once: plan.guarantee() == Guarantee::ExactlyOnce,
            session_timeout: kafka.session_timeout,
        };
        let runtime = Arc::new(self.engine.prepare(plan, configured)?);
        let member = self.cluster.join(&spec)?;
        let tasks = PipelineTasks::new(runtime, member.sources(), scheduler);
        self.purger.look_after(&tasks).map_err(HostError::Thread)?;
        member.begin(tasks.clone());
        Ok(Running::of_member(tasks, member))
    }

    /// Ends its threads, and gives the local store back. Members have left.
    pub fn close(&self) {
        self.purger.close();
        self.cluster.close();
        self.engine.close();
    }
}

/// A source as a member of a group names it.
fn subscription(source: &PlannedSource) -> String {
    match &source.pattern {
        Some(pattern) => format!("^({pattern})$"),
        None => source.topic.clone(),
    }
}

/// Clusters that a command names beside the pipeline files.
#[derive(Clone, Debug, Default)]
pub struct Clusters {
    /// Used in place of what files say.
    pub named: Option<ClusterSettings>,
    /// Used where a file says nothing.
    pub usual: Option<ClusterSettings>,
}

impl Clusters {
    /// How the cluster of a pipeline is reached. Properties of the file are added to those of the command.
    ///
    /// # Errors
    /// Where nobody says where it is.
    pub fn settings(&self, pipeline: &str, kafka: &KafkaEngine) -> Result<ClusterSettings, HostError> {
        let of_file = kafka.bootstrap.as_ref().map(|bootstrap| ClusterSettings {
            bootstrap: bootstrap.clone(),
            properties: Default::default(),
        });
        let found = self.named.clone().or(of_file).or_else(|| self.usual.clone());
        let mut settings = found.ok_or_else(|| HostError::NoCluster {
            pipeline: pipeline.to_owned(),
        })?;
        for (name, value) in &kafka.properties {
            settings.properties.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Ok(settings)
    }
}
