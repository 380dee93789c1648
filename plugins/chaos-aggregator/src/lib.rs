//! Breaks the contract of an aggregator on purpose, in the way that is configured, so that tests can see what its host
//! does.
//!
//! It is written on the bindings, as the SDK would not let most of it happen. Without a poisoned row (the field
//! `/poison` is true) it counts the rows of a group, and finishes with `count`; unless it is told to misbehave always.
//! What it does when it finishes or merges, it does once an accumulator has a poisoned row.

mod misbehaving;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use millstream_sdk::bindings::aggregator::exports::millstream::plugin as exports;
use millstream_sdk::column::Cells;
use millstream_sdk::config::{self, Config as _};
use millstream_sdk::prelude::*;
use millstream_sdk::schema::{Branch, Field, Info, Input, MappedField, ValueBase};
use millstream_sdk::table::{Emitted, Failure, Outputs, Table};
use millstream_sdk::{Accumulated, Accumulator, Cell};

/// What it does, when, and how much of it.
#[derive(Config, Clone, Debug)]
pub struct Settings {
    kind: Kind,
    #[config(default)]
    when: When,
    /// Bytes; each kind has its own default.
    amount: Option<u64>,
}

/// Which calls are misbehaved in.
#[derive(Config, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    #[default]
    Poison,
    Always,
}

/// A way to misbehave.
#[derive(Config, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    // In `initial`, whatever the rows.
    InitialPanic,
    InitialLoop,
    InitialNoRow,
    InitialTwoRows,
    InitialNoFields,
    InitialDuplicateFields,
    InitialOtherColumns,
    InitialOtherType,
    InitialNull,
    ChangingInitial,
    // A signature that an aggregator cannot have.
    BranchSame,
    StoreDeclared,
    // In `accumulate`.
    AccumulatePanic,
    AccumulateLoop,
    AccumulateError,
    TooFewAccumulators,
    TooManyAccumulators,
    TooFewColumns,
    TooManyColumns,
    OtherType,
    OtherOrder,
    NullAccumulator,
    HugeAccumulator,
    FailedRow,
    FailedOutOfRange,
    FailedTwice,
    // In `merge`.
    MergePanic,
    MergeError,
    MergeTooFew,
    // In `finish`.
    FinishPanic,
    FinishLoop,
    FinishError,
    FinishFailed,
    FinishFailedOutOfRange,
    FinishNothing,
    FinishTwice,
    FinishOriginOutOfRange,
    FinishOriginFalls,
    FinishTooFewBranches,
    FinishTooFewFields,
    FinishTooManyFields,
    FinishOtherType,
    FinishNull,
}

thread_local! {
    static SETTINGS: RefCell<Option<Settings>> = const { RefCell::new(None) };
}

fn settings() -> Settings {
    SETTINGS.with_borrow(Clone::clone).expect("`configure` was called")
}

/// The plugin.
pub struct Chaos;

impl exports::lifecycle::Guest for Chaos {
    fn describe() -> Info {
        Info {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: env!("CARGO_PKG_DESCRIPTION").into(),
            config_schema: Settings::schema().to_string(),
            capabilities: Vec::new(),
        }
    }

    fn configure(text: String) -> std::result::Result<Signature, String> {
        millstream_sdk::log::log_panics();
        let settings = config::parse::<Settings>(&text)?;
        let signature = misbehaving::signature(&settings, signature());
        SETTINGS.set(Some(settings));
        Ok(signature)
    }
}

impl exports::aggregator::Guest for Chaos {
    fn initial() -> Accumulator {
        misbehaving::initial(&settings())
    }

    fn accumulate(
        _: u32,
        accumulators: Table,
        groups: Vec<u8>,
        rows: Table,
    ) -> std::result::Result<Accumulated, String> {
        let settings = settings();
        let mut kept = read(&accumulators);
        let poisoned: Vec<u32> = (0..rows.rows).filter(|&row| is_poison(&rows, row as usize)).collect();
        for (row, group) in (0..).zip(groups.as_chunks().0) {
            let group = &mut kept[u32::from_le_bytes(*group) as usize];
            group.count += 1;
            group.poisoned |= poisoned.contains(&row);
        }
        let honest = Accumulated {
            accumulators: write(&kept),
            failed: Vec::new(),
        };
        let row = match settings.when {
            When::Always => Some(0),
            When::Poison => poisoned.first().copied(),
        };
        match row {
            Some(row) => misbehaving::accumulate(&settings, honest, rows.rows, row),
            None => Ok(honest),
        }
    }

    fn merge(left: Table, right: Table) -> std::result::Result<Table, String> {
        let settings = settings();
        let mut merged = read(&left);
        for (kept, later) in merged.iter_mut().zip(read(&right)) {
            kept.count += later.count;
            kept.poisoned |= later.poisoned;
        }
        let is_poisoned = merged.iter().any(|kept| kept.poisoned);
        match is_poisoned || settings.when == When::Always {
            true => misbehaving::merge(&settings, write(&merged)),
            false => Ok(write(&merged)),
        }
    }

    fn finish(accumulators: Table) -> std::result::Result<Outputs, String> {
        let settings = settings();
        let kept = read(&accumulators);
        let honest = honest_results(&kept);
        let row = match settings.when {
            When::Always => Some(0),
            When::Poison => kept.iter().position(|kept| kept.poisoned),
        };
        match row {
            Some(row) => misbehaving::finish(&settings, honest, kept.len() as u32, row as u32),
            None => Ok(honest),
        }
    }
}

#[cfg(target_arch = "wasm32")]
millstream_sdk::bindings::aggregator::export_aggregator!(Chaos with_types_in millstream_sdk::bindings::aggregator);

/// What is accumulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    count: i64,
    poisoned: bool,
}

fn signature() -> Signature {
    let poison = MappedField::new("poison", FieldType::Boolean, true, Place::Value("/poison".into()));
    let count = MappedField::new("count", FieldType::Integer, false, Place::Value("/count".into()));
    Signature {
        inputs: vec![Input {
            name: "input".into(),
            fields: vec![poison],
        }],
        branches: vec![Branch {
            name: "counted".into(),
            value: ValueBase::New,
            fields: vec![count],
        }],
        stores: Vec::new(),
        metrics: Vec::new(),
    }
}

fn is_poison(rows: &Table, row: usize) -> bool {
    let column = &rows.columns[0];
    column.data.get(row) == Some(&1) && column.nulls.get(row) != Some(&1)
}

fn fields() -> Vec<Field> {
    let field = |name: &str, type_| Field {
        name: name.into(),
        type_,
        optional: false,
    };
    vec![
        field("count", FieldType::Integer),
        field("poisoned", FieldType::Boolean),
        field("filling", FieldType::Text),
    ]
}

fn read(accumulators: &Table) -> Vec<Kept> {
    let rows = accumulators.rows as usize;
    let counts = i64::view(&accumulators.columns[0], rows).expect("counts");
    let poisoned = bool::view(&accumulators.columns[1], rows).expect("marks");
    let kept = |row| Kept {
        count: counts.get(row),
        poisoned: poisoned.get(row),
    };
    (0..rows).map(kept).collect()
}

fn write(kept: &[Kept]) -> Table {
    let mut columns: Vec<Cells> = fields()
        .iter()
        .map(|field| Cells::new(field.type_, kept.len()))
        .collect();
    for kept in kept {
        kept.count.write(&mut columns[0]);
        kept.poisoned.write(&mut columns[1]);
        "".write(&mut columns[2]);
    }
    Table {
        rows: kept.len() as u32,
        columns: columns.into_iter().map(Cells::into_column).collect(),
    }
}

/// A count for each accumulator.
fn honest_results(kept: &[Kept]) -> Outputs {
    let mut counts = Cells::new(FieldType::Integer, kept.len());
    kept.iter().for_each(|kept| kept.count.write(&mut counts));
    Outputs {
        branches: vec![Emitted {
            origins: (0..kept.len() as u32).flat_map(u32::to_le_bytes).collect(),
            columns: vec![counts.into_column()],
        }],
        failed: Vec::new(),
    }
}

fn failure(row: u32, message: &str) -> Failure {
    Failure {
        row,
        message: message.into(),
    }
}
