//! Stores in memory, of integers and texts alone.

use std::collections::BTreeMap;

use millstream::guest::{Scanned, Stores, StoresError};
use millstream::schema::{Field, FieldType, Signature, Store};
use millstream::table::{Cell, Column, Table};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owned {
    Integer(i64),
    Text(String),
}

pub type Row = Vec<Owned>;

pub struct Memory {
    declared: Vec<Store>,
    pub rows: Vec<BTreeMap<Row, Row>>,
    /// What is said to each call.
    pub refusal: Option<StoresError>,
}

impl Memory {
    pub fn new(signature: &Signature) -> Memory {
        Memory {
            declared: signature.stores.clone(),
            rows: vec![BTreeMap::new(); signature.stores.len()],
            refusal: None,
        }
    }

    fn refuse(&self) -> Result<(), StoresError> {
        self.refusal.clone().map_or(Ok(()), Err)
    }
}

fn row(table: &Table, fields: &[Field], at: u32) -> Row {
    let cell = |(column, field): (&Column, &Field)| match column.cell(field.field_type, at as usize) {
        Cell::Integer(value) => Owned::Integer(value),
        Cell::Text(value) => Owned::Text(value.into()),
        other => panic!("{other:?} in these stores"),
    };
    table.columns.iter().zip(fields).map(cell).collect()
}

fn rows(table: &Table, fields: &[Field]) -> Vec<Row> {
    (0..table.rows).map(|at| row(table, fields, at)).collect()
}

fn table(rows: &[Option<&Row>], fields: &[Field]) -> Table {
    let column = |(at, field): (usize, &Field)| {
        let mut column = Column::default();
        for (number, row) in rows.iter().enumerate() {
            let cell = match (row.map(|row| &row[at]), field.field_type) {
                (Some(Owned::Integer(value)), _) => Cell::Integer(*value),
                (Some(Owned::Text(value)), _) => Cell::Text(value),
                (None, FieldType::Text) => Cell::Text(""),
                (None, _) => Cell::Integer(0),
            };
            column.push(field.field_type, number, cell);
        }
        column
    };
    Table {
        rows: rows.len() as u32,
        columns: fields.iter().enumerate().map(column).collect(),
    }
}

impl Stores for Memory {
    fn get(&mut self, store: usize, keys: &Table, bytes_max: usize) -> Result<(Vec<u8>, Table), StoresError> {
        self.refuse()?;
        let keys = rows(keys, &self.declared[store].key);
        let found: Vec<Option<&Row>> = keys.iter().map(|key| self.rows[store].get(key)).collect();
        let absent = found.iter().map(|row| u8::from(row.is_none())).collect();
        let values = table(&found, &self.declared[store].value);
        if values.size_bytes() > bytes_max {
            return Err(StoresError::Size);
        }
        Ok((absent, values))
    }

    fn put(&mut self, store: usize, keys: &Table, values: &Table) -> Result<(), StoresError> {
        self.refuse()?;
        let declared = &self.declared[store];
        let rows = rows(keys, &declared.key).into_iter().zip(rows(values, &declared.value));
        self.rows[store].extend(rows);
        Ok(())
    }

    fn delete(&mut self, store: usize, keys: &Table) -> Result<(), StoresError> {
        self.refuse()?;
        for key in rows(keys, &self.declared[store].key) {
            self.rows[store].remove(&key);
        }
        Ok(())
    }

    fn scan(
        &mut self,
        store: usize,
        prefix: &Table,
        after: &Table,
        limit: usize,
        _bytes_max: usize,
    ) -> Result<Scanned, StoresError> {
        self.refuse()?;
        let declared = &self.declared[store];
        let prefix = row(prefix, &declared.key, 0);
        let after = rows(after, &declared.key).pop();
        let fitting: Vec<(&Row, &Row)> = self.rows[store]
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix) && after.as_ref().is_none_or(|after| *key > after))
            .collect();
        let taken = &fitting[..fitting.len().min(limit)];
        let keys: Vec<_> = taken.iter().map(|(key, _)| Some(*key)).collect();
        let values: Vec<_> = taken.iter().map(|(_, value)| Some(*value)).collect();
        Ok(Scanned {
            keys: table(&keys, &declared.key),
            values: table(&values, &declared.value),
            complete: taken.len() == fitting.len(),
        })
    }
}
