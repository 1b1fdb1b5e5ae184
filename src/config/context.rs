//! What every reader of one document shares: where its paths start, the environment, its problems, the files that it reads.

use std::{
    cell::RefCell,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    diagnostic::Problems,
    environment::Overrides,
    files::{self, NamedFile},
    shape::Shapes,
};

/// What every reader of one document shares.
pub(super) struct Context<'d> {
    /// Where relative paths start.
    pub(super) root: &'d Path,
    /// Looks up an environment variable.
    pub(super) env: &'d dyn Fn(&str) -> Option<OsString>,
    /// What the environment puts in the place of the file's values.
    pub(super) overrides: &'d Overrides,
    /// Where readers leave what they ask for; `None` unless somebody wants to know.
    pub(super) shapes: Option<&'d Shapes>,
    /// Where problems go.
    pub(super) problems: Problems,
    /// The files that were read so far, each once.
    pub(super) files: RefCell<Vec<NamedFile>>,
}

impl Context<'_> {
    /// Resolves the path of a file that is about to be read, and remembers it: when it changes, so does the configuration.
    pub(super) fn file(&self, text: &str) -> PathBuf {
        self.remember(text, false)
    }

    /// The same for a file of the listeners' certificates, which are taken anew by themselves.
    pub(super) fn served_file(&self, text: &str) -> PathBuf {
        self.remember(text, true)
    }

    fn remember(&self, text: &str, watched_elsewhere: bool) -> PathBuf {
        let path = files::resolve(self.root, text);
        let mut files = self.files.borrow_mut();
        match files.iter_mut().find(|file| file.path == path) {
            Some(file) => file.watched_elsewhere &= watched_elsewhere,
            None => files.push(NamedFile {
                watched_elsewhere,
                ..NamedFile::look(path.clone())
            }),
        }
        path
    }

    /// The digest of what a file held that was read.
    pub(super) fn content_of(&self, path: &Path) -> Vec<u8> {
        let files = self.files.borrow();
        let file = files.iter().find(|file| file.path == path);
        file.map_or_else(Vec::new, |file| file.content.clone())
    }
}
