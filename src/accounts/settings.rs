//! What the configuration says of accounts.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jsonwebtoken::Algorithm;

use crate::{limit::settings::Quota, store::settings::PostgresSettings};

/// The checked section `[accounts]`.
#[derive(Debug, Clone)]
pub struct AccountSettings {
    /// The prefix of the built-in routes, `/auth` by default; begins with a slash, ends without.
    pub path: Box<str>,
    /// The SQLite file, unless there is a shared database. Signing keys live beside it, in `keys/`; with a shared database in
    /// the same folder, `data/` by default.
    pub database: PathBuf,
    /// The shared database, where accounts are in one.
    pub postgres: Option<PostgresSettings>,
    /// `iss` of the tokens: the public URL without a trailing slash.
    pub issuer: Arc<str>,
    /// `aud` of the tokens; never empty.
    pub audience: Vec<Box<str>>,
    /// What access tokens are signed with: ES256, EdDSA, RS256 or HS256.
    pub signing: Algorithm,
    /// Life of an access token: at most 15 minutes.
    pub access_ttl: Duration,
    /// Life of a session without a refresh.
    pub refresh_idle: Duration,
    /// Life of a session.
    pub refresh_max: Duration,
    /// How long a rotated refresh token may be presented again: 0 to 60 s.
    pub refresh_grace: Duration,
    /// The fewest characters of a new password: 8 or more.
    pub password_min: usize,
    /// The cost of a password hash.
    pub argon2: Argon2Settings,
    /// Services that may ask about tokens and take them back.
    pub clients: Vec<ClientSettings>,
    /// Login attempts of one client address.
    pub login_per_ip: Quota,
    /// Login attempts on one account, known or not.
    pub login_per_account: Quota,
}

/// A service that may ask about tokens and take them back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// The name by which it calls itself.
    pub id: Box<str>,
    /// SHA-256 of its secret, which has 32 random bytes or more: nobody finds it by that.
    pub secret_digest: Box<[u8]>,
    /// Which tokens concern it: one of these must be in their `aud`.
    pub audience: Vec<Box<str>>,
}

impl AccountSettings {
    /// Where the signing keys are.
    #[must_use]
    pub fn key_folder(&self) -> PathBuf {
        let folder = self.database.parent();
        folder.unwrap_or(Path::new(".")).join("keys")
    }
}

/// Parameters of argon2id (RFC 9106), and how many hashes may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Settings {
    /// Memory of one hash, in KiB: 19 MiB or more.
    pub memory_kib: u32,
    /// Passes, 2 or more.
    pub iterations: u32,
    /// Lanes, 1 or more.
    pub parallelism: u32,
    /// Hashes at once, 1 or more; the configuration's 0 is resolved to half the cores.
    pub concurrent: usize,
}
