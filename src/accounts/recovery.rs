//! Changing a password with the old one, and setting a new one by a link in a mail.
//!
//! A link's token is 32 random bytes, kept as a digest, for one account as it was when the mail was sent: any change of the
//! account kills it, and so does a newer link (RST-2). It is consumed in the transaction that changes the password and ends the
//! sessions, so it works once, and no crash lies between.

use std::net::IpAddr;

use super::{
    Accounts, DeviceToken, Password,
    outbox::Mail,
    passwords::Verdict,
    refresh_token::RefreshToken,
    sessions::{may_enter, unavailable},
    users::canonical_email,
};
use crate::{
    mail::Purpose,
    policy::{HeadFault, Rejection},
    store::{NewMail, PasswordChange, PasswordReset, ResetDone, User, UserKey},
};

/// A caller's change of password.
#[derive(Debug)]
pub struct ChangePassword<'a> {
    /// `sub` of the access token.
    pub user_id: &'a str,
    /// `sid` of the access token: the session that goes on.
    pub session_id: &'a str,
    /// What it is now.
    pub current: Password,
    /// What it will be.
    pub new: Password,
    /// What an earlier login gave this browser.
    pub device: Option<&'a DeviceToken>,
    /// The address that the request is charged to.
    pub ip: IpAddr,
}

impl Accounts {
    /// Changes the caller's password: every other session ends at once, and the owner is told by mail (AUTH-9).
    /// Gives what a login gives the browser: the ones of before have ended.
    ///
    /// # Errors
    /// [`Rejection::InvalidCredentials`] where the current password is wrong; [`Rejection::PasswordRefused`];
    /// [`Rejection::RateLimited`] by the limits of logins; [`Rejection::Overloaded`], [`Rejection::StoreUnavailable`].
    pub async fn change_password(
        &self,
        change: ChangePassword<'_>,
    ) -> Result<DeviceToken, Rejection> {
        let ChangePassword { ip, session_id, .. } = change;
        self.logins_per_ip
            .check(ip)
            .await
            .map_err(Rejection::RateLimited)?;
        let user = self.store.find_user(UserKey::Id(change.user_id.into()));
        let user = user.await.map_err(unavailable)?;
        // The token was good a moment ago; its account has been shut or erased since.
        let Some(user) = user.filter(may_enter) else {
            return Err(Rejection::InvalidCredentials);
        };
        // What is not taken is said before anything is charged to the account.
        self.passwords.check(&change.new, &self.words(&user))?;
        let attempt = self
            .charge_attempt(&user.id, Some(&user), change.device)
            .await
            .map_err(Rejection::RateLimited)?;
        let stored = user.password.clone();
        let refused = || {
            tracing::info!(
                target: "audit", event = "password_change_refused", user = %user.id, session = %session_id, client = %ip
            );
            Rejection::InvalidCredentials
        };
        let Verdict::Right { .. } = self.passwords.verify(change.current, stored).await? else {
            return Err(refused());
        };
        attempt.succeeded();
        let password = self.passwords.hash(change.new, &self.words(&user)).await?;
        let device = DeviceToken::new(&user.id, &password, self.clock.now())?;
        let changed = PasswordChange {
            user_id: user.id.clone(),
            user_epoch: user.epoch,
            session_id: session_id.into(),
            password,
            notice: self.password_notice(&user, ip),
        };
        let ended = self.store.change_password(changed, self.times()).await;
        // Where the account or the session was changed meanwhile, what was verified is not the case any more.
        let ended = ended.map_err(unavailable)?.ok_or_else(refused)?;
        self.forget(&ended);
        self.mail_was_queued();
        tracing::info!(
            target: "audit", event = "password_changed", user = %user.id, session = %session_id,
            client = %ip, sessions_ended = ended.len()
        );
        Ok(device)
    }

    /// Takes a request for a link to a new password. The same is done whoever has the address, if anybody: the request is
    /// written down, and who it is for is looked up when the mail is sent (AUTH-1, RST-4).
    ///
    /// # Errors
    /// [`Rejection::RouteNotFound`] where mail is off; [`Rejection::BadRequest`] for what is no address;
    /// [`Rejection::RateLimited`] by client, whatever the address; [`Rejection::StoreUnavailable`].
    pub async fn forgot_password(&self, email: &str, ip: IpAddr) -> Result<(), Rejection> {
        if !self.has_mail() {
            return Err(Rejection::RouteNotFound);
        }
        let email = canonical_email(email).ok_or(Rejection::BadRequest(HeadFault::Body))?;
        self.charge_for_mail(ip).await?;
        tracing::info!(target: "audit", event = "password_reset_asked", client = %ip);
        self.send_mail(Mail {
            purpose: Purpose::PasswordReset,
            recipient: &email,
            username: None,
            client: Some(ip),
        })
        .await?;
        Ok(())
    }

    /// Sets a new password by the token of a link: every session ends at once, nobody is signed in, and the owner is told by
    /// mail (RST-3). A password that is not taken does not use the link up. What is given lets the login that comes next pass
    /// those who guess at the account, and is good for nothing else.
    ///
    /// # Errors
    /// [`Rejection::LinkInvalid`] for whatever is not, or no longer, good, a shut account's among it;
    /// [`Rejection::PasswordRefused`]; [`Rejection::RateLimited`] by the limit of logins per client;
    /// [`Rejection::RouteNotFound`] where mail is off; [`Rejection::Overloaded`], [`Rejection::StoreUnavailable`].
    pub async fn reset_password(
        &self,
        token: &str,
        new: Password,
        ip: IpAddr,
    ) -> Result<DeviceToken, Rejection> {
        if !self.has_mail() {
            return Err(Rejection::RouteNotFound);
        }
        self.logins_per_ip
            .check(ip)
            .await
            .map_err(Rejection::RateLimited)?;
        let refused = || {
            tracing::info!(target: "audit", event = "password_reset_refused", client = %ip);
            Rejection::LinkInvalid
        };
        let purpose = Purpose::PasswordReset.name();
        let digest = RefreshToken::parse(token).ok_or_else(refused)?.digest();
        let user = self
            .store
            .find_mail_token(digest, purpose, self.clock.now())
            .await
            .map_err(unavailable)?
            .filter(may_enter)
            .ok_or_else(refused)?;
        let password = self.passwords.hash(new, &self.words(&user)).await?;
        let device = DeviceToken::new(&user.id, &password, self.clock.now())?;
        let reset = PasswordReset {
            digest,
            purpose,
            password,
            notice: self.password_notice(&user, ip),
        };
        let reset = self.store.reset_password(reset, self.times()).await;
        let ResetDone { user_id, ended } = reset.map_err(unavailable)?.ok_or_else(refused)?;
        self.forget(&ended);
        self.mail_was_queued();
        tracing::info!(
            target: "audit", event = "password_reset", user = %user_id, client = %ip, sessions_ended = ended.len()
        );
        Ok(device)
    }

    /// What tells the owner of a new password, at the address that the account has now.
    fn password_notice(&self, user: &User, client: IpAddr) -> Option<NewMail> {
        self.notice(Mail {
            purpose: Purpose::PasswordChanged,
            recipient: user.email.as_deref()?,
            username: Some(&user.username),
            client: Some(client),
        })
    }
}
