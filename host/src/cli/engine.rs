//! Where the data lies: the folder of the embedded log, or a cluster. Every command that touches data takes it by the
//! same options.

use std::path::{Path, PathBuf};

use clap::Args;
use miette::miette;

use super::context::Contexts;
use super::topics::read_pair;
use crate::connect::kafka::ClusterSettings;
use crate::connect::{self, OpenBroker};
use crate::control::Clusters;
use crate::pipeline::Environment;

/// The folder where nobody names one.
const FOLDER: &str = "millstream-data";

/// Where the data lies.
#[derive(Clone, Debug, Default, Args)]
pub struct Engine {
    /// The folder of the embedded log [env: MILLSTREAM_DATA] [default: millstream-data]
    #[arg(long = "data", global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Brokers of a Kafka cluster, used in place of the embedded log [env: MILLSTREAM_BOOTSTRAP]
    #[arg(long, global = true, value_name = "HOST:PORT,…")]
    bootstrap: Option<String>,
    /// A cluster by its name in ~/.config/millstream/config.toml [env: MILLSTREAM_CONTEXT] [default: default-context there]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// A property of librdkafka, the client of the cluster (repeat for more)
    #[arg(short = 'X', long = "property", global = true, value_name = "NAME=VALUE", value_parser = read_pair)]
    properties: Vec<(String, String)>,
}

/// One or the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of the embedded log.
    Folder(PathBuf),
    /// A cluster.
    Cluster(ClusterSettings),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Folder(dir) => write!(f, "the embedded log in {}", dir.display()),
            Place::Cluster(settings) => write!(f, "Kafka at {}", settings.bootstrap),
        }
    }
}

/// Properties that commands set by themselves, with what is to be said instead.
const OURS: [(&str, &str); 8] = [
    ("bootstrap.servers", "use --bootstrap"),
    ("metadata.broker.list", "use --bootstrap"),
    ("group.id", "use --group"),
    ("transactional.id", "commands take one of their own where they need any"),
    ("isolation.level", "what is not committed is never read"),
    (
        "enable.auto.commit",
        "offsets are committed when their records were written out",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed when their records were written out",
    ),
    ("auto.offset.reset", "use --from"),
];

impl Engine {
    /// Where the data lies: what the options say, else what the environment says, else the file of contexts.
    ///
    /// # Errors
    /// Where the options contradict each other, or a context cannot be used.
    pub fn place(&self) -> miette::Result<Place> {
        self.place_by(&|name| std::env::var(name).ok())
    }

    fn place_by(&self, environment: Environment<'_>) -> miette::Result<Place> {
        if let (Some(data), true) = (&self.data, self.bootstrap.is_some() || self.context.is_some()) {
            return Err(miette!(
                help = "say one of the two",
                "--data {} is a folder of the embedded log, and --bootstrap or --context a cluster",
                data.display()
            ));
        }
        if let Some(named) = self.named(environment)? {
            return Ok(Place::Cluster(named));
        }
        if let Some(usual) = self.usual(environment)?.filter(|_| self.data.is_none()) {
            return Ok(Place::Cluster(usual));
        }
        if let Some((name, _)) = self.properties.first() {
            return Err(miette!(
                help = "name a cluster with --bootstrap or --context",
                "-X {name}=… is a property of Kafka's client, and this is about the folder {}",
                self.folder_by(environment).display()
            ));
        }
        Ok(Place::Folder(self.folder_by(environment)))
    }

    /// The clusters of pipelines that run beside each other, whose files may name their own.
    ///
    /// # Errors
    /// Where a context cannot be used.
    pub fn clusters(&self) -> miette::Result<Clusters> {
        let environment: Environment<'_> = &|name| std::env::var(name).ok();
        Ok(Clusters {
            named: self.named(environment)?,
            usual: self.usual(environment)?,
        })
    }

    /// The folder of the embedded log, and of what a host keeps beside a cluster.
    pub fn folder(&self) -> PathBuf {
        self.folder_by(&|name| std::env::var(name).ok())
    }

    /// Opens it. A folder that is not there is made.
    ///
    /// # Errors
    /// Where it cannot be used.
    pub fn open(&self) -> miette::Result<OpenBroker> {
        open(&self.place()?)
    }

    /// Opens it, for a command that only reads: a folder that is not there is hardly meant to be made.
    ///
    /// # Errors
    /// Where there is nothing of this name, and as [`Engine::open`].
    pub fn open_existing(&self) -> miette::Result<OpenBroker> {
        let place = self.place()?;
        if let Place::Folder(dir) = &place {
            existing(dir)?;
        }
        open(&place)
    }

    fn folder_by(&self, environment: Environment<'_>) -> PathBuf {
        let set = || set(environment, "MILLSTREAM_DATA").map(PathBuf::from);
        self.data.clone().or_else(set).unwrap_or_else(|| FOLDER.into())
    }

    /// The cluster that the options name.
    fn named(&self, environment: Environment<'_>) -> miette::Result<Option<ClusterSettings>> {
        let context = match &self.context {
            Some(name) => Some(Contexts::read(environment)?.cluster(name, environment)?),
            None => None,
        };
        let settings = match (&self.bootstrap, context) {
            (Some(bootstrap), context) => Some(ClusterSettings {
                bootstrap: bootstrap.clone(),
                ..context.unwrap_or_default()
            }),
            (None, context) => context,
        };
        settings.map(|settings| self.with_properties(settings)).transpose()
    }

    /// The cluster that the environment names, or the file of contexts.
    fn usual(&self, environment: Environment<'_>) -> miette::Result<Option<ClusterSettings>> {
        let settings = match (
            set(environment, "MILLSTREAM_BOOTSTRAP"),
            set(environment, "MILLSTREAM_CONTEXT"),
        ) {
            (Some(bootstrap), None) => ClusterSettings {
                bootstrap,
                ..ClusterSettings::default()
            },
            (bootstrap, Some(name)) => {
                let mut settings = Contexts::read(environment)?.cluster(&name, environment)?;
                settings.bootstrap = bootstrap.unwrap_or(settings.bootstrap);
                settings
            }
            // A folder that the environment names is nearer than the file.
            (None, None) if set(environment, "MILLSTREAM_DATA").is_some() || self.data.is_some() => return Ok(None),
            (None, None) => {
                let contexts = Contexts::read(environment)?;
                match contexts.usual() {
                    Some(name) => contexts.cluster(name, environment)?,
                    None => return Ok(None),
                }
            }
        };
        self.with_properties(settings).map(Some)
    }

    fn with_properties(&self, mut settings: ClusterSettings) -> miette::Result<ClusterSettings> {
        settings.properties.extend(self.properties.iter().cloned());
        match OURS.iter().find(|(name, _)| settings.properties.contains_key(*name)) {
            Some((name, instead)) => Err(miette!(
                help = *instead,
                "the property `{name}` is set by the command itself"
            )),
            None => Ok(settings),
        }
    }
}

fn set(environment: Environment<'_>, name: &str) -> Option<String> {
    environment(name).filter(|value| !value.is_empty())
}

/// # Errors
/// Where there is no folder of this name.
pub fn existing(dir: &Path) -> miette::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    Err(miette!(
        help = "name it with --data or MILLSTREAM_DATA; `millstream produce`, `run` and `topics create` make one; a Kafka \
                cluster is named with --bootstrap",
        "there is no data folder {}",
        dir.display()
    ))
}

/// # Errors
/// Where it cannot be used.
pub fn open(place: &Place) -> miette::Result<OpenBroker> {
    Ok(match place {
        Place::Folder(dir) => connect::open_broker(dir, connect::Options::default())?,
        Place::Cluster(settings) => connect::open_cluster(settings.clone()).map_err(|error| {
            miette!(
                help = "start a broker, or name another with --bootstrap or --context; what it asks for is set with -X, as \
                        -X security.protocol=SASL_SSL",
                "{error}"
            )
        })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        engine: Engine,
    }

    fn place(line: &str, environment: &[(&str, &str)]) -> Result<Place, String> {
        let line = Line::try_parse_from(["x"].into_iter().chain(line.split_whitespace()));
        let engine = line.map_err(|error| error.to_string())?.engine;
        let set = |name: &str| {
            let found = environment.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        engine.place_by(&set).map_err(|error| error.to_string())
    }

    fn cluster(bootstrap: &str, properties: &[(&str, &str)]) -> Result<Place, String> {
        let properties = properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Ok(Place::Cluster(ClusterSettings {
            bootstrap: bootstrap.into(),
            properties: properties.collect(),
        }))
    }

    #[test]
    fn options_come_before_the_environment_and_that_before_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = dir.path().join("config.toml");
        let text = "default-context = \"a\"\n[contexts.a]\nbootstrap = \"a:1\"\n[contexts.b]\nbootstrap = \"b:1\"\n\
                    properties = { linger.ms = 5 }\n";
        std::fs::write(&config, text).expect("written");
        let config = config.to_str().expect("text");
        let file = ("MILLSTREAM_CONFIG", config);
        let folder = |dir: &str| Ok(Place::Folder(dir.into()));
        for (line, environment, expected) in [
            ("", vec![], folder("millstream-data")),
            ("", vec![("MILLSTREAM_DATA", "d")], folder("d")),
            ("", vec![file], cluster("a:1", &[])),
            ("", vec![file, ("MILLSTREAM_DATA", "d")], folder("d")),
            ("--data e", vec![file, ("MILLSTREAM_BOOTSTRAP", "x:1")], folder("e")),
            ("", vec![file, ("MILLSTREAM_BOOTSTRAP", "x:1")], cluster("x:1", &[])),
            (
                "",
                vec![file, ("MILLSTREAM_CONTEXT", "b")],
                cluster("b:1", &[("linger.ms", "5")]),
            ),
            (
                "--bootstrap y:1",
                vec![file, ("MILLSTREAM_CONTEXT", "b")],
                cluster("y:1", &[]),
            ),
            (
                "--bootstrap y:1 --context b -X linger.ms=7",
                vec![file],
                cluster("y:1", &[("linger.ms", "7")]),
            ),
            (
                "--context b",
                vec![file, ("MILLSTREAM_DATA", "d")],
                cluster("b:1", &[("linger.ms", "5")]),
            ),
        ] {
            assert_eq!(place(line, &environment), expected, "{line} {environment:?}");
        }
        for (line, said) in [
            ("--data d --bootstrap y:1", "say one of the two"),
            ("-X linger.ms=5", "a property of Kafka's client"),
            (
                "--bootstrap y:1 -X group.id=g",
                "the property `group.id` is set by the command itself",
            ),
            ("--bootstrap y:1 -X linger", "a name and a value"),
            ("--context c", "there is no context \"c\""),
        ] {
            let error = place(line, &[]).expect_err(line);
            assert!(
                error.contains(said) || said == "say one of the two" && error.contains("--data d"),
                "{error}"
            );
        }
    }
}
