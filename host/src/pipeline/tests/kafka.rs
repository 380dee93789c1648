//! The section `[kafka]` and what belongs to it.

use std::time::Duration;

use super::{parse, plan, refused};
use crate::pipeline::{Engine, Guarantee};
use crate::state::TableForm;

const REST: &str = "source.rides = {}\n[stage.s]\nplugin = \"pass.wasm\"\ninput = \"rides\"\nto.out = \"o\"\n";

#[test]
fn a_cluster_is_described() {
    let text = format!(
        "engine = \"kafka\"\n{REST}[kafka]\nbootstrap = \"${{CITY}}:9092\"\ncreate-topics = false\nreplication = 3\n\
         session-timeout = \"6s\"\ntopic-properties = {{ \"retention.ms\" = 1000 }}\n[kafka.properties]\n\
         sasl.password = \"${{TOKEN}}\"\n\"linger.ms\" = 5\nenable.ssl.certificate.verification = false\n\
         [commit]\nguarantee = \"at-least-once\"\n[state]\nchangelog = \"binary\"\n"
    );
    let plan = plan(&text).expect("sound");
    let Engine::Kafka(kafka) = &plan.engine else {
        panic!("{:?}", plan.engine)
    };
    assert_eq!(kafka.bootstrap.as_deref(), Some("york:9092"));
    assert!(!kafka.makes_topics);
    assert_eq!(kafka.topics.replication, Some(3));
    assert_eq!(kafka.topics.properties["retention.ms"], "1000");
    assert_eq!(kafka.session_timeout, Duration::from_secs(6));
    let properties: Vec<_> = kafka.properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        properties,
        [
            ("enable.ssl.certificate.verification", "false"),
            ("linger.ms", "5"),
            ("sasl.password", "s3cret-token"),
        ]
    );
    assert_eq!(plan.guarantee, Guarantee::AtLeastOnce);
    assert_eq!(plan.state.changelog, TableForm::Binary);
    assert!(
        !format!("{plan:?}").contains("s3cret"),
        "passwords are in no debug output"
    );
}

#[test]
fn a_cluster_needs_no_more_than_a_word() {
    let plan = plan(&format!("engine = \"kafka\"\n{REST}")).expect("sound");
    assert_eq!(plan.engine, Engine::Kafka(Box::default()));
    assert_eq!(plan.guarantee, Guarantee::ExactlyOnce);
    assert_eq!(parse(REST).expect("sound").engine, Engine::Embedded);
    // A transaction costs more than a commit to the embedded log.
    assert_eq!(plan.commit_bytes_max, 32 << 20);
    let said = super::plan(&format!("engine = \"kafka\"\n{REST}[commit]\nbytes = \"1MB\"\n")).expect("sound");
    assert_eq!(said.commit_bytes_max, 1_000_000);
}

#[test]
fn what_a_cluster_is_not() {
    refused(
        &format!("{REST}[kafka]\nbootstrap = \"a:1\"\n"),
        &[(
            "the engine is the embedded log",
            "[kafka]",
            "write `engine = \"kafka\"` at the top",
        )],
    );
    refused(
        &format!(
            "engine = \"kafka\"\n{REST}[kafka]\nproperties = {{ \"group.id\" = \"g\", \"enable.auto.commit\" = true }}\n"
        ),
        &[
            (
                "the property `group.id` is set by the host",
                "{ \"group.id\" = \"g\", \"enable.auto.commit\" = true }",
                "give that a `name`",
            ),
            (
                "the property `enable.auto.commit` is set by the host",
                "{ \"group.id\" = \"g\", \"enable.auto.commit\" = true }",
                "`interval = \"…\"` in `[commit]`",
            ),
        ],
    );
    refused(
        &format!("engine = \"kafka\"\n{REST}[kafka]\nproperties = {{ a = [1] }}\n"),
        &[(
            "the property `a` is an array",
            "{ a = [1] }",
            "lists are strings with commas",
        )],
    );
    refused(
        &format!("engine = \"kafka\"\n{REST}[kafka]\ncreate-topics = \"no\"\nbootstrp = \"a:1\"\n"),
        &[
            ("expected true or false", "\"no\"", ""),
            ("kafka has no key `bootstrp`", "bootstrp", "bootstrap"),
        ],
    );
}
