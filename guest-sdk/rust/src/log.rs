//! Lines for the operator. They leave at once, also from a call that fails later.
//!
//! ```
//! use millstream_sdk::prelude::*;
//!
//! log::info!("{} zones known", 265);
//! ```

pub use millstream_sdk_bindings::millstream::plugin::log::Level;

pub use crate::{log_debug as debug, log_error as error, log_info as info, log_trace as trace, log_warn as warn};

/// Writes a line. The macros of this module format one.
pub fn write(level: Level, message: &str) {
    crate::host::write(level, message);
}

/// Writes a formatted line at level trace.
#[doc(hidden)]
#[macro_export]
macro_rules! log_trace {
    ($($message:tt)+) => {
        $crate::log::write($crate::log::Level::Trace, &::std::format!($($message)+))
    };
}

/// Writes a formatted line at level debug.
#[doc(hidden)]
#[macro_export]
macro_rules! log_debug {
    ($($message:tt)+) => {
        $crate::log::write($crate::log::Level::Debug, &::std::format!($($message)+))
    };
}

/// Writes a formatted line at level info.
#[doc(hidden)]
#[macro_export]
macro_rules! log_info {
    ($($message:tt)+) => {
        $crate::log::write($crate::log::Level::Info, &::std::format!($($message)+))
    };
}

/// Writes a formatted line at level warn.
#[doc(hidden)]
#[macro_export]
macro_rules! log_warn {
    ($($message:tt)+) => {
        $crate::log::write($crate::log::Level::Warn, &::std::format!($($message)+))
    };
}

/// Writes a formatted line at level error.
#[doc(hidden)]
#[macro_export]
macro_rules! log_error {
    ($($message:tt)+) => {
        $crate::log::write($crate::log::Level::Error, &::std::format!($($message)+))
    };
}

/// Makes a panic write its message, as the host shows the last error line as the cause of a trap. `export!` sees to
/// it; natively it does nothing.
pub fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| std::panic::set_hook(Box::new(log_panic)));
    }
}

#[cfg(target_arch = "wasm32")]
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    match panic.location() {
        Some(location) => {
            let (file, line) = (location.file(), location.line());
            write(Level::Error, &format!("panicked at {file}:{line}: {message}"));
        }
        None => write(Level::Error, &format!("panicked: {message}")),
    }
}
