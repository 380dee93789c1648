//! The functions of a plugin that are called with tables, by its kind.

use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, Instance, TypedFunc};

use super::bindings::{self, AGGREGATOR, LentTable, PROCESSOR, output, table};
use super::error::LoadProblem;
use super::imports::Host;
use crate::schema::PluginKind;

/// `process`, as it is called.
pub type Process = TypedFunc<(u32, LentTable<'static>), (Result<output::Outputs, String>,)>;
/// `initial`, as it is called.
pub type Initial = TypedFunc<(), (bindings::Accumulator,)>;
/// `accumulate`, as it is called: input, accumulators, groups (packed), rows.
pub type Accumulate =
    TypedFunc<(u32, LentTable<'static>, &'static [u8], LentTable<'static>), (Result<bindings::Accumulated, String>,)>;
/// `merge`, as it is called.
pub type Merge = TypedFunc<(LentTable<'static>, LentTable<'static>), (Result<table::Table, String>,)>;
/// `finish`, as it is called.
pub type Finish = TypedFunc<(LentTable<'static>,), (Result<output::Outputs, String>,)>;

/// Where a component has them.
pub enum Exports {
    /// Of a processor.
    Processor { process: ComponentExportIndex },
    /// Of an aggregator.
    Aggregator {
        initial: ComponentExportIndex,
        accumulate: ComponentExportIndex,
        merge: ComponentExportIndex,
        finish: ComponentExportIndex,
    },
}

impl Exports {
    /// Finds them by their names.
    pub fn find(kind: PluginKind, component: &Component) -> Result<Exports, LoadProblem> {
        let interface = match kind {
            PluginKind::Processor => PROCESSOR,
            PluginKind::Aggregator => AGGREGATOR,
        };
        let index = component.get_export_index(None, interface);
        let function = |name: &str| {
            index
                .and_then(|index| component.get_export_index(Some(&index), name))
                .ok_or_else(|| LoadProblem::Mismatch(format!("`{kind}` has no `{name}`")))
        };
        Ok(match kind {
            PluginKind::Processor => Exports::Processor {
                process: function("process")?,
            },
            PluginKind::Aggregator => Exports::Aggregator {
                initial: function("initial")?,
                accumulate: function("accumulate")?,
                merge: function("merge")?,
                finish: function("finish")?,
            },
        })
    }

    /// Those of an instance.
    ///
    /// # Errors
    /// A function of another type than the contract's.
    pub fn load(&self, store: &mut Store<Host>, instance: &Instance) -> wasmtime::Result<Functions> {
        Ok(match self {
            Exports::Processor { process } => Functions::Processor {
                process: instance.get_typed_func(store, process)?,
            },
            Exports::Aggregator {
                initial,
                accumulate,
                merge,
                finish,
            } => Functions::Aggregator {
                initial: instance.get_typed_func(&mut *store, initial)?,
                accumulate: instance.get_typed_func(&mut *store, accumulate)?,
                merge: instance.get_typed_func(&mut *store, merge)?,
                finish: instance.get_typed_func(&mut *store, finish)?,
            },
        })
    }
}

/// The functions of one instance.
#[derive(Clone, Copy)]
pub enum Functions {
    /// Of a processor.
    Processor { process: Process },
    /// Of an aggregator.
    Aggregator {
        initial: Initial,
        accumulate: Accumulate,
        merge: Merge,
        finish: Finish,
    },
}
