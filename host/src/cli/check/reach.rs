//! What a pipeline needs of its engine, held against what is there: topics, partitions, rights.

use std::collections::BTreeSet;

use miette::{IntoDiagnostic, miette};

use super::super::engine::{self, Engine as EngineArgs, Place};
use super::super::table::{plural, print};
use crate::connect::{LogError, OpenBroker, TopicDescription};
use crate::pipeline::{Engine, Plan, PlannedSource};

/// What a topic is to a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Source,
    Sink,
    DeadLetters,
}

impl Use {
    fn name(self) -> &'static str {
        match self {
            Use::Source => "source",
            Use::Sink => "sink",
            Use::DeadLetters => "dead letters",
        }
    }

    /// The right that it takes, by Kafka's name.
    fn right(self) -> &'static str {
        match self {
            Use::Source => "READ",
            Use::Sink | Use::DeadLetters => "WRITE",
        }
    }
}

/// What was found of one topic.
struct Found {
    used: Use,
    topic: String,
    /// None where it is not there.
    partitions: Option<u32>,
    said: String,
    /// The pipeline cannot run so.
    wrong: bool,
}

/// Looks at the engine of each pipeline, and says what is there. Data goes to stdout.
///
/// # Errors
/// Where an engine cannot be used, and where something is missing that nobody makes: after all of it was said.
pub fn look(plans: &[Plan], args: &EngineArgs) -> miette::Result<()> {
    let clusters = args.clusters()?;
    let mut opened: Vec<(Place, OpenBroker)> = Vec::new();
    let mut wrong = 0;
    for plan in plans {
        let place = match &plan.engine {
            Engine::Embedded => Place::Folder(args.folder()),
            Engine::Kafka(kafka) => Place::Cluster(clusters.settings(&plan.name, kafka)?),
        };
        let found = match &place {
            // Looking must not make it.
            Place::Folder(dir) if !dir.exists() => look_at(plan, None)?,
            place => {
                if opened.iter().all(|(other, _)| other != place) {
                    opened.push((place.clone(), engine::open(place)?));
                }
                let broker = opened.iter().find(|(other, _)| other == place);
                look_at(plan, broker.map(|(_, broker)| broker))?
            }
        };
        wrong += found.iter().filter(|found| found.wrong).count();
        super::super::write_out(format!("{} on {place}\n", plan.name).as_bytes())?;
        print(&["topic", "is", "partitions", "state"], found.iter().map(row))?;
    }
    match wrong {
        0 => Ok(()),
        count => Err(miette!(
            help = "see the table: what is missing is made with `millstream topics create`, what is not allowed is granted \
                    by whoever runs the cluster",
            "{} cannot be used so",
            plural(count as u64, "topic")
        )),
    }
}

fn row(found: &Found) -> Vec<String> {
    vec![
        found.topic.clone(),
        found.used.name().to_owned(),
        found
            .partitions
            .map_or_else(String::new, |partitions| partitions.to_string()),
        found.said.clone(),
    ]
}

fn look_at(plan: &Plan, broker: Option<&OpenBroker>) -> miette::Result<Vec<Found>> {
    let mut found = Vec::new();
    for source in plan.sources.iter().filter(|source| source.repartition.is_none()) {
        found.extend(sources(plan, source, broker)?);
    }
    let sinks: BTreeSet<&str> = plan.written_topics().map(|sink| sink.topic.as_str()).collect();
    for topic in sinks {
        // No branch leads there too.
        let used = if topic == plan.dlq.topic {
            Use::DeadLetters
        } else {
            Use::Sink
        };
        found.push(look_for(plan, used, topic, broker)?);
    }
    meet(plan, &mut found);
    Ok(found)
}

fn sources(plan: &Plan, source: &PlannedSource, broker: Option<&OpenBroker>) -> miette::Result<Vec<Found>> {
    let Some(pattern) = &source.pattern else {
        return Ok(vec![look_for(plan, Use::Source, &source.topic, broker)?]);
    };
    let topics = match broker {
        Some(broker) => broker.topics().into_diagnostic()?,
        None => Vec::new(),
    };
    let matching = topics.iter().filter(|topic| pattern.matches(&topic.spec.name));
    let names: Vec<&str> = matching.map(|topic| topic.spec.name.as_str()).collect();
    if names.is_empty() {
        return Ok(vec![Found {
            used: Use::Source,
            topic: source.topic.clone(),
            partitions: None,
            said: "no topic matches it yet".into(),
            wrong: false,
        }]);
    }
    names
        .into_iter()
        .map(|name| look_for(plan, Use::Source, name, broker))
        .collect()
}

fn look_for(plan: &Plan, used: Use, topic: &str, broker: Option<&OpenBroker>) -> miette::Result<Found> {
    let described = match broker.map(|broker| broker.topic(topic)) {
        None | Some(Err(LogError::UnknownTopic { .. })) => None,
        Some(Ok(described)) => Some(described),
        Some(Err(error)) => {
            return Ok(Found {
                used,
                topic: topic.to_owned(),
                partitions: None,
                said: error.to_string(),
                wrong: true,
            });
        }
    };
    let Some(described) = described else {
        let makes = match &plan.engine {
            Engine::Embedded => true,
            Engine::Kafka(kafka) => kafka.makes_topics,
        };
        return Ok(Found {
            used,
            topic: topic.to_owned(),
            partitions: None,
            said: if makes {
                "not there: `run` makes it".into()
            } else {
                "not there, and the file says `create-topics = false`".into()
            },
            wrong: !makes,
        });
    };
    let (said, wrong) = judge(plan, used, &described, broker);
    Ok(Found {
        used,
        topic: topic.to_owned(),
        partitions: Some(described.spec.partitions),
        said,
        wrong,
    })
}

/// What is to be said of a topic that is there, and whether the pipeline cannot run so.
fn judge(plan: &Plan, used: Use, topic: &TopicDescription, broker: Option<&OpenBroker>) -> (String, bool) {
    if let Some(role) = topic.spec.role.as_deref().filter(|role| role.pipeline() != plan.name) {
        return (format!("it is the pipeline {:?}'s own", role.pipeline()), true);
    }
    let Some(cluster) = broker.and_then(OpenBroker::cluster) else {
        return ("there".into(), false);
    };
    match cluster.topic_rights(&topic.spec.name) {
        Err(error) => (error.to_string(), true),
        Ok(None) => ("there; the broker does not say what may be done with it".into(), false),
        Ok(Some(rights)) if rights.iter().any(|right| right == used.right() || right == "ALL") => {
            ("there".into(), false)
        }
        Ok(Some(_)) => (
            format!("there, without the right to {}", used.right().to_lowercase()),
            true,
        ),
    }
}

/// Sources that meet in a stage have the same number of partitions.
fn meet(plan: &Plan, found: &mut [Found]) {
    for together in plan.subtopologies.iter().filter(|sources| sources.len() > 1) {
        let topics: Vec<&str> = together
            .iter()
            .map(|&source| plan.sources[source].topic.as_str())
            .collect();
        let partitions = |found: &[Found], topic: &str| {
            let of_topic = found
                .iter()
                .find(|found| found.used == Use::Source && found.topic == topic);
            of_topic.and_then(|found| found.partitions)
        };
        let mut known = topics
            .iter()
            .filter_map(|topic| Some((*topic, partitions(found, topic)?)));
        let Some((first, count)) = known.next() else { continue };
        let others: Vec<String> = known
            .filter(|(_, other)| *other != count)
            .map(|(topic, _)| topic.to_owned())
            .collect();
        for found in found.iter_mut().filter(|found| others.contains(&found.topic)) {
            found.said = format!(
                "meets {first} in a stage, which has {}",
                plural(count.into(), "partition")
            );
            found.wrong = true;
        }
    }
}
