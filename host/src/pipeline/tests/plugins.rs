//! Plugins as the guest runtime would describe them, by the names of their files.

use std::path::Path;

use crate::limits::StageLimits;
use crate::pipeline::{Catalog, CatalogError, Concern, Described};
use crate::schema::{
    Accumulator, Branch, Field, FieldType, Info, Input, MappedField, Place, PluginKind, Signature, Store, ValueBase,
};
use crate::table::{Column, Table};

pub(super) struct Plugins;

fn mapped(fields: &[(&str, FieldType, Place)]) -> Vec<MappedField> {
    let mapped = |(name, field_type, place): &(&str, FieldType, Place)| MappedField {
        field: Field {
            name: name.trim_end_matches('?').into(),
            field_type: *field_type,
            optional: name.ends_with('?'),
        },
        place: place.clone(),
    };
    fields.iter().map(mapped).collect()
}

fn input(name: &str, fields: &[(&str, FieldType, Place)]) -> Input {
    Input {
        name: name.into(),
        fields: mapped(fields),
    }
}

fn branch(name: &str, value: ValueBase, fields: &[(&str, FieldType, Place)]) -> Branch {
    Branch {
        name: name.into(),
        value,
        fields: mapped(fields),
    }
}

fn value(pointer: &str) -> Place {
    Place::Value(pointer.into())
}

fn signature(plugin: &str) -> Option<Signature> {
    use FieldType::{Bytes, Float, Integer, Json, Text, Time};
    use ValueBase::{New, Same};
    let forward = |name| branch(name, Same, &[]);
    let (inputs, branches) = match plugin {
        // Routes rides by their amount.
        "split" | "old-split" | "clocked" => (
            vec![input("rides", &[("amount", Float, value("/total_amount"))])],
            vec![forward("high"), forward("low")],
        ),
        // Reads nothing, forwards all.
        "pass" | "typed" => (vec![input("records", &[])], vec![forward("out")]),
        // Adds a field.
        "enrich" => (
            vec![input(
                "rides",
                &[
                    ("fare", Float, value("/fare_amount")),
                    ("tip?", Float, value("/tip_amount")),
                ],
            )],
            vec![branch(
                "out",
                Same,
                &[("fee", Integer, value("/fee")), ("seen", Time, value("/seen"))],
            )],
        ),
        // Makes a new value.
        "summary" => (
            vec![input("rides", &[])],
            vec![branch(
                "out",
                New,
                &[
                    ("fare", Integer, value("/fare")),
                    ("borough", Text, value("/zone/borough")),
                ],
            )],
        ),
        // What reads that: fits, and does not.
        "bill" => (
            vec![input(
                "fares",
                &[("fare", Float, value("/fare")), ("zone", Json, value("/zone"))],
            )],
            vec![forward("out")],
        ),
        "bill-text" => (
            vec![input("fares", &[("fare", Text, value("/fare"))])],
            vec![forward("out")],
        ),
        "bill-fee" => (
            vec![input("fares", &[("fee", Text, value("/fee"))])],
            vec![forward("out")],
        ),
        "bill-typo" => (
            vec![input("fares", &[("fare", Float, value("/fares"))])],
            vec![forward("out")],
        ),
        // Two streams.
        "compare" => (
            vec![
                input("left", &[("amount", Float, value("/total_amount"))]),
                input("right", &[]),
            ],
            vec![forward("same")],
        ),
        // Keys.
        "rekey" => (
            vec![input("rides", &[])],
            vec![branch("out", Same, &[("id", Integer, Place::Key(String::new()))])],
        ),
        "by-key" => (
            vec![input("rides", &[("id", Integer, Place::Key("/id".into()))])],
            vec![],
        ),
        "by-text-key" => (vec![input("rides", &[("id", Text, Place::Key(String::new()))])], vec![]),
        // Bytes and text.
        "bytes" => (
            vec![input("rides", &[])],
            vec![branch("out", New, &[("bytes", Bytes, Place::RawValue)])],
        ),
        "line" => (
            vec![input("rides", &[])],
            vec![branch("out", New, &[("line", Text, value(""))])],
        ),
        "sink" | "print" => (vec![input("rides", &[])], vec![]),
        // Keep something: rows of a store, or groups.
        "count" | "total" | "spaced" => (
            vec![input("rides", &[])],
            vec![branch("out", New, &[("count", Integer, value("/count"))])],
        ),
        "seen" => (
            vec![input("rides", &[("id", Text, value("/id"))])],
            vec![forward("new")],
        ),
        "sum" => (
            vec![input("rides", &[("amount", Float, value("/total_amount"))])],
            vec![branch(
                "totals",
                New,
                &[("total", Float, value("/total")), ("rides", Integer, value("/rides"))],
            )],
        ),
        "sum-both" => (
            vec![input("left", &[]), input("right", &[])],
            vec![branch("out", New, &[("count", Integer, value("/count"))])],
        ),
        // What reads the bounds of windows.
        "bounds" => (
            vec![input(
                "totals",
                &[
                    ("start", Time, value("/window_start")),
                    ("total", Float, value("/total")),
                ],
            )],
            vec![],
        ),
        "bounds-integer" => (
            vec![input("totals", &[("start", Integer, value("/window_start"))])],
            vec![],
        ),
        // Results where the bounds of windows are.
        "total-bounds" => (
            vec![input("rides", &[])],
            vec![
                branch("out", New, &[("start", Integer, value("/window_start"))]),
                branch("whole", New, &[("all", Json, value(""))]),
            ],
        ),
        // Branches called like the host's.
        "strays" | "total-strays" => (
            vec![input("rides", &[])],
            vec![branch("late", New, &[]), branch("unkeyed", New, &[])],
        ),
        // Two ways to make a record.
        "fork" => (
            vec![input("rides", &[])],
            vec![
                branch("high", Same, &[("left", Integer, value("/left"))]),
                branch("low", Same, &[("right", Integer, value("/right"))]),
            ],
        ),
        "twins" => (vec![input("rides", &[])], vec![forward("out"), forward("out")]),
        "deaf" => (vec![], vec![]),
        _ => return None,
    };
    Some(Signature {
        inputs,
        branches,
        ..Signature::default()
    })
}

fn field(name: &str, field_type: FieldType) -> Field {
    Field {
        name: name.into(),
        field_type,
        optional: false,
    }
}

fn stores(plugin: &str) -> Vec<Store> {
    let store = |name: &str, key, value| Store {
        name: name.into(),
        key: vec![key],
        value,
        ordered: false,
        time_to_live_ms: 0,
        carry_over: Vec::new(),
    };
    let count = |name| {
        let (id, n) = (field("id", FieldType::Integer), field("n", FieldType::Integer));
        store(name, id, vec![n])
    };
    match plugin {
        "count" => vec![count("counts")],
        "spaced" => vec![count("my counts")],
        "seen" => vec![
            Store {
                ordered: true,
                time_to_live_ms: 3_600_000,
                ..store("ids", field("id", FieldType::Text), Vec::new())
            },
            count("b-counts"),
        ],
        _ => Vec::new(),
    }
}

/// Aggregators keep a total and a count.
fn accumulator(plugin: &str) -> Option<Accumulator> {
    let aggregates = plugin.starts_with("total") || plugin.starts_with("sum-") || plugin == "sum";
    let column = || Column {
        data: vec![0; 8],
        ..Column::default()
    };
    aggregates.then(|| Accumulator {
        fields: vec![field("total", FieldType::Float), field("rides", FieldType::Integer)],
        start: Table {
            rows: 1,
            columns: vec![column(), column()],
        },
    })
}

impl Catalog for Plugins {
    fn config_schema(&self, plugin: &Path) -> Option<String> {
        (plugin.file_stem()? == "typed").then(|| r#"{"properties":{"threshold":{"type":"integer"}}}"#.into())
    }

    fn describe(&self, plugin: &Path, config_json: &str, limits: &StageLimits) -> Result<Described, CatalogError> {
        let refuse = |message: String, help: Option<&str>, concerns| {
            Err(CatalogError {
                message,
                help: help.map(Into::into),
                concerns,
            })
        };
        let name = plugin.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let Some(mut signature) = signature(name) else {
            return refuse(
                format!("the plugin file {} does not exist", plugin.display()),
                Some("build the plugin first"),
                Concern::Plugin,
            );
        };
        let config: serde_json::Value = serde_json::from_str(config_json).expect("JSON arrives");
        if name == "old-split" && config.get("threshold").and_then(serde_json::Value::as_f64).is_none() {
            return refuse(
                format!("`threshold` is missing in {config_json}"),
                None,
                Concern::Config,
            );
        }
        if name == "typed" && !config["threshold"].is_i64() {
            return refuse(
                format!("`threshold` is no integer in {config_json}"),
                None,
                Concern::Config,
            );
        }
        signature.stores = stores(name);
        Ok(Described {
            info: Info {
                name: name.into(),
                version: "1.2.3".into(),
                summary: "A plugin of the tests.".into(),
                config_schema: self.config_schema(plugin).unwrap_or_default(),
                capabilities: if name == "clocked" {
                    vec!["clock".into()]
                } else {
                    vec![]
                },
            },
            kind: accumulator(name).map_or(PluginKind::Processor, |_| PluginKind::Aggregator),
            signature,
            accumulator: accumulator(name),
            digest: "0123456789abcdef".repeat(4),
            limits: limits.clone(),
        })
    }
}
