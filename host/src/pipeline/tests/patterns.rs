//! Sources of several topics.

use super::{misfit, plan, refused};

const PASS: &str = "[stage.s]\nplugin = \"pass.wasm\"\ninput = \"rides\"\n";

#[test]
fn a_source_may_be_several_topics() {
    let plan = plan(&format!(
        "source.rides.topic-pattern = \"rides-.*\"\n{PASS}to.out = \"o\"\n"
    ))
    .expect("sound");
    let source = &plan.sources[0];
    assert!(source.reads("rides-york") && !source.reads("rides"));
    assert_eq!(source.topic, "rides-.*");
}

#[test]
fn what_a_pattern_must_not_mean() {
    refused(
        &format!("source.rides = {{ topic = \"a\", topic-pattern = \"b.*\" }}\n{PASS}to.out = \"o\"\n"),
        &[(
            "the source `rides` has a `topic` and a `topic-pattern`",
            "\"a\"",
            "remove one of them",
        )],
    );
    refused(
        &format!("source.rides.topic-pattern = \"r\\\\d\"\n{PASS}to.out = \"o\"\n"),
        &[("the pattern `r\\d` has `\\d`", "\"r\\\\d\"", "`[…]`")],
    );
    misfit(
        &format!("source.rides.topic-pattern = \".*-rides\"\n{PASS}to.out = \"high-rides\"\n"),
        &[(
            "it reads the topic `high-rides`, and writes it",
            "\"high-rides\"",
            "another topic",
        )],
    );
    misfit(
        &format!("name = \"n\"\nsource.rides.topic-pattern = \"n.*\"\n{PASS}to.out = \"o\"\n"),
        &[("its own dead-letter queue `n-dlq`", "\"n.*\"", "a pipeline of its own")],
    );
    misfit(
        &format!(
            "source.rides.topic-pattern = \"r.*\"\nsource.other.topic = \"rest\"\n{PASS}to.out = \"o\"\n[stage.t]\nplugin = \
             \"pass.wasm\"\ninput = \"other\"\nto.out = \"p\"\n"
        ),
        &[("read the same topic `rest`", "\"rest\"", "keep one of them")],
    );
}

#[test]
fn records_of_several_topics_do_not_meet_by_their_partitions() {
    misfit(
        "source.rides.topic-pattern = \"r-.*\"\nsource.trips = {}\n[stage.s]\nplugin = \"pass.wasm\"\ninput = [\"rides\", \
         \"trips\"]\nto.out = \"o\"\n",
        &[(
            "the sources `rides` and `trips` meet in a stage, so each has to be one topic",
            "\"r-.*\"",
            "give the stage a `key`",
        )],
    );
    let keyed = "source.rides.topic-pattern = \"r-.*\"\n[stage.s]\nplugin = \"total.wasm\"\ninput = \"rides\"\nto = { out = \
                 \"o\" }\n";
    misfit(
        keyed,
        &[(
            "the stage `s` keeps something by key",
            "\"r-.*\"",
            "give the stage a `key`",
        )],
    );
    plan(&format!("{keyed}key = \"amount\"\n")).expect("through an internal topic they meet");
}
