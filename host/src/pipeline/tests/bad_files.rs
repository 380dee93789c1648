//! What is wrong with files in themselves.

use super::{parse, refused};

/// A sound file with something before and within it.
fn with(top: &str, source: &str, stage: &str) -> String {
    format!("{top}\n[source.rides]\n{source}\n[stage.split]\nplugin = \"split.wasm\"\ninput = \"rides\"\n{stage}\n")
}

#[test]
fn what_is_not_toml() {
    refused(
        "name = taxi\n",
        &[("not TOML: a string stands in quotes", "taxi", "write \"taxi\"")],
    );
    refused("[source.rides\nx = 1", &[("not TOML: unclosed table", "", "`[table]`")]);
    refused("{\"name\": \"taxi\"}", &[("not TOML", "", "`key = value`")]);
    refused(
        "\n\u{0}asm\u{1}",
        &[("not TOML: line 2 has the control character \\u{0}", "", "right file")],
    );
    let report = parse(&with("name = \"a\\u001b[31m\"", "", "")).expect_err("no name");
    assert!(!report.render(80, false).contains('\u{1b}'), "{report:?}");
    refused(
        "[source.rides]\n[stage.a]\nplugin = \"p.wasm\"\ninput = \"rides\"\n[stage.a]\nplugin = \"q.wasm\"\ninput = \"rides\"\n",
        &[("not TOML: duplicate key", "a", "stand only once")],
    );
}

#[test]
fn a_torn_line_does_not_hide_the_rest() {
    let text = "nmae = \"taxi\"\n[source.rides]\ntopic = \n[stage.split]\nplugin = 7\ninput = \"rides\"\n";
    refused(
        text,
        &[
            ("a pipeline has no key `nmae`", "nmae", "did you mean `name`?"),
            ("not TOML", "", ""),
            (
                "`plugin` has the wrong type: expected a string; found the integer 7",
                "7",
                "quotes",
            ),
        ],
    );
}

#[test]
fn an_empty_file_says_what_a_pipeline_needs() {
    refused(
        "",
        &[
            ("a pipeline needs the key `source`", "", "add `source = "),
            ("a pipeline needs the key `stage`", "", "plugin = "),
        ],
    );
    refused(
        "[source]\n[stage]\n",
        &[
            ("`source` is empty", "[source]", "[source.rides]"),
            ("`stage` is empty", "[stage]", "[stage.split]"),
        ],
    );
}

#[test]
fn unknown_keys_get_the_nearest_name_or_their_place() {
    refused(
        &with(
            "engin = \"embedded\"\nmemory = \"1GB\"",
            "tiemstamp = \"/t\"",
            "to.high = { topic = \"x\", partition = 3 }\ndelimiter = 3\nzzz = 1\nlimits.mem = \"64MB\"",
        ),
        &[
            (
                "a pipeline has no key `engin`",
                "engin",
                "did you mean `engine`? keys here: `name`, `engine`, `source`",
            ),
            (
                "a pipeline has no key `memory`",
                "memory",
                "`memory` is a key of limits; keys here: `name`",
            ),
            (
                "a source has no key `tiemstamp`",
                "tiemstamp",
                "did you mean `timestamp`?",
            ),
            (
                "a branch's topic has no key `partition`",
                "partition",
                "did you mean `partitions`?",
            ),
            (
                "a stage has no key `delimiter`",
                "delimiter",
                "`delimiter` is a key of csv; keys here: `plugin`",
            ),
            (
                "a stage has no key `zzz`",
                "zzz",
                "keys here: `plugin`, `input`, `config`, `key`, `partitions`, `window`, `emit`, `to`, `limits`, `grant`",
            ),
            ("limits has no key `mem`", "mem", "did you mean `memory`?"),
        ],
    );
}

#[test]
fn missing_keys_are_asked_for_where_they_belong() {
    refused(
        "[source.rides]\nformat = { csv = {} }\n[stage.split]\nto.high = { partitions = 3 }\n",
        &[
            (
                "csv needs the key `columns`",
                "{}",
                "add `columns = [\"VendorID\", \"fare_amount\"]`",
            ),
            (
                "a stage needs the key `plugin`",
                "[stage.split]",
                "add `plugin = \"split.wasm\"`: the component's file",
            ),
            (
                "a stage needs the key `input`",
                "[stage.split]",
                "add `input = \"rides\"`",
            ),
            (
                "a branch's topic needs the key `topic`",
                "{ partitions = 3 }",
                "add `topic =",
            ),
        ],
    );
}

#[test]
fn wrong_types_say_what_was_expected_and_found() {
    refused(
        &with(
            "name = 5\ncommit = { interval = 100, bytes = 1.5 }\ndlq = \"dead\"",
            "topic = true\npartitions = \"4\"\nformat = 1",
            "config = \"x\"\nlimits = []\ngrant = \"clock\"\nto = { high = true, low = 3, mid = 2020-01-01 }",
        ),
        &[
            (
                "`name` has the wrong type: expected a string; found the integer 5",
                "5",
                "put it in quotes",
            ),
            (
                "`interval` has the wrong type: expected a duration such as \"100ms\", \"5s\"",
                "100",
                "number and unit in quotes",
            ),
            (
                "`bytes` has the wrong type: expected a size such as \"64MB\"",
                "1.5",
                "number and unit in quotes",
            ),
            (
                "`dlq` has the wrong type: expected a table with topic, partitions; found the string \"dead\"",
                "\"dead\"",
                "`dlq = { … }`",
            ),
            (
                "`topic` has the wrong type: expected a string; found the boolean true",
                "true",
                "quotes",
            ),
            (
                "`partitions` has the wrong type: expected a whole number; found the string \"4\"",
                "\"4\"",
                "take the quotes away",
            ),
            (
                "`format` has the wrong type: expected \"json\" or \"csv\" or \"text\" or \"raw\", or a table with",
                "1",
                "",
            ),
            (
                "`config` has the wrong type: expected a table; found the string \"x\"",
                "\"x\"",
                "",
            ),
            (
                "`limits` has the wrong type: expected a table with memory, time, output, rows, log-lines; found an array",
                "[]",
                "",
            ),
            ("`grant` has the wrong type: expected an array", "\"clock\"", ""),
            (
                "`high` has the wrong type: expected a string, or a table with topic, format, partitions, or false; found the boolean true",
                "true",
                "",
            ),
            ("`low` has the wrong type", "3", ""),
            (
                "`mid` has the wrong type: expected a string, or a table with topic, format, partitions, or false; found the datetime 2020-01-01",
                "2020-01-01",
                "",
            ),
        ],
    );
    refused(
        "source = 1\nstage = [1]\n",
        &[
            ("`source` has the wrong type: expected a table", "1", ""),
            ("`stage` has the wrong type", "[1]", ""),
        ],
    );
}

#[test]
fn values_out_of_bounds() {
    refused(
        &with(
            "engine = \"kafak\"\ncommit = { interval = \"0s\", bytes = \"1TB\" }",
            "partitions = 0\nformat = \"jsno\"\nkey-format = \"csv\"",
            "limits = { memory = \"64\", time = \"2m\", output = \"2GB\", rows = -1, log-lines = 99999999999999999999 }",
        ),
        &[
            (
                "`engine` cannot be \"kafak\"",
                "\"kafak\"",
                "possible values: `embedded`",
            ),
            ("`interval` is 0s, which is out of bounds", "\"0s\"", "from 1ms to 1m"),
            (
                "`bytes` is a size such as \"64MB\", \"64MiB\" or \"1GB\", but \"1TB\" was found",
                "\"1TB\"",
                "",
            ),
            ("`partitions` is 0, which is out of bounds", "0", "from 1 to 1024"),
            ("`format` cannot be \"jsno\"", "\"jsno\"", "did you mean `json`?"),
            (
                "`key-format` cannot be \"csv\"",
                "\"csv\"",
                "possible values: `text`, `json`, `raw`",
            ),
            ("`memory` is a size such as", "\"64\"", ""),
            ("`time` is 2m, which is out of bounds", "\"2m\"", "from 1ms to 1m"),
            ("`output` is 2GB, which is out of bounds", "\"2GB\"", "to 1GiB"),
            ("`rows` is -1, which is out of bounds", "-1", "from 1 to"),
            (
                "`log-lines` is 99999999999999999999, which is out of bounds",
                "99999999999999999999",
                "from 0 to 100000",
            ),
        ],
    );
}

#[test]
fn names_and_topics() {
    refused(
        "name = \"my taxi\"\n[source.\"ri.des\"]\n[source.r]\ntopic = \"a/b\"\n[stage.\"\"]\nplugin = \"p.wasm\"\ninput = \"r\"\n[stage.s]\nplugin = \"p.wasm\"\ninput = \"r\"\nto = { a = \"\", b = \"__consumer_offsets\", c = { topic = \"..\" } }\n[dlq]\ntopic = \"é\"\n",
        &[
            (
                "the pipeline's name \"my taxi\" has ' ' in it",
                "\"my taxi\"",
                "consumer group",
            ),
            (
                "the source \"ri.des\" has no proper name",
                "\"ri.des\"",
                "letters, digits, `-` and `_`",
            ),
            ("the topic \"a/b\" has '/' in it", "\"a/b\"", "1 to 249"),
            ("the stage \"\" has no proper name", "\"\"", ""),
            ("the topic \"\" is empty", "\"\"", ""),
            (
                "the topic \"__consumer_offsets\" begins with `__`",
                "\"__consumer_offsets\"",
                "",
            ),
            ("the topic \"..\" is the name of a folder", "\"..\"", ""),
            ("the topic \"é\" has 'é' in it", "\"é\"", ""),
        ],
    );
    let report = crate::pipeline::Pipeline::parse(&with("", "", ""), "my taxi.toml".as_ref(), &super::environment)
        .expect_err("no name");
    super::assert_problems(
        &report,
        &[(
            "the pipeline's name \"my taxi\"",
            "",
            "it comes from the file's name: add `name =",
        )],
    );
}

#[test]
fn formats() {
    let format = |format: &str| with("", &format!("format = {format}"), "");
    refused(
        &format("\"csv\""),
        &[(
            "`csv` needs the names of its columns",
            "\"csv\"",
            "write `format = { csv = { columns",
        )],
    );
    refused(&format("{}"), &[("`format` names 0 formats", "{}", "name one")]);
    refused(
        &format("{ json = {}, text = {} }"),
        &[("`format` names 2 formats", "{ json = {}, text = {} }", "name one")],
    );
    refused(
        &format("{ jso = {} }"),
        &[(
            "a format with its settings has no key `jso`",
            "jso",
            "did you mean `json`?",
        )],
    );
    refused(
        &format("{ csv = { columns = [] } }"),
        &[("`columns` names none", "[]", "in the order")],
    );
    refused(
        &format("{ csv = { columns = [\"a\", \"b\", \"a\"], delimiter = \"ab\" } }"),
        &[
            ("the column `a` is named twice", "\"a\"", ""),
            ("`delimiter` is \"ab\"", "\"ab\"", "usual are"),
        ],
    );
    refused(
        &format("{ csv = { columns = [\"a\", 1] } }"),
        &[(
            "`columns` has the wrong type: expected a string; found the integer 1",
            "1",
            "quotes",
        )],
    );
}

#[test]
fn variables_that_are_not_set() {
    refused(
        &with(
            "name = \"${CITY}-${NAME}\"",
            "topic = \"${A}-${B}\"",
            "config = { list = [\"x ${SECRET} y\"] }\nto.high = \"${open\"",
        ),
        &[
            ("the variable `NAME` is not set", "${NAME}", "`${NAME:-…}`"),
            ("the variable `A` is not set", "${A}", ""),
            ("the variable `B` is not set", "${B}", ""),
            (
                "the variable `SECRET` is not set",
                "${SECRET}",
                "set it in the environment",
            ),
            ("a variable is not closed", "${open", "`$${`"),
        ],
    );
    refused(
        &with("", "partitions = \"${CITY}\"", ""),
        &[("`partitions` is york, which is out of bounds", "\"${CITY}\"", "from 1")],
    );
}

#[test]
fn settings_that_json_cannot_hold() {
    refused(
        &with("", "", "config = { a = nan, b = 1_000_000_000_000_000_000_000 }"),
        &[
            ("configured in JSON, which has no such number", "nan", "quotes"),
            ("has no such number", "1_000_000_000_000_000_000_000", "64 bits"),
        ],
    );
}

#[test]
fn inputs_that_name_nothing() {
    let stage = |input: &str| format!("[source.rides]\n[stage.a]\nplugin = \"p.wasm\"\ninput = {input}\n");
    for input in ["[]", "{}", "{ left = [] }"] {
        refused(&stage(input), &[("`input` names nothing", input, "name a source")]);
    }
}

#[test]
fn nesting_without_end_is_refused() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let text = format!("name = {}1{}", open.repeat(100_000), close.repeat(100_000));
        assert!(
            parse(&text).expect_err("too deep").problems()[0]
                .message
                .contains("not TOML")
        );
    }
    let text = format!("{}a = 1", "a.".repeat(100_000));
    assert!(
        parse(&text).expect_err("too deep").problems()[0]
            .message
            .contains("recursion limit")
    );
    let text = format!("[{}a]", "a.".repeat(100_000));
    assert!(parse(&text).is_err());
}

#[test]
fn a_file_that_is_something_else_is_not_told_line_by_line() {
    let text = "a few words of something else\n".repeat(30_000);
    let report = parse(&text).expect_err("not TOML");
    assert_eq!(report.problems().len(), 20);
    assert!(report.problems()[0].message.contains("not TOML"));
}

#[test]
fn a_report_is_for_people_and_for_machines() {
    let report =
        parse("name = \"taxi\"\nengin = \"x\"\n[source.rides]\n[stage.a]\ninput = \"rides\"\n").expect_err("two");
    assert_eq!(report.to_string(), "dir/taxi.toml has 2 problems");
    insta::assert_snapshot!(report.render(100, false));
    assert!(report.render(100, true).contains("\u{1b}["));
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).expect("JSON"));
}

/// A window, or what is said beside it, and what is wrong with it.
#[test]
fn windows_and_keys_that_make_no_sense() {
    let cases: [(&str, super::Expected<'_>); 21] = [
        (
            r#"window = "0s""#,
            ("`window` is 0s, which is out of bounds", r#""0s""#, "from 1ms to 3650d"),
        ),
        (
            r#"window = "0.5ms""#,
            ("`window` is a duration such as", r#""0.5ms""#, ""),
        ),
        (
            "window = 60",
            (
                "or a table with tumbling, hopping, advance, grace, offset; found the integer 60",
                "60",
                "",
            ),
        ),
        (
            r#"window = { tumblin = "1m" }"#,
            ("a window has no key `tumblin`", "tumblin", "did you mean `tumbling`?"),
        ),
        (
            r#"window = { size = "1m" }"#,
            (
                "a window has no key `size`",
                "size",
                "keys here: `tumbling`, `hopping`, `advance`, `grace`, `offset`",
            ),
        ),
        (
            "window = {}",
            (
                "the window does not say how long it is",
                "{}",
                r#"write `tumbling = "1m"`"#,
            ),
        ),
        (
            r#"window = { grace = "1m" }"#,
            (
                "the window does not say how long it is",
                r#"{ grace = "1m" }"#,
                r#"`hopping = "5m", advance = "1m"`"#,
            ),
        ),
        (
            r#"window = { tumbling = "1m", hopping = "5m" }"#,
            ("a stage has one window", r#""5m""#, "two stages"),
        ),
        (
            r#"window = { tumbling = "1m", advance = "30s" }"#,
            ("`advance` is for windows that overlap", r#""30s""#, "`hopping`"),
        ),
        (
            r#"window = { hopping = "5m" }"#,
            (
                "the hopping window needs the key `advance`",
                r#""5m""#,
                r#"add `advance = "1m"`"#,
            ),
        ),
        (
            r#"window = { hopping = "5m", advance = "6m" }"#,
            (
                "`advance` is 6m, longer than the window, which is 5m",
                r#""6m""#,
                r#"at most "5m""#,
            ),
        ),
        (
            r#"window = { hopping = "5m", advance = "0ms" }"#,
            ("`advance` is 0ms, which is out of bounds", r#""0ms""#, "from 1ms"),
        ),
        (
            r#"window = { hopping = "1d", advance = "1s" }"#,
            (
                "each record would lie in 86400 windows; 1440 are allowed",
                r#""1s""#,
                r#"at least "1m""#,
            ),
        ),
        (
            r#"window = { tumbling = "1m", offset = "90s" }"#,
            (
                "`offset` is 90s, but a window begins every 1m",
                r#""90s""#,
                r#""30s" gives the same windows"#,
            ),
        ),
        (
            r#"window = { hopping = "5m", advance = "1m", offset = "1m" }"#,
            (
                "`offset` is 1m, but a window begins every 1m",
                r#""1m""#,
                r#""0ms" gives the same windows"#,
            ),
        ),
        (
            r#"window = { tumbling = "1m", grace = "-1s" }"#,
            ("`grace` is a duration such as", r#""-1s""#, ""),
        ),
        (
            r#"emit = "close""#,
            (
                "the stage `split` sends results when windows close, but has no `window`",
                r#""close""#,
                r#"add `window = "1m"`"#,
            ),
        ),
        (
            r#"emit = "closed""#,
            (r#"`emit` cannot be "closed""#, r#""closed""#, "did you mean `close`?"),
        ),
        (
            "partitions = 3",
            (
                "`partitions` of the stage `split` is for its internal topic",
                "3",
                r#"add `key = "FIELD"`"#,
            ),
        ),
        (
            "key = \"a\"\npartitions = 0",
            ("`partitions` is 0, which is out of bounds", "0", "from 1 to 1024"),
        ),
        (
            "key = 3",
            (
                "`key` has the wrong type: expected a string; found the integer 3",
                "3",
                "quotes",
            ),
        ),
    ];
    for (stage, expected) in cases {
        refused(&with("", "", stage), &[expected]);
    }
    // What is missing may be what is wrong.
    refused(
        &with("", "", "keyed = \"a\"\npartitions = 3\nwindow = {}\nemit = \"close\""),
        &[
            ("a stage has no key `keyed`", "keyed", "did you mean `key`?"),
            ("the window does not say how long it is", "{}", ""),
        ],
    );
    let bounds = r#"window = { hopping = "1d", advance = "1m", offset = "59s" }"#;
    parse(&with("", "", bounds)).expect("these are the bounds");
}

#[test]
fn sources_and_state_out_of_bounds() {
    refused(
        &with(
            "state = { memory = \"1kB\", quota = \"0B\", disk = \"1GB\" }",
            "future = \"-1s\"\nidle = \"999ms\"",
            "",
        ),
        &[
            ("`memory` is 1kB, which is out of bounds", "\"1kB\"", "from 1MiB"),
            ("`quota` is 0B, which is out of bounds", "\"0B\"", "from 1MB"),
            ("state has no key `disk`", "disk", "keys here: `memory`, `quota`"),
            ("`future` is a duration such as", "\"-1s\"", ""),
            ("`idle` is 999ms, which is out of bounds", "\"999ms\"", "from 1s"),
        ],
    );
}
