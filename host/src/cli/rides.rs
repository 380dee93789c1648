//! Taxi rides for the demo: made from a seed, with the columns of New York's public trip records.
//!
//! The columns are those of the yellow taxis' records of 2020, described by the city's Taxi and Limousine Commission
//! ("Data Dictionary – Yellow Taxi Trip Records"). The rides are invented: only their shape is real.

use std::io::{self, Write};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The header line.
pub const COLUMNS: &str = "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,\
    RatecodeID,store_and_fwd_flag,PULocationID,DOLocationID,payment_type,fare_amount,extra,mta_tax,tip_amount,\
    tolls_amount,improvement_surcharge,total_amount,congestion_surcharge";

/// One ride in a thousand is broken as real ones are: it ends before it began.
const BROKEN_ONE_IN: u32 = 1000;
/// Where the pickups begin: 2020-07-01T00:00:00Z.
const FIRST_PICKUP_S: i64 = 1_593_561_600;

/// Writes `count` rides as CSV with a header line: the same for the same seed.
///
/// # Errors
/// What `out` says.
pub fn write_csv(out: &mut impl Write, count: u64, seed: u64) -> io::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    writeln!(out, "{COLUMNS}")?;
    for n in 0..count {
        // Pickups come nearly in order, as they do where meters report when they have a connection.
        let pickup = FIRST_PICKUP_S + (n / 20) as i64 + random.random_range(-30..=30);
        let minutes = 2.0 + random.random::<f64>().powi(3) * 60.0;
        let seconds = (minutes * 60.0) as i64;
        let broken = random.random_ratio(1, BROKEN_ONE_IN);
        let dropoff = if broken { pickup - seconds } else { pickup + seconds };
        let miles = minutes * random.random_range(0.12..0.35);
        let fare = 2.5 + miles * 2.5;
        let card = random.random_bool(0.6);
        let tip = if card {
            fare * random.random_range(0.0..0.3)
        } else {
            0.0
        };
        let tolls = if random.random_bool(0.05) { 6.12 } else { 0.0 };
        let total = fare + 0.5 + 0.3 + tip + tolls;
        writeln!(
            out,
            "{},{},{},{},{miles:.2},1,N,{},{},{},{fare:.2},0,0.5,{tip:.2},{tolls:.2},0.3,{total:.2},0",
            if random.random_bool(0.67) { 2 } else { 1 },
            time(pickup),
            time(dropoff),
            random.random_range(1..=4),
            random.random_range(1..=265),
            random.random_range(1..=265),
            if card { 1 } else { 2 },
        )?;
    }
    Ok(())
}

fn time(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).expect("a time in this century");
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_rides() {
        let make = |seed| {
            let mut csv = Vec::new();
            write_csv(&mut csv, 500, seed).expect("memory takes it");
            String::from_utf8(csv).expect("ASCII")
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        let columns = COLUMNS.split(',').count();
        assert!(make(3).lines().all(|line| line.split(',').count() == columns));
    }
}
