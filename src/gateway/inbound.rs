//! A request as it came, and what the worker and the connection that it came on keep for it.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use http::{HeaderValue, Method, Request, Version, header, request::Parts};
use hyper::{
    body::{Body, Incoming},
    ext::Protocol,
    upgrade::OnUpgrade,
};

use super::{Admitted, EarlyHeads, Vigil};
use crate::{
    assertion::Recent,
    authn::{LastToken, LastTokens, Revocations},
    policy::{
        Cors, PeerIp, Rejection, TlsPolicyId,
        browser::is_by_cookie,
        upgrade::{asks_for_websocket, check_origin},
    },
    telemetry::RequestIds,
    upstream::{ClientBody, Handshake, Pins, Pools},
};

/// What one worker keeps for its requests.
#[derive(Debug)]
pub struct Lane {
    /// Its connections to the upstreams.
    pub pools: Pools,
    /// Its signed statements of the last seconds.
    pub statements: Recent,
    /// Where request ids come from.
    pub request_ids: RequestIds,
    /// The watch over its exchanges that go on.
    pub vigil: Rc<Vigil>,
    /// The tokens that its connections remember.
    pub last_tokens: LastTokens,
}

/// The other end of a connection, with its address as a header value: written once, shared by every request.
#[derive(Debug)]
pub struct Peer {
    pub(super) ip: PeerIp,
    /// Under which rule about client certificates its connection was made.
    pub(super) tls: TlsPolicyId,
    pub(super) field: HeaderValue,
    /// The upstream connections that belong to this one.
    pub(super) pins: Rc<Pins>,
    /// The interim answers that its stream has still to write.
    pub(super) early: Rc<EarlyHeads>,
    last_token: LastToken,
}

/// A request as it came.
#[derive(Debug)]
pub struct Inbound<'l> {
    pub(super) lane: &'l Lane,
    pub(super) peer: &'l Peer,
    /// The id that the exchange was given when its record began.
    pub(super) request_id: HeaderValue,
    pub(super) parts: Parts,
    pub(super) body: ClientBody,
    pub(super) has_fragment: bool,
    /// Whether it is a `CONNECT` of HTTP/2 that asks for a WebSocket (RFC 8441). Everything else takes it for a `GET`.
    pub(super) is_bridged: bool,
    /// The handshake that it is, once that is known.
    pub(super) handshake: Option<Handshake>,
    /// The other origin that may read the answer, and by which rule, once it is on its way to an upstream.
    pub(super) reader: Option<(Arc<Cors>, HeaderValue)>,
}

impl Lane {
    /// Makes the lane of one of `workers` workers, whose callers these revocations may end.
    #[must_use]
    pub fn new(workers: usize, revocations: Arc<Revocations>) -> Self {
        Self {
            pools: Pools::new(workers),
            statements: Recent::default(),
            request_ids: RequestIds::new(),
            vigil: Vigil::new(revocations),
            last_tokens: LastTokens::default(),
        }
    }
}

impl Peer {
    /// Names the peer of a socket, the rule under which its connection was made, and what that remembers of its tokens.
    #[must_use]
    pub fn new(address: IpAddr, tls: TlsPolicyId, last_token: LastToken) -> Self {
        let ip = PeerIp::new(address);
        // An address is made of characters that any header takes.
        let field = HeaderValue::from_str(&ip.ip().to_string())
            .unwrap_or(HeaderValue::from_static("unknown"));
        let pins = Rc::default();
        let early = Rc::default();
        Self {
            ip,
            tls,
            field,
            pins,
            early,
            last_token,
        }
    }

    /// What the connection remembers of the token of its last request.
    #[must_use]
    pub fn last_token(&self) -> &LastToken {
        &self.last_token
    }

    /// Where a stream of HTTP/1.1 finds interim answers to write.
    #[must_use]
    pub fn early(&self) -> &Rc<EarlyHeads> {
        &self.early
    }
}

impl<'l> Inbound<'l> {
    /// Takes a request from a worker's connection. `has_fragment` says that its target had a `#` on the wire, which the
    /// URI type does not keep.
    #[must_use]
    pub fn new(
        lane: &'l Lane,
        peer: &'l Peer,
        request: Request<Incoming>,
        has_fragment: bool,
    ) -> Self {
        let (mut parts, body) = request.into_parts();
        let is_bridged = parts.method == Method::CONNECT && asks_to_bridge(&parts);
        if is_bridged {
            parts.method = Method::GET;
        }
        let body = ClientBody::new(body, parts.version);
        let request_id = HeaderValue::from_static("");
        Self {
            lane,
            peer,
            request_id,
            parts,
            body,
            has_fragment,
            is_bridged,
            handshake: None,
            reader: None,
        }
    }

    /// Keeps the handshake for the upstream, where this route opens WebSockets and the request clearly asks for one from a page that
    /// may. What the upstream is told of it is written into the headers, a key where the client needs none.
    ///
    /// # Errors
    /// [`Rejection::BadRequest`] for a request that is neither a handshake nor clearly none, [`Rejection::MethodNotAllowed`]
    /// for a `CONNECT` on a route without WebSockets, [`Rejection::OriginDenied`].
    pub(super) fn take_handshake(&mut self, admitted: &Admitted<'_>) -> Result<(), Rejection> {
        let route = admitted.permit.route();
        if !route.streams.websocket {
            return match self.is_bridged {
                true => Err(Rejection::MethodNotAllowed(Vec::new())),
                false => Ok(()),
            };
        }
        let has_body = !self.body.is_end_stream();
        if !self.is_bridged && !asks_for_websocket(&self.parts, has_body)? {
            return Ok(());
        }
        let host = admitted.host.to_str().map_err(|_| Rejection::Internal)?;
        let headers = &mut self.parts.headers;
        let is_known = admitted.permit.caller().identity().is_some();
        let by_cookie = is_known && is_by_cookie(route, headers);
        check_origin(headers, host, route.cors.as_deref(), by_cookie)?;
        let key = headers.get(header::SEC_WEBSOCKET_KEY);
        self.handshake = Some(match key.filter(|_| !self.is_bridged) {
            Some(key) => Handshake::of(key)?,
            None => Handshake::generate(headers)?,
        });
        Ok(())
    }

    /// Takes head and body out and leaves nothing in their place.
    pub(super) fn take(&mut self) -> (Parts, ClientBody) {
        let (parts, ()) = Request::new(()).into_parts();
        let body = std::mem::take(&mut self.body);
        (std::mem::replace(&mut self.parts, parts), body)
    }

    /// The stream of HTTP/2 that becomes a tunnel.
    pub(super) fn client_stream(&mut self) -> Option<OnUpgrade> {
        let stream = self.parts.extensions.remove();
        stream.filter(|_| self.is_bridged)
    }
}

/// Any other protocol than this one is refused with every other `CONNECT` (MSG-4).
fn asks_to_bridge(parts: &Parts) -> bool {
    let protocol = parts.extensions.get::<Protocol>();
    parts.version == Version::HTTP_2
        && protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
}
