//! Opaque tokens: what an issuer must say before anybody is let in (RFC 7662).

mod questions;

use std::{cell::Cell, sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Node, PATIENCE, Provider, Reply};
use crate::{
    authn::{
        Authenticator, Charge,
        settings::{FetchSettings, IntrospectionSettings, IssuerSettings, KeySource},
        tests::fixtures::{ISSUER, NOW, at, settings as issuer, with_revocations},
    },
    policy::{Allowance, Identity, Rejection, TokenFault, Unlimited, rejection::Exceeded},
};

const TOKEN: &str = "tok_3q2-7w~/+==";

/// What an issuer says of a token in which nothing is wrong.
fn said() -> Value {
    json!({
        "active": true, "iss": ISSUER, "aud": ["orders"], "sub": "u1", "iat": NOW - 10, "exp": NOW + 300,
        "scope": "read write", "client_id": "app", "token_type": "Bearer", "jti": "t1",
    })
}

fn said_with(name: &str, value: Value) -> String {
    let mut answer = said();
    answer[name] = value;
    answer.to_string()
}

fn said_without(name: &str) -> String {
    let mut answer = said();
    answer.as_object_mut().unwrap().remove(name);
    answer.to_string()
}

fn settings(provider: &Provider) -> IntrospectionSettings {
    IntrospectionSettings {
        url: provider.uri(),
        client_id: "gate way".into(),
        client_secret: Zeroizing::new(b"s3cret:&".to_vec()),
        token_prefix: "tok_".into(),
        fetch: FetchSettings {
            roots: Vec::new(),
            networks: Vec::new(),
            timeout: PATIENCE,
        },
        wait: PATIENCE,
        cooldown: Duration::from_secs(30),
        max_concurrent: 64,
    }
}

fn asking(node: &Node, settings: IntrospectionSettings) -> Authenticator {
    let issuer = IssuerSettings {
        keys: KeySource::Introspection(Arc::new(settings)),
        algorithms: Vec::new(),
        ..issuer(jsonwebtoken::Algorithm::ES256)
    };
    with_revocations(&[node.remote.live(issuer)], Arc::clone(&node.revocations))
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    headers
}

/// Decides as the gateway does: at once, or once more after what may come.
async fn decide(
    authenticator: &Authenticator,
    token: &str,
    seconds: u64,
    allowance: &impl Allowance,
) -> Result<Arc<Identity>, Rejection> {
    let now = at(NOW + seconds);
    let rejection = match authenticator.verify(token, now, allowance) {
        Ok(identity) => return Ok(identity),
        Err(rejection) => rejection,
    };
    let arrival = authenticator.arrival(&rejection, &bearer(token), allowance)?;
    let charge = arrival.ok_or(rejection)?.wait().await;
    let decided = authenticator.verify(token, now, allowance);
    let is_bad = matches!(decided, Err(Rejection::TokenInvalid(_)));
    if charge == Charge::Returnable && !is_bad {
        allowance.give_back();
    }
    decided
}

fn counted(node: &Node, result: &str) -> u64 {
    let text = node.telemetry.encode();
    let series = format!("portcullis_introspections_total{{issuer=\"corp\",result=\"{result}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&*series));
    value.map_or(0, |value| value.parse().unwrap())
}

/// A budget that counts.
struct Budget(Cell<u32>);

impl Allowance for Budget {
    fn take(&self) -> Result<(), Exceeded> {
        let left = self.0.get().checked_sub(1).ok_or(Exceeded {
            limit: "bad_tokens",
            retry_after: Duration::from_secs(3),
            quota: 20,
            window: Duration::from_secs(60),
        })?;
        self.0.set(left);
        Ok(())
    }

    fn give_back(&self) {
        self.0.set(self.0.get() + 1);
    }
}

#[tokio::test]
async fn jwt_3_and_jwt_12_what_an_issuer_says_of_a_bad_token_lets_nobody_in() {
    use TokenFault::*;
    for (answer, fault) in [
        (json!({"active": false}).to_string(), Inactive),
        (said_with("active", json!(false)), Inactive),
        (said_with("iss", json!("https://other.example.com")), Issuer),
        (said_with("iss", json!(format!("{ISSUER}/"))), Issuer),
        (said_with("iss", json!([ISSUER])), Issuer),
        (said_with("iss", json!(null)), Issuer),
        (said_with("aud", json!("somebody-else")), Audience),
        (said_with("aud", json!([])), Audience),
        (said_with("aud", json!({"orders": true})), ClaimType),
        (said_without("aud"), Audience),
        (said_without("sub"), Subject),
        (said_with("sub", json!("")), Subject),
        (said_with("sub", json!(7)), ClaimType),
        (said_without("exp"), ExpiryMissing),
        (said_with("exp", json!("soon")), ClaimType),
        (said_with("exp", json!(1_800_000_300.5)), ClaimType),
        (said_with("exp", json!(-1)), ClaimType),
        (said_with("nbf", json!(NOW + 31)), NotYetValid),
        (said_with("nbf", json!("now")), ClaimType),
        (said_with("iat", json!(NOW + 31)), IssuedInFuture),
        (said_with("scope", json!({})), ClaimType),
        (said_with("token_type", json!("DPoP")), Type),
        (said_with("token_type", json!("refresh_token")), Type),
        (said_with("token_type", json!(["Bearer"])), Type),
        (said_with("token_use", json!("refresh_token")), Type),
        (said_with("token_use", json!("id")), Type),
        (said_with("typ", json!("Refresh")), Type),
        (said_with("typ", json!("ID")), Type),
        (said_with("typ", json!("Offline")), Type),
    ] {
        let node = Node::new();
        let provider = Provider::start(Reply::ok(&answer)).await;
        let authenticator = asking(&node, settings(&provider));
        let budget = Budget(Cell::new(3));
        let decided = decide(&authenticator, TOKEN, 0, &budget).await;
        let want = Err(Rejection::TokenInvalid(fault));
        assert_eq!(decided.map(drop), want, "{answer}");
        assert_eq!(budget.0.get(), 2, "a bad token costs its sender: {answer}");
        assert_eq!(provider.asked(), 1);
    }
    let node = Node::new();
    let provider = Provider::start(Reply::ok(&said_with("exp", json!(NOW - 31)))).await;
    let authenticator = asking(&node, settings(&provider));
    let budget = Budget(Cell::new(3));
    for _ in 0..3 {
        let decided = decide(&authenticator, TOKEN, 0, &budget).await;
        assert_eq!(decided.map(drop), Err(Rejection::TokenExpired));
    }
    assert_eq!((provider.asked(), budget.0.get()), (1, 3));
}

#[tokio::test]
async fn jwt_12_and_key_2_an_answer_that_is_none_lets_nobody_in() {
    let good = said().to_string();
    let twice = good.replacen('{', "{\"active\":true,", 1);
    let nested = good.replacen('{', "{\"x\":{\"a\":1,\"a\":2},", 1);
    let large = said_with("padding", json!("a".repeat(17 << 10)));
    let huge = said_with("padding", json!("a".repeat(300 << 10)));
    let brief = Duration::from_millis(300);
    for (reply, result) in [
        (Reply::Close, "unreachable"),
        (Reply::Hang, "timeout"),
        (Reply::Drip(good.clone()), "timeout"),
        (Reply::Endless, "too_large"),
        (Reply::ok(&large), "too_large"),
        (Reply::ok(&huge), "too_large"),
        (Reply::with(201, &good), "status"),
        (Reply::with(204, ""), "status"),
        (Reply::with(400, &good), "status"),
        (Reply::with(401, &good), "status"),
        (Reply::with(403, &good), "status"),
        (Reply::with(500, &good), "status"),
        (Reply::with(503, &good), "status"),
        (
            Reply::raw(
                "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            ),
            "status",
        ),
        (Reply::raw("SSH-2.0-OpenSSH_9.9\r\n"), "unreachable"),
        (Reply::ok(""), "answer"),
        (Reply::ok("<html>sign in</html>"), "answer"),
        (Reply::ok("true"), "answer"),
        (Reply::ok("[]"), "answer"),
        (Reply::ok("{}"), "answer"),
        (Reply::ok(&format!("{good}{good}")), "answer"),
        (Reply::ok(&twice), "answer"),
        (Reply::ok(&nested), "answer"),
        (Reply::ok(&said_with("active", json!("true"))), "answer"),
        (Reply::ok(&said_with("active", json!(1))), "answer"),
        (Reply::ok(&said_with("active", json!(null))), "answer"),
        (Reply::ok(&said_without("active")), "answer"),
    ] {
        let node = Node::new();
        let provider = Provider::start(reply.clone()).await;
        let mut settings = settings(&provider);
        if result == "timeout" {
            settings.fetch.timeout = brief;
        }
        let authenticator = asking(&node, settings);
        let decided = decide(&authenticator, TOKEN, 0, &Unlimited).await;
        assert_eq!(
            decided.map(drop),
            Err(Rejection::KeysUnavailable),
            "{reply:?}"
        );
        assert_eq!(counted(&node, result), 1, "{reply:?}");
        // The next is asked anew: no failure of the issuer's is remembered (CACHE-5).
        provider.answer(Reply::ok(&good));
        let decided = decide(&authenticator, TOKEN, 0, &Unlimited).await;
        assert!(decided.is_ok(), "{reply:?}");
    }
}

#[tokio::test]
async fn an_active_token_is_the_identity_that_its_issuer_says() {
    let node = Node::new();
    let provider = Provider::start(Reply::ok(&said().to_string())).await;
    let authenticator = asking(&node, settings(&provider));
    let budget = Budget(Cell::new(1));
    let identity = decide(&authenticator, TOKEN, 0, &budget).await.unwrap();
    let claims = identity.claims();
    assert_eq!((&*claims.issuer, &*claims.subject), (ISSUER, "u1"));
    assert_eq!(claims.scopes, ["read", "write"].map(Box::from));
    assert_eq!(claims.expires_at, NOW + 300);
    assert_eq!(budget.0.get(), 1, "a good token costs nothing");
    assert_eq!(counted(&node, "active"), 1);
    // How it was asked: the token in the body alone, our name and secret encoded one by one (RFC 6749 §2.3.1).
    let request = provider.request();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /keys HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("tok_"), "{head}");
    assert_eq!(
        body,
        "token=tok_3q2-7w%7E%2F%2B%3D%3D&token_type_hint=access_token"
    );
    let basic = "authorization: Basic Z2F0ZSt3YXk6czNjcmV0JTNBJTI2\r\n";
    assert!(
        head.to_ascii_lowercase()
            .contains(&basic.to_ascii_lowercase()),
        "{head}"
    );
    assert!(
        head.contains("content-type: application/x-www-form-urlencoded"),
        "{head}"
    );
    // Without what RFC 7662 leaves optional and we can do without.
    for name in ["iss", "iat", "token_type", "scope", "client_id", "jti"] {
        provider.answer(Reply::ok(&said_without(name)));
        let other = format!("tok_without_{name}");
        assert!(
            decide(&authenticator, &other, 0, &budget).await.is_ok(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn cache_4_a_revoked_opaque_token_is_dead_at_once_and_its_issuer_is_not_asked() {
    let node = Node::new();
    let provider = Provider::start(Reply::ok(&said().to_string())).await;
    let authenticator = asking(&node, settings(&provider));
    assert!(decide(&authenticator, TOKEN, 0, &Unlimited).await.is_ok());
    node.revocations.revoke_token(ISSUER, "t1", NOW + 7200);
    for second in [0, 120] {
        let decided = decide(&authenticator, TOKEN, second, &Unlimited).await;
        let revoked = Err(Rejection::TokenInvalid(TokenFault::Revoked));
        assert_eq!(decided.map(drop), revoked);
    }
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn jwt_2_no_token_of_another_kind_or_issuer_is_shown_to_this_one() {
    let node = Node::new();
    let provider = Provider::start(Reply::ok(&said().to_string())).await;
    let authenticator = asking(&node, settings(&provider));
    let long = format!("tok_{}", "a".repeat(9000));
    for (token, fault) in [
        ("other_3q2", TokenFault::Segments),
        ("TOK_3q2", TokenFault::Segments),
        ("tok", TokenFault::Segments),
        ("tok_a.b.c", TokenFault::Segments),
        (&*long, TokenFault::TooLong),
    ] {
        let decided = decide(&authenticator, token, 0, &Unlimited).await;
        assert_eq!(decided.map(drop), Err(Rejection::TokenInvalid(fault)));
        let forced = authenticator.arrival(&Rejection::KeysUnavailable, &bearer(token), &Unlimited);
        assert!(matches!(forced, Ok(None)), "{forced:?}");
    }
    assert_eq!(provider.asked(), 0);
}

#[tokio::test]
async fn log_1_nothing_of_token_or_secret_is_shown() {
    let node = Node::new();
    let provider = Provider::start(Reply::ok(&said().to_string())).await;
    let settings = settings(&provider);
    let shown = format!("{settings:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    let authenticator = asking(&node, settings);
    decide(&authenticator, TOKEN, 0, &Unlimited).await.unwrap();
    let shown = format!("{authenticator:?}");
    for secret in ["s3cret", "tok_3q2", "Z2F0ZS"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}
