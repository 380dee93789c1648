//! Names: of branches and inputs from those of variants, and the nearest of those that are known.

use syn::Ident;
use syn::ext::IdentExt;

/// `ByZone` as `by-zone`.
pub(crate) fn kebab_case(ident: &Ident) -> String {
    let name = ident.unraw().to_string();
    let letters: Vec<char> = name.chars().collect();
    let mut kebab = String::new();
    for (at, &letter) in letters.iter().enumerate() {
        if letter == '_' {
            kebab.push('-');
            continue;
        }
        let after_lower = at > 0 && (letters[at - 1].is_lowercase() || letters[at - 1].is_ascii_digit());
        let ends_acronym =
            at > 0 && letters[at - 1].is_uppercase() && letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && (after_lower || ends_acronym) {
            kebab.push('-');
        }
        kebab.extend(letter.to_lowercase());
    }
    kebab
}

/// A message for a name that is none of those known.
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .min();
    match nearest {
        Some((distance, nearest)) if distance <= 1 + name.len() / 4 => {
            format!("unknown {what} `{name}`: did you mean `{nearest}`?")
        }
        _ => format!("unknown {what} `{name}`: there are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_become_names_with_hyphens() {
        let kebab = |name| kebab_case(&Ident::new(name, proc_macro2::Span::call_site()));
        assert_eq!(kebab("ByZone"), "by-zone");
        assert_eq!(kebab("HTTPError"), "http-error");
        assert_eq!(kebab("All"), "all");
        assert_eq!(kebab("Top10"), "top10");
        assert_eq!(kebab("VendorID"), "vendor-id");
    }

    #[test]
    fn the_nearest_name_is_offered() {
        assert_eq!(
            unknown("place", "ofset", &["offset", "key"]),
            "unknown place `ofset`: did you mean `offset`?"
        );
        assert_eq!(
            unknown("place", "speed", &["offset", "key"]),
            "unknown place `speed`: there are offset, key"
        );
    }
}
