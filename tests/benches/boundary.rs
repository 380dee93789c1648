//! What it costs to cross into a plugin and back: a call of `process`, by the rows in it, and a new instance.
//!
//! A plugin written by hand, which does next to nothing, shows the boundary alone; another gets and puts integer keys in
//! stores that do nothing. `MILLSTREAM_PLUGINS` may name a folder of components, each of which is then called with rows
//! of its first input.

#[path = "../tests/sandbox/guest.rs"]
#[allow(dead_code)]
mod guest;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use millstream::guest::{Configured, GuestSink, Level, Options, Runtime, Scanned, Stores, StoresError};
use millstream::limits::StageLimits;
use millstream::schema::FieldType;
use millstream::table::{Cell, Column, Table};

struct Quiet;

impl GuestSink for Quiet {
    fn log(&self, _level: Level, _line: &str) {}
    fn suppressed(&self, _lines: u64) {}
}

/// A table that fits the first input.
fn table(configured: &Configured, rows: usize) -> Table {
    let fields = &configured.signature().inputs[0].fields;
    let column = |field_type: FieldType| {
        let mut column = Column::with_capacity(field_type, rows);
        for row in 0..rows {
            let (integer, text) = (row as i64 * 7919 % 1000, format!("text-{}", row % 100));
            let cell = match field_type {
                FieldType::Boolean => Cell::Boolean(row % 2 == 0),
                FieldType::Integer => Cell::Integer(integer),
                FieldType::Float => Cell::Float(integer as f64 / 10.0),
                FieldType::Text => Cell::Text(&text),
                FieldType::Bytes => Cell::Bytes(text.as_bytes()),
                FieldType::Time => Cell::Time(1_700_000_000_000 + integer),
                FieldType::Json => Cell::Json("{\"a\":1}"),
            };
            column.push(field_type, row, cell);
        }
        column
    };
    Table {
        rows: rows as u32,
        columns: fields.iter().map(|mapped| column(mapped.field.field_type)).collect(),
    }
}

fn components(folder: &Path) -> Vec<PathBuf> {
    let honest = folder.join("by-hand.wasm");
    std::fs::write(&honest, guest::Guest::new("by-hand").component()).expect("written");
    let mut paths = vec![honest];
    if let Some(plugins) = std::env::var_os("MILLSTREAM_PLUGINS") {
        let entries = std::fs::read_dir(plugins).expect("MILLSTREAM_PLUGINS names a folder");
        paths.extend(
            entries
                .map(|entry| entry.expect("an entry").path())
                .filter(|p| p.extension().is_some_and(|e| e == "wasm")),
        );
    }
    paths
}

fn boundary(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut compiler = std::env::current_exe().expect("the benchmark's own path");
    compiler.pop();
    compiler.pop();
    let runtime =
        Runtime::new(Options::new(folder.path().join("cache"), compiler.join("millstream"))).expect("a runtime");
    let limits = StageLimits::default();
    for path in components(folder.path()) {
        let plugin = runtime.load(&path).expect("loads");
        let name = plugin.info().name.clone();
        let configured = match plugin.configure("{}", &limits) {
            Ok(configured) => configured,
            Err(error) => {
                eprintln!("{name} is left out: {error}");
                continue;
            }
        };
        let mut instance = configured.instantiate(Arc::new(Quiet)).expect("starts");
        let mut group = criterion.benchmark_group(format!("boundary/{name}"));
        for rows in [1, 10, 100, 1000] {
            let batch = table(&configured, rows);
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_with_input(BenchmarkId::from_parameter(rows), &batch, |bencher, batch| {
                bencher.iter(|| instance.process(0, batch, 0, &mut None).expect("works"));
            });
        }
        group.finish();
        criterion.bench_function(&format!("instantiate/{name}"), |bencher| {
            bencher.iter(|| configured.instantiate(Arc::new(Quiet)).expect("starts"));
        });
    }
}

/// Stores in which every key is there, with itself as its value.
struct Echo;

impl Stores for Echo {
    fn get(&mut self, _store: usize, keys: &Table, _bytes_max: usize) -> Result<(Vec<u8>, Table), StoresError> {
        Ok((Vec::new(), keys.clone()))
    }
    fn put(&mut self, _store: usize, _keys: &Table, _values: &Table) -> Result<(), StoresError> {
        Ok(())
    }
    fn delete(&mut self, _store: usize, _keys: &Table) -> Result<(), StoresError> {
        Ok(())
    }
    fn scan(&mut self, _: usize, _: &Table, _: &Table, _: usize, _: usize) -> Result<Scanned, StoresError> {
        Ok(Scanned::default())
    }
}

/// One `get` and one `put` in a call with one row.
fn state(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut compiler = std::env::current_exe().expect("the benchmark's own path");
    compiler.pop();
    compiler.pop();
    let runtime =
        Runtime::new(Options::new(folder.path().join("cache"), compiler.join("millstream"))).expect("a runtime");
    let mut group = criterion.benchmark_group("state/get-and-put");
    for count in [1, 10, 100, 1000] {
        let guest = guest::Guest::keeping(&format!("keys-{count}"), |data| {
            let column = data.integers(&(0..count).collect::<Vec<i64>>());
            let keys = guest::consts(&data.table(count as u32, &[column]));
            format!(
                "(call $get (i32.const 0) {keys} (i32.const {})) (call $put (i32.const 0) {keys} {keys})",
                guest::SCRATCH_AT
            )
        });
        let path = folder.path().join("keys.wasm");
        std::fs::write(&path, guest.component()).expect("written");
        let plugin = runtime.load(&path).expect("loads");
        let configured = plugin.configure("{}", &StageLimits::default()).expect("configures");
        let mut instance = configured.instantiate(Arc::new(Quiet)).expect("starts");
        let batch = table(&configured, 1);
        let mut lent: Option<Box<dyn Stores>> = Some(Box::new(Echo));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| instance.process(0, &batch, 0, &mut lent).expect("works"));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = boundary, state
}
criterion_main!(benches);
