//! How the bytes of keys and values are written.

use std::fmt;

/// How the bytes of a key or a value are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON value.
    Json,
    /// One line of comma-separated values.
    Csv(CsvOptions),
    /// Bytes that mean nothing to the host.
    Raw,
    /// UTF-8.
    Text,
}

/// How the lines of a CSV topic are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// The names of the columns, in their order.
    pub columns: Vec<String>,
    /// What stands between cells: `,` as a rule.
    pub delimiter: u8,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Json => "json",
            Format::Csv(_) => "csv",
            Format::Raw => "raw",
            Format::Text => "text",
        })
    }
}
