//! `millstream build`: compiles plugins to components.
//!
//! A plugin is a crate whose type is `cdylib`. Cargo makes a core module of it in a target directory of its own; what
//! the SDK left in the module's custom sections says how to encode that as a component.

mod component;
mod rust;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use miette::Diagnostic;
use serde::Deserialize;

use component::Summary;
use rust::Toolchain;

use crate::toolchain::{self, BuildOptions};

/// Arguments of `millstream build`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Folders of plugins: of a crate, or of a workspace with a crate for each plugin.
    #[arg(value_name = "DIR", default_value = ".")]
    pub folders: Vec<PathBuf>,
    /// Where the component goes [default: target/wasm/NAME.wasm in the folder of the workspace].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Show the commands that are run: with `--verbose`, which all commands have.
    #[arg(skip)]
    pub verbose: bool,
}

/// Why a plugin was not built. What was built before it stays.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum BuildError {
    /// No compiler that makes WebAssembly.
    #[error("there is no Rust compiler here that makes WebAssembly: {reason}")]
    #[diagnostic(help(
        "with rustup:\n  rustup target add wasm32-unknown-unknown\n\
         on Debian, where rustup cannot download:\n  \
         apt-get install --no-install-recommends rustc-web cargo-web rust-web-src lld-19"
    ))]
    Toolchain {
        /// What was looked for, and what was missing.
        reason: String,
    },
    /// The folder has no crate.
    #[error("{} has no Cargo.toml", folder.display())]
    #[diagnostic(help("name the folder of a plugin's crate, or of a workspace of plugins"))]
    NoManifest {
        /// The folder.
        folder: PathBuf,
    },
    /// No crate that is a plugin.
    #[error("no crate in {} can become a plugin: its type must be `cdylib`", folder.display())]
    #[diagnostic(help("in its Cargo.toml:\n  [lib]\n  crate-type = [\"cdylib\", \"rlib\"]"))]
    NoPlugin {
        /// The folder.
        folder: PathBuf,
    },
    /// `-o` names one file for several plugins.
    #[error("--output names one file, but there are {plugins} plugins to build")]
    #[diagnostic(help("leave it out, or name the folder of one plugin"))]
    OneOutput {
        /// How many there are.
        plugins: usize,
    },
    /// Cargo could not be run, or said what nobody expects.
    #[error("{what}: {reason}")]
    Cargo {
        /// What was tried.
        what: String,
        /// Why it failed.
        reason: String,
    },
    /// Cargo has printed why.
    #[error("cargo could not build {}: see above", folder.display())]
    Compile {
        /// The folder.
        folder: PathBuf,
    },
    /// The module is no plugin.
    #[error("{name} does not become a component: {reason}")]
    #[diagnostic(help("{help}"))]
    Component {
        /// The crate.
        name: String,
        /// Why.
        reason: String,
        /// What to do.
        help: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Builds the plugins and prints a line about each.
///
/// # Errors
/// The first plugin that cannot be built, and why. Those before it are written.
pub fn run(args: Args) -> miette::Result<()> {
    let (mut plans, mut scripts) = (Vec::new(), Vec::new());
    for folder in &args.folders {
        match scripts_of(folder) {
            found if found.is_empty() => plans.push(Plan::of(folder, args.verbose)?),
            found => scripts.extend(found),
        }
    }
    let plugins = scripts.len() + plans.iter().map(|plan| plan.plugins.len()).sum::<usize>();
    if args.output.is_some() && plugins > 1 {
        return Err(BuildError::OneOutput { plugins }.into());
    }
    let options = BuildOptions {
        output: args.output.clone(),
        verbose: args.verbose,
    };
    for (folder, toolchain) in scripts {
        let built = toolchain.build(&folder, &options)?;
        let summary = component::of_file(&built.name, &built.path, built.unchanged)?;
        print(&summary, &built.path);
    }
    for plan in plans {
        let modules = plan.compile(args.verbose)?;
        for (name, module) in modules {
            let output = match &args.output {
                Some(output) => output.clone(),
                None => plan.target_directory.join("wasm").join(format!("{name}.wasm")),
            };
            let stamp = plan.target_directory.join("millstream").join(format!("{name}.stamp"));
            let summary = component::write(&name, &module, &output, &stamp)?;
            print(&summary, &output);
        }
    }
    Ok(())
}

/// The plugins in scripting languages of a folder: itself, or those in it.
fn scripts_of(folder: &Path) -> Vec<(PathBuf, &'static dyn toolchain::Toolchain)> {
    if let Some(found) = toolchain::of(folder) {
        return vec![(folder.to_owned(), found)];
    }
    if folder.join("Cargo.toml").is_file() {
        return Vec::new();
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut folders: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    let found = folders
        .into_iter()
        .filter_map(|folder| toolchain::of(&folder).map(|found| (folder, found)));
    found.collect()
}

fn print(summary: &Summary, output: &Path) {
    let imports = match summary.imports.as_slice() {
        [] => "imports nothing".to_owned(),
        imports => format!("imports {}", imports.join(", ")),
    };
    let kilobytes = summary.size_bytes.div_ceil(1000);
    let fresh = if summary.unchanged { ", unchanged" } else { "" };
    println!(
        "{}: {} of contract {}, {kilobytes} kB, {imports}{fresh}",
        output.display(),
        summary.kind,
        summary.contract,
    );
}

/// The plugins of a folder, and what compiles them.
struct Plan {
    folder: PathBuf,
    plugins: Vec<String>,
    target_directory: PathBuf,
    toolchain: Toolchain,
}

/// What `cargo metadata` says, as far as it is needed.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

/// A line of `cargo build --message-format=json`.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        package_id: String,
        target: Target,
        filenames: Vec<PathBuf>,
    },
    #[serde(other)]
    Other,
}

impl Target {
    fn is_module(&self) -> bool {
        self.crate_types.iter().any(|crate_type| crate_type == "cdylib")
    }
}

impl Plan {
    fn of(folder: &Path, verbose: bool) -> Result<Plan, BuildError> {
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            return Err(BuildError::NoManifest { folder: folder.into() });
        }
        let toolchain = Toolchain::find(folder)?;
        let metadata = toolchain.metadata(verbose)?;
        // Cargo lists all members of a workspace, also when it is asked in the folder of one.
        let own = metadata
            .packages
            .iter()
            .filter(|package| same_file(&package.manifest_path, &manifest));
        let chosen: Vec<&Package> = match own.collect::<Vec<_>>() {
            own if own.is_empty() => metadata.packages.iter().collect(),
            own => own,
        };
        let plugins = chosen
            .into_iter()
            .filter(|package| package.targets.iter().any(Target::is_module))
            .map(|package| package.name.clone())
            .collect::<Vec<_>>();
        if plugins.is_empty() {
            return Err(BuildError::NoPlugin { folder: folder.into() });
        }
        Ok(Plan {
            folder: folder.into(),
            plugins,
            target_directory: metadata.target_directory,
            toolchain,
        })
    }

    /// Makes the core modules, by the names of their crates.
    fn compile(&self, verbose: bool) -> Result<BTreeMap<String, PathBuf>, BuildError> {
        let mut cargo = self.toolchain.build();
        // Not where the host or native tests are built: flags and compilers differ.
        cargo.arg("--target-dir").arg(self.target_directory.join("millstream"));
        cargo.arg("--message-format=json-render-diagnostics");
        for plugin in &self.plugins {
            cargo.args(["--package", plugin]);
        }
        show(&cargo, verbose);
        let output = cargo
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| cargo_error(&cargo, error))?;
        if !output.status.success() {
            return Err(BuildError::Compile {
                folder: self.folder.clone(),
            });
        }
        let names: BTreeMap<String, &str> = {
            let metadata = self.toolchain.metadata(false)?;
            let name = |package: Package| {
                let known = self.plugins.iter().find(|plugin| **plugin == package.name)?;
                Some((package.id, known.as_str()))
            };
            metadata.packages.into_iter().filter_map(name).collect()
        };
        let mut modules = BTreeMap::new();
        for line in output.stdout.split(|&byte| byte == b'\n') {
            // Other programs may print between cargo's messages.
            let Ok(Message::CompilerArtifact {
                package_id,
                target,
                filenames,
            }) = serde_json::from_slice(line)
            else {
                continue;
            };
            let module = filenames
                .into_iter()
                .find(|file| file.extension().is_some_and(|extension| extension == "wasm"));
            if let (true, Some(name), Some(module)) = (target.is_module(), names.get(&package_id), module) {
                modules.insert((*name).to_owned(), module);
            }
        }
        match self.plugins.iter().find(|plugin| !modules.contains_key(*plugin)) {
            None => Ok(modules),
            Some(missing) => Err(BuildError::Cargo {
                what: format!("building {missing}"),
                reason: "cargo reported no WebAssembly module".into(),
            }),
        }
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn cargo_error(command: &Command, error: impl std::fmt::Display) -> BuildError {
    BuildError::Cargo {
        what: format!("running {}", command.get_program().display()),
        reason: error.to_string(),
    }
}

/// Prints a command as a shell would take it.
fn show(command: &Command, verbose: bool) {
    if !verbose {
        return;
    }
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            line.push_str(&format!("{}={} ", name.display(), value.display()));
        }
    }
    line.push_str(&command.get_program().display().to_string());
    for argument in command.get_args() {
        line.push_str(&format!(" {}", argument.display()));
    }
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(manifest: Option<&str>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        if let Some(manifest) = manifest {
            std::fs::create_dir(folder.path().join("src")).expect("made");
            std::fs::write(folder.path().join("src/lib.rs"), "").expect("written");
            std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("written");
        }
        folder
    }

    fn refused(folders: Vec<PathBuf>, output: Option<PathBuf>) -> String {
        let args = Args {
            folders,
            output,
            verbose: false,
        };
        run(args).expect_err("is refused").to_string()
    }

    #[test]
    fn a_folder_without_a_plugin_is_refused_before_anything_is_compiled() {
        let empty = folder(None);
        assert!(refused(vec![empty.path().into()], None).ends_with("has no Cargo.toml"));
        let library = folder(Some("[package]\nname = \"library\"\nversion = \"0.1.0\"\n"));
        assert!(refused(vec![library.path().into()], None).contains("`cdylib`"));
        let broken = folder(Some("[package\n"));
        assert!(refused(vec![broken.path().into()], None).contains("Cargo.toml"));
    }

    #[test]
    fn one_file_is_not_for_several_plugins() {
        let manifest = "[package]\nname = \"p\"\nversion = \"0.1.0\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n";
        let (one, other) = (folder(Some(manifest)), folder(Some(manifest)));
        let folders = vec![one.path().into(), other.path().into()];
        assert!(refused(folders, Some("p.wasm".into())).contains("there are 2 plugins"));
    }
}
