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

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{sync::oneshot, task::AbortHandle, time::timeout};

use super::{
    Server,
    body::{RequestBody, UploadProgress},
    connect::connect,
    heard::{Ear, Heard},
};
use crate::policy::Rejection;

/// The largest header section of an answer, in bytes (UP-8).
const ANSWER_HEADER_BYTES_MAX: usize = 64 << 10;

/// One worker's connections to one server.
#[derive(Debug)]
pub struct Pool {
    server: Arc<Server>,
    idle: RefCell<Vec<Idle>>,
    open: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<()>>>,
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

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// An open connection. Dropped, it closes, whatever is still under way on it.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<RequestBody>,
    task: AbortHandle,
    open: OpenCount,
    ear: Ear,
}

/// Counts a connection, or the attempt at one, from before the dial to the drop.
#[derive(Debug)]
struct OpenCount(Rc<Pool>);

/// A place in the queue for a connection.
struct Turn<'p> {
    pool: &'p Pool,
    receiver: oneshot::Receiver<()>,
    taken: bool,
}

/// Why a request was not answered.
#[derive(Debug)]
pub(super) struct SendFault {
    /// The reason.
    pub(super) error: hyper::Error,
    /// The request, where no byte of it was sent.
    pub(super) unsent: Option<Box<Request<RequestBody>>>,
}

/// A connection in use by one exchange. It returns to the pool by [`Lease::release`] alone; dropped, it closes.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    reused: bool,
    retired: bool,
    upload: Option<Rc<UploadProgress>>,
}

impl Pool {
    /// Makes an empty pool.
    #[must_use]
    pub fn new(server: Arc<Server>, caps: Caps) -> Rc<Self> {
        Rc::new(Self {
            server,
            idle: RefCell::default(),
            open: Cell::new(0),
            waiting: RefCell::default(),
            caps: Caps {
                connections: caps.connections.max(1),
                pending: caps.pending,
            },
        })
    }

    /// Takes the connection used last, or opens one, or waits for one while all are in use. `fresh` passes over the kept
    /// ones, `within` bounds a dial. Cancel-safe: a dropped wait leaves its place in the queue.
    ///
    /// # Errors
    /// [`Rejection::Overloaded`] when too many wait already or the wait exceeds the connect timeout,
    /// [`Rejection::UpstreamUnreachable`] or [`Rejection::UpstreamTls`] when none can be opened `within` that time.
    pub async fn lease(self: &Rc<Self>, fresh: bool, within: Duration) -> Result<Lease, Rejection> {
        loop {
            if !fresh && let Some(connection) = self.take_idle() {
                connection.ear.begin();
                return Ok(Lease {
                    connection,
                    reused: true,
                    retired: false,
                    upload: None,
                });
            }
            if self.open.get() >= self.caps.connections {
                // An idle connection that is not ready, or one that a fresh dial passes over, makes room.
                if fresh && self.idle.borrow_mut().pop().is_some() {
                    continue;
                }
                self.wait().await?;
                continue;
            }
            let connection = self.dial(within).await?;
            return Ok(Lease {
                connection,
                reused: false,
                retired: false,
                upload: None,
            });
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
        let in_use = self.open.get().saturating_sub(self.idle.borrow().len());
        in_use + self.waiting.borrow().len()
    }

    /// Closes the connections that were not used for the idle timeout.
    pub fn sweep(&self, now: Instant) {
        let keep =
            |idle: &Idle| !idle.connection.sender.is_closed() && !self.has_expired(idle, now);
        let expired: Vec<Idle> = {
            let mut idle = self.idle.borrow_mut();
            let (kept, expired) = idle.drain(..).partition(keep);
            *idle = kept;
            expired
        };
        // Dropped outside the borrow: each drop wakes a waiter.
        drop(expired);
    }

    fn has_expired(&self, idle: &Idle, now: Instant) -> bool {
        now.duration_since(idle.since) >= self.server.settings().idle_timeout
    }

    fn take_idle(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        // The one used last is the one most likely still open. One that is not ready has just been given back and its task
        // has not run yet: it stays for the next request.
        let usable =
            |idle: &Idle| idle.connection.sender.is_ready() && !self.has_expired(idle, now);
        let place = idle.iter().rposition(usable)?;
        Some(idle.remove(place).connection)
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
            Ok(_) => {
                turn.taken = true;
                Ok(())
            }
            Err(_elapsed) => Err(Rejection::Overloaded),
        }
    }

    fn wake_one(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(sender) = waiting.pop_front() {
            if sender.send(()).is_ok() {
                return;
            }
        }
    }

    async fn dial(self: &Rc<Self>, within: Duration) -> Result<Connection, Rejection> {
        self.open.set(self.open.get() + 1);
        let open = OpenCount(Rc::clone(self));
        let connected = connect(&self.server, within).await;
        self.server.report(connected.as_ref().map(drop));
        let stream = connected?;
        let ear = Ear::default();
        let handshake = http1::Builder::new()
            .max_header_size(ANSWER_HEADER_BYTES_MAX)
            .handshake(TokioIo::new(Heard::new(stream, ear.clone())))
            .await;
        let (sender, driver) = handshake.map_err(|_| Rejection::UpstreamUnreachable)?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Connection {
            sender,
            task: task.abort_handle(),
            open,
            ear,
        })
    }
}

impl Drop for Turn<'_> {
    /// A turn that came to somebody who had gone is the next one's.
    fn drop(&mut self) {
        self.receiver.close();
        if !self.taken && self.receiver.try_recv().is_ok() {
            self.pool.wake_one();
        }
    }
}

impl Lease {
    /// Sends a request, and waits for the head of its answer. Dropped, it takes the request back: what was sent of it is
    /// not a whole one.
    ///
    /// # Errors
    /// Why there is no answer, with the request where no byte of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendFault> {
        let sent = self.connection.sender.try_send_request(request).await;
        sent.map_err(SendFault::from)
    }

    /// Whether the connection served an exchange before: the upstream may have closed it just now.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether a byte has come on the connection since it was taken.
    pub(super) fn has_heard(&self) -> bool {
        self.connection.ear.has_heard()
    }

    /// Watches the request's body: a connection whose request was not sent whole is not used again (UP-1).
    pub(super) fn watch(&mut self, upload: Rc<UploadProgress>) {
        self.upload = Some(upload);
    }

    /// Sees to it that the connection is not used again.
    pub(super) fn retire(&mut self) {
        self.retired = true;
    }

    /// Gives the connection back after an answer that ended properly.
    pub fn release(self) {
        let sent_whole = self
            .upload
            .as_ref()
            .is_none_or(|upload| upload.finished().is_some());
        if !sent_whole || self.retired || self.connection.sender.is_closed() {
            return;
        }
        let pool = Rc::clone(&self.connection.open.0);
        pool.idle.borrow_mut().push(Idle {
            connection: self.connection,
            since: Instant::now(),
        });
        pool.wake_one();
    }
}

impl From<TrySendError<Request<RequestBody>>> for SendFault {
    fn from(mut failure: TrySendError<Request<RequestBody>>) -> Self {
        Self {
            unsent: failure.take_message().map(Box::new),
            error: failure.into_error(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.wake_one();
    }
}
