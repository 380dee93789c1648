//! Adds to taxi rides what their other fields imply: how long and how fast they were, and how much was tipped.

use millstream_sdk::prelude::*;

const KILOMETRES_PER_MILE: f64 = 1.609_344;

#[derive(Config, Plugin)]
pub struct Enrich;

#[derive(Fields)]
pub struct Ride {
    #[field(path = "/tpep_pickup_datetime")]
    pickup: Time,
    #[field(path = "/tpep_dropoff_datetime")]
    dropoff: Time,
    /// In miles.
    trip_distance: f64,
    fare_amount: f64,
    tip_amount: Option<f64>,
}

#[derive(Branches)]
pub enum Out {
    Enriched {
        duration_s: i64,
        /// Null for a ride that took no time.
        speed_kmh: Option<f64>,
        /// Of the fare; null where there is none.
        tip_share: Option<f64>,
    },
}

impl Processor for Enrich {
    type Input = Ride;
    type Output = Out;

    fn process(&mut self, ride: Ride, out: &mut Output<Out>) -> Result<()> {
        let duration_ms = ride.dropoff.millis_since(ride.pickup);
        ensure!(
            duration_ms >= 0,
            "the ride ends {} s before it begins",
            duration_ms / -1000
        );
        let hours = duration_ms as f64 / 3_600_000.0;
        out.emit(Out::Enriched {
            duration_s: duration_ms / 1000,
            speed_kmh: (duration_ms > 0).then(|| ride.trip_distance * KILOMETRES_PER_MILE / hours),
            tip_share: (ride.fare_amount > 0.0).then(|| ride.tip_amount.unwrap_or(0.0) / ride.fare_amount),
        });
        Ok(())
    }
}

millstream_sdk::export!(Enrich);

#[cfg(test)]
mod tests {
    use super::Enrich;
    use millstream_sdk::testing::run;
    use serde_json::{Value, json};

    fn ride(pickup: &str, dropoff: &str, miles: f64, fare: f64, tip: Value) -> Value {
        json!({
            "VendorID": 1, "tpep_pickup_datetime": pickup, "tpep_dropoff_datetime": dropoff,
            "trip_distance": miles, "fare_amount": fare, "tip_amount": tip,
        })
    }

    #[test]
    fn a_ride_is_given_its_duration_speed_and_tip_share() {
        let ride = ride("2020-07-01T00:00:00Z", "2020-07-01T00:30:00Z", 10.0, 20.0, json!(5));
        let outcome = run::<Enrich>(json!({}), [ride.clone()]).unwrap();
        let mut expected = ride;
        expected["duration_s"] = json!(1800);
        expected["speed_kmh"] = json!(10.0 * 1.609344 / 0.5);
        expected["tip_share"] = json!(0.25);
        assert_eq!(outcome.values("enriched"), [expected]);
    }

    #[test]
    fn what_cannot_be_divided_is_null_and_time_runs_forward() {
        let no_time = ride("2020-07-01T00:00:00Z", "2020-07-01T00:00:00Z", 1.0, 0.0, json!(null));
        let no_tip = ride("2020-07-01T00:00:00Z", "2020-07-01T00:00:01Z", 0.0, 1.0, json!(null));
        let backward = ride("2020-07-01T00:00:05Z", "2020-07-01T00:00:00Z", 1.0, 1.0, json!(1));
        let outcome = run::<Enrich>(json!({}), [no_time, backward, no_tip]).unwrap();
        let enriched = outcome.values("enriched");
        assert_eq!(
            (&enriched[0]["speed_kmh"], &enriched[0]["tip_share"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(
            (&enriched[1]["speed_kmh"], &enriched[1]["tip_share"]),
            (&json!(0.0), &json!(0.0))
        );
        assert_eq!(outcome.failures(), ["the ride ends 5 s before it begins"]);
        assert_eq!(outcome.failed[0].record, 1);
    }
}
