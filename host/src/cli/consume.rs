//! `millstream consume`: a topic as JSON lines on stdout, which `produce` reads back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use miette::IntoDiagnostic;

use super::engine::Engine;
use super::from::From;
use crate::connect::{
    self, Assignment, Broker, Commit, CommitError, Fence, GroupOffset, LogError, OpenBroker, Position, TopicPartition,
    TopicRole,
};
use crate::format::{write_line, write_string};
use crate::record::RecordRef;
use crate::state::RowReader;

/// One fetch: a few blocks.
const FETCH_BYTES: usize = 1 << 20;
/// How long to wait for a record before other partitions, signals and the group are looked at again.
const WAIT: Duration = Duration::from_millis(100);

/// Arguments of `millstream consume`.
///
/// The lines are those that `produce` reads back, byte for byte. Of a changelog (a topic of kind table) they show key and
/// value as the fields that they hold, and are for reading only; `--raw` gives its bytes. In a Kafka cluster a changelog
/// is a table that anybody reads, and shown as it is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The topic
    topic: String,
    /// Where to begin: start, end, @OFFSET, a time ago like -1h, or a time like 2024-05-01T12:00:00Z [default: where
    /// the group is, else start]
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    from: Option<From>,
    /// Stop at the end instead of waiting for more
    #[arg(long)]
    until_end: bool,
    /// Stop after so many records
    #[arg(short = 'n', long = "count", value_name = "N")]
    count: Option<u64>,
    /// Read as a member of this group: partitions are shared with its other members, and offsets are committed
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
    /// Show a changelog's keys and values as the bytes that they are, instead of as fields
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    engine: Engine,
}

/// # Errors
/// Where the data or the topic cannot be used.
pub fn run(args: Args) -> miette::Result<()> {
    let stop = super::run::stop_signal()?;
    let broker = args.engine.open_existing()?;
    let mut consumer = Consumer::new(&broker, &args)?;
    let outcome = consumer.consume(&args, &stop);
    consumer.leave();
    outcome
}

/// Writes a record of a changelog with its fields; whether it is one.
fn write_row(
    lines: &mut Vec<u8>,
    rows: Option<&RowReader<'_>>,
    place: &TopicPartition,
    record: &RecordRef<'_>,
) -> bool {
    let (Some(rows), Some(key)) = (rows, record.key) else {
        return false;
    };
    let start = lines.len();
    lines.extend_from_slice(b"{\"topic\":");
    write_string(lines, &place.topic);
    let at = format!(
        ",\"partition\":{},\"offset\":{},\"timestamp\":{},",
        place.partition, record.offset, record.timestamp_ms
    );
    lines.extend_from_slice(at.as_bytes());
    let mut write = || {
        rows.write_key_members(key, lines).ok()?;
        lines.extend_from_slice(b",\"value\":");
        match record.value {
            Some(row) => drop(rows.write_value(row, lines).ok()?),
            None => lines.extend_from_slice(b"null"),
        }
        lines.extend_from_slice(b"}\n");
        Some(())
    };
    let written = write().is_some();
    if !written {
        lines.truncate(start);
    }
    written
}

struct Reader {
    place: TopicPartition,
    position: u64,
    committed: Option<u64>,
}

struct Consumer<'b> {
    broker: &'b dyn Broker,
    topic: Arc<str>,
    role: Option<Arc<TopicRole>>,
    group: Option<Arc<str>>,
    assignment: Option<Assignment>,
    readers: Vec<Reader>,
    from: Option<Position>,
    /// Partitions that were read before: `--from` is for the first time only.
    begun: Vec<(TopicPartition, u64)>,
}

impl<'b> Consumer<'b> {
    fn new(broker: &'b OpenBroker, args: &Args) -> miette::Result<Consumer<'b>> {
        let topic: Arc<str> = args.topic.as_str().into();
        let description = broker.topic(&topic).into_diagnostic()?;
        let mut consumer = Consumer {
            broker: &**broker,
            topic: topic.clone(),
            // In a cluster a changelog has what people read.
            role: description.spec.role.filter(|_| broker.cluster().is_none()),
            group: args.group.as_deref().map(Arc::from),
            assignment: None,
            readers: Vec::new(),
            from: args.from.map(|from| from.0),
            begun: Vec::new(),
        };
        if consumer.group.is_some() {
            consumer.join()?;
        } else {
            let places =
                (0..description.spec.partitions).map(|partition| TopicPartition::new(topic.clone(), partition));
            consumer.take(places.collect())?;
        }
        Ok(consumer)
    }

    fn join(&mut self) -> miette::Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let assignment = self
            .broker
            .join(group, std::slice::from_ref(&self.topic))
            .into_diagnostic()?;
        self.readers.clear();
        self.take(assignment.partitions.clone())?;
        self.assignment = Some(assignment);
        Ok(())
    }

    /// Reads these partitions from now on: the ones that it read before where it was, the new ones where the group
    /// is, or `--from` says.
    fn take(&mut self, places: Vec<TopicPartition>) -> miette::Result<()> {
        self.readers.retain(|reader| places.contains(&reader.place));
        for place in places {
            if self.readers.iter().any(|reader| reader.place == place) {
                continue;
            }
            let first_time = !self.begun.iter().any(|(begun, _)| *begun == place);
            let committed = match &self.group {
                Some(group) => self.broker.committed(group, &place).into_diagnostic()?,
                None => None,
            };
            let position = match (self.from.filter(|_| first_time), committed) {
                (Some(from), _) => self.broker.offset_at(&place, from),
                (None, Some(committed)) => Ok(committed),
                (None, None) => self.broker.offset_at(&place, Position::Start),
            };
            let position = position.into_diagnostic()?;
            if let Some(Position::Offset(asked)) = self.from.filter(|_| first_time)
                && asked > position
            {
                eprintln!("{place}: offset {asked} is not there yet; reading from the end, offset {position}");
            }
            self.begun.push((place.clone(), position));
            self.readers.push(Reader {
                place,
                position,
                committed,
            });
        }
        Ok(())
    }

    fn consume(&mut self, args: &Args, stop: &AtomicBool) -> miette::Result<()> {
        let role = self.role.clone().filter(|_| !args.raw);
        let rows = role.as_deref().and_then(RowReader::of);
        let mut left = args.count.unwrap_or(u64::MAX);
        let mut lines = Vec::new();
        let mut next = 0;
        while left > 0 && !stop.load(Ordering::Acquire) {
            self.poll()?;
            let mut got = false;
            for at in 0..self.readers.len() {
                let fetched = self.fetch_from(at, Duration::ZERO)?;
                let reader_place = &self.readers[at].place;
                lines.clear();
                let mut position = self.readers[at].position;
                for record in fetched.records() {
                    if left == 0 {
                        break;
                    }
                    if !write_row(&mut lines, rows.as_ref(), reader_place, &record) {
                        write_line(&mut lines, &reader_place.topic, reader_place.partition, &record);
                    }
                    position = record.offset + 1;
                    left -= 1;
                }
                if left > 0 {
                    position = position.max(fetched.next_offset());
                }
                got |= position != self.readers[at].position;
                self.readers[at].position = position;
                super::write_out(&lines)?;
            }
            if got {
                self.commit()?;
                continue;
            }
            if args.until_end && self.assignment.as_ref().is_none_or(|assignment| !assignment.pending) {
                break;
            }
            // One of the partitions after the other is waited for: each is looked at again soon after.
            if self.readers.is_empty() {
                std::thread::sleep(WAIT);
            } else {
                next = (next + 1) % self.readers.len();
                self.fetch_from(next, WAIT / self.readers.len() as u32)?;
            }
        }
        Ok(())
    }

    fn fetch_from(&mut self, at: usize, wait: Duration) -> miette::Result<connect::Fetched> {
        loop {
            let reader = &mut self.readers[at];
            match self.broker.fetch(&reader.place, reader.position, FETCH_BYTES, wait) {
                Err(LogError::OffsetOutOfRange { first, .. }) if first > reader.position => {
                    eprintln!(
                        "{}: offsets {} to {} are gone by retention",
                        reader.place,
                        reader.position,
                        first - 1
                    );
                    reader.position = first;
                }
                other => return other.into_diagnostic(),
            }
        }
    }

    /// A member says that it is alive and learns what it holds.
    fn poll(&mut self) -> miette::Result<()> {
        let Some(assignment) = &self.assignment else {
            return Ok(());
        };
        match self.broker.poll(&assignment.group, &assignment.member) {
            Ok(new) => {
                self.take(new.partitions.clone())?;
                self.assignment = Some(new);
                Ok(())
            }
            Err(LogError::UnknownMember { .. }) => self.join(),
            Err(error) => Err(error).into_diagnostic(),
        }
    }

    /// Commits what was written out.
    fn commit(&mut self) -> miette::Result<()> {
        let (Some(group), Some(assignment)) = (&self.group, &self.assignment) else {
            return Ok(());
        };
        let moved = self
            .readers
            .iter()
            .filter(|reader| reader.committed != Some(reader.position));
        let offsets = moved.map(|reader| GroupOffset {
            group: group.clone(),
            topic: reader.place.topic.clone(),
            partition: reader.place.partition,
            next_offset: reader.position,
            metadata: String::new(),
        });
        let fence: Fence = assignment.fence();
        let commit = Commit {
            offsets: offsets.collect(),
            fence: Some(fence),
            ..Commit::default()
        };
        match self.broker.commit(commit) {
            Ok(_) => {
                for reader in &mut self.readers {
                    reader.committed = Some(reader.position);
                }
                Ok(())
            }
            Err(CommitError::Refused {
                refusal: LogError::Fenced { .. } | LogError::UnknownMember { .. },
            }) => {
                eprintln!("another member of the group took over; records since the last commit may be read twice");
                self.join()
            }
            Err(error) => Err(error).into_diagnostic(),
        }
    }

    fn leave(&mut self) {
        if let Some(assignment) = self.assignment.take() {
            // Whoever cannot say so leaves by the session's time.
            let _ = self.broker.leave(&assignment.group, &assignment.member);
        }
    }
}
