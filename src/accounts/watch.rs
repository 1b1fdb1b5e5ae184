//! Obeys what other processes wrote, and erases what is over.
//!
//! Every process reads the feed of revocations each second, so what a command or another node ended is refused here within
//! seconds, without a look-up on the way of a request.

use std::{
    fmt::Display,
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, sleep},
};

use super::{Accounts, KeyError, seconds};
use crate::{
    authn::{ClockFault, Revocations},
    store::{Revocation, RevocationKind, StoreError},
};

const POLL_PERIOD: Duration = Duration::from_secs(1);

/// Pages of one poll, a million entries; the next goes on where it ended. A store whose every connection is a new one would show
/// its whole feed for ever.
const POLL_PAGES_MAX: usize = 1000;
/// The least time between two polls for word of other nodes, whoever sends it and however often.
const HEARD_PERIOD: Duration = Duration::from_millis(50);

/// Polls between two rounds of erasing.
const PURGE_EVERY: u32 = 10;

/// Batches of one round: the writer is free again between them.
const PURGE_BATCHES_MAX: usize = 20;

/// Is told whether the store can be used, when that changes.
pub type Report = Box<dyn Fn(Result<(), String>) + Send + Sync>;
/// A lag beyond this is told: more than a few polls have failed, or one hangs.
const LAG_USUAL: Duration = Duration::from_secs(5);

/// Why the store could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The signing keys in it.
    #[error("signing keys: {0}")]
    Keys(#[source] KeyError),
    /// It.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The watching task. Dropping this stops it.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Accounts {
    /// Starts to watch the store for what other processes revoke, until the returned value or these accounts are dropped.
    ///
    /// `report` is told when the store cannot be read, with the reason, and when it is read again.
    #[must_use]
    pub fn watch(self: &Arc<Self>, runtime: &Handle, report: Report) -> Watch {
        let accounts = Arc::downgrade(self);
        Watch(runtime.spawn(run(accounts, report)))
    }

    /// Takes over the signing keys where they are in the store, applies what is new in the feed, and says how many entries that was.
    ///
    /// # Errors
    /// [`PollError`]; what was read until then is applied.
    pub async fn poll(&self) -> Result<usize, PollError> {
        // First, for a key that is gone ends tokens as an entry of the feed does: both belong to what is known.
        let now = seconds(self.settled().time);
        self.signing.refresh(&*self.store, now).await?;
        let mut applied = 0;
        for _ in 0..POLL_PAGES_MAX {
            let after = self.feed.load(Ordering::Acquire);
            let since = Instant::now();
            let entries = self.store.revocations_after(after).await?;
            let Some(last) = entries.last() else {
                // All before it was obeyed, and all is known that was revoked.
                self.revocations.feed().read_to_end(since);
                self.signing.trust();
                return Ok(applied);
            };
            for entry in &entries {
                self.apply(entry);
            }
            self.feed.fetch_max(last.id, Ordering::AcqRel);
            applied += entries.len();
        }
        Ok(applied)
    }

    /// Erases expired sessions, tokens and entries of the feed, in bounded batches; says how many rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn purge(&self) -> Result<usize, StoreError> {
        self.revocations.purge(self.times().now);
        let mut erased = 0;
        for _ in 0..PURGE_BATCHES_MAX {
            let rows = self.store.purge(self.times()).await?;
            if rows == 0 {
                break;
            }
            erased += rows;
        }
        Ok(erased)
    }

    fn apply(&self, entry: &Revocation) {
        let issuer = &self.settings.issuer;
        match entry.kind {
            RevocationKind::Session => {
                self.revocations
                    .revoke_session(issuer, &entry.key, entry.until);
            }
            RevocationKind::Token => {
                self.revocations
                    .revoke_token(issuer, &entry.key, entry.until);
            }
        }
    }
}

async fn run(accounts: Weak<Accounts>, report: Report) {
    let mut ticks = tokio::time::interval(POLL_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    let mut keys_failing = false;
    let mut reported = None;
    let mut clock_was = None;
    let mut turn = 0_u32;
    loop {
        let heard = heard(&accounts, &mut ticks).await;
        let Some(accounts) = accounts.upgrade() else {
            return;
        };
        if !heard {
            follow_keys(&accounts, &mut keys_failing).await;
        }
        tell_clock(accounts.settled().fault, &mut clock_was);
        let mut result = accounts.poll().await.map(|_| ());
        let mut written = Ok(());
        if !heard {
            let is_turn = turn.is_multiple_of(PURGE_EVERY);
            if result.is_ok() && is_turn {
                result = accounts.purge().await.map(|_| ()).map_err(PollError::Store);
            }
            if result.is_ok() {
                written = accounts.store.takes_writes(is_turn).await;
            }
            turn = turn.wrapping_add(1);
        } else if reported.is_some() {
            written = accounts.store.takes_writes(false).await;
        }
        // One line when it begins and one when it ends, not one a second.
        match (&result, failing) {
            (Err(error), false) => {
                tracing::error!(error = %error, "revocations of other processes cannot be read");
            }
            (Ok(()), true) => tracing::info!("revocations of other processes are read again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        failing = result.is_err();
        let refused = |error: &dyn Display| format!("{error}: sign-in and sign-out are refused");
        let fault = match (result, written) {
            (Err(error), _) => Some(refused(&error)),
            (Ok(()), Err(error)) => Some(refused(&error)),
            (Ok(()), Ok(())) => accounts.signing.fault(),
        };
        if fault != reported {
            report(fault.clone().map_or(Ok(()), Err));
            reported = fault;
        }
    }
}

impl From<KeyError> for PollError {
    /// A store that cannot be read is not what is wrong with a key.
    fn from(error: KeyError) -> Self {
        if let KeyError::Store(error) = error {
            return Self::Store(error);
        }
        Self::Keys(error)
    }
}

/// Waits for the next tick, or for word from another node, and says which of them it was: `true` for word.
async fn heard(accounts: &Weak<Accounts>, ticks: &mut Interval) -> bool {
    let cluster = accounts.upgrade().and_then(|one| one.cluster.clone());
    let Some(cluster) = cluster else {
        ticks.tick().await;
        return false;
    };
    tokio::select! {
        _ = ticks.tick() => false,
        () = cluster.heard() => {
            // Many messages are one look at the store.
            sleep(HEARD_PERIOD).await;
            true
        }
    }
}

/// Tells `report` of a lag that is more than usual, and logs when strict routes begin and cease to refuse. Goes on whatever becomes
/// of the task that reads. To be run on the control runtime, for as long as the process lives.
pub async fn watch_lag(revocations: Arc<Revocations>, report: impl Fn(Result<(), String>)) {
    let mut ticks = tokio::time::interval(POLL_PERIOD);
    let (mut was_late, mut was_told) = (false, false);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let feed = revocations.feed();
        let (Some(lag), is_late) = (feed.lag(now), feed.is_late(now)) else {
            return;
        };
        if is_late && !was_late {
            let lag = lag.as_secs();
            tracing::error!(lag, "revocations are not known: strict routes refuse");
        } else if was_late && !is_late {
            tracing::info!("revocations are known again: strict routes serve");
        }
        was_late = is_late;
        let is_told = lag > LAG_USUAL;
        if is_told {
            let lag = lag.as_secs();
            let strict = if is_late {
                "; strict routes refuse"
            } else {
                ""
            };
            report(Err(format!(
                "revocations of the last {lag} seconds are not known{strict}"
            )));
        } else if was_told {
            report(Ok(()));
        }
        was_told = is_told;
    }
}

/// Tells of a clock that jumped, when it does and when it is as it should be again (FAULT-4).
fn tell_clock(fault: Option<ClockFault>, was: &mut Option<ClockFault>) {
    let is_ahead = |fault: &Option<ClockFault>| matches!(fault, Some(ClockFault::Ahead(_)));
    let is_new = fault.is_some() != was.is_some() || is_ahead(&fault) != is_ahead(was);
    *was = fault;
    match fault {
        _ if !is_new => {}
        Some(ClockFault::Ahead(by)) => tracing::error!(
            event = "clock_jumped",
            ahead_seconds = by.as_secs(),
            "the clock jumped ahead: tokens are judged by it, and nothing is erased by it before it has lasted a minute"
        ),
        Some(ClockFault::Behind(by)) => tracing::error!(
            event = "clock_jumped",
            behind_seconds = by.as_secs(),
            "the clock was set back: tokens are judged by the latest time that was seen, so new ones may count as expired; where \
             that time was wrong, restart the gateway"
        ),
        None => tracing::info!(event = "clock_settled", "the clock is believed again"),
    }
}

/// Reads the signing keys where another process changed them. The disk may be slow; the feed does not wait for it longer than it
/// would for itself.
async fn follow_keys(accounts: &Arc<Accounts>, failing: &mut bool) {
    let reader = Arc::clone(accounts);
    let result = tokio::task::spawn_blocking(move || reader.follow_keys()).await;
    let fault = match result {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("reading them panicked".to_owned()),
    };
    match (&fault, *failing) {
        (Some(error), false) => {
            tracing::error!(
                error,
                "the signing keys cannot be read; they stay as they were"
            );
        }
        (None, true) => tracing::info!("the signing keys are read again"),
        (Some(_), true) | (None, false) => {}
    }
    *failing = fault.is_some();
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
