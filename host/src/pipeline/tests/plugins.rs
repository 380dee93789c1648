//! Plugins as the guest runtime would describe them, by the names of their files.

use std::path::Path;

use crate::limits::StageLimits;
use crate::pipeline::{Catalog, CatalogError, Concern, Described};
use crate::schema::{
    Branch, Field, FieldType, Info, Input, MappedField, Place, PluginKind, Signature, Store, ValueBase,
};

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
        "pass" => (vec![input("records", &[])], vec![forward("out")]),
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
        "sink" => (vec![input("rides", &[])], vec![]),
        "count" | "total" => (
            vec![input("rides", &[])],
            vec![branch("out", New, &[("count", Integer, value("/count"))])],
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

impl Catalog for Plugins {
    fn describe(&self, plugin: &Path, config_json: &str, _: &StageLimits) -> Result<Described, CatalogError> {
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
        if name == "count" {
            let field = |name: &str| Field {
                name: name.into(),
                field_type: FieldType::Integer,
                optional: false,
            };
            signature.stores = vec![Store {
                name: "counts".into(),
                key: vec![field("id")],
                value: vec![field("n")],
                ordered: false,
                time_to_live_ms: 0,
                carry_over: Vec::new(),
            }];
        }
        Ok(Described {
            info: Info {
                name: name.into(),
                version: "1.2.3".into(),
                summary: "A plugin of the tests.".into(),
                config_schema: String::new(),
                capabilities: if name == "clocked" {
                    vec!["clock".into()]
                } else {
                    vec![]
                },
            },
            kind: if name == "total" {
                PluginKind::Aggregator
            } else {
                PluginKind::Processor
            },
            signature,
            accumulator: None,
            digest: "0123456789abcdef".repeat(4),
        })
    }
}
