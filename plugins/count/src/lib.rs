//! Counts the records of a group.

use millstream_sdk::prelude::*;

#[derive(Config, Plugin)]
pub struct Count;

#[derive(Branches, Fields)]
#[branch(name = "counted")]
pub struct Counted {
    count: i64,
}

impl Aggregator for Count {
    type Input = ();
    type Accumulator = i64;
    type Output = Counted;

    fn start(&self) -> i64 {
        0
    }

    fn add(&self, count: &mut i64, _: ()) -> Result<()> {
        *count += 1;
        Ok(())
    }

    fn merge(&self, count: &mut i64, later: i64) -> Result<()> {
        *count += later;
        Ok(())
    }

    fn finish(&self, count: &i64, out: &mut Output<Counted>) -> Result<()> {
        out.emit(Counted { count: *count });
        Ok(())
    }
}

millstream_sdk::export!(Count as aggregator);

#[cfg(test)]
mod tests {
    use super::Count;
    use millstream_sdk::testing::{AggregatorTester, Record, aggregate};
    use serde_json::json;

    #[test]
    fn each_group_is_counted() {
        let records = ["a", "b", "a", "a"].map(|group| (group, json!({})));
        let outcome = aggregate::<Count>(json!({}), records).unwrap();
        let expected = [("a", json!({"count": 3})), ("b", json!({"count": 1}))];
        assert_eq!(outcome.keyed("counted"), expected);
    }

    #[test]
    fn counts_go_on_and_add_up_and_whatever_a_record_is_counts() {
        let mut tester = AggregatorTester::<Count>::new(json!({})).unwrap();
        for records in [
            vec![Record::bytes("no JSON")],
            vec![Record::tombstone(), Record::json(json!(1))],
        ] {
            tester
                .add("input", records.into_iter().map(|record| ("a", record)))
                .unwrap();
        }
        tester.add("input", [("b", json!({}))]).unwrap();
        assert_eq!(tester.accumulator("a"), Some(&3));
        tester.merge("a", "b").unwrap();
        assert_eq!(tester.finish().unwrap().keyed("counted"), [("a", json!({"count": 4}))]);
    }
}
