//! Numbers that operators see beside the host's own.
//!
//! A plugin makes its metrics in [`Plugin::configure`](crate::Plugin::configure) and keeps them in its fields. What they
//! are told during a call reaches the host once, at its end, and only if the call succeeds; what a failed row told
//! them counts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::host;
use crate::schema::{Metric, MetricKind};

thread_local! {
    static REGISTERED: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// A number that only grows.
#[derive(Clone, Debug)]
pub struct Counter(Rc<Cell<f64>>);

/// A number of which the last value counts.
#[derive(Clone, Debug)]
pub struct Gauge(Rc<Cell<Option<f64>>>);

/// A distribution of values.
#[derive(Clone, Debug)]
pub struct Histogram(Rc<RefCell<Vec<f64>>>);

impl Counter {
    /// A counter with a name (lower case, digits and `_`) and a line for people.
    pub fn new(name: &str, summary: &str) -> Counter {
        let sum = Rc::new(Cell::new(0.0));
        register(name, summary, MetricKind::Counter, Pending::Sum(sum.clone()));
        Counter(sum)
    }

    /// Adds `value`, which must not be negative.
    #[inline]
    pub fn add(&self, value: f64) {
        self.0.set(self.0.get() + value);
    }

    /// Adds 1.
    #[inline]
    pub fn increment(&self) {
        self.add(1.0);
    }
}

impl Gauge {
    /// A gauge with a name (lower case, digits and `_`) and a line for people.
    pub fn new(name: &str, summary: &str) -> Gauge {
        let last = Rc::new(Cell::new(None));
        register(name, summary, MetricKind::Gauge, Pending::Last(last.clone()));
        Gauge(last)
    }

    /// Sets the value.
    #[inline]
    pub fn set(&self, value: f64) {
        self.0.set(Some(value));
    }
}

impl Histogram {
    /// A histogram with a name (lower case, digits and `_`) and a line for people.
    pub fn new(name: &str, summary: &str) -> Histogram {
        let values = Rc::new(RefCell::new(Vec::new()));
        register(name, summary, MetricKind::Histogram, Pending::Values(values.clone()));
        Histogram(values)
    }

    /// Observes a value. Each costs a call of the host at the end of the batch.
    #[inline]
    pub fn observe(&self, value: f64) {
        self.0.borrow_mut().push(value);
    }
}

#[derive(Debug)]
struct Entry {
    metric: Metric,
    pending: Pending,
}

#[derive(Debug)]
enum Pending {
    Sum(Rc<Cell<f64>>),
    Last(Rc<Cell<Option<f64>>>),
    Values(Rc<RefCell<Vec<f64>>>),
}

/// The metrics of an instance.
#[derive(Debug)]
pub(crate) struct Registered(Vec<Entry>);

fn register(name: &str, summary: &str, kind: MetricKind, pending: Pending) {
    let metric = Metric {
        name: name.into(),
        summary: summary.into(),
        kind,
    };
    REGISTERED.with_borrow_mut(|entries| entries.push(Entry { metric, pending }));
}

/// Runs `configure` and gathers the metrics that it makes.
pub(crate) fn registering<T>(configure: impl FnOnce() -> T) -> (T, Registered) {
    REGISTERED.take();
    let result = configure();
    (result, Registered(REGISTERED.take()))
}

impl Registered {
    pub(crate) fn declared(&self) -> Vec<Metric> {
        self.0.iter().map(|entry| entry.metric.clone()).collect()
    }

    /// Tells the host what the call told the metrics.
    pub(crate) fn flush(&self) {
        self.drain(host::update);
    }

    /// Forgets what the call told the metrics.
    pub(crate) fn discard(&self) {
        self.drain(|_, _| {});
    }

    #[inline]
    fn drain(&self, update: impl Fn(u32, f64)) {
        for (index, entry) in (0..).zip(&self.0) {
            match &entry.pending {
                Pending::Sum(sum) => {
                    let sum = sum.take();
                    if sum != 0.0 {
                        update(index, sum);
                    }
                }
                Pending::Last(last) => {
                    if let Some(value) = last.take() {
                        update(index, value);
                    }
                }
                Pending::Values(values) => values.borrow_mut().drain(..).for_each(|value| update(index, value)),
            }
        }
    }
}
