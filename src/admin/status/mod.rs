//! The status page: what goes on here, for an operator with a browser, and the same for a program.
//!
//! A task of the control runtime looks at the counters of the workers once a second and keeps what it saw for five minutes;
//! nothing of a request waits for it or does more because of it. The page works without scripts; with them its parts are sent
//! anew as they change. Nothing comes from elsewhere, and what strangers wrote is escaped (LOG-2).

mod events;
mod facts;
mod history;
mod page;
mod plot;
mod rows;
mod texts;
mod units;
mod view;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS},
};
use tokio::{
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval, timeout},
};

pub(super) use events::{Exchange, LIFE};
use events::{Frame, LISTENERS_MAX};
pub use facts::{AccountFacts, Facts, IssuerFacts, Observed, RouteFacts, UpstreamFacts};
use history::{History, Mark, Reading};
use plot::Plot;
use rows::Status;
use view::Sources;

use super::{AdminState, Readiness, fresh, refuse};
use crate::{policy::Rejection, telemetry::Telemetry};

const STYLE: &str = include_str!("../../../templates/status/style.css");
const SCRIPT: &str = include_str!("../../../templates/status/script.js");

const TICK: Duration = Duration::from_secs(1);
/// How long a count of sessions is good.
const SESSIONS_EVERY: Duration = Duration::from_secs(60);
/// How long a page waits for it.
const SESSIONS_PATIENCE: Duration = Duration::from_millis(500);

/// No script, style, picture or connection but of the page's own origin, none within the page itself, and no frame around it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);
const DENY: HeaderValue = HeaderValue::from_static("DENY");
const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// What is known of the node's last minutes, and who looks at it.
#[derive(Debug)]
pub struct Board {
    telemetry: Arc<Telemetry>,
    readiness: Arc<Readiness>,
    observed: Arc<dyn Observed>,
    history: Mutex<History>,
    sessions: Mutex<Option<(Instant, Option<u64>)>>,
    asking: AtomicBool,
    frames: watch::Sender<Frame>,
    places: Arc<Semaphore>,
    started: SystemTime,
}

impl Board {
    /// A board on which nothing is noted yet; [`Board::run`] does it.
    #[must_use]
    pub fn new(
        telemetry: Arc<Telemetry>,
        readiness: Arc<Readiness>,
        observed: Arc<dyn Observed>,
    ) -> Arc<Self> {
        Arc::new(Self {
            telemetry,
            readiness,
            observed,
            history: Mutex::default(),
            sessions: Mutex::default(),
            asking: AtomicBool::new(false),
            frames: watch::Sender::new(Frame::default()),
            places: Arc::new(Semaphore::new(LISTENERS_MAX)),
            started: SystemTime::now(),
        })
    }

    /// Looks at the counters each second, and sends open pages what has changed, until it is dropped. To be run on the control
    /// runtime.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look(Instant::now());
            if self.frames.receiver_count() > 0 {
                self.keep_counting_sessions();
                let (status, plots) = self.status(self.known_sessions());
                self.frames
                    .send_replace(Arc::new(page::parts(&status, &plots)));
            }
        }
    }

    /// Notes what was counted by now.
    fn look(&self, now: Instant) {
        let reading = Reading::of(&self.telemetry, self.observed.cache());
        let due = {
            let mut history = self.history();
            history.push(now, reading);
            history.wants_mark()
        };
        if due {
            let mark = Mark {
                routes: self.telemetry.route_totals(),
                upstreams: self.telemetry.upstream_totals(),
            };
            self.history().mark(mark);
        }
    }

    fn status(&self, sessions: Option<u64>) -> (Status, [Plot; 3]) {
        let facts = self.observed.facts();
        let history = self.history();
        let sources = Sources {
            telemetry: &self.telemetry,
            readiness: &self.readiness,
            history: &history,
            facts,
            sessions,
            started: self.started,
        };
        let status = Status::of(sources, SystemTime::now());
        (status, plot::all(&history, &texts::ENGLISH))
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The count of sessions, asked for where the last is old. Waits a moment and no longer.
    async fn sessions(self: &Arc<Self>) -> Option<u64> {
        if !self.has_fresh_sessions() {
            let _ = timeout(SESSIONS_PATIENCE, Arc::clone(self).count_sessions()).await;
        }
        self.known_sessions()
    }

    fn keep_counting_sessions(self: &Arc<Self>) {
        if !self.has_fresh_sessions() && !self.asking.load(Ordering::Relaxed) {
            tokio::spawn(Arc::clone(self).count_sessions());
        }
    }

    /// One at a time asks the store, and no more often than once a minute, whoever looks.
    async fn count_sessions(self: Arc<Self>) {
        if self.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let asking = Asking(&self.asking);
        let count = self.observed.sessions().await;
        let known = self.sessions.lock();
        *known.unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), count));
        drop(asking);
    }

    fn has_fresh_sessions(&self) -> bool {
        let known = self.sessions.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        known.is_some_and(|(at, _)| at.elapsed() < SESSIONS_EVERY)
    }

    fn known_sessions(&self) -> Option<u64> {
        let known = self.sessions.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        known.and_then(|(_, count)| count)
    }
}

/// Somebody asks the store; whoever stops to wait does not keep others from asking.
struct Asking<'b>(&'b AtomicBool);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

pub(super) async fn page(State(state): State<AdminState>) -> Response {
    let board = &state.status;
    let sessions = board.sessions().await;
    let (status, plots) = board.status(sessions);
    match page::whole(&status, &plots) {
        Some(html) => guarded(fresh(typed("text/html; charset=utf-8", html))),
        None => refuse(&Rejection::Internal),
    }
}

pub(super) async fn json(State(state): State<AdminState>) -> Response {
    let board = &state.status;
    let sessions = board.sessions().await;
    let (status, _) = board.status(sessions);
    guarded(fresh(Json(status)))
}

pub(super) async fn style() -> Response {
    guarded(fresh(typed("text/css; charset=utf-8", STYLE)))
}

pub(super) async fn script() -> Response {
    guarded(fresh(typed("text/javascript; charset=utf-8", SCRIPT)))
}

/// Events for a page of ours that is open. A page of another site could not read them, but take the places.
pub(super) async fn events(
    State(state): State<AdminState>,
    Extension(exchange): Extension<Exchange>,
    headers: HeaderMap,
) -> Response {
    let mut site = headers.get_all(SEC_FETCH_SITE).iter();
    if site.any(|site| site != SAME_ORIGIN) {
        return refuse(&Rejection::OriginDenied);
    }
    let board = &state.status;
    let Ok(place) = Arc::clone(&board.places).try_acquire_owned() else {
        return refuse(&Rejection::Overloaded);
    };
    exchange.stay();
    let body = events::body(board.frames.subscribe(), exchange.shutdown, place);
    guarded(fresh(typed("text/event-stream", body)))
}

fn typed(kind: &'static str, body: impl IntoResponse) -> Response {
    let kind = HeaderValue::from_static(kind);
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_FRAME_OPTIONS, DENY);
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, SAME_ORIGIN);
    response
}

#[cfg(test)]
pub(super) mod tests;
