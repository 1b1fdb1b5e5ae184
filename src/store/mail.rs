//! What is kept so that passwords can be changed and reset, and the mail about it is never lost.

use std::time::Duration;

use super::{Answer, Digest, PasswordHash, Times, User};

/// Mails that wait at most; where there are more, new ones are refused.
pub const QUEUE_MAX: u32 = 10_000;

/// How many more wait of those that must not be lost, so that no flood of requests keeps them out.
pub const QUEUE_RESERVE: u32 = 1_000;

/// Registrations that wait at most.
pub const REGISTRATIONS_MAX: u32 = 10_000;

/// Mails to one recipient within an hour, and within a day (RST-4).
pub const PER_RECIPIENT_HOUR: u32 = 3;
/// See [`PER_RECIPIENT_HOUR`].
pub const PER_RECIPIENT_DAY: u32 = 10;

/// A mail to be queued.
#[derive(Debug, Clone)]
pub struct NewMail {
    /// Random, unique: half of its `Message-ID`.
    pub message_id: Box<str>,
    /// A word for what it is about.
    pub purpose: &'static str,
    /// A canonical address.
    pub recipient: Box<str>,
    /// Whom the text greets; `None` where that follows from the address when it is sent.
    pub username: Option<Box<str>>,
    /// Where the request came from, for the text.
    pub client: Option<Box<str>>,
    /// What becomes of it beyond the limits.
    pub beyond: Beyond,
    /// Mails to all recipients together within the window.
    pub total: (u32, Duration),
}

/// What becomes of a mail for which the limits have no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// It is sent once they have. One of the same purpose to the same recipient that waits already is enough.
    Delay,
    /// It is not sent.
    Drop,
}

/// What became of a mail that was to be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// Too many wait.
    Full,
    /// A limit had no room.
    OverBudget,
    /// One that waits says the same.
    Waits,
    /// It will be sent.
    Yes,
}

/// A mail in hand.
#[derive(Debug, Clone)]
pub struct QueuedMail {
    /// Its row.
    pub id: i64,
    /// As queued.
    pub message_id: Box<str>,
    /// As queued.
    pub purpose: Box<str>,
    /// As queued.
    pub recipient: Box<str>,
    /// As queued.
    pub username: Option<Box<str>>,
    /// As queued.
    pub client: Option<Box<str>>,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970: when the limits had room for it.
    pub first_due_at: u64,
    /// This attempt's number, from 1.
    pub attempts: u64,
}

/// Which mails are taken in hand.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// At most so many.
    pub count: u32,
    /// Seconds since 1970: who has not settled them by then has lost them to the next.
    pub until: u64,
    /// Seconds since 1970.
    pub now: u64,
}

/// The queue at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailStatus {
    /// Mails that wait or are in hand.
    pub queued: u64,
    /// Those that could be taken in hand now.
    pub due: u64,
}

/// The one link of a purpose that works for an account.
#[derive(Debug, Clone)]
pub struct MailToken {
    /// SHA-256 of its secret.
    pub digest: Digest,
    /// Whose.
    pub user_id: Box<str>,
    /// What it is good for.
    pub purpose: &'static str,
    /// The account's epoch when it was made: with another it is dead.
    pub user_epoch: u64,
    /// Seconds since 1970.
    pub expires_at: u64,
}

/// A password that its owner changes.
#[derive(Debug, Clone)]
pub struct PasswordChange {
    /// Whose.
    pub user_id: Box<str>,
    /// The account's epoch at the moment when the old password was verified.
    pub user_epoch: u64,
    /// The session that goes on, and must be alive.
    pub session_id: Box<str>,
    /// The new one.
    pub password: PasswordHash,
    /// What the owner is told by mail.
    pub notice: Option<NewMail>,
}

/// A password that is reset by a link.
#[derive(Debug, Clone)]
pub struct PasswordReset {
    /// Of the link's secret.
    pub digest: Digest,
    /// What the link must be for.
    pub purpose: &'static str,
    /// The new one.
    pub password: PasswordHash,
    /// What the owner is told by mail.
    pub notice: Option<NewMail>,
}

/// A password that was reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetDone {
    /// Whose.
    pub user_id: Box<str>,
    /// The sessions that ended.
    pub ended: Vec<Box<str>>,
}

/// A registration that waits until its address is shown to be the applicant's.
#[derive(Debug, Clone)]
pub struct NewRegistration {
    /// Random; not a secret.
    pub id: Box<str>,
    /// Canonical.
    pub email: Box<str>,
    /// Canonical; it may be taken.
    pub username: Box<str>,
    /// For display.
    pub name: Option<Box<str>>,
    /// What must be given again with the link.
    pub password: PasswordHash,
    /// SHA-256 of the invitation's secret that it redeems; `None`: it needs none.
    pub invite: Option<Digest>,
    /// Seconds since 1970: not good from then on.
    pub expires_at: u64,
}

/// Which registration is meant.
#[derive(Debug, Clone)]
pub enum RegistrationKey {
    /// By the digest of its link's token.
    Digest(Digest),
    /// By its canonical address.
    Email(Box<str>),
}

/// Keeps mail, links and changes of passwords. As with [`Store`](super::Store) each method is one transaction.
pub trait RecoveryStore {
    /// Changes a password, ends every other session of the account and says which those were; `None` where the account was
    /// disabled or changed since its epoch was read, or the session is over. The notice is queued in the same transaction.
    fn change_password(
        &self,
        change: PasswordChange,
        times: Times,
    ) -> Answer<Option<Vec<Box<str>>>>;

    /// Consumes a link, changes the password and ends every session; says whose and which. `None` where the link is not, or
    /// no longer, good, and then nothing happened (RST-2). The notice is queued in the same transaction.
    fn reset_password(&self, reset: PasswordReset, times: Times) -> Answer<Option<ResetDone>>;

    /// The account that a link is good for now; it stays good.
    fn find_mail_token(
        &self,
        digest: Digest,
        purpose: &'static str,
        now: u64,
    ) -> Answer<Option<User>>;

    /// Keeps a link in the place of the last one of its purpose, unless the account has changed: then `false`.
    fn add_mail_token(&self, token: MailToken) -> Answer<bool>;

    /// Queues a mail, within the limits.
    fn queue_mail(&self, mail: NewMail, now: u64) -> Answer<Queued>;

    /// The queue at a glance.
    fn mail_status(&self, now: u64) -> Answer<MailStatus>;

    /// Erases mails of this purpose to addresses that no open account has, and gives back what they took from the total;
    /// says how many.
    fn drop_mail_to_nobody(&self, purpose: &'static str) -> Answer<usize>;

    /// Takes mails in hand that are due, the longest due first.
    fn claim_mail(&self, claim: Claim) -> Answer<Vec<QueuedMail>>;

    /// Lets go of a mail: to be tried again at a time, or, with `None`, gone for good.
    fn settle_mail(&self, id: i64, again_at: Option<u64>) -> Answer<()>;

    /// Queues a mail within the limits, and, where it was queued, keeps the registration in the place of the last one of its
    /// address. Nothing of it is looked for among the accounts: the same is done whoever has the name or the address.
    /// [`Queued::Full`] also where [`REGISTRATIONS_MAX`] wait. One transaction.
    fn add_registration(&self, new: NewRegistration, mail: NewMail, now: u64) -> Answer<Queued>;

    /// A registration that is good now.
    fn find_registration(&self, key: RegistrationKey, now: u64) -> Answer<Option<NewRegistration>>;

    /// Gives a registration its link, in the place of the last one, and its end; `false` where there is none of this id.
    fn add_registration_token(&self, id: Box<str>, digest: Digest, expires_at: u64)
    -> Answer<bool>;

    /// Consumes a registration, and the invitation that it redeems, and makes the account, in one transaction: of two at once
    /// one gets it. `None` where registration or invitation is not good;
    /// [`StoreError::Conflict`](super::StoreError::Conflict) where name or address is taken by now. Neither changes anything.
    fn complete_registration(&self, digest: Digest, user: User, now: u64) -> Answer<Option<User>>;
}
