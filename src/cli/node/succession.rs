//! What a gateway gives to the one that takes its place, and how that one begins.

use std::{future::pending, net::TcpListener, path::PathBuf, time::Duration};

use tokio::{runtime::Runtime, time::sleep};
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::{
    admin::{self, AdminState},
    server::{
        Sockets, StartError,
        settings::ServerSettings,
        takeover::{Offer, Takeover},
    },
};

/// How long a gateway that has been handed sockets may take from its start until it is ready. Then it gives up, and the one before
/// goes on.
const READY: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Why a gateway leaves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    /// It is told to.
    Signal,
    /// Another one serves in its place.
    Successor {
        /// Its process.
        process: u32,
    },
}

/// The listening sockets once more, where the configuration says that another gateway may take them.
#[derive(Debug)]
pub(super) enum Heritage {
    Kept(PathBuf, Vec<TcpListener>),
    Offered(Offer),
    None,
}

/// The admin listener. Two gateways on one would answer by turns, so one that takes the place of another opens it when the other
/// has closed it: until then the other speaks.
#[derive(Debug)]
pub(super) struct Admin {
    waiting: Option<(TcpListener, AdminState)>,
    stop: CancellationToken,
}

impl Heritage {
    pub(super) fn of(
        settings: &ServerSettings,
        sockets: &Sockets,
        admin: &TcpListener,
    ) -> std::io::Result<Self> {
        let Some(path) = &settings.takeover_socket else {
            return Ok(Self::None);
        };
        let mut all = sockets.try_clone_all()?;
        all.push(admin.try_clone()?);
        Ok(Self::Kept(path.clone(), all))
    }

    /// Offers them, unless the gateway before still does.
    pub(super) fn offer_unless(
        &mut self,
        is_succession: bool,
        control: &Runtime,
    ) -> Result<(), StartError> {
        if is_succession {
            return Ok(());
        }
        let _inside = control.enter();
        *self = match std::mem::replace(self, Self::None) {
            Self::Kept(path, sockets) => Self::Offered(Offer::open(&path, sockets)?),
            as_it_is @ (Self::Offered(_) | Self::None) => as_it_is,
        };
        Ok(())
    }

    /// Waits until another gateway serves in this one's place, and gives its process; for ever where none can. When it is dropped,
    /// the sockets are closed by whoever else has them.
    pub(super) fn taken(&mut self) -> impl Future<Output = u32> + use<> {
        let heritage = std::mem::replace(self, Self::None);
        async {
            match heritage {
                Self::Offered(offer) => offer.taken().await,
                Self::Kept(..) | Self::None => pending().await,
            }
        }
    }
}

impl Admin {
    pub(super) fn new(listener: TcpListener, state: AdminState) -> Self {
        Self {
            waiting: Some((listener, state)),
            stop: CancellationToken::new(),
        }
    }

    /// Serves, unless the gateway before still does.
    pub(super) fn serve_unless(
        &mut self,
        is_succession: bool,
        control: &Runtime,
    ) -> std::io::Result<()> {
        let Some((listener, state)) = self.waiting.take_if(|_| !is_succession) else {
            return Ok(());
        };
        let _inside = control.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        control.spawn(admin::serve(listener, state, self.stop.clone()));
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Node {
    /// Takes the place of the gateway whose sockets this one was started on: waits until this one is ready, says so, and hears that
    /// the other one drains.
    ///
    /// # Errors
    /// When it does not become ready, or the other one goes on; then this one has left, after what it had begun.
    pub fn succeed(mut self, takeover: Takeover) -> anyhow::Result<Self> {
        if let Err(error) = self.finish(takeover) {
            self.server.be_succeeded();
            self.server.drain();
            self.control.block_on(self.lasting.exporters.flush());
            self.lasting.telemetry.flush();
            self.control.shutdown_background();
            return Err(error);
        }
        tracing::info!("the gateway that ran before has handed over, and drains");
        if let Err(error) = self.heritage.offer_unless(false, &self.control) {
            // Too late to refuse the start: this is the one that serves.
            tracing::error!(error = %error, "no other gateway can take this one's place");
        }
        Ok(self)
    }

    fn finish(&mut self, takeover: Takeover) -> anyhow::Result<()> {
        let ready = async {
            while !self.readiness.problems().is_empty() {
                sleep(LOOK).await;
            }
        };
        let limit = async { tokio::time::timeout(READY, ready).await.is_ok() };
        if !self.control.block_on(limit) {
            let problems = self.readiness.problems();
            let told = problems
                .iter()
                .map(|one| format!("{}: {}", one.what, one.detail));
            let told: Vec<String> = told.collect();
            anyhow::bail!(
                "not ready after {} s, so the gateway that runs goes on: {}",
                READY.as_secs(),
                told.join("; ")
            );
        }
        takeover.finish()?;
        self.admin.serve_unless(false, &self.control)?;
        Ok(())
    }
}
