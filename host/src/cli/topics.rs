//! `millstream topics`: list, create, describe and delete.

use clap::Subcommand;
use miette::IntoDiagnostic;

use super::state::{Store, fields_text, key_text};
use super::table::{count, human_bytes, human_duration, human_time, plural, print};
use super::{Listing, OutputFormat};
use crate::connect::kafka::CATALOG_TOPIC;
use crate::connect::{Broker, TopicDescription, TopicRole, TopicSettings, TopicSpec};
use crate::limits::PARTITIONS_MAX;
use crate::pipeline::{duration, size};

/// Arguments of `millstream topics`.
///
/// All topics are listed, as Kafka's tools do. Their kinds are: stream, everybody's; table, the changelog of a pipeline's
/// store (`millstream state` shows its rows); internal, records on their way to a stage that has a key.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    listing: Listing<Action>,
    /// Leave out the topics that pipelines keep for themselves: tables and internal ones
    #[arg(long, global = true)]
    exclude_internal: bool,
}

/// What it does beside listing them.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List all topics, as without a subcommand
    List,
    /// Make a topic
    Create {
        /// Its name: 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'
        topic: String,
        /// How many partitions it has
        #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = partitions())]
        partitions: u32,
        /// Drop records some time after this, as 7d or 12h [default: keep them; in a cluster as the brokers say]
        #[arg(long, value_name = "TIME", value_parser = read_duration)]
        retention: Option<std::time::Duration>,
        /// Drop the oldest records when more than this stays, as 10GB [default: as above]
        #[arg(long, value_name = "SIZE", value_parser = read_size)]
        retention_size: Option<u64>,
        /// In a Kafka cluster: how many brokers have a copy [default: as the brokers say]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        replication: Option<u16>,
        /// In a Kafka cluster: a setting of the topic, by Kafka's name (repeat for more)
        #[arg(long = "set", visible_alias = "config", value_name = "NAME=VALUE", value_parser = read_pair)]
        settings: Vec<(String, String)>,
    },
    /// Show one topic's partitions
    Describe {
        /// Its name
        topic: String,
    },
    /// Drop a topic, its records, and the groups' offsets in it
    Delete {
        /// Its name
        topic: String,
    },
}

/// # Errors
/// Where the data or the topic cannot be used.
pub fn run(args: Args) -> miette::Result<()> {
    let Args {
        listing: args,
        exclude_internal,
    } = args;
    let broker = match args.action {
        Some(Action::Create { .. }) => args.engine.open()?,
        _ => args.engine.open_existing()?,
    };
    match args.action {
        None | Some(Action::List) => list(&*broker, args.output.format, exclude_internal),
        Some(Action::Create {
            topic,
            partitions,
            retention,
            retention_size,
            replication,
            settings,
        }) => {
            let spec = TopicSpec {
                name: topic,
                partitions,
                retention_ms: retention.map(|time| time.as_millis() as u64),
                retention_bytes: retention_size,
                role: None,
            };
            let settings = TopicSettings {
                replication,
                properties: settings.into_iter().collect(),
            };
            broker.make_topic(&spec, &settings).into_diagnostic()?;
            eprintln!(
                "made topic {} with {}",
                spec.name,
                plural(partitions.into(), "partition")
            );
            Ok(())
        }
        Some(Action::Describe { topic }) => describe(&broker.topic(&topic).into_diagnostic()?, args.output.format),
        Some(Action::Delete { topic }) => {
            let described = broker.topic(&topic).into_diagnostic()?;
            if let Some(role) = &described.spec.role {
                return Err(miette::miette!(
                    help = format!(
                        "`millstream reset {}` deletes what the pipeline keeps, and begins anew",
                        role.pipeline()
                    ),
                    "the topic {topic:?} is the pipeline {:?}'s own: without it the pipeline cannot go on",
                    role.pipeline()
                ));
            }
            let records = records(&described);
            broker.delete_topic(&topic).into_diagnostic()?;
            eprintln!("deleted topic {topic} with {}", plural(records, "record"));
            Ok(())
        }
    }
}

fn records(topic: &TopicDescription) -> u64 {
    topic
        .partition_ranges
        .iter()
        .map(|range| range.next_offset - range.first_offset)
        .sum()
}

fn list(broker: &dyn Broker, format: OutputFormat, exclude_internal: bool) -> miette::Result<()> {
    let mut topics = broker.topics().into_diagnostic()?;
    if exclude_internal {
        topics.retain(|topic| kind(&topic.spec) == "stream");
    }
    if format == OutputFormat::Json {
        let topics: Vec<_> = topics.iter().map(with_kind).collect::<miette::Result<_>>()?;
        return super::write_json(&topics);
    }
    let rows = topics.iter().map(|topic| {
        let bytes: Option<u64> = topic.partition_ranges.iter().map(|range| range.bytes).sum();
        vec![
            topic.spec.name.clone(),
            kind(&topic.spec).to_owned(),
            topic.spec.partitions.to_string(),
            count(records(topic)),
            bytes.map(human_bytes).unwrap_or_default(),
            retention(&topic.spec),
        ]
    });
    print(&["topic", "kind", "partitions", "records", "size", "retention"], rows)
}

fn describe(topic: &TopicDescription, format: OutputFormat) -> miette::Result<()> {
    if format == OutputFormat::Json {
        return super::write_json(&with_kind(topic)?);
    }
    let made = topic.created_ms.map(|made| format!("made {}, ", human_time(made)));
    let (name, made) = (&topic.spec.name, made.unwrap_or_default());
    super::write_out(format!("{name}: {made}retention {}\n", retention(&topic.spec)).as_bytes())?;
    super::write_out(settings(&topic.settings).as_bytes())?;
    super::write_out(format!("{}\n", role(topic)).as_bytes())?;
    let rows = topic.partition_ranges.iter().enumerate().map(|(partition, range)| {
        vec![
            partition.to_string(),
            range.first_offset.to_string(),
            range.next_offset.to_string(),
            count(range.next_offset - range.first_offset),
            range.bytes.map(human_bytes).unwrap_or_default(),
        ]
    });
    print(&["partition", "first offset", "next offset", "records", "size"], rows)
}

/// What a topic is to those who look at it.
fn kind(spec: &TopicSpec) -> &'static str {
    match spec.role.as_deref() {
        // Of Kafka's own, and the list of what pipelines have here.
        None if spec.name.starts_with("__") || spec.name == CATALOG_TOPIC => "internal",
        None => "stream",
        Some(TopicRole::Changelog { .. }) => "table",
        Some(TopicRole::Repartition { .. }) => "internal",
    }
}

fn with_kind(topic: &TopicDescription) -> miette::Result<serde_json::Value> {
    let mut value = serde_json::to_value(topic).into_diagnostic()?;
    value["kind"] = kind(&topic.spec).into();
    Ok(value)
}

/// What a pipeline has a topic for, by the line.
fn role(topic: &TopicDescription) -> String {
    if let Some(TopicRole::Repartition { pipeline, stage }) = topic.spec.role.as_deref() {
        return format!(
            "internal: records on their way to the stage {stage} of the pipeline {pipeline}, by its key; what it has \
             read is dropped\n"
        );
    }
    let Some(store) = Store::of(topic.clone()) else {
        return String::new();
    };
    let mut text = format!(
        "table: the changelog of the store {} of the pipeline {}; `millstream state {} {}` shows its rows\n",
        store.label(),
        store.pipeline(),
        store.pipeline(),
        store.label()
    );
    if let Some(schema) = store.schema() {
        text += &format!("  key    {}\n", key_text(schema));
        text += &format!("  value  {}\n", fields_text(&schema.value));
        if schema.window_size_ms.is_some() && schema.window_grace_ms > 0 {
            text += &format!("  grace  {}\n", human_duration(schema.window_grace_ms.unsigned_abs()));
        }
        if schema.time_to_live_ms > 0 {
            text += &format!(
                "  lives  {} from when a row was written\n",
                human_duration(schema.time_to_live_ms)
            );
        }
    }
    text
}

/// How a cluster keeps a topic, by the line.
fn settings(settings: &TopicSettings) -> String {
    let copies = settings.replication.map(|copies| format!("replication {copies}"));
    let properties = settings
        .properties
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let said: Vec<String> = copies.into_iter().chain(properties).collect();
    if said.is_empty() {
        return String::new();
    }
    format!("  {}\n", said.join(", "))
}

fn retention(spec: &TopicSpec) -> String {
    let time = spec.retention_ms.map(human_duration);
    let size = spec.retention_bytes.map(human_bytes);
    match (time, size) {
        (None, None) => "all".into(),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(time), Some(size)) => format!("{time}, {size}"),
    }
}

/// What a topic's number of partitions may be.
pub(super) fn partitions() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(PARTITIONS_MAX))
}

fn read_duration(text: &str) -> Result<std::time::Duration, String> {
    duration(text).ok_or_else(|| "a number and a unit: ms, s, m, h or d, as `7d`".into())
}

/// A name and a value.
pub(super) fn read_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("a name and a value, as `linger.ms=5`".into()),
    }
}

fn read_size(text: &str) -> Result<u64, String> {
    size(text).ok_or_else(|| "a number and a unit: B, kB, MB, GB, KiB, MiB or GiB, as `10GB`".into())
}
