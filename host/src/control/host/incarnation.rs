//! Local stores belong to one topic: rows that were read from a changelog that is no more are dropped.

use super::HostError;
use super::engine::EngineHost;
use crate::pipeline::{Plan, PlannedStage};

impl EngineHost {
    /// Where the changelog is another one than the local store was read from – the pipeline was reset, from this machine or
    /// another – the store begins anew with it.
    ///
    /// # Errors
    /// [`HostError::ChangelogGone`] where nobody reset it: the group goes on behind what was counted, and it has nothing.
    pub(super) fn keep_with(&self, plan: &Plan, stage: &PlannedStage, changelog: &str) -> Result<(), HostError> {
        let Some(now) = self.log.incarnation(changelog)? else {
            return Ok(());
        };
        let before = self.folder.incarnation(changelog);
        if before.as_ref() == Some(&now) {
            return Ok(());
        }
        if before.is_some() {
            let ranges = self.log.topic(changelog)?.partition_ranges;
            if ranges.iter().all(|range| range.next_offset == 0) && self.has_kept(plan, stage)? {
                return Err(HostError::ChangelogGone {
                    pipeline: plan.name.clone(),
                    stage: stage.name.clone(),
                    topic: changelog.to_owned(),
                });
            }
            tracing::info!(
                pipeline = plan.name,
                stage = stage.name,
                changelog,
                "the changelog was made anew: so is the local store"
            );
        }
        // First the rows: a crash in between drops them once more.
        self.folder.drop_store(changelog)?;
        self.folder.note_incarnation(changelog, &now).map_err(HostError::Note)
    }
}
