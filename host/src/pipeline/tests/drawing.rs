//! Pipelines as they are drawn.

use super::good_files::TWO_BRANCHES;
use super::keyed::SUMS;
use super::plan;
use crate::pipeline::{Explanation, explain};

#[test]
fn two_branches() {
    insta::assert_snapshot!(explain(&plan(TWO_BRANCHES).expect("fits")));
}

const CHAIN: &str = r#"
    name = "chain"
    commit = { interval = "5s", bytes = "1MB" }
    dlq = { topic = "dead", partitions = 2 }
    source.rides = { partitions = 4, timestamp = "t" }
    source.zones = { format = { csv = { columns = ["id", "zone"] } }, key-format = "json" }
    [stage.split]
    plugin = "split.wasm"
    input = "rides"
    config = { token = "${TOKEN}" }
    limits = { memory = "128MB", time = "2s" }
    to = { low = { topic = "low", partitions = 1 } }
    [stage.fee]
    plugin = "enrich.wasm"
    input = "split.high"
    [stage.compare]
    plugin = "compare.wasm"
    input = { left = ["split.high", "fee.out"], right = "zones" }
    to.same = false
    [stage.print]
    plugin = "sink.wasm"
    input = "fee.out"
"#;

#[test]
fn a_graph_with_branches_that_meet() {
    let error = plan(CHAIN).expect_err("a forwarded branch has one format");
    assert!(error.problems()[0].message.contains("json and csv"), "{error:?}");
    let plan = plan(&CHAIN.replace(
        "{ csv = { columns = [\"id\", \"zone\"] } }, key-format = \"json\"",
        "\"json\"",
    ))
    .expect("fits");
    let drawn = explain(&plan);
    assert!(!drawn.contains("s3cret"), "secrets are not drawn");
    insta::assert_snapshot!(drawn);
    insta::assert_snapshot!(serde_json::to_string_pretty(&Explanation::new(&plan)).expect("JSON"));
}

const KEYED: &str = r#"
    name = "keyed"
    state = { memory = "1GiB", quota = "10GB" }
    source.rides = { partitions = 4, timestamp = "t", future = "5m", idle = "30s" }
    [stage.split]
    plugin = "split.wasm"
    input = "rides"
    to.low = false
    [stage.sum]
    plugin = "sum.wasm"
    input = ["rides", "split.high"]
    key = "VendorID"
    partitions = 6
    window = { hopping = "5m", advance = "1m", grace = "10s", offset = "30s" }
    emit = "close"
    to = { totals = "totals", unkeyed = "nobodys" }
    [stage.count]
    plugin = "total.wasm"
    input = "sum.late"
    emit = "every-update"
    to.out = "late-counts"
    [stage.seen]
    plugin = "seen.wasm"
    input = "rides"
    key = ""
    to.new = "new"
"#;

#[test]
fn keys_windows_and_stores() {
    insta::assert_snapshot!(explain(&plan(SUMS).expect("fits")));
    let plan = plan(KEYED).expect("fits");
    insta::assert_snapshot!(explain(&plan));
    let json = serde_json::to_value(Explanation::new(&plan)).expect("JSON");
    let sum = json["stages"]
        .as_array()
        .and_then(|stages| stages.iter().find(|stage| stage["name"] == "sum"));
    insta::assert_snapshot!(serde_json::to_string_pretty(&sum).expect("JSON"));
    insta::assert_snapshot!(serde_json::to_string_pretty(&json["sources"]).expect("JSON"));
}

#[test]
fn colours_are_for_terminals_that_ask_and_plugins_send_none() {
    let mut plan = plan(TWO_BRANCHES).expect("fits");
    plan.stages[0].info.version = "1\u{1b}[31m\u{7}\n2".into();
    let explanation = Explanation::new(&plan);
    assert!(explanation.draw(true).contains("\u{1b}[1msplit\u{1b}[0m"));
    assert!(!explanation.draw(false).contains('\u{1b}'));
    for drawn in [explanation.draw(true), explanation.draw(false)] {
        assert!(drawn.contains("1\\u{1b}[31m\\u{7}\\n2"), "{drawn}");
    }
}

#[test]
fn a_long_chain_is_drawn_in_pieces() {
    let mut text = String::from("source.rides = {}\n[stage.s0]\nplugin = \"pass.wasm\"\ninput = \"rides\"\n");
    for at in 1..3000 {
        text += &format!("[stage.s{at}]\nplugin = \"pass.wasm\"\ninput = \"s{}.out\"\n", at - 1);
    }
    text += "to.out = \"end\"\n";
    let drawn = explain(&plan(&text).expect("fits"));
    assert_eq!(
        drawn.matches("drawn below").count(),
        2999 / 9,
        "each ninth stage begins a tree"
    );
    assert!(drawn.lines().all(|line| line.chars().count() < 250));
    assert!(drawn.contains("topic end"));
}
