//! CSV files: a header and rows, as JSON objects.

use std::borrow::Cow;
use std::io::Read;

use super::csv::write_object;

/// Reads a CSV file row by row. The first row names the columns.
///
/// ```
/// # use millstream::format::CsvFile;
/// let mut file = CsvFile::new(&b"id,amount,note\n007,1.50,\n"[..], b',', true)?;
/// let mut json = Vec::new();
/// while file.next_row()? {
///     file.write_json(&mut json);
/// }
/// assert_eq!(json, br#"{"id":"007","amount":1.50,"note":null}"#);
/// # Ok::<(), millstream::format::CsvFileError>(())
/// ```
pub struct CsvFile<R> {
    reader: ::csv::Reader<R>,
    columns: Vec<String>,
    row: ::csv::StringRecord,
    line: u64,
    infer: bool,
}

/// Why a row cannot be read. The rows before it were; [`CsvFile::next_row`] goes on behind it, but for
/// [`CsvFileError::Io`].
#[derive(Debug, thiserror::Error)]
pub enum CsvFileError {
    /// There is not even a header.
    #[error("the file is empty: a CSV file begins with a line that names its columns")]
    Empty,
    /// A column cannot be told from another one.
    #[error("line 1: the column {0:?} is named twice; give each column a name of its own")]
    Columns(String),
    /// Not as many cells as columns.
    #[error("line {line}: {expected} columns expected, as line 1 names them, but {found} found")]
    Ragged {
        /// Where the row begins, from 1.
        line: u64,
        /// Columns of the header.
        expected: usize,
        /// Cells of the row.
        found: usize,
    },
    /// A row is not UTF-8.
    #[error("line {line}, column {column:?} is not UTF-8; convert the file")]
    Utf8 {
        /// Where the row begins, from 1.
        line: u64,
        /// The column's name, or its number where it has none.
        column: String,
    },
    /// The file cannot be read.
    #[error("the file cannot be read behind line {line}: {source}")]
    Io {
        /// Where the row before it began, from 1.
        line: u64,
        /// Why.
        source: ::csv::Error,
    },
}

impl<R: Read> CsvFile<R> {
    /// Reads the header. With `infer`, empty cells become null, cells that are JSON numbers become those, digit for
    /// digit (`1.50` stays `1.50`, while `007` and `+1` are text), and all others text; without, all become text.
    ///
    /// # Errors
    /// If there is no header, or it is of no use.
    pub fn new(file: R, delimiter: u8, infer: bool) -> Result<Self, CsvFileError> {
        let mut file = CsvFile {
            reader: ::csv::ReaderBuilder::new()
                .delimiter(delimiter)
                .has_headers(false)
                .flexible(true)
                .from_reader(file),
            columns: Vec::new(),
            row: ::csv::StringRecord::new(),
            line: 1,
            infer,
        };
        if !file.read()? {
            return Err(CsvFileError::Empty);
        }
        file.columns = file.row.iter().map(str::to_owned).collect();
        match (1..file.columns.len()).find(|&at| file.columns[..at].contains(&file.columns[at])) {
            Some(at) => Err(CsvFileError::Columns(file.columns.swap_remove(at))),
            None => Ok(file),
        }
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Where the row that was read last begins, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Bytes of the file up to the end of that row.
    pub fn position_bytes(&self) -> u64 {
        self.reader.position().byte()
    }

    /// Reads the next row: whether there was one. Empty lines are none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn next_row(&mut self) -> Result<bool, CsvFileError> {
        if !self.read()? {
            return Ok(false);
        }
        let (expected, found) = (self.columns.len(), self.row.len());
        if expected != found {
            return Err(CsvFileError::Ragged {
                line: self.line,
                expected,
                found,
            });
        }
        Ok(true)
    }

    /// A cell of the row that was read last, by its column's position; empty where there is none.
    pub fn cell(&self, column: usize) -> &str {
        self.row.get(column).unwrap_or_default()
    }

    /// Appends the row that was read last as a JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let cells = self.row.iter().map(Cow::Borrowed);
        write_object(out, self.columns.iter().map(String::as_str).zip(cells), self.infer);
    }

    fn read(&mut self) -> Result<bool, CsvFileError> {
        match self.reader.read_record(&mut self.row) {
            Ok(more) => {
                if let (true, Some(position)) = (more, self.row.position()) {
                    self.line = position.line();
                }
                Ok(more)
            }
            Err(error) => Err(match error.kind() {
                ::csv::ErrorKind::Utf8 { pos, err } => {
                    self.line = pos.as_ref().map_or(self.line, ::csv::Position::line);
                    let column = match self.columns.get(err.field()) {
                        Some(column) => column.clone(),
                        None => (err.field() + 1).to_string(),
                    };
                    CsvFileError::Utf8 {
                        line: self.line,
                        column,
                    }
                }
                _ => CsvFileError::Io {
                    line: self.line,
                    source: error,
                },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(file: &[u8], infer: bool) -> Vec<Result<String, String>> {
        let mut file = CsvFile::new(file, b',', infer).expect("a header");
        let mut rows = Vec::new();
        loop {
            match file.next_row() {
                Ok(false) => return rows,
                Ok(true) => {
                    let mut json = Vec::new();
                    file.write_json(&mut json);
                    rows.push(Ok(String::from_utf8(json).expect("UTF-8")));
                }
                Err(error) => rows.push(Err(error.to_string())),
            }
        }
    }

    #[test]
    fn rows_become_objects() {
        let file = b"\xef\xbb\xbfid,when,\"a \"\"b\"\"\"\r\n1,2020-07-01 00:25:32,\r\n\r\n2.50,\"x,\ny\",007\r\n";
        let expected = [
            r#"{"id":1,"when":"2020-07-01 00:25:32","a \"b\"":null}"#,
            r#"{"id":2.50,"when":"x,\ny","a \"b\"":"007"}"#,
        ];
        assert_eq!(rows(file, true), expected.map(|row| Ok(row.to_owned())));
        let text = [
            r#"{"id":"1","when":"2020-07-01 00:25:32","a \"b\"":""}"#,
            r#"{"id":"2.50","when":"x,\ny","a \"b\"":"007"}"#,
        ];
        assert_eq!(rows(file, false), text.map(|row| Ok(row.to_owned())));
    }

    #[test]
    fn a_broken_row_is_named_and_the_others_are_read() {
        let file = b"a,b\n1,2\n3\n\"x\ny\",4,5\n6,\xff\n7,8";
        let expected = [
            Ok(r#"{"a":1,"b":2}"#.to_owned()),
            Err("line 3: 2 columns expected, as line 1 names them, but 1 found".to_owned()),
            Err("line 4: 2 columns expected, as line 1 names them, but 3 found".to_owned()),
            Err("line 6, column \"b\" is not UTF-8; convert the file".to_owned()),
            Ok(r#"{"a":7,"b":8}"#.to_owned()),
        ];
        assert_eq!(rows(file, true), expected);
    }

    #[test]
    fn a_header_is_needed() {
        let error = |file: &[u8]| CsvFile::new(file, b',', true).err().expect("an error").to_string();
        assert!(error(b"").contains("the file is empty"));
        assert!(error(b"\n\n").contains("the file is empty"));
        assert!(error(b"a,b,a\n").contains("\"a\" is named twice"));
        assert!(error(b"a,\xff\n").contains("line 1, column \"2\" is not UTF-8"));
    }

    #[test]
    fn cells_and_places_are_known() {
        let mut file = CsvFile::new(&b"a;b\n1;x\n"[..], b';', true).expect("a header");
        assert_eq!(file.columns(), ["a", "b"]);
        assert!(file.next_row().expect("a row"));
        assert_eq!(
            (file.cell(1), file.cell(2), file.line(), file.position_bytes()),
            ("x", "", 2, 8)
        );
    }
}
