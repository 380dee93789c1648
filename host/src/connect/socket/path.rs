//! Where the socket of a folder is. A socket's path has 107 bytes at most, a folder's may have more: then it is
//! reached through an open descriptor of the folder.

use crate::connect::embedded::SOCKET_NAME;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the kernel takes, less what the longest name in the folder needs.
const PATH_BYTES_MAX: usize = 107;

/// A path to a folder that is short enough to put a socket's name behind it, while this lives.
pub(super) struct ShortFolder {
    path: PathBuf,
    _open: Option<File>,
}

impl ShortFolder {
    pub(super) fn new(folder: &Path) -> io::Result<ShortFolder> {
        if folder.as_os_str().as_bytes().len() + SOCKET_NAME.len() + ".new/".len() <= PATH_BYTES_MAX {
            return Ok(ShortFolder {
                path: folder.into(),
                _open: None,
            });
        }
        let open = File::open(folder)?;
        Ok(ShortFolder {
            path: format!("/proc/self/fd/{}", open.as_raw_fd()).into(),
            _open: Some(open),
        })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path.join(SOCKET_NAME)
    }

    /// Where the socket is made before it gets its name.
    pub(super) fn new_socket(&self) -> PathBuf {
        self.path.join(format!("{SOCKET_NAME}.new"))
    }
}
