//! Active health checks: each server is asked now and then, on a connection of its own, far from the workers.

use std::{
    io,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    Server,
    connect::{Stream, connect},
    resolve,
    settings::HealthSettings,
};
use crate::jitter;

/// What is done for one upstream in the background: its checks, and look-ups of names. They end when this is dropped, which is when its configuration is.
#[derive(Debug, Default)]
pub(super) struct Checks {
    tasks: Mutex<Vec<AbortHandle>>,
    begun: AtomicBool,
}

impl Checks {
    /// Whether this is the first call: what is begun once goes on over reloads.
    pub(super) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::Relaxed)
    }

    /// Ends all of it.
    pub(super) fn stop(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for task in tasks.drain(..) {
            task.abort();
        }
    }

    /// Begins to check a server.
    pub(super) fn start(&self, server: Arc<Server>, settings: HealthSettings, control: &Handle) {
        self.keep(control.spawn(watch(server, settings)).abort_handle());
    }

    /// Begins to look a server's name up.
    pub(super) fn look_up(&self, server: Arc<Server>, every: Duration, control: &Handle) {
        self.keep(
            control
                .spawn(resolve::refresh(server, every))
                .abort_handle(),
        );
    }

    fn keep(&self, task: AbortHandle) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push(task);
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn watch(server: Arc<Server>, settings: HealthSettings) {
    // Many gateways that start at once shall not ask at once.
    sleep(jitter::between(Duration::ZERO, settings.interval)).await;
    let mut ticks = interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut against = 0;
    loop {
        ticks.tick().await;
        let passed = passes(&server, &settings).await;
        if passed != server.health().is_down() {
            against = 0;
            continue;
        }
        against += 1;
        let needed = if passed {
            settings.healthy
        } else {
            settings.unhealthy
        };
        if against >= needed {
            server.checked(passed);
            against = 0;
        }
    }
}

async fn passes(server: &Server, settings: &HealthSettings) -> bool {
    let outcome = timeout(settings.timeout, ask(server, settings)).await;
    let outcome = outcome.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
    match outcome {
        Ok(status) => (200..400).contains(&status.as_u16()),
        Err(error) => {
            let (upstream, server) = (&server.settings().name, server.address());
            tracing::debug!(%upstream, %server, %error, "health check without an answer");
            false
        }
    }
}

async fn ask(server: &Server, settings: &HealthSettings) -> io::Result<StatusCode> {
    let address = server.address();
    let stream = connect(server, settings.timeout).await;
    let stream = stream.map_err(io::Error::other)?;
    if server.shares(&stream) {
        return ask_stream(server, settings, stream).await;
    }
    let handshake = http1::Builder::new().handshake(TokioIo::new(stream));
    let (mut sender, driver) = handshake.await.map_err(io::Error::other)?;
    let request = Request::get(format!("{}{}", address.base_path, settings.path))
        .header(header::HOST, server.told_host())
        .header(header::USER_AGENT, "portcullis-health")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection may end in the same moment in which the answer is there.
        _ = driver => answer.await,
    };
    Ok(answer.map_err(io::Error::other)?.status())
}

/// Asks over HTTP/2.
async fn ask_stream(
    server: &Server,
    settings: &HealthSettings,
    stream: Stream,
) -> io::Result<StatusCode> {
    let address = server.address();
    let scheme = if address.is_tls() { "https" } else { "http" };
    let host = server.told_host();
    let request = Request::get(format!(
        "{scheme}://{host}{}{}",
        address.base_path, settings.path
    ))
    .header(header::USER_AGENT, "portcullis-health")
    .body(Empty::<Bytes>::new())
    .map_err(io::Error::other)?;
    // The connection is closed in the background: what it waits for must not be a peer that has gone.
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.timeout)
        .keep_alive_timeout(settings.timeout)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream));
    let (mut sender, driver) = handshake.await.map_err(io::Error::other)?;
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = driver => answer.await,
    };
    Ok(answer.map_err(io::Error::other)?.status())
}
