//! Errors as people see them on stderr.

use std::io::IsTerminal;

use crate::pipeline;

/// Columns where there is no terminal to ask.
const WIDTH: usize = 100;

/// Writes an error to stderr: what is wrong with a pipeline file with its lines underlined, anything else with its
/// causes and the remedy.
pub fn show(report: &miette::Report) {
    match report.downcast_ref::<pipeline::Report>() {
        Some(file) => eprint!("{}", file.render(WIDTH, has_colours())),
        None => eprint!("{}", text(report, has_colours())),
    }
}

fn text(report: &miette::Report, colours: bool) -> String {
    let theme = if colours {
        miette::GraphicalTheme::unicode()
    } else {
        miette::GraphicalTheme::unicode_nocolor()
    };
    let handler = miette::GraphicalReportHandler::new_themed(theme)
        .with_width(WIDTH)
        .with_links(false);
    // Many errors name their cause themselves: it is not said twice.
    let mut said = report.to_string();
    let mut more = false;
    for cause in report.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            more = true;
            said = cause;
        }
    }
    let handler = if more {
        handler.with_cause_chain()
    } else {
        handler.without_cause_chain()
    };
    let mut text = String::new();
    match handler.render_report(&mut text, report.as_ref()) {
        Ok(()) => text,
        Err(_) => format!("{report}\n"),
    }
}

/// Whether stderr is a terminal that wants colours.
pub fn has_colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

#[cfg(test)]
mod tests {
    use super::text;
    use miette::{IntoDiagnostic, WrapErr};

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_cause_that_was_named_is_not_said_again() {
        let cause = || std::io::Error::other("the inner cause");
        let named = Err::<(), _>(Outer(cause())).into_diagnostic().expect_err("an error");
        assert_eq!(text(&named, false).matches("the inner cause").count(), 1);
        let wrapped = Err::<(), _>(cause())
            .into_diagnostic()
            .wrap_err("what was tried")
            .expect_err("an error");
        let wrapped = text(&wrapped, false);
        assert!(
            wrapped.contains("what was tried") && wrapped.contains("the inner cause"),
            "{wrapped}"
        );
    }
}
