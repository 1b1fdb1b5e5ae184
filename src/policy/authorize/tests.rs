//! Tests of the rule over an identity.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::policy::{PeerIp, headers::IdentityHeaders, route::tests::route};

/// An identity with these claims, which no verifier has seen.
pub(crate) fn identity(claims: Claims, templates: &IdentityHeaders) -> Caller {
    Caller::Verified(Arc::new(
        Identity::assert_verified(claims, templates).unwrap(),
    ))
}

fn clerk() -> Claims {
    let all = json!({
        "tenant": "a", "level": 3, "flags": ["x", "y"], "org": {"unit": "sales"}, "https://x/y": "z", "none": null,
    });
    Claims {
        issuer_name: "corp".into(),
        issuer: "https://idp.example.com".into(),
        subject: "u1".into(),
        roles: vec!["clerk".into(), "two words".into()],
        scopes: vec!["orders:read".into(), "orders:write".into()],
        audience: vec!["orders".into(), "billing".into()],
        all: all.as_object().cloned().unwrap_or_default(),
        ..Claims::default()
    }
}

fn client() -> ClientIp {
    PeerIp::new([192, 0, 2, 1].into()).into()
}

fn decide(access: Access, rule: Rule, caller: Caller) -> Result<(), Rejection> {
    let route = Route {
        access,
        rule,
        ..route("r")
    };
    authorize(&route, client(), Ok(caller)).map(|_| ())
}

fn verified(claims: Claims) -> Caller {
    identity(claims, &IdentityHeaders::default())
}

fn texts(list: &[&str]) -> Vec<Box<str>> {
    list.iter().map(|text| (*text).into()).collect()
}

fn roles(list: &[&str]) -> Rule {
    Rule {
        roles: texts(list),
        ..Rule::default()
    }
}

fn scopes(list: &[&str]) -> Rule {
    Rule {
        scopes: texts(list),
        scopes_line: list.join(" ").into(),
        ..Rule::default()
    }
}

fn claim(name: &str, allowed: &[Value]) -> Rule {
    Rule {
        claims: vec![(name.into(), allowed.to_vec())],
        ..Rule::default()
    }
}

#[track_caller]
fn refused(rule: Rule, want: Rejection) {
    for access in [Access::Authenticated, Access::Optional] {
        assert_eq!(
            decide(access, rule.clone(), verified(clerk())),
            Err(want.clone()),
            "{rule:?}"
        );
    }
}

#[track_caller]
fn admitted(rule: Rule) {
    for access in [Access::Authenticated, Access::Optional] {
        assert_eq!(
            decide(access, rule.clone(), verified(clerk())),
            Ok(()),
            "{rule:?}"
        );
    }
}

#[test]
fn uri_3_nobody_is_refused_where_somebody_is_required() {
    for rule in [Rule::default(), roles(&["clerk"])] {
        assert_eq!(
            decide(Access::Authenticated, rule, Caller::Anonymous),
            Err(Rejection::CredentialsMissing)
        );
    }
}

#[test]
fn authorize_missing_role_is_refused() {
    for list in [
        &["admin"][..],
        &["Clerk"],
        &["clerk "],
        &["cler"],
        &[""],
        &["two"],
        &["clerk,two words"],
        &["admin", "root"],
    ] {
        refused(roles(list), Rejection::RoleMissing);
    }
    admitted(roles(&["clerk"]));
    admitted(roles(&["admin", "two words"]));
    let none = Claims {
        roles: Vec::new(),
        ..clerk()
    };
    assert_eq!(
        decide(Access::Authenticated, roles(&["clerk"]), verified(none)),
        Err(Rejection::RoleMissing)
    );
}

#[test]
fn hdr_5_a_role_with_a_comma_is_one_role() {
    let claims = Claims {
        roles: texts(&["a,admin"]),
        ..clerk()
    };
    assert_eq!(
        decide(Access::Authenticated, roles(&["admin"]), verified(claims)),
        Err(Rejection::RoleMissing)
    );
}

#[test]
fn authorize_every_scope_is_needed_and_named_in_the_challenge() {
    refused(
        scopes(&["orders:admin"]),
        Rejection::ScopeMissing("orders:admin".into()),
    );
    refused(
        scopes(&["orders:read", "x"]),
        Rejection::ScopeMissing("orders:read x".into()),
    );
    refused(
        scopes(&["orders"]),
        Rejection::ScopeMissing("orders".into()),
    );
    refused(
        scopes(&["orders:read orders:write"]),
        Rejection::ScopeMissing("orders:read orders:write".into()),
    );
    admitted(scopes(&["orders:read"]));
    admitted(scopes(&["orders:write", "orders:read"]));
}

#[test]
fn authorize_claims_need_an_allowed_value_of_the_same_type() {
    let mismatch = || Rejection::ClaimMismatch(ClaimFault::Claim);
    for (name, allowed) in [
        ("tenant", vec![json!("b")]),
        ("tenant", vec![json!("A")]),
        ("tenant", vec![]),
        ("tenant", vec![json!(["a"])]),
        ("absent", vec![json!("a")]),
        ("absent", vec![json!(null)]),
        ("level", vec![json!("3")]),
        ("level", vec![json!(4)]),
        ("flags", vec![json!("z")]),
        ("flags", vec![json!(["x", "y"])]),
        ("org", vec![json!("sales")]),
        ("org.unit", vec![json!("it")]),
        ("org.unit.x", vec![json!("sales")]),
        ("org.", vec![json!("sales")]),
        ("", vec![json!("a")]),
        ("tenant.a", vec![json!(true)]),
        ("none", vec![json!("a")]),
    ] {
        refused(claim(name, &allowed), mismatch());
    }
    for (name, allowed) in [
        ("tenant", vec![json!("b"), json!("a")]),
        ("level", vec![json!(3)]),
        ("flags", vec![json!("y")]),
        ("org.unit", vec![json!("sales")]),
        ("https://x/y", vec![json!("z")]),
        ("org", vec![json!({"unit": "sales"})]),
    ] {
        admitted(claim(name, &allowed));
    }
    let both = Rule {
        claims: vec![
            ("tenant".into(), vec![json!("a")]),
            ("level".into(), vec![json!(4)]),
        ],
        ..Rule::default()
    };
    refused(both, mismatch());
}

#[test]
fn jwt_4_issuer_and_audience_of_the_route_are_checked() {
    let issuers = |list: &[&str]| Rule {
        issuers: texts(list),
        ..Rule::default()
    };
    let audiences = |list: &[&str]| Rule {
        audiences: texts(list),
        ..Rule::default()
    };
    for list in [
        &["other"][..],
        &["Corp"],
        &["https://idp.example.com"],
        &[""],
    ] {
        refused(issuers(list), Rejection::ClaimMismatch(ClaimFault::Issuer));
    }
    for list in [&["other"][..], &["Orders"], &["order"], &[""]] {
        refused(
            audiences(list),
            Rejection::ClaimMismatch(ClaimFault::Audience),
        );
    }
    admitted(issuers(&["other", "corp"]));
    admitted(audiences(&["x", "billing"]));
}

#[test]
fn authorize_reports_the_first_part_that_is_not_met() {
    let rule = Rule {
        issuers: texts(&["x"]),
        audiences: texts(&["x"]),
        claims: vec![("x".into(), vec![json!(1)])],
        roles: texts(&["x"]),
        scopes: texts(&["x"]),
        scopes_line: "x".into(),
    };
    let mut rule = rule;
    refused(rule.clone(), Rejection::ClaimMismatch(ClaimFault::Issuer));
    rule.issuers.clear();
    refused(rule.clone(), Rejection::ClaimMismatch(ClaimFault::Audience));
    rule.audiences.clear();
    refused(rule.clone(), Rejection::ClaimMismatch(ClaimFault::Claim));
    rule.claims.clear();
    refused(rule.clone(), Rejection::RoleMissing);
    rule.roles.clear();
    refused(rule.clone(), Rejection::ScopeMissing("x".into()));
    rule.scopes.clear();
    admitted(rule);
}

#[test]
fn authorize_optional_admits_nobody_in_particular_but_judges_somebody() {
    for rule in [Rule::default(), roles(&["admin"])] {
        assert_eq!(decide(Access::Optional, rule, Caller::Anonymous), Ok(()));
    }
    refused(roles(&["admin"]), Rejection::RoleMissing);
}

#[test]
fn authorize_public_looks_at_no_rule() {
    for caller in [Caller::Anonymous, verified(clerk())] {
        assert_eq!(decide(Access::Public, roles(&["admin"]), caller), Ok(()));
    }
}

#[test]
fn authorize_permit_carries_what_was_decided_on() {
    let route = Route {
        access: Access::Optional,
        ..route("r")
    };
    let permit = authorize(&route, client(), Ok(verified(clerk()))).unwrap();
    assert_eq!((&*permit.route().name, permit.client()), ("r", client()));
    assert_eq!(
        permit
            .caller()
            .identity()
            .map(|identity| &*identity.claims().subject),
        Some("u1")
    );
    let permit = authorize(&route, client(), Ok(Caller::Anonymous)).unwrap();
    assert!(permit.caller().identity().is_none());
}

proptest! {
    #[test]
    fn authorize_a_role_admits_only_whom_holds_it(held in prop::collection::vec("[ab,. ]{0,3}", 0..4), wanted in "[ab,. ]{0,3}") {
        let claims = Claims { roles: held.iter().map(|role| role.as_str().into()).collect(), ..clerk() };
        let decision = decide(Access::Authenticated, roles(&[&wanted]), verified(claims));
        prop_assert_eq!(decision.is_ok(), held.contains(&wanted));
    }
}
