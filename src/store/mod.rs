//! What accounts keep, and the promises of whatever keeps it.
//!
//! Each method of [`Store`] is one transaction: all of it is durable when the answer comes, or none of it happened
//! (SESS-3, STORE-2). No method is a look-up on the way of a proxied request. Behind it is SQLite for one machine, or
//! PostgreSQL for several; nothing here knows SQL.

pub mod administration;
pub mod keys;
pub mod mail;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod settings;
pub mod sqlite;

use std::{fmt, future::Future, pin::Pin};

pub use administration::{
    ADMIN, Act, Acted, AdministrationStore, Invite, NewInvite, Redemption, UserEdit,
};
pub use keys::{KEYS_MAX, PURPOSE, RingRead, SealedKey, SealedRing, SigningKeyStore};
pub use mail::{
    Beyond, Claim, MailStatus, MailToken, NewMail, NewRegistration, PasswordChange, PasswordReset,
    Queued, QueuedMail, RecoveryStore, RegistrationKey, ResetDone,
};
#[cfg(feature = "postgres")]
pub use postgres::Postgres;
pub use sqlite::{OpenError, Sqlite};

/// What a method of the store answers with, later.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// SHA-256 of a refresh token: all that is kept of it.
pub type Digest = [u8; 32];

/// Random bytes from which, together with the token that was replaced, its successor is made.
pub type Salt = [u8; 32];

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// Another writer held the store, or its queue was full, until the deadline. Nothing was changed.
    #[error("the account store is busy")]
    Busy,
    /// A name or address that must be unique is taken. Nothing was changed.
    #[error("the name or the address is taken")]
    Conflict,
    /// The disk, the file or the server failed; the log has the cause. Nothing was changed, unless a shared server was lost
    /// after it had been told to commit: whoever asks again finds out.
    #[error("the account store cannot be used")]
    Unavailable,
}

/// A password hash in PHC form. It does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub Box<str>);

/// One account.
#[derive(Debug, Clone)]
pub struct User {
    /// Random and never reused: `sub`.
    pub id: Box<str>,
    /// Canonical, unique, for ever this account's.
    pub username: Box<str>,
    /// Canonical and unique; `None` for a deleted account.
    pub email: Option<Box<str>>,
    /// For display.
    pub name: Option<Box<str>>,
    /// `None`: nobody can sign in with a password.
    pub password: Option<PasswordHash>,
    /// Words, in the order in which they were given.
    pub roles: Vec<Box<str>>,
    /// Whether every door is shut.
    pub disabled: bool,
    /// Whether it was registered and its address is not yet shown to be its owner's: no access until then (AUTH-6).
    pub pending: bool,
    /// Grows when password, roles or state change.
    pub epoch: u64,
    /// How often an operator has given it a new budget of attempts at its password.
    pub unlocks: u64,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970.
    pub updated_at: u64,
}

/// Which account is meant. Names and addresses are canonical.
#[derive(Debug, Clone)]
pub enum UserKey {
    /// By its address.
    Email(Box<str>),
    /// By `sub`.
    Id(Box<str>),
    /// By its name.
    Username(Box<str>),
}

/// What changes about an account. Every session of the account ends with any of them: what a caller may do is written in
/// tokens that are already out.
#[derive(Debug, Clone)]
pub enum UserChange {
    /// Name and hash stay unusable for ever; address, display name, password and roles are erased.
    Delete,
    /// Whether every door is shut.
    Disabled(bool),
    /// A new password.
    Password(PasswordHash),
    /// New roles.
    Roles(Vec<Box<str>>),
}

/// One session: a family of refresh tokens of which one is alive.
#[derive(Debug, Clone)]
pub struct Session {
    /// Random and never reused: `sid`. Not a secret.
    pub id: Box<str>,
    /// Whose.
    pub user_id: Box<str>,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970; restarts the idle limit.
    pub last_used_at: u64,
    /// Seconds since 1970: the absolute limit.
    pub ends_at: u64,
    /// The start of the user agent at login.
    pub device: Box<str>,
    /// The client's address at login.
    pub ip: Box<str>,
}

/// A session to be made.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// It.
    pub session: Session,
    /// Its first refresh token; `None` for a session that cannot be renewed.
    pub token: Option<Digest>,
    /// The account's epoch at the moment when its password was verified.
    pub user_epoch: u64,
    /// The most live sessions of one account; the one idle for longest ends.
    pub cap: u32,
    /// Times that decide and are written.
    pub times: Times,
}

/// The present, and the limits that it is held against, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Seconds since 1970.
    pub now: u64,
    /// A session ends after this long without a refresh.
    pub idle: u64,
    /// A rotated token may be presented again for this long; 0: never.
    pub grace: u64,
    /// Seconds since 1970: by then every access token issued until now is dead.
    pub tokens_dead_at: u64,
}

/// A presented refresh token, and what would replace it.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// The digest of what was presented.
    pub presented: Digest,
    /// The digest of what replaces it, if it is the live end of its family.
    pub successor: Digest,
    /// What the successor was made with.
    pub salt: Salt,
    /// Times that decide and are written.
    pub times: Times,
}

/// Whose refresh token it is that would be replaced if it were used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveEnd {
    /// The account.
    pub user_id: Box<str>,
    /// The session.
    pub session_id: Box<str>,
}

/// What became of a presented refresh token.
#[derive(Debug, Clone)]
pub enum Rotated {
    /// The session is over (revoked, idle, past its end, account shut), no such token was ever issued, or it is more than five
    /// steps behind within its grace window.
    Ended,
    /// The family goes on with the token that is reached by applying these salts, in order, to the presented one: one salt
    /// for a token that was alive, several when it was presented again within its grace window.
    Live {
        /// The account as it is now (SESS-4).
        user: Box<User>,
        /// The session, renewed.
        session: Session,
        /// From the presented token to the live end.
        salts: Vec<Salt>,
    },
    /// It was used before and its grace window is over: the session has been revoked with all its tokens.
    Reused {
        /// Whose.
        user_id: Box<str>,
        /// Which.
        session_id: Box<str>,
    },
}

/// Which sessions end.
#[derive(Debug, Clone)]
pub enum Ending {
    /// All of an account.
    AllOf {
        /// Whose.
        user_id: Box<str>,
    },
    /// One, if it belongs to the account.
    One {
        /// Whose.
        user_id: Box<str>,
        /// Which.
        session_id: Box<str>,
    },
    /// The one of a refresh token, rotated or not.
    OfToken(Digest),
}

/// An entry of the feed that every process reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Grows with every entry; entries become visible in this order.
    pub id: u64,
    /// What `key` names.
    pub kind: RevocationKind,
    /// A `sid` or a `jti`.
    pub key: Box<str>,
    /// Seconds since 1970: afterwards no token of it can be alive.
    pub until: u64,
}

/// What a revocation names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationKind {
    /// A session, by `sid`.
    Session,
    /// One access token, by `jti`.
    Token,
}

/// Keeps accounts and sessions. Arguments are bounded in length by the caller.
///
/// Every future may be dropped: the transaction then happens as a whole or not at all. All fail with [`StoreError`].
pub trait Store:
    AdministrationStore + RecoveryStore + SigningKeyStore + Send + Sync + fmt::Debug
{
    /// Adds an account; [`StoreError::Conflict`] where its name or address is taken.
    fn add_user(&self, user: User) -> Answer<()>;

    /// Finds an account.
    fn find_user(&self, key: UserKey) -> Answer<Option<User>>;

    /// Accounts by name, at most `limit`, beginning after the name `after`.
    fn users(&self, after: Box<str>, limit: u32) -> Answer<Vec<User>>;

    /// Changes an account, be it the last administrator's, ends its sessions and says which those were; `None` where there is no
    /// such account.
    fn change_user(
        &self,
        id: Box<str>,
        change: UserChange,
        times: Times,
    ) -> Answer<Option<Vec<Box<str>>>>;

    /// Notes that an operator has unlocked an account, which ends no session; says whether there is such an account.
    fn unlock_user(&self, id: Box<str>) -> Answer<bool>;

    /// Replaces a password hash by one of the same password with newer parameters, unless it was changed meanwhile.
    fn upgrade_password(&self, id: Box<str>, old: PasswordHash, new: PasswordHash) -> Answer<()>;

    /// Makes a session, unless the account was disabled or changed since its epoch was read (then `None`). Says which
    /// sessions ended because of the cap.
    fn add_session(&self, new: NewSession) -> Answer<Option<Vec<Box<str>>>>;

    /// Whose token this digest is of, if the session is alive and the token was not used: what [`rotate`](Store::rotate) would
    /// consume. Changes nothing. `None` for any other, which [`rotate`](Store::rotate) never consumes afterwards.
    fn live_end(&self, presented: Digest, times: Times) -> Answer<Option<LiveEnd>>;

    /// Consumes a refresh token and puts its successor in its place.
    fn rotate(&self, rotation: Rotation) -> Answer<Rotated>;

    /// Ends sessions and says which, so that a session that was over already is not among them.
    fn end_sessions(&self, ending: Ending, times: Times) -> Answer<Vec<Box<str>>>;

    /// The live sessions of an account, the last used first, at most 100.
    fn sessions(&self, user_id: Box<str>, times: Times) -> Answer<Vec<Session>>;

    /// How many sessions are alive, `most` if there are more: for show, so that the cost has a bound.
    fn count_sessions(&self, times: Times, most: u32) -> Answer<u64>;

    /// Makes the end of one access token known to every process.
    fn revoke_token(&self, token_id: Box<str>, times: Times) -> Answer<()>;

    /// Entries of the feed after this one, in order, at most 1000; where the store may have lost some that were read, pages of
    /// earlier ones come first. Read until a page is empty.
    fn revocations_after(&self, id: u64) -> Answer<Vec<Revocation>>;

    /// Erases what is over, in one bounded batch; says how many rows it touched, 0 when nothing is left to do.
    fn purge(&self, times: Times) -> Answer<usize>;

    /// Whether what is written is kept: an error where the last write failed for want of the disk. `try_one` writes something that
    /// changes nothing then, to see whether it is so still.
    fn takes_writes(&self, try_one: bool) -> Answer<()> {
        let _ = try_one;
        Box::pin(async { Ok(()) })
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl RevocationKind {
    /// The word in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Token => "token",
        }
    }
}
