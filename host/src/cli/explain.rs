//! `millstream explain`: a pipeline as a drawing.

use std::path::PathBuf;

use miette::IntoDiagnostic;

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
    let text = match args.output.format {
        OutputFormat::Text => pipeline::explain(&plan),
        OutputFormat::Json => {
            serde_json::to_string_pretty(&pipeline::Explanation::new(&plan)).into_diagnostic()? + "\n"
        }
    };
    super::write_out(text.as_bytes())
}
