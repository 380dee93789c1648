//! A walk over JSON text: where values begin and end, without making anything of them.
//!
//! Decoding needs the text of a few members and nothing of the rest, and writing into a value needs to leave every
//! byte beside the written members as it was. Both are spans of the text, so this is a validator that reports them:
//! the grammar of RFC 8259 in full, one pass, no allocation, no recursion. It is held against `serde_json` in the
//! tests: both accept and refuse the same texts.

use crate::limits::NESTING_MAX;

/// Where a text stops being JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScanError {
    /// Bytes before the place.
    pub at: usize,
    /// What should stand there.
    pub expected: &'static str,
}

impl ScanError {
    /// The error in words, for the text that was scanned.
    pub fn describe(self, text: &str) -> String {
        let ScanError { at, expected } = self;
        match text.get(at..).and_then(|rest| rest.chars().next()) {
            None => format!("{expected} is expected at byte {at}, but the text ends there"),
            Some(found) => format!("{expected} is expected at byte {at}, but {found:?} was found"),
        }
    }
}

/// A place in a text.
pub(crate) struct Scanner<'t> {
    bytes: &'t [u8],
    /// Bytes before it.
    pub at: usize,
}

/// A string in the text.
#[derive(Clone, Copy)]
pub(crate) struct StringSpan {
    /// Where its content begins, behind the quote.
    pub start: usize,
    /// Where its content ends, before the quote.
    pub end: usize,
    /// Whether a backslash is in it.
    pub escaped: bool,
}

impl<'t> Scanner<'t> {
    /// At the beginning of `text`.
    pub fn new(text: &'t str) -> Self {
        Scanner {
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    /// The byte here; 0, which begins nothing in JSON, at the end.
    #[inline(always)]
    pub fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// The bytes of a string's content.
    #[inline(always)]
    pub fn content(&self, string: StringSpan) -> &'t [u8] {
        &self.bytes[string.start..string.end]
    }

    /// An error here.
    #[cold]
    pub fn expected<T>(&self, expected: &'static str) -> Result<T, ScanError> {
        Err(ScanError { at: self.at, expected })
    }

    /// Passes white space.
    #[inline(always)]
    pub fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\t' | b'\r') {
            self.at += 1;
        }
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<(), ScanError> {
        self.space();
        if self.at == self.bytes.len() {
            return Ok(());
        }
        self.expected("the end of the JSON value")
    }

    /// Passes a member's name, its colon and the white space around them.
    #[inline(always)]
    pub fn name(&mut self) -> Result<StringSpan, ScanError> {
        if self.peek() != b'"' {
            return self.expected("a member's name in quotes");
        }
        let name = self.string()?;
        self.space();
        if self.peek() != b':' {
            return self.expected("`:`");
        }
        self.at += 1;
        self.space();
        Ok(name)
    }

    /// Passes an opening bracket and the white space behind it: whether something is inside.
    ///
    /// `depth` is the number of brackets around this one.
    #[inline(always)]
    pub fn open(&mut self, close: u8, depth: usize) -> Result<bool, ScanError> {
        if depth + 1 >= NESTING_MAX {
            return self.expected("a value that is nested less than 128 deep");
        }
        self.at += 1;
        self.space();
        if self.peek() == close {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// Behind a member or element: passes a comma or the closing bracket; whether another one follows.
    #[inline(always)]
    pub fn next(&mut self, close: u8) -> Result<bool, ScanError> {
        self.space();
        let byte = self.peek();
        if byte == b',' {
            self.at += 1;
            self.space();
            return Ok(true);
        }
        if byte == close {
            self.at += 1;
            return Ok(false);
        }
        self.expected(if close == b'}' { "`,` or `}`" } else { "`,` or `]`" })
    }

    /// Passes one whole value, inside of `depth` brackets; this is its first byte.
    #[inline]
    pub fn value(&mut self, depth: usize) -> Result<(), ScanError> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'{' | b'[' => self.nested(depth),
            _ => self.scalar(),
        }
    }

    /// Passes an object or array. One bit a level says which of the two it is, so that depth takes no stack.
    fn nested(&mut self, depth: usize) -> Result<(), ScanError> {
        const _: () = assert!(NESTING_MAX <= 128);
        let mut objects = 0u128;
        let mut levels = 0;
        loop {
            match self.peek() {
                b'"' => self.string().map(drop)?,
                b'{' => {
                    if self.open(b'}', depth + levels)? {
                        objects = objects << 1 | 1;
                        levels += 1;
                        self.name()?;
                        continue;
                    }
                }
                b'[' => {
                    if self.open(b']', depth + levels)? {
                        objects <<= 1;
                        levels += 1;
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            loop {
                if levels == 0 {
                    return Ok(());
                }
                let object = objects & 1 == 1;
                if self.next(if object { b'}' } else { b']' })? {
                    if object {
                        self.name()?;
                    }
                    break;
                }
                objects >>= 1;
                levels -= 1;
            }
        }
    }

    #[inline]
    fn scalar(&mut self) -> Result<(), ScanError> {
        match self.peek() {
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.expected("a JSON value"),
        }
    }

    fn literal(&mut self, literal: &'static [u8]) -> Result<(), ScanError> {
        if !self.bytes[self.at..].starts_with(literal) {
            return self.expected("a JSON value");
        }
        self.at += literal.len();
        Ok(())
    }

    #[inline]
    fn number(&mut self) -> Result<(), ScanError> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn digits(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start {
            self.expected("a digit")
        } else {
            Ok(())
        }
    }

    /// Passes a string; this is its opening quote.
    #[inline]
    pub fn string(&mut self) -> Result<StringSpan, ScanError> {
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            at = self.plain(at);
            match self.bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(StringSpan {
                        start,
                        end: at,
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    at = self.escape(at)?;
                }
                Some(_) => {
                    self.at = at;
                    return self.expected("an escape instead of a control character");
                }
                None => {
                    self.at = at;
                    return self.expected("a closing quote");
                }
            }
        }
    }

    /// The first place from `at` on with a quote, a backslash or a control character: eight bytes at a time.
    #[inline(always)]
    fn plain(&self, mut at: usize) -> usize {
        const ONES: u64 = u64::MAX / 255;
        const TOPS: u64 = ONES << 7;
        // The top bit of each byte that is zero. Bytes behind the first such may be marked wrongly, which is why only
        // the first mark counts.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        while let Some(eight) = self.bytes.get(at..at + 8) {
            let word = u64::from_le_bytes(eight.try_into().expect("eight bytes"));
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            let marks =
                (control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')))) & TOPS;
            if marks != 0 {
                return at + (marks.trailing_zeros() / 8) as usize;
            }
            at += 8;
        }
        while self
            .bytes
            .get(at)
            .is_some_and(|&byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
        {
            at += 1;
        }
        at
    }

    /// Where the escape that begins at `at` ends. Halves of surrogate pairs may stand alone, as the grammar has it;
    /// whoever wants the characters finds out.
    #[cold]
    fn escape(&mut self, at: usize) -> Result<usize, ScanError> {
        match self.bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u') => {
                let digits = self.bytes[at + 2..]
                    .iter()
                    .take(4)
                    .take_while(|byte| byte.is_ascii_hexdigit())
                    .count();
                self.at = at + 2 + digits;
                if digits == 4 {
                    Ok(self.at)
                } else {
                    self.expected("a hexadecimal digit")
                }
            }
            _ => {
                self.at = at + 1;
                self.expected("an escape (one of `\"\\/bfnrtu`)")
            }
        }
    }
}

/// Whether a text is one JSON value inside of `depth` brackets, white space around it allowed.
pub(crate) fn validate(text: &str, depth: usize) -> Result<(), ScanError> {
    let mut scanner = Scanner::new(text);
    scanner.space();
    scanner.value(depth)?;
    scanner.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agrees(text: &str) {
        let ours = validate(text, 0);
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(text);
        assert_eq!(
            ours.is_ok(),
            theirs.is_ok(),
            "{text:?}: {ours:?}, serde_json says {theirs:?}"
        );
    }

    #[test]
    fn json_and_nothing_else_is_json() {
        let json = "0 -0 1 -1.5 1e5 1E+5 1.0e-5 12345678901234567890123 \"\" \"a\" \"\\u00e9\\ud800\\n\\/\" true false null \
                    [] {} [[]] [{}] {\"a\":[]} {\"a\":1,\"b\":[1,2,{\"c\":null}],\"a\":2} \"exactly8\" \"é😀\"";
        for text in json.split_ascii_whitespace() {
            agrees(text);
            assert_eq!(validate(text, 0), Ok(()), "{text}");
            assert_eq!(validate(&format!(" \n{text}\t\r"), 0), Ok(()), "{text}");
        }
        let broken = "01 -  1. .5 1e 1e+ +1 --1 tru nul True [1,] [1 {\"a\"} {\"a\":} {\"a\":1,} {a:1} {1:1} [1}1 {]} \"\\x\" \
                      \"\\u12 \"\\u12g4\" \" \"\\ ] } , : 1,2 [1]] {}{} 'a' NaN Infinity //x [,1] {,} \u{feff}1 \u{a0}1 [1,,2]";
        for text in broken.split(' ') {
            agrees(text);
            assert!(validate(text, 0).is_err(), "{text}");
        }
        for control in [
            "\"\u{1}\"",
            "\"12345678\n\"",
            "\"\u{0}",
            "\u{0}",
            "1\u{0}",
            "\"\u{7f}\"",
        ] {
            agrees(control);
        }
    }

    #[test]
    fn nesting_is_bounded_where_serde_json_bounds_it() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for depth in [1, 126, 127, 128, 129, 100_000] {
                let text = format!("{}0{}", open.repeat(depth), close.repeat(depth));
                let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
                assert_eq!(validate(&text, 0).is_ok(), theirs, "{depth}");
                assert_eq!(theirs, depth < NESTING_MAX);
            }
        }
        assert!(validate("[[]]", NESTING_MAX - 2).is_err());
    }

    #[test]
    fn errors_name_the_place() {
        let cases = [
            ("", "a JSON value is expected at byte 0, but the text ends there"),
            ("{\"a\":1 x}", "`,` or `}` is expected at byte 7, but 'x' was found"),
            ("[1,2", "`,` or `]` is expected at byte 4, but the text ends there"),
            ("{\"é\" 1}", "`:` is expected at byte 6, but '1' was found"),
            (
                "{} {}",
                "the end of the JSON value is expected at byte 3, but '{' was found",
            ),
            ("\"ab", "a closing quote is expected at byte 3, but the text ends there"),
            ("-é", "a digit is expected at byte 1, but 'é' was found"),
        ];
        for (text, message) in cases {
            assert_eq!(validate(text, 0).expect_err(text).describe(text), message);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_as_serde_json_judges_it(text in r#"[\[\]{}":,0-9eE+.\-tfn \\u"a-fé]{0,24}"#) {
            agrees(&text);
        }

        #[test]
        fn a_damaged_value_is_judged_as_serde_json_judges_it(at in 0usize..120, byte in 0u8..128) {
            let mut text = r#"{"a":[1,-2.5e3,true,null],"long name with \"quotes\" and \u00e9":{"b":"text","c":[]},"d":0}"#.to_owned().into_bytes();
            let at = at % text.len();
            text[at] = byte;
            agrees(std::str::from_utf8(&text).expect("ASCII"));
            text.truncate(at);
            agrees(std::str::from_utf8(&text).expect("ASCII"));
        }
    }
}
