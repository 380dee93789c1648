//! Ways to misbehave while being configured.

use millstream_sdk::schema::{FieldType, MappedField, Metric, MetricKind, Place, Signature, Store};

use crate::{Kind, Settings, honest_signature, running};

/// The signature, unless there is none.
pub(crate) fn signature(settings: &Settings) -> Result<Signature, String> {
    use Kind::*;
    let mut signature = honest_signature(settings);
    let amount = |default: u64| settings.amount.unwrap_or(default) as usize;
    let branch = signature.branches[0].clone();
    let field = |name: &str, field_type, place| MappedField::new(name, field_type, true, place);
    let fields = &mut signature.branches[0].fields;
    match settings.kind {
        ConfigureError => return Err("this configuration is refused, as it asks to be".into()),
        ConfigurePanic => panic!("a panic in configure"),
        ConfigureLoop => running::spin(),
        ConfigureMemory => running::grow_by_page(),
        ConfigureLog => running::log_endlessly(),
        ManyBranches => {
            let numbered = |number| {
                let mut branch = branch.clone();
                branch.name = format!("out-{number}");
                branch
            };
            signature.branches = (0..amount(1_000_000)).map(numbered).collect();
        }
        NoBranches => signature.branches.clear(),
        NoInputs => signature.inputs.clear(),
        DuplicateBranches => signature.branches.push(branch),
        DuplicateFields => fields.extend([
            field("twice", FieldType::Text, Place::Value("/a".into())),
            field("twice", FieldType::Text, Place::Value("/b".into())),
        ]),
        OverlappingFields => fields.extend([
            field("outer", FieldType::Json, Place::Value("/a".into())),
            field("inner", FieldType::Text, Place::Value("/a/b".into())),
        ]),
        EmptyName => signature.branches[0].name.clear(),
        HugeName => signature.branches[0].name = "n".repeat(amount(1 << 20)),
        HugeHeaderName => fields.push(field(
            "huge",
            FieldType::Text,
            Place::Header("h".repeat(amount(1 << 20))),
        )),
        BadPointer => fields.push(field("bad", FieldType::Text, Place::Value("no/slash".into()))),
        OffsetInBranch => fields.push(field("offset", FieldType::Integer, Place::Offset)),
        TimestampAsText => fields.push(field("at", FieldType::Text, Place::Timestamp)),
        StoreWithoutKey => signature.stores.push(Store {
            name: "store".into(),
            key: Vec::new(),
            value: Vec::new(),
            ordered: false,
            time_to_live: 0,
            carry_over: vec![],
        }),
        ChangingSignature => signature.branches[0].name = format!("out-{}", calls()),
        MetricOutOfRange | MetricLoop => signature.metrics.push(Metric {
            name: "rounds".into(),
            summary: "Rounds of a loop".into(),
            kind: MetricKind::Counter,
        }),
        _ => {}
    }
    Ok(signature)
}

/// How often it was asked.
fn calls() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static CALLS: AtomicU32 = AtomicU32::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed)
}
