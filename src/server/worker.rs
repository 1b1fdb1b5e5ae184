//! One worker: one thread, one runtime, one listening socket for each address, its own connections to the upstreams.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{interval, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    caps::{ConnectionCaps, ConnectionSlot},
    connection,
    drain::{Drain, Haste, PARTS},
    redirect::{self, Redirects},
    settings::ServerSettings,
    spare_memory,
    terms::{CurrentTerms, Terms},
    tls::Tls,
};
use crate::{
    gateway::{Gateway, Lane},
    keepalive::Inherited,
    limit::{MemoryPressure, MemoryStage},
    policy::PeerIp,
    telemetry::{Connections, HandshakeResult, Telemetry},
};

/// How often unused upstream connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// While memory is scarce, how often some of the connections are told to end: clients that all came back at once would need more
/// memory than they gave.
const RELIEF_INTERVAL: Duration = Duration::from_millis(250);
/// Bounds of the wait after an accept that failed for want of descriptors or memory (NET-1).
const ACCEPT_BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Of the drain's time after a succession, what is kept for closing the connections that have stayed silent: their farewell, twice.
const CLOSING: Duration = Duration::from_secs(2);
/// Connections that the kernel keeps for a listener until they are accepted.
const BACKLOG: u16 = 1024;
/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sending browsers on.
    Redirect,
    /// Serving, over TLS.
    Tls,
}

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The running configuration.
    pub gateway: Arc<ArcSwap<Gateway>>,
    /// Counters and the access log.
    pub telemetry: Arc<Telemetry>,
    /// The caps on connections.
    pub caps: Arc<ConnectionCaps>,
    /// Those of connections without TLS.
    pub redirect_caps: Arc<ConnectionCaps>,
    /// What new connections are encrypted with.
    pub tls: Arc<Tls>,
    /// What the configuration says of connections.
    pub settings: Arc<ArcSwap<ServerSettings>>,
    /// Cancelled when the listeners close.
    pub closing: CancellationToken,
    /// Set when the node is about to leave: connections are still taken, and kept ones asked to go elsewhere.
    pub leaving: Arc<AtomicBool>,
    /// Set before the listeners close when another gateway serves on the same sockets.
    pub succeeded: Arc<AtomicBool>,
}

/// What the connections of one worker share.
#[derive(Debug)]
pub struct Worker {
    pub(super) gateway: Arc<ArcSwap<Gateway>>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) lane: Rc<Lane>,
    pub(super) memory: Arc<MemoryPressure>,
    pub(super) tls: Arc<Tls>,
    pub(super) terms: CurrentTerms,
    pub(super) open_connections: Connections,
    pub(super) redirects: Redirects,
    pub(super) open_redirects: Connections,
    pub(super) drain: Drain,
    leaving: Arc<AtomicBool>,
}

/// Spawns HTTP/2 streams on the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

/// Serves on `listeners` until the listeners close and what was under way has ended or the drain timeout is over.
pub async fn run(shared: Shared, listeners: Vec<(Kind, TcpListener)>) {
    let worker = Rc::new(Worker::new(&shared));
    let connections = TaskTracker::new();
    let listeners = listeners.into_iter().map(|listener| {
        tokio::task::spawn_local(accept(
            Rc::clone(&worker),
            shared.clone(),
            listener,
            connections.clone(),
        ))
    });
    let listeners: Vec<_> = listeners.collect();
    let sweeper = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    let reliever = tokio::task::spawn_local(relieve(Rc::clone(&worker)));
    shared.closing.cancelled().await;
    for accepting in listeners {
        if let Err(error) = accepting.await {
            tracing::error!(%error, "a listener ended by a panic");
        }
    }
    connections.close();
    let (began, patience) = (tokio::time::Instant::now(), worker.terms.drain_timeout());
    let deadline = began + patience;
    if shared.succeeded.load(Ordering::Relaxed) {
        worker.drain.request(Haste::Patient);
        let patience = patience.saturating_sub(CLOSING);
        let _ = timeout_at(began + patience, connections.wait()).await;
    }
    worker.drain.request(Haste::Prompt);
    if timeout_at(deadline, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "drain timeout: closing what is still open"
        );
    }
    sweeper.abort();
    reliever.abort();
}

async fn accept(
    worker: Rc<Worker>,
    shared: Shared,
    (kind, listener): (Kind, TcpListener),
    connections: TaskTracker,
) {
    let (shortest, longest) = ACCEPT_BACK_OFF;
    let mut back_off = shortest;
    let mut inherited = Inherited::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                back_off = shortest;
                let terms = worker.terms.get();
                inherited.see_to(&listener, &stream, terms.gone_after());
                worker.serve(terms, (kind, stream, peer), &shared, &connections);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                shared.telemetry.accept_failed();
                tracing::warn!(%error, wait = ?back_off, "cannot accept connections");
                sleep(back_off).await;
                back_off = (back_off * 2).min(longest);
            }
        }
    }
    // A socket that closes resets the connections that nobody has accepted from it: their clients would be refused (CFG-3).
    let Ok(listener) = listener.into_std() else {
        return;
    };
    for (stream, peer) in accept_waiting(&listener) {
        let terms = worker.terms.get();
        inherited.see_to(&listener, &stream, terms.gone_after());
        worker.serve(terms, (kind, stream, peer), &shared, &connections);
    }
}

/// Accepts what waits now, as far as there are descriptors for it.
fn accept_waiting(listener: &std::net::TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let accept = || {
        let (stream, peer) = listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok((TcpStream::from_std(stream)?, peer))
    };
    (0..BACKLOG)
        .map_while(|_| std::io::Result::ok(accept()))
        .collect()
}

/// Whether a failed accept concerns only the connection that would have been.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        worker.lane.pools.sweep(Instant::now());
        worker.lane.vigil.look();
        worker.lane.last_tokens.forget_unused();
        spare_memory::give_back();
    }
}

/// While memory is scarce, has the connections look whether they should end. Until then the worker sleeps.
async fn relieve(worker: Rc<Worker>) {
    loop {
        worker.memory.until_scarce().await;
        let mut ticks = interval(RELIEF_INTERVAL);
        let mut rounds = PARTS;
        while rounds > 0 {
            ticks.tick().await;
            worker.drain.wake_part();
            // Each once more when it is over: those that read nothing go on then.
            rounds = match worker.memory.is_at(MemoryStage::Lean) {
                true => PARTS,
                false => rounds - 1,
            };
        }
    }
}

impl Worker {
    fn new(shared: &Shared) -> Self {
        let settings = shared.settings.load();
        let revocations = Arc::clone(shared.gateway.load().authn.revocations());
        Self {
            gateway: Arc::clone(&shared.gateway),
            telemetry: Arc::clone(&shared.telemetry),
            lane: Rc::new(Lane::new(settings.workers, revocations)),
            memory: Arc::clone(&shared.gateway.load().memory),
            tls: Arc::clone(&shared.tls),
            terms: CurrentTerms::of(&shared.settings),
            open_connections: shared.telemetry.connections("tls"),
            redirects: Redirects::to(&settings.public_url, &shared.telemetry),
            open_redirects: shared.telemetry.connections("redirect"),
            drain: Drain::default(),
            leaving: Arc::clone(&shared.leaving),
        }
    }

    /// Serves a connection that was accepted, if it may go on, in a task of its own.
    fn serve(
        self: &Rc<Self>,
        terms: Rc<Terms>,
        (kind, stream, peer): (Kind, TcpStream, SocketAddr),
        shared: &Shared,
        connections: &TaskTracker,
    ) {
        let peer = PeerIp::new(peer.ip());
        let Some(slot) = self.admit(kind, &terms, shared, peer) else {
            return;
        };
        let worker = Rc::clone(self);
        match kind {
            Kind::Tls => {
                connections.spawn_local(connection::serve(worker, terms, stream, peer, slot));
            }
            Kind::Redirect => {
                let closing = shared.closing.clone();
                let served = redirect::serve(worker, stream, peer, slot, closing);
                connections.spawn_local(served);
            }
        }
    }

    /// Whether a client had better take its next request elsewhere.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Decides at accept whether a connection may go on. Where proxies name the clients, theirs is the one address that is known
    /// yet: a stranger is turned away before anything is read (NET-10), and the client's own cap is looked at later.
    fn admit(
        &self,
        kind: Kind,
        terms: &Terms,
        shared: &Shared,
        peer: PeerIp,
    ) -> Option<ConnectionSlot> {
        if self.memory.is_at(MemoryStage::Closed) {
            self.telemetry.shed();
            return None;
        }
        let slot = match (kind, &terms.relays) {
            (Kind::Redirect, _) => shared.redirect_caps.admit_from(peer),
            (Kind::Tls, None) => shared.caps.admit_from(peer),
            (Kind::Tls, Some(relays)) if relays.trusts(peer) => shared.caps.admit(),
            (Kind::Tls, Some(_)) => {
                self.telemetry.handshake(HandshakeResult::NotRelayed);
                tracing::debug!(peer = %peer.ip(), "connection closed: not one of trusted_proxies");
                return None;
            }
        };
        if slot.is_none() {
            tracing::debug!(peer = %peer.ip(), "connection closed: a cap is reached");
        }
        slot
    }
}

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        // On the heap first: the runtime moves a task three times while it makes it, and a stream of HTTP/2 is large. It is written
        // into its place; `Box::pin` would copy it once more.
        let task = Box::into_pin(Box::write(Box::new_uninit(), future));
        tokio::task::spawn_local(task);
    }
}

/// Finds out whether nobody else listens on an address. The workers' sockets share it, and would share it with those of another
/// gateway of the same user just as well: each of the two would then get a part of the connections.
///
/// # Errors
/// When the address is taken or not ours.
pub fn claim(address: SocketAddr) -> std::io::Result<()> {
    use socket2::{Domain, Protocol, Socket, Type};
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a gateway that has just ended do not count.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

/// Opens one listening socket that shares its port with those of the other workers.
///
/// # Errors
/// When the address is taken or not ours.
pub fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG.into())?;
    Ok(socket.into())
}
