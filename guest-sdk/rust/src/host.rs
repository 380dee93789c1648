//! What a plugin asks of its host: the imports, or natively what records them for a test.

pub(crate) use imports::{update, write};

#[cfg(target_arch = "wasm32")]
mod imports {
    pub(crate) use millstream_sdk_bindings::millstream::plugin::log::write;
    pub(crate) use millstream_sdk_bindings::millstream::plugin::metrics::update;
}

#[cfg(not(target_arch = "wasm32"))]
mod imports {
    use std::cell::RefCell;

    use crate::log::Level;

    thread_local! {
        static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
        static UPDATES: RefCell<Vec<(u32, f64)>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn write(level: Level, message: &str) {
        LINES.with_borrow_mut(|lines| lines.push((level, message.into())));
    }

    pub(crate) fn update(metric: u32, value: f64) {
        UPDATES.with_borrow_mut(|updates| updates.push((metric, value)));
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
pub(crate) use imports::{take_lines, take_updates};
