//! Files that are no plugin, that attack the compiler, or that fail before any record arrives.

use std::time::Duration;

use wasm_encoder::{
    CodeSection, CustomSection, ExportKind, ExportSection, Function, FunctionSection, Module, TypeSection, ValType,
};

use crate::guest::{Guest, with_nested};
use crate::{Sandbox, limits};

/// Each file is refused in words of its own.
#[test]
fn files_that_are_no_plugins() {
    let mut sandbox = Sandbox::new();
    let whole = Guest::new("whole").component();
    let other_version = |from, to| Guest {
        contract: vec![(from, to)],
        ..Guest::new("other-version")
    };
    let importing = |import: &str, package: &str, core: &str| Guest {
        world: format!("import {import};"),
        packages: package.into(),
        imports: core.into(),
        ..Guest::new("importing")
    };
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle..middle + 64].fill(0xff);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("is empty", vec![]),
        ("a text file", b"[pipeline]\nname = \"a\"".to_vec()),
        ("WebAssembly text", b"(component)".to_vec()),
        ("no WebAssembly at all", vec![0x7f, 0xfe, 0xff, 0x90]),
        (
            "a core module",
            wat::parse_str(Guest::new("core").core()).expect("parses"),
        ),
        ("cut off", whole[..whole.len() / 2].to_vec()),
        ("cut off", whole[..6].to_vec()),
        ("component", broken),
        ("precompiled component", precompiled(&sandbox, &whole)),
        (
            "does not export `millstream:plugin/lifecycle`",
            wat::parse_str("(component)").expect("parses"),
        ),
        (
            "version 0.2.0 of the contract",
            other_version("@0.1.0", "@0.2.0").component(),
        ),
        ("this host speaks 0.1.0", other_version("@0.1.0", "@1.1.0").component()),
        (
            "does not fit the contract",
            other_version(
                "process: func(input: u32, rows: table)",
                "process: func(rows: table, input: u32)",
            )
            .component_with_process("(param $columns i32) (param $count i32) (param $rows i32) (param $input i32)"),
        ),
        (
            "does not fit the contract",
            other_version("summary: string", "synopsis: string").component(),
        ),
        (
            "imports `wasi:sockets/tcp-create-socket@0.2.0`, which this host does not grant",
            importing(
                "wasi:sockets/tcp-create-socket@0.2.0",
                "package wasi:sockets@0.2.0 { interface tcp-create-socket { create: func() -> u32; } }",
                "(import \"wasi:sockets/tcp-create-socket@0.2.0\" \"create\" (func (result i32)))",
            )
            .component(),
        ),
        (
            "imports `acme:db/sql@1.0.0`, which nothing here provides",
            importing(
                "acme:db/sql@1.0.0",
                "package acme:db@1.0.0 { interface sql { query: func(); } }",
                "(import \"acme:db/sql@1.0.0\" \"query\" (func))",
            )
            .component(),
        ),
        (
            "does not fit the contract",
            importing(
                "wasi:cli/stdout@0.2.0",
                "package wasi:cli@0.2.0 { interface stdout { print-everything: func(); } }",
                "(import \"wasi:cli/stdout@0.2.0\" \"print-everything\" (func))",
            )
            .component(),
        ),
    ];
    for (expected, file) in cases {
        sandbox.case(expected, |sandbox| {
            let error = sandbox.load(&file).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
            assert!(error.contains("plugin.wasm: "), "{error:?} does not say where");
        });
    }
}

impl Guest {
    /// A component whose `process` takes its parameters in another order.
    fn component_with_process(&self, parameters: &str) -> Vec<u8> {
        let mut guest = self.clone();
        guest.contract.push((
            "(param $input i32) (param $rows i32) (param $columns i32) (param $count i32)",
            Box::leak(parameters.to_owned().into_boxed_str()),
        ));
        guest.component()
    }
}

/// Machine code as the cache holds it, offered as if it were a plugin.
fn precompiled(sandbox: &Sandbox, component: &[u8]) -> Vec<u8> {
    let plugin = sandbox.load(component).expect("loads");
    let entries = std::fs::read_dir(sandbox.folder.path().join("cache")).expect("the cache");
    let entry = entries
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.to_string_lossy().contains(plugin.digest()) && path.extension().is_some_and(|e| e == "cwasm"))
        .expect("the component's code");
    std::fs::read(entry).expect("read")
}

#[test]
fn files_that_are_too_large_are_not_read() {
    let mut sandbox = Sandbox::new();
    sandbox.case("500 MB", |sandbox| {
        let path = sandbox.folder.path().join("large.wasm");
        let file = std::fs::File::create(&path).expect("made");
        file.set_len(500 << 20).expect("sparse");
        let error = sandbox.runtime.load(&path).expect_err("too large").to_string();
        assert!(
            error.contains("has 524288000 bytes, but a component may have 67108864"),
            "{error}"
        );
    });
    sandbox.case("endless", |sandbox| {
        let error = sandbox
            .runtime
            .load("/dev/zero".as_ref())
            .expect_err("endless")
            .to_string();
        assert!(error.contains("but a component may have"), "{error}");
    });
    sandbox.case("missing", |sandbox| {
        let error = sandbox
            .runtime
            .load("/nowhere/plugin.wasm".as_ref())
            .expect_err("missing")
            .to_string();
        assert!(error.contains("/nowhere/plugin.wasm: cannot be read"), "{error}");
    });
}

/// Components that are strange in form, but by the rules, or nearly.
#[test]
fn forms_that_are_strange() {
    let mut sandbox = Sandbox::new();
    let whole = Guest::new("whole").component();
    let parsed = |text: &str| wat::parse_str(text).expect("parses");
    let nested = |depth: usize| {
        (0..depth).fold(wasm_encoder::Component::new().finish(), |inner, _| {
            let mut outer = wasm_encoder::Component::new().finish();
            outer.push(wasm_encoder::ComponentSectionId::Component as u8);
            wasm_encoder::Encode::encode(inner.as_slice(), &mut outer);
            outer
        })
    };
    let instances = |module: &str, count: usize| {
        parsed(&format!(
            "(component (core module $m {module}) {})",
            "(core instance (instantiate $m))".repeat(count)
        ))
    };
    let doubled: String = (0..40)
        .map(|i| format!("(type $t{} (tuple $t{i} $t{i}))", i + 1))
        .collect();
    let mut bomb = whole.clone();
    for _ in 0..100 {
        let section = CustomSection {
            name: "bomb".into(),
            data: vec![7; 400 << 10].into(),
        };
        bomb.push(0);
        wasm_encoder::Encode::encode(&section, &mut bomb);
    }
    let cases: Vec<(&str, Vec<u8>, Option<&str>)> = vec![
        ("custom sections", bomb, None),
        ("nested a little", with_nested(&whole, &nested(20)), None),
        ("nested deep", with_nested(&whole, &nested(2000)), None),
        (
            "nested deeper",
            with_nested(&whole, &nested(20_000)),
            Some("takes more than 2147483648 bytes"),
        ),
        (
            "core instances",
            with_nested(&whole, &instances("", 900)),
            Some("more parts than an instance may have"),
        ),
        (
            "10,000 core instances",
            with_nested(&whole, &instances("", 10_000)),
            Some("cannot be compiled"),
        ),
        (
            "memories",
            with_nested(&whole, &instances("(memory 1)", 20)),
            Some("more parts than an instance may have"),
        ),
        (
            "tables",
            with_nested(&whole, &instances("(table 1 funcref)", 300)),
            Some("more parts than an instance may have"),
        ),
        (
            "types that double",
            with_nested(
                &whole,
                &parsed(&format!("(component (type $t0 (tuple u64 u64)) {doubled})")),
            ),
            Some("cannot be compiled"),
        ),
        (
            "64-bit memory",
            with_nested(&whole, &parsed("(component (core module (memory i64 1)))")),
            Some("cannot be compiled"),
        ),
        (
            "threads",
            with_nested(&whole, &parsed("(component (core module (memory 1 1 shared)))")),
            Some("cannot be compiled"),
        ),
        (
            "garbage collection",
            with_nested(&whole, &parsed("(component (core module (type (struct))))")),
            Some("cannot be compiled"),
        ),
    ];
    for (name, file, expected) in cases {
        sandbox.case(name, |sandbox| match (sandbox.load(&file), expected) {
            (Ok(plugin), None) => {
                plugin
                    .configure("{}", &limits())
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            (Err(error), Some(expected)) => {
                let error = error.to_string();
                assert!(error.contains(expected), "{name}: {error:?} does not say {expected:?}");
            }
            (loaded, expected) => panic!("{name}: {loaded:?} instead of {expected:?}"),
        });
    }
}

/// The component with a module in it whose functions are hard to compile.
fn with_hard_module(component: &[u8], functions: u32, locals: u32, operations: u32) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], [ValType::I64]);
    let mut declared = FunctionSection::new();
    let mut exports = ExportSection::new();
    let mut code = CodeSection::new();
    for i in 0..functions {
        declared.function(0);
        exports.export(&format!("f{i}"), ExportKind::Func, i);
        let mut function = Function::new([(locals, ValType::I64)]);
        let mut body = function.instructions();
        for i in 0..operations {
            // Each local depends on others and counts in the end, so that all of it has to be compiled.
            body.local_get(i % locals).i64_const(i64::from(i) * 7919).i64_add();
            body.local_get((i * 7 + 1) % locals)
                .i64_mul()
                .local_set((i * 13 + 2) % locals);
        }
        body.i64_const(0);
        for i in 0..locals {
            body.local_get(i).i64_xor();
        }
        body.end();
        code.function(&function);
    }
    let mut module = Module::new();
    module
        .section(&types)
        .section(&declared)
        .section(&exports)
        .section(&code);
    let mut nested = wasm_encoder::Component::new();
    nested.section(&wasm_encoder::ModuleSection(&module));
    let mut instances = wasm_encoder::InstanceSection::new();
    instances.instantiate(0, Vec::<(&str, wasm_encoder::ModuleArg)>::new());
    nested.section(&instances);
    with_nested(component, &nested.finish())
}

#[test]
fn compiling_is_bounded_in_time() {
    let mut sandbox = Sandbox::with(|options| options.compile_time_max = Duration::from_secs(1));
    let bomb = with_hard_module(&Guest::new("bomb").component(), 200, 400, 20_000);
    sandbox.case("time", |sandbox| {
        let began = std::time::Instant::now();
        let error = sandbox.load(&bomb).expect_err("takes too long").to_string();
        assert!(error.contains("longer than 1s"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let left = std::fs::read_dir(sandbox.folder.path().join("cache"))
            .expect("the cache")
            .count();
        assert_eq!(left, 2, "nothing but the honest plugin's code and its sum");
    });
}

#[test]
fn compiling_is_bounded_in_memory() {
    let mut sandbox = Sandbox::with(|options| options.compile_memory_bytes_max = 160 << 20);
    let bomb = with_hard_module(&Guest::new("bomb").component(), 4, 2_000, 200_000);
    sandbox.case("memory", |sandbox| {
        let error = sandbox.load(&bomb).expect_err("takes too much").to_string();
        assert!(error.contains("takes more than 167772160 bytes of memory"), "{error}");
    });
}

#[test]
fn functions_of_honest_size_compile() {
    let mut sandbox = Sandbox::new();
    let locals = with_hard_module(&Guest::new("locals").component(), 1, 49_000, 10);
    let huge = with_hard_module(&Guest::new("huge").component(), 1, 4, 100_000);
    let too_many = with_hard_module(&Guest::new("too-many").component(), 1, 50_001, 1);
    sandbox.case("49,000 locals", |sandbox| drop(sandbox.load(&locals).expect("loads")));
    sandbox.case("one function of 400,000 instructions", |sandbox| {
        drop(sandbox.load(&huge).expect("loads"))
    });
    sandbox.case("50,001 locals", |sandbox| {
        let error = sandbox.load(&too_many).expect_err("refused").to_string();
        assert!(error.contains("too many locals"), "{error}");
    });
}

#[test]
fn a_compiler_that_is_missing_or_another_program_is_named() {
    for (compiler, expected) in [
        (
            "/nowhere/millstream",
            "the compiler /nowhere/millstream does not work here",
        ),
        ("/bin/true", "is it millstream?"),
        ("/bin/false", "the compiler crashed"),
    ] {
        let mut sandbox = Sandbox::with(|options| options.compiler = compiler.into());
        sandbox.case(compiler, |sandbox| {
            let error = sandbox
                .load(&Guest::new("new").component())
                .expect_err("no compiler")
                .to_string();
            assert!(error.contains(expected), "{error}");
        });
    }
}

#[test]
fn a_damaged_cache_is_made_again() {
    let mut sandbox = Sandbox::new();
    let component = Guest::new("cached").component();
    let digest = sandbox.load(&component).expect("loads").digest().to_owned();
    let entry = std::fs::read_dir(sandbox.folder.path().join("cache"))
        .expect("the cache")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.to_string_lossy().contains(&digest) && path.extension().is_some_and(|e| e == "cwasm"))
        .expect("the component's code");
    let code = std::fs::read(&entry).expect("read");
    for (name, damage) in [
        ("cut", code[..code.len() / 2].to_vec()),
        ("changed", vec![0x90; code.len()]),
        ("empty", vec![]),
    ] {
        sandbox.case(name, |sandbox| {
            std::fs::remove_file(&entry).expect("removed");
            std::fs::write(&entry, damage).expect("damaged");
            let plugin = sandbox.load(&component).expect("loads");
            plugin.configure("{}", &limits()).expect("works");
        });
    }
    // Whole, and with the right sum, but not what this engine runs: so it is made again too.
    sandbox.case("other", |sandbox| {
        use sha2::Digest;
        std::fs::remove_file(&entry).expect("removed");
        std::fs::write(&entry, b"other").expect("written");
        let sum = sha2::Sha256::digest(b"other")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        std::fs::write(entry.with_extension("sum"), sum).expect("written");
        let plugin = sandbox.load(&component).expect("loads");
        plugin.configure("{}", &limits()).expect("works");
    });
}

/// Plugins that fail when they start, say who they are or are configured.
#[test]
fn plugins_that_fail_before_any_record() {
    const SPIN: &str = "(loop $l (br $l))";
    let mut sandbox = Sandbox::new();
    let guest = |name: &str, change: &dyn Fn(&mut Guest)| {
        let mut guest = Guest::new(name);
        change(&mut guest);
        guest
    };
    let signature = |inputs: usize, branches: usize| {
        guest("counts", &|guest| {
            let input = guest.data.input("in", &[]);
            let branches: Vec<_> = (0..branches)
                .map(|i| guest.data.branch(&format!("b{i}"), 0, &[]))
                .collect();
            let at = guest.data.signature(&vec![input; inputs], &branches, &[]);
            guest.configure = format!("(i32.const {at})");
        })
    };
    let field = |field_type: u8, place: u32, at: &str| {
        guest("fields", &|guest| {
            let input = guest.data.input("in", &[]);
            let field = guest.data.mapped_field("f", field_type, false, place, at);
            let branch = guest.data.branch("out", 0, &[field]);
            let at = guest.data.signature(&[input], &[branch], &[]);
            guest.configure = format!("(i32.const {at})");
        })
    };
    let branches_of_zeros = |count: u32| {
        guest("branches-of-zeros", &|guest| {
            let input = guest.data.input("in", &[]);
            let at = guest.data.signature(&[input], &[], &[]);
            guest.configure = format!(
                "(drop (memory.grow (i32.const 200)))
                 (i32.store (i32.const {}) (i32.const 0x100000)) (i32.store (i32.const {}) (i32.const {count}))
                 (i32.const {at})",
                at + 12,
                at + 16
            );
        })
    };
    let log = "(import \"millstream:plugin/log@0.1.0\" \"write\" (func $log (param i32 i32 i32)))";
    let cases: Vec<(&str, Guest)> = vec![
        (
            "does not start: the call did not end within",
            guest("spin-start", &|g| g.start = Some(SPIN.into())),
        ),
        (
            "`describe` failed: the call did not end within",
            guest("spin-describe", &|g| g.describe = format!("{SPIN}(unreachable)")),
        ),
        (
            "`configure` failed: the call did not end within",
            guest("spin-configure", &|g| g.configure = format!("{SPIN}(unreachable)")),
        ),
        (
            "does not start: the plugin trapped",
            guest("trap-start", &|g| g.start = Some("(unreachable)".into())),
        ),
        (
            "`describe` failed: the plugin trapped",
            guest("trap-describe", &|g| g.describe = "(unreachable)".into()),
        ),
        (
            "`configure` failed: the plugin trapped",
            guest("trap-configure", &|g| g.configure = "(unreachable)".into()),
        ),
        (
            "does not start: the instance wanted 4294967296 bytes",
            guest("large", &|g| g.memory = "(memory (export \"memory\") 65536)".into()),
        ),
        (
            "does not start: the instance wanted 3",
            guest("large-table", &|g| g.items = "(table 20000000 funcref)".into()),
        ),
        (
            "`describe` failed: the instance wanted",
            guest("grow-describe", &|g| {
                g.describe = "(drop (memory.grow (i32.const 9000))) (unreachable)".into()
            }),
        ),
        (
            "`configure` failed: the instance wanted",
            guest("grow-configure", &|g| {
                g.configure = "(drop (memory.grow (i32.const 300))) (unreachable)".into()
            }),
        ),
        (
            "`describe` failed: what the plugin passes cannot be read",
            guest("pointer", &|g| g.describe = "(i32.const -4)".into()),
        ),
        (
            "`describe` failed: what the plugin passes cannot be read",
            guest("unaligned", &|g| g.describe = "(i32.const 1025)".into()),
        ),
        (
            "lower-case letters",
            guest("bad-name", &|g| {
                let at = g.data.info("../../etc", "1.0.0");
                g.describe = format!("(i32.const {at})");
            }),
        ),
        (
            "semantic version",
            guest("bad-version", &|g| {
                let at = g.data.info("a", "latest");
                g.describe = format!("(i32.const {at})");
            }),
        ),
        (
            "refuses its configuration: no\\nthreshold",
            guest("refuses", &|g| {
                let message = g.data.text("no\nthreshold");
                let at = g.data.words(&[&[1, message.0, message.1, 0, 0, 0, 0, 0, 0]]).0;
                g.configure = format!("(i32.const {at})");
            }),
        ),
        (
            "`configure` failed: what the plugin passes cannot be read",
            guest("discriminant", &|g| {
                let at = g.data.words(&[&[7, 0, 0, 0, 0, 0, 0, 0, 0]]).0;
                g.configure = format!("(i32.const {at})");
            }),
        ),
        (
            "`configure` failed: what the plugin passes cannot be read",
            field(77, 0, "/a"),
        ),
        (
            "`configure` failed: what the plugin passes cannot be read",
            field(3, 99, "/a"),
        ),
        ("no inputs", signature(0, 1)),
        ("two inputs are called \"in\"", signature(2, 1)),
        ("it has 17 inputs", signature(17, 1)),
        ("it has 65 branches", signature(1, 65)),
        ("cannot be written", field(1, 6, "")),
        ("timestamp is time, not text", field(3, 5, "")),
        ("not a JSON Pointer", field(3, 0, "no-slash")),
        ("it has 100000 branches, but may have 64", branches_of_zeros(100_000)),
        (
            "`configure` failed: the plugin's answer has more than the 16777216 bytes",
            branches_of_zeros(500_000),
        ),
        (
            "used the host against the contract: `metrics.update` was called in configure",
            guest("metrics-configure", &|g| {
                g.imports =
                    "(import \"millstream:plugin/metrics@0.1.0\" \"update\" (func $update (param i32 f64)))".into();
                g.configure = format!("(call $update (i32.const 0) (f64.const 1)) {}", g.configure);
            }),
        ),
        (
            "the plugin trapped: no such file",
            guest("panic-text", &|g| {
                let text = g.data.text("no such file");
                g.imports = log.into();
                g.configure = format!(
                    "(call $log (i32.const 4) (i32.const {}) (i32.const {})) (unreachable)",
                    text.0, text.1
                );
            }),
        ),
    ];
    for (expected, guest) in cases {
        sandbox.case(&guest.name, |sandbox| {
            let file = guest.component();
            let answer = match sandbox.load(&file) {
                Err(error) => Err(error.to_string()),
                Ok(plugin) => plugin.configure("{}", &limits()).map_err(|error| error.to_string()),
            };
            let error = answer.expect_err(&guest.name);
            assert!(
                error.contains(expected),
                "{}: {error:?} does not say {expected:?}",
                guest.name
            );
        });
    }
}

#[test]
fn a_configuration_that_is_not_json_never_reaches_the_plugin() {
    let mut sandbox = Sandbox::new();
    sandbox.case("config", |sandbox| {
        let plugin = sandbox.load(&Guest::new("config").component()).expect("loads");
        let error = plugin
            .configure("{threshold: 5}", &limits())
            .expect_err("not JSON")
            .to_string();
        assert!(
            error.contains("the configuration of config 1.0.0 is not JSON"),
            "{error}"
        );
    });
}

#[test]
fn the_same_content_is_the_same_plugin_and_is_inspected() {
    let sandbox = Sandbox::new();
    let component = Guest::new("shared").component();
    let first = sandbox.load(&component).expect("loads");
    let path = sandbox.folder.path().join("copy.wasm");
    std::fs::write(&path, &component).expect("written");
    let second = sandbox.runtime.load(&path).expect("loads");
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    assert_eq!(first.size_bytes(), component.len() as u64);
    let inspection = millstream::guest::inspect(&sandbox.runtime, &path).expect("inspects");
    assert_eq!(inspection.info.name, "shared");
    assert_eq!(inspection.contract_version, "0.1.0");
    assert_eq!(inspection.signature.expect("takes `{}`").branches[0].name, "out");
}
