//! Is a new password in a list of those that were stolen elsewhere? (AUTH-5, NIST SP 800-63B §3.1.1.2) From a file, never from the
//! network.
//!
//! The list that everybody has is of SHA-1 digests in hexadecimal, `HASH:COUNT` on each line, in the order of the digests: tens of
//! gigabytes. It is searched where it lies, by halving, some forty reads for a look, and never loaded. A list of one's own, a
//! password on each line, is small enough to be kept as digests.

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;

/// The largest file of passwords that is loaded.
const PLAIN_BYTES_MAX: u64 = 16 << 20;

/// Lines of a list of digests that are looked at when it is opened: in a list of another order it is as good as certain that
/// two of them stand the wrong way round.
const SAMPLES: u64 = 256;

/// What a line of digests has at most: a digest, a colon, a count, an end.
const LINE_BYTES_MAX: usize = 64;

/// The last line begins at most so far before the end.
const LAST_LINE: u64 = 64;

/// SHA-1, by which these lists are kept. Nothing rests on its strength here: who finds a second password with a digest of the list
/// may not use that one either.
type Digest = [u8; 20];

const HEX: usize = 40;

/// A list of stolen passwords.
#[derive(Debug)]
pub struct Breached(List);

#[derive(Debug)]
enum List {
    /// Digests of a list that was small enough.
    Kept(HashSet<Digest>),
    /// A file of digests in order, and its length.
    OnDisk(File, u64),
}

/// Why a file is no such list.
#[derive(Debug, thiserror::Error)]
pub enum BreachedError {
    /// It has nothing in it.
    #[error("{}: is empty", .0.display())]
    Empty(PathBuf),
    /// Its first line is a digest of another kind.
    #[error("{}: its lines are not SHA-1 digests of 40 hexadecimal digits", .0.display())]
    OtherDigests(PathBuf),
    /// A list of passwords that is too large to be kept, or something else.
    #[error("{}: is neither a list of SHA-1 digests nor a list of passwords of at most 16 MiB", .0.display())]
    TooLarge(PathBuf),
    /// It cannot be read.
    #[error("{}: cannot be read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line further down is no digest.
    #[error("{}: the line at byte {at} is no SHA-1 digest with a count", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Where the line begins.
        at: u64,
    },
    /// Digests are not in order.
    #[error("{}: the digests are not in order at byte {at}", path.display())]
    Unsorted {
        /// Which file.
        path: PathBuf,
        /// Where the line begins that should stand further up.
        at: u64,
    },
}

impl BreachedError {
    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Empty(_) | Self::Unreadable { .. } => {
                "a file of lines HASH:COUNT with SHA-1 digests in order, or of one password on each line"
            }
            Self::OtherDigests(_) => "take the list of SHA-1 digests, not that of NTLM",
            Self::TooLarge(_) => {
                "a list of passwords is small; large ones are of SHA-1 digests, HASH:COUNT"
            }
            Self::Line { .. } | Self::Unsorted { .. } => {
                "take the list that is ordered by hash, or sort it: LC_ALL=C sort -o FILE FILE"
            }
        }
    }
}

impl Breached {
    /// Opens a list. Of a list of digests the first line, the last, and some between are looked at. Blocks.
    ///
    /// # Errors
    /// [`BreachedError`] by what is wrong.
    pub fn open(path: &Path) -> Result<Self, BreachedError> {
        let unreadable = |source| BreachedError::Unreadable {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let about = file.metadata().map_err(unreadable)?;
        if !about.is_file() {
            return Err(unreadable(io::ErrorKind::InvalidInput.into()));
        }
        let length = about.len();
        if length == 0 {
            return Err(BreachedError::Empty(path.into()));
        }
        let mut start = [0; LINE_BYTES_MAX];
        let read = read_at(&file, &mut start, 0).map_err(unreadable)?;
        let first = first_line(start.get(..read).unwrap_or_default());
        if read_line(first).is_some() {
            check_order(&file, length, path)?;
            return Ok(Self(List::OnDisk(file, length)));
        }
        let digits = first.iter().take_while(|byte| byte.is_ascii_hexdigit());
        if digits.count() >= 32 {
            return Err(BreachedError::OtherDigests(path.into()));
        }
        if length > PLAIN_BYTES_MAX {
            return Err(BreachedError::TooLarge(path.into()));
        }
        let mut text = Vec::new();
        let mut whole = file.take(PLAIN_BYTES_MAX);
        whole.read_to_end(&mut text).map_err(unreadable)?;
        let lines = text.split(|byte| *byte == b'\n');
        let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let kept = lines.filter(|line| !line.is_empty()).map(sha1).collect();
        Ok(Self(List::Kept(kept)))
    }

    /// Whether a password is in it. Reads some forty times from a list of digests: off the threads that serve.
    ///
    /// # Errors
    /// Where the file cannot be read any more, or is not what it was.
    pub(super) fn holds(&self, password: &[u8]) -> io::Result<bool> {
        let wanted = sha1(password);
        match &self.0 {
            List::Kept(digests) => Ok(digests.contains(&wanted)),
            List::OnDisk(file, length) => search(file, *length, &wanted),
        }
    }
}

/// Finds a digest by halving: the line that begins first at or behind the middle says on which side to go on.
fn search(file: &File, length: u64, wanted: &Digest) -> io::Result<bool> {
    // Every line before `low` is smaller than what is wanted; one that begins at `high` or behind it is greater.
    let (mut low, mut high) = (0, length);
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(line) = line_from(file, middle)? else {
            high = middle; // no line begins there any more
            continue;
        };
        if line.at >= high {
            high = middle; // nor one that is still sought among
            continue;
        }
        match line.digest.cmp(wanted) {
            std::cmp::Ordering::Equal => return Ok(true),
            std::cmp::Ordering::Less => low = line.at + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Ok(false)
}

/// A line of a list of digests.
struct Line {
    /// Where it begins.
    at: u64,
    digest: Digest,
}

/// The first line that begins at a place or behind it; `None` behind the last one.
fn line_from(file: &File, place: u64) -> io::Result<Option<Line>> {
    // From the byte before, so that a line that begins right there is seen to.
    let from = place.saturating_sub(1);
    let mut bytes = [0; 2 * LINE_BYTES_MAX];
    let read = read_at(file, &mut bytes, from)?;
    let bytes = bytes.get(..read).unwrap_or_default();
    let skipped = match place {
        0 => 0,
        _ => match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if read < 2 * LINE_BYTES_MAX => return Ok(None), // the rest of the last line
            None => return Err(odd()),
        },
    };
    let rest = bytes.get(skipped..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(None);
    }
    let digest = read_line(first_line(rest)).ok_or_else(odd)?;
    let skipped = u64::try_from(skipped).map_err(|_| odd())?;
    Ok(Some(Line {
        at: from + skipped,
        digest,
    }))
}

fn odd() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a line is no SHA-1 digest with a count",
    )
}

/// Looks at lines all over the list.
fn check_order(file: &File, length: u64, path: &Path) -> Result<(), BreachedError> {
    let mut last: Option<Line> = None;
    for sample in 0..=SAMPLES {
        // The last sample is for the last line, which is not longer than this.
        let place = match sample {
            SAMPLES => length.saturating_sub(LAST_LINE),
            _ => length / SAMPLES * sample,
        };
        let line = match line_from(file, place) {
            Ok(Some(line)) => line,
            Ok(None) => continue,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(BreachedError::Line {
                    path: path.into(),
                    at: place,
                });
            }
            Err(source) => {
                return Err(BreachedError::Unreadable {
                    path: path.into(),
                    source,
                });
            }
        };
        if last
            .as_ref()
            .is_some_and(|last| last.at < line.at && last.digest >= line.digest)
        {
            return Err(BreachedError::Unsorted {
                path: path.into(),
                at: line.at,
            });
        }
        last = Some(line);
    }
    Ok(())
}

/// As much as there is at a place, up to the buffer's length.
fn read_at(file: &File, buffer: &mut [u8], place: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        let at = place.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn first_line(bytes: &[u8]) -> &[u8] {
    let line = bytes.split(|byte| *byte == b'\n').next();
    let line = line.unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The digest of a line: 40 digits, and nothing more or a colon and a count.
fn read_line(line: &[u8]) -> Option<Digest> {
    let (digits, count) = line.split_at_checked(HEX)?;
    let counts = match count {
        [] => true,
        [b':', count @ ..] => !count.is_empty() && count.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !counts {
        return None;
    }
    let mut digest = [0; 20];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        // A sign would be taken for a part of a number.
        if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(digest)
}

fn sha1(password: &[u8]) -> Digest {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password);
    let mut bytes = [0; 20];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}
