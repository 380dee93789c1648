//! Several hosts that share the partitions of two pipelines on a broker, and what of them is disturbed.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream::connect::kafka::KafkaLog;
use millstream::connect::{Broker as _, EngineLog, Position, TopicPartition};
use millstream_tests::events::{
    self, Outcome, PARTITIONS, STORE_BYTES, assert_same, make_events_topic, pipelines, write_events,
};
use millstream_tests::kafka::{Broker, log_of};
use millstream_tests::{Guarded, millstream, open};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything takes here; then something hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// The seed of this run of the tests.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = events::setting("MILLSTREAM_SEED", rand::random::<u32>().into());
        println!("MILLSTREAM_SEED={seed}");
        seed
    })
}

/// What comes of the events where nobody disturbs them, on the embedded log: before and after all windows are closed.
fn undisturbed() -> &'static [Outcome; 2] {
    static CALM: OnceLock<[Outcome; 2]> = OnceLock::new();
    CALM.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        let log = open(dir.path());
        make_events_topic(&log);
        write_events(&log, seed(), |_| {});
        log.close();
        let files = pipelines(dir.path(), "");
        [false, true].map(|close| {
            let mut command = millstream(["run", "--until-end", "--workers", "2", "--data"]);
            command
                .arg(dir.path())
                .args(close.then_some("--close-windows"))
                .args(&files);
            let output = command.output().expect("the program starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let log = open(dir.path());
            let outcome = events::outcome(&log, &*log);
            log.close();
            outcome
        })
    })
}

/// By group and partition where the group is, with what it noted beside that, and the end.
type Lag = (String, Option<(u64, String)>, Option<u64>);

/// The hosts and their broker.
pub struct Scene {
    pub broker: Broker,
    pub random: StdRng,
    dir: tempfile::TempDir,
    files: Vec<PathBuf>,
    hosts: Vec<Option<Guarded>>,
    log: Arc<KafkaLog>,
    /// Who writes the events.
    writing: Option<JoinHandle<()>>,
}

impl Scene {
    /// Events in a topic of a broker, and pipelines that wait for hosts.
    pub fn new(broker: Broker, salt: u64) -> Scene {
        let bootstrap = broker.bootstrap();
        Scene::behind(broker, bootstrap, salt)
    }

    /// The same, where hosts find the broker elsewhere than these tests.
    pub fn behind(broker: Broker, bootstrap: String, salt: u64) -> Scene {
        let dir = tempfile::tempdir().expect("a folder");
        let log = log_of(&broker.bootstrap());
        make_events_topic(&*log);
        let head = format!("engine = \"kafka\"\n[kafka]\nbootstrap = {bootstrap:?}\nsession-timeout = \"3s\"\n");
        Scene {
            files: pipelines(dir.path(), &head),
            random: StdRng::seed_from_u64(seed() ^ salt),
            broker,
            dir,
            hosts: Vec::new(),
            writing: None,
            log,
        }
    }

    /// Writes events in the background, all of them within about this time, whatever becomes of the broker meanwhile.
    pub fn write(&mut self, within: Duration) {
        let log = self.log.clone();
        let began = Instant::now();
        self.writing = Some(std::thread::spawn(move || {
            write_events(&*log, seed(), |part| {
                let due = began + within.mul_f64(part);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            });
        }));
    }

    /// Starts a host, which may be told to die at a point; its number.
    pub fn start_host(&mut self, crash_at: Option<String>) -> usize {
        let free = self.hosts.iter().position(Option::is_none);
        let number = free.unwrap_or(self.hosts.len());
        let mut command = millstream(["run", "--workers", "2", "--data"]);
        command
            .arg(self.dir.path().join(format!("host-{number}")))
            .args(&self.files)
            .env("MILLSTREAM_STORE_BYTES", STORE_BYTES)
            .env(
                "MILLSTREAM_LOG",
                "info,millstream=debug,fjall=warn,lsm_tree=warn,rdkafka=off",
            )
            .stdout(Stdio::null())
            .stderr(self.said(number));
        if let Some(point) = crash_at {
            command.env("MILLSTREAM_CRASH_AT", point);
        }
        let host = Some(Guarded(command.spawn().expect("the program starts")));
        match self.hosts.get_mut(number) {
            Some(slot) => *slot = host,
            None => self.hosts.push(host),
        }
        number
    }

    /// Where a host writes what it has to say: behind what it said before.
    fn said(&self, number: usize) -> std::fs::File {
        let path = self.dir.path().join(format!("host-{number}.log"));
        let file = std::fs::File::options().create(true).append(true).open(path);
        file.expect("a file")
    }

    fn all_said(&self) -> String {
        let said = |number| {
            let path = self.dir.path().join(format!("host-{number}.log"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!(
                "host {number}:\n{}\n",
                lines[lines.len().saturating_sub(60)..].join("\n")
            )
        };
        (0..self.hosts.len()).map(said).collect()
    }

    /// Whether a host has ended by itself: by the signal 9 that a point sends.
    pub fn has_died(&mut self, number: usize) -> bool {
        let host = self.hosts[number].as_mut().expect("it was started");
        let Some(status) = host.0.try_wait().expect("the child can be asked") else {
            return false;
        };
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(status.signal(), Some(9), "ended with {status}:\n{}", self.all_said());
        self.hosts[number] = None;
        true
    }

    /// Sends a host a signal.
    pub fn signal(&self, number: usize, signal: Signal) {
        let host = self.hosts[number].as_ref().expect("it was started");
        let pid = Pid::from_raw(host.0.id().cast_signed()).expect("a process");
        kill_process(pid, signal).expect("it takes signals");
    }

    /// Kills a host.
    pub fn kill_host(&mut self, number: usize) {
        // It may have died before.
        let mut host = self.hosts[number].take().expect("it was started");
        let _ = host.0.kill();
        let _ = host.0.wait();
    }

    /// Ends a host in order.
    pub fn stop_host(&mut self, number: usize) {
        self.signal(number, Signal::TERM);
        let end = Instant::now() + PATIENCE;
        let mut host = self.hosts[number].take().expect("it was started");
        let status = loop {
            if let Some(status) = host.0.try_wait().expect("the child can be asked") {
                break status;
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.all_said());
            std::thread::sleep(Duration::from_millis(5));
        };
        // Its slot stays the place of what it said.
        self.hosts[number] = None;
        assert!(status.success(), "ended with {status}:\n{}", self.all_said());
    }

    /// Those that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.hosts.len())
            .filter(|&number| self.hosts[number].is_some())
            .collect()
    }

    /// Waits a while of up to so many milliseconds.
    pub fn wait(&mut self, most_ms: u64) {
        let wait = self.random.random_range(0..=most_ms);
        std::thread::sleep(Duration::from_millis(wait));
    }

    /// How many events are committed as processed by the slower pipeline.
    pub fn processed(&self) -> u64 {
        let of_group = |group: &str| -> u64 {
            let places = (0..PARTITIONS).map(|partition| TopicPartition::new("events", partition));
            places
                .filter_map(|place| self.log.committed(group, &place).ok().flatten())
                .sum()
        };
        of_group("ours").min(of_group("zones"))
    }

    /// Waits until more than so many events are processed, or all.
    pub fn wait_for_more_than(&self, before: u64) {
        let end = Instant::now() + PATIENCE;
        while self.processed() <= before && !(self.is_written() && self.processed() == self.events()) {
            assert!(
                Instant::now() < end,
                "nothing moves: {:?}\n{}",
                self.lags(),
                self.all_said()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether all events are there.
    pub fn is_written(&self) -> bool {
        self.writing.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// How many events there are.
    pub fn events(&self) -> u64 {
        let places = (0..PARTITIONS).map(|partition| TopicPartition::new("events", partition));
        places
            .filter_map(|place| self.log.offset_at(&place, Position::End).ok())
            .sum()
    }

    /// Waits until everything is processed, ends the hosts, and holds what there is against what should be; then closes all
    /// windows, and does it again.
    pub fn finish(mut self) {
        if self.running().is_empty() {
            self.start_host(None);
        }
        if self.writing.is_none() {
            self.write(Duration::ZERO);
        }
        let written = self.writing.take().map(JoinHandle::join);
        assert!(matches!(written, Some(Ok(()))), "all events are written");
        let end = Instant::now() + PATIENCE;
        let (mut before, mut since) = (None, Instant::now());
        loop {
            for number in self.running() {
                self.has_died(number);
            }
            if self.running().is_empty() {
                self.start_host(None);
            }
            let now = self.at_end();
            if now.is_none() || now != before {
                (before, since) = (now, Instant::now());
            }
            if before.is_some() && since.elapsed() > Duration::from_millis(1500) {
                break;
            }
            assert!(
                Instant::now() < end,
                "it does not come to the end: {:?}\n{}",
                self.lags(),
                self.all_said()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        for number in self.running() {
            self.stop_host(number);
        }
        let changelogs = self.log.clone().changelogs();
        assert_same(&events::outcome(&*self.log, &*changelogs), &undisturbed()[0]);
        let mut command = millstream(["run", "--until-end", "--close-windows", "--workers", "2", "--data"]);
        command.arg(self.dir.path().join("host-0")).args(&self.files);
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_same(&events::outcome(&*self.log, &*changelogs), &undisturbed()[1]);
    }

    fn lags(&self) -> Vec<Lag> {
        let internal = ["zones-zones-repartition", "zones-windows-repartition"];
        let places = ["ours", "zones"].map(|group| (group, "events", PARTITIONS));
        let places = places.into_iter().chain(internal.map(|topic| ("zones", topic, 2)));
        let of_topic = |(group, topic, partitions): (&str, &str, u32)| {
            let lag = |partition| {
                let place = TopicPartition::new(topic, partition);
                let committed = self.log.committed_with_metadata(group, &place).ok().flatten();
                (
                    format!("{group} {place}"),
                    committed,
                    self.log.offset_at(&place, Position::End).ok(),
                )
            };
            (0..partitions).map(lag).collect::<Vec<_>>()
        };
        places.flat_map(of_topic).collect()
    }

    /// Where the groups are, if that is everywhere at the end.
    fn at_end(&self) -> Option<Vec<(u64, String)>> {
        let lags = self.lags().into_iter();
        lags.map(|(_, committed, end)| committed.filter(|(committed, _)| Some(*committed) == end))
            .collect()
    }
}
