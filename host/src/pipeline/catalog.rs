//! What a pipeline is held against: what its plugins say of themselves.

use std::path::Path;

use crate::limits::StageLimits;
use crate::schema::{Accumulator, Info, PluginKind, Signature};

/// Who answers for plugins: the guest runtime, which loads them.
pub trait Catalog {
    /// Loads the plugin, lets it describe itself, and configures it with this JSON object.
    ///
    /// # Errors
    /// What is wrong with the file or with the configuration. Nothing is left behind.
    fn describe(&self, plugin: &Path, config_json: &str, limits: &StageLimits) -> Result<Described, CatalogError>;

    /// The JSON Schema of the plugin's configuration, asked for before [`describe`](Catalog::describe) where the
    /// configuration has variables; `None` if the plugin cannot be loaded, or has none.
    fn config_schema(&self, plugin: &Path) -> Option<String>;
}

/// A plugin under one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Who it is.
    pub info: Info,
    /// Which interface it implements.
    pub kind: PluginKind,
    /// What it reads, writes and keeps.
    pub signature: Signature,
    /// What it keeps for a group, if it is an aggregator.
    pub accumulator: Option<Accumulator>,
    /// SHA-256 of the component's file, in hexadecimal.
    pub digest: String,
    /// What an instance may take: the stage's, with what the plugin's language needs where the stage does not say.
    pub limits: StageLimits,
}

/// Why a plugin cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CatalogError {
    /// What is wrong, in words that stand alone.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Which key of the stage to point at.
    pub concerns: Concern,
}

/// What a [`CatalogError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// The file: missing, not a component, of another contract, failing in `describe`.
    Plugin,
    /// The configuration: refused, or failing in `configure`.
    Config,
}
