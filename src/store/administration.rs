//! What administrators change and what invitations make, as transactions.

use super::{Answer, Digest, NewMail, PasswordHash, Times, User};

/// The role of those who administer accounts.
pub const ADMIN: &str = "admin";

/// The most invitations that wait at once.
pub const INVITES_MAX: u32 = 1000;

/// What is to be different about an account; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct UserEdit {
    /// Canonical.
    pub email: Option<Box<str>>,
    /// For display; `Some(None)`: none any more.
    pub name: Option<Option<Box<str>>>,
    /// A new password.
    pub password: Option<PasswordHash>,
    /// All roles from now on.
    pub roles: Option<Vec<Box<str>>>,
    /// Whether every door is shut.
    pub disabled: Option<bool>,
    /// What the owner is told by mail, queued in the same transaction.
    pub notice: Option<NewMail>,
}

/// What an administrator does. Accounts are named by `sub`.
#[derive(Debug, Clone)]
pub enum Act {
    /// Makes an invitation.
    AddInvite(Box<NewInvite>),
    /// Makes an account; [`StoreError::Conflict`](super::StoreError::Conflict) where name or address is taken.
    AddUser(Box<User>),
    /// Erases an account, whose name stays taken.
    DeleteUser(Box<str>),
    /// Changes an account; its sessions end unless nothing but the display name is changed.
    EditUser(Box<str>, Box<UserEdit>),
    /// Ends the sessions of an account.
    EndSessions(Box<str>),
    /// Takes an invitation back.
    RevokeInvite(Box<str>),
}

/// What became of it. Only [`Acted::Done`] changed anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    /// It is done; these sessions ended.
    Done(Vec<Box<str>>),
    /// The actor is no administrator, or not any more.
    Forbidden,
    /// [`INVITES_MAX`] invitations wait.
    Full,
    /// Nobody could administer accounts afterwards.
    LastAdmin,
    /// The limits of mail, or its queue, have no room for the mail that belongs to it.
    NoMail,
    /// There is no such account or invitation.
    NotFound,
}

/// An invitation, or the first administrator's secret.
#[derive(Debug, Clone)]
pub struct Invite {
    /// Random; not a secret.
    pub id: Box<str>,
    /// Whether it is good only while there is no administrator.
    pub bootstrap: bool,
    /// The roles of the account that it makes.
    pub roles: Vec<Box<str>>,
    /// The only address that may use it, canonical; `None`: any.
    pub email: Option<Box<str>>,
    /// `sub` of its maker; `None`: an operator by command.
    pub created_by: Option<Box<str>>,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970: not good from then on.
    pub expires_at: u64,
}

/// An invitation to be made.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// It.
    pub invite: Invite,
    /// SHA-256 of its secret.
    pub digest: Digest,
    /// The mail by which its secret is told, queued in the same transaction: then the secret is made when that is sent, and this
    /// one is nobody's.
    pub mail: Option<NewMail>,
}

/// An account that is to be made by an invitation, whose roles it gets.
#[derive(Debug, Clone)]
pub struct Redemption {
    /// SHA-256 of what was presented.
    pub digest: Digest,
    /// Whether the first administrator's secret is meant; it is good for nothing else, and nothing else for it.
    pub bootstrap: bool,
    /// The account; its roles are replaced.
    pub user: User,
    /// Seconds since 1970.
    pub now: u64,
}

/// The part of a [`Store`](super::Store) that administration and registration need. All fail with
/// [`StoreError`](super::StoreError).
pub trait AdministrationStore {
    /// Does it, if the actor, by `sub`, is an administrator who may sign in at that moment; `None` is an operator's command,
    /// which needs no account. The last administrator stays, whoever acts; [`change_user`](super::Store::change_user) spares
    /// nobody.
    fn administer(&self, actor: Option<Box<str>>, act: Act, times: Times) -> Answer<Acted>;

    /// Makes the first administrator's secret in place of the last one; `false` where there is an administrator already.
    fn add_bootstrap(&self, new: NewInvite) -> Answer<bool>;

    /// Whether some account may administer.
    fn has_admin(&self) -> Answer<bool>;

    /// The invitations that are good, the oldest first, at most [`INVITES_MAX`].
    fn invites(&self, now: u64) -> Answer<Vec<Invite>>;

    /// The invitation of this digest, if it is good and of this kind.
    fn find_invite(&self, digest: Digest, bootstrap: bool, now: u64) -> Answer<Option<Invite>>;

    /// Gives an invitation another secret, by its digest, if it is good: the last one is worth nothing any more. `None` where it
    /// is not.
    fn renew_invite(&self, id: Box<str>, digest: Digest, now: u64) -> Answer<Option<Invite>>;

    /// Consumes an invitation and makes the account, in one transaction: of two at once one gets it (AUTH-7). `None` where it
    /// is not good, or not for this address; [`StoreError::Conflict`](super::StoreError::Conflict) where name or address is
    /// taken, which consumes nothing.
    fn redeem(&self, redemption: Redemption) -> Answer<Option<User>>;
}
