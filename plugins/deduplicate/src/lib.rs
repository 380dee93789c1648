//! Passes on the first record with an id. Those that come with the same id go to the branch `repeated`, until the first
//! is so long ago as is configured.

use std::time::Duration;

use millstream_sdk::prelude::*;

#[derive(Config, Plugin)]
pub struct Deduplicate {
    /// Where the id is in the value: any JSON but null. `1`, `1.0` and `"1"` are three ids.
    id: Pointer,
    /// How long an id is remembered, in stream time.
    time_to_live: Duration,
    seen: Store<String, ()>,
}

#[derive(Fields)]
pub struct Row<'a> {
    id: Json<'a>,
}

#[derive(Branches)]
pub enum Out {
    First,
    Repeated,
}

impl Processor for Deduplicate {
    type Input = Row<'static>;
    type Output = Out;

    fn signature(&self, signature: &mut Signature) {
        signature.input_mut("input").field_mut("id").place = Place::Value(self.id.clone().into());
        signature.store_mut("seen").time_to_live = self.time_to_live.as_millis() as u64;
    }

    fn prefetch(&mut self, row: Row<'_>) {
        self.seen.prefetch(row.id.as_str());
    }

    fn process(&mut self, row: Row<'_>, out: &mut Output<Out>) -> Result<()> {
        if self.seen.contains(row.id.as_str()) {
            out.emit(Out::Repeated);
        } else {
            // A repeat is not written: it does not make the id live longer.
            self.seen.insert(row.id.as_str(), ());
            out.emit(Out::First);
        }
        Ok(())
    }
}

millstream_sdk::export!(Deduplicate);

#[cfg(test)]
mod tests {
    use super::Deduplicate;
    use millstream_sdk::testing::{Record, Tester};
    use serde_json::{Value, json};

    fn tester() -> Tester<Deduplicate> {
        Tester::new(json!({"id": "/id", "time_to_live": "1h"})).unwrap()
    }

    fn records(ids: &[Value]) -> Vec<Value> {
        ids.iter()
            .enumerate()
            .map(|(row, id)| json!({"id": id, "row": row}))
            .collect()
    }

    fn numbers(records: &[Record]) -> Vec<Value> {
        records
            .iter()
            .map(|record| record.json_value()["row"].clone())
            .collect()
    }

    #[test]
    fn the_first_passes_and_the_others_are_repeats_whatever_the_batches() {
        let ids = [json!("a"), json!(1), json!("a"), json!("1"), json!(1), json!("a")];
        for rows in 1..=6 {
            let outcome = tester().process_by(rows, "input", records(&ids)).unwrap();
            assert_eq!(numbers(outcome.branch("first")), [0, 1, 3]);
            assert_eq!(numbers(outcome.branch("repeated")), [2, 4, 5]);
        }
    }

    #[test]
    fn an_id_that_is_gone_from_the_store_is_new() {
        let mut tester = tester();
        assert_eq!(tester.signature().stores[0].time_to_live, 3_600_000);
        tester.process("input", records(&[json!("a")])).unwrap();
        assert_eq!(tester.rows::<String, ()>("seen"), [("\"a\"".to_owned(), ())]);
        tester.remove("seen", "\"a\"".to_owned());
        let outcome = tester.process("input", records(&[json!("a")])).unwrap();
        assert_eq!(outcome.branch("first").len(), 1);
    }

    #[test]
    fn repeats_write_nothing() {
        let mut tester = tester();
        tester.process("input", records(&[json!("a")])).unwrap();
        let outcome = tester.process("input", records(&[json!("a"), json!("a")])).unwrap();
        assert_eq!(outcome.state_calls, 1, "only what is fetched");
    }

    #[test]
    fn without_an_id_or_a_time_nothing_is_guessed() {
        let outcome = tester().process("input", [json!({"id": null}), json!({})]).unwrap();
        assert_eq!(outcome.undecoded.len(), 2);
        let refused = Tester::<Deduplicate>::new(json!({"id": "/id", "time_to_live": "soon"})).unwrap_err();
        assert!(refused.contains("`time_to_live` must be a duration"), "{refused}");
    }
}
