//! Connections to one server, kept by one worker.
//!
//! A worker's pool is never touched by another thread: no lock, and a request never changes cores. The caps of the
//! configuration are shared out among the workers when the pools are made.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{sync::oneshot, time::timeout};

use super::{
    Server,
    connect::{Stream, connect},
    driver::Driver,
    heard::{Ear, Heard},
    http2::{Place, Shared},
    lease::{Connection, Lease, Own},
    pins::Seats,
};
use crate::{moment, policy::Rejection};

/// The largest header section of an answer, in bytes (UP-8).
const ANSWER_HEADER_BYTES_MAX: usize = 64 << 10;

/// One worker's connections to one server.
#[derive(Debug)]
pub struct Pool {
    server: Arc<Server>,
    idle: RefCell<Vec<Idle>>,
    /// The connections that carry many requests at once, in use or not.
    shared: RefCell<Vec<Rc<Shared>>>,
    /// Whether new connections are expected to be such.
    shares: Cell<bool>,
    /// Whether one is being opened that others wait for.
    dialing: Cell<bool>,
    open: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<Outcome>>>,
    /// Connections that belong to one client connection each.
    pinned: Seats,
    caps: Caps,
}

/// One worker's share of a server's caps.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Open connections, 1 or more.
    pub connections: usize,
    /// Requests that wait for one.
    pub pending: usize,
}

/// What comes of a wait: a turn to look again, or why there will be none.
type Outcome = Result<(), Rejection>;

/// A connection that waits for its next exchange.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) connection: Box<Own>,
    pub(super) since: Instant,
}

/// A dial that others wait for.
struct Dial<'p>(&'p Pool);

/// Counts a connection, or the attempt at one, from before the dial to the drop.
#[derive(Debug)]
pub(super) struct OpenCount(Rc<Pool>);

/// A place in the queue for a connection.
struct Turn<'p> {
    pool: &'p Pool,
    receiver: oneshot::Receiver<Outcome>,
    taken: bool,
}

impl Pool {
    /// Makes an empty pool.
    #[must_use]
    pub fn new(server: Arc<Server>, caps: Caps) -> Rc<Self> {
        Rc::new(Self {
            shares: Cell::new(server.may_share()),
            server,
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialing: Cell::new(false),
            open: Cell::new(0),
            waiting: RefCell::default(),
            pinned: Seats::default(),
            caps: Caps {
                connections: caps.connections.max(1),
                pending: caps.pending,
            },
        })
    }

    /// Takes the connection used last, or a place on one that others use too, if there is one at this moment. `fresh` passes over
    /// them all.
    pub fn lease_kept(&self, fresh: bool) -> Option<Lease> {
        let connection = if fresh { None } else { self.take() };
        connection.map(|connection| Lease::new(connection, true))
    }

    /// As [`lease_kept`](Self::lease_kept); where there is none it opens one, or waits while all are in use.
    /// `fresh` passes over the kept ones, `within` bounds a dial. Cancel-safe: a dropped wait leaves its place in the queue.
    ///
    /// # Errors
    /// [`Rejection::Overloaded`] when too many wait already or the wait exceeds the connect timeout,
    /// [`Rejection::UpstreamUnreachable`] or [`Rejection::UpstreamTls`] when none can be opened `within` that time.
    pub async fn lease(self: &Rc<Self>, fresh: bool, within: Duration) -> Result<Lease, Rejection> {
        loop {
            if let Some(lease) = self.lease_kept(fresh) {
                return Ok(lease);
            }
            if self.open.get() >= self.caps.connections {
                // An idle connection that is not ready, or one that a fresh dial passes over, makes room.
                if fresh && self.close_idle() || self.pinned.reclaim() {
                    continue;
                }
                self.wait().await?;
                continue;
            }
            // The one that is being opened will carry this request, too.
            if self.dialing.get() {
                self.wait().await?;
                continue;
            }
            let connection = self.dial(within).await?;
            return Ok(Lease::new(connection, false));
        }
    }

    /// Whether no connection is open or being opened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.get() == 0
    }

    /// Requests under way: connections in use or being opened, and those who wait for one.
    #[must_use]
    pub fn load(&self) -> usize {
        let shared = self.shared.borrow();
        let kept = self.idle.borrow().len() + shared.len();
        let streams: usize = shared.iter().map(|shared| shared.streams()).sum();
        self.open.get().saturating_sub(kept) + streams + self.waiting.borrow().len()
    }

    /// Closes the connections that were not used for the idle timeout, and all that nobody will use.
    pub fn sweep(&self, now: Instant) {
        let keep = |idle: &mut Idle| {
            idle.connection.driver.look();
            !idle.connection.sender.is_closed()
                && !self.has_expired(idle.since, now)
                && self.server.target().has(idle.connection.peer)
        };
        let expired: Vec<Idle> = {
            let mut idle = self.idle.borrow_mut();
            idle.extract_if(.., |idle| !keep(idle)).collect()
        };
        // Dropped outside the borrow: each drop wakes a waiter.
        drop(expired);
        drop(self.take_unfit(now));
        let idle_timeout = match self.server.is_retired() {
            true => Duration::ZERO,
            false => self.server.settings().idle_timeout,
        };
        self.pinned.sweep(now, idle_timeout);
    }

    /// Keeps a connection that an exchange has no more use for. Nobody who waits hears of it yet.
    pub(super) fn keep(&self, idle: Idle) {
        // The name may lead elsewhere by now, and nobody may come any more.
        if self.server.is_retired() || !self.server.target().has(idle.connection.peer) {
            return;
        }
        self.idle.borrow_mut().push(idle);
    }

    /// The connections that belong to one client connection each.
    pub(super) fn pinned(&self) -> &Seats {
        &self.pinned
    }

    fn has_expired(&self, since: Instant, now: Instant) -> bool {
        self.server.is_retired() || now.duration_since(since) >= self.server.settings().idle_timeout
    }

    fn take(&self) -> Option<Connection> {
        let now = moment::recent();
        if let Some(own) = self.take_idle(now) {
            return Some(Connection::Own(own));
        }
        self.take_place(now).map(Connection::Shared)
    }

    fn take_idle(&self, now: Instant) -> Option<Box<Own>> {
        let mut idle = self.idle.borrow_mut();
        // The one used last is the one most likely still open. One that is not ready has something left to do and a task for that
        // ([`Lease::release`]): it stays for the next request.
        let usable = |idle: &mut Idle| {
            let Own { driver, sender, .. } = &mut *idle.connection;
            if driver.has_rung() {
                driver.look();
            }
            sender.is_ready() && !self.has_expired(idle.since, now)
        };
        let place = idle.iter_mut().rposition(usable)?;
        Some(idle.remove(place).connection)
    }

    /// The first connection with room is the one: those behind it become idle and close.
    fn take_place(&self, now: Instant) -> Option<Place> {
        if self.shared.borrow().is_empty() {
            return None;
        }
        drop(self.take_unfit(now));
        let shared = self.shared.borrow();
        let first = shared.iter().find(|shared| shared.room() > 0)?;
        Some(first.place())
    }

    /// Takes the shared connections out that get no more requests. Exchanges that are under way on them go on.
    fn take_unfit(&self, now: Instant) -> Vec<Rc<Shared>> {
        let is_fit = |shared: &Rc<Shared>| {
            let expired = |since| self.has_expired(since, now);
            !shared.is_closed()
                && !shared.idle_since().is_some_and(expired)
                && self.server.target().has(shared.peer())
        };
        let mut shared = self.shared.borrow_mut();
        if shared.iter().all(is_fit) {
            return Vec::new();
        }
        let (fit, unfit) = shared.drain(..).partition(is_fit);
        *shared = fit;
        unfit
    }

    /// Closes a connection that nobody uses; whether there was one.
    fn close_idle(&self) -> bool {
        if self.idle.borrow_mut().pop().is_some() {
            return true;
        }
        let mut shared = self.shared.borrow_mut();
        let idle = shared.iter().position(|shared| shared.streams() == 0);
        let idle = idle.map(|place| shared.remove(place));
        drop(shared);
        idle.is_some()
    }

    async fn wait(&self) -> Result<(), Rejection> {
        let mut turn = {
            let mut waiting = self.waiting.borrow_mut();
            waiting.retain(|sender| !sender.is_closed());
            if waiting.len() >= self.caps.pending {
                return Err(Rejection::Overloaded);
            }
            let (sender, receiver) = oneshot::channel();
            waiting.push_back(sender);
            Turn {
                pool: self,
                receiver,
                taken: false,
            }
        };
        match timeout(self.server.settings().connect_timeout, &mut turn.receiver).await {
            Ok(outcome) => {
                turn.taken = true;
                outcome.unwrap_or(Ok(()))
            }
            Err(_elapsed) => Err(Rejection::Overloaded),
        }
    }

    /// Has so many of those who wait look again.
    pub(super) fn wake(&self, count: usize) {
        let mut waiting = self.waiting.borrow_mut();
        let mut left = count;
        while left > 0
            && let Some(sender) = waiting.pop_front()
        {
            left -= usize::from(sender.send(Ok(())).is_ok());
        }
    }

    async fn dial(self: &Rc<Self>, within: Duration) -> Result<Connection, Rejection> {
        self.open.set(self.open.get() + 1);
        let open = OpenCount(Rc::clone(self));
        let dial = self.shares.get().then(|| Dial::begin(self));
        let begun = Instant::now();
        let connected = connect(&self.server, within).await;
        self.server.report(connected.as_ref().map(drop));
        let outcome = match connected {
            Ok(stream) => {
                let left = within.saturating_sub(begun.elapsed());
                let spoken = timeout(left, self.speak(stream, open)).await;
                spoken.unwrap_or(Err(Rejection::UpstreamUnreachable))
            }
            Err(fault) => Err(fault.into()),
        };
        if let Some(dial) = dial {
            dial.end(&outcome);
        }
        outcome
    }

    /// Begins HTTP on an open stream, in the version that both sides speak.
    async fn speak(&self, stream: Stream, open: OpenCount) -> Result<Connection, Rejection> {
        let unreachable = |_| Rejection::UpstreamUnreachable;
        let shares = self.server.shares(&stream);
        self.shares.set(shares);
        if shares {
            let streams_max = self.server.settings().h2_streams;
            let shared = Shared::open(stream, streams_max, open).await;
            let shared = shared.map_err(unreachable)?;
            let place = shared.place();
            self.shared.borrow_mut().push(shared);
            return Ok(Connection::Shared(place));
        }
        let ear = Ear::default();
        let peer = stream.peer();
        let handshake = http1::Builder::new()
            .max_header_size(ANSWER_HEADER_BYTES_MAX)
            .handshake(TokioIo::new(Heard::new(stream, ear.clone())))
            .await;
        let (sender, driver) = handshake.map_err(unreachable)?;
        Ok(Connection::Own(Box::new(Own {
            sender,
            driver: Driver::new(driver.with_upgrades()),
            open,
            ear,
            peer,
        })))
    }
}

impl<'p> Dial<'p> {
    fn begin(pool: &'p Pool) -> Self {
        pool.dialing.set(true);
        Self(pool)
    }

    /// Tells those who waited for it how it ended.
    fn end(self, outcome: &Result<Connection, Rejection>) {
        let pool = self.0;
        pool.dialing.set(false);
        match outcome {
            // One more than there is room for: it opens the next one.
            Ok(Connection::Shared(place)) => pool.wake(place.room().saturating_add(1)),
            Ok(Connection::Own(_)) => pool.wake(pool.caps.connections),
            // Each would only find out the same, one after the other.
            Err(rejection) if pool.shared.borrow().is_empty() => {
                for sender in pool.waiting.borrow_mut().drain(..) {
                    let _ = sender.send(Err(rejection.clone()));
                }
            }
            Err(_) => {}
        }
    }
}

impl Idle {
    pub(super) fn now(connection: Box<Own>) -> Self {
        connection.driver.rest();
        Self {
            connection,
            since: moment::recent(),
        }
    }
}

impl OpenCount {
    /// Whose it is.
    pub(super) fn pool(&self) -> &Rc<Pool> {
        &self.0
    }
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        self.0.dialing.set(false);
    }
}

impl Drop for Turn<'_> {
    /// A turn that came to somebody who had gone is the next one's.
    fn drop(&mut self) {
        self.receiver.close();
        if !self.taken && self.receiver.try_recv().is_ok() {
            self.pool.wake(1);
        }
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.wake(1);
    }
}
