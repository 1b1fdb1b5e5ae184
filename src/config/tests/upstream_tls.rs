//! `tls` of `[[upstream]]`.

use super::*;

/// [`BASE`] with a server that is reached by TLS, and this policy.
fn tls(policy: &str) -> String {
    let text = with("[[upstream]]", "servers = [\"https://10.0.0.1\"]");
    with_in(&text, "[[upstream]]", &format!("tls = {policy}"))
}

fn project() -> Project {
    let project = Project::new();
    let (cert, key) = development::development_certificate(&["app".to_owned()]).unwrap();
    project.write("ca.pem", &cert, 0o644);
    project.write("client.crt", cert, 0o644);
    project.write("client.key", key, 0o600);
    project
}

#[test]
fn net_7_up_5_policies_that_say_nothing_or_the_wrong_thing_are_refused() {
    let project = project();
    for (policy, key, words) in [
        ("{}", "", "is an empty table"),
        ("true", "", "expected a table"),
        ("{ verify = false }", ".verify", "unknown key"),
        ("{ ca = \"\" }", ".ca", "is empty"),
        ("{ ca = [\"ca.pem\"] }", ".ca", "expected a string"),
        ("{ ca = \"gone.pem\" }", ".ca", "does not exist"),
        ("{ ca = \"client.key\" }", ".ca", "holds no certificate"),
        ("{ client_cert = \"client.crt\" }", ".client_key", "missing"),
        ("{ client_key = \"client.key\" }", ".client_cert", "missing"),
        ("{ server_name = \"\" }", ".server_name", "is empty"),
        ("{ server_name = \"a b\" }", ".server_name", "neither a DNS"),
        (
            "{ danger_accept_any_certificate = \"no\" }",
            ".danger_accept_any_certificate",
            "expected true or false",
        ),
        (
            "{ danger_accept_any_certificate = true, ca = \"ca.pem\" }",
            ".ca",
            "says nothing",
        ),
    ] {
        project.refuses(&tls(policy), &format!("upstream[0].tls{key}"), words);
    }
    for servers in [
        "servers = [\"http://10.0.0.1\"]",
        "servers = [\"unix:/run/x\"]",
    ] {
        let text = with_in(&tls("{ ca = \"ca.pem\" }"), "[[upstream]]", servers);
        project.refuses(&text, "upstream[0].tls", "no server is reached by TLS");
    }
}

#[test]
fn net_7_files_of_a_policy_that_are_broken_are_refused() {
    let (_, other) = development::development_certificate(&["x".to_owned()]).unwrap();
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let policy =
        tls("{ ca = \"ca.pem\", client_cert = \"client.crt\", client_key = \"client.key\" }");
    for (file, content, mode, key, words) in [
        ("ca.pem", "", 0o644, "ca", "is empty"),
        ("ca.pem", "nonsense", 0o644, "ca", "holds no certificate"),
        ("ca.pem", not_der, 0o644, "ca", "cannot be a root"),
        ("client.crt", "", 0o644, "client_cert", "is empty"),
        ("client.crt", not_der, 0o644, "client_key", "does not go"),
        ("client.key", "", 0o600, "client_key", "is empty"),
        (
            "client.key",
            "nonsense",
            0o600,
            "client_key",
            "no private key",
        ),
        (
            "client.key",
            &other,
            0o600,
            "client_key",
            "does not go with",
        ),
        ("client.key", &other, 0o640, "client_key", "by others"),
    ] {
        let project = project();
        project.accepts(&policy);
        project.write(file, content, mode);
        project.refuses(&policy, &format!("upstream[0].tls.{key}"), words);
    }
    for (file, key) in [
        ("ca.pem", "ca"),
        ("client.crt", "client_cert"),
        ("client.key", "client_key"),
    ] {
        let project = project();
        fs::remove_file(project.folder.path().join(file)).unwrap();
        project.refuses(&policy, &format!("upstream[0].tls.{key}"), "does not exist");
    }
}

#[test]
fn cfg_1_servers_on_the_network_are_pointed_at_once() {
    let project = project();
    let words = "past the gateway";
    let at = |servers: &str| with("[[upstream]]", &format!("servers = [{servers}]"));
    project.warns(&at("\"http://10.0.0.1\""), "upstream[0].servers", words);
    project.warns(&tls("{ ca = \"ca.pem\" }"), "upstream[0].servers", words);
    let known = tls("{ client_cert = \"client.crt\", client_key = \"client.key\" }");
    for quiet in [
        at(
            "\"http://127.0.0.1:9000\", \"http://[::1]:1\", \"http://localhost:1\", \"unix:/run/x\"",
        ),
        with_in(&at("\"http://10.0.0.1\""), "[identity]", "assertion = true"),
        known,
    ] {
        let warnings = project.read(&quiet).unwrap().warnings.to_string();
        assert!(!warnings.contains(words), "{quiet}: {warnings}");
    }
}

#[test]
fn up_5_what_weakens_tls_is_warned_of() {
    let project = project();
    let danger = tls("{ danger_accept_any_certificate = true }");
    let key = "upstream[0].tls.danger_accept_any_certificate";
    project.warns(&danger, key, "whoever is in between");
    let mixed = "servers = [\"https://a\", \"http://b\"]";
    let mixed = with_in(&tls("{ ca = \"ca.pem\" }"), "[[upstream]]", mixed);
    project.warns(&mixed, "upstream[0].tls", "some servers");
    let settings = |text: &str| project.accepts(text).upstreams[0].tls.clone();
    assert!(settings(&danger).danger_accept_any_certificate);
    let good = settings(&tls("{ ca = \"ca.pem\", server_name = \"app\" }"));
    assert_eq!(good.ca, Some(project.folder.path().join("ca.pem")));
    assert_eq!(good.server_name.as_deref(), Some("app"));
    assert!(!good.danger_accept_any_certificate && good.client.is_none());
}
