//! Holds a pipeline against its plugins, finds everything that does not fit, and plans what is to run.

use std::path::Path;

use super::catalog::{Catalog, Concern, Described};
use super::declare::{self, Declared, Destination, Pipeline, Stage};
use super::draft::{Draft, draft, read};
use super::flow::{self, Flow};
use super::plan::{Feed, Origin, Plan, PlannedBranch, PlannedSink, PlannedSource, PlannedStage, StageEntry};
use super::problem::{Problem, Report, suggest};
use super::variable::Environment;
use super::wiring::{self, From, Wiring};
use super::{Span, Spanned};
use crate::format::Format;
use crate::schema::PluginKind;

/// Holds a pipeline against its plugins.
///
/// # Errors
/// All that does not fit, at once.
pub fn check(pipeline: &Pipeline, catalog: &dyn Catalog) -> Result<Plan, Report> {
    match checked(pipeline, catalog) {
        Ok(plan) => Ok(plan),
        Err(problems) => Err(pipeline.declared.report(problems)),
    }
}

/// Reads a pipeline file and holds it against its plugins, so that errors in the file and errors between it and the
/// plugins are shown together.
///
/// # Errors
/// If the file cannot be read, and all that is wrong.
pub fn load(file: &Path, environment: Environment<'_>, catalog: &dyn Catalog) -> Result<(Pipeline, Plan), Report> {
    let Draft {
        declared,
        pipeline,
        mut problems,
    } = draft(&read(file)?, file, environment);
    let Some(pipeline) = pipeline else {
        return Err(declared.report(problems));
    };
    match checked(&pipeline, catalog) {
        Ok(plan) if problems.is_empty() => return Ok((pipeline, plan)),
        Ok(_) => {}
        Err(more) => problems.extend(more),
    }
    Err(declared.report(problems))
}

impl Declared {
    fn report(&self, problems: Vec<Problem>) -> Report {
        Report::new(self.file.clone(), self.text.clone(), problems)
    }
}

fn checked(pipeline: &Pipeline, catalog: &dyn Catalog) -> Result<Plan, Vec<Problem>> {
    let mut problems = Vec::new();
    let described: Vec<Option<Described>> = pipeline
        .stages
        .iter()
        .map(|stage| describe(stage, catalog, &mut problems))
        .collect();
    let wiring = wiring::wire(pipeline, &described, &mut problems);
    let order = wiring.order(pipeline, &mut problems);
    flow::check_branches(pipeline, &described, &wiring, &mut problems);
    flow::check_sources(pipeline, &mut problems);
    check_topics(pipeline, &mut problems);
    check_used(pipeline, &wiring, &mut problems);
    let Some(order) = order else { return Err(problems) };
    let flow = flow::follow(pipeline, &described, &wiring, &order, &mut problems);
    let sinks = sinks(pipeline, &described, &flow, &mut problems);
    let described: Option<Vec<Described>> = described.into_iter().collect();
    match described {
        Some(described) if problems.is_empty() => Ok(plan(pipeline, described, &wiring, &order, &flow, sinks)),
        _ => Err(problems),
    }
}

/// Asks the catalog, and what the pipeline can say about the answer by itself.
fn describe(stage: &Stage, catalog: &dyn Catalog, problems: &mut Vec<Problem>) -> Option<Described> {
    for grant in &stage.grants {
        let known = CAPABILITIES.contains(&grant.as_str());
        let (message, help) = if known {
            (
                format!("`{grant}` cannot be granted: this version grants nothing beyond the contract"),
                "remove it".into(),
            )
        } else {
            (
                format!("there is no capability `{grant}`"),
                suggest(grant, CAPABILITIES, "capabilities"),
            )
        };
        problems.push(Problem::new(grant.span.clone(), message).help(help));
    }
    let config = stage
        .config
        .as_ref()
        .map(|config| config.value.clone())
        .unwrap_or_default();
    let described = match catalog.describe(&stage.plugin, config.json(), &stage.limits) {
        Ok(described) => described,
        Err(error) => {
            let span = match (error.concerns, &stage.config) {
                (Concern::Plugin, _) => stage.plugin.span.clone(),
                (Concern::Config, Some(config)) => config.span.clone(),
                (Concern::Config, None) => stage.name.span.clone(),
            };
            let mut problem = Problem::new(
                span,
                format!("the stage `{}`: {}", stage.name, config.conceal(&error.message)),
            );
            problem.help = error.help.map(|help| config.conceal(&help)).or_else(|| {
                (error.concerns == Concern::Config && stage.config.is_none())
                    .then(|| "the stage has no `config`: add `config = { … }`".to_owned())
            });
            problems.push(problem);
            return None;
        }
    };
    let before = problems.len();
    supported(stage, &described, problems);
    for capability in &described.info.capabilities {
        let message = format!(
            "the plugin `{}` asks for `{capability}`, which the pipeline does not grant",
            described.info.name
        );
        let help = "this version grants nothing beyond the contract: use a build of the plugin that does without";
        problems.push(Problem::new(stage.plugin.span.clone(), message).help(help));
    }
    unique(stage, &described, problems);
    if problems.len() > before && described.signature.inputs.is_empty() {
        return None;
    }
    Some(described)
}

const CAPABILITIES: [&str; 4] = ["clock", "random", "network", "files"];

/// What this version of the host does not run yet: the only place that says so.
fn supported(stage: &Stage, described: &Described, problems: &mut Vec<Problem>) {
    let name = &described.info.name;
    let mut refuse = |what: String| {
        let message = format!("the plugin `{name}` {what}; this version runs processors without stores");
        let help = "use a plugin that exports `processor` and keeps no state";
        problems.push(Problem::new(stage.plugin.span.clone(), message).help(help));
    };
    if described.kind == PluginKind::Aggregator {
        refuse("is an aggregator".into());
    }
    if let Some(store) = described.signature.stores.first() {
        refuse(format!("keeps the store `{}`", store.name));
    }
}

/// Names in a signature are what pipelines refer to.
fn unique(stage: &Stage, described: &Described, problems: &mut Vec<Problem>) {
    let signature = &described.signature;
    let lists: [(&str, Vec<&str>); 2] = [
        (
            "inputs",
            signature.inputs.iter().map(|input| input.name.as_str()).collect(),
        ),
        (
            "branches",
            signature.branches.iter().map(|branch| branch.name.as_str()).collect(),
        ),
    ];
    for (what, names) in lists {
        if let Some(at) = (1..names.len()).find(|&at| names[..at].contains(&names[at])) {
            let message = format!(
                "the plugin `{}` declares two {what} of the name `{}`",
                described.info.name, names[at]
            );
            let problem = Problem::new(stage.plugin.span.clone(), message);
            problems.push(problem.help("the plugin's author has to give them different names"));
        }
    }
    if signature.inputs.is_empty() {
        let message = format!("the plugin `{}` declares no input", described.info.name);
        problems.push(Problem::new(stage.plugin.span.clone(), message).help("the plugin's author has to add one"));
    }
}

/// Topics that are read and written: nothing twice where it would count twice, nothing in a circle.
fn check_topics(pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let sources = &pipeline.sources;
    for (at, source) in sources.iter().enumerate() {
        if let Some(first) = sources[..at].iter().find(|other| other.topic == source.topic) {
            let message = format!(
                "the sources `{}` and `{}` read the same topic `{}`",
                first.name, source.name, source.topic
            );
            let problem = Problem::new(source.topic.span.clone(), message).also(first.topic.span.clone(), "the first");
            problems
                .push(problem.help("one source can feed many stages: keep one of them, and name it in their `input`"));
        }
        if source.topic == pipeline.dlq.topic {
            let message = format!(
                "the pipeline reads its own dead-letter queue `{}`: what fails would come again for ever",
                source.topic
            );
            let problem = Problem::new(source.topic.span.clone(), message);
            let problem = at_place(problem, &pipeline.dlq.topic.span, "the dead-letter queue");
            problems.push(problem.help("read it in a pipeline of its own, or give `[dlq]` another topic"));
        }
    }
    let mut written: Vec<(&Stage, &str, &declare::Sink)> = Vec::new();
    for (stage, branch, sink) in pipeline.stages.iter().flat_map(sinks_of) {
        let topic = &sink.topic;
        if let Some(source) = sources.iter().find(|source| source.topic == *topic) {
            let message = format!("the pipeline would eat its own output: it reads the topic `{topic}`, and writes it");
            let problem = Problem::new(topic.span.clone(), message)
                .label("written here")
                .also(source.topic.span.clone(), "read here");
            problems.push(problem.help("give the branch another topic"));
        }
        if *topic == pipeline.dlq.topic {
            let message = format!(
                "the branch `{branch}` of the stage `{}` is written to the dead-letter queue `{topic}`",
                stage.name
            );
            let problem = at_place(
                Problem::new(topic.span.clone(), message),
                &pipeline.dlq.topic.span,
                "the dead-letter queue",
            );
            problems.push(problem.help("give one of them another topic"));
        }
        if let Some((other_stage, other, first)) = written.iter().find(|(_, _, other)| other.topic == *topic)
            && let (Some(here), Some(there)) = (sink.partitions, first.partitions)
            && here != there
        {
            let message = format!(
                "the topic `{topic}` gets {here} partitions for the branch `{branch}`, and {there} for `{}.{other}`",
                other_stage.name
            );
            problems.push(
                Problem::new(topic.span.clone(), message)
                    .also(first.topic.span.clone(), "the first")
                    .help("say the same number"),
            );
        }
        written.push((stage, branch, sink));
    }
}

/// Defaults stand nowhere: they are not underlined.
fn at_place(problem: Problem, span: &Span, text: &str) -> Problem {
    if span.is_empty() {
        problem
    } else {
        problem.also(span.clone(), text)
    }
}

fn sinks_of(stage: &Stage) -> impl Iterator<Item = (&Stage, &str, &declare::Sink)> {
    stage
        .to
        .iter()
        .filter_map(move |(branch, destination)| match &destination.value {
            Destination::Topic(sink) => Some((stage, branch.as_str(), sink)),
            Destination::Dropped => None,
        })
}

/// A source that nobody reads is a name misspelt, or left over.
fn check_used(pipeline: &Pipeline, wiring: &Wiring, problems: &mut Vec<Problem>) {
    for (at, source) in pipeline.sources.iter().enumerate() {
        let used = wiring.wires.iter().flatten().any(|wire| wire.from == From::Source(at));
        if wiring.complete && !used {
            let message = format!("no stage reads the source `{}`", source.name);
            let help = format!("name it in a stage's `input = \"{}\"`, or remove it", source.name);
            problems.push(Problem::new(source.name.span.clone(), message).help(help));
        }
    }
}

/// For each stage and branch how its values are written to its topic, if it has one.
fn sinks(
    pipeline: &Pipeline,
    described: &[Option<Described>],
    flow: &Flow,
    problems: &mut Vec<Problem>,
) -> Vec<Vec<Option<PlannedSink>>> {
    let mut planned: Vec<Vec<Option<PlannedSink>>> = Vec::new();
    let mut seen: Vec<(Spanned<String>, Format)> = Vec::new();
    for (at, (stage, described)) in pipeline.stages.iter().zip(described).enumerate() {
        let branches = described
            .iter()
            .flat_map(|described| &described.signature.branches)
            .enumerate();
        planned.push(
            branches
                .map(|(index, branch)| {
                    let (_, _, sink) = sinks_of(stage).find(|(_, name, _)| *name == branch.name)?;
                    let record = flow.branches[at].get(index)?.first()?;
                    let value_format = flow::sink_format(branch, &stage.name, sink, &record.value.format, problems);
                    if let Some((first, other)) = seen
                        .iter()
                        .find(|(topic, format)| *topic == sink.topic && *format != value_format)
                    {
                        let message = format!(
                            "the topic `{}` would hold {value_format} of the branch `{}`, and {other}",
                            sink.topic, branch.name
                        );
                        let problem = Problem::new(sink.topic.span.clone(), message)
                            .also(first.span.clone(), format!("{other} comes from here"));
                        problems.push(problem.help("a topic has one format: give the branches a topic each"));
                    }
                    seen.push((sink.topic.clone(), value_format.clone()));
                    Some(PlannedSink {
                        topic: sink.topic.value.clone(),
                        partitions: sink.partitions,
                        value_format,
                        key_format: record.key.format.clone(),
                    })
                })
                .collect(),
        );
    }
    planned
}

/// Puts what was found together, with stages in the order in which they run. Only called where nothing was wrong.
fn plan(
    pipeline: &Pipeline,
    described: Vec<Described>,
    wiring: &Wiring,
    order: &[usize],
    flow: &Flow,
    mut sinks: Vec<Vec<Option<PlannedSink>>>,
) -> Plan {
    let mut place = vec![0; order.len()];
    for (at, &stage) in order.iter().enumerate() {
        place[stage] = at;
    }
    let reaching = wiring.sources(order);
    let mut described: Vec<Option<Described>> = described.into_iter().map(Some).collect();
    let mut stages: Vec<PlannedStage> = Vec::with_capacity(order.len());
    for &at in order {
        let stage = &pipeline.stages[at];
        let Some(Described {
            info,
            kind,
            signature,
            accumulator,
            digest,
        }) = described[at].take()
        else {
            continue;
        };
        let feeds: Vec<Feed> = wiring.wires[at]
            .iter()
            .filter_map(|wire| feed(wire, flow, &place))
            .collect();
        for (index, feed) in feeds.iter().enumerate() {
            if let Origin::Branch { stage: from, branch } = feed.from {
                let entry = StageEntry {
                    stage: place[at],
                    input: feed.input,
                    feed: index,
                };
                stages[from].branches[branch].stages.push(entry);
            }
        }
        let branches = flow.branches[at]
            .iter()
            .zip(std::mem::take(&mut sinks[at]))
            .filter_map(|(ways, topic)| {
                let record = ways.first()?;
                Some(PlannedBranch {
                    value_format: record.value.format.clone(),
                    key_format: record.key.format.clone(),
                    topic,
                    stages: Vec::new(),
                })
            });
        stages.push(PlannedStage {
            name: stage.name.value.clone(),
            plugin: stage.plugin.value.clone(),
            branches: branches.collect(),
            digest,
            info,
            kind,
            signature,
            config: stage
                .config
                .as_ref()
                .map(|config| config.value.clone())
                .unwrap_or_default(),
            limits: stage.limits.clone(),
            key: None,
            accumulator,
            window: None,
            emit: crate::window::Emit::default(),
            late: None,
            unkeyed: None,
            feeds,
            sources: reaching[at].iter().copied().collect(),
        });
    }
    Plan {
        name: pipeline.name.value.clone(),
        group: pipeline.name.value.clone(),
        engine: pipeline.engine,
        sources: pipeline.sources.iter().map(planned_source).collect(),
        repartitions: Vec::new(),
        state: super::plan::StateLimits::default(),
        stages,
        dlq: PlannedSink {
            topic: pipeline.dlq.topic.value.clone(),
            partitions: Some(pipeline.dlq.partitions),
            value_format: Format::Raw,
            key_format: Format::Raw,
        },
        commit_interval: pipeline.commit.interval,
        commit_bytes_max: pipeline.commit.bytes_max,
        subtopologies: wiring::subtopologies(pipeline.sources.len(), &reaching),
    }
}

fn feed(wire: &wiring::Wire, flow: &Flow, place: &[usize]) -> Option<Feed> {
    let record = flow.of(wire.from)?.first()?;
    Some(Feed {
        input: wire.input?,
        from: match wire.from {
            From::Source(source) => Origin::Source(source),
            From::Branch { stage, branch } => Origin::Branch {
                stage: place[stage],
                branch: branch?,
            },
        },
        value_format: record.value.format.clone(),
        key_format: record.key.format.clone(),
    })
}

fn planned_source(source: &declare::Source) -> PlannedSource {
    PlannedSource {
        name: source.name.value.clone(),
        topic: source.topic.value.clone(),
        partitions: source.partitions,
        format: source.format.value.clone(),
        key_format: source.key_format.value.clone(),
        key_from: source.key.as_ref().map(|key| key.value.clone()),
        time_from: source.timestamp.as_ref().map(|timestamp| timestamp.value.clone()),
        repartition: None,
        future_max: crate::limits::FUTURE_TIME_MAX,
        idle: None,
    }
}
