//! What a mail says, decided when it is sent: by what is the case then, and with a link that is made then.

use std::time::Duration;

use super::super::{Accounts, refresh_token::RefreshToken, sessions::may_enter};
use crate::{
    mail::Purpose,
    store::{MailToken, QueuedMail, RegistrationKey, StoreError, UserKey},
};

impl Accounts {
    /// What a mail says by what is the case now; `None` where there is nobody whom it concerns.
    pub(super) async fn said(
        &self,
        purpose: Purpose,
        mail: &QueuedMail,
    ) -> Result<Option<Said>, StoreError> {
        match purpose {
            Purpose::Invitation => self.say_invitation(&mail.message_id).await,
            Purpose::PasswordReset => self.say_reset(&mail.recipient).await,
            Purpose::Registration => self.say_registration(&mail.recipient).await,
            Purpose::AccountExists
            | Purpose::EmailChanged
            | Purpose::NameTaken
            | Purpose::PasswordChanged => Ok(Some(Said {
                purpose,
                username: mail.username.clone().unwrap_or_default(),
                link: None,
            })),
        }
    }

    /// Makes the link of an invitation, in the place of the last one; `None` where it was taken back, was used or is over.
    async fn say_invitation(&self, id: &str) -> Result<Option<Said>, StoreError> {
        let token = RefreshToken::random().map_err(|_| StoreError::Unavailable)?;
        let now = self.clock.now();
        let invite = self.store.renew_invite(id.into(), token.digest(), now);
        let path = Purpose::Invitation.link().unwrap_or_default();
        Ok(invite.await?.map(|invite| Said {
            purpose: Purpose::Invitation,
            username: Box::default(),
            link: Some((
                path,
                token,
                Duration::from_secs(invite.expires_at.saturating_sub(now)),
            )),
        }))
    }

    /// Makes the link of an address's account, in the place of the last one; `None` where there is no account that may have one.
    async fn say_reset(&self, address: &str) -> Result<Option<Said>, StoreError> {
        let Some(outbox) = &self.outbox else {
            return Ok(None);
        };
        let user = self.store.find_user(UserKey::Email(address.into())).await?;
        let Some(user) = user.filter(|user| may_enter(user) && user.password.is_some()) else {
            return Ok(None);
        };
        let token = RefreshToken::random().map_err(|_| StoreError::Unavailable)?;
        let life = outbox.settings.reset_ttl;
        let kept = MailToken {
            digest: token.digest(),
            user_id: user.id,
            purpose: Purpose::PasswordReset.name(),
            user_epoch: user.epoch,
            expires_at: self.clock.now().saturating_add(life.as_secs()),
        };
        let kept = self.store.add_mail_token(kept).await?;
        let path = Purpose::PasswordReset.link().unwrap_or_default();
        Ok(kept.then_some(Said {
            purpose: Purpose::PasswordReset,
            username: user.username,
            link: Some((path, token, life)),
        }))
    }

    /// Makes the link of a registration; or tells whoever has the address that it, or the name, is taken. This is where it is
    /// looked up, far from the request and its answer (AUTH-1).
    async fn say_registration(&self, address: &str) -> Result<Option<Said>, StoreError> {
        let Some(outbox) = &self.outbox else {
            return Ok(None);
        };
        let now = self.clock.now();
        let key = RegistrationKey::Email(address.into());
        let Some(wanted) = self.store.find_registration(key, now).await? else {
            return Ok(None);
        };
        let told = |purpose, username| Said {
            purpose,
            username,
            link: None,
        };
        let owner = self.store.find_user(UserKey::Email(address.into())).await?;
        if let Some(owner) = owner {
            return Ok(Some(told(Purpose::AccountExists, owner.username)));
        }
        let named = UserKey::Username(wanted.username.clone());
        if self.store.find_user(named).await?.is_some() {
            return Ok(Some(told(Purpose::NameTaken, wanted.username)));
        }
        let token = RefreshToken::random().map_err(|_| StoreError::Unavailable)?;
        let life = outbox.settings.verify_ttl;
        let end = now.saturating_add(life.as_secs());
        let kept = self
            .store
            .add_registration_token(wanted.id, token.digest(), end);
        let path = Purpose::Registration.link().unwrap_or_default();
        Ok(kept.await?.then_some(Said {
            purpose: Purpose::Registration,
            username: wanted.username,
            link: Some((path, token, life)),
        }))
    }
}

/// What a mail says.
pub(super) struct Said {
    /// Which text.
    pub(super) purpose: Purpose,
    /// Whom it greets.
    pub(super) username: Box<str>,
    /// Where its link leads, its token, and how long it works.
    pub(super) link: Option<(&'static str, RefreshToken, Duration)>,
}
