//! What this program brings for plugins in other languages: the contract and the SDKs, written beside each build.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::ToolError;

/// A file: its path in the folder that it is written to, and its text.
pub(super) type File = (&'static str, &'static str);

macro_rules! files {
    ($folder:literal: $($file:literal),+ $(,)?) => {
        &[$(($file, include_str!(concat!("../../../", $folder, "/", $file)))),+]
    };
}

/// The contract.
pub(super) const CONTRACT: &[File] = files!("wit/0.1.0":
    "aggregator.wit", "lifecycle.wit", "log.wit", "metrics.wit", "output.wit", "processor.wit", "schema.wit",
    "state.wit", "table.wit", "world.wit",
);

/// The package `millstream` for Python.
pub(super) const PYTHON: &[File] = files!("guest-sdk/python/millstream":
    "__init__.py", "aggregator.py", "batch.py", "columns.py", "contract.py", "errors.py", "fields.py", "glue.py",
    "log.py", "metrics.py", "output.py", "plugin.py", "processor.py", "sandbox.py", "schema.py", "settings.py",
    "store.py",
);

/// The package `millstream` for JavaScript.
pub(super) const JAVASCRIPT: &[File] = files!("guest-sdk/javascript/millstream":
    "aggregator.js", "batch.js", "columns.js", "errors.js", "fields.js", "files.json", "glue.js", "index.d.ts",
    "index.js", "log.js", "metrics.js", "output.js", "package.json", "plugin.js", "processor.js",
    "sandbox-install.js", "sandbox.js", "settings.js", "store.js",
);

/// What makes a component of a plugin in JavaScript.
pub(super) const JAVASCRIPT_BUILD: &[File] = files!("guest-sdk/javascript": "build.mjs");

/// Writes the files that are not there as they are.
pub(super) fn write(files: &[File], folder: &Path) -> Result<(), ToolError> {
    for (name, text) in files {
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            continue;
        }
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, text));
        written.map_err(|source| ToolError::File { path, source })?;
    }
    Ok(())
}

/// Adds the files to a digest.
pub(super) fn digest(files: &[File], digest: &mut Sha256) {
    for (name, text) in files {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is forgotten here is missing in each plugin that is built.
    #[test]
    fn every_file_of_the_sdks_is_brought() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (folder, files) in [
            ("wit/0.1.0", CONTRACT),
            ("guest-sdk/python/millstream", PYTHON),
            ("guest-sdk/javascript/millstream", JAVASCRIPT),
        ] {
            let entries = fs::read_dir(root.join(folder)).expect("the folder");
            let mut names: Vec<_> = entries
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .filter(|name| name.contains('.'))
                .collect();
            names.sort();
            let mut brought: Vec<_> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
            brought.sort();
            assert_eq!(brought, names, "{folder}");
        }
    }
}
