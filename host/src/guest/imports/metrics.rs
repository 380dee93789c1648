//! `metrics`: what a call records, kept until it has succeeded.

use super::{Host, Misuse};
use crate::guest::bindings;
use crate::limits::METRIC_UPDATES_MAX;
use crate::schema::MetricKind;

/// What a call did to a metric of the signature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricUpdate {
    /// Its position in the signature.
    pub metric: u32,
    /// What is added, set or observed, by the metric's kind.
    pub value: f64,
}

/// The updates of the call that is running.
#[derive(Debug, Default)]
pub struct Updates {
    /// The kinds of the signature's metrics; none before the signature is known.
    pub kinds: Vec<MetricKind>,
    /// In the order in which they were made.
    pub updates: Vec<MetricUpdate>,
}

impl bindings::metrics::Host for Host {
    fn update(&mut self, metric: u32, value: f64) -> wasmtime::Result<()> {
        if !self.phase.has_tables() {
            let function = self.phase.name();
            return Err(Misuse(format!(
                "`metrics.update` was called in {function}, where only `log` may be"
            ))
            .into());
        }
        self.metrics
            .record(metric, value)
            .map_err(|problem| Misuse(problem).into())
    }
}

impl Updates {
    fn record(&mut self, metric: u32, value: f64) -> Result<(), String> {
        let Some(kind) = self.kinds.get(metric as usize) else {
            return Err(format!(
                "metric {metric} does not exist: the signature has {}",
                self.kinds.len()
            ));
        };
        if !value.is_finite() {
            return Err(format!("metric {metric} was updated with {value}: it must be finite"));
        }
        if *kind == MetricKind::Counter && value < 0.0 {
            return Err(format!(
                "metric {metric} is a counter and was updated with {value}: counters only grow"
            ));
        }
        if self.updates.len() >= METRIC_UPDATES_MAX {
            return Err(format!(
                "more than {METRIC_UPDATES_MAX} metric updates in one call: update once a batch"
            ));
        }
        self.updates.push(MetricUpdate { metric, value });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_checked_and_bounded() {
        let mut updates = Updates {
            kinds: vec![MetricKind::Counter, MetricKind::Gauge],
            updates: vec![],
        };
        updates.record(0, 1.5).expect("fine");
        updates.record(1, -1.5).expect("fine");
        assert!(
            updates
                .record(2, 0.0)
                .expect_err("no such")
                .contains("metric 2 does not exist: the signature has 2")
        );
        assert!(
            updates
                .record(0, -1.0)
                .expect_err("falls")
                .contains("counters only grow")
        );
        assert!(updates.record(1, f64::NAN).expect_err("NaN").contains("finite"));
        assert!(
            updates
                .record(1, f64::INFINITY)
                .expect_err("infinite")
                .contains("finite")
        );
        assert_eq!(updates.updates.len(), 2);
        for _ in 2..METRIC_UPDATES_MAX {
            updates.record(1, 0.0).expect("fine");
        }
        assert!(updates.record(1, 0.0).expect_err("too many").contains("once a batch"));
    }
}
