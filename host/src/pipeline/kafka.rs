//! The section `[kafka]`: how a pipeline's cluster is reached, and what it makes there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::Spanned;
use super::config::Config;
use super::declare::Engine;
use super::draft::Drafter;
use super::problem::Problem;
use super::walk::{self, Fields};
use crate::connect::TopicSettings;
use crate::limits::SESSION_TIMEOUT;

/// How a pipeline uses a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaEngine {
    /// `HOST:PORT`, several with commas between them; `None`: where the command says.
    pub bootstrap: Option<String>,
    /// Properties of librdkafka, by its names.
    pub properties: BTreeMap<String, String>,
    /// Whether topics that are missing are made; else that is an error. Those of its own are made in any case.
    pub makes_topics: bool,
    /// How topics are made.
    pub topics: TopicSettings,
    /// After so long without a sign of life a host's partitions are given to others.
    pub session_timeout: Duration,
}

impl Default for KafkaEngine {
    fn default() -> KafkaEngine {
        KafkaEngine {
            bootstrap: None,
            properties: BTreeMap::new(),
            makes_topics: true,
            topics: TopicSettings::default(),
            session_timeout: SESSION_TIMEOUT,
        }
    }
}

impl std::fmt::Debug for KafkaEngine {
    /// Without the values of properties, which may be passwords.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KafkaEngine")
            .field("bootstrap", &self.bootstrap)
            .field("properties", &self.properties.keys())
            .field("makes_topics", &self.makes_topics)
            .field("topics", &self.topics)
            .field("session_timeout", &self.session_timeout)
            .finish()
    }
}

/// Properties that the host sets by itself, as what it promises depends on them, with what is to be said instead.
const OURS: [(&str, &str); 10] = [
    ("bootstrap.servers", "write `bootstrap = \"…\"` in `[kafka]`"),
    ("metadata.broker.list", "write `bootstrap = \"…\"` in `[kafka]`"),
    ("group.id", "the group is called as the pipeline: give that a `name`"),
    ("transactional.id", "each host has ids of its own"),
    ("enable.auto.commit", "write `interval = \"…\"` in `[commit]`"),
    (
        "enable.auto.offset.store",
        "offsets are committed with what came of their records",
    ),
    ("isolation.level", "what is not committed is never read"),
    ("auto.offset.reset", "use `millstream reset`"),
    ("partition.assignment.strategy", "it follows from the pipeline"),
    ("session.timeout.ms", "write `session-timeout = \"…\"` in `[kafka]`"),
];

impl Drafter<'_> {
    /// The engine of this name, with its section.
    pub(super) fn engine(&mut self, name: Option<Spanned<String>>, section: Option<Spanned<Fields>>) -> Engine {
        let is_kafka = name.as_ref().is_some_and(|name| name.value == "kafka");
        match (is_kafka, section) {
            (false, None) => Engine::Embedded,
            (false, Some(section)) => {
                let message = "`[kafka]` says how a cluster is reached, but the engine is the embedded log";
                let problem = Problem::new(section.span, message);
                self.problems
                    .push(problem.help("write `engine = \"kafka\"` at the top of the file, or remove the section"));
                Engine::Embedded
            }
            (true, section) => Engine::Kafka(Box::new(self.kafka(section.map(|section| section.value)))),
        }
    }

    fn kafka(&mut self, fields: Option<Fields>) -> KafkaEngine {
        let mut engine = KafkaEngine::default();
        let Some(mut fields) = fields else { return engine };
        engine.bootstrap = fields.text("bootstrap").map(|bootstrap| bootstrap.value);
        engine.makes_topics = fields.flag("create-topics").unwrap_or(true);
        engine.topics.replication = fields.count("replication").map(|replication| replication as u16);
        engine.session_timeout = fields.duration("session-timeout").unwrap_or(engine.session_timeout);
        if let Some(properties) = fields.take("properties") {
            engine.properties = self.properties(&properties);
            for (name, instead) in OURS.iter().filter(|(name, _)| engine.properties.contains_key(*name)) {
                let message = format!("the property `{name}` is set by the host");
                self.problems
                    .push(Problem::new(properties.span.clone(), message).help(*instead));
            }
        }
        if let Some(properties) = fields.take("topic-properties") {
            engine.topics.properties = self.properties(&properties);
        }
        engine
    }

    /// A table of names with dots, which TOML reads as tables in tables where they are not quoted.
    fn properties(&mut self, table: &Spanned<walk::Value>) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        if let walk::Value::Free(config) = &table.value
            && let Err(name) = flatten(config, &mut found)
        {
            let problem = Problem::new(table.span.clone(), format!("the property `{name}` is an array or null"));
            self.problems
                .push(problem.help("a property is a string, a number or a boolean; lists are strings with commas"));
        }
        found
    }
}

/// The texts of all values, by their names.
fn flatten(config: &Config, found: &mut BTreeMap<String, String>) -> Result<(), String> {
    let value: Value = serde_json::from_str(config.json()).unwrap_or_default();
    let mut waiting = vec![(String::new(), value)];
    while let Some((name, value)) = waiting.pop() {
        match value {
            Value::Object(members) => waiting.extend(members.into_iter().map(|(member, value)| {
                let dot = if name.is_empty() { "" } else { "." };
                (format!("{name}{dot}{member}"), value)
            })),
            Value::String(text) => {
                found.insert(name, text);
            }
            Value::Number(number) => {
                found.insert(name, number.to_string());
            }
            Value::Bool(word) => {
                found.insert(name, word.to_string());
            }
            Value::Array(_) | Value::Null => return Err(name),
        }
    }
    Ok(())
}
