//! What a plugin says of itself: the fields that it reads, emits and keeps, and where in a record they lie.
//!
//! The types mirror `wit/0.1.0/schema.wit`, whose comments are the specification; here stands only what the host
//! adds to it. Everything is positional: an index elsewhere is a position in one of these lists.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the cells of a field mean, and how a [`Column`](crate::table::Column) holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// One byte a row, 0 or 1.
    Boolean,
    /// `i64` a row, little-endian.
    Integer,
    /// `f64` a row, little-endian.
    Float,
    /// UTF-8, found by `ends`.
    Text,
    /// Bytes, found by `ends`.
    Bytes,
    /// `i64` a row: milliseconds since the epoch, UTC.
    Time,
    /// One complete JSON value a row, as UTF-8, found by `ends`.
    Json,
}

impl FieldType {
    /// Bytes that a cell takes in `data`; `None` where `ends` says so.
    pub const fn width_bytes(self) -> Option<usize> {
        match self {
            FieldType::Boolean => Some(1),
            FieldType::Integer | FieldType::Float | FieldType::Time => Some(8),
            FieldType::Text | FieldType::Bytes | FieldType::Json => None,
        }
    }

    /// The name that people read: the one in the contract.
    pub const fn name(self) -> &'static str {
        match self {
            FieldType::Boolean => "boolean",
            FieldType::Integer => "integer",
            FieldType::Float => "float",
            FieldType::Text => "text",
            FieldType::Bytes => "bytes",
            FieldType::Time => "time",
            FieldType::Json => "json",
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Unique in its schema; for people, as columns are matched by position.
    pub name: String,
    /// How the cells are held.
    #[serde(rename = "type")]
    pub field_type: FieldType,
    /// Whether cells may be null.
    pub optional: bool,
}

/// Where in a record a field is read or written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In the value: a JSON Pointer (RFC 6901), "" for the whole of it.
    Value(String),
    /// In the key, likewise.
    Key(String),
    /// The value's bytes, not decoded.
    RawValue,
    /// The key's bytes, not decoded.
    RawKey,
    /// The last header of this name.
    Header(String),
    /// The record's timestamp.
    Timestamp,
    /// The record's offset; inputs only.
    Offset,
    /// Whether the value is null.
    Tombstone,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Value(pointer) => write!(f, "value:{pointer}"),
            Place::Key(pointer) => write!(f, "key:{pointer}"),
            Place::RawValue => f.write_str("raw value"),
            Place::RawKey => f.write_str("raw key"),
            Place::Header(name) => write!(f, "header {name:?}"),
            Place::Timestamp => f.write_str("timestamp"),
            Place::Offset => f.write_str("offset"),
            Place::Tombstone => f.write_str("tombstone"),
        }
    }
}

/// A field and where it lies in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MappedField {
    /// What it holds.
    #[serde(flatten)]
    pub field: Field,
    /// Where it lies.
    pub place: Place,
}

/// A stream that a plugin reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Input {
    /// Unique among the inputs.
    pub name: String,
    /// The columns of its tables.
    pub fields: Vec<MappedField>,
}

/// What the value of an output row is before the branch's fields are written into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueBase {
    /// The input row's value.
    Same,
    /// Nothing: the value is made of the fields alone.
    New,
}

/// A stream that a plugin writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// Unique among the branches.
    pub name: String,
    /// What its fields are written into.
    pub value: ValueBase,
    /// The columns of its outputs; none for a branch that only forwards.
    pub fields: Vec<MappedField>,
}

/// A keyed table of the plugin's own, one per partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Store {
    /// Unique among the stores.
    pub name: String,
    /// At least one field, none optional.
    pub key: Vec<Field>,
    /// May be empty: a set of keys.
    pub value: Vec<Field>,
    /// Whether its rows can be scanned in the order of their keys.
    pub ordered: bool,
    /// After how much stream time a row that was not written again is gone; 0 keeps it.
    pub time_to_live_ms: u64,
    /// How a row that an earlier version of the plugin wrote becomes one of this: one for each value field. Empty where
    /// such rows cannot be read.
    pub carry_over: Vec<Carried>,
}

/// Where a value field of a store comes from in a row that an earlier version wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Carried {
    /// The value field of this name, of the same type; an integer may become a float.
    Field(String),
    /// This value, as JSON.
    Constant(String),
}

/// What an aggregator keeps for a group: the answer of `initial`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accumulator {
    /// Its fields.
    pub fields: Vec<Field>,
    /// What a new group starts from: a table of one row.
    pub start: crate::table::Table,
}

/// How a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// The last value counts.
    Gauge,
    /// A distribution of values.
    Histogram,
}

/// A number that operators see beside the host's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// Unique among the metrics.
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// How it counts.
    pub kind: MetricKind,
}

/// Who a plugin is: the answer of `describe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Lower case, digits and hyphens.
    pub name: String,
    /// A semantic version.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// A JSON Schema for the configuration; empty if there is nothing to configure.
    pub config_schema: String,
    /// What it asks for beyond the contract.
    pub capabilities: Vec<String>,
}

/// What a plugin reads, writes and keeps under one configuration: the answer of `configure`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// The streams that it reads.
    pub inputs: Vec<Input>,
    /// The streams that it writes.
    pub branches: Vec<Branch>,
    /// The tables that it keeps.
    pub stores: Vec<Store>,
    /// The numbers that it shows.
    pub metrics: Vec<Metric>,
}

/// Which interface a plugin implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginKind {
    /// A table of records in, a table per branch out.
    Processor,
    /// Accumulators per key, or per key and window.
    Aggregator,
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PluginKind::Processor => "processor",
            PluginKind::Aggregator => "aggregator",
        })
    }
}
