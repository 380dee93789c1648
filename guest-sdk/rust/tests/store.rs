//! Stores, as a plugin's author uses them, held against a map that the test keeps itself.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_sdk::prelude::*;
use millstream_sdk::schema::Carried;
use millstream_sdk::testing::Tester;
use serde_json::{Value, json};

/// Does to its store what a row says.
#[derive(Config, Plugin)]
struct Steps {
    /// Whether keys are announced.
    #[config(default = true)]
    prefetch: bool,
    #[store(ordered, time_to_live = Duration::from_secs(60))]
    numbers: Store<i64, i64>,
    #[store(name = "by-name")]
    texts: Store<String, Option<String>>,
}

#[derive(Fields)]
struct Step<'a> {
    does: &'a str,
    key: i64,
    value: Option<i64>,
    fail: Option<&'a str>,
}

#[derive(Branches, Fields)]
#[branch(value = new)]
struct Seen {
    /// The value before.
    before: Option<i64>,
}

impl Processor for Steps {
    type Input = Step<'static>;
    type Output = Seen;

    fn prefetch(&mut self, step: Step<'_>) {
        if self.prefetch {
            self.numbers.prefetch(&step.key);
        }
    }

    fn process(&mut self, step: Step<'_>, out: &mut Output<Seen>) -> Result<()> {
        let (key, value) = (step.key, step.value.unwrap_or(0));
        let before = match step.does {
            "get" => self.numbers.get(&key).copied(),
            "contains" => self.numbers.contains(&key).then_some(1),
            "insert" => {
                self.numbers.insert(&key, value);
                None
            }
            "remove" => {
                self.numbers.remove(&key);
                None
            }
            "add" => {
                let number = self.numbers.entry(&key).or_default();
                *number += value;
                Some(*number)
            }
            "set-if-there" => {
                let mut before = None;
                if let Some(number) = self.numbers.get_mut(&key) {
                    before = Some(*number);
                    *number = value;
                }
                before
            }
            "double-or" => Some(
                *self
                    .numbers
                    .entry(&key)
                    .and_modify(|number| *number *= 2)
                    .or_insert(value),
            ),
            "sum" => Some(self.numbers.scan(()).map(|(_, number)| number).sum()),
            "sum-of" => Some(self.numbers.scan(key).map(|(_, number)| number).sum()),
            other => bail!("{other:?} is no step"),
        };
        out.emit(Seen { before });
        match step.fail {
            Some("by-output") => out.fail("told to fail"),
            fail => ensure!(fail.is_none(), "told to fail"),
        }
        Ok(())
    }
}

type Model = BTreeMap<i64, i64>;

/// What a step does to a map, and what it sees.
fn model(map: &mut Model, does: &str, key: i64, value: i64) -> Option<i64> {
    match does {
        "get" => map.get(&key).copied(),
        "contains" => map.contains_key(&key).then_some(1),
        "insert" => {
            map.insert(key, value);
            None
        }
        "remove" => {
            map.remove(&key);
            None
        }
        "add" => {
            let number = map.entry(key).or_default();
            *number += value;
            Some(*number)
        }
        "set-if-there" => map.get_mut(&key).map(|number| std::mem::replace(number, value)),
        "double-or" => Some(*map.entry(key).and_modify(|number| *number *= 2).or_insert(value)),
        "sum" => Some(map.values().sum()),
        _ => Some(map.get(&key).copied().unwrap_or(0)),
    }
}

const STEPS: [&str; 9] = [
    "get",
    "contains",
    "insert",
    "remove",
    "add",
    "set-if-there",
    "double-or",
    "sum",
    "sum-of",
];

/// Numbers without a pattern, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn a_store_is_a_map_that_failed_rows_leave_as_it_was() {
    for seed in 0..300 {
        let mut numbers = Numbers(seed);
        let mut tester = Tester::<Steps>::new(json!({"prefetch": seed % 3 != 0})).unwrap();
        let mut map = Model::new();
        for key in 0..numbers.below(6) as i64 {
            tester.put("numbers", key, key * 10);
            map.insert(key, key * 10);
        }
        for _ in 0..4 {
            let (mut steps, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..1 + numbers.below(12) {
                let does = STEPS[numbers.below(STEPS.len() as u64) as usize];
                let (key, value) = (numbers.below(6) as i64 - 1, numbers.below(100) as i64);
                let fail = [None, Some("by-output"), Some("by-error"), None][numbers.below(4) as usize];
                steps.push(json!({"does": does, "key": key, "value": value, "fail": fail}));
                let mut after = map.clone();
                let before = model(&mut after, does, key, value);
                if fail.is_none() {
                    map = after;
                    expected.push(json!({"before": before}));
                }
            }
            let outcome = tester.process("input", steps.clone()).unwrap();
            assert_eq!(outcome.values("output"), expected, "seed {seed}: {steps:?}");
            let rows: Model = tester.rows::<i64, i64>("numbers").into_iter().collect();
            assert_eq!(rows, map, "seed {seed}: {steps:?}");
        }
    }
}

fn step(does: &str, key: i64) -> Value {
    json!({"does": does, "key": key, "value": 1})
}

#[test]
fn what_is_announced_is_fetched_at_once_and_the_rest_when_it_is_asked_for() {
    let steps = || [1, 2, 3, 1].map(|key| step("add", key));
    let calls = |prefetch: bool| {
        let mut tester = Tester::<Steps>::new(json!({"prefetch": prefetch})).unwrap();
        tester.process("input", steps()).unwrap().state_calls
    };
    assert_eq!(calls(true), 2, "a get and a put");
    assert_eq!(calls(false), 4, "a get for each of three keys, and a put");
    let mut tester = Tester::<Steps>::new(json!({})).unwrap();
    let blind = tester.process("input", [step("insert", 1), step("remove", 2)]).unwrap();
    assert_eq!(
        blind.state_calls, 2,
        "a put and a delete: nothing is fetched to be overwritten"
    );
    let reading = tester.process("input", [step("get", 1), step("get", 2)]).unwrap();
    assert_eq!(reading.state_calls, 1, "nothing is written that was only read");
}

#[test]
fn many_keys_cross_in_several_calls() {
    let mut tester = Tester::<Steps>::new(json!({})).unwrap();
    let keys = 0..70_000;
    let outcome = tester
        .process("input", keys.clone().map(|key| step("add", key)))
        .unwrap();
    assert_eq!(outcome.state_calls, 4);
    assert_eq!(
        tester.rows::<i64, i64>("numbers"),
        keys.map(|key| (key, 1)).collect::<Vec<_>>()
    );
}

#[test]
fn a_call_that_fails_changes_nothing() {
    #[derive(Config, Plugin)]
    struct FailsAtTheEnd {
        counts: Store<i64, i64>,
    }

    impl BatchProcessor for FailsAtTheEnd {
        type Input = Step<'static>;
        type Output = Seen;

        fn process_batch(&mut self, batch: &Batch<'_, Step<'static>>, _: &mut Output<Seen>) -> Result<()> {
            for (_, step) in batch.rows() {
                *self.counts.entry(&step.key).or_insert(7) += 1;
            }
            ensure!(batch.len() == 1, "too many rows");
            Ok(())
        }
    }

    let mut tester = Tester::<FailsAtTheEnd>::new(json!({})).unwrap();
    assert!(tester.process("input", [step("add", 1), step("add", 2)]).is_err());
    assert_eq!(tester.rows::<i64, i64>("counts"), []);
    tester.process("input", [step("add", 1)]).unwrap();
    assert_eq!(
        tester.rows::<i64, i64>("counts"),
        [(1, 8)],
        "nothing is left of the call before"
    );
}

#[derive(Fields, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    zone: String,
    at: Time,
    inbound: bool,
}

#[derive(Fields, Clone, Debug, PartialEq)]
struct Fare {
    count: i64,
    #[carry_over(from = "sum")]
    total: f64,
    #[carry_over(default = "card")]
    kind: String,
    #[carry_over(default)]
    last: Option<Time>,
    #[field(name = "labels")]
    tags: AsJson<Vec<String>>,
}

#[derive(Fields, Clone, PartialEq)]
struct Zone {
    zone: String,
}

/// Every kind of key and value.
#[derive(Config)]
struct NoSettings;

struct Fares {
    fares: Store<Place, Fare>,
    bytes: Store<Vec<u8>, Json<'static>>,
    flags: Store<bool, ()>,
}

impl Plugin for Fares {
    type Config = NoSettings;

    fn configure(_: NoSettings) -> Result<Self> {
        Ok(Fares {
            fares: Store::new("fares").ordered(),
            bytes: Store::new("bytes"),
            flags: Store::new("flags").time_to_live(Duration::from_millis(5)),
        })
    }

    fn stores(&mut self, show: &mut dyn FnMut(&mut dyn AnyStore)) {
        show(&mut self.fares);
        show(&mut self.bytes);
        show(&mut self.flags);
    }
}

#[derive(Fields)]
struct Ride<'a> {
    zone: String,
    #[field(timestamp)]
    at: Time,
    #[field(path = "")]
    whole: Json<'a>,
}

impl Processor for Fares {
    type Input = Ride<'static>;
    type Output = Seen;

    fn process(&mut self, ride: Ride<'_>, out: &mut Output<Seen>) -> Result<()> {
        let inbound = ride.at.0 % 2 == 0;
        self.bytes.insert(ride.zone.as_bytes(), ride.whole.into_owned());
        self.flags.insert(&inbound, ());
        let of_zone = self.fares.scan(Zone {
            zone: ride.zone.clone(),
        });
        let before = of_zone.map(|(place, fare)| place.at.0 * fare.count).sum();
        let place = Place {
            zone: ride.zone,
            at: ride.at,
            inbound,
        };
        let fare = Fare {
            count: 2,
            total: -0.5,
            kind: "é".into(),
            last: inbound.then_some(ride.at),
            tags: AsJson(vec!["a".into()]),
        };
        self.fares.insert(&place, fare);
        out.emit(Seen { before: Some(before) });
        Ok(())
    }
}

#[test]
fn structs_and_every_scalar_can_be_kept() {
    use millstream_sdk::testing::Record;
    let mut tester = Tester::<Fares>::new(json!({})).unwrap();
    let ride = |zone: &str, at| Record::json(json!({"zone": zone})).at(at);
    let rides = [ride("b", 3), ride("a", 1), ride("b", -4), ride("b", 7)];
    let whole = tester.process("input", rides.clone()).unwrap();
    let before = [0, 0, 6, -2].map(|before| json!({"before": before}));
    assert_eq!(whole.values("output"), before);
    let places: Vec<_> = tester
        .rows::<Place, Fare>("fares")
        .into_iter()
        .map(|(place, _)| (place.zone, place.at.0))
        .collect();
    assert_eq!(
        places,
        [("a".into(), 1), ("b".into(), -4), ("b".into(), 3), ("b".into(), 7)]
    );
    let (_, fare) = tester.rows::<Place, Fare>("fares").remove(1);
    assert_eq!(
        (fare.kind.as_str(), fare.last, fare.tags.0.as_slice()),
        ("é", Some(Time(-4)), &["a".to_owned()][..])
    );
    assert_eq!(
        tester.rows::<Vec<u8>, Json<'static>>("bytes")[0].1.as_str(),
        "{\"zone\":\"a\"}"
    );
    assert_eq!(tester.rows::<bool, ()>("flags"), [(false, ()), (true, ())]);

    let mut apart = Tester::<Fares>::new(json!({})).unwrap();
    assert_eq!(
        apart.process_by(1, "input", rides).unwrap().values("output"),
        before,
        "scans see both own and kept rows"
    );
}

#[test]
fn the_signature_says_what_is_kept() {
    let steps = Tester::<Steps>::new(json!({})).unwrap();
    let [numbers, texts] = steps.signature().stores.as_slice() else {
        panic!("two stores");
    };
    assert_eq!(
        (numbers.name.as_str(), numbers.ordered, numbers.time_to_live),
        ("numbers", true, 60_000)
    );
    assert_eq!(
        (texts.name.as_str(), texts.ordered, texts.time_to_live),
        ("by-name", false, 0)
    );
    assert_eq!((texts.key[0].name.as_str(), texts.key[0].optional), ("key", false));
    assert_eq!((texts.value[0].name.as_str(), texts.value[0].optional), ("value", true));
    assert_eq!(numbers.carry_over, [Carried::Same("value".into())]);

    let fares = Tester::<Fares>::new(json!({})).unwrap();
    let [fares, _, flags] = fares.signature().stores.as_slice() else {
        panic!("three stores");
    };
    let names: Vec<&str> = fares.key.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["zone", "at", "inbound"]);
    let expected = [
        Carried::Same("count".into()),
        Carried::Same("sum".into()),
        Carried::Constant("\"card\"".into()),
        Carried::Constant("null".into()),
        Carried::Same("labels".into()),
    ];
    assert_eq!(fares.carry_over, expected);
    assert_eq!(
        (flags.value.len(), flags.time_to_live, flags.carry_over.len()),
        (0, 5, 0)
    );
    let settings = millstream_sdk::config_schema::<Steps>();
    assert!(
        settings.contains("prefetch") && !settings.contains("numbers"),
        "{settings}"
    );
}

/// Has a store that it does not show.
struct Forgetful {
    counts: Store<i64, i64>,
}

impl Plugin for Forgetful {
    type Config = NoSettings;

    fn configure(_: NoSettings) -> Result<Self> {
        Ok(Forgetful {
            counts: Store::new("counts"),
        })
    }
}

impl Processor for Forgetful {
    type Input = Step<'static>;
    type Output = Seen;

    fn process(&mut self, step: Step<'_>, _: &mut Output<Seen>) -> Result<()> {
        self.counts.insert(&step.key, 1);
        Ok(())
    }
}

#[test]
#[should_panic(expected = "the store \"counts\" is not among those that the plugin names in `Plugin::stores`")]
fn a_store_that_is_not_shown_cannot_be_used() {
    let mut tester = Tester::<Forgetful>::new(json!({})).unwrap();
    let _ = tester.process("input", [step("add", 1)]);
}

/// Scans where nothing is ordered, or by what the key does not begin with.
#[derive(Config, Plugin)]
struct Scans {
    by: Option<String>,
    #[store(ordered)]
    ordered: Store<i64, i64>,
    plain: Store<i64, i64>,
}

impl Processor for Scans {
    type Input = Step<'static>;
    type Output = Seen;

    fn process(&mut self, _: Step<'_>, _: &mut Output<Seen>) -> Result<()> {
        match self.by.take() {
            Some(text) => drop(self.ordered.scan(text)),
            None => drop(self.plain.scan(())),
        }
        Ok(())
    }
}

#[test]
#[should_panic(expected = "the store \"plain\" is not ordered: `#[store(ordered)]`")]
fn an_unordered_store_is_not_scanned() {
    let _ = Tester::<Scans>::new(json!({}))
        .unwrap()
        .process("input", [step("scan", 1)]);
}

#[test]
#[should_panic(expected = "the key of the store \"ordered\" does not begin with the fields of this prefix")]
fn a_prefix_is_what_the_key_begins_with() {
    let mut tester = Tester::<Scans>::new(json!({"by": "text"})).unwrap();
    let _ = tester.process("input", [step("scan", 1)]);
}

#[test]
fn a_scan_of_many_rows_goes_from_page_to_page() {
    let mut tester = Tester::<Steps>::new(json!({})).unwrap();
    for key in 0..1000 {
        tester.put("numbers", key, 1_i64);
    }
    let steps = [
        step("remove", 999),
        step("remove", 0),
        step("insert", 1000),
        step("insert", 500),
        step("sum", 0),
    ];
    let outcome = tester.process("input", steps).unwrap();
    assert_eq!(outcome.values("output")[4], json!({"before": 999}));
}
