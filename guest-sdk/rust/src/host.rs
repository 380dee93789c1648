//! What a plugin asks of its host: the imports, or natively what records them for a test.

pub(crate) use imports::{delete, get, put, scan, update, write};

#[cfg(target_arch = "wasm32")]
mod imports {
    pub(crate) use millstream_sdk_bindings::millstream::plugin::log::write;
    pub(crate) use millstream_sdk_bindings::millstream::plugin::metrics::update;

    pub(crate) use crate::bindings::processor::millstream::plugin::state::{delete, get, put, scan};
}

#[cfg(not(target_arch = "wasm32"))]
mod imports {
    use std::cell::RefCell;

    use crate::log::Level;
    use crate::state::{Found, Scanned};
    use crate::table::Table;
    use crate::testing::Stores;

    thread_local! {
        static STORES: RefCell<Stores> = const { RefCell::new(Stores::none()) };
        static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
        static UPDATES: RefCell<Vec<(u32, f64)>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn write(level: Level, message: &str) {
        LINES.with_borrow_mut(|lines| lines.push((level, message.into())));
    }

    pub(crate) fn update(metric: u32, value: f64) {
        UPDATES.with_borrow_mut(|updates| updates.push((metric, value)));
    }

    pub(crate) fn get(store: u32, keys: &Table) -> Found {
        STORES.with_borrow_mut(|stores| stores.get(store, keys))
    }

    pub(crate) fn put(store: u32, keys: &Table, values: &Table) {
        STORES.with_borrow_mut(|stores| stores.put(store, keys, values));
    }

    pub(crate) fn delete(store: u32, keys: &Table) {
        STORES.with_borrow_mut(|stores| stores.delete(store, keys));
    }

    pub(crate) fn scan(store: u32, prefix: &Table, after: &Table, limit: u32) -> Scanned {
        STORES.with_borrow_mut(|stores| stores.scan(store, prefix, after, limit))
    }

    /// Lends stores to this thread, and takes back those that it had.
    pub(crate) fn replace_stores(stores: Stores) -> Stores {
        STORES.replace(stores)
    }

    /// What this thread has logged since it was last asked.
    pub(crate) fn take_lines() -> Vec<(Level, String)> {
        LINES.take()
    }

    /// What this thread's metrics were told since it was last asked.
    pub(crate) fn take_updates() -> Vec<(u32, f64)> {
        UPDATES.take()
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use imports::{replace_stores, take_lines, take_updates};
