#![doc = include_str!("README.md")]

mod catalog;
mod check;
mod config;
mod declare;
mod draft;
mod drawing;
mod exit;
mod explain;
mod flow;
mod grammar;
mod json_schema;
mod kafka;
mod keys;
mod known;
mod pattern;
mod plan;
mod planner;
mod problem;
mod quantity;
mod shape;
mod spanned;
mod stage;
#[cfg(test)]
mod tests;
mod topic;
mod variable;
mod walk;
mod wiring;

pub use catalog::{Catalog, CatalogError, Concern, Described};
pub use check::{check, load};
pub use config::Config;
pub use declare::{Commit, Destination, Dlq, Engine, Guarantee, Pipeline, Sink, Source, Stage, StageInput};
pub use explain::{Explanation, explain};
pub use json_schema::json_schema;
pub use kafka::KafkaEngine;
pub use pattern::TopicPattern;
pub use plan::{
    Feed, Origin, Plan, PlannedBranch, PlannedSink, PlannedSource, PlannedStage, Repartition, RepartitionFeed,
    StageEntry, StateLimits, WINDOW_BOUNDS,
};
pub use problem::{Label, Problem, Report};
pub(crate) use problem::{nearest, suggest};
pub use quantity::{duration, size};
pub use spanned::{Span, Spanned};
pub use topic::{changelog_topic, check_topic_name, repartition_topic};
pub use variable::Environment;
pub(crate) use variable::expand;
