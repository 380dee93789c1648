//! Promise: bad input gets an error that names cause, place and remedy; the command fails; nothing is lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use millstream_tests::running::{Running, feed};
use millstream_tests::{document, lines, millstream, on, plugin, refuse, succeed};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A folder with a topic `rides` of three records, and room for pipeline files.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            dir: tempfile::tempdir().expect("a folder"),
        };
        place.produce(
            "rides",
            "{\"total_amount\":1}\n{\"total_amount\":50}\n{\"total_amount\":2}\n",
        );
        place
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn on(&self, args: &[&str]) -> Command {
        on(&self.data(), args)
    }

    fn produce(&self, topic: &str, input: &str) {
        let output = feed(&mut self.on(&["produce", topic]), input.as_bytes());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("the file is written");
        path
    }

    /// What a topic has.
    fn records(&self, topic: &str) -> Vec<Value> {
        lines(&succeed(&mut self.on(&["consume", topic, "--until-end"])))
    }

    fn json(&self, args: &[&str]) -> Value {
        document(&mut self.on(args))
    }

    /// `check` and `run` refuse a pipeline, both with an error that says all this, and `run` has touched nothing.
    fn refused(&self, text: &str, says: &[&str]) {
        let file = self.file("p.toml", text);
        let before = self.json(&["topics", "-o", "json"]);
        let errors = [
            refuse(millstream(["check"]).arg(&file)),
            refuse(self.on(&["run", "--until-end"]).arg(&file)),
        ];
        for error in &errors {
            says_all(error, says);
            assert!(error.contains("p.toml"), "the file: {error}");
        }
        assert_eq!(self.json(&["topics", "-o", "json"]), before, "no topic was made");
        assert_eq!(self.json(&["groups", "-o", "json"]), json!([]), "no offset moved");
    }
}

/// An error without what draws its box and breaks its lines.
fn plain(error: &str) -> String {
    let text: String = error
        .chars()
        .map(|c| {
            if "│╰─▶×·╭╮╯".contains(c) {
                ' '
            } else {
                c
            }
        })
        .collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Asserts that an error says all this, in one way each, and nothing that is for programmers.
fn says_all(error: &str, says: &[&str]) {
    let text = plain(error);
    // Long words are broken to fit: they are looked for without any space too.
    let narrow = |text: &str| text.replace(' ', "");
    for part in says {
        assert!(narrow(&text).contains(&narrow(part)), "{part:?} in:\n{error}");
    }
    for ugly in ["Some(", "None", "Error:", "Os {", "panicked at host", "RUST_BACKTRACE"] {
        assert!(!text.contains(ugly), "{ugly:?} in:\n{error}");
    }
    let cause = says.iter().max_by_key(|part| part.len()).expect("something is said");
    assert_eq!(
        narrow(&text).matches(&narrow(cause)).count(),
        1,
        "{cause:?} is said once in:\n{error}"
    );
}

/// A stage of a plugin under `[stage.s]`, behind the source `rides`.
fn stage(plugin: &Path, rest: &str) -> String {
    format!("[source.rides]\n[stage.s]\nplugin = {plugin:?}\ninput = \"rides\"\n{rest}\n")
}

const HIGH_LOW: &str = "to = { high = \"h\", low = \"l\" }";

#[test]
fn a_file_that_is_not_toml() {
    Place::new().refused(
        "[source.rides]\nthis is [not\n",
        &["p.toml:2", "not TOML", "`key = value`"],
    );
}

#[test]
fn a_file_that_is_not_there() {
    let place = Place::new();
    for command in ["check", "explain", "run"] {
        let error = refuse(
            millstream([command])
                .arg(place.dir.path().join("nope.toml"))
                .current_dir(place.dir.path()),
        );
        says_all(&error, &["nope.toml", "No such file", "check the path"]);
    }
    let folder = refuse(millstream(["check"]).arg(place.dir.path()));
    says_all(&folder, &["cannot be read", "declared in a TOML file"]);
}

#[test]
fn all_unknown_and_missing_keys_are_named_at_once() {
    let text =
        "nmae = \"x\"\n[source.rides]\ntiemstamp = \"a\"\n[stage.s]\ninput = \"rides\"\nlimits = { memry = \"1MB\" }\n";
    let says = [
        "no key `nmae`",
        "did you mean `name`?",
        "p.toml:3:1",
        "no key `tiemstamp`",
        "did you mean `timestamp`?",
        "needs the key `plugin`",
        "`memry`",
        "did you mean `memory`?",
        "has 4 problems",
    ];
    Place::new().refused(text, &says);
}

#[test]
fn files_that_are_no_component_say_what_they_are() {
    let place = Place::new();
    let whole = std::fs::read(plugin("enrich")).expect("the plugin");
    // What the program itself keeps of a component is no plugin either.
    let cache = place.dir.path().join("cache");
    succeed(
        millstream(["inspect"])
            .arg(plugin("enrich"))
            .env("MILLSTREAM_CACHE", &cache),
    );
    let mut kept = std::fs::read_dir(&cache)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    let kept = kept
        .find(|path| path.extension().is_some_and(|end| end == "cwasm"))
        .expect("a compiled one");
    let precompiled = std::fs::read(kept).expect("it can be read");
    let cases: [(&str, &[u8], &[&str]); 7] = [
        (
            "core.wasm",
            b"\0asm\x01\0\0\0",
            &["is a core module, not a component", "encode it as one"],
        ),
        (
            "text.wasm",
            b"hello, world",
            &["is a text file, not a WebAssembly component", "name the .wasm file"],
        ),
        (
            "wat.wasm",
            b"(component)",
            &["is WebAssembly text, not a binary component", "wasm-tools parse"],
        ),
        ("empty.wasm", b"", &["is empty", "build the plugin again"]),
        (
            "cut.wasm",
            &whole[..5000],
            &["is cut off after 5000 bytes", "copy or build it again"],
        ),
        (
            "bytes.wasm",
            &[0xff; 100],
            &["is no WebAssembly at all", "name the .wasm file"],
        ),
        (
            "machine.wasm",
            &precompiled,
            &["is a precompiled component", "give the component it was made from"],
        ),
    ];
    for (name, bytes, says) in cases {
        let path = place.file(name, bytes);
        let mut all = vec!["p.toml:3:10", name];
        all.extend(says);
        place.refused(&stage(Path::new(name), ""), &all);
        says_all(&refuse(millstream(["inspect"]).arg(path)), says);
    }
    place.refused(
        &stage(Path::new("nope.wasm"), ""),
        &[
            "nope.wasm: cannot be read: No such file",
            "relative to the pipeline file",
            "millstream build",
        ],
    );
}

#[test]
fn a_component_of_another_contract_version_names_both() {
    let place = Place::new();
    let mut bytes = std::fs::read(plugin("enrich")).expect("the plugin");
    for at in 0..bytes.len() - 6 {
        if &bytes[at..at + 6] == b"@0.1.0" {
            bytes[at + 3] = b'9';
        }
    }
    let path = place.file("other.wasm", &bytes);
    let says = [
        "was built for version 0.9.0 of the contract",
        "this host speaks 0.1.0",
        "build it with the SDK of this host's release",
    ];
    place.refused(&stage(Path::new("other.wasm"), ""), &says);
    says_all(&refuse(millstream(["inspect"]).arg(path)), &says);
}

#[test]
fn branches_that_are_not_declared_and_branches_that_go_nowhere() {
    let place = Place::new();
    let mapped = |to: &str| stage(&plugin("branch-by-amount"), &format!("to = {{ {to} }}"));
    // A name that is nearly right is one mistake, not two.
    let says = [
        "p.toml:5:20",
        "has no branch `loww`",
        "did you mean `low`?",
        "has a problem",
    ];
    place.refused(&mapped("high = \"o\", loww = \"p\""), &says);
    let says = [
        "the branch `low` of the stage `s` goes nowhere",
        "`low = false`",
        "has no branch `rest`",
        "its branches: `high`, `low`",
        "has 2 problems",
    ];
    place.refused(&mapped("high = \"o\", rest = \"p\""), &says);
}

#[test]
fn a_field_whose_type_does_not_fit_along_a_chain() {
    let chaos = stage(&plugin("chaos"), "config = { kind = \"bad-boolean\" }");
    let text = format!(
        "{chaos}[stage.split]\nplugin = {:?}\ninput = \"s.out\"\nconfig = {{ field = \"/chaos\" }}\n{HIGH_LOW}\n",
        plugin("branch-by-amount")
    );
    Place::new().refused(&text, &["/chaos", "boolean", "float", "`split`", "s.out"]);
}

#[test]
fn stages_in_a_circle() {
    let plugin = plugin("branch-by-amount");
    let text = format!(
        "[source.rides]\n[stage.a]\nplugin = {plugin:?}\ninput = [\"rides\", \"b.high\"]\nto = {{ high = \"x\", low = \"y\" }}\n\
         [stage.b]\nplugin = {plugin:?}\ninput = \"a.high\"\nto = {{ high = \"z\", low = \"w\" }}\n"
    );
    Place::new().refused(
        &text,
        &[
            "the stages go in a circle: a → b → a",
            "let one of them read something else",
        ],
    );
}

#[test]
fn an_unset_variable() {
    let text = stage(&plugin("branch-by-amount"), HIGH_LOW).replace("\"h\"", "\"${MILLSTREAM_TEST_UNSET}\"");
    Place::new().refused(
        &text,
        &[
            "the variable `MILLSTREAM_TEST_UNSET` is not set",
            "p.toml:5",
            "${MILLSTREAM_TEST_UNSET:-…}",
        ],
    );
}

#[test]
fn a_configuration_that_the_plugin_refuses() {
    let text = stage(
        &plugin("branch-by-amount"),
        &format!("config = {{ threshold = \"x\", what = 1 }}\n{HIGH_LOW}"),
    );
    let says = [
        "p.toml:5:10",
        "refuses its configuration",
        "`what` is not a setting",
        "`threshold` must be a number",
    ];
    Place::new().refused(&text, &says);
}

#[test]
fn plugins_that_misbehave_while_they_are_configured() {
    let place = Place::new();
    let cases: [(&str, &[&str]); 4] = [
        (
            "configure-error",
            &["refuses its configuration: this configuration is refused, as it asks to be"],
        ),
        ("configure-panic", &["`configure` failed", "a panic in configure"]),
        (
            "configure-memory",
            &["its limit is 67108864", "raise the stage's `memory` limit"],
        ),
        ("duplicate-branches", &["breaks the contract", "out"]),
    ];
    for (kind, says) in cases {
        let text = stage(
            &plugin("chaos"),
            &format!("config = {{ kind = \"{kind}\" }}\nto.out = \"o\""),
        );
        let mut all = vec!["the stage `s`", "chaos 0.1.0"];
        all.extend(says);
        place.refused(&text, &all);
    }
    let text = stage(&plugin("chaos"), "config = { kind = \"no-branches\" }\nto.out = \"o\"");
    place.refused(&text, &["has no branch `out`", "its branches: none"]);
}

#[test]
fn a_plugin_that_loops_while_it_is_configured() {
    let place = Place::new();
    let text = stage(
        &plugin("chaos"),
        "config = { kind = \"configure-loop\" }\nto.out = \"o\"",
    );
    let error = refuse(place.on(&["run"]).arg(place.file("p.toml", text)));
    says_all(
        &error,
        &[
            "p.toml:3:10",
            "chaos 0.1.0: `configure` failed",
            "did not end within 5s of processor time",
            "look for an endless loop",
        ],
    );
    assert!(
        !plain(&error).contains("`time` limit"),
        "no limit of the stage would help: {error}"
    );
}

#[test]
fn two_pipelines_of_one_name() {
    let place = Place::new();
    let text = stage(&plugin("branch-by-amount"), HIGH_LOW);
    let (one, two) = (
        place.file("one.toml", format!("name = \"p\"\n{text}")),
        place.file("p.toml", text),
    );
    for command in ["check", "run"] {
        let error = refuse(
            millstream([command])
                .args([&one, &two])
                .env("MILLSTREAM_DATA", place.data()),
        );
        says_all(
            &error,
            &[
                "one.toml",
                "p.toml",
                "are both named \"p\"",
                "give one of them another `name`",
            ],
        );
    }
    assert_eq!(place.json(&["groups", "-o", "json"]), json!([]));
}

/// The headers of a dead letter, by name.
fn header<'r>(record: &'r Value, name: &str) -> &'r str {
    let headers = record["headers"].as_array().expect("headers are pairs");
    let header = headers.iter().rev().find(|header| header[0] == name);
    header
        .and_then(|header| header[1].as_str())
        .unwrap_or_else(|| panic!("{name} in {headers:?}"))
}

#[test]
fn records_that_do_not_fit_become_dead_letters_and_the_rest_goes_on() {
    let place = Place::new();
    let deep = format!("{{\"total_amount\":1,\"d\":{}{}}}", "[".repeat(500), "]".repeat(500));
    let megabyte = "x".repeat(1_000_000);
    let broken = [
        (json!({"value": "no json", "key": "k"}), "not JSON"),
        (json!({"value": {"a": 1}, "headers": [["h", "1"]]}), "no such member"),
        (json!({"value": {"total_amount": "text"}}), "is of type float"),
        (json!({"value": {"total_amount": null}}), "null"),
        (json!({"value": null, "key": null}), "null"),
        (json!({"value": ""}), "not JSON"),
        (json!({"value": deep}), "nested"),
        (json!({"value_base64": "//8="}), "UTF-8"),
        (json!({"value": megabyte}), "not JSON"),
    ];
    let mut input = String::new();
    for (n, (record, _)) in broken.iter().enumerate() {
        input += &format!(
            "{record}\n{{\"total_amount\":{n},\"x\":\"{}\"}}\n",
            if n == 0 { &megabyte } else { "" }
        );
    }
    input += "{\"key\":null,\"value\":{\"total_amount\":60}}\n";
    place.produce("in", &input);
    let text = stage(&plugin("branch-by-amount"), HIGH_LOW).replace("rides", "in");
    let said = {
        let output = place
            .on(&["run", "--until-end"])
            .arg(place.file("p.toml", text))
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said.contains("dead_letters=9"), "{said}");
    assert_eq!((place.records("l").len(), place.records("h").len()), (broken.len(), 1));
    let letters = place.records("p-dlq");
    assert_eq!(letters.len(), broken.len());
    for (n, (letter, (record, why))) in letters.iter().zip(&broken).enumerate() {
        for member in ["key", "value", "value_base64"] {
            assert_eq!(
                letter.get(member).unwrap_or(&Value::Null),
                record.get(member).unwrap_or(&Value::Null),
                "the bytes as they were"
            );
        }
        assert!(
            header(letter, "__streams.errors.message").contains(why),
            "{why}: {}",
            header(letter, "__streams.errors.message")
        );
        assert_eq!(header(letter, "__millstream.reason"), "decode");
        assert_eq!(header(letter, "__streams.errors.topic"), "in");
        assert_eq!(header(letter, "__streams.errors.offset"), (2 * n).to_string());
        assert_eq!(header(letter, "__millstream.pipeline"), "p");
        assert_eq!(header(letter, "__millstream.stage"), "s");
    }
    assert_eq!(header(&letters[1], "h"), "1", "its own headers stay");
    assert_eq!(place.json(&["groups", "-o", "json"])[0]["partitions"][0]["lag"], 0);
}

#[test]
fn a_plugin_that_fails_in_a_batch_costs_one_record() {
    let place = Place::new();
    let mut input: String = (0..500).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    input += "{\"n\":500,\"poison\":true}\n";
    input += &(501..900).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>();
    place.produce("in", &input);
    let cases = [
        ("panic", "call", "a poisoned row"),
        ("loop", "call", "did not end within"),
        ("memory-at-once", "call", "memory"),
        ("origin-out-of-range", "call", "breaks the contract"),
        ("failed-row", "refused", ""),
    ];
    for (kind, reason, why) in cases {
        let text = stage(
            &plugin("chaos"),
            &format!("config = {{ kind = \"{kind}\" }}\nto.out = \"{kind}\"\nlimits = {{ time = \"50ms\" }}"),
        );
        let file = place.file(&format!("p-{kind}.toml"), text.replace("rides", "in"));
        let output = place.on(&["run", "--until-end"]).arg(file).output().expect("it starts");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let numbers: Vec<_> = place
            .records(kind)
            .iter()
            .map(|record| record["value"]["n"].as_u64().expect("a number"))
            .collect();
        assert_eq!(
            numbers,
            (0..900).filter(|n| *n != 500).collect::<Vec<_>>(),
            "{kind}: the rest, in order"
        );
        let letters = place.records(&format!("p-{kind}-dlq"));
        assert_eq!(
            (letters.len(), &letters[0]["value"]),
            (1, &json!({"n": 500, "poison": true})),
            "{kind}"
        );
        assert_eq!(header(&letters[0], "__millstream.reason"), reason, "{kind}");
        assert!(
            header(&letters[0], "__streams.errors.message").contains(why),
            "{kind}: {letters:?}"
        );
        if kind == "panic" {
            assert!(header(&letters[0], "__streams.errors.stacktrace").contains("process"));
        }
    }
}

#[test]
fn input_that_produce_cannot_read_is_named_with_its_line_and_what_came_before_is_committed() {
    let place = Place::new();
    let ragged = place.file("ragged.csv", "a,b\n1,2\n3,4\n5\n6,7\n");
    let error = refuse(
        place
            .on(&["produce", "csv", "--format", "csv"])
            .arg("--file")
            .arg(&ragged),
    );
    says_all(
        &error,
        &[
            "ragged.csv, line 4: 2 columns expected",
            "1 found",
            "2 records in csv, committed",
        ],
    );
    assert_eq!(place.records("csv").len(), 2);

    let refused = |topic: &str, args: &[&str], input: &str, says: &[&str], records: usize| {
        let output = feed(place.on(&["produce", topic]).args(args), input.as_bytes());
        assert_eq!(output.status.code(), Some(1), "{topic}");
        says_all(&String::from_utf8_lossy(&output.stderr), says);
        assert_eq!(place.records(topic).len(), records, "{topic}: what came before");
    };
    refused(
        "cut",
        &[],
        "{\"a\":1}\n{\"a\":\n{\"a\":3}\n",
        &["stdin, line 2", "not JSON", "the text ends there"],
        1,
    );
    refused(
        "no-record",
        &[],
        "{\"a\":1}\n\n{\"value\":1,\"colour\":2}\n",
        &["stdin, line 3", "\"colour\"", "{\"value\":{…}}"],
        1,
    );
    refused(
        "time",
        &["--timestamp", "at"],
        "{\"at\":5}\n{\"at\":\"noon\"}\n{\"at\":6}\n",
        &["stdin, line 2", "noon"],
        1,
    );
    let too_large = format!("{{\"a\":1}}\n{{\"a\":\"{}\"}}\n{{\"a\":2}}\n", "x".repeat(3_000_000));
    refused(
        "large",
        &[],
        &too_large,
        &["stdin, line 2", "bytes of value are more than the 2097152", "split it"],
        1,
    );
    let key = format!("{{\"value\":1}}\n{{\"value\":1,\"key\":\"{}\"}}\n", "k".repeat(5000));
    refused(
        "key",
        &[],
        &key,
        &["stdin, line 2", "5000 bytes of key are more than the 4096"],
        1,
    );
    refused(
        "column",
        &["--format", "csv", "--key", "c"],
        "a,b\n1,2\n",
        &["stdin has no column \"c\" for --key", "its columns: a, b"],
        0,
    );
}

#[test]
fn names_that_cannot_be_and_things_that_are_not_there() {
    let place = Place::new();
    let before = place.json(&["topics", "-o", "json"]);
    let name = &["topic \"a/b\" cannot be made", "a-z, A-Z, 0-9"];
    says_all(&refuse(&mut place.on(&["produce", "a/b"])), name);
    says_all(&refuse(&mut place.on(&["topics", "create", "a/b"])), name);
    says_all(
        &refuse(&mut place.on(&["topics", "create", "rides"])),
        &["there is already a topic \"rides\""],
    );
    for args in [
        &["consume", "nope"][..],
        &["topics", "delete", "nope"],
        &["topics", "describe", "nope"],
    ] {
        says_all(
            &refuse(&mut place.on(args)),
            &["there is no topic \"nope\"", "`millstream topics create nope`"],
        );
    }
    says_all(
        &refuse(&mut place.on(&["groups", "delete", "nope"])),
        &["there is no consumer group \"nope\""],
    );
    says_all(
        &refuse(place.on(&["produce", "new"]).args(["--file", "nope.csv"])),
        &["nope.csv cannot be read", "No such file"],
    );
    assert_eq!(
        place.json(&["topics", "-o", "json"]),
        before,
        "nothing was made on the way"
    );
    for args in [
        &["topics", "create", "t", "--partitions", "0"][..],
        &["topics", "create", "t", "--partitions", "5000"],
        &["topics", "create", "t", "--retention", "soon"],
        &["produce", "t", "--rate", "0"],
        &["produce", "t", "--delimiter", "é"],
        &["consume", "rides", "--from", "yesterday"],
        &["run", "p.toml", "--workers", "0"],
    ] {
        let output = place.on(args).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(
            said.contains(args[args.len() - 2]) && said.contains(args[args.len() - 1]),
            "option and value: {said}"
        );
    }
}

#[test]
fn folders_that_have_no_plugin_to_build() {
    let dir = tempfile::tempdir().expect("a folder");
    says_all(
        &refuse(millstream(["build", "--verbose"]).arg(dir.path())),
        &["has no Cargo.toml", "name the folder of a plugin's crate"],
    );
    says_all(
        &refuse(millstream(["build"]).arg(dir.path().join("nope"))),
        &["has no Cargo.toml"],
    );
}

#[test]
fn data_folders_that_cannot_be_used() {
    let place = Place::new();
    let on = |folder: &Path, args: &[&str]| refuse(millstream(args).arg("--data").arg(folder));
    let file = place.file("file", "x");
    says_all(&on(&file, &["topics"]), &["is a file: name a folder"]);
    says_all(&on(&file, &["produce", "t"]), &["is a file: name a folder"]);
    let missing = place.dir.path().join("typo");
    says_all(
        &on(&missing, &["consume", "rides"]),
        &["there is no data folder", "typo", "--data"],
    );
    assert!(!missing.exists(), "whoever reads makes no folder");
    let strange = place.dir.path().join("thesis");
    std::fs::create_dir(&strange).expect("a folder");
    std::fs::write(strange.join("thesis.tex"), "x").expect("a file");
    says_all(
        &on(&strange, &["topics"]),
        &[
            "no data folder of Millstream",
            "thesis.tex",
            "name an empty or a new folder",
        ],
    );

    let format = place.data().join("FORMAT");
    let written = std::fs::read(&format).expect("it has a version");
    std::fs::write(&format, "millstream 9\n").expect("the version is written");
    let pipeline = place.file("p.toml", stage(&plugin("branch-by-amount"), HIGH_LOW));
    says_all(
        &on(&place.data(), &["topics"]),
        &["has format 9, this program reads format 1", "use the newer program"],
    );
    says_all(
        &refuse(place.on(&["run"]).arg(pipeline)),
        &["has format 9, this program reads format 1"],
    );
    std::fs::write(&format, written).expect("the version is written");
    assert_eq!(place.records("rides").len(), 3, "nothing was changed");
}

#[test]
fn a_data_folder_without_permission() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let place = Place::new();
    let allow =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    allow(place.dir.path(), 0o755);
    allow(&place.data(), 0o500);
    // The administrator may do everything: another user asks, with a program that this one can reach.
    let program = place.dir.path().join("millstream");
    std::fs::copy(millstream_tests::program(), &program).expect("a copy");
    allow(&program, 0o755);
    let mut command = Command::new(&program);
    command.args(["topics", "--data"]).arg(place.data());
    if rustix::process::geteuid().is_root() {
        const NOBODY: u32 = 65_534;
        command.uid(NOBODY).gid(NOBODY);
    }
    says_all(
        &refuse(&mut command),
        &[
            "no permission for the data folder",
            "Permission denied",
            "give it to this user",
            "--data",
        ],
    );
    allow(&place.data(), 0o700);
    assert_eq!(place.records("rides").len(), 3);
}

#[test]
fn a_topic_that_is_deleted_under_a_pipeline_ends_that_pipeline_alone() {
    let place = Place::new();
    let plugin = plugin("branch-by-amount");
    let text = |topic: &str| {
        stage(
            &plugin,
            &format!("to = {{ high = \"{topic}-high\", low = \"{topic}-low\" }}"),
        )
        .replace("rides", topic)
    };
    let (one, two) = (place.file("one.toml", text("one")), place.file("two.toml", text("two")));
    let mut host = Running::host(&place.data(), &[&one, &two]);
    place.produce("one", "{\"total_amount\":1}\n");
    place.produce("two", "{\"total_amount\":1}\n");
    host.wait_for("both work", |_| {
        place.records("one-low").len() == 1 && place.records("two-low").len() == 1
    });
    succeed(&mut place.on(&["topics", "delete", "one"]));
    host.wait_for("it is said", |host| host.err().contains("there is no topic \"one\""));
    place.produce("two", "{\"total_amount\":2}\n");
    host.wait_for("the other goes on", |_| place.records("two-low").len() == 2);
    host.signal(Signal::TERM);
    let (status, _) = host.end();
    assert_eq!(status.code(), Some(1), "a pipeline had failed");
    let error = host.err();
    assert!(
        plain(&error).contains("pipeline \"one\" stopped: topic \"one\", partition 0: there is no topic \"one\""),
        "{error}"
    );
    assert_eq!(place.records("one-low").len(), 1, "what it had written stays");
}

#[test]
fn a_pipeline_whose_output_topic_is_deleted_waits_for_it() {
    let place = Place::new();
    let file = place.file("p.toml", stage(&plugin("branch-by-amount"), HIGH_LOW));
    let mut host = Running::host(&place.data(), &[&file]);
    host.wait_for("it works", |_| place.records("l").len() == 2);
    succeed(&mut place.on(&["topics", "delete", "l"]));
    place.produce("rides", "{\"total_amount\":3}\n{\"total_amount\":60}\n");
    host.wait_for("it is said", |host| {
        host.err().contains("paused") && host.err().contains("\"l\"")
    });
    succeed(&mut place.on(&["topics", "create", "l"]));
    host.wait_for("it goes on", |_| {
        place.records("l").len() == 1 && place.records("h").len() == 2
    });
    host.stop(Signal::TERM);
}
