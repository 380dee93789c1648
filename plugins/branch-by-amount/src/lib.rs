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
