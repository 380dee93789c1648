//! What the macros say of source that they cannot use.

use syn::{DeriveInput, parse_str};

use crate::{branches, config, fields, inputs};

type Derive = fn(DeriveInput) -> syn::Result<proc_macro2::TokenStream>;

fn error(derive: Derive, source: &str) -> String {
    derive(parse_str(source).expect(source)).expect_err(source).to_string()
}

#[test]
fn each_mistake_in_a_row_is_named() {
    let cases = [
        (
            "struct R { #[field(pth = \"/a\")] a: f64 }",
            "unknown item of `#[field]` `pth`: did you mean `path`?",
        ),
        ("struct R { #[field(colour)] a: f64 }", "there are path, key, header"),
        (
            "struct R { #[field(path = \"a.b\")] a: f64 }",
            "begins with a slash: \"/a/b\"",
        ),
        ("struct R { #[field(path = \"/a~b\")] a: f64 }", "`~` is written `~0`"),
        (
            "struct R { #[field(key, offset)] a: i64 }",
            "one place, but this one has `key` and `offset`",
        ),
        (
            "struct R { #[field(path = \"/a\", path = \"/b\")] a: f64 }",
            "`path` is given twice",
        ),
        (
            "struct R { a: f64, #[field(name = \"a\")] b: f64 }",
            "two fields named \"a\"",
        ),
        (
            "struct R { #[carry_over(form = \"b\")] a: f64 }",
            "`form`: did you mean `from`?",
        ),
        (
            "struct R { #[carry_over(from = \"b\", default = 0)] a: f64 }",
            "comes `from` another, or has a `default`",
        ),
        ("struct R(f64);", "a struct with named fields"),
        ("enum R { A }", "a struct with named fields"),
        ("struct R<T> { a: T }", "no type or const parameters"),
        ("struct R<'a, 'b> { a: &'a str, b: &'b str }", "one lifetime is enough"),
    ];
    for (source, message) in cases {
        let error = error(fields::derive, source);
        assert!(error.contains(message), "{source}: {error:?} does not say {message:?}");
    }
}

#[test]
fn each_mistake_in_branches_and_inputs_is_named() {
    let cases: &[(Derive, &str, &str)] = &[
        (
            branches::derive,
            "enum B { A, #[branch(name = \"a\")] C }",
            "two branches named \"a\"",
        ),
        (
            branches::derive,
            "enum B { #[branch(value = old)] A }",
            "unknown value `old`: there are same, new",
        ),
        (
            branches::derive,
            "enum B { #[branch(value = nwe)] A }",
            "did you mean `new`?",
        ),
        (branches::derive, "enum B { A(Row, Row) }", "holds one row"),
        (
            branches::derive,
            "enum B { A { #[field(hedaer = \"h\")] h: String } }",
            "did you mean `header`?",
        ),
        (branches::derive, "union B { a: u8 }", "branches are an enum"),
        (inputs::derive, "struct I { a: f64 }", "reads the row itself"),
        (inputs::derive, "enum I { A { a: f64 } }", "holds one row"),
        (
            inputs::derive,
            "enum I { A(Row), #[input(name = \"a\")] B(Row) }",
            "two inputs named \"a\"",
        ),
    ];
    for (derive, source, message) in cases {
        let error = error(*derive, source);
        assert!(error.contains(message), "{source}: {error:?} does not say {message:?}");
    }
}

#[test]
fn each_mistake_in_a_configuration_is_named() {
    let cases = [
        ("struct C(f64);", "named fields, or without any"),
        ("struct C { #[config(defualt = 1)] a: u8 }", "did you mean `default`?"),
        (
            "struct C { a: u8, #[config(name = \"a\")] b: u8 }",
            "two settings named \"a\"",
        ),
        ("enum C { A(u8) }", "a choice has no fields"),
        ("enum C { A, #[config(name = \"a\")] B }", "two choices named \"a\""),
        ("struct C<T> { a: T }", "has no parameters"),
        (
            "struct C { #[store(order)] a: Store<i64, i64> }",
            "`order`: did you mean `ordered`?",
        ),
        (
            "struct C { #[store(time_to_live)] a: Store<i64, i64> }",
            "it is a `Duration`",
        ),
        (
            "struct C { a: Store<i64, i64>, #[store(name = \"a\")] b: Store<i64, i64> }",
            "two stores named \"a\"",
        ),
    ];
    for (source, message) in cases {
        let error = error(config::derive, source);
        assert!(error.contains(message), "{source}: {error:?} does not say {message:?}");
    }
}
