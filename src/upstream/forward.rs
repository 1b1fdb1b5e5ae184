//! Sends one admitted request and waits for the head of its answer.

use std::{
    error::Error,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header, uri::PathAndQuery};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::{
    AnswerStream, Lease, Pins, Pool, Pools, Server, UploadProgress, Upstream,
    balance::{Choice, Picked},
    body::RequestBody,
    framing,
    hints::Hints,
    lease::SendFault,
    patience::Patience,
    pins,
    retry::Attempts,
    settings::HostPolicy,
    spare::Spare,
    upgrade::{Handshake, Switched},
};
use crate::{
    moment,
    policy::{Permit, Rejection},
};

/// How many kept connections may turn out dead before one is opened anew.
const STALE_CONNECTIONS_MAX: usize = 3;

/// A request as it leaves: headers already rewritten by `policy`.
#[derive(Debug)]
pub struct Outbound {
    /// Its method, its headers with `Host` as the client named it, and its body. Taken when it is sent.
    pub request: Option<Request<RequestBody>>,
    /// Normalised path and query, without the upstream's base path.
    pub target: PathAndQuery,
    /// What becomes of the body.
    pub progress: Rc<UploadProgress>,
    /// When the whole exchange must be over.
    pub deadline: Instant,
    /// The handshake that the request is, where it asks for a WebSocket.
    pub handshake: Option<Handshake>,
    /// Where the interim answers to it go; `None`: nowhere.
    pub hints: Option<Arc<Hints>>,
    /// The upstream connections that belong to the client's connection; `None` where that one serves several clients, so that
    /// no upstream connection can belong to one of them.
    pub pins: Option<Rc<Pins>>,
}

/// Forwards a request that `permit` allows and gives the answer as soon as its head is there.
///
/// A request whose kept connection died before a byte of it was sent goes out again on another one; a server that cannot be
/// connected to is passed over for another one. One that may be done twice, and to which not a byte of an answer came, is sent
/// again as far as the upstream's budget goes (UP-2). Dropping the future closes the connection and with it the upstream's work.
///
/// # Errors
/// What the client did wrong with its body first ([`UploadProgress::rejection`]); else [`Rejection::UpstreamUnreachable`],
/// [`Rejection::UpstreamTls`], [`Rejection::UpstreamTimeout`], [`Rejection::UpstreamInvalid`], [`Rejection::Overloaded`] or
/// [`Rejection::NoHealthyUpstream`].
pub async fn forward(
    pools: &Pools,
    upstream: &Upstream,
    permit: &Permit<'_>,
    outbound: &mut Outbound,
) -> Result<Response<Box<AnswerStream>>, Rejection> {
    let mut attempts = Attempts::new(upstream);
    if let (Some(request), Some(hints)) = (&mut outbound.request, &outbound.hints) {
        hints.listen(request);
    }
    let terms = Terms {
        upstream,
        patience: &pools.patience,
        progress: &outbound.progress,
        pins: outbound.pins.as_ref(),
        deadline: outbound.deadline,
        target: &outbound.target,
        handshake: outbound.handshake.as_ref(),
    };
    let choice = Choice::new(upstream, pools, permit);
    let outcome = attempt(choice, &terms, &mut outbound.request, &mut attempts).await;
    attempts.end(outcome.is_ok());
    outcome
}

async fn attempt(
    mut choice: Choice<'_>,
    terms: &Terms<'_>,
    request: &mut Option<Request<RequestBody>>,
    attempts: &mut Attempts<'_>,
) -> Result<Response<Box<AnswerStream>>, Rejection> {
    let mut failed: Option<Rejection> = None;
    let mut pinned = terms.pinned().await?;
    loop {
        // Where there is nowhere to send it again, what became of it before is what is told.
        let (picked, lease) = match pinned.take() {
            Some((server, lease)) => (Picked::pinned(server), Some(lease)),
            None => (
                choice
                    .pick()
                    .map_err(|none| failed.take().unwrap_or(none))?,
                None,
            ),
        };
        if let Some(request) = request {
            address(request, picked.server, terms.target)?;
        }
        terms.progress.asks(picked.server);
        let pool = choice.pools().of(picked.server);
        let outcome = exchange(&pool, (&picked, lease), request, terms, attempts).await;
        // A client that was still uploading when the time was over is no fault of the server.
        let ended = outcome.as_ref().map(drop).map_err(|fault| &fault.rejection);
        if !matches!(ended, Err(Rejection::UpstreamTimeout)) || terms.progress.finished().is_some()
        {
            picked.server.note(ended, picked.probe);
        }
        match outcome {
            Ok(response) => return Ok(response),
            // Not a byte was sent: the request may still go to another server.
            Err(Failed { rejection, .. })
                if request.is_some()
                    && matches!(
                        rejection,
                        Rejection::UpstreamUnreachable | Rejection::UpstreamTls
                    ) =>
            {
                failed.get_or_insert(rejection);
            }
            Err(Failed {
                rejection,
                again: Some(again),
            }) if attempts.take(terms.deadline) => {
                *request = Some(*again);
                failed = Some(rejection);
                choice.begin_again();
            }
            Err(fault) => return Err(fault.rejection),
        }
    }
}

/// What all attempts at one request have in common.
#[derive(Debug)]
struct Terms<'u> {
    upstream: &'u Upstream,
    patience: &'u Patience,
    progress: &'u Rc<UploadProgress>,
    pins: Option<&'u Rc<Pins>>,
    deadline: Instant,
    target: &'u PathAndQuery,
    handshake: Option<&'u Handshake>,
}

impl<'u> Terms<'u> {
    /// The connection that belongs to the client's connection, when it is this request's turn.
    async fn pinned(&self) -> Result<Option<(&'u Arc<Server>, Lease)>, Rejection> {
        let Some(pins) = self.pins.filter(|pins| !pins.is_empty()) else {
            return Ok(None);
        };
        let lease = Box::pin(pins.lease(self.upstream));
        let lease = timeout_at(self.deadline, lease).await;
        lease.map_err(|_elapsed| Rejection::UpstreamTimeout)
    }

    /// Sees to it that a connection which stands for a user serves no other one.
    ///
    /// # Errors
    /// [`Rejection::UpstreamInvalid`] where others use the connection already (RFC 9113 has no such authentication).
    fn pin(&self, lease: &mut Lease, server: &Server) -> Result<(), Rejection> {
        match self.pins {
            _ if lease.is_shared() => return Err(Rejection::UpstreamInvalid),
            _ if lease.is_pinned() => {}
            Some(pins) => pins.pin(lease, self.upstream, server),
            None => lease.retire(),
        }
        Ok(())
    }
}

/// Why a server gave no answer.
#[derive(Debug)]
struct Failed {
    rejection: Rejection,
    /// The request, where the connection ended, not a byte of an answer had come, and it does the same when it is done twice.
    again: Option<Box<Request<RequestBody>>>,
}

impl From<Rejection> for Failed {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            again: None,
        }
    }
}

/// Sends the request to one server. It is taken as soon as a byte of it may have been sent.
async fn exchange(
    pool: &Rc<Pool>,
    (picked, mut pinned): (&Picked<'_>, Option<Lease>),
    request: &mut Option<Request<RequestBody>>,
    terms: &Terms<'_>,
    attempts: &Attempts<'_>,
) -> Result<Response<Box<AnswerStream>>, Failed> {
    let mut stale = 0;
    loop {
        let mut lease = match pinned.take() {
            Some(lease) => lease,
            None => match pool.lease_kept(stale >= STALE_CONNECTIONS_MAX) {
                Some(lease) => lease,
                None => wait_for_lease(pool, stale, picked, terms).await?,
            },
        };
        lease.watch(Rc::clone(terms.progress));
        let unsent = request.as_ref().ok_or(Rejection::Internal)?;
        if pins::binds(unsent.headers().get_all(header::AUTHORIZATION)) {
            terms.pin(&mut lease, picked.server)?;
        }
        let may_repeat = attempts.may_repeat(unsent);
        let spare = may_repeat.then(|| lease.spare(unsent));
        let outcome = {
            let unsent = request.take().ok_or(Rejection::Internal)?;
            let sent = pin!(lease.send(unsent));
            within(terms, &mut lease, sent).await
        };
        let outcome = outcome.ok_or(Rejection::UpstreamTimeout)?;
        match outcome {
            Ok(response) => {
                if pins::binds(response.headers().get_all(header::WWW_AUTHENTICATE)) {
                    terms.pin(&mut lease, picked.server)?;
                }
                return Ok(answer(response, lease, terms)?);
            }
            Err(failure) => *request = Some(resend(failure, spare, &lease, terms.progress)?),
        }
        stale += 1;
    }
}

/// Waits for a connection, which is a part of the exchange too. On the heap, for few exchanges have to, and room for a dial is
/// several times what the rest of them takes.
async fn wait_for_lease(
    pool: &Rc<Pool>,
    stale: usize,
    picked: &Picked<'_>,
    terms: &Terms<'_>,
) -> Result<Lease, Rejection> {
    let fresh = stale >= STALE_CONNECTIONS_MAX;
    let lease = Box::pin(pool.lease(fresh, picked.dial));
    let lease = timeout_at(terms.deadline, lease).await;
    lease.map_err(|_elapsed| Rejection::UpstreamTimeout)?
}

/// Writes what depends on the server: its base path, and its name where it is to be told that.
fn address(
    request: &mut Request<RequestBody>,
    server: &Server,
    target: &PathAndQuery,
) -> Result<(), Rejection> {
    let base_path = &server.address().base_path;
    *request.uri_mut() = if base_path.is_empty() {
        target.clone().into()
    } else {
        let path = format!("{base_path}{target}");
        let path = PathAndQuery::try_from(path).map_err(|_| Rejection::Internal)?;
        path.into()
    };
    let host = match &server.settings().host {
        HostPolicy::Client => None,
        HostPolicy::Fixed(host) => Some(host.to_string()),
        HostPolicy::Upstream => Some(server.address().authority()),
    };
    if let Some(host) = host {
        let value = HeaderValue::try_from(host).map_err(|_| Rejection::Internal)?;
        request.headers_mut().insert(header::HOST, value);
    }
    Ok(())
}

/// Waits for an answer until the deadline, and no longer than allowed after the request's last byte; `None` when the time is
/// over. While the client still uploads, only the upload's own idle limit counts.
async fn within<F: Future>(
    terms: &Terms<'_>,
    lease: &mut Lease,
    mut answer: Pin<&mut F>,
) -> Option<F::Output> {
    let allowed = terms.upstream.settings().response_timeout;
    let (deadline, progress) = (terms.deadline, terms.progress);
    let due = deadline.min(moment::recent_timer() + allowed);
    let mut limit = terms.patience.until(due);
    poll_fn(|cx| {
        if let Poll::Ready(output) = lease.poll_with(cx, |cx| answer.as_mut().poll(cx)) {
            return Poll::Ready(Some(output));
        }
        while limit.poll(cx).is_ready() {
            let now = Instant::now();
            let due = deadline.min(progress.finished().unwrap_or(now) + allowed);
            if due <= now {
                return Poll::Ready(None);
            }
            limit.reset(due);
        }
        Poll::Pending
    })
    .await
}

/// An error with everything that led to it: the last one is mostly the one that says something.
struct Causes<'e>(&'e dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Decides what a failed attempt means: the request again, when no byte of it was sent, or a refusal.
fn resend(
    failure: SendFault,
    spare: Option<Spare>,
    lease: &Lease,
    progress: &UploadProgress,
) -> Result<Request<RequestBody>, Failed> {
    let mut failure = failure;
    if lease.is_reused()
        && let Some(request) = failure.unsent.take()
    {
        return Ok(*request);
    }
    if let Some(rejection) = progress.rejection() {
        return Err(rejection.into());
    }
    tracing::debug!(error = %Causes(&failure.error), "no answer from upstream");
    if failure.is_invalid() {
        return Err(Rejection::UpstreamInvalid.into());
    }
    let spare = spare.filter(|_| failure.is_unprocessed() || !lease.has_heard());
    Err(Failed {
        rejection: Rejection::UpstreamUnreachable,
        again: spare.and_then(|spare| Some(Box::new(spare.into_request(lease)?))),
    })
}

fn answer(
    mut response: Response<Incoming>,
    mut lease: Lease,
    terms: &Terms<'_>,
) -> Result<Response<Box<AnswerStream>>, Rejection> {
    // A handshake leaves nothing that is used again, whatever comes of it (MSG-3), and keeps nobody waiting for it.
    if terms.handshake.is_some() {
        lease.retire();
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let switched = Switched::new(&mut response, lease, terms.handshake)?;
        return Ok(response.map(|body| Box::new(AnswerStream::switched(body, switched))));
    }
    if !framing::is_clear(response.version(), response.headers()) {
        return Err(Rejection::UpstreamInvalid);
    }
    // The answer is polled when its client takes more of it, and that one may be waiting to have sent its request first.
    if terms.progress.finished().is_none() {
        lease.detach();
    }
    // hyper would speak HTTP/1.0 on it from now on, where a body of unknown length has no framing at all.
    if response.version() == Version::HTTP_10 {
        lease.retire();
    }
    Ok(response.map(|body| Box::new(AnswerStream::new(body, lease, terms.deadline))))
}
