//! One broker with its processes and its folder.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::running::feed;

/// A broker is up within this time, on a busy machine.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// And down within this after a SIGTERM.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
/// For starts of a few seconds: no second compiler, one thread that collects garbage.
const SHORT_LIVED: [&str; 4] = [
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
];

/// Which Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// 4.x, which looks after itself.
    KRaft,
    /// 3.9, the last that runs with ZooKeeper.
    ZooKeeper,
}

impl Edition {
    /// Its folder among the jars.
    pub const fn folder(self) -> &'static str {
        match self {
            Edition::KRaft => "kraft",
            Edition::ZooKeeper => "zookeeper",
        }
    }
}

/// A broker on 127.0.0.1. It is killed when it is dropped, and its folder goes.
pub struct Broker {
    edition: Edition,
    jars: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    /// ZooKeeper, where it has one.
    keeper: Option<Child>,
    broker: Option<Child>,
}

impl Broker {
    /// Starts one on ports that are free, and waits until it takes connections.
    ///
    /// # Panics
    /// If it does not come up: with the end of its log.
    pub fn start(edition: Edition, jars: &Path) -> Broker {
        Broker::start_with(edition, jars, &[])
    }

    /// The same with further settings of the broker.
    ///
    /// # Panics
    /// As [`Broker::start`].
    pub fn start_with(edition: Edition, jars: &Path, settings: &[(&str, &str)]) -> Broker {
        let dir = tempfile::tempdir().expect("a folder");
        let [port, other] = free_ports();
        let mut broker = Broker {
            edition,
            jars: jars.to_owned(),
            dir,
            port,
            keeper: None,
            broker: None,
        };
        let mut text = broker.properties(other);
        for (name, value) in settings {
            text.push_str(&format!("{name}={value}\n"));
        }
        fs::write(broker.file("server.properties"), text).expect("the settings are written");
        fs::write(
            broker.file("log4j.properties"),
            "log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\n\
             log4j.appender.out.layout=org.apache.log4j.PatternLayout\nlog4j.appender.out.layout.ConversionPattern=%d %p %m%n\n",
        )
        .expect("the settings are written");
        fs::write(
            broker.file("log4j2.properties"),
            "rootLogger.level=warn\nrootLogger.appenderRef.out.ref=out\nappender.out.type=Console\nappender.out.name=out\n\
             appender.out.layout.type=PatternLayout\nappender.out.layout.pattern=%d %p %m%n\n",
        )
        .expect("the settings are written");
        match edition {
            Edition::KRaft => broker.format(),
            Edition::ZooKeeper => broker.start_keeper(other),
        }
        broker.run();
        broker
    }

    fn properties(&self, other: u16) -> String {
        let (port, data) = (self.port, self.file("data"));
        let mut text = format!(
            "log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\ngroup.initial.rebalance.delay.ms=0\nlog.retention.hours=-1\n\
             group.min.session.timeout.ms=1000\ntransaction.abort.timed.out.transaction.cleanup.interval.ms=1000\n",
            data.display()
        );
        text.push_str(&match self.edition {
            Edition::KRaft => format!(
                "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{other}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{other}\n\
                 controller.listener.names=CONTROLLER\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXY:PLAINTEXT\n\
                 share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n"
            ),
            Edition::ZooKeeper => {
                format!("broker.id=0\nzookeeper.connect=127.0.0.1:{other}\nlisteners=PLAINTEXT://127.0.0.1:{port}\n")
            }
        });
        text
    }

    fn format(&self) {
        let mut command = self.java("kafka.tools.StorageTool");
        let settings = self.file("server.properties");
        command
            .args(["format", "-t", "bWlsbHN0cmVhbS10ZXN0cw", "-c"])
            .arg(settings);
        let output = command.output().expect("java starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the storage is not formatted: {said}");
    }

    fn start_keeper(&mut self, port: u16) {
        let settings = self.file("zoo.cfg");
        let data = self.file("zookeeper");
        let text = format!(
            "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n",
            data.display()
        );
        fs::write(&settings, text).expect("the settings are written");
        let mut command = self.java("org.apache.zookeeper.server.quorum.QuorumPeerMain");
        self.keeper = Some(self.in_background(command.arg(settings), "zookeeper.log"));
        self.wait_for_port(port, "zookeeper.log");
    }

    fn run(&mut self) {
        let mut command = self.java("kafka.Kafka");
        command.arg(self.file("server.properties"));
        self.broker = Some(self.in_background(&mut command, "broker.log"));
        self.wait_for_port(self.port, "broker.log");
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(SHORT_LIVED)
            .arg(format!(
                "-Dlog4j.configuration=file:{}",
                self.file("log4j.properties").display()
            ))
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                self.file("log4j2.properties").display()
            ))
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg(class)
            .stdin(Stdio::null());
        command
    }

    fn in_background(&self, command: &mut Command, log: &str) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.file(log))
            .expect("a log");
        let err = log.try_clone().expect("a log");
        command.stdout(log).stderr(err).spawn().expect("java starts")
    }

    fn wait_for_port(&mut self, port: u16, log: &str) {
        let end = Instant::now() + START_TIME_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = self
                .broker
                .as_mut()
                .is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            assert!(
                !ended && Instant::now() < end,
                "it does not come up:\n{}",
                self.end_of(log)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn end_of(&self, log: &str) -> String {
        let text = fs::read_to_string(self.file(log)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where clients find it.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn id(&self) -> u32 {
        self.broker.as_ref().expect("it runs").id()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Runs one of Kafka's own tools, with this on its stdin: what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn tool(&self, class: &str, args: &[&str], input: &[u8]) -> String {
        let output = feed(
            self.java(class)
                .args(["--bootstrap-server", &self.bootstrap()])
                .args(args),
            input,
        );
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "{class} {args:?} ended with {}:\n{out}\n{err}",
            output.status
        );
        out.into_owned()
    }

    /// What the console producer takes settings of its input by.
    pub fn reader_property(&self) -> &'static str {
        match self.edition {
            Edition::KRaft => "--reader-property",
            Edition::ZooKeeper => "--property",
        }
    }

    /// The console producer of this edition.
    pub fn console_producer(&self) -> &'static str {
        match self.edition {
            Edition::KRaft => "org.apache.kafka.tools.ConsoleProducer",
            Edition::ZooKeeper => "kafka.tools.ConsoleProducer",
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.broker.as_ref().expect("it runs");
        let pid = Pid::from_raw(child.id().cast_signed()).expect("a process");
        kill_process(pid, signal).expect("it takes signals");
    }

    /// It does nothing from now on, and its connections stay.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it as the system would.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let mut child = self.broker.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Stops it in order.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.broker.take().expect("it runs");
        let end = Instant::now() + STOP_TIME_MAX;
        while matches!(child.try_wait(), Ok(None)) {
            assert!(Instant::now() < end, "it does not end:\n{}", self.end_of("broker.log"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again, with what it has in its folder, where it was.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_again(&mut self) {
        assert!(self.broker.is_none(), "it was stopped");
        self.run();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for child in [&mut self.broker, &mut self.keeper].into_iter().flatten() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports that nobody listens on now.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("it listens").port())
}
