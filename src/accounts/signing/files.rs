//! The files of the key folder: private, whole or not there, and one writer at a time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use zeroize::Zeroizing;

use super::KeyError;
use crate::files::replace;

/// No file of ours is longer.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Makes the folder where there is none, and refuses one that others may use.
pub(super) fn private_folder(folder: &Path) -> Result<(), KeyError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| file_error(folder, source))?;
    refuse_open(folder)
}

/// Refuses a folder that others may use.
pub(super) fn refuse_open(folder: &Path) -> Result<(), KeyError> {
    if is_open(folder)? {
        return Err(KeyError::FolderOpen {
            path: folder.into(),
        });
    }
    Ok(())
}

/// Keeps other writers of the folder out until the answer is dropped. Readers need no lock: files appear whole.
pub(super) fn lock(folder: &Path) -> Result<File, KeyError> {
    let path = folder.join("lock");
    let failed = |source| file_error(&path, source);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

/// Reads a file that its owner alone may read.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    if is_open(path)? {
        return Err(KeyError::ReadableByOthers { path: path.into() });
    }
    let failed = |source| file_error(path, source);
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .map_err(failed)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|source| {
            if source.kind() == io::ErrorKind::InvalidData {
                KeyError::Malformed { path: path.into() }
            } else {
                failed(source)
            }
        })?;
    Ok(text)
}

/// Writes a file of mode 0600, in place of one that is there. It appears whole and on the disk, or not at all.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    let failed = |source| file_error(path, source);
    replace(path, content).map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

/// Removes a file; one that is gone already is as good.
pub(super) fn remove(path: &Path) -> Result<(), KeyError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(file_error(path, source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The files of the folder with this ending, by name.
pub(super) fn ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, KeyError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| file_error(folder, source))? {
        let path = entry.map_err(|source| file_error(folder, source))?.path();
        if path.extension().is_some_and(|found| found == ending) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// What tells one content of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    length: u64,
    written: Option<SystemTime>,
}

/// The stamp of a file as it is now.
pub(super) fn stamp(path: &Path) -> Result<Stamp, KeyError> {
    let metadata = fs::metadata(path).map_err(|source| file_error(path, source))?;
    Ok(Stamp {
        inode: metadata.ino(),
        length: metadata.len(),
        written: metadata.modified().ok(),
    })
}

/// Whether anybody but the owner has any right.
fn is_open(path: &Path) -> Result<bool, KeyError> {
    let metadata = fs::metadata(path).map_err(|source| file_error(path, source))?;
    Ok(metadata.permissions().mode() & 0o077 != 0)
}

pub(super) fn file_error(path: &Path, source: io::Error) -> KeyError {
    KeyError::File {
        path: path.into(),
        source,
    }
}
