//! `millstream completion`: what a shell needs to complete our commands, and the man pages.

use std::path::PathBuf;

use clap::CommandFactory;
use miette::{IntoDiagnostic, WrapErr};

/// Arguments of `millstream completion`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(required_unless_present = "man")]
    shell: Option<clap_complete::Shell>,
    /// Write the man pages into this folder instead
    #[arg(long, value_name = "DIR")]
    man: Option<PathBuf>,
}

/// # Errors
/// Where stdout or the folder cannot be written.
pub fn run(args: Args) -> miette::Result<()> {
    let mut command = super::Cli::command();
    if let Some(dir) = args.man {
        return std::fs::create_dir_all(&dir)
            .and_then(|()| clap_mangen::generate_to(command, &dir))
            .into_diagnostic()
            .wrap_err_with(|| format!("the man pages cannot be written to {}", dir.display()));
    }
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell.expect("clap asked for it"),
        &mut command,
        "millstream",
        &mut script,
    );
    super::write_out(&script)
}
