//! What is to be done, the same for every side.

use std::time::Duration;

/// How often every side commits.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Rides of this amount and more are high.
pub const THRESHOLD: f64 = 40.0;
/// Milliseconds of a window.
pub const MINUTE_MS: i64 = 60_000;

/// A job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Every ride goes to one of two topics, by what it cost.
    Branch,
    /// Rides of each key, with a changelog; a result for each key that changed, once a commit.
    Count,
    /// The same of each key and minute.
    Minutes,
}

impl Job {
    /// As it is named on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Job::Branch => "branch",
            Job::Count => "count",
            Job::Minutes => "minutes",
        }
    }

    fn named(name: &str) -> Job {
        let all = [Job::Branch, Job::Count, Job::Minutes];
        all.into_iter().find(|job| job.name() == name).expect("a job's name")
    }
}

/// Where a job reads and writes.
#[derive(Clone, Debug)]
pub struct JobArgs {
    pub job: Job,
    pub bootstrap: String,
    pub input: String,
    /// Consumer group, transactional id, and what names of topics that are written begin with.
    pub group: String,
}

impl JobArgs {
    /// As a process is given them.
    pub fn to_args(&self) -> [&str; 4] {
        [self.job.name(), &self.bootstrap, &self.input, &self.group]
    }

    /// # Panics
    /// If there are too few.
    pub fn from_args(args: &[String]) -> JobArgs {
        let [job, bootstrap, input, group] = args else {
            panic!("JOB BOOTSTRAP INPUT GROUP");
        };
        JobArgs {
            job: Job::named(job),
            bootstrap: bootstrap.clone(),
            input: input.clone(),
            group: group.clone(),
        }
    }

    /// A topic that the job writes.
    pub fn out(&self, name: &str) -> String {
        format!("{}-{name}", self.group)
    }

    /// All of them.
    pub fn outs(&self) -> Vec<String> {
        let names: &[&str] = match self.job {
            Job::Branch => &["high", "low"],
            Job::Count | Job::Minutes => &["high", "changelog"],
        };
        names.iter().map(|name| self.out(name)).collect()
    }
}
