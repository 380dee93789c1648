//! The commands, one a file. Data goes to stdout, talk and progress to stderr.

pub mod build;
pub mod check;
pub mod completion;
pub mod consume;
pub mod context;
pub mod demo;
pub mod engine;
pub mod explain;
pub mod from;
pub mod groups;
pub mod inspect;
pub mod produce;
pub mod progress;
mod report;
pub mod reset;
mod results;
pub mod rides;
pub mod run;
pub mod state;
pub mod table;
pub mod topics;
pub mod window;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::Engine;
use miette::IntoDiagnostic;

/// A WebAssembly plugin host for stream processors.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more (repeat for even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How log lines are written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        env = "MILLSTREAM_LOG_FORMAT"
    )]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read pipeline files, load their plugins and type-check every stage
    Check(check::Args),
    /// Draw a pipeline: topics, stages, branches with their types
    Explain(explain::Args),
    /// Run pipelines
    Run(run::Args),
    /// Write records to a topic, from a file or stdin
    Produce(produce::Args),
    /// Read records from a topic, as JSON lines
    Consume(consume::Args),
    /// List, create, describe and delete topics
    Topics(topics::Args),
    /// List consumer groups with their offsets and lag
    Groups(groups::Args),
    /// Read the rows of a pipeline's stores
    State(state::Args),
    /// Let a pipeline begin anew
    Reset(reset::Args),
    /// Say what a plugin is
    Inspect(inspect::Args),
    /// Compile plugins to components
    Build(build::Args),
    /// Run taxi rides through the demo's pipelines
    Demo(demo::Args),
    /// Print a completion script for your shell, or the man pages
    Completion(completion::Args),
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table for people
    Text,
    /// One JSON document
    Json,
}

/// `-o`, where something is listed.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// Output format
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value = "text")]
    pub format: OutputFormat,
}

/// Arguments of a command that lists things, and does more with a subcommand.
#[derive(Debug, Args)]
pub struct Listing<A: Subcommand> {
    #[command(subcommand)]
    action: Option<A>,
    #[command(flatten)]
    engine: Engine,
    #[command(flatten)]
    output: Output,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The demo says itself what it does.
    let usual = match cli.command {
        Command::Demo(_) => "warn",
        _ => "warn,millstream=info,guest=info",
    };
    start_logging(usual, cli.verbose, cli.log_format);
    let outcome = match cli.command {
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Run(args) => run::run(args),
        Command::Produce(args) => produce::run(args),
        Command::Consume(args) => consume::run(args),
        Command::Topics(args) => topics::run(args),
        Command::Groups(args) => groups::run(args),
        Command::State(args) => state::run(args),
        Command::Reset(args) => reset::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Build(args) => build::run(build::Args {
            verbose: cli.verbose > 0,
            ..args
        }),
        Command::Demo(args) => demo::run(args),
        Command::Completion(args) => completion::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) if is_broken_pipe(&report) => ExitCode::SUCCESS,
        Err(report) => {
            report::show(&report);
            ExitCode::FAILURE
        }
    }
}

/// `millstream consume | head` is no error: who read stdout has enough.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("nobody reads stdout any more")]
struct NobodyReads;

fn is_broken_pipe(report: &miette::Report) -> bool {
    report.downcast_ref::<NobodyReads>().is_some()
}

/// Writes data to stdout.
///
/// # Errors
/// Where stdout cannot be written; [`main`] knows the reader's end from trouble.
pub fn write_out(bytes: &[u8]) -> miette::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => NobodyReads.into(),
            _ => miette::miette!("stdout cannot be written: {error}"),
        })
}

/// Writes one JSON document to stdout.
///
/// # Errors
/// As [`write_out`].
fn write_json(value: &impl serde::Serialize) -> miette::Result<()> {
    let text = serde_json::to_string_pretty(value).into_diagnostic()?;
    write_out(format!("{text}\n").as_bytes())
}

fn start_logging(usual: &str, verbose: u8, format: LogFormat) {
    let default = match verbose {
        0 => usual.to_owned(),
        1 => "info,millstream=debug,guest=debug".into(),
        _ => "debug,millstream=trace,guest=trace".into(),
    };
    // What clients of Kafka have to say is told by whoever has one.
    let default = format!("{default},rdkafka=off");
    let filter = tracing_subscriber::EnvFilter::try_from_env("MILLSTREAM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(report::has_colours())
        .with_writer(progress::Stderr);
    // A second initialisation can only be a test's; its subscriber stays.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_of_all_commands_are_read() {
        Cli::command().debug_assert();
        for line in [
            "check p.toml",
            "explain p.toml -o json",
            "run p.toml --until-end --workers 2 --data d",
            "produce t --key /a --rate 5 --data d",
            "consume t --from -1h -n 1 --group g",
            "topics list --data d -o json",
            "topics create t --replication 3 --set retention.ms=5 --bootstrap b:1 -X linger.ms=5",
            "check p.toml --connect --context live",
            "groups delete g --data d",
            "state",
            "state p s.t -1 --window -1h.. -n 3 -o json --data d",
            "state p s --prefix -x",
            "reset p --to -1h --keep-state --yes --data d",
            "inspect p.wasm -o json",
            "build d -o x.wasm -v",
            "demo --rides 10",
            "completion bash",
        ] {
            let parsed = Cli::try_parse_from(["millstream"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }
}
