//! Accepts connections, decrypts them, and gives each request to the gateway.
//!
//! Each worker is one thread with one runtime and its own listening sockets; a request never changes threads. Knows
//! sockets, TLS and HTTP connections; knows nothing of who may do what.

pub mod caps;
pub mod connection;
mod drain;
mod farewell;
mod frames;
pub mod handed;
mod http1;
pub mod proxy_protocol;
pub mod pulse;
pub mod redirect;
mod segments;
pub mod settings;
mod spare_memory;
pub mod takeover;
mod terms;
pub mod tls;
pub mod vitals;
pub mod worker;

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use arc_swap::ArcSwap;
use tokio::{net::TcpListener, task::LocalSet};
use tokio_util::sync::CancellationToken;

use self::{
    caps::{ConnectionCaps, raise_descriptor_limit},
    handed::Handed,
    pulse::{Pulse, Turns},
    settings::ServerSettings,
    tls::Tls,
    worker::{Kind, Shared},
};
use crate::{gateway::Gateway, telemetry::Telemetry};

/// Why the gateway cannot start to listen.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that cannot be bound.
    #[error("cannot listen on {address} ({key}){}", if_taken(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The key of the configuration that names it.
        key: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A socket that the service manager handed over and that is of no use.
    #[error("{0} (LISTEN_FDS)")]
    Handed(String),
    /// The gateway that runs and the one that is to take its place do not come together.
    #[error("{0} (server.takeover_socket)")]
    Takeover(String),
    /// A thread or runtime that the system refuses.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

/// What to do about an address that cannot be bound for somebody has it.
#[must_use]
pub fn if_taken(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        ": if that is a gateway that runs by this configuration, stop it first, or take its place with `portcullis run --takeover`"
    } else {
        ""
    }
}

/// Listening sockets, bound before anything else happens: a port that is taken ends the start with nothing served.
#[derive(Debug)]
pub struct Sockets {
    /// Those of each worker.
    by_worker: Vec<Listening>,
    /// The TLS addresses bound, ports resolved, in the order of `listen`.
    pub addresses: Vec<SocketAddr>,
    /// The addresses without TLS, likewise.
    pub redirects: Vec<SocketAddr>,
}

/// The sockets of one worker.
#[derive(Debug, Default)]
struct Listening {
    tls: Vec<std::net::TcpListener>,
    redirect: Vec<std::net::TcpListener>,
}

/// The running workers.
#[derive(Debug)]
pub struct Server {
    threads: Vec<thread::JoinHandle<()>>,
    pulses: Vec<Arc<Pulse>>,
    closing: CancellationToken,
    leaving: Arc<AtomicBool>,
    succeeded: Arc<AtomicBool>,
    live: LiveSettings,
}

/// What new connections are made under, where it can be changed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    settings: Arc<ArcSwap<ServerSettings>>,
    caps: Arc<ConnectionCaps>,
    redirect_caps: Arc<ConnectionCaps>,
}

impl LiveSettings {
    /// The settings of this moment.
    #[must_use]
    pub fn current(&self) -> Arc<ServerSettings> {
        self.settings.load_full()
    }

    /// The client connections that are open, over all workers.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.caps.open()
    }

    /// Changes what new connections are made under, and how many there may be. Listeners, workers and the place of redirects
    /// stay as they are: they need another start.
    pub fn set(&self, settings: ServerSettings) {
        self.caps
            .set(settings.max_connections, settings.max_connections_per_ip);
        self.redirect_caps.set_to_tenth_of(&self.caps);
        self.settings.store(Arc::new(settings));
    }
}

impl Sockets {
    /// Takes every address that was handed over, and binds the others once for each worker.
    ///
    /// # Errors
    /// [`StartError::Bind`] with the first address that cannot be bound.
    pub fn bind(settings: &ServerSettings, handed: &mut Handed) -> Result<Self, StartError> {
        let workers = settings.workers.max(1);
        let mut by_worker: Vec<_> = (0..workers).map(|_| Listening::default()).collect();
        let mut addresses = Vec::new();
        for asked in &settings.listen {
            let (address, sockets) = bind(*asked, "server.listen", workers, handed)?;
            addresses.push(address);
            deal(&mut by_worker, sockets, |worker| &mut worker.tls);
        }
        let mut redirects = Vec::new();
        for asked in &settings.redirect_listen {
            let (address, sockets) = bind(*asked, "server.redirect_listen", workers, handed)?;
            redirects.push(address);
            deal(&mut by_worker, sockets, |worker| &mut worker.redirect);
        }
        Ok(Self {
            by_worker,
            addresses,
            redirects,
        })
    }

    /// The same sockets once more, for the gateway that will take this one's place.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn try_clone_all(&self) -> io::Result<Vec<std::net::TcpListener>> {
        let workers = self.by_worker.iter();
        let sockets = workers.flat_map(|worker| worker.tls.iter().chain(&worker.redirect));
        sockets.map(std::net::TcpListener::try_clone).collect()
    }
}

/// Gives each worker its sockets of one address: one, or where more were handed over than there are workers, some two.
fn deal(
    by_worker: &mut [Listening],
    sockets: Vec<std::net::TcpListener>,
    list: fn(&mut Listening) -> &mut Vec<std::net::TcpListener>,
) {
    let mut sockets = sockets.into_iter().peekable();
    while sockets.peek().is_some() && !by_worker.is_empty() {
        for (worker, socket) in by_worker.iter_mut().zip(&mut sockets) {
            list(worker).push(socket);
        }
    }
}

/// Takes or binds one address for every worker, and says which it is.
fn bind(
    asked: SocketAddr,
    key: &'static str,
    workers: usize,
    handed: &mut Handed,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), StartError> {
    let failed = |source| StartError::Bind {
        address: asked,
        key,
        source,
    };
    if let Some(sockets) = handed.claim(asked, workers).map_err(failed)? {
        return Ok((asked, sockets));
    }
    worker::claim(asked).map_err(failed)?;
    // Port 0 is resolved by the first worker's socket; the others share its port.
    let mut address = asked;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = worker::listen(address).map_err(failed)?;
        address = socket.local_addr().map_err(failed)?;
        sockets.push(socket);
    }
    Ok((address, sockets))
}

impl Server {
    /// Starts the workers.
    ///
    /// # Errors
    /// [`StartError::Worker`] when a thread or runtime cannot be had; the workers started before end at once.
    pub fn start(
        sockets: Sockets,
        settings: ServerSettings,
        tls: Arc<Tls>,
        gateway: Arc<ArcSwap<Gateway>>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, StartError> {
        let closing = CancellationToken::new();
        let leaving = Arc::<AtomicBool>::default();
        let succeeded = Arc::<AtomicBool>::default();
        let caps = ConnectionCaps::new(
            settings.max_connections,
            settings.max_connections_per_ip,
            raise_descriptor_limit(),
        );
        let live = LiveSettings {
            settings: Arc::new(ArcSwap::from_pointee(settings)),
            redirect_caps: caps.tenth(),
            caps,
        };
        let shared = Shared {
            gateway,
            telemetry,
            redirect_caps: Arc::clone(&live.redirect_caps),
            caps: Arc::clone(&live.caps),
            tls,
            settings: Arc::clone(&live.settings),
            closing: closing.clone(),
            leaving: Arc::clone(&leaving),
            succeeded: Arc::clone(&succeeded),
        };
        let mut server = Self {
            threads: Vec::new(),
            pulses: Vec::new(),
            closing,
            leaving,
            succeeded,
            live,
        };
        for (index, sockets) in sockets.by_worker.into_iter().enumerate() {
            let pulse = Arc::new(Pulse::new());
            server.pulses.push(Arc::clone(&pulse));
            match start_worker((index, pulse), sockets, shared.clone()) {
                Ok(thread) => server.threads.push(thread),
                Err(error) => {
                    server.closing.cancel();
                    return Err(StartError::Worker(error));
                }
            }
        }
        Ok(server)
    }

    /// Whether each of the workers turns, for [`pulse::watch`].
    #[must_use]
    pub fn pulses(&self) -> &[Arc<Pulse>] {
        &self.pulses
    }

    /// What can be changed of it while it runs.
    #[must_use]
    pub fn live(&self) -> &LiveSettings {
        &self.live
    }

    /// From now on answers over HTTP/1.1 ask for a new connection. One that is closed while it is idle may have the next request
    /// on its way, which is lost with it and may not be sent twice; clients that were asked are gone before (CFG-3). HTTP/2 needs
    /// none of it: its last frame tells which requests were not looked at.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Notes that another gateway serves on the same sockets: [`Self::drain`] then leaves kept connections of HTTP/1.1 their time to
    /// come with another request and be asked to go, for there is no haste. Those of HTTP/2 are told at once, which loses none.
    pub fn be_succeeded(&self) {
        self.leave();
        self.succeeded.store(true, Ordering::Relaxed);
    }

    /// Closes the listeners and waits for what is under way, at most the drain timeout. Blocks the calling thread.
    pub fn drain(self) {
        self.closing.cancel();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

fn start_worker(
    (index, pulse): (usize, Arc<Pulse>),
    sockets: Listening,
    shared: Shared,
) -> io::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listeners = {
        let _inside = runtime.enter();
        let tls = sockets.tls.into_iter().map(|socket| (Kind::Tls, socket));
        let redirect = sockets.redirect.into_iter();
        tls.chain(redirect.map(|socket| (Kind::Redirect, socket)))
            .map(|(kind, socket)| Ok((kind, TcpListener::from_std(socket)?)))
            .collect::<io::Result<Vec<_>>>()?
    };
    thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let mut turns = Turns::new(pulse, Arc::clone(&shared.telemetry));
            let tasks = LocalSet::new();
            let mut run = pin!(tasks.run_until(worker::run(shared, listeners)));
            runtime.block_on(poll_fn(|cx| turns.turn(|| run.as_mut().poll(cx))));
            // Streams of connections that outlived the drain end here.
            runtime.shutdown_background();
        })
}
