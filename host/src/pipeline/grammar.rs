//! The keys of a pipeline file: the one description that the walker checks files with and the JSON Schema is made of.

use std::time::Duration;

use crate::limits::PARTITIONS_MAX;

/// What may stand behind a key.
#[derive(Debug)]
pub(super) enum Shape {
    /// Any string.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number.
    Count { min: u64, max: u64 },
    /// A string such as "100ms".
    Duration { min: Duration, max: Duration },
    /// A string such as "64MB".
    Size { min: u64, max: u64 },
    /// `false` and nothing else.
    False,
    /// An array, each element of this shape.
    List(&'static Shape),
    /// A table with keys that are known.
    Section(&'static Section),
    /// A table whose keys are names that the person chooses.
    Named(&'static Shape),
    /// A table of which nothing is known here: settings of a plugin.
    Free,
    /// One of these, told apart by their TOML types.
    Any(&'static [Shape]),
}

/// A table whose keys are known.
#[derive(Debug)]
pub(super) struct Section {
    /// What it describes, as errors call it.
    pub what: &'static str,
    pub keys: &'static [Key],
}

/// A key of a section.
#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    /// One line for people; begins in lower case.
    pub summary: &'static str,
    /// A value as TOML: shown as a remedy, and proof that the key does something.
    pub example: &'static str,
}

impl Shape {
    /// What is expected here, in words that follow "expected".
    pub fn expected(&self) -> String {
        match self {
            Shape::Text => "a string".into(),
            Shape::Word(words) => words
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(" or "),
            Shape::Count { .. } => "a whole number".into(),
            Shape::Duration { .. } => "a duration such as \"100ms\", \"5s\", \"1m\" or \"1h\"".into(),
            Shape::Size { .. } => "a size such as \"64MB\", \"64MiB\" or \"1GB\"".into(),
            Shape::False => "false".into(),
            Shape::List(each) => format!("an array, each element of it {}", each.expected()),
            Shape::Section(section) => {
                let keys = section.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
                if keys.is_empty() {
                    "an empty table".into()
                } else {
                    format!("a table with {keys}")
                }
            }
            Shape::Named(_) | Shape::Free => "a table".into(),
            Shape::Any(shapes) => shapes.iter().map(Shape::expected).collect::<Vec<_>>().join(", or "),
        }
    }

    /// The TOML type of what is expected, as `toml` calls it.
    pub fn toml_type(&self) -> &'static str {
        match self {
            Shape::Text | Shape::Word(_) | Shape::Duration { .. } | Shape::Size { .. } => "string",
            Shape::Count { .. } => "integer",
            Shape::False => "boolean",
            Shape::List(_) => "array",
            Shape::Section(_) | Shape::Named(_) | Shape::Free => "table",
            Shape::Any(_) => "any",
        }
    }
}

impl Section {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

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
            Shape::Word(&["embedded"]),
            "where the topics are; by default \"embedded\", the log in the data folder",
            "\"embedded\"",
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
            "commit",
            Shape::Section(&COMMIT),
            "when what was done becomes true",
            "{ interval = \"1s\" }",
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
            "how much waits for a commit at most; by default \"8MiB\"",
            "\"1MB\"",
        ),
    ],
};

/// All of them: a key that is unknown in one may belong to another.
pub(super) static SECTIONS: [&Section; 8] = [&FILE, &SOURCE, &CSV, &STAGE, &SINK, &LIMITS, &DLQ, &COMMIT];
