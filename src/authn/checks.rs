//! The checks of a token by their names, for whoever tells which of them it passed.

use crate::policy::{Rejection, TokenFault};

/// Every check, in an order in which one that failed has been reached by those before it. `algorithm` is asked twice: of the
/// header, and of the issuer once that is known.
pub const CHECKS: [&str; 13] = [
    "length",
    "segments",
    "header",
    "algorithm",
    "payload",
    "issuer",
    "type",
    "key",
    "signature",
    "claims",
    "begun",
    "revocation",
    "expiry",
];

/// The check that refused; `None` where a refusal is not about a token.
#[must_use]
pub fn failed_check(rejection: &Rejection) -> Option<&'static str> {
    if let Rejection::TokenInvalid(fault) = rejection {
        return check_of(*fault);
    }
    let others = [
        (Rejection::TokenExpired, "expiry"),
        (Rejection::KeysUnavailable, "key"),
    ];
    let found = others.iter().find(|(other, _)| other == rejection);
    found.map(|(_, check)| *check)
}

const fn check_of(fault: TokenFault) -> Option<&'static str> {
    Some(match fault {
        TokenFault::TooLong => "length",
        TokenFault::Segments => "segments",
        TokenFault::Header | TokenFault::CriticalHeader => "header",
        TokenFault::Algorithm => "algorithm",
        TokenFault::Payload => "payload",
        TokenFault::Issuer => "issuer",
        TokenFault::Type => "type",
        TokenFault::KeyUnknown => "key",
        TokenFault::Signature => "signature",
        TokenFault::Audience
        | TokenFault::ClaimType
        | TokenFault::ExpiryMissing
        | TokenFault::Subject => "claims",
        TokenFault::IssuedInFuture | TokenFault::NotYetValid => "begun",
        TokenFault::Revoked => "revocation",
        // Who asks the issuer checks nothing of a token but its length.
        TokenFault::Inactive | TokenFault::Scheme => return None,
    })
}

/// Each check with what is known of it once one has refused: passed, failed, or not reached.
#[must_use]
pub fn told(rejection: &Rejection) -> Vec<(&'static str, Option<bool>)> {
    let Some(place) =
        failed_check(rejection).and_then(|failed| CHECKS.iter().position(|check| *check == failed))
    else {
        return Vec::new();
    };
    let state = |index: usize| match index.cmp(&place) {
        std::cmp::Ordering::Less => Some(true),
        std::cmp::Ordering::Equal => Some(false),
        std::cmp::Ordering::Greater => None,
    };
    let checks = CHECKS.iter().enumerate();
    checks
        .map(|(index, check)| (*check, state(index)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_failed_lies_between_those_passed_and_those_not_reached() {
        let told = told(&Rejection::TokenInvalid(TokenFault::Signature));
        assert_eq!(told.len(), CHECKS.len());
        assert_eq!(told[7], ("key", Some(true)));
        assert_eq!(told[8], ("signature", Some(false)));
        assert_eq!(told[9], ("claims", None));
        let expired = super::told(&Rejection::TokenExpired);
        assert!(expired[..12].iter().all(|(_, state)| *state == Some(true)));
        assert_eq!(expired[12], ("expiry", Some(false)));
        assert!(super::told(&Rejection::RoleMissing).is_empty());
        assert!(super::told(&Rejection::TokenInvalid(TokenFault::Scheme)).is_empty());
    }
}
