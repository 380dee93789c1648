//! What each kind does.

use std::cell::Cell;
use std::hint::black_box;

use millstream_sdk::schema::{FieldType, Signature, Store, ValueBase};
use millstream_sdk::table::{Column, Outputs, Table};
use millstream_sdk::{Accumulated, Accumulator};

use crate::{Kept, Kind, Settings, failure, fields, write};

thread_local! {
    static ASKED: Cell<u32> = const { Cell::new(0) };
}

/// The signature, with what an aggregator cannot have.
pub(crate) fn signature(settings: &Settings, mut signature: Signature) -> Signature {
    match settings.kind {
        Kind::BranchSame => signature.branches[0].value = ValueBase::Same,
        Kind::StoreDeclared => signature.stores.push(Store {
            name: "kept".into(),
            key: fields()[..1].to_vec(),
            value: Vec::new(),
            ordered: false,
            time_to_live: 0,
            carry_over: Vec::new(),
        }),
        _ => {}
    }
    signature
}

/// What a new group starts from.
pub(crate) fn initial(settings: &Settings) -> Accumulator {
    use Kind::*;
    let mut initial = Accumulator {
        fields: fields(),
        start: write(&[Kept::default()]),
    };
    let start = &mut initial.start;
    match settings.kind {
        InitialPanic => panic!("a panic in initial"),
        InitialLoop => spin(),
        InitialNoRow => *start = write(&[]),
        InitialTwoRows => *start = write(&[Kept::default(); 2]),
        InitialNoFields => {
            initial.fields.clear();
            start.columns.clear();
        }
        InitialDuplicateFields => initial.fields[1].name = initial.fields[0].name.clone(),
        InitialOtherColumns => start.columns.truncate(1),
        InitialOtherType => initial.fields[0].type_ = FieldType::Text,
        InitialNull => start.columns[0].nulls = vec![1],
        ChangingInitial => {
            ASKED.set(ASKED.get() + 1);
            initial.fields[0].name = format!("count-{}", ASKED.get());
        }
        _ => {}
    }
    initial
}

/// The answer to a batch of `rows` in which `row` is poisoned.
pub(crate) fn accumulate(settings: &Settings, honest: Accumulated, rows: u32, row: u32) -> Result<Accumulated, String> {
    use Kind::*;
    let mut answer = honest;
    let table = &mut answer.accumulators;
    match settings.kind {
        AccumulatePanic => panic!("a poisoned row"),
        AccumulateLoop => spin(),
        AccumulateError => return Err("this batch is refused".into()),
        TooFewAccumulators => shorten(table),
        TooManyAccumulators => lengthen(table),
        TooFewColumns => table.columns.truncate(1),
        TooManyColumns => table.columns.push(table.columns[0].clone()),
        OtherType => table.columns[0] = texts(&vec![""; table.rows as usize]),
        // Where there is one only, it is its count that changes.
        OtherOrder => {
            let (counts, _) = table.columns[0].data.as_chunks_mut::<8>();
            counts.reverse();
            counts[0][7] ^= 0x40;
        }
        NullAccumulator => {
            table.columns[0].nulls = vec![0; table.rows as usize];
            table.columns[0].nulls[0] = 1;
        }
        HugeAccumulator => {
            let filling = "f".repeat(settings.amount.unwrap_or(100_000_000) as usize);
            let mut cells = vec![""; table.rows as usize];
            cells[0] = &filling;
            table.columns[2] = texts(&cells);
        }
        FailedRow => answer.failed.push(failure(row, "this row is poisoned")),
        FailedOutOfRange => answer.failed.push(failure(rows, "no such row")),
        FailedTwice => answer.failed = vec![failure(row, "once"), failure(row, "again")],
        _ => {}
    }
    Ok(answer)
}

/// What the merged accumulators become.
pub(crate) fn merge(settings: &Settings, honest: Table) -> Result<Table, String> {
    let mut merged = honest;
    match settings.kind {
        Kind::MergePanic => panic!("a panic in merge"),
        Kind::MergeError => return Err("these are not merged".into()),
        Kind::MergeTooFew => shorten(&mut merged),
        _ => {}
    }
    Ok(merged)
}

/// The results of `groups` accumulators, of which `group` is poisoned.
pub(crate) fn finish(settings: &Settings, honest: Outputs, groups: u32, group: u32) -> Result<Outputs, String> {
    use Kind::*;
    let mut outputs = honest;
    let (at, branch) = (group as usize, &mut outputs.branches[0]);
    match settings.kind {
        FinishPanic => panic!("a panic in finish"),
        FinishLoop => spin(),
        FinishError => return Err("nothing is finished".into()),
        FinishFailed => {
            branch.origins.drain(at * 4..at * 4 + 4);
            branch.columns[0].data.drain(at * 8..at * 8 + 8);
            outputs.failed.push(failure(group, "this group is poisoned"));
        }
        FinishFailedOutOfRange => outputs.failed.push(failure(groups, "no such group")),
        FinishNothing => {
            branch.origins.clear();
            branch.columns[0].data.clear();
        }
        FinishTwice => {
            let count: Vec<u8> = branch.columns[0].data[at * 8..at * 8 + 8].to_vec();
            branch.origins.splice(at * 4..at * 4, group.to_le_bytes());
            branch.columns[0].data.splice(at * 8..at * 8, count);
        }
        FinishOriginOutOfRange => {
            branch.origins.extend(groups.to_le_bytes());
            branch.columns[0].data.extend([0; 8]);
        }
        // Where there is one group only, it is the largest number that comes first.
        FinishOriginFalls => {
            branch.origins.splice(0..0, (groups - 1).max(1).to_le_bytes());
            branch.columns[0].data.extend([0; 8]);
        }
        FinishTooFewBranches => outputs.branches.clear(),
        FinishTooFewFields => branch.columns.clear(),
        FinishTooManyFields => branch.columns.push(branch.columns[0].clone()),
        FinishOtherType => branch.columns[0] = texts(&vec![""; groups as usize]),
        FinishNull => {
            branch.columns[0].nulls = vec![0; groups as usize];
            branch.columns[0].nulls[at] = 1;
        }
        _ => {}
    }
    Ok(outputs)
}

fn shorten(table: &mut Table) {
    let mut kept = crate::read(table);
    kept.pop();
    *table = write(&kept);
}

fn lengthen(table: &mut Table) {
    let mut kept = crate::read(table);
    kept.push(Kept::default());
    *table = write(&kept);
}

fn texts(cells: &[&str]) -> Column {
    let mut end = 0;
    let ends = cells.iter().flat_map(|cell| {
        end += cell.len() as u32;
        end.to_le_bytes()
    });
    Column {
        nulls: Vec::new(),
        ends: ends.collect(),
        data: cells.concat().into_bytes(),
    }
}

fn spin() -> ! {
    let mut round = 0_u64;
    loop {
        round = black_box(round.wrapping_add(1));
    }
}
