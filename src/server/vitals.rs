//! What a connection is doing, and since when: the deadlines of its phases without a timer for each request.
//!
//! hyper's own header timeout also runs while a kept connection waits for its next request, and HTTP/2 has none at all.
//! So the stream is watched instead: the first byte after silence begins a head, a request ends that phase, the last
//! answer's end begins silence again. One timer for the connection looks now and then whether its phase has gone on too
//! long; while requests flow it is never touched.

mod line;
mod stream;

use std::{
    cell::Cell,
    io,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use self::line::Line;
use super::settings::Timeouts;
use crate::moment;
pub(crate) use stream::Stream;
pub use stream::Watched;

/// How long a new connection has for its first request when the gateway leaves or memory is scarce.
const TRIAL: Duration = Duration::from_secs(2);

/// After so much silence a connection of HTTP/1 gives its buffers back.
const REST_AFTER: Duration = Duration::from_secs(1);

/// An answer of so many bytes has left, as far as the path allows, when it is written: a new connection's first segments wait for no
/// acknowledgement (ten of them, RFC 6928).
const AT_ONCE: usize = 12 << 10;

/// The state of one connection, shared by its stream, its requests and its timer.
#[derive(Debug)]
pub struct Vitals {
    timeouts: Timeouts,
    multiplexed: bool,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    born: Instant,
    /// Whether there has been a request.
    has_served: Cell<bool>,
    /// Told to end after what is under way, for its age.
    retired: Cell<bool>,
    /// The gateway leaves, and the connection is to end as soon as it may.
    leaving: Cell<bool>,
    /// Ended for its frames (MSG-6).
    flooded: Cell<bool>,
    /// The request that is under way is the client's last.
    is_last: Cell<bool>,
    /// Bytes that were written since that came.
    last_bytes: Cell<usize>,
    /// Everything is written, and the client knows that nothing follows.
    is_shut: Cell<bool>,
    exchanges: Cell<usize>,
    write_blocked: Cell<Option<Instant>>,
    /// Answers of a multiplexed connection whose next bytes wait for the client to open a window.
    owed: Cell<usize>,
    /// When the client last took a piece of such an answer.
    taken: Cell<Instant>,
    line: Cell<Line>,
    /// Whether the connection has given its buffers back, until something comes.
    is_resting: Cell<bool>,
    /// When something came to it while it rested. That may be less than a whole record, which says nothing yet.
    woken: Cell<Instant>,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// At least one request is being answered.
    Exchange,
    /// A request's head has begun to arrive.
    Head,
    /// Nothing.
    Idle,
}

/// What the timer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The phase has gone on too long.
    Expired(Phase),
    /// Look again then.
    Look(Instant),
    /// The connection has been silent long enough to give its buffers back.
    Rest,
    /// The connection is as old as it may become.
    TooOld,
    /// The client takes nothing of an answer.
    WriteStalled,
}

/// Marks one exchange; dropped when its answer's body has ended.
#[derive(Debug)]
pub struct ExchangeMark {
    vitals: Rc<Vitals>,
    is_clients_turn: Cell<bool>,
}

impl Vitals {
    /// The vitals of a connection that has just been accepted and decrypted. In a `multiplexed` one (HTTP/2) bytes alone
    /// begin no head, for they may be pings or window updates.
    #[must_use]
    pub fn new(timeouts: Timeouts, multiplexed: bool) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            timeouts,
            multiplexed,
            phase: Cell::new(Phase::Idle),
            since: Cell::new(now),
            born: now,
            has_served: Cell::new(false),
            retired: Cell::new(false),
            leaving: Cell::new(false),
            flooded: Cell::new(false),
            is_last: Cell::new(false),
            last_bytes: Cell::new(0),
            is_shut: Cell::new(false),
            exchanges: Cell::new(0),
            write_blocked: Cell::new(None),
            owed: Cell::new(0),
            taken: Cell::new(now),
            line: Cell::new(Line::Plain),
            is_resting: Cell::new(false),
            woken: Cell::new(now),
        })
    }

    /// Begins an exchange: a head has arrived whole.
    #[must_use]
    pub fn begin_exchange(self: &Rc<Self>) -> ExchangeMark {
        self.exchanges.set(self.exchanges.get() + 1);
        self.phase.set(Phase::Exchange);
        self.has_served.set(true);
        ExchangeMark {
            vitals: Rc::clone(self),
            is_clients_turn: Cell::new(false),
        }
    }

    /// Whether the request target that began this exchange has a `#`. The URI type drops a fragment before anyone can see
    /// it, so it is looked for where it arrives; one sent ahead of its turn (pipelined) is dropped unseen, which is
    /// harmless, for then it takes no part in any decision and is not forwarded either (URI-2).
    #[must_use]
    pub fn take_fragment(&self) -> bool {
        self.line.replace(Line::Plain) == Line::Fragment
    }

    /// What the connection is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// When the present phase, or the connection, will have gone on too long; `None` during the last exchange of a connection
    /// whose client still reads, for exchanges have deadlines of their own.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let age = match self.is_on_trial() {
            true => self.timeouts.max_age.min(TRIAL),
            false => self.timeouts.max_age,
        };
        let old = (!self.retired.get()).then(|| self.born + age);
        self.phase_due().into_iter().chain(old).min()
    }

    /// When to look first, or again at the latest, where the timer would wake later: sooner than silence is too long when a head
    /// has begun or the client takes nothing, and when a connection that is silent may rest. `None`: there is no hurry. One that
    /// has only just fallen silent is not looked at for it, so that the timer is not touched while requests flow.
    #[must_use]
    pub fn look_before(&self) -> Option<Instant> {
        if self.is_urgent() {
            return self.due();
        }
        self.rest_due().map(|due| due + REST_AFTER)
    }

    /// When the connection may rest: one of HTTP/1 that has had a request and has nothing left to write.
    fn rest_due(&self) -> Option<Instant> {
        let may = !self.multiplexed
            && !self.is_resting.get()
            && self.has_served.get()
            && self.phase.get() == Phase::Idle
            && self.write_blocked.get().is_none();
        may.then(|| self.since.get().max(self.woken.get()) + REST_AFTER)
    }

    /// Notes whether the connection rests.
    pub fn set_resting(&self, is_resting: bool) {
        self.is_resting.set(is_resting);
        self.woken.set(moment::recent());
    }

    fn phase_due(&self) -> Option<Instant> {
        let phase = match self.phase.get() {
            Phase::Exchange => None,
            Phase::Head => Some(self.since.get() + self.timeouts.header),
            Phase::Idle => Some(self.since.get() + self.timeouts.keep_alive),
        };
        let owed = (self.owed.get() > 0).then(|| self.taken.get());
        let blocked = self
            .write_blocked
            .get()
            .into_iter()
            .chain(owed)
            .map(|since| since + self.timeouts.body_idle);
        phase.into_iter().chain(blocked).min()
    }

    /// Notes that the connection was told to end after what is under way.
    pub fn retire(&self) {
        self.retired.set(true);
    }

    /// Notes that the gateway leaves: [`Self::due`] says from now on when a connection without a request has had its time for one.
    pub fn leave(&self) {
        self.leaving.set(true);
    }

    /// Notes that the client sends nothing after the request that is under way.
    pub fn expect_no_more(&self) {
        self.is_last.set(true);
    }

    /// Counts what was written.
    fn count_written(&self, bytes: usize) {
        if self.is_last.get() {
            let sum = self.last_bytes.get().saturating_add(bytes);
            self.last_bytes.set(sum);
        }
    }

    /// Whether the client's last request has been answered, and what is unwritten of that answer is all that is to be written.
    #[must_use]
    pub fn has_no_more(&self) -> bool {
        self.is_last.get() && self.has_served.get() && self.exchanges.get() == 0
    }

    /// Whether nothing is left to do but to close the socket: nothing comes of the client, and it has been sent everything. Of a long
    /// answer much may still wait to be sent, and would be lost if the client said something against its word, TLS's farewell perhaps:
    /// the kernel resets a closed connection then.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.has_no_more() && self.is_shut.get() && self.last_bytes.get() <= AT_ONCE
    }

    /// Whether requests share the connection, as those of HTTP/2 do.
    #[must_use]
    pub fn is_multiplexed(&self) -> bool {
        self.multiplexed
    }

    fn is_on_trial(&self) -> bool {
        self.leaving.get() && !self.has_served.get()
    }

    /// Whether the connection was ended for its frames.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    /// Whether `due` may be sooner than silence would be: a head has begun, the client takes nothing, or the gateway leaves.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.phase.get() == Phase::Head
            || self.write_blocked.get().is_some()
            || self.owed.get() > 0
            || self.is_on_trial()
    }

    /// Whether the connection may be told to end after what is under way, without a request lost that is on its way: it has had
    /// one, or time for one, and no head has begun.
    #[must_use]
    pub fn may_end(&self, now: Instant) -> bool {
        let had_time = self.has_served.get() || now.saturating_duration_since(self.born) > TRIAL;
        had_time && self.phase.get() != Phase::Head
    }

    /// Looks whether the present phase has gone on too long.
    #[must_use]
    pub fn verdict(&self, now: Instant) -> Verdict {
        let rest = self.rest_due();
        match self.due() {
            Some(due) if due > now && rest.is_some_and(|rest| rest <= now) => Verdict::Rest,
            // An exchange may end soon, and silence begin.
            None => Verdict::Look(now + self.timeouts.keep_alive),
            Some(due) if due > now => {
                let latest = now + self.timeouts.keep_alive;
                Verdict::Look(rest.unwrap_or(latest).min(latest).min(due))
            }
            Some(_) if self.phase_due().is_none_or(|due| due > now) => Verdict::TooOld,
            Some(_) if self.phase.get() == Phase::Exchange => Verdict::WriteStalled,
            Some(_) => Verdict::Expired(self.phase.get()),
        }
    }

    fn bytes_arrived(&self, bytes: &[u8]) {
        if self.phase.get() == Phase::Idle && !self.multiplexed {
            self.phase.set(Phase::Head);
            self.since.set(moment::recent());
            self.line.set(Line::Method);
        }
        if self.phase.get() == Phase::Head {
            self.line.set(self.line.get().read(bytes));
        }
    }

    fn write_outcome<T>(&self, outcome: &Poll<io::Result<T>>) {
        match (outcome, self.write_blocked.get()) {
            (Poll::Pending, None) => self.write_blocked.set(Some(Instant::now())),
            (Poll::Ready(_), Some(_)) => self.write_blocked.set(None),
            (Poll::Pending, Some(_)) | (Poll::Ready(_), None) => {}
        }
    }
}

impl ExchangeMark {
    /// Says whether the next piece of the answer waits for the client alone: for a window of HTTP/2, which is all one sees of
    /// a client that reads nothing; in HTTP/1 its socket says so. Clients may let one answer rest behind another; what must
    /// not be is that none of them goes on (MSG-7).
    pub fn clients_turn(&self, is_clients_turn: bool) {
        let vitals = &self.vitals;
        if !vitals.multiplexed || self.is_clients_turn.replace(is_clients_turn) == is_clients_turn {
            return;
        }
        let owed = vitals.owed.get();
        vitals.owed.set(if is_clients_turn {
            owed.saturating_add(1)
        } else {
            owed.saturating_sub(1)
        });
        if owed == 0 || !is_clients_turn {
            vitals.taken.set(Instant::now());
        }
    }
}

impl Drop for ExchangeMark {
    fn drop(&mut self) {
        self.clients_turn(false);
        let vitals = &self.vitals;
        vitals
            .exchanges
            .set(vitals.exchanges.get().saturating_sub(1));
        if vitals.exchanges.get() == 0 {
            vitals.phase.set(Phase::Idle);
            vitals.since.set(moment::recent());
        }
    }
}

#[cfg(test)]
mod tests;
