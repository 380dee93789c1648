//! Real brokers for tests: Kafka from its own jars, which `./dev kafka fetch` brings.

mod broker;

pub use broker::{Broker, Edition};

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use millstream::connect::kafka::{ClusterSettings, KafkaLog};

use crate::{root, skip};

/// Where the jars are, of both editions in a folder each; `./dev test` says it.
const JARS: &str = "MILLSTREAM_KAFKA_JARS";

/// The jars of an edition; says that `test` is skipped where they are not there.
pub fn jars(edition: Edition, test: &str) -> Option<PathBuf> {
    let all = std::env::var_os(JARS).map_or_else(|| root().join("target/kafka"), PathBuf::from);
    let jars = all.join(edition.folder()).join("lib");
    if jars.is_dir() && have_java() {
        return Some(jars);
    }
    skip(
        test,
        &format!("{} or java is missing: run `./dev kafka fetch`", jars.display()),
    );
    None
}

fn have_java() -> bool {
    let version = std::process::Command::new("java").arg("-version").output();
    version.is_ok_and(|output| output.status.success())
}

/// A broker of a test's own, or `None` where there is no Kafka here: then the test says that it is skipped.
pub fn start(test: &str) -> Option<Broker> {
    Some(Broker::start(Edition::KRaft, &jars(Edition::KRaft, test)?))
}

/// One broker for the tests of a program that run at the same time, whose topics and groups are each test's own.
pub fn shared(test: &str) -> Option<Arc<Broker>> {
    static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(broker) = shared.upgrade() {
        return Some(broker);
    }
    let broker = Arc::new(start(test)?);
    *shared = Arc::downgrade(&broker);
    Some(broker)
}

/// What a cluster is asked with.
///
/// # Panics
/// If it does not answer.
pub fn log_of(bootstrap: &str) -> Arc<KafkaLog> {
    let settings = ClusterSettings {
        bootstrap: bootstrap.to_owned(),
        ..ClusterSettings::default()
    };
    KafkaLog::open(settings).unwrap_or_else(|error| panic!("{error}"))
}
