//! A stretch of time, as `--window` takes it: `FROM..TO`, each a place in time as in [`super::from`], or nothing.

use std::str::FromStr;

use super::from::From;
use crate::connect::Position;

/// From a moment to one before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Milliseconds since the epoch.
    pub from_ms: Option<i64>,
    /// Milliseconds since the epoch.
    pub to_ms: Option<i64>,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let (from, to) = text
            .split_once("..")
            .ok_or_else(|| format!("`{text}` is no stretch of time: two moments with `..` between them, as `-1h..`"))?;
        let span = Span {
            from_ms: moment(from)?,
            to_ms: moment(to)?,
        };
        match (span.from_ms, span.to_ms) {
            (Some(from), Some(to)) if from >= to => Err(format!("`{text}` ends before it begins")),
            _ => Ok(span),
        }
    }
}

fn moment(text: &str) -> Result<Option<i64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse()? {
        From(Position::Timestamp(ms)) => Ok(Some(ms)),
        _ => Err(format!(
            "`{text}` is no moment: a time ago like `-1h`, or a time like `2024-05-01T12:00:00Z`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_read_and_others_are_refused() {
        let span = |from_ms, to_ms| Ok(Span { from_ms, to_ms });
        assert_eq!("..".parse(), span(None, None));
        assert_eq!("1970-01-01T00:00:01Z..".parse(), span(Some(1000), None));
        assert_eq!("..1970-01-01T00:00:02.5Z".parse(), span(None, Some(2500)));
        assert_eq!(
            "1970-01-01T00:00:01Z..1970-01-01T00:00:02Z".parse(),
            span(Some(1000), Some(2000))
        );
        let ago: Span = "-2h..-1h".parse().expect("two moments");
        assert_eq!(ago.to_ms.zip(ago.from_ms).map(|(to, from)| to - from), Some(3_600_000));
        for (text, said) in [
            ("-1h", "no stretch"),
            ("start..", "no moment"),
            ("@3..", "no moment"),
            ("..yesterday", "neither"),
            ("-1h..-2h", "ends before"),
        ] {
            let error = text.parse::<Span>().expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
