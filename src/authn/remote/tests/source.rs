//! Where keys are fetched from: discovery, redirects, TLS (KEY-2, KEY-3).

use super::*;

fn discovery(provider: &Provider) -> RemoteSettings {
    let document = provider.document();
    RemoteSettings {
        place: KeyPlace::Discovery(document),
        ..settings(provider.uri())
    }
}

#[tokio::test]
async fn key_3_discovery_that_speaks_of_another_issuer_or_host_brings_no_keys() {
    let provider = Provider::start(set(&[P256.named("a")])).await;
    let other = Provider::start(set(&[P256.named("a")])).await;
    let own = provider.uri().to_string();
    let elsewhere = format!("http://localhost:{}/", other.uri().port().unwrap());
    let node = Node::new();
    for (issuer, jwks) in [
        ("https://idp.example.com/", &own),
        ("https://evil.example.com", &own),
        (ISSUER, &elsewhere),
        (
            ISSUER,
            &other
                .uri()
                .to_string()
                .replace("http://127.0.0.1", "https://127.0.0.2"),
        ),
        (ISSUER, &"http://169.254.169.254/keys".to_owned()),
        (ISSUER, &"file:///etc/passwd".to_owned()),
        (ISSUER, &"/keys".to_owned()),
        (ISSUER, &String::new()),
    ] {
        provider.describe(&json!({"issuer": issuer, "jwks_uri": jwks}).to_string());
        let before = node.fetches("discovery");
        let authenticator = node.authenticator(discovery(&provider));
        let refused = patiently(&authenticator, &named("a")).await;
        assert_eq!(refused, Err(Rejection::KeysUnavailable), "{issuer} {jwks}");
        assert!(node.fetches("discovery") > before, "{issuer} {jwks}");
    }
    assert_eq!((other.asked(), provider.asked()), (0, 0));
}

#[tokio::test]
async fn key_3_discovery_of_the_right_issuer_leads_to_its_keys() {
    let provider = Provider::start(set(&[P256.named("a")])).await;
    let jwks = provider.uri().to_string();
    provider.describe(&json!({"issuer": ISSUER, "jwks_uri": jwks, "more": [1]}).to_string());
    let node = Node::new();
    let authenticator = node.authenticator(discovery(&provider));
    patiently(&authenticator, &named("a")).await.unwrap();
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn key_2_a_redirect_is_not_followed() {
    let target = Provider::start(set(&[P256.named("a")])).await;
    let moved = format!(
        "HTTP/1.1 307 Moved\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        target.uri()
    );
    let provider = Provider::start(Reply::raw(&moved)).await;
    let node = Node::new();
    let authenticator = node.authenticator(settings(provider.uri()));
    let refused = patiently(&authenticator, &named("a")).await;
    assert_eq!(refused, Err(Rejection::KeysUnavailable));
    assert_eq!(target.asked(), 0);
}

#[tokio::test]
async fn key_2_keys_come_over_tls_that_is_verified() {
    let (provider, root) = Provider::with_tls("localhost", set(&[P256.named("a")])).await;
    let mut remote = settings(provider.uri());
    remote.fetch.networks = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let node = Node::new();
    let stranger = node.authenticator(remote.clone());
    let refused = patiently(&stranger, &named("a")).await;
    assert_eq!(refused, Err(Rejection::KeysUnavailable));
    assert_eq!((provider.asked(), node.fetches("unreachable")), (0, 1));
    drop(stranger);
    remote.fetch.roots = vec![root];
    let authenticator = node.authenticator(remote);
    patiently(&authenticator, &named("a")).await.unwrap();
    assert_eq!(provider.asked(), 1);
}
