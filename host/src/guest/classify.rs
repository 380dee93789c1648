//! What a file is, before anything is done with it.
//!
//! Only names at the outermost level are looked at; the whole component is validated when it is compiled, in the child.

use wasmparser::{KnownCustom, Parser, Payload, ProducersSectionReader};
use wasmtime::{Engine, Precompiled};

use super::bindings::{AGGREGATOR, CONTRACT_PACKAGE, CONTRACT_VERSION, LIFECYCLE, PROCESSOR};
use super::error::LoadProblem;
use super::imports::is_provided;
use crate::limits::{COMPONENT_NAMES_MAX, MEMORY_BYTES_MAX, MEMORY_BYTES_MAX_OF_LANGUAGES};
use crate::schema::PluginKind;

/// A component, by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// The kind of plugin.
    pub kind: PluginKind,
    /// The version of the contract that it was built against.
    pub contract_version: String,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// Memory that an instance may take where nobody says: by the language of its tools.
    pub memory_bytes_max: usize,
}

/// Says what kind of plugin these bytes are, or why they are none.
pub fn classify(bytes: &[u8]) -> Result<Classified, LoadProblem> {
    let header: &[u8] = bytes.get(..8).unwrap_or(bytes);
    match header {
        [] => return Err(LoadProblem::Empty),
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0] => {}
        [0, b'a', b's', b'm', 1, 0, 0, 0] => return Err(LoadProblem::CoreModule),
        [0, b'a', b's', b'm', version, _, 1, 0] => return Err(LoadProblem::OldEncoding { version: *version }),
        [0, b'a', b's', b'm', ..] if bytes.len() < 8 => return Err(LoadProblem::Truncated { at: bytes.len() }),
        _ => return Err(not_wasm(bytes)),
    }
    let Names {
        imports,
        exports,
        memory_bytes_max,
    } = names(bytes)?;
    let version = contract_version(&imports, &exports)?;
    refuse_imports(&imports)?;
    let exported = |interface: &str| {
        let interface = without_version(interface);
        exports.iter().any(|name| without_version(name) == interface)
    };
    let Some(contract_version) = version.filter(|_| exported(LIFECYCLE)) else {
        return Err(LoadProblem::NoLifecycle { exports });
    };
    let kind = match (exported(PROCESSOR), exported(AGGREGATOR)) {
        (true, false) => PluginKind::Processor,
        (false, true) => PluginKind::Aggregator,
        (true, true) => return Err(LoadProblem::BothKinds),
        (false, false) => return Err(LoadProblem::NoKind { exports }),
    };
    Ok(Classified {
        kind,
        contract_version,
        imports,
        exports,
        memory_bytes_max,
    })
}

fn not_wasm(bytes: &[u8]) -> LoadProblem {
    if let Some(kind) = Engine::detect_precompiled(bytes) {
        let what = match kind {
            Precompiled::Module => "module",
            Precompiled::Component => "component",
        };
        return LoadProblem::Precompiled { what };
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let text = text.trim_start();
            if text.starts_with("(component") || text.starts_with("(module") || text.starts_with(";;") {
                return LoadProblem::TextFormat;
            }
            LoadProblem::Text
        }
        Err(_) => LoadProblem::NotWebAssembly,
    }
}

/// What the outermost component says of itself.
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
    memory_bytes_max: usize,
}

/// Imports, exports and language of the outermost component.
fn names(bytes: &[u8]) -> Result<Names, LoadProblem> {
    let invalid = |error: wasmparser::BinaryReaderError| {
        if error.message().contains("unexpected end") {
            return LoadProblem::Truncated { at: bytes.len() };
        }
        LoadProblem::Invalid(error.to_string())
    };
    let mut imports = Vec::new();
    let mut exports = Vec::new();
    let mut memory_bytes_max = MEMORY_BYTES_MAX;
    let mut parser = Parser::new(0);
    let mut rest = bytes;
    loop {
        let (consumed, payload) = match parser.parse(rest, true).map_err(invalid)? {
            wasmparser::Chunk::Parsed { consumed, payload } => (consumed, payload),
            wasmparser::Chunk::NeedMoreData(_) => return Err(LoadProblem::Truncated { at: bytes.len() }),
        };
        let mut skip = 0;
        match payload {
            Payload::ComponentImportSection(section) => {
                for import in section {
                    imports.push(import.map_err(invalid)?.name.name.to_owned());
                    bounded(&imports, "imports")?;
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    exports.push(export.map_err(invalid)?.name.name.to_owned());
                    bounded(&exports, "exports")?;
                }
            }
            // What is nested is passed over as a whole, however deep it goes.
            Payload::ModuleSection { unchecked_range, .. } | Payload::ComponentSection { unchecked_range, .. } => {
                skip = usize::try_from(unchecked_range.end - unchecked_range.start).unwrap_or(usize::MAX);
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Producers(producers) = section.as_known() {
                    memory_bytes_max = memory_bytes_max.max(memory_of_language(producers));
                }
            }
            Payload::End(_) => {
                return Ok(Names {
                    imports,
                    exports,
                    memory_bytes_max,
                });
            }
            _ => {}
        }
        rest = rest
            .get(consumed.saturating_add(skip)..)
            .ok_or(LoadProblem::Truncated { at: bytes.len() })?;
    }
}

/// What the language needs that a component's tools say they compiled. What cannot be read says nothing.
fn memory_of_language(producers: ProducersSectionReader<'_>) -> usize {
    let fields = producers.into_iter().filter_map(Result::ok);
    let languages = fields.filter(|field| field.name == "language");
    let values = languages.flat_map(|field| field.values.into_iter().filter_map(Result::ok));
    let needs = values.filter_map(|value| {
        MEMORY_BYTES_MAX_OF_LANGUAGES
            .iter()
            .find(|(name, _)| *name == value.name)
    });
    needs.map(|(_, bytes)| *bytes).max().unwrap_or(MEMORY_BYTES_MAX)
}

fn bounded(names: &[String], what: &'static str) -> Result<(), LoadProblem> {
    if names.len() > COMPONENT_NAMES_MAX {
        return Err(LoadProblem::TooManyNames {
            what,
            limit: COMPONENT_NAMES_MAX,
        });
    }
    Ok(())
}

/// The version of the contract in the names, if it is one that the host speaks.
fn contract_version(imports: &[String], exports: &[String]) -> Result<Option<String>, LoadProblem> {
    let mut found = None;
    for name in exports.iter().chain(imports) {
        let Some((package, rest)) = name.split_once('/') else {
            continue;
        };
        if package != CONTRACT_PACKAGE {
            continue;
        }
        let Some((_, version)) = rest.split_once('@') else {
            return Err(LoadProblem::NoVersion {
                interface: name.clone(),
            });
        };
        // Below 1.0 a minor version breaks what was before it.
        let line = |version: &str| version.rsplit_once('.').map(|(line, _)| line.to_owned());
        if line(version) != line(CONTRACT_VERSION) {
            return Err(LoadProblem::OtherVersion {
                interface: name.clone(),
                found: version.to_owned(),
                supported: CONTRACT_VERSION,
            });
        }
        found.get_or_insert_with(|| version.to_owned());
    }
    Ok(found)
}

fn refuse_imports(imports: &[String]) -> Result<(), LoadProblem> {
    let (ungranted, unknown): (Vec<_>, Vec<_>) = imports
        .iter()
        .filter(|name| !is_provided(name))
        .cloned()
        .partition(|name| name.starts_with("wasi:"));
    if !ungranted.is_empty() {
        return Err(LoadProblem::Ungranted { imports: ungranted });
    }
    if !unknown.is_empty() {
        return Err(LoadProblem::UnknownImports { imports: unknown });
    }
    Ok(())
}

/// A name of an interface without its version.
pub fn without_version(name: &str) -> &str {
    name.split_once('@').map_or(name, |(interface, _)| interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(body: &str) -> Vec<u8> {
        wat::parse_str(format!("(component {body})")).expect("parses")
    }

    fn exports(names: &[&str]) -> String {
        let mut text = "(instance $i)".to_owned();
        for name in names {
            text += &format!("(export \"{name}\" (instance $i))");
        }
        text
    }

    #[test]
    fn kinds_are_known_by_what_is_exported() {
        let found = classify(&component(&exports(&[LIFECYCLE, PROCESSOR]))).expect("a plugin");
        assert_eq!(found.kind, PluginKind::Processor);
        assert_eq!(found.contract_version, "0.1.0");
        let found = classify(&component(&exports(&[LIFECYCLE, AGGREGATOR]))).expect("a plugin");
        assert_eq!(found.kind, PluginKind::Aggregator);
    }

    #[test]
    fn what_is_no_plugin_is_told_apart() {
        let whole = component(&exports(&[LIFECYCLE, PROCESSOR]));
        let import = |name: &str| format!("(import \"{name}\" (instance)){}", exports(&[LIFECYCLE, PROCESSOR]));
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (vec![], "is empty"),
            (b"hello".to_vec(), "a text file"),
            (b"  (component)".to_vec(), "WebAssembly text"),
            (b";; by hand\n(module)".to_vec(), "WebAssembly text"),
            (vec![0xff; 100], "no WebAssembly"),
            (b"\0asm".to_vec(), "cut off"),
            (b"\0asm\x01\0\0\0".to_vec(), "a core module"),
            (b"\0asm\x0c\0\x01\0".to_vec(), "draft"),
            (whole[..whole.len() - 3].to_vec(), "cut off"),
            (component(""), "does not export"),
            (component(&exports(&[LIFECYCLE])), "neither"),
            (component(&exports(&[LIFECYCLE, PROCESSOR, AGGREGATOR])), "both"),
            (component(&exports(&["millstream:plugin/lifecycle@0.2.0"])), "0.2.0"),
            (
                component(&exports(&["millstream:plugin/lifecycle"])),
                "without a version",
            ),
            (component(&import("millstream:plugin/state@1.0.0")), "1.0.0"),
            (component(&import("wasi:sockets/tcp@0.2.0")), "wasi:sockets/tcp@0.2.0"),
            (component(&import("wasi:http/types@0.2.0")), "does not grant"),
            (component(&import("acme:db/sql@1.0.0")), "acme:db/sql@1.0.0"),
        ];
        for (bytes, expected) in cases {
            let problem = classify(&bytes).expect_err(expected).to_string();
            assert!(problem.contains(expected), "{problem:?} does not say {expected:?}");
        }
    }

    #[test]
    fn names_are_bounded() {
        let many: Vec<String> = (0..1001).map(|i| format!("a:b/i{i}@1.0.0")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let problem = classify(&component(&exports(&many))).expect_err("too many").to_string();
        assert!(problem.contains("1000 exports"), "{problem}");
    }
}
