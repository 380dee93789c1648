//! The compiler for plugins: one that has WebAssembly's standard library, or one that can build it from source.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{BuildError, Metadata, cargo_error, show};

const TARGET: &str = "wasm32-unknown-unknown";

/// Linkers for WebAssembly, in the order in which they are tried: the newest is rustc's own nearest relative.
const LINKERS: &[&str] = &[
    "wasm-ld",
    "wasm-ld-22",
    "wasm-ld-21",
    "wasm-ld-20",
    "wasm-ld-19",
    "wasm-ld-18",
    "wasm-ld-17",
    "wasm-ld-16",
];

/// A cargo and a rustc, and how they are told to make WebAssembly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Toolchain {
    /// Where they are run: rustup chooses by the folder.
    folder: PathBuf,
    cargo: PathBuf,
    /// The compiler and linker where the standard library is built from source; `None` where it is installed.
    from_source: Option<(PathBuf, PathBuf)>,
}

impl Toolchain {
    /// The first that can make WebAssembly: that of rustup or of the path, as the folder's `rust-toolchain.toml` says;
    /// then the distribution's. Nothing is downloaded.
    pub(super) fn find(folder: &Path) -> Result<Toolchain, BuildError> {
        let mut missing = Vec::new();
        let candidates = [("rustc", "cargo"), ("/usr/bin/rustc", "/usr/bin/cargo")];
        for (rustc, cargo) in candidates {
            match Toolchain::installed(folder, rustc, cargo) {
                Ok(toolchain) => return Ok(toolchain),
                Err(reason) => missing.push(format!("{rustc}: {reason}")),
            }
        }
        for (rustc, cargo) in candidates {
            match Toolchain::from_source(folder, rustc, cargo) {
                Ok(toolchain) => return Ok(toolchain),
                Err(reason) => missing.push(format!("{rustc}: {reason}")),
            }
        }
        missing.dedup();
        Err(BuildError::Toolchain {
            reason: missing.join("; "),
        })
    }

    fn installed(folder: &Path, rustc: &str, cargo: &str) -> Result<Toolchain, String> {
        let libraries = print(folder, rustc, &["--print", "target-libdir", "--target", TARGET])?;
        if !Path::new(&libraries).is_dir() {
            return Err(format!("its standard library for {TARGET} is not installed"));
        }
        Ok(Toolchain {
            folder: folder.into(),
            cargo: cargo.into(),
            from_source: None,
        })
    }

    fn from_source(folder: &Path, rustc: &str, cargo: &str) -> Result<Toolchain, String> {
        let sysroot = PathBuf::from(print(folder, rustc, &["--print", "sysroot"])?);
        if !sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file() {
            return Err("the source of its standard library is not installed".into());
        }
        print(folder, cargo, &["--version"])?;
        let linker = LINKERS
            .iter()
            .find_map(|name| in_path(name))
            .or_else(|| bundled_linker(&sysroot));
        let Some(linker) = linker else {
            return Err("there is no linker for WebAssembly (wasm-ld)".into());
        };
        Ok(Toolchain {
            folder: folder.into(),
            cargo: cargo.into(),
            from_source: Some((rustc.into(), linker)),
        })
    }

    fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo
            .current_dir(&self.folder)
            .env("RUSTUP_AUTO_INSTALL", "0")
            .stdin(Stdio::null());
        // A cargo that called this program has set these for itself.
        for name in [
            "CARGO",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
        ] {
            cargo.env_remove(name);
        }
        if let Some((rustc, linker)) = &self.from_source {
            cargo.env("RUSTC", rustc);
            // `-Zbuild-std` is a feature of nightly compilers; this compiler is the one that its source belongs to.
            cargo.env("RUSTC_BOOTSTRAP", "1");
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        cargo
    }

    /// `cargo build` for WebAssembly, without what is particular to the plugins.
    pub(super) fn build(&self) -> Command {
        let mut cargo = self.cargo();
        cargo.args(["build", "--release", "--target", TARGET]);
        if self.from_source.is_some() {
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        cargo
    }

    /// What cargo knows of the packages of the folder's workspace.
    pub(super) fn metadata(&self, verbose: bool) -> Result<Metadata, BuildError> {
        let mut cargo = self.cargo();
        cargo.args(["metadata", "--no-deps", "--format-version", "1"]);
        show(&cargo, verbose);
        let output = cargo.output().map_err(|error| cargo_error(&cargo, error))?;
        if !output.status.success() {
            return Err(cargo_error(&cargo, String::from_utf8_lossy(&output.stderr).trim()));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| cargo_error(&cargo, error))
    }
}

/// What a program prints, in one line.
fn print(folder: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env("RUSTUP_AUTO_INSTALL", "0")
        .env_remove("RUSTUP_TOOLCHAIN");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "is not installed".to_owned(),
            _ => error.to_string(),
        })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(message.lines().next().unwrap_or("fails").to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The linker that comes with a toolchain of rustup's.
fn bundled_linker(sysroot: &Path) -> Option<PathBuf> {
    let platforms = sysroot.join("lib/rustlib").read_dir().ok()?;
    platforms
        .flatten()
        .map(|platform| platform.path().join("bin/rust-lld"))
        .find(|file| file.is_file())
}
