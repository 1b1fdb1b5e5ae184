//! A worker's watch over exchanges that go on: until when does the credential that began them hold? (UP-7)
//!
//! Nothing of it touches an exchange that ends within a second. A longer one waits for the end of its token's time, and is woken
//! to look again when anything was revoked since the last look, once a second at most.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{authn::Revocations, policy::Identity};

/// So long an exchange may go on before anybody watches.
pub(super) const WATCH_AFTER: Duration = Duration::from_secs(1);

/// The longest wait for a timer, whatever a token says of its end.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// One worker's watch.
#[derive(Debug)]
pub struct Vigil {
    revocations: Arc<Revocations>,
    epoch: Cell<u64>,
    moved: Notify,
}

impl Vigil {
    /// A watch over what these revocations may end.
    #[must_use]
    pub fn new(revocations: Arc<Revocations>) -> Rc<Self> {
        Rc::new(Self {
            epoch: Cell::new(revocations.epoch()),
            revocations,
            moved: Notify::new(),
        })
    }

    /// Has everybody look again, if anything was revoked since the last call. To be called every second.
    pub fn look(&self) {
        let epoch = self.revocations.epoch();
        if self.epoch.replace(epoch) != epoch {
            self.moved.notify_waiters();
        }
    }

    /// Completes when the credential of this identity is no longer good: its time is over, or it was revoked.
    pub(super) async fn lapse(self: Rc<Self>, identity: Arc<Identity>) {
        let claims = identity.claims();
        loop {
            // Before the look: whoever is notified from here on looks again.
            let moved = self.moved.notified();
            let left = self.revocations.time_left(claims, SystemTime::now());
            if left.is_zero() || self.revocations.is_revoked(claims) {
                return;
            }
            tokio::select! {
                () = sleep_until(Instant::now() + left.min(WAIT_MAX)) => {}
                () = moved => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
        time::UNIX_EPOCH,
    };

    use super::*;
    use crate::policy::Claims;

    fn claims(seconds: u64) -> Claims {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Claims {
            issuer: "https://idp".into(),
            session: Some("s1".into()),
            expires_at: now.as_secs() + seconds,
            ..Claims::default()
        }
    }

    #[test]
    fn up_7_the_leeway_belongs_to_a_token_s_time() {
        let revocations = Revocations::new();
        let mut claims = claims(0);
        let after = SystemTime::now() + Duration::from_secs(2);
        assert!(revocations.time_left(&claims, after).is_zero());
        claims.leeway = Duration::from_secs(30);
        let left = revocations.time_left(&claims, after);
        assert!(
            left > Duration::from_secs(26) && left < Duration::from_secs(29),
            "{left:?}"
        );
    }

    #[tokio::test]
    async fn up_7_a_revocation_is_seen_at_the_next_look_and_another_one_is_none() {
        let revocations = Arc::new(Revocations::new());
        let vigil = Vigil::new(Arc::clone(&revocations));
        let headers = crate::policy::IdentityHeaders::default();
        let identity = Identity::assert_verified(claims(1000), &headers).unwrap();
        let identity = Arc::new(identity);
        let mut lapse = pin!(Rc::clone(&vigil).lapse(identity));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(lapse.as_mut().poll(&mut context), Poll::Pending);
        revocations.revoke_session("https://idp", "s2", u64::MAX);
        vigil.look();
        assert_eq!(lapse.as_mut().poll(&mut context), Poll::Pending);
        revocations.revoke_session("https://idp", "s1", u64::MAX);
        assert_eq!(
            lapse.as_mut().poll(&mut context),
            Poll::Pending,
            "nobody looked"
        );
        vigil.look();
        assert_eq!(lapse.as_mut().poll(&mut context), Poll::Ready(()));
    }
}
