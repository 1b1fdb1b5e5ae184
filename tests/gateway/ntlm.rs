//! Upstreams that take a connection for its user (NTLM, Negotiate): nobody inherits another one's connection (UP-6).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::harness::{
    Answer, Gateway, H2, Raw, Reply, Seen, Site, Step, Upstream, client::full, get, request,
};

/// Who a connection stands for.
#[derive(Debug, Clone, PartialEq)]
enum Standing {
    Challenged(String),
    User(String),
}

/// An upstream that knows its users by their connections. `NTLM 1 NAME` is answered with a challenge, `NTLM 3 NAME` on the same
/// connection makes it the user's; `Negotiate NAME` does so at once and says nothing of it.
async fn by_connection() -> Upstream {
    let standings: Arc<Mutex<HashMap<usize, Standing>>> = Arc::default();
    Upstream::scripted(move |seen| {
        let mut standings = standings.lock().unwrap();
        let standing = standings.get(&seen.connection).cloned();
        let words: Vec<&str> = seen
            .header("authorization")
            .unwrap_or_default()
            .split(' ')
            .collect();
        let new = match (&words[..], standing.clone()) {
            (["NTLM", "1", name], _) => Some(Standing::Challenged((*name).to_owned())),
            (["NTLM", "3", name], Some(Standing::Challenged(other))) if *name == other => {
                Some(Standing::User(other))
            }
            (["Negotiate", name], _) => Some(Standing::User((*name).to_owned())),
            (_, Some(Standing::User(name))) => Some(Standing::User(name)),
            _ => None,
        };
        let reply = match &new {
            Some(Standing::User(name)) => Reply::ok(&format!("for {name}")),
            Some(Standing::Challenged(_)) => {
                Reply::with(401, &[("WWW-Authenticate", "NTLM challenge")], "again")
            }
            None => {
                let offers = [
                    ("WWW-Authenticate", "Negotiate"),
                    ("WWW-Authenticate", "NTLM"),
                ];
                Reply::with(401, &offers, "who?")
            }
        };
        standings.remove(&seen.connection);
        standings.extend(new.map(|new| (seen.connection, new)));
        reply
    })
    .await
}

async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server", "workers", "1")
        .start()
        .await
}

/// A client of either protocol.
enum Client {
    One(Raw),
    Two(H2),
}

impl Client {
    async fn of_each(gateway: &Gateway) -> [Self; 2] {
        [
            Self::One(Raw::connect(gateway).await),
            Self::Two(H2::connect(gateway).await),
        ]
    }

    async fn get(&mut self, target: &str, authorization: &str) -> Answer {
        let fields = [("Authorization", authorization)];
        let fields = if authorization.is_empty() {
            &[][..]
        } else {
            &fields
        };
        match self {
            Self::One(raw) => raw.exchange(request("GET", target, fields, "")).await,
            Self::Two(h2) => h2.get(target, fields).await,
        }
    }

    /// Signs in by NTLM, as a browser does it.
    async fn sign_in(&mut self, target: &str, name: &str) -> Answer {
        self.get(target, "").await.is(401);
        let challenge = self.get(target, &format!("NTLM 1 {name}")).await;
        assert_eq!(challenge.is(401).text(), "again");
        self.get(target, &format!("NTLM 3 {name}")).await
    }

    /// What a request without credentials gets.
    async fn who(&mut self) -> String {
        self.get("/public", "").await.text()
    }
}

#[tokio::test]
async fn up_6_a_second_user_never_inherits_the_first_user_s_connection() {
    let upstream = by_connection().await;
    let gateway = gateway(&upstream).await;
    for (number, mut first) in Client::of_each(&gateway).await.into_iter().enumerate() {
        let name = format!("alice{number}");
        let answer = first.sign_in("/public", &name).await;
        assert_eq!(answer.is(200).text(), format!("for {name}"));
        for mut second in Client::of_each(&gateway).await {
            for _ in 0..5 {
                assert_eq!(second.who().await, "who?");
                assert_eq!(first.who().await, format!("for {name}"));
            }
            let answer = second.sign_in("/public", "bob").await;
            assert_eq!(answer.is(200).text(), "for bob");
            for _ in 0..5 {
                assert_eq!(first.who().await, format!("for {name}"));
                assert_eq!(second.who().await, "for bob");
            }
        }
        for _ in 0..5 {
            assert_eq!(get(&gateway, "/public", &[]).await.text(), "who?");
        }
    }
    // Each client has left, and its connection with it.
    upstream
        .until("the users' connections to end", |upstream| {
            upstream.open() == 0
        })
        .await;
}

#[tokio::test]
async fn up_6_a_request_that_authenticates_is_enough() {
    let upstream = by_connection().await;
    let gateway = gateway(&upstream).await;
    for mut first in Client::of_each(&gateway).await {
        // A connection of the pool, on which nothing was ever offered.
        let answer = first.get("/public", "Negotiate alice").await;
        assert_eq!(answer.is(200).text(), "for alice");
        assert_eq!(answer.header("www-authenticate"), None);
        for mut second in Client::of_each(&gateway).await {
            assert_eq!(second.who().await, "who?");
        }
        assert_eq!(first.who().await, "for alice");
    }
}

#[tokio::test]
async fn up_6_streams_of_one_client_share_its_connection_in_turn() {
    let upstream = by_connection().await;
    let gateway = gateway(&upstream).await;
    let mut client = Client::Two(H2::connect(&gateway).await);
    client.sign_in("/public", "alice").await.is(200);
    let connection = upstream.last().connection;
    let Client::Two(h2) = &mut client else {
        unreachable!()
    };
    let answers = (0..30).map(|_| {
        let url = "https://localhost/public";
        h2.begin(http::Request::get(url).body(full("")).unwrap())
    });
    let answers: Vec<_> = answers.collect();
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let seen = upstream.seen();
    assert!(
        seen[seen.len() - 30..]
            .iter()
            .all(|seen| seen.connection == connection)
    );
}

#[tokio::test]
async fn up_6_behind_a_trusted_proxy_nobody_can_be_told_apart() {
    let upstream = by_connection().await;
    let gateway = Site::new(upstream.address)
        .set("server", "workers", "1")
        .set("server", "trusted_proxies", "[\"127.0.0.0/8\"]")
        .start()
        .await;
    for mut proxy in Client::of_each(&gateway).await {
        let answer = proxy.sign_in("/public", "alice").await;
        // The connection of the challenge was not kept.
        answer.is(401);
        proxy.get("/public", "Negotiate alice").await.is(200);
        for _ in 0..5 {
            assert_eq!(proxy.who().await, "who?");
        }
    }
    upstream
        .until("all connections to end", |upstream| upstream.open() == 0)
        .await;
}

#[tokio::test]
async fn up_6_a_pinned_connection_ends_with_the_idle_timeout() {
    let upstream = by_connection().await;
    let gateway = Site::new(upstream.address)
        .set("server", "workers", "1")
        .on_upstream("idle_timeout", "\"500ms\"")
        .start()
        .await;
    let mut raw = Client::One(Raw::connect(&gateway).await);
    raw.sign_in("/public", "alice").await.is(200);
    upstream
        .until("the idle connection to end", |upstream| {
            upstream.open() == 0
        })
        .await;
    assert_eq!(raw.who().await, "who?");
    raw.sign_in("/public", "alice").await.is(200);
}

#[tokio::test]
async fn up_6_a_pinned_connection_keeps_nobody_from_the_upstream() {
    let upstream = by_connection().await;
    let gateway = Site::new(upstream.address)
        .set("server", "workers", "1")
        .on_upstream("max_connections", "1")
        .start()
        .await;
    let [mut one, mut two] = Client::of_each(&gateway).await;
    one.sign_in("/public", "alice").await.is(200);
    assert_eq!(one.who().await, "for alice");
    assert_eq!(two.who().await, "who?");
    assert_eq!(one.who().await, "who?");
    two.sign_in("/public", "bob").await.is(200);
    assert_eq!(two.who().await, "for bob");
}

#[tokio::test]
async fn up_6_a_client_has_few_connections_of_its_own() {
    let mut site = Site::bare().set("server", "workers", "1");
    let mut upstreams = Vec::new();
    for number in 0..5 {
        let upstream = by_connection().await;
        site = site
            .upstream(
                &format!("u{number}"),
                &format!("http://{}", upstream.address),
            )
            .route(&format!("u{number}"), &format!("/u{number}"), "public")
            .on_route("upstream", &format!("\"u{number}\""));
        upstreams.push(upstream);
    }
    let gateway = site.start().await;
    let mut client = Client::Two(H2::connect(&gateway).await);
    for number in 0..5 {
        let answer = client.get(&format!("/u{number}"), "Negotiate alice").await;
        assert_eq!(answer.is(200).text(), "for alice");
    }
    for number in 0..4 {
        let answer = client.get(&format!("/u{number}"), "").await;
        assert_eq!(answer.is(200).text(), "for alice");
    }
    assert_eq!(client.get("/u4", "").await.text(), "who?");
    upstreams[4]
        .until("what has no place to end", |upstream| upstream.open() == 0)
        .await;
}

#[tokio::test]
async fn up_6_a_pinned_request_that_is_cancelled_ends_its_connection() {
    let upstream = Upstream::scripted(|seen: &Seen| match &*seen.target {
        "/public/hang" => Reply(vec![Step::Hang]),
        _ => Reply::with(401, &[("WWW-Authenticate", "NTLM")], "who?"),
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut h2 = H2::connect(&gateway).await;
    h2.get("/public", &[]).await.is(401);
    let url = "https://localhost/public/hang";
    let hanging = h2.begin(http::Request::get(url).body(full("")).unwrap());
    assert_eq!(upstream.request(2).await.connection, 1);
    // The next one waits for its turn, and gets it when the first one is given up.
    let url = "https://localhost/public/next";
    let next = h2.begin(http::Request::get(url).body(full("")).unwrap());
    drop(hanging);
    assert_eq!(next.await.unwrap().status(), 401);
    assert_eq!(upstream.last().connection, 2);
}
