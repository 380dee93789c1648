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
