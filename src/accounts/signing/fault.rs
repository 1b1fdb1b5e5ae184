//! What can be wrong with signing keys, by name.

use std::{io, path::PathBuf};

/// Why there are no keys to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key is known to the world.
    #[error("{}: this key was published as an example; remove the file, a new key is made at the next start", path.display())]
    Example {
        /// Which file.
        path: PathBuf,
    },
    /// A file or folder could not be made or read.
    #[error("{}: cannot be read or made", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may reach the folder: a key of theirs in it would be published as ours.
    #[error("{}: others may use this folder; run: chmod 700 {}", path.display(), path.display())]
    FolderOpen {
        /// Which.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("cannot make a signing key")]
    Generate,
    /// Not a key that signs.
    #[error("{}: not a private key of P-256, Ed25519 or RSA in PEM (PKCS#8), nor a secret of 32 bytes in base64url", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// A key of the ring has no file.
    #[error("{}: names a key that is not there", path.display())]
    Missing {
        /// The file that names it.
        path: PathBuf,
    },
    /// A key of assertions is no pair of P-256.
    #[error(
        "key {kid}: assertions are signed with ES256 alone; keys of access tokens need a folder of their own"
    )]
    NotEs256 {
        /// Its name.
        kid: Box<str>,
    },
    /// Others may read what signs every token.
    #[error("{}: others may read this key; run: chmod 600 {}", path.display(), path.display())]
    ReadableByOthers {
        /// Which file.
        path: PathBuf,
    },
    /// The list of keys is no such list.
    #[error("{}: is not the list of signing keys; restore it from a backup, or remove it: the keys beside it are then taken as they are", path.display())]
    RingMalformed {
        /// Which file.
        path: PathBuf,
    },
    /// No such key.
    #[error("no signing key has this kid; `portcullis key list` shows those that there are")]
    Unknown,
    /// Our own verifier refuses a key of ours.
    #[error("a signing key cannot be verified with")]
    Unusable(#[source] crate::authn::KeyFault),
}
