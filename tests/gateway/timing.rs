//! `Server-Timing`: who is told where the time went, and what of it.

use crate::harness::{Kind, Site, Token, Upstream, get, keys::bearer};

/// The phases that an answer tells, in order; each must have a duration.
#[track_caller]
fn phases(answer: &crate::harness::Answer) -> Vec<String> {
    let values = answer.head.values("server-timing");
    let phases = values.iter().flat_map(|value| value.split(", "));
    let names = phases.map(|phase| {
        let (name, took) = phase.split_once(";dur=").unwrap();
        assert!(took.parse::<f64>().is_ok_and(|took| took >= 0.0), "{phase}");
        name.to_owned()
    });
    names.collect()
}

#[tokio::test]
async fn listed_clients_are_told_the_phases_and_of_refusals_the_whole_alone() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address)
        .set("log", "server_timing", r#"["10.0.0.0/8", "127.0.0.1/32"]"#)
        .set("server", "trusted_proxies", r#"["127.0.0.1"]"#);
    let gateway = site.start().await;
    let token = bearer(&Token::new(Kind::Es).sign());
    let near = ("X-Forwarded-For", "10.1.2.3");
    let far = ("X-Forwarded-For", "192.0.2.7");
    let token = ("Authorization", &*token);

    let answer = get(&gateway, "/private", &[token, far]).await;
    assert!(phases(answer.is(200)).is_empty());
    let answer = get(&gateway, "/private", &[far]).await;
    assert!(phases(answer.is(401)).is_empty());

    let answer = get(&gateway, "/private", &[token, near]).await;
    assert_eq!(phases(answer.is(200)), ["admit", "upstream", "total"]);
    // Which step refused is not told by how long it took.
    for (path, status) in [("/private", 401), ("/nowhere", 404)] {
        let answer = get(&gateway, path, &[near]).await;
        assert_eq!(phases(answer.is(status)), ["total"], "{path}");
    }
    let answer = get(&gateway, "/admin", &[token, near]).await;
    assert_eq!(phases(answer.is(403)), ["total"]);
}

#[tokio::test]
async fn nobody_is_told_by_default() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let answer = get(&gateway, "/public", &[]).await;
    assert!(phases(answer.is(200)).is_empty());
}
