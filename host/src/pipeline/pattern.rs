//! Patterns of topics' names.

use std::fmt;

use regex::Regex;

/// A regular expression that the whole name of a topic has to match.
#[derive(Clone, Debug)]
pub struct TopicPattern {
    text: String,
    regex: Regex,
}

/// A compiled pattern takes so many bytes at most.
const COMPILED_BYTES_MAX: usize = 1 << 20;

impl TopicPattern {
    /// What all implementations of regular expressions read alike: characters, `.`, `[…]`, `(…|…)`, `?`, `*`, `+`, `{n,m}`,
    /// and `\` before a character that would mean something else.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow "the pattern".
    pub fn new(text: &str) -> Result<TopicPattern, String> {
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let next = characters.peek().copied();
            match (character, next) {
                ('\\', Some(next)) if next.is_ascii_punctuation() => {
                    characters.next();
                }
                ('\\', next) => {
                    let next = next.map_or(String::new(), String::from);
                    return Err(format!("has `\\{next}`, which not every Kafka client reads alike"));
                }
                ('(', Some('?')) => return Err("has `(?`, which not every Kafka client reads alike".into()),
                ('^' | '$', _) => return Err(format!("has `{character}`: it is for the whole name in any case")),
                ('[', Some('^')) => {
                    characters.next();
                }
                _ => {}
            }
        }
        let regex = regex::RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| format!("is none: {error}"))?;
        Ok(TopicPattern {
            text: text.to_owned(),
            regex,
        })
    }

    /// Whether this topic is meant. The engine's own never are.
    pub fn matches(&self, topic: &str) -> bool {
        !topic.starts_with("__") && self.regex.is_match(topic)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &TopicPattern) -> bool {
        self.text == other.text
    }
}

impl Eq for TopicPattern {}

impl fmt::Display for TopicPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_name_counts() {
        let pattern = TopicPattern::new("rides-.*|trips\\.[0-9]{4}").expect("sound");
        for (topic, meant) in [
            ("rides-york", true),
            ("rides-", true),
            ("old-rides-york", false),
            ("trips.2020", true),
            ("trips-2020", false),
            ("trips.20201", false),
        ] {
            assert_eq!(pattern.matches(topic), meant, "{topic}");
        }
        assert!(!TopicPattern::new(".*").expect("sound").matches("__consumer_offsets"));
    }

    #[test]
    fn what_is_read_in_different_ways_is_refused() {
        for (text, message) in [
            ("\\d+", "`\\d`"),
            ("a\\", "`\\`"),
            ("(?i)a", "`(?`"),
            ("^a", "`^`"),
            ("a$", "whole name"),
            ("a(", "unclosed group"),
            ("(a{1000}){1000}", "exceeds size limit"),
        ] {
            let error = TopicPattern::new(text).expect_err(text);
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(TopicPattern::new("[^a]b").expect("sound").matches("cb"));
    }
}
