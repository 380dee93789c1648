//! The lifetime of a row that borrows.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Error, GenericParam, Generics, Lifetime, Result};

/// The lifetime of a type with at most one, and nothing else that is generic.
pub(crate) struct RowLifetime {
    own: Option<Lifetime>,
}

impl RowLifetime {
    pub(crate) fn of(generics: &Generics, what: &str) -> Result<RowLifetime> {
        let mut own = None;
        for parameter in &generics.params {
            match parameter {
                GenericParam::Lifetime(lifetime) if own.is_none() => own = Some(lifetime.lifetime.clone()),
                GenericParam::Lifetime(lifetime) => {
                    return Err(Error::new_spanned(
                        lifetime,
                        format!("{what} borrows from its batch alone: one lifetime is enough"),
                    ));
                }
                other => {
                    return Err(Error::new_spanned(
                        other,
                        format!("{what} has no type or const parameters"),
                    ));
                }
            }
        }
        Ok(RowLifetime { own })
    }

    /// The lifetime by its own name, or a made one.
    pub(crate) fn name(&self) -> Lifetime {
        self.own
            .clone()
            .unwrap_or_else(|| Lifetime::new("'row", proc_macro2::Span::call_site()))
    }

    /// `Ride<'a>` or `Ride`, for the lifetime's own name.
    pub(crate) fn apply(&self, ident: &Ident) -> TokenStream {
        match &self.own {
            Some(lifetime) => quote!(#ident<#lifetime>),
            None => quote!(#ident),
        }
    }

    /// `Ride<'static>` or `Ride`.
    pub(crate) fn apply_static(&self, ident: &Ident) -> TokenStream {
        match &self.own {
            Some(_) => quote!(#ident<'static>),
            None => quote!(#ident),
        }
    }
}

/// The tokens with every lifetime `'static`.
pub(crate) fn to_static(tokens: impl ToTokens) -> TokenStream {
    let mut after_quote = false;
    let replace = |token| match token {
        TokenTree::Group(group) => {
            let mut replaced = Group::new(group.delimiter(), to_static(group.stream()));
            replaced.set_span(group.span());
            TokenTree::Group(replaced)
        }
        TokenTree::Ident(ident) if std::mem::take(&mut after_quote) => {
            TokenTree::Ident(Ident::new("static", ident.span()))
        }
        TokenTree::Punct(punct) => {
            after_quote = punct.as_char() == '\'';
            TokenTree::Punct(punct)
        }
        other => other,
    };
    tokens.into_token_stream().into_iter().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_become_static_at_any_depth() {
        let tokens = to_static(quote!(Option<(&'a str, Ride<'b>, [char; 'x' as usize])>));
        assert_eq!(
            tokens.to_string(),
            quote!(Option<(&'static str, Ride<'static>, [char; 'x' as usize])>).to_string()
        );
    }
}
