//! Explains a pipeline: topics, stages and branches with their types, for people and for machines.

use serde::Serialize;

use super::plan::{Origin, Plan, PlannedBranch, PlannedSink, PlannedStage};
use super::topic::changelog_topic;
use crate::schema::{Field, PluginKind, Signature};
use crate::window::{Emit, Window};

/// The plan as a drawing in plain text; colours are [`Explanation::draw`]'s.
pub fn explain(plan: &Plan) -> String {
    Explanation::new(plan).draw(false)
}

/// What there is to say of a pipeline, with names instead of indices. Its serialised form is what `-o json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    pub(super) name: String,
    pub(super) engine: &'static str,
    /// Where those are that the file names; `None`: as the command says, or none are needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) brokers: Option<String>,
    pub(super) group: String,
    pub(super) commit: ExplainedCommit,
    /// `None` where no stage keeps any.
    pub(super) state: Option<ExplainedState>,
    pub(super) dlq: ExplainedTopic,
    /// Behind those of the file the pipeline's own.
    pub(super) sources: Vec<ExplainedSource>,
    pub(super) stages: Vec<ExplainedStage>,
    /// Sources that are read by the same tasks.
    pub(super) subtopologies: Vec<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainedCommit {
    pub(super) interval_ms: u64,
    pub(super) bytes_max: usize,
    pub(super) guarantee: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainedState {
    pub(super) memory_bytes_max: usize,
    /// `None`: as much as there is room for.
    pub(super) quota_bytes_max: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainedTopic {
    pub(super) topic: String,
    pub(super) format: String,
    pub(super) key_format: String,
    /// `None`: as many as the source has.
    pub(super) partitions: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainedSource {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) topic: ExplainedTopic,
    /// `None`: the record's key.
    pub(super) key: Option<String>,
    /// `None`: the record's timestamp.
    pub(super) event_time: Option<String>,
    pub(super) future_max_ms: u64,
    pub(super) idle_ms: Option<u64>,
    /// Of the pipeline's own topics.
    pub(super) internal: Option<ExplainedRepartition>,
    /// The stages that it feeds.
    pub(super) stages: Vec<ExplainedEntry>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainedRepartition {
    /// The field of the value that is the key there.
    pub(super) key: String,
    /// Sources, and branches as "stage.branch".
    pub(super) from: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainedEntry {
    pub(super) stage: String,
    /// The name of the input, where the plugin has several.
    pub(super) input: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainedStage {
    pub(super) name: String,
    pub(super) plugin: String,
    pub(super) version: String,
    pub(super) kind: PluginKind,
    pub(super) summary: String,
    pub(super) file: String,
    pub(super) digest: String,
    /// As it was written: variables are not replaced.
    pub(super) config: serde_json::Value,
    pub(super) limits: ExplainedLimits,
    /// A key of its own; `None`: the record's.
    pub(super) key: Option<String>,
    pub(super) window: Option<ExplainedWindow>,
    /// When an aggregator sends results.
    pub(super) emit: Option<&'static str>,
    /// What an aggregator keeps for a group.
    pub(super) accumulator: Option<Vec<Field>>,
    /// Branches as their values are written.
    #[serde(flatten)]
    pub(super) signature: Signature,
    /// The topics of its groups, or of its stores in the order of the signature.
    pub(super) changelogs: Vec<String>,
    /// Where each branch of the signature goes; behind them the host's own.
    pub(super) to: Vec<ExplainedBranch>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainedWindow {
    pub(super) size_ms: i64,
    pub(super) advance_ms: i64,
    pub(super) offset_ms: i64,
    pub(super) grace_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainedLimits {
    pub(super) memory_bytes_max: usize,
    pub(super) call_time_max_ms: u64,
    pub(super) output_bytes_max: u64,
    pub(super) output_rows_per_row_max: u64,
    pub(super) log_lines_per_second_max: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExplainedBranch {
    pub(super) branch: String,
    pub(super) topic: Option<ExplainedTopic>,
    pub(super) stages: Vec<ExplainedEntry>,
    /// The pipeline's own topics that it is written to.
    pub(super) internal: Vec<String>,
    /// Whether its records are dead letters, as nobody said where they go.
    pub(super) dead_letters: bool,
}

impl Explanation {
    /// Describes a plan.
    pub fn new(plan: &Plan) -> Explanation {
        let entry = |stage: usize, input: u32| {
            let stage = &plan.stages[stage];
            let several = stage.signature.inputs.len() > 1;
            let input = stage.signature.inputs.get(input as usize).filter(|_| several);
            ExplainedEntry {
                stage: stage.name.clone(),
                input: input.map(|input| input.name.clone()),
            }
        };
        let sources = (0..plan.sources.len()).map(|at| {
            let feeds = plan
                .stages
                .iter()
                .enumerate()
                .flat_map(|(stage, planned)| planned.feeds.iter().map(move |feed| (stage, feed)));
            let fed = feeds
                .filter(|(_, feed)| feed.from == Origin::Source(at))
                .map(|(stage, feed)| entry(stage, feed.input));
            ExplainedSource::new(plan, at, fed.collect())
        });
        let way = |name: &str, origin: Origin, planned: Option<&PlannedBranch>| {
            let stages = planned.map_or(&[][..], |planned| &planned.stages);
            ExplainedBranch {
                branch: name.into(),
                topic: planned
                    .and_then(|planned| planned.topic.as_ref())
                    .map(ExplainedTopic::new),
                stages: stages.iter().map(|to| entry(to.stage, to.input)).collect(),
                internal: internal_topics(plan, origin),
                dead_letters: planned.is_none(),
            }
        };
        let stages = plan.stages.iter().enumerate().map(|(at, stage)| {
            let declared = stage.signature.branches.iter().zip(&stage.branches).enumerate();
            let declared = declared.map(|(branch, (described, planned))| {
                let origin = Origin::Branch { stage: at, branch };
                way(&described.name, origin, Some(planned))
            });
            let late = stage.late.as_ref();
            let late = late.map(|late| way("late", Origin::Late { stage: at }, Some(late)));
            let keyed = stage.key.is_some() || stage.kind == PluginKind::Aggregator;
            let unkeyed = keyed.then(|| way("unkeyed", Origin::Unkeyed { stage: at }, stage.unkeyed.as_ref()));
            ExplainedStage::new(&plan.name, stage, declared.chain(late).chain(unkeyed).collect())
        });
        let name = |&source: &usize| plan.sources[source].name.clone();
        Explanation {
            name: plan.name.clone(),
            engine: plan.engine.name(),
            brokers: plan.engine.brokers().map(str::to_owned),
            group: plan.group.clone(),
            commit: ExplainedCommit {
                interval_ms: plan.commit_interval.as_millis() as u64,
                bytes_max: plan.commit_bytes_max,
                guarantee: plan.guarantee().name(),
            },
            state: plan.stages.iter().any(keeps_state).then_some(ExplainedState {
                memory_bytes_max: plan.state.memory_bytes_max,
                quota_bytes_max: plan.state.quota_bytes_max,
            }),
            dlq: ExplainedTopic::new(&plan.dlq),
            sources: sources.collect(),
            stages: stages.collect(),
            subtopologies: plan
                .subtopologies
                .iter()
                .map(|together| together.iter().map(name).collect())
                .collect(),
        }
    }
}

fn keeps_state(stage: &PlannedStage) -> bool {
    stage.kind == PluginKind::Aggregator || !stage.signature.stores.is_empty()
}

fn internal_topics(plan: &Plan, origin: Origin) -> Vec<String> {
    let repartitions = plan.repartitions_of(origin).map(|at| &plan.repartitions[at]);
    let topic = |source: usize| plan.sources[source].topic.clone();
    repartitions.map(|repartition| topic(repartition.source)).collect()
}

fn origin_name(plan: &Plan, origin: Origin) -> String {
    let of = |stage: usize, branch: &str| format!("{}.{branch}", plan.stages[stage].name);
    match origin {
        Origin::Source(source) => plan.sources[source].name.clone(),
        Origin::Branch { stage, branch } => of(stage, &plan.stages[stage].signature.branches[branch].name),
        Origin::Late { stage } => of(stage, "late"),
        Origin::Unkeyed { stage } => of(stage, "unkeyed"),
    }
}

impl ExplainedTopic {
    fn new(sink: &PlannedSink) -> ExplainedTopic {
        ExplainedTopic {
            topic: sink.topic.clone(),
            format: sink.value_format.to_string(),
            key_format: sink.key_format.to_string(),
            partitions: sink.partitions,
        }
    }
}

impl ExplainedSource {
    fn new(plan: &Plan, at: usize, stages: Vec<ExplainedEntry>) -> ExplainedSource {
        let source = &plan.sources[at];
        let repartition = source.repartition.map(|index| &plan.repartitions[index]);
        let internal = repartition.map(|repartition| ExplainedRepartition {
            key: repartition.key_from.clone(),
            from: repartition
                .from
                .iter()
                .map(|feed| origin_name(plan, feed.from))
                .collect(),
        });
        let said = repartition.map_or(Some(source.partitions), |repartition| repartition.partitions);
        ExplainedSource {
            name: source.name.clone(),
            topic: ExplainedTopic {
                topic: source.topic.clone(),
                format: source.format.to_string(),
                key_format: source.key_format.to_string(),
                partitions: said,
            },
            key: source.key_from.clone(),
            event_time: source.time_from.clone(),
            future_max_ms: source.future_max.as_millis() as u64,
            idle_ms: source.idle.map(|idle| idle.as_millis() as u64),
            internal,
            stages,
        }
    }
}

impl ExplainedStage {
    fn new(pipeline: &str, stage: &PlannedStage, to: Vec<ExplainedBranch>) -> ExplainedStage {
        let aggregates = stage.kind == PluginKind::Aggregator;
        let groups = aggregates.then(|| changelog_topic(pipeline, &stage.name, None));
        let stores = stage.signature.stores.iter();
        let stores = stores.map(|store| changelog_topic(pipeline, &stage.name, Some(&store.name)));
        let mut signature = stage.signature.clone();
        for branch in &mut signature.branches {
            *branch = stage.written_branch(branch);
        }
        ExplainedStage {
            name: stage.name.clone(),
            plugin: stage.info.name.clone(),
            version: stage.info.version.clone(),
            kind: stage.kind,
            summary: stage.info.summary.clone(),
            file: stage.plugin.display().to_string(),
            digest: stage.digest.clone(),
            config: serde_json::from_str(stage.config.shown()).unwrap_or_default(),
            limits: ExplainedLimits {
                memory_bytes_max: stage.limits.memory_bytes_max,
                call_time_max_ms: stage.limits.call_time_max.as_millis() as u64,
                output_bytes_max: stage.limits.output_bytes_max,
                output_rows_per_row_max: stage.limits.output_rows_per_row_max,
                log_lines_per_second_max: stage.limits.log_lines_per_second_max,
            },
            key: stage.key.clone(),
            window: stage.window.as_ref().map(ExplainedWindow::new),
            emit: aggregates.then_some(match stage.emit {
                Emit::Update => "update",
                Emit::EveryUpdate => "every-update",
                Emit::Close => "close",
            }),
            accumulator: stage.accumulator.as_ref().map(|accumulator| accumulator.fields.clone()),
            signature,
            changelogs: groups.into_iter().chain(stores).collect(),
            to,
        }
    }
}

impl ExplainedWindow {
    fn new(window: &Window) -> ExplainedWindow {
        ExplainedWindow {
            size_ms: window.size_ms,
            advance_ms: window.advance_ms,
            offset_ms: window.offset_ms,
            grace_ms: window.grace_ms,
        }
    }
}
