//! What the rows of a store look like, and how those that an earlier version of a plugin wrote are read.

use std::sync::Arc;

use super::codec::RowRef;
use super::hot::Windowing;
use super::segment::Segmenting;
use super::table::{TableCodec, TableForm};
use crate::connect::{StoreSchema, TopicRole};
use crate::schema::{Carried, Field, FieldType, Store};
use crate::table::{Cell, Column, Table};
use crate::window::Window;

/// A store of a stage: what all its tasks share.
#[derive(Debug)]
pub struct StoreShape {
    /// The topic of its changes, which is also its name in the local store.
    pub changelog: Arc<str>,
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// What people call it: "stage.store", or "stage" for an aggregator's groups.
    pub label: String,
    /// The fields of its key; none for groups, whose key is the record's.
    pub key: Vec<Field>,
    /// The fields of its value.
    pub value: Vec<Field>,
    /// Whether it can be scanned.
    pub ordered: bool,
    /// When its rows are past.
    pub windowing: Windowing,
    window: Option<Window>,
    by: Option<String>,
    carry_over: Vec<Carried>,
    /// Its schemas, the first written first; what is written now is the last.
    schemas: Vec<StoreSchema>,
    /// For each schema but the last how its rows are read.
    earlier: Vec<Vec<From>>,
    /// How its changes are written where others read them, and what writes them so, once its schemas are known.
    form: TableForm,
    table: Option<Arc<TableCodec>>,
}

/// Where a cell of an earlier row comes from.
#[derive(Clone, Debug, PartialEq)]
enum From {
    /// The cell at this place.
    Cell(usize),
    /// A column of one row.
    Constant(Column),
}

/// Why rows that are there cannot be read by this version of a plugin, or in this pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Other fields.
    #[error(
        "the store {label:?} has rows of another version: {was}; this version's are: {now}. {remedy}; `millstream reset \
         {pipeline}` begins anew"
    )]
    Fields {
        /// The store.
        label: String,
        /// The pipeline.
        pipeline: String,
        /// The fields that are there.
        was: String,
        /// The fields that are wanted.
        now: String,
        /// What the plugin's author can do.
        remedy: String,
    },
    /// Other windows.
    #[error(
        "the store {label:?} has rows {was}, and the pipeline wants them {now}: give the stage another name, or begin \
         anew with `millstream reset {pipeline}`"
    )]
    Windows {
        /// The store.
        label: String,
        /// The pipeline.
        pipeline: String,
        /// How they are.
        was: String,
        /// How they should be.
        now: String,
    },
    /// Another key.
    #[error(
        "the store {label:?} has rows of records that met by {was}, and now they would meet by {now}: give the stage \
         another name, or begin anew with `millstream reset {pipeline}`"
    )]
    Key {
        /// The store.
        label: String,
        /// The pipeline.
        pipeline: String,
        /// What they met by.
        was: String,
        /// What they would meet by.
        now: String,
    },
    /// The topic is somebody else's.
    #[error(
        "the topic {topic:?} is there, and is not the changelog of the store {label:?}: rename the stage, or that topic"
    )]
    Taken {
        /// The topic.
        topic: String,
        /// The store.
        label: String,
    },
}

impl StoreShape {
    /// Of a processor's store.
    pub fn of_store(pipeline: &str, stage: &str, changelog: String, store: &Store) -> StoreShape {
        let time_to_live_ms = i64::try_from(store.time_to_live_ms).unwrap_or(i64::MAX);
        let windowing = if time_to_live_ms > 0 {
            Windowing::TimeToLive(time_to_live_ms)
        } else {
            Windowing::Forever
        };
        StoreShape {
            changelog: changelog.into(),
            pipeline: pipeline.into(),
            label: format!("{stage}.{}", store.name),
            key: store.key.clone(),
            value: store.value.clone(),
            ordered: store.ordered,
            windowing,
            window: None,
            by: None,
            carry_over: store.carry_over.clone(),
            schemas: Vec::new(),
            earlier: Vec::new(),
            form: TableForm::default(),
            table: None,
        }
    }

    /// Of an aggregator's groups.
    pub fn of_groups(
        pipeline: &str,
        stage: &str,
        changelog: String,
        fields: &[Field],
        window: Option<Window>,
    ) -> StoreShape {
        StoreShape {
            changelog: changelog.into(),
            pipeline: pipeline.into(),
            label: stage.to_owned(),
            key: Vec::new(),
            value: fields.to_vec(),
            ordered: false,
            windowing: if window.is_some() {
                Windowing::Windows
            } else {
                Windowing::Forever
            },
            window,
            by: None,
            carry_over: Vec::new(),
            schemas: Vec::new(),
            earlier: Vec::new(),
            form: TableForm::default(),
            table: None,
        }
    }

    /// With the key that its stage's records meet by; without, it is the records' own.
    #[must_use]
    pub fn by(mut self, key: Option<&str>) -> StoreShape {
        self.by = key.map(str::to_owned);
        self
    }

    /// With changes that are written so where others read them.
    #[must_use]
    pub fn written(mut self, form: TableForm) -> StoreShape {
        self.form = form;
        self
    }

    /// What makes records of its changes; none before it has joined its changelog.
    pub fn table(&self) -> Option<&Arc<TableCodec>> {
        self.table.as_ref()
    }

    /// How the store is cut in time: in halves of what is alive at once, so that three or four segments are.
    pub fn segmenting(&self) -> Segmenting {
        match (self.windowing, self.window) {
            (Windowing::TimeToLive(time_to_live_ms), _) => Segmenting::ByRowTime {
                segment_ms: (time_to_live_ms / 2).max(1),
            },
            (Windowing::Windows, Some(window)) => Segmenting::ByKeyTime {
                segment_ms: (window.size_ms.saturating_add(window.grace_ms) / 2).max(1),
            },
            _ => Segmenting::None,
        }
    }

    fn schema(&self) -> StoreSchema {
        StoreSchema {
            key: self.key.clone(),
            value: self.value.clone(),
            window_size_ms: self.window.map(|window| window.size_ms),
            window_grace_ms: self.window.map_or(0, |window| window.grace_ms),
            by: self.by.clone(),
            time_to_live_ms: match self.windowing {
                Windowing::TimeToLive(ms) => ms.unsigned_abs(),
                Windowing::Forever | Windowing::Windows => 0,
            },
        }
    }

    /// Holds the store against what its changelog says of the rows that are there (`None`: there is no such topic yet),
    /// and takes over their schemas. Returns what the changelog has to say from now on.
    ///
    /// # Errors
    /// Where those rows cannot be read.
    pub fn join(
        &mut self,
        stage: &str,
        store: Option<&str>,
        there: Option<&TopicRole>,
    ) -> Result<TopicRole, ShapeError> {
        let taken = || ShapeError::Taken {
            topic: self.changelog.to_string(),
            label: self.label.clone(),
        };
        let now = self.schema();
        let mut schemas = match there {
            None => Vec::new(),
            Some(TopicRole::Changelog { pipeline, schemas, .. }) if **pipeline == *self.pipeline => schemas.clone(),
            Some(_) => return Err(taken()),
        };
        let key_text = |by: &Option<String>| by.as_ref().map_or("their own key".into(), |key| format!("{key:?}"));
        for schema in &schemas {
            if schema.by != now.by {
                return Err(ShapeError::Key {
                    label: self.label.clone(),
                    pipeline: self.pipeline.to_string(),
                    was: key_text(&schema.by),
                    now: key_text(&now.by),
                });
            }
            if schema.window_size_ms != now.window_size_ms {
                return Err(ShapeError::Windows {
                    label: self.label.clone(),
                    pipeline: self.pipeline.to_string(),
                    was: windows_of(schema.window_size_ms),
                    now: windows_of(now.window_size_ms),
                });
            }
        }
        // A version that comes back writes under a number of its own again: rows of those between are read as it says.
        match schemas
            .last_mut()
            .filter(|last| last.key == now.key && last.value == now.value)
        {
            Some(last) => {
                last.time_to_live_ms = now.time_to_live_ms;
                last.window_grace_ms = now.window_grace_ms;
            }
            None => schemas.push(now),
        }
        self.earlier = Vec::new();
        for schema in &schemas[..schemas.len() - 1] {
            let read = self.read_earlier(schema);
            self.earlier.push(read.ok_or_else(|| self.other_fields(schema))?);
        }
        self.schemas = schemas.clone();
        self.table = TableCodec::of_schemas(&schemas, self.form).map(Arc::new);
        Ok(TopicRole::Changelog {
            pipeline: self.pipeline.to_string(),
            stage: stage.to_owned(),
            store: store.map(str::to_owned),
            schemas,
        })
    }

    /// How rows of an earlier schema are read; `None` where they cannot be.
    fn read_earlier(&self, earlier: &StoreSchema) -> Option<Vec<From>> {
        if earlier.key != self.key {
            return None;
        }
        if earlier.value == self.value {
            return Some((0..self.value.len()).map(From::Cell).collect());
        }
        if self.carry_over.len() != self.value.len() {
            return None;
        }
        let from = |(field, carried): (&Field, &Carried)| match carried {
            Carried::Field(name) => {
                let at = earlier.value.iter().position(|field| field.name == *name)?;
                let was = &earlier.value[at];
                let widened = (was.field_type, field.field_type) == (FieldType::Integer, FieldType::Float);
                let fits = was.field_type == field.field_type || widened;
                (fits && (field.optional || !was.optional)).then_some(From::Cell(at))
            }
            Carried::Constant(json) => constant(field, json).map(From::Constant),
        };
        self.value.iter().zip(&self.carry_over).map(from).collect()
    }

    fn other_fields(&self, was: &StoreSchema) -> ShapeError {
        let remedy = if self.key.is_empty() {
            "An aggregator reads what was accumulated only with the same fields: run the version that wrote them"
        } else if was.key != self.key {
            "A store's key never changes: run the version that wrote them"
        } else {
            "Run the version that wrote them, or one whose store says how they are carried over"
        };
        ShapeError::Fields {
            label: self.label.clone(),
            pipeline: self.pipeline.to_string(),
            was: fields_text(&was.key, &was.value),
            now: fields_text(&self.key, &self.value),
            remedy: remedy.into(),
        }
    }

    /// The number of the schema that is written.
    pub fn schema_number(&self) -> u32 {
        self.schemas.len().saturating_sub(1) as u32
    }

    /// Appends the cells of a kept row as row `at` of columns of the value's fields. Returns its timestamp.
    ///
    /// # Errors
    /// Where the bytes are no row of this store.
    pub fn read(&self, row: &[u8], at: usize, columns: &mut [Column]) -> Result<i64, NotARow> {
        let row = RowRef::parse(row).ok_or(NotARow)?;
        if row.schema == self.schema_number() {
            return if row.read(&self.value, at, columns) {
                Ok(row.timestamp_ms)
            } else {
                Err(NotARow)
            };
        }
        let (schema, from) = (
            row.schema as usize,
            self.earlier.get(row.schema as usize).ok_or(NotARow)?,
        );
        let was = &self.schemas[schema].value;
        let cells: Vec<Cell<'_>> = row.cells(was).collect();
        if cells.len() != was.len() {
            return Err(NotARow);
        }
        for ((field, column), from) in self.value.iter().zip(columns).zip(from) {
            let cell = match from {
                From::Cell(at) => cells[*at],
                From::Constant(constant) => constant.cell(field.field_type, 0),
            };
            let cell = match (cell, field.field_type) {
                (Cell::Integer(value), FieldType::Float) => Cell::Float(value as f64),
                (cell, _) => cell,
            };
            column.push(field.field_type, at, cell);
        }
        Ok(row.timestamp_ms)
    }

    /// Columns of the value's fields, without a row.
    pub fn columns(&self, rows: usize) -> Vec<Column> {
        let column = |field: &Field| Column::with_capacity(field.field_type, rows);
        self.value.iter().map(column).collect()
    }

    /// A table of the fields of keys, without a row.
    pub fn keys(&self, rows: usize) -> Table {
        let column = |field: &Field| Column::with_capacity(field.field_type, rows);
        Table {
            rows: 0,
            columns: self.key.iter().map(column).collect(),
        }
    }

    /// The cell that stands for a key's absent row.
    pub fn push_absent(&self, at: usize, columns: &mut [Column]) {
        for (field, column) in self.value.iter().zip(columns) {
            let cell = match field.field_type {
                FieldType::Boolean => Cell::Boolean(false),
                FieldType::Integer => Cell::Integer(0),
                FieldType::Float => Cell::Float(0.0),
                FieldType::Time => Cell::Time(0),
                FieldType::Text => Cell::Text(""),
                FieldType::Bytes => Cell::Bytes(&[]),
                FieldType::Json => Cell::Json("null"),
            };
            column.push(field.field_type, at, cell);
        }
    }
}

/// Bytes that no store wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no row of the store")]
pub struct NotARow;

fn windows_of(size_ms: Option<i64>) -> String {
    match size_ms {
        Some(size_ms) => format!("in windows of {size_ms} ms"),
        None => "without windows".into(),
    }
}

fn fields_text(key: &[Field], value: &[Field]) -> String {
    let list = |fields: &[Field]| {
        let field = |field: &Field| {
            let optional = if field.optional { "?" } else { "" };
            format!("{}: {}{optional}", field.name, field.field_type)
        };
        fields.iter().map(field).collect::<Vec<_>>().join(", ")
    };
    match key {
        [] => format!("({})", list(value)),
        key => format!("({}) → ({})", list(key), list(value)),
    }
}

/// A column of one row that holds a JSON value.
fn constant(field: &Field, json: &str) -> Option<Column> {
    use base64::Engine;
    use serde_json::Value;
    let value: Value = serde_json::from_str(json).ok()?;
    let mut column = Column::default();
    let (text, bytes);
    let cell = match (field.field_type, &value) {
        (_, Value::Null) if field.optional => Cell::Null,
        (FieldType::Boolean, Value::Bool(value)) => Cell::Boolean(*value),
        (FieldType::Integer, value) => Cell::Integer(value.as_i64()?),
        (FieldType::Time, value) => Cell::Time(value.as_i64()?),
        (FieldType::Float, value) => Cell::Float(value.as_f64()?),
        (FieldType::Text, Value::String(value)) => Cell::Text(value),
        (FieldType::Bytes, Value::String(value)) => {
            bytes = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
            Cell::Bytes(&bytes)
        }
        (FieldType::Json, value) if !value.is_null() => {
            text = value.to_string();
            Cell::Json(&text)
        }
        _ => return None,
    };
    column.push(field.field_type, 0, cell);
    Some(column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::codec::write_row;

    fn field(name: &str, field_type: FieldType, optional: bool) -> Field {
        Field {
            name: name.into(),
            field_type,
            optional,
        }
    }

    fn store(value: Vec<Field>, carry_over: Vec<Carried>) -> Store {
        Store {
            name: "counts".into(),
            key: vec![field("vendor", FieldType::Integer, false)],
            value,
            ordered: false,
            time_to_live_ms: 0,
            carry_over,
        }
    }

    fn shape(store: &Store) -> StoreShape {
        StoreShape::of_store("taxi", "count", "taxi-count-counts-changelog".into(), store)
    }

    fn integer(value: i64) -> Column {
        let mut column = Column::default();
        column.push(FieldType::Integer, 0, Cell::Integer(value));
        column
    }

    #[test]
    fn rows_of_an_earlier_version_are_carried_over() {
        let first = store(vec![field("n", FieldType::Integer, false)], vec![]);
        let mut writer = shape(&first);
        let role = writer.join("count", Some("counts"), None).expect("nothing was there");
        let mut row = Vec::new();
        let table = Table {
            rows: 1,
            columns: vec![integer(7)],
        };
        write_row(writer.schema_number(), 5, &writer.value, &table, 0, &mut row);

        let fields = vec![
            field("last", FieldType::Text, true),
            field("count", FieldType::Float, false),
            field("tag", FieldType::Text, false),
        ];
        let carry_over = vec![
            Carried::Constant("null".into()),
            Carried::Field("n".into()),
            Carried::Constant("\"old\"".into()),
        ];
        let mut reader = shape(&store(fields.clone(), carry_over));
        let role = reader.join("count", Some("counts"), Some(&role)).expect("it says how");
        assert_eq!(reader.schema_number(), 1);
        let mut columns = reader.columns(1);
        assert_eq!(reader.read(&row, 0, &mut columns), Ok(5));
        let cells: Vec<_> = fields
            .iter()
            .zip(&columns)
            .map(|(f, c)| c.cell(f.field_type, 0))
            .collect();
        assert_eq!(cells, [Cell::Null, Cell::Float(7.0), Cell::Text("old")]);

        // The first version does not know how to read the second's.
        let error = shape(&first)
            .join("count", Some("counts"), Some(&role))
            .expect_err("other fields");
        let text = error.to_string();
        assert!(
            text.contains("(vendor: integer) → (last: text?, count: float, tag: text)"),
            "{text}"
        );
        assert!(text.contains("millstream reset taxi"), "{text}");
    }

    #[test]
    fn a_carry_over_that_does_not_fit_is_refused() {
        let role = shape(&store(vec![field("n", FieldType::Text, false)], vec![]))
            .join("count", Some("counts"), None)
            .expect("nothing was there");
        for carried in [
            Carried::Field("n".into()),
            Carried::Field("m".into()),
            Carried::Constant("1.5".into()),
        ] {
            let now = store(vec![field("n", FieldType::Integer, false)], vec![carried]);
            assert!(shape(&now).join("count", Some("counts"), Some(&role)).is_err());
        }
    }

    #[test]
    fn another_key_is_refused() {
        let first = store(vec![field("n", FieldType::Integer, false)], vec![]);
        let by = |key| shape(&first).by(key);
        let role = by(Some("/vendor"))
            .join("count", Some("counts"), None)
            .expect("nothing was there");
        assert!(by(Some("/vendor")).join("count", Some("counts"), Some(&role)).is_ok());
        let error = by(None)
            .join("count", Some("counts"), Some(&role))
            .expect_err("another key");
        let text = error.to_string();
        assert!(
            text.contains("met by \"/vendor\", and now they would meet by their own key"),
            "{text}"
        );
    }

    #[test]
    fn other_windows_are_refused() {
        let window = |size_ms| Window {
            size_ms,
            advance_ms: size_ms,
            offset_ms: 0,
            grace_ms: 0,
        };
        let fields = [field("n", FieldType::Integer, false)];
        let groups = |window| StoreShape::of_groups("taxi", "count", "c".into(), &fields, window);
        let role = groups(Some(window(60_000)))
            .join("count", None, None)
            .expect("nothing was there");
        assert!(groups(Some(window(60_000))).join("count", None, Some(&role)).is_ok());
        let error = groups(None).join("count", None, Some(&role)).expect_err("no windows");
        assert!(
            error
                .to_string()
                .contains("in windows of 60000 ms, and the pipeline wants them without windows")
        );
    }
}
