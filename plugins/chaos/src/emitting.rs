//! Answers that break a rule of the contract, and some that keep them and ask for much.

use millstream_sdk::schema::FieldType;
use millstream_sdk::table::{Column, Outputs};

use crate::{Kind, Settings, failure, honest, honest_column};

/// The answer to a batch of `rows` in which `row` is poisoned.
pub(crate) fn misbehave(settings: &Settings, rows: u32, row: u32) -> Result<Outputs, String> {
    use Kind::*;
    let amount = |default: u64| settings.amount.unwrap_or(default) as usize;
    let mut outputs = honest(settings, rows);
    let at = row as usize;
    let origin = |row: u32| row.to_le_bytes();
    match settings.kind {
        Error => return Err("this batch is refused".into()),
        HugeError => return Err("long ".repeat(amount(1 << 20))),
        FailedRow | StateFailedRow => {
            refuse(&mut outputs, row..row + 1);
            outputs.failed[0].message = "this row is poisoned".into();
        }
        FailedRows => refuse(&mut outputs, 0..rows),
        HugeFailure => {
            refuse(&mut outputs, row..row + 1);
            outputs.failed[0].message = "long ".repeat(amount(1 << 20));
        }
        FailedOutOfRange => outputs.failed.push(failure(rows, "no such row")),
        FailedTwice => {
            refuse(&mut outputs, row..row + 1);
            outputs.failed.push(failure(row, "again"));
        }
        FailedAndEmitted => outputs.failed.push(failure(row, "refused, and emitted all the same")),
        OriginOutOfRange => outputs.branches[0].origins.extend(origin(rows)),
        OriginFalls => {
            // Also where the batch has one row only, it is a rule that is broken: the largest number, then 0.
            let origins = &mut outputs.branches[0].origins;
            origins.splice(0..0, origin(rows - 1));
            origins.extend(origin(0));
            if rows == 1 {
                origins.splice(0..0, origin(1));
            }
        }
        OriginsRagged => outputs.branches[0].origins.push(0),
        TooFewBranches => outputs.branches.clear(),
        TooManyBranches => {
            let branch = outputs.branches[0].clone();
            outputs.branches.push(branch);
        }
        ManyRows => {
            outputs.branches[0]
                .origins
                .splice(at * 4..at * 4, origin(row).repeat(amount(1_000_000)));
        }
        kind => {
            if let Some(mapped) = kind.field() {
                let columns = &mut outputs.branches[0].columns;
                match kind {
                    TooFewColumns => columns.clear(),
                    TooManyColumns => columns.push(honest_column(FieldType::Integer, rows as usize)),
                    _ => spoil(settings, &mut columns[0], mapped.field.type_, rows as usize, at),
                }
            }
        }
    }
    Ok(outputs)
}

/// Refuses rows as the contract has it: they are not emitted.
fn refuse(outputs: &mut Outputs, rows: std::ops::Range<u32>) {
    outputs.branches[0]
        .origins
        .drain(rows.start as usize * 4..rows.end as usize * 4);
    outputs.failed.extend(rows.map(|row| failure(row, "refused")));
}

/// Breaks a rule in a column, at a row where it is one of a row's.
fn spoil(settings: &Settings, column: &mut Column, field_type: FieldType, rows: usize, row: usize) {
    use Kind::*;
    let amount = |default: u64| settings.amount.unwrap_or(default) as usize;
    match settings.kind {
        ColumnTooShort => column.data.truncate(column.data.len() - 1),
        ColumnTooLong => column.data.push(0),
        EndsFall => column
            .ends
            .splice(row * 4..row * 4 + 4, u32::MAX.to_le_bytes())
            .for_each(drop),
        EndsPastData => column.data.truncate(rows - 1),
        EndsMissing => column.ends.clear(),
        EndsOfNumbers => column.ends = (1..=rows as u32).flat_map(u32::to_le_bytes).collect(),
        NullsTooShort => column.nulls = vec![0; rows - 1 + usize::from(rows == 1) * 2],
        NullsNotBoolean => {
            column.nulls = vec![0; rows];
            column.nulls[row] = 2;
        }
        RequiredNull => {
            column.nulls = vec![0; rows];
            column.nulls[row] = 1;
        }
        BadUtf8 => column.data[row] = 0xff,
        // Half of a character in one cell, the other half in the next; or missing.
        CutUtf8 => {
            column.data[row] = 0xc3;
            if let Some(next) = column.data.get_mut(row + 1) {
                *next = 0xa9;
            }
        }
        BadBoolean => column.data[row] = 7,
        BadJson => replace(column, row, b"{\"a\":"),
        JsonNull => replace(column, row, b"null"),
        HugeKey => replace(column, row, &b"k".repeat(amount(1 << 20))),
        HugeValue => replace(column, row, &b"v".repeat(amount(100_000_000))),
        Nan => column.data[row * 8..row * 8 + 8].copy_from_slice(&f64::NAN.to_le_bytes()),
        TimeMin => column.data[row * 8..row * 8 + 8].copy_from_slice(&i64::MIN.to_le_bytes()),
        TimeMax => column.data[row * 8..row * 8 + 8].copy_from_slice(&i64::MAX.to_le_bytes()),
        kind => unreachable!("{kind:?} has a field of type {field_type:?} and no use for it"),
    }
}

/// Puts another cell in place of one of a byte.
fn replace(column: &mut Column, row: usize, cell: &[u8]) {
    column.data.splice(row..=row, cell.iter().copied());
    for end in &mut column.ends.as_chunks_mut::<4>().0[row..] {
        *end = (u32::from_le_bytes(*end) + cell.len() as u32 - 1).to_le_bytes();
    }
}
