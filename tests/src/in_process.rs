//! A host in the test's own process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::cli::check;
use millstream::connect::{EmbeddedLog, Options, TopicPartition};
use millstream::control::{Host, HostOptions, PipelineState, PluginCatalog};

/// How often a test that waits looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A host with the catalog that its pipelines were checked against.
pub struct InProcess {
    /// The host.
    pub host: Host,
    catalog: PluginCatalog,
    files: PathBuf,
}

impl InProcess {
    /// A host on a data folder. Pipeline files are written beside it.
    ///
    /// # Panics
    /// If it does not open.
    pub fn open(dir: &Path, workers: usize, log: Options) -> InProcess {
        let options = HostOptions {
            data_dir: dir.to_owned(),
            cache_dir: crate::cache(),
            compiler: crate::program(),
            workers,
            log,
            clusters: Default::default(),
        };
        let host = Host::open(&options).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let catalog = PluginCatalog::new(host.runtime().clone());
        let files = dir.with_extension("pipelines");
        std::fs::create_dir_all(&files).expect("a folder for pipeline files");
        InProcess { host, catalog, files }
    }

    /// The host's log.
    pub fn log(&self) -> &Arc<EmbeddedLog> {
        self.host.log()
    }

    /// Checks a pipeline and starts it. In its text `plugin = "@name"` is a plugin of the project.
    ///
    /// # Errors
    /// The whole report, or why it does not start.
    pub fn try_start(&mut self, name: &str, text: &str) -> Result<(), String> {
        let mut text = text.to_owned();
        while let Some(at) = text.find("\"@") {
            let end = at + 2 + text[at + 2..].find('"').expect("a name ends");
            let plugin = format!("{:?}", crate::plugin(&text[at + 2..end]));
            text.replace_range(at..=end, &plugin);
        }
        let file = self.files.join(format!("{name}.toml"));
        std::fs::write(&file, text).expect("the pipeline file is written");
        let plan = check::plan(&file, &self.catalog).map_err(|report| format!("{report:?}"))?;
        self.host.start(plan, &self.catalog).map_err(|error| error.to_string())
    }

    /// As [`InProcess::try_start`].
    ///
    /// # Panics
    /// If it is refused.
    pub fn start(&mut self, name: &str, text: &str) {
        self.try_start(name, text)
            .unwrap_or_else(|report| panic!("{name}: {report}"));
    }

    /// How a pipeline is.
    ///
    /// # Panics
    /// If there is no such pipeline.
    pub fn state(&self, name: &str) -> PipelineState {
        let found = self.host.pipelines().find(|(pipeline, _)| pipeline.plan.name == name);
        found.unwrap_or_else(|| panic!("no pipeline {name}")).1
    }

    /// Waits until a pipeline has processed all that is there now.
    ///
    /// # Panics
    /// If it fails, or needs longer than `time_max`.
    pub fn wait_for(&self, name: &str, time_max: Duration) {
        let (plan, _) = self
            .host
            .pipelines()
            .find(|(p, _)| p.plan.name == name)
            .expect("the pipeline was started");
        let behind = || {
            plan.plan.sources.iter().any(|source| {
                let partitions = self
                    .log()
                    .topic(&source.topic)
                    .expect("the source is there")
                    .spec
                    .partitions;
                (0..partitions).any(|partition| {
                    let place = TopicPartition::new(source.topic.as_str(), partition);
                    let end = self.log().next_offset(&place).expect("the log answers");
                    end > self
                        .log()
                        .committed(&plan.plan.group, &place)
                        .expect("the log answers")
                        .unwrap_or(0)
                })
            })
        };
        self.wait_until(&format!("{name} is at the end"), time_max, || {
            if let PipelineState::Failed(why) = self.state(name) {
                panic!("{name} failed: {why}");
            }
            !behind()
        });
    }

    /// Waits for anything.
    ///
    /// # Panics
    /// If it takes longer than `time_max`; says how all pipelines are then.
    pub fn wait_until(&self, what: &str, time_max: Duration, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + time_max;
        while !done() {
            if Instant::now() > end {
                let states: Vec<_> = self
                    .host
                    .pipelines()
                    .map(|(p, state)| format!("{}: {state:?}", p.plan.name))
                    .collect();
                panic!("not within {time_max:?}: {what}; {}", states.join("; "));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Lets everything come to its end, as `run --until-end` does.
    ///
    /// # Panics
    /// If a pipeline fails, or it takes longer than `time_max`.
    pub fn until_end(&self, time_max: Duration) {
        self.host.drain();
        self.wait_until("all are at the end", time_max, || self.host.is_at_end());
        for (pipeline, state) in self.host.pipelines() {
            assert_eq!(state, PipelineState::AtEnd, "{}", pipeline.plan.name);
        }
    }
}

/// Bytes of memory that this process holds.
///
/// # Panics
/// Where the system does not say.
pub fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("a number");
    pages * 4096
}
