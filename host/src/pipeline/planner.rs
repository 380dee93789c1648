//! Puts together what was found: the plan, with stages in the order in which they run.

use std::collections::BTreeSet;
use std::time::Duration;

use super::declare::{self, Pipeline};
use super::exit::{Exit, ExitKind};
use super::flow::Flow;
use super::known::Known;
use super::plan::{
    Feed, Origin, Plan, PlannedBranch, PlannedSink, PlannedSource, PlannedStage, Repartition, RepartitionFeed,
    StageEntry,
};
use super::problem::Problem;
use super::topic::repartition_topic;
use super::wiring::{self, From, Rekeyed, Wire, Wiring};
use crate::format::Format;
use crate::limits::OFFSET_METADATA_BYTES_MAX;
use crate::state::notes::notes_bytes_max;

/// Puts what was found together. Only called where nothing was wrong.
pub(super) fn plan(
    pipeline: &Pipeline,
    known: Vec<Known>,
    wiring: &Wiring,
    order: &[usize],
    flow: &Flow,
    sinks: Vec<Vec<Option<PlannedSink>>>,
) -> Plan {
    let mut place = vec![0; order.len()];
    for (at, &stage) in order.iter().enumerate() {
        place[stage] = at;
    }
    let rekeyed = wiring.rekeyed(pipeline);
    let sources = pipeline.sources.len();
    let reaching = wiring.sources(&known, order, sources, &rekeyed);
    let planner = Planner {
        pipeline,
        known: &known,
        wiring,
        flow,
        place: &place,
        rekeyed: &rekeyed,
    };
    let mut plan = Plan {
        name: pipeline.name.value.clone(),
        group: pipeline.name.value.clone(),
        engine: pipeline.engine.clone(),
        sources: pipeline.sources.iter().map(planned_source).collect(),
        repartitions: Vec::new(),
        state: pipeline.state,
        stages: Vec::with_capacity(order.len()),
        dlq: PlannedSink {
            topic: pipeline.dlq.topic.value.clone(),
            partitions: Some(pipeline.dlq.partitions),
            value_format: Format::Raw,
            key_format: Format::Raw,
        },
        commit_interval: pipeline.commit.interval,
        commit_bytes_max: pipeline.commit.bytes_max,
        guarantee: pipeline.commit.guarantee,
        subtopologies: wiring::subtopologies(sources + rekeyed.len(), &reaching.within),
    };
    for (index, one) in rekeyed.iter().enumerate() {
        planner.repartition(&mut plan, sources + index, one);
    }
    let mut sinks = sinks;
    for &at in order {
        let sinks = std::mem::take(&mut sinks[at]);
        let mut stage = planner.stage(at, sinks);
        stage.sources = reaching.within[at].iter().copied().collect();
        for (index, feed) in stage.feeds.iter().enumerate() {
            let entry = StageEntry {
                stage: place[at],
                input: feed.input,
                feed: index,
            };
            if let Some(branch) = plan.branch_mut(feed.from) {
                branch.stages.push(entry);
            }
        }
        plan.stages.push(stage);
    }
    planner.inherit(&mut plan, &reaching.arriving);
    plan
}

impl Plan {
    fn branch_mut(&mut self, origin: Origin) -> Option<&mut PlannedBranch> {
        match origin {
            Origin::Source(_) => None,
            Origin::Branch { stage, branch } => self.stages[stage].branches.get_mut(branch),
            Origin::Late { stage } => self.stages[stage].late.as_mut(),
            Origin::Unkeyed { stage } => self.stages[stage].unkeyed.as_mut(),
        }
    }
}

struct Planner<'p> {
    pipeline: &'p Pipeline,
    known: &'p [Known],
    wiring: &'p Wiring,
    flow: &'p Flow,
    /// By stage of the file its place in the plan.
    place: &'p [usize],
    rekeyed: &'p [Rekeyed],
}

impl Planner<'_> {
    fn stage(&self, at: usize, sinks: Vec<Option<PlannedSink>>) -> PlannedStage {
        let stage = &self.pipeline.stages[at];
        let Known {
            described,
            config,
            exits,
        } = &self.known[at];
        let mut planned = PlannedStage {
            name: stage.name.value.clone(),
            plugin: stage.plugin.value.clone(),
            digest: described.digest.clone(),
            info: described.info.clone(),
            kind: described.kind,
            signature: described.signature.clone(),
            config: config.clone(),
            limits: described.limits.clone(),
            key: stage.key.as_ref().map(|key| key.value.clone()),
            accumulator: described.accumulator.clone(),
            window: stage.window.as_ref().map(|window| window.value),
            emit: stage.emit.as_ref().map(|emit| emit.value).unwrap_or_default(),
            late: None,
            unkeyed: None,
            feeds: self.feeds(at),
            sources: Vec::new(),
            branches: Vec::with_capacity(described.signature.branches.len()),
        };
        for (index, (Exit { branch, kind }, topic)) in exits.iter().zip(sinks).enumerate() {
            let Some(record) = self.flow.branches[at].get(index).and_then(|ways| ways.first()) else {
                continue;
            };
            let way = PlannedBranch {
                value_format: record.value.format.clone(),
                key_format: record.key.format.clone(),
                topic,
                stages: Vec::new(),
            };
            match kind {
                ExitKind::Declared => planned.branches.push(way),
                ExitKind::Late => planned.late = Some(way),
                ExitKind::Unkeyed => {
                    let this = From::Branch {
                        stage: at,
                        branch: Some(index),
                    };
                    let read = self.wiring.reads(this);
                    let mapped = stage.to.iter().any(|(name, _)| name.value == branch.name);
                    planned.unkeyed = (read || mapped).then_some(way);
                }
            }
        }
        planned
    }

    /// What feeds a stage: its wires, or, where it has a key of its own, the topics that they lead to.
    fn feeds(&self, at: usize) -> Vec<Feed> {
        let sources = self.pipeline.sources.len();
        let wires = &self.wiring.wires[at];
        if self.pipeline.stages[at].key.is_none() {
            let feed = |wire: &Wire| self.feed(wire, wire.input?, self.origin(wire.from)?);
            return wires.iter().filter_map(feed).collect();
        }
        let own = self.rekeyed.iter().enumerate().filter(|(_, one)| one.stage == at);
        own.filter_map(|(index, one)| {
            let wire = &wires[*one.wires.first()?];
            let feed = self.feed(wire, one.input, Origin::Source(sources + index))?;
            Some(Feed {
                key_format: Format::Text,
                ..feed
            })
        })
        .collect()
    }

    fn feed(&self, wire: &Wire, input: u32, from: Origin) -> Option<Feed> {
        let record = self.flow.of(wire.from)?.first()?;
        Some(Feed {
            input,
            from,
            value_format: record.value.format.clone(),
            key_format: record.key.format.clone(),
        })
    }

    fn origin(&self, from: From) -> Option<Origin> {
        Some(match from {
            From::Source(source) => Origin::Source(source),
            From::Branch { stage: at, branch } => {
                let (stage, branch) = (self.place[at], branch?);
                match self.known[at].exits.get(branch)?.kind {
                    ExitKind::Declared => Origin::Branch { stage, branch },
                    ExitKind::Late => Origin::Late { stage },
                    ExitKind::Unkeyed => Origin::Unkeyed { stage },
                }
            }
        })
    }

    /// Adds a repartition and the source that reads its topic.
    fn repartition(&self, plan: &mut Plan, source: usize, one: &Rekeyed) {
        let stage = &self.pipeline.stages[one.stage];
        let Some(key) = &stage.key else { return };
        let inputs = &self.known[one.stage].described.signature.inputs;
        let input = inputs.get(one.input as usize).filter(|_| inputs.len() > 1);
        let topic = repartition_topic(&plan.name, &stage.name, input.map(|input| input.name.as_str()));
        let wires = one.wires.iter().map(|&wire| &self.wiring.wires[one.stage][wire]);
        let from: Vec<RepartitionFeed> = wires
            .filter_map(|wire| {
                let Feed { from, value_format, .. } = self.feed(wire, one.input, self.origin(wire.from)?)?;
                Some(RepartitionFeed { from, value_format })
            })
            .collect();
        plan.sources.push(PlannedSource {
            name: topic.clone(),
            topic,
            pattern: None,
            partitions: 1,
            format: from.first().map_or(Format::Json, |feed| feed.value_format.clone()),
            key_format: Format::Text,
            key_from: None,
            time_from: None,
            repartition: Some(plan.repartitions.len()),
            future_max: crate::limits::FUTURE_TIME_MAX,
            idle: None,
        });
        plan.repartitions.push(Repartition {
            from,
            key_from: key.value.clone(),
            stage: self.place[one.stage],
            input: one.input,
            source,
            partitions: stage.partitions.as_ref().map(|partitions| partitions.value),
        });
    }

    /// Internal topics take after the sources whose records come to them, however far those are.
    fn inherit(&self, plan: &mut Plan, arriving: &[BTreeSet<usize>]) {
        // Each behind those that its records went through.
        let mut order: Vec<usize> = (0..plan.repartitions.len()).collect();
        order.sort_by_key(|&index| plan.repartitions[index].stage);
        for index in order {
            let feeding = arriving[self.rekeyed[index].stage]
                .iter()
                .map(|&from| &plan.sources[from]);
            let future_max = feeding.clone().map(|source| source.future_max).max();
            // Stream time moves by itself only where no record may still be on its way.
            let idle: Option<Vec<Duration>> = feeding.map(|source| source.idle).collect();
            let partitions = plan.repartition_partitions(index, |source| source.partitions);
            let source = &mut plan.sources[plan.repartitions[index].source];
            source.future_max = future_max.unwrap_or(source.future_max);
            source.idle = idle.and_then(|idle| idle.into_iter().max());
            source.partitions = partitions;
        }
    }
}

/// Internal topics that meet in a stage, of which the file wants different numbers of partitions.
pub(super) fn check_partitions(pipeline: &Pipeline, plan: &Plan) -> Vec<Problem> {
    let mut problems = Vec::new();
    for together in &plan.subtopologies {
        let internal = together.iter().filter_map(|&source| plan.sources[source].repartition);
        let said = internal.filter_map(|index| {
            let name = &plan.stages[plan.repartitions[index].stage].name;
            let stage = pipeline.stages.iter().find(|stage| stage.name.value == *name)?;
            Some((stage, stage.partitions.as_ref()?))
        });
        let said: Vec<_> = said.collect();
        let Some((first, wanted)) = said.first() else { continue };
        if let Some((second, other)) = said.iter().find(|(_, other)| other.value != wanted.value) {
            let message = format!(
                "the stage `{}` wants {other} partitions, and `{}` wants {wanted}, but what they read meets in a stage",
                second.name, first.name
            );
            let problem = Problem::new(other.span.clone(), message).also(wanted.span.clone(), "the first");
            problems.push(problem.help("records that meet have the same number of partitions: say the same one"));
        }
    }
    problems
}

/// Stages that keep something, of which too many run in the same tasks: what is noted of each beside their offsets has a
/// bound.
pub(super) fn check_notes(pipeline: &Pipeline, plan: &Plan) -> Vec<Problem> {
    let mut problems = Vec::new();
    for together in &plan.subtopologies {
        let keeps = |stage: &&PlannedStage| {
            let here = stage.sources.iter().any(|source| together.contains(source));
            here && (stage.accumulator.is_some() || !stage.signature.stores.is_empty())
        };
        let mut stages = plan.stages.iter().filter(keeps);
        let bytes = notes_bytes_max(stages.clone().map(|stage| stage.name.as_str()));
        if bytes <= OFFSET_METADATA_BYTES_MAX {
            continue;
        }
        let count = stages.clone().count();
        let last = stages
            .next_back()
            .and_then(|last| pipeline.stages.iter().find(|stage| stage.name.value == last.name));
        if let Some(last) = last {
            let message = format!(
                "{count} stages that keep something are fed by the same records: what is noted of them with each commit \
                 may have {bytes} bytes, and {OFFSET_METADATA_BYTES_MAX} is the most"
            );
            let problem = Problem::new(last.name.span.clone(), message).label("one too many");
            problems.push(problem.help("move some of them to a pipeline of their own, or give them shorter names"));
        }
    }
    problems
}

/// Sources of several topics, whose records come where all of a partition's number have to meet.
pub(super) fn check_patterns(pipeline: &Pipeline, plan: &Plan) -> Vec<Problem> {
    let mut problems = Vec::new();
    let help = "give the stage a `key`: then its records come together through a topic of the pipeline's own";
    for (at, source) in pipeline.sources.iter().enumerate() {
        if source.pattern.is_none() {
            continue;
        }
        let name = &source.name;
        if let Some(stage) = plan.stages.iter().find(|stage| {
            let keeps = stage.accumulator.is_some() || !stage.signature.stores.is_empty();
            stage.sources.contains(&at) && keeps
        }) {
            let message = format!(
                "the stage `{}` keeps something by key, and the topics of the source `{name}` may have the same key in \
                 different partitions",
                stage.name
            );
            let problem = Problem::new(source.topic.span.clone(), message);
            problems.push(problem.label("several topics").help(help));
        } else if let Some(together) = plan.subtopologies.iter().find(|all| all.contains(&at) && all.len() > 1) {
            let other = together
                .iter()
                .find(|other| **other != at)
                .map(|&other| &plan.sources[other].name);
            let message = format!(
                "the sources `{name}` and `{}` meet in a stage, so each has to be one topic",
                other.map_or("", String::as_str)
            );
            let problem = Problem::new(source.topic.span.clone(), message);
            problems.push(problem.label("several topics").help(help));
        }
    }
    problems
}

fn planned_source(source: &declare::Source) -> PlannedSource {
    PlannedSource {
        name: source.name.value.clone(),
        topic: source.topic.value.clone(),
        pattern: source.pattern.clone(),
        partitions: source.partitions,
        format: source.format.value.clone(),
        key_format: source.key_format.value.clone(),
        key_from: source.key.as_ref().map(|key| key.value.clone()),
        time_from: source.timestamp.as_ref().map(|timestamp| timestamp.value.clone()),
        repartition: None,
        future_max: source.future_max,
        idle: source.idle,
    }
}
