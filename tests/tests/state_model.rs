//! Promise: a task's store on the real log and the real local store is a map: through failed calls and commits, flushes,
//! evictions, restarts, and a local store that is lost while its changelog is whole.
//!
//! 24 cases here; `MILLSTREAM_MODEL_RUNS=10000` asks for more. A case that fails is printed, and kept smallest.

use std::path::Path;
use std::sync::Arc;

use millstream::connect::{
    Append, BlockBuilder, Commit, EmbeddedLog, TableAppend, TopicPartition, TopicRole, TopicSpec,
};
use millstream::state::Changelog;
use millstream_tests::store_model::{self, StoreLog};

struct Embedded(Arc<EmbeddedLog>);

impl StoreLog for Embedded {
    fn changelogs(&self) -> Arc<dyn Changelog> {
        self.0.clone()
    }

    fn create(&self, topic: &str, role: TopicRole) {
        let spec = TopicSpec {
            role: Some(Arc::new(role)),
            ..TopicSpec::new(topic, 1)
        };
        self.0.create_topic(&spec).expect("a new topic");
    }

    fn commit(&self, place: &TopicPartition, blocks: BlockBuilder, _table: TableAppend) -> u64 {
        let append = Append {
            topic: place.topic.clone(),
            partition: place.partition,
            blocks,
        };
        let committed = self.0.commit(Commit {
            appends: vec![append],
            ..Commit::default()
        });
        committed.expect("it is committed").base_offsets[0]
    }

    fn fail(&self, _place: &TopicPartition, _blocks: BlockBuilder, _table: TableAppend) {
        // Nothing of a commit that is refused reaches the log.
    }

    fn delete(&self, topic: &str) {
        self.0.delete_topic(topic).expect("it is there");
    }

    fn close(&self) {
        self.0.close();
    }
}

#[test]
fn a_store_is_a_map_whatever_happens_to_its_process() {
    let cases = std::env::var("MILLSTREAM_MODEL_RUNS").map_or(24, |runs| runs.parse().expect("a number"));
    store_model::check(cases, 250, &|folder: &Path| {
        Box::new(Embedded(millstream_tests::open(folder)))
    });
}
