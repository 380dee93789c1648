//! Python: `componentize-py` puts CPython, the plugin and its packages into a component, started and stopped once, so that
//! what modules do when they are imported is done.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::script::{self, Project};
use super::{BuildOptions, Built, Finding, ToolError, Toolchain, embedded};

const FILE: &str = "pyproject.toml";
const TOOL: &str = "componentize-py";
const TOOL_LEAST: (u32, u32) = (0, 25);
const INSTALL: &str = "pip install 'componentize-py==0.25.1'";
const PLACES: &[&str] = &[
    ".venv/bin/componentize-py",
    "venv/bin/componentize-py",
    "target/tools/python/bin/componentize-py",
];

/// Plugins in Python: folders with a `pyproject.toml` that has a table `tool.millstream`.
pub struct Python;

#[derive(Deserialize)]
struct File {
    project: Option<About>,
    tool: Option<Tools>,
}

#[derive(Deserialize)]
struct About {
    name: Option<String>,
    version: Option<String>,
    description: Option<String>,
}

#[derive(Deserialize)]
struct Tools {
    millstream: Option<Settings>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    kind: Option<String>,
    module: Option<String>,
}

impl Toolchain for Python {
    fn language(&self) -> &'static str {
        "Python"
    }

    fn is_of(&self, folder: &Path) -> bool {
        fs::read_to_string(folder.join(FILE)).is_ok_and(|text| text.contains("[tool.millstream]"))
    }

    fn doctor(&self, folder: &Path) -> Vec<Finding> {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        vec![find(&folder).1]
    }

    fn build(&self, folder: &Path, options: &BuildOptions) -> Result<Built, ToolError> {
        let project = read(folder)?;
        let (tool, finding) = find(&project.folder);
        let mut kit = Sha256::new();
        kit.update(format!("{:?} {} {}", finding.found, project.version, project.summary));
        embedded::digest(embedded::CONTRACT, &mut kit);
        embedded::digest(embedded::PYTHON, &mut kit);
        finding.require()?;
        project.build(options, kit, |output| {
            componentize(&project, &tool, output, options.verbose)
        })
    }
}

fn find(folder: &Path) -> (PathBuf, Finding) {
    let found = script::find(folder, PLACES, TOOL);
    let tool = found.clone().unwrap_or_else(|| TOOL.into());
    let version = script::version(&tool);
    (tool, script::checked(TOOL, found, version, TOOL_LEAST, INSTALL))
}

fn read(folder: &Path) -> Result<Project, ToolError> {
    let (folder, path, text) = script::project_file(folder, FILE)?;
    let problem = |problem: String, help: &str| ToolError::Project {
        path: path.clone(),
        problem,
        help: help.into(),
    };
    let help = "write\n  [project]\n  name = \"my-plugin\"\n  version = \"0.1.0\"\n\n  [tool.millstream]\n  kind = \"processor\"";
    let file: File = toml::from_str(&text).map_err(|error| problem(error.to_string().trim().to_owned(), help))?;
    let about = file
        .project
        .ok_or_else(|| problem("there is no table [project]".into(), help))?;
    let settings = file.tool.and_then(|tools| tools.millstream);
    let settings = settings.ok_or_else(|| problem("there is no table [tool.millstream]".into(), help))?;
    let project = Project {
        folder,
        name: about
            .name
            .ok_or_else(|| problem("`project.name` is missing".into(), help))?,
        version: about
            .version
            .ok_or_else(|| problem("`project.version` is missing".into(), help))?,
        summary: about.description.unwrap_or_default(),
        kind: settings
            .kind
            .ok_or_else(|| problem("`tool.millstream.kind` is missing".into(), help))?,
        entry: settings.module.unwrap_or_else(|| "plugin".into()),
    };
    script::check(&path, &project.name, &project.version, &project.kind)?;
    let module = project.folder.join(project.entry.replace('.', "/"));
    if !module.with_extension("py").is_file() && !module.join("__init__.py").is_file() {
        let text = format!("the module {:?} is missing", project.entry);
        return Err(problem(
            text,
            "the plugin stands in plugin.py, or in the module that `tool.millstream.module` names",
        ));
    }
    Ok(project)
}

/// The module that the component is made of: the plugin's own, under the SDK's glue.
fn application(project: &Project) -> String {
    let class = match project.kind.as_str() {
        "processor" => "Processor",
        _ => "Aggregator",
    };
    let text = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "from millstream import glue\n\n\ndef load():\n    import {}\n\n\nLifecycle, {class} = glue.exports({}, {}, load)\n\
         glue.ready({}, {}, {})\n",
        project.entry,
        text(&project.name),
        text(&project.kind),
        text(&project.name),
        text(&project.version),
        text(&project.summary),
    )
}

fn componentize(project: &Project, tool: &Path, output: &Path, verbose: bool) -> Result<(), ToolError> {
    let work = project.work();
    let (contract, sdk) = (work.join("wit"), work.join("sdk"));
    embedded::write(embedded::CONTRACT, &contract)?;
    embedded::write(embedded::PYTHON, &sdk.join("millstream"))?;
    let app = sdk.join("millstream_app.py");
    fs::write(&app, application(project)).map_err(|source| ToolError::File { path: app, source })?;
    let mut command = Command::new(tool);
    command.current_dir(&work).env("RUST_BACKTRACE", "0");
    command
        .arg("-q")
        .arg("-d")
        .arg(&contract)
        .args(["-w", &format!("{}-plugin", project.kind)]);
    // The plugin's folder is first: tracebacks call it `/0`.
    command
        .args(["componentize", "--stub-wasi", "-p"])
        .arg(&project.folder)
        .arg("-p")
        .arg(&sdk);
    for packages in packages(&project.folder) {
        command.arg("-p").arg(packages);
    }
    command.arg("millstream_app").arg("-o").arg(output);
    script::run(&mut command, verbose)?.map_err(|said| ToolError::Compile {
        name: project.name.clone(),
        said: explained(&said),
    })
}

/// The packages of the project's own environment.
fn packages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for environment in [".venv/lib", "venv/lib"] {
        let Ok(entries) = fs::read_dir(folder.join(environment)) else {
            continue;
        };
        let packages = entries.filter_map(|entry| Some(entry.ok()?.path().join("site-packages")));
        found.extend(packages.filter(|path| path.is_dir()));
    }
    found
}

/// What Python said of the plugin, without the frames of the tool and of the SDK; all of it where that is not found.
fn explained(said: &str) -> String {
    let Some((_, traceback)) = said.split_once("AssertionError: ") else {
        return said.into();
    };
    let traceback = traceback.split("\n\nCaused by:").next().unwrap_or(traceback);
    let mut lines = Vec::new();
    let mut own = true;
    for line in traceback.lines() {
        if line.starts_with("  File \"") {
            own = !line.starts_with("  File \"/1/");
        } else if !line.starts_with(' ') {
            own = true;
        }
        if own {
            lines.push(line.replace("File \"/0/", "File \"").replace("millstream.errors.", ""));
        }
    }
    if lines.first().is_some_and(|line| line.starts_with("Traceback"))
        && !lines.iter().any(|line| line.contains("File \""))
    {
        lines.remove(0);
    }
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(FILE), text).expect("written");
        read(folder.path()).err().expect("is refused").to_string()
    }

    #[test]
    fn a_project_file_says_what_is_missing() {
        assert!(problem("[project]\nname = \"p\"").contains("[tool.millstream]"));
        assert!(problem("[tool.millstream]\nkind = \"processor\"").contains("[project]"));
        assert!(problem("[project\n").contains("pyproject.toml"));
        let with = |kind: &str| format!("[project]\nname = \"p\"\nversion = \"0.1.0\"\n[tool.millstream]\n{kind}");
        assert!(problem(&with("kind = \"router\"")).contains("router"));
        assert!(problem(&with("kynd = \"processor\"")).contains("kynd"));
        assert!(problem(&with("")).contains("kind"));
        assert!(problem(&with("kind = \"processor\"")).contains("\"plugin\" is missing"));
    }

    #[test]
    fn a_traceback_is_the_plugins_own() {
        let said = "Traceback (most recent call last):\n  File \"/x/componentize-py\", line 8, in <module>\nAssertionError: \
                    Traceback (most recent call last):\n  File \"/1/millstream_app.py\", line 4, in <module>\n    glue()\n    ~~~^^\n  \
                    File \"/0/plugin.py\", line 2, in <module>\n    @row\n     ^^^\n  File \"/1/millstream/fields.py\", line 2\n    \
                    raise\nmillstream.errors.DeclarationError: twice\n\n\nCaused by:\n    twice";
        assert_eq!(
            explained(said),
            "Traceback (most recent call last):\n  File \"plugin.py\", line 2, in <module>\n    @row\n     ^^^\nDeclarationError: twice"
        );
        assert_eq!(explained("no traceback"), "no traceback");
    }
}
