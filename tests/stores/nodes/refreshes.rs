//! Refresh tokens over three nodes: nobody is logged out by tabs that refresh together, by an answer that was lost or by a
//! node or database that died, and a thief ends the session everywhere (SESS-1, SESS-2, SESS-3).

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;

use super::{
    Grant, PASSWORD, Trio, call,
    caller::{Caller, Lost},
    engines, exchange, is_healthy, login, refresh, refresh_request, sealed, shared_engines, status,
};
use crate::{
    harness::{Answer, Site, eventually, request},
    place::Place,
};

/// Sessions that have no token that goes on, or more than one.
const BROKEN: &str = "SELECT count(*) FROM sessions s WHERE 1 <> (SELECT count(*) FROM refresh_tokens t \
                      WHERE t.session_id = s.id AND t.rotated_at IS NULL)";

/// Sealed keys, and no limit of refreshes in the way.
fn ample(site: Site) -> Site {
    let limit = r#"{ per_session = "1000000/1h" }"#;
    sealed(site).set("accounts", "refresh_limit", limit)
}

/// Presents one token many times at once, spread over some nodes; every fourth client leaves before it hears the answer.
async fn tabs(addresses: &[SocketAddr], renewal: &str, count: usize) -> Vec<Result<Answer, Lost>> {
    let calls = (0..count).map(|number| {
        let address = addresses[number % addresses.len()];
        async move {
            let mut caller = Caller::new(address);
            let request = refresh_request(renewal);
            if number % 4 == 3 {
                let some = Duration::from_millis(u64::try_from(number).unwrap() * 4);
                let _ = tokio::time::timeout(some, caller.ask(&request)).await;
                return None;
            }
            // A node that has no time is asked again, as `Retry-After` says.
            let answer = eventually("time for a refresh", async || {
                let answer = caller.ask(&request).await;
                let busy = matches!(&answer, Ok(answer) if answer.status == 503);
                (!busy).then_some(answer)
            });
            Some(answer.await)
        }
    });
    join_all(calls).await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sess_2_fifty_tabs_that_refresh_at_once_over_three_nodes_log_nobody_out() {
    let Some((_redis, way)) = shared_engines().await else {
        return;
    };
    // Tabs that find a token unused at one moment are all charged: on a slow machine 200 of them, beyond the default.
    let trio = Trio::start(&way, &["alice"], ample).await;
    let addresses = trio.addresses();
    let place = Place::Postgres(way.store.clone());
    let mut grant = login(addresses[0], "alice").await;
    let mut spent = BTreeSet::new();
    for _ in 0..4 {
        let answers = tabs(&addresses, &grant.renewal, 50).await;
        let answers = answers.iter().map(|answer| answer.as_ref().unwrap());
        let grants: Vec<Grant> = answers.map(Grant::of).collect();
        let renewals: BTreeSet<&str> = grants.iter().map(|one| &*one.renewal).collect();
        assert_eq!(renewals.len(), 1, "one family, one end");
        assert!(spent.insert(grant.renewal.clone()));
        grant = grants.last().unwrap().clone();
        assert!(!spent.contains(&grant.renewal));
        assert_eq!(place.number(BROKEN).await, 0);
        for address in &addresses {
            assert_eq!(status(*address, &grant.access).await, 200);
        }
    }
    assert_eq!(place.number("SELECT count(*) FROM sessions").await, 1);
    assert_eq!(place.number("SELECT count(*) FROM revocations").await, 0);
}

/// The refresh cookie that an answer sets.
fn cookie(answer: &Answer) -> Option<String> {
    let mut cookies = answer.head.values("set-cookie").into_iter();
    let cookie = cookies.find_map(|one| one.strip_prefix("__Secure-portcullis-refresh="))?;
    cookie.split(';').next().map(str::to_owned)
}

fn refresh_by(cookie: &str) -> String {
    let cookie = format!("__Secure-portcullis-refresh={cookie}");
    let fields = [
        ("Content-Type", "application/json"),
        ("Cookie", &*cookie),
        ("Origin", "https://localhost:8443"),
    ];
    request("POST", "/auth/refresh", &fields, "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sess_2_browsers_tabs_over_three_nodes_are_given_one_cookie_and_a_late_one_takes_it_from_nobody()
 {
    let Some((_redis, way)) = shared_engines().await else {
        return;
    };
    let trio = Trio::start(&way, &["alice"], |site| site).await;
    let addresses = trio.addresses();
    let body = json!({ "username": "alice", "password": PASSWORD });
    let signed_in = exchange(addresses[0], call("POST", "/auth/login", "", &body)).await;
    let first = cookie(signed_in.is(200)).unwrap();
    let mut current = first.clone();
    for _ in 0..6 {
        let request = refresh_by(&current);
        let tabs = (0..9).map(|tab| exchange(addresses[tab % 3], request.clone()));
        let answers = join_all(tabs).await;
        let given: BTreeSet<Option<String>> = answers
            .iter()
            .map(|answer| cookie(answer.is(200)))
            .collect();
        assert_eq!(given.len(), 1, "{given:?}");
        current = given.into_iter().next().unwrap().unwrap();
    }
    // A tab that slept through more of them than are remembered is refused, and its browser keeps the cookie of the others.
    for address in &addresses {
        let late = exchange(*address, refresh_by(&first)).await;
        late.refused(401, "invalid_grant");
        assert_eq!(cookie(&late), None);
    }
    let answer = exchange(addresses[1], refresh_by(&current)).await;
    assert!(cookie(answer.is(200)).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sess_1_and_sess_2_a_stolen_token_at_another_node_ends_the_session_at_all() {
    let Some((_redis, way)) = shared_engines().await else {
        return;
    };
    let change = |site| sealed(site).set("accounts", "refresh_grace", "\"1s\"");
    let trio = Trio::start(&way, &["alice"], change).await;
    let addresses = trio.addresses();
    let stolen = login(addresses[0], "alice").await;
    let grant = Grant::of(&refresh(addresses[1], &stolen.renewal).await);
    let bystander = login(addresses[1], "alice").await;
    // Within the window it gives the same end; after it, whoever presents it ends everything.
    eventually("the end of the grace window", async || {
        let answer = refresh(addresses[2], &stolen.renewal).await;
        match answer.status {
            200 => {
                assert_eq!(Grant::of(&answer).renewal, grant.renewal);
                None
            }
            _ => {
                answer.refused(401, "invalid_grant");
                Some(())
            }
        }
    })
    .await;
    for address in &addresses {
        for renewal in [&stolen.renewal, &grant.renewal] {
            let over = refresh(*address, renewal).await;
            over.refused(401, "invalid_grant");
        }
        for token in [&stolen.access, &grant.access] {
            eventually("the end of the session", async || {
                (status(*address, token).await == 401).then_some(())
            })
            .await;
        }
        assert_eq!(status(*address, &bystander.access).await, 200);
    }
    let told = |line: &str| line.contains("refresh_token_reused").then_some(());
    trio.nodes[2].err.find("the event", told).await;
    Grant::of(&refresh(addresses[0], &bystander.renewal).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sess_2_and_sess_3_a_node_killed_between_commit_and_answer_logs_nobody_out() {
    let Some((_redis, way)) = shared_engines().await else {
        return;
    };
    let mut trio = Trio::start(&way, &["alice"], sealed).await;
    let addresses = trio.addresses();
    let place = Place::Postgres(way.store.clone());
    let mut grant = login(addresses[1], "alice").await;
    for round in 0..2 {
        let renewals = "SELECT count(*) FROM refresh_tokens WHERE rotated_at IS NOT NULL";
        let before = place.number(renewals).await;
        let asking = tabs(&addresses[..1], &grant.renewal, 8);
        let killing = async {
            // Whoever hears no answer has lost it after the commit.
            if round == 0 {
                eventually("the commit", async || {
                    (place.number(renewals).await > before).then_some(())
                })
                .await;
            }
            trio.kill(0).await;
        };
        tokio::join!(asking, killing);
        assert_eq!(place.number(BROKEN).await, 0);
        let answer = refresh(addresses[1 + round], &grant.renewal).await;
        grant = Grant::of(&answer);
        assert_eq!(status(addresses[2], &grant.access).await, 200);
        trio.start_again(0, |site| site).await;
        assert_eq!(status(addresses[0], &grant.access).await, 200);
    }
    assert_eq!(place.number("SELECT count(*) FROM revocations").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sess_3_a_database_killed_during_refreshes_at_three_nodes_leaves_every_session_one_live_token()
 {
    let Some((mut server, _redis, way)) = engines().await else {
        return;
    };
    let users = ["alice", "bob", "carol"];
    let trio = Trio::start(&way, &users, ample).await;
    let addresses = trio.addresses();
    let place = Place::Postgres(way.store.clone());
    let stop = AtomicBool::new(false);
    let count = AtomicUsize::new(0);
    // Each goes on from the last token that it heard of, at the next node.
    let refresher = async |name: &str| {
        let mut grant = login(addresses[0], name).await;
        let mut number = 0;
        while !stop.load(Ordering::SeqCst) {
            number += 1;
            let request = refresh_request(&grant.renewal);
            let answer = exchange(addresses[number % 3], request).await;
            if answer.status == 503 {
                answer.refused(503, "store_unavailable");
                assert!(answer.header("retry-after").is_some());
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            grant = Grant::of(&answer);
            count.fetch_add(1, Ordering::SeqCst);
        }
        grant
    };
    let story = async {
        for _ in 0..2 {
            some_more(&count).await;
            server.kill();
            server.resume();
            for node in &trio.nodes {
                is_healthy(node).await;
            }
        }
        some_more(&count).await;
        stop.store(true, Ordering::SeqCst);
    };
    let [alice, bob, carol] = users;
    let (a, b, c, ()) = tokio::join!(refresher(alice), refresher(bob), refresher(carol), story);
    assert_eq!(place.number(BROKEN).await, 0);
    assert_eq!(place.number("SELECT count(*) FROM revocations").await, 0);
    for grant in [a, b, c] {
        for address in &addresses {
            assert_eq!(status(*address, &grant.access).await, 200);
        }
        Grant::of(&refresh(addresses[0], &grant.renewal).await);
    }
}

/// Waits until there are more of them.
async fn some_more(count: &AtomicUsize) {
    let before = count.load(Ordering::SeqCst);
    eventually("more refreshes", async || {
        (count.load(Ordering::SeqCst) > before + 20).then_some(())
    })
    .await;
}
