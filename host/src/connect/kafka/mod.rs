//! Kafka as the engine: topics, groups and transactions of a cluster. The only place that names rdkafka.
//!
//! [`KafkaLog`] is what commands and hosts ask of a cluster.

mod log;
mod settings;

pub use log::KafkaLog;
pub use settings::ClusterSettings;
