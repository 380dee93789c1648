//! `#[store(…)]`: the fields of a plugin that are stores.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Expr, Field, Result, Token, Type};

use crate::attribute;
use crate::name::kebab_case;

/// Whether a field is a store: by its attribute, or by the name of its type.
pub(crate) fn is_store(field: &Field) -> bool {
    let named_so = match &field.ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Store"),
        _ => false,
    };
    named_so || field.attrs.iter().any(|attribute| attribute.path().is_ident("store"))
}

/// The stores, made, as fields of a struct's expression.
pub(crate) fn made(fields: &[&Field]) -> Result<TokenStream> {
    let mut names = HashSet::new();
    let mut made = TokenStream::new();
    for field in fields {
        let ident = field.ident.as_ref().expect("a named field has a name");
        let (ty, mut name) = (&field.ty, kebab_case(ident));
        let (mut ordered, mut time_to_live) = (false, None);
        let items = &["name", "ordered", "time_to_live"];
        attribute::items(&field.attrs, "store", items, |item, meta| {
            match item {
                "name" => name = attribute::text(meta)?.value(),
                "ordered" => ordered = true,
                _ if meta.input.peek(Token![=]) => time_to_live = Some(meta.value()?.parse::<Expr>()?),
                _ => return Err(meta.error("it is a `Duration`: `time_to_live = Duration::from_hours(24)`")),
            }
            Ok(())
        })?;
        if !names.insert(name.clone()) {
            return Err(Error::new_spanned(
                ident,
                format!("there are two stores named {name:?}"),
            ));
        }
        let ordered = ordered.then(|| quote!(.ordered()));
        let time_to_live = time_to_live.map(|duration| quote!(.time_to_live(#duration)));
        made.extend(quote!(#ident: <#ty>::new(#name) #ordered #time_to_live,));
    }
    Ok(made)
}
