//! What is measured in a process of its own, as it is about memory or about being killed: the benchmark starts itself.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Tells a child what to do.
const TASK: &str = "MILLSTREAM_BENCH_CHILD";

/// Does what a parent asked for, if one did.
pub fn was_asked() -> bool {
    let Ok(task) = std::env::var(TASK) else {
        return false;
    };
    let (name, rest) = task.split_once(' ').expect("a name and a folder");
    let dir = Path::new(rest);
    match name {
        "growth" => super::growth::child(dir),
        "fill" => super::reopen::child_fill(dir),
        "reopen" => super::reopen::child_reopen(dir),
        _ => panic!("no task {name:?}"),
    }
    true
}

/// A process that does a task, and the first line that it prints. It may still run then.
pub fn start(name: &str, dir: &Path) -> (Child, String) {
    let program = std::env::current_exe().expect("a program knows itself");
    let mut child = Command::new(program)
        .env(TASK, format!("{name} {}", dir.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("it was asked for"));
    out.read_line(&mut line).expect("it talks");
    assert!(!line.is_empty(), "the child ended without a word");
    (child, line.trim_end().to_owned())
}

/// Numbers that a child printed.
pub fn numbers(line: &str) -> Vec<f64> {
    let number = |word: &str| word.parse().expect("a number");
    line.split(' ').map(number).collect()
}
