//! What the upstream is told of the way that a request came: address, host, protocol, id and trace.

use http::{
    HeaderMap, Version,
    header::{self, HeaderName, HeaderValue},
};

use super::trace::TraceField;
use crate::policy::{
    authorize::Permit, client_ip::ForwardedHeaders, forwarded, rejection::Rejection,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// The field that names a request across the chain.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known of a request besides its own headers. The values are shared with whoever made them, not copied.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// The address of the socket's peer.
    pub peer: &'a HeaderValue,
    /// In which fields the peer is believed; `None`: in none.
    pub believed: Option<ForwardedHeaders>,
    /// Host and port that the client asked for.
    pub host: &'a HeaderValue,
    /// The protocol version of the client's request.
    pub version: Version,
    /// The request's id: 1 to 64 letters, digits and hyphens.
    pub request_id: &'a HeaderValue,
    /// What the upstream is told of the trace.
    pub trace: TraceField<'a>,
}

/// The gateway's name in `Via`, for requests that came by HTTP/1 and by HTTP/2.
#[derive(Debug)]
pub(super) struct Via {
    pseudonym: Box<str>,
    http1: HeaderValue,
    http2: HeaderValue,
}

/// What a trusted proxy said of the hops before it.
#[derive(Debug, Default)]
pub(super) struct TrustedChain {
    hops: Option<String>,
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
}

impl TrustedChain {
    pub(super) fn take(headers: &HeaderMap, believed: Option<ForwardedHeaders>) -> Self {
        match believed {
            None => Self::default(),
            Some(ForwardedHeaders::XForwarded) => Self::x_forwarded(headers),
            Some(ForwardedHeaders::Forwarded) => Self::forwarded(headers),
        }
    }

    /// The hops whose addresses can be read, and scheme and host as the peer itself tells them: in the last element.
    fn forwarded(headers: &HeaderMap) -> Self {
        let mut elements = forwarded::elements(headers).peekable();
        let nearest = elements.peek();
        let proto = nearest
            .and_then(|element| element.proto.as_deref())
            .and_then(|proto| ["http", "https"].into_iter().find(|known| proto == *known));
        let host = nearest
            .and_then(|element| element.host.as_deref())
            .filter(|host| crate::policy::head::host(host).is_some())
            .and_then(|host| HeaderValue::from_str(host).ok());
        let mut hops: Vec<String> = elements
            .map_while(|element| Some(element.client?.to_string()))
            .collect();
        hops.reverse();
        Self {
            hops: (!hops.is_empty()).then(|| hops.join(", ")),
            proto: proto.map(HeaderValue::from_static),
            host,
        }
    }

    fn x_forwarded(headers: &HeaderMap) -> Self {
        let lines: Vec<&str> = headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .collect();
        let hops = (!lines.is_empty()).then(|| lines.join(", "));
        let single = |name: HeaderName, valid: fn(&str) -> bool| {
            let mut values = headers.get_all(name).iter();
            let value = values
                .next()
                .filter(|value| value.to_str().is_ok_and(valid))?;
            values.next().is_none().then(|| value.clone())
        };
        let proto = single(X_FORWARDED_PROTO, |value| matches!(value, "http" | "https"));
        let host = single(X_FORWARDED_HOST, |value| {
            crate::policy::head::host(value).is_some()
        });
        Self { hops, proto, host }
    }
}

impl Via {
    pub(super) fn new(pseudonym: &str) -> Result<Self, http::Error> {
        Ok(Self {
            pseudonym: pseudonym.into(),
            http1: HeaderValue::from_str(&format!("1.1 {pseudonym}"))?,
            http2: HeaderValue::from_str(&format!("2.0 {pseudonym}"))?,
        })
    }

    /// Whether a request has passed this gateway before (MSG-14). By bytes: a neighbour's hop that is not ASCII must not hide
    /// ours on the same line.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut hops = headers
            .get_all(header::VIA)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        hops.any(|hop| {
            let mut words = hop
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            words.nth(1) == Some(self.pseudonym.as_bytes())
        })
    }
}

/// Sets every field that tells of the way, the trace excepted.
pub(super) fn inject(
    headers: &mut HeaderMap,
    permit: &Permit<'_>,
    from: &Forwarding<'_>,
    chain: TrustedChain,
    via: &Via,
) -> Result<(), Rejection> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Rejection::Internal);
    let (hops, client) = if from.believed.is_some() {
        let peer = from.peer.to_str().map_err(|_| Rejection::Internal)?;
        let hops = match chain.hops {
            Some(hops) => value(&format!("{hops}, {peer}"))?,
            None => from.peer.clone(),
        };
        (hops, value(&permit.client().to_string())?)
    } else {
        // Nobody stands between: the client is the peer.
        (from.peer.clone(), from.peer.clone())
    };
    headers.insert(X_FORWARDED_FOR, hops);
    headers.insert(X_REAL_IP, client);
    headers.insert(
        X_FORWARDED_PROTO,
        chain.proto.unwrap_or(HeaderValue::from_static("https")),
    );
    headers.insert(
        X_FORWARDED_HOST,
        chain.host.unwrap_or_else(|| from.host.clone()),
    );
    headers.insert(X_REQUEST_ID, from.request_id.clone());
    let via = if from.version == Version::HTTP_2 {
        &via.http2
    } else {
        &via.http1
    };
    headers.append(header::VIA, via.clone());
    Ok(())
}
