//! `millstream produce`: records into a topic, from a file or stdin.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use miette::{IntoDiagnostic, WrapErr, miette};

use super::engine::{self, Engine, Place};
use super::table::plural;
use super::{progress, topics};
use crate::connect::{Append, BlockBuilder, Broker, Commit, CommitError, LogError, OpenBroker, Partitioner, TopicSpec};
use crate::format::{CsvFile, Decoder, Format, key_and_time_fields, read_line, set_key_and_time};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::record::{Record, now_ms};

/// Records that wait between the reader and the log: a few batches.
const QUEUE_RECORDS_MAX: usize = 8 * BATCH_ROWS_MAX;
/// Records that are sent to a cluster at once.
const CLUSTER_BATCH_RECORDS_MAX: usize = 10 * BATCH_ROWS_MAX;
/// With a rate, how often records are sent.
const PACE: Duration = Duration::from_millis(20);
/// How long to look for the log again, when the command that held it has ended.
const REOPEN_TIME_MAX: Duration = Duration::from_secs(10);

/// Arguments of `millstream produce`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The topic; made with one partition if it is not there
    topic: String,
    /// Read this file instead of stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What the input is: rows under a header, which become JSON objects, or lines of JSON, which are records as
    /// `consume` writes them or values
    #[arg(long, value_enum, default_value = "jsonl")]
    format: InputFormat,
    /// Take the key from this field of the value (a name or a JSON Pointer)
    #[arg(short, long, value_name = "FIELD")]
    key: Option<String>,
    /// Take the timestamp from this field of the value
    #[arg(long, value_name = "FIELD")]
    timestamp: Option<String>,
    /// Send so many records a second at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// What separates the cells of a CSV
    #[arg(long, value_name = "CHAR", default_value = ",", value_parser = read_delimiter)]
    delimiter: u8,
    /// Keep the cells of a CSV as texts, also where they look like numbers
    #[arg(long)]
    no_infer: bool,
    /// Partitions of the topic, if it has to be made
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = topics::partitions())]
    partitions: u32,
    #[command(flatten)]
    engine: Engine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum InputFormat {
    Csv,
    Jsonl,
}

/// # Errors
/// Where the data or the input cannot be used; the records before the place that is named are in the topic.
pub fn run(args: Args) -> miette::Result<()> {
    let stop = super::run::stop_signal()?;
    let fields = Fields::new(args.key.as_deref(), args.timestamp.as_deref())?;
    let input = Input::open(args.file.as_deref())?;
    let place = args.engine.place()?;
    let broker = engine::open(&place)?;
    let partitions = ensure_topic(&*broker, &args.topic, args.partitions)?;
    let bar = progress::bar("producing", input.length_bytes, true);
    let source = Source {
        name: input.name.clone(),
        format: args.format,
        delimiter: args.delimiter,
        infer: !args.no_infer,
        fields: [("--key", args.key), ("--timestamp", args.timestamp)]
            .into_iter()
            .filter_map(|(option, field)| Some((option, field?)))
            .collect(),
        read_bytes: input.read_bytes.clone(),
    };
    let mut target = Target::Opened(&place, Some(broker));
    let sent = send(
        &mut target,
        &args.topic,
        partitions,
        input,
        source,
        fields,
        args.rate,
        &stop,
        &bar,
    );
    bar.finish_and_clear();
    let (count, outcome) = sent;
    let stand = match (&outcome, &place) {
        (Err(_), Place::Folder(_)) if count > 0 => ", committed; nothing behind them was read",
        (Err(_), Place::Cluster(_)) if count > 0 => ", committed",
        _ => "",
    };
    eprintln!("{} in {}{stand}", plural(count, "record"), args.topic);
    outcome
}

/// The number of partitions of a topic, which is made if it is not there.
///
/// # Errors
/// Where the log does not answer, or the topic cannot be made.
pub fn ensure_topic(broker: &dyn Broker, topic: &str, partitions: u32) -> miette::Result<u32> {
    match broker.topic(topic) {
        Ok(topic) => match topic.spec.role.as_deref() {
            None => return Ok(topic.spec.partitions),
            Some(role) => {
                return Err(miette::miette!(
                    help = "records come into a pipeline through the topics of its sources: `millstream explain` shows them",
                    "the topic {topic:?} is the pipeline {:?}'s own, and nobody else writes to it",
                    role.pipeline(),
                    topic = topic.spec.name
                ));
            }
        },
        Err(LogError::UnknownTopic { .. }) => {}
        Err(error) => return Err(error).into_diagnostic(),
    }
    broker
        .create_topic(&TopicSpec::new(topic, partitions))
        .into_diagnostic()?;
    eprintln!("made topic {topic} with {}", plural(partitions.into(), "partition"));
    Ok(partitions)
}

/// Where bytes come from, and how far they have been read.
pub struct Input {
    reader: Box<dyn Read + Send>,
    name: String,
    length_bytes: Option<u64>,
    read_bytes: Arc<AtomicU64>,
}

impl Input {
    /// A file, or stdin.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn open(file: Option<&Path>) -> miette::Result<Input> {
        let read_bytes = Arc::new(AtomicU64::new(0));
        let (reader, name, length_bytes): (Box<dyn Read + Send>, _, _) = match file {
            Some(path) => {
                let file = File::open(path)
                    .into_diagnostic()
                    .wrap_err_with(|| format!("{} cannot be read", path.display()))?;
                let about = file.metadata().into_diagnostic()?;
                if about.is_dir() {
                    return Err(miette!("{} is a folder: name a file", path.display()));
                }
                let length = about.is_file().then_some(about.len());
                (Box::new(file), path.display().to_string(), length)
            }
            None => {
                if io::stdin().is_terminal() {
                    eprintln!("reading records from the terminal, one a line; Ctrl-D ends");
                }
                (Box::new(io::stdin()), "stdin".to_owned(), None)
            }
        };
        let counted = Counted {
            inner: reader,
            read_bytes: read_bytes.clone(),
        };
        Ok(Input {
            reader: Box::new(counted),
            name,
            length_bytes,
            read_bytes,
        })
    }

    /// Bytes of the file, where it is one.
    pub fn length_bytes(&self) -> Option<u64> {
        self.length_bytes
    }
}

struct Counted {
    inner: Box<dyn Read + Send>,
    read_bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// How bytes become records.
struct Source {
    name: String,
    format: InputFormat,
    delimiter: u8,
    infer: bool,
    /// Fields that a CSV has to have, by the option that names them.
    fields: Vec<(&'static str, String)>,
    read_bytes: Arc<AtomicU64>,
}

impl Source {
    /// Reads all records and hands them on; ends early when nobody takes them any more.
    fn read(&self, reader: Box<dyn Read + Send>, out: &mpsc::SyncSender<(u64, Record)>) -> miette::Result<()> {
        match self.format {
            InputFormat::Csv => self.read_csv(reader, out),
            InputFormat::Jsonl => self.read_lines(reader, out),
        }
    }

    fn read_csv(&self, reader: Box<dyn Read + Send>, out: &mpsc::SyncSender<(u64, Record)>) -> miette::Result<()> {
        let at = |error| miette!("{}, {error}", self.name);
        let mut file = CsvFile::new(reader, self.delimiter, self.infer).map_err(at)?;
        for (option, field) in &self.fields {
            // A pointer's escapes are the decoder's to read; what is below a cell is not there.
            let column = field.strip_prefix('/').unwrap_or(field);
            if !column.contains('~') && !file.columns().iter().any(|name| name == column) {
                return Err(miette!(
                    help = format!("its columns: {}", file.columns().join(", ")),
                    "{} has no column {column:?} for {option}",
                    self.name
                ));
            }
        }
        while file.next_row().map_err(at)? {
            let mut value = Vec::new();
            file.write_json(&mut value);
            let record = Record {
                value: Some(value),
                timestamp_ms: now_ms(),
                ..Record::default()
            };
            if out.send((file.line(), record)).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn read_lines(&self, reader: Box<dyn Read + Send>, out: &mpsc::SyncSender<(u64, Record)>) -> miette::Result<()> {
        let mut reader = BufReader::with_capacity(256 << 10, reader);
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            if reader
                .read_until(b'\n', &mut text)
                .into_diagnostic()
                .wrap_err_with(|| format!("{} cannot be read", self.name))?
                == 0
            {
                break;
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let line = read_line(&text).map_err(|error| miette!("{}, line {number}: {error}", self.name))?;
            let mut record = line.record;
            if !line.timestamped {
                record.timestamp_ms = now_ms();
            }
            if out.send((number, record)).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Key and timestamp out of the value, where they are asked for.
struct Fields {
    decoder: Option<Decoder>,
    key: bool,
    time: bool,
}

impl Fields {
    fn new(key: Option<&str>, time: Option<&str>) -> miette::Result<Fields> {
        let fields = key_and_time_fields(&Format::Json, key, time);
        let decoder = (!fields.is_empty())
            .then(|| Decoder::new(&Format::Json, &Format::Text, &fields))
            .transpose();
        Ok(Fields {
            decoder: decoder.into_diagnostic()?,
            key: key.is_some(),
            time: time.is_some(),
        })
    }

    /// Sets key and timestamp of all records of a batch. Where one does not have them, only those before it stay.
    fn apply(&mut self, name: &str, batch: &mut Vec<(u64, Record)>) -> miette::Result<()> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(());
        };
        let refs: Vec<_> = batch.iter().map(|(_, record)| record.at(0)).collect();
        let decoded = decoder.decode(&refs);
        let first_failed = decoded.failed.iter().min_by_key(|failed| failed.index);
        let good = first_failed.map_or(batch.len(), |failed| failed.index as usize);
        let outcome = match first_failed {
            Some(failed) => Err(miette!("{name}, line {}: {}", batch[good].0, failed.error)),
            None => Ok(()),
        };
        let arena = bumpalo::Bump::new();
        // Rows of the table are the records that could be decoded, in their order: the first ones are those before.
        let set: Vec<_> = (0..good)
            .map(|row| {
                let (table, record) = (&decoded.table, refs[row]);
                let record = set_key_and_time(&arena, &Format::Json, table, row, self.key, self.time, record)
                    .map_err(|error| miette!("{name}, line {}: {error}", batch[row].0))?;
                Ok((record.key.map(<[u8]>::to_vec), record.timestamp_ms))
            })
            .collect::<miette::Result<_>>()?;
        batch.truncate(good);
        for ((_, record), (key, time)) in batch.iter_mut().zip(set) {
            (record.key, record.timestamp_ms) = (key, time);
        }
        outcome
    }
}

/// Whether a record is no larger than the host takes; a dead letter of it has room for what is said beside it.
fn bounded(record: &Record) -> Result<(), String> {
    let headers = record.headers.as_ref();
    let parts = [
        ("key", record.key.as_ref().map_or(0, Vec::len), KEY_BYTES_MAX),
        ("value", record.value.as_ref().map_or(0, Vec::len), VALUE_BYTES_MAX),
        ("headers", headers.encoded().len(), HEADERS_BYTES_MAX),
    ];
    for (what, bytes, bytes_max) in parts {
        if bytes > bytes_max {
            return Err(format!(
                "{bytes} bytes of {what} are more than the {bytes_max} that a record may have: split it, or keep the \
                 bytes elsewhere and send a reference"
            ));
        }
    }
    match headers.iter().count() {
        count if count > HEADERS_MAX => Err(format!(
            "{count} headers are more than the {HEADERS_MAX} that a record may have"
        )),
        _ => Ok(()),
    }
}

/// The log that is written to.
enum Target<'b> {
    /// It stays.
    Given(&'b dyn Broker),
    /// It may be held by another command, which ends: then it is opened again. None only where that failed.
    Opened(&'b Place, Option<OpenBroker>),
}

impl Target<'_> {
    /// Records of one commit. A cluster answers over a network: more of them make its way worth it.
    fn batch_records_max(&self) -> usize {
        match self {
            Target::Opened(_, Some(broker)) if broker.cluster().is_some() => CLUSTER_BATCH_RECORDS_MAX,
            _ => BATCH_ROWS_MAX,
        }
    }

    /// In a cluster the records of a commit are written one by one.
    fn not_all(&self, error: miette::Report, records: usize) -> miette::Report {
        match self {
            Target::Opened(_, Some(broker)) if broker.cluster().is_some() && records > 1 => miette!(
                help = format!("of {records} records that were sent together, any others may be in the topic"),
                "{error}"
            ),
            _ => error,
        }
    }

    /// Commits what `make` gives, anew for each try.
    fn commit(&mut self, mut make: impl FnMut() -> miette::Result<Commit>) -> miette::Result<()> {
        let end = Instant::now() + REOPEN_TIME_MAX;
        loop {
            let (outcome, passing) = match self {
                Target::Given(broker) => (broker.commit(make()?), false),
                Target::Opened(_, Some(broker)) => (broker.commit(make()?), broker.is_passing()),
                Target::Opened(..) => return Err(miette!("the data folder was not opened again")),
            };
            match (outcome, self as &mut Target) {
                (Err(CommitError::Unavailable { .. }), Target::Opened(place, broker))
                    if passing && Instant::now() < end =>
                {
                    *broker = None;
                    *broker = Some(engine::open(place)?);
                }
                (outcome, _) => return outcome.map(|_| ()).into_diagnostic(),
            }
        }
    }
}

/// Sends everything; how many records were committed, and what ended it.
#[expect(clippy::too_many_arguments, reason = "each is one of the command's arguments")]
fn send(
    target: &mut Target<'_>,
    topic: &str,
    partitions: u32,
    input: Input,
    source: Source,
    mut fields: Fields,
    rate: Option<u32>,
    stop: &AtomicBool,
    bar: &ProgressBar,
) -> (u64, miette::Result<()>) {
    let (out, records) = mpsc::sync_channel(QUEUE_RECORDS_MAX);
    let name = source.name.clone();
    let read_bytes = source.read_bytes.clone();
    let reader = input.reader;
    // Not joined where the command is stopped: it may wait for a terminal for ever.
    let reading = std::thread::spawn(move || source.read(reader, &out));
    let mut partitioner = Partitioner::new(partitions, rand::random());
    let mut count = 0;
    let began = Instant::now();
    let most = target.batch_records_max();
    let batch_max = rate.map_or(most, |rate| (rate as usize / 50).clamp(1, most));
    loop {
        let first = match records.recv_timeout(Duration::from_millis(100)) {
            Ok(first) => first,
            Err(mpsc::RecvTimeoutError::Timeout) if stop.load(Ordering::Acquire) => return (count, Ok(())),
            Err(mpsc::RecvTimeoutError::Timeout) => continue,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        };
        let mut bytes = first.1.at(0).size_bytes();
        let mut batch = vec![first];
        while batch.len() < batch_max && bytes < batch_max.div_ceil(BATCH_ROWS_MAX) * BATCH_BYTES_MAX {
            let Ok(next) = records.try_recv() else { break };
            bytes += next.1.at(0).size_bytes();
            batch.push(next);
        }
        let mut fine = fields.apply(&name, &mut batch);
        let large = batch
            .iter()
            .enumerate()
            .find_map(|(at, (_, record))| Some((at, bounded(record).err()?)));
        if let Some((at, why)) = large {
            fine = Err(miette!("{name}, line {}: {why}", batch[at].0));
            batch.truncate(at);
        }
        // What came before a bad record is in the topic when the command ends.
        if !batch.is_empty() {
            let commit = || blocks(topic, partitions, &mut partitioner, &name, &batch);
            if let Err(error) = target.commit(commit) {
                return (count, Err(target.not_all(error, batch.len())));
            }
        }
        count += batch.len() as u64;
        if fine.is_err() {
            return (count, fine);
        }
        bar.set_position(read_bytes.load(Ordering::Relaxed));
        if let Some(rate) = rate {
            let due = began + Duration::from_secs_f64(count as f64 / f64::from(rate.max(1)));
            while Instant::now() < due && !stop.load(Ordering::Acquire) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()).min(PACE));
            }
        }
        if stop.load(Ordering::Acquire) {
            return (count, Ok(()));
        }
    }
    let read = reading
        .join()
        .unwrap_or_else(|_| Err(miette!("the reader of {name} panicked")));
    (count, read)
}

/// A batch as blocks of its partitions.
fn blocks(
    topic: &str,
    partitions: u32,
    partitioner: &mut Partitioner,
    name: &str,
    batch: &[(u64, Record)],
) -> miette::Result<Commit> {
    let mut blocks: Vec<BlockBuilder> = (0..partitions).map(|_| BlockBuilder::new()).collect();
    partitioner.next_call();
    for (line, record) in batch {
        let partition = partitioner.partition(record.key.as_deref()) as usize;
        blocks[partition]
            .push(record.at(0))
            .map_err(|error| miette!("{name}, line {line}: {error}"))?;
    }
    let topic: Arc<str> = topic.into();
    let appends = blocks.into_iter().enumerate().filter(|(_, blocks)| !blocks.is_empty());
    let appends = appends.map(|(partition, blocks)| Append {
        topic: topic.clone(),
        partition: partition as u32,
        blocks,
    });
    Ok(Commit {
        appends: appends.collect(),
        ..Commit::default()
    })
}

/// Sends a whole CSV input: for the demo.
///
/// # Errors
/// As `millstream produce`.
pub fn csv_into(
    broker: &dyn Broker,
    topic: &str,
    input: Input,
    key: Option<&str>,
    bar: &ProgressBar,
    stop: &AtomicBool,
) -> miette::Result<u64> {
    let partitions = ensure_topic(broker, topic, 1)?;
    let source = Source {
        name: input.name.clone(),
        format: InputFormat::Csv,
        delimiter: b',',
        infer: true,
        fields: key.map(|key| ("--key", key.to_owned())).into_iter().collect(),
        read_bytes: input.read_bytes.clone(),
    };
    let fields = Fields::new(key, None)?;
    let (count, outcome) = send(
        &mut Target::Given(broker),
        topic,
        partitions,
        input,
        source,
        fields,
        None,
        stop,
        bar,
    );
    outcome.map(|()| count)
}

fn read_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [b'"' | b'\n' | b'\r'] => Err("a quote or the end of a line cannot separate cells".into()),
        &[byte] if byte.is_ascii() => Ok(byte),
        _ if text == "\\t" => Ok(b'\t'),
        _ => Err("one ASCII character, or `\\t` for a tab".into()),
    }
}
