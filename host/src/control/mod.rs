//! A host at work: pipelines are started and stopped here, and asked how they are. Nothing here touches a record.

mod catalog;
mod host;

pub use catalog::PluginCatalog;
pub use host::{Clusters, Host, HostError, HostOptions, PipelineState};
