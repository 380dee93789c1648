//! Every bound of the host, with its unit and why it is this number.
//!
//! What a pipeline may change is a field of [`StageLimits`] or of the pipeline file; the rest is fixed.

use std::sync::OnceLock;
use std::time::Duration;

/// What one instance of a plugin may take. A pipeline sets them per stage: `limits = { memory = "64MB", … }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageLimits {
    /// All memories and tables of an instance, summed; and what one call reads from its stores.
    pub memory_bytes_max: usize,
    /// One call with tables. A batch of 1,000 rows takes a native plugin well under a millisecond.
    pub call_time_max: Duration,
    /// All columns of one answer; and keys and values that one call writes to its stores.
    pub output_bytes_max: u64,
    /// Rows out for each row in, of one call: a flat-map of 1,000 is generous, 10⁶ is an attack.
    pub output_rows_per_row_max: u64,
    /// Log lines that an instance may write in a second; the rest is counted.
    pub log_lines_per_second_max: u32,
}

/// Memory of an instance where neither the file nor its language says: 64 MiB hold a batch many times over.
pub const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Languages whose runtime does not live with [`MEMORY_BYTES_MAX`], as the tools' section `producers` names them: JavaScript's
/// engine holds 80 MB before it collects garbage.
pub const MEMORY_BYTES_MAX_OF_LANGUAGES: &[(&str, usize)] = &[("JavaScript", 128 << 20)];

impl StageLimits {
    /// These, with what the plugin's language needs where memory is as it is without a word.
    #[must_use]
    pub fn with_memory_of_language(&self, memory_bytes_max: usize) -> StageLimits {
        let mut limits = self.clone();
        if limits.memory_bytes_max == MEMORY_BYTES_MAX {
            limits.memory_bytes_max = memory_bytes_max;
        }
        limits
    }
}

impl Default for StageLimits {
    fn default() -> Self {
        StageLimits {
            memory_bytes_max: MEMORY_BYTES_MAX,
            call_time_max: Duration::from_secs(1),
            output_bytes_max: 16 << 20,
            output_rows_per_row_max: 1000,
            log_lines_per_second_max: 100,
        }
    }
}

/// State of a pipeline that is kept in memory where its file does not say: a million rows of a few fields.
pub const STATE_MEMORY_BYTES_MAX: usize = 256 << 20;
/// Of them a store of a task has so much at least, however many there are. See [`StoreBounds`].
pub const STORE_MEMORY_BYTES_MIN: usize = 1 << 20;
/// Changelog behind what the local store holds, of one task, before the store is flushed: what a restart replays twice
/// at most. See [`StoreBounds`].
pub const STATE_FLUSH_BYTES: u64 = 32 << 20;
/// What a task changed is in the local store after this, however little it is.
pub const STATE_FLUSH_INTERVAL: Duration = Duration::from_secs(60);
/// Room on the disk that flushes leave: less than commits do, as a flush is what lets the log drop changelogs.
pub const STATE_RESERVE_BYTES: u64 = 64 << 20;
/// What one flush reads of a changelog before it writes: bounds its memory. A longer stretch is flushed in pieces.
pub const STATE_FLUSH_PIECE_BYTES: usize = 32 << 20;
/// Rows behind the local store that somebody who reads committed rows holds in memory: a few flushes.
pub const STATE_OVERLAY_BYTES_MAX: usize = 256 << 20;
/// A generation of a topic that a pipeline made for itself: what its reader has passed is dropped by generations.
pub const PURGED_GENERATION_BYTES_MAX: u64 = 64 << 20;
/// A row of a store, its key left out; of a group, its accumulator.
pub const ROW_BYTES_MAX: usize = 1 << 20;
/// A row as JSON in a changelog that others read; a larger one is written as its bytes, which take half of it.
pub const TABLE_VALUE_BYTES_MAX: usize = 2 << 20;
/// What a changelog in a cluster keeps of a deleted key, after it was first compacted.
pub const CHANGELOG_DELETES_TIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// A local store that read its changelog last so long ago is made anew, a day before deletes may be gone that it misses.
pub const LOCAL_STORE_AGE_MAX: Duration = Duration::from_secs(6 * 24 * 3600);
/// Whoever needs to know all that was written waits so long for a transaction to end: six times what the broker gives one
/// of ours.
pub const OPEN_TRANSACTION_TIME_MAX: Duration = Duration::from_secs(60);
/// Changelogs in a cluster that a host has readers for; each holds one fetch, 4 MiB.
pub const CHANGELOG_READERS_MAX: usize = 16;
/// Pieces of changelogs that wait for the tasks that restore from them, 1 MiB each.
pub const RESTORED_PIECES_MAX: usize = 32;
/// Changes that a host has just written to a cluster, kept for the flusher.
pub const RECENT_CHANGES_BYTES_MAX: usize = 64 << 20;
/// Rows that a command holds in memory which reads a store from its changelog, as it has no local store.
pub const STORE_SCAN_BYTES_MAX: usize = 1 << 30;
/// Partitions of a cluster that a command or host reads by their offsets at once; each holds a few fetches.
pub const CLUSTER_READERS_MAX: usize = 256;
/// All that is said of the topics of pipelines in one cluster: a hundred thousand of them.
pub const CATALOG_BYTES_MAX: usize = 64 << 20;
/// A record in a topic that a pipeline made for itself in a cluster: twice the largest value, for its key and headers.
pub const KAFKA_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Keys of one `get`, `put` or `delete` of a guest: a hundred for each row of a batch.
pub const STATE_KEYS_MAX: u32 = 100_000;
/// Rows of one `scan` of a guest, which then asks for more.
pub const SCAN_ROWS_MAX: u32 = 10_000;
/// A value that a field of a store has in rows of an earlier version, as JSON.
pub const CONSTANT_BYTES_MAX: usize = 4096;
/// Hopping windows that one record lies in, each a group of its own: a day by the minute.
pub const WINDOWS_OF_RECORD_MAX: i64 = 1440;
/// A timestamp may be so far ahead of the time at which its record was appended where the file does not say.
pub const FUTURE_TIME_MAX: Duration = Duration::from_secs(3600);
/// What a group notes beside an offset: Kafka's own default.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4096;
/// Rows of one guest call: beyond a thousand a row gets no cheaper, and a failed call costs more.
pub const BATCH_ROWS_MAX: usize = 1000;
/// Bytes of the records of one batch, at least one record: bounds what a task holds in memory.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// A component's file. The largest honest one, Python's, has 18.5 MB.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// `describe` and `configure` together with the start of the instance: an interpreter has to wake up.
pub const CONFIGURE_TIME_MAX: Duration = Duration::from_secs(5);
/// Compiling one component, in the child process. Python takes 15 s on two cores.
pub const COMPILE_TIME_MAX: Duration = Duration::from_secs(60);
/// Address space of the compiling child. Python and JavaScript take 0.5 GB of memory.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 2 << 30;
/// The stack of guest code.
pub const GUEST_STACK_BYTES_MAX: usize = 1 << 20;
/// One line of a guest's log; longer ones are cut.
pub const LOG_LINE_BYTES_MAX: usize = 4096;
/// A message of a failed row; longer ones are cut.
pub const FAILURE_MESSAGE_BYTES_MAX: usize = 4096;
/// Branches of a signature.
pub const BRANCHES_MAX: usize = 64;
/// Inputs of a signature.
pub const INPUTS_MAX: usize = 16;
/// Fields of an input, branch or store.
pub const FIELDS_MAX: usize = 1024;
/// Stores of a signature.
pub const STORES_MAX: usize = 16;
/// Metrics of a signature.
pub const METRICS_MAX: usize = 64;
/// Any name in a signature.
pub const NAME_BYTES_MAX: usize = 256;
/// A record's key.
pub const KEY_BYTES_MAX: usize = 4096;
/// A record's value. Twice the default of Kafka's `max.message.bytes`.
pub const VALUE_BYTES_MAX: usize = 2 << 20;
/// All headers of a record.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;
/// Headers of a record.
pub const HEADERS_MAX: usize = 64;
/// Nesting of a value that is decoded: serde_json's own bound, so that no depth takes the stack.
pub const NESTING_MAX: usize = 128;
/// A block of the embedded log: many records, one value of the storage engine.
pub const BLOCK_BYTES_MAX: usize = 256 << 10;
/// What a task hands to one commit before it waits: bounds memory and the time of a commit.
pub const COMMIT_BYTES_MAX: usize = 8 << 20;
/// The same on Kafka. A transaction costs tens of milliseconds and some requests whatever it holds, and meanwhile its tasks
/// wait: with 8 MiB a record of 200 bytes cost a fifth more processor time than with 64, and a run took nearly twice as long.
pub const KAFKA_COMMIT_BYTES_MAX: usize = 32 << 20;
/// How often a task commits where its pipeline does not say.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// From a signal to the end of the process; then a watchdog ends it, and nothing is lost that was committed.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// `run --until-end` waits so long for a paused pipeline while nothing moves: a full disk may be emptied meanwhile.
pub const PAUSED_TIME_MAX: Duration = Duration::from_secs(60);
/// Partitions of a topic.
pub const PARTITIONS_MAX: u32 = 1024;
/// A topic's name, as Kafka has it.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Memory of an instance that only says who it is, before any pipeline has set a limit: JavaScript's engine wakes up
/// within 80 MB.
pub const DESCRIBE_MEMORY_BYTES_MAX: usize = 128 << 20;
/// Core modules that run in one component. Python's runtime with its libraries has about twenty.
pub const GUEST_CORE_INSTANCES_MAX: usize = 256;
/// Memories of one component. Each reserves 4 GiB of address space, of which a process has 128 TiB.
pub const GUEST_MEMORIES_MAX: usize = 16;
/// Tables of one component.
pub const GUEST_TABLES_MAX: usize = 256;
/// Handles of resources that live at once in one instance: WASI's streams and pollables.
pub const GUEST_HANDLES_MAX: usize = 4096;
/// Frames of a trap's backtrace.
pub const GUEST_FRAMES_MAX: usize = 32;
/// Metric updates of one call: the contract asks for one a batch and metric.
pub const METRIC_UPDATES_MAX: usize = 10_000;
/// A plugin's JSON Schema for its configuration.
pub const CONFIG_SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Imports and exports of a component. Those of Python are about forty.
pub const COMPONENT_NAMES_MAX: usize = 1000;
/// A compiled component: five times its source is usual.
pub const COMPILED_BYTES_MAX: u64 = 1 << 30;
/// The cache of compiled components; beyond it those that were used longest ago go.
pub const COMPILE_CACHE_BYTES_MAX: u64 = 4 << 30;
/// Key, value and headers of a record together: a dead letter is larger than the record that it holds.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// What a pipeline adds to a record that it passes on: a key out of the value, headers of a dead letter, twice, as
/// dead letters may fail again.
pub const DERIVED_RECORD_BYTES_MAX: usize = RECORD_BYTES_MAX + 2 * HEADERS_BYTES_MAX;
/// Lines of the host's log about single dead letters of a pipeline; the rest is counted, and all are in the queue.
pub const DEAD_LETTER_LINES_PER_SECOND_MAX: u32 = 10;
/// A turn of a task, but for the calls that are under way: neighbours and commits wait for it, and a stop does.
pub const PASS_TIME_MAX: Duration = Duration::from_secs(1);
/// What one caller may hand to the log as one commit.
pub const CALLER_COMMIT_BYTES_MAX: usize = 64 << 20;
/// What the committer puts into one atomic batch: callers that wait together are synced together, no later than this.
pub const BATCH_COMMIT_BYTES_MAX: usize = 16 << 20;
/// What may wait for the committer; whoever comes then is held back.
pub const COMMIT_QUEUE_BYTES_MAX: usize = 64 << 20;
/// How many may wait for the committer.
pub const COMMIT_QUEUE_MAX: usize = 4096;
/// A topic's generation: retention drops whole ones, and looking for a time reads at most one, mostly a few megabytes.
pub const GENERATION_BYTES_MAX: u64 = 1 << 30;
/// A generation of a topic that has little shares its files with others: dropping it removes at most so much of them.
pub const SHARED_GENERATION_BYTES_MAX: u64 = 2 << 20;
/// A name of a consumer group.
pub const GROUP_NAME_BYTES_MAX: usize = 249;
/// A member of a consumer group that was not heard of for so long has left it.
pub const SESSION_TIME_MAX: Duration = Duration::from_secs(10);
/// The same of a host that runs a pipeline on Kafka, where the pipeline does not say: then others take its partitions.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Room on the disk that commits leave: what is in memory and in the journals must still find a place.
pub const DISK_RESERVE_BYTES: u64 = 256 << 20;
/// What the local socket answers to one fetch, one block at least.
pub const SOCKET_FETCH_BYTES_MAX: usize = 4 << 20;
/// A fetch on the local socket waits no longer for a record.
pub const SOCKET_WAIT_TIME_MAX: Duration = Duration::from_secs(30);
/// Requests of the local socket that are being done; others wait.
pub const SOCKET_THREADS_MAX: usize = 16;
/// Rows of a store go through the local socket in pieces of about this.
pub const STORE_PIECE_BYTES_MAX: usize = 256 << 10;
/// Whoever reads a store's rows through the local socket has one snapshot of it no longer than this.
pub const STORE_READ_TIME_MAX: Duration = Duration::from_secs(30);

/// What a store of a task may keep in memory at least, and when it is flushed. For tests of what is evicted and flushed
/// `MILLSTREAM_STORE_BYTES` makes both that small, for the whole process.
#[derive(Clone, Copy, Debug)]
pub struct StoreBounds {
    /// [`STORE_MEMORY_BYTES_MIN`].
    pub memory_bytes_min: usize,
    /// [`STATE_FLUSH_BYTES`].
    pub flush_bytes: u64,
}

impl StoreBounds {
    /// Those of this process; the variable is read once.
    pub fn get() -> StoreBounds {
        static BOUNDS: OnceLock<StoreBounds> = OnceLock::new();
        *BOUNDS.get_or_init(|| {
            let set = std::env::var("MILLSTREAM_STORE_BYTES").ok();
            let set = set.and_then(|bytes| bytes.parse::<u32>().ok());
            StoreBounds {
                memory_bytes_min: set.map_or(STORE_MEMORY_BYTES_MIN, |bytes| bytes as usize),
                flush_bytes: set.map_or(STATE_FLUSH_BYTES, u64::from),
            }
        })
    }
}
