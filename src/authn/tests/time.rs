//! JWT-10, FAULT-4: times at their exact boundaries, and clocks that are set.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::fixtures::*;
use crate::{
    authn::{Authenticator, settings::IssuerSettings},
    policy::{Rejection, TokenFault, Unlimited},
};

fn with_leeway(secs: u64) -> Authenticator {
    authenticator(&[IssuerSettings {
        leeway: Duration::from_secs(secs),
        ..settings(Algorithm::ES256)
    }])
}

#[track_caller]
fn check(leeway: u64, name: &str, value: u64, want: Option<Rejection>) {
    // A new one for each case, for none may profit from the cache or the clock of another.
    let token = es256(&payload_with(name, Some(value.into())));
    let found = verify(&with_leeway(leeway), &token).err();
    assert_eq!(found, want, "{name} {value} leeway {leeway}");
}

#[test]
fn jwt_10_leeway_widens_exp_nbf_and_iat_alike() {
    let early = |fault| Some(Rejection::TokenInvalid(fault));
    for leeway in [0, 1, 30, 60] {
        check(
            leeway,
            "exp",
            NOW - leeway - 1,
            Some(Rejection::TokenExpired),
        );
        check(leeway, "exp", NOW - leeway, Some(Rejection::TokenExpired));
        check(leeway, "exp", NOW - leeway + 1, None);
        check(
            leeway,
            "nbf",
            NOW + leeway + 1,
            early(TokenFault::NotYetValid),
        );
        check(leeway, "nbf", NOW + leeway, None);
        check(leeway, "nbf", NOW + leeway - 1, None);
        check(
            leeway,
            "iat",
            NOW + leeway + 1,
            early(TokenFault::IssuedInFuture),
        );
        check(leeway, "iat", NOW + leeway, None);
        check(leeway, "iat", NOW + leeway - 1, None);
    }
}

#[test]
fn jwt_10_leeway_is_never_more_than_a_minute() {
    check(3600, "exp", NOW - 60, Some(Rejection::TokenExpired));
    check(3600, "exp", NOW - 59, None);
    check(
        3600,
        "nbf",
        NOW + 61,
        Some(Rejection::TokenInvalid(TokenFault::NotYetValid)),
    );
}

#[test]
fn jwt_10_extreme_times_neither_overflow_nor_live_for_ever() {
    check(60, "exp", 0, Some(Rejection::TokenExpired));
    check(60, "exp", 253_402_300_799, None);
    check(
        60,
        "exp",
        253_402_300_800,
        Some(Rejection::TokenInvalid(TokenFault::ClaimType)),
    );
    check(60, "nbf", 0, None);
    check(60, "iat", 0, None);
    let token = good(Algorithm::ES256);
    let authenticator = with_leeway(60);
    assert_eq!(
        authenticator
            .verify(&token, std::time::UNIX_EPOCH, &Unlimited)
            .unwrap_err(),
        Rejection::TokenInvalid(TokenFault::IssuedInFuture)
    );
    let before_1970 = std::time::UNIX_EPOCH - Duration::from_secs(1);
    assert!(
        authenticator
            .verify(&token, before_1970, &Unlimited)
            .is_err()
    );
}

#[test]
fn jwt_10_parts_of_a_second_count() {
    let authenticator = with_leeway(0);
    let token = es256(&payload_with("exp", Some((NOW + 1).into())));
    let just_before = at(NOW + 1) - Duration::from_millis(1);
    assert!(
        authenticator
            .verify(&token, just_before, &Unlimited)
            .is_ok()
    );
    assert_eq!(
        authenticator
            .verify(&token, at(NOW + 1), &Unlimited)
            .unwrap_err(),
        Rejection::TokenExpired
    );
}

#[test]
fn jwt_10_a_clock_set_back_revives_nothing_that_was_seen_to_expire() {
    let authenticator = with_leeway(0);
    let token = es256(&payload_with("exp", Some((NOW + 20).into())));
    assert!(authenticator.verify(&token, at(NOW), &Unlimited).is_ok());
    assert_eq!(
        authenticator
            .verify(&token, at(NOW + 20), &Unlimited)
            .unwrap_err(),
        Rejection::TokenExpired
    );
    for back in [NOW + 19, NOW, NOW - 3600, 0] {
        assert_eq!(
            authenticator
                .verify(&token, at(back), &Unlimited)
                .unwrap_err(),
            Rejection::TokenExpired
        );
    }
    // Others go on by the latest time seen.
    assert!(
        authenticator
            .verify(&good(Algorithm::ES256), at(NOW - 3600), &Unlimited)
            .is_ok()
    );
}

#[test]
fn fault_4_a_wild_jump_ahead_is_not_remembered() {
    for years in [1, 10, 1000] {
        let authenticator = with_leeway(0);
        let token = good(Algorithm::ES256);
        assert!(authenticator.verify(&token, at(NOW), &Unlimited).is_ok());
        let wild = at(NOW + years * 365 * 86400);
        assert_eq!(
            authenticator.verify(&token, wild, &Unlimited).unwrap_err(),
            Rejection::TokenExpired
        );
        assert!(
            authenticator
                .verify(&token, at(NOW + 1), &Unlimited)
                .is_ok()
        );
    }
}

#[test]
fn jwt_10_nbf_is_compared_on_every_hit() {
    // Two issuers' tokens share the clock; a cached token whose time has come stays good.
    let authenticator = with_leeway(30);
    let token = es256(
        &json!({"iss": ISSUER, "aud": "orders", "sub": "u", "nbf": NOW + 30, "exp": NOW + 600}),
    );
    assert_eq!(
        authenticator
            .verify(&token, at(NOW - 1), &Unlimited)
            .unwrap_err(),
        Rejection::TokenInvalid(TokenFault::NotYetValid)
    );
    assert!(authenticator.verify(&token, at(NOW), &Unlimited).is_ok());
    assert!(
        authenticator
            .verify(&token, at(NOW + 1), &Unlimited)
            .is_ok()
    );
}
