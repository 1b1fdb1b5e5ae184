//! The tokens that nobody but their holder has: refresh tokens, links in mails, invitations. 32 random bytes, kept as a digest.

use std::fmt;

use aws_lc_rs::{digest, hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use zeroize::Zeroizing;

use super::AccountError;
use crate::store::{Digest, Salt};

/// A token made by HMAC-SHA256, and a random one: 32 bytes.
const TOKEN_BYTES: usize = 32;

/// A refresh token. It does not print, and is wiped when dropped.
#[derive(Clone)]
pub struct RefreshToken(pub(super) Zeroizing<[u8; TOKEN_BYTES]>);

impl RefreshToken {
    /// Reads a token as it was presented: exactly 32 bytes in unpadded base64url, in their one canonical form (AUTH-12).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        let length = BASE64URL.decode_slice(text, bytes.as_mut()).ok()?;
        (length == TOKEN_BYTES).then_some(Self(bytes))
    }

    /// The token as it is handed out. To be written into the answer and nowhere else.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64URL.encode(self.0.as_ref()))
    }

    pub(super) fn random() -> Result<Self, AccountError> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    /// Looked up by its digest, a token is never compared byte by byte.
    pub(super) fn digest(&self) -> Digest {
        let mut bytes = Digest::default();
        let hash = digest::digest(&digest::SHA256, self.0.as_ref());
        bytes.copy_from_slice(hash.as_ref());
        bytes
    }

    /// A piece of the digest, for the log.
    pub(super) fn reference(&self) -> String {
        BASE64URL.encode(self.digest().first_chunk::<6>().unwrap_or(&[0; 6]))
    }

    /// What takes its place: nobody makes it without this token and the salt.
    pub(super) fn successor(&self, salt: &Salt) -> Result<Self, AccountError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_ref());
        let tag = hmac::sign(&key, salt);
        let bytes = tag
            .as_ref()
            .try_into()
            .map_err(|_| AccountError::Internal)?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

pub(super) fn random() -> Result<[u8; 32], AccountError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| AccountError::Internal)?;
    Ok(bytes)
}
