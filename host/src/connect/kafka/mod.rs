//! Kafka as the engine: topics, groups and transactions of a cluster. The only place that names rdkafka.
//!
//! [`KafkaLog`] is what commands and hosts ask of a cluster. A host's [`KafkaCluster`] runs pipelines on it: each is a
//! [`Member`] of its group, reads its partitions through queues of their own, and commits through [`Transactions`]. What
//! pipelines keep for themselves has a [`Catalog`], and stores have [`KafkaChangelogs`].

mod admin;
mod catalog;
mod changelog;
mod cluster;
mod context;
mod errors;
mod log;
mod member;
mod native;
mod places;
mod reader;
mod readers;
mod recent;
mod restorer;
mod settings;
mod sources;
mod transactions;

pub use catalog::{CATALOG_TOPIC, Catalog};
pub use changelog::{KafkaChangelogs, changelog_settings};
pub use cluster::{ClusterError, KafkaCluster};
pub use context::Trouble;
pub use log::KafkaLog;
pub use member::{Member, MemberSpec, Members};
pub use settings::ClusterSettings;
pub use sources::KafkaSources;
pub use transactions::{PRODUCERS_MAX, Transactions};
