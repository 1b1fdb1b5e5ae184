//! How accounts come into being without an operator who types them: the first administrator by a secret, others by an
//! invitation, or by themselves where the configuration says so.
//!
//! A secret is 32 random bytes, told once and kept as a digest. It is consumed in the transaction that makes the account, so
//! it makes one (AUTH-7). Never is somebody an administrator because he was the first to come.

use std::{net::IpAddr, time::Duration};

use super::{
    AccountError, Accounts, Actor, NewAccount, RefreshToken,
    administration::{About, audit},
    outbox::Mail,
    settings::Registration,
    users::{canonical_email, checked_roles, is_site_name},
};
use crate::{
    mail::Purpose,
    policy::{HeadFault, Rejection},
    store::{ADMIN, Act, Digest, Invite, NewInvite, NewMail, Redemption, User, UserKey},
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

/// An invitation to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewInvitation<'a> {
    /// Words, as in [`NewAccount`].
    pub roles: &'a [String],
    /// The only address that may use it, in any case; `None`: any.
    pub email: Option<&'a str>,
    /// Its life: a second to 30 days.
    pub ttl: Duration,
    /// Whether it is sent to `email`, and its secret told nobody else.
    pub send: bool,
}

/// An invitation that was made.
#[derive(Debug)]
pub struct Invited {
    /// What is kept of it.
    pub invite: Invite,
    /// What makes the account, told this once; `None` where it is sent by mail.
    pub secret: Option<RefreshToken>,
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
            mail: None,
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

    /// Makes an invitation, and sends it where it is to be sent: its mail is queued in the same transaction, within the budget of
    /// all mails (RST-4). The link in it is made when it is sent, and is kept as a digest.
    ///
    /// # Errors
    /// [`AccountError::EmailInvalid`], also where there is no address to send it to; [`AccountError::RoleInvalid`],
    /// [`AccountError::TooManyInvites`], [`AccountError::Forbidden`]; where it is to be sent also [`AccountError::MailOff`],
    /// [`AccountError::Exists`] for the address of an account, [`AccountError::TooMuchMail`].
    pub async fn invite(
        &self,
        actor: Actor<'_>,
        new: NewInvitation<'_>,
    ) -> Result<Invited, AccountError> {
        let roles = checked_roles(new.roles)?;
        let email = new
            .email
            .map(|email| canonical_email(email).ok_or(AccountError::EmailInvalid));
        let InviteSecret { invite, secret } =
            self.new_invite(actor, roles, email.transpose()?, new.ttl)?;
        let mail = match new.send {
            true => Some(self.invitation_mail(&invite).await?),
            false => None,
        };
        let kept = NewInvite {
            invite: invite.clone(),
            digest: secret.digest(),
            mail,
        };
        self.act(actor, Act::AddInvite(Box::new(kept))).await?;
        if new.send {
            self.mail_was_queued();
        }
        let roles = invite.roles.join(",");
        audit("invite_made", actor, About::Invite(&invite.id), &roles);
        Ok(Invited {
            invite,
            secret: (!new.send).then_some(secret),
        })
    }

    /// The mail that brings an invitation to its address. It has the invitation's id, by which it is found when it is sent.
    async fn invitation_mail(&self, invite: &Invite) -> Result<NewMail, AccountError> {
        let recipient = invite.email.as_deref().ok_or(AccountError::EmailInvalid)?;
        let mail = self.notice(Mail {
            purpose: Purpose::Invitation,
            recipient,
            username: None,
            client: None,
        });
        let mail = mail.ok_or(AccountError::MailOff)?;
        let owner = self
            .store
            .find_user(UserKey::Email(recipient.into()))
            .await?;
        if owner.is_some() {
            return Err(AccountError::Exists);
        }
        Ok(NewMail {
            message_id: invite.id.clone(),
            ..mail
        })
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
    /// [`Rejection::BadRequest`] by what is wrong with the input, and for a name of the site's own ([`is_site_name`]).
    pub async fn register(
        &self,
        by: Registered<'_>,
        new: NewAccount<'_>,
        ip: IpAddr,
    ) -> Result<Enrolled, Rejection> {
        self.registrations_per_ip
            .check(ip)
            .await
            .map_err(Rejection::RateLimited)?;
        let (secret, bootstrap) = match (by, self.settings.registration) {
            (Registered::Bootstrap(text), _) => (Some(text), true),
            (_, Registration::Closed) => return Err(Rejection::RouteNotFound),
            (Registered::Invite(text), _) => (Some(text), false),
            (Registered::Oneself, Registration::Invite) => return Err(Rejection::LinkInvalid),
            (Registered::Oneself, Registration::Open) => (None, false),
        };
        // Of whom no more is known than that, a backend shall not take for its own administrator.
        if !bootstrap && is_site_name(new.username) {
            return Err(Rejection::BadRequest(HeadFault::Body));
        }
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
