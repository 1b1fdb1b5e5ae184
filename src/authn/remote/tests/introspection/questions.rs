//! How often an issuer is asked: once for a token and its time, within the client's budget, and not while it fails.

use super::*;

#[tokio::test]
async fn cache_3_an_active_token_is_asked_about_again_after_its_time_in_the_cache_and_not_before() {
    let node = Node::new();
    let provider = Provider::start(Reply::ok(&said().to_string())).await;
    let authenticator = asking(&node, settings(&provider));
    let budget = Budget(Cell::new(1));
    for second in [0, 1, 30, 59] {
        assert!(decide(&authenticator, TOKEN, second, &budget).await.is_ok());
        assert_eq!(provider.asked(), 1, "{second}");
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // Its issuer took it back meanwhile; whoever has spent his budget is told so all the same.
    provider.answer(Reply::ok(r#"{"active":false}"#));
    budget.0.set(0);
    let decided = decide(&authenticator, TOKEN, 61, &budget).await;
    let inactive = Err(Rejection::TokenInvalid(TokenFault::Inactive));
    assert_eq!(decided.map(drop), inactive);
    assert_eq!((provider.asked(), budget.0.get()), (2, 0));
    // From now on it is a token like any other that nobody knows.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let decided = decide(&authenticator, TOKEN, 62, &budget).await;
    assert!(
        matches!(decided, Err(Rejection::RateLimited(_))),
        "{decided:?}"
    );
    assert_eq!(provider.asked(), 2);
}

#[tokio::test]
async fn cache_5_an_inactive_token_is_not_asked_about_again_at_once() {
    let node = Node::new();
    let provider = Provider::start(Reply::ok(r#"{"active":false}"#)).await;
    let authenticator = asking(&node, settings(&provider));
    let budget = Budget(Cell::new(5));
    for _ in 0..50 {
        let decided = decide(&authenticator, TOKEN, 0, &budget).await;
        assert_eq!(
            decided.map(drop),
            Err(Rejection::TokenInvalid(TokenFault::Inactive))
        );
    }
    assert!(provider.asked() <= 2, "{}", provider.asked());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    provider.answer(Reply::ok(&said().to_string()));
    assert!(decide(&authenticator, TOKEN, 2, &budget).await.is_ok());
}

#[tokio::test]
async fn rate_8_made_up_tokens_reach_the_issuer_within_the_budget_alone() {
    let node = Node::new();
    let provider = Provider::start(Reply::ok(r#"{"active":false}"#)).await;
    let authenticator = asking(&node, settings(&provider));
    let budget = Budget(Cell::new(4));
    for n in 0..100 {
        let decided = decide(&authenticator, &format!("tok_{n}"), 0, &budget).await;
        match decided {
            Err(Rejection::TokenInvalid(TokenFault::Inactive)) => assert!(n < 4),
            Err(Rejection::RateLimited(_)) => assert!(n >= 4),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(provider.asked(), 4);
}

#[tokio::test]
async fn cache_7_one_question_for_all_who_bring_a_token_and_whoever_leaves_ends_it_for_nobody() {
    let node = Node::new();
    let provider = Provider::start(Reply::Close).await;
    let go_on = provider.hold(Reply::ok(&said().to_string()));
    let authenticator = asking(&node, settings(&provider));
    let budget = Budget(Cell::new(1));
    let unavailable = Rejection::KeysUnavailable;
    let arrivals: Vec<_> = (0..50)
        .map(|_| authenticator.arrival(&unavailable, &bearer(TOKEN), &budget))
        .collect();
    assert_eq!(budget.0.get(), 0, "the first is charged, and nobody else");
    let mut arrivals = arrivals
        .into_iter()
        .map(|arrival| arrival.unwrap().unwrap());
    // The one who asked leaves, and some more.
    drop(arrivals.next());
    drop(arrivals.nth(7));
    go_on.notify_one();
    for arrival in arrivals {
        assert_eq!(arrival.wait().await, Charge::Settled);
        let identity = authenticator.verify(TOKEN, at(NOW), &budget).unwrap();
        assert_eq!(&*identity.claims().subject, "u1");
    }
    assert_eq!(provider.asked(), 1);
    let stats = authenticator.cache_stats();
    assert_eq!((stats.hits, stats.misses), (40, 1));
}

#[tokio::test]
async fn fault_5_an_issuer_that_fails_is_left_alone_and_costs_no_client_his_budget() {
    let node = Node::new();
    let provider = Provider::start(Reply::with(503, "")).await;
    let authenticator = asking(&node, settings(&provider));
    let budget = Budget(Cell::new(1));
    for n in 0..40 {
        let decided = decide(&authenticator, &format!("tok_{n}"), 0, &budget).await;
        assert_eq!(decided.map(drop), Err(Rejection::KeysUnavailable));
        assert_eq!(budget.0.get(), 1);
    }
    // Three, and one more for each pause that is over by now.
    assert!((3..=8).contains(&provider.asked()), "{}", provider.asked());
    provider.answer(Reply::ok(&said().to_string()));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while decide(&authenticator, TOKEN, 0, &budget).await.is_err() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it is never asked again"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(decide(&authenticator, "tok_next", 0, &budget).await.is_ok());
}

#[tokio::test]
async fn rate_8_a_token_that_its_issuer_chokes_on_costs_its_sender() {
    let node = Node::new();
    let provider = Provider::start(Reply::with(500, "")).await;
    let authenticator = asking(&node, settings(&provider));
    let budget = Budget(Cell::new(2));
    for left in [1, 0] {
        let decided = decide(&authenticator, TOKEN, 0, &budget).await;
        assert_eq!(decided.map(drop), Err(Rejection::KeysUnavailable));
        assert_eq!(budget.0.get(), left);
    }
    let decided = decide(&authenticator, TOKEN, 0, &budget).await;
    assert!(
        matches!(decided, Err(Rejection::RateLimited(_))),
        "{decided:?}"
    );
}

#[tokio::test]
async fn rate_8_questions_under_way_are_bounded() {
    let node = Node::new();
    let provider = Provider::start(Reply::Hang).await;
    let mut settings = settings(&provider);
    settings.max_concurrent = 3;
    let authenticator = asking(&node, settings);
    let budget = Budget(Cell::new(100));
    let ask = |n: usize| {
        let token = format!("tok_{n}");
        let headers = bearer(&token);
        authenticator.arrival(&Rejection::KeysUnavailable, &headers, &budget)
    };
    let under_way: Vec<_> = (0..3).map(ask).collect();
    assert!(under_way.iter().all(|one| matches!(one, Ok(Some(_)))));
    for n in 3..20 {
        assert_eq!(ask(n).map(drop), Err(Rejection::KeysUnavailable));
    }
    assert_eq!(budget.0.get(), 97);
    // One of those three is still joined.
    assert!(matches!(ask(1), Ok(Some(_))));
}
