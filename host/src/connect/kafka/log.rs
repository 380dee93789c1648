//! A cluster, as commands and hosts ask it.

use super::ClusterSettings;

/// A cluster.
pub struct KafkaLog {
    settings: ClusterSettings,
}

impl KafkaLog {
    /// How it is reached.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }
}
