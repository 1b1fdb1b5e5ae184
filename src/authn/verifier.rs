//! Is this token good? The only place where an identity is made.
//!
//! The order is the defence. What costs nothing comes first: length, shape, header. Then the unverified payload names an
//! issuer, `alg` and `kid` name one of its keys, and no other key is ever tried. Only after the signature are claims
//! believed, each of them, and expiry last, so that `token_expired` means that nothing else is wrong (JWT-11).

use std::{collections::HashMap, sync::Arc, time::Duration};

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::{
    IssuerFault,
    arrival::Arrival,
    claims::{self, Validity},
    clock::UnixMillis,
    compact::{Compact, JoseHeader, decode},
    keys::{KeyFault, KeyLife, KeySet, LiveKeys, VerifyingKey},
    known::Known,
    opaque::OpaqueIssuer,
    revocation::Revocations,
    settings::{IssuerSettings, KeySource},
    strict_json::{Member, members},
};
use crate::policy::{Claims, Identity, IdentityHeaders, Rejection, TokenFault};

/// The longest tolerance for times, whatever the settings say (JWT-10).
pub(super) const LEEWAY_MAX: Duration = Duration::from_secs(60);

/// Checks tokens against the issuers of the configuration.
#[derive(Debug)]
pub(super) struct Verifier {
    /// By `iss`; several under one name have no algorithm in common.
    issuers: HashMap<Arc<str>, Vec<Issuer>>,
    templates: Arc<IdentityHeaders>,
    revocations: Arc<Revocations>,
}

/// An identity and how long it lasts.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) identity: Arc<Identity>,
    pub(super) validity: Validity,
    /// The key that verified it.
    pub(super) key: Arc<KeyLife>,
}

/// Why there is no identity.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) rejection: Rejection,
    /// Where the signature is good and the token will never be so again.
    pub(super) dead: Option<Known>,
}

#[derive(Debug)]
struct Issuer {
    settings: IssuerSettings,
    leeway: Duration,
    keys: Arc<LiveKeys>,
}

impl Verifier {
    /// Loads every issuer's keys.
    ///
    /// # Errors
    /// Every entry that cannot be used, with its fault.
    pub(super) fn new(
        issuers: &[IssuerSettings],
        templates: Arc<IdentityHeaders>,
        revocations: Arc<Revocations>,
    ) -> Result<Self, Vec<IssuerFault>> {
        let mut by_name: HashMap<Arc<str>, Vec<Issuer>> = HashMap::new();
        let mut faults = Vec::new();
        for settings in issuers.iter().filter(|settings| is_with_keys(settings)) {
            let same = by_name.entry(Arc::clone(&settings.issuer)).or_default();
            match Issuer::load(settings, same) {
                Ok(issuer) => same.push(issuer),
                Err(fault) => faults.push(IssuerFault {
                    issuer: Arc::clone(&settings.name),
                    fault,
                }),
            }
        }
        if faults.is_empty() {
            Ok(Self {
                issuers: by_name,
                templates,
                revocations,
            })
        } else {
            Err(faults)
        }
    }

    /// The issuers' names and keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<LiveKeys>)> {
        self.issuers
            .values()
            .flatten()
            .map(|issuer| (&issuer.settings.name, &issuer.keys))
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// [`Rejection::TokenExpired`] where its time is over and nothing else is wrong; [`Rejection::TokenInvalid`] with the
    /// check that failed first; [`Rejection::KeysUnavailable`] where its issuer's keys could not be had;
    /// [`Rejection::ClaimMismatch`] where a claim cannot be written in a header (HDR-5).
    pub(super) fn verify(&self, token: &str, now: UnixMillis) -> Result<Verified, Failure> {
        let (issuer, claims, key) = self.read_signed(token)?;
        self.accept(claims, issuer.leeway, key, now)
    }

    /// Holds what its issuer says of an opaque token against all that a JWT's claims are held against.
    ///
    /// # Errors
    /// Those of [`OpaqueIssuer::claims`] and, once they are read, of [`verify`](Self::verify).
    pub(super) fn verify_answer(
        &self,
        issuer: &OpaqueIssuer,
        answer: &[u8],
        now: UnixMillis,
    ) -> Result<Verified, Failure> {
        let claims = issuer.claims(answer)?;
        self.accept(claims, issuer.leeway, Arc::clone(&issuer.life), now)
    }

    /// Time and revocation, the last checks.
    fn accept(
        &self,
        mut claims: Claims,
        leeway: Duration,
        key: Arc<KeyLife>,
        now: UnixMillis,
    ) -> Result<Verified, Failure> {
        claims.leeway = leeway;
        let validity = Validity::new(&claims, leeway);
        validity.check_begun(now).map_err(Rejection::TokenInvalid)?;
        let known = Known {
            end: validity.end,
            is_revoked: self.revocations.is_revoked(&claims),
            key: Arc::clone(&key),
        };
        if let Err(rejection) = known.check(now) {
            let dead = Some(known);
            return Err(Failure { rejection, dead });
        }
        let identity = Identity::assert_verified(claims, &self.templates)?;
        Ok(Verified {
            identity: Arc::new(identity),
            validity,
            key,
        })
    }

    /// What a token may wait for whose key is not known: the fetch that brings it.
    pub(super) fn arrival(&self, token: &str) -> Option<Arrival> {
        let compact = Compact::split(token).ok()?;
        let header = decode(compact.header).ok()?;
        let header = JoseHeader::read(&header).ok()?;
        let payload = decode(compact.payload).ok()?;
        let issuer = self.issuer(&payload, header.algorithm).ok()?;
        issuer
            .keys
            .arrival(header.algorithm, header.key_id.as_deref())
    }

    /// Everything but time and revocation.
    fn read_signed(&self, token: &str) -> Result<(&Issuer, Claims, Arc<KeyLife>), Rejection> {
        let invalid = Rejection::TokenInvalid;
        let compact = Compact::split(token).map_err(invalid)?;
        let header = decode(compact.header).map_err(invalid)?;
        let header = JoseHeader::read(&header).map_err(invalid)?;
        let payload = decode(compact.payload).map_err(invalid)?;
        let issuer = self.issuer(&payload, header.algorithm).map_err(invalid)?;
        issuer.check_type(&header).map_err(invalid)?;
        let set = issuer.keys.current();
        let set = set.as_ref().ok_or(Rejection::KeysUnavailable)?;
        let key = find(set, &header).map_err(invalid)?;
        if !key.verifies(compact.signed.as_bytes(), compact.signature) {
            return Err(invalid(TokenFault::Signature));
        }
        // `members` has found the payload strict, so that this reading is the only one possible.
        let all: Map<String, Value> =
            serde_json::from_slice(&payload).map_err(|_| invalid(TokenFault::Payload))?;
        let claims = claims::read(&issuer.settings, header.key_id.as_deref(), all);
        Ok((issuer, claims.map_err(invalid)?, Arc::clone(&key.life)))
    }

    /// The issuer that an unverified payload claims, if it may use this algorithm.
    fn issuer(&self, payload: &[u8], algorithm: Algorithm) -> Result<&Issuer, TokenFault> {
        let [iss] = members(payload, ["iss"]).ok_or(TokenFault::Payload)?;
        let Some(Member::Text(iss)) = iss else {
            return Err(TokenFault::Issuer);
        };
        let entries = self.issuers.get(&*iss).ok_or(TokenFault::Issuer)?;
        entries
            .iter()
            .find(|entry| entry.settings.algorithms.contains(&algorithm))
            .ok_or(TokenFault::Algorithm)
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            dead: None,
        }
    }
}

impl Failure {
    /// Whether a signature was checked for nothing, and would be again: that is what a budget is for. What is refused before costs
    /// little, and what has expired or was revoked is remembered.
    pub(super) fn was_in_vain(&self) -> bool {
        let Rejection::TokenInvalid(fault) = &self.rejection else {
            return matches!(self.rejection, Rejection::ClaimMismatch(_));
        };
        match fault {
            TokenFault::Audience
            | TokenFault::ClaimType
            | TokenFault::ExpiryMissing
            | TokenFault::IssuedInFuture
            | TokenFault::NotYetValid
            | TokenFault::Signature
            | TokenFault::Subject => true,
            TokenFault::Algorithm
            | TokenFault::CriticalHeader
            | TokenFault::Header
            | TokenFault::Issuer
            | TokenFault::Inactive
            | TokenFault::KeyUnknown
            | TokenFault::Payload
            | TokenFault::Revoked
            | TokenFault::Scheme
            | TokenFault::Segments
            | TokenFault::TooLong
            | TokenFault::Type => false,
        }
    }
}

impl Issuer {
    fn load(settings: &IssuerSettings, same: &[Self]) -> Result<Self, KeyFault> {
        if settings.audience.is_empty() {
            return Err(KeyFault::AudienceEmpty);
        }
        let shares = |other: &&Self| {
            let theirs = &other.settings.algorithms;
            settings
                .algorithms
                .iter()
                .any(|algorithm| theirs.contains(algorithm))
        };
        if let Some(other) = same.iter().find(shares) {
            return Err(KeyFault::AlgorithmShared(Arc::clone(&other.settings.name)));
        }
        Ok(Self {
            settings: settings.clone(),
            leeway: settings.leeway.min(LEEWAY_MAX),
            keys: LiveKeys::of(&settings.keys, &settings.algorithms)?,
        })
    }

    fn check_type(&self, header: &JoseHeader<'_>) -> Result<(), TokenFault> {
        if self.takes_type(header.token_type.as_deref()) {
            Ok(())
        } else {
            Err(TokenFault::Type)
        }
    }

    /// Whether access tokens of this issuer bear this `typ`. An ID token, a refresh token or a logout token is signed with
    /// the same key and is no access token (RFC 8725 §3.11, RFC 9068 §2.1).
    fn takes_type(&self, token_type: Option<&str>) -> bool {
        let mut accepted = self.settings.token_types.iter();
        match token_type {
            None => accepted.any(|accepted| accepted.is_empty()),
            Some(sent) => accepted.any(|accepted| {
                !accepted.is_empty() && media_type(sent).eq_ignore_ascii_case(media_type(accepted))
            }),
        }
    }
}

/// Whether an issuer's tokens are verified here; the others are asked about.
fn is_with_keys(settings: &IssuerSettings) -> bool {
    !matches!(
        settings.keys,
        KeySource::Introspection(_) | KeySource::Introspected(_)
    )
}

fn find<'k>(set: &'k KeySet, header: &JoseHeader<'_>) -> Result<&'k VerifyingKey, TokenFault> {
    set.find(header.algorithm, header.key_id.as_deref())
        .ok_or(TokenFault::KeyUnknown)
}

/// A `typ` without the prefix that may be left out (RFC 7515 §4.1.9).
fn media_type(name: &str) -> &str {
    const PREFIX: &str = "application/";
    match name.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        Some(_) | None => name,
    }
}
