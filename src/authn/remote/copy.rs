//! The last good keys on the disk, so that a start needs no provider.
//!
//! Public keys are no secret, but whoever can change them can sign for anybody: a copy that others may write to is not used.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::{
    authn::settings::{IssuerSettings, KeyPlace, RemoteSettings},
    files::{make_folder, replace},
};

/// A set of 256 KiB, written as a JSON string.
const BYTES_MAX: u64 = 2 << 20;

/// Where the last good key set of one issuer is kept.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    path: PathBuf,
    /// What the set was fetched for: one of another issuer or place is no copy of these keys.
    source: String,
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    source: String,
    /// Seconds since 1970.
    fetched: u64,
    keys: String,
}

impl Copy {
    pub(super) fn new(folder: &Path, issuer: &IssuerSettings, settings: &RemoteSettings) -> Self {
        let place = match &settings.place {
            KeyPlace::Discovery(uri) => format!("discovery {uri}"),
            KeyPlace::Jwks(uri) => format!("jwks {uri}"),
        };
        let source = format!("{} {place}", issuer.issuer);
        let digest = digest::digest(&digest::SHA256, source.as_bytes());
        let digits = digest.as_ref().iter().take(16);
        let name: String = digits.map(|byte| format!("{byte:02x}")).collect();
        Self {
            path: folder.join(format!("{name}.json")),
            source,
        }
    }

    /// The kept set and its age by the wall clock; `None` where there is none.
    ///
    /// # Errors
    /// What keeps it from being used: unreadable, writable by others, of another source, or from the future.
    pub(super) fn read(&self, now: SystemTime) -> io::Result<Option<(Vec<u8>, Duration)>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        for metadata in [file.metadata()?, fs::metadata(folder)?] {
            if metadata.permissions().mode() & 0o022 != 0 {
                return Err(io::Error::other("others may write to it"));
            }
        }
        let mut text = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut text)?;
        let kept: Kept = serde_json::from_slice(&text)?;
        if kept.source != self.source {
            return Err(io::Error::other("it is of another issuer"));
        }
        let fetched = UNIX_EPOCH + Duration::from_secs(kept.fetched.min(u64::from(u32::MAX) * 2));
        match now.duration_since(fetched) {
            Ok(age) => Ok(Some((kept.keys.into_bytes(), age))),
            Err(_) => Err(io::Error::other("it is from the future")),
        }
    }

    /// Keeps a set, in place of the last. Blocks. The file appears whole, readable by us alone.
    pub(super) fn write(&self, keys: &str, now: SystemTime) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        make_folder(folder)?;
        let kept = Kept {
            source: self.source.clone(),
            fetched: now
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            keys: keys.to_owned(),
        };
        replace(&self.path, &serde_json::to_vec(&kept)?)
    }
}
