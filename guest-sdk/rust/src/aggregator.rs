//! Aggregators: many rows folded into one.

use std::mem;
use std::ops::{Index, IndexMut};

use crate::error::{Error, Result};
use crate::output::{Branches, Output};
use crate::plugin::{Instance, Plugin};
use crate::processor::check;
use crate::row::{Batch, Input};
use crate::schema::{Field, Signature, ValueBase};
use crate::stored::{Stored, table};
use crate::table::{Failure, Outputs, Table};

/// What `initial` and `accumulate` answer.
pub use crate::bindings::aggregator::exports::millstream::plugin::aggregator::{Accumulated, Accumulator};

/// An accumulator that is copied for each row costs less than to find out afterwards what it was.
const COPIED_BYTES_MAX: usize = 64;

/// A plugin that folds many rows into one: per key, or per key and window. The host groups the rows, finds the
/// windows, keeps the accumulators and decides when a result is due; the plugin is a set of functions, and what they
/// answer depends on nothing but their arguments and the configuration.
///
/// ```
/// use millstream_sdk::prelude::*;
/// use millstream_sdk::testing;
/// use serde_json::json;
///
/// #[derive(Config, Plugin)]
/// struct Count;
///
/// #[derive(Branches, Fields)]
/// struct Counted {
///     count: i64,
/// }
///
/// impl Aggregator for Count {
///     type Input = ();
///     type Accumulator = i64;
///     type Output = Counted;
///
///     fn start(&self) -> i64 {
///         0
///     }
///
///     fn add(&self, count: &mut i64, _: ()) -> Result<()> {
///         *count += 1;
///         Ok(())
///     }
///
///     fn merge(&self, count: &mut i64, later: i64) -> Result<()> {
///         *count += later;
///         Ok(())
///     }
///
///     fn finish(&self, count: &i64, out: &mut Output<Counted>) -> Result<()> {
///         out.emit(Counted { count: *count });
///         Ok(())
///     }
/// }
///
/// let records = [("a", json!({})), ("b", json!({})), ("a", json!({}))];
/// let results = testing::aggregate::<Count>(json!({}), records).unwrap();
/// assert_eq!(results.keyed("output"), [("a", json!({"count": 2})), ("b", json!({"count": 1}))]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregator",
    note = "implement `Aggregator` for it; a processor is exported by `export!({Self})`"
)]
pub trait Aggregator: Plugin {
    /// What it reads; `()` for nothing.
    type Input: Input;
    /// What it keeps of the rows of a group.
    type Accumulator: Stored;
    /// The results, mostly one branch: a row that derives `Branches` and `Fields`. The value of a result is made of its
    /// fields alone.
    type Output: Branches;

    /// As [`Processor::signature`](crate::Processor::signature).
    fn signature(&self, signature: &mut Signature) {
        let _ = signature;
    }

    /// What a new group starts from.
    fn start(&self) -> Self::Accumulator;

    /// Adds a row. The rows of a group come in the order in which they arrived.
    ///
    /// # Errors
    /// The row goes to the dead-letter queue with the error's message; the accumulator becomes what it was before.
    fn add(&self, accumulator: &mut Self::Accumulator, row: <Self::Input as Input>::Row<'_>) -> Result<()>;

    /// Adds the rows of a batch, each to its group; by default one at a time, by [`add`](Self::add). Columns are faster:
    ///
    /// ```
    /// use millstream_sdk::prelude::*;
    /// use millstream_sdk::{Groups, testing};
    /// use serde_json::json;
    ///
    /// #[derive(Config, Plugin)]
    /// struct Sum;
    ///
    /// #[derive(Fields)]
    /// struct Ride {
    ///     amount: f64,
    /// }
    ///
    /// #[derive(Branches, Fields)]
    /// struct Total {
    ///     sum: f64,
    /// }
    ///
    /// impl Aggregator for Sum {
    ///     type Input = Ride;
    ///     type Accumulator = f64;
    ///     type Output = Total;
    ///
    ///     fn add_batch(&self, batch: &Batch<'_, Ride>, groups: &mut Groups<'_, f64>) -> Result<()> {
    ///         for (group, amount) in groups.of_rows().zip(batch.columns.amount.iter()) {
    ///             groups[group] += amount;
    ///         }
    ///         Ok(())
    ///     }
    /// #   fn start(&self) -> f64 { 0.0 }
    /// #   fn add(&self, sum: &mut f64, ride: Ride) -> Result<()> { unreachable!() }
    /// #   fn merge(&self, sum: &mut f64, later: f64) -> Result<()> { *sum += later; Ok(()) }
    /// #   fn finish(&self, sum: &f64, out: &mut Output<Total>) -> Result<()> { out.emit(Total { sum: *sum }); Ok(()) }
    /// }
    /// # let results = testing::aggregate::<Sum>(json!({}), [("a", json!({"amount": 2})), ("a", json!({"amount": 0.5}))]);
    /// # assert_eq!(results.unwrap().keyed("output"), [("a", json!({"sum": 2.5}))]);
    /// ```
    ///
    /// # Errors
    /// The whole call fails. Where the row is known, [`Groups::fail`] is better; its accumulator must then be as if the
    /// row had not been there.
    fn add_batch(&self, batch: &Batch<'_, Self::Input>, groups: &mut Groups<'_, Self::Accumulator>) -> Result<()> {
        add_rows(self, batch, groups)
    }

    /// Adds to `accumulator` what `later` holds; the rows behind `accumulator` came first. Called where sessions grow
    /// into one.
    ///
    /// # Errors
    /// The whole call fails.
    fn merge(&self, accumulator: &mut Self::Accumulator, later: Self::Accumulator) -> Result<()>;

    /// Emits the result of a group; mostly one row. Without a row the group has no result. The accumulator lives on.
    ///
    /// # Errors
    /// The group has no result, and the message goes to the dead-letter queue.
    fn finish(&self, accumulator: &Self::Accumulator, out: &mut Output<Self::Output>) -> Result<()>;
}

/// The accumulators of a call, by their numbers, and which of them each row belongs to.
#[derive(Debug)]
pub struct Groups<'a, A> {
    /// As they came.
    before: &'a Table,
    accumulators: Vec<A>,
    groups: &'a [[u8; 4]],
    failed: Vec<Failure>,
}

impl<'a, A> Groups<'a, A> {
    /// The group of a row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn of(&self, row: u32) -> usize {
        u32::from_le_bytes(self.groups[row as usize]) as usize
    }

    /// The group of each row.
    #[inline]
    pub fn of_rows(&self) -> impl ExactSizeIterator<Item = usize> + use<'a, A> {
        let groups = self.groups;
        groups.iter().map(|&group| u32::from_le_bytes(group) as usize)
    }

    /// The number of accumulators.
    #[expect(clippy::len_without_is_empty, reason = "a call is never without a row")]
    pub fn len(&self) -> usize {
        self.accumulators.len()
    }

    /// Sends a row to the dead-letter queue with a message.
    #[cold]
    pub fn fail(&mut self, row: u32, message: impl std::fmt::Display) {
        if !self.failed.iter().any(|failure| failure.row == row) {
            self.failed.push(Failure {
                row,
                message: message.to_string(),
            });
        }
    }
}

impl<A> Index<usize> for Groups<'_, A> {
    type Output = A;

    #[inline]
    fn index(&self, group: usize) -> &A {
        &self.accumulators[group]
    }
}

impl<A> IndexMut<usize> for Groups<'_, A> {
    #[inline]
    fn index_mut(&mut self, group: usize) -> &mut A {
        &mut self.accumulators[group]
    }
}

/// Adds rows one at a time. What a row changed before it failed is taken back: from a copy where copies are cheap, or
/// where rows of the group have failed before; otherwise the rows before it are added once more.
fn add_rows<P: Aggregator>(
    plugin: &P,
    batch: &Batch<'_, P::Input>,
    groups: &mut Groups<'_, P::Accumulator>,
) -> Result<()> {
    let cheap = !mem::needs_drop::<P::Accumulator>() && size_of::<P::Accumulator>() <= COPIED_BYTES_MAX;
    if cheap {
        for (row, cells) in batch.rows() {
            let group = groups.of(row);
            let before = groups[group].clone();
            if let Err(error) = plugin.add(&mut groups[group], cells) {
                groups[group] = before;
                groups.fail(row, error);
            }
        }
        return Ok(());
    }
    let mut failing: Vec<bool> = vec![false; groups.len()];
    for (row, cells) in batch.rows() {
        let group = groups.of(row);
        let before = failing[group].then(|| groups[group].clone());
        let Err(error) = plugin.add(&mut groups[group], cells) else {
            continue;
        };
        groups.fail(row, error);
        failing[group] = true;
        groups[group] = match before {
            Some(before) => before,
            None => {
                let columns = P::Accumulator::columns(groups.before).map_err(Error::new)?;
                let mut again = P::Accumulator::read(&columns, group);
                for earlier in (0..row).filter(|&earlier| groups.of(earlier) == group) {
                    plugin.add(&mut again, batch.row(earlier))?;
                }
                again
            }
        };
    }
    Ok(())
}

impl<P: Aggregator> Instance<P> {
    /// Makes an aggregator from its configuration, JSON text.
    ///
    /// # Errors
    /// Why the configuration is refused.
    pub fn configure_aggregator(config: &str) -> Result<Self, String> {
        let signature = Signature {
            inputs: P::Input::inputs(),
            branches: P::Output::branches(),
            stores: Vec::new(),
            metrics: Vec::new(),
        };
        Instance::new(config, signature, |plugin: &P, signature| {
            plugin.signature(signature);
            if !signature.stores.is_empty() {
                return Err("an aggregator has no stores: the host keeps its accumulators".into());
            }
            for branch in &mut signature.branches {
                branch.value = ValueBase::New;
            }
            check::<P::Input, P::Output>(signature)
        })
    }

    /// Answers `initial`.
    pub fn initial(&self) -> Accumulator {
        let fields = accumulator_fields::<P>();
        Accumulator {
            start: table(&fields, std::iter::once(&self.plugin.start())),
            fields,
        }
    }

    /// Answers `accumulate`.
    ///
    /// # Errors
    /// The whole call fails.
    pub fn accumulate(
        &mut self,
        input: u32,
        accumulators: &Table,
        groups: &[u8],
        rows: &Table,
    ) -> Result<Accumulated, String> {
        self.call(|plugin, signature| {
            let Some(stream) = signature.inputs.get(input as usize) else {
                return Err(format!("there is no input {input}"));
            };
            let columns = P::Input::columns(input as usize, rows, &stream.fields)
                .map_err(|problem| format!("input {:?}: {problem}", stream.name))?;
            let mut groups = Groups {
                before: accumulators,
                accumulators: read::<P>(accumulators)?,
                groups: group_numbers(groups, rows.rows, accumulators.rows)?,
                failed: Vec::new(),
            };
            plugin
                .add_batch(&Batch::new(rows.rows, columns), &mut groups)
                .map_err(|error| error.to_string())?;
            Ok(Accumulated {
                accumulators: table(&accumulator_fields::<P>(), groups.accumulators.iter()),
                failed: groups.failed,
            })
        })
    }

    /// Answers `merge`.
    ///
    /// # Errors
    /// The whole call fails.
    pub fn merge(&mut self, left: &Table, right: &Table) -> Result<Table, String> {
        self.call(|plugin, _| {
            if left.rows != right.rows {
                return Err(format!(
                    "{} accumulators cannot be merged with {}",
                    left.rows, right.rows
                ));
            }
            let mut merged = read::<P>(left)?;
            for (accumulator, later) in merged.iter_mut().zip(read::<P>(right)?) {
                plugin.merge(accumulator, later).map_err(|error| error.to_string())?;
            }
            Ok(table(&accumulator_fields::<P>(), merged.iter()))
        })
    }

    /// Answers `finish`.
    ///
    /// # Errors
    /// The whole call fails.
    pub fn finish(&mut self, accumulators: &Table) -> Result<Outputs, String> {
        self.call(|plugin, signature| {
            let mut out = Output::new(&signature.branches, accumulators.rows);
            for (row, accumulator) in (0..).zip(&read::<P>(accumulators)?) {
                if let Err(error) = plugin.finish(accumulator, out.at(row)) {
                    out.fail(error);
                }
            }
            Ok(out.finish())
        })
    }
}

fn accumulator_fields<P: Aggregator>() -> Vec<Field> {
    P::Accumulator::fields("accumulator")
}

fn read<P: Aggregator>(accumulators: &Table) -> Result<Vec<P::Accumulator>, String> {
    let columns = P::Accumulator::columns(accumulators).map_err(|problem| format!("accumulators: {problem}"))?;
    let rows = 0..accumulators.rows as usize;
    Ok(rows.map(|row| P::Accumulator::read(&columns, row)).collect())
}

/// The group of each row, checked so that each is an accumulator's number.
fn group_numbers(groups: &[u8], rows: u32, accumulators: u32) -> Result<&[[u8; 4]], String> {
    let (numbers, rest) = groups.as_chunks::<4>();
    if numbers.len() != rows as usize || !rest.is_empty() {
        return Err(format!("`groups` has {} bytes for {rows} rows", groups.len()));
    }
    let greatest = numbers.iter().map(|&group| u32::from_le_bytes(group)).max();
    match greatest.filter(|&group| group >= accumulators) {
        None => Ok(numbers),
        Some(group) => Err(format!(
            "a row is of group {group}, but there are {accumulators} accumulators"
        )),
    }
}
