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

mod decode;
mod encode;
mod record;

use std::collections::BTreeMap;

use crate::host;
use crate::log::Level;
use crate::plugin::Instance;
use crate::processor::BatchProcessor;
use crate::schema::Signature;
use crate::table::Outputs;

pub use record::Record;

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

    /// Why the plugin refused the records that it did.
    pub fn failures(&self) -> Vec<&str> {
        self.failed.iter().map(|refused| refused.message.as_str()).collect()
    }
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

/// A configured processor, for several batches or inputs.
pub struct Tester<P>(Instance<P>);

impl<P> std::fmt::Debug for Tester<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
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
        Ok(Tester(instance))
    }

    /// What the plugin reads, writes and shows.
    pub fn signature(&self) -> &Signature {
        self.0.signature()
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
        let signature = self.0.signature().clone();
        let Some(index) = signature.inputs.iter().position(|stream| stream.name == input) else {
            return Err(format!("there is no input {input:?}"));
        };
        let (table, rows, undecoded) = decode::decode(&signature.inputs[index].fields, &records);
        host::take_lines();
        host::take_updates();
        let outputs = match table.rows {
            // As the host, which never calls with no rows.
            0 => None,
            _ => Some(self.0.process(index as u32, &table)?),
        };
        let mut outcome = Outcome {
            undecoded,
            log: host::take_lines(),
            ..Outcome::default()
        };
        for (metric, value) in host::take_updates() {
            let name = signature.metrics[metric as usize].name.clone();
            outcome.metrics.entry(name).or_default().push(value);
        }
        for branch in &signature.branches {
            outcome.branches.insert(branch.name.clone(), Vec::new());
        }
        if let Some(outputs) = outputs {
            fill(&mut outcome, &signature, &records, &rows, outputs)?;
        }
        Ok(outcome)
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
    for failure in outputs.failed {
        let Some(&record) = rows.get(failure.row as usize) else {
            return Err(format!("row {} failed, but {} went in", failure.row, rows.len()));
        };
        outcome.failed.push(Refused {
            record,
            message: failure.message,
        });
    }
    Ok(())
}
