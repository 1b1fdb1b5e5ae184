//! What login means: users, sessions, passwords, signing keys. No HTTP in it.
//!
//! A login makes a session, which is a family of refresh tokens of which one is alive, and an access token that names the
//! session. Whatever ends a session is on the disk before it is acknowledged, is known to this process at once and to every
//! other within seconds ([`Accounts::watch`]).

mod administration;
mod clients;
mod delivery;
mod devices;
mod invites;
mod outbox;
pub mod passwords;
mod recovery;
mod refresh;
mod refresh_token;
mod registration;
mod sessions;
pub mod settings;
mod signing;
mod start;
#[cfg(test)]
pub(crate) mod tests;
mod users;
mod watch;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::Algorithm;

use crate::{
    authn::{
        Revocations, Settled,
        settings::{BUILT_IN, ClaimNames, IssuerSettings, KeySource},
    },
    cluster::{AttemptLimiter, ClientLimiter, Cluster, SharedLimiter},
    policy::{PasswordFault, Rejection, rejection::Exceeded},
    store::{Store, StoreError, Times, mail::PER_RECIPIENT_HOUR},
    telemetry::AccountMetrics,
};
use outbox::Outbox;
use passwords::{Password, Passwords};
use settings::AccountSettings;
use signing::SigningKeys;

pub use administration::{Actor, Edit, ImportedUser, NewAccount};
pub use delivery::Delivery;
pub use devices::{DEVICE_LIFE, DeviceToken};
pub use invites::{Enrolled, INVITE_TTL, InviteSecret, Invited, NewInvitation, Registered};
pub use outbox::Mail;
pub use recovery::ChangePassword;
pub use refresh_token::RefreshToken;
pub use sessions::{Client, Grant, Login};
pub use signing::{
    ASSERTION_ALGORITHM, AssertionKeys, ENCRYPTION_KEY_BYTES, EncryptionKey, KeyEncryption,
    KeyError, KeyFolder, KeyInfo, KeyState, KeyWrapping, PUBLISH_AHEAD, PUBLISHED_MAX_AGE,
    Signature, StoredKeys,
};
pub use start::{OpenError, open_store};
pub use users::{LastAdmin, NewUser, canonical_email, canonical_username, is_site_name};
pub use watch::{PollError, Report, Watch, watch_lag};

/// The name of the built-in issuer in rules, logs and metrics.
pub const ISSUER_NAME: &str = BUILT_IN;

/// The longest life of an access token, whatever the configuration says (SESS-4).
const ACCESS_TTL_MAX: Duration = Duration::from_secs(15 * 60);

/// The most that a verifier tolerates after `exp`, and a minute for clocks that differ.
const LEEWAY_MAX: Duration = Duration::from_secs(120);

/// By then after its issue every access token is dead, here and at any verifier.
const TOKEN_LIFE_MAX: Duration = ACCESS_TTL_MAX.saturating_add(LEEWAY_MAX);

/// Tolerance of our own verifier, for other nodes' clocks.
const LEEWAY: Duration = Duration::from_secs(5);

/// What [`PER_RECIPIENT_HOUR`] is about.
const MAIL_WINDOW: Duration = Duration::from_secs(3600);

/// Names, addresses and sessions that each of the limits here remembers: some 30 MiB at most of them all.
const LIMIT_KEYS_MAX: usize = 100_000;

/// Accounts, sessions and the keys that sign their tokens.
pub struct Accounts {
    settings: AccountSettings,
    store: Arc<dyn Store>,
    passwords: Arc<Passwords>,
    signing: SigningKeys,
    revocations: Arc<Revocations>,
    clock: Clock,
    metrics: AccountMetrics,
    logins_per_ip: ClientLimiter,
    logins_per_account: AttemptLimiter,
    logins_per_device: AttemptLimiter,
    registrations_per_id: SharedLimiter,
    refreshes_per_session: SharedLimiter,
    outbox: Option<Outbox>,
    registrations_per_ip: ClientLimiter,
    cluster: Option<Arc<Cluster>>,
    /// The last entry of the feed that was applied.
    feed: AtomicU64,
}

/// Why an operation over accounts did not happen.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum AccountError {
    /// The display name is empty, too long or has characters that reach beyond it.
    #[error(
        "a display name has 1 to 128 characters, none of them a control character, the end of a line or a change of direction"
    )]
    DisplayNameInvalid,
    /// Not one plain address.
    #[error("an e-mail address is one plain ASCII mailbox, as name@example.com")]
    EmailInvalid,
    /// There is an administrator already.
    #[error(
        "there is an administrator already; he, or `portcullis user add --role admin`, makes others"
    )]
    AdminExists,
    /// The name or the address is taken.
    #[error("an account with this name or address exists")]
    Exists,
    /// Whoever asks is no administrator, or not any more.
    #[error("only an administrator may do this")]
    Forbidden,
    /// A hash that cannot be verified here, or costs too much.
    #[error(
        "the hash is not bcrypt (cost 4 to 14), PBKDF2 (SHA-256 or SHA-512), scrypt (up to 256 MiB) or argon2; MD5 (apr1), SHA-1 and crypt are not taken, such an account needs a new password"
    )]
    HashUnknown,
    /// A fault of ours.
    #[error("internal fault")]
    Internal,
    /// An invitation that is unknown, used, over, taken back, or for another address.
    #[error("the invitation is not good")]
    InviteInvalid,
    /// Nobody could administer accounts afterwards.
    #[error("this is the last administrator")]
    LastAdmin,
    /// The configuration has no `[mail]`.
    #[error("no mail can be sent: the configuration has no section [mail]")]
    MailOff,
    /// Not a user name.
    #[error(
        "a user name has 1 to 64 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"
    )]
    NameInvalid,
    /// No such account.
    #[error("no such account")]
    NotFound,
    /// Too many passwords are being hashed.
    #[error("too many passwords are being hashed")]
    Overloaded,
    /// In the operator's list of passwords that were stolen elsewhere.
    #[error("this password is in a list of stolen ones (accounts.breached_passwords)")]
    PasswordBreached,
    /// Made of nothing but common passwords, sequences and words about its owner.
    #[error(
        "a password must be more than common passwords, sequences, or the name of its owner or of this site"
    )]
    PasswordCommon,
    /// Beyond 256 characters or 1024 bytes.
    #[error("a password has at most 256 characters and 1024 bytes")]
    PasswordTooLong,
    /// Fewer characters than the configuration asks.
    #[error("a password has at least {min} characters")]
    PasswordTooShort {
        /// `password_min`.
        min: usize,
    },
    /// A role is not a word, or there are too many.
    #[error("roles are at most 32 words of 1 to 64 of A-Z, a-z, 0-9, '.', '_', ':', '/' and '-'")]
    RoleInvalid,
    /// The store failed.
    #[error("account store")]
    Store(#[source] StoreError),
    /// As many invitations wait as may.
    #[error("too many invitations wait; take some back")]
    TooManyInvites,
    /// The limits of mail have no room for it now.
    #[error(
        "a recipient gets at most 3 mails an hour and 10 a day, and all together what mail.limit says; try again in an hour"
    )]
    TooMuchMail,
}

/// What time it is. Handed in, so that tests can move it.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// Whether a jump that the monotonic clock knows nothing of is doubted.
    is_doubted: bool,
}

impl Accounts {
    /// The built-in issuer, for the [`Authenticator`](crate::authn::Authenticator): an entry for each kind of keys that it has,
    /// which is one, save while it changes from a shared secret to key pairs or back.
    #[must_use]
    pub fn issuers(&self) -> Vec<IssuerSettings> {
        let entry = |(algorithms, keys)| IssuerSettings {
            name: ISSUER_NAME.into(),
            issuer: Arc::clone(&self.settings.issuer),
            audience: self.settings.audience.clone(),
            algorithms,
            keys: KeySource::Live(keys),
            leeway: LEEWAY,
            token_types: vec!["at+jwt".into()],
            claims: ClaimNames {
                user: "preferred_username".into(),
                ..ClaimNames::default()
            },
        };
        self.signing.verifying().into_iter().map(entry).collect()
    }

    /// The public keys as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> Vec<u8> {
        self.signing.jwks()
    }

    /// The signing keys whose tokens are believed, the one that signs first.
    #[must_use]
    pub fn signing_keys(&self) -> Vec<KeyInfo> {
        self.signing.list(self.clock.now())
    }

    /// What the public keys sign with.
    #[must_use]
    pub fn algorithms(&self) -> Vec<Algorithm> {
        self.signing.algorithms()
    }

    /// Whether it is known which signing keys there are: not where they are in a store that could not be read yet.
    #[must_use]
    pub fn knows_keys(&self) -> bool {
        self.signing.are_known()
    }

    /// Takes over what was changed about the signing keys in their folder, and what time changes about any; keys of the store are read
    /// by [`Accounts::poll`]. Blocks, for a look at a file mostly.
    ///
    /// # Errors
    /// [`KeyError`] by variant; the keys then stay as they were.
    pub fn follow_keys(&self) -> Result<(), KeyError> {
        self.signing.follow(seconds(self.settled().time))
    }

    /// What the configuration says of accounts.
    #[must_use]
    pub fn settings(&self) -> &AccountSettings {
        &self.settings
    }

    /// How many requests wait for a password hash to begin.
    #[must_use]
    pub fn password_queue(&self) -> usize {
        self.passwords.waiting()
    }

    /// What time it is by the clock of these accounts.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        (self.clock.wall)()
    }

    fn times(&self) -> Times {
        let life = self.settings.access_ttl.max(ACCESS_TTL_MAX) + LEEWAY_MAX;
        Times {
            now: seconds(self.settled().time),
            idle: self.settings.refresh_idle.as_secs(),
            grace: self.settings.refresh_grace.as_secs(),
            // By the time that tokens are issued by.
            tokens_dead_at: self.clock.now().saturating_add(life.as_secs()),
        }
    }

    /// The time for whatever ends or erases something for good: a clock that jumps ahead, and may come back, does neither (FAULT-4).
    fn settled(&self) -> Settled {
        let time = self.time();
        match self.clock.is_doubted {
            true => self.revocations.settle(time),
            false => Settled { time, fault: None },
        }
    }

    /// Makes this process refuse the access tokens of these sessions from now on.
    fn forget(&self, sessions: &[Box<str>]) {
        let until = self.times().tokens_dead_at;
        for session in sessions {
            self.revocations
                .revoke_session(&self.settings.issuer, session, until);
        }
        if !sessions.is_empty() {
            self.tell_others();
        }
    }

    /// Tells the other nodes that the feed has grown.
    fn tell_others(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.revoked();
        }
    }
}

impl Clock {
    /// The system's.
    #[must_use]
    pub fn system() -> Self {
        Self::new(SystemTime::now).doubted()
    }

    /// One that says what `now` says, which is believed however it jumps.
    #[must_use]
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            wall: Arc::new(now),
            is_doubted: false,
        }
    }

    /// The same as a clock of a real machine, whose jumps may be mistakes.
    #[must_use]
    pub fn doubted(self) -> Self {
        Self {
            is_doubted: true,
            ..self
        }
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        seconds((self.wall)())
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    // A clock before 1970 reads as 1970: then every session is in its future and every token unexpired, as on any host
    // whose clock is that wrong.
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Exists,
            StoreError::Busy | StoreError::Unavailable => Self::Store(error),
        }
    }
}

impl From<AccountError> for Rejection {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::AdminExists | AccountError::InviteInvalid => Self::LinkInvalid,
            AccountError::Exists => Self::AccountExists,
            AccountError::Forbidden => Self::RoleMissing,
            AccountError::Internal => Self::Internal,
            AccountError::LastAdmin => Self::LastAdmin,
            AccountError::MailOff | AccountError::NotFound => Self::RouteNotFound,
            AccountError::Overloaded | AccountError::TooManyInvites => Self::Overloaded,
            AccountError::PasswordBreached => Self::PasswordRefused(PasswordFault::Breached),
            AccountError::PasswordCommon => Self::PasswordRefused(PasswordFault::Common),
            AccountError::PasswordTooLong => Self::PasswordRefused(PasswordFault::TooLong),
            AccountError::PasswordTooShort { .. } => Self::PasswordRefused(PasswordFault::TooShort),
            AccountError::Store(_) => Self::StoreUnavailable,
            AccountError::TooMuchMail => Self::RateLimited(Exceeded {
                limit: "mail_per_recipient",
                retry_after: MAIL_WINDOW,
                quota: PER_RECIPIENT_HOUR,
                window: MAIL_WINDOW,
            }),
            AccountError::DisplayNameInvalid
            | AccountError::EmailInvalid
            | AccountError::HashUnknown
            | AccountError::NameInvalid
            | AccountError::RoleInvalid => Self::BadRequest(crate::policy::HeadFault::Body),
        }
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("signing", &self.signing)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
