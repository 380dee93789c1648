//! From a core module to a component: encoded, validated, and found to be a plugin.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};
use wit_component::{ComponentEncoder, DecodedWasm};
use wit_parser::WorldItem;

use super::BuildError;

const PACKAGE: &str = "millstream:plugin/";
const KINDS: &[&str] = &["processor", "aggregator"];

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// The interface that makes it a plugin.
    pub(super) kind: String,
    /// The version of the contract.
    pub(super) contract: String,
    /// What it imports that is called: interfaces by their short names where they are the contract's.
    pub(super) imports: Vec<String>,
    /// Of the component.
    pub(super) size_bytes: u64,
    /// Whether the module was the same as before, so that nothing was written.
    pub(super) unchanged: bool,
}

/// Encodes `module` into `output`, unless `stamp` says that this was done.
pub(super) fn write(name: &str, module: &Path, output: &Path, stamp: &Path) -> Result<Summary, BuildError> {
    let core = fs::read(module).map_err(|source| file_error(module, source))?;
    let core_hash = hash(&core);
    if let (Ok(written), Ok(before)) = (fs::read(output), fs::read_to_string(stamp))
        && before == format!("{core_hash} {}", hash(&written))
    {
        let mut summary = summarize(name, &written)?;
        summary.unchanged = true;
        return Ok(summary);
    }
    let component = encode(name, &core)?;
    let summary = summarize(name, &component)?;
    write_file(output, &component)?;
    write_file(stamp, format!("{core_hash} {}", hash(&component)).as_bytes())?;
    Ok(summary)
}

/// What the component in a file is.
pub(super) fn of_file(name: &str, path: &Path, unchanged: bool) -> Result<Summary, BuildError> {
    let component = fs::read(path).map_err(|source| file_error(path, source))?;
    let mut summary = summarize(name, &component)?;
    summary.unchanged = unchanged;
    Ok(summary)
}

fn encode(name: &str, core: &[u8]) -> Result<Vec<u8>, BuildError> {
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true);
    encoder
        .module(core)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| BuildError::Component {
            name: name.into(),
            reason: format!("{error:#}"),
            help: "a plugin imports nothing but what the contract offers: look for crates that need JavaScript or WASI"
                .into(),
        })
}

/// What a component is, by its imports and exports.
fn summarize(name: &str, component: &[u8]) -> Result<Summary, BuildError> {
    let problem = |reason: String, help: &str| BuildError::Component {
        name: name.into(),
        reason,
        help: help.into(),
    };
    let decoded = wit_component::decode(component).map_err(|error| problem(format!("{error:#}"), "build it again"))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err(problem("it holds types only".into(), "build it again"));
    };
    let world = &resolve.worlds[world];
    let names = |keys: Vec<String>| -> Vec<(String, String)> {
        let split = |name: String| {
            let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
            Some((interface.to_owned(), version.to_owned()))
        };
        keys.into_iter().filter_map(split).collect()
    };
    let exports = names(world.exports.keys().map(|key| resolve.name_world_key(key)).collect());
    let kinds: Vec<_> = exports
        .iter()
        .filter(|(interface, _)| KINDS.contains(&interface.as_str()))
        .collect();
    let lifecycle = exports.iter().any(|(interface, _)| interface == "lifecycle");
    let [(kind, contract)] = kinds.as_slice() else {
        let reason = match kinds.len() {
            0 => "it exports no plugin",
            _ => "it exports several kinds of plugin",
        };
        return Err(problem(
            reason.into(),
            "end src/lib.rs with one line `millstream_sdk::export!(YourType);`",
        ));
    };
    if !lifecycle {
        return Err(problem(
            "it does not export `lifecycle`".into(),
            "use `millstream_sdk::export!`",
        ));
    }
    let called = world.imports.iter().filter(|(_, item)| match item {
        WorldItem::Interface { id, .. } => !resolve.interfaces[*id].functions.is_empty(),
        _ => true,
    });
    let short = |name: String| match name.strip_prefix(PACKAGE).and_then(|name| name.split_once('@')) {
        Some((interface, _)) => interface.to_owned(),
        None => name,
    };
    Ok(Summary {
        kind: kind.clone(),
        contract: contract.clone(),
        imports: called.map(|(key, _)| short(resolve.name_world_key(key))).collect(),
        size_bytes: component.len() as u64,
        unchanged: false,
    })
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file whole or not at all, as a host may be reading it.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.tmp", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&unfinished, bytes)?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|source| {
        // What is left of it is of no use; that it cannot be removed either says no more.
        let _ = fs::remove_file(&unfinished);
        file_error(path, source)
    })
}

fn file_error(path: &Path, source: io::Error) -> BuildError {
    BuildError::File {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(module: &str) -> String {
        let core = wat::parse_str(module).expect("a module");
        encode("p", &core)
            .and_then(|component| summarize("p", &component))
            .expect_err("is refused")
            .to_string()
    }

    #[test]
    fn a_module_that_is_no_plugin_is_refused() {
        assert!(refused("(module)").contains("it exports no plugin"));
        let imports = refused("(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func)))");
        assert!(imports.contains("wasi_snapshot_preview1"), "{imports}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let absent = folder.path().join("absent.wasm");
        let error =
            write("p", &absent, &folder.path().join("o.wasm"), &folder.path().join("s")).expect_err("is absent");
        assert!(error.to_string().contains("absent.wasm"));
    }
}
