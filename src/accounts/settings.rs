//! What the configuration says of accounts.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jsonwebtoken::Algorithm;

use super::KeyEncryption;
use crate::{
    limit::settings::Quota,
    mail::MailSettings,
    respond::page::{ACCENT, TITLE},
    store::settings::PostgresSettings,
};

/// The checked section `[accounts]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSettings {
    /// The prefix of the built-in routes, `/auth` by default; begins with a slash, ends without.
    pub path: Box<str>,
    /// The SQLite file, unless there is a shared database. Signing keys live beside it, in `keys/`; with a shared database in
    /// the same folder, `data/` by default.
    pub database: PathBuf,
    /// The shared database, where accounts are in one.
    pub postgres: Option<PostgresSettings>,
    /// What signing keys are encrypted with in the store; `None`: they are files.
    pub key_encryption: Option<KeyEncryption>,
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
    /// Replacements of refresh tokens of one session: 10 or more, and at least twice as many as `access_ttl` asks for.
    pub refresh_per_session: Quota,
    /// How old knowledge of other processes' revocations may be before strict routes refuse: 3 s to 15 minutes.
    pub max_lag: Duration,
    /// The fewest characters of a new password: 8 or more.
    pub password_min: usize,
    /// A list of passwords that were stolen elsewhere, none of which is taken.
    pub breached_passwords: Option<PathBuf>,
    /// The cost of a password hash.
    pub argon2: Argon2Settings,
    /// Services that may ask about tokens and take them back.
    pub clients: Vec<ClientSettings>,
    /// The pages at which browsers sign in; `None` where they cannot.
    pub pages: Option<PageSettings>,
    /// Who may make an account over HTTP.
    pub registration: Registration,
    /// Registrations of one client address, tried or done.
    pub register_per_ip: Quota,
    /// Login attempts of one client address.
    pub login_per_ip: Quota,
    /// How many times what one client may a whole /48 of IPv6 may, of each of these and of mails: 1 to 65 536.
    pub ipv6_site_factor: u32,
    /// Login attempts on one account, known or not.
    pub login_per_account: Quota,
    /// Attempts on one account, or in one known browser, in a row without the right password, and for how long there is none
    /// afterwards: 10 to 100, an hour to a day (RATE-4).
    pub login_failures: Quota,
    /// How mail is sent; `None`: forgotten passwords cannot be reset, and nobody is told of changes.
    pub mail: Option<MailSettings>,
}

/// How the pages look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSettings {
    /// What the site is called: `Portcullis` by default.
    pub title: Box<str>,
    /// The colour of buttons, as `#rrggbb`: blue by default.
    pub accent: Box<str>,
    /// The file of the picture at the head of each page: SVG, PNG, WebP or JPEG of at most 64 KiB.
    pub logo: Option<PathBuf>,
}

impl Default for PageSettings {
    fn default() -> Self {
        Self {
            title: TITLE.into(),
            accent: ACCENT.into(),
            logo: None,
        }
    }
}

/// Who may make an account over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Nobody: the operator and administrators make accounts.
    Closed,
    /// Whoever has an invitation.
    Invite,
    /// Anybody.
    Open,
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
    /// The host of the public URL.
    #[must_use]
    pub fn host(&self) -> &str {
        let after = self.issuer.split_once("://");
        let authority = after.map_or(&*self.issuer, |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        match authority.rsplit_once(':') {
            // An IPv6 address ends with its bracket, not with a port.
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        }
    }

    /// Where the signing keys are, unless they are in the store.
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
