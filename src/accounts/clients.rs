//! Services that ask about tokens or take them back: who they are, and which tokens concern them.

use aws_lc_rs::{constant_time, digest};

use super::{Accounts, ISSUER_NAME, settings::ClientSettings};
use crate::{
    policy::{Claims, Rejection},
    store::{StoreError, UserKey},
};

impl Accounts {
    /// Finds the client that proves itself with this name and secret.
    ///
    /// # Errors
    /// [`Rejection::InvalidClient`], without saying whether there is such a client.
    pub fn client(&self, id: &str, secret: &[u8]) -> Result<&ClientSettings, Rejection> {
        let presented = digest::digest(&digest::SHA256, secret);
        let is_it = |client: &&ClientSettings| {
            let kept = &client.secret_digest;
            *client.id == *id
                && constant_time::verify_slices_are_equal(kept, presented.as_ref()).is_ok()
        };
        let mut clients = self.settings.clients.iter();
        clients.find(is_it).ok_or(Rejection::InvalidClient)
    }

    /// Whether a verified token is one of ours and for this client, and its account may still do anything (AUTH-11).
    ///
    /// # Errors
    /// [`Rejection::StoreUnavailable`] where that cannot be known.
    pub async fn is_active(
        &self,
        claims: &Claims,
        client: &ClientSettings,
    ) -> Result<bool, Rejection> {
        if !concerns(claims, client) {
            return Ok(false);
        }
        let key = UserKey::Id(claims.subject.clone());
        let user = self.store.find_user(key).await.map_err(unavailable)?;
        Ok(user.is_some_and(|user| super::sessions::may_enter(&user)))
    }

    /// Revokes one access token of ours, on the disk, then in this process; does nothing to one that is not for this client.
    ///
    /// # Errors
    /// [`Rejection::StoreUnavailable`]: it may still be good.
    pub async fn revoke_access_token(
        &self,
        claims: &Claims,
        client: &ClientSettings,
    ) -> Result<(), Rejection> {
        let Some(token_id) = claims.token_id.clone().filter(|_| concerns(claims, client)) else {
            return Ok(());
        };
        let times = self.times();
        let revoked = self.store.revoke_token(token_id.clone(), times).await;
        revoked.map_err(unavailable)?;
        self.revocations
            .revoke_token(&self.settings.issuer, &token_id, times.tokens_dead_at);
        self.tell_others();
        tracing::info!(target: "audit", event = "token_revoked", token_id = &*token_id, client = &*client.id);
        Ok(())
    }

    /// Whether refresh tokens concern a client: what they give does.
    #[must_use]
    pub fn may_end_sessions(&self, client: &ClientSettings) -> bool {
        let mut audience = self.settings.audience.iter();
        audience.any(|audience| client.audience.contains(audience))
    }
}

/// Whether a token is of the built-in issuer and meant for the client: of every other it learns nothing (SESS-8).
fn concerns(claims: &Claims, client: &ClientSettings) -> bool {
    *claims.issuer_name == *ISSUER_NAME
        && claims
            .audience
            .iter()
            .any(|audience| client.audience.contains(audience))
}

fn unavailable(_: StoreError) -> Rejection {
    Rejection::StoreUnavailable
}
