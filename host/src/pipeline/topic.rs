//! What a topic may be called: Kafka's rules, so that a pipeline runs on either engine.

use crate::limits::TOPIC_NAME_BYTES_MAX;

/// Holds a name against the rules.
///
/// # Errors
/// Which rule it breaks, in words that follow the name.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".into());
    }
    if name == "." || name == ".." {
        return Err("is the name of a folder".into());
    }
    if let Some(other) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        return Err(format!(
            "has {other:?} in it; letters, digits, `.`, `_` and `-` are allowed"
        ));
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(format!(
            "has {} characters; {TOPIC_NAME_BYTES_MAX} are allowed",
            name.len()
        ));
    }
    if name.starts_with("__") {
        return Err("begins with `__`, which is kept for the engine's own topics".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        for name in ["rides", "a.b_c-D9", "_x", "...", &"x".repeat(249)] {
            assert_eq!(check_topic_name(name), Ok(()), "{name}");
        }
        let cases = [
            ("", "empty"),
            (".", "folder"),
            ("..", "folder"),
            ("a b", "' '"),
            ("a/b", "'/'"),
            ("é", "'é'"),
            ("__consumer_offsets", "begins with `__`"),
            (&*"x".repeat(250), "250 characters"),
        ];
        for (name, message) in cases {
            assert!(check_topic_name(name).expect_err(name).contains(message), "{name}");
        }
    }
}
