//! What may a refused request wait for? Once, for a bounded time, and then it is decided anew.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};

/// Something under way that may bring what a token lacks: the key that verifies it, or its issuer's word.
#[derive(Debug)]
#[must_use = "nothing is waited for until it is awaited"]
pub struct Arrival(Awaited);

#[derive(Debug)]
enum Awaited {
    /// It is here already.
    Nothing,
    /// The end of a fetch of keys.
    Fetch(watch::Receiver<u64>, Duration),
    /// The end of a question to the issuer; whether it was charged to the client of this request.
    Answer(watch::Receiver<Option<Ended>>, Duration, bool),
}

/// How a question to an issuer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::authn) enum Ended {
    /// With an answer about the token.
    Answered,
    /// Without one, for a reason that the token may have caused.
    Failed,
    /// Without one, and no token can be blamed.
    Outage,
}

/// What becomes of what a wait was charged with in advance (RATE-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// It goes back, unless the token turns out bad.
    Returnable,
    /// Nothing goes back: nothing was charged, or it stays.
    Settled,
}

impl Arrival {
    pub(in crate::authn) const fn here() -> Self {
        Self(Awaited::Nothing)
    }

    pub(in crate::authn) const fn fetch(ended: watch::Receiver<u64>, wait: Duration) -> Self {
        Self(Awaited::Fetch(ended, wait))
    }

    pub(in crate::authn) const fn answer(
        ended: watch::Receiver<Option<Ended>>,
        wait: Duration,
        is_charged: bool,
    ) -> Self {
        Self(Awaited::Answer(ended, wait, is_charged))
    }

    /// Waits until it has ended, well or not, or for as long as the configuration allows. Whatever the outcome, the request is
    /// decided once more, by what is there then.
    pub async fn wait(self) -> Charge {
        match self.0 {
            Awaited::Nothing => Charge::Settled,
            Awaited::Fetch(mut ended, wait) => {
                let _ = timeout(wait, ended.changed()).await;
                Charge::Settled
            }
            Awaited::Answer(mut ended, wait, is_charged) => {
                let ended = timeout(wait, ended.wait_for(Option::is_some)).await;
                let is_to_blame = matches!(ended, Ok(Ok(ended)) if *ended == Some(Ended::Failed));
                if is_charged && !is_to_blame {
                    Charge::Returnable
                } else {
                    Charge::Settled
                }
            }
        }
    }
}
