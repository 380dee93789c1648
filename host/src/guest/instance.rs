//! An instance: a plugin with memory of its own, called with tables.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::{ComponentNamedList, Lift, Lower, TypedFunc};

use super::bindings::{LentTable, output as wit};
use super::error::{CallError, GuestError};
use super::failure::failure;
use super::functions::Functions;
use super::imports::log::GuestSink;
pub use super::imports::metrics::MetricUpdate;
use super::imports::{Deadline, FIRST_LOOK_TICKS, Host, Phase};
use super::plugin::Configured;
use super::signature;
use super::started::Started;
use super::stores::Stores;
use crate::limits::{FAILURE_MESSAGE_BYTES_MAX, StageLimits};
use crate::output::{Accumulated, Emitted, Failure, Outputs, PackedEmission, check_accumulators};
use crate::schema::Accumulator;
use crate::table::{Column, Table};

/// What an answer may take beside its bytes: the lists of lists of an honest one, however many branches it has.
const ANSWER_FRAME_BYTES: usize = 8 << 20;

/// A plugin with memory of its own.
///
/// It may be moved between threads, and is called by one at a time. What it remembers beside its configuration does
/// not matter, so it may be dropped and replaced at any time.
pub struct Instance {
    store: Store<Host>,
    functions: Functions,
    configured: Configured,
    poisoned: bool,
    called: bool,
    call_time: Duration,
    /// Groups as they cross; kept from call to call.
    groups: Vec<u8>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plugin = self.configured.plugin().label();
        f.debug_struct("Instance")
            .field("plugin", &plugin)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

impl Instance {
    /// Starts and configures an instance, and holds its signature against the one that is known.
    pub(super) fn new(configured: &Configured, sink: Arc<dyn GuestSink>) -> Result<Instance, GuestError> {
        let plugin = configured.plugin();
        let limits = configured.limits();
        let mut started = Started::new(plugin, limits, sink).map_err(|source| GuestError::Start {
            plugin: plugin.label(),
            source: Box::new(source),
        })?;
        let changed = |function, what| GuestError::Changed {
            plugin: plugin.label(),
            function,
            what,
        };
        let now = started.configure(plugin, configured.config())?;
        if let Some(what) = signature::difference(configured.signature(), &now) {
            return Err(changed("configure", what));
        }
        let accumulator = started.initial(plugin)?;
        if let Some(what) = accumulator_difference(configured.accumulator(), accumulator.as_ref()) {
            return Err(changed("initial", what));
        }
        let Started {
            mut store, functions, ..
        } = started;
        let output_bytes_max = usize::try_from(limits.output_bytes_max).unwrap_or(usize::MAX);
        store.set_hostcall_fuel(output_bytes_max.saturating_add(ANSWER_FRAME_BYTES));
        let host = store.data_mut();
        host.metrics.kinds = now.metrics.iter().map(|metric| metric.kind).collect();
        host.state.declared = now.stores;
        host.state.read_bytes_max = limits.memory_bytes_max;
        host.state.written_bytes_max = output_bytes_max;
        Ok(Instance {
            store,
            functions,
            configured: configured.clone(),
            poisoned: false,
            called: false,
            call_time: Duration::ZERO,
            groups: Vec::new(),
        })
    }

    /// Calls a processor with rows of one of its inputs. `now_ms` is the time that its clocks show; `stores` are lent to
    /// it for this call and are back when it has ended, however it did.
    ///
    /// `rows` must fit the fields of the input; the host that built the table guarantees it.
    ///
    /// # Errors
    /// How the call failed. Nothing of it counts, nor do its metric updates; what it wrote to `stores` is the lender's to
    /// take back. After anything but [`CallError::Refused`] the instance is poisoned and each further call fails with
    /// [`CallError::Poisoned`].
    pub fn process(
        &mut self,
        input: u32,
        rows: &Table,
        now_ms: i64,
        stores: &mut Option<Box<dyn Stores>>,
    ) -> Result<Outputs, CallError> {
        let Functions::Processor { process } = self.functions else {
            return Err(self.has_no("process"));
        };
        std::mem::swap(&mut self.store.data_mut().state.lent, stores);
        let arguments = (input, LentTable::from(rows));
        let answer = self.call(Phase::Process, process, arguments, now_ms, |configured, outputs| {
            take(configured, outputs, rows.rows)
        });
        std::mem::swap(&mut self.store.data_mut().state.lent, stores);
        answer
    }

    /// Calls an aggregator to add rows of one of its inputs to accumulators. `groups` says for each row which row of
    /// `accumulators` it belongs to; each is named at least once.
    ///
    /// The tables must fit the fields of the accumulator and of the input, and `groups` the tables; the host that built
    /// them guarantees it.
    ///
    /// # Errors
    /// As [`Instance::process`].
    pub fn accumulate(
        &mut self,
        input: u32,
        accumulators: &Table,
        groups: &[u32],
        rows: &Table,
        now_ms: i64,
    ) -> Result<Accumulated, CallError> {
        let Functions::Aggregator { accumulate, .. } = self.functions else {
            return Err(self.has_no("accumulate"));
        };
        debug_assert_eq!(groups.len(), rows.rows as usize, "one group a row");
        let mut packed = std::mem::take(&mut self.groups);
        pack(&mut packed, groups);
        let arguments = (
            input,
            LentTable::from(accumulators),
            packed.as_slice(),
            LentTable::from(rows),
        );
        let answer = self.call(
            Phase::Accumulate,
            accumulate,
            arguments,
            now_ms,
            |configured, answer| {
                Ok(Accumulated::check(
                    &kept(configured).fields,
                    accumulators.rows,
                    rows.rows,
                    answer.accumulators.into(),
                    failures(answer.failed),
                    configured.limits().output_bytes_max,
                )?)
            },
        );
        self.groups = packed;
        answer
    }

    /// Calls an aggregator to make one accumulator of each row of `left` and the row of `right` beside it.
    ///
    /// Both tables must fit the fields of the accumulator and have as many rows; the host guarantees it.
    ///
    /// # Errors
    /// As [`Instance::process`].
    pub fn merge(&mut self, left: &Table, right: &Table, now_ms: i64) -> Result<Table, CallError> {
        let Functions::Aggregator { merge, .. } = self.functions else {
            return Err(self.has_no("merge"));
        };
        debug_assert_eq!(left.rows, right.rows, "accumulators are merged two by two");
        let arguments = (LentTable::from(left), LentTable::from(right));
        self.call(Phase::Merge, merge, arguments, now_ms, |configured, answer| {
            let merged = Table::from(answer);
            let bytes_max = configured.limits().output_bytes_max;
            check_accumulators(&kept(configured).fields, left.rows, &merged, bytes_max)?;
            Ok(merged)
        })
    }

    /// Calls an aggregator to make results of accumulators: the origins are rows of `accumulators`.
    ///
    /// The table must fit the fields of the accumulator; the host guarantees it.
    ///
    /// # Errors
    /// As [`Instance::process`].
    pub fn finish(&mut self, accumulators: &Table, now_ms: i64) -> Result<Outputs, CallError> {
        let Functions::Aggregator { finish, .. } = self.functions else {
            return Err(self.has_no("finish"));
        };
        let arguments = (LentTable::from(accumulators),);
        self.call(Phase::Finish, finish, arguments, now_ms, |configured, outputs| {
            take(configured, outputs, accumulators.rows)
        })
    }

    /// Calls a function, within the limits, and checks what it answers.
    fn call<P, A, T>(
        &mut self,
        phase: Phase,
        function: TypedFunc<P, (Result<A, String>,)>,
        arguments: P,
        now_ms: i64,
        check: impl FnOnce(&Configured, A) -> Result<T, CallError>,
    ) -> Result<T, CallError>
    where
        P: ComponentNamedList + Lower,
        A: Lift,
    {
        if self.poisoned {
            return Err(CallError::Poisoned);
        }
        let limits = self.configured.limits();
        begin(self.store.data_mut(), phase, limits, now_ms);
        let began = Instant::now();
        let running = self.configured.plugin().runtime().ticker.running();
        self.store.set_epoch_deadline(FIRST_LOOK_TICKS);
        let answer = function.call(&mut self.store, arguments);
        drop(running);
        self.call_time = began.elapsed();
        self.store.data().log().end_call();
        let answer = match answer {
            Ok((Ok(answer),)) => check(&self.configured, answer),
            Ok((Err(message),)) => Err(CallError::Refused(cut(message))),
            Err(error) => Err(match failure(&mut self.store, error) {
                CallError::AnswerSize { .. } => CallError::AnswerSize {
                    limit_bytes: limits.output_bytes_max,
                },
                other => other,
            }),
        };
        self.called = true;
        self.poisoned = matches!(&answer, Err(error) if !matches!(error, CallError::Refused(_)));
        if answer.is_err() {
            self.store.data_mut().metrics.updates.clear();
        }
        answer
    }

    fn has_no(&self, function: &'static str) -> CallError {
        CallError::OtherKind {
            kind: self.configured.plugin().kind(),
            function,
        }
    }

    /// Whether a call failed so that the instance cannot be called again.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Whether it was never called: what a call of it does is due to the rows alone.
    pub fn is_fresh(&self) -> bool {
        !self.called
    }

    /// Bytes of all its memories and tables.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().limiter.bytes
    }

    /// How long the last call took, by the clock.
    pub fn call_time(&self) -> Duration {
        self.call_time
    }

    /// What the last call did to the metrics of the signature; nothing if it failed.
    pub fn metrics(&self) -> &[MetricUpdate] {
        &self.store.data().metrics.updates
    }

    /// What it is an instance of.
    pub fn configured(&self) -> &Configured {
        &self.configured
    }
}

/// Nothing of the call before counts any more.
fn begin(host: &mut Host, phase: Phase, limits: &StageLimits, now_ms: i64) {
    host.phase = phase;
    host.limiter.refused_bytes = None;
    host.deadline = Deadline::new(limits.call_time_max);
    host.metrics.updates.clear();
    host.state.begin_call();
    host.log().begin_call();
    if let Some(wasi) = &mut host.wasi {
        wasi.begin_call(now_ms);
    }
}

/// Checks outputs. Their bytes are moved, not copied.
fn take(configured: &Configured, outputs: wit::Outputs, rows_in: u32) -> Result<Outputs, CallError> {
    let limits = configured.limits();
    let emissions = outputs.branches.into_iter().map(|emitted| PackedEmission {
        origins: emitted.origins,
        columns: emitted.columns.into_iter().map(Column::from).collect(),
    });
    let rows_max = limits.output_rows_per_row_max.saturating_mul(u64::from(rows_in));
    Ok(Outputs::check(
        configured.signature(),
        rows_in,
        emissions.collect(),
        failures(outputs.failed),
        rows_max,
        limits.output_bytes_max,
    )?)
}

fn failures(failed: Vec<wit::Failure>) -> Vec<Failure> {
    let failure = |failure: wit::Failure| Failure {
        row: failure.row,
        message: cut(failure.message),
    };
    failed.into_iter().map(failure).collect()
}

/// What an aggregator keeps for a group.
fn kept(configured: &Configured) -> &Accumulator {
    configured.accumulator().expect("each aggregator has one")
}

/// Which part of two accumulators is not the same.
fn accumulator_difference(before: Option<&Accumulator>, now: Option<&Accumulator>) -> Option<&'static str> {
    if before.map(|before| &before.fields) != now.map(|now| &now.fields) {
        return Some("fields");
    }
    (before != now).then_some("starts")
}

/// Numbers of four bytes, little-endian, end to end.
fn pack(packed: &mut Vec<u8>, numbers: &[u32]) {
    packed.resize(numbers.len() * 4, 0);
    for (bytes, number) in packed.chunks_exact_mut(4).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
}

/// A plugin's message, cut to what may be kept of it.
fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(FAILURE_MESSAGE_BYTES_MAX));
    message
}

// The task loop hands instances from one worker to another.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Instance>();
    is_send::<Emitted>();
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Field, FieldType};

    #[test]
    fn the_part_of_an_accumulator_that_changed_is_named() {
        let accumulator = |name: &str, start: u8| Accumulator {
            fields: vec![Field {
                name: name.into(),
                field_type: FieldType::Boolean,
                optional: false,
            }],
            start: Table {
                rows: 1,
                columns: vec![Column {
                    data: vec![start],
                    ..Column::default()
                }],
            },
        };
        let before = accumulator("seen", 0);
        for (now, what) in [
            (accumulator("seen", 0), None),
            (accumulator("other", 0), Some("fields")),
            (accumulator("seen", 1), Some("starts")),
        ] {
            assert_eq!(accumulator_difference(Some(&before), Some(&now)), what);
        }
        assert_eq!(accumulator_difference(None, None), None);
    }

    #[test]
    fn groups_cross_as_bytes() {
        let mut packed = vec![9; 100];
        pack(&mut packed, &[1, 0x0102_0304]);
        assert_eq!(packed, [1, 0, 0, 0, 4, 3, 2, 1]);
    }
}
