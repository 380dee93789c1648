//! The local store of a data folder, opened when somebody first needs it.

use super::database::{Opened, SetAside, StateDb, StateError, StateOpenError, StateOptions};
use crate::connect::EmbeddedLog;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The local store's folder in the data folder.
pub const STATE_FOLDER: &str = "state";

/// Beside it: from which topics its rows were read.
const INCARNATIONS_FILE: &str = "changelogs.json";

/// The folder of a local store, which is opened when somebody first needs it.
pub struct StateFolder {
    path: PathBuf,
    opened: Mutex<Option<Arc<StateDb>>>,
}

impl StateFolder {
    /// This one; nothing is opened yet.
    pub fn new(path: PathBuf) -> StateFolder {
        StateFolder {
            path,
            opened: Mutex::default(),
        }
    }

    /// The store; opened now where it was not yet. What is damaged is set aside, and that is said.
    ///
    /// # Errors
    /// As [`StateDb::open`].
    pub fn db(&self) -> Result<Arc<StateDb>, StateOpenError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = &*opened {
            return Ok(db.clone());
        }
        let Opened { db, set_aside } = StateDb::open(&self.path, StateOptions::default())?;
        if let Some(SetAside { folder, detail }) = set_aside {
            tracing::error!(
                "the local store was damaged ({detail}) and is now in {}; stores whose changelogs are complete are made anew",
                folder.display()
            );
        }
        *opened = Some(db.clone());
        Ok(db)
    }

    /// Drops a store with its rows, where there is one.
    ///
    /// # Errors
    /// As [`StateDb::drop_store`].
    pub fn drop_store(&self, changelog: &str) -> Result<(), super::QueryError> {
        // Where there is no folder there are no rows, and none is made for that.
        if self.path.exists() {
            self.db()?.drop_store(changelog)?;
        }
        Ok(())
    }

    /// Which topic a store's rows were read from, where that was noted.
    pub fn incarnation(&self, changelog: &str) -> Option<String> {
        self.incarnations().remove(changelog)
    }

    /// Notes that from now on.
    ///
    /// # Errors
    /// Where the file cannot be written: then what was noted before stands.
    pub fn note_incarnation(&self, changelog: &str, incarnation: &str) -> std::io::Result<()> {
        let _one_at_a_time = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.incarnations();
        all.insert(changelog.to_owned(), incarnation.to_owned());
        let path = self.incarnations_path();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let new = path.with_extension("new");
        let mut file = std::fs::File::create(&new)?;
        serde_json::to_writer_pretty(&mut file, &all)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)
    }

    /// A file that is not there or not readable knows nothing: the stores are then made anew.
    fn incarnations(&self) -> BTreeMap<String, String> {
        let text = std::fs::read(self.incarnations_path()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn incarnations_path(&self) -> PathBuf {
        self.path.with_file_name(INCARNATIONS_FILE)
    }

    /// Bytes on the disk of a store.
    ///
    /// # Errors
    /// Where the storage does not answer.
    pub fn bytes(&self, changelog: &str) -> Result<u64, super::QueryError> {
        Ok(self.db()?.bytes([changelog])?)
    }

    /// Gives the folder back, where it was opened.
    pub fn close(&self) {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = &*opened {
            db.close();
        }
    }
}

/// The local store beside an embedded log. Whoever has the log has it.
pub struct LocalState {
    log: Arc<EmbeddedLog>,
    folder: Arc<StateFolder>,
}

impl LocalState {
    /// Beside this log; nothing is opened yet.
    pub fn beside(log: Arc<EmbeddedLog>) -> Arc<LocalState> {
        let folder = StateFolder::new(log.path().join(STATE_FOLDER));
        Arc::new(LocalState {
            folder: Arc::new(folder),
            log,
        })
    }

    /// The log.
    pub fn log(&self) -> &Arc<EmbeddedLog> {
        &self.log
    }

    /// The folder.
    pub fn folder(&self) -> &Arc<StateFolder> {
        &self.folder
    }
}

impl Deref for LocalState {
    type Target = StateFolder;

    fn deref(&self) -> &StateFolder {
        &self.folder
    }
}

impl From<StateError> for super::QueryError {
    fn from(error: StateError) -> Self {
        super::ReadError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_was_read_from_is_known_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = || StateFolder::new(dir.path().join("host-0").join(STATE_FOLDER));
        assert_eq!(folder().incarnation("a"), None);
        folder().note_incarnation("a", "1").expect("written");
        folder().note_incarnation("b", "2").expect("written");
        folder().note_incarnation("a", "3").expect("written");
        assert_eq!(folder().incarnation("a").as_deref(), Some("3"));
        assert_eq!(folder().incarnation("b").as_deref(), Some("2"));
        std::fs::write(folder().incarnations_path(), "{torn").expect("written");
        assert_eq!(folder().incarnation("a"), None);
    }
}
