//! What projects in scripting languages have in common: tools that are looked for, sources that are compared, a program
//! that is run.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::{BuildOptions, Built, Finding, ToolError};

/// Folders that are no sources: what tools make and install.
const NO_SOURCES: &[&str] = &["target", "node_modules", "venv", "__pycache__"];
/// Folders above a project that are looked at for tools.
const ANCESTORS_MAX: usize = 16;

/// A plugin's project.
pub(super) struct Project {
    /// Where it is, absolute.
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) summary: String,
    /// "processor" or "aggregator".
    pub(super) kind: String,
    /// The file with the plugin, as the language names it.
    pub(super) entry: String,
}

impl Project {
    /// Where what is made on the way lies.
    pub(super) fn work(&self) -> PathBuf {
        self.folder.join("target/millstream")
    }

    /// Runs `make`, which writes the component to the path that it is given, unless sources and component are as they were
    /// then. `kit` is the digest of everything else that the component is made of.
    pub(super) fn build(
        &self,
        options: &BuildOptions,
        kit: Sha256,
        make: impl FnOnce(&Path) -> Result<(), ToolError>,
    ) -> Result<Built, ToolError> {
        let default = || self.folder.join("target/wasm").join(format!("{}.wasm", self.name));
        let path = options.output.clone().unwrap_or_else(default);
        let stamp = self.work().join("stamp");
        let sources = self.sources(kit)?;
        let built = |unchanged| Built {
            name: self.name.clone(),
            path: path.clone(),
            unchanged,
        };
        if let (Ok(component), Ok(before)) = (fs::read(&path), fs::read_to_string(&stamp))
            && before == format!("{sources} {}", hex(&Sha256::digest(&component)))
        {
            return Ok(built(true));
        }
        let unfinished = self.work().join("component.wasm");
        make(&unfinished)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ToolError::File { path, source }
        };
        let component = fs::read(&unfinished).map_err(failed(&unfinished))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        // Whole or not at all, as a host may be reading it.
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&beside, &component)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(failed(&path))?;
        let text = format!("{sources} {}", hex(&Sha256::digest(&component)));
        fs::write(&stamp, text).map_err(failed(&stamp))?;
        let _ = fs::remove_file(&unfinished);
        Ok(built(false))
    }

    fn sources(&self, mut digest: Sha256) -> Result<String, ToolError> {
        let mut folders = vec![self.folder.clone()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            let failed = |source| ToolError::File {
                path: folder.clone(),
                source,
            };
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with('.') || NO_SOURCES.contains(&name.as_str()) {
                    continue;
                }
                match entry.file_type().map_err(failed)?.is_dir() {
                    true => folders.push(entry.path()),
                    false => files.push(entry.path()),
                }
            }
        }
        files.sort();
        for path in files {
            let bytes = fs::read(&path).map_err(|source| ToolError::File {
                path: path.clone(),
                source,
            })?;
            digest.update(
                path.strip_prefix(&self.folder)
                    .unwrap_or(&path)
                    .as_os_str()
                    .as_encoded_bytes(),
            );
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        Ok(hex(&digest.finalize()))
    }
}

/// Places relative to the project's folder and those above it, then the search path: the first that is there.
pub(super) fn find(project: &Path, places: &[&str], program: &str) -> Option<PathBuf> {
    let near = project
        .ancestors()
        .take(ANCESTORS_MAX)
        .flat_map(|folder| places.iter().map(|place| folder.join(place)));
    let path = env::var_os("PATH").unwrap_or_default();
    let paths: Vec<_> = env::split_paths(&path).map(|folder| folder.join(program)).collect();
    near.chain(paths).find(|path| path.is_file())
}

/// What a program prints when it is asked for its version: its first line.
pub(super) fn version(program: &Path) -> Result<String, String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(if output.stdout.is_empty() {
        &output.stderr
    } else {
        &output.stdout
    });
    match output.status.success() {
        true => Ok(text.lines().next().unwrap_or_default().trim().to_owned()),
        false => Err(format!("it does not run: {}", text.trim())),
    }
}

/// Whether a version such as "v20.1" or "componentize-py 0.25.1" is `least` or newer.
pub(super) fn is_new_enough(version: &str, least: (u32, u32)) -> bool {
    let digits = version
        .find(|c: char| c.is_ascii_digit())
        .map_or("", |at| &version[at..]);
    let mut parts = digits.split('.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse::<u32>().unwrap_or(0)
    });
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= least
}

/// A tool that was found, if its version serves.
pub(super) fn checked(
    tool: &str,
    found: Option<PathBuf>,
    version: Result<String, String>,
    least: (u32, u32),
    install: &str,
) -> Finding {
    let found = match (found, version) {
        (None, _) => Err("is not installed: it was looked for in the project, in the folders above and in PATH".into()),
        (Some(path), Ok(version)) if is_new_enough(&version, least) => Ok(format!("{version}, {}", path.display())),
        (Some(path), Ok(version)) => Err(format!(
            "is too old: {} is {version}, and {}.{} is the least",
            path.display(),
            least.0,
            least.1
        )),
        (Some(path), Err(problem)) => Err(format!("{}: {problem}", path.display())),
    };
    Finding {
        tool: tool.into(),
        found,
        install: install.into(),
    }
}

impl Finding {
    /// The error of a tool that does not serve.
    pub(super) fn require(self) -> Result<(), ToolError> {
        let (tool, install) = (self.tool, self.install);
        let missing = |problem| ToolError::Missing { tool, problem, install };
        self.found.map(drop).map_err(missing)
    }
}

/// Runs a compiler and returns what it said if it failed.
pub(super) fn run(command: &mut Command, verbose: bool) -> Result<Result<(), String>, ToolError> {
    if verbose {
        eprintln!("{}", shown(command));
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ToolError::File {
            path: command.get_program().into(),
            source,
        })?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Ok(Err(if said.is_empty() {
        format!("it ended with {}", output.status)
    } else {
        said
    }))
}

/// A command as a shell would take it.
fn shown(command: &Command) -> String {
    let mut line = command.get_program().display().to_string();
    for argument in command.get_args() {
        let text = argument.to_string_lossy();
        match text.contains([' ', '{', '"']) {
            true => line.push_str(&format!(" '{text}'")),
            false => line.push_str(&format!(" {text}")),
        }
    }
    line
}

/// A project file's folder, absolute, and the file's text.
pub(super) fn project_file(folder: &Path, name: &str) -> Result<(PathBuf, PathBuf, String), ToolError> {
    let path = folder.join(name);
    let failed = |source: io::Error| ToolError::File {
        path: path.clone(),
        source,
    };
    let text = fs::read_to_string(&path).map_err(failed)?;
    Ok((folder.canonicalize().map_err(failed)?, path.clone(), text))
}

/// Whether a kind and a name can be.
pub(super) fn check(path: &Path, name: &str, version: &str, kind: &str) -> Result<(), ToolError> {
    let problem = |problem: String, help: &str| ToolError::Project {
        path: path.to_owned(),
        problem,
        help: help.into(),
    };
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        let text = format!("the name {name:?} is none of a plugin");
        return Err(problem(
            text,
            "a plugin's name has lower-case letters, digits and hyphens",
        ));
    }
    if version.split('.').count() != 3 {
        let text = format!("the version {version:?} is no semantic version");
        return Err(problem(text, "write three numbers: 0.1.0"));
    }
    if !["processor", "aggregator"].contains(&kind) {
        let text = format!("the kind {kind:?} is none of a plugin");
        return Err(problem(text, "the kind is \"processor\" or \"aggregator\""));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, least, enough) in [
            ("componentize-py 0.25.1", (0, 25), true),
            ("componentize-py 0.9.0", (0, 25), false),
            ("v20.20.2", (20, 0), true),
            ("v18.1.0", (20, 0), false),
            ("1.0.0", (0, 23), true),
            ("0.23.0-rc1", (0, 23), true),
            ("no version", (0, 1), false),
        ] {
            assert_eq!(is_new_enough(version, least), enough, "{version}");
        }
    }

    #[test]
    fn sources_are_what_people_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let project = Project {
            folder: folder.path().into(),
            name: "p".into(),
            version: "0.1.0".into(),
            summary: String::new(),
            kind: "processor".into(),
            entry: "plugin".into(),
        };
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let digest = || project.sources(Sha256::new()).expect("digested");
        write("plugin.py", "a");
        let before = digest();
        write("target/x", "made");
        write("node_modules/x/y.js", "installed");
        write(".venv/x", "installed");
        assert_eq!(digest(), before);
        write("inner/more.py", "b");
        assert_ne!(digest(), before);
    }
}
