//! What can be wrong with signing keys, by name.

use std::{io, path::PathBuf};

use crate::store::StoreError;

/// Why there are no keys to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The keys in the store cannot be encrypted: the cryptographic library fails.
    #[error("cannot encrypt a signing key")]
    Encrypt,
    /// The keys are in the store, and this node has nothing to decrypt them with.
    #[error(
        "the signing keys are in the store, encrypted: name what decrypts them in accounts.key_encryption_file or accounts.key_encryption_env, as on the other nodes"
    )]
    EncryptionMissing,
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
    /// A key of the store is encrypted with a key that this node does not have.
    #[error(
        "the signing keys in the store are encrypted with the key-encryption key {found}, and this node has {known}: give it that one (accounts.key_encryption_file or accounts.key_encryption_env; accounts.key_encryption_old_file while it is being replaced). If it is lost: `portcullis key revoke --all` makes a new signing key, and everybody refreshes"
    )]
    OtherEncryption {
        /// The name of that key.
        found: Box<str>,
        /// The name of ours.
        known: Box<str>,
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
    /// The store that carries the keys.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key of the store was changed, cut, or put in another one's place.
    #[error(
        "signing key {kid} of the store is not what was encrypted: somebody changed it, or the database is damaged; restore it, or take the key away: `portcullis key revoke {kid}`"
    )]
    Tampered {
        /// Its name.
        kid: Box<str>,
    },
    /// As many keys as there may be.
    #[error("64 signing keys are there already; wait until some have retired, or revoke some")]
    TooMany,
    /// No such key.
    #[error("no signing key has this kid; `portcullis key list` shows those that there are")]
    Unknown,
    /// Our own verifier refuses a key of ours.
    #[error("a signing key cannot be verified with")]
    Unusable(#[source] crate::authn::KeyFault),
}
