//! Servers that come and go a few times in a second, and are away at the start: mail, keys of an issuer, word about opaque tokens.
//! What needs none of them is served, none is hammered, and all is well when they stay (FAULT-5).
//!
//! `PORTCULLIS_FLAP_SECONDS` makes each of them come and go for so long in all, a third each at 0.2, 1 and 5 in a second.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Gateway, Kind, Raw, Reply, Site, Token, Upstream, eventually,
    gate::{Gate, State},
    get,
    keys::{AUDIENCE, base64, bearer, keys, now},
    request,
    smtp::{Manner, Shield, Smtp},
};

const PASSWORD: &str = "correct horse battery staple";

/// Half of a turn, and how many turns there are: 5 and 1 in a second.
const TURNS: [(Duration, u32); 2] = [
    (Duration::from_millis(100), 15),
    (Duration::from_millis(500), 2),
];

const SECONDS: &str = "PORTCULLIS_FLAP_SECONDS";

/// The least time for all turns of one kind: a busy machine may take longer for a turn than it lasts.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest time between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// [`TURNS`], or those of a long run.
fn turns() -> Vec<(Duration, u32)> {
    let Ok(text) = std::env::var(SECONDS) else {
        return TURNS.to_vec();
    };
    let seconds: u32 = text
        .parse()
        .unwrap_or_else(|_| panic!("{SECONDS}={text}: not a number"));
    [2500, 500, 100]
        .map(|half| (Duration::from_millis(half.into()), seconds * 500 / half / 3))
        .to_vec()
}

/// Shuts and opens, and asks after each change and now and then until the next. Gives how long all took, and how many
/// turns there were.
async fn flap(gate: &Gate, mut asked: impl AsyncFnMut()) -> (Duration, usize) {
    let (begun, mut done) = (Instant::now(), 0);
    for (half, count) in turns() {
        let end = Instant::now() + PATIENCE.max(2 * half * count);
        for number in 0..count {
            if Instant::now() > end {
                break;
            }
            done += 1;
            // Every other time it is there and says nothing, which is worse.
            let away = if number % 2 == 0 {
                State::Shut
            } else {
                State::Silent
            };
            for state in [away, State::Open] {
                gate.set(state);
                let until = tokio::time::Instant::now() + half;
                asked().await;
                while tokio::time::Instant::now() + PAUSE < until {
                    tokio::time::sleep(PAUSE).await;
                    asked().await;
                }
                tokio::time::sleep_until(until).await;
            }
        }
    }
    (begun.elapsed(), done)
}

/// As many as fit into a time, and one that had begun.
fn times(time: Duration, pause: Duration) -> usize {
    usize::try_from(time.as_millis() / pause.as_millis()).unwrap() + 1
}

/// For how long an answer about an opaque token is believed at least.
const KEPT: Duration = Duration::from_secs(50);

async fn with_bearer(gateway: &Gateway, token: &str) -> Answer {
    get(gateway, "/private", &[("Authorization", &bearer(token))]).await
}

/// Whoever needs nobody else.
async fn others_are_served(gateway: &Gateway) {
    let answer = with_bearer(gateway, &Token::good().sign()).await;
    answer.is(200);
    get(gateway, "/public", &[]).await.is(200);
}

async fn post(gateway: &Gateway, target: &str, body: &Value) -> Answer {
    let fields = [("Content-Type", "application/json")];
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("POST", target, &fields, &body.to_string()))
        .await
}

#[tokio::test]
async fn fault_5_a_mail_server_that_flaps_is_not_hammered_and_loses_no_mail() {
    let upstream = Upstream::start().await;
    let smtp = Smtp::start(Manner::Fine, Shield::None).await;
    let gate = Gate::before(smtp.address.port()).await;
    gate.set(State::Shut);
    let site = Site::new(upstream.address)
        .accounts()
        .set("mail", "from", "\"Gate <no-reply@example.com>\"")
        .set(
            "mail",
            "smtp",
            &format!("\"smtp://127.0.0.1:{}\"", gate.port),
        )
        .set("mail", "starttls", "false");
    site.write();
    let users = ["ann", "bob", "cid"];
    for name in users {
        site.user(name, PASSWORD, &[]).await;
    }
    // It is down at the start: all else works.
    let gateway = site.start().await;
    let login = json!({ "username": "ann", "password": PASSWORD });
    post(&gateway, "/auth/login", &login).await.is(200);
    let mut asked = 0;
    let (took, _) = flap(&gate, async || {
        others_are_served(&gateway).await;
        if let Some(name) = users.get(asked) {
            let email = json!({ "email": format!("{name}@example.com") });
            post(&gateway, "/auth/password/forgot", &email)
                .await
                .is(202);
            asked += 1;
        }
    })
    .await;
    let tried = gate.connections();
    println!("mail: {tried} connections in {took:?}");
    // One for each mail, which may have met it open; otherwise one in the shortest wait after a failure, which is a second.
    let most = users.len() + times(took, Duration::from_secs(1));
    assert!(tried > 0 && tried <= most, "{tried} in {took:?}");
    gate.set(State::Open);
    let mails = eventually("the mails", async || {
        let mails = smtp.mails();
        let whole = users.iter().all(|name| {
            let line = format!("To: {name}@example.com");
            mails.iter().any(|mail| mail.contains(&line))
        });
        whole.then_some(mails)
    })
    .await;
    // What was cut off in the middle may come again, under the same name, and nothing else.
    let ids = mails.iter().flat_map(|mail| {
        let lines = mail.lines();
        lines.filter(|line| line.to_ascii_lowercase().starts_with("message-id:"))
    });
    assert_eq!(ids.collect::<HashSet<_>>().len(), users.len());
    let waits = json!({ "username": "bob", "password": PASSWORD });
    post(&gateway, "/auth/login", &waits).await.is(200);
}

/// The public half of the key of [`Kind::Es`], as a provider publishes it.
fn published() -> Reply {
    let (x, y) = keys().ec.public_key_raw()[1..].split_at(32);
    let key = json!({"kty": "EC", "crv": "P-256", "kid": "a", "use": "sig", "x": base64(x), "y": base64(y)});
    Reply::ok(&json!({ "keys": [key] }).to_string())
}

#[tokio::test]
async fn fault_5_a_provider_of_keys_that_flaps_is_not_hammered_and_costs_nobody_a_request() {
    let upstream = Upstream::start().await;
    let provider = Upstream::scripted(|_| published()).await;
    let gate = Gate::before(provider.address.port()).await;
    gate.set(State::Shut);
    let gateway = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .issuer(Kind::Hs)
        .issuer(Kind::Es)
        .off_issuer("public_key_file")
        .on_issuer(
            "jwks_url",
            &format!("\"http://127.0.0.1:{}/keys\"", gate.port),
        )
        .on_issuer(
            "fetch",
            r#"{ cooldown = "1s", wait = "10ms", timeout = "1s" }"#,
        )
        .route("private", "/private", "authenticated")
        .route("public", "/public", "public")
        .start()
        .await;
    let hours = now() + 4 * 3600;
    let good = Token::new(Kind::Es).header("kid", "a").claim("exp", hours);
    let good = good.sign();
    others_are_served(&gateway).await;
    with_bearer(&gateway, &good)
        .await
        .refused(503, "keys_unavailable");
    let mut known = false;
    let mut number = 0;
    let (took, _) = flap(&gate, async || {
        others_are_served(&gateway).await;
        let answer = with_bearer(&gateway, &good).await;
        if answer.status == 200 {
            known = true;
        } else {
            assert!(!known, "keys that were known are lost");
            answer.refused(503, "keys_unavailable");
        }
        // Made-up keys are asked for, which is what could hammer it.
        for _ in 0..3 {
            number += 1;
            let token = Token::new(Kind::Es).header("kid", format!("made-up-{number}"));
            let answer = with_bearer(&gateway, &token.sign()).await;
            assert!(matches!(answer.status, 401 | 503), "{}", answer.status);
        }
    })
    .await;
    let tried = gate.connections();
    println!("keys: {tried} connections in {took:?}, known {known}");
    // The one of the start, and one in a cooldown; a fetch over a kept connection that turns out to be closed is made over another.
    let most = 2 * (1 + times(took, Duration::from_secs(1)));
    assert!(tried > 0 && tried <= most, "{tried} in {took:?}");
    gate.set(State::Open);
    eventually("the keys", async || {
        (with_bearer(&gateway, &good).await.status == 200).then_some(())
    })
    .await;
    // Away again, for good: what was fetched is enough.
    gate.set(State::Shut);
    let another = Token::new(Kind::Es).header("kid", "a").claim("sub", "zoe");
    with_bearer(&gateway, &another.sign()).await.is(200);
    others_are_served(&gateway).await;
}

#[tokio::test]
async fn fault_5_an_issuer_of_opaque_tokens_that_flaps_is_left_alone_while_it_is_away() {
    let upstream = Upstream::start().await;
    let issuer = Upstream::scripted(|_| {
        let claims = json!({
            "active": true, "iss": Kind::Es.issuer(), "aud": AUDIENCE, "sub": "u-17", "exp": now() + 600,
            "token_type": "Bearer",
        });
        Reply::ok(&claims.to_string())
    })
    .await;
    let gate = Gate::before(issuer.address.port()).await;
    gate.set(State::Shut);
    let site = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .issuer(Kind::Hs)
        .issuer(Kind::Es)
        .off_issuer("public_key_file")
        .off_issuer("algorithms")
        .on_issuer(
            "introspection_url",
            &format!("\"http://127.0.0.1:{}/introspect\"", gate.port),
        )
        .on_issuer("client_id", "\"portcullis\"")
        .on_issuer("client_secret_file", "\"keys/introspection.secret\"")
        .on_issuer(
            "fetch",
            r#"{ timeout = "200ms", wait = "1s", cooldown = "1s" }"#,
        )
        .route("private", "/private", "authenticated")
        .route("public", "/public", "public");
    site.secret_file("keys/introspection.secret", "p4ssword\n");
    let gateway = site.start().await;
    // Away at the start: whoever needs it is told to come again, others notice nothing.
    let begun = Instant::now();
    for number in 0..20 {
        with_bearer(&gateway, &format!("early-{number}"))
            .await
            .refused(503, "keys_unavailable");
    }
    others_are_served(&gateway).await;
    // Three failures in a row and it is left alone, but for one question in a second.
    let (tried, took) = (gate.connections(), begun.elapsed());
    println!("opaque: {tried} connections for 20 tokens in {took:?}");
    let most = 3 + times(took, Duration::from_secs(1));
    assert!(tried > 0 && tried <= most, "{tried} in {took:?}");
    gate.set(State::Open);
    eventually("an answer", async || {
        (with_bearer(&gateway, "kept").await.status == 200).then_some(())
    })
    .await;
    let (before, asked_at) = (gate.connections(), Instant::now());
    let mut number = 0;
    let (took, turns) = flap(&gate, async || {
        others_are_served(&gateway).await;
        let kept = with_bearer(&gateway, "kept").await;
        if asked_at.elapsed() < KEPT || kept.status == 200 {
            kept.is(200);
        } else {
            kept.refused(503, "keys_unavailable");
        }
        for _ in 0..3 {
            number += 1;
            let answer = with_bearer(&gateway, &format!("new-{number}")).await;
            if answer.status != 200 {
                answer.refused(503, "keys_unavailable");
            }
        }
    })
    .await;
    let tried = gate.connections() - before;
    println!("opaque: {tried} connections for {number} tokens in {took:?}");
    // At each turn three failures until it is left alone, and a new connection for what was asked over the old one.
    let most = 4 * turns + times(took, Duration::from_secs(1));
    assert!(tried <= most && most < number, "{tried} for {number}");
    gate.set(State::Open);
    eventually("an answer", async || {
        (with_bearer(&gateway, "late").await.status == 200).then_some(())
    })
    .await;
}
