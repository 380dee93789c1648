//! Why a call failed, read out of the engine's error.

use wasmtime::{AsContextMut, Store, Trap, WasmBacktrace};

use super::error::CallError;
use super::imports::log::escaped;
use super::imports::state::StoreFailure;
use super::imports::{Host, Misuse};
use crate::limits::GUEST_FRAMES_MAX;

/// What an error of the engine says about the call that failed.
pub fn failure(store: &mut Store<Host>, error: wasmtime::Error) -> CallError {
    let mut context = store.as_context_mut();
    let host = context.data_mut();
    let frames = frames(&error);
    if host.deadline.passed {
        return CallError::Deadline {
            limit: host.deadline.limit(),
            frames,
        };
    }
    if let Some(misuse) = error.downcast_ref::<Misuse>() {
        return CallError::Misuse {
            message: misuse.to_string(),
            frames,
        };
    }
    match error.downcast_ref::<StoreFailure>() {
        Some(StoreFailure::Refused(message)) => {
            return CallError::State {
                message: message.clone(),
                frames,
            };
        }
        Some(StoreFailure::Unavailable(message)) => return CallError::Unavailable(message.clone()),
        None => {}
    }
    let panic = host.log().cause();
    if let Some(wanted_bytes) = host.limiter.refused_bytes {
        return CallError::Memory {
            limit_bytes: host.limiter.bytes_max(),
            wanted_bytes,
            panic,
            frames,
        };
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return CallError::Trap {
            message: format!("it called `exit` with status {}", exit.0),
            panic,
            frames,
        };
    }
    let mut message = error.root_cause().to_string();
    if let Some(trap) = error.downcast_ref::<Trap>() {
        message = message.trim_start_matches("wasm trap: ").to_owned();
        // Most languages keep a stack of their own in the memory: it is full before the engine's is, and what is
        // behind it is out of bounds.
        if matches!(trap, Trap::MemoryOutOfBounds | Trap::StackOverflow)
            && let Some(function) = recursive(&frames)
        {
            message = format!("{message}: `{function}` calls itself without end, or deeper than there is stack");
        }
        return CallError::Trap { message, panic, frames };
    }
    if message.contains("fuel allocated for hostcalls") {
        let limit_bytes = store.hostcall_fuel();
        // Functions of the guest still run where it is an argument that is too large.
        if !frames.is_empty() {
            return CallError::Misuse {
                message: format!("it passed more than {limit_bytes} bytes to the host at once: pass less"),
                frames,
            };
        }
        return CallError::AnswerSize {
            limit_bytes: limit_bytes as u64,
        };
    }
    if message.contains("resource limit exceeded") {
        return CallError::Parts(message);
    }
    CallError::Malformed { message }
}

/// The function that fills most of a backtrace that was cut for its length.
fn recursive(frames: &[String]) -> Option<&str> {
    let count = |name: &String| frames.iter().filter(|frame| *frame == name).count();
    // One that takes part in a circle of several has its share at least of what is behind the innermost.
    let outermost = frames.last().filter(|_| frames.len() >= GUEST_FRAMES_MAX)?;
    (count(outermost) >= GUEST_FRAMES_MAX / 8).then_some(outermost)
}

/// The names of the functions that were running, the innermost first.
fn frames(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => escaped(&format!("{:#}", rustc_demangle::demangle(name))),
        None => format!("function {}", frame.func_index()),
    };
    backtrace.frames().iter().map(name).collect()
}
