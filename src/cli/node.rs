//! One running gateway: what `run` and `demo` have in common, from a checked configuration to the end of the drain.

mod chores;
mod succession;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::task::AbortOnDropHandle;

use self::{
    chores::Chores,
    succession::{Admin, Cause, Heritage},
};
use super::{
    observed::ObservedNode,
    reload::{self, Owner},
    service,
};
use crate::{
    accounts::Accounts,
    admin::{AdminState, Readiness, reload::Reloads, status::Board},
    assertion::Assertions,
    authn::{
        Revocations,
        remote::{Around, RemoteKeys, Report},
    },
    cluster::Cluster,
    config::{
        Config, Loaded,
        assemble::{Lasting, assemble},
        development::{self, Overwrite},
    },
    portal,
    server::{
        self, Server, Sockets,
        handed::Handed,
        settings::{CertificateFiles, ServerSettings},
        tls::{self, Tls},
    },
    spans::Exporters,
    telemetry::Telemetry,
};

/// Threads of the control runtime: accounts, admin listener. Requests to upstreams never run there.
const CONTROL_THREADS: usize = 2;

/// A running gateway.
#[derive(Debug)]
pub struct Node {
    control: Runtime,
    server: Server,
    lasting: Lasting,
    chores: Chores,
    owner: AbortOnDropHandle<()>,
    readiness: Arc<Readiness>,
    admin: Admin,
    /// What a gateway that takes this one's place is given.
    heritage: Heritage,
    /// The TLS addresses bound, ports resolved.
    pub addresses: Vec<SocketAddr>,
}

impl Node {
    /// Starts a gateway. Everything that can fail is tried before the first connection is accepted.
    ///
    /// # Errors
    /// What cannot be bound, opened, read or made, with its cause.
    pub fn start(loaded: Loaded, handed: Handed) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let tls = Arc::new(Tls::load(&config.tls)?);
        let control = Builder::new_multi_thread()
            .worker_threads(CONTROL_THREADS)
            .enable_all()
            .build()?;
        let is_succession = handed.is_succession();
        let (admin, sockets) = bind(&config.server, handed)?;
        let mut heritage = Heritage::of(&config.server, &sockets, &admin)?;
        heritage.offer_unless(is_succession, &control)?;
        let readiness = Arc::new(Readiness::new());
        let lasting = lasting(config, &control, &readiness)?;
        let chores = Chores::begin(&lasting, control.handle(), &readiness);
        chores::watch_feed(&control, &lasting, &readiness);
        let gateway = Arc::new(ArcSwap::from_pointee(assemble(config, &lasting)?));
        chores::sample(&lasting, &gateway, &tls);
        for upstream in &gateway.load().upstreams {
            upstream.start_checks(control.handle());
        }

        let (addresses, redirects) = (sockets.addresses.clone(), sockets.redirects.clone());
        let admin_address = admin.local_addr()?;
        let (reloads, asked) = Reloads::channel();
        let observed = ObservedNode {
            gateway: Arc::clone(&gateway),
            tls: Arc::clone(&tls),
            accounts: lasting.accounts.as_ref().map(|(own, _)| Arc::clone(own)),
            revocations: Arc::clone(&lasting.revocations),
            redis: config.accounts.is_some() && config.cluster.is_some(),
        };
        let state = admin_state(&lasting, &readiness, reloads, observed);
        // Before anything is served: until it is listened for, this signal ends the process.
        let hangup = control.block_on(async { signal(SignalKind::hangup()) })?;
        let mut admin = Admin::new(admin, state);
        admin.serve_unless(is_succession, &control)?;
        control.spawn(tls::watch(Arc::clone(&tls), Arc::clone(&lasting.telemetry)));
        let server = Server::start(
            sockets,
            config.server.clone(),
            Arc::clone(&tls),
            Arc::clone(&gateway),
            Arc::clone(&lasting.telemetry),
        )?;
        chores::tidy(&control, &gateway);
        chores::watch_workers(&control, &server, (&gateway, &readiness));
        service::watch(control.handle(), server.pulses());
        let around = reload::Around {
            tls: &tls,
            live: server.live(),
            readiness: &readiness,
            control: control.handle(),
        };
        let owner = Owner::new(loaded, &lasting, &gateway, around);
        let owner = AbortOnDropHandle::new(control.spawn(owner.run(asked, hangup)));
        announce(&addresses, &redirects);
        readiness.set("listeners", Ok(()));
        service::ready();
        tracing::info!(listener = "admin", address = %admin_address, "listening");
        Ok(Self {
            control,
            server,
            lasting,
            chores,
            owner,
            readiness,
            admin,
            heritage,
            addresses,
        })
    }

    /// The accounts, where they are on.
    #[must_use]
    pub fn accounts(&self) -> Option<&Arc<Accounts>> {
        self.lasting.accounts.as_ref().map(|(accounts, _)| accounts)
    }

    /// The control runtime.
    #[must_use]
    pub fn control(&self) -> &Runtime {
        &self.control
    }

    /// Serves until SIGTERM or SIGINT, then drains: un-ready first, then the wait that load balancers need, then the
    /// listeners close and what is under way ends or is cut off at the drain timeout (CFG-3). A second signal ends the
    /// wait. Or until another gateway serves in its place: then it drains at once, and leaves kept connections their time.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub fn run_until_signal(mut self) -> anyhow::Result<()> {
        let (mut terminate, mut interrupt) = {
            let _inside = self.control.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            )
        };
        let offered = self.heritage.taken();
        let cause = self.control.block_on(async {
            tokio::select! {
                () = either(&mut terminate, &mut interrupt) => Cause::Signal,
                process = offered => Cause::Successor { process },
            }
        });
        // What ends is not changed any more.
        self.owner.abort();
        let settings = self.server.live().current();
        self.readiness.drain();
        let delay = match cause {
            Cause::Signal => {
                self.server.leave();
                settings.drain_delay
            }
            Cause::Successor { process } => {
                tracing::info!(process, "another gateway has taken this one's place");
                self.admin.stop();
                self.server.be_succeeded();
                // Nobody needs to notice.
                Duration::ZERO
            }
        };
        tracing::info!(?delay, timeout = ?settings.drain_timeout, "draining");
        service::stopping(delay.saturating_add(settings.drain_timeout));
        let Self {
            control,
            server,
            lasting,
            chores,
            admin,
            ..
        } = self;
        control.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = either(&mut terminate, &mut interrupt) => {}
            }
            let drained = tokio::task::spawn_blocking(move || server.drain());
            tokio::select! {
                _ = drained => {}
                () = either(&mut terminate, &mut interrupt) => tracing::warn!("second signal: not waiting any longer"),
            }
        });
        let delivery = async {
            if let Some(delivery) = chores.delivery {
                delivery.stop().await;
            }
        };
        control.block_on(async { tokio::join!(delivery, lasting.exporters.flush()) });
        admin.stop();
        tracing::info!("stopped");
        lasting.telemetry.flush();
        control.shutdown_background();
        Ok(())
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Makes the development certificate where the configuration asks for one and neither of its files exists.
///
/// # Errors
/// What keeps it from being made or written.
pub fn ensure_development_pair(config: &Config) -> anyhow::Result<()> {
    if !config.tls.development {
        return Ok(());
    }
    for CertificateFiles { cert, key, .. } in &config.tls.certificates {
        if cert.exists() || key.exists() {
            continue;
        }
        let names: Vec<String> = development::NAMES.map(ToOwned::to_owned).into();
        let (cert_pem, key_pem) = development::development_certificate(&names)?;
        development::write_pair((cert, &cert_pem), (key, &key_pem), Overwrite::Never)?;
        tracing::info!(cert = %cert.display(), "made a development certificate");
    }
    Ok(())
}

/// Takes what was handed over and binds the other addresses; that of the admin listener first, for it is not shared: a second gateway
/// by the same configuration stops there.
fn bind(
    settings: &ServerSettings,
    mut handed: Handed,
) -> anyhow::Result<(std::net::TcpListener, Sockets)> {
    let admin = bind_admin(settings.admin_listen, &mut handed)?;
    let sockets = Sockets::bind(settings, &mut handed)?;
    handed.finish()?;
    Ok((admin, sockets))
}

fn bind_admin(address: SocketAddr, handed: &mut Handed) -> anyhow::Result<std::net::TcpListener> {
    if let Some(listener) = handed.claim_one(address) {
        return Ok(listener);
    }
    let bind = || -> io::Result<_> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error| {
        let advice = server::if_taken(&error);
        let told = format!("cannot listen on {address} (server.admin_listen){advice}");
        anyhow::Error::new(error).context(told)
    })
}

fn admin_state(
    lasting: &Lasting,
    readiness: &Arc<Readiness>,
    reloads: Reloads,
    observed: ObservedNode,
) -> AdminState {
    let telemetry = Arc::clone(&lasting.telemetry);
    let readiness = Arc::clone(readiness);
    AdminState {
        status: Board::new(
            Arc::clone(&telemetry),
            Arc::clone(&readiness),
            Arc::new(observed),
        ),
        telemetry,
        readiness,
        reloads,
    }
}

fn lasting(
    config: &Config,
    control: &Runtime,
    readiness: &Arc<Readiness>,
) -> anyhow::Result<Lasting> {
    let telemetry = Telemetry::start(&config.log);
    let revocations = Arc::new(Revocations::new());
    let cluster = cluster(config, control, &telemetry, readiness)?;
    let accounts = match &config.accounts {
        None => None,
        Some(settings) => {
            let (revocations, metrics) = (Arc::clone(&revocations), telemetry.accounts());
            let cluster = cluster.clone();
            let accounts = Accounts::open_or_await(cluster, settings, revocations, metrics)
                .context("cannot open the account store")?;
            let portal = portal::start(Arc::clone(&accounts), control.handle());
            Some((accounts, portal))
        }
    };
    let assertions = config.assertion.as_ref();
    let assertions = assertions
        .map(|settings| Assertions::open(settings, SystemTime::now()))
        .transpose()
        .context("cannot open the keys of assertions")?;
    let remote = RemoteKeys::new(Around {
        runtime: control.handle().clone(),
        folder: config.data_folder().join("issuers"),
        revocations: Arc::clone(&revocations),
        telemetry: Arc::clone(&telemetry),
        report: report(Arc::clone(readiness)),
    });
    let degraded = Arc::clone(readiness);
    let exporters = Exporters::new(
        control.handle().clone(),
        Arc::clone(&telemetry),
        Arc::new(move |condition| degraded.set_degraded("traces", condition)),
    );
    Ok(Lasting {
        exporters,
        telemetry,
        memory: Arc::default(),
        revocations,
        remote,
        assertions,
        cluster,
        accounts,
    })
}

/// The way to the other nodes.
fn cluster(
    config: &Config,
    control: &Runtime,
    telemetry: &Arc<Telemetry>,
    readiness: &Arc<Readiness>,
) -> anyhow::Result<Option<Arc<Cluster>>> {
    let Some(settings) = &config.cluster else {
        return Ok(None);
    };
    let readiness = Arc::clone(readiness);
    let report = move |condition| readiness.set_degraded("redis", condition);
    Cluster::start(
        settings,
        control.handle(),
        Arc::clone(telemetry),
        Arc::new(report),
    )
    .map(Some)
    .context("cannot speak to Redis (cluster.redis)")
}

/// Shows an issuer whose keys cannot be fetched without making the node un-ready: every node would be at once, and the tokens
/// of all other issuers, and of this one while its last keys are good, with them.
fn report(readiness: Arc<Readiness>) -> Report {
    Arc::new(move |issuer, condition| {
        readiness.set_degraded(&format!("keys of {issuer}"), condition);
    })
}

fn announce(addresses: &[SocketAddr], redirects: &[SocketAddr]) {
    for address in addresses {
        tracing::info!(listener = "tls", %address, "listening");
    }
    for address in redirects {
        tracing::info!(listener = "redirect", %address, "listening");
    }
}
