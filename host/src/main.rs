//! The `millstream` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Compiling a component is for a process of its own, with limits that it gives itself before anything else.
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "__compile") {
        return millstream::guest::compile_child(&arguments[1..]);
    }
    millstream::cli::main()
}
