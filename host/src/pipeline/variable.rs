//! `${VAR}` in the strings of a pipeline file.

use std::ops::Range;

/// Where the values of variables come from: a name, and its value if it is set.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// A string whose variables were replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub text: String,
    /// Names and values of the variables that the environment gave: they may be secret.
    pub from_environment: Vec<(String, String)>,
    /// Whether any variable was there, set or by default.
    pub varied: bool,
}

/// Why a string cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct VariableError {
    pub message: String,
    pub help: String,
    /// Where in the string.
    pub at: Range<usize>,
}

/// Replaces `${NAME}` by its value and `${NAME:-default}` by its value or, where that is unset or empty, by the
/// default. `$${` is a `${` that stands for itself.
pub(crate) fn expand(text: &str, environment: Environment<'_>) -> Result<Expanded, Vec<VariableError>> {
    let mut expanded = Expanded::default();
    let mut errors = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${").map(|found| at + found) {
        if text[at..found].ends_with('$') {
            expanded.text.push_str(&text[at..found]);
            expanded.text.push('{');
            at = found + 2;
            continue;
        }
        expanded.text.push_str(&text[at..found]);
        let Some(length) = text[found..].find('}') else {
            errors.push(VariableError {
                message: "a variable is not closed".into(),
                help: "end it with `}`, or write `$${` for a `${` that stands for itself".into(),
                at: found..text.len(),
            });
            at = text.len();
            break;
        };
        let place = found..found + length + 1;
        at = place.end;
        match value(&text[found + 2..found + length], environment) {
            Ok(value) => {
                expanded.varied = true;
                expanded.text.push_str(&value.text);
                expanded.from_environment.extend(value.from_environment);
            }
            Err((message, help)) => errors.push(VariableError {
                message,
                help,
                at: place,
            }),
        }
    }
    expanded.text.push_str(&text[at..]);
    if errors.is_empty() { Ok(expanded) } else { Err(errors) }
}

/// Whether a string is one variable and nothing else.
pub(super) fn is_variable(text: &str) -> bool {
    text.starts_with("${") && text.find('}') == Some(text.len() - 1)
}

fn value(inner: &str, environment: Environment<'_>) -> Result<Expanded, (String, String)> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(plain) {
        return Err((
            format!("`{name}` is not a variable's name"),
            "letters, digits and `_` make a name; write `$${` for a `${` that stands for itself".into(),
        ));
    }
    match (environment(name), default) {
        (Some(set), default) if !set.is_empty() || default.is_none() => Ok(Expanded {
            text: set.clone(),
            from_environment: vec![(name.into(), set)],
            varied: true,
        }),
        (_, Some(default)) => Ok(Expanded {
            text: default.into(),
            ..Expanded::default()
        }),
        (_, None) => Err((
            format!("the variable `{name}` is not set"),
            format!("set it in the environment, or give a default: `${{{name}:-…}}`"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "CITY" => Some("york".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced() {
        let cases = [
            ("rides", "rides"),
            ("${CITY}", "york"),
            ("new-${CITY}-${CITY}s", "new-york-yorks"),
            ("${NONE:-a b}", "a b"),
            ("${CITY:-x}", "york"),
            ("[${EMPTY}]", "[]"),
            ("${EMPTY:-x}", "x"),
            ("${NONE:-}", ""),
            ("$${CITY}", "${CITY}"),
            ("$$${CITY}", "$${CITY}"),
            ("$5 {CITY} $", "$5 {CITY} $"),
            ("é${CITY}é", "éyorké"),
        ];
        for (text, expected) in cases {
            assert_eq!(
                expand(text, &environment).map(|expanded| expanded.text).as_deref(),
                Ok(expected),
                "{text}"
            );
        }
        assert_eq!(
            expand("${CITY}${NONE:-x}", &environment).expect("set").from_environment,
            [("CITY".into(), "york".into())]
        );
    }

    #[test]
    fn a_variable_alone_is_told_from_text_with_one() {
        for (text, alone) in [
            ("${CITY}", true),
            ("${CITY:-a b}", true),
            ("${CITY}s", false),
            ("${A}${B}", false),
            ("$${CITY}", false),
            ("${CITY", false),
            ("", false),
        ] {
            assert_eq!(is_variable(text), alone, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_named_and_placed() {
        let cases = [
            ("a ${NONE} b", "the variable `NONE` is not set", 2..9),
            ("é${CITY", "not closed", 2..8),
            ("${file:x}", "`file:x` is not a variable's name", 0..9),
            ("${}", "`` is not", 0..3),
            ("${1A}", "`1A` is not", 0..5),
        ];
        for (text, message, at) in cases {
            let errors = expand(text, &environment).expect_err(text);
            assert!(errors[0].message.contains(message), "{errors:?}");
            assert_eq!(errors[0].at, at);
        }
        assert_eq!(expand("${A}${B}", &environment).expect_err("both").len(), 2);
    }
}
