//! The folder of the local store: its version, and setting it aside where it is damaged.
//!
//! ```text
//! FORMAT    the version of everything else, and whether the engine was made
//! engine/   the storage engine's own
//! ```

use super::error::StateOpenError;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The version of the folder's layout that is written and read.
pub const STATE_VERSION: u32 = 1;
const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";

/// What the folder says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Nothing was written yet: whatever is there is made anew.
    Unfinished,
    Made,
    /// It is not what was written.
    Damaged(String),
}

/// Makes the folder where it is missing, and reads its version.
pub(super) fn take(folder: &Path) -> Result<Format, StateOpenError> {
    let io = |source| StateOpenError::Io {
        folder: folder.into(),
        source,
    };
    match fs::read(folder.join(FORMAT)) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let version = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("millstream state "));
            match (version.and_then(|version| version.parse().ok()), text.lines().nth(1)) {
                (Some(found), _) if found > STATE_VERSION => Err(StateOpenError::Newer {
                    folder: folder.into(),
                    found,
                }),
                (Some(STATE_VERSION), Some("made")) => Ok(Format::Made),
                (Some(STATE_VERSION), Some("being made")) => Ok(Format::Unfinished),
                _ => {
                    let text: String = text.chars().take(40).collect();
                    Ok(Format::Damaged(format!("the file {FORMAT} says {text:?}")))
                }
            }
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            let empty = match fs::read_dir(folder) {
                Ok(mut entries) => entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == FORMAT_NEW)),
                Err(error) if error.kind() == ErrorKind::NotFound => true,
                Err(error) if error.kind() == ErrorKind::NotADirectory => false,
                Err(error) => return Err(io(error)),
            };
            if !empty {
                return Ok(Format::Damaged(format!("the file {FORMAT} is missing")));
            }
            fs::create_dir_all(folder).map_err(io)?;
            write_format(folder, Format::Unfinished).map_err(io)?;
            Ok(Format::Unfinished)
        }
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            Ok(Format::Damaged(format!("the file {FORMAT} is a folder")))
        }
        Err(error) => Err(io(error)),
    }
}

/// Replaces FORMAT, durably.
pub(super) fn write_format(folder: &Path, format: Format) -> io::Result<()> {
    let text = if format == Format::Made { "made" } else { "being made" };
    let new = folder.join(FORMAT_NEW);
    let mut file = File::create(&new)?;
    file.write_all(format!("millstream state {STATE_VERSION}\n{text}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, folder.join(FORMAT))?;
    File::open(folder)?.sync_all()
}

/// Moves a damaged folder beside itself, under the first name that is free.
pub(super) fn set_aside(folder: &Path) -> io::Result<PathBuf> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for n in 1..u32::MAX {
        let aside = folder.with_file_name(format!("{name}.damaged-{n}"));
        if aside.try_exists()? {
            continue;
        }
        fs::rename(folder, &aside)?;
        if let Some(parent) = folder.parent() {
            File::open(parent)?.sync_all()?;
        }
        return Ok(aside);
    }
    Err(io::Error::other("there are too many damaged folders beside it"))
}
