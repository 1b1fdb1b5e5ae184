//! The file of the audit log: opened once, opened again when it was moved away or somebody asks, and never in anybody's way.
//!
//! It is written by a thread of its own behind a bounded queue (`line_queue`). A file that cannot be written is told of once, its
//! lines are counted as dropped, and it is tried again with each batch.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Of a file that is made; one that is there keeps its own, so that a group may be let read it.
const MODE: u32 = 0o600;

/// The sink of the audit log.
pub(super) struct AuditFile {
    path: PathBuf,
    file: Option<File>,
    /// Set by whoever wants the file opened again.
    reopen: Arc<AtomicBool>,
    /// Whether the last attempt failed, which was told.
    failing: bool,
    /// Whether the file may end in the middle of a line.
    torn: bool,
}

impl AuditFile {
    /// Opens the file, and makes it where there is none.
    ///
    /// # Errors
    /// A file that cannot be opened for writing.
    pub(super) fn open(path: &Path, reopen: Arc<AtomicBool>) -> io::Result<Self> {
        Ok(Self {
            file: Some(open(path)?),
            path: path.to_owned(),
            reopen,
            failing: false,
            torn: false,
        })
    }

    /// Whether the path is still that of the open file: whoever rotates logs moves it and makes another, or none.
    fn is_current(&self) -> bool {
        let identity = |found: io::Result<std::fs::Metadata>| {
            let found = found.ok()?;
            Some((found.dev(), found.ino()))
        };
        let open = self.file.as_ref().map(File::metadata);
        let open = open.and_then(identity);
        open.is_some() && open == identity(std::fs::metadata(&self.path))
    }

    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.reopen.swap(false, Ordering::Relaxed) || !self.is_current() {
            self.file = None;
            self.file = Some(open(&self.path)?);
            self.torn = false;
        }
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if self.torn {
            file.write_all(b"\n")?;
        }
        self.torn = true;
        file.write_all(lines)?;
        self.torn = false;
        Ok(())
    }
}

impl Write for AuditFile {
    /// Takes whole lines. Where they cannot be written none of them counts as written.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let path = self.path.display().to_string();
        match self.write_lines(lines) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(path, "the audit file is written again");
                }
                Ok(lines.len())
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(path, %error, "the audit file cannot be written: its events are on standard error alone");
                }
                Err(io::Error::other(error))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn sink(path: &Path) -> (AuditFile, Arc<AtomicBool>) {
        let reopen = Arc::new(AtomicBool::new(false));
        (AuditFile::open(path, Arc::clone(&reopen)).unwrap(), reopen)
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("no/folder")] {
            assert!(AuditFile::open(&path, Arc::default()).is_err());
        }
    }

    #[test]
    fn a_file_is_made_for_its_owner_and_one_that_is_there_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        sink(&path).0.write_all(b"one\n").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        sink(&path).0.write_all(b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn log_4_a_file_that_was_moved_is_left_and_another_is_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let old = folder.path().join("audit.log.1");
        let (mut sink, reopen) = sink(&path);
        sink.write_all(b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        sink.write_all(b"two\n").unwrap();
        fs::rename(&path, folder.path().join("audit.log.2")).unwrap();
        fs::write(&path, "new ").unwrap();
        sink.write_all(b"three\n").unwrap();
        reopen.store(true, Ordering::Relaxed);
        sink.write_all(b"four\n").unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"one\n");
        assert_eq!(fs::read(&path).unwrap(), b"new three\nfour\n");
    }

    #[test]
    fn fault_2_a_file_that_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let (mut sink, _) = sink(&path);
        sink.write_all(b"one\n").unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        sink.write_all(b"two\n").unwrap_err();
        sink.write_all(b"three\n").unwrap_err();
        fs::remove_dir(&path).unwrap();
        sink.write_all(b"four\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"four\n");
    }
}
