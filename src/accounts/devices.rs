//! Browsers in which an account was opened before: whoever guesses from elsewhere uses up the account's attempts, and not
//! theirs (RATE-4).
//!
//! A device token is no credential. It gives attempts of its own, as many as the account has, and nothing else. It is not kept
//! either: it is 16 random bytes, the time, and the HMAC of both and of the account under the stored password hash. So every
//! node verifies it with the row that a login reads anyway, no key has to be made or shared, and a new password ends all of them.
//! The hash has a random salt, so nobody can search for the password with such a token.

use std::{fmt, time::Duration};

use aws_lc_rs::{hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use zeroize::Zeroizing;

use super::{AccountError, Accounts};
use crate::{
    cluster::Attempt,
    policy::rejection::Exceeded,
    store::{PasswordHash, User},
};

/// How long a browser is known after its last login.
pub const DEVICE_LIFE: Duration = Duration::from_secs(365 * 86_400);

const NONCE_BYTES: usize = 16;
const TIME_BYTES: usize = 8;
const TAG_BYTES: usize = 32;
const TOKEN_BYTES: usize = NONCE_BYTES + TIME_BYTES + TAG_BYTES;

/// Says that its holder has opened an account before. It does not print.
#[derive(Clone)]
pub struct DeviceToken {
    nonce: [u8; NONCE_BYTES],
    /// Seconds since 1970.
    made_at: u64,
    tag: [u8; TAG_BYTES],
}

impl DeviceToken {
    /// Reads a token as it was presented, in its one canonical form; `None` for what is none. That it has the form says nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        let length = BASE64URL.decode_slice(text, &mut bytes).ok()?;
        if length != TOKEN_BYTES {
            return None;
        }
        let (nonce, rest) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let (time, tag) = rest.split_first_chunk::<TIME_BYTES>()?;
        Some(Self {
            nonce: *nonce,
            made_at: u64::from_be_bytes(*time),
            tag: tag.try_into().ok()?,
        })
    }

    /// The token as it is handed out. To be written into the answer and nowhere else.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let time = self.made_at.to_be_bytes();
        let bytes = [self.nonce.as_slice(), &time, &self.tag].concat();
        Zeroizing::new(BASE64URL.encode(Zeroizing::new(bytes)))
    }

    /// A token for an account with this password.
    pub(super) fn new(
        user_id: &str,
        password: &PasswordHash,
        now: u64,
    ) -> Result<Self, AccountError> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| AccountError::Internal)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, password.0.as_bytes());
        let tag = hmac::sign(&key, &signed(&nonce, now, user_id));
        Ok(Self {
            nonce,
            made_at: now,
            tag: tag
                .as_ref()
                .try_into()
                .map_err(|_| AccountError::Internal)?,
        })
    }

    /// Whether it was made for this account, with the password that it has now, and not too long ago. Where there is no such
    /// account or password, it costs the same.
    fn proves(&self, account: &str, password: Option<&PasswordHash>, now: u64) -> bool {
        let key = password.map_or("nobody", |hash| &hash.0);
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let signed = signed(&self.nonce, self.made_at, account);
        let genuine = hmac::verify(&key, &signed, &self.tag).is_ok();
        let young = now.saturating_sub(self.made_at) < DEVICE_LIFE.as_secs();
        genuine && young && password.is_some()
    }
}

impl fmt::Debug for DeviceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What is signed: parts of a fixed length, then the account.
fn signed(nonce: &[u8; NONCE_BYTES], made_at: u64, user_id: &str) -> Vec<u8> {
    let time = made_at.to_be_bytes();
    let parts = [
        b"portcullis device".as_slice(),
        nonce,
        &time,
        user_id.as_bytes(),
    ];
    parts.concat()
}

impl Accounts {
    /// Takes one attempt at the password of `account`, which is the id of `user` or, where there is none, what was typed: from
    /// the account's budget, or from that of a device on which it was opened before. What comes of it says whether the password was
    /// right; else it counts among those in a row that lead to a stop.
    pub(super) async fn charge_attempt(
        &self,
        account: &str,
        user: Option<&User>,
        device: Option<&DeviceToken>,
    ) -> Result<Attempt<'_>, Exceeded> {
        let password = user.and_then(|user| user.password.as_ref());
        let now = self.clock.now();
        // Each unlocking begins new budgets, on every node, for all read it with the account.
        let budget = match user.map_or(0, |user| user.unlocks) {
            0 => account.to_owned(),
            unlocks => format!("{account} {unlocks}"),
        };
        // The epoch grows with each new password: of the old one nothing more is counted.
        let streak = |key: &str| format!("{key} {}", user.map_or(0, |user| user.epoch)).into();
        match device.filter(|device| device.proves(account, password, now)) {
            Some(device) => {
                let key = format!("{budget} {}", BASE64URL.encode(device.nonce));
                self.logins_per_device.check(&key, streak(&key)).await
            }
            None => {
                self.logins_per_account
                    .check(&budget, streak(&budget))
                    .await
            }
        }
    }
}
