//! What a connection is doing, and since when: the deadlines of its phases without a timer for each request.
//!
//! hyper's own header timeout also runs while a kept connection waits for its next request, and HTTP/2 has none at all.
//! So the stream is watched instead: the first byte after silence begins a head, a request ends that phase, the last
//! answer's end begins silence again. One timer for the connection looks now and then whether its phase has gone on too
//! long; while requests flow it is never touched.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::settings::Timeouts;

/// The state of one connection, shared by its stream, its requests and its timer.
#[derive(Debug)]
pub struct Vitals {
    timeouts: Timeouts,
    multiplexed: bool,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    exchanges: Cell<usize>,
    write_blocked: Cell<Option<Instant>>,
    /// Answers of a multiplexed connection whose next bytes wait for the client to open a window.
    owed: Cell<usize>,
    /// When the client last took a piece of such an answer.
    taken: Cell<Instant>,
    line: Cell<Line>,
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

/// How far a request line has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// In its target is a `#`.
    Fragment,
    /// In the method.
    Method,
    /// Its target has ended and has no `#`; or it is no request line, and hyper will say so.
    Plain,
    /// In the target.
    Target,
}

/// What the timer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The phase has gone on too long.
    Expired(Phase),
    /// Look again then.
    Look(Instant),
    /// The client takes nothing of an answer.
    WriteStalled,
}

/// Marks one exchange; dropped when its answer's body has ended.
#[derive(Debug)]
pub struct ExchangeMark {
    vitals: Rc<Vitals>,
    is_clients_turn: Cell<bool>,
}

/// A stream that keeps the vitals of its connection.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    vitals: Rc<Vitals>,
}

impl Vitals {
    /// The vitals of a connection that has just been accepted and decrypted. In a `multiplexed` one (HTTP/2) bytes alone
    /// begin no head, for they may be pings or window updates.
    #[must_use]
    pub fn new(timeouts: Timeouts, multiplexed: bool) -> Rc<Self> {
        Rc::new(Self {
            timeouts,
            multiplexed,
            phase: Cell::new(Phase::Idle),
            since: Cell::new(Instant::now()),
            exchanges: Cell::new(0),
            write_blocked: Cell::new(None),
            owed: Cell::new(0),
            taken: Cell::new(Instant::now()),
            line: Cell::new(Line::Plain),
        })
    }

    /// Begins an exchange: a head has arrived whole.
    #[must_use]
    pub fn begin_exchange(self: &Rc<Self>) -> ExchangeMark {
        self.exchanges.set(self.exchanges.get() + 1);
        self.phase.set(Phase::Exchange);
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

    /// When the present phase will have gone on too long; `None` during an exchange whose client still reads, for exchanges
    /// have deadlines of their own.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
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

    /// Whether `due` may be sooner than silence would be: a head has begun, or the client takes nothing.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.phase.get() == Phase::Head || self.write_blocked.get().is_some() || self.owed.get() > 0
    }

    /// Looks whether the present phase has gone on too long.
    #[must_use]
    pub fn verdict(&self, now: Instant) -> Verdict {
        match self.due() {
            None => Verdict::Look(now + self.timeouts.keep_alive),
            Some(due) if due > now => Verdict::Look(due),
            Some(_) if self.phase.get() == Phase::Exchange => Verdict::WriteStalled,
            Some(_) => Verdict::Expired(self.phase.get()),
        }
    }

    fn bytes_arrived(&self, bytes: &[u8]) {
        if self.phase.get() == Phase::Idle && !self.multiplexed {
            self.phase.set(Phase::Head);
            self.since.set(Instant::now());
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

impl Line {
    /// Reads on. The `#` that matters is the one in the target, the second word.
    fn read(self, bytes: &[u8]) -> Self {
        let mut line = self;
        for byte in bytes {
            line = match (line, byte) {
                (Self::Method, b'A'..=b'Z') => Self::Method,
                (Self::Method, b' ') | (Self::Target, 0x21..=0x22 | 0x24..) => Self::Target,
                (Self::Target, b'#') => Self::Fragment,
                (Self::Method | Self::Target, _) => Self::Plain,
                (Self::Fragment | Self::Plain, _) => return line,
            };
        }
        line
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
            vitals.since.set(Instant::now());
        }
    }
}

impl<S> Watched<S> {
    /// Watches a stream.
    #[must_use]
    pub fn new(stream: S, vitals: Rc<Vitals>) -> Self {
        Self { stream, vitals }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if let Some(arrived) = buffer
            .filled()
            .get(before..)
            .filter(|arrived| !arrived.is_empty())
        {
            this.vitals.bytes_arrived(arrived);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.vitals.write_outcome(&outcome);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.vitals.write_outcome(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        this.vitals.write_outcome(&outcome);
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        handshake: Duration::from_secs(10),
        header: Duration::from_secs(10),
        body_idle: Duration::from_secs(30),
        keep_alive: Duration::from_secs(75),
    };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn net_4_a_silent_connection_expires_after_keep_alive() {
        let vitals = Vitals::new(TIMEOUTS, false);
        let start = vitals.since.get();
        assert!(matches!(
            vitals.verdict(start + seconds(74)),
            Verdict::Look(_)
        ));
        assert_eq!(
            vitals.verdict(start + seconds(75)),
            Verdict::Expired(Phase::Idle)
        );
    }

    #[test]
    fn net_4_a_head_expires_after_its_own_time_whatever_trickles_in() {
        let vitals = Vitals::new(TIMEOUTS, false);
        vitals.bytes_arrived(b"GET");
        let start = vitals.since.get();
        vitals.bytes_arrived(b"GET");
        assert_eq!(
            vitals.since.get(),
            start,
            "later bytes do not extend the deadline"
        );
        assert!(matches!(
            vitals.verdict(start + seconds(9)),
            Verdict::Look(_)
        ));
        assert_eq!(
            vitals.verdict(start + seconds(10)),
            Verdict::Expired(Phase::Head)
        );
    }

    #[test]
    fn net_4_pings_do_not_keep_an_http2_connection_alive() {
        let vitals = Vitals::new(TIMEOUTS, true);
        let start = vitals.since.get();
        vitals.bytes_arrived(b"GET");
        assert_eq!(
            vitals.verdict(start + seconds(75)),
            Verdict::Expired(Phase::Idle)
        );
    }

    #[test]
    fn net_4_an_exchange_is_not_idle_until_the_last_one_ends() {
        let vitals = Vitals::new(TIMEOUTS, true);
        let start = vitals.since.get();
        let (first, second) = (vitals.begin_exchange(), vitals.begin_exchange());
        drop(first);
        assert!(matches!(
            vitals.verdict(start + seconds(1000)),
            Verdict::Look(_)
        ));
        drop(second);
        assert_eq!(vitals.phase(), Phase::Idle);
        assert_eq!(
            vitals.verdict(vitals.since.get() + seconds(75)),
            Verdict::Expired(Phase::Idle)
        );
    }

    #[test]
    fn uri_2_a_fragment_in_the_request_target_is_seen() {
        for (bytes, want) in [
            (&b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"[..], true),
            (b"GET /#/public HTTP/1.1\r\n", true),
            (b"GET /a?b#c HTTP/1.1\r\n", true),
            (b"GET #a HTTP/1.1\r\n", true),
            (b"GET /a HTTP/1.1\r\nReferer: /#b\r\n\r\n", false),
            (b"GET /a\nReferer: /#b\r\n\r\n", false),
            (b"lue: 1 #2\r\n", false),
            (b"", false),
        ] {
            for size in [1, 2, 7, 1000] {
                let vitals = Vitals::new(TIMEOUTS, false);
                for piece in bytes.chunks(size) {
                    vitals.bytes_arrived(piece);
                }
                assert_eq!(vitals.take_fragment(), want, "{bytes:?} by {size}");
                assert!(!vitals.take_fragment(), "taken once");
            }
        }
    }

    #[test]
    fn msg_7_streams_none_of_which_goes_on_are_a_stalled_connection() {
        let vitals = Vitals::new(TIMEOUTS, true);
        let (first, second) = (vitals.begin_exchange(), vitals.begin_exchange());
        assert_eq!(vitals.due(), None, "the upstream's turn has its own limits");
        first.clients_turn(true);
        let since = vitals.taken.get();
        second.clients_turn(true);
        assert_eq!(vitals.taken.get(), since, "a second stream extends nothing");
        assert!(vitals.is_urgent());
        assert!(matches!(
            vitals.verdict(since + seconds(29)),
            Verdict::Look(_)
        ));
        assert_eq!(vitals.verdict(since + seconds(30)), Verdict::WriteStalled);
        second.clients_turn(false);
        assert!(vitals.taken.get() > since, "one that goes on is progress");
        drop(first);
        assert_eq!(vitals.due(), None);
        drop(second);
        assert_eq!(vitals.phase(), Phase::Idle);
    }

    #[test]
    fn msg_7_a_client_that_takes_no_answer_is_dropped() {
        let vitals = Vitals::new(TIMEOUTS, false);
        let _exchange = vitals.begin_exchange();
        vitals.write_outcome::<()>(&Poll::Pending);
        let blocked = vitals.write_blocked.get().unwrap();
        vitals.write_outcome::<()>(&Poll::Pending);
        assert_eq!(vitals.write_blocked.get(), Some(blocked));
        assert_eq!(vitals.verdict(blocked + seconds(30)), Verdict::WriteStalled);
        vitals.write_outcome(&Poll::Ready(Ok(())));
        assert!(matches!(
            vitals.verdict(blocked + seconds(30)),
            Verdict::Look(_)
        ));
    }
}
