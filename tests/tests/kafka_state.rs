//! Promise: state on Kafka is there again, whatever is lost and compacted; changelogs are tables that others read.
//!
//! 8 cases of the model here; `MILLSTREAM_MODEL_RUNS=100` asks for more.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millstream::connect::kafka::{Catalog, ClusterSettings, KafkaChangelogs, changelog_settings};
use millstream::connect::{BlockBuilder, CommitError, LogError, StoreSchema, TableAppend, TopicPartition, TopicRole};
use millstream::record::Record;
use millstream::schema::{Field, FieldType};
use millstream::state::codec::write_row;
use millstream::state::{
    Backend, CaughtUp, Changelog, Flusher, StateDb, StateOptions, StoreError, StoreShape, TableBuffers, TableCodec,
    TableForm, TaskStore, Wake,
};
use millstream::table::{Cell, Column, Table};
use millstream::window::StreamTime;
use millstream_tests::skip;
use millstream_tests::store_model::{self, StoreLog};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

const TIME_MAX: Duration = Duration::from_secs(60);

/// Where the broker is that these tests may use.
const BOOTSTRAP: &str = "MILLSTREAM_TEST_KAFKA";

fn bootstrap() -> String {
    std::env::var(BOOTSTRAP).unwrap_or_default()
}

/// Says that a test is skipped where nobody named a broker.
fn no_broker(test: &str) -> bool {
    let missing = bootstrap().is_empty();
    if missing {
        skip(test, &format!("{BOOTSTRAP} names no broker"));
    }
    missing
}

fn settings() -> ClusterSettings {
    ClusterSettings {
        bootstrap: bootstrap(),
        ..ClusterSettings::default()
    }
}

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap());
    config
}

fn unique(name: &str) -> String {
    format!("{name}-{:08x}", rand::random::<u32>())
}

fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// Makes a changelog with settings beside its own.
fn create(topic: &str, partitions: i32, more: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = config().create().expect("a client");
    let own = changelog_settings();
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in &own {
        if more.iter().all(|(other, _)| other != name) {
            new = new.set(name, value);
        }
    }
    new = more.iter().fold(new, |new, (name, value)| new.set(name, value));
    let made = wait(admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(TIME_MAX))));
    made.expect("an answer")[0].as_ref().expect("a new topic");
}

/// Compacted as soon and as thoroughly as a broker does it.
const COMPACTED_AT_ONCE: [(&str, &str); 4] = [
    ("segment.ms", "200"),
    ("min.cleanable.dirty.ratio", "0.001"),
    ("delete.retention.ms", "500"),
    ("segment.bytes", "1048576"),
];

/// Offsets of what was delivered.
#[derive(Default)]
struct Offsets(Mutex<Vec<u64>>);

impl ClientContext for Offsets {}

impl ProducerContext for Offsets {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Ok(message) = result {
            self.0.lock().expect("no panic").push(message.offset() as u64);
        }
    }
}

/// Writes changes as a host does.
struct Writer {
    producer: BaseProducer<Offsets>,
}

impl Writer {
    fn new(id: &str) -> Writer {
        let mut config = config();
        config
            .set("transactional.id", id)
            .set("linger.ms", "0")
            .set("message.max.bytes", "4194304");
        let producer: BaseProducer<Offsets> = config.create_with_context(Offsets::default()).expect("a producer");
        producer.init_transactions(TIME_MAX).expect("a transactional id");
        Writer { producer }
    }

    /// Writes changes in a transaction that is left open. Returns the offsets.
    fn write(&self, place: &TopicPartition, blocks: &BlockBuilder, codec: &TableCodec) -> Vec<u64> {
        self.producer.context().0.lock().expect("no panic").clear();
        self.producer.begin_transaction().expect("begun");
        let mut buffers = TableBuffers::default();
        blocks.each(|change| {
            let written = codec.encode(change, &mut buffers);
            let mut record = BaseRecord::<[u8], [u8]>::to(&place.topic)
                .partition(place.partition as i32)
                .key(written.key)
                .timestamp(written.timestamp_ms);
            if let Some(value) = written.value {
                record = record.payload(value);
            }
            if let Some(value) = written.schema {
                let header = Header {
                    key: "schema",
                    value: Some(value),
                };
                record = record.headers(OwnedHeaders::new().insert(header));
            }
            self.producer.send(record).map_err(|(error, _)| error).expect("sent");
        });
        self.producer.flush(TIME_MAX).expect("delivered");
        self.producer.context().0.lock().expect("no panic").clone()
    }

    fn commit(&self) {
        self.producer.commit_transaction(TIME_MAX).expect("committed");
    }

    fn abort(&self) {
        self.producer.abort_transaction(TIME_MAX).expect("aborted");
    }
}

struct Kafka {
    catalog: Arc<Catalog>,
    changelogs: Arc<KafkaChangelogs>,
    writer: Writer,
    topic_settings: Vec<(&'static str, &'static str)>,
}

impl Kafka {
    fn open(id: &str) -> Kafka {
        let catalog = Arc::new(Catalog::of_topic(settings(), "catalog-of-tests".into()));
        Kafka {
            changelogs: KafkaChangelogs::new(settings(), catalog.clone()),
            catalog,
            writer: Writer::new(id),
            topic_settings: COMPACTED_AT_ONCE.to_vec(),
        }
    }
}

impl StoreLog for Kafka {
    fn changelogs(&self) -> Arc<dyn Changelog> {
        self.changelogs.clone()
    }

    fn create(&self, topic: &str, role: TopicRole) {
        create(topic, 1, &self.topic_settings);
        self.catalog.set(topic, &role).expect("written");
    }

    fn commit(&self, place: &TopicPartition, blocks: BlockBuilder, table: TableAppend) -> u64 {
        let offsets = self.writer.write(place, &blocks, &table.codec);
        self.writer.commit();
        let base = offsets.last().expect("a record") + 1 - blocks.len();
        self.changelogs.remember(place, table.from, base, blocks);
        base
    }

    fn fail(&self, place: &TopicPartition, blocks: BlockBuilder, table: TableAppend) {
        self.writer.write(place, &blocks, &table.codec);
        self.writer.abort();
    }

    fn delete(&self, topic: &str) {
        self.catalog.remove(topic).expect("removed");
        let admin: AdminClient<DefaultClientContext> = config().create().expect("a client");
        wait(admin.delete_topics(&[topic], &AdminOptions::new())).expect("an answer");
    }

    fn close(&self) {}
}

#[test]
fn a_store_is_a_map_whatever_happens_to_its_process() {
    if no_broker("a_store_is_a_map_whatever_happens_to_its_process") {
        return;
    }
    let cases = std::env::var("MILLSTREAM_MODEL_RUNS").map_or(8, |runs| runs.parse().expect("a number"));
    let id = unique("model");
    store_model::check(cases, 120, &move |_: &Path| Box::new(Kafka::open(&id)));
}

fn field(name: &str, field_type: FieldType) -> Field {
    Field {
        name: name.into(),
        field_type,
        optional: false,
    }
}

/// Counts by key, as an aggregator keeps them.
fn counts(changelog: &str) -> (Arc<StoreShape>, TopicRole) {
    let fields = [field("count", FieldType::Integer)];
    let mut shape = StoreShape::of_groups("p", "count", changelog.into(), &fields, None);
    let role = shape.join("count", None, None).expect("nothing was there");
    (Arc::new(shape), role)
}

fn count(n: i64, timestamp_ms: i64) -> Vec<u8> {
    let mut column = Column::default();
    column.push(FieldType::Integer, 0, Cell::Integer(n));
    let table = Table {
        rows: 1,
        columns: vec![column],
    };
    let mut row = Vec::new();
    write_row(
        0,
        timestamp_ms,
        &[field("count", FieldType::Integer)],
        &table,
        0,
        &mut row,
    );
    row
}

/// A store with what it needs, in a folder.
struct Store {
    kafka: Kafka,
    store: TaskStore,
    backend: Backend,
}

impl Store {
    fn open(folder: &Path, id: &str, shape: &Arc<StoreShape>) -> Store {
        let kafka = Kafka::open(id);
        let db = StateDb::open(folder, StateOptions::default()).expect("it opens").db;
        let log = kafka.changelogs();
        let flusher = Arc::new(Flusher::start(db.clone(), log.clone()).expect("a thread"));
        let backend = Backend { db, flusher, log };
        let store = TaskStore::open(shape.clone(), 0, backend.clone()).expect("it opens");
        Store { kafka, store, backend }
    }

    fn catch_up(&mut self) -> Result<(), StoreError> {
        let (woken, waits) = std::sync::mpsc::channel();
        let wake: Wake = Arc::new(move || woken.send(()).unwrap_or_default());
        loop {
            match self.store.catch_up(i64::MIN, &wake)? {
                CaughtUp::Done => return Ok(()),
                CaughtUp::More => {}
                CaughtUp::Waits => waits.recv_timeout(TIME_MAX).expect("it is woken"),
            }
        }
    }

    fn commit(&mut self) {
        let place = self.store.changelog().clone();
        let Some(blocks) = self.store.changes(StreamTime::default()) else {
            return;
        };
        let table = TableAppend {
            append: 0,
            codec: self.store.shape().table().expect("joined").clone(),
            from: self.store.applied(),
        };
        let (records, bytes) = (blocks.len(), blocks.bytes() as u64);
        let base = self.kafka.commit(&place, blocks, table);
        self.store.committed(base, records, bytes);
    }

    /// Everything is in the local store.
    fn flush(&mut self) {
        let until = Instant::now() + TIME_MAX;
        loop {
            self.store.tend(Instant::now(), 0, None, || ());
            let flushed = self
                .backend
                .db
                .flushed(&self.store.shape().changelog, 0)
                .expect("it answers");
            if flushed == Some(self.store.applied()) {
                return;
            }
            assert!(Instant::now() < until, "not flushed: {:?}", self.store.flush_error());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn rows(&mut self, keys: u32) -> Vec<Option<Vec<u8>>> {
        let mut row = |n: u32| {
            let row = self.store.get(n.to_string().as_bytes(), StreamTime::default());
            row.expect("it can be read").map(<[u8]>::to_vec)
        };
        (0..keys).map(&mut row).collect()
    }

    fn close(self) {
        self.backend.flusher.close();
        self.backend.db.close();
    }
}

/// Reads a whole topic as another program does: keys, values, offsets of what is committed.
fn read_all(topic: &str) -> Vec<(u64, Option<String>, Option<String>)> {
    let mut config = config();
    config
        .set("group.id", unique("reader"))
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut places = TopicPartitionList::new();
    places
        .add_partition_offset(topic, 0, Offset::Beginning)
        .expect("an offset");
    consumer.assign(&places).expect("assigned");
    let mut found = Vec::new();
    loop {
        match consumer.poll(TIME_MAX).expect("it answers") {
            Ok(message) => {
                let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                assert!(message.headers().is_none_or(|headers| headers.count() == 0));
                found.push((message.offset() as u64, text(message.key()), text(message.payload())));
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => return found,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until the broker has compacted a topic to at most so many records.
fn wait_compacted(topic: &str, records_max: usize) {
    let until = Instant::now() + TIME_MAX;
    loop {
        let left = read_all(topic).len();
        if left <= records_max {
            return;
        }
        assert!(Instant::now() < until, "{left} records are left of {topic}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_restore_after_compaction_is_the_state_before() {
    if no_broker("a_restore_after_compaction_is_the_state_before") {
        return;
    }
    let (topic, id, dir) = (
        unique("restored"),
        unique("restored"),
        tempfile::tempdir().expect("a folder"),
    );
    let (shape, role) = counts(&topic);
    let first = dir.path().join("first");
    let mut store = {
        Kafka::open(&id).create(&topic, role);
        Store::open(&first, &id, &shape)
    };
    store.catch_up().expect("empty");
    let keys = 500;
    for round in 0..40 {
        for key in 0..keys {
            let bytes = key.to_string();
            match (key + round) % 7 {
                0 => store.store.delete(bytes.as_bytes()),
                1..=3 => store
                    .store
                    .put(bytes.as_bytes(), &count(i64::from(round), 1_000 + i64::from(round))),
                _ => {}
            }
        }
        store.commit();
        if round == 20 {
            store.flush();
        }
    }
    // Those are deleted at the end, and what deletes them goes too.
    for key in 0..50u32 {
        store.store.delete(key.to_string().as_bytes());
    }
    store.commit();
    let before = store.rows(keys);
    let there = before.iter().flatten().count();
    assert!(there > 300 && there < 450, "{there}");
    // A segment is closed with the next record behind its time.
    std::thread::sleep(Duration::from_millis(400));
    for n in 0..3 {
        store.store.put(b"last", &count(n, 5_000_000 + 1_000 * n));
        store.commit();
        std::thread::sleep(Duration::from_millis(800));
    }
    wait_compacted(&topic, there + 30);
    store.close();

    // The disk is lost.
    let mut restored = Store::open(&dir.path().join("second"), &id, &shape);
    restored.catch_up().expect("restored");
    assert!(restored.rows(keys) == before, "the state of a restore");
    restored.flush();
    restored.close();
    let mut kept = Store::open(&dir.path().join("second"), &id, &shape);
    kept.catch_up().expect("caught up");
    assert!(kept.rows(keys) == before, "the state of what was restored and flushed");
    kept.close();

    // The local store has rows whose deletes are gone from the changelog: by its age it is known.
    let mut old = Store::open(&first, &id, &shape);
    let seven_days_ms = 7 * 24 * 3_600_000;
    let now_ms = i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("a clock").as_millis()).expect("a time");
    old.backend
        .db
        .note_as_of(&topic, 0, now_ms - seven_days_ms)
        .expect("noted");
    old.catch_up().expect("made anew");
    assert!(old.rows(keys) == before, "the state of a store that was made anew");
    old.flush();
    assert!(
        old.backend
            .db
            .as_of(&topic, 0)
            .expect("it answers")
            .is_some_and(|at| at >= now_ms)
    );
    old.close();
}

#[test]
fn a_changelog_is_a_table_that_others_read() {
    if no_broker("a_changelog_is_a_table_that_others_read") {
        return;
    }
    let (topic, id, dir) = (unique("table"), unique("table"), tempfile::tempdir().expect("a folder"));
    let (shape, role) = counts(&topic);
    Kafka::open(&id).create(&topic, role);
    let mut store = Store::open(dir.path(), &id, &shape);
    store.catch_up().expect("empty");
    store.store.put(b"a", &count(1, 7));
    store.store.put(b"b", &count(2, 8));
    store.commit();
    store.store.delete(b"a");
    store.commit();
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        (0, text("a"), text(r#"{"count":1}"#)),
        (1, text("b"), text(r#"{"count":2}"#)),
        // A marker lies between.
        (3, text("a"), None),
    ];
    assert_eq!(read_all(&topic), expected);
    store.close();
}

#[test]
fn only_what_is_committed_is_read_and_open_transactions_are_waited_for() {
    if no_broker("only_what_is_committed_is_read_and_open_transactions_are_waited_for") {
        return;
    }
    let (topic, id) = (unique("open"), unique("open"));
    let (shape, role) = counts(&topic);
    let kafka = Kafka::open(&id);
    kafka.create(&topic, role);
    let place = TopicPartition::new(topic.as_str(), 0);
    let codec = shape.table().expect("joined").clone();
    let change = |key: &str, n: i64| {
        let mut blocks = BlockBuilder::new();
        let record = Record {
            key: Some(key.as_bytes().to_vec()),
            value: Some(count(n, n)),
            timestamp_ms: n,
            ..Record::default()
        };
        blocks.push(record.at(0)).expect("small");
        blocks
    };
    kafka.writer.write(&place, &change("aborted", 1), &codec);
    kafka.writer.abort();
    kafka.writer.write(&place, &change("kept", 2), &codec);
    kafka.writer.commit();
    let fetch = |from| {
        let fetched = kafka.changelogs.fetch(&place, from, 1 << 20).expect("it answers");
        let keys = fetched
            .records()
            .map(|record| (record.offset, record.key.expect("a key").to_vec()));
        (keys.collect::<Vec<_>>(), fetched.next_offset())
    };
    assert_eq!(fetch(0), (vec![(2, b"kept".to_vec())], 4), "behind the marker");
    assert_eq!(fetch(4), (vec![], 4));
    assert_eq!(kafka.changelogs.ends(&place), Ok((0, 4)));

    let other = Writer::new(&unique("other"));
    other.write(&place, &change("late", 3), &codec);
    assert_eq!(kafka.changelogs.committed_ends(&place), Ok((0, 4)));
    let (woken, waits) = std::sync::mpsc::channel();
    let wake: Wake = Arc::new(move || woken.send(()).unwrap_or_default());
    assert_eq!(kafka.changelogs.ends_soon(&place, &wake), Ok(None));
    assert!(
        waits.recv_timeout(Duration::from_millis(700)).is_err(),
        "the transaction is open"
    );
    assert_eq!(kafka.changelogs.ends_soon(&place, &wake), Ok(None));
    other.commit();
    waits.recv_timeout(TIME_MAX).expect("it is woken");
    assert_eq!(kafka.changelogs.ends_soon(&place, &wake), Ok(Some((0, 6))));
    assert_eq!(fetch(4), (vec![(4, b"late".to_vec())], 6));
}

#[test]
fn records_that_somebody_deleted_are_missed() {
    if no_broker("records_that_somebody_deleted_are_missed") {
        return;
    }
    let (topic, id, dir) = (
        unique("truncated"),
        unique("truncated"),
        tempfile::tempdir().expect("a folder"),
    );
    let (shape, role) = counts(&topic);
    Kafka::open(&id).create(&topic, role);
    let mut store = Store::open(&dir.path().join("first"), &id, &shape);
    store.catch_up().expect("empty");
    for n in 0..5 {
        store.store.put(b"a", &count(n, n));
        store.commit();
    }
    store.close();
    // A compacted topic lets nobody delete records: whoever does it changes that.
    let admin: AdminClient<DefaultClientContext> = config().create().expect("a client");
    let resource = rdkafka::admin::AlterConfig::new(rdkafka::admin::ResourceSpecifier::Topic(&topic))
        .set("cleanup.policy", "delete");
    wait(admin.alter_configs([&resource], &AdminOptions::new())).expect("altered");
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(&topic, 0, Offset::Offset(4))
        .expect("an offset");
    wait(admin.delete_records(&before, &AdminOptions::new())).expect("deleted");
    let mut restored = Store::open(&dir.path().join("second"), &id, &shape);
    let error = restored.catch_up().expect_err("rows are missing");
    assert!(matches!(error, StoreError::Truncated(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("somebody deleted records") && text.contains("from offset 4 to 10"),
        "{text}"
    );
    restored.close();
    // The changelog goes altogether.
    wait(admin.delete_topics(&[&topic], &AdminOptions::new())).expect("deleted");
    std::thread::sleep(Duration::from_secs(1));
    let mut gone = Store::open(&dir.path().join("third"), &id, &shape);
    let error = gone.catch_up().expect_err("there is no changelog");
    assert!(
        matches!(
            &error,
            StoreError::Log {
                source: LogError::UnknownTopic { .. },
                ..
            }
        ),
        "{error}"
    );
    gone.close();
}

fn repartition(stage: &str) -> TopicRole {
    TopicRole::Repartition {
        pipeline: "p".into(),
        stage: stage.into(),
    }
}

#[test]
fn the_catalog_says_what_topics_are() {
    if no_broker("the_catalog_says_what_topics_are") {
        return;
    }
    let topic = unique("catalog");
    let (one, other) = (
        Catalog::of_topic(settings(), topic.clone()),
        Catalog::of_topic(settings(), topic.clone()),
    );
    assert!(one.roles().expect("it answers").is_empty(), "nobody wrote any");
    let made = one.role("t").expect("it answers");
    assert_eq!(made, None);
    one.remove("t").expect("nothing to do");
    let (_, changelog) = counts("t");
    one.set("t", &changelog).expect("written");
    other.set("u", &repartition("u")).expect("written");
    for catalog in [&one, &other] {
        let roles = catalog.roles().expect("it answers");
        assert_eq!(roles.keys().collect::<Vec<_>>(), ["t", "u"]);
        assert_eq!(*roles["t"], changelog);
    }
    one.remove("t").expect("removed");
    assert_eq!(other.role("t").expect("it answers"), None);
    assert_eq!(other.role("u").expect("it answers").as_deref(), Some(&repartition("u")));
}

#[test]
fn of_two_who_write_the_catalog_at_once_one_is_told() {
    if no_broker("of_two_who_write_the_catalog_at_once_one_is_told") {
        return;
    }
    let topic = unique("raced");
    let catalogs: Vec<_> = (0..4).map(|_| Catalog::of_topic(settings(), topic.clone())).collect();
    catalogs[0].set("t", &repartition("first")).expect("written");
    // All know what is there, and then each writes something else on top of that.
    catalogs
        .iter()
        .for_each(|catalog| assert!(catalog.role("t").expect("it answers").is_some()));
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (n, catalog) in catalogs.iter().enumerate() {
            let outcomes = &outcomes;
            scope.spawn(move || {
                let role = repartition(&n.to_string());
                let outcome = catalog.set("t", &role);
                outcomes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((role, outcome));
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("no panic");
    let last = catalogs[0].role("t").expect("it answers").expect("it is something");
    let winners: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.is_ok())
        .map(|(role, _)| role)
        .collect();
    assert!(
        winners.contains(&&*last),
        "who was told that it is written: {winners:?}; what is there: {last:?}"
    );
    let told = |outcome: &Result<(), CommitError>| matches!(outcome, Err(CommitError::Unavailable { .. }));
    assert!(
        outcomes.iter().all(|(_, outcome)| outcome.is_ok() || told(outcome)),
        "{outcomes:?}"
    );
}

#[test]
fn a_row_of_a_version_that_came_later_is_read() {
    if no_broker("a_row_of_a_version_that_came_later_is_read") {
        return;
    }
    let (topic, id) = (unique("versions"), unique("versions"));
    let schema = |fields: &[Field]| StoreSchema {
        key: Vec::new(),
        value: fields.to_vec(),
        window_size_ms: None,
        by: None,
        window_grace_ms: 0,
        time_to_live_ms: 0,
    };
    let (first, second) = ([field("count", FieldType::Integer)], [field("name", FieldType::Text)]);
    let role = |schemas: &[StoreSchema]| TopicRole::Changelog {
        pipeline: "p".into(),
        stage: "s".into(),
        store: None,
        schemas: schemas.to_vec(),
    };
    let kafka = Kafka::open(&id);
    kafka.create(&topic, role(&[schema(&first)]));
    let place = TopicPartition::new(topic.as_str(), 0);
    let write = |number: u32, fields: &[Field], cell: Cell<'_>, codec: &TableCodec| {
        let mut column = Column::default();
        column.push(fields[0].field_type, 0, cell);
        let table = Table {
            rows: 1,
            columns: vec![column],
        };
        let mut row = Vec::new();
        write_row(number, 5, fields, &table, 0, &mut row);
        let record = Record {
            key: Some(b"k".to_vec()),
            value: Some(row.clone()),
            timestamp_ms: 5,
            ..Record::default()
        };
        let mut blocks = BlockBuilder::new();
        blocks.push(record.at(0)).expect("small");
        kafka.writer.write(&place, &blocks, codec);
        kafka.writer.commit();
        row
    };
    let old = TableCodec::of_schemas(&[schema(&first)], TableForm::Json).expect("schemas");
    let mut rows = vec![write(0, &first, Cell::Integer(3), &old)];
    let read = |from| {
        let fetched = kafka.changelogs.fetch(&place, from, 1 << 20).expect("it answers");
        let rows: Vec<_> = fetched
            .records()
            .map(|record| record.value.expect("a row").to_vec())
            .collect();
        rows
    };
    assert_eq!(read(0), rows);
    // Another host says so, and writes.
    let schemas = [schema(&first), schema(&second)];
    let elsewhere = Catalog::of_topic(settings(), "catalog-of-tests".into());
    elsewhere.set(&topic, &role(&schemas)).expect("written");
    for form in [TableForm::Json, TableForm::Binary] {
        let codec = TableCodec::of_schemas(&schemas, form).expect("schemas");
        rows.push(write(1, &second, Cell::Text("é"), &codec));
    }
    assert_eq!(read(0), rows);
}
