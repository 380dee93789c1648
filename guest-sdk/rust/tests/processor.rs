//! What a plugin's author writes, run as in a component.

use millstream_sdk::prelude::*;
use millstream_sdk::schema::{Branch, FieldType, MappedField, ValueBase};
use millstream_sdk::testing::{self, Record, Tester};
use millstream_sdk::{AnyCell, AnyRow, config_schema};
use serde_json::{Value, json};

/// Every type and every place of an input.
#[derive(Fields)]
struct Everything<'a> {
    flag: bool,
    #[field(path = "/deep/er", name = "deeper")]
    count: i64,
    amount: f64,
    text: &'a str,
    owned: String,
    maybe: Option<&'a str>,
    #[field(path = "/deep")]
    subtree: Json<'a>,
    #[field(key)]
    whole_key: &'a str,
    #[field(header = "trace")]
    trace: Option<&'a [u8]>,
    #[field(timestamp)]
    at: Time,
    #[field(offset)]
    offset: i64,
    #[field(raw_value)]
    raw: &'a [u8],
    #[field(raw_key)]
    raw_key: Option<Vec<u8>>,
    #[field(tombstone)]
    tombstone: bool,
    r#type: Option<Time>,
}

/// Every way to write.
#[derive(Branches)]
enum Out<'a> {
    ForwardOnly,
    Inline {
        sum: f64,
        #[field(path = "/nested/text")]
        text: &'a str,
    },
    #[branch(name = "fresh", value = new)]
    Row(Fresh<'a>),
    Moved {
        #[field(key)]
        key: String,
        #[field(header = "trace")]
        trace: Option<&'a str>,
        #[field(timestamp)]
        at: Time,
    },
    #[branch(value = new)]
    Nothing,
}

#[derive(Fields)]
struct Fresh<'a> {
    count: i64,
    maybe: Option<&'a str>,
    at: Time,
    subtree: Json<'a>,
    flag: Option<bool>,
}

#[derive(Config, Plugin)]
struct Echo;

impl Processor for Echo {
    type Input = Everything<'static>;
    type Output = Out<'static>;

    fn process(&mut self, row: Everything<'_>, out: &mut Output<Out<'static>>) -> Result<()> {
        assert!(
            !row.tombstone && row.raw.starts_with(b"{") && row.raw_key.as_deref() == Some(row.whole_key.as_bytes())
        );
        out.emit(Out::ForwardOnly);
        out.emit(Out::Inline {
            sum: row.amount + row.count as f64 + row.offset as f64,
            text: row.text,
        });
        for flag in [None, Some(row.flag)] {
            out.emit(Out::Row(Fresh {
                count: row.count,
                maybe: row.maybe,
                at: row.r#type.unwrap_or(row.at),
                subtree: row.subtree.clone(),
                flag,
            }));
        }
        let trace = row.trace.map(std::str::from_utf8).transpose()?;
        out.emit(Out::Moved {
            key: row.owned.to_uppercase(),
            trace: trace.is_none().then_some("made"),
            at: Time(row.at.0 + 1),
        });
        out.emit(Out::Nothing);
        ensure!(row.amount >= 0.0, "{} is negative", row.amount);
        Ok(())
    }
}

fn everything(amount: f64) -> Record {
    let value = json!({
        "flag": true, "deep": {"er": 7}, "amount": amount, "text": "é", "owned": "own", "maybe": null,
        "type": "2020-07-01T00:00:00Z",
    });
    Record::json(value).with_key("k1").at(1000)
}

#[test]
fn every_type_and_place_crosses_both_ways() {
    let second = everything(2.0).with_header("trace", "t");
    let outcome = testing::run::<Echo>(json!({}), [everything(0.5), second]).unwrap();
    assert_eq!(outcome.branch("forward-only")[0], everything(0.5));
    let inline = &outcome.values("inline")[0];
    assert_eq!(
        (&inline["sum"], &inline["nested"], &inline["flag"]),
        (&json!(7.5), &json!({"text": "é"}), &json!(true))
    );
    let fresh = outcome.values("fresh");
    assert_eq!(fresh.len(), 4, "one row in, two out");
    let at = 1_593_561_600_000_i64;
    assert_eq!(
        fresh[0],
        json!({"count": 7, "maybe": null, "at": at, "subtree": {"er": 7}, "flag": null})
    );
    assert_eq!(fresh[1]["flag"], json!(true));
    let moved = outcome.branch("moved");
    assert_eq!((moved[0].key_text().unwrap(), moved[0].timestamp), ("OWN".into(), 1001));
    assert_eq!(moved[0].header("trace"), Some("made".into()));
    assert_eq!(moved[1].headers, [], "a null cell removes the header");
    assert_eq!(moved[0].value, everything(0.5).value, "the value is passed on");
    assert_eq!(outcome.branch("nothing")[0].value, None);
}

#[test]
fn a_row_that_fails_takes_back_what_it_emitted() {
    let records = [1.0, -1.0, 2.0, -3.0].map(everything);
    let outcome = testing::run::<Echo>(json!({}), records).unwrap();
    assert_eq!(outcome.failures(), ["-1 is negative", "-3 is negative"]);
    assert_eq!(outcome.failed[1].record, 3);
    for (branch, rows) in [
        ("forward-only", 2),
        ("inline", 2),
        ("fresh", 4),
        ("moved", 2),
        ("nothing", 2),
    ] {
        assert_eq!(outcome.branch(branch).len(), rows, "{branch}");
    }
    assert_eq!(outcome.values("inline")[1]["sum"], json!(9.0));
}

#[test]
fn the_signature_is_what_the_types_say() {
    let tester = Tester::<Echo>::new(json!({})).unwrap();
    let signature = tester.signature();
    let fields = &signature.inputs[0].fields;
    assert_eq!(signature.inputs[0].name, "input");
    assert_eq!(
        fields[0],
        MappedField::new("flag", FieldType::Boolean, false, Place::Value("/flag".into()))
    );
    assert_eq!(
        fields[1],
        MappedField::new("deeper", FieldType::Integer, false, Place::Value("/deep/er".into()))
    );
    assert_eq!(
        fields[5],
        MappedField::new("maybe", FieldType::Text, true, Place::Value("/maybe".into()))
    );
    assert_eq!(
        fields[7],
        MappedField::new("whole_key", FieldType::Text, false, Place::Key("".into()))
    );
    assert_eq!(
        fields[8],
        MappedField::new("trace", FieldType::Bytes, true, Place::Header("trace".into()))
    );
    assert_eq!(
        fields[14],
        MappedField::new("type", FieldType::Time, true, Place::Value("/type".into()))
    );
    let branches: Vec<(&str, ValueBase, usize)> = signature
        .branches
        .iter()
        .map(|Branch { name, value, fields }| (name.as_str(), *value, fields.len()))
        .collect();
    let expected = [
        ("forward-only", ValueBase::Same, 0),
        ("inline", ValueBase::Same, 2),
        ("fresh", ValueBase::New, 5),
        ("moved", ValueBase::Same, 3),
        ("nothing", ValueBase::New, 0),
    ];
    assert_eq!(branches, expected);
}

#[test]
fn a_record_that_cannot_be_decoded_never_reaches_the_plugin() {
    let mut wrong = everything(1.0).json_value();
    wrong["amount"] = json!("much");
    let outcome = testing::run::<Echo>(json!({}), [Record::json(wrong).with_key("k"), everything(1.0)]).unwrap();
    assert_eq!(outcome.undecoded.len(), 1);
    assert!(
        outcome.undecoded[0].message.contains("amount"),
        "{:?}",
        outcome.undecoded
    );
    assert_eq!(outcome.branch("forward-only"), [everything(1.0)]);
}

#[derive(Fields)]
struct Ride {
    amount: f64,
}

#[derive(Fields)]
struct Refund<'a> {
    reason: &'a str,
}

#[derive(Inputs)]
enum Event<'a> {
    Rides(Ride),
    #[input(name = "money-back")]
    Refunds(Refund<'a>),
}

#[derive(Branches)]
#[branch(name = "lines", value = new)]
#[derive(Fields)]
struct Line {
    line: String,
}

#[derive(Config, Plugin)]
struct Lines;

impl Processor for Lines {
    type Input = Event<'static>;
    type Output = Line;

    fn process(&mut self, event: Event<'_>, out: &mut Output<Line>) -> Result<()> {
        let line = match event {
            Event::Rides(ride) => format!("ride {}", ride.amount),
            Event::Refunds(refund) => format!("refund: {}", refund.reason),
        };
        out.emit(Line { line });
        Ok(())
    }
}

#[test]
fn a_plugin_may_read_several_streams_and_write_one() {
    let mut tester = Tester::<Lines>::new(json!({})).unwrap();
    let rides = tester.process("rides", [json!({"amount": 2})]).unwrap();
    assert_eq!(rides.values("lines"), [json!({"line": "ride 2"})]);
    let refunds = tester.process("money-back", [json!({"reason": "late"})]).unwrap();
    assert_eq!(refunds.values("lines"), [json!({"line": "refund: late"})]);
    assert!(tester.process("refunds", [json!({})]).unwrap_err().contains("refunds"));
}

#[derive(Branches)]
enum By {
    Above,
    Below { share: f64 },
}

/// A batch at a time: how each row lies to the mean.
struct Mean {
    sums: Histogram,
    above: Counter,
    last: Gauge,
}

#[derive(Config)]
struct NoSettings;

impl Plugin for Mean {
    type Config = NoSettings;

    fn configure(_: NoSettings) -> Result<Self> {
        Ok(Mean {
            sums: Histogram::new("sums", "Sum of a batch"),
            above: Counter::new("above", "Rows above the mean"),
            last: Gauge::new("last", "The last amount"),
        })
    }
}

impl BatchProcessor for Mean {
    type Input = Ride;
    type Output = By;

    fn process_batch(&mut self, batch: &Batch<'_, Ride>, out: &mut Output<By>) -> Result<()> {
        let sum: f64 = batch.columns.amount.iter().sum();
        let mean = sum / f64::from(batch.len());
        log::info!("mean {mean}");
        self.sums.observe(sum);
        ensure!(sum < 1000.0, "the sum {sum} is too large");
        for (row, ride) in batch.rows() {
            out.at(row);
            self.last.set(ride.amount);
            if ride.amount > mean {
                self.above.increment();
                out.emit(By::Above);
            } else {
                out.emit(By::Below {
                    share: ride.amount / sum,
                });
            }
        }
        // A row that failed after rows behind it were emitted is taken out of the middle.
        if let Some(row) = batch.columns.amount.iter().position(|amount| amount < 0.0) {
            out.at(row as u32).fail("negative");
        }
        Ok(())
    }
}

#[test]
fn a_batch_at_a_time_with_logs_and_metrics() {
    let amounts = |amounts: &[f64]| {
        amounts
            .iter()
            .map(|amount| json!({"amount": amount}))
            .collect::<Vec<_>>()
    };
    let mut tester = Tester::<Mean>::new(json!({})).unwrap();
    let names: Vec<_> = tester
        .signature()
        .metrics
        .iter()
        .map(|metric| metric.name.clone())
        .collect();
    assert_eq!(names, ["sums", "above", "last"]);

    let outcome = tester.process("input", amounts(&[1.0, -1.0, 4.0, 4.0])).unwrap();
    assert_eq!(outcome.values("below"), [json!({"amount": 1.0, "share": 0.125})]);
    assert_eq!(outcome.branch("above").len(), 2);
    assert_eq!(outcome.failures(), ["negative"]);
    assert_eq!(outcome.log[0].1, "mean 2");
    assert_eq!(outcome.metrics["sums"], [8.0]);
    assert_eq!(outcome.metrics["above"], [2.0]);
    assert_eq!(outcome.metrics["last"], [4.0]);

    let error = tester.process("input", amounts(&[1000.0])).unwrap_err();
    assert_eq!(error, "the sum 1000 is too large");
    let outcome = tester.process("input", amounts(&[1.0])).unwrap();
    assert_eq!(
        outcome.metrics["sums"],
        [1.0],
        "what a failed call told the metrics is forgotten"
    );
}

#[derive(Config, Plugin)]
struct Moved {
    change: String,
}

impl Processor for Moved {
    type Input = Ride;
    type Output = By;

    fn signature(&self, signature: &mut Signature) {
        match self.change.as_str() {
            "type" => signature.input_mut("input").field_mut("amount").field.type_ = FieldType::Text,
            "optional" => signature.input_mut("input").field_mut("amount").field.optional = true,
            "branch" => signature.branches.truncate(1),
            "field" => signature.branch_mut("below").fields.clear(),
            place => signature.input_mut("input").field_mut("amount").place = Place::Value(place.into()),
        }
    }

    fn process(&mut self, ride: Ride, out: &mut Output<By>) -> Result<()> {
        out.emit(By::Below { share: ride.amount });
        Ok(())
    }
}

#[test]
fn a_setting_may_move_a_field_but_not_change_its_type() {
    let outcome = testing::run::<Moved>(json!({"change": "/deep/cost"}), [json!({"deep": {"cost": 3}})]).unwrap();
    assert_eq!(outcome.values("below")[0]["share"], json!(3.0));
    let refused = |change: &str| Tester::<Moved>::new(json!({"change": change})).unwrap_err();
    assert!(refused("type").contains("changed the type of the field \"amount\""));
    assert!(refused("optional").contains("changed the type"));
    assert!(refused("branch").contains("branches"));
    assert!(refused("field").contains("0 fields"));
}

#[derive(Config, Plugin)]
struct Stamp {
    headers: Vec<String>,
}

#[derive(Branches)]
enum Stamped<'a> {
    Stamped(AnyRow<'a>),
}

impl Processor for Stamp {
    type Input = AnyRow<'static>;
    type Output = Stamped<'static>;

    fn signature(&self, signature: &mut Signature) {
        for (at, field_type) in [FieldType::Integer, FieldType::Text, FieldType::Bytes]
            .into_iter()
            .enumerate()
        {
            let field = MappedField::new(format!("f{at}"), field_type, true, Place::Value(format!("/f{at}")));
            signature.input_mut("input").fields.push(field);
        }
        for header in &self.headers {
            let field = MappedField::new(header, FieldType::Text, true, Place::Header(header.clone()));
            signature.branch_mut("stamped").fields.push(field);
        }
    }

    fn process(&mut self, row: AnyRow<'_>, out: &mut Output<Stamped<'static>>) -> Result<()> {
        let text = format!("{:?}", row.cells);
        let cells = self.headers.iter().map(|header| {
            if header == "no" {
                AnyCell::Null
            } else {
                AnyCell::text(text.as_str())
            }
        });
        out.emit(Stamped::Stamped(AnyRow::new(cells)));
        Ok(())
    }
}

#[test]
fn fields_may_be_settings() {
    let record = Record::json(json!({"f0": 1, "f2": "x"})).with_header("no", "gone");
    let outcome = testing::run::<Stamp>(json!({"headers": ["a", "no"]}), [record]).unwrap();
    let stamped = &outcome.branch("stamped")[0];
    assert_eq!(stamped.header("a").unwrap(), "[Integer(1), Null, Bytes([120])]");
    assert_eq!(stamped.header("no"), None);
}

/// What a pipeline may set.
#[derive(Config)]
#[expect(dead_code, reason = "read by the derived code")]
struct Settings {
    /// How much
    /// is high.
    #[config(default = 40.0)]
    threshold: f64,
    field: Pointer,
    #[config(name = "max-rows", default = 10)]
    rows: u32,
    zones: Option<Vec<String>>,
    #[config(default)]
    rounding: Rounding,
    nested: Option<Nested>,
}

#[derive(Config, Default, Debug, PartialEq)]
enum Rounding {
    #[default]
    None,
    HalfUp,
}

#[derive(Config, Debug)]
struct Nested {
    #[allow(dead_code)]
    deep: bool,
}

struct Configured;

impl Plugin for Configured {
    type Config = Settings;

    fn configure(settings: Settings) -> Result<Self> {
        ensure!(settings.threshold > 0.0, "`threshold` must be above 0");
        assert_eq!(settings.rounding, Rounding::HalfUp);
        Ok(Configured)
    }
}

impl Processor for Configured {
    type Input = Ride;
    type Output = By;

    fn process(&mut self, _: Ride, _: &mut Output<By>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn every_mistake_of_a_configuration_is_named_at_once() {
    let refused = |config: Value| Tester::<Configured>::new(config).unwrap_err();
    let error = refused(json!({
        "treshold": 1, "field": "amount", "max-rows": -1, "zones": ["a", 2], "rounding": "half-upp", "nested": {"deep": 3, "x": 1},
    }));
    for part in [
        "`treshold` is not a setting: did you mean `threshold`?",
        "`field` must be a path such as",
        "`max-rows` must be an integer from 0 to 4294967295, but is -1",
        "`zones.1` must be a text, but is 2",
        "`rounding` cannot be \"half-upp\": did you mean `half-up`?",
        "`nested.deep` must be true or false, but is 3",
        "`nested.x` is not a setting",
    ] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    assert_eq!(refused(json!({})), "`field` is missing");
    assert_eq!(refused(json!([])), "the configuration must be an object, but is []");
    let negative = json!({"field": "/a", "threshold": -1, "rounding": "half-up"});
    assert_eq!(refused(negative), "`threshold` must be above 0");
    assert!(Tester::<Configured>::new(json!({"field": "", "rounding": "half-up", "zones": null})).is_ok());
    assert!(
        Tester::<Echo>::new(json!({"x": 1}))
            .unwrap_err()
            .contains("there are none")
    );
}

#[test]
fn the_schema_tells_types_comments_and_defaults() {
    let schema: Value = serde_json::from_str(&config_schema::<Configured>()).unwrap();
    assert_eq!(schema["description"], "What a pipeline may set.");
    assert_eq!(schema["required"], json!(["field"]));
    assert_eq!(schema["additionalProperties"], json!(false));
    let properties = &schema["properties"];
    assert_eq!(
        properties["threshold"],
        json!({"type": "number", "default": 40.0, "description": "How much is high."})
    );
    assert_eq!(properties["max-rows"]["default"], json!(10));
    assert_eq!(
        properties["rounding"],
        json!({"type": "string", "enum": ["none", "half-up"]})
    );
    assert_eq!(properties["field"], json!({"type": "string", "format": "json-pointer"}));
    assert_eq!(config_schema::<Echo>(), "");
}

#[derive(Branches)]
enum Overlapping {
    #[allow(dead_code)]
    Both {
        #[field(path = "/a")]
        one: f64,
        #[field(path = "/a/b")]
        other: f64,
    },
}

#[derive(Config, Plugin)]
struct Overlaps;

impl Processor for Overlaps {
    type Input = Ride;
    type Output = Overlapping;

    fn process(&mut self, _: Ride, _: &mut Output<Overlapping>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn fields_that_overlap_are_found_by_a_test() {
    assert!(
        Tester::<Overlaps>::new(json!({}))
            .unwrap_err()
            .contains("\"one\" and \"other\" overlap")
    );
}
