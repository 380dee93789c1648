//! `state`: the plugin's stores.
//!
//! A pipeline with a plugin that declares stores is refused before it runs, so a call that arrives here names a store
//! that does not exist. The stores of a task will be lent to [`Host`] for the time of a call.

use super::{Host, Misuse};
use crate::guest::bindings;
use crate::guest::bindings::state::{Found, Scanned, Table};

impl Host {
    fn no_store<T>(&self, function: &str, store: u32) -> wasmtime::Result<T> {
        let during = self.phase.name();
        Err(Misuse(format!(
            "`state.{function}` was called in {during} for store {store}, which does not exist"
        ))
        .into())
    }
}

impl bindings::state::Host for Host {
    fn get(&mut self, store: u32, _keys: Table) -> wasmtime::Result<Found> {
        self.no_store("get", store)
    }

    fn put(&mut self, store: u32, _keys: Table, _values: Table) -> wasmtime::Result<()> {
        self.no_store("put", store)
    }

    fn delete(&mut self, store: u32, _keys: Table) -> wasmtime::Result<()> {
        self.no_store("delete", store)
    }

    fn scan(&mut self, store: u32, _prefix: Table, _after: Table, _limit: u32) -> wasmtime::Result<Scanned> {
        self.no_store("scan", store)
    }
}
