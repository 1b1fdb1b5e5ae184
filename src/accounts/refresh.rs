//! How a session goes on.
//!
//! A refresh token is 32 random bytes, kept as a digest. It is replaced at each use by `HMAC(token, salt)` with a fresh random
//! salt, which is kept beside the digest until the grace window is over. So a client that presents a token twice (two tabs, an
//! answer lost on the way, a crash between commit and answer) gets the very same successor, without the successor ever being
//! kept: neither the token alone nor the store alone gives it. A family has one live end, and a token presented after its
//! grace window proves that two parties hold the family: all of it is revoked (RFC 9700 §4.14.2).
//!
//! Each replacement leaves a row for as long as the session lasts, so each session has a budget of them (RATE-4).

use std::net::IpAddr;

use super::{
    Accounts, Grant,
    refresh_token::{RefreshToken, random},
    sessions::unavailable,
};
use crate::{
    policy::Rejection,
    store::{Rotated, Rotation},
};

/// Why a refresh token gave nothing. The client is told less than the metric.
enum Unrenewed {
    Refused(Rejection),
    /// It was used before: somebody else may have it.
    Reused,
}

impl Unrenewed {
    const fn name(&self) -> &'static str {
        match self {
            Self::Refused(rejection) => rejection.code(),
            Self::Reused => "reused",
        }
    }
}

impl<E: Into<Rejection>> From<E> for Unrenewed {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

impl Accounts {
    /// Replaces a refresh token by its successor, with an access token that says what the account is now.
    ///
    /// # Errors
    /// [`Rejection::InvalidGrant`] for anything that is not, or no longer, good; [`Rejection::RateLimited`] where its session was
    /// renewed too often, after which the token is as good as before; [`Rejection::StoreUnavailable`].
    pub async fn refresh(&self, presented: &RefreshToken, ip: IpAddr) -> Result<Grant, Rejection> {
        let outcome = self.renew(presented, ip).await;
        let counted = outcome.as_ref().map(|_| ()).map_err(Unrenewed::name);
        self.metrics.refresh(counted);
        outcome.map_err(|unrenewed| match unrenewed {
            Unrenewed::Refused(rejection) => rejection,
            Unrenewed::Reused => Rejection::InvalidGrant,
        })
    }

    async fn renew(&self, presented: &RefreshToken, ip: IpAddr) -> Result<Grant, Unrenewed> {
        // A token that is consumed for nothing would be taken for stolen when it comes back.
        self.signing.check(self.clock.now())?;
        let salt = random()?;
        let rotation = Rotation {
            presented: presented.digest(),
            successor: presented.successor(&salt)?.digest(),
            salt,
            times: self.times(),
        };
        self.charge_refresh(&rotation, ip).await?;
        match self.store.rotate(rotation).await.map_err(unavailable)? {
            Rotated::Live {
                user,
                session,
                salts,
            } => {
                let mut token = presented.clone();
                for salt in &salts {
                    token = token.successor(salt)?;
                }
                let grant = self.grant(*user, &session, Some(token), self.settings.access_ttl)?;
                tracing::info!(
                    target: "audit", event = "refresh", user = %grant.user.id, session = %grant.session, client = %ip
                );
                Ok(grant)
            }
            Rotated::Reused {
                user_id,
                session_id,
            } => {
                tracing::warn!(
                    target: "audit", event = "refresh_token_reused", user = %user_id, session = %session_id, client = %ip,
                    token = %presented.reference(),
                    "a refresh token was used twice; its session has been revoked"
                );
                self.forget(&[session_id]);
                Err(Unrenewed::Reused)
            }
            Rotated::Ended => {
                tracing::info!(
                    target: "audit", event = "refresh_refused", client = %ip, token = %presented.reference()
                );
                Err(Unrenewed::Refused(Rejection::InvalidGrant))
            }
        }
    }

    /// Takes one replacement from the budget of the token's session, before anything is written: a refusal consumes no token and
    /// revokes nothing.
    ///
    /// Only the live end of a session that is alive is charged, so made-up tokens fill no table. Every other token writes no row
    /// of a token, and stays what it is: a spent one does not come to life again, nor does a session that is over. So none that
    /// was found free of charge here is replaced by the transaction that follows. Two that present the live end at one moment
    /// are both charged, though one of them finds the other's successor; the tabs of a browser are far fewer than the budget,
    /// and one that is refused finds its token within the grace window, free of charge.
    async fn charge_refresh(&self, rotation: &Rotation, ip: IpAddr) -> Result<(), Rejection> {
        let found = self.store.live_end(rotation.presented, rotation.times);
        let Some(end) = found.await.map_err(unavailable)? else {
            return Ok(());
        };
        let charged = self.refreshes_per_session.check(&end.session_id).await;
        charged.map_err(|exceeded| {
            tracing::warn!(
                target: "audit", event = "refresh_limited", user = %end.user_id, session = %end.session_id, client = %ip,
                reason = exceeded.limit
            );
            Rejection::RateLimited(exceeded)
        })
    }
}
