//! Signed statements to upstreams: what an upstream that trusts nothing else can verify, and what it can refuse.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use crate::harness::{
    Gateway, H2, Kind, Raw, Seen, Site, Token, Upstream, eventually, get,
    keys::{base64, bearer, ec_key, keys, now, unbase64},
    request,
    websocket::{KEY, accept, mirror},
};

const HEADER: &str = "x-portcullis-assertion";
const KEYS: &str = "/.well-known/portcullis-assertion-jwks.json";
const ISSUER: &str = "https://localhost:8443";
const TYPE: &str = "portcullis-assertion+jwt";
const PASSWORD: &str = "correct horse battery staple";

fn site(upstream: &Upstream) -> Site {
    Site::new(upstream.address).set("identity", "assertion", "true")
}

async fn jwks(gateway: &Gateway) -> JwkSet {
    let answer = get(gateway, KEYS, &[]).await;
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    serde_json::from_slice(&answer.is(200).body).unwrap()
}

/// Verifies as the documentation tells an upstream of this name to, at a time.
fn verify_at(
    set: &JwkSet,
    name: &str,
    (method, target): (&str, &str),
    token: &str,
    time: u64,
) -> Result<Value, &'static str> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| "header")?;
    if header.alg != Algorithm::ES256 || header.typ.as_deref() != Some(TYPE) {
        return Err("kind");
    }
    let jwk = set.find(&header.kid.ok_or("kid")?).ok_or("kid")?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[name]);
    validation.validate_exp = false;
    let key = DecodingKey::from_jwk(jwk).map_err(|_| "key")?;
    let read = jsonwebtoken::decode::<Value>(token, &key, &validation);
    let claims = read.map_err(|_| "signature, iss or aud")?.claims;
    let number = |name: &str| claims[name].as_u64().ok_or("time");
    if time >= number("exp")? || number("exp")? - number("iat")? > 60 {
        return Err("time");
    }
    if claims["htm"] != method {
        return Err("method");
    }
    if claims["target_hash"] != base64(digest(&SHA256, target.as_bytes())) {
        return Err("target");
    }
    Ok(claims)
}

fn verify(
    set: &JwkSet,
    name: &str,
    asked: (&str, &str),
    token: &str,
) -> Result<Value, &'static str> {
    verify_at(set, name, asked, token, now())
}

/// The one statement of a request.
#[track_caller]
fn statement(seen: &Seen) -> &str {
    assert_eq!(seen.head.values(HEADER).len(), 1, "{:?}", seen.head);
    seen.header(HEADER).unwrap()
}

/// What the upstream `legacy` makes of a request.
#[track_caller]
fn claims_of(set: &JwkSet, seen: &Seen) -> Value {
    let asked = (&*seen.method, &*seen.target);
    verify(set, "legacy", asked, statement(seen)).unwrap()
}

fn spelt(name: &str) -> bool {
    name.to_ascii_lowercase().replace(['_', '.'], "-") == HEADER
}

#[tokio::test]
async fn hdr_10_the_upstream_verifies_who_asks_for_what() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .route("stripped", "/app", "authenticated")
        .on_route("strip_prefix", "\"/app\"")
        .start()
        .await;
    let set = jwks(&gateway).await;
    let token = Token::new(Kind::Es)
        .claim("email", "alice@example.com")
        .claim("roles", vec!["clerk", "a,b"])
        .claim("scope", "orders:read")
        .claim("sid", "s-1");
    let token = bearer(&token.sign());
    for (method, target, received) in [
        ("GET", "/private", "/private"),
        ("HEAD", "/private/7", "/private/7"),
        (
            "POST",
            "/private/a%20b?x=1&y=%2F&z",
            "/private/a%20b?x=1&y=%2F&z",
        ),
        ("DELETE", "/private/?", "/private/?"),
        ("PROPFIND", "/optional/x", "/optional/x"),
        ("GET", "/app/orders?a=b", "/orders?a=b"),
        ("GET", "/app", "/"),
    ] {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request(method, target, &[("Authorization", &token)], ""))
            .await;
        raw.head().await;
        let seen = upstream.last();
        assert_eq!((&*seen.method, &*seen.target), (method, received));
        let claims = claims_of(&set, &seen);
        let mut names: Vec<_> = claims.as_object().unwrap().keys().collect();
        names.sort();
        let want = "aud email exp htm iat idp iss name roles scopes sid sub target_hash user";
        let want: Vec<_> = want.split(' ').filter(|name| *name != "name").collect();
        assert_eq!(names, want);
        for (name, want) in [
            ("sub", json!("alice")),
            ("user", json!("alice")),
            ("email", json!("alice@example.com")),
            ("idp", json!("https://es.issuer.test")),
            ("roles", json!(["clerk", "a,b"])),
            ("scopes", json!(["orders:read"])),
            ("sid", json!("s-1")),
        ] {
            assert_eq!(claims[name], want, "{name}");
        }
        // It stands beside the plain headers, not in place of them.
        assert_eq!(seen.header("x-forwarded-user"), Some("alice"));
    }
    let mut client = H2::connect(&gateway).await;
    let fields = [("Authorization", &*token)];
    client.get("/private/h2?q", &fields).await.is(200);
    claims_of(&set, &upstream.last());
}

#[tokio::test]
async fn hdr_10_a_replay_to_anything_else_is_refused() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .upstream("billing", &upstream.url)
        .route("bills", "/bills", "authenticated")
        .on_route("upstream", "\"billing\"")
        .start()
        .await;
    let set = jwks(&gateway).await;
    let token = bearer(&Token::good().sign());
    let fields = [("Authorization", &*token)];
    get(&gateway, "/private/7?full=1", &fields).await.is(200);
    let seen = upstream.last();
    let token = statement(&seen);
    let asked = ("GET", "/private/7?full=1");
    let made = verify(&set, "legacy", asked, token).unwrap()["iat"].as_u64();
    let made = made.unwrap();
    for (name, asked, fault) in [
        ("billing", asked, "signature, iss or aud"),
        ("legacy", ("POST", asked.1), "method"),
        ("legacy", ("GET", "/private/8?full=1"), "target"),
        ("legacy", ("GET", "/private/7"), "target"),
        ("legacy", ("GET", "/private/7?full=1&x"), "target"),
        ("legacy", ("GET", "/private/%37?full=1"), "target"),
    ] {
        assert_eq!(
            verify(&set, name, asked, token),
            Err(fault),
            "{name} {asked:?}"
        );
    }
    assert!(verify_at(&set, "legacy", asked, token, made + 59).is_ok());
    assert_eq!(
        verify_at(&set, "legacy", asked, token, made + 60),
        Err("time")
    );

    let parts: Vec<&str> = token.split('.').collect();
    let mut claims: Value = serde_json::from_slice(&unbase64(parts[1])).unwrap();
    claims["sub"] = "root".into();
    let changed = format!("{}.{}.{}", parts[0], base64(claims.to_string()), parts[2]);
    let header = json!({"alg": "none", "typ": TYPE}).to_string();
    let unsigned = format!("{}.{}.", base64(header), parts[1]);
    let cut = token.split_at(token.len() - 2).0.to_owned();
    for forged in [changed, unsigned, cut, format!("{}.{}", parts[0], parts[1])] {
        assert!(verify(&set, "legacy", asked, &forged).is_err(), "{forged}");
    }

    get(&gateway, "/bills", &fields).await.is(200);
    let seen = upstream.last();
    let asked = ("GET", "/bills");
    assert!(verify(&set, "legacy", asked, statement(&seen)).is_err());
    assert!(verify(&set, "billing", asked, statement(&seen)).is_ok());
}

#[tokio::test]
async fn hdr_10_the_path_of_an_upstream_with_a_base_path_is_the_one_that_it_receives() {
    let upstream = Upstream::start().await;
    let gateway = Site::bare()
        .upstream("legacy", &format!("{}/base", upstream.url))
        .issuer(Kind::Hs)
        .route("private", "/private", "authenticated")
        .set("identity", "assertion", "true")
        .start()
        .await;
    let token = bearer(&Token::good().sign());
    get(&gateway, "/private?a", &[("Authorization", &token)])
        .await
        .is(200);
    let seen = upstream.last();
    assert_eq!(seen.target, "/base/private?a");
    claims_of(&jwks(&gateway).await, &seen);
}

#[tokio::test]
async fn hdr_10_a_websocket_is_stated_as_the_get_that_the_upstream_receives() {
    let upstream = Upstream::scripted(mirror).await;
    let gateway = site(&upstream)
        .route("ws", "/ws", "authenticated")
        .on_route("websocket", "true")
        .start()
        .await;
    let set = jwks(&gateway).await;
    let token = bearer(&Token::good().sign());
    let fields = [
        ("Authorization", &*token),
        ("Upgrade", "websocket"),
        ("Connection", "upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/ws/a", &fields, "")).await;
    let head = raw.head().await;
    assert_eq!(head.value("sec-websocket-accept"), Some(&*accept(KEY)));
    claims_of(&set, &upstream.last());

    let mut client = H2::connect(&gateway).await;
    let fields = [("Authorization", &*token), ("sec-websocket-version", "13")];
    client.connect_to("websocket", "/ws/b", &fields).await;
    let seen = upstream.last();
    assert_eq!((&*seen.method, &*seen.target), ("GET", "/ws/b"));
    claims_of(&set, &seen);
}

#[tokio::test]
async fn hdr_10_nobody_is_stated_about_nobody() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .route("trial", "/trial", "authenticated")
        .on_route("enforce", "false")
        .start()
        .await;
    let good = bearer(&Token::good().sign());
    let bad = bearer(&Token::good().claim("exp", 1).sign());
    for (target, token) in [
        ("/public", None),
        ("/public", Some(&good)),
        ("/public", Some(&bad)),
        ("/optional", None),
        ("/trial", None),
        ("/trial", Some(&bad)),
    ] {
        let token = token.map(|token| ("Authorization", &**token));
        let fields: Vec<_> = token.into_iter().collect();
        get(&gateway, target, &fields).await.is(200);
        let names = upstream.last();
        let names = names.head.names();
        assert!(!names.iter().any(|name| spelt(name)), "{target}: {names:?}");
    }
    let set = jwks(&gateway).await;
    for target in ["/optional", "/trial"] {
        get(&gateway, target, &[("Authorization", &good)])
            .await
            .is(200);
        claims_of(&set, &upstream.last());
    }
}

#[tokio::test]
async fn hdr_10_and_hdr_1_what_a_client_sends_under_its_name_never_arrives() {
    let upstream = Upstream::start().await;
    let token = bearer(&Token::good().sign());
    for is_on in [true, false] {
        let gateway = Site::new(upstream.address)
            .set("identity", "assertion", &is_on.to_string())
            .start()
            .await;
        let set = if is_on {
            Some(jwks(&gateway).await)
        } else {
            None
        };
        for name in [
            "X-Portcullis-Assertion",
            "x-portcullis-assertion",
            "X_Portcullis_Assertion",
            "x.portcullis.assertion",
            "X-Portcullis_Assertion",
            "X_Portcullis-Assertion",
            "x-portcullis.assertion",
        ] {
            for (target, fields) in [
                ("/public", vec![(name, "forged")]),
                ("/optional", vec![(name, "forged"), (name, "again")]),
                (
                    "/private",
                    vec![
                        ("Authorization", &*token),
                        (name, "forged"),
                        (name, "again"),
                    ],
                ),
                (
                    "/private",
                    vec![
                        ("Authorization", &*token),
                        (name, "forged"),
                        ("Connection", name),
                    ],
                ),
            ] {
                get(&gateway, target, &fields).await.is(200);
                let seen = upstream.last();
                let found: Vec<_> = seen
                    .head
                    .fields
                    .iter()
                    .filter(|field| spelt(&field.0))
                    .collect();
                match &set {
                    Some(set) if target == "/private" => {
                        assert_eq!(found.len(), 1, "{found:?}");
                        claims_of(set, &seen);
                    }
                    _ => assert!(found.is_empty(), "{target}: {found:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn hdr_10_a_name_in_connection_takes_no_statement_away() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    let fields = [
        ("Authorization", &*token),
        ("Connection", "X-Portcullis-Assertion, close"),
    ];
    get(&gateway, "/private", &fields).await.is(200);
    claims_of(&jwks(&gateway).await, &upstream.last());
}

#[tokio::test]
async fn hdr_10_what_is_asked_again_is_stated_again_for_the_same_token_alone() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).set("server", "workers", "1").start().await;
    let set = jwks(&gateway).await;
    let mut said = Vec::new();
    let alice = bearer(&Token::good().sign());
    let bob = bearer(&Token::good().claim("sub", "bob").sign());
    let again = bearer(&Token::good().claim("jti", "another").sign());
    for (token, user) in [
        (&alice, "alice"),
        (&bob, "bob"),
        (&again, "alice"),
        (&alice, "alice"),
    ] {
        get(&gateway, "/private", &[("Authorization", token)])
            .await
            .is(200);
        let seen = upstream.last();
        assert_eq!(claims_of(&set, &seen)["sub"], user);
        said.push(statement(&seen).to_owned());
    }
    // Signatures of ECDSA are random, so two alike are one.
    assert_eq!(said[0], said[3]);
    assert_ne!(said[0], said[2]);
}

#[tokio::test]
async fn hdr_10_a_proxy_that_asks_is_given_no_statement() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("forward_auth", "path", "\"/auth/verify\"")
        .start()
        .await;
    let token = bearer(&Token::good().sign());
    let fields = [
        ("Authorization", &*token),
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Uri", "/private"),
        ("X-Portcullis-Assertion", "forged"),
    ];
    let answer = get(&gateway, "/auth/verify", &fields).await;
    assert_eq!(answer.is(200).header("x-forwarded-user"), Some("alice"));
    assert_eq!(answer.header(HEADER), None);
    let keys = [("X-Forwarded-Host", "localhost"), ("X-Forwarded-Uri", KEYS)];
    get(&gateway, "/auth/verify", &keys).await.is(403);
}

#[tokio::test]
async fn jwt_4_a_statement_opens_nothing_and_no_other_token_is_a_statement() {
    let upstream = Upstream::start().await;
    let site = site(&upstream)
        .accounts()
        // The upstream is called as the gateway's own audience, so that `aud` keeps nothing apart.
        .upstream("portcullis", &upstream.url)
        .route("own", "/own", "authenticated")
        .on_route("upstream", "\"portcullis\"");
    site.write();
    site.user("alice", PASSWORD, &["admin"]).await;
    let gateway = site.start().await;
    let body = json!({"username": "alice", "password": PASSWORD, "delivery": "body"}).to_string();
    let json_field = ("Content-Type", "application/json");
    let mut raw = Raw::connect(&gateway).await;
    let login = raw
        .exchange(request("POST", "/auth/login", &[json_field], &body))
        .await;
    let login = login.is(200).json();
    let access = login["access_token"].as_str().unwrap();
    let refresh = login["refresh_token"].as_str().unwrap();
    get(&gateway, "/own", &[("Authorization", &bearer(access))])
        .await
        .is(200);
    let seen = upstream.last();
    let said = statement(&seen);
    let set = jwks(&gateway).await;
    assert!(verify(&set, "portcullis", ("GET", "/own"), said).is_ok());
    let count = upstream.count();

    for target in [
        "/own",
        "/private",
        "/optional",
        "/auth/me",
        "/auth/sessions",
    ] {
        get(&gateway, target, &[("Authorization", &bearer(said))])
            .await
            .refused(401, "token_invalid");
    }
    let body = json!({"refresh_token": said}).to_string();
    let mut raw = Raw::connect(&gateway).await;
    let refused = raw
        .exchange(request("POST", "/auth/refresh", &[json_field], &body))
        .await;
    refused.refused(401, "invalid_grant");
    assert_eq!(upstream.count(), count);

    // The other way round: nothing else passes for a statement.
    let own = get(&gateway, "/.well-known/jwks.json", &[]).await;
    let own: JwkSet = serde_json::from_slice(&own.is(200).body).unwrap();
    let kid = |set: &JwkSet| {
        set.keys
            .iter()
            .filter_map(|key| key.common.key_id.clone())
            .collect::<Vec<_>>()
    };
    assert!(!kid(&own).iter().any(|one| kid(&set).contains(one)));
    let foreign = Token::new(Kind::Es)
        .header("typ", TYPE)
        .claim("iss", ISSUER)
        .sign();
    for token in [access, refresh, &foreign] {
        assert!(
            verify(&set, "portcullis", ("GET", "/own"), token).is_err(),
            "{token}"
        );
    }
    assert_eq!(
        verify(&own, "portcullis", ("GET", "/own"), access),
        Err("kind")
    );
    assert_eq!(
        verify(&own, "portcullis", ("GET", "/own"), said),
        Err("kid")
    );
}

#[tokio::test]
async fn jwt_4_a_service_is_told_that_a_statement_is_no_active_token() {
    let upstream = Upstream::start().await;
    let site = site(&upstream).accounts();
    site.secret_file("keys/client.secret", &keys().secret);
    let client = "[[accounts.client]]\nid = \"svc\"\nsecret_file = \"keys/client.secret\"\naudience = [\"portcullis\"]\n";
    let mut site = site;
    site.extra = client.into();
    let gateway = site.start().await;
    get(
        &gateway,
        "/private",
        &[("Authorization", &bearer(&Token::good().sign()))],
    )
    .await
    .is(200);
    let said = upstream.last();
    let body = format!(
        "token={}&client_id=svc&client_secret={}",
        statement(&said),
        keys().secret
    );
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let mut raw = Raw::connect(&gateway).await;
    let answer = raw
        .exchange(request("POST", "/auth/introspect", &[form], &body))
        .await;
    assert_eq!(answer.is(200).json(), json!({"active": false}));
}

#[tokio::test]
async fn hdr_10_keys_are_published_on_every_host_and_to_be_read_alone() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .route("host", "/", "authenticated")
        .on_route("hosts", r#"["app.example.com"]"#)
        .start()
        .await;
    for host in ["localhost", "app.example.com", "nowhere.example.com"] {
        let mut raw = Raw::connect(&gateway).await;
        let answer = raw
            .exchange(request("GET", KEYS, &[("Host", host)], ""))
            .await;
        let set = answer.is(200).json();
        let key = set["keys"][0].as_object().unwrap().clone();
        let names: Vec<_> = key.keys().cloned().collect();
        assert_eq!(set["keys"].as_array().unwrap().len(), 1);
        assert!(
            !names
                .iter()
                .any(|name| ["d", "p", "q", "k"].contains(&&**name)),
            "{names:?}"
        );
        assert_eq!(
            (&key["kty"], &key["crv"], &key["alg"]),
            (&json!("EC"), &json!("P-256"), &json!("ES256"))
        );
    }
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("POST", KEYS, &[], ""))
        .await
        .refused(405, "method_not_allowed");
    upstream.saw_nothing();
}

#[tokio::test]
async fn hdr_10_where_it_is_off_nothing_is_signed_published_or_made() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let token = bearer(&Token::good().sign());
    get(&gateway, "/private", &[("Authorization", &token)])
        .await
        .is(200);
    assert_eq!(upstream.last().header(HEADER), None);
    get(&gateway, KEYS, &[])
        .await
        .refused(404, "route_not_found");
    assert!(!gateway.path().join("data/assertion-keys").exists());
    let exit = gateway.site.run(&["key", "list", "--assertion"], "").await;
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("assertions are off"), "{exit:?}");
}

async fn listed(site: &Site, arguments: &[&str]) -> Vec<Value> {
    let arguments = [arguments, &["--assertion", "--format", "json"]].concat();
    let exit = site.run(&arguments, "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let listed: Value = serde_json::from_str(&exit.stdout).unwrap();
    listed["keys"].as_array().unwrap().clone()
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

#[tokio::test]
async fn key_4_a_rotation_under_load_makes_no_statement_that_cannot_be_verified() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    let ask = async |target: &str| {
        // The keys as an upstream may have them: fetched before the request was made.
        let set = jwks(&gateway).await;
        get(&gateway, target, &[("Authorization", &token)])
            .await
            .is(200);
        let seen = upstream
            .seen()
            .into_iter()
            .rev()
            .find(|seen| seen.target == target)
            .unwrap();
        claims_of(&set, &seen);
        statement(&seen).to_owned()
    };
    let old = ask("/private/first").await;
    let done = AtomicBool::new(false);
    let load = async {
        let mut served = 0;
        while !done.load(Ordering::SeqCst) {
            ask(&format!("/private/{}", served % 7)).await;
            served += 1;
        }
        served
    };
    let rotation = async {
        let keys = listed(&gateway.site, &["key", "rotate", "--after", "4s"]).await;
        let states: Vec<_> = keys
            .iter()
            .map(|key| key["state"].as_str().unwrap())
            .collect();
        assert_eq!(states, ["signing", "waiting"]);
        assert_eq!(keys[0]["kid"], *kid(&old));
        let set = eventually("the new key is published", async || {
            let set = jwks(&gateway).await;
            (set.keys.len() == 2).then_some(set)
        })
        .await;
        let new = eventually("the new key signs", async || {
            let said = ask("/private/new").await;
            (kid(&said) != kid(&old)).then_some(said)
        })
        .await;
        assert!(set.find(&kid(&new)).is_some());
        done.store(true, Ordering::SeqCst);
        new
    };
    let (served, new) = tokio::join!(load, rotation);
    assert!(served > 0);
    assert!(
        verify(
            &jwks(&gateway).await,
            "legacy",
            ("GET", "/private/first"),
            &old
        )
        .is_ok()
    );

    // A stolen key goes at once.
    listed(&gateway.site, &["key", "revoke", &kid(&new)]).await;
    eventually("the revoked key signs no more", async || {
        let gone = jwks(&gateway).await.find(&kid(&new)).is_none();
        gone.then_some(())
    })
    .await;
    let next = ask("/private/next").await;
    assert_ne!(kid(&next), kid(&new));
    assert!(
        verify(
            &jwks(&gateway).await,
            "legacy",
            ("GET", "/private/new"),
            &new
        )
        .is_err()
    );
}

#[tokio::test]
async fn key_5_keys_that_others_may_read_are_refused_by_check_and_run() {
    let upstream = Upstream::start().await;
    let site = site(&upstream);
    site.write();
    let before = site.run(&["check"], "").await;
    assert_eq!(before.code, Some(0), "{before:?}");
    assert!(
        before
            .stdout
            .contains("assertions: signed for every upstream"),
        "{before:?}"
    );
    assert!(
        !site.path().join("data/assertion-keys").exists(),
        "check makes nothing"
    );
    let key = listed(&site, &["key", "list"]).await[0]["kid"].clone();
    let path = format!("data/assertion-keys/{}.pem", key.as_str().unwrap());
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(site.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("data/assertion-keys"), mode(&path)), (0o700, 0o600));
    site.mode(&path, 0o644);
    for command in ["check", "run"] {
        let exit = site.run(&[command], "").await;
        assert_eq!(exit.code, Some(1), "{command}: {exit:?}");
        assert!(exit.stderr.contains("chmod 600"), "{command}: {exit:?}");
    }
}

#[tokio::test]
async fn log_1_statements_are_in_no_log_and_explain_shows_none() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .set("log", "level", "\"trace\"")
        .start()
        .await;
    let token = Token::good().sign();
    get(&gateway, "/private", &[("Authorization", &bearer(&token))])
        .await
        .is(200);
    let seen = upstream.last();
    let said = statement(&seen);
    let signature = said.rsplit_once('.').unwrap().1;
    let arguments = [
        "explain",
        "GET",
        "https://localhost/private",
        "--token",
        &token,
    ];
    let exit = gateway.site.run(&arguments, "").await;
    assert!(
        exit.stdout.contains("+ x-portcullis-assertion: (signed"),
        "{exit:?}"
    );
    let nobody = ["explain", "GET", "https://localhost/optional"];
    let nobody = gateway.site.run(&nobody, "").await;
    assert!(!nobody.stdout.contains(HEADER), "{nobody:?}");
    gateway.access_line(|line| line["path"] == "/private").await;
    for text in [gateway.out.text(), gateway.err.text(), exit.stdout] {
        assert!(!text.contains(signature) && !text.contains(&base64("{\"alg\":\"ES256\"")[..12]));
    }
}

#[tokio::test]
async fn hdr_10_a_key_of_somebody_else_signs_nothing_that_is_believed() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let set = jwks(&gateway).await;
    get(
        &gateway,
        "/private",
        &[("Authorization", &bearer(&Token::good().sign()))],
    )
    .await
    .is(200);
    let seen = upstream.last();
    let said = statement(&seen);
    let message = said.rsplit_once('.').unwrap().0;
    let foreign: EncodingKey = ec_key(&keys().foreign_ec);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &foreign, Algorithm::ES256).unwrap();
    let forged = format!("{message}.{signature}");
    assert!(verify(&set, "legacy", ("GET", "/private"), &forged).is_err());
}
