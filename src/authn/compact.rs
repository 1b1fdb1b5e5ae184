//! Is this string one compact JWS, and what does its header ask for? All of it before any cryptography.
//!
//! The only serialisation served is the compact one (RFC 7515 §7.1), and the header may choose among what the
//! configuration allows, never beyond it: no key, no address, no algorithm is taken from it (RFC 8725 §3).

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;

use super::strict_json::{Member, members};
use crate::policy::TokenFault;

/// The longest token that is looked at, in bytes (JWT-7).
pub(super) const TOKEN_BYTES_MAX: usize = 8 << 10;

/// The longest `kid`, in bytes (JWT-2).
const KEY_ID_BYTES_MAX: usize = 256;

/// The parts of a compact JWS, still encoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compact<'a> {
    /// The first segment.
    pub(super) header: &'a str,
    /// The second segment.
    pub(super) payload: &'a str,
    /// The third segment.
    pub(super) signature: &'a str,
    /// What the signature is over: the first two segments with their dot.
    pub(super) signed: &'a str,
}

impl<'a> Compact<'a> {
    /// Splits a token.
    ///
    /// # Errors
    /// [`TokenFault::TooLong`] over 8 KiB, decided before anything else; [`TokenFault::Segments`] unless it is exactly three
    /// segments, none empty, of `[A-Za-z0-9_-]`: no padding, no white space, no five segments of a JWE (JWT-5).
    pub(super) fn split(token: &'a str) -> Result<Self, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenFault::Segments)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenFault::Segments)?;
        if ![header, payload, signature].into_iter().all(is_base64url) {
            return Err(TokenFault::Segments);
        }
        Ok(Self {
            header,
            payload,
            signature,
            signed,
        })
    }
}

fn is_base64url(segment: &str) -> bool {
    let in_alphabet =
        |byte: u8| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    // Without a way out at the first bad byte, which lets the compiler compare sixteen at once.
    !segment.is_empty()
        && segment
            .bytes()
            .fold(true, |all, byte| all & in_alphabet(byte))
}

/// Decodes a segment.
///
/// # Errors
/// [`TokenFault::Segments`] for a length that no bytes encode to, and for bits beyond the last byte that are not zero: two
/// spellings of one token must not exist.
pub(super) fn decode(segment: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| TokenFault::Segments)
}

/// What a token's header asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JoseHeader<'a> {
    /// `alg`, one of those that this program knows.
    pub(super) algorithm: Algorithm,
    /// `kid`: an opaque name, looked up in a map and nowhere else.
    pub(super) key_id: Option<Cow<'a, str>>,
    /// `typ`, as sent.
    pub(super) token_type: Option<Cow<'a, str>>,
}

/// The parameters that are looked at. Those from the fourth on change what the rest means, and none of them is implemented:
/// `crit` demands understanding (RFC 7515 §4.1.11), `b64` unencodes the payload (RFC 7797), `zip` inflates, and the others
/// belong to encryption and to passwords stretched at the sender's choice of cost.
const PARAMETERS: [&str; 12] = [
    "alg", "kid", "typ", "crit", "b64", "zip", "enc", "p2c", "p2s", "epk", "iv", "tag",
];

impl<'a> JoseHeader<'a> {
    /// Reads a decoded header. `jku`, `jwk`, `x5u` and `x5c` are walked over like any unknown name: keys come from the
    /// configuration (JWT-2).
    ///
    /// # Errors
    /// [`TokenFault::Header`] where it is not strict JSON or `alg` is not a string, [`TokenFault::CriticalHeader`],
    /// [`TokenFault::Algorithm`] for a name that is not known byte for byte (`none` in any case is not),
    /// [`TokenFault::KeyUnknown`] and [`TokenFault::Type`] where those are malformed.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, TokenFault> {
        let [alg, kid, typ, refused @ ..] = members(json, PARAMETERS).ok_or(TokenFault::Header)?;
        if refused.iter().any(Option::is_some) {
            return Err(TokenFault::CriticalHeader);
        }
        let Some(Member::Text(alg)) = alg else {
            return Err(TokenFault::Header);
        };
        Ok(Self {
            algorithm: alg.parse().map_err(|_| TokenFault::Algorithm)?,
            key_id: text(kid, TokenFault::KeyUnknown)?
                .map(|kid| is_key_id(&kid).then_some(kid).ok_or(TokenFault::KeyUnknown))
                .transpose()?,
            token_type: text(typ, TokenFault::Type)?,
        })
    }
}

fn text(member: Option<Member<'_>>, fault: TokenFault) -> Result<Option<Cow<'_, str>>, TokenFault> {
    match member {
        None => Ok(None),
        Some(Member::Text(text)) => Ok(Some(text)),
        Some(Member::Other) => Err(fault),
    }
}

/// Whether a `kid` is a plain name: 1 to 256 bytes of `[A-Za-z0-9._~+/=-]` (JWT-2).
pub(super) fn is_key_id(kid: &str) -> bool {
    (1..=KEY_ID_BYTES_MAX).contains(&kid.len())
        && kid.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'-')
        })
}
