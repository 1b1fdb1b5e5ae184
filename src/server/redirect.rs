//! The listeners without TLS: browsers are sent to `public_url`, everybody else is refused.
//!
//! Nothing is forwarded and nobody is authenticated here (NET-11). One small request for each connection, under one deadline.
//! Where a browser is sent is written from the configuration; `Host` takes no part in it.

use std::{cell::Cell, convert::Infallible, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    caps::ConnectionSlot,
    farewell::{FAREWELL, linger, refuse_slow_head},
    worker::Worker,
};
use crate::{
    gateway::Gateway,
    policy::{
        Head, PathFault, PeerIp, RedirectTarget, RedirectTargets, Rejection, Target,
        head::HeadLimits,
    },
    respond,
    telemetry::{Ending, Record, RouteMetrics, Telemetry},
};

/// What is read of a request: no page that a browser is sent on from needs more.
const LIMITS: HeadLimits = HeadLimits {
    header_bytes: 8 << 10,
    header_count: 64,
    uri_bytes: 4 << 10,
};

/// What the requests of these listeners are counted and logged as, for they take no route.
const ROUTE: &str = "redirect";

/// Where the requests of these listeners are sent.
#[derive(Debug)]
pub struct Redirects {
    targets: RedirectTargets,
    /// The host of `public_url`, whose routes count.
    host: Box<str>,
    metrics: Arc<RouteMetrics>,
    http1: http1::Builder,
}

impl Redirects {
    /// Sends browsers to this URL.
    #[must_use]
    pub fn to(public_url: &Url, telemetry: &Telemetry) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .keep_alive(false)
            .max_header_size(LIMITS.header_bytes)
            .max_buf_size(LIMITS.header_bytes);
        Self {
            targets: RedirectTargets::new(public_url, &[]),
            host: public_url.host_str().unwrap_or_default().into(),
            metrics: telemetry.route(ROUTE),
            http1,
        }
    }

    /// Decides where a request is sent.
    ///
    /// # Errors
    /// [`Rejection::HttpsRequired`] for whatever is no browser's navigation to a page of an upstream: credentials, other
    /// methods, the gateway's own routes, calls that ask for no page. Besides, every fault of the head, and the limit.
    fn decide(
        &self,
        gateway: &Gateway,
        peer: PeerIp,
        request: &Parts,
        record: &mut Record,
    ) -> Result<RedirectTarget, Rejection> {
        let client = gateway.proxies.client_ip(peer, &request.headers);
        record.client = Some(client.ip());
        let head = Head::read(request, &LIMITS)?;
        gateway.keep_for_log(&head, record);
        gateway
            .limit
            .check(client)
            .map_err(Rejection::RateLimited)?;
        if !is_navigation(&request.method, &request.headers) {
            return Err(Rejection::HttpsRequired);
        }
        let route = gateway
            .routes
            .find(&self.host, head.path.as_str(), &Method::GET);
        if !route.is_ok_and(|route| matches!(route.target, Target::Upstream(_))) {
            return Err(Rejection::HttpsRequired);
        }
        let target = request.uri.path_and_query();
        target
            .and_then(|target| self.targets.read(target.as_str()))
            .ok_or(Rejection::AmbiguousPath(PathFault::Relative))
    }
}

/// Whether a request may be a browser's, on its way to a page. A call of a program shall fail: sent on silently, it would go on
/// to say its secrets in the clear.
fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let bears = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION]
        .iter()
        .any(|name| headers.contains_key(name));
    let mut accepted = headers.get_all(header::ACCEPT).iter().peekable();
    let takes_pages = accepted.peek().is_none()
        || accepted.any(|line| {
            let line = line.to_str().unwrap_or_default();
            line.split(',').any(|range| {
                let range = range.split(';').next().unwrap_or_default().trim();
                ["text/html", "text/*", "*/*"].contains(&range)
            })
        });
    reads && !bears && takes_pages
}

/// Serves one request, and ends the connection.
pub async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: PeerIp,
    slot: ConnectionSlot,
    closing: CancellationToken,
) {
    let (_open, _slot) = (worker.open_redirects.open(), slot);
    let begun = Cell::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        begun.set(true);
        let response = answer(&worker, peer, request);
        async move { Ok::<_, Infallible>(response) }
    });
    let stream = TokioIo::new(stream);
    let mut connection = worker.redirects.http1.serve_connection(stream, service);
    let ended = tokio::select! {
        ended = timeout(worker.terms.get().timeouts.header, &mut connection) => ended,
        () = closing.cancelled() => return,
    };
    let stream = connection.into_parts().io.into_inner();
    let _ = match ended {
        Ok(_closed) => timeout(FAREWELL, linger(stream)).await,
        Err(_elapsed) if begun.get() => return,
        Err(_elapsed) => {
            let request_id = worker.lane.request_ids.next();
            timeout(FAREWELL, refuse_slow_head(stream, &request_id)).await
        }
    };
}

fn answer(worker: &Worker, peer: PeerIp, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let gateway = worker.gateway.load();
    let (parts, _unread) = request.into_parts();
    let request_id = worker.lane.request_ids.next();
    let mut record = Record::begin(&parts, peer.ip(), request_id);
    record.route = Some(Arc::clone(&worker.redirects.metrics));
    let redirects = &worker.redirects;
    let decided = redirects.decide(&gateway, peer, &parts, &mut record);
    let location = decided
        .and_then(|target| HeaderValue::from_str(target.as_str()).map_err(|_| Rejection::Internal));
    let mut response = match location {
        Ok(location) => {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            let headers = response.headers_mut();
            headers.insert(header::LOCATION, location);
            // Browsers would keep a wrong `public_url` for ever.
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(rejection) => {
            record.code = Some(rejection.code());
            record.reason = rejection.reason();
            let mut refusal = respond::refusal(&rejection, &record.request_id);
            gateway.tell_limit(&rejection, refusal.headers_mut());
            refusal
        }
    };
    // Without TLS nothing may be said of HSTS (RFC 6797 §7.2).
    respond::answer::finish_own(response.headers_mut(), false);
    record.status = response.status();
    if parts.method != Method::HEAD {
        record.bytes_out = u64::try_from(response.body().len()).unwrap_or(u64::MAX);
    }
    // The answer is small and whole: it is taken to be sent.
    record.ending = Ending::Complete;
    worker.telemetry.record(record);
    response.map(Full::new)
}
