//! Aggregators, as a plugin's author writes them.

use std::cell::Cell;

use millstream_sdk::prelude::*;
use millstream_sdk::schema::ValueBase;
use millstream_sdk::testing::{AggregatorTester, Record, aggregate};
use millstream_sdk::{Groups, Instance};
use serde_json::{Value, json};

thread_local! {
    static ADDED: Cell<usize> = const { Cell::new(0) };
}

/// Joins words, but not those that begin with a digit.
#[derive(Config, Plugin)]
struct Join;

#[derive(Fields)]
struct Word<'a> {
    word: &'a str,
}

#[derive(Branches)]
enum Joined<'a> {
    Whole {
        text: &'a str,
        #[field(path = "/stats/words")]
        words: i64,
    },
    #[branch(name = "long")]
    Long { text: &'a str },
}

#[derive(Fields, Clone, Debug, Default, PartialEq)]
struct Sentence {
    text: String,
    words: i64,
}

impl Aggregator for Join {
    type Input = Word<'static>;
    type Accumulator = Sentence;
    type Output = Joined<'static>;

    fn start(&self) -> Sentence {
        Sentence::default()
    }

    fn add(&self, sentence: &mut Sentence, row: Word<'_>) -> Result<()> {
        ADDED.set(ADDED.get() + 1);
        sentence.words += 1;
        sentence.text.push_str(row.word);
        ensure!(
            !row.word.starts_with(|c: char| c.is_ascii_digit()),
            "{} is a number",
            row.word
        );
        Ok(())
    }

    fn merge(&self, sentence: &mut Sentence, later: Sentence) -> Result<()> {
        ensure!(later.words > 0, "nothing to merge");
        sentence.text.push_str(&later.text);
        sentence.words += later.words;
        Ok(())
    }

    fn finish(&self, sentence: &Sentence, out: &mut Output<Joined<'static>>) -> Result<()> {
        out.emit(Joined::Whole {
            text: &sentence.text,
            words: sentence.words,
        });
        if sentence.words > 3 {
            out.emit(Joined::Long { text: &sentence.text });
        }
        ensure!(sentence.words > 0, "there are no words");
        Ok(())
    }
}

fn words<'w>(words: &[(&'w str, &str)]) -> Vec<(&'w str, Value)> {
    words
        .iter()
        .map(|(group, word)| (*group, json!({"word": word})))
        .collect()
}

#[test]
fn rows_are_added_in_order_and_results_go_to_branches() {
    let records = words(&[("x", "a"), ("y", "b"), ("x", "c"), ("x", "d"), ("x", "e")]);
    let outcome = aggregate::<Join>(json!({}), records).unwrap();
    let whole = |text: &str, words: i64| json!({"text": text, "stats": {"words": words}});
    assert_eq!(outcome.keyed("whole"), [("x", whole("acde", 4)), ("y", whole("b", 1))]);
    assert_eq!(outcome.keyed("long"), [("x", json!({"text": "acde"}))]);
}

#[test]
fn a_row_that_fails_leaves_its_accumulator_as_it_was() {
    let mut tester = AggregatorTester::<Join>::new(json!({})).unwrap();
    tester.add("input", words(&[("x", "a")])).unwrap();
    ADDED.set(0);
    let records = words(&[("x", "b"), ("x", "1"), ("y", "2"), ("x", "c"), ("x", "3"), ("x", "d")]);
    let outcome = tester.add("input", records).unwrap();
    assert_eq!(outcome.failures(), ["1 is a number", "2 is a number", "3 is a number"]);
    assert_eq!(
        outcome.failed.iter().map(|failed| failed.record).collect::<Vec<_>>(),
        [1, 2, 4]
    );
    assert_eq!(tester.accumulator("x").unwrap().text, "abcd");
    assert_eq!(tester.accumulator("y"), Some(&Sentence::default()));
    assert_eq!(
        ADDED.get(),
        7,
        "the rows before the first failure of a group are added once more, and no others"
    );
    let outcome = tester.finish().unwrap();
    assert_eq!(outcome.failures(), ["there are no words"]);
    assert_eq!(outcome.keyed("whole").len(), 1);
}

#[test]
fn copies_that_are_cheap_are_taken_back_too() {
    #[derive(Config, Plugin)]
    struct Sum;

    #[derive(Fields)]
    struct Row {
        amount: f64,
    }

    #[derive(Branches, Fields)]
    struct Total {
        total: f64,
    }

    impl Aggregator for Sum {
        type Input = Row;
        type Accumulator = f64;
        type Output = Total;

        fn start(&self) -> f64 {
            0.5
        }

        fn add(&self, total: &mut f64, row: Row) -> Result<()> {
            *total += row.amount;
            ensure!(*total < 10.0, "too much");
            Ok(())
        }

        fn merge(&self, total: &mut f64, later: f64) -> Result<()> {
            *total += later;
            Ok(())
        }

        fn finish(&self, total: &f64, out: &mut Output<Total>) -> Result<()> {
            out.emit(Total { total: *total });
            Ok(())
        }
    }

    let records = [4, 6, 5, 1].map(|amount| ("a", json!({"amount": amount})));
    let outcome = aggregate::<Sum>(json!({}), records).unwrap();
    assert_eq!(outcome.failures(), ["too much", "too much"]);
    assert_eq!(outcome.keyed("output"), [("a", json!({"total": 9.5}))]);
}

#[test]
fn groups_merge_in_order_and_keep_the_latest_time() {
    let mut tester = AggregatorTester::<Join>::new(json!({})).unwrap();
    let word = |group, word: &str, at| (group, Record::json(json!({"word": word})).at(at));
    tester
        .add("input", [word("x", "a", 5), word("y", "b", 9), word("x", "c", 3)])
        .unwrap();
    tester.merge("x", "y").unwrap();
    let outcome = tester.finish().unwrap();
    let [whole] = outcome.branch("whole") else {
        panic!("one group is left");
    };
    assert_eq!((whole.json_value()["text"].clone(), whole.timestamp), (json!("acb"), 9));
    tester.add("input", words(&[("z", "1")])).unwrap();
    assert_eq!(tester.merge("x", "z").unwrap_err(), "nothing to merge");
}

#[test]
fn the_value_of_a_result_is_its_fields_alone() {
    let tester = AggregatorTester::<Join>::new(json!({})).unwrap();
    assert!(
        tester
            .signature()
            .branches
            .iter()
            .all(|branch| branch.value == ValueBase::New)
    );
    let instance = Instance::<Join>::configure_aggregator("{}").unwrap();
    let initial = instance.initial();
    let fields: Vec<&str> = initial.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!((fields, initial.start.rows), (vec!["text", "words"], 1));
}

/// Adds columns.
#[derive(Config, Plugin)]
struct Lengths;

#[derive(Branches, Fields)]
struct Length {
    length: i64,
}

impl Aggregator for Lengths {
    type Input = Word<'static>;
    type Accumulator = i64;
    type Output = Length;

    fn start(&self) -> i64 {
        0
    }

    fn add(&self, _: &mut i64, _: Word<'_>) -> Result<()> {
        unreachable!("columns are added")
    }

    fn add_batch(&self, batch: &Batch<'_, Word<'static>>, groups: &mut Groups<'_, i64>) -> Result<()> {
        assert_eq!(groups.len(), 2);
        for ((row, group), word) in (0..).zip(groups.of_rows()).zip(batch.columns.word.iter()) {
            assert_eq!(group, groups.of(row));
            if word.is_empty() {
                groups.fail(row, "no word");
            }
            groups[group] += word.len() as i64;
        }
        Ok(())
    }

    fn merge(&self, length: &mut i64, later: i64) -> Result<()> {
        *length += later;
        Ok(())
    }

    fn finish(&self, length: &i64, out: &mut Output<Length>) -> Result<()> {
        if *length > 1 {
            out.emit(Length { length: *length });
        }
        Ok(())
    }
}

#[test]
fn columns_are_added_to_groups() {
    let records = words(&[("x", "ab"), ("y", "c"), ("x", ""), ("x", "def")]);
    let outcome = aggregate::<Lengths>(json!({}), records).unwrap();
    assert_eq!(outcome.failures(), ["no word"]);
    assert_eq!(
        outcome.keyed("output"),
        [("x", json!({"length": 5}))],
        "a group may have no result"
    );
}

#[test]
fn what_a_host_must_not_send_is_refused() {
    let mut instance = Instance::<Lengths>::configure_aggregator("{}").unwrap();
    let start = instance.initial().start;
    let rows = millstream_sdk::table::Table {
        rows: 1,
        columns: vec![millstream_sdk::table::Column {
            nulls: vec![],
            ends: vec![1, 0, 0, 0],
            data: vec![b'a'],
        }],
    };
    let mut refused = |groups: &[u8]| instance.accumulate(0, &start, groups, &rows).unwrap_err();
    assert!(refused(&[1, 0, 0, 0]).contains("of group 1, but there are 1"));
    assert!(refused(&[0, 0, 0]).contains("`groups` has 3 bytes for 1 rows"));
}

#[test]
fn an_aggregator_has_no_stores() {
    #[derive(Config, Plugin)]
    struct Both {
        counts: Store<i64, i64>,
    }

    impl Aggregator for Both {
        type Input = ();
        type Accumulator = ();
        type Output = Length;

        fn start(&self) {}

        fn add(&self, (): &mut (), (): ()) -> Result<()> {
            Ok(())
        }

        fn merge(&self, (): &mut (), (): ()) -> Result<()> {
            Ok(())
        }

        fn finish(&self, (): &(), _: &mut Output<Length>) -> Result<()> {
            Ok(())
        }
    }

    assert!(
        AggregatorTester::<Both>::new(json!({}))
            .unwrap_err()
            .contains("no stores")
    );
}
