//! A cluster as a host uses it: with a folder of its own for what is kept beside it.

use super::log::KafkaLog;
use super::member::{Member, MemberSpec, Members};
use super::settings::ClusterSettings;
use super::transactions::Transactions;
use crate::connect::LogError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Hosts that use one data folder at a time.
const HOSTS_MAX: u32 = 64;

/// A cluster; see the module.
pub struct KafkaCluster {
    settings: ClusterSettings,
    members: Members,
    transactions: Arc<Transactions>,
    folder: PathBuf,
    /// Locked while this host uses the folder.
    _lock: File,
}

/// Why a host cannot use a cluster.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ClusterError {
    /// It does not answer; the same again may help.
    #[error("Kafka at {bootstrap} cannot be used: {source}")]
    Unavailable {
        /// Where it was looked for.
        bootstrap: String,
        /// What is wrong.
        source: LogError,
    },
    /// The folder beside it.
    #[error("the folder {}: {source}", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Too many hosts share the data folder.
    #[error("{HOSTS_MAX} hosts use {} already: give this one its own with --data", folder.display())]
    Hosts {
        /// The folder.
        folder: PathBuf,
    },
}

impl KafkaCluster {
    /// Finds out which cluster it is, and takes a folder for it in `data_dir`: the first that no other host uses.
    ///
    /// The changelogs of `log` hear of the changes of stores that are committed here.
    ///
    /// # Errors
    /// Where no broker answers, and where no folder can be had.
    pub fn open(log: &KafkaLog, data_dir: &Path) -> Result<KafkaCluster, ClusterError> {
        let settings = log.settings().clone();
        let id = log.cluster_id()?;
        let all = data_dir.join("kafka").join(id);
        let (folder, lock) = take_folder(&all)?;
        let host = host_id(&folder).map_err(|source| ClusterError::Folder {
            folder: folder.clone(),
            source,
        })?;
        let members = Members::start().map_err(|source| ClusterError::Folder {
            folder: folder.clone(),
            source,
        })?;
        Ok(KafkaCluster {
            transactions: Transactions::new(settings.clone(), format!("millstream-{host}"), log.kafka_changelogs()),
            settings,
            members,
            folder,
            _lock: lock,
        })
    }

    /// How it is reached.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// What this host keeps beside it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a member of a group.
    ///
    /// # Errors
    /// Where librdkafka does not take the settings.
    pub fn join(&self, spec: &MemberSpec) -> Result<Member, LogError> {
        self.members.join(&self.settings, spec, self.transactions.clone())
    }

    /// Ends the threads. Members must have left; commits that were begun are through.
    pub fn close(&self) {
        self.members.close();
        self.transactions.close();
    }
}

fn take_folder(all: &Path) -> Result<(PathBuf, File), ClusterError> {
    for number in 0..HOSTS_MAX {
        let folder = all.join(format!("host-{number}"));
        let taken = fs::create_dir_all(&folder)
            .and_then(|()| File::create(folder.join("lock")))
            .and_then(|file| match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
                Err(error) => Err(error.into()),
            });
        match taken {
            Ok(Some(file)) => return Ok((folder, file)),
            Ok(None) => {}
            Err(source) => return Err(ClusterError::Folder { folder, source }),
        }
    }
    Err(ClusterError::Hosts { folder: all.into() })
}

/// Who this host is: made once, and kept, so that what it leaves behind when it is killed is ended by its next start.
fn host_id(folder: &Path) -> io::Result<String> {
    let file = folder.join("id");
    match fs::read_to_string(&file) {
        Ok(id) if is_id(&id) => return Ok(id),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = format!("{:016x}", rand::random::<u64>());
    let fresh = folder.join("id.new");
    fs::write(&fresh, &id)?;
    File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, &file)?;
    Ok(id)
}

fn is_id(id: &str) -> bool {
    id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}
