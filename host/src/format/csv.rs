//! CSV: a value is one line of it; the names of its columns stand in the topic's settings.

use std::borrow::Cow;

use super::cell::write_string;
use super::project::Span;
use super::scan::validate;

/// How the lines of a CSV topic are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// The names of the columns, in their order.
    pub columns: Vec<String>,
    /// What stands between cells: `,` as a rule. ASCII, neither a quote nor the end of a line.
    pub delimiter: u8,
}

/// Why a value is not the CSV line that it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CsvError {
    /// Not as many cells as columns.
    Columns {
        /// Columns of the options.
        expected: usize,
        /// Cells of the line.
        found: usize,
    },
    /// The line ends at this byte, and something follows.
    Lines(usize),
    /// No quote ends the cell that begins at this byte.
    Open(usize),
    /// Something stands between a closing quote and this byte's delimiter.
    Behind(usize),
}

/// Splits a line into one span a cell, quotes included. A cell may be quoted as RFC 4180 has it, and then hold
/// delimiters, ends of lines and doubled quotes; a quote elsewhere is a character as any other.
///
/// # Errors
/// If it is not one line with as many cells as there are columns.
pub(crate) fn split(line: &str, delimiter: u8, columns: usize, cells: &mut Vec<Span>) -> Result<(), CsvError> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let bytes = line.strip_suffix('\r').unwrap_or(line).as_bytes();
    cells.clear();
    let mut start = 0;
    loop {
        let end = match bytes.get(start) {
            Some(b'"') => quoted_end(bytes, start)?,
            _ => memchr::memchr3(delimiter, b'\n', b'\r', &bytes[start..]).map_or(bytes.len(), |length| start + length),
        };
        cells.push(Span { start, end });
        match bytes.get(end) {
            None => break,
            Some(&byte) if byte == delimiter => start = end + 1,
            Some(b'\n' | b'\r') => return Err(CsvError::Lines(end)),
            Some(_) => return Err(CsvError::Behind(end)),
        }
    }
    if cells.len() != columns {
        return Err(CsvError::Columns {
            expected: columns,
            found: cells.len(),
        });
    }
    Ok(())
}

fn quoted_end(bytes: &[u8], start: usize) -> Result<usize, CsvError> {
    let mut at = start + 1;
    loop {
        let quote = memchr::memchr(b'"', &bytes[at..]).ok_or(CsvError::Open(start))?;
        at += quote + 1;
        if bytes.get(at) != Some(&b'"') {
            return Ok(at);
        }
        at += 1;
    }
}

/// What a cell says: its text without the quotes.
pub(crate) fn content(cell: &str) -> Cow<'_, str> {
    match cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"')) {
        None => Cow::Borrowed(cell),
        Some(content) if content.contains('"') => Cow::Owned(content.replace("\"\"", "\"")),
        Some(content) => Cow::Borrowed(content),
    }
}

/// Appends a row as a JSON object: see [`write_inferred`].
pub(crate) fn write_object<'c>(out: &mut Vec<u8>, row: impl Iterator<Item = (&'c str, Cow<'c, str>)>, infer: bool) {
    out.push(b'{');
    for (at, (column, cell)) in row.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(out, column);
        out.push(b':');
        write_inferred(out, &cell, infer);
    }
    out.push(b'}');
}

/// Appends a cell as a JSON value: an empty one as `null`, one that is a JSON number (and one that a float can come
/// near) as that number, digit for digit, any other as a string. So `1.50` stays `1.50`, and `007`, `+1`, `1,5`, `true`
/// and `NaN` are strings. A fraction that begins with its point, as many programs write it, gets the zero that JSON
/// wants: `.50` is `0.50`. Without `infer` all are strings, empty ones too.
pub(crate) fn write_inferred(out: &mut Vec<u8>, cell: &str, infer: bool) {
    if infer && cell.is_empty() {
        return out.extend_from_slice(b"null");
    }
    if infer && is_number(cell) {
        return out.extend_from_slice(cell.as_bytes());
    }
    if infer && let Some(number) = with_zero(cell).filter(|number| is_number(number)) {
        return out.extend_from_slice(number.as_bytes());
    }
    write_string(out, cell);
}

/// `0.5` of `.5`, and `-0.5` of `-.5`.
fn with_zero(cell: &str) -> Option<String> {
    let (sign, digits) = cell.strip_prefix('-').map_or(("", cell), |digits| ("-", digits));
    digits.starts_with('.').then(|| format!("{sign}0{digits}"))
}

fn is_number(cell: &str) -> bool {
    let bytes = cell.as_bytes();
    matches!(bytes[0], b'-' | b'0'..=b'9')
        && bytes[bytes.len() - 1].is_ascii_digit()
        && validate(cell, 0).is_ok()
        // Almost all are short, and short ones without an exponent are finite.
        && (bytes.len() < 300 && !bytes.iter().any(|byte| matches!(byte, b'e' | b'E'))
            || cell.parse::<f64>().is_ok_and(f64::is_finite))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cells(line: &str, columns: usize) -> Result<Vec<String>, CsvError> {
        let mut spans = Vec::new();
        split(line, b',', columns, &mut spans)?;
        Ok(spans
            .iter()
            .map(|span| content(span.of(line).expect("in the line")).into_owned())
            .collect())
    }

    #[test]
    fn a_line_is_split_into_its_cells() {
        let cases: &[(&str, &[&str])] = &[
            ("a,b", &["a", "b"]),
            ("a,b\r\n", &["a", "b"]),
            ("", &[""]),
            (",", &["", ""]),
            ("\"\",x", &["", "x"]),
            ("\"a,\"\"b\"\"\nc\",d", &["a,\"b\"\nc", "d"]),
            ("\"\"\"\"", &["\""]),
            ("a\"b,c\"", &["a\"b", "c\""]),
            (" a , é", &[" a ", " é"]),
        ];
        for (line, expected) in cases {
            assert_eq!(
                cells(line, expected.len()).as_deref(),
                Ok(&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
            );
        }
        let mut spans = Vec::new();
        assert_eq!(split("a,b;c", b';', 2, &mut spans), Ok(()));
    }

    #[test]
    fn a_line_that_is_none_is_refused() {
        assert_eq!(cells("a,b", 3), Err(CsvError::Columns { expected: 3, found: 2 }));
        assert_eq!(cells("a,b,", 2), Err(CsvError::Columns { expected: 2, found: 3 }));
        assert_eq!(cells("", 2), Err(CsvError::Columns { expected: 2, found: 1 }));
        assert_eq!(cells("a\nb", 1), Err(CsvError::Lines(1)));
        assert_eq!(cells("\"a\"\n\n", 1), Err(CsvError::Lines(3)));
        assert_eq!(cells("x,\"a", 2), Err(CsvError::Open(2)));
        assert_eq!(cells("\"a\"\"", 1), Err(CsvError::Open(0)));
        assert_eq!(cells("\"a\"b", 1), Err(CsvError::Behind(3)));
    }

    #[test]
    fn cells_become_the_json_that_they_look_like() {
        let cases = [
            ("1.50", "1.50"),
            ("-0", "-0"),
            ("12345678901234567890", "12345678901234567890"),
            ("1e5", "1e5"),
            ("", "null"),
            ("1e999", "\"1e999\""),
            ("007", "\"007\""),
            ("+1", "\"+1\""),
            ("1.", "\"1.\""),
            (".5", "0.5"),
            ("-.50", "-0.50"),
            (".", "\".\""),
            (".5.", "\".5.\""),
            ("-", "\"-\""),
            ("1 ", "\"1 \""),
            (" 1", "\" 1\""),
            ("true", "\"true\""),
            ("NaN", "\"NaN\""),
            ("null", "\"null\""),
            ("a\"b", "\"a\\\"b\""),
            ("2020-07-01 00:25:32", "\"2020-07-01 00:25:32\""),
            ("1,2", "\"1,2\""),
            ("[1]", "\"[1]\""),
            ("é", "\"é\""),
            ("1\n", "\"1\\n\""),
        ];
        for (cell, expected) in cases {
            let (mut inferred, mut text) = (Vec::new(), Vec::new());
            write_inferred(&mut inferred, cell, true);
            assert_eq!(std::str::from_utf8(&inferred), Ok(expected), "{cell}");
            write_inferred(&mut text, cell, false);
            assert_eq!(serde_json::from_slice::<String>(&text).expect("a string"), cell);
        }
        let long = "9".repeat(400);
        let mut out = Vec::new();
        write_inferred(&mut out, &long, true);
        assert_eq!(out.len(), 402, "beyond the largest float");
    }

    proptest! {
        #[test]
        fn what_the_csv_crate_writes_is_read_back(row in prop::collection::vec(any::<String>(), 1..6)) {
            let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
            writer.write_record(&row)?;
            let line = String::from_utf8(writer.into_inner()?)?;
            prop_assert_eq!(cells(&line, row.len()), Ok(row));
        }

        #[test]
        fn no_line_is_too_strange(line in "[,\"a\r\né]{0,16}", columns in 0usize..4) {
            let _ = cells(&line, columns);
        }

        #[test]
        fn what_is_inferred_is_json(cell in "[0-9eE.+-]{0,8}|[^0-9]{0,4}") {
            let mut out = Vec::new();
            write_inferred(&mut out, &cell, true);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
        }
    }
}
