//! Named clusters, in a small file of a person's own: which brokers, and with which properties.
//!
//! ```toml
//! default-context = "try"
//!
//! [contexts.try]
//! bootstrap = "127.0.0.1:9092"
//!
//! [contexts.live]
//! bootstrap = "kafka-1.example.com:9093,kafka-2.example.com:9093"
//! [contexts.live.properties]
//! security.protocol = "SASL_SSL"
//! sasl.mechanism = "SCRAM-SHA-512"
//! sasl.username = "rides"
//! sasl.password = "${KAFKA_PASSWORD}"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{IntoDiagnostic, WrapErr, miette};
use serde::Deserialize;
use toml::Spanned;

use crate::connect::kafka::ClusterSettings;
use crate::pipeline::{Environment, Problem, Report, expand, suggest};

/// The file, as it was read.
#[derive(Debug)]
pub struct Contexts {
    path: PathBuf,
    text: Arc<str>,
    file: File,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    default_context: Option<Spanned<String>>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    bootstrap: Spanned<String>,
    properties: Option<Spanned<toml::Table>>,
}

/// Where the file is: `MILLSTREAM_CONFIG`, or `millstream/config.toml` in the user's folder of settings. Whether somebody
/// named it, so that it has to be there.
fn path(environment: Environment<'_>) -> Option<(PathBuf, bool)> {
    let set = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = set("MILLSTREAM_CONFIG") {
        return Some((named, true));
    }
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    folder.map(|folder| (folder.join("millstream/config.toml"), false))
}

impl Contexts {
    /// Reads the file; there are no contexts where there is none.
    ///
    /// # Errors
    /// Where a file that was named is not there, and where it is none of contexts: underlined.
    pub fn read(environment: Environment<'_>) -> miette::Result<Contexts> {
        let none = || Contexts {
            path: PathBuf::from("~/.config/millstream/config.toml"),
            text: "".into(),
            file: File::default(),
        };
        let Some((path, named)) = path(environment) else {
            return Ok(none());
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {
                return Ok(Contexts { path, ..none() });
            }
            Err(error) => {
                return Err(error)
                    .into_diagnostic()
                    .wrap_err_with(|| format!("the contexts in {} cannot be read", path.display()));
            }
        };
        Contexts::parse(&path, text.into())
    }

    fn parse(path: &Path, text: Arc<str>) -> miette::Result<Contexts> {
        let file = toml::from_str(&text).map_err(|error| report(path, &text, vec![problem(&error)]))?;
        Ok(Contexts {
            path: path.to_owned(),
            text,
            file,
        })
    }

    /// The name of the one that counts where nobody names any.
    pub fn usual(&self) -> Option<&str> {
        self.file.default_context.as_ref().map(|name| name.get_ref().as_str())
    }

    /// How the cluster of this name is reached, with variables replaced.
    ///
    /// # Errors
    /// Where there is none of this name, and where a variable is not set.
    pub fn cluster(&self, name: &str, environment: Environment<'_>) -> miette::Result<ClusterSettings> {
        let Some(context) = self.file.contexts.get(name) else {
            return Err(self.unknown(name));
        };
        let mut problems = Vec::new();
        let bootstrap = self.expanded(context.bootstrap.get_ref(), environment, &mut problems);
        let mut properties = BTreeMap::new();
        let table = context.properties.iter();
        for (property, value) in table.clone().flat_map(|table| flatten(table.get_ref())) {
            match value {
                Some(value) => {
                    let value = self.expanded(&value, environment, &mut problems);
                    properties.insert(property, value);
                }
                None => problems.push(
                    Problem::new(
                        table.clone().map(Spanned::span).next().unwrap_or_default(),
                        format!("the property `{property}` is no single value"),
                    )
                    .help("a property is a string, a number or a boolean; lists are strings with commas"),
                ),
            }
        }
        if !problems.is_empty() {
            return Err(report(&self.path, &self.text, problems));
        }
        Ok(ClusterSettings { bootstrap, properties })
    }

    fn expanded(&self, raw: &str, environment: Environment<'_>, problems: &mut Vec<Problem>) -> String {
        match expand(raw, environment) {
            Ok(expanded) => expanded.text,
            Err(errors) => {
                let start = self.text.find(raw).unwrap_or(0);
                problems.extend(errors.into_iter().map(|error| {
                    Problem::new(start + error.at.start..start + error.at.end, error.message).help(error.help)
                }));
                String::new()
            }
        }
    }

    fn unknown(&self, name: &str) -> miette::Report {
        let names = self.file.contexts.keys().map(String::as_str);
        let known = suggest(name, names, "contexts there");
        let message = format!("there is no context {name:?}");
        match &self.file.default_context {
            Some(usual) if usual.get_ref() == name => report(
                &self.path,
                &self.text,
                vec![Problem::new(usual.span(), message).help(known)],
            ),
            _ => miette!(help = known, "{message} in {}", self.path.display()),
        }
    }
}

fn report(path: &Path, text: &Arc<str>, problems: Vec<Problem>) -> miette::Report {
    Report::new(path.display().to_string(), text.clone(), problems).into()
}

/// What serde says, with the nearest name.
fn problem(error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let said = error.message();
    let mut names = said.split('`').skip(1).step_by(2);
    match names.next().filter(|_| said.starts_with("unknown field")) {
        Some(unknown) => {
            let known: Vec<&str> = names.collect();
            let help = suggest(unknown, known.iter().copied(), "what may stand here");
            Problem::new(span, format!("unknown key `{unknown}`")).help(help)
        }
        None => Problem::new(span, said.to_owned()),
    }
}

/// Names with dots, which TOML reads as tables in tables, with their values as texts; none for an array.
fn flatten(table: &toml::Table) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for (name, value) in table {
        let text = match value {
            toml::Value::Table(inner) => {
                let inner = flatten(inner).into_iter();
                found.extend(inner.map(|(below, value)| (format!("{name}.{below}"), value)));
                continue;
            }
            toml::Value::String(text) => Some(text.clone()),
            toml::Value::Array(_) => None,
            other => Some(other.to_string()),
        };
        found.push((name.clone(), text));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"default-context = "try"

[contexts.try]
bootstrap = "127.0.0.1:9092"

[contexts.live]
bootstrap = "${HOST:-kafka}:9093"
[contexts.live.properties]
security.protocol = "SASL_SSL"
"sasl.password" = "${PASSWORD}"
linger.ms = 5
enable.idempotence = true
"#;

    fn parse(text: &str) -> miette::Result<Contexts> {
        Contexts::parse(Path::new("config.toml"), text.into())
    }

    fn said(report: &miette::Report) -> String {
        let file = report.downcast_ref::<Report>();
        file.map_or_else(
            || format!("{report}: {:?}", report.help().map(|it| it.to_string())),
            |file| file.render(100, false),
        )
    }

    #[test]
    fn a_context_is_a_cluster_with_its_secrets_out_of_the_environment() {
        let contexts = parse(FILE).expect("sound");
        assert_eq!(contexts.usual(), Some("try"));
        let environment = |name: &str| (name == "PASSWORD").then(|| "secret".to_owned());
        let live = contexts.cluster("live", &environment).expect("sound");
        assert_eq!(live.bootstrap, "kafka:9093");
        let properties: Vec<_> = live
            .properties
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(
            properties,
            [
                ("enable.idempotence", "true"),
                ("linger.ms", "5"),
                ("sasl.password", "secret"),
                ("security.protocol", "SASL_SSL"),
            ]
        );
        assert!(
            contexts
                .cluster("try", &environment)
                .expect("sound")
                .properties
                .is_empty()
        );
    }

    #[test]
    fn what_is_wrong_with_the_file_is_underlined() {
        let nothing = |_: &str| None;
        let contexts = parse(FILE).expect("sound");
        let unset = said(&contexts.cluster("live", &nothing).expect_err("no password"));
        assert!(
            unset.contains("the variable `PASSWORD` is not set") && unset.contains("sasl.password"),
            "{unset}"
        );
        let unknown = said(&contexts.cluster("lives", &nothing).expect_err("no such context"));
        assert!(unknown.contains("did you mean `live`?"), "{unknown}");
        for (text, expected) in [
            ("[contexts.a]\nbootstap = \"x\"", "did you mean `bootstrap`?"),
            ("[context.a]\nbootstrap = \"x\"", "did you mean `contexts`?"),
            ("[contexts.a]\n", "missing field `bootstrap`"),
            ("[contexts.a]\nbootstrap = 5", "expected a string"),
            ("[contexts", "config.toml:1"),
        ] {
            let report = said(&parse(text).expect_err(text));
            assert!(report.contains(expected), "{text}: {report}");
        }
        let list = "[contexts.a]\nbootstrap = \"x\"\n[contexts.a.properties]\nx = [1]";
        let report = said(&parse(list).expect("TOML").cluster("a", &nothing).expect_err("a list"));
        assert!(report.contains("the property `x` is no single value"), "{report}");
        let usual = parse("default-context = \"gone\"").expect("TOML");
        let report = said(&usual.cluster("gone", &nothing).expect_err("no such context"));
        assert!(
            report.contains("there is no context \"gone\"") && report.contains("config.toml:1"),
            "{report}"
        );
    }

    #[test]
    fn the_file_is_where_people_keep_such_files() {
        let at = |set: &[(&str, &str)]| {
            let found = |name: &str| {
                set.iter()
                    .find(|(other, _)| *other == name)
                    .map(|(_, value)| (*value).to_owned())
            };
            path(&found)
        };
        let file = |at: &str, named| Some((PathBuf::from(at), named));
        assert_eq!(
            at(&[("MILLSTREAM_CONFIG", "c.toml"), ("HOME", "/h")]),
            file("c.toml", true)
        );
        assert_eq!(
            at(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]),
            file("/x/millstream/config.toml", false)
        );
        assert_eq!(at(&[("HOME", "/h")]), file("/h/.config/millstream/config.toml", false));
        assert_eq!(at(&[]), None);
    }
}
