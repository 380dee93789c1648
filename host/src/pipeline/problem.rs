//! What is wrong with a pipeline file, all of it, each thing underlined and with its remedy.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde::Serialize;
use serde::ser::SerializeStruct;

use super::Span;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, with the names concerned.
    pub message: String,
    /// Where: the first is the place to mend, others explain it. Empty if the file as a whole is meant.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Option<String>,
}

/// A place in the file, underlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Which bytes.
    pub span: Span,
    /// What stands below the line.
    pub text: Option<String>,
}

impl Problem {
    /// A problem at one place.
    pub fn new(span: Span, message: impl Into<String>) -> Problem {
        Problem {
            message: message.into(),
            labels: vec![Label { span, text: None }],
            help: None,
        }
    }

    /// What is said below the first place.
    pub fn label(mut self, text: impl Into<String>) -> Problem {
        if let Some(first) = self.labels.first_mut() {
            first.text = Some(text.into());
        }
        self
    }

    /// One more place, with what is said below it.
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Problem {
        self.labels.push(Label {
            span,
            text: Some(text.into()),
        });
        self
    }

    /// The remedy.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        if self.labels.is_empty() {
            return None;
        }
        Some(Box::new(self.labels.iter().map(|label| {
            LabeledSpan::new_with_span(label.text.clone(), label.span.clone())
        })))
    }
}

/// All that is wrong with one pipeline file.
///
/// `Display` is one line; [`render`](Report::render) shows the lines of the file, and `serde` gives machines the
/// same with line and column, counted from 1.
#[derive(Clone)]
pub struct Report {
    source: NamedSource<Arc<str>>,
    problems: Vec<Problem>,
}

impl Report {
    /// `file` is the name that is shown, `text` what stands in it, so that the spans of `problems` can be shown.
    pub fn new(file: impl AsRef<str>, text: Arc<str>, mut problems: Vec<Problem>) -> Report {
        // In the order of the file, so that a person mends it from top to bottom.
        problems.sort_by_key(|problem| problem.labels.first().map_or(0, |label| label.span.start));
        for problem in &mut problems {
            // Plugins and the environment have their say in messages, but none in the terminal.
            problem.message = printable(&problem.message);
            problem.help = problem.help.as_deref().map(printable);
            for label in &mut problem.labels {
                label.span = inside(&text, &label.span);
            }
        }
        Report {
            source: NamedSource::new(file, text).with_language("toml"),
            problems,
        }
    }

    /// The file's name, as it was given.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// In the order of the file; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The text that a label underlines.
    pub fn underlined(&self, label: &Label) -> &str {
        self.source.inner().get(label.span.clone()).unwrap_or("")
    }

    /// For a terminal of this many columns: each problem with its lines underlined and the remedy, then how many.
    pub fn render(&self, width: usize, colour: bool) -> String {
        let theme = if colour {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(width)
            .with_links(false);
        let mut shown = String::new();
        for problem in &self.problems {
            let placed = Placed { problem, report: self };
            let before = shown.len();
            // Nothing that stands in a file may keep its errors from being shown.
            if handler.render_report(&mut shown, &placed).is_err() {
                shown.truncate(before);
                shown += &format!("{}: {problem}\n", self.file());
            }
            shown.push('\n');
        }
        shown + &format!("{self}\n")
    }

    /// Line and column of a byte, counted from 1; columns in characters.
    fn position(&self, byte: usize) -> (usize, usize) {
        let before = &self.source.inner()[..byte];
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        (
            line,
            before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1,
        )
    }
}

/// A problem with the file that it is in.
#[derive(Debug)]
struct Placed<'r> {
    problem: &'r Problem,
    report: &'r Report,
}

impl fmt::Display for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Placed<'_> {}

impl Diagnostic for Placed<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.problem.labels()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.report.source_code()
    }
}

/// Control characters escaped, except for line breaks.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

/// A span that can be cut from the text: in its bounds, between characters.
fn inside(text: &str, span: &Span) -> Span {
    let start = text.floor_char_boundary(span.start);
    start..text.ceil_char_boundary(span.end.max(start))
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(100, false))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [_] => write!(f, "{} has a problem", self.file()),
            problems => write!(f, "{} has {} problems", self.file(), problems.len()),
        }
    }
}

impl std::error::Error for Report {}

impl Diagnostic for Report {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            message: &'a str,
            help: Option<&'a str>,
            labels: Vec<Place<'a>>,
        }
        #[derive(Serialize)]
        struct Place<'a> {
            line: usize,
            column: usize,
            offset: usize,
            length: usize,
            text: Option<&'a str>,
        }
        let problems: Vec<Shown<'_>> = self
            .problems
            .iter()
            .map(|problem| Shown {
                message: &problem.message,
                help: problem.help.as_deref(),
                labels: problem
                    .labels
                    .iter()
                    .map(|label| {
                        let (line, column) = self.position(label.span.start);
                        Place {
                            line,
                            column,
                            offset: label.span.start,
                            length: label.span.len(),
                            text: label.text.as_deref(),
                        }
                    })
                    .collect(),
            })
            .collect();
        let mut report = serializer.serialize_struct("Report", 2)?;
        report.serialize_field("file", self.file())?;
        report.serialize_field("problems", &problems)?;
        report.end()
    }
}

/// The one of `names` that is most like `name`, if any is like it at all.
pub(crate) fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = name.to_lowercase();
    names
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// "did you mean …?" where something is near, and always what there is.
pub(crate) fn suggest<'n>(name: &str, names: impl IntoIterator<Item = &'n str> + Clone, what: &str) -> String {
    let list = names
        .clone()
        .into_iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    match (nearest(name, names), list.is_empty()) {
        (_, true) => format!("{what}: none"),
        (Some(near), _) => format!("did you mean `{near}`? {what}: {list}"),
        (None, _) => format!("{what}: {list}"),
    }
}
