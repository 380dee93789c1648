//! Tables for people.

use comfy_table::{Table, presets};

/// Writes rows under a header to stdout.
///
/// # Errors
/// Where stdout cannot be written.
pub fn print(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> miette::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    super::write_out(format!("{}\n", table.trim_fmt()).as_bytes())
}

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows that decide how wide columns are, before the first is written; later ones make them wider.
const WIDTH_ROWS: usize = 1000;
/// What a cell shows of a longer text.
const CELL_CHARS_MAX: usize = 80;

/// A table of any number of rows, of which few are in memory.
pub struct Streamed {
    header: Option<Vec<String>>,
    alignments: Vec<Alignment>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Streamed {
    /// With these columns.
    pub fn new(header: Vec<(String, Alignment)>) -> Streamed {
        let (names, alignments): (Vec<_>, Vec<_>) = header.into_iter().unzip();
        let names: Vec<String> = names.iter().map(|name| one_line(&name.to_uppercase())).collect();
        Streamed {
            widths: names.iter().map(|name| name.chars().count()).collect(),
            header: Some(names),
            alignments,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn push(&mut self, row: Vec<String>) -> miette::Result<()> {
        let row: Vec<String> = row.iter().map(|cell| one_line(cell)).collect();
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(row);
        if self.rows.len() < WIDTH_ROWS {
            Ok(())
        } else {
            self.finish()
        }
    }

    /// Writes what was not written yet.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn finish(&mut self) -> miette::Result<()> {
        super::write_out(self.text().as_bytes())
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        for row in self.header.take().into_iter().chain(std::mem::take(&mut self.rows)) {
            let mut line = String::new();
            for ((cell, width), alignment) in row.iter().zip(&self.widths).zip(&self.alignments) {
                match alignment {
                    Alignment::Left => line += &format!("{cell:<width$}  "),
                    Alignment::Right => line += &format!("{cell:>width$}  "),
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// A text that keeps to its cell: without line breaks and the like, and not too long.
fn one_line(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == CELL_CHARS_MAX {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A number with spaces between the thousands.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// So many of something, with the `s` that all but one of them have.
pub fn plural(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes in the unit that suits them.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// A duration in the largest unit that says it whole, as options take it.
pub fn human_duration(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units
        .into_iter()
        .find(|(_, unit_ms)| ms > 0 && ms.is_multiple_of(*unit_ms))
    {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / unit_ms),
        None => format!("{ms}ms"),
    }
}

/// A moment, in UTC, to the second.
pub fn human_time(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_long_texts_are_cut() {
        let column = |name: &str, alignment| (name.to_owned(), alignment);
        let mut table = Streamed::new(vec![column("key", Alignment::Left), column("n", Alignment::Right)]);
        for (key, n) in [("a\nb", "7"), ("long one", "1200")] {
            table.push(vec![key.into(), n.into()]).expect("nothing is written yet");
        }
        assert_eq!(table.text(), "KEY          N\na\\nb         7\nlong one  1200\n");
        table
            .push(vec!["c".into(), "1".into()])
            .expect("nothing is written yet");
        assert_eq!(table.text(), "c            1\n", "the header is there once");
        assert_eq!(one_line(&"ü".repeat(81)), format!("{}…", "ü".repeat(80)));
    }

    #[test]
    fn quantities_are_written_for_people() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (90_000, "90s"),
            (7_200_000, "2h"),
            (604_800_000, "7d"),
            (86_400_001, "86400001ms"),
        ] {
            assert_eq!(human_duration(ms), text);
        }
        assert_eq!(
            (plural(1, "record"), plural(0, "record")),
            ("1 record".into(), "0 records".into())
        );
        assert_eq!(
            (count(999), count(1_234_567)),
            ("999".into(), "1\u{202f}234\u{202f}567".into())
        );
    }
}
