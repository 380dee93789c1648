//! `millstream explain`: a pipeline as a drawing.

use std::path::PathBuf;

use super::{Output, OutputFormat};
use crate::control::{HostOptions, PluginCatalog};
use crate::pipeline;

/// Arguments of `millstream explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// # Errors
/// Everything that is wrong in the file.
pub fn run(args: Args) -> miette::Result<()> {
    let options = HostOptions::new(PathBuf::new())?;
    let catalog = PluginCatalog::new(options.runtime()?);
    let plan = super::check::plan(&args.file, &catalog)?;
    match args.output.format {
        OutputFormat::Text => super::write_out(pipeline::explain(&plan).as_bytes()),
        OutputFormat::Json => super::write_json(&pipeline::Explanation::new(&plan)),
    }
}
