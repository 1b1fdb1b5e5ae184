//! Phases and their deadlines, at clocks that are passed in.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::AsyncWrite;

use super::*;
use crate::{gateway::EarlyHeads, server::segments::Finish};

const TIMEOUTS: Timeouts = Timeouts {
    handshake: Duration::from_secs(10),
    header: Duration::from_secs(10),
    body_idle: Duration::from_secs(30),
    keep_alive: Duration::from_secs(75),
    max_age: Duration::from_secs(3600),
};

/// When the connection is too old, where nothing else is due.
fn old_age(vitals: &Vitals) -> Option<Instant> {
    Some(vitals.born + TIMEOUTS.max_age)
}

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
fn net_4_an_old_connection_ends_after_what_is_under_way() {
    for multiplexed in [false, true] {
        let vitals = Vitals::new(TIMEOUTS, multiplexed);
        let exchange = vitals.begin_exchange();
        let old = vitals.born + seconds(3600);
        assert_eq!(vitals.verdict(old - seconds(1)), Verdict::Look(old));
        assert_eq!(vitals.verdict(old), Verdict::TooOld);
        vitals.retire();
        assert_eq!(vitals.due(), None, "the exchange goes on");
        drop(exchange);
        let idle = vitals.since.get() + seconds(75);
        assert_eq!(vitals.verdict(idle), Verdict::Expired(Phase::Idle));
    }
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

/// A connection of HTTP/1 that has been silent since that moment, after one request.
fn silent() -> (Rc<Vitals>, Instant) {
    let vitals = Vitals::new(TIMEOUTS, false);
    drop(vitals.begin_exchange());
    let since = vitals.since.get();
    (vitals, since)
}

#[test]
fn a_silent_connection_rests_after_a_second() {
    let (vitals, since) = silent();
    let due = since + REST_AFTER;
    let just_before = due - Duration::from_millis(1);
    assert_eq!(vitals.verdict(just_before), Verdict::Look(due));
    assert_eq!(vitals.verdict(due), Verdict::Rest);
    vitals.set_resting(true);
    let keep_alive = since + seconds(75);
    assert_eq!(vitals.verdict(due), Verdict::Look(keep_alive));
    assert_eq!(vitals.verdict(keep_alive), Verdict::Expired(Phase::Idle));
    vitals.set_resting(false);
    let woken = vitals.woken.get();
    assert_eq!(
        vitals.verdict(woken),
        Verdict::Look(woken + REST_AFTER),
        "what has come may be less than a record"
    );
    assert_eq!(vitals.verdict(keep_alive), Verdict::Expired(Phase::Idle));
}

#[test]
fn what_is_not_silent_does_not_rest() {
    let later = |since: Instant| since + seconds(5);
    let new = Vitals::new(TIMEOUTS, false);
    assert!(matches!(
        new.verdict(later(new.since.get())),
        Verdict::Look(_)
    ));
    let (in_head, since) = silent();
    in_head.bytes_arrived(b"G");
    assert!(matches!(in_head.verdict(later(since)), Verdict::Look(_)));
    let (in_exchange, since) = silent();
    let _exchange = in_exchange.begin_exchange();
    assert!(matches!(
        in_exchange.verdict(later(since)),
        Verdict::Look(_)
    ));
    let (blocked, since) = silent();
    blocked.write_outcome::<()>(&Poll::Pending);
    assert!(matches!(blocked.verdict(later(since)), Verdict::Look(_)));
    let multiplexed = Vitals::new(TIMEOUTS, true);
    drop(multiplexed.begin_exchange());
    let since = multiplexed.since.get();
    assert!(matches!(
        multiplexed.verdict(later(since)),
        Verdict::Look(_)
    ));
}

#[test]
fn the_timer_is_left_alone_while_requests_flow() {
    let (vitals, since) = silent();
    let latest = vitals.look_before().unwrap();
    assert!(
        latest >= since + REST_AFTER * 2,
        "set for the last silence, it is good enough for this one"
    );
    let exchange = vitals.begin_exchange();
    assert_eq!(vitals.look_before(), None);
    drop(exchange);
    vitals.bytes_arrived(b"G");
    assert_eq!(
        vitals.look_before(),
        vitals.due(),
        "a head has its own deadline"
    );
}

#[test]
fn net_4_silence_after_a_long_exchange_is_looked_for_in_time() {
    let vitals = Vitals::new(TIMEOUTS, true);
    let now = vitals.born + seconds(75);
    let _exchange = vitals.begin_exchange();
    assert_eq!(vitals.verdict(now), Verdict::Look(now + seconds(75)));
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
    let old = old_age(&vitals);
    assert_eq!(vitals.due(), old, "the upstream's turn has its own limits");
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
    assert_eq!(vitals.due(), old);
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

/// A stream that takes a byte at a time, and nothing every second time.
#[derive(Default)]
struct Narrow {
    taken: Vec<u8>,
    is_open: bool,
    ends_soon: Cell<bool>,
}

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_open = !self.is_open;
        if !self.is_open {
            return Poll::Pending;
        }
        self.taken.extend(bytes.first());
        Poll::Ready(Ok(bytes.len().min(1)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Finish for Narrow {
    fn end_soon(&self) {
        self.ends_soon.set(true);
    }
}

/// Writes all of it as hyper does: again and again, then a flush.
fn write(stream: &mut Watched<Narrow>, bytes: &[u8]) {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut written = 0;
    while written < bytes.len() {
        let rest = &bytes[written..];
        if let Poll::Ready(count) = Pin::new(&mut *stream).poll_write(&mut cx, rest) {
            written += count.unwrap();
        }
    }
    while Pin::new(&mut *stream).poll_flush(&mut cx).is_pending() {}
}

#[test]
fn cfg_3_a_new_connection_has_time_for_its_first_request_when_the_gateway_leaves() {
    let vitals = Vitals::new(TIMEOUTS, true);
    let born = vitals.born;
    assert!(!vitals.may_end(born));
    vitals.leave();
    assert!(vitals.is_urgent(), "the timer was set for silence");
    assert_eq!(vitals.due(), Some(born + TRIAL));
    assert_eq!(vitals.verdict(born), Verdict::Look(born + TRIAL));
    assert_eq!(vitals.verdict(born + TRIAL), Verdict::TooOld);
    drop(vitals.begin_exchange());
    assert!(vitals.may_end(born), "it has had one");
}

#[test]
fn only_the_end_of_a_clients_last_answer_waits_for_the_end_of_the_connection() {
    let vitals = Vitals::new(TIMEOUTS, false);
    let mut stream = Watched::new(Narrow::default(), Rc::clone(&vitals));
    drop(vitals.begin_exchange());
    write(&mut stream, b"an answer");
    vitals.expect_no_more();
    let exchange = vitals.begin_exchange();
    write(&mut stream, b"the last one begins");
    assert!(!stream.stream.ends_soon.get());
    drop(exchange);
    write(&mut stream, b"and ends");
    assert!(stream.stream.ends_soon.get());
}

#[test]
fn a_connection_is_over_at_once_only_where_its_last_answer_has_left() {
    for (bytes, is_over) in [(9, true), (AT_ONCE, true), (AT_ONCE + 1, false)] {
        let vitals = Vitals::new(TIMEOUTS, false);
        vitals.expect_no_more();
        drop(vitals.begin_exchange());
        vitals.count_written(bytes);
        assert!(!vitals.is_over());
        vitals.is_shut.set(true);
        assert_eq!(vitals.is_over(), is_over, "{bytes}");
    }
}

#[test]
fn msg_14_interim_heads_are_written_whole_and_first() {
    let early = Rc::new(EarlyHeads::default());
    let vitals = Vitals::new(TIMEOUTS, false);
    let mut stream = Watched::new(Narrow::default(), vitals).with_early(Rc::clone(&early));
    write(&mut stream, b"[first]");
    early.unwritten().borrow_mut().extend_from_slice(b"{hint}");
    write(&mut stream, b"[second]");
    early.unwritten().borrow_mut().extend_from_slice(b"{alone}");
    write(&mut stream, b"");
    assert_eq!(stream.stream.taken, b"[first]{hint}[second]{alone}");
}

#[test]
fn msg_14_there_is_no_place_between_a_write_and_its_flush() {
    let early = Rc::new(EarlyHeads::default());
    assert!(!early.is_flushed(), "without a stream there is none either");
    let vitals = Vitals::new(TIMEOUTS, false);
    let mut stream = Watched::new(Narrow::default(), vitals).with_early(Rc::clone(&early));
    assert!(early.is_flushed());
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let _ = Pin::new(&mut stream).poll_write(&mut cx, b"ab");
    assert!(!early.is_flushed());
    let _ = Pin::new(&mut stream).poll_write(&mut cx, b"b");
    assert!(!early.is_flushed(), "nothing was taken of it");
    let _ = Pin::new(&mut stream).poll_write(&mut cx, b"b");
    assert!(!early.is_flushed(), "hyper may have more");
    let _ = Pin::new(&mut stream).poll_flush(&mut cx);
    assert!(early.is_flushed());
}
