//! `millstream state`: the rows of a store, as they were committed last.

use miette::{IntoDiagnostic, miette};

use super::table::{Alignment, Streamed, count, human_bytes, human_duration, print};
use super::window::Span;
use super::{Engine, Output, OutputFormat};
use crate::connect::{OpenBroker, StoreSchema, TopicDescription, TopicRole};
use crate::pipeline::{nearest, suggest};
use crate::schema::{Field, FieldType};
use crate::state::typed::{KeyFields, cell_for_people, time_text};
use crate::state::{FoundRow, KeyFilter, RowQuery, RowReader};

/// Arguments of `millstream state`.
///
/// Reads what was committed last, of a folder that nobody holds and of a running host too, which is not slowed by it. In a
/// Kafka cluster that is in the changelogs, each of which is read as a whole.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Rows come in the order of their windows and keys. Those of closed windows, and those past their time \
    to live, are not shown. With -o json a row is an object on a line of its own: `key` is the text of a group's key, or \
    an object of a store's key fields (`key_base64` where the key is no text), `value` has the fields, `timestamp` says \
    when the row was written, of a group the latest of its records."
)]
pub struct Args {
    /// The pipeline's name [default: list the stores of all]
    pipeline: Option<String>,
    /// STAGE.STORE, or STAGE of an aggregator, or a store's name where only one is called so [default: list them]
    store: Option<String>,
    /// The row of this key alone: the text of a single field, or a JSON array or object where a key has several
    #[arg(conflicts_with = "prefix", allow_hyphen_values = true)]
    key: Option<String>,
    /// Rows whose key begins so: the first letters of a text, or the first fields as a JSON array
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    prefix: Option<String>,
    /// Windows with a moment between these, as 2024-05-01T12:00:00Z..2024-05-01T13:00:00Z or -1h.. (either may be missing)
    #[arg(long, value_name = "FROM..TO", allow_hyphen_values = true)]
    window: Option<Span>,
    /// Stop after so many rows
    #[arg(short = 'n', long = "count", value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    engine: Engine,
    #[command(flatten)]
    output: Output,
}

/// # Errors
/// Where the data or the store cannot be used.
pub fn run(args: Args) -> miette::Result<()> {
    let broker = args.engine.open_existing()?;
    let stores = stores(&broker)?;
    let of_pipeline: Vec<&Store> = match &args.pipeline {
        None => return list(&broker, &stores.iter().collect::<Vec<_>>(), args.output.format),
        Some(name) => stores.iter().filter(|store| store.pipeline() == name).collect(),
    };
    if of_pipeline.is_empty() {
        return Err(no_pipeline(args.pipeline.as_deref().unwrap_or_default(), &stores));
    }
    let Some(name) = &args.store else {
        return list(&broker, &of_pipeline, args.output.format);
    };
    let store = find(name, &of_pipeline)?;
    let reader = RowReader::of(&store.role).ok_or_else(|| miette!("the store {name:?} has no fields yet"))?;
    let query = query(&args, store, &reader)?;
    let left = args.count.unwrap_or(u64::MAX);
    match args.output.format {
        OutputFormat::Json => show_json(&broker, &reader, &query, left),
        OutputFormat::Text => show_table(&broker, &reader, &query, left),
    }
}

/// A store, by its changelog.
pub(super) struct Store {
    pub topic: TopicDescription,
    pub role: std::sync::Arc<TopicRole>,
}

impl Store {
    /// Where a topic is a changelog.
    pub fn of(topic: TopicDescription) -> Option<Store> {
        let role = topic.spec.role.clone()?;
        matches!(*role, TopicRole::Changelog { .. }).then_some(Store { topic, role })
    }

    pub fn pipeline(&self) -> &str {
        match &*self.role {
            TopicRole::Changelog { pipeline, .. } | TopicRole::Repartition { pipeline, .. } => pipeline,
        }
    }

    /// What people call it.
    pub fn label(&self) -> String {
        match &*self.role {
            TopicRole::Changelog {
                stage,
                store: Some(store),
                ..
            } => format!("{stage}.{store}"),
            TopicRole::Changelog { stage, .. } | TopicRole::Repartition { stage, .. } => stage.clone(),
        }
    }

    fn bare_name(&self) -> Option<&str> {
        match &*self.role {
            TopicRole::Changelog { store, .. } => store.as_deref(),
            TopicRole::Repartition { .. } => None,
        }
    }

    pub fn schema(&self) -> Option<&StoreSchema> {
        match &*self.role {
            TopicRole::Changelog { schemas, .. } => schemas.last(),
            TopicRole::Repartition { .. } => None,
        }
    }
}

fn stores(broker: &OpenBroker) -> miette::Result<Vec<Store>> {
    let topics = broker.topics().into_diagnostic()?;
    Ok(topics.into_iter().filter_map(Store::of).collect())
}

fn no_pipeline(name: &str, stores: &[Store]) -> miette::Report {
    let mut names: Vec<&str> = stores.iter().map(Store::pipeline).collect();
    names.dedup();
    miette!(
        help = suggest(name, names.iter().copied(), "pipelines with state"),
        "no pipeline {name:?} keeps state here"
    )
}

/// The store that a person means.
fn find<'s>(name: &str, stores: &[&'s Store]) -> miette::Result<&'s Store> {
    if let Some(store) = stores.iter().find(|store| store.label() == name) {
        return Ok(store);
    }
    let labels: Vec<String> = stores.iter().map(|store| store.label()).collect();
    let bare: Vec<&&Store> = stores.iter().filter(|store| store.bare_name() == Some(name)).collect();
    match bare.as_slice() {
        [store] => Ok(store),
        [] => Err(miette!(
            help = suggest_store(name, stores, &labels),
            "the pipeline {:?} has no store {name:?}",
            stores[0].pipeline()
        )),
        several => {
            let labels: Vec<String> = several.iter().map(|store| format!("`{}`", store.label())).collect();
            Err(miette!(
                help = format!("say which: {}", labels.join(" or ")),
                "the pipeline {:?} has several stores {name:?}",
                stores[0].pipeline()
            ))
        }
    }
}

/// What there is, and the nearest of it: by its bare name too.
fn suggest_store(name: &str, stores: &[&Store], labels: &[String]) -> String {
    let bare = stores.iter().filter_map(|store| store.bare_name());
    let near = nearest(name, bare).and_then(|near| stores.iter().find(|store| store.bare_name() == Some(near)));
    let list = suggest(name, labels.iter().map(String::as_str), "its stores");
    match near {
        Some(store) if !list.starts_with("did you mean") => format!("did you mean `{}`? {list}", store.label()),
        _ => list,
    }
}

fn query(args: &Args, store: &Store, reader: &RowReader<'_>) -> miette::Result<RowQuery> {
    if args.window.is_some() && reader.schema().window_size_ms.is_none() {
        return Err(miette!(
            help = "leave out --window",
            "the store {:?} has no windows",
            store.label()
        ));
    }
    let keys = match (&args.key, &args.prefix) {
        (Some(key), _) => reader.one_key(key),
        (None, Some(prefix)) => reader.prefix(prefix),
        (None, None) => Ok(KeyFilter::All),
    };
    Ok(RowQuery {
        changelog: store.topic.spec.name.clone(),
        keys: keys.map_err(|why| miette!("{why}"))?,
        from_ms: args.window.and_then(|span| span.from_ms),
        to_ms: args.window.and_then(|span| span.to_ms),
        after: None,
    })
}

fn list(broker: &OpenBroker, stores: &[&Store], format: OutputFormat) -> miette::Result<()> {
    let mut listed = Vec::new();
    for store in stores {
        let size = broker.state().size(&store.topic.spec.name)?;
        listed.push((store, size));
    }
    if format == OutputFormat::Json {
        let stores: Vec<_> = listed
            .iter()
            .map(|(store, size)| {
                serde_json::json!({
                    "pipeline": store.pipeline(),
                    "store": store.label(),
                    "rows": size.rows,
                    "bytes": size.bytes,
                    "partitions": store.topic.spec.partitions,
                    "changelog": store.topic.spec.name,
                    "schema": store.schema(),
                })
            })
            .collect();
        let text = serde_json::to_string_pretty(&stores).into_diagnostic()?;
        return super::write_out(format!("{text}\n").as_bytes());
    }
    let rows = listed.iter().map(|(store, size)| {
        vec![
            store.pipeline().to_owned(),
            store.label(),
            count(size.rows),
            human_bytes(size.bytes),
            store.topic.spec.partitions.to_string(),
            store.schema().map(key_text).unwrap_or_default(),
            store
                .schema()
                .map(|schema| fields_text(&schema.value))
                .unwrap_or_default(),
            store.topic.spec.name.clone(),
        ]
    });
    print(
        &[
            "pipeline",
            "store",
            "rows",
            "local bytes",
            "partitions",
            "key",
            "value",
            "changelog",
        ],
        rows,
    )
}

/// What identifies rows: fields, or a group's key and window.
pub(super) fn key_text(schema: &StoreSchema) -> String {
    let mut text = if schema.key.is_empty() {
        "the record's key".to_owned()
    } else {
        fields_text(&schema.key)
    };
    if let Some(size_ms) = schema.window_size_ms {
        text += &format!(", {} window", human_duration(size_ms.unsigned_abs()));
    }
    text
}

/// Fields with their types.
pub(super) fn fields_text(fields: &[Field]) -> String {
    let field = |field: &Field| {
        format!(
            "{}: {}{}",
            field.name,
            field.field_type,
            if field.optional { "?" } else { "" }
        )
    };
    fields.iter().map(field).collect::<Vec<_>>().join(", ")
}

fn show_json(broker: &OpenBroker, reader: &RowReader<'_>, query: &RowQuery, left: u64) -> miette::Result<()> {
    /// So much is written at once.
    const OUT_BYTES: usize = 64 << 10;
    let mut out = Vec::new();
    let mut line = |row: FoundRow<'_>| {
        out.push(b'{');
        reader.write_key_members(row.key, &mut out).into_diagnostic()?;
        out.extend_from_slice(b",\"value\":");
        let timestamp_ms = reader.write_value(row.row, &mut out).into_diagnostic()?;
        let end = format!(",\"timestamp\":{timestamp_ms},\"partition\":{}}}\n", row.partition);
        out.extend_from_slice(end.as_bytes());
        if out.len() >= OUT_BYTES {
            super::write_out(&out)?;
            out.clear();
        }
        Ok(())
    };
    each(broker, query, left, &mut line)?;
    super::write_out(&out)
}

fn show_table(broker: &OpenBroker, reader: &RowReader<'_>, query: &RowQuery, left: u64) -> miette::Result<()> {
    let schema = reader.schema();
    let windowed = schema.window_size_ms.is_some();
    let mut header = Vec::new();
    if windowed {
        header.extend([
            ("window start".to_owned(), Alignment::Left),
            ("window end".to_owned(), Alignment::Left),
        ]);
    }
    if schema.key.is_empty() {
        header.push(("key".to_owned(), Alignment::Left));
    }
    header.extend(schema.key.iter().map(column));
    let values_at = header.len();
    // Rows of earlier versions may have fields that are no more.
    let fields = reader.fields();
    header.extend(fields.iter().map(|field| column(field)));
    header.push(("written".to_owned(), Alignment::Left));
    let mut table = Streamed::new(header);
    let mut show = |row: FoundRow<'_>| {
        let key = reader.key(row.key).into_diagnostic()?;
        let mut cells = Vec::new();
        if let Some((start, end)) = key.window {
            cells.extend([time_text(start), time_text(end)]);
        }
        match &key.key {
            KeyFields::Record(key) => cells.push(record_key_text(key)),
            KeyFields::Fields(columns) => {
                let of = schema.key.iter().zip(columns);
                cells.extend(of.map(|(field, column)| cell_for_people(column.cell(field.field_type, 0))));
            }
        }
        let (timestamp_ms, values) = reader.row(row.row).into_diagnostic()?;
        cells.resize(values_at + fields.len(), String::new());
        for (field, cell) in values {
            if let Some(at) = fields.iter().position(|known| known.name == field.name) {
                cells[values_at + at] = cell_for_people(cell);
            }
        }
        cells.push(time_text(timestamp_ms));
        table.push(cells)
    };
    each(broker, query, left, &mut show)?;
    table.finish()
}

/// A record's key for people: text, or base64 after a mark that it is.
fn record_key_text(key: &[u8]) -> String {
    use base64::Engine;
    match std::str::from_utf8(key) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(key)),
    }
}

fn column(field: &Field) -> (String, Alignment) {
    let alignment = match field.field_type {
        FieldType::Integer | FieldType::Float => Alignment::Right,
        _ => Alignment::Left,
    };
    (field.name.clone(), alignment)
}

/// Shows rows until there were enough.
fn each(
    broker: &OpenBroker,
    query: &RowQuery,
    mut left: u64,
    show: &mut dyn FnMut(FoundRow<'_>) -> miette::Result<()>,
) -> miette::Result<()> {
    if left == 0 {
        return Ok(());
    }
    let mut outcome = Ok(());
    broker.state().rows(query, &mut |row| {
        outcome = show(row);
        left -= 1;
        outcome.is_ok() && left > 0
    })?;
    outcome
}
