//! JSON Pointers (RFC 6901): `/a/0/b~1c` is the member `b/c` of the first element of the member `a`.

/// Splits a pointer into its names; none for the whole.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(pointer: &str) -> Result<Vec<String>, String> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let Some(names) = pointer.strip_prefix('/') else {
        return Err(format!(
            "a JSON Pointer is empty or begins with `/`: write {:?}",
            format!("/{pointer}")
        ));
    };
    names
        .split('/')
        .map(|name| {
            let mut rest = name;
            while let Some(at) = rest.find('~') {
                rest = &rest[at + 1..];
                if !rest.starts_with(['0', '1']) {
                    return Err(format!(
                        "`~` in {name:?} is followed by neither 0 (for `~`) nor 1 (for `/`)"
                    ));
                }
            }
            Ok(name.replace("~1", "/").replace("~0", "~"))
        })
        .collect()
}

/// The element of an array that a name selects: digits without leading zeros.
pub(crate) fn element(name: &str) -> Option<usize> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()) || (name.len() > 1 && name.starts_with('0')) {
        return None;
    }
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_split_and_unescaped() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("/", &[""]),
            ("/a", &["a"]),
            ("/a/0", &["a", "0"]),
            ("/a~1b/m~0n", &["a/b", "m~n"]),
            ("/~01", &["~1"]),
            ("/ /é", &[" ", "é"]),
            ("//", &["", ""]),
        ];
        for (pointer, names) in cases {
            assert_eq!(
                parse(pointer).as_deref(),
                Ok(&names.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
            );
        }
        assert!(parse("a").expect_err("no slash").contains("\"/a\""));
        for pointer in ["/~", "/a~2", "/a~/b", "/~0~"] {
            assert!(
                parse(pointer).expect_err(pointer).contains("followed by neither"),
                "{pointer}"
            );
        }
    }

    #[test]
    fn only_plain_numbers_select_elements() {
        assert_eq!(element("0"), Some(0));
        assert_eq!(element("12"), Some(12));
        for name in ["", "-", "-1", "01", "1e0", "a", "99999999999999999999999"] {
            assert_eq!(element(name), None, "{name}");
        }
    }
}
