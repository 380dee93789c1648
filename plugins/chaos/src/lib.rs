//! Breaks the contract on purpose, in the way that is configured, so that tests can see what its host does.
//!
//! It is written on the bindings, as the SDK would not let most of it happen. Without a poisoned row (the field
//! `/poison` is true) it forwards all rows to its branch `out`, unless it is told to misbehave always.

mod configuring;
mod emitting;
mod keeping;
mod running;

use std::cell::RefCell;

use millstream_sdk::bindings::processor::exports::millstream::plugin as exports;
use millstream_sdk::config::{self, Config as _};
use millstream_sdk::prelude::*;
use millstream_sdk::schema::{Branch, Info, Input, MappedField, ValueBase};
use millstream_sdk::table::{Column, Emitted, Failure, Outputs, Table};

/// What it does, when, and how much of it.
#[derive(Config, Clone, Debug)]
pub struct Settings {
    kind: Kind,
    #[config(default)]
    when: When,
    /// Rows, bytes, lines or rounds; each kind has its own default.
    amount: Option<u64>,
}

/// Which rows are misbehaved on.
#[derive(Config, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    #[default]
    Poison,
    Always,
}

/// A way to misbehave.
#[derive(Config, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    // While it is configured, whatever the rows.
    ConfigureError,
    ConfigurePanic,
    ConfigureLoop,
    ConfigureMemory,
    ConfigureLog,
    // A signature that cannot be.
    ManyBranches,
    NoBranches,
    NoInputs,
    DuplicateBranches,
    DuplicateFields,
    OverlappingFields,
    EmptyName,
    HugeName,
    HugeHeaderName,
    BadPointer,
    OffsetInBranch,
    TimestampAsText,
    StoreWithoutKey,
    ChangingSignature,
    // While it runs.
    Panic,
    PanicWithNewlines,
    PanicHuge,
    Trap,
    DivideByZero,
    Loop,
    Recursion,
    MemoryByPage,
    MemoryAtOnce,
    MemoryFill,
    LeakPerBatch,
    Slow,
    // Calls of the host.
    HugeLog,
    EndlessLog,
    ForgedLog,
    MetricOutOfRange,
    MetricLoop,
    // Calls of a store. The first five are allowed: they write and trap, write and fail the call, write and refuse the
    // row, ask for keys that are not there, and name keys twice.
    StateTrap,
    StateError,
    StateFailedRow,
    StateAbsent,
    StateRepeatedKeys,
    StateManyKeys,
    StateHugeKey,
    StateHugeValue,
    StateUnknownStore,
    StateTooFewValues,
    StateTooManyValues,
    StateTooFewColumns,
    StateTooManyColumns,
    StateNullKey,
    StateBadUtf8,
    StateUnorderedScan,
    StateEndlessScan,
    StateLoop,
    // An answer that fails, which is allowed.
    Error,
    HugeError,
    FailedRow,
    FailedRows,
    // An answer that breaks a rule.
    FailedOutOfRange,
    FailedTwice,
    FailedAndEmitted,
    HugeFailure,
    OriginOutOfRange,
    OriginFalls,
    OriginsRagged,
    TooFewBranches,
    TooManyBranches,
    TooFewColumns,
    TooManyColumns,
    ColumnTooShort,
    ColumnTooLong,
    EndsFall,
    EndsPastData,
    EndsMissing,
    EndsOfNumbers,
    NullsTooShort,
    NullsNotBoolean,
    RequiredNull,
    BadUtf8,
    CutUtf8,
    BadBoolean,
    BadJson,
    JsonNull,
    // An answer that keeps the rules and asks for much.
    ManyRows,
    HugeKey,
    HugeValue,
    Nan,
    TimeMin,
    TimeMax,
}

impl Kind {
    /// Whether it uses a store.
    fn keeps(self) -> bool {
        use Kind::*;
        matches!(
            self,
            StateTrap
                | StateError
                | StateFailedRow
                | StateAbsent
                | StateRepeatedKeys
                | StateManyKeys
                | StateHugeKey
                | StateHugeValue
                | StateUnknownStore
                | StateTooFewValues
                | StateTooManyValues
                | StateTooFewColumns
                | StateTooManyColumns
                | StateNullKey
                | StateBadUtf8
                | StateUnorderedScan
                | StateEndlessScan
                | StateLoop
        )
    }

    /// Whether it writes what must not be seen later.
    fn leaks(self) -> bool {
        matches!(self, Kind::StateTrap | Kind::StateError)
    }

    /// The field of the branch `out` that the kind needs to do what it does.
    fn field(self) -> Option<MappedField> {
        use Kind::*;
        let value = || Place::Value("/chaos".into());
        let (field_type, optional, place) = match self {
            EndsFall | EndsPastData | EndsMissing | BadUtf8 | CutUtf8 | HugeValue => (FieldType::Text, false, value()),
            TooFewColumns | TooManyColumns | ColumnTooShort | ColumnTooLong | EndsOfNumbers => {
                (FieldType::Integer, false, value())
            }
            NullsTooShort | NullsNotBoolean => (FieldType::Integer, true, value()),
            RequiredNull => (FieldType::Integer, false, value()),
            BadBoolean => (FieldType::Boolean, false, value()),
            BadJson | JsonNull => (FieldType::Json, true, value()),
            Nan => (FieldType::Float, false, value()),
            HugeKey => (FieldType::Text, false, Place::Key(String::new())),
            TimeMin | TimeMax => (FieldType::Time, false, Place::Timestamp),
            _ => return None,
        };
        Some(MappedField::new("chaos", field_type, optional, place))
    }
}

thread_local! {
    static SETTINGS: RefCell<Option<Settings>> = const { RefCell::new(None) };
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
        let signature = configuring::signature(&settings)?;
        SETTINGS.set(Some(settings));
        Ok(signature)
    }
}

impl exports::processor::Guest for Chaos {
    fn process(_: u32, rows: Table) -> std::result::Result<Outputs, String> {
        let settings = SETTINGS.with_borrow(Clone::clone).ok_or("`configure` was not called")?;
        keeping::look_for_leaks(&settings)?;
        match poisoned(&settings, &rows) {
            None => Ok(honest(&settings, rows.rows)),
            Some(row) => {
                running::misbehave(&settings);
                keeping::misbehave(&settings)?;
                emitting::misbehave(&settings, rows.rows, row)
            }
        }
    }
}

#[cfg(target_arch = "wasm32")]
millstream_sdk::bindings::processor::export_processor!(Chaos with_types_in millstream_sdk::bindings::processor);

/// What it says when it is configured, unless it misbehaves then.
fn honest_signature(settings: &Settings) -> Signature {
    let poison = MappedField::new("poison", FieldType::Boolean, true, Place::Value("/poison".into()));
    Signature {
        inputs: vec![Input {
            name: "input".into(),
            fields: vec![poison],
        }],
        branches: vec![Branch {
            name: "out".into(),
            value: ValueBase::Same,
            fields: settings.kind.field().into_iter().collect(),
        }],
        stores: keeping::stores(settings.kind),
        metrics: Vec::new(),
    }
}

/// The first row that it misbehaves on.
fn poisoned(settings: &Settings, rows: &Table) -> Option<u32> {
    if settings.when == When::Always {
        return Some(0);
    }
    let column = rows.columns.first()?;
    let is_poison = |row: usize| column.data.get(row) == Some(&1) && column.nulls.get(row) != Some(&1);
    (0..rows.rows).find(|&row| is_poison(row as usize))
}

/// All rows, forwarded.
fn honest(settings: &Settings, rows: u32) -> Outputs {
    let columns = settings
        .kind
        .field()
        .map(|mapped| honest_column(mapped.field.type_, rows as usize));
    Outputs {
        branches: vec![Emitted {
            origins: (0..rows).flat_map(u32::to_le_bytes).collect(),
            columns: columns.into_iter().collect(),
        }],
        failed: Vec::new(),
    }
}

/// A column of the same cell in each row: 1, true, or the text `1`.
fn honest_column(field_type: FieldType, rows: usize) -> Column {
    let repeat = |cell: &[u8]| cell.repeat(rows);
    let (ends, data) = match field_type {
        FieldType::Boolean => (Vec::new(), repeat(&[1])),
        FieldType::Integer | FieldType::Time => (Vec::new(), repeat(&1_i64.to_le_bytes())),
        FieldType::Float => (Vec::new(), repeat(&1_f64.to_le_bytes())),
        FieldType::Text | FieldType::Bytes | FieldType::Json => {
            ((1..=rows as u32).flat_map(u32::to_le_bytes).collect(), repeat(b"1"))
        }
    };
    Column {
        nulls: Vec::new(),
        ends,
        data,
    }
}

/// A row that the plugin refuses.
fn failure(row: u32, message: impl Into<String>) -> Failure {
    Failure {
        row,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests;
