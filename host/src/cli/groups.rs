//! `millstream groups`: consumer groups with their offsets and lag.

use clap::Subcommand;
use miette::IntoDiagnostic;

use super::table::{count, human_time, print};
use super::{Listing, OutputFormat};

/// Arguments of `millstream groups`.
pub type Args = Listing<Action>;

/// What it does beside listing them.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List all groups, as without a subcommand
    List,
    /// Forget a group's offsets: whoever reads under its name begins anew
    Delete {
        /// Its name
        group: String,
    },
}

/// # Errors
/// Where the data or the group cannot be used.
pub fn run(args: Args) -> miette::Result<()> {
    let broker = args.engine.open_existing()?;
    if let Some(Action::Delete { group }) = args.action {
        broker.delete_group(&group).into_diagnostic()?;
        eprintln!("deleted group {group}");
        return Ok(());
    }
    let groups = broker.groups().into_diagnostic()?;
    if args.output.format == OutputFormat::Json {
        return super::write_json(&groups);
    }
    let rows = groups.iter().flat_map(|group| {
        group.partitions.iter().map(|partition| {
            vec![
                group.group.clone(),
                partition.topic.clone(),
                partition.partition.to_string(),
                partition.committed_offset.to_string(),
                partition.next_offset.to_string(),
                count(partition.lag),
                partition.committed_ms.map(human_time).unwrap_or_default(),
                partition.member.clone().unwrap_or_default(),
            ]
        })
    });
    print(
        &[
            "group",
            "topic",
            "partition",
            "offset",
            "end",
            "lag",
            "committed",
            "member",
        ],
        rows,
    )
}
