//! Requests whose key is not known: how often they may cause a fetch, and how long they wait for it (KEY-1).

use super::*;

#[tokio::test]
async fn key_1_made_up_key_ids_cause_one_fetch_in_a_cooldown() {
    let provider = Provider::start(set(&[P256.named("a"), RSA.named("b")])).await;
    let node = Node::new();
    let authenticator = node.authenticator(RemoteSettings {
        cooldown: PATIENCE * 100,
        ..settings(provider.uri())
    });
    patiently(&authenticator, &named("a")).await.unwrap();
    for number in 0..300 {
        assert_eq!(
            patiently(&authenticator, &named(&format!("x{number}"))).await,
            UNKNOWN
        );
    }
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn key_1_the_cooldown_holds_for_a_provider_without_keys_too() {
    let provider = Provider::start(set(&[])).await;
    let node = Node::new();
    let authenticator = node.authenticator(RemoteSettings {
        cooldown: PATIENCE * 100,
        ..settings(provider.uri())
    });
    for number in 0..300 {
        let refused = patiently(&authenticator, &named(&format!("x{number}"))).await;
        assert_eq!(refused, Err(Rejection::KeysUnavailable));
    }
    assert_eq!((provider.asked(), node.fetches("keys")), (1, 1));
}

#[tokio::test]
async fn key_1_requests_with_an_unknown_key_wait_for_one_fetch_together_and_known_ones_do_not() {
    let provider = Provider::start(set(&[P256.named("a")])).await;
    let node = Node::new();
    let authenticator = Arc::new(node.authenticator(settings(provider.uri())));
    patiently(&authenticator, &named("a")).await.unwrap();
    let go_on = provider.hold(set(&[P256.named("a"), P256.named("b")]));
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let authenticator = Arc::clone(&authenticator);
            tokio::spawn(async move { patiently(&authenticator, &named("b")).await })
        })
        .collect();
    eventually("the second fetch", async || provider.asked() == 2).await;
    verify(&authenticator, &named("a")).unwrap();
    assert!(waiting.iter().all(|task| !task.is_finished()));
    go_on.notify_one();
    for task in waiting {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
    assert_eq!(provider.asked(), 2);
}

#[tokio::test]
async fn key_1_nobody_waits_longer_than_the_configuration_says() {
    let provider = Provider::start(Reply::Hang).await;
    let node = Node::new();
    let authenticator = node.authenticator(RemoteSettings {
        wait: Duration::from_millis(20),
        ..settings(provider.uri())
    });
    let refused = patiently(&authenticator, &named("a")).await;
    assert_eq!(refused, Err(Rejection::KeysUnavailable));
}
