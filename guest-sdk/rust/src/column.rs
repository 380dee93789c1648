//! Columns: typed views of those that came in, and the cells that go out.

use std::marker::PhantomData;
use std::ops::Range;

use crate::schema::FieldType;
use crate::table::Column;

/// A number of eight bytes, little-endian in its column.
pub trait Number: Copy {
    /// The number that the bytes hold.
    fn from_bytes(bytes: [u8; 8]) -> Self;
}

impl Number for i64 {
    #[inline]
    fn from_bytes(bytes: [u8; 8]) -> i64 {
        i64::from_le_bytes(bytes)
    }
}

impl Number for f64 {
    #[inline]
    fn from_bytes(bytes: [u8; 8]) -> f64 {
        f64::from_le_bytes(bytes)
    }
}

/// A column of integers, floats or times.
#[derive(Clone, Copy, Debug)]
pub struct Numbers<'a, T> {
    cells: &'a [[u8; 8]],
    number: PhantomData<T>,
}

impl<'a, T: Number> Numbers<'a, T> {
    pub(crate) fn new(column: &'a Column, rows: usize) -> Result<Self, String> {
        length("ends", 0, column.ends.len())?;
        length("data", rows * 8, column.data.len())?;
        Ok(Numbers {
            cells: column.data.as_chunks().0,
            number: PhantomData,
        })
    }

    /// The cell of a row.
    ///
    /// # Panics
    /// If there is no such row, as an index of a slice does.
    #[inline]
    pub fn get(&self, row: usize) -> T {
        T::from_bytes(self.cells[row])
    }

    /// All cells.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + 'a + use<'a, T> {
        self.cells.iter().map(|&bytes| T::from_bytes(bytes))
    }
}

/// A column of booleans.
#[derive(Clone, Copy, Debug)]
pub struct Booleans<'a>(&'a [u8]);

impl<'a> Booleans<'a> {
    pub(crate) fn new(column: &'a Column, rows: usize) -> Result<Self, String> {
        length("ends", 0, column.ends.len())?;
        length("data", rows, column.data.len())?;
        Ok(Booleans(&column.data))
    }

    /// The cell of a row.
    ///
    /// # Panics
    /// If there is no such row, as an index of a slice does.
    #[inline]
    pub fn get(&self, row: usize) -> bool {
        self.0[row] != 0
    }

    /// All cells.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = bool> + 'a + use<'a> {
        self.0.iter().map(|&byte| byte != 0)
    }
}

/// A column of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Blobs<'a> {
    ends: &'a [[u8; 4]],
    data: &'a [u8],
}

impl<'a> Blobs<'a> {
    pub(crate) fn new(column: &'a Column, rows: usize) -> Result<Self, String> {
        length("ends", rows * 4, column.ends.len())?;
        let ends = column.ends.as_chunks().0;
        check_ends(ends, column.data.len())?;
        Ok(Blobs {
            ends,
            data: &column.data,
        })
    }

    /// The cell of a row.
    ///
    /// # Panics
    /// If there is no such row, as an index of a slice does.
    #[inline]
    pub fn get(&self, row: usize) -> &'a [u8] {
        let (start, end) = bounds(self.ends, row);
        &self.data[start..end]
    }

    /// All cells.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let column = *self;
        (0..column.ends.len()).map(move |row| column.get(row))
    }
}

/// A column of text, or of JSON.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    ends: &'a [[u8; 4]],
    data: &'a str,
}

impl<'a> Texts<'a> {
    pub(crate) fn new(column: &'a Column, rows: usize) -> Result<Self, String> {
        let blobs = Blobs::new(column, rows)?;
        let data = std::str::from_utf8(blobs.data).map_err(|error| error.to_string())?;
        Ok(Texts { ends: blobs.ends, data })
    }

    /// The cell of a row.
    ///
    /// # Panics
    /// If there is no such row, as an index of a slice does.
    #[inline]
    pub fn get(&self, row: usize) -> &'a str {
        let (start, end) = bounds(self.ends, row);
        &self.data[start..end]
    }

    /// All cells.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        let column = *self;
        (0..column.ends.len()).map(move |row| column.get(row))
    }
}

/// A column whose cells may be null.
#[derive(Clone, Copy, Debug)]
pub struct Optional<'a, V> {
    nulls: &'a [u8],
    values: V,
}

impl<'a, V> Optional<'a, V> {
    pub(crate) fn new(column: &'a Column, rows: usize, values: V) -> Result<Self, String> {
        if !column.nulls.is_empty() {
            length("nulls", rows, column.nulls.len())?;
        }
        Ok(Optional {
            nulls: &column.nulls,
            values,
        })
    }

    /// Whether the cell of a row is null.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.get(row) == Some(&1)
    }

    /// The column without its nulls; what it has at a null row is not to be read.
    #[inline]
    pub fn values(&self) -> &V {
        &self.values
    }
}

#[inline]
fn bounds(ends: &[[u8; 4]], row: usize) -> (usize, usize) {
    let end = u32::from_le_bytes(ends[row]) as usize;
    let start = match row.checked_sub(1) {
        Some(before) => u32::from_le_bytes(ends[before]) as usize,
        None => 0,
    };
    (start, end)
}

fn length(list: &str, expected: usize, found: usize) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    Err(format!("`{list}` has {found} bytes instead of {expected}"))
}

/// So that no `get` of an existing row can fail but for text that is cut inside a character.
fn check_ends(ends: &[[u8; 4]], data_bytes: usize) -> Result<(), String> {
    let mut before = 0;
    let mut ascend = true;
    for end in ends {
        let end = u32::from_le_bytes(*end) as usize;
        ascend &= before <= end;
        before = end;
    }
    if !ascend {
        return Err("`ends` descends".into());
    }
    length("data", before, data_bytes)
}

/// The cells of a column that is being written.
#[derive(Clone, Debug)]
pub struct Cells {
    field_type: FieldType,
    nulls: Vec<u8>,
    ends: Vec<[u8; 4]>,
    data: Vec<u8>,
}

impl Cells {
    /// An empty column with room for `rows` rows.
    pub fn new(field_type: FieldType, rows: usize) -> Cells {
        let (ends, data) = match width_bytes(field_type) {
            Some(width) => (0, rows * width),
            None => (rows, 0),
        };
        Cells {
            field_type,
            nulls: Vec::new(),
            ends: Vec::with_capacity(ends),
            data: Vec::with_capacity(data),
        }
    }

    /// What the column holds.
    pub fn field_type(&self) -> FieldType {
        self.field_type
    }

    /// The number of cells so far.
    pub fn rows(&self) -> usize {
        match width_bytes(self.field_type) {
            Some(width) => self.data.len() / width,
            None => self.ends.len(),
        }
    }

    #[inline]
    pub(crate) fn push_boolean(&mut self, value: bool) {
        self.data.push(u8::from(value));
        self.not_null();
    }

    #[inline]
    pub(crate) fn push_number(&mut self, bytes: [u8; 8]) {
        self.data.extend_from_slice(&bytes);
        self.not_null();
    }

    #[inline]
    pub(crate) fn push_bytes(&mut self, value: &[u8]) {
        self.push_end(value);
        self.not_null();
    }

    #[inline]
    fn push_end(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        // A 32-bit memory holds no longer list, and the host's limit for an answer is far lower.
        self.ends.push((self.data.len() as u32).to_le_bytes());
    }

    #[inline]
    fn not_null(&mut self) {
        if !self.nulls.is_empty() {
            self.nulls.push(0);
        }
    }

    pub(crate) fn push_null(&mut self) {
        if self.nulls.is_empty() {
            // Nulls are rare: the marks begin with the first.
            self.nulls.resize(self.rows(), 0);
        }
        self.nulls.push(1);
        match width_bytes(self.field_type) {
            Some(width) => self.data.resize(self.data.len() + width, 0),
            None => self.push_end(&[]),
        }
    }

    /// Takes cells out again; the ones behind them move up.
    pub(crate) fn remove(&mut self, rows: Range<usize>) {
        if !self.nulls.is_empty() {
            self.nulls.drain(rows.clone());
        }
        if let Some(width) = width_bytes(self.field_type) {
            self.data.drain(rows.start * width..rows.end * width);
            return;
        }
        let end_before = |row: usize| {
            row.checked_sub(1)
                .map_or(0, |before| u32::from_le_bytes(self.ends[before]))
        };
        let (start, end) = (end_before(rows.start), end_before(rows.end));
        self.data.drain(start as usize..end as usize);
        self.ends.drain(rows.clone());
        for cell_end in &mut self.ends[rows.start..] {
            *cell_end = (u32::from_le_bytes(*cell_end) - (end - start)).to_le_bytes();
        }
    }

    /// The column as it crosses.
    pub fn into_column(self) -> Column {
        Column {
            nulls: self.nulls,
            ends: self.ends.into_flattened(),
            data: self.data,
        }
    }
}

/// Bytes of a cell in `data`; `None` where `ends` says so.
const fn width_bytes(field_type: FieldType) -> Option<usize> {
    match field_type {
        FieldType::Boolean => Some(1),
        FieldType::Integer | FieldType::Float | FieldType::Time => Some(8),
        FieldType::Text | FieldType::Bytes | FieldType::Json => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(cells: &[Option<&str>]) -> Cells {
        let mut column = Cells::new(FieldType::Text, cells.len());
        for cell in cells {
            match cell {
                Some(text) => column.push_bytes(text.as_bytes()),
                None => column.push_null(),
            }
        }
        column
    }

    #[test]
    fn cells_that_are_written_are_read_back() {
        let column = texts(&[Some("é"), None, Some(""), Some("ab")]).into_column();
        assert_eq!(column.nulls, [0, 1, 0, 0]);
        let view = Texts::new(&column, 4).unwrap();
        assert_eq!(view.iter().collect::<Vec<_>>(), ["é", "", "", "ab"]);
        let optional = Optional::new(&column, 4, view).unwrap();
        assert_eq!(
            (0..4).map(|row| optional.is_null(row)).collect::<Vec<_>>(),
            [false, true, false, false]
        );
    }

    #[test]
    fn cells_are_taken_out_of_the_middle() {
        let mut column = texts(&[Some("a"), Some("bc"), None, Some("def")]);
        column.remove(1..3);
        assert_eq!(column.clone().into_column(), {
            let mut expected = texts(&[Some("a"), Some("def")]).into_column();
            expected.nulls = vec![0, 0];
            expected
        });
        let mut numbers = Cells::new(FieldType::Float, 3);
        for number in [1.0, 2.0, 3.0f64] {
            numbers.push_number(number.to_le_bytes());
        }
        numbers.remove(0..1);
        let column = numbers.into_column();
        assert_eq!(
            Numbers::<f64>::new(&column, 2).unwrap().iter().collect::<Vec<_>>(),
            [2.0, 3.0]
        );
    }

    #[test]
    fn a_column_that_breaks_a_rule_is_refused() {
        let good = || texts(&[Some("é"), Some("b")]).into_column();
        let refused = |change: fn(&mut Column), rows, message: &str| {
            let mut column = good();
            change(&mut column);
            let error = Texts::new(&column, rows).unwrap_err();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        };
        refused(|_| {}, 3, "`ends` has 8 bytes instead of 12");
        refused(|column| column.ends[0] = 9, 2, "descends");
        refused(|column| column.data.push(0), 2, "`data` has 4 bytes instead of 3");
        refused(|column| column.data[0] = 0xff, 2, "invalid utf-8");
        assert!(Numbers::<i64>::new(&good(), 2).is_err());
        assert!(Booleans::new(&good(), 2).is_err());
        let mut nulls = good();
        nulls.nulls = vec![0];
        assert!(Optional::new(&nulls, 2, ()).is_err());
    }
}
