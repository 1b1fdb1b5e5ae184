//! Refusals as clients of gRPC read them: a status of gRPC in the head of an answer without a body.
//!
//! Such a client takes what it needs from `grpc-status` and calls everything without it an unknown failure. The answer is one
//! of "trailers only" (PROTOCOL-HTTP2, Responses): HTTP status 200, everything in one head.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{self, HeaderName},
};

use crate::policy::Rejection;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A protocol of the gRPC family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grpc {
    /// gRPC over HTTP/2.
    Native,
    /// What browsers speak.
    Web,
}

impl Grpc {
    /// The protocol of a request, by its `Content-Type`: `application/grpc`, or that with a `+`, `-web` or parameters.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::of_kind(headers.get(header::CONTENT_TYPE)?.as_bytes())
    }

    /// The protocol of a `Content-Type`.
    #[must_use]
    pub fn of_kind(kind: &[u8]) -> Option<Self> {
        let (family, rest) = kind.split_at_checked(b"application/grpc".len())?;
        if !family.eq_ignore_ascii_case(b"application/grpc") {
            return None;
        }
        let ends = |rest: &[u8]| matches!(rest.first(), None | Some(b'+' | b';' | b' '));
        match rest.split_at_checked(b"-web".len()) {
            Some((b"-web", rest)) => {
                let text = rest.strip_prefix(b"-text").unwrap_or(rest);
                ends(text).then_some(Self::Web)
            }
            _ => ends(rest).then_some(Self::Native),
        }
    }

    /// Turns a refusal into one of this protocol. The other fields stay: to clients they are metadata.
    #[must_use]
    pub fn refusal(self, rejection: &Rejection, refusal: Response<Bytes>) -> Response<Bytes> {
        let mut answer = refusal.map(|_document| Bytes::new());
        *answer.status_mut() = StatusCode::OK;
        let headers = answer.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        let kind = match self {
            Self::Native => HeaderValue::from_static("application/grpc"),
            Self::Web => HeaderValue::from_static("application/grpc-web+proto"),
        };
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(GRPC_STATUS, status(rejection.status()).into());
        if let Ok(message) = HeaderValue::try_from(percent_encoded(rejection.detail())) {
            headers.insert(GRPC_MESSAGE, message);
        }
        answer
    }
}

/// What a client of gRPC would make of a status of HTTP itself (grpc/doc/http-grpc-status-mapping.md), so that it does not matter
/// which of the two it looks at. 429 is `UNAVAILABLE` there, which clients try again, after a while.
fn status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// Printable ASCII as it is, and everything else and `%` as its bytes (PROTOCOL-HTTP2, Responses: Percent-Encoded).
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_tells_the_protocol() {
        for (kind, want) in [
            ("application/grpc", Some(Grpc::Native)),
            ("application/grpc+proto", Some(Grpc::Native)),
            ("Application/GRPC; x=1", Some(Grpc::Native)),
            ("application/grpc-web", Some(Grpc::Web)),
            ("application/grpc-web-text+proto", Some(Grpc::Web)),
            ("application/grpcs", None),
            ("application/grpc-websocket", None),
            ("application/grp", None),
            ("application/json", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(Grpc::of(&headers), want, "{kind}");
        }
        assert_eq!(Grpc::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_refusal_keeps_its_fields_and_has_no_body() {
        let rejection = Rejection::CredentialsMissing;
        let id = crate::telemetry::RequestId::accept("r-1").unwrap();
        let refusal = crate::respond::refusal(&rejection, &id);
        let answer = Grpc::Native.refusal(&rejection, refusal);
        assert_eq!(answer.status(), 200);
        assert!(answer.body().is_empty());
        let field = |name: &str| {
            answer
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        assert_eq!(field("grpc-status"), Some("16"));
        assert_eq!(field("grpc-message"), Some(rejection.detail()));
        assert_eq!(field("content-type"), Some("application/grpc"));
        assert_eq!(field("content-length"), None);
        assert!(field("www-authenticate").is_some());
        assert_eq!(answer.extensions().get::<Rejection>(), Some(&rejection));
    }

    #[test]
    fn statuses_are_those_of_the_published_table() {
        let of = |code| status(StatusCode::from_u16(code).unwrap());
        let table = [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (502, 14),
        ];
        for (http, grpc) in table
            .into_iter()
            .chain([(503, 14), (504, 14), (413, 2), (500, 2)])
        {
            assert_eq!(of(http), grpc, "{http}");
        }
        assert_eq!(percent_encoded("50% ä"), "50%25 %C3%A4");
    }
}
