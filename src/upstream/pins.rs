//! Upstream connections that belong to one client connection (UP-6).
//!
//! NTLM, and Negotiate as it is commonly done (RFC 4559 §6), authenticate a connection and not a request: whoever sends the
//! next request on it is taken for the user of the last one. So a connection on which such a scheme was offered or used never
//! goes back to the pool. It stays with the client connection that it served, is used by that one alone, and closes with it.
//!
//! A client connection has one such connection for each upstream, and few in all; the requests of an HTTP/2 client take turns
//! on it, for on another one they would be somebody else's. While none is pinned, nothing is done and nothing allocated.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Lease, Server, Upstream, lease::Own, pool::Idle};

/// The most upstreams at which one client connection has a connection of its own.
const SEATS_MAX: usize = 4;

/// Schemes that authenticate a connection.
const SCHEMES: [&str; 2] = ["negotiate", "ntlm"];

/// The upstream connections of one client connection.
#[derive(Debug, Default)]
pub struct Pins(RefCell<Vec<Rc<Seat>>>);

/// A place for one connection, used by one exchange after the other.
#[derive(Debug)]
struct Seat {
    server: u64,
    turn: Arc<Semaphore>,
    kept: RefCell<Option<Idle>>,
}

/// The turn of one exchange on a seat.
#[derive(Debug)]
pub(super) struct Turn {
    seat: Rc<Seat>,
    _turn: OwnedSemaphorePermit,
}

/// The seats at one server, of all client connections of a worker: so that idle ones can be closed.
#[derive(Debug, Default)]
pub(super) struct Seats(RefCell<Vec<Weak<Seat>>>);

/// Whether a field (`Authorization`, `WWW-Authenticate`) names a scheme that authenticates a connection. A comma within a
/// quoted string is taken for one between challenges: rather one connection pinned too many.
pub(super) fn binds<'v>(values: impl IntoIterator<Item = &'v HeaderValue>) -> bool {
    let is_one = |part: &[u8]| {
        let part = part.trim_ascii_start();
        let scheme = part
            .split(|byte| matches!(byte, b' ' | b'\t' | b'='))
            .next();
        let scheme = scheme.unwrap_or_default();
        SCHEMES
            .iter()
            .any(|name| scheme.eq_ignore_ascii_case(name.as_bytes()))
    };
    values
        .into_iter()
        .any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_one))
}

impl Pins {
    /// Whether no connection is pinned.
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Takes the connection that is pinned at one of the upstream's servers, as soon as the exchange that uses it has ended.
    /// `None` when there is none, or no longer.
    pub(super) async fn lease<'u>(
        &self,
        upstream: &'u Upstream,
    ) -> Option<(&'u Arc<Server>, Lease)> {
        let (server, seat) = self.find(upstream)?;
        let lease = seat.lease(server.settings().idle_timeout).await;
        if lease.is_none() {
            self.forget_empty();
        }
        Some((server, lease?))
    }

    /// Pins the connection of an exchange, from now on and for as long as it lives. One that has no place here serves this
    /// exchange to its end and then closes.
    pub(super) fn pin(&self, lease: &mut Lease, upstream: &Upstream, server: &Server) {
        lease.retire();
        self.forget_empty();
        if self.find(upstream).is_some() || self.0.borrow().len() >= SEATS_MAX {
            return;
        }
        let turn = Arc::new(Semaphore::new(1));
        let seat = Rc::new(Seat {
            server: server.id(),
            turn: Arc::clone(&turn),
            kept: RefCell::default(),
        });
        if let Ok(turn) = turn.try_acquire_owned() {
            self.0.borrow_mut().push(Rc::clone(&seat));
            lease.keep_at(Turn { seat, _turn: turn });
        }
    }

    fn forget_empty(&self) {
        self.0.borrow_mut().retain(|seat| seat.is_taken());
    }

    fn find<'u>(&self, upstream: &'u Upstream) -> Option<(&'u Arc<Server>, Rc<Seat>)> {
        let seats = self.0.borrow();
        let servers = upstream.servers();
        seats.iter().find_map(|seat| {
            let server = servers.iter().find(|server| server.id() == seat.server)?;
            Some((server, Rc::clone(seat)))
        })
    }
}

impl Seat {
    async fn lease(self: Rc<Self>, idle_timeout: Duration) -> Option<Lease> {
        let turn = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        let kept = self.kept.take()?;
        let turn = Turn {
            seat: self,
            _turn: turn,
        };
        if kept.since.elapsed() >= idle_timeout {
            return None;
        }
        Lease::pinned(kept.connection, turn).await
    }

    fn is_taken(&self) -> bool {
        self.turn.available_permits() == 0 || self.kept.borrow().is_some()
    }
}

impl Turn {
    /// Leaves the connection for the next exchange, and is over.
    pub(super) fn keep(self, connection: Box<Own>) {
        *self.seat.kept.borrow_mut() = Some(Idle::now(connection));
    }
}

impl Seats {
    pub(super) fn add(&self, turn: &Turn) {
        let mut seats = self.0.borrow_mut();
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Rc::downgrade(&turn.seat));
    }

    /// Closes the idle connection that was pinned first; `false` when there is none. Somebody who asks for nothing must not
    /// keep a connection from somebody who does.
    pub(super) fn reclaim(&self) -> bool {
        self.take_where(|_| true).is_some()
    }

    /// Closes the connections that were idle too long by now.
    pub(super) fn sweep(&self, now: Instant, idle_timeout: Duration) {
        let is_old = |idle: &mut Idle| {
            idle.connection.driver.look();
            let has_ended = idle.connection.sender.is_closed();
            has_ended || now.duration_since(idle.since) >= idle_timeout
        };
        while self.take_where(is_old).is_some() {}
    }

    /// Takes a connection out; it is dropped outside the borrow, for that wakes a waiter.
    fn take_where(&self, may_go: impl Fn(&mut Idle) -> bool) -> Option<Idle> {
        let seats = self.0.borrow();
        seats.iter().filter_map(Weak::upgrade).find_map(|seat| {
            let mut kept = seat.kept.borrow_mut();
            let goes = kept.as_mut().is_some_and(&may_go);
            if goes { kept.take() } else { None }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_6_schemes_of_connections_are_seen_among_others() {
        let check = |values: &[&str], want: bool| {
            let values: Vec<HeaderValue> = values
                .iter()
                .map(|value| HeaderValue::from_str(value).unwrap())
                .collect();
            assert_eq!(binds(&values), want, "{values:?}");
        };
        check(&["NTLM"], true);
        check(&["ntlm TlRMTVNTUAAB"], true);
        check(&["Negotiate"], true);
        check(&["NEGOTIATE YIIJvwYGKw=="], true);
        check(&["Basic realm=\"x\"", "NTLM"], true);
        check(&["Basic realm=\"x\", Negotiate"], true);
        check(&["Basic realm=\"x\",NTLM TlRM, Digest a=b"], true);
        check(&["Bearer realm=\"a, NTLM b\""], true);
        check(&[], false);
        check(&[""], false);
        check(&["Basic realm=\"NTLM\""], false);
        check(&["Basic bnRsbQ=="], false);
        check(&["Bearer realm=\"negotiate\", error=\"x\""], false);
        check(&["NTLMv2"], false);
    }
}
