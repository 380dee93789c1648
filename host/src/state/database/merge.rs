//! Rows of several sources, as one in the order of their keys.

use bytes::Bytes;
use std::marker::PhantomData;

/// A key, and its row; none where the row is deleted.
pub(in crate::state) type Entry = (Bytes, Option<Bytes>);

/// The rows of sources that are each in the order of their keys. A source hides those behind it, by its deletes too. Ends
/// at the first error.
pub(in crate::state) struct Merge<S, E> {
    sources: Vec<Source<S>>,
    ended: bool,
    errors: PhantomData<E>,
}

struct Source<S> {
    rows: S,
    peeked: Option<Entry>,
    ended: bool,
}

impl<S: Iterator<Item = Result<Entry, E>>, E> Merge<S, E> {
    pub(in crate::state) fn new(sources: impl IntoIterator<Item = S>) -> Self {
        let source = |rows| Source {
            rows,
            peeked: None,
            ended: false,
        };
        Merge {
            sources: sources.into_iter().map(source).collect(),
            ended: false,
            errors: PhantomData,
        }
    }

    /// The next key of all sources, with its first row, deleted or not.
    fn next_entry(&mut self) -> Result<Option<Entry>, E> {
        let mut least: Option<usize> = None;
        for at in 0..self.sources.len() {
            self.sources[at].peek()?;
            let Some((key, _)) = &self.sources[at].peeked else {
                continue;
            };
            let before = least.and_then(|least| self.sources[least].peeked.as_ref());
            if before.is_none_or(|(before, _)| key < before) {
                least = Some(at);
            }
        }
        let Some(entry) = least.and_then(|least| self.sources[least].peeked.take()) else {
            return Ok(None);
        };
        for source in &mut self.sources {
            source.peeked.take_if(|(key, _)| *key == entry.0);
        }
        Ok(Some(entry))
    }
}

impl<S: Iterator<Item = Result<Entry, E>>, E> Source<S> {
    fn peek(&mut self) -> Result<(), E> {
        if self.peeked.is_none() && !self.ended {
            self.peeked = self.rows.next().transpose()?;
            self.ended = self.peeked.is_none();
        }
        Ok(())
    }
}

impl<S: Iterator<Item = Result<Entry, E>>, E> Iterator for Merge<S, E> {
    type Item = Result<(Bytes, Bytes), E>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.next_entry() {
                Ok(Some((key, Some(row)))) => return Some(Ok((key, row))),
                Ok(Some((_, None))) => {}
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Source = std::vec::IntoIter<Result<Entry, &'static str>>;

    fn source(rows: &[(&'static str, &'static str)]) -> Source {
        let entry = |(key, row): &(&'static str, &'static str)| {
            Ok((Bytes::from(*key), (!row.is_empty()).then_some(Bytes::from(*row))))
        };
        rows.iter().map(entry).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn the_first_source_hides_the_others() {
        let merged = Merge::new([
            source(&[("b", "1"), ("d", ""), ("f", "1")]),
            source(&[("a", "2"), ("b", "2"), ("d", "2")]),
            source(&[]),
            source(&[("a", "3"), ("c", "3"), ("d", "3"), ("g", "3")]),
        ]);
        let rows: Vec<String> = merged
            .map(|row| {
                row.map(|(key, row)| String::from_utf8([key, row].concat()).unwrap())
                    .unwrap()
            })
            .collect();
        assert_eq!(rows, ["a2", "b1", "c3", "f1", "g3"]);
        assert_eq!(Merge::new(Vec::<Source>::new()).count(), 0);
    }

    #[test]
    fn an_error_is_the_last_item() {
        let broken: Vec<Result<Entry, _>> = vec![Ok(("b".into(), Some("1".into()))), Err("broken")];
        let mut merged = Merge::new([source(&[("a", "1"), ("c", "1")]), broken.into_iter()]);
        assert!(merged.next().unwrap().is_ok() && merged.next().unwrap().is_ok());
        assert_eq!(merged.next(), Some(Err("broken")));
        assert_eq!(merged.next(), None);
    }
}
