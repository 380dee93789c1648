//! `state`: the plugin's stores, lent by the task for the time of a call.
//!
//! Everything that the guest sends is held against the signature before a store sees it; then it is moved, not copied.

use super::{Host, Misuse, Phase};
use crate::guest::bindings;
use crate::guest::bindings::state as wit;
use crate::guest::stores::{Scanned, Stores, StoresError};
use crate::limits::{SCAN_ROWS_MAX, STATE_KEYS_MAX};
use crate::schema::{Field, Store};
use crate::table::Table;

/// The stores, as one instance sees them.
#[derive(Default)]
pub struct State {
    /// The stores of the signature; none before it is known.
    pub declared: Vec<Store>,
    /// What holds their rows, while a call runs that may use them.
    pub lent: Option<Box<dyn Stores>>,
    /// Bytes that one call of the guest may read.
    pub read_bytes_max: usize,
    /// Bytes of keys and values that one call of the guest may write.
    pub written_bytes_max: usize,
    read_bytes: usize,
    written_bytes: usize,
}

/// A store did not do what the guest asks. It ends the guest's call.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// The rows are to blame.
    #[error("{0}")]
    Refused(String),
    /// Nobody is to blame.
    #[error("{0}")]
    Unavailable(String),
}

/// A function of the interface.
#[derive(Clone, Copy)]
enum Function {
    Get,
    Put,
    Delete,
    Scan,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Function::Get => "get",
            Function::Put => "put",
            Function::Delete => "delete",
            Function::Scan => "scan",
        }
    }
}

/// A call of a function, of a store that exists.
struct Access<'a> {
    function: Function,
    store: &'a Store,
}

impl Access<'_> {
    fn misuse(&self, problem: impl std::fmt::Display) -> wasmtime::Error {
        Misuse(format!(
            "`state.{}` of store {:?}: {problem}",
            self.function.name(),
            self.store.name
        ))
        .into()
    }

    fn refused(&self, problem: impl std::fmt::Display) -> wasmtime::Error {
        StoreFailure::Refused(format!(
            "`state.{}` of store {:?}: {problem}",
            self.function.name(),
            self.store.name
        ))
        .into()
    }

    fn failed(&self, error: StoresError, read_bytes_max: usize) -> wasmtime::Error {
        match error {
            StoresError::Row(problem) => self.refused(problem),
            StoresError::Size => self.read_too_much(read_bytes_max),
            StoresError::Unavailable(_) => StoreFailure::Unavailable(error.to_string()).into(),
        }
    }

    fn read_too_much(&self, bytes_max: usize) -> wasmtime::Error {
        self.refused(format!(
            "the call has read more than {bytes_max} bytes: ask for fewer rows, or raise the stage's `memory` limit"
        ))
    }

    /// Holds a table against fields. `name` is the parameter's.
    fn check(&self, name: &str, table: &Table, fields: &[Field]) -> wasmtime::Result<()> {
        table
            .check(fields)
            .map_err(|error| self.misuse(format!("the table `{name}` {error}")))
    }

    fn check_keys(&self, keys: &Table) -> wasmtime::Result<()> {
        if keys.rows > STATE_KEYS_MAX {
            return Err(self.misuse(format!(
                "the table `keys` has {} rows, but may have {STATE_KEYS_MAX}",
                keys.rows
            )));
        }
        self.check("keys", keys, &self.store.key)
    }

    fn check_scan(&self, prefix: &Table, after: &Table, limit: u32) -> wasmtime::Result<()> {
        if !self.store.ordered {
            return Err(self.misuse("it is not ordered, so it cannot be scanned"));
        }
        if !(1..=SCAN_ROWS_MAX).contains(&limit) {
            return Err(self.misuse(format!("`limit` is {limit}, but must be 1 to {SCAN_ROWS_MAX}")));
        }
        if prefix.rows != 1 {
            return Err(self.misuse(format!("the table `prefix` has {} rows, not one", prefix.rows)));
        }
        let key = &self.store.key;
        let Some(fields) = key.get(..prefix.columns.len()) else {
            return Err(self.misuse(format!(
                "the table `prefix` has {} columns, but the key has {} fields",
                prefix.columns.len(),
                key.len()
            )));
        };
        self.check("prefix", prefix, fields)?;
        match after.rows {
            // Nothing to be behind, and so no columns either.
            0 if after.columns.is_empty() => Ok(()),
            0 | 1 => self.check("after", after, key),
            rows => Err(self.misuse(format!("the table `after` has {rows} rows, not one or none"))),
        }
    }
}

impl State {
    /// A call begins: what the one before read and wrote does not count.
    pub fn begin_call(&mut self) {
        self.read_bytes = 0;
        self.written_bytes = 0;
    }

    fn get(&mut self, phase: Phase, store: u32, keys: Table) -> wasmtime::Result<(Vec<u8>, Table)> {
        let (access, lent) = access(&self.declared, &mut self.lent, phase, Function::Get, store)?;
        access.check_keys(&keys)?;
        let bytes_max = self.read_bytes_max - self.read_bytes;
        let (absent, values) = lent
            .get(store as usize, &keys, bytes_max)
            .map_err(|error| access.failed(error, self.read_bytes_max))?;
        debug_assert_eq!(values.check(&access.store.value), Ok(()));
        debug_assert!(values.rows == keys.rows && (absent.is_empty() || absent.len() == keys.rows as usize));
        let bytes = absent.len() + values.size_bytes();
        if bytes > bytes_max {
            return Err(access.read_too_much(self.read_bytes_max));
        }
        self.read_bytes += bytes;
        Ok((absent, values))
    }

    fn put(&mut self, phase: Phase, store: u32, keys: Table, values: Table) -> wasmtime::Result<()> {
        let (access, lent) = access(&self.declared, &mut self.lent, phase, Function::Put, store)?;
        access.check_keys(&keys)?;
        if values.rows != keys.rows {
            return Err(access.misuse(format!(
                "the table `values` has {} rows, but `keys` has {}",
                values.rows, keys.rows
            )));
        }
        access.check("values", &values, &access.store.value)?;
        let bytes = keys.size_bytes() + values.size_bytes();
        self.written_bytes = written(&access, self.written_bytes, bytes, self.written_bytes_max)?;
        lent.put(store as usize, &keys, &values)
            .map_err(|error| access.failed(error, self.read_bytes_max))
    }

    fn delete(&mut self, phase: Phase, store: u32, keys: Table) -> wasmtime::Result<()> {
        let (access, lent) = access(&self.declared, &mut self.lent, phase, Function::Delete, store)?;
        access.check_keys(&keys)?;
        self.written_bytes = written(&access, self.written_bytes, keys.size_bytes(), self.written_bytes_max)?;
        lent.delete(store as usize, &keys)
            .map_err(|error| access.failed(error, self.read_bytes_max))
    }

    fn scan(&mut self, phase: Phase, store: u32, prefix: Table, after: Table, limit: u32) -> wasmtime::Result<Scanned> {
        let (access, lent) = access(&self.declared, &mut self.lent, phase, Function::Scan, store)?;
        access.check_scan(&prefix, &after, limit)?;
        let bytes_max = self.read_bytes_max - self.read_bytes;
        let scanned = lent
            .scan(store as usize, &prefix, &after, limit as usize, bytes_max)
            .map_err(|error| access.failed(error, self.read_bytes_max))?;
        debug_assert_eq!(scanned.keys.check(&access.store.key), Ok(()));
        debug_assert_eq!(scanned.values.check(&access.store.value), Ok(()));
        debug_assert!(scanned.keys.rows == scanned.values.rows && scanned.keys.rows <= limit);
        let bytes = scanned.keys.size_bytes() + scanned.values.size_bytes();
        if bytes > bytes_max {
            return Err(access.read_too_much(self.read_bytes_max));
        }
        self.read_bytes += bytes;
        Ok(scanned)
    }
}

/// The store, and what holds its rows, if this may be called now.
fn access<'a>(
    declared: &'a [Store],
    lent: &'a mut Option<Box<dyn Stores>>,
    phase: Phase,
    function: Function,
    store: u32,
) -> wasmtime::Result<(Access<'a>, &'a mut dyn Stores)> {
    let misuse = |problem: String| Misuse(format!("`state.{}` was called {problem}", function.name()));
    if phase != Phase::Process {
        let why = if phase.has_tables() {
            "but an aggregator has no stores"
        } else {
            "where only `log` may be"
        };
        return Err(misuse(format!("in {}, {why}", phase.name())).into());
    }
    let Some(known) = declared.get(store as usize) else {
        return Err(misuse(format!(
            "for store {store}, which does not exist: the signature has {}",
            declared.len()
        ))
        .into());
    };
    let Some(lent) = lent.as_deref_mut() else {
        return Err(misuse("where the host lends no stores".into()).into());
    };
    Ok((Access { function, store: known }, lent))
}

/// Bytes that the call has written with these.
fn written(access: &Access<'_>, before: usize, bytes: usize, bytes_max: usize) -> wasmtime::Result<usize> {
    if bytes > bytes_max - before {
        return Err(access.refused(format!(
            "the call has written more than {bytes_max} bytes: write fewer rows, or raise the stage's `output` limit"
        )));
    }
    Ok(before + bytes)
}

impl bindings::state::Host for Host {
    fn get(&mut self, store: u32, keys: wit::Table) -> wasmtime::Result<wit::Found> {
        let (absent, values) = self.state.get(self.phase, store, keys.into())?;
        Ok(wit::Found {
            absent,
            values: values.into(),
        })
    }

    fn put(&mut self, store: u32, keys: wit::Table, values: wit::Table) -> wasmtime::Result<()> {
        self.state.put(self.phase, store, keys.into(), values.into())
    }

    fn delete(&mut self, store: u32, keys: wit::Table) -> wasmtime::Result<()> {
        self.state.delete(self.phase, store, keys.into())
    }

    fn scan(
        &mut self,
        store: u32,
        prefix: wit::Table,
        after: wit::Table,
        limit: u32,
    ) -> wasmtime::Result<wit::Scanned> {
        let scanned = self.state.scan(self.phase, store, prefix.into(), after.into(), limit)?;
        Ok(wit::Scanned {
            keys: scanned.keys.into(),
            values: scanned.values.into(),
            complete: scanned.complete,
        })
    }
}
