//! Plugins as the pipeline check sees them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dashmap::DashMap;

use crate::guest::{Configured, Runtime};
use crate::limits::StageLimits;
use crate::pipeline::{Catalog, CatalogError, Described};

/// Loads plugins for [`crate::pipeline::check`] and keeps what it configured, for the run that follows.
pub struct PluginCatalog {
    runtime: Arc<Runtime>,
    configured: DashMap<(PathBuf, String), Configured>,
}

impl PluginCatalog {
    /// A catalog that knows nothing yet.
    pub fn new(runtime: Arc<Runtime>) -> PluginCatalog {
        PluginCatalog {
            runtime,
            configured: DashMap::new(),
        }
    }

    /// What the check configured, under the same path and configuration.
    pub fn configured(&self, plugin: &Path, config_json: &str) -> Option<Configured> {
        let key = (plugin.to_owned(), config_json.to_owned());
        self.configured.get(&key).map(|found| found.clone())
    }
}
