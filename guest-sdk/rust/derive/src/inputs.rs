//! `#[derive(Inputs)]`: several streams.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Result};

use crate::attribute;
use crate::lifetime::{RowLifetime, to_static};
use crate::name::kebab_case;

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            "inputs are an enum with a row in each variant; a plugin with one input reads the row itself",
        ));
    };
    let row_lifetime = RowLifetime::of(&input.generics, "an enum of inputs")?;
    let lifetime = row_lifetime.name();
    let (ident, visibility) = (&input.ident, &input.vis);
    let columns = format_ident!("{ident}Columns");
    let (row, static_row) = (row_lifetime.apply(ident), row_lifetime.apply_static(ident));
    let mut seen = HashSet::new();
    let (mut names, mut variants, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for variant in &data.variants {
        let mut name = kebab_case(&variant.ident);
        attribute::items(&variant.attrs, "input", &["name"], |_, meta| {
            name = attribute::text(meta)?.value();
            Ok(())
        })?;
        if !seen.insert(name.clone()) {
            return Err(Error::new_spanned(
                &variant.ident,
                format!("there are two inputs named {name:?}"),
            ));
        }
        let Fields::Unnamed(unnamed) = &variant.fields else {
            return Err(Error::new_spanned(
                variant,
                "an input holds one row that derives `Fields`",
            ));
        };
        if unnamed.unnamed.len() != 1 {
            return Err(Error::new_spanned(
                variant,
                "an input holds one row that derives `Fields`",
            ));
        }
        names.push(name);
        variants.push(&variant.ident);
        rows.push(to_static(&unnamed.unnamed[0].ty));
    }
    let indices: Vec<_> = (0..names.len()).collect();
    let columns_doc = format!("The columns of a batch of [`{ident}`], which is of one stream.");
    Ok(quote! {
        #[doc = #columns_doc]
        #[allow(missing_docs)]
        #visibility enum #columns<#lifetime> {
            #(#variants(<#rows as ::millstream_sdk::Fields>::Columns<#lifetime>)),*
        }

        #[automatically_derived]
        impl ::millstream_sdk::Input for #static_row {
            type Row<#lifetime> = #row;
            type Columns<#lifetime> = #columns<#lifetime>;

            fn inputs() -> ::std::vec::Vec<::millstream_sdk::schema::Input> {
                ::std::vec![#(::millstream_sdk::schema::Input {
                    name: #names.into(),
                    fields: <#rows as ::millstream_sdk::Fields>::fields(),
                }),*]
            }

            fn is_dynamic(input: usize) -> bool {
                [#(<#rows as ::millstream_sdk::Fields>::DYNAMIC),*][input]
            }

            fn columns<#lifetime>(
                input: usize,
                table: &#lifetime ::millstream_sdk::table::Table,
                fields: &[::millstream_sdk::schema::MappedField],
            ) -> ::core::result::Result<<Self as ::millstream_sdk::Input>::Columns<#lifetime>, ::std::string::String> {
                match input {
                    #(#indices => <#rows as ::millstream_sdk::Fields>::columns(table, fields).map(#columns::#variants),)*
                    _ => ::core::result::Result::Err(::std::format!("there is no input {input}")),
                }
            }

            #[inline]
            fn read<#lifetime>(columns: &<Self as ::millstream_sdk::Input>::Columns<#lifetime>, row: usize) -> <Self as ::millstream_sdk::Input>::Row<#lifetime> {
                match columns {
                    #(#columns::#variants(columns) => {
                        #ident::#variants(<#rows as ::millstream_sdk::Fields>::read(columns, row))
                    })*
                }
            }
        }
    })
}
