//! `#[derive(Config)]` and `#[derive(Plugin)]`: what a pipeline may set.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Data, DataEnum, DeriveInput, Error, Expr, Fields, FieldsNamed, Ident, Lit, Result, Token, Type, UnOp};

use crate::attribute;
use crate::name::kebab_case;
use crate::store;

pub(crate) fn derive_plugin(input: DeriveInput) -> Result<TokenStream> {
    no_generics(&input, "a plugin")?;
    let ident = &input.ident;
    let stores = match &input.data {
        Data::Struct(data) => data.fields.iter().filter(|field| store::is_store(field)).collect(),
        _ => Vec::new(),
    };
    let stores = stores.into_iter().map(|field| &field.ident);
    Ok(quote! {
        #[automatically_derived]
        impl ::millstream_sdk::Plugin for #ident {
            type Config = Self;

            fn configure(config: Self) -> ::millstream_sdk::Result<Self> {
                ::core::result::Result::Ok(config)
            }

            fn stores(&mut self, show: &mut dyn ::core::ops::FnMut(&mut dyn ::millstream_sdk::AnyStore)) {
                let _ = &show;
                #(show(&mut self.#stores);)*
            }
        }
    })
}

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    no_generics(&input, "a configuration")?;
    let members = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(named) => settings(&input.ident, named, &attribute::documentation(&input.attrs))?,
            Fields::Unit => nothing(),
            Fields::Unnamed(_) => {
                return Err(Error::new_spanned(
                    &input.ident,
                    "a configuration is a struct with named fields, or without any",
                ));
            }
        },
        Data::Enum(data) => choices(&input.ident, data, &attribute::documentation(&input.attrs))?,
        Data::Union(_) => {
            return Err(Error::new_spanned(
                &input.ident,
                "a configuration is a struct or an enum",
            ));
        }
    };
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl ::millstream_sdk::Config for #ident {
            #members
        }
    })
}

fn no_generics(input: &DeriveInput, what: &str) -> Result<()> {
    match input.generics.params.first() {
        Some(parameter) => Err(Error::new_spanned(parameter, format!("{what} has no parameters"))),
        None => Ok(()),
    }
}

struct Setting<'f> {
    ident: &'f Ident,
    ty: &'f Type,
    name: String,
    description: String,
    default: Option<Default>,
}

enum Default {
    /// That of the type.
    OfType,
    Expression(Expr),
}

impl<'f> Setting<'f> {
    fn of(field: &'f syn::Field) -> Result<Setting<'f>> {
        let ident = field.ident.as_ref().expect("a named field has a name");
        let mut setting = Setting {
            ident,
            ty: &field.ty,
            name: ident.unraw().to_string(),
            description: attribute::documentation(&field.attrs),
            default: None,
        };
        attribute::items(&field.attrs, "config", &["default", "name"], |item, meta| {
            match item {
                "name" => setting.name = attribute::text(meta)?.value(),
                _ if meta.input.peek(Token![=]) => setting.default = Some(Default::Expression(meta.value()?.parse()?)),
                _ => setting.default = Some(Default::OfType),
            }
            Ok(())
        })?;
        Ok(setting)
    }

    /// A function that makes the default, as an `Option`.
    fn default_tokens(&self) -> TokenStream {
        let ty = self.ty;
        let value = match &self.default {
            None => return quote!(::core::option::Option::None),
            Some(Default::OfType) => quote!(<#ty as ::core::default::Default>::default()),
            Some(Default::Expression(expression)) => match is_text(expression) {
                true => quote!(<#ty as ::core::convert::From<&str>>::from(#expression)),
                false => quote!(#expression),
            },
        };
        quote!(::core::option::Option::Some((|| -> #ty { #value }) as fn() -> #ty))
    }

    fn property_tokens(&self) -> TokenStream {
        let (name, description, ty) = (&self.name, &self.description, self.ty);
        // Only what is plain in the source can be shown in the schema.
        let default = match &self.default {
            Some(Default::Expression(expression)) if is_literal(expression) => {
                quote!(::core::option::Option::Some(::millstream_sdk::__private::serde_json::Value::from(#expression)))
            }
            _ => quote!(::core::option::Option::None),
        };
        let required = match self.default {
            Some(_) => quote!(false),
            None => quote!(<#ty as ::millstream_sdk::Config>::missing().is_none()),
        };
        quote! {
            ::millstream_sdk::config::Property {
                name: #name,
                description: #description,
                schema: <#ty as ::millstream_sdk::Config>::schema(),
                default: #default,
                required: #required,
            }
        }
    }
}

fn is_text(expression: &Expr) -> bool {
    matches!(expression, Expr::Lit(literal) if matches!(literal.lit, Lit::Str(_)))
}

fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(literal) => matches!(literal.lit, Lit::Str(_) | Lit::Int(_) | Lit::Float(_) | Lit::Bool(_)),
        Expr::Unary(unary) => matches!(unary.op, UnOp::Neg(_)) && is_literal(&unary.expr),
        _ => false,
    }
}

fn settings(ident: &Ident, named: &FieldsNamed, description: &str) -> Result<TokenStream> {
    let (stores, settings): (Vec<_>, Vec<_>) = named.named.iter().partition(|field| store::is_store(field));
    let stores = store::made(&stores)?;
    let settings = settings.into_iter().map(Setting::of).collect::<Result<Vec<_>>>()?;
    let nothing = settings.is_empty();
    let mut seen = HashSet::new();
    for setting in &settings {
        if !seen.insert(&setting.name) {
            return Err(Error::new_spanned(
                setting.ident,
                format!("there are two settings named {:?}", setting.name),
            ));
        }
    }
    let idents: Vec<_> = settings.iter().map(|setting| setting.ident).collect();
    let names = settings.iter().map(|setting| &setting.name);
    let types = settings.iter().map(|setting| setting.ty);
    let defaults = settings.iter().map(Setting::default_tokens);
    let properties = settings.iter().map(Setting::property_tokens);
    let indices = 0..settings.len();
    Ok(quote! {
        const NOTHING: bool = #nothing;

        fn schema() -> ::millstream_sdk::__private::serde_json::Value {
            ::millstream_sdk::config::object_schema(#description, ::std::vec![#(#properties),*])
        }

        fn read(
            value: &::millstream_sdk::__private::serde_json::Value,
            at: &::millstream_sdk::config::At<'_>,
            problems: &mut ::std::vec::Vec<::std::string::String>,
        ) -> ::core::option::Option<Self> {
            const NAMES: &[&str] = &[#(#names),*];
            let __members = ::millstream_sdk::config::Members::of(value, NAMES, at, problems)?;
            // All are read before any is asked for, so that all mistakes are found.
            #(let #idents = __members.read::<#types>(#indices, #defaults, at, problems);)*
            ::core::option::Option::Some(#ident { #(#idents: #idents?,)* #stores })
        }
    })
}

fn nothing() -> TokenStream {
    quote! {
        const NOTHING: bool = true;

        fn schema() -> ::millstream_sdk::__private::serde_json::Value {
            ::millstream_sdk::config::object_schema("", ::std::vec::Vec::new())
        }

        fn read(
            value: &::millstream_sdk::__private::serde_json::Value,
            at: &::millstream_sdk::config::At<'_>,
            problems: &mut ::std::vec::Vec<::std::string::String>,
        ) -> ::core::option::Option<Self> {
            ::millstream_sdk::config::Members::of(value, &[], at, problems)?;
            ::core::option::Option::Some(Self)
        }
    }
}

fn choices(ident: &Ident, data: &DataEnum, description: &str) -> Result<TokenStream> {
    let (mut names, mut idents) = (Vec::new(), Vec::new());
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a choice has no fields"));
        }
        let mut name = kebab_case(&variant.ident);
        attribute::items(&variant.attrs, "config", &["name"], |_, meta| {
            name = attribute::text(meta)?.value();
            Ok(())
        })?;
        if names.contains(&name) {
            return Err(Error::new_spanned(
                variant,
                format!("there are two choices named {name:?}"),
            ));
        }
        names.push(name);
        idents.push(&variant.ident);
    }
    let indices = 0..names.len();
    Ok(quote! {
        fn schema() -> ::millstream_sdk::__private::serde_json::Value {
            ::millstream_sdk::config::choice_schema(#description, &[#(#names),*])
        }

        fn read(
            value: &::millstream_sdk::__private::serde_json::Value,
            at: &::millstream_sdk::config::At<'_>,
            problems: &mut ::std::vec::Vec<::std::string::String>,
        ) -> ::core::option::Option<Self> {
            const NAMES: &[&str] = &[#(#names),*];
            match ::millstream_sdk::config::variant(value, NAMES, at, problems)? {
                #(#indices => ::core::option::Option::Some(#ident::#idents),)*
                _ => ::core::option::Option::None,
            }
        }
    })
}
