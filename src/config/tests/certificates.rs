//! Certificates, their authorities, and the rules about those of clients (NET-6, NET-7, NET-9).

use rcgen::KeyPair;

use super::*;

#[test]
fn net_7_bad_certificates_are_refused() {
    let (cert, key) = ("tls.certificates[0].cert", "tls.certificates[0].key");
    let tls = "[tls]";
    refused(tls, "certificates", "tls.certificates", "missing");
    refused(tls, "certificates = []", "tls.certificates", "empty list");
    refused(
        tls,
        "certificates = [{ cert = \"certs/site.crt\" }]",
        key,
        "missing",
    );
    refused(
        tls,
        "certificates = [{ cert = \"certs/site.crt\", key = \"\" }]",
        key,
        "is empty",
    );
    refused(
        tls,
        "certificates = [\"certs/site.crt\"]",
        "tls.certificates[0]",
        "expected a table",
    );
    refused(
        tls,
        "min_version = \"1.1\"",
        "tls.min_version",
        "none of the values",
    );
    refused(
        tls,
        "min_version = 1.3",
        "tls.min_version",
        "expected a string",
    );
    let names = ["x.example.com".to_owned()];
    let (_, other_key) = development::development_certificate(&names).unwrap();
    for (file, content, mode, at, words) in [
        ("certs/site.crt", "", 0o644, cert, "is empty"),
        (
            "certs/site.crt",
            "nonsense",
            0o644,
            cert,
            "holds no certificate",
        ),
        ("certs/site.key", "nonsense", 0o600, key, "no private key"),
        ("certs/site.key", &other_key, 0o644, key, "by others"),
        ("certs/site.key", &other_key, 0o600, key, "does not go with"),
    ] {
        let project = Project::new();
        project.write(file, content, mode);
        project.refuses(BASE, at, words);
    }
    let project = Project::new();
    fs::remove_file(project.folder.path().join("certs/site.key")).unwrap();
    project.refuses(BASE, key, "does not exist");
}

/// [`BASE`] with these lines in `[tls]`.
fn tls(lines: &str) -> String {
    with("[tls]", lines)
}

/// A self-signed pair for these names.
fn pair_for(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(names).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn net_7_bad_client_authorities_are_refused() {
    let (ca, auth) = ("tls.client_ca", "tls.client_auth");
    let required = "client_auth = \"required\"\nclient_ca = \"certs/clients.pem\"";
    refused("[tls]", required, ca, "does not exist");
    refused(
        "[tls]",
        "client_auth = \"sometimes\"",
        auth,
        "none of the values",
    );
    let (good, key) = pair_for(&["clients.test"]);
    for (content, words) in [
        ("", "is empty"),
        ("\n", "is empty"),
        ("nonsense", "holds no certificate"),
        (&key, "holds no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot believe",
        ),
        (
            &format!("{good}-----BEGIN CERTIFICATE-----\n"),
            "not a certificate chain",
        ),
    ] {
        let project = Project::new();
        project.write("certs/clients.pem", content, 0o644);
        project.refuses(&tls(required), ca, words);
    }
    let project = Project::new();
    project.write("certs/clients.pem", &good, 0o644);
    // Named and not used: whoever wrote it believes that clients are verified.
    for unused in ["", "client_auth = \"none\"\n"] {
        let text = tls(&format!("{unused}client_ca = \"certs/clients.pem\""));
        project.refuses(&text, ca, "no client is asked");
    }
    for auth in ["required", "optional"] {
        let missing = tls(&format!("client_auth = {auth:?}"));
        project.refuses(&missing, "tls.certificates[0].client_ca", "missing");
    }
    project.accepts(&tls(required));
}

#[test]
fn net_6_a_host_has_one_rule_about_client_certificates() {
    let project = Project::new();
    let (ca, _) = pair_for(&["clients.test"]);
    project.write("certs/clients.pem", &ca, 0o644);
    for (name, names) in [
        ("one", &["a.test", "*.b.test"][..]),
        ("two", &["A.test"]),
        ("three", &["x.b.test"]),
    ] {
        let (cert, key) = pair_for(names);
        project.write(&format!("certs/{name}.crt"), cert, 0o644);
        project.write(&format!("certs/{name}.key"), key, 0o600);
    }
    let both = |other: &str, more: &str| {
        let pair = |name: &str, more: &str| {
            format!("{{ cert = \"certs/{name}.crt\", key = \"certs/{name}.key\"{more} }}")
        };
        let list = format!("[{}, {}]", pair("one", ""), pair(other, more));
        tls(&format!(
            "certificates = {list}\nclient_ca = \"certs/clients.pem\""
        ))
    };
    let required = ", client_auth = \"required\"";
    let key = "tls.certificates[1].cert";
    project.refuses(&both("two", required), key, "`a.test` is in another");
    // A more specific name is another host.
    let config = project.accepts(&both("three", required));
    let policies = &config.tls.policies;
    let strict = config.tls.certificates[1].clients.id();
    let open = config.tls.certificates[0].clients.id();
    assert_ne!(strict, open);
    for (host, want) in [
        (Some("a.test"), open),
        (Some("y.b.test"), open),
        (Some("x.b.test"), strict),
        (Some("unknown.test"), strict),
        (None, strict),
    ] {
        assert_eq!(policies.of(host), want, "{host:?}");
    }
    // One rule for all needs no table.
    let asked = "client_auth = \"required\"\nclient_ca = ";
    let all = both("two", "").replace("client_ca = ", asked);
    let config = project.accepts(&all);
    assert_eq!(config.tls.policies.of(Some("a.test")), strict);
}

#[test]
fn net_9_certificates_that_end_are_warned_of() {
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let now = std::time::SystemTime::now();
    for (from, until, words) in [
        (now - day * 2, now - day, "has expired"),
        (now - day, now + day * 10, "ends in 9 days"),
        (now + day, now + day * 100, "is not valid yet"),
    ] {
        let project = Project::new();
        let mut params = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (from.into(), until.into());
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        project.write("certs/site.crt", cert, 0o644);
        project.write("certs/site.key", key.serialize_pem(), 0o600);
        project.warns(BASE, "tls.certificates[0].cert", words);
    }
}

#[test]
fn development_certificates_are_for_loopback_names() {
    let dev = with("[tls]", "development = true");
    let project = Project::new();
    project.refuses(&dev, "tls.development", "not a loopback name");
    for url in [
        "https://localhost",
        "https://a.localhost:8443",
        "https://127.0.0.1",
        "https://[::1]:1",
    ] {
        let text = with_in(&dev, "[server]", &format!("public_url = {url:?}"));
        project.warns(&text, "tls.development", "self-signed");
    }
    for url in [
        "https://localhost.example.com",
        "https://notlocalhost",
        "https://10.0.0.1",
    ] {
        let text = with_in(&dev, "[server]", &format!("public_url = {url:?}"));
        project.refuses(&text, "tls.development", "not a loopback name");
    }
    // A pair that will be made may be missing; half a pair may not.
    let local = with_in(&dev, "[server]", "public_url = \"https://localhost\"");
    let missing = local.replace("certs/site", "certs/dev");
    project.accepts(&missing);
    project.write("certs/dev.key", "x", 0o600);
    project.refuses(&missing, "tls.certificates[0].cert", "does not exist");
}
