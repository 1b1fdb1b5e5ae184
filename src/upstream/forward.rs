//! Sends one admitted request and waits for the head of its answer.

use std::{future::poll_fn, pin::pin, rc::Rc, sync::Arc, task::Poll, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header,
    uri::PathAndQuery,
};
use hyper::{body::Incoming, client::conn::TrySendError};
use tokio::time::{Instant, sleep_until};

use super::{
    AnswerStream, Lease, Pools, UploadProgress, Upstream, body::RequestBody, settings::HostPolicy,
};
use crate::policy::{Permit, Rejection};

/// How many kept connections may turn out dead before one is opened anew.
const STALE_CONNECTIONS_MAX: usize = 3;

/// A request as it leaves: headers already rewritten by `policy`.
#[derive(Debug)]
pub struct Outbound {
    /// The method.
    pub method: Method,
    /// Normalised path and query, without the upstream's base path.
    pub target: PathAndQuery,
    /// The headers, `Host` as the client named it.
    pub headers: HeaderMap,
    /// The body.
    pub body: RequestBody,
    /// What becomes of the body.
    pub progress: Rc<UploadProgress>,
    /// When the whole exchange must be over.
    pub deadline: Instant,
}

/// Forwards a request that `permit` allows and gives the answer as soon as its head is there.
///
/// A request whose kept connection died before a byte of it was sent goes out again on another one. Dropping the future
/// closes the connection and with it the upstream's work.
///
/// # Errors
/// What the client did wrong with its body first ([`UploadProgress::rejection`]); else [`Rejection::UpstreamUnreachable`],
/// [`Rejection::UpstreamTimeout`], [`Rejection::UpstreamInvalid`] or [`Rejection::Overloaded`].
pub async fn forward(
    pools: &Pools,
    upstream: &Arc<Upstream>,
    _permit: &Permit<'_>,
    outbound: Outbound,
) -> Result<Response<AnswerStream>, Rejection> {
    let pool = pools.of(upstream);
    let (deadline, progress) = (outbound.deadline, Rc::clone(&outbound.progress));
    let response_timeout = upstream.settings().response_timeout;
    let mut request = request(upstream, outbound)?;
    let mut attempts = 0;
    loop {
        let mut lease = pool.lease(attempts >= STALE_CONNECTIONS_MAX).await?;
        lease.watch(Rc::clone(&progress));
        let sent = lease.sender().try_send_request(request);
        let Some(outcome) = within(response_timeout, deadline, &progress, sent).await else {
            return Err(Rejection::UpstreamTimeout);
        };
        match outcome {
            Ok(response) => return answer(response, lease, deadline),
            Err(failure) => request = resend(failure, &lease, &progress)?,
        }
        attempts += 1;
    }
}

fn request(upstream: &Upstream, outbound: Outbound) -> Result<Request<RequestBody>, Rejection> {
    let settings = upstream.settings();
    let target = if settings.server.base_path.is_empty() {
        outbound.target
    } else {
        let path = format!("{}{}", settings.server.base_path, outbound.target);
        PathAndQuery::try_from(path).map_err(|_| Rejection::Internal)?
    };
    let mut request = Request::new(outbound.body);
    *request.method_mut() = outbound.method;
    *request.uri_mut() = target.into();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = outbound.headers;
    let host = match &settings.host {
        HostPolicy::Client => None,
        HostPolicy::Fixed(host) => Some(host.to_string()),
        HostPolicy::Upstream => Some(settings.server.authority()),
    };
    if let Some(host) = host {
        let value = HeaderValue::try_from(host).map_err(|_| Rejection::Internal)?;
        request.headers_mut().insert(header::HOST, value);
    }
    Ok(request)
}

/// Waits for an answer until `deadline`, and no longer than `allowed` after the request's last byte; `None` when the time
/// is over. While the client still uploads, only the upload's own idle limit counts.
async fn within<F: Future>(
    allowed: Duration,
    deadline: Instant,
    progress: &UploadProgress,
    answer: F,
) -> Option<F::Output> {
    let mut answer = pin!(answer);
    let mut timer = pin!(sleep_until(deadline.min(Instant::now() + allowed)));
    poll_fn(|cx| {
        if let Poll::Ready(output) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = deadline.min(progress.finished().unwrap_or(now) + allowed);
            if due <= now {
                return Poll::Ready(None);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await
}

/// Decides what a failed attempt means: the request again, when no byte of it was sent, or a refusal.
fn resend(
    failure: TrySendError<Request<RequestBody>>,
    lease: &Lease,
    progress: &UploadProgress,
) -> Result<Request<RequestBody>, Rejection> {
    let mut failure = failure;
    if let (true, Some(request)) = (lease.is_reused(), failure.take_message()) {
        return Ok(request);
    }
    if let Some(rejection) = progress.rejection() {
        return Err(rejection);
    }
    let error = failure.into_error();
    tracing::debug!(%error, "no answer from upstream");
    if error.is_parse() || error.is_parse_too_large() {
        Err(Rejection::UpstreamInvalid)
    } else {
        Err(Rejection::UpstreamUnreachable)
    }
}

fn answer(
    response: Response<Incoming>,
    lease: Lease,
    deadline: Instant,
) -> Result<Response<AnswerStream>, Rejection> {
    // Nobody asked for another protocol: whatever follows is not an answer to this request (MSG-3).
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Rejection::UpstreamInvalid);
    }
    Ok(response.map(|body| AnswerStream::new(body, lease, deadline)))
}
