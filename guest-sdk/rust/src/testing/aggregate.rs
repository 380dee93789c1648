//! Aggregators, with groups that the test names.

use std::collections::BTreeMap;

use super::{Outcome, Record, decode, encode, fill};
use crate::aggregator::Aggregator;
use crate::host;
use crate::plugin::Instance;
use crate::schema::Signature;
use crate::stored::{Stored, table};
use crate::table::Table;

/// Configures an aggregator, adds records to the groups that stand beside them, in one batch, and finishes all groups.
///
/// # Errors
/// Why the configuration was refused, or a whole call failed, or which rule of the contract the plugin broke.
pub fn aggregate<P: Aggregator>(
    config: serde_json::Value,
    records: impl IntoIterator<Item = (impl Into<String>, impl Into<Record>)>,
) -> Result<Outcome, String> {
    let mut tester = AggregatorTester::<P>::new(config)?;
    let input = tester.signature().inputs.first().map(|input| input.name.clone());
    let mut outcome = tester.add(&input.ok_or("the plugin has no input")?, records)?;
    outcome.append(tester.finish()?, 0);
    Ok(outcome)
}

/// A configured aggregator and its groups, for several batches. Windows are the host's: a test of a plugin names a
/// group as it likes.
pub struct AggregatorTester<P: Aggregator> {
    instance: Instance<P>,
    /// By name: what was accumulated, and the greatest timestamp.
    groups: BTreeMap<String, (P::Accumulator, i64)>,
}

impl<P: Aggregator> std::fmt::Debug for AggregatorTester<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.instance.fmt(f)
    }
}

impl<P: Aggregator> AggregatorTester<P> {
    /// Configures an aggregator.
    ///
    /// # Errors
    /// Why the configuration was refused, or which rule of the contract the signature breaks.
    pub fn new(config: serde_json::Value) -> Result<Self, String> {
        let instance = Instance::configure_aggregator(&config.to_string())?;
        for branch in &instance.signature().branches {
            encode::check(branch)?;
        }
        Ok(AggregatorTester {
            instance,
            groups: BTreeMap::new(),
        })
    }

    /// What the plugin reads, writes and shows.
    pub fn signature(&self) -> &Signature {
        self.instance.signature()
    }

    /// Adds records to the groups that stand beside them, in one batch. What is not added is in the outcome.
    ///
    /// # Errors
    /// That the whole call failed, or which rule of the contract the plugin broke.
    pub fn add(
        &mut self,
        input: &str,
        records: impl IntoIterator<Item = (impl Into<String>, impl Into<Record>)>,
    ) -> Result<Outcome, String> {
        let pairs = records.into_iter().map(|(group, record)| (group.into(), record.into()));
        let (names, records): (Vec<String>, Vec<Record>) = pairs.unzip();
        let signature = self.instance.signature().clone();
        let Some(index) = signature.inputs.iter().position(|stream| stream.name == input) else {
            return Err(format!("there is no input {input:?}"));
        };
        let (rows, numbers, undecoded) = decode::decode(&signature.inputs[index].fields, &records);
        let mut outcome = Outcome {
            undecoded,
            ..Outcome::default()
        };
        if rows.rows == 0 {
            return Ok(outcome);
        }
        let mut called: Vec<&String> = Vec::new();
        let mut groups = Vec::new();
        for &record in &numbers {
            let name = &names[record];
            let group = called.iter().position(|called| *called == name).unwrap_or_else(|| {
                called.push(name);
                called.len() - 1
            });
            groups.extend((group as u32).to_le_bytes());
        }
        let start = self.start()?;
        let of = |name: &String| self.groups.get(name).map_or(&start, |(accumulator, _)| accumulator);
        let before: Vec<&P::Accumulator> = called.iter().map(|name| of(name)).collect();
        let before = table(&self.instance.initial().fields, before.into_iter());
        host::take_lines();
        host::take_updates();
        let accumulated = self.instance.accumulate(index as u32, &before, &groups, &rows)?;
        outcome.hear(&signature);
        let accumulators = read::<P>(&accumulated.accumulators)?;
        for (name, accumulator) in called.into_iter().zip(accumulators) {
            let latest = numbers.iter().filter(|&&record| names[record] == *name);
            let latest = latest.map(|&record| records[record].timestamp).max().unwrap_or(0);
            let group = self
                .groups
                .entry(name.clone())
                .or_insert_with(|| (start.clone(), latest));
            *group = (accumulator, latest.max(group.1));
        }
        outcome.refuse(&numbers, accumulated.failed)?;
        Ok(outcome)
    }

    /// Merges the group `later` into the group `into`, whose rows came first, as when two sessions become one.
    ///
    /// # Errors
    /// That the whole call failed.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn merge(&mut self, into: &str, later: &str) -> Result<(), String> {
        let fields = self.instance.initial().fields;
        let (right, right_latest) = self.groups.remove(later).expect("a group");
        let (left, latest) = &self.groups[into];
        let latest = *latest.max(&right_latest);
        let one = |accumulator: &P::Accumulator| table(&fields, std::iter::once(accumulator));
        let merged = self.instance.merge(&one(left), &one(&right))?;
        let merged = read::<P>(&merged)?.pop().ok_or("`merge` answered no row")?;
        self.groups.insert(into.into(), (merged, latest));
        Ok(())
    }

    /// The results of all groups, in the order of their names: in the outcome's branches, with the group's name as the
    /// key. A group that is refused is among the failures by its place in that order.
    ///
    /// # Errors
    /// That the whole call failed, or which rule of the contract the plugin broke.
    pub fn finish(&mut self) -> Result<Outcome, String> {
        let signature = self.instance.signature().clone();
        let mut outcome = Outcome::default();
        for branch in &signature.branches {
            outcome.branches.insert(branch.name.clone(), Vec::new());
        }
        if self.groups.is_empty() {
            return Ok(outcome);
        }
        let accumulators = self.groups.values().map(|(accumulator, _)| accumulator);
        let accumulators = table(&self.instance.initial().fields, accumulators);
        host::take_lines();
        host::take_updates();
        let outputs = self.instance.finish(&accumulators)?;
        outcome.hear(&signature);
        let group = |(name, (_, latest)): (&String, &(P::Accumulator, i64))| {
            Record::tombstone().with_key(name.as_str()).at(*latest)
        };
        let groups: Vec<Record> = self.groups.iter().map(group).collect();
        let numbers: Vec<usize> = (0..groups.len()).collect();
        fill(&mut outcome, &signature, &groups, &numbers, outputs)?;
        Ok(outcome)
    }

    /// What was accumulated for a group.
    pub fn accumulator(&self, group: &str) -> Option<&P::Accumulator> {
        self.groups.get(group).map(|(accumulator, _)| accumulator)
    }

    /// A new group's accumulator, as it comes back from a host.
    fn start(&self) -> Result<P::Accumulator, String> {
        read::<P>(&self.instance.initial().start)?
            .pop()
            .ok_or_else(|| "`initial` answered no row".to_owned())
    }
}

fn read<P: Aggregator>(accumulators: &Table) -> Result<Vec<P::Accumulator>, String> {
    let columns = P::Accumulator::columns(accumulators)?;
    let rows = 0..accumulators.rows as usize;
    Ok(rows.map(|row| P::Accumulator::read(&columns, row)).collect())
}
