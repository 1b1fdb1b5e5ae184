//! How long a body may keep others waiting.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::progress::UploadProgress;

/// How fast a client must send its body.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The longest wait for the next byte.
    pub idle: Duration,
    /// The least, in bytes a second, over all the time that was waited beyond `idle`; 1 or more.
    pub rate: u64,
}

/// Fires when a client is too slow: one wait too long, or too many for what has come. Costs nothing while things happen: the
/// timer is made only when there is something to wait for, and time that the upstream takes is not the client's.
#[derive(Debug)]
pub(super) struct IdleTimer {
    pace: Pace,
    waited: Duration,
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            waited: Duration::ZERO,
            since: Instant::now(),
            timer: None,
        }
    }

    pub(super) fn reset(&mut self) {
        if self.timer.take().is_some() {
            self.waited = self.waited.saturating_add(self.since.elapsed());
        }
    }

    /// `bytes` have come so far.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>, bytes: u64) -> Poll<()> {
        if self.timer.is_none() {
            self.since = Instant::now();
        }
        let until = self.since + self.allowed(bytes);
        self.timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)))
            .as_mut()
            .poll(cx)
    }

    fn allowed(&self, bytes: u64) -> Duration {
        let Pace { idle, rate } = self.pace;
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / rate.max(1));
        idle.saturating_add(earned)
            .saturating_sub(self.waited)
            .min(idle)
    }
}

/// Fires when nothing has gone either way for a while.
#[derive(Debug)]
pub(super) struct Silence {
    allowed: Duration,
    progress: Rc<UploadProgress>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    pub(super) fn new(allowed: Duration, progress: Rc<UploadProgress>) -> Self {
        progress.last_until_silence();
        Self {
            allowed,
            progress,
            timer: None,
        }
    }

    /// Notes that something went one way or the other.
    pub(super) fn stir(&self) {
        self.progress.stir();
    }

    /// When the silence is too long, if it goes on.
    pub(super) fn due(&self) -> Instant {
        let since = self.progress.silent_since();
        since.unwrap_or_else(Instant::now) + self.allowed
    }

    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut due = self.due();
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            ready!(timer.as_mut().poll(cx));
            due = self.progress.silent_since().unwrap_or(due) + self.allowed;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}
