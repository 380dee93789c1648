//! `millstream check`: everything that can be known to be wrong before anything runs.

use std::path::{Path, PathBuf};

use miette::Report;

use crate::control::{HostOptions, PluginCatalog};
use crate::pipeline::{self, Plan};

/// Arguments of `millstream check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// # Errors
/// Everything that is wrong in any of the files.
pub fn run(args: Args) -> miette::Result<()> {
    let options = HostOptions::new(PathBuf::new())?;
    let catalog = PluginCatalog::new(options.runtime()?);
    for plan in plans(&args.files, &catalog)? {
        let (stages, sources) = (plan.stages.len(), plan.sources.len());
        println!("{}: fine, {sources} source(s), {stages} stage(s)", plan.name);
    }
    Ok(())
}

/// Reads and checks pipeline files; reports go to stderr as they are found, so that all files have their say.
///
/// # Errors
/// How many files are wrong.
pub fn plans(files: &[PathBuf], catalog: &PluginCatalog) -> miette::Result<Vec<Plan>> {
    let mut plans = Vec::new();
    let mut wrong: Vec<Report> = Vec::new();
    for file in files {
        match plan(file, catalog) {
            Ok(plan) => plans.push(plan),
            Err(report) => wrong.push(report),
        }
    }
    match wrong.len() {
        0 => Ok(plans),
        1 => Err(wrong.remove(0)),
        count => {
            wrong.iter().for_each(|report| eprintln!("{report:?}"));
            Err(miette::miette!("{count} of {} pipeline files are wrong", files.len()))
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
