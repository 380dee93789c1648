//! How a cluster is reached.

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How a cluster is reached.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSettings {
    /// `HOST:PORT`, several with commas between them.
    pub bootstrap: String,
    /// Properties of librdkafka, by its names.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for ClusterSettings {
    /// Without the values of properties, which may be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSettings")
            .field("bootstrap", &self.bootstrap)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

/// From one try to reach a broker to the next, at most.
const RECONNECT_MS_MAX: &str = "1000";

impl ClusterSettings {
    /// What every client of this cluster begins with.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "millstream");
        // A broker that is back is found soon: whatever waits for it has waited long enough.
        config.set("reconnect.backoff.max.ms", RECONNECT_MS_MAX);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Sets a property unless the person set it.
    pub(super) fn set_default(&self, config: &mut ClientConfig, name: &str, value: &str) {
        if !self.properties.contains_key(name) {
            config.set(name, value);
        }
    }
}
