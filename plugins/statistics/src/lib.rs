//! Sum, least, greatest and mean of a field, over the records of a group. Records without the field are passed over.

use millstream_sdk::prelude::*;

#[derive(Config, Plugin)]
pub struct Statistics {
    /// Where the number is in the value.
    field: Pointer,
}

#[derive(Fields)]
pub struct Row {
    number: Option<f64>,
}

#[derive(Fields, Clone, Debug, PartialEq)]
pub struct Seen {
    count: i64,
    sum: f64,
    min: f64,
    max: f64,
}

#[derive(Branches, Fields)]
#[branch(name = "statistics")]
pub struct Summary {
    count: i64,
    sum: f64,
    /// Null, as `max` and `mean`, where there was no number.
    min: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
}

impl Aggregator for Statistics {
    type Input = Row;
    type Accumulator = Seen;
    type Output = Summary;

    fn signature(&self, signature: &mut Signature) {
        signature.input_mut("input").field_mut("number").place = Place::Value(self.field.clone().into());
    }

    fn start(&self) -> Seen {
        Seen {
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }

    fn add(&self, seen: &mut Seen, row: Row) -> Result<()> {
        let Some(number) = row.number else {
            return Ok(());
        };
        ensure!(number.is_finite(), "{number} is no number to reckon with");
        seen.count += 1;
        seen.sum += number;
        seen.min = seen.min.min(number);
        seen.max = seen.max.max(number);
        ensure!(seen.sum.is_finite(), "with {number} the sum is too great for a float");
        Ok(())
    }

    fn merge(&self, seen: &mut Seen, later: Seen) -> Result<()> {
        seen.count += later.count;
        seen.sum += later.sum;
        seen.min = seen.min.min(later.min);
        seen.max = seen.max.max(later.max);
        Ok(())
    }

    fn finish(&self, seen: &Seen, out: &mut Output<Summary>) -> Result<()> {
        let known = |number: f64| (seen.count > 0).then_some(number);
        out.emit(Summary {
            count: seen.count,
            sum: seen.sum,
            min: known(seen.min),
            max: known(seen.max),
            mean: known(seen.sum / seen.count as f64),
        });
        Ok(())
    }
}

millstream_sdk::export!(Statistics as aggregator);

#[cfg(test)]
mod tests {
    use super::{Row, Seen, Statistics};
    use millstream_sdk::testing::{AggregatorTester, aggregate};
    use millstream_sdk::{Aggregator, Config};
    use serde_json::{Value, json};

    fn fares(fares: &[Value]) -> Vec<(&'static str, Value)> {
        fares
            .iter()
            .map(|fare| ("a", json!({"trip": {"fare": fare}})))
            .collect()
    }

    #[test]
    fn numbers_are_summed_and_nulls_are_passed_over() {
        let records = fares(&[json!(2), json!(null), json!(-1.5), json!(4)]);
        let outcome = aggregate::<Statistics>(json!({"field": "/trip/fare"}), records).unwrap();
        let expected = json!({"count": 3, "sum": 4.5, "min": -1.5, "max": 4.0, "mean": 1.5});
        assert_eq!(outcome.keyed("statistics"), [("a", expected)]);
        assert!(outcome.failed.is_empty() && outcome.undecoded.is_empty());
    }

    #[test]
    fn without_a_number_there_is_no_mean() {
        let outcome = aggregate::<Statistics>(json!({"field": "/none"}), [("a", json!({}))]).unwrap();
        let expected = json!({"count": 0, "sum": 0.0, "min": null, "max": null, "mean": null});
        assert_eq!(outcome.keyed("statistics"), [("a", expected)]);
    }

    #[test]
    fn a_sum_beyond_floats_refuses_the_row_that_makes_it_so() {
        let records = fares(&[json!(1e308), json!(1e308), json!(1), json!("x")]);
        let outcome = aggregate::<Statistics>(json!({"field": "/trip/fare"}), records).unwrap();
        assert_eq!(outcome.failed.len(), 1);
        assert_eq!(outcome.failed[0].record, 1);
        assert_eq!(outcome.undecoded[0].record, 3);
        let (_, statistics) = &outcome.keyed("statistics")[0];
        assert_eq!((&statistics["count"], &statistics["max"]), (&json!(2), &json!(1e308)));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let plugin = Statistics { field: "/a".into() };
        for number in [f64::NAN, f64::INFINITY] {
            let error = plugin.add(&mut plugin.start(), Row { number: Some(number) });
            assert!(error.is_err(), "{number}");
        }
        assert!(Statistics::schema()["required"] == json!(["field"]));
    }

    #[test]
    fn parts_add_up() {
        let mut tester = AggregatorTester::<Statistics>::new(json!({"field": "/fare"})).unwrap();
        let record = |group, fare| (group, json!({"fare": fare}));
        tester
            .add("input", [record("a", 1), record("b", 5), record("b", -2)])
            .unwrap();
        tester.merge("a", "b").unwrap();
        let expected = Seen {
            count: 3,
            sum: 4.0,
            min: -2.0,
            max: 5.0,
        };
        assert_eq!(tester.accumulator("a"), Some(&expected));
    }
}
