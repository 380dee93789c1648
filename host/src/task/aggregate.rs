//! Aggregators: rows are grouped by key and window, added to what is kept for the group, and results made of that.
//!
//! The plugin is a pure function over tables of accumulators. Which rows belong together, what is late, when a window
//! closes and when a result is due is decided here.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::limits::{BATCH_ROWS_MAX, KEY_BYTES_MAX};
use crate::output::{Failure, Outputs};
use crate::pipeline::StageEntry;
use crate::record::{Headers, HeadersRef, RecordRef};
use crate::schema::FieldType;
use crate::state::codec::{WINDOW_BYTES, read_start, start_bytes, write_row};
use crate::table::{Cell, Column, Table};
use crate::window::{Emit, Late};

use super::dead_letter::Reason;
use super::pass::{Judged, Pass, PassError, cause};
use super::state::{check_row, push_row};
use crate::state::notes::Closed;

/// The header of a late record that says why it is.
pub const LATE_HEADER: &str = "__millstream.late";

/// A row and a group that it belongs to; with windows that overlap a row has several.
#[derive(Clone, Copy)]
struct Member<'a> {
    row: u32,
    /// The window's start, if there are windows, and the record's key.
    group: &'a [u8],
}

impl<'a> Pass<'_, 'a> {
    /// Adds rows to their groups.
    pub(super) fn aggregate(
        &mut self,
        entry: StageEntry,
        table: &Table,
        rows: &[RecordRef<'a>],
    ) -> Result<(), PassError> {
        let stage = entry.stage;
        let stats = &self.pipeline.stats.stages[stage];
        stats.rows_in.add(rows.len() as u64);
        let mut members = Vec::with_capacity(rows.len());
        let (mut late, mut unkeyed) = (Vec::new(), Vec::new());
        for (at, record) in rows.iter().enumerate() {
            let row = at as u32;
            match record.key {
                None => unkeyed.push(*record),
                Some(key) if key.len() > KEY_BYTES_MAX => {
                    let bytes = key.len();
                    let message = format!("the key has {bytes} bytes, but {KEY_BYTES_MAX} is the limit for a group");
                    self.fail(stage, record, &cause(Reason::Refused, "key", &message));
                }
                Some(key) => match self.groups_of(stage, record, key) {
                    Ok(groups) => members.extend(groups.into_iter().map(|group| Member { row, group })),
                    Err(why) => late.push(self.late(record, why)),
                },
            }
        }
        self.send_unkeyed(stage, &unkeyed)?;
        self.pipeline.stats.stages[stage].late.add(late.len() as u64);
        let pipeline = self.pipeline;
        self.send(&pipeline.stages[stage].late, &late)?;
        if self.pipeline.stages[stage].aggregates != Some(Emit::EveryUpdate) {
            return self.accumulate(entry, table, rows, &members);
        }
        // A result for each change: as many rows at a time as belong to different groups, each row as a whole.
        let mut rest = &members[..];
        while !rest.is_empty() {
            let mut seen = std::collections::HashSet::new();
            let end = rest.iter().position(|member| !seen.insert(member.group));
            let end = end.map_or(rest.len(), |end| {
                rest.partition_point(|member| member.row < rest[end].row)
            });
            let (run, behind) = rest.split_at(end);
            self.accumulate(entry, table, rows, run)?;
            rest = behind;
        }
        Ok(())
    }

    /// The groups of a record, its time taken into account.
    fn groups_of(&mut self, stage: usize, record: &RecordRef<'a>, key: &'a [u8]) -> Result<Groups<'a>, Late> {
        let seen = self.observe(stage, record);
        let Some(state) = &self.machinery.state[stage] else {
            return Ok(Groups::One(Some(key)));
        };
        // Without windows nothing is too far ahead: it only does not move stream time.
        let Some(window) = state.window else {
            return Ok(Groups::One(Some(key)));
        };
        seen?;
        let starts = window.place(record.timestamp_ms, state.progress.now)?;
        let arena = self.arena;
        let group = |start| {
            let group = arena.alloc_slice_fill_copy(WINDOW_BYTES + key.len(), 0);
            let (front, back) = group.split_at_mut(WINDOW_BYTES);
            front.copy_from_slice(&start_bytes(start));
            back.copy_from_slice(key);
            &*group
        };
        if window.overlap() == 1 {
            return Ok(Groups::One(starts.map(group).next()));
        }
        Ok(Groups::Several(starts.map(group).collect::<Vec<_>>().into_iter()))
    }

    fn late(&self, record: &RecordRef<'a>, why: Late) -> RecordRef<'a> {
        let mut headers: Headers = record.headers.iter().collect();
        headers.push(LATE_HEADER, Some(why.to_string().as_bytes()));
        RecordRef {
            headers: HeadersRef::trusted(self.arena.alloc_slice_copy(headers.as_ref().encoded())),
            ..*record
        }
    }

    /// Calls the plugin to add members to their groups; where the call fails, in parts.
    fn accumulate(
        &mut self,
        entry: StageEntry,
        table: &Table,
        rows: &[RecordRef<'a>],
        members: &[Member<'a>],
    ) -> Result<(), PassError> {
        let stage = entry.stage;
        let (Some(first), Some(last)) = (members.first(), members.last()) else {
            return Ok(());
        };
        let (keys, groups) = number(members);
        let kept = self.fetch(stage, &keys)?;
        let gathered;
        let is_whole = members.len() == rows.len() && members.iter().enumerate().all(|(at, m)| m.row as usize == at);
        let added = if is_whole {
            table
        } else {
            let fields = self.pipeline.stages[stage].configured.signature().inputs[entry.input as usize]
                .fields
                .iter();
            let types: Vec<FieldType> = fields.map(|mapped| mapped.field.field_type).collect();
            gathered = gather(&types, table, members.iter().map(|member| member.row as usize));
            &gathered
        };
        let now_ms = self.now_ms;
        let (instance, _) = self.instance(stage)?;
        let fresh = instance.is_fresh();
        let answer = instance.accumulate(entry.input, &kept.table, &groups, added, now_ms);
        let single_row = first.row == last.row;
        let count = if single_row { 1 } else { members.len() };
        let accumulated = match self.judge(stage, count, fresh, answer)? {
            Judged::Answer(accumulated) => accumulated,
            Judged::Again => return self.accumulate(entry, table, rows, members),
            Judged::Failed(error) if single_row => {
                self.fail_call(stage, &rows[first.row as usize], &error);
                return Ok(());
            }
            Judged::Failed(_) => {
                if self.is_over() {
                    return Err(PassError::Overrun);
                }
                let (front, back) = halves(members);
                self.accumulate(entry, table, rows, front)?;
                return self.accumulate(entry, table, rows, back);
            }
        };
        let refused = self.refuse(stage, rows, members, &accumulated.failed);
        let too_large = self.store(
            stage,
            rows,
            members,
            &groups,
            &keys,
            &kept,
            &accumulated.accumulators,
            &refused,
        );
        if let Some(message) = too_large {
            // The groups are as before; which row made one too large is found as for a call that fails.
            if single_row {
                self.fail(
                    stage,
                    &rows[first.row as usize],
                    &cause(Reason::Refused, "state", &message),
                );
                return Ok(());
            }
            let (front, back) = halves(members);
            self.accumulate(entry, table, rows, front)?;
            return self.accumulate(entry, table, rows, back);
        }
        if self.pipeline.stages[stage].aggregates == Some(Emit::EveryUpdate) {
            let updated: Vec<_> = members
                .iter()
                .enumerate()
                .filter(|(at, _)| !refused.get(*at).is_some_and(|&refused| refused))
                .map(|(_, member)| (member.group, rows[member.row as usize].offset))
                .collect();
            let results = self.results_of(stage, &updated)?;
            self.finish(stage, &results)?;
        }
        Ok(())
    }

    /// What is kept for groups, as a table: what new ones start from where there is nothing.
    fn fetch(&mut self, stage: usize, keys: &[&[u8]]) -> Result<Kept, PassError> {
        let runtime = &self.pipeline.stages[stage];
        let down = |message: String| PassError::StateDown {
            stage: runtime.name.clone(),
            message,
        };
        let shape = &runtime.stores[0];
        let start = runtime.configured.accumulator().map(|accumulator| &accumulator.start);
        let mut columns = shape.columns(keys.len());
        let mut times = Vec::with_capacity(keys.len());
        let state = self.machinery.state[stage]
            .as_ref()
            .expect("an aggregator keeps its groups");
        let mut stores = state.stores();
        let store = &mut stores.stores[0];
        let places = store.find_all(keys.iter().copied());
        for (at, (key, place)) in keys.iter().zip(places).enumerate() {
            match store
                .get_at(place, key, state.progress.now)
                .map_err(|error| down(error.to_string()))?
            {
                Some(row) => {
                    let time = shape.read(row, at, &mut columns);
                    times.push(Some(time.map_err(|error| down(error.to_string()))?));
                }
                None => {
                    push_row(
                        &shape.value,
                        start.expect("an aggregator has a start"),
                        0,
                        at,
                        &mut columns,
                    );
                    times.push(None);
                }
            }
        }
        Ok(Kept {
            table: Table {
                rows: keys.len() as u32,
                columns,
            },
            times,
        })
    }

    /// Sends rows that the plugin refused to the dead-letter queue. Returns which members those are; empty for none.
    fn refuse(
        &mut self,
        stage: usize,
        rows: &[RecordRef<'a>],
        members: &[Member<'a>],
        failed: &[Failure],
    ) -> Vec<bool> {
        if failed.is_empty() {
            return Vec::new();
        }
        let mut refused = vec![false; members.len()];
        let mut told = None;
        let mut in_order: Vec<&Failure> = failed.iter().collect();
        in_order.sort_by_key(|failure| failure.row);
        for failure in in_order {
            refused[failure.row as usize] = true;
            let row = members[failure.row as usize].row;
            if told.replace(row) != Some(row) {
                self.fail(
                    stage,
                    &rows[row as usize],
                    &cause(Reason::Refused, "refused", &failure.message),
                );
            }
        }
        refused
    }

    /// Keeps what became of the groups; all of it, or nothing where one is larger than may be kept.
    #[expect(clippy::too_many_arguments, reason = "one call's rows, groups and answer")]
    fn store(
        &mut self,
        stage: usize,
        rows: &[RecordRef<'a>],
        members: &[Member<'a>],
        groups: &[u32],
        keys: &[&[u8]],
        kept: &Kept,
        accumulators: &Table,
        refused: &[bool],
    ) -> Option<String> {
        let mut times: Vec<Option<i64>> = vec![None; keys.len()];
        for (at, (member, &group)) in members.iter().zip(groups).enumerate() {
            if !refused.get(at).is_some_and(|&refused| refused) {
                let time = rows[member.row as usize].timestamp_ms;
                let newest = &mut times[group as usize];
                *newest = (*newest).max(Some(time));
            }
        }
        let state = self.machinery.state[stage]
            .as_mut()
            .expect("an aggregator keeps its groups");
        state.begin_call();
        let shape = self.pipeline.stages[stage].stores[0].clone();
        let mut stores = state.stores();
        let store = &mut stores.stores[0];
        let mut row = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            // A group of which every row was refused is as before.
            let Some(time) = times[at] else { continue };
            let time = kept.times[at].map_or(time, |before| before.max(time));
            row.clear();
            write_row(shape.schema_number(), time, &shape.value, accumulators, at, &mut row);
            if let Err(error) = check_row(&shape, &row) {
                store.undo_call();
                return Some(error.to_string());
            }
            store.put(key, &row);
        }
        None
    }

    /// The groups of these keys as they are now, each with the offset of what changed it.
    fn results_of(&mut self, stage: usize, keys: &[(&'a [u8], u64)]) -> Result<Vec<Group>, PassError> {
        let runtime = &self.pipeline.stages[stage];
        let state = self.machinery.state[stage]
            .as_ref()
            .expect("an aggregator keeps its groups");
        let mut stores = state.stores();
        let mut groups = Vec::with_capacity(keys.len());
        for &(key, offset) in keys {
            let row = stores.stores[0].get(key, state.progress.now);
            let row = row.map_err(|error| PassError::StateDown {
                stage: runtime.name.clone(),
                message: error.to_string(),
            })?;
            groups.extend(row.map(|row| Group {
                key: key.to_vec(),
                row: row.to_vec(),
                offset,
            }));
        }
        Ok(groups)
    }

    /// Sends the results of the groups that changed since the last commit, of all stages that send them then.
    pub(super) fn send_updates(&mut self) -> Result<(), PassError> {
        for stage in 0..self.pipeline.stages.len() {
            if self.pipeline.stages[stage].aggregates != Some(Emit::Update) {
                continue;
            }
            let Some(state) = &self.machinery.state[stage] else {
                continue;
            };
            let changed = state.stores().stores[0].changed();
            let groups = changed.into_iter().map(|(key, row)| Group { key, row, offset: 0 });
            let groups: Vec<_> = groups.collect();
            for groups in groups.chunks(BATCH_ROWS_MAX) {
                self.finish(stage, groups)?;
            }
        }
        Ok(())
    }

    /// Sends the results of windows that are to be closed, of all stages. Returns whether all are; where not, enough waits
    /// for the commit.
    pub(super) fn close_windows(&mut self) -> Result<bool, PassError> {
        for stage in 0..self.pipeline.stages.len() {
            let closing = |state: &super::state::StageState| state.progress.closed.is_some();
            while self.machinery.state[stage].as_ref().is_some_and(closing) {
                if !self.close_some(stage)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Closes a window of a stage, or a part of it. Returns whether there is room for more.
    fn close_some(&mut self, stage: usize) -> Result<bool, PassError> {
        let runtime = &self.pipeline.stages[stage];
        let down = |error: crate::state::ColdError| PassError::StateDown {
            stage: runtime.name.clone(),
            message: error.to_string(),
        };
        let Some(state) = &mut self.machinery.state[stage] else {
            return Ok(true);
        };
        let Some(closed) = state.progress.closed.clone() else {
            return Ok(true);
        };
        let before = state
            .window
            .map_or(i64::MIN, |window| window.first_open(state.progress.now));
        let next = state.stores().stores[0]
            .next_window(closed.before_ms, before)
            .map_err(down)?;
        let Some(start) = next else {
            state.progress.closed = None;
            return Ok(true);
        };
        let after = closed.after.filter(|_| start == closed.before_ms);
        let mut cursor = state.stores().stores[0].window(start, after.as_deref());
        loop {
            let Some(state) = &self.machinery.state[stage] else {
                return Ok(true);
            };
            let rows = state.stores().stores[0]
                .window_rows(&mut cursor, BATCH_ROWS_MAX)
                .map_err(down)?;
            let last = rows.last().map(|(key, _)| key.clone());
            let offset = self.last_offset;
            let groups: Vec<_> = rows.into_iter().map(|(key, row)| Group { key, row, offset }).collect();
            self.finish(stage, &groups)?;
            let closed = match last {
                None => Closed {
                    before_ms: start.saturating_add(1),
                    after: None,
                },
                Some(last) => Closed {
                    before_ms: start,
                    after: Some(last),
                },
            };
            let (is_end, can_be_noted) = (closed.after.is_none(), closed.can_be_noted());
            if let Some(state) = &mut self.machinery.state[stage] {
                state.progress.closed = Some(closed);
            }
            let is_full = can_be_noted && self.is_full();
            if is_end || is_full {
                return Ok(!is_full);
            }
        }
    }

    /// Calls the plugin to make results of groups, and sends those on; where the call fails, in parts.
    fn finish(&mut self, stage: usize, groups: &[Group]) -> Result<(), PassError> {
        if groups.is_empty() {
            return Ok(());
        }
        let runtime = &self.pipeline.stages[stage];
        let shape = runtime.stores[0].clone();
        let window = self.pipeline.plan.stages[stage].window;
        let mut table = Table {
            rows: groups.len() as u32,
            columns: shape.columns(groups.len()),
        };
        let mut records = Vec::with_capacity(groups.len());
        let mut starts = Vec::with_capacity(groups.len());
        for (at, group) in groups.iter().enumerate() {
            let time = shape.read(&group.row, at, &mut table.columns);
            let timestamp_ms = time.map_err(|error| PassError::StateDown {
                stage: runtime.name.clone(),
                message: error.to_string(),
            })?;
            let key = match (window, read_start(&group.key)) {
                (Some(_), Some((start, key))) => {
                    starts.push(start);
                    key
                }
                _ => &group.key,
            };
            records.push(RecordRef {
                key: Some(self.arena.alloc_slice_copy(key)),
                value: None,
                headers: HeadersRef::default(),
                timestamp_ms,
                offset: group.offset,
            });
        }
        let now_ms = self.now_ms;
        let (instance, _) = self.instance(stage)?;
        let fresh = instance.is_fresh();
        let answer = instance.finish(&table, now_ms);
        let mut outputs: Outputs = match self.judge(stage, groups.len(), fresh, answer)? {
            Judged::Answer(outputs) => outputs,
            Judged::Again => return self.finish(stage, groups),
            Judged::Failed(error) if groups.len() == 1 => {
                // What stands in the queue is the group's key and the time of its newest record.
                self.fail_call(stage, &records[0], &error);
                return Ok(());
            }
            Judged::Failed(_) => {
                if self.is_over() {
                    return Err(PassError::Overrun);
                }
                let (front, back) = groups.split_at(groups.len() / 2);
                self.finish(stage, front)?;
                return self.finish(stage, back);
            }
        };
        if let Some(window) = window {
            for emitted in &mut outputs.branches {
                let bound = |of: &dyn Fn(i64) -> i64| {
                    let mut column = Column::with_capacity(FieldType::Time, emitted.origins.len());
                    for (row, &origin) in emitted.origins.iter().enumerate() {
                        column.push(FieldType::Time, row, Cell::Time(of(starts[origin as usize])));
                    }
                    column
                };
                let bounds = [bound(&|start| start), bound(&|start| window.end(start))];
                emitted.table.columns.extend(bounds);
            }
        }
        let entry = StageEntry {
            stage,
            input: 0,
            feed: 0,
        };
        self.apply(entry, &records, outputs)
    }
}

/// Members of several rows in two parts, between two rows, so that a row is at fault as a whole.
fn halves<'m, 'a>(members: &'m [Member<'a>]) -> (&'m [Member<'a>], &'m [Member<'a>]) {
    let middle = members[members.len() / 2].row.max(members[0].row + 1);
    members.split_at(members.partition_point(|member| member.row < middle))
}

/// What is kept for some groups.
struct Kept {
    table: Table,
    /// The greatest timestamp in each; none for a new one.
    times: Vec<Option<i64>>,
}

/// A group whose result is due.
struct Group {
    key: Vec<u8>,
    row: Vec<u8>,
    /// Of the record that made it due.
    offset: u64,
}

/// The groups of members, each once, and for each member which of them it belongs to.
fn number<'a>(members: &[Member<'a>]) -> (Vec<&'a [u8]>, Vec<u32>) {
    let hasher = hashbrown::DefaultHashBuilder::default();
    let mut numbers: HashTable<u32> = HashTable::with_capacity(members.len());
    let mut keys: Vec<&[u8]> = Vec::new();
    let number = |member: &Member<'a>| {
        let hash = hasher.hash_one(member.group);
        let found = numbers.find(hash, |&number| keys[number as usize] == member.group);
        found.copied().unwrap_or_else(|| {
            let number = keys.len() as u32;
            keys.push(member.group);
            numbers.insert_unique(hash, number, |&number| hasher.hash_one(keys[number as usize]));
            number
        })
    };
    let groups = members.iter().map(number).collect();
    (keys, groups)
}

/// The groups of one record.
enum Groups<'a> {
    One(Option<&'a [u8]>),
    Several(std::vec::IntoIter<&'a [u8]>),
}

impl<'a> Iterator for Groups<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            Groups::One(group) => group.take(),
            Groups::Several(groups) => groups.next(),
        }
    }
}

/// Some rows of a table, in this order.
fn gather(types: &[FieldType], table: &Table, rows: impl ExactSizeIterator<Item = usize> + Clone) -> Table {
    let column = |(&field_type, from): (&FieldType, &Column)| {
        let mut column = Column::with_capacity(field_type, rows.len());
        for (at, row) in rows.clone().enumerate() {
            column.push(field_type, at, from.cell(field_type, row));
        }
        column
    };
    Table {
        rows: rows.len() as u32,
        columns: types.iter().zip(&table.columns).map(column).collect(),
    }
}
