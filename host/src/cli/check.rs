//! `millstream check`: everything that can be known to be wrong before anything runs.

mod reach;

use std::path::{Path, PathBuf};

use miette::{Report, miette};

use super::engine::Engine;
use super::table::plural;
use crate::control::{HostOptions, PluginCatalog};
use crate::pipeline::{self, Plan};

/// Arguments of `millstream check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Look at the engine too: which topics are there, with how many partitions, and what may be done with them
    #[arg(long)]
    connect: bool,
    #[command(flatten)]
    engine: Engine,
}

/// # Errors
/// Everything that is wrong in any of the files, or with their engines.
pub fn run(args: Args) -> miette::Result<()> {
    let options = HostOptions::new(PathBuf::new())?;
    let catalog = PluginCatalog::new(options.runtime()?);
    let plans = plans(&args.files, &catalog)?;
    for plan in &plans {
        // Those of the file: what a stage's key makes is the pipeline's own affair.
        let sources = plan
            .sources
            .iter()
            .filter(|source| source.repartition.is_none())
            .count();
        let stages = plan.stages.len();
        let (sources, stages) = (plural(sources as u64, "source"), plural(stages as u64, "stage"));
        super::write_out(format!("{}: fine, {sources}, {stages}\n", plan.name).as_bytes())?;
    }
    if args.connect {
        reach::look(&plans, &args.engine)?;
    }
    Ok(())
}

/// Reads and checks pipeline files; reports go to stderr as they are found, so that all files have their say.
///
/// # Errors
/// How many files are wrong.
pub fn plans(files: &[PathBuf], catalog: &PluginCatalog) -> miette::Result<Vec<Plan>> {
    let mut plans = Vec::new();
    let mut from: Vec<&Path> = Vec::new();
    let mut wrong: Vec<Report> = Vec::new();
    for file in files {
        match plan(file, catalog) {
            Ok(plan) => match plans.iter().position(|other: &Plan| other.group == plan.group) {
                Some(other) => wrong.push(miette!(
                    help = "give one of them another `name`",
                    "{} and {} are both named {:?}, and would share a consumer group",
                    from[other].display(),
                    file.display(),
                    plan.name,
                )),
                None => {
                    plans.push(plan);
                    from.push(file);
                }
            },
            Err(report) => wrong.push(report),
        }
    }
    match wrong.len() {
        0 => Ok(plans),
        1 => Err(wrong.remove(0)),
        count => {
            wrong.iter().for_each(super::report::show);
            Err(miette!("{count} of {} pipeline files are wrong", files.len()))
        }
    }
}

/// Reads and checks one pipeline file.
///
/// # Errors
/// Everything that is wrong in it, underlined.
pub fn plan(file: &Path, catalog: &PluginCatalog) -> miette::Result<Plan> {
    let (_, plan) = pipeline::load(file, &|name| std::env::var(name).ok(), catalog)?;
    Ok(plan)
}
