//! What `#[field(…)]`, `#[branch(…)]`, `#[input(…)]` and `#[config(…)]` say.

use syn::meta::ParseNestedMeta;
use syn::{Attribute, Error, Expr, ExprLit, Lit, LitStr, Meta, Result, Token};

use crate::name::unknown;

/// Shows each item of the attributes named `name` to `take`, which takes it or says which there are.
pub(crate) fn items(
    attributes: &[Attribute],
    name: &str,
    known: &[&str],
    mut take: impl FnMut(&str, &ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    let mut seen: Vec<String> = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(name)) {
        attribute.parse_nested_meta(|meta| {
            let item = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            if !known.contains(&item.as_str()) {
                return Err(meta.error(unknown(&format!("item of `#[{name}]`"), &item, known)));
            }
            if seen.contains(&item) {
                return Err(meta.error(format!("`{item}` is given twice")));
            }
            take(&item, &meta)?;
            seen.push(item);
            Ok(())
        })?;
    }
    Ok(())
}

/// The text behind `=`.
pub(crate) fn text(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    meta.value()?.parse()
}

/// The text behind `=`, if there is one.
pub(crate) fn optional_text(meta: &ParseNestedMeta<'_>) -> Result<Option<LitStr>> {
    if meta.input.peek(Token![=]) {
        text(meta).map(Some)
    } else {
        Ok(None)
    }
}

/// A text that is a JSON Pointer.
pub(crate) fn pointer(text: &LitStr) -> Result<()> {
    let value = text.value();
    if !value.is_empty() && !value.starts_with('/') {
        let message = format!(
            "a path is a JSON Pointer and begins with a slash: \"/{}\"",
            value.replace('.', "/")
        );
        return Err(Error::new_spanned(text, message));
    }
    if value.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
        return Err(Error::new_spanned(
            text,
            "in a JSON Pointer `~` is written `~0`, and `/` in a name `~1`",
        ));
    }
    Ok(())
}

/// The comment of an item, its lines joined.
pub(crate) fn documentation(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text), ..
            }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    };
    attributes
        .iter()
        .filter_map(line)
        .collect::<Vec<_>>()
        .join(" ")
        .trim()
        .to_owned()
}
