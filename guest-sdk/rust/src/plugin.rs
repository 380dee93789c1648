//! What every kind of plugin has: a configuration, a signature, an instance that the host calls.

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Registered;
use crate::schema::{MappedField, Signature};
use std::fmt;

use millstream_sdk_bindings::millstream::plugin::schema::Info;

/// A plugin, made from its configuration. `#[derive(Plugin)]` makes a [`Config`] a plugin that is its own
/// configuration.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a plugin",
    note = "put `#[derive(Config, Plugin)]` on it, or implement `Plugin` where its configuration is another type"
)]
pub trait Plugin: Sized + 'static {
    /// What a pipeline may set.
    type Config: Config;

    /// Makes the plugin. An instance lives for many calls, but what it remembers from one call to the next must not
    /// change any result.
    ///
    /// # Errors
    /// Refuses the configuration, in words for the author of the pipeline.
    fn configure(config: Self::Config) -> Result<Self>;
}

/// What `describe` answers; for the `export!` macro.
pub fn describe<P: Plugin>(name: &str, version: &str, summary: &str) -> Info {
    crate::log::log_panics();
    Info {
        name: name.into(),
        version: version.into(),
        summary: summary.into(),
        config_schema: config_schema::<P>(),
        capabilities: Vec::new(),
    }
}

/// The JSON Schema of a plugin's configuration; empty if there is nothing to configure.
pub fn config_schema<P: Plugin>() -> String {
    match P::Config::NOTHING {
        true => String::new(),
        false => {
            let mut schema = P::Config::schema();
            schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
            schema.to_string()
        }
    }
}

/// A configured plugin, with its signature.
pub struct Instance<P> {
    pub(crate) plugin: P,
    pub(crate) signature: Signature,
    pub(crate) metrics: Registered,
}

// Not derived, so that a plugin need not be `Debug` to be unwrapped in a test.
impl<P> fmt::Debug for Instance<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("signature", &self.signature)
            .finish_non_exhaustive()
    }
}

impl<P: Plugin> Instance<P> {
    /// Makes the plugin and completes its signature by `signature`.
    pub(crate) fn new(config: &str, signature: impl FnOnce(&P) -> Result<Signature, String>) -> Result<Self, String> {
        crate::log::log_panics();
        let config = crate::config::parse::<P::Config>(config)?;
        let (plugin, metrics) = crate::metrics::registering(|| P::configure(config));
        let plugin = plugin.map_err(|error| error.to_string())?;
        let mut signature = signature(&plugin)?;
        signature.metrics = metrics.declared();
        Ok(Instance {
            plugin,
            signature,
            metrics,
        })
    }

    /// What the plugin reads, writes and shows as it is configured.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Runs one call; its metrics count only if it succeeds.
    pub(crate) fn call<T>(&mut self, call: impl FnOnce(&mut P, &Signature) -> Result<T, String>) -> Result<T, String> {
        let result = call(&mut self.plugin, &self.signature);
        match result {
            Ok(_) => self.metrics.flush(),
            Err(_) => self.metrics.discard(),
        }
        result
    }
}

/// Holds fields that a plugin may have changed against those that its code reads or writes.
pub(crate) fn same_types(what: &str, fields: &[MappedField], derived: &[MappedField]) -> Result<(), String> {
    if fields.len() != derived.len() {
        let (found, expected) = (fields.len(), derived.len());
        return Err(format!(
            "{what} has {found} fields after `signature`, but the code has {expected}"
        ));
    }
    for (mapped, derived) in fields.iter().zip(derived) {
        if mapped.field.type_ != derived.field.type_ || mapped.field.optional != derived.field.optional {
            let name = &derived.field.name;
            return Err(format!(
                "{what}: `signature` changed the type of the field {name:?}, but the code did not"
            ));
        }
    }
    Ok(())
}
