//! The data folder: who holds it, and whether this program can read it.
//!
//! ```text
//! LOCK             locked while a process holds the folder; says which: {"pid", "command", "since"}
//! FORMAT           the version of everything else, and the number of the last commit at the last clean stop
//! engine/          the storage engine's own
//! millstream.sock  where the holder can be reached
//! ```

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The version of the folder's layout that is written and read.
pub const FOLDER_VERSION: u32 = 1;
const LOCK: &str = "LOCK";
const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";
const ENGINE: &str = "engine";
/// The socket's name in the folder.
pub const SOCKET_NAME: &str = "millstream.sock";

/// Why a data folder cannot be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data folder {} is held by {}", folder.display(), holder_text(*pid, command.as_deref(), since.as_deref()))]
    #[diagnostic(help(
        "one process holds a folder: wait for it or stop it (SIGTERM), or name another folder with --data; beside a running host, `produce`, `consume`, `topics`, `groups`, `state` and `reset` work through that"
    ))]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Of the holder, where it has said.
        pid: Option<u32>,
        /// Its command line.
        command: Option<String>,
        /// When it took the folder, in RFC 3339.
        since: Option<String>,
    },
    /// This user may not.
    #[error("no permission for the data folder {}: {source}; give it to this user, or name another with --data", folder.display())]
    Permission {
        /// The folder.
        folder: PathBuf,
        /// Of the system.
        source: io::Error,
    },
    /// The folder has other things in it.
    #[error("{} is not empty and no data folder of Millstream (it has {found:?}): name an empty or a new folder", folder.display())]
    NotADataFolder {
        /// The folder.
        folder: PathBuf,
        /// The first thing in it.
        found: String,
    },
    /// There is a file of this name.
    #[error("the data folder {} is a file: name a folder with --data", folder.display())]
    NotAFolder {
        /// The file.
        folder: PathBuf,
    },
    /// A newer program wrote it.
    #[error("the data folder {} has format {found}, this program reads format {FOLDER_VERSION}: use the newer program", folder.display())]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its version.
        found: u32,
    },
    /// What is in it is not what was written.
    #[error("the data folder {} is damaged: {detail}; restore it from a copy, or move it away to begin anew", folder.display())]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The system refused something else.
    #[error("the data folder {} cannot be opened: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// Of the system.
        source: io::Error,
    },
}

fn holder_text(pid: Option<u32>, command: Option<&str>, since: Option<&str>) -> String {
    let mut text = pid.map_or("another process".to_string(), |pid| format!("process {pid}"));
    if let Some(command) = command {
        text += &format!(" ({command})");
    }
    if let Some(since) = since {
        text += &format!(" since {since}");
    }
    text
}

impl OpenError {
    pub(super) fn io(folder: &Path, source: io::Error) -> Self {
        let folder = folder.to_path_buf();
        match source.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => OpenError::Permission { folder, source },
            _ => OpenError::Io { folder, source },
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    command: String,
    since: String,
}

/// A folder that this process holds, until it is dropped.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    lock: File,
    format: Format,
}

/// What the file FORMAT says beside the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The folder is being made: nothing was committed, and whatever is there is made anew.
    Unfinished,
    /// It was made, and has at least the commits up to this number.
    Made {
        /// Of the last clean stop.
        commit_number: u64,
    },
}

impl Format {
    fn encode(self) -> String {
        match self {
            Format::Unfinished => format!("millstream {FOLDER_VERSION}\nbeing made\n"),
            Format::Made { commit_number } => format!("millstream {FOLDER_VERSION}\ncommits {commit_number}\n"),
        }
    }

    /// # Errors
    /// The version, where the text names another one; `None` where it is not such a text.
    fn parse(text: &str) -> Result<Format, Option<u32>> {
        let (first, rest) = text.split_once('\n').ok_or(None)?;
        let version: u32 = first
            .strip_prefix("millstream ")
            .and_then(|n| n.parse().ok())
            .ok_or(None)?;
        if version != FOLDER_VERSION {
            return Err(Some(version));
        }
        if rest == "being made\n" {
            return Ok(Format::Unfinished);
        }
        let number = rest.strip_prefix("commits ").and_then(|n| n.strip_suffix('\n'));
        let commit_number = number.and_then(|n| n.parse().ok()).ok_or(None)?;
        Ok(Format::Made { commit_number })
    }
}

impl DataFolder {
    /// Makes the folder where it is missing, takes its lock and checks its version.
    pub(super) fn take(path: &Path) -> Result<DataFolder, OpenError> {
        let io = |source| OpenError::io(path, source);
        if path.is_file() {
            return Err(OpenError::NotAFolder { folder: path.into() });
        }
        fs::create_dir_all(path).map_err(io)?;
        if let Some(found) = strange_entry(path).map_err(io)? {
            return Err(OpenError::NotADataFolder {
                folder: path.into(),
                found,
            });
        }
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path.join(LOCK))
        };
        let mut lock = open().map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(path, &mut lock)),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut folder = DataFolder {
            path: path.into(),
            lock,
            format: Format::Unfinished,
        };
        folder.format = folder.read_format()?;
        // Who holds it is a courtesy to others: on a full disk the lock holds without it.
        let _ = folder.sign();
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn engine(&self) -> PathBuf {
        self.path.join(ENGINE)
    }

    /// What FORMAT says.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    fn read_format(&self) -> Result<Format, OpenError> {
        let io = |source| OpenError::io(&self.path, source);
        let damaged = |detail: String| OpenError::Damaged {
            folder: self.path.clone(),
            detail,
        };
        match fs::read_to_string(self.path.join(FORMAT)) {
            Ok(text) => Format::parse(&text).map_err(|version| match version {
                Some(found) if found > FOLDER_VERSION => OpenError::Newer {
                    folder: self.path.clone(),
                    found,
                },
                _ => damaged(format!(
                    "the file {FORMAT} says {:?}",
                    text.chars().take(40).collect::<String>()
                )),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                write_format(&self.path, Format::Unfinished).map_err(io)?;
                Ok(Format::Unfinished)
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Err(damaged(format!("the file {FORMAT} is no text")))
            }
            Err(error) => Err(io(error)),
        }
    }

    /// Replaces FORMAT, durably.
    pub(super) fn set_format(&mut self, format: Format) -> Result<(), OpenError> {
        write_format(&self.path, format).map_err(|source| OpenError::io(&self.path, source))?;
        self.format = format;
        Ok(())
    }

    fn sign(&mut self) -> io::Result<()> {
        let command: Vec<_> = std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        let holder = Holder {
            pid: std::process::id(),
            command: command.join(" "),
            since: Timestamp::now().strftime("%FT%TZ").to_string(),
        };
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(&serde_json::to_vec(&holder)?)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        let _ = self.lock.set_len(0);
    }
}

fn write_format(path: &Path, format: Format) -> io::Result<()> {
    let new = path.join(FORMAT_NEW);
    let mut file = File::create(&new)?;
    file.write_all(format.encode().as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path.join(FORMAT))?;
    File::open(path)?.sync_all()
}

fn held(path: &Path, lock: &mut File) -> OpenError {
    let mut text = String::new();
    let _ = lock.take(64 << 10).read_to_string(&mut text);
    let holder: Option<Holder> = serde_json::from_str(&text).ok();
    OpenError::Held {
        folder: path.into(),
        pid: holder.as_ref().map(|h| h.pid),
        command: holder.as_ref().map(|h| h.command.clone()),
        since: holder.map(|h| h.since),
    }
}

/// Something in a folder without a version that is not ours: whoever names a home directory by mistake keeps it clean.
fn strange_entry(path: &Path) -> io::Result<Option<String>> {
    if path.join(FORMAT).try_exists()? {
        return Ok(None);
    }
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK && name != FORMAT_NEW && name != SOCKET_NAME {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::take(dir.path()).unwrap();
        let error = DataFolder::take(dir.path()).unwrap_err();
        assert!(
            matches!(&error, OpenError::Held { pid: Some(pid), command: Some(_), since: Some(_), .. } if *pid == std::process::id())
        );
        drop(folder);
        DataFolder::take(dir.path()).unwrap();
    }

    #[test]
    fn folders_that_are_not_ours_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = DataFolder::take(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::NotADataFolder { found, .. } if found == "thesis.tex"));
        assert!(!dir.path().join(LOCK).exists());
        let file = dir.path().join("thesis.tex");
        assert!(matches!(
            DataFolder::take(&file).unwrap_err(),
            OpenError::NotAFolder { .. }
        ));
    }

    #[test]
    fn versions_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataFolder::take(dir.path()).unwrap());
        for (text, newer) in [
            (&b"millstream 2\n"[..], true),
            (b"millstream", false),
            (b"", false),
            (b"\xff\xfe", false),
        ] {
            fs::write(dir.path().join(FORMAT), text).unwrap();
            match DataFolder::take(dir.path()).unwrap_err() {
                OpenError::Newer { found, .. } => assert!(newer && found == 2),
                OpenError::Damaged { .. } => assert!(!newer),
                other => panic!("{other}"),
            }
        }
    }
}
