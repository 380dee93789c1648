//! Processors: a batch of records in, rows for branches out.

use crate::error::Result;
use crate::output::{Branches, Output};
use crate::plugin::{Instance, Plugin, same_types};
use crate::row::{Batch, Input};
use crate::schema::Signature;
use crate::store;
use crate::table::Table;
use millstream_sdk_bindings::millstream::plugin::output::Outputs;

/// A processor that is shown a row at a time.
pub trait Processor: Plugin {
    /// What it reads.
    type Input: Input;
    /// The branches that it writes.
    type Output: Branches;

    /// Changes what the types say of inputs and branches, where a setting decides it: places, names, and the fields
    /// of dynamic rows.
    fn signature(&self, signature: &mut Signature) {
        let _ = signature;
    }

    /// Names the keys of its stores that [`process`](Self::process) will ask for in this row, by
    /// [`Store::prefetch`](crate::Store::prefetch): it is shown all rows of a batch before any is processed, and the
    /// keys are fetched at once. It is only a matter of speed.
    fn prefetch(&mut self, row: <Self::Input as Input>::Row<'_>) {
        let _ = row;
    }

    /// Says what becomes of a row: what it emits. A row that emits nothing is dropped.
    ///
    /// # Errors
    /// The row goes to the dead-letter queue with the error's message; what it emitted and what it changed in stores is
    /// taken back, and the other rows go on.
    fn process(&mut self, row: <Self::Input as Input>::Row<'_>, out: &mut Output<Self::Output>) -> Result<()>;
}

/// A processor that is shown a batch at a time, as columns: for speed, or where rows have to do with each other.
/// Every [`Processor`] is one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a processor",
    note = "implement `Processor` (a row at a time) or `BatchProcessor` (columns) for it"
)]
pub trait BatchProcessor: Plugin {
    /// What it reads.
    type Input: Input;
    /// The branches that it writes.
    type Output: Branches;

    /// As [`Processor::signature`].
    fn signature(&self, signature: &mut Signature) {
        let _ = signature;
    }

    /// Says what becomes of the rows of a batch. Of a row that is failed here, what was changed in stores stays.
    ///
    /// # Errors
    /// The whole call fails and nothing of it counts. The host calls again with parts of the batch until it has
    /// found the rows that cannot be processed. Where the plugin knows the row, [`Output::fail`] is better.
    fn process_batch(&mut self, batch: &Batch<'_, Self::Input>, out: &mut Output<Self::Output>) -> Result<()>;
}

impl<P: Processor> BatchProcessor for P {
    type Input = P::Input;
    type Output = P::Output;

    fn signature(&self, signature: &mut Signature) {
        Processor::signature(self, signature);
    }

    #[inline]
    fn process_batch(&mut self, batch: &Batch<'_, P::Input>, out: &mut Output<P::Output>) -> Result<()> {
        let mut has_stores = false;
        self.stores(&mut |_| has_stores = true);
        if !has_stores {
            for (row, cells) in batch.rows() {
                if let Err(error) = self.process(cells, out.at(row)) {
                    out.fail(error);
                }
            }
            return Ok(());
        }
        for (_, cells) in batch.rows() {
            self.prefetch(cells);
        }
        for (row, cells) in batch.rows() {
            store::next_row();
            if let Err(error) = self.process(cells, out.at(row)) {
                out.fail(error);
            }
            // By an error, or by `Output::fail`.
            if out.has_failed() {
                self.stores(&mut |store| store.undo());
            }
        }
        store::no_row();
        Ok(())
    }
}

impl<P: BatchProcessor> Instance<P> {
    /// Makes a processor from its configuration, JSON text.
    ///
    /// # Errors
    /// Why the configuration is refused.
    pub fn configure(config: &str) -> Result<Self, String> {
        let signature = Signature {
            inputs: P::Input::inputs(),
            branches: P::Output::branches(),
            stores: Vec::new(),
            metrics: Vec::new(),
        };
        Instance::new(config, signature, |plugin: &P, signature| {
            plugin.signature(signature);
            check::<P::Input, P::Output>(signature)
        })
    }

    /// Answers one call of the host.
    ///
    /// # Errors
    /// The whole call fails.
    pub fn process(&mut self, input: u32, table: &Table) -> Result<Outputs, String> {
        self.call(|plugin, signature| {
            let Some(stream) = signature.inputs.get(input as usize) else {
                return Err(format!("there is no input {input}"));
            };
            let columns = P::Input::columns(input as usize, table, &stream.fields)
                .map_err(|problem| format!("input {:?}: {problem}", stream.name))?;
            let mut out = Output::new(&signature.branches, table.rows);
            plugin
                .process_batch(&Batch::new(table.rows, columns), &mut out)
                .map_err(|error| error.to_string())?;
            Ok(out.finish())
        })
    }
}

/// Whether the code can work with a signature that the plugin changed.
pub(crate) fn check<I: Input, B: Branches>(signature: &Signature) -> Result<(), String> {
    let (inputs, branches) = (I::inputs(), B::branches());
    if signature.inputs.len() != inputs.len() || signature.branches.len() != branches.len() {
        return Err("`signature` added or took away inputs or branches, which the code has not".into());
    }
    for (at, (input, derived)) in signature.inputs.iter().zip(&inputs).enumerate() {
        if !I::is_dynamic(at) {
            same_types(&format!("input {:?}", input.name), &input.fields, &derived.fields)?;
        }
    }
    for (at, (branch, derived)) in signature.branches.iter().zip(&branches).enumerate() {
        if !B::is_dynamic(at) {
            same_types(&format!("branch {:?}", branch.name), &branch.fields, &derived.fields)?;
        }
    }
    Ok(())
}
