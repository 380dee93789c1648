//! JavaScript: `componentize-js` puts SpiderMonkey, the plugin and its packages into a component, started and stopped once,
//! so that what modules do when they are imported is done.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::script::{self, Project};
use super::{BuildOptions, Built, Finding, ToolError, Toolchain, embedded};

const FILE: &str = "package.json";
const TOOL: &str = "@bytecodealliance/componentize-js";
const TOOL_LEAST: (u32, u32) = (0, 23);
const INSTALL: &str = "npm install --save-dev @bytecodealliance/componentize-js@0.23";
const NODE_LEAST: (u32, u32) = (20, 0);
const NODE_INSTALL: &str = "see https://nodejs.org/en/download (Debian: apt-get install nodejs npm)";
const PLACES: &[&str] = &[
    "node_modules/@bytecodealliance/componentize-js/src/cli.js",
    "target/tools/javascript/node_modules/@bytecodealliance/componentize-js/src/cli.js",
];

/// Plugins in JavaScript: folders with a `package.json` that has a member `millstream`.
pub struct JavaScript;

#[derive(Deserialize)]
struct File {
    name: Option<String>,
    version: Option<String>,
    #[serde(default)]
    description: String,
    main: Option<String>,
    millstream: Option<Settings>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    kind: String,
}

impl Toolchain for JavaScript {
    fn language(&self) -> &'static str {
        "JavaScript"
    }

    fn is_of(&self, folder: &Path) -> bool {
        fs::read_to_string(folder.join(FILE)).is_ok_and(|text| text.contains("\"millstream\""))
    }

    fn doctor(&self, folder: &Path) -> Vec<Finding> {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let (_, node, _, tool) = find(&folder);
        vec![node, tool]
    }

    fn build(&self, folder: &Path, options: &BuildOptions) -> Result<Built, ToolError> {
        let project = read(folder)?;
        let (node, node_finding, tool, finding) = find(&project.folder);
        let mut kit = Sha256::new();
        kit.update(format!("{:?} {:?}", node_finding.found, finding.found));
        for files in [embedded::CONTRACT, embedded::JAVASCRIPT, embedded::JAVASCRIPT_BUILD] {
            embedded::digest(files, &mut kit);
        }
        node_finding.require()?;
        finding.require()?;
        project.build(options, kit, |output| {
            componentize(&project, &node, &tool, output, options.verbose)
        })
    }
}

/// Node and the folder of componentize-js.
fn find(folder: &Path) -> (PathBuf, Finding, PathBuf, Finding) {
    let node = script::find(folder, &[], "node");
    let node_path = node.clone().unwrap_or_else(|| "node".into());
    let node_finding = script::checked("node", node, script::version(&node_path), NODE_LEAST, NODE_INSTALL);
    // What is installed for all users is a link in the search path.
    let script = script::find(folder, PLACES, "componentize-js").and_then(|path| path.canonicalize().ok());
    let tool = script
        .as_deref()
        .and_then(Path::parent)
        .and_then(Path::parent)
        .map(Path::to_owned);
    let finding = script::checked(TOOL, tool.clone(), tool_version(tool.as_deref()), TOOL_LEAST, INSTALL);
    (node_path, node_finding, tool.unwrap_or_default(), finding)
}

fn tool_version(tool: Option<&Path>) -> Result<String, String> {
    let path = tool.map(|tool| tool.join(FILE)).unwrap_or_default();
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file: File = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    file.version.ok_or_else(|| "its package.json has no version".into())
}

fn read(folder: &Path) -> Result<Project, ToolError> {
    let (folder, path, text) = script::project_file(folder, FILE)?;
    let problem = |problem: String, help: &str| ToolError::Project {
        path: path.clone(),
        problem,
        help: help.into(),
    };
    let help = "write\n  \"name\": \"my-plugin\", \"version\": \"0.1.0\", \"type\": \"module\", \"main\": \"plugin.js\",\n  \
                \"millstream\": { \"kind\": \"processor\" }";
    let file: File = serde_json::from_str(&text).map_err(|error| problem(error.to_string(), help))?;
    let settings = file
        .millstream
        .ok_or_else(|| problem("the member `millstream` is missing".into(), help))?;
    let project = Project {
        folder,
        name: file
            .name
            .ok_or_else(|| problem("the member `name` is missing".into(), help))?,
        version: file
            .version
            .ok_or_else(|| problem("the member `version` is missing".into(), help))?,
        summary: file.description,
        kind: settings.kind,
        entry: file.main.unwrap_or_else(|| "plugin.js".into()),
    };
    script::check(&path, &project.name, &project.version, &project.kind)?;
    if !project.folder.join(&project.entry).is_file() {
        let text = format!("the file {:?} is missing", project.entry);
        return Err(problem(
            text,
            "the plugin stands in plugin.js, or in the file that `main` names",
        ));
    }
    Ok(project)
}

fn componentize(project: &Project, node: &Path, tool: &Path, output: &Path, verbose: bool) -> Result<(), ToolError> {
    let work = project.work();
    let (contract, sdk) = (work.join("wit"), work.join("sdk"));
    embedded::write(embedded::CONTRACT, &contract)?;
    embedded::write(embedded::JAVASCRIPT, &sdk)?;
    embedded::write(embedded::JAVASCRIPT_BUILD, &work)?;
    let plan = json!({
        "tool": tool, "project": project.folder, "entry": project.entry, "sdk": sdk, "wit": contract,
        "work": work.join("stage"), "output": output, "kind": project.kind, "name": project.name,
        "version": project.version, "summary": project.summary,
    });
    let mut command = Command::new(node);
    command.arg(work.join("build.mjs")).arg(plan.to_string());
    script::run(&mut command, verbose)?.map_err(|said| ToolError::Compile {
        name: project.name.clone(),
        said,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_file_says_what_is_missing() {
        let problem = |text: &str| {
            let folder = tempfile::tempdir().expect("a folder");
            fs::write(folder.path().join(FILE), text).expect("written");
            read(folder.path()).err().expect("is refused").to_string()
        };
        assert!(problem("{").contains("package.json"));
        assert!(problem("{}").contains("`millstream` is missing"));
        assert!(problem(r#"{"millstream": {"kind": "processor"}}"#).contains("`name` is missing"));
        assert!(problem(r#"{"millstream": {"kynd": "processor"}}"#).contains("kynd"));
        let named = |rest: &str| format!(r#"{{"name": "p", "version": "0.1.0", {rest}}}"#);
        assert!(problem(&named(r#""millstream": {"kind": "router"}"#)).contains("router"));
        assert!(
            problem(&named(r#""millstream": {"kind": "processor"}, "main": "x.js""#)).contains("\"x.js\" is missing")
        );
    }

    #[test]
    fn a_folder_of_another_language_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!JavaScript.is_of(folder.path()));
        fs::write(folder.path().join(FILE), "{\"name\": \"a-web-page\"}").expect("written");
        assert!(!JavaScript.is_of(folder.path()));
    }
}
