//! Plugins as the pipeline check sees them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dashmap::DashMap;

use crate::guest::{Configured, GuestError, LoadError, LoadProblem, Runtime};
use crate::limits::StageLimits;
use crate::pipeline::{Catalog, CatalogError, Concern, Described};

/// Loads plugins for [`crate::pipeline::check`] and keeps what it configured, for the run that follows.
pub struct PluginCatalog {
    runtime: Arc<Runtime>,
    configured: DashMap<PathBuf, Vec<Configured>>,
}

impl PluginCatalog {
    /// A catalog that knows nothing yet.
    pub fn new(runtime: Arc<Runtime>) -> PluginCatalog {
        PluginCatalog {
            runtime,
            configured: DashMap::new(),
        }
    }

    /// What the check configured: the plugin of this path, under this configuration and these limits.
    pub fn configured(&self, plugin: &Path, config_json: &str, limits: &StageLimits) -> Option<Configured> {
        let known = self.configured.get(plugin)?;
        known
            .iter()
            .find(|known| known.config() == config_json && known.limits() == limits)
            .cloned()
    }
}

/// What to do about a plugin that is not there.
const MISSING: &str = "`plugin` is a path relative to the pipeline file; `millstream build DIR` makes the component";

fn missing(problem: &LoadError) -> bool {
    matches!(&problem.problem, LoadProblem::Read(error) if error.kind() == std::io::ErrorKind::NotFound)
}

impl Catalog for PluginCatalog {
    fn describe(&self, plugin: &Path, config_json: &str, limits: &StageLimits) -> Result<Described, CatalogError> {
        let error = |message: String, concerns| CatalogError {
            message,
            help: None,
            concerns,
        };
        let loaded = self.runtime.load(plugin).map_err(|problem| CatalogError {
            help: missing(&problem).then(|| MISSING.into()),
            ..error(problem.to_string(), Concern::Plugin)
        })?;
        let configured = loaded.configure(config_json, limits).map_err(|problem| {
            let concerns = match problem {
                GuestError::Refused { .. } | GuestError::Config { .. } => Concern::Config,
                _ => Concern::Plugin,
            };
            error(problem.to_string(), concerns)
        })?;
        let described = Described {
            info: loaded.info().clone(),
            kind: loaded.kind(),
            signature: configured.signature().clone(),
            accumulator: configured.accumulator().cloned(),
            digest: loaded.digest().to_owned(),
            limits: configured.limits().clone(),
        };
        self.configured.entry(plugin.to_owned()).or_default().push(configured);
        Ok(described)
    }

    fn config_schema(&self, plugin: &Path) -> Option<String> {
        let loaded = self.runtime.load(plugin).ok()?;
        Some(loaded.info().config_schema.clone())
    }
}
