//! Commits of commands. Records alone go through one idempotent producer that stays open; offsets alone are set, for a
//! group without members, or committed by the member that is named; both together become true in one transaction.

use super::KafkaLog;
use crate::connect::kafka::context::Quiet;
use crate::connect::kafka::transactions::{Failed, Outlet};
use crate::connect::{Commit, CommitError, Committed, LogError};
use rdkafka::consumer::BaseConsumer;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The producer, made with the first record.
#[derive(Default)]
pub(super) struct Writer(Mutex<Option<Outlet>>);

impl KafkaLog {
    pub(super) fn write(&self, commit: &Commit) -> Result<Committed, CommitError> {
        let has_records = commit.appends.iter().any(|append| !append.blocks.is_empty());
        match (has_records, commit.offsets.is_empty()) {
            (false, true) => Ok(nothing(commit)),
            (false, false) => {
                self.write_offsets(commit)?;
                Ok(nothing(commit))
            }
            (true, true) => self.write_records(commit),
            (true, false) => self.write_together(commit),
        }
    }

    fn write_offsets(&self, commit: &Commit) -> Result<(), LogError> {
        match &commit.fence {
            Some(fence) => self.commit_of_member(fence, &commit.offsets),
            None => self.set_offsets(&commit.offsets),
        }
    }

    /// All partitions get theirs, or it is an error; then some may have them.
    fn write_records(&self, commit: &Commit) -> Result<Committed, CommitError> {
        let mut writer = self.writer.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outlet = match writer.take() {
            Some(outlet) => outlet,
            None => Outlet::plain(&self.settings)?,
        };
        // One that failed is not used again: what it still holds must not be written later.
        let committed = outlet.write(std::slice::from_ref(commit))?;
        *writer = Some(outlet);
        committed.into_iter().next().ok_or(CommitError::Closed)
    }

    fn write_together(&self, commit: &Commit) -> Result<Committed, CommitError> {
        let groups: BTreeSet<&str> = commit.offsets.iter().map(|offset| &*offset.group).collect();
        let mut groups = groups.into_iter();
        let (Some(group), None) = (groups.next(), groups.next()) else {
            return Err(LogError::Unavailable {
                detail: "a transaction has records and offsets of one group: commit those of others apart".into(),
            }
            .into());
        };
        self.check_unused(group)?;
        let id = format!("millstream-command-{:016x}", rand::random::<u64>());
        let mut outlet = Outlet::transactional(&self.settings, &id)?;
        let mut config = self.settings.client();
        config.set("group.id", group).set("enable.auto.commit", "false");
        let made = config.create_with_context(Quiet::default());
        // It never joins: it says which group the offsets are of.
        let consumer: BaseConsumer<Quiet> = made.map_err(|error| self.unavailable("making a consumer", &error))?;
        match outlet.transaction(&consumer, std::slice::from_ref(commit)) {
            Ok(committed) => committed.into_iter().next().ok_or(CommitError::Closed),
            Err(Failed::Aborted(error) | Failed::Broken(error)) => Err(error),
        }
    }
}

/// Of a commit without records.
fn nothing(commit: &Commit) -> Committed {
    Committed {
        base_offsets: vec![0; commit.appends.len()],
    }
}
