//! Reads the files of certificates and keys: present, not empty, of a sane size, and secrets readable by their owner alone
//! (NET-7, KEY-5). Tells whether a file has changed without reading it.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// No key set or chain comes near.
const BYTES_MAX: u64 = 1 << 20;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Anybody: what it holds is public.
    Anybody,
    /// Its owner alone.
    Owner,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It holds nothing.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// It is no plain file.
    #[error("{} is not a file", .0.display())]
    Kind(PathBuf),
    /// It holds more than any key or chain.
    #[error("{} is larger than 1MiB", .0.display())]
    Large(PathBuf),
    /// It is not there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// A secret that is none.
    #[error("{} can be read or written by others", .0.display())]
    Open(PathBuf),
    /// The system refuses.
    #[error("{} cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
}

/// What changes when a file does, by way of whatever link its path leads. Two that are equal mean the same content, unless
/// somebody writes twice within the clock's grain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<Option<[i128; 5]>>);

/// Reads a whole file, never empty.
///
/// # Errors
/// The first [`FileFault`].
pub fn read(path: &Path, reader: Reader) -> Result<Zeroizing<Vec<u8>>, FileFault> {
    let cannot = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            FileFault::Missing(path.to_owned())
        } else {
            FileFault::Unreadable(path.to_owned(), error)
        }
    };
    // Asked before opening: opening a pipe would wait for whoever writes it.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(FileFault::Kind(path.to_owned()));
    }
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    let me = rustix::process::geteuid().as_raw();
    if reader == Reader::Owner && !is_private(metadata.mode(), metadata.uid(), me) {
        return Err(FileFault::Open(path.to_owned()));
    }
    let mut content = Zeroizing::new(Vec::new());
    file.take(BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(cannot)?;
    if content.iter().all(u8::is_ascii_whitespace) {
        return Err(FileFault::Empty(path.to_owned()));
    }
    if u64::try_from(content.len()).is_ok_and(|length| length > BYTES_MAX) {
        return Err(FileFault::Large(path.to_owned()));
    }
    Ok(content)
}

/// Whether a secret is kept from others. Where root owns it and we are not root, our group may read it, for there is no other
/// way to give it to us: Kubernetes mounts secrets so. PostgreSQL has the same rule.
fn is_private(mode: u32, owner: u32, me: u32) -> bool {
    let others = if owner == 0 && me != 0 { 0o037 } else { 0o077 };
    mode & others == 0
}

impl Stamp {
    /// Looks at files, present or not.
    #[must_use]
    pub fn of(paths: &[&Path]) -> Self {
        let stamp = |path: &&Path| std::fs::metadata(path).ok().map(|file| of_one(&file));
        Self(paths.iter().map(stamp).collect())
    }
}

/// The time of the inode's change is there because a writer may set that of the content as it likes.
fn of_one(file: &Metadata) -> [i128; 5] {
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    [
        file.dev().into(),
        file.ino().into(),
        file.size().into(),
        nanos(file.mtime(), file.mtime_nsec()),
        nanos(file.ctime(), file.ctime_nsec()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_5_the_group_may_read_what_root_gives_us_and_nothing_more() {
        const ME: u32 = 10_001;
        for (mode, owner, me, private) in [
            (0o100_644, 0, ME, false),
            (0o100_660, 0, ME, false),
            (0o100_641, 0, ME, false),
            (0o100_640, ME, ME, false),
            (0o100_440, ME + 1, ME, false),
            (0o100_640, 0, 0, false),
            (0o100_440, 0, ME, true),
            (0o100_640, 0, ME, true),
            (0o100_600, ME, ME, true),
            (0o100_400, 0, 0, true),
        ] {
            let found = is_private(mode, owner, me);
            assert_eq!(found, private, "{mode:o} {owner} {me}");
        }
    }
}
