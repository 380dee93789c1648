//! `millstream inspect`: what a plugin is, without running records through it.

use std::fmt::Write as _;
use std::path::PathBuf;

use miette::IntoDiagnostic;

use super::{Output, OutputFormat};
use crate::control::HostOptions;
use crate::guest::{self, Inspection};
use crate::schema::{Carried, Field, MappedField, Signature, Store, ValueBase};

/// Arguments of `millstream inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A component
    #[arg(value_name = "PLUGIN.wasm")]
    plugin: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// # Errors
/// Why the file is no plugin that this host can run.
pub fn run(args: Args) -> miette::Result<()> {
    let runtime = HostOptions::new(PathBuf::new())?.runtime()?;
    let inspection = guest::inspect(&runtime, &args.plugin).into_diagnostic()?;
    match args.output.format {
        OutputFormat::Text => super::write_out(text(&inspection).as_bytes()),
        OutputFormat::Json => super::write_json(&inspection),
    }
}

fn text(plugin: &Inspection) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| writeln!(out, "{name:10}{value}").expect("a string takes it");
    line("plugin", &format!("{} {}", plugin.info.name, plugin.info.version));
    line("", &plugin.info.summary);
    line("kind", &plugin.kind.to_string());
    line("contract", &plugin.contract_version);
    line("size", &format!("{} bytes", plugin.size_bytes));
    line("sha256", &plugin.digest);
    line("imports", &plugin.imports.join("\n          "));
    line("exports", &plugin.exports.join("\n          "));
    if !plugin.info.config_schema.is_empty() {
        line("config", &plugin.info.config_schema);
    }
    match (&plugin.signature, &plugin.needs_config) {
        (Some(signature), _) => {
            out.push_str(&signature_text(signature));
            if let Some(fields) = &plugin.accumulator {
                out.push_str("\naccumulator\n");
                out.extend(fields.iter().map(|field| format!("  {}\n", typed(field))));
            }
        }
        (None, Some(why)) => {
            writeln!(out, "\nIts fields depend on its configuration: {why}").expect("a string takes it")
        }
        (None, None) => {}
    }
    out
}

fn signature_text(signature: &Signature) -> String {
    let mut out = String::new();
    for input in &signature.inputs {
        writeln!(out, "\ninput {}", input.name).expect("a string takes it");
        out.push_str(&mapped(&input.fields));
    }
    for branch in &signature.branches {
        let base = match branch.value {
            ValueBase::Same => "the input row's value",
            ValueBase::New => "a new value",
        };
        writeln!(out, "\nbranch {} ({base})", branch.name).expect("a string takes it");
        out.push_str(&mapped(&branch.fields));
    }
    for store in &signature.stores {
        out.push_str(&store_text(store));
    }
    for metric in &signature.metrics {
        writeln!(out, "\nmetric {}: {}", metric.name, metric.summary).expect("a string takes it");
    }
    out
}

fn store_text(store: &Store) -> String {
    let order = if store.ordered { "ordered" } else { "unordered" };
    let time_to_live = match store.time_to_live_ms {
        0 => "rows stay".to_owned(),
        milliseconds => format!("rows live {milliseconds} ms"),
    };
    let mut out = format!("\nstore {} ({order}, {time_to_live})\n", store.name);
    out.extend(store.key.iter().map(|field| format!("  key {}\n", typed(field))));
    for (at, field) in store.value.iter().enumerate() {
        let carried = match store.carry_over.get(at) {
            None => String::new(),
            Some(Carried::Field(name)) => format!(" <- earlier {name}"),
            Some(Carried::Constant(json)) => format!(" <- {json}"),
        };
        writeln!(out, "  value {}{carried}", typed(field)).expect("a string takes it");
    }
    out
}

fn mapped(fields: &[MappedField]) -> String {
    fields
        .iter()
        .map(|mapped| format!("  {} <- {}\n", typed(&mapped.field), mapped.place))
        .collect()
}

fn typed(field: &Field) -> String {
    format!(
        "{}: {}{}",
        field.name,
        field.field_type,
        if field.optional { "?" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::FieldType;

    #[test]
    fn a_store_is_told_with_what_it_keeps_and_carries_over() {
        let field = |name: &str, optional| Field {
            name: name.into(),
            field_type: FieldType::Integer,
            optional,
        };
        let mut store = Store {
            name: "counts".into(),
            key: vec![field("id", false)],
            value: vec![field("n", false), field("last", true)],
            ordered: true,
            time_to_live_ms: 60_000,
            carry_over: vec![Carried::Field("count".into()), Carried::Constant("null".into())],
        };
        assert_eq!(
            store_text(&store),
            "\nstore counts (ordered, rows live 60000 ms)\n  key id: integer\n  value n: integer <- earlier count\n  \
             value last: integer? <- null\n"
        );
        store.ordered = false;
        store.time_to_live_ms = 0;
        store.carry_over.clear();
        store.value.clear();
        assert_eq!(
            store_text(&store),
            "\nstore counts (unordered, rows stay)\n  key id: integer\n"
        );
    }
}
