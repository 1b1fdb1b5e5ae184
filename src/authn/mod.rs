//! Turns credentials into an [`Identity`]: extraction, cache, verification, revocation.
//!
//! A credential is looked for in one place ([`credential`]): a bearer token, or the session cookie where a route takes it. Its
//! token is looked up by a digest of all its bytes (`cache`), unless it is the one that the connection brought last (`repeat`); one that is not there is verified against the one key that its
//! issuer, algorithm and key id name (`verifier`, `compact`, `claims`, `keys`). Cached or not, it is compared with the clock,
//! which never runs backwards here (`clock`), and with what was revoked ([`revocation`]).
//!
//! Nothing here knows what a caller may do, and nothing on the way of a request performs I/O. Keys are read with the
//! configuration, or fetched in the background ([`remote`]) from where the configuration says; no header of a token ever names
//! a place to fetch one from (JWT-2).

mod arrival;
mod cache;
pub mod checks;
mod claims;
mod clock;
mod compact;
pub mod credential;
mod feed;
mod keys;
mod known;
mod opaque;
pub mod remote;
mod repeat;
pub mod revocation;
pub mod settings;
mod strict_json;
mod turns;
mod verifier;

use std::{fmt, sync::Arc, time::SystemTime};

use http::HeaderMap;

pub use self::{
    arrival::{Arrival, Charge},
    cache::CacheStats,
    clock::{ClockFault, Settled},
    feed::FeedAge,
    keys::{KeyFault, KeyStatus, LiveKeys},
    repeat::{LastToken, LastTokens},
    revocation::Revocations,
};

use self::{
    cache::{Entry, LookUp, TokenCache},
    clock::UnixMillis,
    credential::{Accepts, Credential},
    opaque::{OpaqueIssuer, OpaqueTokens},
    settings::{BUILT_IN, CacheSettings, IssuerSettings},
    turns::Turns,
    verifier::{Failure, Verifier},
};
use crate::policy::{Access, Allowance, Caller, Identity, IdentityHeaders, Rejection, TokenFault};

/// Decides who is calling. Immutable; a reload makes another, and with it an empty cache (CFG-2).
#[derive(Debug)]
pub struct Authenticator {
    verifier: Verifier,
    opaque: OpaqueTokens,
    cache: TokenCache,
    turns: Turns,
    revocations: Arc<Revocations>,
}

/// What an entry of the cache says of its token.
type Judged = Result<Arc<Identity>, Rejection>;

/// An entry of the configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerFault {
    /// The entry's name.
    pub issuer: Arc<str>,
    /// What is wrong with it.
    pub fault: KeyFault,
}

impl fmt::Display for IssuerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "issuer `{}`: {}", self.issuer, self.fault)
    }
}

impl std::error::Error for IssuerFault {}

impl Authenticator {
    /// Loads and checks every issuer's keys. `revocations` is the process's one; `templates` are the headers that each
    /// identity is written into once.
    ///
    /// # Errors
    /// Every entry whose settings or keys cannot be used.
    pub fn new(
        issuers: &[IssuerSettings],
        cache: &CacheSettings,
        revocations: Arc<Revocations>,
        templates: Arc<IdentityHeaders>,
    ) -> Result<Self, Vec<IssuerFault>> {
        let verifier = Verifier::new(issuers, templates, Arc::clone(&revocations))?;
        let cache = TokenCache::new(cache).map_err(|_| {
            vec![IssuerFault {
                issuer: Arc::from("*"),
                fault: KeyFault::NoRandomness,
            }]
        })?;
        Ok(Self {
            verifier,
            opaque: OpaqueTokens::of(issuers),
            cache,
            turns: Turns::new(),
            revocations,
        })
    }

    /// Finds out who sent these headers, at this time.
    ///
    /// On a public route nobody looks, and the answer is [`Caller::Anonymous`]. On an optional route no credential is
    /// anonymous too, but a bearer token that is bad is refused: whoever sends it believes himself signed in. A session cookie
    /// that is dead is anonymous there, for a browser sends it without being asked.
    ///
    /// The token of a cookie is looked up like any other, but must be one of the built-in issuer.
    ///
    /// # Errors
    /// [`Rejection::CredentialsMissing`] where the route needs a credential, [`Rejection::AmbiguousCredentials`], and those
    /// of [`verify`](Self::verify).
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        accepts: impl Into<Accepts>,
        now: SystemTime,
        allowance: &impl Allowance,
    ) -> Result<Caller, Rejection> {
        self.authenticate_on(
            &LastToken::default(),
            headers,
            accepts.into(),
            (now, allowance),
        )
    }

    /// The same on a connection that remembers its last token, which changes how long it takes and nothing else.
    ///
    /// # Errors
    /// Those of [`authenticate`](Self::authenticate).
    pub fn authenticate_on(
        &self,
        last: &LastToken,
        headers: &HeaderMap,
        accepts: Accepts,
        (now, allowance): (SystemTime, &impl Allowance),
    ) -> Result<Caller, Rejection> {
        let Accepts { access, cookie } = accepts;
        if access == Access::Public {
            return Ok(Caller::Anonymous);
        }
        match (credential::find(headers, cookie)?, access) {
            (Some(Credential::Bearer(token)), _) => {
                let identity = self.verify_repeated(token, now, allowance, last);
                identity.map(Caller::Verified)
            }
            (Some(Credential::Cookie(token)), _) => {
                let identity = self.verify_repeated(token, now, allowance, last);
                match identity.and_then(of_session) {
                    Err(Rejection::TokenExpired | Rejection::TokenInvalid(_))
                        if access == Access::Optional =>
                    {
                        Ok(Caller::Anonymous)
                    }
                    verified => verified.map(Caller::Verified),
                }
            }
            (None, Access::Authenticated) => Err(Rejection::CredentialsMissing),
            (None, Access::Optional | Access::Public) => Ok(Caller::Anonymous),
        }
    }

    /// Finds the identity that a session cookie proves, whose token must be one of the built-in issuer.
    ///
    /// # Errors
    /// Those of [`verify`](Self::verify), and [`Rejection::TokenInvalid`] for another issuer's token.
    pub fn verify_session(
        &self,
        token: &str,
        now: SystemTime,
        allowance: &impl Allowance,
    ) -> Result<Arc<Identity>, Rejection> {
        self.verify(token, now, allowance).and_then(of_session)
    }

    /// Finds the identity that a token proves: from the cache, else by verifying it, within the allowance of whoever sent it.
    ///
    /// # Errors
    /// [`Rejection::TokenExpired`] where the token's time is over and nothing else is wrong with it,
    /// [`Rejection::TokenInvalid`] with the check that failed, for the log alone, [`Rejection::KeysUnavailable`] where the
    /// issuer's keys could not be had, [`Rejection::ClaimMismatch`] where a claim cannot be told to the upstream (HDR-5), and
    /// [`Rejection::RateLimited`] where nothing of the allowance is left.
    pub fn verify(
        &self,
        token: &str,
        now: SystemTime,
        allowance: &impl Allowance,
    ) -> Result<Arc<Identity>, Rejection> {
        self.verify_repeated(token, now, allowance, &LastToken::default())
    }

    fn verify_repeated(
        &self,
        token: &str,
        now: SystemTime,
        allowance: &impl Allowance,
        last: &LastToken,
    ) -> Result<Arc<Identity>, Rejection> {
        // Before the digest: what is too long to be a token must cost nothing that grows with it.
        if token.len() > compact::TOKEN_BYTES_MAX {
            return Err(Rejection::TokenInvalid(TokenFault::TooLong));
        }
        let now = self.revocations.observe(now);
        // Read before anything is checked: a revocation that comes meanwhile makes the epoch stale, and is seen next time.
        let epoch = self.revocations.epoch();
        let moment = (epoch, now);
        if let Some((key, entry)) = last.entry(token, self.cache.id())
            && let Some(recalled) = self.judge(&key, &entry, moment)
        {
            self.cache.count(LookUp::Hit);
            return recalled;
        }
        let key = self.cache.key(token);
        let insertions = self.cache.insertions();
        if let Some((entry, recalled)) = self.look_up(&key, moment) {
            self.cache.count(LookUp::Hit);
            last.note(token, (key, &entry), self.cache.id());
            return recalled;
        }
        let _turn = self.turns.take(&key);
        // Whoever had the turn before has put the entry in before it ended.
        if self.cache.insertions() != insertions
            && let Some((_, recalled)) = self.look_up(&key, moment)
        {
            self.cache.count(LookUp::Joined);
            return recalled;
        }
        self.cache.count(LookUp::Miss);
        match self.opaque.issuer(token) {
            Some(issuer) => self.believe_answer(issuer, key, moment),
            None => self.verify_anew(token, key, moment, allowance),
        }
    }

    /// The cache's entry of a token, and what it says of it; `None` where the token must be verified.
    fn look_up(&self, key: &cache::Key, moment: (u64, UnixMillis)) -> Option<(Arc<Entry>, Judged)> {
        let entry = self.cache.get(key)?;
        let judged = self.judge(key, &entry, moment)?;
        Some((entry, judged))
    }

    /// What an entry of the cache says of its token at this revocation epoch and time; `None` where the token must be verified.
    fn judge(
        &self,
        key: &cache::Key,
        entry: &Entry,
        (epoch, now): (u64, UnixMillis),
    ) -> Option<Judged> {
        if !entry.is_good(now) {
            return None;
        }
        if !entry.is_current(epoch) {
            if self.revocations.is_revoked(entry.identity.claims()) {
                self.cache.bury(*key, entry);
                return Some(Err(Rejection::TokenInvalid(TokenFault::Revoked)));
            }
            if entry.key.is_over() {
                self.cache.remove(key);
                return None;
            }
            entry.set_checked(epoch);
        }
        Some(Ok(Arc::clone(&entry.identity)))
    }

    /// Verifies a token whose turn the caller has.
    fn verify_anew(
        &self,
        token: &str,
        key: cache::Key,
        (epoch, now): (u64, UnixMillis),
        allowance: &impl Allowance,
    ) -> Result<Arc<Identity>, Rejection> {
        let known = self.cache.known.get(&key);
        match &known {
            Some(known) => known.check(now)?,
            None => allowance.take().map_err(Rejection::RateLimited)?,
        }
        let outcome = self.verifier.verify(token, now);
        if known.is_none() && !outcome.as_ref().is_err_and(Failure::was_in_vain) {
            allowance.give_back();
        }
        match outcome {
            Ok(verified) => {
                self.cache.insert(key, &verified, epoch, now);
                Ok(verified.identity)
            }
            Err(Failure { rejection, dead }) => {
                if let Some(dead) = dead {
                    self.cache.known.insert(key, dead);
                }
                Err(rejection)
            }
        }
    }

    /// Takes what its issuer says of an opaque token, if that has just been heard. Nobody is asked here:
    /// [`arrival`](Self::arrival) is.
    fn believe_answer(
        &self,
        issuer: &OpaqueIssuer,
        key: cache::Key,
        (epoch, now): (u64, UnixMillis),
    ) -> Result<Arc<Identity>, Rejection> {
        if let Some(known) = self.cache.known.get(&key) {
            known.check(now)?;
        }
        let answer = issuer.answer(&key).ok_or(Rejection::KeysUnavailable)?;
        match self.verifier.verify_answer(issuer, &answer, now) {
            Ok(verified) => {
                self.cache.insert(key, &verified, epoch, now);
                Ok(verified.identity)
            }
            Err(Failure { rejection, dead }) => {
                match dead {
                    Some(dead) => self.cache.known.insert(key, dead),
                    None => self.cache.known.remove(&key),
                }
                Err(rejection)
            }
        }
    }

    /// What a request that was refused so may wait for, before it is decided once more: the fetch of keys that may bring the
    /// one of its token (KEY-1), or its issuer's answer about an opaque one. `None` for every other refusal, and where no fetch
    /// is due.
    ///
    /// A token whose key is known never comes here; one that is unknown sets off one fetch in each cooldown at most. A question
    /// about an opaque token is charged to the allowance of whoever asks first, unless the token was good before; whether the
    /// charge goes back is known after the wait.
    ///
    /// # Errors
    /// [`Rejection::RateLimited`] where nothing of the allowance is left, and [`Rejection::KeysUnavailable`] where the issuer is
    /// not asked now: it fails, or too many questions are under way.
    pub fn arrival(
        &self,
        rejection: &Rejection,
        headers: &HeaderMap,
        allowance: &impl Allowance,
    ) -> Result<Option<Arrival>, Rejection> {
        let may_come = matches!(
            rejection,
            Rejection::KeysUnavailable | Rejection::TokenInvalid(TokenFault::KeyUnknown)
        );
        if !may_come {
            return Ok(None);
        }
        let token = credential::bearer(headers).ok().flatten();
        let Some(token) = token.filter(|token| token.len() <= compact::TOKEN_BYTES_MAX) else {
            return Ok(None);
        };
        let Some(issuer) = self.opaque.issuer(token) else {
            return Ok(self.verifier.arrival(token));
        };
        let Some(asks) = &issuer.asks else {
            return Ok(None);
        };
        let key = self.cache.key(token);
        let is_known = self.cache.known.get(&key).is_some();
        let charge = || match is_known {
            true => Ok(false),
            false => allowance
                .take()
                .map(|()| true)
                .map_err(Rejection::RateLimited),
        };
        asks.ask(key, token, charge).map(Some)
    }

    /// What was revoked, for exchanges that go on.
    #[must_use]
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Empties the cache of verified tokens, which costs their next requests a verification each; what is known of tokens that
    /// are dead stays. May take some milliseconds: not for a request.
    pub fn give_up_cache(&self) {
        self.cache.clear();
    }

    /// Drops what the cache holds of tokens that have expired. May take some milliseconds: not for a request.
    pub fn tidy_cache(&self) {
        self.cache.settle();
    }

    /// What the cache of verified tokens has done and holds.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Each issuer's name and the state of its keys, of all kinds together; `None` where it has none that can be used.
    #[must_use]
    pub fn key_status(&self) -> Vec<(Arc<str>, Option<KeyStatus>)> {
        let mut all: Vec<(Arc<str>, Option<KeyStatus>)> = Vec::new();
        for (name, keys) in self.verifier.keys() {
            match all.iter_mut().find(|(known, _)| known == name) {
                Some((_, status)) => *status = KeyStatus::together(*status, keys.status()),
                None => all.push((Arc::clone(name), keys.status())),
            }
        }
        all
    }
}

/// # Errors
/// [`Rejection::TokenInvalid`] for the identity of another issuer than the built-in one: only that one's tokens are sessions.
fn of_session(identity: Arc<Identity>) -> Result<Arc<Identity>, Rejection> {
    if *identity.claims().issuer_name == *BUILT_IN {
        Ok(identity)
    } else {
        Err(Rejection::TokenInvalid(TokenFault::Issuer))
    }
}

#[cfg(test)]
mod tests;
