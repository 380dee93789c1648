//! Sends a taxi ride to several branches: to that of its payment, to `all`, and a row for each of its charges to
//! `charges`.

use millstream_sdk::prelude::*;

#[derive(Config, Plugin)]
pub struct FanOut;

#[derive(Fields)]
pub struct Ride {
    payment_type: Option<i64>,
    fare_amount: f64,
    tip_amount: f64,
    tolls_amount: f64,
}

#[derive(Branches)]
pub enum Out<'a> {
    All,
    Card,
    Cash,
    OtherPayment,
    /// A row for each charge that is not 0, keyed by its name.
    #[branch(value = new)]
    Charges {
        #[field(key)]
        name: &'a str,
        charge: &'a str,
        amount: f64,
    },
}

impl Processor for FanOut {
    type Input = Ride;
    type Output = Out<'static>;

    fn process(&mut self, ride: Ride, out: &mut Output<Out<'static>>) -> Result<()> {
        out.emit(Out::All);
        out.emit(match ride.payment_type {
            Some(1) => Out::Card,
            Some(2) => Out::Cash,
            _ => Out::OtherPayment,
        });
        for (charge, amount) in [
            ("fare", ride.fare_amount),
            ("tip", ride.tip_amount),
            ("tolls", ride.tolls_amount),
        ] {
            if amount != 0.0 {
                out.emit(Out::Charges {
                    name: charge,
                    charge,
                    amount,
                });
            }
        }
        Ok(())
    }
}

millstream_sdk::export!(FanOut);

#[cfg(test)]
mod tests {
    use super::FanOut;
    use millstream_sdk::testing::run;
    use serde_json::{Value, json};

    fn ride(payment: Value, fare: f64, tip: f64, tolls: f64) -> Value {
        json!({"payment_type": payment, "fare_amount": fare, "tip_amount": tip, "tolls_amount": tolls})
    }

    #[test]
    fn a_ride_goes_to_all_and_to_its_payment() {
        let rides = [1, 2, 3].map(|payment| ride(json!(payment), 0.0, 0.0, 0.0));
        let unpaid = ride(Value::Null, 0.0, 0.0, 0.0);
        let all: Vec<Value> = rides.iter().cloned().chain([unpaid.clone()]).collect();
        let outcome = run::<FanOut>(json!({}), all.clone()).unwrap();
        assert_eq!(outcome.values("all"), all);
        assert_eq!(outcome.values("card"), rides[..1]);
        assert_eq!(outcome.values("cash"), rides[1..2]);
        assert_eq!(outcome.values("other-payment"), [rides[2].clone(), unpaid]);
        assert_eq!(outcome.values("charges"), Vec::<Value>::new());
    }

    #[test]
    fn a_ride_becomes_a_row_for_each_charge() {
        let rides = [ride(json!(1), 10.0, 2.0, 0.0), ride(json!(2), -5.0, 0.0, 6.5)];
        let outcome = run::<FanOut>(json!({}), rides).unwrap();
        let expected = [("fare", 10.0), ("tip", 2.0), ("fare", -5.0), ("tolls", 6.5)];
        assert_eq!(
            outcome.values("charges"),
            expected.map(|(charge, amount)| json!({"charge": charge, "amount": amount}))
        );
        let keys: Vec<_> = outcome
            .branch("charges")
            .iter()
            .map(|record| record.key_text().unwrap())
            .collect();
        assert_eq!(keys, ["fare", "tip", "fare", "tolls"]);
    }
}
