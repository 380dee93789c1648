//! `millstream run`: pipelines at work, until a signal or the end of their sources.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use miette::{IntoDiagnostic, WrapErr};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{Engine as EngineArgs, progress};
use crate::connect;
use crate::control::{Host, HostOptions, PipelineState, PluginCatalog};
use crate::limits::{PAUSED_TIME_MAX, STOP_TIME_MAX};
use crate::pipeline::{Engine, Plan};

/// How often the signals and the end of the sources are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The same with `--until-end`, where somebody waits for it.
const LOOK_INTERVAL_UNTIL_END: Duration = Duration::from_millis(5);

/// How long a pipeline that could not be started waits for the next try.
const START_AGAIN_TIME: Duration = Duration::from_secs(1);

/// Arguments of `millstream run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Stop, committed, when every source has been read to its end
    #[arg(long)]
    until_end: bool,
    /// At the end of the sources close all windows and send their results: there will be no more records
    #[arg(long, requires = "until_end")]
    close_windows: bool,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
}

/// # Errors
/// What is wrong in a file or with the data folder, or why a pipeline ended.
pub fn run(args: Args) -> miette::Result<()> {
    let mut options = HostOptions::new(args.engine.folder())?;
    options.clusters = args.engine.clusters()?;
    if let Some(workers) = args.workers {
        options.workers = workers.into();
    }
    let stop = stop_signal()?;
    let mut host = Host::new(&options)?;
    let catalog = PluginCatalog::new(host.runtime().clone());
    let plans = super::check::plans(&args.files, &catalog)?;
    plans.iter().for_each(|plan| host.announce(&plan.name));
    let mut _server = None;
    if plans.iter().any(|plan| plan.engine == Engine::Embedded) {
        host.open_embedded()?;
        _server = Some(connect::serve_host(host.state().clone(), host.names().clone()).into_diagnostic()?);
    }
    let patience = args.until_end.then_some(PAUSED_TIME_MAX);
    let worked = start(&mut host, plans, &catalog, &stop, patience)
        .and_then(|()| work(&mut host, &stop, args.until_end, PAUSED_TIME_MAX));
    if args.close_windows && worked.is_ok() {
        host.close_windows(&|| stop.load(Ordering::Acquire));
    }
    finish(host).and(worked)
}

/// Starts pipelines, each as soon as its cluster answers, and says what the others wait for.
fn start(
    host: &mut Host,
    plans: Vec<Plan>,
    catalog: &PluginCatalog,
    stop: &AtomicBool,
    patience: Option<Duration>,
) -> miette::Result<()> {
    let began = Instant::now();
    let mut waiting: Vec<(Plan, Option<String>)> = plans.into_iter().map(|plan| (plan, None)).collect();
    loop {
        let mut still = Vec::new();
        for (plan, said) in waiting {
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
            let name = plan.name.clone();
            match host.start(plan.clone(), catalog) {
                Ok(()) => tracing::info!(pipeline = name, "started"),
                Err(error) if error.passes() && patience.is_none_or(|patience| began.elapsed() < patience) => {
                    let why = error.to_string();
                    if said.as_ref() != Some(&why) {
                        tracing::error!(pipeline = name, "not started yet: {why}; it is tried again and again");
                    }
                    still.push((plan, Some(why)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        waiting = still;
        let next = Instant::now() + START_AGAIN_TIME;
        while !waiting.is_empty() && Instant::now() < next {
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        if waiting.is_empty() {
            return Ok(());
        }
    }
}

/// Set by SIGTERM and SIGINT. A second SIGINT, which a person sends who does not want to wait, ends the process at
/// once; a second SIGTERM does not: process managers send it to the process and to its group, and mean one stop.
///
/// # Errors
/// Where the handlers cannot be set.
pub fn stop_signal() -> miette::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register_conditional_shutdown(SIGINT, 130, stop.clone())
        .and_then(|_| signal_hook::flag::register(SIGINT, stop.clone()))
        .and_then(|_| signal_hook::flag::register(SIGTERM, stop.clone()))
        .into_diagnostic()
        .wrap_err("the signal handlers cannot be set")?;
    Ok(stop)
}

/// Waits until `stop` is set, all pipelines have ended, or (`until_end`) all are at the end of their sources; shows
/// progress meanwhile where it has an end.
///
/// # Errors
/// With `until_end`, where a pipeline is paused and nothing has moved for `paused_max`: why it is. The pipelines are as
/// they were.
pub fn work(host: &mut Host, stop: &AtomicBool, until_end: bool, paused_max: Duration) -> miette::Result<()> {
    let ended = |host: &Host| {
        let over = |state| matches!(state, PipelineState::Failed(_) | PipelineState::Stopped);
        host.pipelines().all(|(_, state)| over(state))
    };
    if !until_end {
        while !(stop.load(Ordering::Acquire) || ended(host)) {
            std::thread::sleep(LOOK_INTERVAL);
        }
        return Ok(());
    }
    let bar = progress::bar("processing", Some(total(host)), false);
    let mut pause = Pause::default();
    host.drain();
    let outcome = loop {
        if stop.load(Ordering::Acquire) || ended(host) || host.is_at_end() {
            break Ok(());
        }
        let done = records_in(host);
        bar.set_length(total(host).max(done));
        bar.set_position(done);
        let gave_up = pause.look(host, paused_max);
        if gave_up.is_err() {
            break gave_up;
        }
        std::thread::sleep(LOOK_INTERVAL_UNTIL_END);
    };
    bar.finish_and_clear();
    outcome
}

/// What is known of a pause while somebody waits for the end.
#[derive(Default)]
struct Pause {
    /// Since when nothing moves while a pipeline is paused, and how many commits there were then.
    since: Option<(Instant, u64)>,
}

impl Pause {
    /// Says when a pause begins; an error where it has lasted too long.
    fn look(&mut self, host: &Host, time_max: Duration) -> miette::Result<()> {
        let paused = host.pipelines().find_map(|(pipeline, state)| match state {
            PipelineState::Paused(why) => Some((&pipeline.plan.name, why)),
            _ => None,
        });
        let Some((name, why)) = paused else {
            self.since = None;
            return Ok(());
        };
        let commits = host.pipelines().map(|(pipeline, _)| pipeline.stats.commits.get()).sum();
        match self.since {
            Some((since, before)) if before == commits => {
                if since.elapsed() < time_max {
                    return Ok(());
                }
                Err(miette::miette!(
                    help = "what was committed is safe; when the cause is gone, the same command goes on from there",
                    "pipeline {name:?} is paused, and nothing has moved for {time_max:?}: {why}"
                ))
            }
            before => {
                if before.is_none() {
                    let _ = writeln!(
                        progress::Stderr,
                        "paused: {name}: {why}; waiting for at most {time_max:?}"
                    );
                }
                self.since = Some((Instant::now(), commits));
                Ok(())
            }
        }
    }
}

fn records_in(host: &Host) -> u64 {
    host.pipelines()
        .map(|(pipeline, _)| pipeline.stats.records_in.get())
        .sum()
}

/// Records that the pipelines have still to read, and have read.
fn total(host: &Host) -> u64 {
    host.lag() + records_in(host)
}

/// Commits and ends everything within [`STOP_TIME_MAX`]: a watchdog sees to it.
fn finish(mut host: Host) -> miette::Result<()> {
    std::thread::spawn(move || {
        std::thread::sleep(STOP_TIME_MAX);
        eprintln!("millstream: did not stop within {STOP_TIME_MAX:?}; ending now. What was committed is safe.");
        std::process::exit(1);
    });
    let states: Vec<_> = host
        .pipelines()
        .map(|(pipeline, state)| (pipeline.plan.name.clone(), state))
        .collect();
    let clean = host.stop(STOP_TIME_MAX - Duration::from_secs(2));
    for (pipeline, _) in host.pipelines() {
        let stats = &pipeline.stats;
        tracing::info!(
            pipeline = pipeline.plan.name,
            records_in = stats.records_in.get(),
            dead_letters = stats.dead_letters.get(),
            commits = stats.commits.get(),
            "stopped"
        );
    }
    if !clean {
        return Err(miette::miette!(
            "a pipeline is in a call that does not end; its last commit stands"
        ));
    }
    host.close();
    match states.into_iter().find_map(|(name, state)| match state {
        PipelineState::Failed(why) => Some((name, why)),
        _ => None,
    }) {
        Some((name, why)) => Err(miette::miette!("pipeline {name:?} stopped: {why}")),
        None => Ok(()),
    }
}
