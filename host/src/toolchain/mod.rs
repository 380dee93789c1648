//! The tools that make components of plugins, a language each: how its projects are known, what it needs, how it is run.
//!
//! Nothing is downloaded here: what is missing is named with the line that installs it. What a compiler says is shown as
//! it says it.

mod embedded;
pub mod javascript;
pub mod python;
mod script;

use std::path::{Path, PathBuf};

use miette::Diagnostic;

/// A language that plugins are written in.
pub trait Toolchain {
    /// How people call it.
    fn language(&self) -> &'static str;

    /// Whether a folder is a plugin of this language.
    fn is_of(&self, folder: &Path) -> bool;

    /// What it needs, found or missing.
    fn doctor(&self, folder: &Path) -> Vec<Finding>;

    /// Makes the component, unless nothing has changed since it was made.
    ///
    /// # Errors
    /// What is missing, or what the compiler says. A component that was there stays.
    fn build(&self, folder: &Path, options: &BuildOptions) -> Result<Built, ToolError>;
}

/// How a plugin is built.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Where the component goes; `target/wasm/NAME.wasm` in the folder where it is not said.
    pub output: Option<PathBuf>,
    /// Whether the commands that are run are shown.
    pub verbose: bool,
}

/// A component that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The plugin's name.
    pub name: String,
    /// The component.
    pub path: PathBuf,
    /// Whether it was there already.
    pub unchanged: bool,
}

/// A tool that was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub tool: String,
    /// Where it is and which version it has, or why it does not serve.
    pub found: Result<String, String>,
    /// The line that installs it.
    pub install: String,
}

/// Why a plugin was not built.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ToolError {
    /// A tool is missing or too old.
    #[error("{tool} {problem}")]
    #[diagnostic(help("install it:\n  {install}"))]
    Missing {
        /// Which.
        tool: String,
        /// Where it was looked for, or which version was found.
        problem: String,
        /// The line that installs it.
        install: String,
    },
    /// The file that describes the project is missing, or says what cannot be.
    #[error("{}: {problem}", path.display())]
    #[diagnostic(help("{help}"))]
    Project {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        help: String,
    },
    /// The compiler says why.
    #[error("{name} does not compile:\n{said}")]
    Compile {
        /// The plugin.
        name: String,
        /// What the compiler said.
        said: String,
    },
    /// A file could not be read or written, or a program not be started.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or program.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The languages whose plugins are scripts.
pub const SCRIPTS: &[&dyn Toolchain] = &[&python::Python, &javascript::JavaScript];

/// The language of a folder, among the scripts.
pub fn of(folder: &Path) -> Option<&'static dyn Toolchain> {
    SCRIPTS.iter().copied().find(|toolchain| toolchain.is_of(folder))
}
