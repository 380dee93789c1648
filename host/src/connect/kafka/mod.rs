//! Kafka as the engine: topics, groups and transactions of a cluster. The only place that names rdkafka.
//!
//! [`KafkaLog`] is what commands and hosts ask of a cluster. What pipelines keep for themselves has a [`Catalog`], and
//! stores have [`KafkaChangelogs`].

mod catalog;
mod changelog;
mod log;
mod reader;
mod recent;
mod restorer;
mod settings;

pub use catalog::{CATALOG_TOPIC, Catalog};
pub use changelog::{KafkaChangelogs, changelog_settings};
pub use log::KafkaLog;
pub use settings::ClusterSettings;
