//! Keys of issuers, where they come from, and secrets (KEY-2, KEY-3, KEY-5, JWT-1).

use super::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

const GOOD: &str = "8PTmCwWq1XyJ4nqGk7Zr0Vd2sHc9uLbA3eFiToKxMhY";

/// [`BASE`] with an issuer whose keys come from elsewhere.
fn issuer(algorithm: &str, source: &str) -> String {
    let text = with("[[issuer]]", &format!("algorithms = [{algorithm:?}]"));
    with_in(
        &with_in(&text, "[[issuer]]", "jwks_file"),
        "[[issuer]]",
        source,
    )
}

#[test]
fn exactly_one_source_of_keys() {
    let project = Project::new();
    let none = with("[[issuer]]", "jwks_file");
    for issuer in [
        "corp",
        "urn:corp",
        "http://idp.example.com",
        "https://idp.example.com/?a=b",
    ] {
        let named = with_in(&none, "[[issuer]]", &format!("issuer = {issuer:?}"));
        project.refuses(&named, "issuer[0]", "no source of keys");
    }
    project.write("secret", GOOD, 0o600);
    let two = with("[[issuer]]", "secret_file = \"secret\"");
    let report = project.read(&two).unwrap_err();
    assert!(
        report
            .problems()
            .iter()
            .any(|problem| problem.message.contains("too many")),
        "{report}"
    );
}

/// The issuer of [`BASE`] with its keys at an address.
fn remote(lines: &[&str]) -> String {
    let none = with("[[issuer]]", "jwks_file");
    lines
        .iter()
        .fold(none, |text, line| with_in(&text, "[[issuer]]", line))
}

#[track_caller]
fn remote_settings(text: &str) -> std::sync::Arc<crate::authn::settings::RemoteSettings> {
    let config = Project::new().accepts(text);
    let keys = &config.issuers[0].keys;
    let crate::authn::settings::KeySource::Remote(settings) = keys else {
        panic!("{keys:?}")
    };
    std::sync::Arc::clone(settings)
}

#[test]
fn key_2_keys_are_fetched_over_tls_or_from_this_machine() {
    for (url, words) in [
        ("http://idp.example.com/keys", "is http"),
        ("http://localhost/keys", "is http"),
        ("http://10.0.0.1/keys", "is http"),
        ("ftp://idp.example.com/keys", "not https"),
        ("file:///etc/keys", "not https"),
        ("idp.example.com/keys", "not a URL"),
        ("https://", "not a URL"),
        ("https://user:pass@idp.example.com/keys", "name or password"),
        ("https://idp.example.com/keys#it", "fragment"),
    ] {
        let text = remote(&[&format!("jwks_url = {url:?}")]);
        Project::new().refuses(&text, "issuer[0].jwks_url", words);
    }
    for url in [
        "https://idp.example.com/keys?tenant=a",
        "https://[2001:db8::1]:8443/keys",
        "http://127.0.0.1:8080/keys",
        "http://[::1]:8080/keys",
    ] {
        let settings = remote_settings(&remote(&[&format!("jwks_url = {url:?}")]));
        let place = crate::authn::settings::KeyPlace::Jwks(url.parse().unwrap());
        assert_eq!(settings.place, place);
        assert_eq!(settings.cooldown, std::time::Duration::from_secs(30));
    }
}

#[test]
fn key_3_without_a_source_the_issuer_itself_is_asked() {
    for (issuer, document) in [
        (
            "https://idp.example.com",
            "https://idp.example.com/.well-known/openid-configuration",
        ),
        (
            "https://idp.example.com/realms/a/",
            "https://idp.example.com/realms/a/.well-known/openid-configuration",
        ),
    ] {
        let settings = remote_settings(&remote(&[&format!("issuer = {issuer:?}")]));
        let place = crate::authn::settings::KeyPlace::Discovery(document.parse().unwrap());
        assert_eq!(settings.place, place);
    }
}

#[test]
fn key_3_how_keys_are_fetched_has_bounds() {
    let url = "jwks_url = \"https://idp.example.com/keys\"";
    for (fetch, key, words) in [
        ("cooldown = \"0s\"", "cooldown", "below the least"),
        ("cooldown = \"2h\"", "cooldown", "above the most"),
        ("timeout = \"31s\"", "timeout", "above the most"),
        ("wait = \"11s\"", "wait", "above the most"),
        ("max_stale = \"31d\"", "max_stale", "above the most"),
        ("refresh_max = \"25h\"", "refresh_max", "above the most"),
        (
            "refresh_min = \"2h\"",
            "refresh_min",
            "longer than refresh_max",
        ),
        ("hosts = [\"https://a.example\"]", "hosts[0]", "not a host"),
        ("hosts = [\"*.example\"]", "hosts[0]", "not a host"),
        ("networks = [\"0.0.0.0/0\"]", "networks", "every address"),
        ("networks = [\"here\"]", "networks[0]", "not a network"),
        ("ca = \"none.pem\"", "ca", "does not exist"),
        ("ca = \"corp.json\"", "ca", "no certificate"),
        ("redirects = true", "redirects", "unknown"),
    ] {
        let text = remote(&[url, &format!("fetch = {{ {fetch} }}")]);
        Project::new().refuses(&text, &format!("issuer[0].fetch.{key}"), words);
    }
    let idle = with("[[issuer]]", "fetch = { timeout = \"1s\" }");
    Project::new().refuses(&idle, "issuer[0].fetch", "nothing is fetched");
    let secret = remote(&[url, "algorithms = [\"HS256\"]"]);
    Project::new().refuses(&secret, "issuer[0].jwks_url", "never fetched");
    let secret = remote(&["algorithms = [\"HS256\"]"]);
    Project::new().refuses(&secret, "issuer[0].algorithms", "never fetched");
}

#[test]
fn key_5_weak_and_known_secrets_are_refused() {
    let text = issuer("HS256", "secret_file = \"secret\"");
    for (secret, words) in [
        ("", "is empty"),
        ("\n", "is empty"),
        ("short", "32 are needed"),
        ("8PTmCwWq1XyJ4nqGk7Zr0Vd2sHc9uLb", "32 are needed"),
        ("8PTmCwWq1XyJ4nqGk7Zr0Vd2sHc9uLb\n", "32 are needed"),
        ("your-256-bit-secret-your-256-bit-secret", "known example"),
        ("a-string-secret-at-least-256-bits-long", "known example"),
        ("ChangeMe-ChangeMe-ChangeMe-ChangeMe!", "known example"),
        (
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "over and over",
        ),
        ("0123456789abcdef0123456789abcdef", "over and over"),
    ] {
        let project = Project::new();
        project.write("secret", secret, 0o600);
        project.refuses(&text, "issuer[0].secret_file", words);
    }
    let project = Project::new();
    project.write("secret", GOOD, 0o600);
    project.refuses(
        &issuer("HS512", "secret_file = \"secret\""),
        "issuer[0].secret_file",
        "64 are needed",
    );
    project.refuses(
        &issuer("RS256", "secret_file = \"secret\""),
        "issuer[0].secret_file",
        "not HS*",
    );
    project.refuses(
        &issuer("HS256", "secret_file = \"nothing\""),
        "issuer[0].secret_file",
        "does not exist",
    );
    project.refuses(
        &issuer("HS256", "secret_file = \"certs\""),
        "issuer[0].secret_file",
        "not a file",
    );
}

#[test]
fn key_5_secrets_that_others_can_read_are_refused() {
    let text = issuer("HS256", "secret_file = \"secret\"");
    for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o666] {
        let project = Project::new();
        project.write("secret", GOOD, mode);
        project.refuses(&text, "issuer[0].secret_file", "by others");
    }
    let project = Project::new();
    project.write("secret", format!("{GOOD}\r\n"), 0o400);
    let config = project.accepts(&text);
    let crate::authn::settings::KeySource::Secret(secret) = &config.issuers[0].keys else {
        panic!("{:?}", config.issuers[0].keys)
    };
    assert_eq!(&***secret, GOOD.as_bytes(), "the newline is no part of it");
    assert!(
        !format!("{config:?}").contains(GOOD),
        "secrets do not print"
    );
}

#[test]
fn key_5_secrets_of_the_environment() {
    let text = issuer("HS256", "secret_env = \"GATE_SECRET\"");
    let mut project = Project::new();
    project.refuses(&text, "issuer[0].secret_env", "not set");
    for (value, words) in [("", "is empty"), ("short", "32 are needed")] {
        project.variables = vec![("GATE_SECRET", value.to_owned())];
        project.refuses(&text, "issuer[0].secret_env", words);
    }
    project.variables = vec![("GATE_SECRET", GOOD.to_owned())];
    project.accepts(&text);
}

#[test]
fn net_7_bad_key_sets_are_refused() {
    let key = "issuer[0].jwks_file";
    for (content, words) in [
        ("", "is empty"),
        ("nonsense", "not JSON"),
        ("[]", "no list `keys`"),
        ("{\"keys\": {}}", "no list `keys`"),
        ("{\"keys\": []}", "holds no key"),
        ("{\"keys\": [{}]}", "without `kty`"),
        (
            "{\"keys\": [{\"kty\": \"RSA\", \"d\": \"x\"}]}",
            "private key",
        ),
        (
            "{\"keys\": [{\"kty\": \"oct\", \"k\": \"x\"}]}",
            "by others",
        ),
    ] {
        let project = Project::new();
        project.write("corp.json", content, 0o644);
        project.refuses(BASE, key, words);
    }
    let project = Project::new();
    fs::remove_file(project.folder.path().join("corp.json")).unwrap();
    project.refuses(BASE, key, "does not exist");
    project.write("corp.json", vec![b' '; (1 << 20) + 1], 0o644);
    project.refuses(BASE, key, "is empty");
    project.write("corp.json", vec![b'x'; (1 << 20) + 1], 0o644);
    project.refuses(BASE, key, "larger than 1MiB");
}

#[test]
fn jwt_1_public_keys_go_with_their_algorithms() {
    let pair = |algorithm| KeyPair::generate_for(algorithm).unwrap();
    let p256 = pair(&PKCS_ECDSA_P256_SHA256);
    let kinds = [
        (p256.public_key_pem(), "ES256", "ES384"),
        (
            pair(&PKCS_ECDSA_P384_SHA384).public_key_pem(),
            "ES384",
            "ES256",
        ),
        (pair(&PKCS_ED25519).public_key_pem(), "EdDSA", "RS256"),
    ];
    let key = "issuer[0].public_key_file";
    for (pem, good, bad) in kinds {
        let project = Project::new();
        project.write("key.pem", pem, 0o644);
        let text = |algorithm| issuer(algorithm, "public_key_file = \"key.pem\"");
        project.accepts(&text(good));
        project.refuses(&text(bad), key, "cannot use");
        project.refuses(&text("RS256"), key, "cannot use");
        project.refuses(&text("HS256"), key, "HS*");
    }
    let project = Project::new();
    let text = |algorithm| issuer(algorithm, "public_key_file = \"key.pem\"");
    for (content, words) in [
        (p256.serialize_pem(), "private key"),
        ("nonsense".to_owned(), "no public key"),
        (
            "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n".to_owned(),
            "no public key",
        ),
        (String::new(), "is empty"),
    ] {
        project.write("key.pem", content, 0o600);
        project.refuses(&text("ES256"), key, words);
    }
    let certificate = fs::read(project.folder.path().join("certs/site.crt")).unwrap();
    project.write("key.pem", certificate, 0o644);
    project.accepts(&text("ES256"));
    project.refuses(&text("EdDSA"), key, "P-256");
}

#[test]
fn sess_8_clients_prove_themselves_with_real_secrets() {
    let client = |lines: &str| {
        let id = "[[accounts.client]]\nid = \"orders\"\naudience = [\"portcullis\"]\n";
        format!("{BASE}{id}{lines}\n")
    };
    let project = Project::new();
    project.write("good", GOOD, 0o600);
    project.write("short", "too-short-a-secret", 0o600);
    project.write("open", GOOD, 0o644);
    for (lines, key, words) in [
        ("", "accounts.client[0]", "no secret"),
        (
            "secret_file = \"good\"\nsecret_env = \"S\"",
            "accounts.client[0]",
            "two secrets",
        ),
        (
            "secret_file = \"none\"",
            "accounts.client[0].secret_file",
            "does not exist",
        ),
        (
            "secret_file = \"short\"",
            "accounts.client[0].secret_file",
            "32 are needed",
        ),
        (
            "secret_file = \"open\"",
            "accounts.client[0].secret_file",
            "by others",
        ),
        ("secret = \"x\"", "accounts.client[0].secret", "unknown key"),
    ] {
        let report = project.read(&client(lines)).unwrap_err();
        let told = |problem: &Problem| problem.key == key && problem.message.contains(words);
        assert!(report.problems().iter().any(told), "{lines}: {report}");
    }
    let twice = client(
        "secret_file = \"good\"\n[[accounts.client]]\nid = \"orders\"\naudience = [\"a\"]\nsecret_file = \"good\"",
    );
    assert!(project.read(&twice).is_err());
    let config = project.accepts(&client("secret_file = \"good\""));
    let clients = config.accounts.unwrap().clients;
    assert_eq!((&*clients[0].id, clients.len()), ("orders", 1));
    assert!(!format!("{clients:?}").contains(GOOD));
}
