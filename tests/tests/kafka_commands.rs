//! Promise: the commands do on a Kafka cluster what they do on the embedded log, and nobody needs a second tool.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use millstream_tests::kafka::{self, Broker, Edition};
use millstream_tests::running::{Running, feed, wait_until};
use millstream_tests::{document, lines, millstream, on, plugin, refuse, succeed};
use rustix::process::Signal;
use serde_json::{Value, json};

/// One broker for the tests that run at the same time; topics and groups are each test's own.
fn broker(test: &str) -> Option<Arc<Broker>> {
    static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(broker) = shared.upgrade() {
        return Some(broker);
    }
    let broker = Arc::new(kafka::start(test)?);
    *shared = Arc::downgrade(&broker);
    Some(broker)
}

/// A command on a cluster.
fn at(broker: &Broker, args: &[&str]) -> Command {
    let mut command = millstream(args);
    command.args(["--bootstrap", &broker.bootstrap()]);
    command
}

fn produce(command: &mut Command, input: &str) -> String {
    let output = feed(command, input.as_bytes());
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {err}", output.status);
    err
}

/// Records without where they lie.
fn bare(text: &str) -> Vec<Value> {
    let mut records = lines(text);
    for record in &mut records {
        let record = record.as_object_mut().expect("an object");
        for place in ["topic", "partition", "offset"] {
            record.remove(place).expect("it says its place");
        }
    }
    records.sort_by_key(Value::to_string);
    records
}

#[test]
fn records_go_in_and_come_back_with_all_their_parts() {
    let Some(broker) = broker("records_go_in_and_come_back_with_all_their_parts") else {
        return;
    };
    let input = [
        json!({"key": "a", "value": {"n": 1}, "timestamp": 5000, "headers": [["h", "1"], ["h", null]]}),
        json!({"key": "a", "value": null, "timestamp": 6000, "headers": []}),
        json!({"key": null, "value": "text", "timestamp": 7000, "headers": [["x", {"base64": "//4="}]]}),
        json!({"key": {"base64": "//79"}, "value": {"base64": "AP8="}, "timestamp": 8000, "headers": []}),
    ];
    let text: String = input.iter().map(|line| format!("{line}\n")).collect();
    let said = produce(&mut at(&broker, &["produce", "parts", "--partitions", "3"]), &text);
    assert!(
        said.contains("made topic parts with 3 partitions") && said.contains("4 records in parts"),
        "{said}"
    );
    let read = succeed(&mut at(&broker, &["consume", "parts", "--until-end"]));
    let mut expected = input.to_vec();
    expected.sort_by_key(Value::to_string);
    assert_eq!(bare(&read), expected);
    // What was read goes in again, byte for byte.
    produce(&mut at(&broker, &["produce", "again", "--partitions", "3"]), &read);
    assert_eq!(
        bare(&succeed(&mut at(&broker, &["consume", "again", "--until-end"]))),
        expected
    );
    // Places to begin at.
    let from = |place: &str| {
        let mut command = at(&broker, &["consume", "parts", "--until-end", "--from", place]);
        lines(&succeed(&mut command)).len()
    };
    assert_eq!((from("start"), from("end"), from("1970-01-01T00:00:06Z")), (4, 0, 3));
    let two = succeed(&mut at(&broker, &["consume", "parts", "-n", "2"]));
    assert_eq!(two.lines().count(), 2);
}

#[test]
fn a_key_has_the_same_partition_on_both_engines() {
    let Some(broker) = broker("a_key_has_the_same_partition_on_both_engines") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let text: String = (0..200)
        .map(|n| format!("{{\"key\":\"k{n}\",\"value\":{n},\"timestamp\":1}}\n"))
        .collect();
    let produce_to = ["produce", "keyed", "--partitions", "7"];
    produce(&mut at(&broker, &produce_to), &text);
    produce(&mut on(dir.path(), &produce_to), &text);
    let sorted = |command: &mut Command| {
        let mut records: Vec<String> = succeed(command).lines().map(str::to_owned).collect();
        records.sort();
        records
    };
    let consume = ["consume", "keyed", "--until-end"];
    assert_eq!(
        sorted(&mut at(&broker, &consume)),
        sorted(&mut on(dir.path(), &consume))
    );
}

#[test]
fn a_group_goes_on_where_it_was_and_its_members_share() {
    let Some(broker) = broker("a_group_goes_on_where_it_was_and_its_members_share") else {
        return;
    };
    let rides = |numbers: std::ops::Range<u32>| -> String {
        numbers
            .map(|n| format!("{{\"key\":\"k{n}\",\"value\":{n}}}\n"))
            .collect()
    };
    let numbers = |text: &str| -> Vec<u64> {
        let mut numbers: Vec<u64> = lines(text)
            .iter()
            .map(|line| {
                line["value"]
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .expect("a number")
            })
            .collect();
        numbers.sort_unstable();
        numbers
    };
    succeed(&mut at(&broker, &["topics", "create", "shared", "-p", "2"]));
    produce(&mut at(&broker, &["produce", "shared"]), &rides(0..10));
    let group = |more: &[&str]| at(&broker, &[&["consume", "shared", "--group", "g"], more].concat());
    let mut read = numbers(&succeed(&mut group(&["-n", "4"])));
    read.extend(numbers(&succeed(&mut group(&["--until-end"]))));
    read.sort_unstable();
    assert_eq!(read, (0..10).collect::<Vec<_>>());
    assert_eq!(succeed(&mut group(&["--until-end"])), "");
    let other = at(&broker, &["consume", "shared", "--group", "other", "--until-end"]).output();
    assert_eq!(
        numbers(&String::from_utf8_lossy(&other.expect("it runs").stdout)),
        (0..10).collect::<Vec<_>>()
    );
    let described = || {
        let groups = document(&mut at(&broker, &["groups", "-o", "json"]));
        let groups = groups.as_array().expect("a list").iter();
        groups
            .filter(|group| group["group"] == "g")
            .cloned()
            .next()
            .expect("it is listed")
    };
    let lag = |group: &Value| -> u64 {
        let partitions = group["partitions"].as_array().expect("a list").iter();
        partitions
            .map(|partition| partition["lag"].as_u64().expect("a number"))
            .sum()
    };
    assert_eq!(
        (lag(&described()), described()["members"].as_array().map(Vec::len)),
        (0, Some(0))
    );
    // Three members of two partitions: one waits.
    let start = || Running::start(at(&broker, &["consume", "shared", "--group", "g"]));
    let mut members = [start(), start(), start()];
    wait_until("the members are three", || {
        described()["members"].as_array().map(Vec::len) == Some(3)
    });
    let refused = refuse(&mut at(&broker, &["groups", "delete", "g"]));
    assert!(refused.contains("3 live members"), "{refused}");
    produce(&mut at(&broker, &["produce", "shared"]), &rides(10..30));
    let all = |members: &[Running]| -> Vec<u64> {
        let mut all: Vec<u64> = members.iter().flat_map(|member| numbers(&member.out())).collect();
        all.sort_unstable();
        all
    };
    wait_until("all is read", || all(&members).len() >= 20);
    assert_eq!(all(&members), (10..30).collect::<Vec<_>>());
    assert!(members.iter().filter(|member| !member.out().is_empty()).count() <= 2);
    // One of those that read goes: another takes over, and nothing comes twice.
    wait_until("all is committed", || lag(&described()) == 0);
    let reading = members
        .iter()
        .position(|member| !member.out().is_empty())
        .expect("one reads");
    members[reading].stop(Signal::TERM);
    wait_until("it has left", || {
        described()["members"].as_array().map(Vec::len) == Some(2)
    });
    produce(&mut at(&broker, &["produce", "shared"]), &rides(30..60));
    wait_until("all is read", || all(&members).len() >= 50);
    assert_eq!(all(&members), (10..60).collect::<Vec<_>>());
    for member in &mut members {
        if member.is_alive() {
            member.stop(Signal::TERM);
        }
    }
    succeed(&mut at(&broker, &["groups", "delete", "g"]));
    let gone = refuse(&mut at(&broker, &["groups", "delete", "g"]));
    assert!(gone.contains("there is no consumer group \"g\""), "{gone}");
}

#[test]
fn topics_are_made_with_a_clusters_settings() {
    let Some(broker) = broker("topics_are_made_with_a_clusters_settings") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let create = [
        "topics",
        "create",
        "made",
        "-p",
        "3",
        "--retention",
        "1d",
        "--replication",
        "1",
        "--set",
        "segment.bytes=1048576",
    ];
    succeed(&mut at(&broker, &create));
    let made = document(&mut at(&broker, &["topics", "describe", "made", "-o", "json"]));
    assert_eq!(
        (&made["partitions"], &made["retention_ms"], &made["kind"]),
        (&json!(3), &json!(86_400_000), &json!("stream"))
    );
    let settings = json!({"replication": 1, "properties": {"segment.bytes": "1048576"}});
    assert_eq!(made["settings"], settings);
    let shown = succeed(&mut at(&broker, &["topics", "describe", "made"]));
    assert!(
        shown.contains("retention 1d") && shown.contains("segment.bytes=1048576"),
        "{shown}"
    );
    let refused = refuse(&mut on(dir.path(), &create));
    assert!(refused.contains("the embedded log has no replication"), "{refused}");
    for (more, said) in [
        (["--set", "segment.byte=5"], "segment.byte"),
        (["--replication", "9"], "replication factor"),
    ] {
        let refused = refuse(&mut at(
            &broker,
            &[&["topics", "create", "not-made"], &more[..]].concat(),
        ));
        assert!(
            refused.contains("\"not-made\" cannot be made") && refused.contains(said),
            "{refused}"
        );
    }
    produce(&mut at(&broker, &["produce", "made"]), "1\n2\n");
    // Kafka's own topics are listed, as its tools do it, and left out where only everybody's are wanted.
    succeed(&mut at(
        &broker,
        &["consume", "made", "--group", "g-topics", "--until-end"],
    ));
    let listed = |more: &[&str]| -> Vec<String> {
        let topics = document(&mut at(&broker, &[&["topics", "-o", "json"], more].concat()));
        let topics = topics.as_array().expect("a list").iter();
        topics
            .map(|topic| topic["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert!(listed(&[]).contains(&"__consumer_offsets".to_owned()));
    assert!(!listed(&["--exclude-internal"]).contains(&"__consumer_offsets".to_owned()));
    succeed(&mut at(&broker, &["topics", "delete", "made"]));
    let gone = refuse(&mut at(&broker, &["topics", "describe", "made"]));
    assert!(gone.contains("there is no topic \"made\""), "{gone}");
}

#[test]
fn a_cluster_has_a_name_in_a_file() {
    let Some(broker) = broker("a_cluster_has_a_name_in_a_file") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("config.toml");
    let text = format!(
        "[contexts.try]\nbootstrap = \"${{TRY}}\"\n[contexts.try.properties]\nlinger.ms = 1\n[contexts.gone]\nbootstrap = {:?}\n",
        "127.0.0.1:1"
    );
    std::fs::write(&config, &text).expect("written");
    let mut in_context = millstream(["topics", "create", "named", "--context", "try"]);
    in_context
        .env("MILLSTREAM_CONFIG", &config)
        .env("TRY", broker.bootstrap());
    succeed(&mut in_context);
    let mut by_environment = millstream(["topics", "describe", "named"]);
    succeed(by_environment.env("MILLSTREAM_BOOTSTRAP", broker.bootstrap()));
    let unset = refuse(millstream(["topics", "--context", "try"]).env("MILLSTREAM_CONFIG", &config));
    assert!(
        unset.contains("the variable `TRY` is not set") && unset.contains("config.toml:2"),
        "{unset}"
    );
    std::fs::write(&config, format!("default-context = \"try\"\n{text}")).expect("written");
    let mut usual = millstream(["topics", "delete", "named"]);
    succeed(usual.env("MILLSTREAM_CONFIG", &config).env("TRY", broker.bootstrap()));
    let unknown = refuse(millstream(["topics", "--context", "trial"]).env("MILLSTREAM_CONFIG", &config));
    assert!(
        unknown.contains("there is no context \"trial\"") && unknown.contains("`try`"),
        "{unknown}"
    );
}

/// A pipeline that counts rides by vendor, by a key that is not the records'.
fn counting(dir: &Path, broker: &Broker, name: &str) -> PathBuf {
    let file = dir.join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\nengine = \"kafka\"\n[kafka]\nbootstrap = {:?}\n[source.rides]\ntopic = \"{name}-rides\"\n\
         partitions = 2\n[stage.count]\nplugin = {:?}\ninput = \"rides\"\nkey = \"VendorID\"\n\
         to = {{ counted = \"{name}-counts\" }}\n[commit]\ninterval = \"20ms\"\n",
        broker.bootstrap(),
        plugin("count"),
    );
    std::fs::write(&file, text).expect("the pipeline file is written");
    file
}

#[test]
fn a_pipeline_is_checked_read_and_reset() {
    let Some(broker) = broker("a_pipeline_is_checked_read_and_reset") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let (data, file) = (dir.path().join("data"), counting(dir.path(), &broker, "vendors"));
    let check = || succeed(millstream(["check", "--connect"]).arg(&file));
    let checked = check();
    assert!(
        checked.contains("vendors-rides") && checked.contains("not there: `run` makes it"),
        "{checked}"
    );
    let rides: String = (0..90).map(|n| format!("{{\"VendorID\":{}}}\n", n % 3)).collect();
    produce(
        &mut at(&broker, &["produce", "vendors-rides", "--partitions", "2"]),
        &rides,
    );
    let checked = check();
    assert!(checked.contains("2           there"), "{checked}");
    let run = || succeed(on(&data, &["run", "--until-end"]).arg(&file));
    run();
    let rows = || -> Vec<(Value, Value)> {
        let rows = succeed(&mut at(&broker, &["state", "vendors", "count", "-o", "json"]));
        lines(&rows)
            .iter()
            .map(|row| (row["key"].clone(), row["value"].clone()))
            .collect()
    };
    let counted = rows();
    assert_eq!(counted.len(), 3, "{counted:?}");
    let total = |rows: &[(Value, Value)]| -> u64 {
        let numbers = rows
            .iter()
            .flat_map(|(_, value)| value.as_object().expect("fields").values().filter_map(Value::as_u64));
        numbers.sum()
    };
    assert_eq!(total(&counted), 90, "{counted:?}");
    let listed = document(&mut at(&broker, &["state", "-o", "json"]));
    assert_eq!(
        (&listed[0]["pipeline"], &listed[0]["rows"]),
        (&json!("vendors"), &json!(3)),
        "{listed}"
    );
    let one = succeed(&mut at(&broker, &["state", "vendors", "count", "1", "-o", "json"]));
    assert_eq!(lines(&one).len(), 1, "{one}");
    // The changelog is a table that anybody reads.
    let changelog = listed[0]["changelog"].as_str().expect("a topic").to_owned();
    let table = lines(&succeed(&mut at(&broker, &["consume", &changelog, "--until-end"])));
    assert!(table.iter().all(|row| row["value"].is_object()), "{table:?}");
    let own = refuse(&mut at(&broker, &["topics", "delete", &changelog]));
    assert!(own.contains("millstream reset vendors"), "{own}");
    let own = feed(&mut at(&broker, &["produce", &changelog]), b"{}\n");
    assert!(String::from_utf8_lossy(&own.stderr).contains("pipeline \"vendors\"'s own"));
    // While it runs nobody resets it.
    let mut command = on(&data, &["run"]);
    command.arg(&file);
    let mut host = Running::start(command);
    host.wait_for("the host is at work", |host| host.err().contains("partitions assigned"));
    let refused = refuse(&mut at(&broker, &["reset", "vendors", "--yes"]));
    assert!(refused.contains("1 live member"), "{refused}");
    host.stop(Signal::TERM);
    // Reset, it counts again from the beginning, whatever this host has kept beside the cluster.
    succeed(&mut at(&broker, &["reset", "vendors", "--yes"]));
    assert!(succeed(&mut at(&broker, &["state", "-o", "json"])).trim() == "[]");
    run();
    assert_eq!(rows(), counted);
    run();
    assert_eq!(rows(), counted);
    let unknown = refuse(&mut at(&broker, &["reset", "vendor", "--yes"]));
    assert!(
        unknown.contains("no pipeline \"vendor\"") && unknown.contains("did you mean `vendors`?"),
        "{unknown}"
    );
}

#[test]
fn what_a_check_finds_missing_is_an_error_where_nobody_makes_it() {
    let Some(broker) = broker("what_a_check_finds_missing_is_an_error_where_nobody_makes_it") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let file = counting(dir.path(), &broker, "km");
    let text = std::fs::read_to_string(&file).expect("it is there");
    std::fs::write(&file, text.replace("[kafka]\n", "[kafka]\ncreate-topics = false\n")).expect("written");
    let output = millstream(["check", "--connect"]).arg(&file).output().expect("it runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        !output.status.success() && out.contains("create-topics = false"),
        "{out}{err}"
    );
    assert!(err.contains("topics cannot be used so"), "{err}");
    // The embedded log's folder is looked at too, and not made by that.
    let embedded = dir.path().join("embedded.toml");
    let text = "[source.rides]\n[stage.split]\nplugin = PLUGIN\ninput = \"rides\"\nto = { high = \"h\", low = \"l\" }\n\
                config = { threshold = 40 }\n";
    std::fs::write(
        &embedded,
        text.replace("PLUGIN", &format!("{:?}", plugin("branch-by-amount"))),
    )
    .expect("written");
    let data = dir.path().join("data");
    let looked = succeed(on(&data, &["check", "--connect"]).arg(&embedded));
    assert!(
        looked.contains("the embedded log in") && looked.contains("not there: `run` makes it"),
        "{looked}"
    );
    assert!(!data.exists());
}

/// A broker that asks for a password, and lets only its administrator do anything.
const SECURED: [(&str, &str); 8] = [
    (
        "listener.security.protocol.map",
        "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    ),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("sasl.enabled.mechanisms", "PLAIN"),
    ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
    (
        "listener.name.plaintext.plain.sasl.jaas.config",
        "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"admin\" password=\"admin-secret\" \
         user_admin=\"admin-secret\" user_rides=\"rides-secret\";",
    ),
    (
        "authorizer.class.name",
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    ),
    ("super.users", "User:admin;User:ANONYMOUS"),
    ("allow.everyone.if.no.acl.found", "false"),
];

#[test]
fn whoever_is_not_let_in_is_told_so_soon() {
    let Some(jars) = kafka::jars(Edition::KRaft, "whoever_is_not_let_in_is_told_so_soon") else {
        return;
    };
    let broker = Broker::start_with(Edition::KRaft, &jars, &SECURED);
    let as_user = |user: &str, password: &str, args: &[&str]| {
        let mut command = at(&broker, args);
        command.args(["-X", "security.protocol=SASL_PLAINTEXT", "-X", "sasl.mechanism=PLAIN"]);
        command.args([
            "-X",
            &format!("sasl.username={user}"),
            "-X",
            &format!("sasl.password={password}"),
        ]);
        command
    };
    succeed(&mut as_user("admin", "admin-secret", &["topics", "create", "secret"]));
    produce(&mut as_user("admin", "admin-secret", &["produce", "secret"]), "1\n");
    for (user, password, args, said) in [
        ("admin", "wrong-secret", &["topics"][..], "Authentication failed"),
        (
            "rides",
            "rides-secret",
            &["consume", "secret"],
            "no right to use the topic",
        ),
        (
            "rides",
            "rides-secret",
            &["topics", "create", "more"],
            "no right to use the topic",
        ),
    ] {
        let began = std::time::Instant::now();
        let refused = refuse(&mut as_user(user, password, args));
        assert!(
            refused.contains(said) && refused.contains(&broker.bootstrap()),
            "{args:?}: {refused}"
        );
        assert!(!refused.contains(password), "a secret is shown: {refused}");
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    }
    let kerberos = [
        "topics",
        "-X",
        "security.protocol=SASL_PLAINTEXT",
        "-X",
        "sasl.mechanism=GSSAPI",
    ];
    let refused = refuse(&mut at(&broker, &kerberos));
    assert!(refused.contains("No provider for SASL mechanism GSSAPI"), "{refused}");
    // Who sees nothing is not told of what is there.
    assert!(!succeed(&mut as_user("rides", "rides-secret", &["topics"])).contains("secret"));
    // Without a word of who it is.
    let refused = refuse(&mut at(&broker, &["topics"]));
    assert!(refused.contains("cannot be used"), "{refused}");
}
