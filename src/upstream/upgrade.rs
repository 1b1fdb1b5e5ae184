//! The WebSocket handshake with an upstream, and what is left of the connection after it.

use std::fmt;

use aws_lc_rs::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    rand,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{self, HeaderName},
};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;

use super::Lease;
use crate::policy::Rejection;

/// What the key is joined with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Fields of one connection, which the gateway writes itself towards either side.
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// A handshake under way: what the upstream must answer to show that it read the request as what it is. One that can be
/// made to answer `101` to anything cannot be made to answer this.
#[derive(Debug, Clone)]
pub struct Handshake {
    accept: HeaderValue,
}

/// An upstream's connection that is no longer HTTP. Its place under the upstream's caps is free when this is dropped, and
/// the connection closed.
pub struct Switched {
    upgrade: OnUpgrade,
    lease: Lease,
}

impl Handshake {
    /// The handshake of a client that has a key of its own.
    ///
    /// # Errors
    /// [`Rejection::Internal`], which base64 text does not cause.
    pub fn of(key: &HeaderValue) -> Result<Self, Rejection> {
        let joined = [key.as_bytes(), GUID].concat();
        let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &joined));
        let accept = HeaderValue::try_from(accept).map_err(|_| Rejection::Internal)?;
        Ok(Self { accept })
    }

    /// A handshake for a client that needs none (RFC 8441 §5): its key is written into the headers.
    ///
    /// # Errors
    /// [`Rejection::Internal`] where the system has no random numbers.
    pub fn generate(headers: &mut HeaderMap) -> Result<Self, Rejection> {
        let mut key = [0; 16];
        rand::fill(&mut key).map_err(|_| Rejection::Internal)?;
        let key = HeaderValue::try_from(STANDARD.encode(key)).map_err(|_| Rejection::Internal)?;
        let handshake = Self::of(&key)?;
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
        Ok(handshake)
    }

    /// Writes the two fields that make a request or an answer `101` one of a handshake.
    pub fn mark(headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, WEBSOCKET);
    }

    /// Whether an answer `101` is the one to this handshake (RFC 6455 §4.1).
    fn is_met(&self, headers: &HeaderMap) -> bool {
        let is_only = |name: HeaderName, want: &dyn Fn(&[u8]) -> bool| {
            let mut values = headers.get_all(name).iter();
            values.next().is_some_and(|value| want(value.as_bytes())) && values.next().is_none()
        };
        let is_websocket = |value: &[u8]| value.eq_ignore_ascii_case(WEBSOCKET.as_bytes());
        is_only(header::UPGRADE, &is_websocket)
            && is_only(header::SEC_WEBSOCKET_ACCEPT, &|value| {
                value == self.accept.as_bytes()
            })
    }
}

impl Switched {
    /// Takes the connection of an answer `101`.
    ///
    /// # Errors
    /// [`Rejection::UpstreamInvalid`] where nobody asked for another protocol or this is not the one: what follows is then not
    /// an answer to this request (MSG-3).
    pub(super) fn new(
        response: &mut Response<Incoming>,
        mut lease: Lease,
        handshake: Option<&Handshake>,
    ) -> Result<Self, Rejection> {
        if !handshake.is_some_and(|handshake| handshake.is_met(response.headers())) {
            return Err(Rejection::UpstreamInvalid);
        }
        let upgrade = hyper::upgrade::on(response);
        // What is left of it hands the stream over.
        lease.detach();
        Ok(Self { upgrade, lease })
    }

    /// The bare connection, and its place, to be held as long as it is used.
    ///
    /// # Errors
    /// Where the connection ended right after the answer.
    pub async fn open(self) -> Result<(TokioIo<Upgraded>, Lease), hyper::Error> {
        let stream = self.upgrade.await?;
        Ok((TokioIo::new(stream), self.lease))
    }
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Switched(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_3_an_answer_to_another_key_is_none() {
        // The example of RFC 6455 §1.3.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        let handshake = Handshake::of(&key).unwrap();
        let is_met = |upgrade: &[&str], accept: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in upgrade {
                headers.append("upgrade", value.parse().unwrap());
            }
            for value in accept {
                headers.append("sec-websocket-accept", value.parse().unwrap());
            }
            handshake.is_met(&headers)
        };
        let good = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert!(is_met(&["websocket"], &[good]));
        assert!(is_met(&["WebSocket"], &[good]));
        assert!(!is_met(&["websocket"], &[]));
        assert!(!is_met(&["websocket"], &["s3pPLMBiTxaQ9kYGzzhZRbK+xOp="]));
        assert!(!is_met(&["websocket"], &[good, good]));
        assert!(!is_met(&[], &[good]));
        assert!(!is_met(&["foo"], &[good]));
        assert!(!is_met(&["websocket", "foo"], &[good]));
    }

    #[test]
    fn a_generated_key_is_a_new_one_each_time() {
        let (mut first, mut second) = (HeaderMap::new(), HeaderMap::new());
        let handshake = Handshake::generate(&mut first).unwrap();
        Handshake::generate(&mut second).unwrap();
        let key = first.get("sec-websocket-key").unwrap();
        assert_eq!(Handshake::of(key).unwrap().accept, handshake.accept);
        assert_ne!(first, second);
    }
}
