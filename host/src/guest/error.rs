//! What can go wrong with a plugin: when it is loaded, when it is configured, when it is called.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::compile::CompileError;
use crate::output::OutputError;
use crate::schema::PluginKind;

/// Why a file is not a plugin that can run. Nothing is kept of it.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}", path = path.display())]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    #[source]
    pub problem: LoadProblem,
}

/// What is wrong with a plugin's file.
#[derive(Debug, thiserror::Error)]
pub enum LoadProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is too large.
    #[error("has {found_bytes} bytes, but a component may have {limit_bytes}: build it in release mode and strip it")]
    TooLarge {
        /// Its size.
        found_bytes: u64,
        /// The largest size.
        limit_bytes: u64,
    },
    /// There is nothing in it.
    #[error("is empty: build the plugin again")]
    Empty,
    /// It ends too early.
    #[error("is cut off after {at} bytes: copy or build it again")]
    Truncated {
        /// Its size.
        at: usize,
    },
    /// It is a core module.
    #[error(
        "is a core module, not a component: encode it as one (`wasm-tools component new`, or a build for wasm32-wasip2)"
    )]
    CoreModule,
    /// It is machine code.
    #[error("is a precompiled {what}, machine code that could do anything: give the component it was made from")]
    Precompiled {
        /// "module" or "component".
        what: &'static str,
    },
    /// It is WebAssembly's text format.
    #[error("is WebAssembly text, not a binary component: `wasm-tools parse` makes one of it")]
    TextFormat,
    /// It is another text.
    #[error("is a text file, not a WebAssembly component: name the .wasm file that the plugin's build makes")]
    Text,
    /// It is something else.
    #[error("is no WebAssembly at all: name the .wasm file that the plugin's build makes")]
    NotWebAssembly,
    /// It is a component of a draft.
    #[error("is a component of a draft of the format ({version:#x}): build it with current tools")]
    OldEncoding {
        /// The draft's number.
        version: u8,
    },
    /// Its structure is wrong.
    #[error("is not a valid component: {0}")]
    Invalid(String),
    /// It has too many names.
    #[error("has more than {limit} {what}")]
    TooManyNames {
        /// "imports" or "exports".
        what: &'static str,
        /// How many it may have.
        limit: usize,
    },
    /// It speaks another version of the contract.
    #[error(
        "was built for version {found} of the contract ({interface}), but this host speaks {supported}: build it with \
         the SDK of this host's release, or run a host of that version"
    )]
    OtherVersion {
        /// The first name that shows it.
        interface: String,
        /// The plugin's version.
        found: String,
        /// The host's version.
        supported: &'static str,
    },
    /// It names the contract without a version.
    #[error("names {interface} without a version: build it from the WIT of a release")]
    NoVersion {
        /// The name.
        interface: String,
    },
    /// It is no plugin.
    #[error(
        "does not export `millstream:plugin/lifecycle`, so it is no Millstream plugin; it exports {}",
        list(exports)
    )]
    NoLifecycle {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It is no kind of plugin that this host knows.
    #[error(
        "exports neither `processor` nor `aggregator` of `millstream:plugin`: a plugin is one of them; it exports {}",
        list(exports)
    )]
    NoKind {
        /// What it exports.
        exports: Vec<String>,
    },
    /// It is two kinds of plugin.
    #[error("exports both `processor` and `aggregator`: make two plugins of it")]
    BothKinds,
    /// It wants what no plugin gets.
    #[error(
        "imports {}, which this host does not grant: plugins have no network, build it without",
        list(imports)
    )]
    Ungranted {
        /// Its imports that are refused.
        imports: Vec<String>,
    },
    /// It wants what nobody has.
    #[error(
        "imports {}, which nothing here provides: compose the component with one that does, or build it without",
        list(imports)
    )]
    UnknownImports {
        /// Its imports that are not known.
        imports: Vec<String>,
    },
    /// Its functions have other types than the contract's.
    #[error("does not fit the contract: {0}; build it from the WIT of this host's release")]
    Mismatch(String),
    /// It cannot be compiled.
    #[error("cannot be compiled: {0}")]
    Compile(#[from] CompileError),
    /// It does not say who it is.
    #[error("{0}")]
    Describe(#[from] GuestError),
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    if names.is_empty() {
        return "nothing".into();
    }
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{}`", name.escape_debug()))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

/// Why a plugin cannot be configured or an instance cannot be made. No instance is left behind.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A call failed.
    #[error("{plugin}: `{function}` failed: {}", without_stage_time(source))]
    Call {
        /// Name and version, or the digest where there is no name yet.
        plugin: String,
        /// "describe", "configure" or "initial".
        function: &'static str,
        /// How it failed.
        source: Box<CallError>,
    },
    /// The instance did not start.
    #[error("{plugin} does not start: {source}")]
    Start {
        /// Name and version, or the digest.
        plugin: String,
        /// How it failed.
        source: Box<CallError>,
    },
    /// The plugin refuses its configuration.
    #[error("{plugin} refuses its configuration: {message}")]
    Refused {
        /// Name and version.
        plugin: String,
        /// The plugin's words.
        message: String,
    },
    /// The configuration is not JSON.
    #[error("the configuration of {plugin} is not JSON: {problem}")]
    Config {
        /// Name and version.
        plugin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What `describe` answers breaks a rule.
    #[error("{plugin}: what `describe` answers breaks the contract: {problem}")]
    Info {
        /// Name and version, or the digest.
        plugin: String,
        /// Which rule, and how.
        problem: String,
    },
    /// What `configure` or `initial` answers breaks a rule.
    #[error("{plugin}: what `{function}` answers breaks the contract: {problem}")]
    Signature {
        /// Name and version.
        plugin: String,
        /// "configure" or "initial".
        function: &'static str,
        /// Which rule, and how.
        problem: String,
    },
    /// `configure` or `initial` does not answer the same each time.
    #[error("{plugin}: `{function}` does not answer as before for the same configuration: the {what} differ")]
    Changed {
        /// Name and version.
        plugin: String,
        /// "configure" or "initial".
        function: &'static str,
        /// Which part.
        what: &'static str,
    },
    /// The folder of compiled components cannot be used.
    #[error("the folder of compiled components {path}: {source}", path = path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// WebAssembly cannot run here.
    #[error("WebAssembly cannot run here: {0}")]
    Engine(String),
}

/// How a call failed. After all but [`CallError::Refused`] and [`CallError::OtherKind`] the instance is poisoned: nothing of the call counts, and
/// its owner makes another instance.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The plugin ended itself: a panic, an access out of bounds, a stack that was too deep.
    #[error("{}", trap_text(message, panic.as_deref()))]
    Trap {
        /// What happened, in the engine's words.
        message: String,
        /// What the plugin wrote last before it: the text of a panic.
        panic: Option<String>,
        /// The functions that were running, the innermost first.
        frames: Vec<String>,
    },
    /// The call took too long.
    #[error(
        "the call did not end within {limit:?} of processor time: look for an endless loop (once it is \
         configured, the stage's `time` limit says how long)"
    )]
    Deadline {
        /// How long it may take.
        limit: Duration,
        /// The functions that were running, the innermost first.
        frames: Vec<String>,
    },
    /// The instance wanted more memory than it may have.
    #[error(
        "the instance wanted {wanted_bytes} bytes of memory, but its limit is {limit_bytes}: raise the stage's `memory` limit, or hold less"
    )]
    Memory {
        /// How much it may have.
        limit_bytes: usize,
        /// What it would have had.
        wanted_bytes: usize,
        /// What the plugin wrote last before it ended.
        panic: Option<String>,
        /// The functions that were running, the innermost first.
        frames: Vec<String>,
    },
    /// A component of more parts than an instance may have.
    #[error("the component has more parts than an instance may have: {0}")]
    Parts(String),
    /// What crosses the boundary cannot be read: pointers out of bounds, text that is not UTF-8, unknown variants.
    #[error("what the plugin passes cannot be read: {message}: a fault of its bindings")]
    Malformed {
        /// Which rule of the canonical ABI it breaks.
        message: String,
    },
    /// The answer claims more bytes than a call may return.
    #[error(
        "the plugin's answer has more than the {limit_bytes} bytes that it may have: return less, or raise the stage's \
         `output` limit"
    )]
    AnswerSize {
        /// How many it may have.
        limit_bytes: u64,
    },
    /// The answer breaks a rule of the contract.
    #[error("the plugin's answer breaks the contract: {0}")]
    Output(#[from] OutputError),
    /// A call of the plugin to the host breaks a rule of the contract.
    #[error("the plugin used the host against the contract: {message}")]
    Misuse {
        /// Which rule, and how.
        message: String,
        /// The functions that were running, the innermost first.
        frames: Vec<String>,
    },
    /// A store does not take or give what the plugin asks: with fewer rows the call may succeed.
    #[error("a store refused what the plugin asks: {message}")]
    State {
        /// Which function and store, and why.
        message: String,
        /// The functions that were running, the innermost first.
        frames: Vec<String>,
    },
    /// The stores cannot be read or written: neither the plugin nor its rows are to blame.
    #[error("{0}")]
    Unavailable(String),
    /// The plugin is of another kind and has no such function.
    #[error("the plugin is {}, which has no `{function}`", with_article(*kind))]
    OtherKind {
        /// Its kind.
        kind: PluginKind,
        /// The function.
        function: &'static str,
    },
    /// The plugin answered with an error: the call failed, the instance lives on.
    #[error("the plugin failed the call: {0}")]
    Refused(String),
    /// The instance failed before and cannot be called.
    #[error("the instance failed before and cannot be called again: make another")]
    Poisoned,
}

impl CallError {
    /// The functions that were running, the innermost first; empty where none was.
    pub fn frames(&self) -> &[String] {
        match self {
            CallError::Trap { frames, .. }
            | CallError::Deadline { frames, .. }
            | CallError::Memory { frames, .. }
            | CallError::Misuse { frames, .. }
            | CallError::State { frames, .. } => frames,
            _ => &[],
        }
    }

    /// Whether the call failed for want of its stores: whoever called waits and calls again with the same rows.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, CallError::Unavailable(_))
    }

    /// A short word for metrics and headers, the same for all failures of a kind.
    pub fn kind(&self) -> &'static str {
        match self {
            CallError::Trap { .. } => "trap",
            CallError::Deadline { .. } => "time",
            CallError::Memory { .. } => "memory",
            CallError::Parts(_) => "parts",
            CallError::Malformed { .. } | CallError::Output(_) => "output",
            CallError::AnswerSize { .. } => "output-size",
            CallError::Misuse { .. } => "misuse",
            CallError::State { .. } => "state",
            CallError::Unavailable(_) => "unavailable",
            CallError::OtherKind { .. } => "kind",
            CallError::Refused(_) => "refused",
            CallError::Poisoned => "poisoned",
        }
    }
}

/// Time to be configured is the same for all: there is no limit of a stage to raise.
fn without_stage_time(error: &CallError) -> String {
    match error {
        CallError::Deadline { limit, .. } => {
            format!("the call did not end within {limit:?} of processor time: look for an endless loop")
        }
        error => error.to_string(),
    }
}

fn with_article(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Processor => "a processor",
        PluginKind::Aggregator => "an aggregator",
    }
}

fn trap_text(message: &str, panic: Option<&str>) -> impl fmt::Display {
    match panic {
        Some(panic) => format!("the plugin trapped: {panic} ({message})"),
        None => format!("the plugin trapped: {message}"),
    }
}
