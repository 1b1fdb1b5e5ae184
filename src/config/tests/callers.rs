//! `[[issuer]]`, `[identity]` and `[accounts]`: who is believed, and what is told of them.

use super::*;
use crate::{accounts::settings::Registration, policy::Target};

#[test]
fn issuers() {
    refused_each(
        "[[issuer]]",
        r#"
        name                             | issuer[0].name          | missing
        name = "portcullis"              | issuer[0].name          | reserved
        name = "a b"                     | issuer[0].name          | not a name
        issuer                           | issuer[0].issuer        | missing
        issuer = ""                      | issuer[0].issuer        | is empty
        issuer = "https://gate.example.com/" | issuer[0].issuer    | public_url
        audience                         | issuer[0].audience      | missing
        audience = []                    | issuer[0].audience      | empty list
        audience = [""]                  | issuer[0].audience[0]   | is empty
        audience = "orders"              | issuer[0].audience      | expected a list
        algorithms                       | issuer[0].algorithms    | missing
        algorithms = []                  | issuer[0].algorithms    | empty list
        algorithms = ["none"]            | issuer[0].algorithms[0] | without a signature
        algorithms = ["RS265"]           | issuer[0].algorithms[0] | none of the values
        algorithms = ["rs256"]           | issuer[0].algorithms[0] | none of the values
        algorithms = ["RS256", "HS256"]  | issuer[0].algorithms    | mixes
        leeway = "61s"                   | issuer[0].leeway        | above the most
        leeway = "-1s"                   | issuer[0].leeway        | not a duration
        token_types = []                 | issuer[0].token_types   | empty list
        token_types = [1]                | issuer[0].token_types   | expected a list of strings
        claims = {}                      | issuer[0].claims        | empty table
        claims = { user = "" }           | issuer[0].claims.user   | is empty
        claims = { users = "sub" }       | issuer[0].claims.users  | unknown key
        "#,
    );
    let config = accepted("[[issuer]]", "token_types = [\"\"]");
    assert_eq!(config.issuers[0].token_types, [Box::from("")]);
}

#[test]
fn jwt_2_two_issuers_never_share_an_algorithm() {
    let project = Project::new();
    let second = |name: &str, issuer: &str, algorithm: &str| {
        let issuer = format!("[[issuer]]\nname = {name:?}\nissuer = {issuer:?}\n");
        let rest = "audience = [\"a\"]\njwks_file = \"corp.json\"\n";
        format!("{BASE}{issuer}algorithms = [{algorithm:?}]\n{rest}")
    };
    let idp = "https://idp.example.com";
    project.refuses(&second("two", idp, "RS256"), "issuer[1].issuer", "RS256");
    let twice = second("corp", "https://other", "RS256");
    project.refuses(&twice, "issuer[1].name", "twice");
    project.accepts(&second("two", idp, "ES256"));
    let other = second("two", "https://other", "RS256");
    project.warns(&other, "route[0]", "bear the same name");
}

#[test]
fn nobody_to_verify_is_refused() {
    let text = with("[accounts]", "enabled = false");
    let (before, rest) = text.split_once("[[issuer]]").unwrap();
    let (_, after) = rest.split_once("[token_cache]").unwrap();
    let text = format!("{before}{after}");
    Project::new().refuses(&text, "route[0]", "nobody could be verified");
}

#[test]
fn hdr_1_identity_is_not_written_into_fields_of_other_meaning() {
    refused_each(
        "[identity]",
        r#"
        headers = { Host = "{user}" }                | identity.headers.Host                | reserved
        headers = { content_length = "{user}" }      | identity.headers.content_length      | reserved
        headers = { Authorization = "{user}" }       | identity.headers.Authorization       | reserved
        headers = { Connection = "{user}" }          | identity.headers.Connection          | reserved
        headers = { Transfer-Encoding = "{user}" }   | identity.headers.Transfer-Encoding   | reserved
        headers = { X-Forwarded-For = "{user}" }     | identity.headers.X-Forwarded-For     | reserved
        headers = { "x.forwarded.proto" = "{user}" } | identity.headers.x.forwarded.proto   | reserved
        headers = { X-Real-IP = "{user}" }           | identity.headers.X-Real-IP           | reserved
        headers = { Via = "{user}" }                 | identity.headers.Via                 | reserved
        headers = { X_Forwarded_User = "{user}" }    | identity.headers.X_Forwarded_User    | also set as
        headers = { "a b" = "{user}" }               | identity.headers.a b                 | not a header name
        headers = { "" = "{user}" }                  | identity.headers.                    | not a header name
        headers = { X-User = "{user}", x_user = "a" }| identity.headers.x_user              | twice
        "#,
    );
    let more = "headers = { \"X-Forwarded-User\" = \"{subject}\", X-Tenant = \"{claims.tenant}\" }";
    accepted("[identity]", more);
}

#[test]
fn templates() {
    refused_each(
        "[identity]",
        r#"
        headers = { X-User = "" }          | identity.headers.X-User | is empty
        headers = { X-User = 1 }           | identity.headers.X-User | expected a string
        headers = { X-User = "{nobody}" }  | identity.headers.X-User | unknown place
        headers = { X-User = "{claims.}" } | identity.headers.X-User | unknown place
        headers = { X-User = "{user" }     | identity.headers.X-User | not closed
        headers = { X-User = "user}" }     | identity.headers.X-User | closes nothing
        headers = { X-User = "a\nb" }      | identity.headers.X-User | may not be
        headers = { X-User = "é" }         | identity.headers.X-User | may not be
        headers = []                       | identity.headers        | expected a table
        preset = ""                        | identity.preset         | is empty
        preset = "oauth2_proxy"            | identity.preset         | none of the values
        multi_value = "tab"                | identity.multi_value    | none of the values
        pass_token = "no"                  | identity.pass_token     | expected true or false
        "#,
    );
}

#[test]
fn accounts() {
    refused_each(
        "[accounts]",
        r#"
        enabled = 1                            | accounts.enabled            | expected true or false
        path = ""                              | accounts.path               | is empty
        path = "/"                             | accounts.path               | cannot hold
        path = "/auth/"                        | accounts.path               | cannot hold
        path = "auth"                          | accounts.path               | cannot hold
        path = "/a/../b"                       | accounts.path               | cannot hold
        store = ""                             | accounts.store              | is empty
        store = "sqlite:"                      | accounts.store              | names no file
        store = "sqlite::memory:"              | accounts.store              | not the path of a file
        store = "sqlite:x.db?mode=memory"      | accounts.store              | not the path of a file
        store = "data/x.db"                    | accounts.store              | not a store
        store = "postgres://h/db"              | accounts.store              | names no user
        store = "mysql://u@h/db"               | accounts.store              | not a store
        audience = []                          | accounts.audience           | empty list
        access_ttl = "16m"                     | accounts.access_ttl         | above the most
        access_ttl = "0s"                      | accounts.access_ttl         | below the least
        refresh_idle = "31d"                   | accounts.refresh_idle       | longer than refresh_max
        refresh_max = "1d"                     | accounts.refresh_max        | longer than refresh_max
        refresh_grace = "61s"                  | accounts.refresh_grace      | above the most
        register_limit = { per_ip = "0/1h" }   | accounts.register_limit.per_ip | not a rate
        refresh_limit = { per_session = "0/1h" }  | accounts.refresh_limit.per_session | not a rate
        refresh_limit = { per_session = "9/1h" }  | accounts.refresh_limit.per_session | 10 or more
        refresh_limit = { per_session = "100/1d" } | accounts.refresh_limit.per_session | two or more in each access_ttl
        refresh_limit = { per_session = "999/2d" } | accounts.refresh_limit.per_session | above the most
        refresh_limit = { per_ip = "120/1h" }  | accounts.refresh_limit.per_ip | unknown key
        refresh_limit = "120/1h"               | accounts.refresh_limit      | expected a table
        registration = "opne"                  | accounts.registration       | none of the values
        signing = "ES384"                      | accounts.signing            | none of the values
        signing = "none"                       | accounts.signing            | none of the values
        password_min = 7                       | accounts.password_min       | below the least
        pages = { logo = "no/such/file" }      | accounts.pages.logo         | cannot be read
        pages = { logo = "certs/site.crt" }    | accounts.pages.logo         | is neither SVG
        breached_passwords = "no/such/file"    | accounts.breached_passwords | cannot be read
        breached_passwords = "certs"           | accounts.breached_passwords | cannot be read
        argon2 = { memory = "18MiB" }          | accounts.argon2.memory      | below the least
        argon2 = { iterations = 1 }            | accounts.argon2.iterations  | below the least
        argon2 = { parallelism = 0 }           | accounts.argon2.parallelism | below the least
        login_limit = { per_ip = "0/1m" }      | accounts.login_limit.per_ip | not a rate
        login_limit = { per_account = "" }     | accounts.login_limit.per_account | is empty
        login_limit = "5/1m"                   | accounts.login_limit        | expected a table
        login_limit = { failures = "101/1d" }  | accounts.login_limit.failures | 10 to 100 failures
        login_limit = { failures = "9/1d" }    | accounts.login_limit.failures | 10 to 100 failures
        login_limit = { failures = "100/59m" } | accounts.login_limit.failures | an hour to a day
        login_limit = { failures = "100/2d" }  | accounts.login_limit.failures | above the most
        login_limit = { failures = 100 }       | accounts.login_limit.failures | expected
        "#,
    );
    assert!(accepted("[accounts]", "enabled = false").accounts.is_none());
    let none = Project::new().accepts(&BASE.replace("[accounts]", ""));
    assert!(none.accounts.is_none(), "no section, no accounts");
    let argon2 = accepted("[accounts]", "argon2 = {}")
        .accounts
        .unwrap()
        .argon2;
    assert_eq!((argon2.memory_kib, argon2.iterations), (19 << 10, 2));
    assert!(argon2.concurrent >= 1);
}

#[test]
fn forward_auth() {
    let asked = |section: &str| format!("{BASE}\n{section}\n");
    let project = Project::new();
    let trusting = |section: &str| {
        let text = with("[server]", "trusted_proxies = [\"192.0.2.1/32\"]");
        format!("{text}\n{section}\n")
    };
    project.refuses(
        &asked("[forward_auth]"),
        "forward_auth.path",
        "would answer nobody",
    );
    for (line, words) in [
        ("path = \"verify\"", "cannot hold"),
        ("path = \"/\"", "cannot hold"),
        ("path = \"/a/../b\"", "cannot hold"),
        ("path = \"\"", "is empty"),
        ("path = \"/auth\"", "account routes"),
    ] {
        let text = trusting(&format!("[forward_auth]\n{line}"));
        project.refuses(&text, "forward_auth.path", words);
    }
    let text = trusting("[forward_auth]\npaths = \"/verify\"");
    project.refuses(&text, "forward_auth.paths", "unknown key");
    let config = project.accepts(&trusting("[forward_auth]"));
    assert_eq!(&*config.forward_auth.unwrap().path, "/auth/verify");
    // Only there may a route leave out where its requests go.
    let without = with_in(&trusting("[forward_auth]"), "[[route]]", "upstream");
    let config = project.accepts(&without);
    assert_eq!(config.routes[0].target, Target::Elsewhere);
    project.refuses(
        &with("[[route]]", "upstream"),
        "route[0].upstream",
        "missing",
    );
}

#[test]
fn hdr_10_signed_statements_have_keys_of_their_own() {
    let refused = |line: &str, key: &str, words: &str| refused("[identity]", line, key, words);
    refused("assertion = \"yes\"", "identity.assertion", "true or false");
    let off = "assertion_keys = \"data/signed\"";
    let text = with("[identity]", off);
    Project::new().warns(&text, "identity.assertion_keys", "signs nothing");
    refused(
        "assertion = true\nassertion_keys = \"\"",
        "identity.assertion_keys",
        "is empty",
    );
    for shared in ["data/keys", "data/keys/", "./data//keys"] {
        let line = format!("assertion = true\nassertion_keys = \"{shared}\"");
        refused(&line, "identity.assertion_keys", "access tokens");
    }
    assert!(
        accepted("[identity]", "assertion = false")
            .assertion
            .is_none()
    );
    let config = accepted("[identity]", "assertion = true");
    let settings = config.assertion.unwrap();
    assert_eq!(&*settings.issuer, "https://gate.example.com");
    assert_eq!(settings.keys, config.root.join("data/assertion-keys"));
    // Beside the accounts, where those lie elsewhere.
    let text = with_in(
        &with("[identity]", "assertion = true"),
        "[accounts]",
        "store = \"sqlite:/var/lib/gate/a.db\"",
    );
    let config = Project::new().accepts(&text);
    let keys = config.assertion.unwrap().keys;
    assert_eq!(keys, Path::new("/var/lib/gate/assertion-keys"));
}

#[test]
fn hdr_10_one_statement_fits_every_server_of_its_upstream() {
    let servers = "servers = [\"http://127.0.0.1:9000/a\", \"http://127.0.0.1:9001/b\"]";
    let text = with("[[upstream]]", servers);
    Project::new().accepts(&text);
    let text = with_in(&text, "[identity]", "assertion = true");
    Project::new().refuses(&text, "upstream[0].servers", "different base paths");
    let same = text.replace("9001/b", "9001/a/");
    Project::new().accepts(&same);
}

#[test]
fn hdr_10_no_route_stands_in_place_of_the_keys() {
    let path = "path = \"/.well-known/portcullis-assertion-jwks.json\"";
    let text = with_in(&with("[[route]]", "path_prefix"), "[[route]]", path);
    Project::new().accepts(&text);
    let text = with_in(&text, "[identity]", "assertion = true");
    Project::new().refuses(&text, "route[0]", "belongs to the keys");
}

/// The entry of an issuer that is asked, in the place of one with keys.
fn asked(more: &str) -> String {
    let entry = "[[issuer]]\nname = \"asked\"\nissuer = \"https://idp.example.com\"\naudience = [\"orders\"]\n";
    format!(
        "{BASE}{entry}introspection_url = \"https://idp.example.com/introspect\"\nclient_id = \"gate\"\n{more}\n"
    )
}

const ASKED_SECRET: &str = "client_secret_file = \"asked.secret\"";

fn with_secret() -> Project {
    let project = Project::new();
    project.write("asked.secret", "chosen by the provider\n", 0o600);
    project
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table; a row for each case")]
fn an_issuer_that_is_asked_needs_name_and_secret_and_has_no_keys() {
    let mut project = with_secret();
    project.variables.push(("ASKED", "chosen".to_owned()));
    project.accepts(&asked(ASKED_SECRET));
    project.accepts(&asked("client_secret_env = \"ASKED\""));
    for (line, key, why) in [
        ("", "issuer[1]", "no client secret"),
        (
            "client_secret_env = \"NOBODY_SET_THIS\"",
            "issuer[1].client_secret_env",
            "not set",
        ),
        (
            "algorithms = [\"ES256\"]",
            "issuer[1].algorithms",
            "no meaning",
        ),
        (
            "token_types = [\"JWT\"]",
            "issuer[1].token_types",
            "no meaning",
        ),
        (
            "jwks_file = \"corp.json\"",
            "issuer[1].jwks_file",
            "no meaning",
        ),
        (
            "jwks_url = \"https://idp.example.com/k\"",
            "issuer[1].jwks_url",
            "no meaning",
        ),
        ("secret_env = \"S\"", "issuer[1].secret_env", "no meaning"),
        (
            "token_prefix = \"a b\"",
            "issuer[1].token_prefix",
            "not the beginning",
        ),
        ("token_prefix = \"\"", "issuer[1].token_prefix", "is empty"),
        (
            "fetch = { max_stale = \"1h\" }",
            "issuer[1].fetch.max_stale",
            "unknown key",
        ),
        (
            "fetch = { max_concurrent = 0 }",
            "issuer[1].fetch.max_concurrent",
            "below the least",
        ),
        (
            "fetch = { max_concurrent = 1025 }",
            "issuer[1].fetch.max_concurrent",
            "above the most",
        ),
        (
            "fetch = { wait = \"11s\" }",
            "issuer[1].fetch.wait",
            "above the most",
        ),
        (
            "fetch = { cooldown = \"100ms\" }",
            "issuer[1].fetch.cooldown",
            "below the least",
        ),
        (
            "fetch = { networks = [\"0.0.0.0/0\"] }",
            "issuer[1].fetch.networks",
            "covers",
        ),
    ] {
        let secret = if line.is_empty() || line.starts_with("client_secret") {
            ""
        } else {
            ASKED_SECRET
        };
        project.refuses(&asked(&format!("{secret}\n{line}")), key, why);
    }
    let both = format!("{ASKED_SECRET}\nclient_secret_env = \"ASKED\"");
    project.refuses(&asked(&both), "issuer[1]", "two client secrets");
    let text = asked(ASKED_SECRET);
    for (from, to, key, why) in [
        ("client_id = \"gate\"", "", "issuer[1].client_id", "missing"),
        (
            "https://idp.example.com/introspect",
            "http://idp.example.com/introspect",
            "issuer[1].introspection_url",
            "is http",
        ),
        (
            "https://idp.example.com/introspect",
            "https://a:b@idp.example.com/",
            "issuer[1].introspection_url",
            "name or password",
        ),
        (
            "audience = [\"orders\"]\nintrospection",
            "introspection",
            "issuer[1].audience",
            "missing",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        project.refuses(&text.replace(from, to), key, why);
    }
    for line in [
        "client_id = \"gate\"",
        "token_prefix = \"a\"",
        "client_secret_env = \"S\"",
    ] {
        let key = line.split(' ').next().unwrap();
        let text = with("[[issuer]]", line);
        project.refuses(&text, &format!("issuer[0].{key}"), "nobody is asked");
    }
}

#[test]
fn key_5_the_secret_of_an_issuer_that_is_asked_is_for_its_owner_alone() {
    let project = Project::new();
    project.write("asked.secret", "chosen by the provider", 0o644);
    project.refuses(
        &asked(ASKED_SECRET),
        "issuer[1].client_secret_file",
        "asked.secret",
    );
}

#[test]
fn jwt_2_no_opaque_token_could_be_of_two_issuers() {
    let project = with_secret();
    let second = |first: &str, second: &str| {
        let entry = "[[issuer]]\nname = \"second\"\nissuer = \"https://other.example.com\"\naudience = [\"orders\"]\n";
        let asked = asked(&format!("{ASKED_SECRET}\n{first}"));
        format!(
            "{asked}{entry}introspection_url = \"https://other.example.com/i\"\nclient_id = \"gate\"\n{ASKED_SECRET}\n{second}\n"
        )
    };
    let prefix = |text: &str| format!("token_prefix = {text:?}");
    let fault = "could be this issuer's or another's";
    project.refuses(&second("", ""), "issuer[2].introspection_url", fault);
    project.refuses(
        &second(&prefix("a_"), ""),
        "issuer[2].introspection_url",
        fault,
    );
    for (one, other) in [("a_", "a_"), ("a_", "a_b"), ("a_b", "a_")] {
        let text = second(&prefix(one), &prefix(other));
        project.refuses(&text, "issuer[2].token_prefix", fault);
    }
    project.accepts(&second(&prefix("a_"), &prefix("b_")));
}

#[test]
fn auth_6_registration_open_to_anybody_without_mail_is_warned_of_and_closed_is_the_default() {
    let open = with("[accounts]", "registration = \"open\"");
    let (before, after) = open.split_once("[mail]").unwrap();
    let after = after.split_once("\n[").map_or("", |(_, after)| after);
    let bracket = if after.is_empty() { "" } else { "[" };
    let bare = format!("{before}{bracket}{after}");
    Project::new().warns(&bare, "accounts.registration", "under any address");
    let invite = with("[accounts]", "registration = \"invite\"");
    let closed = with("[accounts]", "registration = \"closed\"");
    for text in [open, invite, closed] {
        let read = Project::new().read(&text).unwrap();
        let key = "accounts.registration";
        let warnings = read.warnings.problems();
        assert!(warnings.iter().all(|problem| problem.key != key));
    }
    let default = accepted("[accounts]", "registration").accounts.unwrap();
    assert_eq!(default.registration, Registration::Closed);
    assert_eq!(default.register_per_ip.count, 10);
}

#[test]
fn rate_4_a_session_may_be_renewed_twice_in_each_life_of_its_access_token_at_least() {
    let limit = |text: &str| {
        let read = accepted("[accounts]", text).accounts.unwrap();
        let quota = read.refresh_per_session;
        assert_eq!(quota.burst, quota.count);
        (quota.count, quota.window.as_secs())
    };
    assert_eq!(limit("enabled = true"), (120, 3600));
    assert_eq!(limit("access_ttl = \"1m\""), (120, 3600));
    assert_eq!(limit("access_ttl = \"10s\""), (720, 3600));
    let least = "refresh_limit = { per_session = \"10/1h\" }";
    assert_eq!(limit(least), (10, 3600));
    let text = format!("access_ttl = \"10s\"\n{}", least.replace("10/1h", "719/1h"));
    let text = with("[accounts]", &text);
    Project::new().refuses(
        &text,
        "accounts.refresh_limit.per_session",
        "each access_ttl",
    );
}
