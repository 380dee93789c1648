//! Counts records by a field, and emits for each the count so far.

use millstream_sdk::prelude::*;

#[derive(Config, Plugin)]
pub struct CountByVendor {
    /// Where the number that records are counted by is in the value.
    #[config(default = "/VendorID")]
    field: Pointer,
    counts: Store<i64, i64>,
}

#[derive(Fields)]
pub struct Ride {
    vendor: i64,
}

#[derive(Branches, Fields)]
#[branch(name = "counted", value = new)]
pub struct Counted {
    vendor: i64,
    count: i64,
}

impl Processor for CountByVendor {
    type Input = Ride;
    type Output = Counted;

    fn signature(&self, signature: &mut Signature) {
        signature.input_mut("input").field_mut("vendor").place = Place::Value(self.field.clone().into());
    }

    fn prefetch(&mut self, ride: Ride) {
        self.counts.prefetch(&ride.vendor);
    }

    fn process(&mut self, ride: Ride, out: &mut Output<Counted>) -> Result<()> {
        let count = self.counts.entry(&ride.vendor).or_default();
        *count += 1;
        out.emit(Counted {
            vendor: ride.vendor,
            count: *count,
        });
        Ok(())
    }
}

millstream_sdk::export!(CountByVendor);

#[cfg(test)]
mod tests {
    use super::CountByVendor;
    use millstream_sdk::testing::Tester;
    use serde_json::{Value, json};

    fn rides(vendors: &[i64]) -> Vec<Value> {
        vendors.iter().map(|vendor| json!({"VendorID": vendor})).collect()
    }

    #[test]
    fn each_ride_is_given_its_vendors_count_whatever_the_batches() {
        let expected =
            [(1, 1), (2, 1), (1, 2), (1, 3), (2, 2)].map(|(vendor, count)| json!({"vendor": vendor, "count": count}));
        for rows in 1..=5 {
            let mut tester = Tester::<CountByVendor>::new(json!({})).unwrap();
            let outcome = tester.process_by(rows, "input", rides(&[1, 2, 1, 1, 2])).unwrap();
            assert_eq!(outcome.values("counted"), expected);
            assert_eq!(tester.rows::<i64, i64>("counts"), [(1, 3), (2, 2)]);
        }
    }

    #[test]
    fn a_batch_fetches_once_and_writes_once() {
        let mut tester = Tester::<CountByVendor>::new(json!({})).unwrap();
        tester.put("counts", 2_i64, 41_i64);
        let outcome = tester.process("input", rides(&[1, 2, 3, 1])).unwrap();
        assert_eq!(outcome.state_calls, 2);
        assert_eq!(outcome.values("counted")[1], json!({"vendor": 2, "count": 42}));
    }

    #[test]
    fn the_field_is_a_setting() {
        let mut tester = Tester::<CountByVendor>::new(json!({"field": "/zone/id"})).unwrap();
        let outcome = tester.process("input", [json!({"zone": {"id": 7}}), json!({"VendorID": 1})]);
        let outcome = outcome.unwrap();
        assert_eq!(outcome.values("counted"), [json!({"vendor": 7, "count": 1})]);
        assert_eq!(outcome.undecoded.len(), 1);
    }
}
