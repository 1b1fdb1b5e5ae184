//! `[[issuer]]` of opaque tokens, who is asked about them.

use super::*;

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
