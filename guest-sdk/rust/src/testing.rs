//! Unit tests of plugins, natively and without a host.
//!
//! Records are decoded as the host decodes JSON topics, tables are built, the plugin is called through the same code
//! as in its component, and what it emits is written into records. Log lines and metrics are kept for the test.
//!
//! ```
//! use millstream_sdk::prelude::*;
//! use millstream_sdk::testing;
//! use serde_json::json;
//!
//! #[derive(Config, Plugin)]
//! struct Split {
//!     threshold: f64,
//! }
//!
//! #[derive(Fields)]
//! struct Ride {
//!     amount: f64,
//! }
//!
//! #[derive(Branches)]
//! enum By {
//!     High,
//!     Low,
//! }
//!
//! impl Processor for Split {
//!     type Input = Ride;
//!     type Output = By;
//!
//!     fn process(&mut self, ride: Ride, out: &mut Output<By>) -> Result<()> {
//!         ensure!(ride.amount >= 0.0, "a ride cannot cost {}", ride.amount);
//!         out.emit(if ride.amount > self.threshold { By::High } else { By::Low });
//!         Ok(())
//!     }
//! }
//!
//! let rides = [json!({"amount": 50}), json!({"amount": 3}), json!({"amount": -1}), json!({})];
//! let outcome = testing::run::<Split>(json!({"threshold": 40}), rides).unwrap();
//! assert_eq!(outcome.values("high"), [json!({"amount": 50})]);
//! assert_eq!(outcome.values("low"), [json!({"amount": 3})]);
//! assert_eq!(outcome.failures(), ["a ride cannot cost -1"]);
//! assert_eq!(outcome.undecoded[0].message, "field \"amount\" (value:/amount) is missing");
//! ```
//!
//! Stores are in memory; they outlive a batch, and a test sees and sets their rows:
//!
//! ```
//! use millstream_sdk::prelude::*;
//! use millstream_sdk::testing::Tester;
//! use serde_json::json;
//!
//! #[derive(Config, Plugin)]
//! struct Balance {
//!     balances: Store<String, i64>,
//! }
//!
//! #[derive(Fields)]
//! struct Booking<'a> {
//!     account: &'a str,
//!     amount: i64,
//! }
//!
//! #[derive(Branches)]
//! enum Out {
//!     Booked { balance: i64 },
//! }
//!
//! impl Processor for Balance {
//!     type Input = Booking<'static>;
//!     type Output = Out;
//!
//!     fn prefetch(&mut self, booking: Booking<'_>) {
//!         self.balances.prefetch(booking.account);
//!     }
//!
//!     fn process(&mut self, booking: Booking<'_>, out: &mut Output<Out>) -> Result<()> {
//!         let balance = self.balances.entry(booking.account).or_default();
//!         *balance += booking.amount;
//!         ensure!(*balance >= 0, "{} cannot be paid by {}", booking.amount, booking.account);
//!         out.emit(Out::Booked { balance: *balance });
//!         Ok(())
//!     }
//! }
//!
//! let mut tester = Tester::<Balance>::new(json!({})).unwrap();
//! tester.put("balances", "ann".to_owned(), 5_i64);
//! let bookings = [("ann", -3), ("ann", -3), ("bob", 1)].map(|(account, amount)| json!({"account": account, "amount": amount}));
//! let outcome = tester.process("input", bookings).unwrap();
//! assert_eq!(outcome.failures(), ["-3 cannot be paid by ann"]);
//! assert_eq!(tester.rows::<String, i64>("balances"), [("ann".to_owned(), 2), ("bob".to_owned(), 1)]);
//! assert_eq!(outcome.state_calls, 2, "one fetches, one writes");
//! ```
//!
//! For aggregators there are [`aggregate`] and [`AggregatorTester`].

mod aggregate;
mod decode;
mod encode;
mod record;
mod state;

use std::collections::BTreeMap;

use crate::host;
use crate::log::Level;
use crate::plugin::Instance;
use crate::processor::BatchProcessor;
use crate::schema::Signature;
use crate::stored::{Stored, table};
use crate::table::{Failure, Outputs};

pub use aggregate::{AggregatorTester, aggregate};
pub use record::Record;
pub(crate) use state::Stores;

/// What became of the records of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What was emitted, by the names of the branches.
    pub branches: BTreeMap<String, Vec<Record>>,
    /// What the plugin refused, in the order in which it did.
    pub failed: Vec<Refused>,
    /// What never reached the plugin, because a field is missing or has another type.
    pub undecoded: Vec<Refused>,
    /// What was logged.
    pub log: Vec<(Level, String)>,
    /// What the metrics were told, by their names.
    pub metrics: BTreeMap<String, Vec<f64>>,
    /// How often stores were called: once to fetch and once to write, where a processor prefetches all keys.
    pub state_calls: usize,
}

/// A record that goes to the dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its number among those that were given.
    pub record: usize,
    /// Why.
    pub message: String,
}

impl Outcome {
    /// The records of a branch.
    ///
    /// # Panics
    /// If the plugin has no such branch.
    pub fn branch(&self, name: &str) -> &[Record] {
        match self.branches.get(name) {
            Some(records) => records,
            None => panic!("there is no branch {name:?}: there are {:?}", self.branches.keys()),
        }
    }

    /// The values of a branch's records, as JSON.
    ///
    /// # Panics
    /// If the plugin has no such branch, or a value is not JSON.
    pub fn values(&self, branch: &str) -> Vec<serde_json::Value> {
        self.branch(branch).iter().map(Record::json_value).collect()
    }

    /// The keys of a branch's records, as text, and their values, as JSON: mostly of an aggregator's results.
    ///
    /// # Panics
    /// If the plugin has no such branch, a key is no text or a value is not JSON.
    pub fn keyed(&self, branch: &str) -> Vec<(&str, serde_json::Value)> {
        let pair = |record| (text_key(record), Record::json_value(record));
        self.branch(branch).iter().map(pair).collect()
    }

    /// Why the plugin refused the records that it did.
    pub fn failures(&self) -> Vec<&str> {
        self.failed.iter().map(|refused| refused.message.as_str()).collect()
    }

    /// Takes over what the plugin told its host in a call.
    fn hear(&mut self, signature: &Signature) {
        self.log = host::take_lines();
        for (metric, value) in host::take_updates() {
            let name = signature.metrics[metric as usize].name.clone();
            self.metrics.entry(name).or_default().push(value);
        }
    }

    /// Takes over the rows that failed; `rows` says which record each row was.
    fn refuse(&mut self, rows: &[usize], failed: Vec<Failure>) -> Result<(), String> {
        for failure in failed {
            let Some(&record) = rows.get(failure.row as usize) else {
                return Err(format!("row {} failed, but {} went in", failure.row, rows.len()));
            };
            self.failed.push(Refused {
                record,
                message: failure.message,
            });
        }
        Ok(())
    }

    /// Puts a later outcome behind this one; `records` came before its own.
    fn append(&mut self, later: Outcome, records: usize) {
        let moved = |refused: Refused| Refused {
            record: refused.record + records,
            ..refused
        };
        for (branch, later) in later.branches {
            self.branches.entry(branch).or_default().extend(later);
        }
        self.failed.extend(later.failed.into_iter().map(moved));
        self.undecoded.extend(later.undecoded.into_iter().map(moved));
        self.log.extend(later.log);
        for (metric, later) in later.metrics {
            self.metrics.entry(metric).or_default().extend(later);
        }
        self.state_calls += later.state_calls;
    }
}

fn text_key(record: &Record) -> &str {
    std::str::from_utf8(record.key.as_deref().unwrap_or_default()).expect("a key that is text")
}

/// Configures a processor and gives it records, in one batch.
///
/// # Errors
/// Why the configuration was refused, or the whole call failed, or which rule of the contract the plugin broke.
pub fn run<P: BatchProcessor>(
    config: serde_json::Value,
    records: impl IntoIterator<Item = impl Into<Record>>,
) -> Result<Outcome, String> {
    let mut tester = Tester::<P>::new(config)?;
    let input = tester
        .signature()
        .inputs
        .first()
        .map(|input| input.name.clone())
        .ok_or("the plugin has no input")?;
    tester.process(&input, records)
}

/// Runs `call` with empty stores, for what calls [`state`](crate::state) without a [`Tester`].
pub fn with_stores<T>(declared: &[crate::schema::Store], call: impl FnOnce() -> T) -> T {
    let before = host::replace_stores(Stores::new(declared));
    let result = call();
    host::replace_stores(before);
    result
}

/// A configured processor and its stores, for several batches or inputs.
pub struct Tester<P> {
    instance: Instance<P>,
    stores: Stores,
}

impl<P> std::fmt::Debug for Tester<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.instance.fmt(f)
    }
}

impl<P: BatchProcessor> Tester<P> {
    /// Configures a processor.
    ///
    /// # Errors
    /// Why the configuration was refused, or which rule of the contract the signature breaks.
    pub fn new(config: serde_json::Value) -> Result<Tester<P>, String> {
        let instance = Instance::configure(&config.to_string())?;
        for branch in &instance.signature().branches {
            encode::check(branch)?;
        }
        let stores = Stores::new(&instance.signature().stores);
        Ok(Tester { instance, stores })
    }

    /// What the plugin reads, writes and shows.
    pub fn signature(&self) -> &Signature {
        self.instance.signature()
    }

    /// Gives the processor records of an input, in one batch.
    ///
    /// # Errors
    /// That the whole call failed, or which rule of the contract the plugin broke.
    pub fn process(
        &mut self,
        input: &str,
        records: impl IntoIterator<Item = impl Into<Record>>,
    ) -> Result<Outcome, String> {
        let records: Vec<Record> = records.into_iter().map(Into::into).collect();
        let signature = self.instance.signature().clone();
        let Some(index) = signature.inputs.iter().position(|stream| stream.name == input) else {
            return Err(format!("there is no input {input:?}"));
        };
        let (table, rows, undecoded) = decode::decode(&signature.inputs[index].fields, &records);
        host::take_lines();
        host::take_updates();
        let mut outcome = Outcome {
            undecoded,
            ..Outcome::default()
        };
        let outputs = match table.rows {
            // As the host, which never calls with no rows.
            0 => None,
            _ => {
                // What a call that fails has changed is dropped.
                host::replace_stores(self.stores.clone());
                let outputs = self.instance.process(index as u32, &table);
                let stores = host::replace_stores(Stores::none());
                let outputs = outputs?;
                outcome.state_calls = stores.calls - self.stores.calls;
                self.stores = stores;
                Some(outputs)
            }
        };
        outcome.hear(&signature);
        for branch in &signature.branches {
            outcome.branches.insert(branch.name.clone(), Vec::new());
        }
        if let Some(outputs) = outputs {
            fill(&mut outcome, &signature, &records, &rows, outputs)?;
        }
        Ok(outcome)
    }

    /// Gives the processor records of an input, in batches of at most `rows` records: whatever the batches, the outcome
    /// is to be the same.
    ///
    /// # Errors
    /// As [`process`](Self::process).
    pub fn process_by(
        &mut self,
        rows: usize,
        input: &str,
        records: impl IntoIterator<Item = impl Into<Record>>,
    ) -> Result<Outcome, String> {
        let records: Vec<Record> = records.into_iter().map(Into::into).collect();
        let mut outcome = Outcome::default();
        for (batch, records) in records.chunks(rows.max(1)).enumerate() {
            outcome.append(self.process(input, records.iter().cloned())?, batch * rows.max(1));
        }
        Ok(outcome)
    }

    /// The rows of a store, in the order of their keys.
    ///
    /// # Panics
    /// If there is no such store, or its rows are others.
    pub fn rows<K: Stored, V: Stored>(&self, store: &str) -> Vec<(K, V)> {
        let (keys, values) = self.stores.rows(store);
        let keys_view = K::columns(&keys).expect("such keys");
        let values_view = V::columns(&values).expect("such values");
        let row = |row| (K::read(&keys_view, row), V::read(&values_view, row));
        (0..keys.rows as usize).map(row).collect()
    }

    /// Puts a row into a store.
    ///
    /// # Panics
    /// If there is no such store, or its rows are others.
    pub fn put<K: Stored, V: Stored>(&mut self, store: &str, key: K, value: V) {
        let number = self.stores.number(store);
        let keys = table(&K::fields("key"), std::iter::once(&key));
        let values = table(&V::fields("value"), std::iter::once(&value));
        self.stores.put(number, &keys, &values);
    }

    /// Takes a row out of a store, as its time to live does.
    ///
    /// # Panics
    /// If there is no such store, or its keys are others.
    pub fn remove<K: Stored>(&mut self, store: &str, key: K) {
        let number = self.stores.number(store);
        self.stores
            .delete(number, &table(&K::fields("key"), std::iter::once(&key)));
    }
}

/// Writes what was emitted into records. `rows` says which record each row was.
fn fill(
    outcome: &mut Outcome,
    signature: &Signature,
    records: &[Record],
    rows: &[usize],
    outputs: Outputs,
) -> Result<(), String> {
    for (branch, emitted) in signature.branches.iter().zip(outputs.branches) {
        let origins: Vec<usize> = emitted
            .origins
            .as_chunks()
            .0
            .iter()
            .map(|&row| u32::from_le_bytes(row) as usize)
            .collect();
        if !origins.is_sorted() {
            return Err(format!("branch {:?}: the input rows descend: {origins:?}", branch.name));
        }
        for &row in &origins {
            if row >= rows.len() {
                return Err(format!(
                    "branch {:?} names row {row}, but {} went in",
                    branch.name,
                    rows.len()
                ));
            }
            if outputs.failed.iter().any(|failure| failure.row as usize == row) {
                return Err(format!("branch {:?} names row {row}, which failed", branch.name));
            }
        }
        let emitted_records = encode::encode(branch, &emitted.columns, origins.iter().map(|&row| &records[rows[row]]))?;
        outcome.branches.insert(branch.name.clone(), emitted_records);
    }
    outcome.refuse(rows, outputs.failed)
}
