//! What the gateway refuses to start with: every problem named, nothing bound.

use std::{fs, net::TcpListener};

use crate::harness::{Kind, Site, keys::keys, site::Exit};

/// A site that starts as it is.
fn site() -> Site {
    Site::new("127.0.0.1:9".parse().unwrap())
}

/// Fails unless `run` and `check` both end with 1 and name every one of these, with nothing bound.
async fn refused(site: &Site, words: &[&str]) {
    let exit = site.run(&["run"], "").await;
    assert_eq!(exit.code, Some(1), "{words:?}: {exit:?}");
    assert!(
        !exit.stderr.contains("\"listening\""),
        "bound all the same: {exit:?}"
    );
    let checked = site.run(&["check"], "").await;
    assert_eq!(
        checked.code,
        Some(1),
        "check passes what run refuses: {words:?}: {checked:?}"
    );
    for word in words {
        assert!(
            exit.stderr.contains(word),
            "`{word}` is not named:\n{}",
            exit.stderr
        );
        let said = format!("{}{}", checked.stdout, checked.stderr);
        assert!(
            said.contains(word),
            "`{word}` is not named by check:\n{said}"
        );
    }
}

/// The same, for a site whose file is written from its settings.
async fn settings_refused(site: Site, words: &[&str]) {
    site.write();
    refused(&site, words).await;
}

#[tokio::test]
async fn cfg_1_unknown_keys_and_sections_are_refused_with_a_hint() {
    settings_refused(
        site().set("server", "lissten", "[]"),
        &["lissten", "listen"],
    )
    .await;
    settings_refused(
        site().on_route("upsteam", "\"x\""),
        &["upsteam", "upstream"],
    )
    .await;
    settings_refused(site().on_route("acces", "\"public\""), &["acces"]).await;
    settings_refused(
        site().set("rate_limits", "per_ip", "{}"),
        &["rate_limits", "rate_limit"],
    )
    .await;
    settings_refused(site().on_issuer("algorithm", "\"HS256\""), &["algorithm"]).await;
    settings_refused(
        site().set("rate_limit", "per_ip", r#"{ rate = "5/s", bursts = 5 }"#),
        &["bursts"],
    )
    .await;
}

#[tokio::test]
async fn cfg_1_every_problem_is_named_at_once() {
    let site = site()
        .set("server", "workerz", "1")
        .set("log", "level", "\"loud\"")
        .set("token_cache", "max_ttl", "\"yesterday\"")
        .route("broken", "/broken", "secret")
        .route("nowhere", "/nowhere", "public")
        .on_route("upstream", "\"atlantis\"");
    settings_refused(
        site,
        &[
            "workerz",
            "loud",
            "yesterday",
            "secret",
            "atlantis",
            "gateway.toml:",
        ],
    )
    .await;
}

#[tokio::test]
async fn cfg_1_syntax_errors_are_refused_with_their_place() {
    let site = site();
    site.write();
    for text in [
        "version = 1\n[server\n",
        "version = \n",
        "= 1",
        "\u{0}",
        "version = 1\nversion = 1\n",
    ] {
        fs::write(site.config(), text).unwrap();
        refused(&site, &["gateway.toml"]).await;
    }
    fs::write(site.config(), b"version = 1 # \xff\n").unwrap();
    refused(&site, &["gateway.toml"]).await;
    fs::remove_file(site.config()).unwrap();
    refused(&site, &["gateway.toml"]).await;
}

#[tokio::test]
async fn cfg_1_contradictions_are_refused() {
    settings_refused(site().route("public", "/elsewhere", "public"), &["public"]).await;
    settings_refused(
        site().route("again", "/public", "authenticated"),
        &["again", "public"],
    )
    .await;
    settings_refused(
        site()
            .route("both", "/both", "public")
            .on_route("path", "\"/both\""),
        &["path"],
    )
    .await;
    settings_refused(
        site()
            .route("role", "/role", "public")
            .on_route("require", r#"{ roles = ["a"] }"#),
        &["role"],
    )
    .await;
    settings_refused(site().route("dots", "/a/../b", "public"), &["/a/../b"]).await;
    settings_refused(
        site()
            .route("trace", "/trace", "public")
            .on_route("methods", r#"["TRACE"]"#),
        &["TRACE"],
    )
    .await;
    settings_refused(
        site()
            .route("who", "/who", "authenticated")
            .on_route("require", r#"{ issuers = ["stranger"] }"#),
        &["stranger"],
    )
    .await;
    settings_refused(site().upstream("legacy", "http://127.0.0.1:9"), &["legacy"]).await;
    settings_refused(site().upstream("ftp", "ftp://127.0.0.1:9"), &["ftp"]).await;
    settings_refused(site().issuer(Kind::Hs), &["hs"]).await;
    settings_refused(site().set("server", "listen", "[]"), &["listen"]).await;
    settings_refused(
        site().set("server", "listen", r#"["everywhere"]"#),
        &["everywhere"],
    )
    .await;
    settings_refused(
        site().set("server", "trusted_proxies", r#"["10.0.0.0/99"]"#),
        &["10.0.0.0/99"],
    )
    .await;
    settings_refused(
        site().set("server.timeouts", "header", "\"0s\""),
        &["header"],
    )
    .await;
    settings_refused(site().set("server.timeouts", "header", "5"), &["header"]).await;
    settings_refused(
        site().set("identity", "headers", r#"{ "X-A" = "{nobody}" }"#),
        &["nobody"],
    )
    .await;
    settings_refused(
        site().set("identity", "headers", r#"{ "bad name" = "{user}" }"#),
        &["bad name"],
    )
    .await;
}

#[tokio::test]
async fn uri_3_a_route_without_a_policy_does_not_load() {
    settings_refused(
        site().route("open", "/open", "public").off_route("access"),
        &["access"],
    )
    .await;
    settings_refused(site().route("typo", "/typo", "none"), &["access"]).await;
    settings_refused(site().route("empty", "/empty", ""), &["access"]).await;
}

#[tokio::test]
async fn cfg_1_keys_of_later_versions_are_refused_by_name() {
    for (key, value) in [(
        "rate_limit",
        r#"[{ key = "user", rate = "20/s", burst = 40 }]"#,
    )] {
        let site = site()
            .route("later", "/later", "public")
            .on_route(key, value);
        settings_refused(site, &[key]).await;
    }
    settings_refused(
        site().set("cluster", "redis", "\"redis://:pw@127.0.0.1\""),
        &["cluster.redis", "holds a password"],
    )
    .await;
    settings_refused(
        site().set("server", "proxy_protocol", "true"),
        &["proxy_protocol", "trusted_proxies is empty"],
    )
    .await;
    settings_refused(
        site().set("tls", "client_auth", "\"required\""),
        &["client_ca", "is missing"],
    )
    .await;
}

#[tokio::test]
async fn jwt_1_an_issuer_s_algorithms_are_one_kind() {
    let with = |algorithms: &str| site().on_issuer("algorithms", algorithms);
    for algorithms in [
        "[]",
        r#"["none"]"#,
        r#"["HS256", "RS256"]"#,
        r#"["rs256"]"#,
        r#"["ES512"]"#,
        r#"["*"]"#,
        "\"RS256\"",
    ] {
        settings_refused(with(algorithms), &["algorithms"]).await;
    }
    // A symmetric algorithm over a public key.
    settings_refused(with(r#"["HS256"]"#), &["HS"]).await;
}

#[tokio::test]
async fn jwt_3_an_issuer_without_name_or_audience_does_not_load() {
    for key in ["issuer", "audience", "algorithms", "name"] {
        settings_refused(site().on_issuer(key, "\"\""), &[key]).await;
    }
    settings_refused(site().on_issuer("audience", "[]"), &["audience"]).await;
    settings_refused(site().on_issuer("leeway", "\"2m\""), &["leeway"]).await;
}

#[tokio::test]
async fn jwt_8_and_key_5_weak_and_example_secrets_are_refused() {
    for secret in [
        "",
        "short",
        &"a".repeat(31),
        "\n",
        "changeme-changeme-changeme-changeme",
    ] {
        let site = Site::new("127.0.0.1:9".parse().unwrap());
        site.secret_file("keys/hs.secret", secret);
        site.write();
        let exit = site.run(&["run"], "").await;
        assert_eq!(exit.code, Some(1), "{secret:?}: {exit:?}");
        assert!(exit.stderr.contains("hs"), "{}", exit.stderr);
        assert!(
            secret.len() < 6 || !exit.stderr.contains(secret),
            "the secret is shown: {}",
            exit.stderr
        );
    }
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let site = site();
    site.secret_file("keys/es.pub", &pair.public_key_pem());
    site.write();
    refused(&site, &["es"]).await;
}

#[tokio::test]
async fn net_7_missing_empty_or_broken_key_files_are_refused() {
    for name in [
        "keys/hs.secret",
        "keys/rs.pub",
        "keys/es.pub",
        "keys/ed.pub",
        "certs/site.crt",
        "certs/site.key",
    ] {
        let broken: [Option<&str>; 3] = [
            None,
            Some(""),
            Some("-----BEGIN NOTHING-----\nAAAA\n-----END NOTHING-----\n"),
        ];
        for text in broken {
            let site = site();
            match text {
                None => fs::remove_file(site.path().join(name)).unwrap(),
                Some(text) => site.secret_file(name, text),
            }
            // A shared secret may be any text; what is not a secret is too short.
            if name.ends_with(".secret") && text.is_some_and(|text| text.len() > 32) {
                continue;
            }
            site.write();
            let stem = name.split(['/', '.']).nth(1).unwrap();
            let exit = site.run(&["run"], "").await;
            assert_eq!(exit.code, Some(1), "{name} {text:?}: {exit:?}");
            assert!(
                exit.stderr.contains(stem),
                "{name} {text:?}:\n{}",
                exit.stderr
            );
        }
    }
    let site = site();
    site.secret_file("certs/site.key", &keys().ec.serialize_pem());
    site.write();
    let exit = site.run(&["run"], "").await;
    assert_eq!(
        exit.code,
        Some(1),
        "a key that is not the certificate's: {exit:?}"
    );
}

#[tokio::test]
async fn key_5_secrets_that_others_may_read_are_refused() {
    for name in ["keys/hs.secret", "certs/site.key"] {
        for mode in [0o644, 0o640, 0o604, 0o660, 0o666] {
            let site = site();
            site.write();
            site.mode(name, mode);
            refused(&site, &[name.rsplit('/').next().unwrap()]).await;
        }
    }
}

#[tokio::test]
async fn key_5_no_key_is_shown() {
    let site = site()
        .set("log", "level", "\"trace\"")
        .set("server", "workerz", "1");
    site.write();
    let Exit { stdout, stderr, .. } = site.run(&["run"], "").await;
    let checked = site.run(&["check"], "").await;
    for output in [stdout, stderr, checked.stdout, checked.stderr] {
        assert!(!output.contains(&keys().secret), "{output}");
        assert!(!output.contains("PRIVATE KEY"), "{output}");
    }
}

#[tokio::test]
async fn cfg_1_a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, value) in [
        ("listen", format!("[\"{address}\"]")),
        ("admin_listen", format!("\"{address}\"")),
    ] {
        let site = site().set("server", key, &value);
        site.write();
        let exit = site.run(&["run"], "").await;
        assert_eq!(exit.code, Some(1), "{key}: {exit:?}");
        assert!(exit.stderr.contains(&address), "{key}: {}", exit.stderr);
    }
}

/// What is there and readable may still be of no use; `check` says so like `run`.
#[tokio::test]
async fn net_7_material_that_is_of_no_use_is_refused() {
    let site = site()
        .issuer(Kind::Rs)
        .on_issuer("algorithms", "[\"ES256\"]");
    settings_refused(site, &["issuer"]).await;
}

/// Workers share their port with each other, but not with those of another gateway.
#[tokio::test]
async fn cfg_1_a_port_of_another_gateway_is_taken() {
    let running = site().start().await;
    let address = running.tls.to_string();
    let site = site().set("server", "listen", &format!("[\"{address}\"]"));
    site.write();
    let exit = site.run(&["run"], "").await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains(&address), "{}", exit.stderr);
}

#[tokio::test]
async fn bad_usage_is_2_and_a_good_configuration_is_0() {
    let site = site();
    site.write();
    assert_eq!(site.run(&["check"], "").await.code, Some(0));
    for arguments in [&["walk"][..], &["run", "--colour"], &["run", "one", "two"]] {
        assert_eq!(site.run(arguments, "").await.code, Some(2), "{arguments:?}");
    }
}
