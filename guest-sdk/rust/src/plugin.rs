//! What every kind of plugin has: a configuration, a signature, an instance that the host calls.

use crate::config::Config;
use crate::error::Result;
use crate::metrics::Registered;
use crate::schema::{Field, MappedField, Signature};
use crate::store::AnyStore;
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

    /// Shows its stores, always the same in the same order; derived for a plugin that is its own configuration.
    /// Otherwise a [`Store`](crate::Store) that is not shown here cannot be used:
    ///
    /// ```
    /// use millstream_sdk::prelude::*;
    /// # #[derive(Config)] struct Settings;
    /// # struct Deduplicate { seen: Store<String, ()> }
    /// # impl Plugin for Deduplicate {
    /// #     type Config = Settings;
    /// #     fn configure(_: Settings) -> Result<Self> { Ok(Deduplicate { seen: Store::new("seen") }) }
    ///
    /// fn stores(&mut self, show: &mut dyn FnMut(&mut dyn AnyStore)) {
    ///     show(&mut self.seen);
    /// }
    /// # }
    /// ```
    fn stores(&mut self, show: &mut dyn FnMut(&mut dyn AnyStore)) {
        let _ = show;
    }
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
    /// Makes the plugin and completes its signature, which so far is what its types say, by `change`.
    pub(crate) fn new(
        config: &str,
        mut signature: Signature,
        change: impl FnOnce(&P, &mut Signature) -> Result<(), String>,
    ) -> Result<Self, String> {
        crate::log::log_panics();
        let config = crate::config::parse::<P::Config>(config)?;
        let (plugin, metrics) = crate::metrics::registering(|| P::configure(config));
        let mut plugin = plugin.map_err(|error| error.to_string())?;
        plugin.stores(&mut |store| signature.stores.push(store.declare()));
        let derived = signature.stores.clone();
        change(&plugin, &mut signature)?;
        if signature.stores.len() < derived.len() {
            return Err("`signature` took away stores, which the code has".into());
        }
        for (declared, derived) in signature.stores.iter().zip(&derived) {
            same_columns(&derived.name, &declared.key, &derived.key)?;
            same_columns(&derived.name, &declared.value, &derived.value)?;
        }
        let mut number = 0;
        plugin.stores(&mut |store| {
            store.open(number, &signature.stores[number as usize]);
            number += 1;
        });
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

    /// Runs one call; its metrics and what it changed in stores count only if it succeeds.
    pub(crate) fn call<T>(&mut self, call: impl FnOnce(&mut P, &Signature) -> Result<T, String>) -> Result<T, String> {
        // Nothing is left of a call before, unless a panic ended it that a test has caught.
        crate::store::no_row();
        self.plugin.stores(&mut |store| store.forget());
        let result = call(&mut self.plugin, &self.signature);
        match result {
            Ok(_) => {
                self.plugin.stores(&mut |store| store.flush());
                self.metrics.flush();
            }
            Err(_) => {
                self.plugin.stores(&mut |store| store.forget());
                self.metrics.discard();
            }
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

/// Holds the fields of a store that a plugin may have changed against those that its code has.
fn same_columns(store: &str, fields: &[Field], derived: &[Field]) -> Result<(), String> {
    let types = |fields: &[Field]| -> Vec<_> { fields.iter().map(|field| (field.type_, field.optional)).collect() };
    match types(fields) == types(derived) {
        true => Ok(()),
        false => Err(format!(
            "store {store:?}: `signature` changed its fields, but the code did not"
        )),
    }
}
