//! Registration with mail: an account is made only by whoever has the mail of its address, and knows the password that was chosen.
//!
//! A registration is written down and a mail queued, in one transaction, whoever has the name and the address; the accounts are
//! not looked at before the mail is sent (AUTH-1). The link asks for the password again: who registers another's address with a
//! password of his own makes no account that its owner would open for him by a click (AUTH-6).

use std::net::IpAddr;

use super::{
    AccountError, Accounts, NewAccount, Password, delivery::LINK_GIVE_UP, outbox::Mail,
    passwords::Verdict, refresh_token::RefreshToken, sessions::unavailable,
};
use crate::{
    mail::Purpose,
    policy::Rejection,
    store::{NewRegistration, RegistrationKey, User},
};

impl Accounts {
    /// Takes a registration. The same is done for a name or an address that is taken.
    pub(super) async fn apply_for_account(
        &self,
        secret: Option<&str>,
        new: NewAccount<'_>,
        ip: IpAddr,
    ) -> Result<(), Rejection> {
        let invite = self.usable(secret, false).await?;
        let user = self.described(new.username, new.email, new.name)?;
        let email = user.email.clone().ok_or(AccountError::Internal)?;
        // Who has an invitation for another address learns it here: nothing of it is about an account.
        let bound = invite
            .as_ref()
            .and_then(|(_, invite)| invite.email.as_ref());
        if bound.is_some_and(|bound| *bound != email) {
            return Err(AccountError::InviteInvalid.into());
        }
        let password = new.password.ok_or(AccountError::Internal)?;
        self.passwords.check(&password, &self.words(&user))?;
        self.charge_for_mail(ip).await?;
        let hash = self.passwords.hash(password, &self.words(&user)).await?;
        let mail = self.notice(Mail {
            purpose: Purpose::Registration,
            recipient: &email,
            username: None,
            client: Some(ip),
        });
        let (Some(mail), Some(outbox)) = (mail, &self.outbox) else {
            return Err(Rejection::Internal);
        };
        let now = self.clock.now();
        let life = LINK_GIVE_UP.saturating_add(outbox.settings.verify_ttl);
        let registration = NewRegistration {
            id: user.id,
            email,
            username: user.username,
            name: user.name,
            password: hash,
            invite: invite.map(|(digest, _)| digest),
            expires_at: now.saturating_add(life.as_secs()),
        };
        let queued = self.store.add_registration(registration, mail, now).await;
        let queued = queued.map_err(unavailable)?;
        self.heed(queued, Purpose::Registration.name(), Some(ip));
        tracing::info!(target: "audit", event = "registration_asked", client = %ip);
        Ok(())
    }

    /// Makes the account of a registration, by the token of its link and the password that was chosen. Signs nobody in.
    ///
    /// # Errors
    /// [`Rejection::LinkInvalid`] for whatever is not, or no longer, good; [`Rejection::InvalidCredentials`] for another
    /// password, which does not use the link up; [`Rejection::AccountExists`] where name or address were taken meanwhile;
    /// [`Rejection::RateLimited`] by the limits of logins; [`Rejection::RouteNotFound`] where mail is off;
    /// [`Rejection::Overloaded`], [`Rejection::StoreUnavailable`].
    pub async fn verify_registration(
        &self,
        token: &str,
        password: Password,
        ip: IpAddr,
    ) -> Result<User, Rejection> {
        if !self.has_mail() {
            return Err(Rejection::RouteNotFound);
        }
        self.logins_per_ip
            .check(ip)
            .await
            .map_err(Rejection::RateLimited)?;
        let made = self.complete(token, password).await;
        match &made {
            Ok(user) => {
                let roles = user.roles.join(",");
                tracing::info!(
                    target: "audit", event = "user_registered", user = %user.id, client = %ip,
                    bootstrap = false, what = roles
                );
            }
            Err(rejection) => {
                let reason = rejection.code();
                tracing::info!(target: "audit", event = "registration_refused", client = %ip, bootstrap = false, reason);
            }
        }
        made
    }

    async fn complete(&self, token: &str, password: Password) -> Result<User, Rejection> {
        let token = RefreshToken::parse(token).ok_or(Rejection::LinkInvalid)?;
        let digest = token.digest();
        let now = self.clock.now();
        let key = RegistrationKey::Digest(digest);
        let wanted = self.store.find_registration(key, now).await;
        let wanted = wanted.map_err(unavailable)?.ok_or(Rejection::LinkInvalid)?;
        // Who has the mail may try passwords only as often as at the account that it will be.
        self.registrations_per_id
            .check(&wanted.id)
            .await
            .map_err(Rejection::RateLimited)?;
        let stored = Some(wanted.password.clone());
        let Verdict::Right { .. } = self.passwords.verify(password, stored).await? else {
            return Err(Rejection::InvalidCredentials);
        };
        let user = User {
            id: wanted.id,
            username: wanted.username,
            email: Some(wanted.email),
            name: wanted.name,
            password: Some(wanted.password),
            roles: Vec::new(),
            disabled: false,
            pending: false,
            unlocks: 0,
            epoch: 1,
            created_at: now,
            updated_at: now,
        };
        let made = self.store.complete_registration(digest, user, now).await;
        made.map_err(AccountError::from)?
            .ok_or(Rejection::LinkInvalid)
    }
}
