//! The greatest numbers of a field over the records of a group, in order, each with the label of its record. Records
//! without the number are passed over.

use std::cmp::Ordering;

use millstream_sdk::prelude::*;
use serde_json::{Value, json};

/// A list this long is read and written whenever its group has new records.
const LENGTH_MAX: u32 = 1000;

#[derive(Config)]
pub struct Settings {
    /// Where the number is in the value.
    field: Pointer,
    /// Where that is in the value which is shown beside the number.
    label: Pointer,
    /// How many are kept.
    #[config(default = 10)]
    n: u32,
}

pub struct TopN {
    field: Pointer,
    label: Pointer,
    length: usize,
}

impl Plugin for TopN {
    type Config = Settings;

    fn configure(settings: Settings) -> Result<Self> {
        ensure!(
            (1..=LENGTH_MAX).contains(&settings.n),
            "`n` must be from 1 to {LENGTH_MAX}, but is {}",
            settings.n
        );
        Ok(TopN {
            field: settings.field,
            label: settings.label,
            length: settings.n as usize,
        })
    }
}

#[derive(Fields)]
pub struct Row<'a> {
    number: Option<f64>,
    label: Option<Json<'a>>,
}

#[derive(Branches, Fields)]
#[branch(name = "top")]
pub struct Top<'a> {
    /// Objects with `value` and `label`, the greatest value first.
    top: Json<'a>,
}

/// Numbers and their labels, in their order.
type List = AsJson<Vec<(f64, Value)>>;

/// The greatest number first; the same numbers by their labels, so that the result does not depend on which came first.
fn order(one: &(f64, Value), other: &(f64, Value)) -> Ordering {
    let by_number = other.0.total_cmp(&one.0);
    by_number.then_with(|| one.1.to_string().cmp(&other.1.to_string()))
}

impl TopN {
    fn put(&self, list: &mut List, entry: (f64, Value)) {
        let AsJson(list) = list;
        let at = list.partition_point(|before| order(before, &entry) != Ordering::Greater);
        if at < self.length {
            list.insert(at, entry);
            list.truncate(self.length);
        }
    }
}

impl Aggregator for TopN {
    type Input = Row<'static>;
    type Accumulator = List;
    type Output = Top<'static>;

    fn signature(&self, signature: &mut Signature) {
        let input = signature.input_mut("input");
        input.field_mut("number").place = Place::Value(self.field.clone().into());
        input.field_mut("label").place = Place::Value(self.label.clone().into());
    }

    fn start(&self) -> List {
        AsJson(Vec::new())
    }

    fn add(&self, list: &mut List, row: Row<'_>) -> Result<()> {
        let Some(number) = row.number else {
            return Ok(());
        };
        ensure!(number.is_finite(), "{number} has no place in an order");
        let full = list.0.len() == self.length;
        if full && list.0.last().is_some_and(|(least, _)| number < *least) {
            return Ok(());
        }
        let label = row.label.map_or(Ok(Value::Null), |label| label.parse())?;
        // There are two zeros, which are the same number.
        self.put(list, (number + 0.0, label));
        Ok(())
    }

    fn merge(&self, list: &mut List, later: List) -> Result<()> {
        for entry in later.0 {
            self.put(list, entry);
        }
        Ok(())
    }

    fn finish(&self, list: &List, out: &mut Output<Top<'static>>) -> Result<()> {
        let shown = list
            .0
            .iter()
            .map(|(value, label)| json!({"value": value, "label": label}));
        out.emit(Top {
            top: Json::new(&shown.collect::<Vec<_>>())?,
        });
        Ok(())
    }
}

millstream_sdk::export!(TopN as aggregator);

#[cfg(test)]
mod tests {
    use super::TopN;
    use millstream_sdk::testing::{AggregatorTester, aggregate};
    use serde_json::{Value, json};

    fn settings(n: u32) -> Value {
        json!({"field": "/tip", "label": "/zone", "n": n})
    }

    fn record(zone: &str, tip: Value) -> (&'static str, Value) {
        ("a", json!({"zone": zone, "tip": tip}))
    }

    fn top(entries: &[(f64, &str)]) -> Value {
        let shown = entries
            .iter()
            .map(|(value, label)| json!({"value": value, "label": label}));
        json!({"top": shown.collect::<Vec<_>>()})
    }

    #[test]
    fn the_greatest_are_kept_in_order_and_nulls_passed_over() {
        let tips = [
            ("x", json!(3)),
            ("y", json!(null)),
            ("z", json!(7.5)),
            ("u", json!(-1)),
            ("v", json!(5)),
        ];
        let records = tips.map(|(zone, tip)| record(zone, tip));
        let outcome = aggregate::<TopN>(settings(3), records).unwrap();
        assert_eq!(
            outcome.keyed("top"),
            [("a", top(&[(7.5, "z"), (5.0, "v"), (3.0, "x")]))]
        );
    }

    #[test]
    fn the_same_numbers_are_in_the_order_of_their_labels_whoever_came_first() {
        let zones = ["c", "a", "b", "d"];
        let there = zones.map(|zone| record(zone, json!(1)));
        let mut back = there.clone();
        back.reverse();
        for records in [there, back] {
            let outcome = aggregate::<TopN>(settings(3), records).unwrap();
            assert_eq!(
                outcome.keyed("top"),
                [("a", top(&[(1.0, "a"), (1.0, "b"), (1.0, "c")]))]
            );
        }
        let zeros = [record("b", json!(0.0)), record("a", json!(-0.0))];
        let outcome = aggregate::<TopN>(settings(2), zeros).unwrap();
        assert_eq!(outcome.keyed("top"), [("a", top(&[(0.0, "a"), (0.0, "b")]))]);
    }

    #[test]
    fn lists_go_on_from_batch_to_batch_and_merge() {
        let mut tester = AggregatorTester::<TopN>::new(settings(2)).unwrap();
        // Numbers that a careless parser changes in their last bit.
        let numbers = [0.1 + 0.2, 2.225_073_858_507_201_4e-308, 123_456_789.123_456_78];
        for number in numbers {
            tester.add("input", [record("x", json!(number))]).unwrap();
        }
        let (_, other) = record("y", json!(1));
        tester.add("input", [("b", other)]).unwrap();
        tester.merge("a", "b").unwrap();
        assert_eq!(
            tester.finish().unwrap().keyed("top"),
            [("a", top(&[(numbers[2], "x"), (1.0, "y")]))]
        );
    }

    #[test]
    fn a_label_is_any_json_or_missing() {
        let records = [("a", json!({"tip": 2, "zone": {"id": 7}})), ("a", json!({"tip": 1}))];
        let outcome = aggregate::<TopN>(settings(5), records).unwrap();
        let expected = json!({"top": [{"value": 2.0, "label": {"id": 7}}, {"value": 1.0, "label": null}]});
        assert_eq!(outcome.keyed("top"), [("a", expected)]);
    }

    #[test]
    fn a_list_has_a_length() {
        assert!(AggregatorTester::<TopN>::new(settings(0)).is_err());
        assert!(AggregatorTester::<TopN>::new(settings(1001)).is_err());
        assert!(AggregatorTester::<TopN>::new(json!({"field": "/tip"})).is_err());
    }
}
