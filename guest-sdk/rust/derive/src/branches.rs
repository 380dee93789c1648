//! `#[derive(Branches)]`: what a plugin writes.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, Result};

use crate::attribute;
use crate::fields::{RowField, write};
use crate::lifetime::{RowLifetime, to_static};
use crate::name::{kebab_case, unknown};

struct BranchAttributes {
    name: String,
    /// `same` or `new`, as the contract's variant.
    value: Ident,
}

impl BranchAttributes {
    fn of(attributes: &[Attribute], default_name: String) -> Result<BranchAttributes> {
        let mut branch = BranchAttributes {
            name: default_name,
            value: format_ident!("Same"),
        };
        attribute::items(attributes, "branch", &["name", "value"], |item, meta| {
            if item == "name" {
                branch.name = attribute::text(meta)?.value();
                return Ok(());
            }
            let value: Ident = meta.value()?.parse()?;
            branch.value = match value.to_string().as_str() {
                "same" => format_ident!("Same"),
                "new" => format_ident!("New"),
                other => return Err(Error::new_spanned(&value, unknown("value", other, &["same", "new"]))),
            };
            Ok(())
        })?;
        Ok(branch)
    }

    fn tokens(&self, fields: TokenStream) -> TokenStream {
        let (name, value) = (&self.name, &self.value);
        quote! {
            ::millstream_sdk::schema::Branch {
                name: #name.into(),
                value: ::millstream_sdk::schema::ValueBase::#value,
                fields: #fields,
            }
        }
    }
}

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    match &input.data {
        Data::Enum(data) => derive_enum(&input, data),
        Data::Struct(_) => derive_row(&input),
        Data::Union(_) => Err(Error::new_spanned(&input.ident, "branches are an enum, or one row")),
    }
}

fn derive_row(input: &DeriveInput) -> Result<TokenStream> {
    let branch = BranchAttributes::of(&input.attrs, "output".into())?;
    let row_lifetime = RowLifetime::of(&input.generics, "a row")?;
    let lifetime = row_lifetime.name();
    let (row, static_row) = (
        row_lifetime.apply(&input.ident),
        row_lifetime.apply_static(&input.ident),
    );
    let branch = branch.tokens(quote!(<Self as ::millstream_sdk::Fields>::fields()));
    let emit = quote! {
        if let [emission] = emissions {
            <#static_row as ::millstream_sdk::Fields>::write(row, emission.next(origin));
        }
    };
    Ok(implementation(
        &lifetime,
        &row,
        &static_row,
        &[branch],
        &[quote!(<Self as ::millstream_sdk::Fields>::DYNAMIC)],
        emit,
    ))
}

fn derive_enum(input: &DeriveInput, data: &syn::DataEnum) -> Result<TokenStream> {
    let row_lifetime = RowLifetime::of(&input.generics, "an enum of branches")?;
    let lifetime = row_lifetime.name();
    let ident = &input.ident;
    let (row, static_row) = (row_lifetime.apply(ident), row_lifetime.apply_static(ident));
    let mut names = HashSet::new();
    let (mut branches, mut dynamic, mut arms) = (Vec::new(), Vec::new(), Vec::new());
    let mut assertions = Vec::new();
    for (at, variant) in data.variants.iter().enumerate() {
        let name = &variant.ident;
        let branch = BranchAttributes::of(&variant.attrs, kebab_case(name))?;
        if !names.insert(branch.name.clone()) {
            return Err(Error::new_spanned(
                name,
                format!("there are two branches named {:?}", branch.name),
            ));
        }
        match &variant.fields {
            Fields::Unit => {
                branches.push(branch.tokens(quote!(::std::vec::Vec::new())));
                dynamic.push(quote!(false));
                arms.push(quote!(#ident::#name => { emissions[#at].next(origin); }));
            }
            Fields::Unnamed(unnamed) if unnamed.unnamed.len() == 1 => {
                let fields = to_static(&unnamed.unnamed[0].ty);
                branches.push(branch.tokens(quote!(<#fields as ::millstream_sdk::Fields>::fields())));
                dynamic.push(quote!(<#fields as ::millstream_sdk::Fields>::DYNAMIC));
                arms.push(quote! {
                    #ident::#name(fields) => {
                        <#fields as ::millstream_sdk::Fields>::write(fields, emissions[#at].next(origin));
                    }
                });
            }
            Fields::Unnamed(unnamed) => {
                return Err(Error::new_spanned(
                    unnamed,
                    "a branch has named fields, or holds one row that derives `Fields`",
                ));
            }
            Fields::Named(named) => {
                let fields = RowField::all(named)?;
                assertions.extend(fields.iter().map(RowField::assertion));
                let mapped = fields.iter().map(RowField::mapped);
                branches.push(branch.tokens(quote!(::std::vec![#(#mapped),*])));
                dynamic.push(quote!(false));
                let idents = fields.iter().map(|field| &field.ident);
                let writes = write(&fields, quote!(__columns));
                arms.push(quote! {
                    #ident::#name { #(#idents),* } => {
                        let __columns = emissions[#at].next(origin);
                        #writes
                    }
                });
            }
        }
    }
    let emit = quote!(match row { #(#arms)* });
    let implementation = implementation(&lifetime, &row, &static_row, &branches, &dynamic, emit);
    Ok(quote!(#(#assertions)* #implementation))
}

fn implementation(
    lifetime: &syn::Lifetime,
    row: &TokenStream,
    static_row: &TokenStream,
    branches: &[TokenStream],
    dynamic: &[TokenStream],
    emit: TokenStream,
) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl ::millstream_sdk::Branches for #static_row {
            type Row<#lifetime> = #row;

            fn branches() -> ::std::vec::Vec<::millstream_sdk::schema::Branch> {
                ::std::vec![#(#branches),*]
            }

            fn is_dynamic(branch: usize) -> bool {
                [#(#dynamic),*][branch]
            }

            #[inline]
            fn emit(row: <Self as ::millstream_sdk::Branches>::Row<'_>, origin: u32, emissions: &mut [::millstream_sdk::Emission]) {
                #emit
            }
        }
    }
}
