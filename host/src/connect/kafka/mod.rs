//! Kafka as the engine: topics, groups and transactions of a cluster. The only place that names rdkafka.
//!
//! [`KafkaLog`] is what commands and hosts ask of a cluster. A host's [`KafkaCluster`] runs pipelines on it: each is a
//! [`Member`] of its group, reads its partitions through queues of their own, and commits through [`Transactions`].

mod cluster;
mod context;
mod errors;
mod log;
mod member;
mod native;
mod settings;
mod sources;
mod transactions;

pub use cluster::{ClusterError, KafkaCluster};
pub use context::Trouble;
pub use log::KafkaLog;
pub use member::{Member, MemberSpec, Members};
pub use settings::ClusterSettings;
pub use sources::KafkaSources;
pub use transactions::{PRODUCERS_MAX, Transactions};
