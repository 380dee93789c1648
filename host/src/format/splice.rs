//! Objects made of fields, and fields written into objects that are there, which otherwise keep every byte.

use super::cell::{write_json, write_string};
use super::scan::{ScanError, Scanner, StringSpan};
use crate::table::Cell;

/// An object's members that are written, in the order in which their fields were declared.
#[derive(Debug, Default)]
pub(crate) struct Members(Vec<Member>);

#[derive(Debug)]
struct Member {
    name: String,
    /// The name as JSON, with the colon.
    quoted: Vec<u8>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// The cell of a column.
    Column(usize),
    Object(Members),
}

/// Why a row cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SpliceError {
    /// A column's cell has no JSON.
    Cell {
        /// Which column.
        column: usize,
        /// Why not.
        problem: String,
    },
    /// What should be written into is not JSON.
    Scan(ScanError),
    /// What should be written into is no object: at this pointer stands what begins with this byte.
    NoObject {
        /// A JSON Pointer.
        pointer: String,
        /// The first byte of what is there.
        found: u8,
    },
}

impl From<ScanError> for SpliceError {
    fn from(error: ScanError) -> Self {
        SpliceError::Scan(error)
    }
}

impl Members {
    /// Adds a place: at least one name, and the column that is written there.
    ///
    /// # Errors
    /// A column that is written at the same place, within it or around it.
    pub fn add(&mut self, names: &[String], column: usize) -> Result<(), usize> {
        let (name, rest) = names.split_first().expect("a place within an object");
        let at = match self.0.iter().position(|member| member.name == *name) {
            Some(at) => at,
            None => {
                let mut quoted = Vec::new();
                write_string(&mut quoted, name);
                quoted.push(b':');
                let content = if rest.is_empty() {
                    Content::Column(column)
                } else {
                    Content::Object(Members::default())
                };
                self.0.push(Member {
                    name: name.clone(),
                    quoted,
                    content,
                });
                if rest.is_empty() {
                    return Ok(());
                }
                self.0.len() - 1
            }
        };
        match &mut self.0[at].content {
            Content::Object(members) if !rest.is_empty() => members.add(rest, column),
            content => Err(content.first_column()),
        }
    }

    /// Appends an object of these members alone.
    ///
    /// # Errors
    /// A cell that cannot be written; `out` may have grown.
    pub fn write<'c>(&self, out: &mut Vec<u8>, cell: &impl Fn(usize) -> Cell<'c>) -> Result<(), SpliceError> {
        out.push(b'{');
        self.append(out, cell, true, |_| true)?;
        out.push(b'}');
        Ok(())
    }

    /// Appends `base`, an object, with these members replaced where they stand, every time if they stand there more
    /// than once, and the others of them added behind its own.
    ///
    /// # Errors
    /// If `base` is not one, or a cell cannot be written; `out` may have grown.
    pub fn splice<'c>(
        &self,
        out: &mut Vec<u8>,
        base: &str,
        cell: &impl Fn(usize) -> Cell<'c>,
    ) -> Result<(), SpliceError> {
        let mut splice = Splice {
            base,
            scanner: Scanner::new(base),
            copied: 0,
            seen: Vec::new(),
            path: Vec::new(),
            out,
            cell,
        };
        splice.scanner.space();
        if splice.scanner.peek() != b'{' {
            splice.scanner.value(0)?;
            let found = base.trim_ascii_start().as_bytes()[0];
            return Err(SpliceError::NoObject {
                pointer: String::new(),
                found,
            });
        }
        splice.object(self, 0)?;
        splice.scanner.end()?;
        splice.copy(base.len());
        Ok(())
    }

    fn append<'c>(
        &self,
        out: &mut Vec<u8>,
        cell: &impl Fn(usize) -> Cell<'c>,
        mut first: bool,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<(), SpliceError> {
        for (_, member) in self.0.iter().enumerate().filter(|(at, _)| wanted(*at)) {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(&member.quoted);
            match &member.content {
                Content::Column(column) => write(out, *column, cell)?,
                Content::Object(members) => members.write(out, cell)?,
            }
        }
        Ok(())
    }

    fn find(&self, scanner: &Scanner<'_>, name: StringSpan) -> Option<usize> {
        if !name.escaped {
            return self
                .0
                .iter()
                .position(|member| member.name.as_bytes() == scanner.content(name));
        }
        let quoted = StringSpan {
            start: name.start - 1,
            end: name.end + 1,
            ..name
        };
        let name: String = serde_json::from_slice(scanner.content(quoted)).ok()?;
        self.0.iter().position(|member| member.name == name)
    }
}

impl Content {
    fn first_column(&self) -> usize {
        match self {
            Content::Column(column) => *column,
            Content::Object(members) => members.0[0].content.first_column(),
        }
    }
}

fn write<'c>(out: &mut Vec<u8>, column: usize, cell: &impl Fn(usize) -> Cell<'c>) -> Result<(), SpliceError> {
    write_json(out, cell(column)).map_err(|problem| SpliceError::Cell { column, problem })
}

struct Splice<'s, F> {
    base: &'s str,
    scanner: Scanner<'s>,
    /// Bytes of `base` that are dealt with.
    copied: usize,
    /// Which members of the objects around here were met, those of the outermost first.
    seen: Vec<bool>,
    /// The names of the objects around here.
    path: Vec<&'s str>,
    out: &'s mut Vec<u8>,
    cell: &'s F,
}

impl<'s, 'c, F: Fn(usize) -> Cell<'c>> Splice<'s, F> {
    fn object(&mut self, members: &'s Members, depth: usize) -> Result<(), SpliceError> {
        let seen = self.seen.len();
        self.seen.resize(seen + members.0.len(), false);
        let mut more = self.scanner.open(b'}', depth)?;
        let empty = !more;
        let mut last_end = if more { self.scanner.at } else { self.scanner.at - 1 };
        while more {
            let name = self.scanner.name()?;
            match members.find(&self.scanner, name) {
                None => self.scanner.value(depth + 1)?,
                Some(at) => {
                    self.seen[seen + at] = true;
                    self.member(&members.0[at], depth + 1)?;
                }
            }
            last_end = self.scanner.at;
            more = self.scanner.next(b'}')?;
        }
        self.copy(last_end);
        members.append(self.out, self.cell, empty, |at| !self.seen[seen + at])?;
        self.seen.truncate(seen);
        Ok(())
    }

    fn member(&mut self, member: &'s Member, depth: usize) -> Result<(), SpliceError> {
        let start = self.scanner.at;
        let first = self.scanner.peek();
        if let (Content::Object(members), b'{') = (&member.content, first) {
            self.path.push(&member.name);
            self.object(members, depth)?;
            self.path.pop();
            return Ok(());
        }
        self.scanner.value(depth)?;
        match &member.content {
            Content::Column(column) => {
                self.copy(start);
                write(self.out, *column, self.cell)?;
            }
            // A null member is as good as none.
            Content::Object(members) if first == b'n' => {
                self.copy(start);
                members.write(self.out, self.cell)?;
            }
            Content::Object(_) => {
                self.path.push(&member.name);
                let pointer = self
                    .path
                    .iter()
                    .map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")))
                    .collect();
                return Err(SpliceError::NoObject { pointer, found: first });
            }
        }
        self.copied = self.scanner.at;
        Ok(())
    }

    fn copy(&mut self, end: usize) {
        self.out.extend_from_slice(&self.base.as_bytes()[self.copied..end]);
        self.copied = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pointer;
    use proptest::prelude::*;

    fn members(pointers: &[&str]) -> Members {
        let mut members = Members::default();
        for (column, pointer) in pointers.iter().enumerate() {
            members
                .add(&pointer::parse(pointer).expect("a pointer"), column)
                .expect("no overlap");
        }
        members
    }

    /// Writes 100, 101, … at the pointers.
    fn splice(base: &str, pointers: &[&str]) -> Result<String, SpliceError> {
        let mut out = Vec::new();
        members(pointers).splice(&mut out, base, &|column| Cell::Integer(100 + column as i64))?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn members_are_replaced_in_place_or_added_and_the_rest_keeps_its_bytes() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("{}", &["/a"], r#"{"a":100}"#),
            ("{ }", &["/a", "/b"], r#"{ "a":100,"b":101}"#),
            (r#"{"a":1}"#, &["/a"], r#"{"a":100}"#),
            (r#"{"a":1}"#, &["/b"], r#"{"a":1,"b":100}"#),
            (
                " {\n  \"a\" : 1.50 ,\n  \"b\" : [ 1 ]\n}\n",
                &["/b", "/c"],
                " {\n  \"a\" : 1.50 ,\n  \"b\" : 100,\"c\":101\n}\n",
            ),
            (r#"{"a":1,"b":2,"a":3}"#, &["/a"], r#"{"a":100,"b":2,"a":100}"#),
            (r#"{"\u0061":1e2}"#, &["/a"], r#"{"\u0061":100}"#),
            (
                r#"{"a":{"b":1,"x":{}},"c":2}"#,
                &["/a/b", "/a/y/z"],
                r#"{"a":{"b":100,"x":{},"y":{"z":101}},"c":2}"#,
            ),
            (r#"{"a":null}"#, &["/a/b"], r#"{"a":{"b":100}}"#),
            (
                r#"{"a":null,"é/":0}"#,
                &["/é~1", "/\"q\""],
                r#"{"a":null,"é/":100,"\"q\"":101}"#,
            ),
            (r#"{"a":{},"a":{"b":1}}"#, &["/a/b"], r#"{"a":{"b":100},"a":{"b":100}}"#),
        ];
        for (base, pointers, expected) in cases {
            assert_eq!(splice(base, pointers).as_deref(), Ok(*expected), "{base} {pointers:?}");
        }
    }

    #[test]
    fn what_is_no_object_takes_no_members() {
        let no_object = |pointer: &str, found| {
            Err(SpliceError::NoObject {
                pointer: pointer.into(),
                found,
            })
        };
        assert_eq!(splice(" [1]", &["/a"]), no_object("", b'['));
        assert_eq!(splice("null", &["/a"]), no_object("", b'n'));
        assert_eq!(splice(r#"{"a":{"b~":5}}"#, &["/a/b~0/c"]), no_object("/a/b~0", b'5'));
        assert!(matches!(
            splice("", &["/a"]),
            Err(SpliceError::Scan(ScanError { at: 0, .. }))
        ));
        assert!(matches!(
            splice("{} x", &["/a"]),
            Err(SpliceError::Scan(ScanError { at: 3, .. }))
        ));
        assert!(matches!(
            splice(r#"{"a":{"b":1}"#, &["/a/b"]),
            Err(SpliceError::Scan(ScanError { at: 12, .. }))
        ));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(127), "]".repeat(127));
        assert!(matches!(splice(&deep, &["/b"]), Err(SpliceError::Scan(_))));
    }

    #[test]
    fn objects_are_made_in_the_order_of_their_fields() {
        let mut out = Vec::new();
        let members = members(&["/b", "/a/x", "/c", "/a/y"]);
        members
            .write(&mut out, &|column| Cell::Integer(column as i64))
            .expect("numbers");
        assert_eq!(std::str::from_utf8(&out), Ok(r#"{"b":0,"a":{"x":1,"y":3},"c":2}"#));
        let error = members
            .write(&mut out, &|_| Cell::Float(f64::NAN))
            .expect_err("not a number");
        assert!(matches!(error, SpliceError::Cell { column: 0, .. }));
    }

    #[test]
    fn overlapping_places_are_found() {
        for (first, second) in [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a"), ("/a/b/c", "/a/b")] {
            let mut members = members(&[first]);
            assert_eq!(
                members.add(&pointer::parse(second).expect("a pointer"), 1),
                Err(0),
                "{first} {second}"
            );
        }
    }

    fn object() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i32>().prop_map(Into::into),
            "[a\"é\n]{0,3}".prop_map(Into::into)
        ];
        let any = leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
                prop::collection::btree_map("[ab~/\"]{0,2}", inner, 0..4)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[ab~/\"]{0,2}", any, 0..5)
            .prop_map(|members| serde_json::Value::Object(members.into_iter().collect()))
    }

    /// The same on values: `None` where something on the way is no object.
    fn set(base: &mut serde_json::Value, names: &[String], value: i64) -> Option<()> {
        let Some((name, rest)) = names.split_first() else {
            *base = value.into();
            return Some(());
        };
        if base.is_null() {
            *base = serde_json::json!({});
        }
        set(
            base.as_object_mut()?
                .entry(name.clone())
                .or_insert(serde_json::Value::Null),
            rest,
            value,
        )
    }

    proptest! {
        #[test]
        fn splicing_text_is_setting_members(base in object(), pointers in prop::collection::vec("(/([ab\"]|~0|~1){0,2}){1,3}", 1..5), pretty: bool) {
            let mut chosen = Members::default();
            let mut model = Some(base.clone());
            let mut column = 0;
            for pointer in &pointers {
                let names = pointer::parse(pointer).expect("a pointer");
                if chosen.add(&names, column).is_ok() {
                    model = model.and_then(|mut model| set(&mut model, &names, column as i64).map(|()| model));
                    column += 1;
                }
            }
            let text = if pretty { serde_json::to_string_pretty(&base)? } else { base.to_string() };
            let mut out = Vec::new();
            let result = chosen.splice(&mut out, &text, &|column| Cell::Integer(column as i64));
            match model {
                None => prop_assert!(matches!(result, Err(SpliceError::NoObject { .. })), "not refused"),
                Some(model) => {
                    prop_assert_eq!(result, Ok(()));
                    prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&out)?, model);
                }
            }
        }
    }
}
