//! Stores in memory, as a host keeps them.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::cell::{Cell, Time};
use crate::column::Cells;
use crate::schema::{self, Field, FieldType};
use crate::state::{Found, Scanned};
use crate::table::{Column, Table};

/// The stores of a plugin. What it asks that a host refuses is a panic, as it is a trap there.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    stores: Vec<Memory>,
    /// How often they were called.
    pub(crate) calls: usize,
}

#[derive(Clone, Debug)]
struct Memory {
    declared: schema::Store,
    rows: BTreeMap<Vec<Part>, Vec<Option<Part>>>,
}

/// A cell that is compared as an ordered store compares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Boolean(bool),
    Integer(i64),
    /// The bits of a float, changed so that they are in the order of the numbers.
    Float(u64),
    Bytes(Vec<u8>),
}

const SIGN: u64 = 1 << 63;

impl Part {
    fn float(number: f64) -> Part {
        let bits = number.to_bits();
        Part::Float(if bits & SIGN == 0 { bits | SIGN } else { !bits })
    }

    fn write(&self, cells: &mut Cells) {
        match self {
            Part::Boolean(value) => value.write(cells),
            Part::Integer(value) => value.write(cells),
            Part::Float(bits) if bits & SIGN != 0 => f64::from_bits(bits ^ SIGN).write(cells),
            Part::Float(bits) => f64::from_bits(!bits).write(cells),
            Part::Bytes(bytes) => cells.push_bytes(bytes),
        }
    }
}

impl Stores {
    pub(crate) const fn none() -> Stores {
        Stores {
            stores: Vec::new(),
            calls: 0,
        }
    }

    /// Empty stores.
    pub(super) fn new(declared: &[schema::Store]) -> Stores {
        let memory = |declared: &schema::Store| Memory {
            declared: declared.clone(),
            rows: BTreeMap::new(),
        };
        Stores {
            stores: declared.iter().map(memory).collect(),
            calls: 0,
        }
    }

    fn called(&mut self, number: u32) -> &mut Memory {
        self.calls += 1;
        match self.stores.get_mut(number as usize) {
            Some(store) => store,
            None => panic!("there is no store {number}"),
        }
    }

    pub(crate) fn get(&mut self, number: u32, keys: &Table) -> Found {
        let store = self.called(number);
        let found: Vec<_> = store.keys(keys).iter().map(|key| store.rows.get(key)).collect();
        let absent: Vec<u8> = found.iter().map(|value| u8::from(value.is_none())).collect();
        let nothing = vec![None; store.declared.value.len()];
        Found {
            absent: if absent.contains(&1) { absent } else { Vec::new() },
            values: write(
                &store.declared.value,
                found.iter().map(|value| value.unwrap_or(&nothing).as_slice()),
            ),
        }
    }

    pub(crate) fn put(&mut self, number: u32, keys: &Table, values: &Table) {
        let store = self.called(number);
        let name = &store.declared.name;
        assert_eq!(
            keys.rows, values.rows,
            "store {name:?}: keys and values are not as many"
        );
        let values = read(name, &store.declared.value, values);
        for (mapped, value) in store.declared.value.iter().zip(values.iter().flatten()) {
            assert!(
                mapped.optional || value.is_some(),
                "store {name:?}: the field {:?} is null, but not optional",
                mapped.name
            );
        }
        store.rows.extend(store.keys(keys).into_iter().zip(values));
    }

    pub(crate) fn delete(&mut self, number: u32, keys: &Table) {
        let store = self.called(number);
        for key in store.keys(keys) {
            store.rows.remove(&key);
        }
    }

    pub(crate) fn scan(&mut self, number: u32, prefix: &Table, after: &Table, limit: u32) -> Scanned {
        let store = self.called(number);
        let name = &store.declared.name;
        assert!(store.declared.ordered, "store {name:?} is not ordered");
        assert_eq!(prefix.rows, 1, "store {name:?}: a prefix is one row");
        let prefix = read(name, &store.declared.key[..prefix.columns.len()], prefix).remove(0);
        let prefix: Vec<Part> = prefix.into_iter().flatten().collect();
        let after = store.keys(after).pop();
        let start = after
            .filter(|after| *after > prefix)
            .map_or(Bound::Included(prefix.clone()), Bound::Excluded);
        let mut rows = store
            .rows
            .range((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&prefix));
        let found: Vec<_> = rows.by_ref().take(limit as usize).collect();
        let keys: Vec<Vec<Option<Part>>> = found
            .iter()
            .map(|(key, _)| key.iter().cloned().map(Some).collect())
            .collect();
        Scanned {
            keys: write(&store.declared.key, keys.iter().map(Vec::as_slice)),
            values: write(&store.declared.value, found.iter().map(|(_, value)| value.as_slice())),
            complete: rows.next().is_none(),
        }
    }

    /// The number of a store.
    pub(super) fn number(&self, name: &str) -> u32 {
        match self.stores.iter().position(|store| store.declared.name == name) {
            Some(number) => number as u32,
            None => panic!("there is no store {name:?}"),
        }
    }

    /// The rows of a store, in the order of their keys.
    pub(super) fn rows(&self, name: &str) -> (Table, Table) {
        let store = &self.stores[self.number(name) as usize];
        let keys: Vec<Vec<Option<Part>>> = store
            .rows
            .keys()
            .map(|key| key.iter().cloned().map(Some).collect())
            .collect();
        (
            write(&store.declared.key, keys.iter().map(Vec::as_slice)),
            write(&store.declared.value, store.rows.values().map(Vec::as_slice)),
        )
    }
}

impl Memory {
    fn keys(&self, keys: &Table) -> Vec<Vec<Part>> {
        let name = &self.declared.name;
        let keys = read(name, &self.declared.key, keys).into_iter();
        keys.map(|key| {
            key.into_iter()
                .map(|cell| cell.expect("a cell of a key is not null"))
                .collect()
        })
        .collect()
    }
}

fn read(store: &str, fields: &[Field], table: &Table) -> Vec<Vec<Option<Part>>> {
    assert_eq!(
        fields.len(),
        table.columns.len(),
        "store {store:?}: the table has not as many columns as there are fields"
    );
    let mut rows = vec![Vec::new(); table.rows as usize];
    for (field, column) in fields.iter().zip(&table.columns) {
        let cells = match parts(field.type_, column, rows.len()) {
            Ok(cells) => cells,
            Err(problem) => panic!("store {store:?}: field {:?}: {problem}", field.name),
        };
        for (row, cell) in rows.iter_mut().zip(cells) {
            row.push(cell);
        }
    }
    rows
}

fn parts(field_type: FieldType, column: &Column, rows: usize) -> Result<Vec<Option<Part>>, String> {
    fn of<'a, T: Cell<'a>>(
        column: &'a Column,
        rows: usize,
        part: impl Fn(T) -> Part,
    ) -> Result<Vec<Option<Part>>, String> {
        let view = <Option<T> as Cell>::view(column, rows)?;
        Ok((0..rows)
            .map(|row| <Option<T> as Cell>::read(&view, row).map(&part))
            .collect())
    }
    match field_type {
        FieldType::Boolean => of(column, rows, Part::Boolean),
        FieldType::Integer => of(column, rows, Part::Integer),
        FieldType::Time => of(column, rows, |time: Time| Part::Integer(time.0)),
        FieldType::Float => of(column, rows, Part::float),
        FieldType::Bytes => of(column, rows, Part::Bytes),
        FieldType::Text | FieldType::Json => of(column, rows, |text: &str| Part::Bytes(text.into())),
    }
}

fn write<'r>(fields: &[Field], rows: impl ExactSizeIterator<Item = &'r [Option<Part>]>) -> Table {
    let count = rows.len();
    let mut columns: Vec<Cells> = fields.iter().map(|field| Cells::new(field.type_, count)).collect();
    for row in rows {
        for (cell, cells) in row.iter().zip(&mut columns) {
            match cell {
                Some(part) => part.write(cells),
                None => cells.push_null(),
            }
        }
    }
    Table {
        rows: count as u32,
        columns: columns.into_iter().map(Cells::into_column).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_in_the_order_of_numbers_and_come_back() {
        let numbers = [f64::NEG_INFINITY, -2.5, -0.0, 0.0, 1e-300, 7.0, f64::INFINITY];
        let parts: Vec<Part> = numbers.iter().map(|&number| Part::float(number)).collect();
        assert!(parts.is_sorted());
        let mut cells = Cells::new(FieldType::Float, numbers.len());
        parts.iter().for_each(|part| part.write(&mut cells));
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(cells.into_column().data, bytes);
    }
}
