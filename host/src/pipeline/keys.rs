//! The keys of a pipeline file: the one description that the walker checks files with and the JSON Schema is made of.

use std::time::Duration;

use super::grammar::{Key, Section, Shape};
use crate::limits::PARTITIONS_MAX;

const fn key(name: &'static str, shape: Shape, summary: &'static str, example: &'static str) -> Key {
    Key {
        name,
        shape,
        required: false,
        summary,
        example,
    }
}

const fn required(name: &'static str, shape: Shape, summary: &'static str, example: &'static str) -> Key {
    Key {
        name,
        shape,
        required: true,
        summary,
        example,
    }
}

/// No duration of event time is longer: ten years.
const TIME_MAX: Duration = Duration::from_secs(3650 * 86_400);

const PARTITIONS: Shape = Shape::Count {
    min: 1,
    max: PARTITIONS_MAX as u64,
};

/// The file itself.
pub(super) static FILE: Section = Section {
    what: "a pipeline",
    keys: &[
        key(
            "name",
            Shape::Text,
            "what the pipeline and its consumer group are called; by default the file's name without `.toml`",
            "\"taxi\"",
        ),
        key(
            "engine",
            Shape::Word(&["embedded", "kafka"]),
            "where the topics are; by default \"embedded\", the log in the data folder",
            "\"kafka\"",
        ),
        required(
            "source",
            Shape::Named(&Shape::Section(&SOURCE)),
            "the topics that are read, each under a name",
            "{ rides = {} }",
        ),
        required(
            "stage",
            Shape::Named(&Shape::Section(&STAGE)),
            "the plugins that run, each under a name",
            "{ split = { plugin = \"split.wasm\", input = \"rides\" } }",
        ),
        key(
            "dlq",
            Shape::Section(&DLQ),
            "where records go that cannot be processed",
            "{ topic = \"rides-dlq\" }",
        ),
        key(
            "kafka",
            Shape::Section(&KAFKA),
            "how the cluster is reached, where the engine is \"kafka\"",
            "{ bootstrap = \"127.0.0.1:9092\" }",
        ),
        key(
            "commit",
            Shape::Section(&COMMIT),
            "when what was done becomes true",
            "{ interval = \"1s\" }",
        ),
        key(
            "state",
            Shape::Section(&STATE),
            "what the pipeline's stores and groups may take",
            "{ memory = \"1GiB\" }",
        ),
    ],
};

static SOURCE: Section = Section {
    what: "a source",
    keys: &[
        key(
            "topic",
            Shape::Text,
            "the topic; by default the source's name",
            "\"rides\"",
        ),
        key(
            "topic-pattern",
            Shape::Text,
            "a regular expression for the names of several topics, in place of `topic`; on Kafka those that come later too",
            "\"rides-.*\"",
        ),
        key(
            "format",
            FORMAT,
            "how values are written; by default \"json\"",
            "\"text\"",
        ),
        key(
            "key-format",
            KEY_FORMAT,
            "how keys are written; by default \"text\"",
            "\"json\"",
        ),
        key(
            "timestamp",
            Shape::Text,
            "the field of the value that holds the event time; by default the record's timestamp counts",
            "\"/tpep_pickup_datetime\"",
        ),
        key(
            "key",
            Shape::Text,
            "the field of the value that is the key; by default the record's key counts",
            "\"/VendorID\"",
        ),
        key(
            "partitions",
            PARTITIONS,
            "how many partitions the topic gets if it has to be created; by default 1",
            "4",
        ),
        key(
            "future",
            Shape::Duration {
                min: Duration::ZERO,
                max: TIME_MAX,
            },
            "how far the event time may be ahead of the time at which a record was written to the topic; by default \"1h\"",
            "\"5m\"",
        ),
        key(
            "idle",
            Shape::Duration {
                min: Duration::from_secs(1),
                max: TIME_MAX,
            },
            "when nothing has come for so long, stream time moves with the clock; by default it stands still",
            "\"30s\"",
        ),
    ],
};

const FORMAT: Shape = Shape::Any(&[
    Shape::Word(&["json", "csv", "text", "raw"]),
    Shape::Section(&FORMAT_TABLE),
]);
const KEY_FORMAT: Shape = Shape::Word(&["text", "json", "raw"]);

static NOTHING: Section = Section {
    what: "a format without settings",
    keys: &[],
};

static FORMAT_TABLE: Section = Section {
    what: "a format with its settings",
    keys: &[
        key("json", Shape::Section(&NOTHING), "one JSON value", "{}"),
        key(
            "csv",
            Shape::Section(&CSV),
            "one line of comma-separated values; read, not written",
            "{ columns = [\"VendorID\", \"fare_amount\"] }",
        ),
        key("text", Shape::Section(&NOTHING), "UTF-8 text", "{}"),
        key(
            "raw",
            Shape::Section(&NOTHING),
            "bytes that mean nothing to the host",
            "{}",
        ),
    ],
};

static CSV: Section = Section {
    what: "csv",
    keys: &[
        required(
            "columns",
            Shape::List(&Shape::Text),
            "the names of the columns, in their order",
            "[\"VendorID\", \"fare_amount\"]",
        ),
        key(
            "delimiter",
            Shape::Text,
            "one ASCII character between the cells; by default \",\"",
            "\";\"",
        ),
    ],
};

static STAGE: Section = Section {
    what: "a stage",
    keys: &[
        required(
            "plugin",
            Shape::Text,
            "the component's file, relative to the pipeline file",
            "\"split.wasm\"",
        ),
        required(
            "input",
            Shape::Any(&[Shape::Text, Shape::List(&Shape::Text), Shape::Named(&INPUT)]),
            "what it reads: a source or \"stage.branch\", or several in an array; for a plugin with several inputs a table from input to these",
            "\"rides\"",
        ),
        key("config", Shape::Free, "the plugin's settings", "{ threshold = 40 }"),
        key(
            "key",
            Shape::Text,
            "the field of the value that its records are brought together by; by default the record's key counts",
            "\"VendorID\"",
        ),
        key(
            "partitions",
            PARTITIONS,
            "how many partitions the internal topic of a stage with a `key` gets; by default as many as the largest source",
            "4",
        ),
        key(
            "window",
            Shape::Any(&[WINDOW_SIZE, Shape::Section(&WINDOW)]),
            "how an aggregator's groups are divided by event time: the length of windows one behind the other, or a table",
            "\"1m\"",
        ),
        key(
            "emit",
            Shape::Word(&["update", "every-update", "close"]),
            "when an aggregator's results are sent: for what changed once a commit, for each record, or once when a window closes; by default \"update\"",
            "\"close\"",
        ),
        key(
            "to",
            Shape::Named(&TO),
            "where its branches go: a topic, a table with topic and settings, or false to drop them",
            "{ high = \"rides-high\", low = false }",
        ),
        key(
            "limits",
            Shape::Section(&LIMITS),
            "what an instance of the plugin may take",
            "{ memory = \"128MB\" }",
        ),
        key(
            "grant",
            Shape::List(&Shape::Text),
            "what the plugin is allowed beyond the contract",
            "[\"clock\"]",
        ),
    ],
};

const WINDOW_SIZE: Shape = Shape::Duration {
    min: Duration::from_millis(1),
    max: TIME_MAX,
};

static WINDOW: Section = Section {
    what: "a window",
    keys: &[
        key(
            "tumbling",
            WINDOW_SIZE,
            "the length of windows that follow one another",
            "\"1m\"",
        ),
        key("hopping", WINDOW_SIZE, "the length of windows that overlap", "\"5m\""),
        key(
            "advance",
            WINDOW_SIZE,
            "from the start of one hopping window to the next",
            "\"1m\"",
        ),
        key(
            "grace",
            Shape::Duration {
                min: Duration::ZERO,
                max: TIME_MAX,
            },
            "how long after its end a window still takes records, in stream time; by default \"0s\"",
            "\"10s\"",
        ),
        key(
            "offset",
            Shape::Duration {
                min: Duration::ZERO,
                max: TIME_MAX,
            },
            "how long after the epoch the first window begins; by default \"0s\"",
            "\"30s\"",
        ),
    ],
};

const INPUT: Shape = Shape::Any(&[Shape::Text, Shape::List(&Shape::Text)]);
const TO: Shape = Shape::Any(&[Shape::Text, Shape::Section(&SINK), Shape::False]);

static SINK: Section = Section {
    what: "a branch's topic",
    keys: &[
        required(
            "topic",
            Shape::Text,
            "the topic that the branch is written to",
            "\"rides-high\"",
        ),
        key(
            "format",
            FORMAT,
            "how values are written; by default JSON where the branch makes new values, else as they were read",
            "\"json\"",
        ),
        key(
            "partitions",
            PARTITIONS,
            "how many partitions the topic gets if it has to be created; by default as many as the source has",
            "4",
        ),
    ],
};

static LIMITS: Section = Section {
    what: "limits",
    keys: &[
        key(
            "memory",
            Shape::Size {
                min: 1 << 20,
                max: 4 << 30,
            },
            "all memories and tables of an instance; by default \"64MiB\"",
            "\"128MB\"",
        ),
        key(
            "time",
            Shape::Duration {
                min: Duration::from_millis(1),
                max: Duration::from_secs(60),
            },
            "one call; by default \"1s\"",
            "\"500ms\"",
        ),
        key(
            "output",
            Shape::Size {
                min: 1_000,
                max: 1 << 30,
            },
            "what one call may return; by default \"16MiB\"",
            "\"32MB\"",
        ),
        key(
            "rows",
            Shape::Count { min: 1, max: 1_000_000 },
            "rows that may come out of a call for each that went in; by default 1000",
            "10",
        ),
        key(
            "log-lines",
            Shape::Count { min: 0, max: 100_000 },
            "log lines of an instance in a second; by default 100",
            "10",
        ),
    ],
};

static DLQ: Section = Section {
    what: "the dead-letter queue",
    keys: &[
        key(
            "topic",
            Shape::Text,
            "its topic; by default the pipeline's name with \"-dlq\"",
            "\"rides-dlq\"",
        ),
        key(
            "partitions",
            PARTITIONS,
            "how many partitions it gets if it has to be created; by default 1",
            "4",
        ),
    ],
};

static COMMIT: Section = Section {
    what: "commit",
    keys: &[
        key(
            "interval",
            Shape::Duration {
                min: Duration::from_millis(1),
                max: Duration::from_secs(60),
            },
            "how often; by default \"100ms\"",
            "\"1s\"",
        ),
        key(
            "bytes",
            Shape::Size {
                min: 1_000,
                max: 64 << 20,
            },
            "how much waits for a commit at most; by default \"8MiB\", on Kafka \"32MiB\"",
            "\"1MB\"",
        ),
        key(
            "guarantee",
            Shape::Word(&["exactly-once", "at-least-once"]),
            "what is promised on Kafka; by default \"exactly-once\". The embedded log keeps that in any case",
            "\"at-least-once\"",
        ),
    ],
};

static STATE: Section = Section {
    what: "state",
    keys: &[
        key(
            "memory",
            Shape::Size {
                min: 1 << 20,
                max: 1 << 40,
            },
            "rows that are kept in memory, of all tasks together; by default \"256MiB\"",
            "\"1GiB\"",
        ),
        key(
            "quota",
            Shape::Size {
                min: 1_000_000,
                max: 1 << 50,
            },
            "rows on disk and in memory, of all tasks together; by default as much as there is room for",
            "\"10GB\"",
        ),
        key(
            "changelog",
            Shape::Word(&["json", "binary"]),
            "how changes are written to Kafka; by default \"json\", which others read as a table",
            "\"binary\"",
        ),
    ],
};

static KAFKA: Section = Section {
    what: "kafka",
    keys: &[
        key(
            "bootstrap",
            Shape::Text,
            "brokers as HOST:PORT, with commas between them; by default what the command says",
            "\"kafka-1:9092,kafka-2:9092\"",
        ),
        key(
            "properties",
            Shape::Free,
            "properties of librdkafka for all clients, by its names",
            "{ \"compression.type\" = \"zstd\" }",
        ),
        key(
            "create-topics",
            Shape::Flag,
            "whether topics that are missing are made, or are an error; by default true",
            "false",
        ),
        key(
            "replication",
            Shape::Count { min: 1, max: 100 },
            "how many brokers have a copy of a topic that is made; by default what the brokers say",
            "3",
        ),
        key(
            "topic-properties",
            Shape::Free,
            "settings of topics that are made, by Kafka's names; not of internal ones",
            "{ \"retention.ms\" = 604800000 }",
        ),
        key(
            "session-timeout",
            Shape::Duration {
                min: Duration::from_secs(1),
                max: Duration::from_secs(1800),
            },
            "after so long without a sign of life a host's partitions are given to others; by default \"10s\"",
            "\"6s\"",
        ),
    ],
};

/// All of them: a key that is unknown in one may belong to another.
pub(super) static SECTIONS: [&Section; 11] = [
    &FILE, &SOURCE, &CSV, &STAGE, &WINDOW, &SINK, &LIMITS, &DLQ, &KAFKA, &COMMIT, &STATE,
];
