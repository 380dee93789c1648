//! The settings of a plugin, which may hold secrets.

use std::fmt;

/// What a plugin is configured with: JSON, whose variables were replaced. `Debug` and [`shown`](Config::shown) show it
/// as it was written, `${TOKEN}` and all, so that a secret of the environment is in no log and no error.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    json: String,
    shown: String,
    from_environment: Vec<(String, String)>,
}

impl Config {
    pub(super) fn new(
        expanded: serde_json::Value,
        shown: serde_json::Value,
        from_environment: Vec<(String, String)>,
    ) -> Config {
        Config {
            json: expanded.to_string(),
            shown: shown.to_string(),
            from_environment,
        }
    }

    /// The JSON text for `configure`; an object.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The same for people: variables are named, not replaced.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// A message of a plugin with what came from the environment taken out again. Values of less than four bytes
    /// stay: they are no secrets, and their bytes are everywhere.
    pub fn conceal(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for (name, value) in self.from_environment.iter().filter(|(_, value)| value.len() >= 4) {
            message = message.replace(value.as_str(), &format!("${{{name}}}"));
        }
        message
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            json: "{}".into(),
            shown: "{}".into(),
            from_environment: Vec::new(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}
