//! Compiled components on disk.
//!
//! An entry is two files: `<digest>-<compatibility>.cwasm`, the machine code, and beside it `….sum`, the SHA-256 of
//! those bytes. Both are written under another name and renamed, the sum last, so that a crash leaves no entry or a
//! whole one; an entry whose sum is missing or wrong is made again. Files are replaced, never changed, so a process
//! that has one mapped keeps what it has.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::error::GuestError;
use crate::limits::COMPILE_CACHE_BYTES_MAX;

/// The folder of one host's compiled components.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    /// Distinguishes code that this engine can run from other code of the same component.
    compatibility: String,
}

impl Cache {
    /// Opens the folder, or makes it for this user alone.
    pub fn open(folder: &Path, compatibility: String) -> Result<Cache, GuestError> {
        let failed = |source| GuestError::Cache {
            path: folder.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let found = fs::metadata(folder).map_err(failed)?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            let problem = "belongs to another user, who could have any code run here: name a folder of your own";
            return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, problem)));
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(Cache {
            folder: folder.to_owned(),
            compatibility,
        })
    }

    /// The machine code of a component, if it is there and undamaged.
    pub fn find(&self, digest: &str) -> Option<PathBuf> {
        let path = self.entry(digest);
        let sum = fs::read_to_string(path.with_extension("sum")).ok()?;
        let found = sum_of_file(&path).ok()?;
        if sum.trim() != found {
            tracing::warn!(path = %path.display(), "a compiled component is damaged and is made again");
            return None;
        }
        // The time of use, for `prune`. That it cannot be set is no reason not to run.
        if let Ok(file) = File::options().append(true).open(&path) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(path)
    }

    /// Paths for a component and for its code while it is compiled. They go when the answer is dropped.
    pub fn workplace(&self, digest: &str) -> io::Result<Workplace> {
        let folder = tempfile::Builder::new()
            .prefix(&format!(".{}-", &digest[..12]))
            .tempdir_in(&self.folder)?;
        Ok(Workplace {
            input: folder.path().join("component.wasm"),
            output: folder.path().join("compiled.cwasm"),
            _folder: folder,
        })
    }

    /// Makes an entry of what was compiled.
    pub fn keep(&self, digest: &str, workplace: &Workplace) -> io::Result<PathBuf> {
        let path = self.entry(digest);
        let sum = sum_of_file(&workplace.output)?;
        let sum_path = workplace.output.with_extension("sum");
        let mut file = File::create(&sum_path)?;
        file.write_all(sum.as_bytes())?;
        file.sync_all()?;
        fs::rename(&workplace.output, &path)?;
        fs::rename(sum_path, path.with_extension("sum"))?;
        if let Err(error) = self.prune(COMPILE_CACHE_BYTES_MAX, &path) {
            tracing::warn!(folder = %self.folder.display(), %error, "old compiled components stay");
        }
        Ok(path)
    }

    fn entry(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}-{}.cwasm", self.compatibility))
    }

    /// Removes the entries that were used longest ago until the rest fits; never `newest`.
    fn prune(&self, bytes_max: u64, newest: &Path) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "cwasm") && path != newest {
                let found = fs::metadata(&path)?;
                entries.push((found.modified()?, found.len(), path));
            }
        }
        let mut bytes: u64 = entries.iter().map(|(_, size, _)| size).sum::<u64>() + fs::metadata(newest)?.len();
        entries.sort();
        for (_, size, path) in entries {
            if bytes <= bytes_max {
                break;
            }
            fs::remove_file(&path)?;
            fs::remove_file(path.with_extension("sum"))?;
            bytes -= size;
        }
        Ok(())
    }
}

/// Where one component is compiled.
#[derive(Debug)]
pub struct Workplace {
    /// The component.
    pub input: PathBuf,
    /// Its code.
    pub output: PathBuf,
    _folder: tempfile::TempDir,
}

/// SHA-256 in lower-case hexadecimal.
pub fn hex_digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn sum_of_file(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(&folder.path().join("cache"), "c0".into()).expect("opens");
        (folder, cache)
    }

    fn keep(cache: &Cache, digest: &str, content: &[u8]) -> PathBuf {
        let workplace = cache.workplace(digest).expect("a workplace");
        fs::write(&workplace.output, content).expect("written");
        cache.keep(digest, &workplace).expect("kept")
    }

    #[test]
    fn what_is_kept_is_found_until_it_is_damaged() {
        let (_folder, cache) = cache();
        let digest = hex_digest(b"component");
        assert_eq!(cache.find(&digest), None);
        let path = keep(&cache, &digest, b"code");
        assert_eq!(cache.find(&digest).as_ref(), Some(&path));
        fs::write(&path, b"cod3").expect("damaged");
        assert_eq!(cache.find(&digest), None);
        keep(&cache, &digest, b"code");
        assert_eq!(cache.find(&digest), Some(path.clone()));
        fs::remove_file(path.with_extension("sum")).expect("removed");
        assert_eq!(cache.find(&digest), None);
    }

    #[test]
    fn the_folder_is_closed_to_others_and_left_clean() {
        let (_folder, cache) = cache();
        assert_eq!(fs::metadata(&cache.folder).expect("there").mode() & 0o777, 0o700);
        fs::set_permissions(&cache.folder, Permissions::from_mode(0o755)).expect("set");
        Cache::open(&cache.folder, "c0".into()).expect("opens");
        assert_eq!(fs::metadata(&cache.folder).expect("there").mode() & 0o777, 0o700);
        keep(&cache, &hex_digest(b"a"), b"code");
        assert_eq!(
            fs::read_dir(&cache.folder).expect("read").count(),
            2,
            "the entry and its sum, nothing else"
        );
    }

    #[test]
    fn the_entry_used_longest_ago_goes_first() {
        let (_folder, cache) = cache();
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| {
            let digest = hex_digest(name);
            let path = keep(&cache, &digest, &[0; 100]);
            let age = std::time::Duration::from_secs(match name {
                b"a" => 10,
                b"b" => 20,
                _ => 0,
            });
            File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .set_modified(SystemTime::now() - age)
                .unwrap();
            (digest, path)
        });
        cache.prune(200, &c.1).expect("pruned");
        assert!(cache.find(&a.0).is_some());
        assert!(cache.find(&b.0).is_none());
        assert!(cache.find(&c.0).is_some());
        cache.prune(0, &c.1).expect("pruned");
        assert!(cache.find(&a.0).is_none());
        assert!(cache.find(&c.0).is_some(), "what was just made stays");
    }
}
