//! An admitted request, on its way to its upstream and back: headers rewritten, both bodies within their limits.

use std::{pin::pin, rc::Rc, sync::Arc, time::Instant};

use http::{Extensions, HeaderMap, HeaderValue, Request, Response, Version, header};
use hyper::body::Body;

use super::{Admitted, Answer, Gateway, Inbound, Tunnel};
use crate::{
    moment,
    policy::{Direction, Forwarding, Rejection, Route, Streams, UpstreamId},
    respond::{self, grpc::Grpc},
    telemetry::Record,
    upstream::{
        AnswerStream, ClientBody, Handshake, Outbound, RequestBody, UploadProgress, Upstream,
        forward,
    },
};

impl Gateway {
    /// Forwards an admitted request to its upstream.
    pub(super) async fn forward(
        &self,
        upstream: UpstreamId,
        admitted: &Admitted<'_>,
        inbound: &mut Inbound<'_>,
        record: &mut Record,
    ) -> Result<Response<Answer>, Rejection> {
        let (is_bridged, client) = (inbound.is_bridged, inbound.client_stream());
        let upstream = self.upstreams.get(upstream.0).ok_or(Rejection::Internal)?;
        record.upstream = upstream.metrics().cloned();
        let route = admitted.permit.route();
        inbound.reader = route.cors.as_ref().and_then(|cors| {
            let origin = cors.granted(&inbound.parts.headers)?;
            Some((Arc::clone(cors), origin))
        });
        let mut outbound = self.outbound(upstream, admitted, inbound, record)?;
        let hints = outbound.hints.clone();
        let progress = Rc::clone(&outbound.progress);
        let sent = Instant::now();
        let outcome = {
            let (lane, early) = (inbound.lane, &inbound.peer.early);
            let permit = &admitted.permit;
            let sending = pin!(forward(&lane.pools, upstream, permit, &mut outbound));
            early.relay(hints.as_deref(), sending).await
        };
        record.upstream_asked = Some(sent.saturating_duration_since(record.started));
        record.upstream_time = Some(sent.elapsed());
        if let Some(trace) = &mut record.trace {
            trace.asked = upstream.asked(&progress).cloned();
        }
        record.bytes_in = progress.bytes();
        let mut response = outcome?;
        // Whoever asked for a tunnel would take this for one.
        if is_bridged && response.status().is_success() {
            return Err(Rejection::UpstreamInvalid);
        }
        let_streams_go_on(&mut response, route.streams, progress);
        if record.version == Version::HTTP_2 {
            respond::answer::detach(response.headers_mut());
        }
        if admitted.permit.caller().identity().is_some() {
            respond::answer::keep_private(response.headers_mut());
        }
        let granted = inbound.reader.take();
        self.finish(&mut response, route, granted.map(|(_, origin)| origin));
        let Some(switched) = response.body_mut().take_switched() else {
            return Ok(response.map(Answer::from_upstream));
        };
        let tunnel = Tunnel::new(*switched, client, route.streams, &self.telemetry);
        Ok(tunnel.answer(response))
    }

    /// The request as its upstream is to be told it.
    fn outbound(
        &self,
        upstream: &Upstream,
        admitted: &Admitted<'_>,
        inbound: &mut Inbound<'_>,
        record: &Record,
    ) -> Result<Outbound, Rejection> {
        let route = admitted.permit.route();
        // A length that is too large is refused before a byte of it is read.
        if inbound.body.size_hint().lower() > route.max_body {
            return Err(Rejection::BodyTooLarge);
        }
        let target = admitted.target(&inbound.parts)?;
        let (mut parts, body) = inbound.take();
        let (peer, handshake) = (inbound.peer, inbound.handshake.take());
        let headers = &mut parts.headers;
        if !admitted.says_host {
            headers.insert(header::HOST, admitted.host.clone());
        }
        let believed = self.proxies.believed(peer.ip);
        let mut trailers = (self.headers).trailers(Direction::Request, headers, route, &self.head);
        let from = Forwarding {
            peer: &peer.field,
            believed,
            host: &admitted.host,
            version: parts.version,
            request_id: &inbound.request_id,
            trace: self.trace_field(record.trace.as_deref(), believed.is_some()),
        };
        self.headers.prepare(headers, &admitted.permit, &from)?;
        let request = (&parts.method, &target);
        headers.extend(self.statement(inbound.lane, admitted, upstream, request)?);
        if handshake.is_some() {
            Handshake::mark(headers);
        } else if let Some(trailers) = &mut trailers {
            trailers.tell(headers);
        }
        let (body, progress) = self.upload(body, headers, route);
        let hints = upstream.hints(parts.version);
        // What hyper keeps there belongs to the client's connection.
        parts.extensions = Extensions::new();
        parts.version = Version::HTTP_11;
        Ok(Outbound {
            request: Some(Request::from_parts(parts, body.followed_by(trailers))),
            target,
            progress,
            deadline: moment::recent_timer() + route.timeout,
            handshake,
            hints,
            // What a trusted proxy sends on one connection may come from many.
            pins: believed.is_none().then(|| Rc::clone(&peer.pins)),
        })
    }

    /// A request's body with the limits that this route sets it. Either side of a gRPC call may pause.
    fn upload(
        &self,
        body: ClientBody,
        headers: &HeaderMap,
        route: &Route,
    ) -> (RequestBody, Rc<UploadProgress>) {
        let (limit, pace) = (route.max_body, self.body_pace);
        let (body, progress) = RequestBody::new(body, limit, pace, &self.telemetry);
        let pauses = route.streams.trailers && Grpc::of(headers) == Some(Grpc::Native);
        let body = match pauses {
            true => body.ended_by_silence(route.streams.idle_timeout),
            false => body,
        };
        (body, progress)
    }

    /// Makes an upstream's answer one of this route's.
    fn finish(
        &self,
        response: &mut Response<Box<AnswerStream>>,
        route: &Route,
        granted: Option<HeaderValue>,
    ) {
        *response.version_mut() = Version::HTTP_11;
        let headers = response.headers();
        let mut trailers = (self.headers).trailers(Direction::Answer, headers, route, &self.head);
        respond::answer::finish_upstream(response.headers_mut(), self.hsts);
        route.response_headers.apply(response.headers_mut());
        if let Some(cors) = &route.cors {
            cors.finish(response.headers_mut(), granted);
        }
        if let Some(trailers) = &mut trailers {
            trailers.tell(response.headers_mut());
        }
        response.body_mut().follow_with(trailers);
    }
}

/// Whether a `Content-Type` is that of events, whatever its parameters.
fn is_events(kind: &[u8]) -> bool {
    let kind = kind.trim_ascii_start();
    let split = kind.split_at_checked(b"text/event-stream".len());
    split.is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(b"text/event-stream")
            && matches!(rest.trim_ascii_start().first(), None | Some(b';'))
    })
}

/// An answer of events (`text/event-stream`) or of gRPC has no end of its own: silence ends it, and not the route's time.
fn let_streams_go_on(
    response: &mut Response<Box<AnswerStream>>,
    streams: Streams,
    upload: Rc<UploadProgress>,
) {
    let Some(kind) = response.headers().get(header::CONTENT_TYPE) else {
        return;
    };
    if is_events(kind.as_bytes()) || Grpc::of_kind(kind.as_bytes()).is_some() {
        (response.body_mut()).end_by_silence(streams.idle_timeout, upload);
    }
}
