//! The Rust types that a field can have.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;

use crate::column::{Blobs, Booleans, Cells, Number, Numbers, Optional, Texts};
use crate::error::Result;
use crate::schema::FieldType;
use crate::table::Column;

/// A type that a field of a row can have: `bool`, `i64`, `f64`, `&str`, `String`, `&[u8]`, `Vec<u8>`, [`Time`],
/// [`Json`], and an [`Option`] of each for a field that may be null.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a row",
    label = "not a type that crosses the boundary",
    note = "a field is a `bool`, `i64`, `f64`, `&str`, `String`, `&[u8]`, `Vec<u8>`, `Time` or `Json`, or an `Option` of one",
    note = "other numbers are fields as `i64` or `f64`; a structure is one as `Json`"
)]
pub trait Cell<'a>: Sized {
    /// How the cells are held.
    const TYPE: FieldType;
    /// Whether cells may be null.
    const OPTIONAL: bool = false;
    /// A column of such cells.
    type View;

    /// A view of a column, which is held against the contract's rules.
    ///
    /// # Errors
    /// The rule that is broken.
    fn view(column: &'a Column, rows: usize) -> Result<Self::View, String>;

    /// The cell of a row.
    fn read(view: &Self::View, row: usize) -> Self;

    /// Appends the cell.
    fn write(self, cells: &mut Cells);
}

macro_rules! number {
    ($number:ty, $field_type:ident) => {
        impl<'a> Cell<'a> for $number {
            const TYPE: FieldType = FieldType::$field_type;
            type View = Numbers<'a, $number>;

            #[inline]
            fn view(column: &'a Column, rows: usize) -> Result<Self::View, String> {
                Numbers::new(column, rows)
            }

            #[inline]
            fn read(view: &Self::View, row: usize) -> $number {
                view.get(row)
            }

            #[inline]
            fn write(self, cells: &mut Cells) {
                cells.push_number(self.to_le_bytes());
            }
        }
    };
}

number!(i64, Integer);
number!(f64, Float);
number!(Time, Time);

impl<'a> Cell<'a> for bool {
    const TYPE: FieldType = FieldType::Boolean;
    type View = Booleans<'a>;

    #[inline]
    fn view(column: &'a Column, rows: usize) -> Result<Self::View, String> {
        Booleans::new(column, rows)
    }

    #[inline]
    fn read(view: &Self::View, row: usize) -> bool {
        view.get(row)
    }

    #[inline]
    fn write(self, cells: &mut Cells) {
        cells.push_boolean(self);
    }
}

macro_rules! sized {
    ($cell:ty, $field_type:ident, $view:ident, |$read:ident| $value:expr, |$written:ident| $bytes:expr) => {
        impl<'a> Cell<'a> for $cell {
            const TYPE: FieldType = FieldType::$field_type;
            type View = $view<'a>;

            #[inline]
            fn view(column: &'a Column, rows: usize) -> Result<Self::View, String> {
                $view::new(column, rows)
            }

            #[inline]
            fn read(view: &Self::View, row: usize) -> $cell {
                let $read = view.get(row);
                $value
            }

            #[inline]
            fn write(self, cells: &mut Cells) {
                let $written = &self;
                cells.push_bytes($bytes);
            }
        }
    };
}

sized!(&'a str, Text, Texts, |text| text, |text| text.as_bytes());
sized!(String, Text, Texts, |text| text.to_owned(), |text| text.as_bytes());
sized!(Cow<'a, str>, Text, Texts, |text| Cow::Borrowed(text), |text| text
    .as_bytes());
sized!(&'a [u8], Bytes, Blobs, |bytes| bytes, |bytes| bytes);
sized!(Vec<u8>, Bytes, Blobs, |bytes| bytes.to_owned(), |bytes| bytes);
sized!(Json<'a>, Json, Texts, |text| Json(Cow::Borrowed(text)), |json| json
    .as_str()
    .as_bytes());

impl<'a, T: Cell<'a>> Cell<'a> for Option<T> {
    const TYPE: FieldType = T::TYPE;
    const OPTIONAL: bool = {
        assert!(
            !T::OPTIONAL,
            "a cell is null or not: an `Option` of an `Option` says no more"
        );
        true
    };
    type View = Optional<'a, T::View>;

    #[inline]
    fn view(column: &'a Column, rows: usize) -> Result<Self::View, String> {
        Optional::new(column, rows, T::view(column, rows)?)
    }

    #[inline]
    fn read(view: &Self::View, row: usize) -> Option<T> {
        (!view.is_null(row)).then(|| T::read(view.values(), row))
    }

    #[inline]
    fn write(self, cells: &mut Cells) {
        match self {
            Some(value) => value.write(cells),
            None => cells.push_null(),
        }
    }
}

/// A moment: milliseconds since 1970-01-01T00:00:00Z, without leap seconds, negative before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// Milliseconds from `earlier` to this moment; negative if it is later.
    pub fn millis_since(self, earlier: Time) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    #[inline]
    fn to_le_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }
}

impl Number for Time {
    #[inline]
    fn from_bytes(bytes: [u8; 8]) -> Time {
        Time(i64::from_le_bytes(bytes))
    }
}

/// One complete JSON value, as text. A JSON `null` is a null cell: read it as `Option<Json>`. Two are the same if
/// their texts are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json<'a>(Cow<'a, str>);

impl<'a> Json<'a> {
    /// What a value is as JSON.
    ///
    /// # Errors
    /// If it cannot be JSON, or is `null`.
    pub fn new(value: &impl serde::Serialize) -> Result<Json<'static>> {
        let text = serde_json::to_string(value)?;
        crate::ensure!(
            text != "null",
            "a JSON null is a null cell: the field is an `Option<Json>`, and the cell `None`"
        );
        Ok(Json(Cow::Owned(text)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, borrowing nothing: to keep it.
    pub fn into_owned(self) -> Json<'static> {
        Json(Cow::Owned(self.0.into_owned()))
    }

    pub(crate) fn borrowed(&self) -> Json<'_> {
        Json(Cow::Borrowed(&self.0))
    }

    /// What the text says.
    ///
    /// # Errors
    /// If it is not a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_str(&self.0)?)
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<'a, T: Cell<'a> + Clone>(values: &[T], column: &'a mut Column) -> Vec<T> {
        let mut cells = Cells::new(T::TYPE, values.len());
        for value in values {
            value.clone().write(&mut cells);
        }
        assert_eq!(cells.rows(), values.len());
        *column = cells.into_column();
        let view = T::view(column, values.len()).unwrap();
        (0..values.len()).map(|row| T::read(&view, row)).collect()
    }

    macro_rules! same {
        ($type:ty, $values:expr) => {{
            let mut column = Column {
                nulls: vec![],
                ends: vec![],
                data: vec![],
            };
            let values: Vec<$type> = $values;
            assert_eq!(there_and_back(&values, &mut column), values);
        }};
    }

    #[test]
    fn every_type_is_read_back_as_it_was_written() {
        same!(bool, vec![true, false]);
        same!(i64, vec![i64::MIN, 7, i64::MAX]);
        same!(f64, vec![-0.5, f64::INFINITY]);
        same!(Time, vec![Time(-1), Time(1)]);
        same!(&str, vec!["é", "", "b"]);
        same!(String, vec!["é".to_owned(), String::new()]);
        same!(&[u8], vec![&[0xff][..], &[]]);
        same!(Vec<u8>, vec![vec![1], vec![]]);
        same!(Json<'_>, vec![Json::new(&[1, 2]).unwrap()]);
        same!(Option<f64>, vec![None, Some(1.0), None]);
        same!(Option<&str>, vec![Some(""), None, Some("x")]);
        same!(Option<bool>, vec![Some(true), None]);
        assert_eq!(
            (<Option<i64> as Cell>::OPTIONAL, <i64 as Cell>::OPTIONAL),
            (true, false)
        );
    }

    #[test]
    fn json_is_parsed_when_asked() {
        let json = Json::new(&serde_json::json!({"a": [1, 2]})).unwrap();
        let map: std::collections::BTreeMap<String, Vec<u8>> = json.parse().unwrap();
        assert_eq!(map["a"], [1, 2]);
        assert!(json.parse::<f64>().is_err());
        assert!(Json::new(&None::<u8>).unwrap_err().to_string().contains("null cell"));
    }
}
