//! Holds a pipeline against its plugins, finds everything that does not fit, and plans what is to run.

use std::path::Path;

use super::Spanned;
use super::catalog::Catalog;
use super::declare::{Declared, Pipeline};
use super::draft::{Draft, draft, read};
use super::exit::{Exit, check_branches};
use super::flow::{self, Flow};
use super::known::{Known, describe};
use super::plan::{Plan, PlannedSink};
use super::planner::{check_notes, check_partitions, check_patterns, plan};
use super::problem::{Problem, Report};
use super::topic::{check_internal_topics, check_topics, sinks_of};
use super::variable::Environment;
use super::wiring::{self, From, Wiring};
use crate::format::Format;

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
    let known: Vec<Option<Known>> = pipeline
        .stages
        .iter()
        .map(|stage| describe(stage, catalog, &mut problems))
        .collect();
    let wiring = wiring::wire(pipeline, &known, &mut problems);
    let order = wiring.order(pipeline, &mut problems);
    check_branches(pipeline, &known, &wiring, &mut problems);
    flow::check_sources(pipeline, &mut problems);
    check_topics(pipeline, &mut problems);
    check_internal_topics(pipeline, &known, &mut problems);
    check_used(pipeline, &wiring, &mut problems);
    let Some(order) = order else { return Err(problems) };
    let flow = flow::follow(pipeline, &known, &wiring, &order, &mut problems);
    let sinks = sinks(pipeline, &known, &flow, &mut problems);
    let known: Option<Vec<Known>> = known.into_iter().collect();
    let Some(known) = known.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    let plan = plan(pipeline, known, &wiring, &order, &flow, sinks);
    let mut problems = check_partitions(pipeline, &plan);
    problems.extend(check_notes(pipeline, &plan));
    problems.extend(check_patterns(pipeline, &plan));
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

/// A source that nobody reads is a name misspelt, or left over.
fn check_used(pipeline: &Pipeline, wiring: &Wiring, problems: &mut Vec<Problem>) {
    for (at, source) in pipeline.sources.iter().enumerate() {
        if wiring.complete && !wiring.reads(From::Source(at)) {
            let message = format!("no stage reads the source `{}`", source.name);
            let help = format!("name it in a stage's `input = \"{}\"`, or remove it", source.name);
            problems.push(Problem::new(source.name.span.clone(), message).help(help));
        }
    }
}

/// For each stage and way out of it how its values are written to its topic, if it has one.
fn sinks(
    pipeline: &Pipeline,
    known: &[Option<Known>],
    flow: &Flow,
    problems: &mut Vec<Problem>,
) -> Vec<Vec<Option<PlannedSink>>> {
    let mut planned: Vec<Vec<Option<PlannedSink>>> = Vec::new();
    let mut seen: Vec<(Spanned<String>, Format)> = Vec::new();
    for (at, (stage, known)) in pipeline.stages.iter().zip(known).enumerate() {
        let exits = known.iter().flat_map(|known| &known.exits).enumerate();
        planned.push(
            exits
                .map(|(index, Exit { branch, .. })| {
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
