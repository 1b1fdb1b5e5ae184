//! What is wrong with a configuration, where, and what to do about it: gathered, sorted, and drawn as a compiler would.
//!
//! Nothing here knows a key or a section. Positions are byte ranges of the text while problems gather, and lines and
//! columns, counted in characters from 1, once they are reported.

use std::{
    cell::RefCell,
    fmt::{self, Display, Formatter},
    ops::Range,
    path::{Path, PathBuf},
};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::environment::Overrides;
pub(super) use super::place::Place;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is taken; a person should look.
    Warning,
}

/// One thing that is wrong, or that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the configuration is refused for it.
    pub severity: Severity,
    /// What is wrong, without the key: lower case, no full stop.
    pub message: String,
    /// The key it is about, as `route[2].upstream`; empty where it is about the file.
    pub key: String,
    /// The line, from 1; 0 where the problem has no place in the file.
    pub line: usize,
    /// The column in characters, from 1; 0 where the problem has no place in the file.
    pub column: usize,
    /// The environment variable whose value it is about; the file has no line of it then.
    pub variable: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    span: Option<Range<usize>>,
    related: Option<Related>,
}

/// Every problem of one file, in the order of their places. [`Display`] draws them all, without colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    origin: PathBuf,
    text: String,
    problems: Vec<Problem>,
}

/// Why a value cannot be taken, from code that does not know where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// A second place that a problem is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Related {
    pub(super) span: Range<usize>,
    pub(super) label: &'static str,
}

/// Gathers problems while a document is read. Shared by every reader of it, hence the cell.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Report {
    /// Every problem, sorted by place; those without one come first.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether the configuration is refused.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// Draws every problem with its line, a caret and its hint; `colour` is for terminals.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&problem.render(&renderer, &self.origin, &self.text));
            text.push_str("\n\n");
        }
        let count = |severity| {
            self.problems
                .iter()
                .filter(|problem| problem.severity == severity)
                .count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        text.push_str(&format!("{}: ", self.origin.display()));
        text.push_str(&match (errors, warnings) {
            (0, 0) => "no problem".to_owned(),
            (0, _) => format!("{warnings} warning{}", plural(warnings)),
            (_, 0) => format!("{errors} error{}", plural(errors)),
            _ => format!(
                "{errors} error{}, {warnings} warning{}",
                plural(errors),
                plural(warnings)
            ),
        });
        text
    }

    /// A report on a file that could not be read at all.
    pub(super) fn unreadable(origin: &Path, fault: Fault) -> Self {
        let problems = Problems::default();
        problems.add_nowhere(fault);
        problems.report(origin, "", &Overrides::default())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

impl Problem {
    /// The key and what is wrong with it, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        if self.key.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.key, self.message)
        }
    }

    fn render(&self, renderer: &Renderer, origin: &Path, text: &str) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let path = origin.display().to_string();
        let mut group = annotate_snippets::Group::with_title(level.primary_title(self.title()));
        if let Some(span) = &self.span {
            let mut snippet = Snippet::source(text)
                .path(path)
                .annotation(AnnotationKind::Primary.span(span.clone()));
            if let Some(related) = &self.related {
                snippet = snippet.annotation(
                    AnnotationKind::Context
                        .span(related.span.clone())
                        .label(related.label),
                );
            }
            group = group.element(snippet);
        } else {
            // The value of a variable is not shown: it may be what somebody took for the place of a secret.
            let origin = match &self.variable {
                Some(variable) => format!("the environment variable {variable}"),
                None => path,
            };
            group = group.element(annotate_snippets::Origin::path(origin));
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint));
        }
        renderer.render(&[group])
    }
}

impl Problems {
    /// Adds an error at a place.
    pub(super) fn add(&self, place: &Place, fault: impl Into<Fault>) {
        self.push(Severity::Error, place, fault.into(), None);
    }

    /// Adds an error at a place that contradicts another place.
    pub(super) fn add_related(&self, place: &Place, related: Related, fault: impl Into<Fault>) {
        self.push(Severity::Error, place, fault.into(), Some(related));
    }

    /// Adds something that a person should look at.
    pub(super) fn warn(&self, place: &Place, fault: impl Into<Fault>) {
        self.push(Severity::Warning, place, fault.into(), None);
    }

    /// Adds something that a person should look at, beside another place.
    pub(super) fn warn_related(&self, place: &Place, related: Related, fault: impl Into<Fault>) {
        self.push(Severity::Warning, place, fault.into(), Some(related));
    }

    /// Adds an error that has no place in the text.
    pub(super) fn add_nowhere(&self, fault: Fault) {
        self.0.borrow_mut().push(Problem {
            severity: Severity::Error,
            message: fault.message,
            key: String::new(),
            line: 0,
            column: 0,
            variable: None,
            hint: fault.hint,
            span: None,
            related: None,
        });
    }

    /// Sorts what was gathered, and finds lines and columns, or the variables that stand for values of the text.
    pub(super) fn report(self, origin: &Path, text: &str, overrides: &Overrides) -> Report {
        let mut problems = self.0.into_inner();
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| (span.start, span.end)));
        for problem in &mut problems {
            let variable = |span: &Range<usize>| overrides.variable(span).map(ToOwned::to_owned);
            problem.variable = problem.span.as_ref().and_then(variable);
            if problem.variable.is_some() {
                problem.span = None;
            }
            let beyond = |related: &Related| overrides.variable(&related.span).is_some();
            if problem.related.as_ref().is_some_and(beyond) {
                problem.related = None;
            }
            if let Some(span) = &mut problem.span {
                *span = clip(span, text);
                (problem.line, problem.column) = position(text, span.start);
            }
            if let Some(related) = &mut problem.related {
                related.span = clip(&related.span, text);
            }
        }
        Report {
            origin: origin.to_owned(),
            // Without a problem none of it is ever drawn.
            text: match problems.is_empty() {
                true => String::new(),
                false => without_passwords(text),
            },
            problems,
        }
    }

    fn push(&self, severity: Severity, place: &Place, fault: Fault, related: Option<Related>) {
        self.0.borrow_mut().push(Problem {
            severity,
            message: fault.message,
            key: place.key.to_string(),
            line: 0,
            column: 0,
            variable: None,
            hint: fault.hint,
            // The document as a whole has no one place.
            span: (place.span != (0..0)).then(|| place.span.clone()),
            related,
        });
    }
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }
}

impl<T: Into<String>> From<T> for Fault {
    fn from(message: T) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }
}

/// The text to be shown, with each byte of a password in a URL replaced by a star: reports go to terminals and logs. Places in
/// it stay where they were. A password may have been written as it is, so it ends with the last `@` of the URL.
fn without_passwords(text: &str) -> String {
    let ends_url = |byte: &u8| matches!(byte, b'"' | b'\'' | b' ' | b'\n');
    let mut shown = text.as_bytes().to_vec();
    let mut done = 0;
    // A colon is found much faster than three bytes are, and most texts have few.
    for (at, _) in text.match_indices(':') {
        let start = at + "://".len();
        let is_url = text.get(at..).is_some_and(|rest| rest.starts_with("://"));
        let Some((_, after)) = shown
            .split_at_mut_checked(start)
            .filter(|_| is_url && at >= done)
        else {
            continue;
        };
        let end = after.iter().position(ends_url).unwrap_or(after.len());
        done = start + end;
        let (url, _) = after.split_at_mut(end);
        let before_at = url.iter().rposition(|byte| *byte == b'@').unwrap_or(0);
        let password = url.iter_mut().take(before_at);
        let password = password.skip_while(|byte| **byte != b':').skip(1);
        password.for_each(|byte| *byte = b'*');
        let key = b"password=";
        if let Some(at) = url.windows(key.len()).position(|part| part == key) {
            let value = url.iter_mut().skip(at + key.len());
            let value = value.take_while(|byte| **byte != b'&');
            value.for_each(|byte| *byte = b'*');
        }
    }
    // Stars take the place of whole characters, as those that begin and end a password are ASCII.
    String::from_utf8(shown).unwrap_or_default()
}

/// Keeps a span inside the text and on the borders of characters, and ends it at its first line: a caret under twenty
/// lines of a table helps nobody.
fn clip(span: &Range<usize>, text: &str) -> Range<usize> {
    let border = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = border(span.start);
    let end = border(span.end.max(start));
    let line = text.get(start..end).and_then(|part| part.lines().next());
    start..start + line.map_or(0, str::len)
}

/// Line and column of a byte, both from 1; the column counts characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(start..).unwrap_or("").chars().count() + 1;
    (line, column)
}
