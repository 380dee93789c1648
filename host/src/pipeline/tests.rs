//! Pipeline files, good and bad, against plugins whose answers stand in code.

mod bad_files;
mod bad_keys;
mod bad_wiring;
mod drawing;
mod good_files;
mod kafka;
mod keyed;
mod patterns;
mod plugins;

use std::path::Path;

use super::{Catalog, Pipeline, Plan, Report, check, load};
use plugins::Plugins;

/// The environment of all tests.
fn environment(name: &str) -> Option<String> {
    match name {
        "CITY" => Some("york".into()),
        "TOKEN" => Some("s3cret-token".into()),
        "FOUR" => Some("4".into()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Pipeline, Report> {
    Pipeline::parse(text, Path::new("dir/taxi.toml"), &environment)
}

fn plan(text: &str) -> Result<Plan, Report> {
    check(&parse(text)?, &Plugins)
}

/// What is expected of a problem: a part of its message, what is underlined, a part of the remedy.
type Expected<'e> = (&'e str, &'e str, &'e str);

/// Exactly these problems, in the order of the file.
#[track_caller]
fn assert_problems(report: &Report, expected: &[Expected<'_>]) {
    for (problem, (message, underlined, help)) in report.problems().iter().zip(expected) {
        assert!(
            problem.message.contains(message),
            "{message:?} is not in {:?}\n{report:?}",
            problem.message
        );
        let found = problem.labels.first().map_or("", |label| report.underlined(label));
        assert_eq!(found, *underlined, "for {message:?}\n{report:?}");
        let remedy = problem.help.as_deref().unwrap_or("");
        assert!(remedy.contains(help), "{help:?} is not in {remedy:?}\n{report:?}");
    }
    assert_eq!(report.problems().len(), expected.len(), "{report:?}");
}

/// What is wrong with a file, whatever its plugins are.
#[track_caller]
fn refused(text: &str, expected: &[Expected<'_>]) {
    assert_problems(&parse(text).expect_err("the file is not sound"), expected);
}

/// What is wrong with a sound file and its plugins.
#[track_caller]
fn misfit(text: &str, expected: &[Expected<'_>]) {
    assert_problems(&plan(text).expect_err("it does not fit"), expected);
}

/// Through the file system, as commands do it.
fn load_text(text: &str, catalog: &dyn Catalog) -> Result<(Pipeline, Plan), Report> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("taxi.toml");
    std::fs::write(&file, text).expect("written");
    load(&file, &environment, catalog)
}
