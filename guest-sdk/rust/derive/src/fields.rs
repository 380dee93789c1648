//! `#[derive(Fields)]`: rows.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Expr, Fields, FieldsNamed, Ident, LitStr, Result, Token, Type, Visibility};

use crate::attribute;
use crate::lifetime::{RowLifetime, to_static};

const ITEMS: &[&str] = &[
    "path",
    "key",
    "header",
    "timestamp",
    "offset",
    "raw_value",
    "raw_key",
    "tombstone",
    "name",
];

/// A field of a row.
pub(crate) struct RowField {
    pub(crate) ident: Ident,
    visibility: Visibility,
    ty: Type,
    name: String,
    place: Place,
    /// The value of `Carried` for it.
    carried: TokenStream,
}

enum Place {
    Value(String),
    Key(String),
    Header(String),
    /// A place that is one of a kind: its variant in the contract, the types that it takes, and how people call it.
    Fixed(&'static str, &'static [&'static str]),
}

impl RowField {
    /// The fields of a struct or of a variant.
    pub(crate) fn all(fields: &FieldsNamed) -> Result<Vec<RowField>> {
        let mut names = HashSet::new();
        let mut all = Vec::new();
        for field in &fields.named {
            let field = RowField::of(field)?;
            if !names.insert(field.name.clone()) {
                return Err(Error::new_spanned(
                    &field.ident,
                    format!("there are two fields named {:?}", field.name),
                ));
            }
            all.push(field);
        }
        Ok(all)
    }

    fn of(field: &syn::Field) -> Result<RowField> {
        let ident = field.ident.clone().expect("a named field has a name");
        let mut name = ident.unraw().to_string();
        let mut place: Option<(String, Place)> = None;
        attribute::items(&field.attrs, "field", ITEMS, |item, meta| {
            if item == "name" {
                name = attribute::text(meta)?.value();
                return Ok(());
            }
            let found = match item {
                "path" => {
                    let path = attribute::text(meta)?;
                    attribute::pointer(&path)?;
                    Place::Value(path.value())
                }
                "key" => {
                    let path = attribute::optional_text(meta)?;
                    path.as_ref().map(attribute::pointer).transpose()?;
                    Place::Key(path.as_ref().map(LitStr::value).unwrap_or_default())
                }
                "header" => Place::Header(attribute::text(meta)?.value()),
                "timestamp" => Place::Fixed("Timestamp", &["Time"]),
                "offset" => Place::Fixed("Offset", &["Integer"]),
                "raw_value" => Place::Fixed("RawValue", &["Bytes"]),
                "raw_key" => Place::Fixed("RawKey", &["Bytes"]),
                _ => Place::Fixed("Tombstone", &["Boolean"]),
            };
            if let Some((other, _)) = &place {
                return Err(meta.error(format!(
                    "a field has one place, but this one has `{other}` and `{item}`"
                )));
            }
            place = Some((item.to_owned(), found));
            Ok(())
        })?;
        let place = place.map_or_else(
            || Place::Value(format!("/{}", name_in_path(&ident))),
            |(_, place)| place,
        );
        let carried = carried(field, &name)?;
        Ok(RowField {
            ident,
            visibility: field.vis.clone(),
            ty: field.ty.clone(),
            name,
            place,
            carried,
        })
    }

    /// The field as it stands in a signature.
    pub(crate) fn mapped(&self) -> TokenStream {
        let (name, ty) = (&self.name, to_static(&self.ty));
        let place = match &self.place {
            Place::Value(path) => quote!(Value(#path.into())),
            Place::Key(path) => quote!(Key(#path.into())),
            Place::Header(header) => quote!(Header(#header.into())),
            Place::Fixed(variant, _) => format_ident!("{variant}").into_token_stream(),
        };
        quote! {
            ::millstream_sdk::schema::MappedField::new(
                #name,
                <#ty as ::millstream_sdk::Cell<'static>>::TYPE,
                <#ty as ::millstream_sdk::Cell<'static>>::OPTIONAL,
                ::millstream_sdk::schema::Place::#place,
            )
        }
    }

    /// Fails to compile where the type does not go with the place.
    pub(crate) fn assertion(&self) -> TokenStream {
        let (types, place): (&[&str], &str) = match &self.place {
            Place::Value(_) | Place::Key(_) => return TokenStream::new(),
            Place::Header(_) => (&["Text", "Bytes"], "a header"),
            Place::Fixed(variant, types) => (types, variant),
        };
        let article = |name: &str| match name {
            "Time" => "`Time`",
            "Integer" => "`i64`",
            "Bytes" => "`&[u8]` or `Vec<u8>`",
            "Boolean" => "`bool`",
            _ => "`&str` or `String`",
        };
        let allowed = types.iter().map(|name| article(name)).collect::<Vec<_>>().join(", ");
        let place = match place {
            "Timestamp" => "the timestamp",
            "Offset" => "the offset",
            "RawValue" => "the raw value",
            "RawKey" => "the raw key",
            "Tombstone" => "the mark of a tombstone",
            other => other,
        };
        let types = types.iter().map(|name| format_ident!("{name}"));
        let never_null = matches!(&self.place, Place::Fixed("Timestamp" | "Offset" | "Tombstone", _));
        let message = format!("the type of {place} is {allowed}");
        let ty = to_static(&self.ty);
        let null = never_null.then(|| {
            let message = format!("{place} is never null: the field is not an `Option`");
            quote_spanned! {self.ty.span()=>
                const _: () = assert!(!<#ty as ::millstream_sdk::Cell<'static>>::OPTIONAL, #message);
            }
        });
        quote_spanned! {self.ty.span()=>
            const _: () = assert!(
                matches!(
                    <#ty as ::millstream_sdk::Cell<'static>>::TYPE,
                    #(::millstream_sdk::schema::FieldType::#types)|*
                ),
                #message
            );
            #null
        }
    }
}

/// Where the field comes from in a row of an earlier version: `#[carry_over(…)]`, or its own name.
fn carried(field: &syn::Field, name: &str) -> Result<TokenStream> {
    let same = |name: &str| quote!(::millstream_sdk::schema::Carried::Same(#name.into()));
    let mut carried = None;
    attribute::items(&field.attrs, "carry_over", &["from", "default"], |item, meta| {
        let found = match item {
            "from" => same(&attribute::text(meta)?.value()),
            _ if meta.input.peek(Token![=]) => {
                let default: Expr = meta.value()?.parse()?;
                quote! {
                    ::millstream_sdk::schema::Carried::Constant(
                        ::millstream_sdk::__private::serde_json::json!(#default).to_string()
                    )
                }
            }
            _ => quote!(::millstream_sdk::schema::Carried::Constant("null".into())),
        };
        match carried.replace(found) {
            None => Ok(()),
            Some(_) => Err(meta.error("a field comes `from` another, or has a `default`")),
        }
    })?;
    Ok(carried.unwrap_or_else(|| same(name)))
}

/// The name of a member that is named like the field.
fn name_in_path(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// Writes fields, which are variables by their names, to `columns`, a `&mut [Cells]`.
pub(crate) fn write(fields: &[RowField], columns: TokenStream) -> TokenStream {
    let names: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let cells: Vec<_> = (0..fields.len()).map(|at| format_ident!("__column_{at}")).collect();
    quote! {
        if let [#(#cells),*] = #columns {
            #(::millstream_sdk::Cell::write(#names, #cells);)*
        }
    }
}

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let named = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(named) => named,
            _ => return Err(Error::new_spanned(&input.ident, "a row is a struct with named fields")),
        },
        _ => return Err(Error::new_spanned(&input.ident, "a row is a struct with named fields")),
    };
    let fields = RowField::all(named)?;
    let row_lifetime = RowLifetime::of(&input.generics, "a row")?;
    let lifetime = row_lifetime.name();
    let (ident, visibility) = (&input.ident, &input.vis);
    let columns = format_ident!("{ident}Columns");
    let (row, static_row) = (row_lifetime.apply(ident), row_lifetime.apply_static(ident));

    let idents: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let names: Vec<_> = fields.iter().map(|field| &field.name).collect();
    let visibilities = fields.iter().map(|field| &field.visibility);
    let types: Vec<_> = fields.iter().map(|field| &field.ty).collect();
    let field_docs = fields
        .iter()
        .map(|field| format!("The column of [`{ident}::{}`].", field.ident));
    let mapped = fields.iter().map(RowField::mapped);
    let carried = fields.iter().map(|field| &field.carried);
    let assertions = fields.iter().map(RowField::assertion);
    let indices = 0..fields.len();
    let writes = write(&fields, quote!(columns));
    let columns_doc = format!("The columns of a batch of [`{ident}`].");
    Ok(quote! {
        #(#assertions)*

        #[doc = #columns_doc]
        #[allow(dead_code)]
        #visibility struct #columns<#lifetime> {
            #(#[doc = #field_docs] #visibilities #idents: <#types as ::millstream_sdk::Cell<#lifetime>>::View,)*
            __lifetime: ::core::marker::PhantomData<&#lifetime ()>,
        }

        #[automatically_derived]
        impl ::millstream_sdk::Fields for #static_row {
            type Row<#lifetime> = #row;
            type Columns<#lifetime> = #columns<#lifetime>;

            fn fields() -> ::std::vec::Vec<::millstream_sdk::schema::MappedField> {
                ::std::vec![#(#mapped),*]
            }

            fn carry_over() -> ::std::vec::Vec<::millstream_sdk::schema::Carried> {
                ::std::vec![#(#carried),*]
            }

            fn columns<#lifetime>(
                table: &#lifetime ::millstream_sdk::table::Table,
                _: &[::millstream_sdk::schema::MappedField],
            ) -> ::core::result::Result<Self::Columns<#lifetime>, ::std::string::String> {
                ::core::result::Result::Ok(#columns {
                    #(#idents: ::millstream_sdk::__private::view::<#types>(table, #indices, #names)?,)*
                    __lifetime: ::core::marker::PhantomData,
                })
            }

            #[inline]
            fn read<#lifetime>(columns: &Self::Columns<#lifetime>, row: usize) -> Self::Row<#lifetime> {
                #ident { #(#idents: <#types as ::millstream_sdk::Cell<#lifetime>>::read(&columns.#idents, row)),* }
            }

            #[inline]
            fn write(row: Self::Row<'_>, columns: &mut [::millstream_sdk::column::Cells]) {
                let #ident { #(#idents),* } = row;
                #writes
            }
        }
    })
}
