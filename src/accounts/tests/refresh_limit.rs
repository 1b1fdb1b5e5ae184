//! How often a session is renewed, and that a refusal costs nobody his session: RATE-4.

use std::{sync::Arc, time::Duration};

use super::{Log, Site, audit::told};
use crate::{
    accounts::{Grant, RefreshToken},
    limit::settings::Quota,
    policy::Rejection,
};

/// So many replacements in this time, and as many at once; `ann` and `bob`.
async fn site(count: u32, window: u64) -> Site {
    let site = Site::with(|settings| {
        settings.refresh_per_session = Quota {
            count,
            window: Duration::from_secs(window),
            burst: count,
        };
    });
    for name in ["ann", "bob"] {
        site.add(name, &[]).await;
    }
    site
}

fn is_limited(answer: &Result<Grant, Rejection>) -> bool {
    match answer {
        Ok(_) => false,
        Err(Rejection::RateLimited(exceeded)) => {
            assert_eq!(exceeded.limit, "refresh_per_session");
            true
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn rows(site: &Site, session: &str) -> u32 {
    let connection = rusqlite::Connection::open(&site.settings.database).unwrap();
    let count = "SELECT count(*) FROM refresh_tokens WHERE session_id = ?1";
    connection
        .query_row(count, [session], |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn rate_4_a_session_is_renewed_so_often_and_a_refusal_consumes_nothing() {
    let site = site(3, 3600).await;
    let others = [site.login("ann").await, site.login("bob").await];
    let mut grant = site.login("ann").await;
    let mut spent = grant.token().clone();
    for _ in 0..3 {
        spent = grant.token().clone();
        grant = site.refresh(grant.token()).await.unwrap();
    }
    assert_eq!(rows(&site, &grant.session), 4);
    let log = Log::default();
    {
        let _guard = log.listen();
        for _ in 0..20 {
            let refusal = site.refresh(grant.token()).await.unwrap_err();
            let Rejection::RateLimited(exceeded) = refusal else {
                panic!("{refusal:?}");
            };
            assert_eq!((exceeded.limit, exceeded.quota), ("refresh_per_session", 3));
            assert!(exceeded.retry_after > Duration::from_secs(1000));
            assert!(exceeded.retry_after <= Duration::from_secs(1200));
        }
    }
    assert_eq!(
        told(&log).into_iter().collect::<Vec<_>>(),
        ["refresh_limited"]
    );
    assert!(log.text().contains(&*grant.session));
    assert!(!log.text().contains(grant.token().reveal().as_str()));
    assert_eq!(rows(&site, &grant.session), 4, "a refusal wrote something");
    assert!(site.is_live(&grant));
    // An answer that was lost is given once more: it writes no row.
    let again = site.refresh(&spent).await.unwrap();
    assert_eq!(*again.token().reveal(), *grant.token().reveal());
    for other in &others {
        site.refresh(other.token()).await.unwrap();
    }
    // Where nothing was counted yet, the token that was refused so often is good.
    let next = site.beside().refresh(grant.token()).await.unwrap();
    assert_eq!(next.session, grant.session);
    assert_eq!(rows(&site, &grant.session), 5);
}

#[tokio::test]
async fn rate_4_a_token_that_was_refused_is_good_after_the_time_that_was_told() {
    // One comes back each two seconds, far slower than they are used up.
    let site = site(10, 20).await;
    let mut grant = site.login("ann").await;
    for _ in 0..10_000 {
        match site.refresh(grant.token()).await {
            Ok(next) => grant = next,
            Err(Rejection::RateLimited(exceeded)) => {
                assert!(exceeded.retry_after <= Duration::from_secs(2));
                tokio::time::sleep(exceeded.retry_after).await;
                site.refresh(grant.token()).await.unwrap();
                return;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("never refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rate_4_more_tabs_at_once_than_the_limit_log_nobody_out() {
    let site = Arc::new(site(5, 3600).await);
    let first = site.login("ann").await;
    let tabs = |token: RefreshToken| {
        let calls = (0..50).map(|_| {
            let (site, token) = (Arc::clone(&site), token.clone());
            tokio::spawn(async move { site.refresh(&token).await })
        });
        futures_util::future::join_all(calls.collect::<Vec<_>>())
    };
    let mut given = None;
    for answer in tabs(first.token().clone()).await {
        let answer = answer.unwrap();
        if is_limited(&answer) {
            continue;
        }
        let token = answer.unwrap().token().reveal().to_string();
        assert_eq!(*given.get_or_insert(token.clone()), token);
    }
    let token = given.expect("the first five are let through");
    assert_eq!(rows(&site, &first.session), 2);
    // Whoever was refused comes again and finds what the others have.
    for answer in tabs(first.token().clone()).await {
        let grant = answer.unwrap().unwrap();
        assert_eq!(*grant.token().reveal(), token);
        assert!(site.is_live(&grant));
    }
    // When nothing is left at all, none of them is consumed.
    let mut token = RefreshToken::parse(&token).unwrap();
    while let Ok(next) = site.refresh(&token).await {
        token = next.token().clone();
    }
    let before = rows(&site, &first.session);
    for answer in tabs(token.clone()).await {
        assert!(is_limited(&answer.unwrap()));
    }
    assert_eq!(rows(&site, &first.session), before);
    site.beside().refresh(&token).await.unwrap();
}

#[tokio::test]
async fn rate_4_what_is_no_live_token_is_refused_as_such_and_a_stolen_one_is_found_at_any_rate() {
    let site = site(1, 3600).await;
    for _ in 0..20 {
        let made_up = RefreshToken::random().unwrap();
        let refusal = site.refresh(&made_up).await.unwrap_err();
        assert_eq!(refusal, Rejection::InvalidGrant);
    }
    let over = site.login("bob").await;
    site.accounts.logout(over.token()).await.unwrap();
    let first = site.login("ann").await;
    let second = site.refresh(first.token()).await.unwrap();
    assert!(is_limited(&site.refresh(second.token()).await));
    for _ in 0..3 {
        let refusal = site.refresh(over.token()).await.unwrap_err();
        assert_eq!(refusal, Rejection::InvalidGrant);
    }
    site.advance(11);
    let alarm = site.refresh(first.token()).await.unwrap_err();
    assert_eq!(alarm, Rejection::InvalidGrant);
    assert!(!site.is_live(&second));
    let ended = site.refresh(second.token()).await.unwrap_err();
    assert_eq!(ended, Rejection::InvalidGrant);
}
