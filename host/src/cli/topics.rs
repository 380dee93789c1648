//! `millstream topics`: list, create, describe and delete.

use clap::Subcommand;
use miette::IntoDiagnostic;

use super::table::{count, human_bytes, human_duration, human_time, plural, print};
use super::{Listing, OutputFormat};
use crate::connect::{self, Broker, TopicDescription, TopicSpec};
use crate::limits::PARTITIONS_MAX;
use crate::pipeline::{duration, size};

/// Arguments of `millstream topics`.
pub type Args = Listing<Action>;

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
        /// Drop records some time after this, as 7d or 12h [default: keep them]
        #[arg(long, value_name = "TIME", value_parser = read_duration)]
        retention: Option<std::time::Duration>,
        /// Drop the oldest records when more than this stays, as 10GB [default: keep them]
        #[arg(long, value_name = "SIZE", value_parser = read_size)]
        retention_size: Option<u64>,
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
/// Where the data folder or the topic cannot be used.
pub fn run(args: Args) -> miette::Result<()> {
    let dir = match args.action {
        Some(Action::Create { .. }) => &args.data.dir,
        _ => args.data.existing()?,
    };
    let broker = connect::open_broker(dir, connect::Options::default())?;
    match args.action {
        None | Some(Action::List) => list(&*broker, args.output.format),
        Some(Action::Create {
            topic,
            partitions,
            retention,
            retention_size,
        }) => {
            let spec = TopicSpec {
                name: topic,
                partitions,
                retention_ms: retention.map(|time| time.as_millis() as u64),
                retention_bytes: retention_size,
                role: None,
            };
            broker.create_topic(&spec).into_diagnostic()?;
            eprintln!(
                "made topic {} with {}",
                spec.name,
                plural(partitions.into(), "partition")
            );
            Ok(())
        }
        Some(Action::Describe { topic }) => describe(&broker.topic(&topic).into_diagnostic()?, args.output.format),
        Some(Action::Delete { topic }) => {
            let records = broker.topic(&topic).into_diagnostic().map(|topic| records(&topic))?;
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

fn list(broker: &dyn Broker, format: OutputFormat) -> miette::Result<()> {
    let topics = broker.topics().into_diagnostic()?;
    if format == OutputFormat::Json {
        return super::write_json(&topics);
    }
    let rows = topics.iter().map(|topic| {
        let bytes = topic.partition_ranges.iter().map(|range| range.bytes).sum();
        vec![
            topic.spec.name.clone(),
            topic.spec.partitions.to_string(),
            count(records(topic)),
            human_bytes(bytes),
            retention(&topic.spec),
        ]
    });
    print(&["topic", "partitions", "records", "size", "retention"], rows)
}

fn describe(topic: &TopicDescription, format: OutputFormat) -> miette::Result<()> {
    if format == OutputFormat::Json {
        return super::write_json(topic);
    }
    let (name, made) = (&topic.spec.name, human_time(topic.created_ms));
    super::write_out(format!("{name}: made {made}, retention {}\n\n", retention(&topic.spec)).as_bytes())?;
    let rows = topic.partition_ranges.iter().enumerate().map(|(partition, range)| {
        vec![
            partition.to_string(),
            range.first_offset.to_string(),
            range.next_offset.to_string(),
            count(range.next_offset - range.first_offset),
            human_bytes(range.bytes),
        ]
    });
    print(&["partition", "first offset", "next offset", "records", "size"], rows)
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

fn read_size(text: &str) -> Result<u64, String> {
    size(text).ok_or_else(|| "a number and a unit: B, kB, MB, GB, KiB, MiB or GiB, as `10GB`".into())
}
