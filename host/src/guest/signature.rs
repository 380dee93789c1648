//! What a plugin says of itself, taken over from the contract's types and held against the contract's rules.

use super::bindings;
use super::bindings::schema as wit;
use super::carry_over::carry_over;
use crate::limits::{
    BRANCHES_MAX, CONFIG_SCHEMA_BYTES_MAX, FIELDS_MAX, INPUTS_MAX, METRICS_MAX, NAME_BYTES_MAX, ROW_BYTES_MAX,
    STORES_MAX,
};
use crate::schema::{
    Accumulator, Branch, Field, FieldType, Info, Input, MappedField, Metric, MetricKind, Place, PluginKind, Signature,
    Store, ValueBase,
};

/// What a plugin may ask for beyond the contract.
const CAPABILITIES: &[&str] = &["clock", "random", "network", "files"];

/// Takes over the answer of `describe`, or says which rule it breaks.
pub fn info(info: wit::Info) -> Result<Info, String> {
    let plugin_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if info.name.is_empty() || info.name.len() > NAME_BYTES_MAX || !info.name.chars().all(plugin_name) {
        return Err(format!(
            "the name {} is not made of lower-case letters, digits and hyphens",
            shown(&info.name)
        ));
    }
    if !is_version(&info.version) {
        return Err(format!(
            "the version {} is not a semantic version such as 1.2.3",
            shown(&info.version)
        ));
    }
    if info.summary.len() > 4 * NAME_BYTES_MAX || info.summary.chars().any(char::is_control) {
        return Err(format!(
            "the summary is not one line of at most {} bytes",
            4 * NAME_BYTES_MAX
        ));
    }
    if info.config_schema.len() > CONFIG_SCHEMA_BYTES_MAX {
        let found = info.config_schema.len();
        return Err(format!(
            "the configuration's schema has {found} bytes, but may have {CONFIG_SCHEMA_BYTES_MAX}"
        ));
    }
    if !info.config_schema.is_empty() {
        match serde_json::from_str(&info.config_schema) {
            Ok(serde_json::Value::Object(_) | serde_json::Value::Bool(_)) => {}
            Ok(_) => return Err("the configuration's schema is neither a JSON object nor a boolean".into()),
            Err(error) => return Err(format!("the configuration's schema is not JSON: {error}")),
        }
    }
    if let Some(unknown) = info
        .capabilities
        .iter()
        .find(|name| !CAPABILITIES.contains(&name.as_str()))
    {
        return Err(format!(
            "it asks for {}, which is none of {}",
            shown(unknown),
            CAPABILITIES.join(", ")
        ));
    }
    Ok(Info {
        name: info.name,
        version: info.version,
        summary: info.summary,
        config_schema: info.config_schema,
        capabilities: info.capabilities,
    })
}

/// Whether this is a semantic version: three numbers, and perhaps a pre-release and a build behind them.
fn is_version(text: &str) -> bool {
    let identifiers = |text: &str| {
        text.split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    };
    let (rest, build) = text
        .split_once('+')
        .map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest
        .split_once('-')
        .map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    text.len() <= NAME_BYTES_MAX
        && core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(identifiers)
        && build.is_none_or(identifiers)
}

/// Takes over the answer of `configure`, or says which rule it breaks.
pub fn signature(kind: PluginKind, signature: wit::Signature) -> Result<Signature, String> {
    // Counts come first: what follows takes time for each.
    at_most("inputs", signature.inputs.len(), INPUTS_MAX)?;
    at_most("branches", signature.branches.len(), BRANCHES_MAX)?;
    at_most("stores", signature.stores.len(), STORES_MAX)?;
    at_most("metrics", signature.metrics.len(), METRICS_MAX)?;
    if signature.inputs.is_empty() {
        return Err("it has no inputs, so nothing would ever call the plugin".into());
    }
    if kind == PluginKind::Aggregator && !signature.stores.is_empty() {
        return Err("it has stores, which only a processor may have".into());
    }
    let signature = Signature {
        inputs: signature.inputs.into_iter().map(input).collect::<Result<_, _>>()?,
        branches: signature.branches.into_iter().map(branch).collect::<Result<_, _>>()?,
        stores: signature.stores.into_iter().map(store).collect::<Result<_, _>>()?,
        metrics: signature.metrics.into_iter().map(metric).collect::<Result<_, _>>()?,
    };
    unique("inputs", signature.inputs.iter().map(|input| &input.name))?;
    unique("branches", signature.branches.iter().map(|branch| &branch.name))?;
    unique("stores", signature.stores.iter().map(|store| &store.name))?;
    unique("metrics", signature.metrics.iter().map(|metric| &metric.name))?;
    if kind == PluginKind::Aggregator {
        signature.branches.iter().try_for_each(check_result)?;
    }
    Ok(signature)
}

/// The key and the timestamp of an aggregator's result are the group's, and there is no row whose value it could keep.
fn check_result(branch: &Branch) -> Result<(), String> {
    let place = format!("branch {}", shown(&branch.name));
    if branch.value != ValueBase::New {
        return Err(format!(
            "{place}: its value is the input row's (`same`), but an aggregator's results are made of fields alone (`new`)"
        ));
    }
    let elsewhere = |mapped: &&MappedField| !matches!(mapped.place, Place::Value(_));
    match branch.fields.iter().find(elsewhere) {
        Some(mapped) => Err(format!(
            "{place}, field {}: it is written to {}, but an aggregator's results have fields in the value alone",
            shown(&mapped.field.name),
            mapped.place
        )),
        None => Ok(()),
    }
}

/// Takes over the answer of `initial`, or says which rule it breaks.
pub fn accumulator(accumulator: bindings::Accumulator) -> Result<Accumulator, String> {
    at_most("fields", accumulator.fields.len(), FIELDS_MAX)?;
    if accumulator.fields.is_empty() {
        return Err("the accumulator has no fields".into());
    }
    let accumulator = Accumulator {
        fields: accumulator.fields.into_iter().map(field).collect(),
        start: accumulator.start.into(),
    };
    check_fields("the accumulator", accumulator.fields.iter())?;
    let start = &accumulator.start;
    if start.rows != 1 {
        return Err(format!("`start` has {} rows, not one", start.rows));
    }
    if start.size_bytes() > ROW_BYTES_MAX {
        return Err(format!(
            "`start` has {} bytes, but may have {ROW_BYTES_MAX}",
            start.size_bytes()
        ));
    }
    start
        .check(&accumulator.fields)
        .map_err(|error| format!("`start` {error}"))?;
    Ok(accumulator)
}

/// Which part of two signatures is not the same.
pub fn difference(before: &Signature, now: &Signature) -> Option<&'static str> {
    if before.inputs != now.inputs {
        return Some("inputs");
    }
    if before.branches != now.branches {
        return Some("branches");
    }
    if before.stores != now.stores {
        return Some("stores");
    }
    (before.metrics != now.metrics).then_some("metrics")
}

fn at_most(what: &str, found: usize, limit: usize) -> Result<(), String> {
    if found > limit {
        return Err(format!("it has {found} {what}, but may have {limit}"));
    }
    Ok(())
}

fn input(input: wit::Input) -> Result<Input, String> {
    let place = format!("input {}", shown(&input.name));
    name(&input.name).map_err(|problem| format!("{place}: {problem}"))?;
    at_most("fields", input.fields.len(), FIELDS_MAX).map_err(|problem| format!("{place}: {problem}"))?;
    let fields: Vec<MappedField> = input.fields.into_iter().map(mapped_field).collect();
    check_fields(&place, fields.iter().map(|mapped| &mapped.field))?;
    for mapped in &fields {
        check_place(mapped).map_err(|problem| format!("{place}, field {}: {problem}", shown(&mapped.field.name)))?;
    }
    Ok(Input {
        name: input.name,
        fields,
    })
}

fn branch(branch: wit::Branch) -> Result<Branch, String> {
    let place = format!("branch {}", shown(&branch.name));
    name(&branch.name).map_err(|problem| format!("{place}: {problem}"))?;
    at_most("fields", branch.fields.len(), FIELDS_MAX).map_err(|problem| format!("{place}: {problem}"))?;
    let fields: Vec<MappedField> = branch.fields.into_iter().map(mapped_field).collect();
    check_fields(&place, fields.iter().map(|mapped| &mapped.field))?;
    for mapped in &fields {
        let problem = match mapped.place {
            Place::Offset => Err("the offset is given by the log and cannot be written".into()),
            _ => check_place(mapped),
        };
        problem.map_err(|problem| format!("{place}, field {}: {problem}", shown(&mapped.field.name)))?;
    }
    check_overlaps(&fields).map_err(|problem| format!("{place}: {problem}"))?;
    Ok(Branch {
        name: branch.name,
        value: match branch.value {
            wit::ValueBase::Same => ValueBase::Same,
            wit::ValueBase::New => ValueBase::New,
        },
        fields,
    })
}

fn store(store: wit::Store) -> Result<Store, String> {
    let place = format!("store {}", shown(&store.name));
    let at = |problem: String| format!("{place}: {problem}");
    name(&store.name).map_err(at)?;
    at_most("fields", store.key.len() + store.value.len(), FIELDS_MAX).map_err(at)?;
    let key: Vec<Field> = store.key.into_iter().map(field).collect();
    let value: Vec<Field> = store.value.into_iter().map(field).collect();
    if key.is_empty() {
        return Err(at("its key has no fields".into()));
    }
    if let Some(field) = key.iter().find(|field| field.optional) {
        return Err(at(format!("the field {} of its key is optional", shown(&field.name))));
    }
    check_fields(&place, key.iter().chain(&value))?;
    let carry_over = carry_over(&value, store.carry_over).map_err(at)?;
    Ok(Store {
        name: store.name,
        key,
        value,
        ordered: store.ordered,
        time_to_live_ms: store.time_to_live,
        carry_over,
    })
}

fn metric(metric: wit::Metric) -> Result<Metric, String> {
    let place = format!("metric {}", shown(&metric.name));
    name(&metric.name).map_err(|problem| format!("{place}: {problem}"))?;
    // What is shown to whoever collects metrics must be one line of theirs.
    if metric.summary.len() > 4 * NAME_BYTES_MAX || metric.summary.chars().any(char::is_control) {
        return Err(format!(
            "{place}: its summary is not one line of at most {} bytes",
            4 * NAME_BYTES_MAX
        ));
    }
    Ok(Metric {
        name: metric.name,
        summary: metric.summary,
        kind: match metric.kind {
            wit::MetricKind::Counter => MetricKind::Counter,
            wit::MetricKind::Gauge => MetricKind::Gauge,
            wit::MetricKind::Histogram => MetricKind::Histogram,
        },
    })
}

fn mapped_field(mapped: wit::MappedField) -> MappedField {
    MappedField {
        field: field(mapped.field),
        place: match mapped.place {
            wit::Place::Value(pointer) => Place::Value(pointer),
            wit::Place::Key(pointer) => Place::Key(pointer),
            wit::Place::RawValue => Place::RawValue,
            wit::Place::RawKey => Place::RawKey,
            wit::Place::Header(name) => Place::Header(name),
            wit::Place::Timestamp => Place::Timestamp,
            wit::Place::Offset => Place::Offset,
            wit::Place::Tombstone => Place::Tombstone,
        },
    }
}

/// Takes over a field.
pub fn field(field: wit::Field) -> Field {
    Field {
        name: field.name,
        field_type: match field.type_ {
            wit::FieldType::Boolean => FieldType::Boolean,
            wit::FieldType::Integer => FieldType::Integer,
            wit::FieldType::Float => FieldType::Float,
            wit::FieldType::Text => FieldType::Text,
            wit::FieldType::Bytes => FieldType::Bytes,
            wit::FieldType::Time => FieldType::Time,
            wit::FieldType::Json => FieldType::Json,
        },
        optional: field.optional,
    }
}

/// A name of a stranger, for a message.
pub fn shown(name: &str) -> String {
    let cut = &name[..name.floor_char_boundary(80)];
    let more = if cut.len() < name.len() { "…" } else { "" };
    format!("\"{}{more}\"", cut.escape_debug())
}

pub fn name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("its name is empty".into());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "its name has {} bytes, but may have {NAME_BYTES_MAX}",
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err("its name has control characters".into());
    }
    Ok(())
}

fn check_fields<'f>(place: &str, fields: impl Iterator<Item = &'f Field> + Clone) -> Result<(), String> {
    for field in fields.clone() {
        name(&field.name).map_err(|problem| format!("{place}, field {}: {problem}", shown(&field.name)))?;
    }
    unique("fields", fields.map(|field| &field.name)).map_err(|problem| format!("{place}: {problem}"))
}

fn unique<'n>(what: &str, names: impl Iterator<Item = &'n String>) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("two {what} are called {}", shown(name)));
        }
    }
    Ok(())
}

/// What a place asks of the field that lies there.
fn check_place(mapped: &MappedField) -> Result<(), String> {
    let field = &mapped.field;
    let of_type = |wanted: &[FieldType]| {
        if wanted.contains(&field.field_type) {
            return Ok(());
        }
        let wanted: Vec<&str> = wanted.iter().map(|wanted| wanted.name()).collect();
        Err(format!(
            "{} is {}, not {}",
            mapped.place,
            wanted.join(" or "),
            field.field_type
        ))
    };
    let never_null = || {
        if field.optional {
            return Err(format!(
                "{} is never null, so the field cannot be optional",
                mapped.place
            ));
        }
        Ok(())
    };
    match &mapped.place {
        Place::Value(pointer) | Place::Key(pointer) => check_pointer(pointer),
        Place::RawValue | Place::RawKey => of_type(&[FieldType::Bytes]),
        Place::Header(header) => {
            of_type(&[FieldType::Text, FieldType::Bytes])?;
            name(header).map_err(|problem| format!("the header {}: {problem}", shown(header)))
        }
        Place::Timestamp => of_type(&[FieldType::Time]).and_then(|()| never_null()),
        Place::Offset => of_type(&[FieldType::Integer]).and_then(|()| never_null()),
        Place::Tombstone => of_type(&[FieldType::Boolean]).and_then(|()| never_null()),
    }
}

fn check_pointer(pointer: &str) -> Result<(), String> {
    if pointer.len() > 4 * NAME_BYTES_MAX {
        return Err(format!(
            "its place has {} bytes, but may have {}",
            pointer.len(),
            4 * NAME_BYTES_MAX
        ));
    }
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(format!(
            "{} is not a JSON Pointer: it is empty or begins with \"/\"",
            shown(pointer)
        ));
    }
    let mut characters = pointer.chars();
    while let Some(character) = characters.next() {
        if character == '~' && !matches!(characters.next(), Some('0' | '1')) {
            return Err(format!(
                "{} is not a JSON Pointer: \"~\" is followed by 0 or 1",
                shown(pointer)
            ));
        }
    }
    Ok(())
}

/// No two fields of a branch may be written into the same place, or one into the other.
fn check_overlaps(fields: &[MappedField]) -> Result<(), String> {
    // Paths that lie in one another are neighbours when they are sorted part by part.
    let mut paths: Vec<(Vec<String>, &MappedField)> =
        fields.iter().map(|mapped| (path(&mapped.place), mapped)).collect();
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    for pair in paths.windows(2) {
        if pair[1].0.starts_with(&pair[0].0) {
            let [a, b] = [pair[0].1, pair[1].1];
            return Err(format!(
                "the fields {} ({}) and {} ({}) overlap",
                shown(&a.field.name),
                a.place,
                shown(&b.field.name),
                b.place
            ));
        }
    }
    Ok(())
}

fn path(place: &Place) -> Vec<String> {
    let under = |root: &str, pointer: &str| {
        let parts = pointer
            .split('/')
            .skip(1)
            .map(|part| part.replace("~1", "/").replace("~0", "~"));
        std::iter::once(root.to_owned()).chain(parts).collect()
    };
    match place {
        Place::Value(pointer) => under("value", pointer),
        Place::RawValue => vec!["value".into()],
        Place::Key(pointer) => under("key", pointer),
        Place::RawKey => vec!["key".into()],
        Place::Header(name) => vec!["header".into(), name.clone()],
        Place::Timestamp => vec!["timestamp".into()],
        Place::Offset => vec!["offset".into()],
        Place::Tombstone => vec!["tombstone".into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Carried;

    fn wit_field(name: &str, type_: wit::FieldType, optional: bool) -> wit::Field {
        wit::Field {
            name: name.into(),
            type_,
            optional,
        }
    }

    fn mapped(name: &str, type_: wit::FieldType, place: wit::Place) -> wit::MappedField {
        wit::MappedField {
            field: wit_field(name, type_, false),
            place,
        }
    }

    fn of_branch(fields: Vec<wit::MappedField>) -> wit::Signature {
        wit::Signature {
            inputs: vec![wit::Input {
                name: "in".into(),
                fields: vec![],
            }],
            branches: vec![wit::Branch {
                name: "out".into(),
                value: wit::ValueBase::Same,
                fields,
            }],
            stores: vec![],
            metrics: vec![],
        }
    }

    fn value(pointer: &str) -> wit::Place {
        wit::Place::Value(pointer.into())
    }

    #[test]
    fn a_signature_by_the_rules_passes() {
        use wit::FieldType::{Boolean, Bytes, Integer, Text, Time};
        let mut given = of_branch(vec![
            mapped("a", Integer, value("/a/b")),
            mapped("b", Integer, value("/a/c")),
            mapped("c", Text, value("/a~1b")),
            mapped("k", Bytes, wit::Place::RawKey),
            mapped("h", Text, wit::Place::Header("h".into())),
            mapped("i", Bytes, wit::Place::Header("i".into())),
            mapped("t", Time, wit::Place::Timestamp),
            mapped("gone", Boolean, wit::Place::Tombstone),
        ]);
        // Inputs may read a place twice.
        given.inputs[0].fields = vec![
            mapped("a", Integer, value("/a")),
            mapped("b", Text, value("/a")),
            mapped("o", Integer, wit::Place::Offset),
        ];
        given.stores.push(wit::Store {
            name: "s".into(),
            key: vec![wit_field("k", Text, false)],
            value: vec![wit_field("n", Integer, false)],
            ordered: true,
            time_to_live: 5,
            carry_over: vec![wit::Carried::Same("count".into())],
        });
        let taken = signature(PluginKind::Processor, given).expect("passes");
        assert_eq!(taken.branches[0].fields.len(), 8);
        assert_eq!(taken.stores[0].time_to_live_ms, 5);
        assert_eq!(taken.stores[0].carry_over, [Carried::Field("count".into())]);
    }

    #[test]
    fn each_broken_rule_is_named() {
        use wit::FieldType::{Boolean, Bytes, Integer, Text, Time};
        let optional = |mut field: wit::MappedField| {
            field.field.optional = true;
            field
        };
        let with = |change: fn(&mut wit::Signature)| {
            let mut signature = of_branch(vec![]);
            change(&mut signature);
            signature
        };
        let copies = |count: usize| {
            (0..count)
                .map(|i| mapped(&format!("f{i}"), Text, value(&format!("/{i}"))))
                .collect()
        };
        let cases: Vec<(&str, wit::Signature)> = vec![
            ("no inputs", with(|s| s.inputs.clear())),
            (
                "two inputs are called \"in\"",
                with(|s| {
                    s.inputs.push(wit::Input {
                        name: "in".into(),
                        fields: vec![],
                    })
                }),
            ),
            ("its name is empty", with(|s| s.inputs[0].name = " ".into())),
            ("control characters", with(|s| s.branches[0].name = "a\nb".into())),
            ("but may have 256", with(|s| s.branches[0].name = "x".repeat(1 << 20))),
            (
                "it has 1000000 branches, but may have 64",
                with(|s| s.branches = vec![s.branches[0].clone(); 1_000_000]),
            ),
            ("it has 1025 fields", of_branch(copies(1025))),
            (
                "two fields are called \"a\"",
                of_branch(vec![mapped("a", Text, value("/a")), mapped("a", Text, value("/b"))]),
            ),
            (
                "overlap",
                of_branch(vec![mapped("a", Text, value("/a")), mapped("b", Text, value("/a/b"))]),
            ),
            (
                "overlap",
                of_branch(vec![mapped("a", Text, value("/a")), mapped("b", Text, value("/a"))]),
            ),
            (
                "overlap",
                of_branch(vec![mapped("a", Text, value("/a")), mapped("b", Text, value(""))]),
            ),
            (
                "overlap",
                of_branch(vec![
                    mapped("a", Bytes, wit::Place::RawValue),
                    mapped("b", Text, value("/a")),
                ]),
            ),
            (
                "overlap",
                of_branch(vec![
                    mapped("a", Time, wit::Place::Timestamp),
                    mapped("b", Time, wit::Place::Timestamp),
                ]),
            ),
            (
                "cannot be written",
                of_branch(vec![mapped("a", Integer, wit::Place::Offset)]),
            ),
            (
                "timestamp is time, not text",
                of_branch(vec![mapped("a", Text, wit::Place::Timestamp)]),
            ),
            (
                "raw value is bytes, not text",
                of_branch(vec![mapped("a", Text, wit::Place::RawValue)]),
            ),
            (
                "text or bytes, not integer",
                of_branch(vec![mapped("a", Integer, wit::Place::Header("h".into()))]),
            ),
            (
                "never null",
                of_branch(vec![optional(mapped("a", Boolean, wit::Place::Tombstone))]),
            ),
            ("not a JSON Pointer", of_branch(vec![mapped("a", Text, value("a"))])),
            ("followed by 0 or 1", of_branch(vec![mapped("a", Text, value("/a~2"))])),
            (
                "the header \"\": its name is empty",
                of_branch(vec![mapped("a", Text, wit::Place::Header(String::new()))]),
            ),
            (
                "its key has no fields",
                with(|s| {
                    s.stores.push(wit::Store {
                        name: "s".into(),
                        key: vec![],
                        value: vec![],
                        ordered: false,
                        time_to_live: 0,
                        carry_over: vec![],
                    })
                }),
            ),
            (
                "of its key is optional",
                with(|s| {
                    s.stores.push(wit::Store {
                        name: "s".into(),
                        key: vec![wit_field("k", Text, true)],
                        value: vec![],
                        ordered: false,
                        time_to_live: 0,
                        carry_over: vec![],
                    })
                }),
            ),
            (
                "store \"s\": its carry-over has 1 entries for 0 value fields",
                with(|s| {
                    s.stores.push(wit::Store {
                        name: "s".into(),
                        key: vec![wit_field("k", Text, false)],
                        value: vec![],
                        ordered: false,
                        time_to_live: 0,
                        carry_over: vec![wit::Carried::Constant("1".into())],
                    })
                }),
            ),
            (
                "not one line",
                with(|s| {
                    s.metrics.push(wit::Metric {
                        name: "m".into(),
                        summary: "a\nb".into(),
                        kind: wit::MetricKind::Gauge,
                    })
                }),
            ),
        ];
        for (expected, given) in cases {
            let problem = signature(PluginKind::Processor, given).expect_err(expected);
            assert!(problem.contains(expected), "{problem:?} does not say {expected:?}");
            assert!(problem.len() < 500, "{problem}");
        }
    }

    #[test]
    fn an_aggregator_has_no_stores_and_writes_values_of_its_own() {
        use wit::FieldType::{Boolean, Text, Time};
        let with = |value, fields| {
            let mut signature = of_branch(fields);
            signature.branches[0].value = value;
            signature
        };
        let good = with(wit::ValueBase::New, vec![mapped("a", Text, value("/a"))]);
        signature(PluginKind::Aggregator, good).expect("passes");
        signature(PluginKind::Aggregator, with(wit::ValueBase::New, vec![])).expect("passes");
        let elsewhere = "field \"a\": it is written to";
        let cases = [
            (
                "branch \"out\": its value is the input row's",
                with(wit::ValueBase::Same, vec![]),
            ),
            (
                elsewhere,
                with(
                    wit::ValueBase::New,
                    vec![mapped("a", Text, wit::Place::Key("/a".into()))],
                ),
            ),
            (
                elsewhere,
                with(
                    wit::ValueBase::New,
                    vec![mapped("a", Text, wit::Place::Header("a".into()))],
                ),
            ),
            (
                elsewhere,
                with(wit::ValueBase::New, vec![mapped("a", Time, wit::Place::Timestamp)]),
            ),
            (
                elsewhere,
                with(wit::ValueBase::New, vec![mapped("a", Boolean, wit::Place::Tombstone)]),
            ),
        ];
        for (expected, given) in cases {
            let problem = signature(PluginKind::Aggregator, given).expect_err(expected);
            assert!(problem.contains(expected), "{problem:?} does not say {expected:?}");
        }
    }

    #[test]
    fn an_info_by_the_rules_passes_and_others_are_named() {
        let good = || wit::Info {
            name: "fare-split-2".into(),
            version: "1.2.3-rc.1+b5".into(),
            summary: "Splits rides".into(),
            config_schema: "{}".into(),
            capabilities: vec!["clock".into()],
        };
        assert_eq!(info(good()).expect("passes").name, "fare-split-2");
        type Change = fn(&mut wit::Info);
        let cases: Vec<(&str, Change)> = vec![
            ("lower-case", |i| i.name = "Fare".into()),
            ("lower-case", |i| i.name = "../x".into()),
            ("lower-case", |i| i.name = String::new()),
            ("semantic version", |i| i.version = "1.2".into()),
            ("semantic version", |i| i.version = "01.2.3".into()),
            ("semantic version", |i| i.version = "1.2.3-".into()),
            ("one line", |i| i.summary = "a\u{1b}[0m".into()),
            ("not JSON", |i| i.config_schema = "{".into()),
            ("neither a JSON object", |i| i.config_schema = "3".into()),
            ("bytes, but may have", |i| i.config_schema = " ".repeat(1 << 20)),
            ("none of clock", |i| i.capabilities = vec!["root".into()]),
        ];
        for (expected, change) in cases {
            let mut given = good();
            change(&mut given);
            let problem = info(given).expect_err(expected);
            assert!(problem.contains(expected), "{problem:?} does not say {expected:?}");
        }
    }
}
