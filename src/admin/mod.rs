//! The admin listener: health, metrics and the status page, on an address of its own, never reachable as an upstream (LOG-3).
//!
//! It speaks plain HTTP/1 to whoever reaches it, so it is bound to loopback unless the operator says otherwise; pages in a
//! browser are kept out by `guard`. It runs on the control runtime: whatever happens to it does not slow a request.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{Method, Request, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tower_service::Service;

mod guard;
mod readiness;
pub mod reload;
pub mod status;

pub use readiness::{LastReload, Problem, Readiness};
use reload::Reloads;
use status::{Board, Exchange};

use crate::{
    policy::Rejection,
    respond,
    telemetry::{OpenConnection, RequestIds, Telemetry},
};

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// A head that takes longer ends its connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection, with its one exchange, that takes longer is ended, so that a few that hang cannot hold every place.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open exchanges may go on after the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait after a failed accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// OpenMetrics 1.0 (its specification, "Overall Structure").
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the admin listener shows.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// Metrics.
    pub telemetry: Arc<Telemetry>,
    /// Whether this node should get requests.
    pub readiness: Arc<Readiness>,
    /// Who loads the configuration anew.
    pub reloads: Reloads,
    /// The status page.
    pub status: Arc<Board>,
}

#[derive(Serialize)]
struct ReadyBody {
    ready: bool,
    problems: Vec<Problem>,
    /// What is wrong although requests are served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<Problem>,
    /// The last attempt to load the configuration anew, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reload: Option<LastReload>,
}

/// Serves until `shutdown`, then waits for open exchanges, five seconds at most. To be run on the control runtime. Dropping
/// the future ends every connection.
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = state.telemetry.connections("admin");
    let telemetry = Arc::clone(&state.telemetry);
    let _watch = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&state.status).run()));
    let router = router(state);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = open.join_next() => count_panic(&ended, &telemetry),
            Some((stream, slot)) = accept(&listener, &slots, &telemetry) => {
                let exchange = Exchange::new(shutdown.clone());
                open.spawn(connection(stream, (slot, connections.open()), router.clone(), exchange));
            }
        }
    }
    drop(listener);
    let drained = timeout(STOP_TIMEOUT, async {
        while let Some(ended) = open.join_next().await {
            count_panic(&ended, &telemetry);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(open = open.len(), "admin connections are cut off");
    }
}

fn count_panic(ended: &Result<(), tokio::task::JoinError>, telemetry: &Telemetry) {
    if ended.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
        telemetry.panicked();
    }
}

/// The next connection, once there is a place for it; `None` after a failure and a pause. Dropping it loses nothing.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    telemetry: &Telemetry,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            telemetry.accept_failed();
            tracing::warn!(%error, "no admin connection could be accepted");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    places: (OwnedSemaphorePermit, OpenConnection),
    router: Router,
    exchange: Exchange,
) {
    let own = exchange.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(own.clone());
        answer(router.clone(), request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // Scrapes and probes are seconds apart; a place is worth more than a handshake.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever breaks off here knows it; there is nothing to log.
    let mut served = pin!(served);
    let ended = timeout(CONNECTION_TIMEOUT, &mut served).await;
    if ended.is_err() && exchange.stays() {
        let _ = timeout(status::LIFE, served).await;
    }
    drop(places);
}

async fn answer(
    mut router: Router,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut response = match guard::check(&request) {
        Ok(()) => router.call(request).await?,
        Err(rejection) => refuse(&rejection),
    };
    respond::answer::finish_own(response.headers_mut(), false);
    Ok(response)
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status::page))
        .route("/status.json", get(status::json))
        .route("/status/events", get(status::events))
        .route("/status/script.js", get(status::script))
        .route("/status/style.css", get(status::style))
        .route(
            "/reload",
            post(reload::reload)
                .fallback(async || refuse(&Rejection::MethodNotAllowed(vec![Method::POST]))),
        )
        .fallback(async || refuse(&Rejection::RouteNotFound))
        .method_not_allowed_fallback(async || {
            refuse(&Rejection::MethodNotAllowed(vec![
                Method::GET,
                Method::HEAD,
            ]))
        })
        .with_state(state)
}

async fn healthz() -> Response {
    fresh("ok")
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let problems = state.readiness.problems();
    let ready = problems.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let degraded = state.readiness.degraded();
    let body = ReadyBody {
        ready,
        problems,
        degraded,
        last_reload: state.readiness.last_reload(),
    };
    fresh((status, Json(body)))
}

async fn metrics(State(state): State<AdminState>) -> Response {
    fresh((
        [(header::CONTENT_TYPE, OPENMETRICS)],
        state.telemetry.encode(),
    ))
}

/// An answer that holds for now alone.
fn fresh(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

fn refuse(rejection: &Rejection) -> Response {
    // Refusals are rare here; a source of ids for each costs less than one to be shared.
    respond::refusal(rejection, &RequestIds::new().next()).map(Body::from)
}

#[cfg(test)]
mod tests;
