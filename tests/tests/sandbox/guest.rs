//! Plugins written by hand, so that they can break any rule: core modules in WebAssembly text that implement the
//! canonical ABI themselves, with data laid out byte by byte.

use wasm_encoder::{ComponentInstanceSection, ComponentSection, ComponentSectionId, Encode};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where the data begins.
const DATA_AT: u32 = 1024;
/// Where `process` writes origins: room for 32,768 rows.
const ORIGINS_AT: u32 = 0x2_0000;
/// Where memory is given out from.
const HEAP_AT: u32 = 0x4_0000;

/// The functions of `state`, for core modules.
pub const STATE: &str = "
    (import \"millstream:plugin/state@0.1.0\" \"get\" (func $get (param i32 i32 i32 i32 i32)))
    (import \"millstream:plugin/state@0.1.0\" \"put\" (func $put (param i32 i32 i32 i32 i32 i32 i32)))
    (import \"millstream:plugin/state@0.1.0\" \"delete\" (func $delete (param i32 i32 i32 i32)))
    (import \"millstream:plugin/state@0.1.0\" \"scan\" (func $scan (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))";
/// Where `get` and `scan` of `state` may write their answer, and what `process` may keep from call to call.
pub const SCRATCH_AT: u32 = 0x3_f000;

/// Constants in WebAssembly text.
pub fn consts(words: &[u32]) -> String {
    words.iter().map(|word| format!("(i32.const {word}) ")).collect()
}

/// Bytes of a guest's memory, and their addresses.
#[derive(Clone, Default)]
pub struct Data(Vec<u8>);

/// An address and a length.
#[derive(Clone, Copy)]
pub struct Slice(pub u32, pub u32);

impl Data {
    pub fn bytes(&mut self, bytes: &[u8]) -> Slice {
        while !self.0.len().is_multiple_of(8) {
            self.0.push(0);
        }
        let at = DATA_AT + self.0.len() as u32;
        self.0.extend_from_slice(bytes);
        assert!(DATA_AT + (self.0.len() as u32) < ORIGINS_AT, "too much data");
        Slice(at, bytes.len() as u32)
    }

    pub fn text(&mut self, text: &str) -> Slice {
        self.bytes(text.as_bytes())
    }

    /// Records, each of words.
    pub fn words(&mut self, records: &[&[u32]]) -> Slice {
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|r| r.iter())
            .flat_map(|word| word.to_le_bytes())
            .collect();
        Slice(self.bytes(&bytes).0, records.len() as u32)
    }

    pub fn info(&mut self, name: &str, version: &str) -> u32 {
        let (name, version, summary) = (self.text(name), self.text(version), self.text("made by hand"));
        self.words(&[&[name.0, name.1, version.0, version.1, summary.0, summary.1, 0, 0, 0, 0]])
            .0
    }

    /// A field in a place: `field_type` and `place` are the positions in the contract's lists.
    pub fn mapped_field(&mut self, name: &str, field_type: u8, optional: bool, place: u32, at: &str) -> Vec<u32> {
        let (name, at) = (self.text(name), self.text(at));
        let type_and_optional = u32::from(field_type) | u32::from(optional) << 8;
        vec![name.0, name.1, type_and_optional, place, at.0, at.1]
    }

    pub fn input(&mut self, name: &str, fields: &[Vec<u32>]) -> Vec<u32> {
        let name = self.text(name);
        let fields = self.words(&fields.iter().map(Vec::as_slice).collect::<Vec<_>>());
        vec![name.0, name.1, fields.0, fields.1]
    }

    pub fn branch(&mut self, name: &str, base: u32, fields: &[Vec<u32>]) -> Vec<u32> {
        let name = self.text(name);
        let fields = self.words(&fields.iter().map(Vec::as_slice).collect::<Vec<_>>());
        vec![name.0, name.1, base, fields.0, fields.1]
    }

    /// A field of a store or of an accumulator.
    pub fn field(&mut self, name: &str, field_type: u8, optional: bool) -> Vec<u32> {
        let name = self.text(name);
        vec![name.0, name.1, u32::from(field_type) | u32::from(optional) << 8]
    }

    /// A store that keeps its rows for ever and carries nothing over.
    pub fn store(&mut self, name: &str, key: &[Vec<u32>], value: &[Vec<u32>], ordered: bool) -> Vec<u32> {
        let (name, key, value) = (self.text(name), self.list(key), self.list(value));
        let ordered = u32::from(ordered);
        vec![name.0, name.1, key.0, key.1, value.0, value.1, ordered, 0, 0, 0, 0, 0]
    }

    fn list(&mut self, records: &[Vec<u32>]) -> Slice {
        self.words(&records.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// `ok(signature)`.
    pub fn signature(&mut self, inputs: &[Vec<u32>], branches: &[Vec<u32>], metrics: &[Vec<u32>]) -> u32 {
        self.signature_with_stores(inputs, branches, &[], metrics)
    }

    /// `ok(signature)`.
    pub fn signature_with_stores(
        &mut self,
        inputs: &[Vec<u32>],
        branches: &[Vec<u32>],
        stores: &[Vec<u32>],
        metrics: &[Vec<u32>],
    ) -> u32 {
        let mut words = vec![0];
        for list in [inputs, branches, stores, metrics] {
            let list = self.list(list);
            words.extend([list.0, list.1]);
        }
        self.words(&[&words]).0
    }

    /// A column of cells of a fixed width, or with the ends of its cells.
    pub fn column(&mut self, ends: &[u32], data: &[u8]) -> Vec<u32> {
        let (ends, data) = (self.origins(ends), self.bytes(data));
        vec![0, 0, ends.0, ends.1, data.0, data.1]
    }

    pub fn integers(&mut self, cells: &[i64]) -> Vec<u32> {
        self.column(
            &[],
            &cells.iter().flat_map(|cell| cell.to_le_bytes()).collect::<Vec<_>>(),
        )
    }

    pub fn texts(&mut self, cells: &[&str]) -> Vec<u32> {
        let ends = cells.iter().scan(0, |end, cell| {
            *end += cell.len() as u32;
            Some(*end)
        });
        self.column(&ends.collect::<Vec<_>>(), cells.concat().as_bytes())
    }

    /// A table's words.
    pub fn table(&mut self, rows: u32, columns: &[Vec<u32>]) -> [u32; 3] {
        let columns = self.list(columns);
        [rows, columns.0, columns.1]
    }

    /// `ok(outputs)`: for each branch its origins and columns; and failed rows.
    pub fn outputs(&mut self, branches: &[(Slice, Slice)], failed: &[(u32, Slice)]) -> u32 {
        let branches: Vec<[u32; 4]> = branches.iter().map(|(o, c)| [o.0, o.1, c.0, c.1]).collect();
        let branches = self.words(&branches.iter().map(<[u32; 4]>::as_slice).collect::<Vec<_>>());
        let failed: Vec<[u32; 3]> = failed.iter().map(|(row, m)| [*row, m.0, m.1]).collect();
        let failed = self.words(&failed.iter().map(<[u32; 3]>::as_slice).collect::<Vec<_>>());
        self.words(&[&[0, branches.0, branches.1, failed.0, failed.1]]).0
    }

    /// `accumulator`.
    pub fn accumulator(&mut self, fields: &[Vec<u32>], rows: u32, columns: &[Vec<u32>]) -> u32 {
        let (fields, columns) = (self.list(fields), self.list(columns));
        self.words(&[&[fields.0, fields.1, rows, columns.0, columns.1]]).0
    }

    pub fn origins(&mut self, rows: &[u32]) -> Slice {
        self.bytes(&rows.iter().flat_map(|row| row.to_le_bytes()).collect::<Vec<_>>())
    }
}

/// A plugin. As it is made it is honest: one input with an integer `n`, one branch that forwards, all rows out.
/// Functions are bodies in WebAssembly text.
#[derive(Clone)]
pub struct Guest {
    pub data: Data,
    pub name: String,
    /// Imports of the core module.
    pub imports: String,
    pub memory: String,
    /// Globals, tables and functions of the core module.
    pub items: String,
    pub start: Option<String>,
    pub describe: String,
    pub configure: String,
    /// Locals: `$input $rows $columns $count`, and `$i`.
    pub process: String,
    pub after_process: Option<String>,
    pub realloc: String,
    /// Imports of the world beyond the contract's, in WIT.
    pub world: String,
    /// Packages that the world's imports come from, in WIT.
    pub packages: String,
    /// Changes to the contract's WIT: what is replaced, by what.
    pub contract: Vec<(&'static str, &'static str)>,
    /// What it exports instead of `process`.
    pub aggregator: Option<Aggregator>,
}

/// The functions of an aggregator: bodies in WebAssembly text.
#[derive(Clone)]
pub struct Aggregator {
    /// Answers with the address of an `accumulator`.
    pub initial: String,
    /// Locals: `$input`, then of the accumulators `$rows $columns $count`, `$groups $groups_length`, then of the rows
    /// `$rows_in $columns_in $count_in`, and `$i`.
    pub accumulate: String,
    /// Locals: `$rows $columns $count`, `$right_rows $right_columns $right_count`, and `$i`.
    pub merge: String,
    /// Locals: `$rows $columns $count`, and `$i`.
    pub finish: String,
}

impl Guest {
    /// An honest plugin of this name.
    pub fn new(name: &str) -> Guest {
        let mut data = Data::default();
        let describe = data.info(name, "1.0.0");
        let field = data.mapped_field("n", 1, false, 0, "/n");
        let input = data.input("in", &[field]);
        let branch = data.branch("out", 0, &[]);
        let configure = data.signature(&[input], &[branch], &[]);
        let emitted = data.words(&[&[ORIGINS_AT, 0, 0, 0]]);
        let outputs = data.words(&[&[0, emitted.0, 1, 0, 0]]);
        let process = format!(
            "(local.set $i (i32.const 0))
             (block $done (loop $next
               (br_if $done (i32.ge_u (local.get $i) (local.get $rows)))
               (i32.store (i32.add (i32.const {ORIGINS_AT}) (i32.shl (local.get $i) (i32.const 2))) (local.get $i))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br $next)))
             (i32.store (i32.const {}) (i32.shl (local.get $rows) (i32.const 2)))
             (global.set $heap (i32.const {HEAP_AT}))
             (i32.const {})",
            emitted.0 + 4,
            outputs.0
        );
        Guest {
            data,
            name: name.to_owned(),
            imports: String::new(),
            memory: "(memory (export \"memory\") 16)".into(),
            items: String::new(),
            start: None,
            describe: format!("(i32.const {describe})"),
            configure: format!("(i32.const {configure})"),
            process,
            after_process: None,
            realloc: "(local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
              (global.set $heap (i32.add (local.get $at) (local.get $size)))
              (block $fits
                (br_if $fits (i32.le_u (global.get $heap) (i32.shl (memory.size) (i32.const 16))))
                (br_if $fits (i32.ne (memory.grow (i32.shr_u (local.get $size) (i32.const 15))) (i32.const -1)))
                (unreachable))
              (local.get $at)"
                .into(),
            world: String::new(),
            packages: String::new(),
            contract: Vec::new(),
            aggregator: None,
        }
    }

    /// A processor with two stores: `counts` (an integer `id` to an integer `n`) and `names` (ordered; the text `name`
    /// and the integer `id`, no value). Its `process` does this first.
    pub fn keeping(name: &str, body: impl FnOnce(&mut Data) -> String) -> Guest {
        let mut guest = Guest::new(name);
        let data = &mut guest.data;
        let [id, n, name] = [("id", 1), ("n", 1), ("name", 3)].map(|(name, of)| data.field(name, of, false));
        let counts = data.store("counts", std::slice::from_ref(&id), &[n], false);
        let names = data.store("names", &[name, id], &[], true);
        let field = data.mapped_field("n", 1, false, 0, "/n");
        let (input, branch) = (data.input("in", &[field]), data.branch("out", 0, &[]));
        let configure = data.signature_with_stores(&[input], &[branch], &[counts, names], &[]);
        guest.configure = format!("(i32.const {configure})");
        guest.imports = STATE.into();
        guest.process = format!("{} {}", body(data), guest.process);
        guest
    }

    /// An honest aggregator: the accumulator is an integer `sum`, to which the rows' `n` is added; its one branch has the
    /// `sum`.
    pub fn aggregating(name: &str) -> Guest {
        let mut guest = Guest::new(name);
        let data = &mut guest.data;
        let (n, sum) = (
            data.mapped_field("n", 1, false, 0, "/n"),
            data.mapped_field("sum", 1, false, 0, "/sum"),
        );
        let (input, branch) = (data.input("in", &[n]), data.branch("out", 1, &[sum]));
        let configure = data.signature(&[input], &[branch], &[]);
        guest.configure = format!("(i32.const {configure})");
        let field = data.field("sum", 1, false);
        let zero = data.integers(&[0]);
        let initial = data.accumulator(&[field], 1, &[zero]);
        // What is lent is changed where it lies, and is the answer.
        let answer = data.words(&[&[0; 6]]).0;
        let table = format!(
            "(i32.store (i32.const {}) (local.get $rows)) (i32.store (i32.const {}) (local.get $columns))
             (i32.store (i32.const {}) (local.get $count)) (global.set $heap (i32.const {HEAP_AT})) (i32.const {answer})",
            answer + 4,
            answer + 8,
            answer + 12
        );
        let emitted = data.words(&[&[ORIGINS_AT, 0, 0, 0]]).0;
        let outputs = data.words(&[&[0, emitted, 1, 0, 0]]).0;
        let cell = |columns: &str, row: &str| {
            format!("(i32.add (i32.load offset=16 (local.get {columns})) (i32.shl {row} (i32.const 3)))")
        };
        let group = "(i32.load (i32.add (local.get $groups) (i32.shl (local.get $i) (i32.const 2))))";
        let row = "(local.get $i)";
        let add = |rows: &str, to: String, from: String| {
            format!(
                "(block $done (loop $next
                   (br_if $done (i32.ge_u (local.get $i) (local.get {rows})))
                   (i64.store {to} (i64.add (i64.load {to}) (i64.load {from})))
                   (local.set $i (i32.add (local.get $i) (i32.const 1)))
                   (br $next)))"
            )
        };
        guest.aggregator = Some(Aggregator {
            initial: format!("(i32.const {initial})"),
            accumulate: add("$rows_in", cell("$columns", group), cell("$columns_in", row)) + &table,
            merge: add("$rows", cell("$columns", row), cell("$right_columns", row)) + &table,
            finish: format!(
                "(block $done (loop $next
                   (br_if $done (i32.ge_u (local.get $i) (local.get $rows)))
                   (i32.store (i32.add (i32.const {ORIGINS_AT}) (i32.shl (local.get $i) (i32.const 2))) (local.get $i))
                   (local.set $i (i32.add (local.get $i) (i32.const 1)))
                   (br $next)))
                 (i32.store (i32.const {}) (i32.shl (local.get $rows) (i32.const 2)))
                 (i32.store (i32.const {}) (local.get $columns)) (i32.store (i32.const {}) (local.get $count))
                 (global.set $heap (i32.const {HEAP_AT})) (i32.const {outputs})",
                emitted + 4,
                emitted + 8,
                emitted + 12
            ),
        });
        guest
    }

    /// The functions of its kind.
    fn hooks(&self) -> String {
        let table =
            |prefix: &str| format!("(param ${prefix}rows i32) (param ${prefix}columns i32) (param ${prefix}count i32)");
        let Some(aggregator) = &self.aggregator else {
            return format!(
                "(func $process (export \"millstream:plugin/processor@0.1.0#process\")
                   (param $input i32) {} (result i32) (local $i i32) {})",
                table(""),
                self.process
            );
        };
        let rows = "(param $rows_in i32) (param $columns_in i32) (param $count_in i32)";
        let groups = "(param $groups i32) (param $groups_length i32)";
        let functions = [
            ("initial", String::new(), &aggregator.initial),
            (
                "accumulate",
                format!("(param $input i32) {} {groups} {rows}", table("")),
                &aggregator.accumulate,
            ),
            ("merge", table("") + &table("right_"), &aggregator.merge),
            ("finish", table(""), &aggregator.finish),
        ];
        let function = |(name, parameters, body): (&str, String, &String)| {
            format!(
                "(func ${name} (export \"millstream:plugin/aggregator@0.1.0#{name}\") {parameters} (result i32)
                   (local $i i32) {body})"
            )
        };
        functions.into_iter().map(function).collect()
    }

    /// The core module's text.
    pub fn core(&self) -> String {
        let data: String = self.data.0.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let start = self
            .start
            .as_ref()
            .map_or(String::new(), |body| format!("(func $start {body}) (start $start)"));
        let after = self.after_process.as_ref().map_or(String::new(), |body| {
            format!("(func (export \"cabi_post_millstream:plugin/processor@0.1.0#process\") (param i32) {body})")
        });
        format!(
            "(module {} {} (data (i32.const {DATA_AT}) \"{data}\") (global $heap (mut i32) (i32.const {HEAP_AT})) {}
               (func (export \"millstream:plugin/lifecycle@0.1.0#describe\") (result i32) {})
               (func (export \"millstream:plugin/lifecycle@0.1.0#configure\") (param $config i32) (param $length i32)
                 (result i32) {})
               {}
               (func (export \"cabi_realloc\") (param $old i32) (param $old_size i32) (param $align i32)
                 (param $size i32) (result i32) (local $at i32) {})
               {after} {start})",
            self.imports,
            self.memory,
            self.items,
            self.describe,
            self.configure,
            self.hooks(),
            self.realloc,
        )
    }

    /// The component.
    pub fn component(&self) -> Vec<u8> {
        let text = self.replaced(&self.core());
        let mut core = wat::parse_str(&text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", self.name));
        let mut resolve = Resolve::default();
        let kind = if self.aggregator.is_some() {
            "aggregator"
        } else {
            "processor"
        };
        let world = self.replaced(&format!(
            "package test:guest;\n{}\n{}\nworld guest {{ include millstream:plugin/{kind}-plugin@0.1.0; {} }}",
            contract(),
            self.packages,
            self.world
        ));
        let package = resolve
            .push_str("guest.wit", &world)
            .unwrap_or_else(|error| panic!("{}: {error:#}", self.name));
        let world = resolve
            .select_world(&[package], Some("guest"))
            .expect("the world is there");
        embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8, false).expect("embeds");
        ComponentEncoder::default()
            .validate(true)
            .module(&core)
            .and_then(ComponentEncoder::encode)
            .unwrap_or_else(|error| panic!("{}: {error:#}", self.name))
    }

    fn replaced(&self, text: &str) -> String {
        self.contract
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

/// The contract's files as one package in WIT.
fn contract() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/0.1.0");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the contract")
        .map(|e| e.expect("a file").path())
        .collect();
    paths.sort();
    let files = paths.iter().map(|path| std::fs::read_to_string(path).expect("a text"));
    let interfaces: String = files
        .map(|file| file.replace("package millstream:plugin@0.1.0;", "") + "\n")
        .collect();
    format!("package millstream:plugin@0.1.0 {{\n{interfaces}}}")
}

/// The component with another one in it, which is instantiated with it.
pub fn with_nested(component: &[u8], nested: &[u8]) -> Vec<u8> {
    let before = wasmparser::Parser::new(0)
        .parse_all(component)
        .scan(0i32, |depth, payload| {
            let mut found = 0;
            match payload.expect("a valid component") {
                wasmparser::Payload::Version { .. } => *depth += 1,
                wasmparser::Payload::ComponentSection { .. } if *depth == 1 => found = 1,
                wasmparser::Payload::End(_) => *depth -= 1,
                _ => {}
            }
            Some(found)
        })
        .sum::<u32>();
    let mut bytes = component.to_vec();
    bytes.push(ComponentSectionId::Component as u8);
    nested.encode(&mut bytes);
    let mut instances = ComponentInstanceSection::new();
    instances.instantiate(before, Vec::<(String, wasm_encoder::ComponentExportKind, u32)>::new());
    instances.append_to_component(&mut bytes);
    bytes
}
