//! `millstream reset`: a pipeline begins anew.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::sync::Arc;

use miette::{IntoDiagnostic, miette};

use super::engine::Engine;
use super::from::From;
use super::state::Store;
use super::table::{count, plural, print};
use crate::connect::{GroupDescription, GroupOffset, OpenBroker, TopicDescription, TopicPartition, TopicRole};
use crate::pipeline::suggest;

/// Arguments of `millstream reset`.
///
/// Says what it will do, asks, and does it: the sources are read again from another place, and what the pipeline keeps is
/// dropped. What it has written to its outputs stays, and comes again behind that.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The local stores go first; then, in one commit, changelogs and internal topics go and the offsets move. \
    Whatever ends it in between, running it again finishes it, and until then nothing is lost: the stores are made again \
    from their changelogs, or the pipeline says that it has to be reset.\n\n\
    A pipeline that runs has to be stopped first. Exits with 1 where nothing was done."
)]
pub struct Args {
    /// The pipeline's name, which is its consumer group's too
    pipeline: String,
    /// Where its sources are read from: start, end, @OFFSET, a time ago like -1h, or a time like 2024-05-01T12:00:00Z
    #[arg(long, value_name = "PLACE", default_value = "start", allow_hyphen_values = true)]
    to: From,
    /// Keep stores, windows and internal topics: only the sources' offsets move, and what is read again counts again
    #[arg(long)]
    keep_state: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    engine: Engine,
}

/// # Errors
/// Where the pipeline runs or is not known, where nobody agreed, and where the data cannot be used.
pub fn run(args: Args) -> miette::Result<()> {
    let broker = args.engine.open_existing()?;
    if broker.state().running()?.contains(&args.pipeline) {
        return Err(miette!(
            help = "stop that `millstream run` first: Ctrl-C, or SIGTERM to its process",
            "the pipeline {:?} runs in the host that holds {}",
            args.pipeline,
            args.engine.folder().display()
        ));
    }
    let plan = Plan::make(&broker, &args)?;
    plan.show(&args)?;
    if plan.is_empty() {
        eprintln!("nothing to do");
        return Ok(());
    }
    if !args.yes && !agreed()? {
        return Err(miette!("nothing was done"));
    }
    plan.carry_out(&broker)?;
    eprintln!("{} is reset: its next run begins there", args.pipeline);
    Ok(())
}

fn agreed() -> miette::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(miette!(
            help = "say --yes where nobody can be asked",
            "nothing was done: there is no terminal to ask on"
        ));
    }
    eprint!("\nDo it? [y/N] ");
    std::io::stderr().flush().into_diagnostic()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).into_diagnostic()?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// What is to be done.
struct Plan {
    moves: Vec<Move>,
    stores: Vec<(Store, u64)>,
    internal: Vec<TopicDescription>,
    keep_state: bool,
}

/// A partition of a source that is read from another place.
struct Move {
    place: TopicPartition,
    from: Option<u64>,
    /// The first record that is there.
    first: u64,
    to: u64,
    /// Whether stream time is noted beside the offset.
    noted: bool,
    offset: GroupOffset,
}

impl Plan {
    fn make(broker: &OpenBroker, args: &Args) -> miette::Result<Plan> {
        let topics = broker.topics().into_diagnostic()?;
        let groups = broker.groups().into_diagnostic()?;
        let group = groups.iter().find(|group| group.group == args.pipeline);
        let is_ours = |topic: &TopicDescription| owner(topic) == Some(args.pipeline.as_str());
        if group.is_none() && !topics.iter().any(is_ours) {
            return Err(unknown(&args.pipeline, &groups, &topics));
        }
        if let Some(group) = group.filter(|group| !group.members.is_empty()) {
            return Err(miette!(
                help = "stop them first",
                "the group {:?} has {}",
                args.pipeline,
                plural(group.members.len() as u64, "live member")
            ));
        }
        let mut moves = Vec::new();
        for topic in topics.iter().filter(|topic| !is_ours(topic)) {
            let Some(group) = group else { break };
            if group.partitions.iter().any(|known| known.topic == topic.spec.name) {
                moves.extend(Move::all(broker, args, group, topic)?);
            }
        }
        let mut plan = Plan {
            moves,
            stores: Vec::new(),
            internal: Vec::new(),
            keep_state: args.keep_state,
        };
        for topic in topics.into_iter().filter(is_ours) {
            match Store::of(topic.clone()) {
                Some(store) => {
                    let size = broker.state().size(&topic.spec.name);
                    // What cannot be read can be dropped all the same.
                    plan.stores.push((store, size.map_or(0, |size| size.rows)));
                }
                None => plan.internal.push(topic),
            }
        }
        Ok(plan)
    }

    fn is_empty(&self) -> bool {
        let moves = |moved: &Move| moved.from != Some(moved.to) || moved.noted && !self.keep_state;
        !self.moves.iter().any(moves) && (self.keep_state || self.stores.is_empty() && self.internal.is_empty())
    }

    fn show(&self, args: &Args) -> miette::Result<()> {
        eprintln!("{}: resetting it means\n", args.pipeline);
        let mut rows: Vec<Vec<String>> = Vec::new();
        for moved in &self.moves {
            let at = moved.from.unwrap_or(moved.first);
            let what = match at.cmp(&moved.to) {
                std::cmp::Ordering::Greater => format!("{} read again", plural_count(at - moved.to, "record")),
                std::cmp::Ordering::Less => format!("{} skipped", plural_count(moved.to - at, "record")),
                std::cmp::Ordering::Equal => "stays where it is".into(),
            };
            let from = moved.from.map_or("the start".to_owned(), |from| from.to_string());
            rows.push(vec![
                "source".into(),
                moved.place.to_string(),
                format!("{from} → {}", moved.to),
                what,
            ]);
        }
        for (store, rows_there) in &self.stores {
            let what = if self.keep_state {
                "kept"
            } else {
                "dropped, with its changelog"
            };
            rows.push(vec![
                "store".into(),
                store.label(),
                plural_count(*rows_there, "row"),
                what.into(),
            ]);
        }
        for topic in &self.internal {
            let what = if self.keep_state { "kept" } else { "dropped" };
            let records: u64 = topic
                .partition_ranges
                .iter()
                .map(|range| range.next_offset - range.first_offset)
                .sum();
            rows.push(vec![
                "internal topic".into(),
                topic.spec.name.clone(),
                plural_count(records, "record"),
                what.into(),
            ]);
        }
        if rows.is_empty() {
            rows.push(vec!["nothing".into()]);
        }
        print(&["what", "name", "now", "then"], rows.into_iter())?;
        eprintln!("\nIts outputs and its dead-letter queue stay as they are: new results come behind them.");
        if self.keep_state
            && self
                .moves
                .iter()
                .any(|moved| moved.from.is_some_and(|from| from > moved.to))
        {
            eprintln!(
                "What is kept stays: records that are read again count again, and for closed windows they are late."
            );
        }
        Ok(())
    }

    /// What is dropped first can be made again from what is dropped last.
    fn carry_out(self, broker: &OpenBroker) -> miette::Result<()> {
        let mut topics = Vec::new();
        if !self.keep_state {
            for (store, _) in &self.stores {
                broker.state().drop_store(&store.topic.spec.name)?;
                topics.push(store.topic.spec.name.clone());
            }
            crate::crash::crash_point("reset-stores-dropped");
            topics.extend(self.internal.iter().map(|topic| topic.spec.name.clone()));
        }
        let offsets = self.moves.into_iter().map(|moved| moved.offset).collect();
        broker.reset(topics, offsets).into_diagnostic()
    }
}

impl Move {
    /// Of all partitions of a source.
    fn all(
        broker: &OpenBroker,
        args: &Args,
        group: &GroupDescription,
        topic: &TopicDescription,
    ) -> miette::Result<Vec<Move>> {
        let mut moves = Vec::new();
        for (partition, range) in topic.partition_ranges.iter().enumerate() {
            let place = TopicPartition::new(topic.spec.name.as_str(), partition as u32);
            let known = group
                .partitions
                .iter()
                .find(|known| known.topic == topic.spec.name && known.partition == place.partition);
            let to = broker.offset_at(&place, args.to.0).into_diagnostic()?;
            let metadata = known.filter(|_| args.keep_state).map(|known| known.metadata.clone());
            moves.push(Move {
                from: known.map(|known| known.committed_offset),
                first: range.first_offset,
                noted: known.is_some_and(|known| !known.metadata.is_empty()),
                to,
                offset: GroupOffset {
                    group: Arc::from(group.group.as_str()),
                    topic: place.topic.clone(),
                    partition: place.partition,
                    next_offset: to,
                    metadata: metadata.unwrap_or_default(),
                },
                place,
            });
        }
        Ok(moves)
    }
}

fn plural_count(n: u64, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

/// The pipeline that made a topic for itself.
fn owner(topic: &TopicDescription) -> Option<&str> {
    match topic.spec.role.as_deref()? {
        TopicRole::Changelog { pipeline, .. } | TopicRole::Repartition { pipeline, .. } => Some(pipeline),
    }
}

fn unknown(name: &str, groups: &[GroupDescription], topics: &[TopicDescription]) -> miette::Report {
    let groups = groups.iter().map(|group| group.group.as_str());
    let known: BTreeSet<&str> = groups.chain(topics.iter().filter_map(owner)).collect();
    miette!(
        help = suggest(name, known.iter().copied(), "pipelines and groups here"),
        "no pipeline {name:?} has read anything here"
    )
}
