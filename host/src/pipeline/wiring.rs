//! Which stage reads what, in which order they run, and which sources meet.

use std::collections::{BTreeMap, BTreeSet};

use super::Spanned;
use super::declare::{Pipeline, Stage, StageInput};
use super::exit::{ExitKind, host_branch_help};
use super::known::Known;
use super::problem::{Problem, suggest};

/// A reference that was found: what it points at, as indices in the pipeline file's order.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    /// The input that it feeds; `None` if the plugin is unknown.
    pub input: Option<u32>,
    pub from: From,
    /// The reference as it was written.
    pub reference: Spanned<String>,
}

/// The other end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Source(usize),
    /// `branch` is an index in the stage's exits; `None` if the plugin is unknown.
    Branch {
        stage: usize,
        branch: Option<usize>,
    },
}

/// An input that is fed through an internal topic, as its stage has a key of its own.
#[derive(Clone, Debug)]
pub(super) struct Rekeyed {
    pub stage: usize,
    pub input: u32,
    /// Which of the stage's wires feed it.
    pub wires: Vec<usize>,
}

/// All wires of all stages.
pub(super) struct Wiring {
    /// One list for each stage of the file.
    pub wires: Vec<Vec<Wire>>,
    /// Whether every reference was found, so that what is not there is not wanted.
    pub complete: bool,
}

/// Finds what the stages' inputs refer to.
pub(super) fn wire(pipeline: &Pipeline, known: &[Option<Known>], problems: &mut Vec<Problem>) -> Wiring {
    let mut wiring = Wiring {
        wires: Vec::new(),
        complete: true,
    };
    for (stage, known_stage) in pipeline.stages.iter().zip(known) {
        let mut wires: Vec<Wire> = Vec::new();
        for (input, references) in inputs(stage, known_stage.as_ref(), problems) {
            for reference in references {
                match find(pipeline, known, &reference) {
                    Ok(from) => match wires.iter().find(|wire| wire.input == input && wire.from == from) {
                        Some(first) => problems.push(
                            Problem::new(
                                reference.span.clone(),
                                format!("the stage `{}` reads `{reference}` twice", stage.name),
                            )
                            .also(first.reference.span.clone(), "the first time")
                            .help("name it once"),
                        ),
                        None => wires.push(Wire { input, from, reference }),
                    },
                    Err(problem) => {
                        wiring.complete = false;
                        problems.extend(problem);
                    }
                }
            }
        }
        wiring.wires.push(wires);
    }
    wiring
}

type Inputs = Vec<(Option<u32>, Vec<Spanned<String>>)>;

/// Which references feed which of the plugin's inputs.
fn inputs(stage: &Stage, known: Option<&Known>, problems: &mut Vec<Problem>) -> Inputs {
    let Some(described) = known.map(|known| &known.described) else {
        let all = match &stage.input.value {
            StageInput::Only(references) => vec![references.clone()],
            StageInput::ByName(inputs) => inputs.iter().map(|(_, references)| references.clone()).collect(),
        };
        return all.into_iter().map(|references| (None, references)).collect();
    };
    let declared = &described.signature.inputs;
    let names = declared.iter().map(|input| input.name.as_str());
    let plugin = &described.info.name;
    match &stage.input.value {
        StageInput::Only(references) if declared.len() == 1 => vec![(Some(0), references.clone())],
        StageInput::Only(references) => {
            let message = format!(
                "the plugin `{plugin}` has {} inputs, and `input` does not say which one is fed",
                declared.len()
            );
            let each = declared
                .iter()
                .map(|input| format!("{} = \"…\"", input.name))
                .collect::<Vec<_>>()
                .join(", ");
            problems
                .push(Problem::new(stage.input.span.clone(), message).help(format!("write `input = {{ {each} }}`")));
            vec![(None, references.clone())]
        }
        StageInput::ByName(inputs) => {
            let mut found = Vec::new();
            let mut unknown = false;
            for (name, references) in inputs {
                let at = declared.iter().position(|input| input.name == name.value);
                if at.is_none() {
                    unknown = true;
                    let problem = Problem::new(
                        name.span.clone(),
                        format!("the plugin `{plugin}` has no input `{name}`"),
                    );
                    problems.push(
                        problem
                            .label("unknown input")
                            .help(suggest(name, names.clone(), "its inputs")),
                    );
                }
                found.push((at.map(|at| at as u32), references.clone()));
            }
            let fed = |name: &str| inputs.iter().any(|(fed, _)| fed.value == name);
            // A name that is wrong is most likely the one that is missing.
            for input in declared.iter().filter(|input| !unknown && !fed(&input.name)) {
                let message = format!("nothing feeds the input `{}` of the plugin `{plugin}`", input.name);
                let help = format!("add `{} = \"…\"`: a source, or \"stage.branch\"", input.name);
                problems.push(Problem::new(stage.input.span.clone(), message).help(help));
            }
            found
        }
    }
}

/// What a reference points at; an error without a problem if that was told elsewhere.
fn find(pipeline: &Pipeline, known: &[Option<Known>], reference: &Spanned<String>) -> Result<From, Option<Problem>> {
    let stage_at = |name: &str| pipeline.stages.iter().position(|stage| stage.name.value == name);
    let branches = |stage: usize| {
        let exits = known[stage].iter().flat_map(|known| &known.exits);
        exits.map(|exit| exit.branch.name.as_str())
    };
    let unknown = |message: String, help: String| {
        Err(Some(
            Problem::new(reference.span.clone(), message)
                .label("nothing of this name")
                .help(help),
        ))
    };
    match reference.split_once('.') {
        None => {
            if let Some(source) = pipeline.sources.iter().position(|source| source.name == *reference) {
                return Ok(From::Source(source));
            }
            if let Some(stage) = stage_at(reference) {
                let list = branches(stage)
                    .map(|branch| format!("\"{reference}.{branch}\""))
                    .collect::<Vec<_>>()
                    .join(", ");
                let help = if list.is_empty() {
                    format!("write \"{reference}.branch\"")
                } else {
                    format!("name one of its branches: {list}")
                };
                return unknown(format!("`{reference}` is a stage, and a stage has branches"), help);
            }
            let mut names: Vec<String> = pipeline
                .sources
                .iter()
                .map(|source| source.name.value.clone())
                .collect();
            for (at, stage) in pipeline.stages.iter().enumerate() {
                names.extend(branches(at).map(|branch| format!("{}.{branch}", stage.name)));
            }
            let help = suggest(reference, names.iter().map(String::as_str), "sources and branches");
            unknown(format!("no source is called `{reference}`"), help)
        }
        Some((name, branch)) => {
            let Some(stage) = stage_at(name) else {
                let help = suggest(name, pipeline.stages.iter().map(|stage| stage.name.as_str()), "stages");
                return unknown(format!("no stage is called `{name}`"), help);
            };
            if known[stage].is_none() {
                return Ok(From::Branch { stage, branch: None });
            }
            match branches(stage).position(|known| known == branch) {
                Some(branch) => Ok(From::Branch {
                    stage,
                    branch: Some(branch),
                }),
                None => {
                    let help = host_branch_help(branch)
                        .unwrap_or_else(|| suggest(branch, branches(stage).collect::<Vec<_>>(), "its branches"));
                    unknown(format!("the stage `{name}` has no branch `{branch}`"), help)
                }
            }
        }
    }
}

impl Wiring {
    /// Whether a stage reads what comes from there.
    pub fn reads(&self, from: From) -> bool {
        self.wires.iter().flatten().any(|wire| wire.from == from)
    }

    /// The stages, each behind all that feed it; circles are reported, and then there is no order.
    pub fn order(&self, pipeline: &Pipeline, problems: &mut Vec<Problem>) -> Option<Vec<usize>> {
        let mut waiting: Vec<BTreeSet<usize>> = self.wires.iter().map(|wires| upstream(wires)).collect();
        let mut downstream: Vec<Vec<usize>> = vec![Vec::new(); waiting.len()];
        for (stage, froms) in waiting.iter().enumerate() {
            for &from in froms {
                downstream[from].push(stage);
            }
        }
        let free = |waiting: &[BTreeSet<usize>], stage: usize| waiting[stage].is_empty();
        let mut left: BTreeSet<usize> = (0..waiting.len()).collect();
        let mut ready: BTreeSet<usize> = left.iter().copied().filter(|&stage| free(&waiting, stage)).collect();
        let (mut order, mut circles) = (Vec::with_capacity(left.len()), false);
        while let Some(&first) = left.first() {
            let done = match ready.pop_first() {
                Some(stage) => vec![stage],
                None => {
                    circles = true;
                    let circle = circle(&waiting, first);
                    problems.push(self.describe_circle(pipeline, &circle));
                    // Go on as if it were none, to find the next one.
                    circle
                }
            };
            for stage in &done {
                left.remove(stage);
            }
            for stage in done {
                order.push(stage);
                for &next in &downstream[stage] {
                    waiting[next].remove(&stage);
                    if free(&waiting, next) && left.contains(&next) {
                        ready.insert(next);
                    }
                }
            }
        }
        (!circles).then_some(order)
    }

    fn describe_circle(&self, pipeline: &Pipeline, circle: &[usize]) -> Problem {
        let name = |stage: usize| pipeline.stages[stage].name.value.as_str();
        let path: Vec<&str> = circle.iter().chain(&circle[..1]).map(|&stage| name(stage)).collect();
        let mut labels = circle.iter().enumerate().filter_map(|(at, &stage)| {
            let before = circle[(at + circle.len() - 1) % circle.len()];
            let wire = self.wires[stage]
                .iter()
                .find(|wire| matches!(wire.from, From::Branch { stage, .. } if stage == before))?;
            Some((
                wire.reference.span.clone(),
                format!("`{}` reads `{}`", name(stage), name(before)),
            ))
        });
        let (span, text) = labels.next().unwrap_or((0..0, String::new()));
        let problem = Problem::new(span, format!("the stages go in a circle: {}", path.join(" → "))).label(text);
        let problem = labels.fold(problem, |problem, (span, text)| problem.also(span, text));
        problem.help("a record would never leave it: let one of them read something else")
    }

    /// The inputs of stages with a key of their own, in the order of the file.
    pub fn rekeyed(&self, pipeline: &Pipeline) -> Vec<Rekeyed> {
        let mut rekeyed: Vec<Rekeyed> = Vec::new();
        let keyed = |stage: usize| pipeline.stages[stage].key.is_some();
        for (stage, wires) in self.wires.iter().enumerate().filter(|(stage, _)| keyed(*stage)) {
            for (at, wire) in wires.iter().enumerate() {
                let Some(input) = wire.input else { continue };
                match rekeyed.iter_mut().find(|one| (one.stage, one.input) == (stage, input)) {
                    Some(one) => one.wires.push(at),
                    None => rekeyed.push(Rekeyed {
                        stage,
                        input,
                        wires: vec![at],
                    }),
                }
            }
        }
        rekeyed
    }

    /// Which sources reach which stages; those that read internal topics stand behind the file's `sources`, in the
    /// order of `rekeyed`.
    pub fn sources(&self, known: &[Known], order: &[usize], sources: usize, rekeyed: &[Rekeyed]) -> Reaching {
        let mut reaching = Reaching {
            within: vec![BTreeSet::new(); self.wires.len()],
            arriving: vec![BTreeSet::new(); self.wires.len()],
        };
        let unkeyed = |stage: usize, branch: Option<usize>| {
            branch.is_some_and(|branch| known[stage].exits[branch].kind == ExitKind::Unkeyed)
        };
        for &stage in order {
            let mut reached: BTreeSet<usize> = BTreeSet::new();
            for wire in &self.wires[stage] {
                match wire.from {
                    From::Source(source) => {
                        reached.insert(source);
                    }
                    // What has no key never comes into the internal topic.
                    From::Branch { stage, branch } if unkeyed(stage, branch) => {
                        reached.extend(&reaching.arriving[stage]);
                    }
                    From::Branch { stage, .. } => reached.extend(&reaching.within[stage]),
                }
            }
            let own = rekeyed.iter().enumerate().filter(|(_, one)| one.stage == stage);
            let own: BTreeSet<usize> = own.map(|(at, _)| sources + at).collect();
            reaching.within[stage] = if own.is_empty() { reached.clone() } else { own };
            reaching.arriving[stage] = reached;
        }
        reaching
    }
}

/// For each stage of the file the sources whose records reach it.
pub(super) struct Reaching {
    /// In its own tasks: of a stage with a key of its own those that read its internal topics.
    pub within: Vec<BTreeSet<usize>>,
    /// Before its own key is given.
    pub arriving: Vec<BTreeSet<usize>>,
}

/// The stages that these wires come from.
fn upstream(wires: &[Wire]) -> BTreeSet<usize> {
    let from = wires.iter().filter_map(|wire| match wire.from {
        From::Branch { stage, .. } => Some(stage),
        From::Source(_) => None,
    });
    from.collect()
}

/// A circle that a stage is in or behind of, in the direction of the records, beginning with the first in the file.
/// Each stage that is left waits for another one that is left, so that walking upstream comes back to where it was.
fn circle(waiting: &[BTreeSet<usize>], behind: usize) -> Vec<usize> {
    let mut walked = vec![behind];
    let mut seen: BTreeMap<usize, usize> = BTreeMap::from([(behind, 0)]);
    while let Some(&next) = walked.last().and_then(|&at| waiting[at].first()) {
        if let Some(&begin) = seen.get(&next) {
            let mut circle = walked.split_off(begin);
            circle.reverse();
            let first = (0..circle.len()).min_by_key(|&at| circle[at]).unwrap_or(0);
            circle.rotate_left(first);
            return circle;
        }
        seen.insert(next, walked.len());
        walked.push(next);
    }
    walked
}

/// Groups sources that reach a stage together.
pub(super) fn subtopologies(sources: usize, reaching: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    // The first source of each group stands for it.
    let mut group: Vec<usize> = (0..sources).collect();
    for together in reaching {
        let groups: BTreeSet<usize> = together.iter().map(|&source| group[source]).collect();
        let Some(&first) = groups.first() else { continue };
        for source in &mut group {
            if groups.contains(source) {
                *source = first;
            }
        }
    }
    let of = |first: usize| {
        (0..sources)
            .filter(|&source| group[source] == first)
            .collect::<Vec<_>>()
    };
    (0..sources).map(of).filter(|sources| !sources.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_meet_are_read_together() {
        let sets = |sets: &[&[usize]]| {
            sets.iter()
                .map(|set| set.iter().copied().collect())
                .collect::<Vec<BTreeSet<usize>>>()
        };
        assert_eq!(
            subtopologies(4, &sets(&[&[0], &[1, 3], &[2]])),
            [vec![0], vec![1, 3], vec![2]]
        );
        assert_eq!(
            subtopologies(4, &sets(&[&[2, 3], &[0, 1], &[1, 2]])),
            [vec![0, 1, 2, 3]]
        );
        assert_eq!(subtopologies(2, &[]), [vec![0], vec![1]]);
    }
}
