//! Every key that needs a restart is named, and no other.

use std::path::Path;

use crate::config::{Config, Outline, Source, development, restart};

const BASE: &str = r#"
version = 1
[server]
listen = ["127.0.0.1:1443"]
public_url = "https://localhost:1443"
[tls]
certificates = [{ cert = "certs/site.crt", key = "certs/site.key" }]
[accounts]
[log]
[[upstream]]
name = "app"
servers = ["http://127.0.0.1:9000"]
[[route]]
name = "all"
path_prefix = "/"
upstream = "app"
access = "authenticated"
"#;

fn read(folder: &Path, text: &str) -> (Config, Outline) {
    let path = folder.join("config/gateway.toml");
    std::fs::write(&path, text).unwrap();
    let loaded = Source::file(&path).unwrap().load();
    let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
    (loaded.config, loaded.written.outline())
}

fn site() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for name in ["config", "certs"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let (cert, key) = development::development_certificate(&["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("certs/site.crt"), cert).unwrap();
    let path = folder.path().join("certs/site.key");
    std::fs::write(&path, key).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

#[track_caller]
fn check(change: (&str, &str), want: &[&str]) {
    let folder = site();
    let (before, outline) = read(folder.path(), BASE);
    assert!(BASE.contains(change.0));
    let (next, other) = read(folder.path(), &BASE.replace(change.0, change.1));
    let changes = outline.changes_to(&other);
    assert!(!changes.is_empty(), "{change:?}");
    assert_eq!(restart::needed(&before, &next, &changes), want);
}

#[test]
fn cfg_2_keys_that_need_a_restart_are_named() {
    check(
        ("127.0.0.1:1443\"]", "127.0.0.1:1444\"]"),
        &["server.listen"],
    );
    check(
        ("[tls]", "redirect_listen = [\"127.0.0.1:1080\"]\n[tls]"),
        &["server.redirect_listen"],
    );
    check(
        ("[tls]", "admin_listen = \"127.0.0.1:9902\"\n[tls]"),
        &["server.admin_listen"],
    );
    check(("[tls]", "workers = 7\n[tls]"), &["server.workers"]);
    check(
        ("[tls]", "takeover_socket = \"data/s\"\n[tls]"),
        &["server.takeover_socket"],
    );
    check(
        ("https://localhost:1443", "https://localhost:1444"),
        &["server.public_url"],
    );
    check(
        ("[log]", "[identity]\nassertion = true\n[log]"),
        &["identity.assertion"],
    );
    let mail = "[mail]\nfrom = \"gate@example.com\"\nspool = \"data/mail\"\n[log]";
    check(("[log]", mail), &["mail"]);
    let cluster = "[cluster]\nredis = \"redis://127.0.0.1\"\n[log]";
    check(("[log]", cluster), &["cluster"]);
    check(("[log]", "[log]\naccess = false"), &["log.access"]);
    check(("[log]", "[log]\nformat = \"text\""), &["log.format"]);
    let audit = "[log]\naudit_file = \"audit.log\"";
    check(("[log]", audit), &["log.audit_file"]);
    check(
        (
            "[accounts]",
            "[accounts]\naccess_ttl = \"5m\"\npassword_min = 20",
        ),
        &["accounts.access_ttl", "accounts.password_min"],
    );
    let factor = "[rate_limit]\nipv6_site_factor = 8\n[log]";
    check(("[log]", factor), &["rate_limit.ipv6_site_factor"]);
    check(
        (
            "[tls]",
            "admin_listen = \"127.0.0.1:9902\"\nworkers = 7\n[tls]",
        ),
        &["server.admin_listen", "server.workers"],
    );
}

#[test]
fn what_says_the_same_in_other_words_needs_none() {
    check(("[accounts]", "[accounts]\nenabled = true"), &[]);
    check(("[log]", "[log]\nformat = \"json\""), &[]);
    check(("[log]", "[log]\nlevel = \"debug\""), &[]);
    let limit = "[rate_limit]\nipv6_site_factor = 4\nipv6_prefix = 56\n[log]";
    check(("[log]", limit), &[]);
    check(
        (
            "[tls]",
            "max_connections = 10\n[server.timeouts]\nheader = \"3s\"\n[tls]",
        ),
        &[],
    );
}

#[test]
fn key_5_another_key_encryption_key_needs_a_restart_also_under_the_same_name() {
    use std::os::unix::fs::PermissionsExt;
    let folder = site();
    let write = |key: &str| {
        let path = folder.path().join("kek");
        std::fs::write(&path, key).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("359b730d152779747f5ce0a6f172ecce8ee7b81e32e95ea7b4df0a9816ad6040");
    let keyed = BASE.replace("[accounts]", "[accounts]\nkey_encryption_file = \"kek\"");
    let (none, outline) = read(folder.path(), BASE);
    let (before, keyed_outline) = read(folder.path(), &keyed);
    let want = ["accounts.key_encryption_file"];
    let changes = outline.changes_to(&keyed_outline);
    assert_eq!(restart::needed(&none, &before, &changes), want);
    write("2b1f5d7e9c4a60838e0d55aa7193f4c2d6b87f10e3a95c6427bd08f1c43e9a7d\n");
    let (next, other) = read(folder.path(), &keyed);
    let changes = keyed_outline.changes_to(&other);
    assert_eq!(restart::needed(&before, &next, &changes), want);
}
