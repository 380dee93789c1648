//! What does not fit between a file and its plugins.

use super::plugins::Plugins;
use super::{assert_problems, load_text, misfit};

/// A file with these stages; each line is `name plugin input to`.
fn stages(sources: &str, stages: &[(&str, &str, &str, &str)]) -> String {
    let mut text = format!("{sources}\n");
    for (name, plugin, input, to) in stages {
        text += &format!("[stage.{name}]\nplugin = \"{plugin}.wasm\"\ninput = {input}\nto = {to}\n");
    }
    text
}

const RIDES: &str = "source.rides = {}";

#[test]
fn plugins_that_cannot_be_used() {
    misfit(
        &stages(
            RIDES,
            &[
                ("a", "none", "\"rides\"", "{ x = \"y\" }"),
                ("b", "pass", "\"rides\"", "{ out = \"o\" }"),
                ("c", "gone", "\"a.x\"", "{}"),
            ],
        ),
        &[
            (
                "the stage `a`: the plugin file dir/none.wasm does not exist",
                "\"none.wasm\"",
                "build the plugin first",
            ),
            (
                "the stage `c`: the plugin file dir/gone.wasm does not exist",
                "\"gone.wasm\"",
                "",
            ),
        ],
    );
}

#[test]
fn settings_that_a_plugin_refuses_are_shown_without_secrets() {
    let mut text = stages(
        RIDES,
        &[("a", "old-split", "\"rides\"", "{ high = \"h\", low = \"l\" }")],
    );
    misfit(
        &text,
        &[(
            "the stage `a`: `threshold` is missing in {}",
            "a",
            "add `config = { … }`",
        )],
    );
    text += "config = { token = \"${TOKEN}\" }\n";
    misfit(
        &text,
        &[(
            "`threshold` is missing in {\"token\":\"${TOKEN}\"}",
            "{ token = \"${TOKEN}\" }",
            "",
        )],
    );
    let table = text.replace(
        "config = { token = \"${TOKEN}\" }",
        "[stage.a.config]\ntoken = \"${TOKEN}\"",
    );
    misfit(&table, &[("`threshold` is missing", "[stage.a.config]", "")]);
}

#[test]
fn what_this_version_does_not_run() {
    misfit(
        &stages(RIDES, &[("c", "clocked", "\"rides\"", "{ high = false, low = false }")]),
        &[(
            "the plugin `clocked` asks for `clock`, which the pipeline does not grant",
            "\"clocked.wasm\"",
            "does without",
        )],
    );
    let granted =
        stages(RIDES, &[("a", "pass", "\"rides\"", "{ out = \"x\" }")]) + "grant = [\"clock\", \"netwrok\"]\n";
    misfit(
        &granted,
        &[
            (
                "`clock` cannot be granted: this version grants nothing",
                "\"clock\"",
                "remove it",
            ),
            (
                "there is no capability `netwrok`",
                "\"netwrok\"",
                "did you mean `network`?",
            ),
        ],
    );
}

#[test]
fn signatures_that_cannot_be_referred_to() {
    misfit(
        &stages(
            RIDES,
            &[
                ("a", "twins", "\"rides\"", "{ out = \"x\" }"),
                ("b", "deaf", "\"rides\"", "{}"),
            ],
        ),
        &[
            ("declares two branches of the name `out`", "\"twins.wasm\"", "author"),
            ("the plugin `deaf` declares no input", "\"deaf.wasm\"", "author"),
        ],
    );
}

#[test]
fn branches_that_are_mapped_but_not_declared_and_the_reverse() {
    misfit(
        &stages(RIDES, &[("a", "split", "\"rides\"", "{ hihg = \"h\", low = \"l\" }")]),
        &[(
            "the plugin `split` of the stage `a` has no branch `hihg`",
            "hihg",
            "did you mean `high`? its branches: `high`, `low`",
        )],
    );
    misfit(
        &stages(RIDES, &[("a", "split", "\"rides\"", "{ low = \"l\" }")]),
        &[(
            "the branch `high` of the stage `a` goes nowhere",
            "a",
            "under [stage.a.to] add `high = \"topic\"`, or `high = false`",
        )],
    );
    misfit(
        &stages(
            RIDES,
            &[
                ("a", "split", "\"rides\"", "{ high = false, low = false }"),
                ("b", "sink", "\"a.high\"", "{}"),
            ],
        ),
        &[(
            "the branch `high` of the stage `a` is dropped, and read",
            "false",
            "remove the `false`",
        )],
    );
}

#[test]
fn inputs_that_are_not_there() {
    misfit(
        &stages(
            RIDES,
            &[
                ("a", "split", "\"ridse\"", "{ high = \"h\" }"),
                ("b", "sink", "\"a\"", "{}"),
                ("c", "sink", "\"a.hgih\"", "{}"),
                ("d", "sink", "\"x.high\"", "{}"),
                ("e", "sink", "[\"rides\", \"rides\"]", "{}"),
                ("f", "sink", "{ rdies = \"rides\" }", "{}"),
            ],
        ),
        &[
            (
                "no source is called `ridse`",
                "\"ridse\"",
                "did you mean `rides`? sources and branches: `rides`, `a.high`, `a.low`",
            ),
            (
                "`a` is a stage, and a stage has branches",
                "\"a\"",
                "name one of its branches: \"a.high\", \"a.low\"",
            ),
            (
                "the stage `a` has no branch `hgih`",
                "\"a.hgih\"",
                "did you mean `high`?",
            ),
            ("no stage is called `x`", "\"x.high\"", "stages: `a`, `b`"),
            ("the stage `e` reads `rides` twice", "\"rides\"", "name it once"),
            (
                "the plugin `sink` has no input `rdies`",
                "rdies",
                "did you mean `rides`?",
            ),
        ],
    );
}

#[test]
fn plugins_with_several_inputs() {
    let compare = |input: &str| stages(RIDES, &[("a", "compare", input, "{ same = \"s\" }")]);
    misfit(
        &compare("\"rides\""),
        &[(
            "has 2 inputs, and `input` does not say which",
            "\"rides\"",
            "write `input = { left = \"…\", right = \"…\" }`",
        )],
    );
    misfit(
        &compare("{ left = \"rides\" }"),
        &[(
            "nothing feeds the input `right` of the plugin `compare`",
            "{ left = \"rides\" }",
            "add `right =",
        )],
    );
    misfit(
        &compare("{ left = \"rides\", rihgt = \"rides\" }"),
        &[("has no input `rihgt`", "rihgt", "did you mean `right`?")],
    );
    super::plan(&compare("{ left = \"rides\", right = \"rides\" }")).expect("one source may feed both");
}

#[test]
fn circles() {
    misfit(
        &stages(
            RIDES,
            &[
                ("a", "pass", "[\"rides\", \"c.out\"]", "{}"),
                ("b", "pass", "\"a.out\"", "{}"),
                ("c", "pass", "\"b.out\"", "{}"),
                ("after", "sink", "\"c.out\"", "{}"),
                ("self", "pass", "\"self.out\"", "{}"),
            ],
        ),
        &[
            (
                "the stages go in a circle: a → b → c → a",
                "\"c.out\"",
                "let one of them read something else",
            ),
            ("the stages go in a circle: self → self", "\"self.out\"", ""),
        ],
    );
}

#[test]
fn topics_that_meet_themselves() {
    misfit(
        &stages(
            "source.rides = {}\nsource.again = { topic = \"rides\" }\nsource.dead = { topic = \"taxi-dlq\" }",
            &[(
                "a",
                "split",
                "[\"rides\", \"again\", \"dead\"]",
                "{ high = \"rides\", low = \"taxi-dlq\" }",
            )],
        ),
        &[
            (
                "the sources `rides` and `again` read the same topic `rides`",
                "\"rides\"",
                "one source can feed many stages",
            ),
            (
                "the pipeline reads its own dead-letter queue `taxi-dlq`",
                "\"taxi-dlq\"",
                "give `[dlq]` another topic",
            ),
            (
                "the pipeline would eat its own output: it reads the topic `rides`",
                "\"rides\"",
                "another topic",
            ),
            (
                "the pipeline would eat its own output: it reads the topic `taxi-dlq`",
                "\"taxi-dlq\"",
                "",
            ),
            (
                "the branch `low` of the stage `a` is written to the dead-letter queue `taxi-dlq`",
                "\"taxi-dlq\"",
                "",
            ),
        ],
    );
    misfit(
        &stages(
            RIDES,
            &[(
                "a",
                "split",
                "\"rides\"",
                "{ high = { topic = \"t\", partitions = 2 }, low = { topic = \"t\", partitions = 3 } }",
            )],
        ),
        &[(
            "the topic `t` gets 3 partitions for the branch `low`, and 2 for `a.high`",
            "\"t\"",
            "the same number",
        )],
    );
    misfit(
        &stages(
            "source.rides = {}\nsource.lines = { format = \"text\" }",
            &[
                ("a", "pass", "\"rides\"", "{ out = \"t\" }"),
                ("b", "pass", "\"lines\"", "{ out = \"t\" }"),
            ],
        ),
        &[(
            "the topic `t` would hold text of the branch `out`, and json",
            "\"t\"",
            "a topic each",
        )],
    );
}

#[test]
fn a_source_that_nobody_reads() {
    misfit(
        &stages(
            "source.rides = {}\nsource.zones = {}",
            &[("a", "sink", "\"rides\"", "{}")],
        ),
        &[("no stage reads the source `zones`", "zones", "input = \"zones\"")],
    );
}

#[test]
fn types_that_do_not_fit() {
    misfit(
        &stages(
            RIDES,
            &[
                ("sum", "summary", "\"rides\"", "{}"),
                ("bill", "bill-text", "\"sum.out\"", "{ out = \"o\" }"),
                ("typo", "bill-typo", "\"sum.out\"", "{ out = \"p\" }"),
            ],
        ),
        &[
            (
                "the stage `bill` reads its field `fare` (`/fare` in the value) as text, but the stage `sum` writes an integer there",
                "\"sum.out\"",
                "text is read from text and from time",
            ),
            (
                "the stage `typo` reads its field `fare` (`/fares` in the value) as float, but `sum.out` does not have it",
                "\"sum.out\"",
                "did you mean `/fare`? it has: `/fare`, `/zone/borough`",
            ),
        ],
    );
}

#[test]
fn keys_that_do_not_fit() {
    misfit(
        &stages(
            RIDES,
            &[
                ("a", "by-key", "\"rides\"", "{}"),
                ("k", "rekey", "\"rides\"", "{ out = \"x\" }"),
                ("b", "by-text-key", "\"k.out\"", "{}"),
                ("c", "by-key", "\"k.out\"", "{}"),
            ],
        ),
        &[
            (
                "reads its field `id` (`/id` in the key) as integer, but what `rides` gives is text, which has no members",
                "\"rides\"",
                "`key-format = \"json\"`",
            ),
            (
                "the stage `c` reads its field `id` (`/id` in the key) as integer, but what `k.out` gives is text",
                "\"k.out\"",
                "",
            ),
        ],
    );
    super::plan(&stages(
        "source.rides = { key-format = \"json\" }",
        &[("a", "by-key", "\"rides\"", "{}")],
    ))
    .expect("JSON keys have members");
}

#[test]
fn formats_that_have_no_such_field() {
    let csv = "source.rides = { format = { csv = { columns = [\"total-amount\", \"id\"] } }, key = \"idd\", timestamp = \"/a~b\" }";
    misfit(
        &stages(csv, &[("a", "split", "\"rides\"", "{ high = \"h\", low = \"l\" }")]),
        &[
            (
                "`key` of the source `rides` is \"/idd\", but its csv has no such column",
                "\"idd\"",
                "did you mean `/id`?",
            ),
            (
                "`timestamp` of the source `rides` is \"/a~b\", but its csv has no such column",
                "\"/a~b\"",
                "",
            ),
            (
                "`timestamp` of the source `rides` is \"/a~b\": in a JSON Pointer",
                "\"/a~b\"",
                "",
            ),
            (
                "as float, but `rides` has no such column",
                "\"rides\"",
                "did you mean `/total-amount`? its columns: `/total-amount`, `/id`",
            ),
        ],
    );
    misfit(
        &stages(
            "source.rides = { format = \"raw\", key = \"id\" }",
            &[
                ("a", "split", "\"rides\"", "{ high = \"h\", low = \"l\" }"),
                ("e", "enrich", "\"rides\"", "{ out = \"x\" }"),
            ],
        ),
        &[
            (
                "`key` of the source `rides` is \"/id\", but its values are raw, which has no members",
                "\"id\"",
                "`format = \"json\"`",
            ),
            (
                "reads its field `amount` (`/total_amount` in the value) as float, but what `rides` gives is raw",
                "\"rides\"",
                "at the source",
            ),
            ("reads its field `fare`", "\"rides\"", ""),
            ("reads its field `tip`", "\"rides\"", ""),
            (
                "the branch `out` of the stage `e` adds fields to a value that is raw",
                "\"rides\"",
                "JSON and CSV",
            ),
        ],
    );
}

#[test]
fn formats_that_cannot_be_written() {
    let columns = "{ csv = { columns = [\"a\"] } }";
    let to = |format: &str| format!("{{ out = {{ topic = \"t\", format = {format} }} }}");
    let case = |plugin: &str, format: &str| stages(RIDES, &[("a", plugin, "\"rides\"", &to(format))]);
    misfit(
        &case("summary", columns),
        &[(
            "cannot be written as csv: CSV is read, but not written",
            columns,
            "leave `format` out",
        )],
    );
    misfit(
        &case("summary", "\"text\""),
        &[(
            "cannot be written as text: the branch's fields make JSON",
            "\"text\"",
            "\"json\"",
        )],
    );
    misfit(
        &case("pass", "\"raw\""),
        &[(
            "cannot be written as raw: the branch forwards values as they are, which is json",
            "\"raw\"",
            "leave `format` out",
        )],
    );
    for (plugin, format) in [
        ("summary", "\"json\""),
        ("line", "\"text\""),
        ("line", "\"raw\""),
        ("bytes", "\"json\""),
        ("pass", "\"json\""),
    ] {
        super::plan(&case(plugin, format)).unwrap_or_else(|error| panic!("{error:?}"));
    }
    misfit(
        &stages(
            "source.rides = {}\nsource.lines = { format = \"text\", key-format = \"raw\" }",
            &[("a", "pass", "[\"rides\", \"lines\"]", "{ out = \"t\" }")],
        ),
        &[
            (
                "the branch `out` of the stage `a` forwards values of two formats: json and text",
                "[\"rides\", \"lines\"]",
                "a stage each",
            ),
            (
                "the branch `out` of the stage `a` forwards keys of two formats: text and raw",
                "[\"rides\", \"lines\"]",
                "",
            ),
        ],
    );
}

/// Two branches that both feed the next stage double the ways to it: the check must not follow each.
#[test]
fn many_ways_are_not_followed_one_by_one() {
    let mut text = String::from("source.rides = {}\n[stage.s0]\nplugin = \"fork.wasm\"\ninput = \"rides\"\n");
    for at in 1..60 {
        let before = at - 1;
        text += &format!("[stage.s{at}]\nplugin = \"fork.wasm\"\ninput = [\"s{before}.high\", \"s{before}.low\"]\n");
    }
    text += "to = { high = false, low = false }\n";
    assert_eq!(super::plan(&text).expect("fits").stages.len(), 60);
}

#[test]
fn errors_of_the_file_and_of_the_plugins_come_together() {
    let text = "nothing = 1\n[source.rides]\npartitons = 4\n[stage.a]\nplugin = \"split.wasm\"\ninput = \"rides\"\nto = { hgh = \"h\", low = \"l\" }\n";
    let without = text.replace("nothing = 1\n", "");
    assert_problems(
        &load_text(&without, &Plugins).expect_err("two"),
        &[
            ("a source has no key `partitons`", "partitons", "`partitions`"),
            ("has no branch `hgh`", "hgh", "`high`"),
        ],
    );
    // An unknown table may be the one that is missed later: then only the file is spoken of.
    assert_problems(
        &load_text(text, &Plugins).expect_err("two"),
        &[
            ("a pipeline has no key `nothing`", "nothing", ""),
            ("a source has no key `partitons`", "partitons", ""),
        ],
    );
    // What is not mapped may be mapped under the key that is unknown.
    let misspelt = without.replace("to = ", "too = ").replace("partitons", "partitions");
    assert_problems(
        &load_text(&misspelt, &Plugins).expect_err("one"),
        &[("a stage has no key `too`", "too", "did you mean `to`?")],
    );
}
