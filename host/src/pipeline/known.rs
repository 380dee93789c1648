//! What is known of a stage once its plugin has spoken.

use super::Span;
use super::catalog::{Catalog, Concern, Described};
use super::config::Config;
use super::declare::Stage;
use super::exit::{Exit, check_bounds, check_reserved, exits};
use super::problem::{Problem, suggest};
use crate::schema::PluginKind;

/// A stage whose plugin is known.
pub(super) struct Known {
    /// What the plugin said.
    pub described: Described,
    /// What it was configured with.
    pub config: Config,
    /// The ways out of the stage.
    pub exits: Vec<Exit>,
}

/// Asks the catalog, and what the pipeline can say about the answer by itself.
pub(super) fn describe(stage: &Stage, catalog: &dyn Catalog, problems: &mut Vec<Problem>) -> Option<Known> {
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
    let schema = config
        .has_variables()
        .then(|| catalog.config_schema(&stage.plugin))
        .flatten();
    let config = match schema {
        Some(schema) => config.typed(&schema),
        None => config,
    };
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
    problems.extend(check_kind(stage, &described));
    let signature = &described.signature;
    problems.extend(check_reserved(stage, &described.info, described.kind, signature));
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
    let exits = exits(stage, described.kind, &described.signature);
    Some(Known {
        described,
        config,
        exits,
    })
}

const CAPABILITIES: [&str; 4] = ["clock", "random", "network", "files"];

/// What a stage says of groups and windows while its plugin has none, or has results that do not go with it.
fn check_kind(stage: &Stage, described: &Described) -> Vec<Problem> {
    let Described {
        info, kind, signature, ..
    } = described;
    if *kind == PluginKind::Aggregator {
        return check_bounds(stage, info, signature);
    }
    let window = stage.window.as_ref().map(|window| ("window", &window.span));
    let emit = stage.emit.as_ref().map(|emit| ("emit", &emit.span));
    let lost = |(key, span): (&str, &Span)| {
        let message = format!(
            "the stage `{}` has `{key}`, but the plugin `{}` is a processor: it sends what it likes for each record",
            stage.name, info.name
        );
        Problem::new(span.clone(), message).help(format!("remove `{key}`, or use a plugin that exports `aggregator`"))
    };
    window.into_iter().chain(emit).map(lost).collect()
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
