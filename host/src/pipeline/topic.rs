//! What topics may be called: Kafka's rules, so that a pipeline runs on either engine; and which of them meet.

use super::declare::{Destination, Pipeline, Sink, Source, Stage};
use super::known::Known;
use super::problem::Problem;
use super::{Span, Spanned};
use crate::limits::TOPIC_NAME_BYTES_MAX;
use crate::schema::PluginKind;

/// Holds a name against the rules.
///
/// # Errors
/// Which rule it breaks, in words that follow the name.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".into());
    }
    if name == "." || name == ".." {
        return Err("is the name of a folder".into());
    }
    if let Some(other) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        return Err(format!(
            "has {other:?} in it; letters, digits, `.`, `_` and `-` are allowed"
        ));
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(format!(
            "has {} characters; {TOPIC_NAME_BYTES_MAX} are allowed",
            name.len()
        ));
    }
    if name.starts_with("__") {
        return Err("begins with `__`, which is kept for the engine's own topics".into());
    }
    Ok(())
}

/// The topic that keeps the changes of a store: of a processor's of that name, or of an aggregator's groups.
pub fn changelog_topic(pipeline: &str, stage: &str, store: Option<&str>) -> String {
    match store {
        Some(store) => format!("{pipeline}-{stage}-{store}-changelog"),
        None => format!("{pipeline}-{stage}-changelog"),
    }
}

/// The topic through which records come to a stage with a key of its own; `input` where its plugin has several.
pub fn repartition_topic(pipeline: &str, stage: &str, input: Option<&str>) -> String {
    match input {
        Some(input) => format!("{pipeline}-{stage}-{input}-repartition"),
        None => format!("{pipeline}-{stage}-repartition"),
    }
}

/// Topics that are read and written: nothing twice where it would count twice, nothing in a circle.
pub(super) fn check_topics(pipeline: &Pipeline, problems: &mut Vec<Problem>) {
    let sources = &pipeline.sources;
    for (at, source) in sources.iter().enumerate() {
        let meets = |other: &&Source| other.reads(&source.topic) || source.reads(&other.topic);
        if let Some(first) = sources[..at].iter().find(meets) {
            let message = format!(
                "the sources `{}` and `{}` read the same topic `{}`",
                first.name, source.name, source.topic
            );
            let problem = Problem::new(source.topic.span.clone(), message).also(first.topic.span.clone(), "the first");
            problems
                .push(problem.help("one source can feed many stages: keep one of them, and name it in their `input`"));
        }
        if source.reads(&pipeline.dlq.topic) {
            let message = format!(
                "the pipeline reads its own dead-letter queue `{}`: what fails would come again for ever",
                pipeline.dlq.topic
            );
            let problem = Problem::new(source.topic.span.clone(), message);
            let problem = at_place(problem, &pipeline.dlq.topic.span, "the dead-letter queue");
            problems.push(problem.help("read it in a pipeline of its own, or give `[dlq]` another topic"));
        }
    }
    let mut written: Vec<(&Stage, &str, &Sink)> = Vec::new();
    for (stage, branch, sink) in pipeline.stages.iter().flat_map(sinks_of) {
        let topic = &sink.topic;
        if let Some(source) = sources.iter().find(|source| source.reads(topic)) {
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

pub(super) fn sinks_of(stage: &Stage) -> impl Iterator<Item = (&Stage, &str, &Sink)> {
    stage
        .to
        .iter()
        .filter_map(move |(branch, destination)| match &destination.value {
            Destination::Topic(sink) => Some((stage, branch.as_str(), sink)),
            Destination::Dropped => None,
        })
}

/// Topics that the pipeline makes for itself: whether they can be called so, and meet no other.
pub(super) fn check_internal_topics(pipeline: &Pipeline, known: &[Option<Known>], problems: &mut Vec<Problem>) {
    let mut seen: Vec<Internal<'_>> = Vec::new();
    for (stage, known) in pipeline.stages.iter().zip(known) {
        for topic in known.iter().flat_map(|known| internal_topics(pipeline, stage, known)) {
            problems.extend(check_internal_topic(pipeline, &seen, &topic));
            seen.push(topic);
        }
    }
}

/// A topic that the pipeline makes for a stage.
struct Internal<'p> {
    name: String,
    stage: &'p Spanned<String>,
    /// What is in it, in words.
    what: String,
    /// What in the file it is made for.
    span: &'p Span,
}

fn internal_topics<'p>(pipeline: &'p Pipeline, stage: &'p Stage, known: &Known) -> Vec<Internal<'p>> {
    let signature = &known.described.signature;
    let mut topics = Vec::new();
    let mut add = |name: String, what: String, span| {
        topics.push(Internal {
            name,
            stage: &stage.name,
            what,
            span,
        });
    };
    let place = &stage.name.span;
    if known.described.kind == PluginKind::Aggregator {
        add(
            changelog_topic(&pipeline.name, &stage.name, None),
            "its groups".into(),
            place,
        );
    }
    for store in &signature.stores {
        let topic = changelog_topic(&pipeline.name, &stage.name, Some(&store.name));
        add(topic, format!("its store `{}`", store.name), place);
    }
    if let Some(key) = &stage.key {
        let several = signature.inputs.len() > 1;
        for input in &signature.inputs {
            let input = several.then_some(input.name.as_str());
            let what = match input {
                Some(input) => format!("what comes to its input `{input}` by its `key`"),
                None => "what comes to it by its `key`".into(),
            };
            add(repartition_topic(&pipeline.name, &stage.name, input), what, &key.span);
        }
    }
    topics
}

fn check_internal_topic(pipeline: &Pipeline, seen: &[Internal<'_>], topic: &Internal<'_>) -> Vec<Problem> {
    let Internal {
        name,
        stage,
        what,
        span,
    } = topic;
    let mut problems = Vec::new();
    if let Err(rule) = check_topic_name(name) {
        let message = format!("the stage `{stage}` keeps {what} in the topic \"{name}\", which {rule}");
        let help = "its name is made of those of pipeline, stage and store or input: give one of them another name";
        problems.push(Problem::new((*span).clone(), message).help(help));
    }
    if let Some(other) = seen.iter().find(|other| other.name == *name) {
        let message = format!(
            "the stages `{}` and `{stage}` would share the topic `{name}`: the first keeps {} there, the second {what}",
            other.stage, other.what
        );
        let problem = Problem::new((*span).clone(), message).also(other.span.clone(), "the first");
        problems.push(problem.help("give one of the stages another name"));
    }
    let sinks = pipeline.stages.iter().flat_map(sinks_of);
    let sinks = sinks.map(|(_, _, sink)| (&sink.topic, "a branch is written to it"));
    let dlq = (&pipeline.dlq.topic, "it is the dead-letter queue");
    let sources = pipeline.sources.iter().filter(|source| source.reads(name));
    let sources = sources.map(|source| (&source.topic, "a source reads it"));
    let others = sinks.chain([dlq]).filter(|(other, _)| other.value == *name);
    for (other, use_) in sources.chain(others) {
        let message = format!("the stage `{stage}` keeps {what} in the topic `{name}`, but {use_}");
        let problem = if other.span.is_empty() {
            Problem::new((*span).clone(), message)
        } else {
            Problem::new(other.span.clone(), message).also((*span).clone(), "the stage")
        };
        problems.push(problem.help("give the topic another name, or the stage"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_topics_say_whose_they_are() {
        assert_eq!(changelog_topic("taxi", "sum", None), "taxi-sum-changelog");
        assert_eq!(changelog_topic("taxi", "seen", Some("ids")), "taxi-seen-ids-changelog");
        assert_eq!(repartition_topic("taxi", "sum", None), "taxi-sum-repartition");
        assert_eq!(
            repartition_topic("taxi", "compare", Some("left")),
            "taxi-compare-left-repartition"
        );
    }

    #[test]
    fn names_are_kafkas() {
        for name in ["rides", "a.b_c-D9", "_x", "...", &"x".repeat(249)] {
            assert_eq!(check_topic_name(name), Ok(()), "{name}");
        }
        let cases = [
            ("", "empty"),
            (".", "folder"),
            ("..", "folder"),
            ("a b", "' '"),
            ("a/b", "'/'"),
            ("é", "'é'"),
            ("__consumer_offsets", "begins with `__`"),
            (&*"x".repeat(250), "250 characters"),
        ];
        for (name, message) in cases {
            assert!(check_topic_name(name).expect_err(name).contains(message), "{name}");
        }
    }
}
