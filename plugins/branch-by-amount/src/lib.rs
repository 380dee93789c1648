//! Sends records to the branch `high` or `low` by the amount in a field.

use millstream_sdk::prelude::*;

#[derive(Config, Plugin)]
pub struct BranchByAmount {
    /// Records of this amount and more are high.
    #[config(default = 40.0)]
    threshold: f64,
    /// Where the amount is in the value.
    #[config(default = "/total_amount")]
    field: Pointer,
}

#[derive(Fields)]
pub struct Row {
    amount: f64,
}

#[derive(Branches)]
pub enum By {
    High,
    Low,
}

impl Processor for BranchByAmount {
    type Input = Row;
    type Output = By;

    fn signature(&self, signature: &mut Signature) {
        signature.input_mut("input").field_mut("amount").place = Place::Value(self.field.clone().into());
    }

    fn process(&mut self, row: Row, out: &mut Output<By>) -> Result<()> {
        out.emit(if row.amount >= self.threshold {
            By::High
        } else {
            By::Low
        });
        Ok(())
    }
}

millstream_sdk::export!(BranchByAmount);

#[cfg(test)]
mod tests {
    use super::BranchByAmount;
    use millstream_sdk::testing::run;
    use serde_json::json;

    #[test]
    fn the_threshold_itself_is_high() {
        let rides = [39.99, 40.0, 40.01].map(|amount| json!({"total_amount": amount}));
        let outcome = run::<BranchByAmount>(json!({}), rides.clone()).unwrap();
        assert_eq!(outcome.values("high"), rides[1..]);
        assert_eq!(outcome.values("low"), rides[..1]);
    }

    #[test]
    fn threshold_and_field_are_settings() {
        let orders = [
            json!({"order": {"sum": 5}}),
            json!({"order": {"sum": 4}}),
            json!({"total_amount": 50}),
        ];
        let settings = json!({"threshold": 5, "field": "/order/sum"});
        let outcome = run::<BranchByAmount>(settings, orders.clone()).unwrap();
        assert_eq!(outcome.values("high"), orders[..1]);
        assert_eq!(outcome.values("low"), orders[1..2]);
        assert_eq!(outcome.undecoded.len(), 1);
        assert!(run::<BranchByAmount>(json!({"field": "sum"}), orders).is_err());
    }
}
