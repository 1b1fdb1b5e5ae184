//! The section `[cluster]`: one server, encrypted or of this host, its password in a private place (UP-5, KEY-5).

use super::*;
use crate::cluster::settings::ClusterSettings;

fn text(lines: &str) -> String {
    format!("{BASE}[cluster]\n{lines}\n")
}

fn project() -> Project {
    let mut project = Project::new();
    project.write("password", "a password\n", 0o600);
    project.write("open", "a password\n", 0o644);
    project.variables = vec![("REDIS", "from the environment".into())];
    project
}

#[track_caller]
fn cluster(lines: &str) -> ClusterSettings {
    project().accepts(&text(lines)).cluster.unwrap()
}

#[test]
fn up_5_what_is_no_server_or_not_encrypted_is_refused() {
    for (url, words) in [
        ("127.0.0.1:6379", "not the URL"),
        ("http://127.0.0.1", "neither rediss:// nor redis://"),
        ("redis://:pw@127.0.0.1", "holds a password"),
        ("redis://u:pw@127.0.0.1", "holds a password"),
        ("redis://u@127.0.0.1", "a user without a password"),
        ("redis://", "no host"),
        ("redis://127.0.0.1/x", "a database that is no number"),
        (
            "redis://127.0.0.1/99999999999",
            "a database that is no number",
        ),
        ("rediss://h/0?insecure=1", "more than user"),
        ("rediss://h/#insecure", "more than user"),
        ("redis://redis.example.com", "without encryption"),
        ("redis://10.0.0.1", "without encryption"),
    ] {
        let lines = format!("redis = {url:?}");
        project().refuses(&text(&lines), "cluster.redis", words);
    }
    project().refuses(&text(""), "cluster.redis", "is missing");
    for (lines, key, words) in [
        ("redis_password_file = \"open\"", "redis_password_file", ""),
        ("redis_password_file = \"gone\"", "redis_password_file", ""),
        (
            "redis_password_env = \"NOBODY\"",
            "redis_password_env",
            "is not set",
        ),
        (
            "redis_password_env = \"REDIS\"\nredis_password_file = \"password\"",
            "redis_password_env",
            "one password too many",
        ),
        ("ca = \"certs/site.crt\"", "ca", "is for rediss://"),
        ("password = \"x\"", "password", "unknown key"),
    ] {
        let lines = format!("redis = \"redis://127.0.0.1\"\n{lines}");
        project().refuses(&text(&lines), &format!("cluster.{key}"), words);
    }
    let lines = "redis = \"rediss://h\"\nca = \"password\"";
    project().refuses(&text(lines), "cluster.ca", "no certificate");
    let lines = "redis = \"rediss://h\"\ndanger_plaintext = true";
    project().refuses(&text(lines), "cluster.danger_plaintext", "is for redis://");
}

#[test]
fn a_server_is_what_its_url_says() {
    let plain = cluster("redis = \"redis://127.0.0.1:6379\"");
    assert_eq!(
        (&*plain.host, plain.port, plain.tls),
        ("127.0.0.1", 6379, false)
    );
    assert_eq!((plain.database, plain.login), (0, None));
    assert_eq!(&*plain.site, "https://gate.example.com/");
    let all = cluster(
        "redis = \"rediss://gate@[2001:db8::1]:7000/3\"\nredis_password_file = \"password\"\nca = \"certs/site.crt\"",
    );
    assert_eq!((&*all.host, all.port, all.tls), ("2001:db8::1", 7000, true));
    let (user, password) = all.login.clone().unwrap();
    assert_eq!(
        (user.as_deref(), password.as_str()),
        (Some("gate"), "a password")
    );
    assert_eq!(all.database, 3);
    assert!(
        all.ca
            .as_ref()
            .is_some_and(|path| path.ends_with("certs/site.crt"))
    );
    assert!(!format!("{all:?}").contains("a password"));
    let env = cluster("redis = \"redis://localhost\"\nredis_password_env = \"REDIS\"");
    assert_eq!(env.login.unwrap().1.as_str(), "from the environment");
}

#[test]
fn what_is_not_shared_is_said() {
    let lines = text("redis = \"redis://127.0.0.1\"");
    project().warns(&lines, "cluster.redis", "a file of one machine");
    project().warns(&lines, "cluster.redis", "without a password");
    let without = lines.replace("[accounts]", "[accounts]\nenabled = false");
    project().warns(&without, "cluster.redis", "without a password");
    let danger = text("redis = \"redis://10.0.0.1\"\ndanger_plaintext = true");
    project().warns(&danger, "cluster.danger_plaintext", "without encryption");
}
