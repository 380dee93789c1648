//! A plugin: a component that was read, compiled, linked and asked who it is.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use wasmtime::component::{Component, InstancePre};

use super::bindings::LifecycleIndices;
use super::cache::hex_digest;
use super::classify::{Classified, classify};
use super::engine::Runtime;
use super::error::{CallError, GuestError, LoadError, LoadProblem};
use super::functions::Exports;
use super::imports::Host;
use super::imports::log::{GuestSink, Unheard};
use super::instance::Instance;
use super::signature;
use super::started::Started;
use crate::limits::{DESCRIBE_MEMORY_BYTES_MAX, StageLimits};
use crate::schema::{Accumulator, Info, PluginKind, Signature};

/// A plugin at one version, ready to be configured.
pub struct Plugin {
    runtime: Arc<Runtime>,
    component: InstancePre<Host>,
    lifecycle: LifecycleIndices,
    functions: Exports,
    classified: Classified,
    info: Info,
    digest: String,
    size_bytes: u64,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("info", &self.info)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// See [`Runtime::load`].
    pub(super) fn load(runtime: &Arc<Runtime>, path: &Path) -> Result<Arc<Plugin>, LoadError> {
        Self::read(runtime, path).map_err(|problem| LoadError {
            path: path.to_owned(),
            problem,
        })
    }

    fn read(runtime: &Arc<Runtime>, path: &Path) -> Result<Arc<Plugin>, LoadProblem> {
        let bytes = read_bounded(path, runtime.component_bytes_max)?;
        let classified = classify(&bytes)?;
        let digest = hex_digest(&bytes);
        runtime.shared(&digest, || Self::make(runtime, &digest, classified, &bytes))
    }

    fn make(
        runtime: &Arc<Runtime>,
        digest: &str,
        classified: Classified,
        bytes: &[u8],
    ) -> Result<Arc<Plugin>, LoadProblem> {
        let component = compiled(runtime, digest, bytes)?;
        let mismatch = |error: wasmtime::Error| LoadProblem::Mismatch(format!("{error:#}"));
        let linked = runtime.linker.instantiate_pre(&component).map_err(mismatch)?;
        let lifecycle = LifecycleIndices::new(&linked).map_err(mismatch)?;
        let functions = Exports::find(classified.kind, &component)?;
        let mut plugin = Plugin {
            runtime: Arc::clone(runtime),
            component: linked,
            lifecycle,
            functions,
            classified,
            info: Info {
                name: String::new(),
                version: String::new(),
                summary: String::new(),
                config_schema: String::new(),
                capabilities: Vec::new(),
            },
            digest: digest.to_owned(),
            size_bytes: bytes.len() as u64,
        };
        plugin.info = plugin.describe()?;
        Ok(Arc::new(plugin))
    }

    fn describe(&self) -> Result<Info, LoadProblem> {
        let limits = StageLimits {
            memory_bytes_max: DESCRIBE_MEMORY_BYTES_MAX,
            ..StageLimits::default()
        };
        let mut started = Started::new(self, &limits, Arc::new(Unheard)).map_err(|source| match source {
            // Functions of other types than the contract's come to light here, before any of the guest's code ran.
            CallError::Malformed { message } => LoadProblem::Mismatch(message),
            source => LoadProblem::Describe(GuestError::Start {
                plugin: self.label(),
                source: Box::new(source),
            }),
        })?;
        let answer = started.describe(self).map_err(|source| GuestError::Call {
            plugin: self.label(),
            function: "describe",
            source: Box::new(source),
        })?;
        Ok(signature::info(answer).map_err(|problem| GuestError::Info {
            plugin: self.label(),
            problem,
        })?)
    }

    /// Asks the plugin what it reads, writes and keeps under this configuration (JSON text) and these limits. Where memory
    /// is as it is without a word, a plugin has what its language needs: [`Configured::limits`] says.
    ///
    /// # Errors
    /// The configuration is not JSON or the plugin refuses it; or the plugin fails, or answers something that breaks
    /// the contract.
    pub fn configure(self: &Arc<Self>, config_json: &str, limits: &StageLimits) -> Result<Configured, GuestError> {
        if let Err(problem) = serde_json::from_str::<serde::de::IgnoredAny>(config_json) {
            return Err(GuestError::Config {
                plugin: self.label(),
                problem: problem.to_string(),
            });
        }
        let limits = &limits.with_memory_of_language(self.classified.memory_bytes_max);
        let mut started = Started::new(self, limits, Arc::new(Unheard)).map_err(|source| GuestError::Start {
            plugin: self.label(),
            source: Box::new(source),
        })?;
        let signature = started.configure(self, config_json)?;
        let accumulator = started.initial(self)?;
        Ok(Configured(Arc::new(Configuration {
            plugin: Arc::clone(self),
            config: config_json.to_owned(),
            limits: limits.clone(),
            signature,
            accumulator,
        })))
    }

    /// Who it says that it is.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// What kind of plugin it is.
    pub fn kind(&self) -> PluginKind {
        self.classified.kind
    }

    /// SHA-256 of the component, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The version of the contract that it was built against.
    pub fn contract_version(&self) -> &str {
        &self.classified.contract_version
    }

    /// What it imports, by its full names.
    pub fn imports(&self) -> &[String] {
        &self.classified.imports
    }

    /// What it exports, by its full names.
    pub fn exports(&self) -> &[String] {
        &self.classified.exports
    }

    /// Bytes of the component.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Name and version, for messages; the digest's beginning before the plugin has said its name.
    pub fn label(&self) -> String {
        if self.info.name.is_empty() {
            return format!("component {}", &self.digest[..12]);
        }
        format!("{} {}", self.info.name, self.info.version)
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(super) fn component(&self) -> &InstancePre<Host> {
        &self.component
    }

    pub(super) fn lifecycle(&self) -> &LifecycleIndices {
        &self.lifecycle
    }

    pub(super) fn functions(&self) -> &Exports {
        &self.functions
    }

    pub(super) fn imports_wasi(&self) -> bool {
        self.classified.imports.iter().any(|name| name.starts_with("wasi:"))
    }
}

/// A whole file, if it is not larger than it may be. A file that grows meanwhile, or never ends, is not read further.
fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadProblem> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > bytes_max {
        return Err(LoadProblem::TooLarge {
            found_bytes: size,
            limit_bytes: bytes_max,
        });
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(LoadProblem::TooLarge {
            found_bytes: bytes.len() as u64,
            limit_bytes: bytes_max,
        });
    }
    Ok(bytes)
}

/// The component's machine code, mapped from the cache. What the cache has but the engine does not take is made again.
fn compiled(runtime: &Runtime, digest: &str, bytes: &[u8]) -> Result<Component, LoadProblem> {
    let path = runtime.compiler.compiled(digest, bytes)?;
    match map(runtime, &path) {
        Ok(component) => Ok(component),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a compiled component does not load and is made again");
            let path = runtime.compiler.compile(digest, bytes)?;
            map(runtime, &path).map_err(|error| {
                LoadProblem::Mismatch(format!(
                    "the compiler made code that this host does not take ({error:#}): host and compiler must be the same build"
                ))
            })
        }
    }
}

#[allow(unsafe_code)]
fn map(runtime: &Runtime, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must be what this engine's compiler wrote, and must not change while they are mapped. The
    // folder is writable by this user alone (checked when it was opened); its files are written by the compiling child
    // of this same program, hold the sum that was stored with them (checked by whoever gave the path), and are
    // replaced by renaming, never changed. Wasmtime checks version and settings in the file's own header.
    unsafe { Component::deserialize_file(&runtime.engine, path) }
}

/// A plugin under one configuration and one set of limits. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Configured(Arc<Configuration>);

#[derive(Debug)]
struct Configuration {
    plugin: Arc<Plugin>,
    config: String,
    limits: StageLimits,
    signature: Signature,
    accumulator: Option<Accumulator>,
}

impl Configured {
    /// The plugin.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.0.plugin
    }

    /// The configuration, as JSON text.
    pub fn config(&self) -> &str {
        &self.0.config
    }

    /// What an instance may take.
    pub fn limits(&self) -> &StageLimits {
        &self.0.limits
    }

    /// What the plugin reads, writes and keeps.
    pub fn signature(&self) -> &Signature {
        &self.0.signature
    }

    /// What an aggregator keeps for a group; nothing for other plugins.
    pub fn accumulator(&self) -> Option<&Accumulator> {
        self.0.accumulator.as_ref()
    }

    /// Makes an instance: memory of its own, started and configured. `sink` takes its log lines.
    ///
    /// # Errors
    /// It does not start or refuses its configuration now; or it answers another signature or accumulator than before.
    /// No instance
    /// is left behind.
    pub fn instantiate(&self, sink: Arc<dyn GuestSink>) -> Result<Instance, GuestError> {
        Instance::new(self, sink)
    }
}
