//! The ways out of a stage: the branches of its plugin, and those that the host adds.

use super::Spanned;
use super::declare::{Destination, Pipeline, Stage};
use super::known::Known;
use super::plan::{WINDOW_BOUNDS, written_branch};
use super::problem::{Problem, nearest, suggest};
use super::wiring::{From, Wiring};
use crate::schema::{Branch, Info, MappedField, Place, PluginKind, Signature, ValueBase};

/// Where records leave a stage, under a name that the pipeline file uses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exit {
    /// What it makes of a record.
    pub branch: Branch,
    pub kind: ExitKind,
}

/// Who sends records there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExitKind {
    /// The plugin.
    Declared,
    /// The host, what came too late for the stage's windows.
    Late,
    /// The host, what has no key where one is needed.
    Unkeyed,
}

const LATE: &str = "late";
const UNKEYED: &str = "unkeyed";

/// The ways out of a stage: first those of the signature, by the same index, as their values are written.
pub(super) fn exits(stage: &Stage, kind: PluginKind, signature: &Signature) -> Vec<Exit> {
    let aggregates = kind == PluginKind::Aggregator;
    let windowed = aggregates && stage.window.is_some();
    let declared = signature.branches.iter().map(|branch| Exit {
        branch: written_branch(branch, windowed),
        kind: ExitKind::Declared,
    });
    let mut exits: Vec<Exit> = declared.collect();
    for (name, kind, there) in [
        // Where something is wrong, it may be the window.
        (LATE, ExitKind::Late, stage.window.is_some() || stage.doubtful),
        (UNKEYED, ExitKind::Unkeyed, stage.key.is_some() || aggregates),
    ] {
        if there && !signature.branches.iter().any(|branch| branch.name == name) {
            let branch = Branch {
                name: name.into(),
                value: ValueBase::Same,
                fields: Vec::new(),
            };
            exits.push(Exit { branch, kind });
        }
    }
    exits
}

/// What to do about a branch of the host in a stage that does not have it.
pub(super) fn host_branch_help(name: &str) -> Option<String> {
    match name {
        LATE => Some("`late` is a branch of stages with a `window`: add `window = \"1m\"`".into()),
        UNKEYED => {
            Some("`unkeyed` is a branch of aggregators, and of stages with a `key`: add `key = \"FIELD\"`".into())
        }
        _ => None,
    }
}

/// Branches that the plugin calls by a name that is the host's in this stage.
pub(super) fn check_reserved(stage: &Stage, info: &Info, kind: PluginKind, signature: &Signature) -> Vec<Problem> {
    let aggregates = kind == PluginKind::Aggregator;
    let reserved = |branch: &&Branch| match branch.name.as_str() {
        LATE => stage.window.is_some(),
        UNKEYED => stage.key.is_some() || aggregates,
        _ => false,
    };
    let problem = |branch: &Branch| {
        let (name, sends) = (&branch.name, what_is_sent(&branch.name));
        let message = format!(
            "the plugin `{}` declares a branch `{name}`, but in the stage `{}` this is where the host sends {sends}",
            info.name, stage.name
        );
        let without = match (name.as_str(), aggregates) {
            (LATE, _) => ", or the pipeline has to do without `window` here",
            (_, false) => ", or the pipeline has to do without `key` here",
            (_, true) => "",
        };
        Problem::new(stage.plugin.span.clone(), message).help(format!(
            "the plugin's author has to give the branch another name{without}"
        ))
    };
    signature.branches.iter().filter(reserved).map(problem).collect()
}

fn what_is_sent(name: &str) -> &'static str {
    if name == LATE {
        "what comes too late for the windows"
    } else {
        "what has no key"
    }
}

/// Results of windows whose fields stand where the host writes the bounds.
pub(super) fn check_bounds(stage: &Stage, info: &Info, signature: &Signature) -> Vec<Problem> {
    let Some(window) = &stage.window else { return Vec::new() };
    let taken = |field: &MappedField, bound: &str| {
        let pointer = format!("/{bound}");
        match &field.place {
            Place::Value(place) => {
                let inside = place.strip_prefix(&pointer);
                place.is_empty() || inside.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Place::RawValue => true,
            _ => false,
        }
    };
    let mut problems = Vec::new();
    for branch in &signature.branches {
        let clash = branch.fields.iter().find_map(|field| {
            let bound = WINDOW_BOUNDS.into_iter().find(|bound| taken(field, bound));
            bound.map(|bound| (field, bound))
        });
        let Some((field, bound)) = clash else { continue };
        let message = format!(
            "the plugin `{}` writes its field `{}` of the branch `{}` to {}, where the results of a window have `{bound}`",
            info.name,
            field.field.name,
            branch.name,
            shown(&field.place)
        );
        problems.push(
            Problem::new(stage.plugin.span.clone(), message)
                .also(window.span.clone(), "the window")
                .help("the plugin's author has to write it to another member, or the pipeline has to do without `window` here"),
        );
    }
    problems
}

fn shown(place: &Place) -> String {
    match place {
        Place::Value(pointer) if !pointer.is_empty() => format!("`{pointer}`"),
        _ => "the whole value".into(),
    }
}

/// Branches of the file that the stage does not have, and branches of the stage that go nowhere.
pub(super) fn check_branches(
    pipeline: &Pipeline,
    known: &[Option<Known>],
    wiring: &Wiring,
    problems: &mut Vec<Problem>,
) {
    for (at, (stage, known)) in pipeline.stages.iter().zip(known).enumerate() {
        let Some(Known { described, exits, .. }) = known else {
            continue;
        };
        let names: Vec<&str> = exits.iter().map(|exit| exit.branch.name.as_str()).collect();
        for (name, _) in stage.to.iter().filter(|(name, _)| !names.contains(&name.as_str())) {
            let message = format!(
                "the plugin `{}` of the stage `{}` has no branch `{name}`",
                described.info.name, stage.name
            );
            let help = host_branch_help(name).unwrap_or_else(|| suggest(name, names.iter().copied(), "its branches"));
            problems.push(
                Problem::new(name.span.clone(), message)
                    .label("unknown branch")
                    .help(help),
            );
        }
        for (index, Exit { branch, kind }) in exits.iter().enumerate() {
            let this = From::Branch {
                stage: at,
                branch: Some(index),
            };
            let reader = wiring.wires.iter().flatten().find(|wire| wire.from == this);
            let mapped = stage.to.iter().find(|(name, _)| name.value == branch.name);
            let misnamed = stage
                .to
                .iter()
                .any(|(name, _)| nearest(name, names.iter().copied()) == Some(&branch.name));
            let wanted = match kind {
                ExitKind::Declared => true,
                ExitKind::Late => described.kind == PluginKind::Aggregator,
                ExitKind::Unkeyed => false,
            };
            match (mapped, reader) {
                (None, None) if wanted && wiring.complete && !stage.doubtful && !misnamed => {
                    problems.push(goes_nowhere(stage, branch, *kind));
                }
                (
                    Some((
                        _,
                        Spanned {
                            value: Destination::Dropped,
                            span,
                        },
                    )),
                    Some(wire),
                ) => {
                    let message = format!(
                        "the branch `{}` of the stage `{}` is dropped, and read",
                        branch.name, stage.name
                    );
                    let problem = Problem::new(span.clone(), message)
                        .label("dropped here")
                        .also(wire.reference.span.clone(), "read here");
                    problems.push(problem.help("remove the `false`: a branch that a stage reads needs no topic"));
                }
                _ => {}
            }
        }
    }
}

fn goes_nowhere(stage: &Stage, branch: &Branch, kind: ExitKind) -> Problem {
    let Branch { name, .. } = branch;
    let key = toml_key(name);
    let help = format!(
        "under [stage.{0}.to] add `{key} = \"topic\"`, or `{key} = false` to drop its records, or let a stage read \"{0}.{name}\"",
        stage.name
    );
    let window = stage.window.as_ref().filter(|_| kind == ExitKind::Late);
    let problem = match window {
        None => {
            let message = format!("the branch `{name}` of the stage `{}` goes nowhere", stage.name);
            Problem::new(stage.name.span.clone(), message).label(format!("`{name}` is not mapped"))
        }
        Some(window) => {
            let message = format!(
                "what comes too late for the windows of the stage `{}` goes nowhere",
                stage.name
            );
            Problem::new(window.span.clone(), message).label(format!("a window has a branch `{name}`"))
        }
    };
    problem.help(help)
}

/// Whether the records of an exit are written or read somewhere, so that they have one format. What the host sends
/// nowhere, or to the dead-letter queue, needs none.
pub(super) fn leads(stage: &Stage, exit: &Exit, this: From, wiring: &Wiring) -> bool {
    let topic = |(name, to): &(Spanned<String>, Spanned<Destination>)| {
        name.value == exit.branch.name && to.value != Destination::Dropped
    };
    exit.kind == ExitKind::Declared || stage.to.iter().any(topic) || wiring.reads(this)
}

/// A name as a key of TOML.
fn toml_key(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if bare { name.into() } else { format!("{name:?}") }
}
