//! What a plugin is, for people.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::engine::Runtime;
use super::error::LoadError;
use crate::limits::{DESCRIBE_MEMORY_BYTES_MAX, StageLimits};
use crate::schema::{Field, Info, PluginKind, Signature};

/// All that can be said of a plugin without running records through it.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Who it says that it is.
    #[serde(flatten)]
    pub info: Info,
    /// What kind of plugin it is.
    pub kind: PluginKind,
    /// The version of the contract that it was built against.
    pub contract_version: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// Bytes of the component.
    pub size_bytes: u64,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it reads, writes and keeps under an empty configuration, if it takes one.
    pub signature: Option<Signature>,
    /// What an aggregator keeps for a group under an empty configuration.
    pub accumulator: Option<Vec<Field>>,
    /// Why there is no signature: what the plugin says to an empty configuration.
    pub needs_config: Option<String>,
}

/// Loads a plugin and says what it is.
///
/// # Errors
/// As [`Runtime::load`]. A plugin that refuses an empty configuration is inspected all the same.
pub fn inspect(runtime: &Arc<Runtime>, path: &Path) -> Result<Inspection, LoadError> {
    let plugin = runtime.load(path)?;
    let limits = StageLimits {
        memory_bytes_max: DESCRIBE_MEMORY_BYTES_MAX,
        ..StageLimits::default()
    };
    let (configured, needs_config) = match plugin.configure("{}", &limits) {
        Ok(configured) => (Some(configured), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let accumulator = configured.as_ref().and_then(|configured| configured.accumulator());
    Ok(Inspection {
        info: plugin.info().clone(),
        kind: plugin.kind(),
        contract_version: plugin.contract_version().to_owned(),
        digest: plugin.digest().to_owned(),
        size_bytes: plugin.size_bytes(),
        imports: plugin.imports().to_vec(),
        exports: plugin.exports().to_vec(),
        accumulator: accumulator.map(|accumulator| accumulator.fields.clone()),
        signature: configured.map(|configured| configured.signature().clone()),
        needs_config,
    })
}
