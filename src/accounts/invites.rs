//! How accounts come into being without an operator who types them: the first administrator by a secret, others by an
//! invitation, or by themselves where the configuration says so.
//!
//! A secret is 32 random bytes, told once and kept as a digest. It is consumed in the transaction that makes the account, so
//! it makes one (AUTH-7). Never is somebody an administrator because he was the first to come.

use std::{net::IpAddr, time::Duration};

use super::{
    AccountError, Accounts, Actor, NewAccount, RefreshToken,
    administration::{About, audit},
    sessions::network,
    settings::Registration,
    users::{canonical_email, checked_roles},
};
use crate::{
    policy::Rejection,
    store::{ADMIN, Act, Digest, Invite, NewInvite, Redemption, User},
};

/// Life of an invitation, unless its maker says otherwise.
pub const INVITE_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest life of an invitation.
const INVITE_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Life of the first administrator's secret.
const BOOTSTRAP_TTL: Duration = Duration::from_secs(24 * 3600);

/// An invitation with its secret, which is told this once.
#[derive(Debug)]
pub struct InviteSecret {
    /// What is kept of it.
    pub invite: Invite,
    /// What makes the account. It has the form of a refresh token and is none.
    pub secret: RefreshToken,
}

/// By what an account is registered.
#[derive(Debug, Clone, Copy)]
pub enum Registered<'a> {
    /// The first administrator's secret.
    Bootstrap(&'a str),
    /// An invitation.
    Invite(&'a str),
    /// Nothing: whoever comes.
    Oneself,
}

/// What came of a registration.
#[derive(Debug)]
pub enum Enrolled {
    /// The account is there.
    Made(User),
    /// A mail is on its way to the address. Whether there will be an account is told nobody else.
    Pending,
}

impl Accounts {
    /// Makes the secret by which the first administrator makes his account, good for 24 hours. An older one is worth nothing
    /// any more.
    ///
    /// # Errors
    /// [`AccountError::AdminExists`]; [`AccountError::Store`].
    pub async fn bootstrap(&self) -> Result<InviteSecret, AccountError> {
        let made = self.new_invite(Actor::Operator, vec![ADMIN.into()], None, BOOTSTRAP_TTL)?;
        let InviteSecret { mut invite, secret } = made;
        invite.bootstrap = true;
        let new = NewInvite {
            invite: invite.clone(),
            digest: secret.digest(),
        };
        if !self.store.add_bootstrap(new).await? {
            return Err(AccountError::AdminExists);
        }
        audit(
            "bootstrap_secret_made",
            Actor::Operator,
            About::Invite(&invite.id),
            "",
        );
        Ok(InviteSecret { invite, secret })
    }

    /// Whether some account may administer.
    ///
    /// # Errors
    /// [`AccountError::Store`].
    pub async fn has_admin(&self) -> Result<bool, AccountError> {
        Ok(self.store.has_admin().await?)
    }

    /// Makes an invitation. `email` is the only
    /// address that may use it; `ttl` is at least a second and at most 30 days.
    ///
    /// # Errors
    /// [`AccountError::EmailInvalid`], [`AccountError::RoleInvalid`], [`AccountError::TooManyInvites`],
    /// [`AccountError::Forbidden`].
    pub async fn invite(
        &self,
        actor: Actor<'_>,
        roles: &[String],
        email: Option<&str>,
        ttl: Duration,
    ) -> Result<InviteSecret, AccountError> {
        let roles = checked_roles(roles)?;
        let email = email.map(|email| canonical_email(email).ok_or(AccountError::EmailInvalid));
        let made = self.new_invite(actor, roles, email.transpose()?, ttl)?;
        let new = NewInvite {
            invite: made.invite.clone(),
            digest: made.secret.digest(),
        };
        self.act(actor, Act::AddInvite(Box::new(new))).await?;
        let roles = made.invite.roles.join(",");
        audit("invite_made", actor, About::Invite(&made.invite.id), &roles);
        Ok(made)
    }

    /// The invitations that wait, the oldest first, at most 1000.
    ///
    /// # Errors
    /// [`AccountError::Store`].
    pub async fn invites(&self) -> Result<Vec<Invite>, AccountError> {
        Ok(self.store.invites(self.clock.now()).await?)
    }

    /// Takes an invitation back.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::Forbidden`].
    pub async fn revoke_invite(&self, actor: Actor<'_>, id: &str) -> Result<(), AccountError> {
        self.act(actor, Act::RevokeInvite(id.into())).await?;
        audit("invite_revoked", actor, About::Invite(id), "");
        Ok(())
    }

    /// Makes an account for whoever brings what the configuration asks for; with mail, once he has shown that the address is
    /// his ([`Accounts::verify_registration`]). `new.roles` is not looked at: roles are those of
    /// the invitation, and none without one.
    ///
    /// # Errors
    /// [`Rejection::RateLimited`]; [`Rejection::LinkInvalid`] for a secret that is not good; [`Rejection::AccountExists`],
    /// which leaves the invitation good; [`Rejection::RouteNotFound`] where the configuration has no such way;
    /// [`Rejection::BadRequest`] by what is wrong with the input.
    pub async fn register(
        &self,
        by: Registered<'_>,
        new: NewAccount<'_>,
        ip: IpAddr,
    ) -> Result<Enrolled, Rejection> {
        self.registrations_per_ip
            .check(&network(ip))
            .await
            .map_err(Rejection::RateLimited)?;
        let (secret, bootstrap) = match (by, self.settings.registration) {
            (Registered::Bootstrap(text), _) => (Some(text), true),
            (_, Registration::Closed) => return Err(Rejection::RouteNotFound),
            (Registered::Invite(text), _) => (Some(text), false),
            (Registered::Oneself, Registration::Invite) => return Err(Rejection::LinkInvalid),
            (Registered::Oneself, Registration::Open) => (None, false),
        };
        // The first administrator is known to the operator, who told him the secret.
        if self.has_mail() && !bootstrap {
            return self
                .apply_for_account(secret, new, ip)
                .await
                .map(|()| Enrolled::Pending);
        }
        let done = self.enrol(secret, bootstrap, new).await;
        match &done {
            Ok(user) => {
                let roles = user.roles.join(",");
                tracing::info!(
                    target: "audit", event = "user_registered", user = %user.id, client = %ip,
                    bootstrap, what = roles
                );
            }
            Err(error) => {
                tracing::info!(
                    target: "audit", event = "registration_refused", client = %ip, bootstrap, reason = %error
                );
            }
        }
        Ok(Enrolled::Made(done?))
    }

    async fn enrol(
        &self,
        secret: Option<&str>,
        bootstrap: bool,
        new: NewAccount<'_>,
    ) -> Result<User, AccountError> {
        let found = self.usable(secret, bootstrap).await?;
        let digest = found.map(|(digest, _)| digest);
        let mut user = self.described(new.username, new.email, new.name)?;
        let password = new.password.ok_or(AccountError::Internal)?;
        let hash = self.passwords.hash(password, &self.words(&user)).await?;
        user.password = Some(hash);
        match digest {
            None => {
                self.store.add_user(user.clone()).await?;
                Ok(user)
            }
            Some(digest) => {
                let redemption = Redemption {
                    digest,
                    bootstrap,
                    user,
                    now: self.clock.now(),
                };
                let made = self.store.redeem(redemption).await?;
                made.ok_or(AccountError::InviteInvalid)
            }
        }
    }

    /// The digest of a secret that is good now, before a password is hashed for nothing. What counts is decided again in the
    /// transaction that consumes it.
    pub(super) async fn usable(
        &self,
        secret: Option<&str>,
        bootstrap: bool,
    ) -> Result<Option<(Digest, Invite)>, AccountError> {
        let Some(text) = secret else {
            return Ok(None);
        };
        let secret = RefreshToken::parse(text).ok_or(AccountError::InviteInvalid)?;
        let digest = secret.digest();
        let found = self.store.find_invite(digest, bootstrap, self.clock.now());
        let invite = found.await?.ok_or(AccountError::InviteInvalid)?;
        Ok(Some((digest, invite)))
    }

    fn new_invite(
        &self,
        actor: Actor<'_>,
        roles: Vec<Box<str>>,
        email: Option<Box<str>>,
        ttl: Duration,
    ) -> Result<InviteSecret, AccountError> {
        let now = self.clock.now();
        let ttl = ttl.clamp(Duration::from_secs(1), INVITE_TTL_MAX);
        Ok(InviteSecret {
            invite: Invite {
                id: uuid::Uuid::new_v4().to_string().into(),
                bootstrap: false,
                roles,
                email,
                created_by: actor.id(),
                created_at: now,
                expires_at: now.saturating_add(ttl.as_secs()),
            },
            secret: RefreshToken::random()?,
        })
    }
}
