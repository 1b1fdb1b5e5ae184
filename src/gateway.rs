//! The way of a request, told once.
//!
//! [`Gateway::admit`] makes every decision, in order, without waiting for anything. [`Gateway::handle`] wraps it: admit, forward, turn
//! the one error into the one response, write the one record. No stage answers the client itself.

mod admitted;
mod answer;
pub mod assertion;
mod browser;
mod contain;
mod deferral;
mod early;
pub mod explain;
mod forward;
pub mod forward_auth;
mod frames;
mod inbound;
mod last_hop;
mod limits;
mod meter;
mod timing;
mod tunnel;
mod vigil;

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

pub use admitted::Admitted;
pub use answer::{Answer, AnswerError};
use answer::{Recording, ends_connection};
use browser::wants_page;
pub use contain::contain;
pub use early::EarlyHeads;
use forward_auth::ForwardAuthSettings;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
pub use inbound::{Inbound, Lane, Peer};
use ipnet::IpNet;
use tokio::time::timeout;
pub use tunnel::Tunnel;
pub use vigil::Vigil;

use crate::{
    assertion::Assertions,
    authn::{Authenticator, LastToken, settings::BUILT_IN},
    limit::{BadTokens, IpLimiter, MemoryPressure, MemoryStage, RouteLimits},
    policy::{
        Allowance, Caller, ClientIp, Cors, Head, HeaderPolicy, Identity, PathFault, Permit,
        Rejection, Route, Routes, Target, TlsPolicies, TraceField, TrustedProxies, authorize,
        head::HeadLimits, headers::X_REQUEST_ID, max_forwards::take_hop,
    },
    portal::{Pages, PortalCall, PortalHandle},
    respond::{self, grpc::Grpc},
    telemetry::{Record, RequestId, RouteHandles, Telemetry, Trace, Tracer},
    upstream::{Pace, Upstream},
};

/// The largest body that a built-in route reads, in bytes (MSG-8).
const PORTAL_BODY_BYTES_MAX: usize = 16 << 10;

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The running configuration: one immutable value, swapped whole. A request keeps the one that it began with.
#[derive(Debug)]
pub struct Gateway {
    /// Whose forwarding fields are believed.
    pub proxies: TrustedProxies,
    /// Which host asks for which client certificates.
    pub tls: TlsPolicies,
    /// How scarce memory is.
    pub memory: Arc<MemoryPressure>,
    /// What one client address may do.
    pub limit: Arc<IpLimiter>,
    /// How many failed verifications one client address may cause.
    pub bad_tokens: Arc<BadTokens>,
    /// What users, clients and all together may do on each route.
    pub route_limits: Arc<RouteLimits>,
    /// The route table, built-in routes included.
    pub routes: Routes,
    /// The counters of each route, by its index.
    pub route_metrics: RouteHandles,
    /// Who is calling.
    pub authn: Arc<Authenticator>,
    /// What becomes of the headers.
    pub headers: HeaderPolicy,
    /// What signs statements to upstreams, where it is on.
    pub assertions: Option<Arc<Assertions>>,
    /// Sizes of a request's head.
    pub head: HeadLimits,
    /// The backends, by their id.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The built-in account routes, where accounts are on.
    pub portal: Option<PortalHandle>,
    /// The pages at which browsers sign in, where they can.
    pub pages: Option<Arc<Pages>>,
    /// The endpoint where other proxies ask, where it is on.
    pub forward_auth: Option<ForwardAuthSettings>,
    /// Counters and the access log.
    pub telemetry: Arc<Telemetry>,
    /// Which requests are traced, where any are.
    pub tracer: Option<Arc<Tracer>>,
    /// How fast a client must send its body.
    pub body_pace: Pace,
    /// Which clients are told where the time of their answers went.
    pub server_timing: Vec<IpNet>,
    /// Whether answers tell browsers to use TLS alone from now on; off with a development certificate.
    pub hsts: bool,
    /// Whether 429 bears `X-RateLimit-*` too, for clients that know no other fields.
    pub x_rate_limit: bool,
}

impl Gateway {
    /// Decides whether a request may reach its target. The order is part of the contract: nothing after the first refusal
    /// runs, so an over-quota caller never costs a signature check. What is learned on the way goes into the record.
    ///
    /// # Errors
    /// The first refusal.
    pub fn admit(
        &self,
        peer: &Peer,
        request: &Parts,
        record: &mut Record,
    ) -> Result<Admitted<'_>, Rejection> {
        let client = self.proxies.client_ip(peer.ip, &request.headers);
        record.client = Some(client.ip());
        let head = Head::read(request, &self.head)?;
        self.keep_for_log(&head, record);
        self.memory.check()?;
        self.limit.check(client).map_err(Rejection::RateLimited)?;
        self.admit_head(peer, head, request, record)
    }

    /// [`admit`](Self::admit) for a request that was counted already.
    fn admit_again(
        &self,
        peer: &Peer,
        request: &Parts,
        record: &mut Record,
    ) -> Result<Admitted<'_>, Rejection> {
        let head = Head::read(request, &self.head)?;
        self.admit_head(peer, head, request, record)
    }

    fn admit_head(
        &self,
        peer: &Peer,
        head: Head<'_>,
        request: &Parts,
        record: &mut Record,
    ) -> Result<Admitted<'_>, Rejection> {
        let client = self.proxies.client_ip(peer.ip, &request.headers);
        self.tls.check(peer.tls, &head.host)?;
        let permit = self.decide((client, peer.last_token()), &head, request, record)?;
        Admitted::new(permit, head)
    }

    /// Goes on with what earlier configurations have counted for its routes, however long theirs live.
    pub fn keep_counters(&self) {
        let names = self.routes.all().iter().map(|route| &*route.name);
        self.route_metrics.keep(names);
    }

    /// Decides which route a request takes and whether its caller may, once its client has not asked too often.
    fn decide(
        &self,
        (client, last): (ClientIp, &LastToken),
        head: &Head<'_>,
        request: &Parts,
        record: &mut Record,
    ) -> Result<Permit<'_>, Rejection> {
        let route = self
            .routes
            .find(&head.host, head.path.as_str(), &request.method)?;
        record.route = self.route_metrics.of(route.index, &route.name);
        if route.enforce {
            route.addresses.check(client)?;
        }
        let budget = self.bad_tokens.of(client);
        let caller = self.find_caller((route, last), request, record.time, &budget);
        let caller = self.check_browser(caller, route, head, request);
        if let Ok(Caller::Verified(identity)) = &caller {
            record.caller = Some(Arc::clone(identity));
        }
        let permit = authorize(route, client, caller)?;
        let limits = &self.route_limits;
        limits.check(&permit).map_err(Rejection::RateLimited)?;
        record.unenforced = permit.unenforced().map(Rejection::code);
        Ok(permit)
    }

    /// Finds out who calls. While revocations of other processes cannot be learned of, a strict route takes nobody's word whose
    /// session may have ended there (STORE-6).
    fn find_caller(
        &self,
        (route, last): (&Route, &LastToken),
        request: &Parts,
        now: SystemTime,
        budget: &impl Allowance,
    ) -> Result<Caller, Rejection> {
        // Asked first: what was learned by then, the look at the credential knows.
        let feed = self.authn.revocations().feed();
        let is_late = route.strict && feed.is_late(Instant::now());
        let caller =
            self.authn
                .authenticate_on(last, &request.headers, route.into(), (now, budget))?;
        let is_ours = |identity: &Identity| *identity.claims().issuer_name == *BUILT_IN;
        match is_late && caller.identity().is_some_and(is_ours) {
            true => Err(Rejection::StoreUnavailable),
            false => Ok(caller),
        }
    }

    /// Serves one request: the answer of its target, or the refusal. What is needed of the request is taken out of `inbound`; by
    /// value, every future on the way down would have room for it, twice.
    pub async fn handle(&self, inbound: &mut Inbound<'_>) -> Response<Answer> {
        let method = inbound.parts.method.clone();
        let has_body = !inbound.body.is_end_stream();
        let is_post = method == Method::POST;
        let is_page = wants_page(&inbound.parts);
        let grpc = is_post.then(|| Grpc::of(&inbound.parts.headers)).flatten();
        let mut recording = self.begin_record(inbound);
        let record = &mut recording.record;
        let request_id = record.request_id.to_header_value();
        let lane = inbound.lane;
        inbound.request_id = request_id.clone();
        let served = self.serve(inbound, record).await;
        if let Err(rejection) = &served
            && let Some(wait) = self.defer(rejection, inbound.peer)
        {
            wait.await;
        }
        let mut response = served.unwrap_or_else(|rejection| {
            let mut refusal = self.refuse(&rejection, (grpc, is_page), record);
            self.let_page_read(inbound, refusal.headers_mut());
            if record.version < Version::HTTP_2 && ends_connection(&rejection, &method, has_body) {
                refusal.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            refusal
        });
        self.end_when_lean(record, &mut response);
        response.headers_mut().insert(X_REQUEST_ID, request_id);
        self.tell_timing(record, response.headers_mut());
        record.status = response.status();
        let is_head = method == Method::HEAD;
        response.map(|answer| answer.recorded(recording, is_head, &lane.vigil))
    }

    /// While memory is scarce a connection of HTTP/1 ends with its request; those of HTTP/2 are told by their listener (FAULT-1).
    fn end_when_lean(&self, record: &Record, response: &mut Response<Answer>) {
        let has_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if self.memory.is_at(MemoryStage::Lean) && record.version < Version::HTTP_2 && !has_switched
        {
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
    }

    async fn serve(
        &self,
        inbound: &mut Inbound<'_>,
        record: &mut Record,
    ) -> Result<Response<Answer>, Rejection> {
        if inbound.has_fragment {
            return Err(Rejection::AmbiguousPath(PathFault::Fragment));
        }
        if Cors::is_preflight(&inbound.parts)
            && let Some(answer) = self.preflight(inbound.peer, &inbound.parts, record)?
        {
            return Ok(answer);
        }
        let admitted = match self.admit(inbound.peer, &inbound.parts, record) {
            Ok(admitted) => match admitted.permit.unenforced().cloned() {
                None => admitted,
                // A route that is not enforced shall see what it would see if it were.
                Some(rejection) => {
                    let later = Box::pin(self.admit_later(rejection, inbound, record)).await;
                    later.unwrap_or(admitted)
                }
            },
            Err(rejection) => {
                let later = Box::pin(self.admit_later(rejection, inbound, record));
                match later.await {
                    Ok(admitted) => admitted,
                    // Nobody waits for the body of what is sent elsewhere (MSG-11).
                    Err(refused) if !inbound.body.is_end_stream() => return Err(refused),
                    Err(refused) => return self.send_to_sign_in(refused, &inbound.parts, record),
                }
            }
        };
        inbound.take_handshake(&admitted)?;
        match admitted.permit.route().target {
            Target::Accounts => Box::pin(self.call_portal(&admitted, inbound, record)).await,
            Target::AssertionKeys => Ok(self.answer_assertion_keys()),
            Target::Elsewhere => Err(Rejection::RouteNotFound),
            Target::ForwardAuth => {
                let path = admitted.path(&inbound.parts);
                Box::pin(self.answer_question(inbound, path, record)).await
            }
            Target::Upstream(_) if take_hop(&mut inbound.parts)? => self.answer_last_hop(&admitted),
            Target::Upstream(id) => self.forward(id, &admitted, inbound, record).await,
        }
    }

    /// Answers a browser's question for the route that the announced request would take; `None` where that route says nothing of
    /// other origins, and the question is a request like any other. Needs no token and reaches no upstream (URI-3).
    fn preflight(
        &self,
        peer: &Peer,
        request: &Parts,
        record: &mut Record,
    ) -> Result<Option<Response<Answer>>, Rejection> {
        let client = self.proxies.client_ip(peer.ip, &request.headers);
        let head = Head::read(request, &self.head)?;
        let announced = self.routes.find_announced(&head, &request.headers);
        let Some((route, cors)) = announced else {
            return Ok(None);
        };
        record.client = Some(client.ip());
        self.keep_for_log(&head, record);
        self.memory.check()?;
        self.limit.check(client).map_err(Rejection::RateLimited)?;
        self.tls.check(peer.tls, &head.host)?;
        record.route = self.route_metrics.of(route.index, &route.name);
        if route.enforce {
            route.addresses.check(client)?;
        }
        let (status, headers) = cors
            .preflight(&request.headers)
            .ok_or(Rejection::OriginDenied)?;
        let mut response = Response::new(Answer::from_bytes(bytes::Bytes::new()));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        respond::answer::finish_own(response.headers_mut(), self.hsts);
        Ok(Some(response))
    }

    /// Hands a request to the built-in account routes.
    async fn call_portal(
        &self,
        admitted: &Admitted<'_>,
        inbound: &mut Inbound<'_>,
        record: &mut Record,
    ) -> Result<Response<Answer>, Rejection> {
        let target = admitted.target(&inbound.parts)?;
        let (mut parts, body) = inbound.take();
        // What was decided on is what is answered (URI-1).
        parts.uri = target.into();
        let portal = self.portal.as_ref().ok_or(Rejection::RouteNotFound)?;
        let body = Limited::new(body, PORTAL_BODY_BYTES_MAX).collect();
        let body = match timeout(self.body_pace.idle, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(Rejection::BodyTooLarge);
            }
            Ok(Err(_)) => return Err(Rejection::BadRequest(crate::policy::HeadFault::Body)),
            Err(_elapsed) => return Err(Rejection::RequestTimeout),
        };
        record.bytes_in = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let is_page = wants_page(&parts);
        let mut request = Request::from_parts(parts, body);
        request
            .headers_mut()
            .insert(header::HOST, admitted.host.clone());
        let call = PortalCall {
            request,
            client: admitted.permit.client(),
            request_id: record.request_id,
            caller: admitted.permit.caller().clone(),
            authn: Arc::clone(&self.authn),
            bad_tokens: Arc::clone(&self.bad_tokens),
            pages: self.pages.clone(),
        };
        let mut response = portal.call(call).await;
        if let Some(rejection) = response.extensions().get::<Rejection>().cloned() {
            note(&rejection, record);
            self.tell_limit(&rejection, response.headers_mut());
            if !respond::page::is_one(&response) {
                response = self.shown(&rejection, is_page, record, response);
            }
        }
        respond::answer::finish_own(response.headers_mut(), self.hsts);
        Ok(response.map(Answer::from_bytes))
    }

    fn begin_record(&self, inbound: &Inbound<'_>) -> Box<Recording> {
        let Inbound {
            lane, peer, parts, ..
        } = inbound;
        // Only a trusted proxy may name a request (LOG-5).
        let trusted = self.proxies.trusts(peer.ip);
        let named = if trusted {
            parts.headers.get(X_REQUEST_ID)
        } else {
            None
        };
        let named = named
            .and_then(|value| value.to_str().ok())
            .and_then(RequestId::accept);
        let request_id = named.unwrap_or_else(|| lane.request_ids.next());
        let mut record = Record::begin(parts, peer.ip.ip(), request_id);
        record.trace = self.tracer.as_ref().and_then(|tracer| {
            tracer.begin(&parts.headers, trusted, (request_id, &lane.request_ids))
        });
        Recording::begin(record, Arc::clone(&self.telemetry))
    }

    /// Keeps what a line of the access log tells of a head, and a span, if either is wanted.
    pub fn keep_for_log(&self, head: &Head<'_>, record: &mut Record) {
        if self.telemetry.access_log() || record.trace.is_some() {
            record.host = Some(head.host.as_ref().into());
            record.path = Some(head.path.as_str().into());
        }
    }

    /// What an upstream is told of the trace of a request that came from a peer who is believed, or is not.
    fn trace_field<'t>(&self, trace: Option<&'t Trace>, believed: bool) -> TraceField<'t> {
        match (trace, &self.tracer) {
            (Some(trace), _) => trace.field(),
            (None, Some(_)) if !believed => TraceField::NotRecorded,
            (None, Some(_) | None) => TraceField::AsItCame,
        }
    }

    fn refuse(
        &self,
        rejection: &Rejection,
        (grpc, is_page): (Option<Grpc>, bool),
        record: &mut Record,
    ) -> Response<Answer> {
        note(rejection, record);
        let mut response = respond::refusal(rejection, &record.request_id);
        self.tell_limit(rejection, response.headers_mut());
        let mut response = self.shown(rejection, is_page, record, response);
        if let Some(grpc) = grpc {
            response = grpc.refusal(rejection, response);
        }
        respond::answer::finish_own(response.headers_mut(), self.hsts);
        response.map(Answer::from_bytes)
    }
}

fn note(rejection: &Rejection, record: &mut Record) {
    record.code = Some(rejection.code());
    record.reason = rejection.reason();
}

#[cfg(test)]
mod tests;
