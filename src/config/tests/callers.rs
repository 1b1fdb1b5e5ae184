//! `[[issuer]]`, `[identity]` and `[forward_auth]`: who is believed, and what is told of them.

use super::*;
use crate::policy::Target;

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
