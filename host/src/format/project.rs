//! Projection: the spans of the members that somebody asks for, in one pass over a JSON text.

use super::pointer;
use super::scan::{ScanError, Scanner, StringSpan};

/// Where a value stands in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Bytes before it.
    pub start: usize,
    /// Bytes before what follows it.
    pub end: usize,
}

impl Span {
    /// The span of what is not there.
    pub const ABSENT: Span = Span {
        start: usize::MAX,
        end: 0,
    };

    /// The text, if it is there.
    #[inline]
    pub fn of(self, text: &str) -> Option<&str> {
        text.get(self.start..self.end)
    }
}

/// Pointers as a tree: what they share is walked once.
#[derive(Debug)]
pub(crate) struct Projection {
    /// The first is the root.
    nodes: Vec<Node>,
    slots: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// Which spans end up here.
    slots: Vec<usize>,
    /// All spans below here: taken back when the member is met again, as the last of its name counts.
    below: Vec<usize>,
    /// By the length of their names, then as they came.
    members: Vec<Member>,
    /// For each length of a name, where its members begin; one more at the end.
    lengths: Vec<usize>,
    /// Whether one of the members selects an element.
    elements: bool,
}

#[derive(Debug)]
struct Member {
    name: String,
    element: Option<usize>,
    node: usize,
}

impl Projection {
    /// For pointers that were parsed: span `i` is that of pointer `i`.
    pub fn new(pointers: &[Vec<String>]) -> Projection {
        let mut nodes = vec![Node::default()];
        for (slot, names) in pointers.iter().enumerate() {
            let mut at = 0;
            for name in names {
                nodes[at].below.push(slot);
                at = match nodes[at].members.iter().find(|member| member.name == *name) {
                    Some(member) => member.node,
                    None => {
                        let node = nodes.len();
                        nodes.push(Node::default());
                        let element = pointer::element(name);
                        nodes[at].elements |= element.is_some();
                        nodes[at].members.push(Member {
                            name: name.clone(),
                            element,
                            node,
                        });
                        node
                    }
                };
            }
            nodes[at].slots.push(slot);
        }
        for node in &mut nodes {
            node.members.sort_by_key(|member| member.name.len());
            let longest = node.members.last().map_or(0, |member| member.name.len());
            node.lengths = (0..=longest + 1)
                .map(|length| node.members.partition_point(|member| member.name.len() < length))
                .collect();
        }
        Projection {
            nodes,
            slots: pointers.len(),
        }
    }

    /// Finds the spans in a text, and that it is JSON.
    ///
    /// # Errors
    /// Where it is not; the spans are then of no use.
    pub fn scan(&self, text: &str, spans: &mut Vec<Span>) -> Result<(), ScanError> {
        spans.clear();
        spans.resize(self.slots, Span::ABSENT);
        let mut scanner = Scanner::new(text);
        scanner.space();
        self.value(&self.nodes[0], &mut scanner, 0, spans)?;
        scanner.end()
    }

    fn value(&self, node: &Node, scanner: &mut Scanner<'_>, depth: usize, spans: &mut [Span]) -> Result<(), ScanError> {
        let start = scanner.at;
        match scanner.peek() {
            b'{' if !node.members.is_empty() => self.object(node, scanner, depth, spans)?,
            b'[' if node.elements => self.array(node, scanner, depth, spans)?,
            _ => scanner.value(depth)?,
        }
        let end = scanner.at;
        for &slot in &node.slots {
            spans[slot] = Span { start, end };
        }
        Ok(())
    }

    fn object(
        &self,
        node: &Node,
        scanner: &mut Scanner<'_>,
        depth: usize,
        spans: &mut [Span],
    ) -> Result<(), ScanError> {
        let mut more = scanner.open(b'}', depth)?;
        while more {
            let name = scanner.name()?;
            match node.member(scanner, name) {
                None => scanner.value(depth + 1)?,
                Some(member) => self.member(&self.nodes[member], scanner, depth, spans)?,
            }
            more = scanner.next(b'}')?;
        }
        Ok(())
    }

    fn array(&self, node: &Node, scanner: &mut Scanner<'_>, depth: usize, spans: &mut [Span]) -> Result<(), ScanError> {
        let mut more = scanner.open(b']', depth)?;
        for element in 0.. {
            if !more {
                break;
            }
            match node.members.iter().find(|member| member.element == Some(element)) {
                None => scanner.value(depth + 1)?,
                Some(member) => self.member(&self.nodes[member.node], scanner, depth, spans)?,
            }
            more = scanner.next(b']')?;
        }
        Ok(())
    }

    #[inline]
    fn member(
        &self,
        node: &Node,
        scanner: &mut Scanner<'_>,
        depth: usize,
        spans: &mut [Span],
    ) -> Result<(), ScanError> {
        for &slot in &node.below {
            spans[slot] = Span::ABSENT;
        }
        self.value(node, scanner, depth + 1, spans)
    }
}

impl Node {
    #[inline(always)]
    fn member(&self, scanner: &Scanner<'_>, name: StringSpan) -> Option<usize> {
        if name.escaped {
            return self.escaped_member(scanner, name);
        }
        self.named(scanner.content(name))
    }

    #[inline(always)]
    fn named(&self, name: &[u8]) -> Option<usize> {
        let (&start, &end) = (self.lengths.get(name.len())?, self.lengths.get(name.len() + 1)?);
        self.members[start..end]
            .iter()
            .find(|member| member.name.as_bytes() == name)
            .map(|member| member.node)
    }

    /// A name with half a surrogate pair is nobody's.
    #[cold]
    fn escaped_member(&self, scanner: &Scanner<'_>, name: StringSpan) -> Option<usize> {
        let quoted = StringSpan {
            start: name.start - 1,
            end: name.end + 1,
            ..name
        };
        let name: String = serde_json::from_slice(scanner.content(quoted)).ok()?;
        self.named(name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn project<'t>(text: &'t str, pointers: &[&str]) -> Vec<Option<&'t str>> {
        let pointers: Vec<_> = pointers
            .iter()
            .map(|pointer| pointer::parse(pointer).expect("a pointer"))
            .collect();
        let mut spans = Vec::new();
        Projection::new(&pointers).scan(text, &mut spans).expect("JSON");
        spans.iter().map(|span| span.of(text)).collect()
    }

    #[test]
    fn spans_are_found_by_pointer() {
        let text = r#" {"a": 1 , "b":{"c":[10,{"d":"x"},[]],"":true}, "a/b":null,"\u0065":2,"0":3,"x\ud800":4} "#;
        let cases: &[(&str, Option<&str>)] = &[
            ("/a", Some("1")),
            ("/b/c", Some(r#"[10,{"d":"x"},[]]"#)),
            ("/b/c/0", Some("10")),
            ("/b/c/1/d", Some("\"x\"")),
            ("/b/c/2", Some("[]")),
            ("/b/c/3", None),
            ("/b/c/d", None),
            ("/b/", Some("true")),
            ("/b//x", None),
            ("/a~1b", Some("null")),
            ("/e", Some("2")),
            ("/0", Some("3")),
            ("", Some(text.trim())),
            ("/aa", None),
            ("/A", None),
        ];
        for (pointer, expected) in cases {
            assert_eq!(project(text, &[pointer]), [*expected], "{pointer}");
        }
        let (pointers, expected): (Vec<_>, Vec<_>) = cases.iter().copied().unzip();
        assert_eq!(project(text, &pointers), expected, "all at once");
        assert_eq!(
            project("[1,[2,3]]", &["/0", "/1/1", "/2", "/a"]),
            [Some("1"), Some("3"), None, None]
        );
        assert_eq!(project("5", &["", "/a"]), [Some("5"), None]);
    }

    #[test]
    fn the_last_member_of_a_name_counts() {
        assert_eq!(project(r#"{"a":1,"a":2}"#, &["/a"]), [Some("2")]);
        assert_eq!(project(r#"{"a":{"b":1},"a":{}}"#, &["/a/b", "/a"]), [None, Some("{}")]);
        assert_eq!(project(r#"{"a":{"b":{"c":1}},"\u0061":5}"#, &["/a/b/c"]), [None]);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i32>().prop_map(Into::into),
            "[a-c\"\\\\é\n]{0,9}".prop_map(Into::into)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec(("[a-c0-2~/\"\u{1}]{0,2}", inner), 0..4)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn spans_are_what_serde_json_finds(value in json(), pointers in prop::collection::vec("(/([a-c0-2]|~0|~1){0,2}){0,3}", 1..6)) {
            for text in [serde_json::to_string(&value)?, serde_json::to_string_pretty(&value)?] {
                let pointers: Vec<&str> = pointers.iter().map(String::as_str).collect();
                for (pointer, found) in pointers.iter().zip(project(&text, &pointers)) {
                    let found = found.map(|text| serde_json::from_str::<serde_json::Value>(text).expect("JSON"));
                    prop_assert_eq!(found.as_ref(), value.pointer(pointer), "{}", pointer);
                }
            }
        }
    }
}
