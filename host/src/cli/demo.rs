//! `millstream demo`: taxi rides through the demo's pipelines, and what to try next.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use miette::{IntoDiagnostic, WrapErr, miette};

use super::produce::{self, Input};
use super::table::{count, human_bytes, print};
use super::{progress, results, rides, run};
use crate::connect::{Broker, EmbeddedLog, TopicPartition};
use crate::control::{Host, HostOptions, PipelineState, PluginCatalog};
use crate::limits::PAUSED_TIME_MAX;
use crate::task::{PipelineRuntime, header};

/// The topic of the rides.
const TOPIC: &str = "rides";
/// Its partitions: enough for each core of a small machine to have some.
const PARTITIONS: u32 = 4;

/// Arguments of `millstream demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Taxi rides of your own, with the columns of New York's public trip records [default: made-up ones]
    #[arg(value_name = "FILE.csv")]
    file: Option<PathBuf>,
    /// How many rides to make up
    #[arg(long, value_name = "N", default_value_t = 300_000)]
    rides: u64,
    /// What they are made from: the same seed makes the same rides
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The folder of the demo, emptied first
    #[arg(long, value_name = "DIR", default_value = ".demo")]
    dir: PathBuf,
    /// Where the demo's pipeline files are
    #[arg(long, value_name = "DIR", default_value = "plugins/demo")]
    pipelines: PathBuf,
}

/// # Errors
/// Where the folder, the rides or the pipelines cannot be used.
pub fn run(args: Args) -> miette::Result<()> {
    let stop = run::stop_signal()?;
    let data = args.dir.join("data");
    empty(&args.dir)?;
    let rides = match args.file {
        Some(file) => file,
        None => make_rides(&args.dir, args.rides, args.seed)?,
    };
    let mut host = Host::open(&HostOptions::new(data.clone())?)?;
    let sent = send(host.log(), &rides, &stop)?;
    results::first_rides(host.log(), TOPIC, sent)?;

    let catalog = PluginCatalog::new(host.runtime().clone());
    let mut total = Duration::ZERO;
    for file in pipeline_files(&args.pipelines)? {
        let plan = super::check::plan(&file, &catalog)?;
        let began = Instant::now();
        host.start(plan, &catalog)?;
        run::work(&mut host, &stop, true, PAUSED_TIME_MAX)?;
        host.close_windows(&|| stop.load(Ordering::Acquire));
        let took = began.elapsed();
        total += took;
        let Some((pipeline, state)) = host.pipelines().last() else {
            break;
        };
        if let PipelineState::Failed(why) = state {
            return Err(miette!("pipeline {:?} stopped: {why}", pipeline.plan.name));
        }
        show(pipeline, host.log(), &file, took)?;
    }
    if !host.stop(Duration::from_secs(5)) {
        return Err(miette!("a pipeline is in a call that does not end"));
    }
    let size: u64 = host
        .log()
        .topics()
        .into_diagnostic()?
        .iter()
        .flat_map(|topic| &topic.partition_ranges)
        .filter_map(|range| range.bytes)
        .sum();
    host.log().close();
    eprintln!(
        "\n{} rides, {} in the log's topics, {total:.1?} in the pipelines. What to try next:\n",
        count(sent),
        human_bytes(size),
    );
    let data = data.display();
    let program = Path::new("target/release/millstream");
    let program = if program.is_file() {
        program.display().to_string()
    } else {
        "millstream".into()
    };
    for (command, what) in [
        (format!("{program} topics --data {data}"), "what is in the log"),
        (
            format!("{program} state count-by-vendor count --data {data}"),
            "the rows that a pipeline keeps; without `count`, its stores",
        ),
        (
            format!("{program} consume rides-late -n 1 --until-end --data {data}"),
            "a record that came too late, and why",
        ),
        (
            format!("{program} consume rides-high -n 3 --until-end --data {data}"),
            "records of a branch",
        ),
        (
            format!("{program} consume rides-shared -n 1 --until-end --data {data}"),
            "what the redaction let through, and the header that it set",
        ),
        (
            format!("{program} consume enrich-dlq -n 1 --until-end --data {data}"),
            "a record that could not be processed, and why",
        ),
        (
            format!("{program} explain {}", args.pipelines.join("per-minute.toml").display()),
            "a pipeline as a drawing",
        ),
        (
            format!("{program} inspect plugins/target/wasm/enrich.wasm"),
            "what a plugin says of itself",
        ),
    ] {
        eprintln!("  {command}\n      {what}\n");
    }
    Ok(())
}

/// A folder of ours alone: what a demo before left is removed.
fn empty(dir: &Path) -> miette::Result<()> {
    let data = dir.join("data");
    let cannot = || format!("{} cannot be used", dir.display());
    if data.exists() {
        std::fs::remove_dir_all(&data).into_diagnostic().wrap_err_with(cannot)?;
    }
    std::fs::create_dir_all(dir).into_diagnostic().wrap_err_with(cannot)
}

fn make_rides(dir: &Path, rides: u64, seed: u64) -> miette::Result<PathBuf> {
    let path = dir.join("rides.csv");
    let written = std::fs::File::create(&path).and_then(|file| {
        let mut out = std::io::BufWriter::new(file);
        rides::write_csv(&mut out, rides, seed)
    });
    written
        .into_diagnostic()
        .wrap_err_with(|| format!("{} cannot be written", path.display()))?;
    eprintln!("made up {} rides from seed {seed}: {}", count(rides), path.display());
    Ok(path)
}

fn send(log: &std::sync::Arc<EmbeddedLog>, rides: &Path, stop: &AtomicBool) -> miette::Result<u64> {
    let broker: &dyn Broker = log;
    produce::ensure_topic(broker, TOPIC, PARTITIONS)?;
    let input = Input::open(Some(rides))?;
    let bar = progress::bar("into the log", input.length_bytes(), true);
    let began = Instant::now();
    let sent = produce::csv_into(broker, TOPIC, input, Some("PULocationID"), &bar, stop);
    bar.finish_and_clear();
    let sent = sent?;
    eprintln!(
        "put {} rides into topic {TOPIC} in {:.1?}",
        count(sent),
        began.elapsed()
    );
    Ok(sent)
}

fn pipeline_files(dir: &Path) -> miette::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).into_diagnostic().wrap_err_with(|| {
        format!(
            "{} has no pipelines: run the demo from the project's folder, or name theirs with --pipelines",
            dir.display()
        )
    })?;
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

fn show(pipeline: &PipelineRuntime, log: &EmbeddedLog, file: &Path, took: Duration) -> miette::Result<()> {
    let stats = &pipeline.stats;
    let records = stats.records_in.get();
    let rate = records as f64 / took.as_secs_f64().max(1e-9);
    eprintln!(
        "\n{} ({}): {} records in {took:.2?}, {} a second",
        pipeline.plan.name,
        file.display(),
        count(records),
        count(rate as u64)
    );
    let mut rows = Vec::new();
    for (stage, counted) in pipeline.plan.stages.iter().zip(&stats.stages) {
        let branches = stage
            .signature
            .branches
            .iter()
            .zip(&stage.branches)
            .zip(&counted.branches);
        for ((branch, target), emitted) in branches {
            let Some(sink) = &target.topic else { continue };
            let share = 100.0 * emitted.get() as f64 / records.max(1) as f64;
            rows.push(vec![
                format!("{}.{}", stage.name, branch.name),
                sink.topic.clone(),
                count(emitted.get()),
                format!("{share:.1} %"),
            ]);
        }
    }
    let dead = stats.dead_letters.get();
    let share = 100.0 * dead as f64 / records.max(1) as f64;
    rows.push(vec![
        "dead letters".into(),
        pipeline.plan.dlq.topic.clone(),
        count(dead),
        format!("{share:.1} %"),
    ]);
    print(&["branch", "topic", "records", "share"], rows.into_iter())?;
    if let Some(why) = first_reason(log, &pipeline.plan.dlq.topic) {
        eprintln!("first dead letter: {why}");
    }
    pipeline
        .plan
        .stages
        .iter()
        .try_for_each(|stage| results::show(log, stage))
}

/// Why the first record of a dead-letter queue is there.
fn first_reason(log: &EmbeddedLog, topic: &str) -> Option<String> {
    let partitions = log.topic(topic).ok()?.spec.partitions;
    (0..partitions).find_map(|partition| {
        let fetched = log.fetch(&TopicPartition::new(topic, partition), 0, 1).ok()?;
        let record = fetched.records().next()?;
        let message = record.headers.last(header::MESSAGE)??;
        Some(String::from_utf8_lossy(message).into_owned())
    })
}
