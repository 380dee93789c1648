//! What is known of a value or a key before any record is there: its format, and the members that a source or a plugin
//! promised.

use crate::format::Format;
use crate::schema::{Branch, Field, FieldType, Place, ValueBase};

/// What a key or a value will look like.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub format: Format,
    /// Whether there may be members of which nothing is known: a JSON topic has any.
    open: bool,
    members: Vec<Member>,
}

/// A member that somebody promised.
#[derive(Clone, Debug, PartialEq)]
struct Member {
    pointer: String,
    /// `None`: what the data looks like decides, row by row.
    field_type: Option<FieldType>,
    /// Who promised it, in words that can be shown.
    by: String,
}

/// Why a field cannot be read from a shape.
#[derive(Debug, PartialEq)]
pub(super) enum Mismatch {
    /// Nobody writes it; there are these members.
    Absent(Vec<String>),
    /// It is written, but not so that the type can be read.
    Type { written: String, by: String },
    /// The format has no members, or not so deep, or not of this type.
    Format(&'static str),
}

impl Shape {
    /// Values or keys of a topic.
    pub fn of_topic(format: &Format, by: &str) -> Shape {
        let (open, members) = match format {
            Format::Csv(options) => (
                false,
                options
                    .columns
                    .iter()
                    .map(|column| {
                        let pointer = format!("/{}", column.replace('~', "~0").replace('/', "~1"));
                        Member {
                            pointer,
                            field_type: None,
                            by: by.into(),
                        }
                    })
                    .collect(),
            ),
            Format::Json | Format::Raw | Format::Text => (true, Vec::new()),
        };
        Shape {
            format: format.clone(),
            open,
            members,
        }
    }

    /// Something of which only the format is known.
    pub fn unknown(format: Format) -> Shape {
        Shape {
            format,
            open: true,
            members: Vec::new(),
        }
    }

    /// What a branch makes of a row's value.
    ///
    /// # Errors
    /// If the branch adds members to a value that has none, what that value is.
    pub fn value_after(&self, branch: &Branch, by: &str) -> Result<Shape, Format> {
        let places = |raw: &Place| branch.fields.iter().any(|field| field.place == *raw);
        if places(&Place::RawValue) {
            return Ok(Shape::unknown(Format::Raw));
        }
        let written: Vec<Member> = written(branch, by, |place| match place {
            Place::Value(pointer) => Some(pointer),
            _ => None,
        });
        let whole = written.iter().any(|member| member.pointer.is_empty());
        match branch.value {
            ValueBase::Same if written.is_empty() => Ok(self.clone()),
            ValueBase::Same if !whole => match self.format {
                Format::Raw | Format::Text => Err(self.format.clone()),
                Format::Json | Format::Csv(_) => {
                    let mut members = self.members.clone();
                    members.retain(|member| !written.iter().any(|new| reaches(&new.pointer, &member.pointer)));
                    members.extend(written);
                    Ok(Shape {
                        format: Format::Json,
                        open: self.open,
                        members,
                    })
                }
            },
            _ => Ok(Shape {
                format: Format::Json,
                open: false,
                members: written,
            }),
        }
    }

    /// What a branch makes of a row's key.
    pub fn key_after(&self, branch: &Branch, by: &str) -> Shape {
        if branch.fields.iter().any(|field| field.place == Place::RawKey) {
            return Shape::unknown(Format::Raw);
        }
        let members = written(branch, by, |place| match place {
            Place::Key(pointer) => Some(pointer),
            _ => None,
        });
        match members.as_slice() {
            [] => self.clone(),
            // A key that is one plain value is written as plain text, so that other programs find it.
            [member] if member.pointer.is_empty() && member.field_type != Some(FieldType::Json) => Shape {
                format: Format::Text,
                open: false,
                members,
            },
            _ => Shape {
                format: Format::Json,
                open: false,
                members,
            },
        }
    }

    /// Whether a field can be read at a pointer.
    pub fn read(&self, pointer: &str, field: &Field) -> Result<(), Mismatch> {
        match &self.format {
            Format::Raw | Format::Text if !pointer.is_empty() => {
                return Err(Mismatch::Format("has no members, only a whole that is read at \"\""));
            }
            Format::Raw if !matches!(field.field_type, FieldType::Bytes | FieldType::Text) => {
                return Err(Mismatch::Format("is read as bytes or text"));
            }
            Format::Text if field.field_type == FieldType::Json => return Err(Mismatch::Format("is not read as json")),
            Format::Csv(_) if pointer.matches('/').count() > 1 => {
                return Err(Mismatch::Format("has columns, and nothing inside of them"));
            }
            Format::Csv(_) if pointer.is_empty() && !matches!(field.field_type, FieldType::Json | FieldType::Text) => {
                return Err(Mismatch::Format("is as a whole read as json or text"));
            }
            Format::Csv(_) if !pointer.is_empty() && field.field_type == FieldType::Json => {
                return Err(Mismatch::Format("has cells that are text, not read as json"));
            }
            _ => {}
        }
        let around = self.members.iter().filter(|member| reaches(&member.pointer, pointer));
        if let Some(member) = around.max_by_key(|member| member.pointer.len()) {
            let Some(written) = member.field_type else {
                return Ok(());
            };
            let fits = if member.pointer == pointer {
                compatible(&self.format, written, field.field_type)
            } else {
                written == FieldType::Json
            };
            return if fits {
                Ok(())
            } else {
                Err(Mismatch::Type {
                    written: written.to_string(),
                    by: member.by.clone(),
                })
            };
        }
        let inside = self.members.iter().find(|member| reaches(pointer, &member.pointer));
        match inside {
            // The whole of a value that is made of members is an object; of a topic's value nobody knows.
            Some(member) if field.field_type != FieldType::Json && !matches!(self.format, Format::Csv(_)) => {
                Err(Mismatch::Type {
                    written: "object".into(),
                    by: member.by.clone(),
                })
            }
            Some(_) => Ok(()),
            None if self.open || field.optional && !matches!(self.format, Format::Csv(_)) => Ok(()),
            None => Err(Mismatch::Absent(
                self.members.iter().map(|member| member.pointer.clone()).collect(),
            )),
        }
    }
}

fn written<'b>(branch: &'b Branch, by: &str, pointer: impl Fn(&'b Place) -> Option<&'b String>) -> Vec<Member> {
    let member = |field: &'b crate::schema::MappedField| {
        let pointer = pointer(&field.place)?.clone();
        Some(Member {
            pointer,
            field_type: Some(field.field.field_type),
            by: by.into(),
        })
    };
    branch.fields.iter().filter_map(member).collect()
}

/// Whether `below` is at `pointer` or inside of what is there.
fn reaches(pointer: &str, below: &str) -> bool {
    below
        .strip_prefix(pointer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether what is written as one type can be read as another, whatever the value is. Where only some values could
/// (a float that happens to be whole, a text that happens to be a number) the answer is no, with one exception: text
/// is read as time, as JSON has no other way to write one.
pub(super) fn compatible(format: &Format, written: FieldType, read: FieldType) -> bool {
    use FieldType::{Boolean, Bytes, Float, Integer, Json, Text, Time};
    if written == read {
        return true;
    }
    let plain = *format == Format::Text;
    match (written, read) {
        (Integer, Float) | (Integer | Text, Time) | (Time, Text) => true,
        // What a JSON subtree holds, only the record knows.
        (Json, _) => true,
        (_, Json) => !plain,
        // Plain text has no quotes: everything is text, and text is its bytes.
        (Boolean | Integer | Float, Text) | (Boolean | Integer | Float | Text | Time, Bytes) => plain,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::CsvOptions;
    use crate::schema::MappedField;

    fn field(name: &str, field_type: FieldType) -> Field {
        Field {
            name: name.into(),
            field_type,
            optional: false,
        }
    }

    fn branch(value: ValueBase, fields: &[(&str, FieldType)]) -> Branch {
        let mapped = |(pointer, field_type): &(&str, FieldType)| MappedField {
            field: field(pointer, *field_type),
            place: Place::Value((*pointer).into()),
        };
        Branch {
            name: "out".into(),
            value,
            fields: fields.iter().map(mapped).collect(),
        }
    }

    fn reads(shape: &Shape, pointer: &str, field_type: FieldType) -> bool {
        shape.read(pointer, &field(pointer, field_type)).is_ok()
    }

    #[test]
    fn members_are_followed_through_branches() {
        use FieldType::{Float, Integer, Json, Text};
        let json = Shape::of_topic(&Format::Json, "s");
        assert!(reads(&json, "/any/thing", Integer));

        let new = json
            .value_after(&branch(ValueBase::New, &[("/a/b", Integer), ("/c", Json)]), "x")
            .expect("made");
        assert!(
            reads(&new, "/a/b", Float)
                && reads(&new, "/a", Json)
                && reads(&new, "/c/d/e", Text)
                && reads(&new, "", Json)
        );
        assert!(
            !reads(&new, "/a/b", Text)
                && !reads(&new, "/a", Text)
                && !reads(&new, "/a/b/c", Text)
                && !reads(&new, "/x", Text)
        );
        assert_eq!(
            new.read("/x", &field("x", Text)),
            Err(Mismatch::Absent(vec!["/a/b".into(), "/c".into()]))
        );
        assert!(
            new.read(
                "/x",
                &Field {
                    optional: true,
                    ..field("x", Text)
                }
            )
            .is_ok()
        );

        let added = json
            .value_after(&branch(ValueBase::Same, &[("/fee", Float)]), "x")
            .expect("added");
        assert!(reads(&added, "/fee", Float) && reads(&added, "/fare", Integer) && !reads(&added, "/fee", Integer));
        let replaced = added
            .value_after(&branch(ValueBase::Same, &[("/fee", Text)]), "y")
            .expect("replaced");
        assert!(reads(&replaced, "/fee", Text) && !reads(&replaced, "/fee", Float));
        let forwarded = replaced
            .value_after(&branch(ValueBase::Same, &[]), "z")
            .expect("forwarded");
        assert_eq!(forwarded, replaced);
        let inner = added
            .value_after(&branch(ValueBase::Same, &[("/o", Json), ("/p", Json)]), "x")
            .expect("added");
        let inner = inner
            .value_after(&branch(ValueBase::Same, &[("/o/n", Text)]), "y")
            .expect("added");
        assert!(reads(&inner, "/o/n", Text) && reads(&inner, "/o/m", Integer) && !reads(&inner, "/o/n", Integer));
    }

    #[test]
    fn formats_serve_what_they_have() {
        use FieldType::{Bytes, Integer, Json, Text};
        let csv = Format::Csv(CsvOptions {
            columns: vec!["id".into(), "a/b".into()],
            delimiter: b',',
        });
        let csv = Shape::of_topic(&csv, "s");
        assert!(reads(&csv, "/id", Integer) && reads(&csv, "/a~1b", Text) && reads(&csv, "", Json));
        assert!(!reads(&csv, "/ID", Integer) && !reads(&csv, "/id/x", Text) && !reads(&csv, "", Integer));
        let more = csv
            .value_after(&branch(ValueBase::Same, &[("/fee", Integer)]), "x")
            .expect("as JSON");
        assert_eq!(more.format, Format::Json);
        assert!(reads(&more, "/id", Text) && reads(&more, "/fee", Integer) && !reads(&more, "/nope", Text));

        let text = Shape::of_topic(&Format::Text, "s");
        assert!(reads(&text, "", Integer) && !reads(&text, "", Json) && !reads(&text, "/a", Text));
        let raw = Shape::of_topic(&Format::Raw, "s");
        assert!(reads(&raw, "", Bytes) && !reads(&raw, "", Integer));
        assert_eq!(
            raw.value_after(&branch(ValueBase::Same, &[("/a", Text)]), "x"),
            Err(Format::Raw)
        );
        assert!(raw.value_after(&branch(ValueBase::New, &[("/a", Text)]), "x").is_ok());
    }

    #[test]
    fn types_fit_only_if_every_value_does() {
        use FieldType::{Boolean, Bytes, Float, Integer, Json, Text, Time};
        let all = [Boolean, Integer, Float, Text, Bytes, Time, Json];
        let fits = |format: &Format| {
            let pairs = all
                .iter()
                .flat_map(|&written| all.iter().map(move |&read| (written, read)));
            pairs
                .filter(|(written, read)| {
                    written != read && *written != Json && *read != Json && compatible(format, *written, *read)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            fits(&Format::Json),
            [(Integer, Float), (Integer, Time), (Text, Time), (Time, Text)]
        );
        assert!(compatible(&Format::Text, Integer, Text) && !compatible(&Format::Text, Text, Integer));
        assert!(compatible(&Format::Json, Integer, Json) && !compatible(&Format::Text, Integer, Json));
    }
}
