//! What becomes of the rows that a plugin was given: `wit/0.1.0/output.wit`, checked.

use crate::schema::{Field, Signature};
use crate::table::{Column, Table, TableError, packed_u32};

/// The answer of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// One for each branch of the signature.
    pub branches: Vec<Emitted>,
    /// Rows that the plugin refuses.
    pub failed: Vec<Failure>,
}

/// Rows for one branch, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emitted {
    /// The input row that each comes from; never descends.
    pub origins: Vec<u32>,
    /// One column for each field of the branch.
    pub table: Table,
}

/// A row that goes to the dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The input row.
    pub row: u32,
    /// Why, in the plugin's words.
    pub message: String,
}

/// A rule of the contract that an answer breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// Not one entry for each branch.
    #[error("the plugin returned {found} branches, but its signature has {expected}")]
    Branches {
        /// Branches of the signature.
        expected: usize,
        /// Branches of the answer.
        found: usize,
    },
    /// `origins` breaks a rule.
    #[error("branch {branch:?}: {problem}")]
    Origins {
        /// The branch's name.
        branch: String,
        /// Which rule, and how.
        problem: String,
    },
    /// A branch's columns break a rule.
    #[error("branch {branch:?} {source}")]
    Table {
        /// The branch's name.
        branch: String,
        /// Which rule.
        source: TableError,
    },
    /// `failed` breaks a rule.
    #[error("failed rows: {0}")]
    Failed(String),
    /// Not as many accumulators as there were.
    #[error("the plugin returned {found} accumulators for {expected}")]
    Accumulators {
        /// How many it was given.
        expected: u32,
        /// How many there are.
        found: u32,
    },
    /// Accumulators break a rule.
    #[error("the table of accumulators {0}")]
    Accumulator(#[source] TableError),
    /// More rows or bytes than the stage may return.
    #[error("the plugin returned {found} {what}, but the stage's limit is {limit}")]
    TooMuch {
        /// "rows" or "bytes".
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there may be.
        limit: u64,
    },
}

/// An emission as it crosses: origins still packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedEmission {
    /// `u32` a row.
    pub origins: Vec<u8>,
    /// One for each field of the branch.
    pub columns: Vec<Column>,
}

impl Outputs {
    /// Holds an answer against the signature: `rows_in` rows went in, `rows_max` and `bytes_max` may come out.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(
        signature: &Signature,
        rows_in: u32,
        emissions: Vec<PackedEmission>,
        failed: Vec<Failure>,
        rows_max: u64,
        bytes_max: u64,
    ) -> Result<Outputs, OutputError> {
        if emissions.len() != signature.branches.len() {
            return Err(OutputError::Branches {
                expected: signature.branches.len(),
                found: emissions.len(),
            });
        }
        let bytes: usize = emissions
            .iter()
            .map(|e| e.origins.len() + e.columns.iter().map(Column::size_bytes).sum::<usize>())
            .sum::<usize>()
            + messages_bytes(&failed);
        at_most("bytes", bytes, bytes_max)?;
        let rows: usize = emissions.iter().map(|e| e.origins.len() / 4).sum();
        at_most("rows", rows, rows_max)?;

        let refused = check_failed(&failed, rows_in)?;
        let mut branches = Vec::with_capacity(emissions.len());
        for (emission, branch) in emissions.into_iter().zip(&signature.branches) {
            let origins =
                check_origins(&emission.origins, rows_in, &refused).map_err(|problem| OutputError::Origins {
                    branch: branch.name.clone(),
                    problem,
                })?;
            let table = Table {
                rows: origins.len() as u32,
                columns: emission.columns,
            };
            table
                .check_fields(branch.fields.iter().map(|mapped| &mapped.field))
                .map_err(|source| OutputError::Table {
                    branch: branch.name.clone(),
                    source,
                })?;
            branches.push(Emitted { origins, table });
        }
        Ok(Outputs { branches, failed })
    }
}

/// What becomes of rows that were added to accumulators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accumulated {
    /// The accumulators, in the order in which they were given.
    pub accumulators: Table,
    /// Rows that the plugin refuses; they were not added.
    pub failed: Vec<Failure>,
}

impl Accumulated {
    /// Holds an answer against the accumulator's fields: `expected` accumulators and `rows_in` rows went in, `bytes_max`
    /// may come out.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(
        fields: &[Field],
        expected: u32,
        rows_in: u32,
        accumulators: Table,
        failed: Vec<Failure>,
        bytes_max: u64,
    ) -> Result<Accumulated, OutputError> {
        at_most("bytes", accumulators.size_bytes() + messages_bytes(&failed), bytes_max)?;
        check_accumulators(fields, expected, &accumulators, bytes_max)?;
        check_failed(&failed, rows_in)?;
        Ok(Accumulated { accumulators, failed })
    }
}

/// Holds accumulators that came back against their fields: `expected` went in, `bytes_max` may come out.
///
/// # Errors
/// The first rule that is broken.
pub fn check_accumulators(
    fields: &[Field],
    expected: u32,
    accumulators: &Table,
    bytes_max: u64,
) -> Result<(), OutputError> {
    at_most("bytes", accumulators.size_bytes(), bytes_max)?;
    if accumulators.rows != expected {
        return Err(OutputError::Accumulators {
            expected,
            found: accumulators.rows,
        });
    }
    accumulators.check(fields).map_err(OutputError::Accumulator)
}

fn at_most(what: &'static str, found: usize, limit: u64) -> Result<(), OutputError> {
    let found = found as u64;
    if found > limit {
        return Err(OutputError::TooMuch { what, found, limit });
    }
    Ok(())
}

fn messages_bytes(failed: &[Failure]) -> usize {
    failed.iter().map(|failure| failure.message.len()).sum()
}

/// Which rows were refused, as a mark a row; empty where none was.
fn check_failed(failed: &[Failure], rows_in: u32) -> Result<Vec<bool>, OutputError> {
    if failed.is_empty() {
        return Ok(Vec::new());
    }
    let mut refused = vec![false; rows_in as usize];
    for failure in failed {
        let Some(mark) = refused.get_mut(failure.row as usize) else {
            return Err(OutputError::Failed(format!(
                "row {} does not exist: {rows_in} rows went in",
                failure.row
            )));
        };
        if std::mem::replace(mark, true) {
            return Err(OutputError::Failed(format!("row {} is named twice", failure.row)));
        }
    }
    Ok(refused)
}

fn check_origins(packed: &[u8], rows_in: u32, refused: &[bool]) -> Result<Vec<u32>, String> {
    let Some(rows) = packed_u32(packed) else {
        return Err(format!("`origins` has {} bytes, no multiple of 4", packed.len()));
    };
    let origins: Vec<u32> = rows.collect();
    // Without a branch in the loop eight rows are compared at once; which rule is broken is found by going over it again.
    let ascends = origins
        .windows(2)
        .fold(true, |ascends, pair| ascends & (pair[0] <= pair[1]));
    if ascends && refused.is_empty() && origins.last().is_none_or(|&last| last < rows_in) {
        return Ok(origins);
    }
    let mut before = 0;
    for (at, &row) in origins.iter().enumerate() {
        if row >= rows_in {
            return Err(format!("origin {at} is row {row}, but only {rows_in} rows went in"));
        }
        if row < before {
            return Err(format!("origin {at} falls from row {before} to row {row}"));
        }
        if refused.get(row as usize) == Some(&true) {
            return Err(format!("origin {at} is row {row}, which is among the failed rows"));
        }
        before = row;
    }
    Ok(origins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Branch, Field, FieldType, MappedField, Place, ValueBase};

    fn signature() -> Signature {
        let field = MappedField {
            field: Field {
                name: "n".into(),
                field_type: FieldType::Integer,
                optional: false,
            },
            place: Place::Value("/n".into()),
        };
        Signature {
            branches: vec![Branch {
                name: "out".into(),
                value: ValueBase::New,
                fields: vec![field],
            }],
            ..Signature::default()
        }
    }

    fn emission(origins: &[u32]) -> Vec<PackedEmission> {
        vec![PackedEmission {
            origins: origins.iter().flat_map(|row| row.to_le_bytes()).collect(),
            columns: vec![Column {
                data: vec![0; origins.len() * 8],
                ..Column::default()
            }],
        }]
    }

    fn failure(row: u32) -> Failure {
        Failure {
            row,
            message: "no".into(),
        }
    }

    #[test]
    fn an_answer_by_the_rules_passes() {
        let outputs =
            Outputs::check(&signature(), 3, emission(&[0, 0, 2]), vec![failure(1)], 10, 1000).expect("passes");
        assert_eq!(outputs.branches[0].origins, [0, 0, 2]);
    }

    #[test]
    fn each_broken_rule_is_named() {
        let mut ragged = emission(&[0]);
        ragged[0].origins.push(0);
        let mut short = emission(&[0]);
        short[0].columns[0].data.pop();
        let cases = [
            ("returned 0 branches", vec![], vec![]),
            ("no multiple of 4", ragged, vec![]),
            ("row 3, but only 3 rows", emission(&[3]), vec![]),
            ("falls from row 2 to row 1", emission(&[2, 1]), vec![]),
            ("among the failed rows", emission(&[1]), vec![failure(1)]),
            ("row 3 does not exist", emission(&[]), vec![failure(3)]),
            ("named twice", emission(&[]), vec![failure(1), failure(1)]),
            ("`data` has 7 bytes", short, vec![]),
            ("returned 11 rows", emission(&[0; 11]), vec![]),
            ("bytes, but the stage's limit is 1000", emission(&[0; 84]), vec![]),
        ];
        for (message, emissions, failed) in cases {
            let error = Outputs::check(&signature(), 3, emissions, failed, 10, 1000)
                .expect_err(message)
                .to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    #[test]
    fn accumulators_are_as_many_as_there_were_and_fit_their_fields() {
        let fields = [signature().branches[0].fields[0].field.clone()];
        let sums = |rows: u32, bytes: usize| Table {
            rows,
            columns: vec![Column {
                data: vec![0; bytes],
                ..Column::default()
            }],
        };
        let check = |table, failed, bytes_max| Accumulated::check(&fields, 2, 3, table, failed, bytes_max);
        let accumulated = check(sums(2, 16), vec![failure(2)], 18).expect("passes");
        assert_eq!(accumulated.failed, [failure(2)]);
        let cases = [
            ("returned 5 accumulators for 2", sums(5, 40), vec![], 1000),
            (
                "accumulators field \"n\": `data` has 15 bytes",
                sums(2, 15),
                vec![],
                1000,
            ),
            ("row 3 does not exist", sums(2, 16), vec![failure(3)], 1000),
            ("row 1 is named twice", sums(2, 16), vec![failure(1), failure(1)], 1000),
            (
                "returned 18 bytes, but the stage's limit is 17",
                sums(2, 16),
                vec![failure(1)],
                17,
            ),
        ];
        for (message, table, failed, bytes_max) in cases {
            let error = check(table, failed, bytes_max).expect_err(message).to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }
}
