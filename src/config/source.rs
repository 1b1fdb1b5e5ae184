//! Where a configuration is read from, again and again, and what one reading brought.

use std::{
    cell::RefCell,
    io,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    Checked, Config, Report,
    context::Context,
    diagnostic::{Fault, Place, Problems},
    environment::{Environment, Overridden, Overrides},
    outline::Written,
    place::Key,
    sections,
};
use crate::server::tls::files::Stamp;

/// The file of a configuration, and where relative paths in it start.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    root: PathBuf,
}

/// One reading of a configuration: what it says, or what is wrong with it.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The configuration, or every problem.
    pub outcome: Result<Checked, Report>,
    /// What its outline is made from.
    pub written: Written,
    /// The file and those that it names, with what they looked like before they were read; not those of the listeners'
    /// certificates, which have a watch of their own.
    pub files: Vec<(PathBuf, Stamp)>,
}

/// A configuration to start with.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Where it is read from, also later.
    pub source: Source,
    /// It.
    pub config: Config,
    /// As in [`Checked`].
    pub overridden: Vec<Overridden>,
    /// As in [`Reading`].
    pub written: Written,
    /// As in [`Reading`].
    pub files: Vec<(PathBuf, Stamp)>,
}

impl Source {
    /// A file whose relative paths start at the parent of its folder: the project's root when the file is
    /// `config/gateway.toml`.
    ///
    /// # Errors
    /// A path that cannot be made absolute.
    pub fn file(path: &Path) -> Result<Self, Report> {
        let no_folder = |error: io::Error| {
            Report::unreadable(path, format!("the file has no folder: {error}").into())
        };
        let absolute = std::path::absolute(path).map_err(no_folder)?;
        let folder = absolute.parent().unwrap_or(&absolute);
        let root = folder.parent().unwrap_or(folder);
        Ok(Self::at(path, root))
    }

    /// A file whose relative paths start at `root`.
    #[must_use]
    pub fn at(path: &Path, root: &Path) -> Self {
        Self {
            path: path.to_owned(),
            root: root.to_owned(),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a configuration to start with. Blocks.
    ///
    /// # Errors
    /// Every problem of the file, and of the files that it names.
    pub fn load(self) -> Result<Loaded, Report> {
        let Reading {
            outcome,
            written,
            files,
        } = self.read();
        let Checked {
            config, overridden, ..
        } = outcome?;
        Ok(Loaded {
            source: self,
            config,
            overridden,
            written,
            files,
        })
    }

    /// Reads the file, those that it names, and the environment. Blocks.
    #[must_use]
    pub fn read(&self) -> Reading {
        let stamp = Stamp::of(&[&self.path]);
        let mut reading = match text(&self.path) {
            Ok(text) => examine(&text, &self.path, &self.root, &Environment::of_process()),
            Err(fault) => Reading {
                outcome: Err(Report::unreadable(&self.path, fault)),
                written: Written::default(),
                files: Vec::new(),
            },
        };
        reading.files.push((self.path.clone(), stamp));
        reading
    }
}

/// Reads a text, with what the environment puts in the place of its values.
pub(super) fn examine(
    text: &str,
    origin: &Path,
    root: &Path,
    environment: &Environment<'_>,
) -> Reading {
    let (mut document, faults) = DeTable::parse_recoverable(text);
    let problems = Problems::default();
    let overrides = Overrides::of(environment, text.len());
    if !faults.is_empty() {
        // What could be read of a broken file says little: a key is not missing that stands in a broken line.
        for fault in faults {
            let place = Place {
                key: Key::default(),
                span: fault.span().unwrap_or(0..0),
            };
            problems.add(&place, fault.message());
        }
        return Reading {
            outcome: Err(problems.report(origin, text, &overrides)),
            written: Written::default(),
            files: Vec::new(),
        };
    }
    let overridden = overrides.apply(document.get_mut(), &problems);
    let context = Context {
        root,
        env: environment.lookup,
        overrides: &overrides,
        shapes: None,
        problems,
        files: RefCell::default(),
    };
    let config = sections::read(&context, &document);
    let files = context.files.take();
    let report = context.problems.report(origin, text, &overrides);
    let written = Written::new((text, overrides.clone()), root, files.clone());
    Reading {
        outcome: match config {
            Some(config) if !report.has_errors() => Ok(Checked {
                config,
                warnings: report,
                overridden,
            }),
            _ => Err(report),
        },
        written,
        files: files
            .into_iter()
            .filter(|file| !file.watched_elsewhere)
            .map(|file| (file.path, file.stamp))
            .collect(),
    }
}

fn text(path: &Path) -> Result<String, Fault> {
    std::fs::read_to_string(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Fault::new("the file does not exist", "portcullis init makes one")
        } else {
            format!("the file cannot be read: {error}").into()
        }
    })
}
