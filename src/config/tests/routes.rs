//! `[[route]]`.

use super::*;
use crate::{limit::settings::LimitKey, policy::HostPattern};

#[test]
fn limits_of_routes_say_whom_they_are_for() {
    let many = ["{ key = \"ip\", rate = \"1/s\" }"; 9].join(", ");
    let line = format!("rate_limit = [{many}]");
    refused("[[route]]", &line, "route[0].rate_limit", "8 at most");
    refused_each(
        "[[route]]",
        r#"
        rate_limit = []                                  | route[0].rate_limit          | empty list
        rate_limit = "20/s"                              | route[0].rate_limit          | expected a list
        rate_limit = ["20/s"]                            | route[0].rate_limit[0]       | expected a table
        rate_limit = [{ rate = "20/s" }]                 | route[0].rate_limit[0].key   | missing
        rate_limit = [{ key = "user" }]                  | route[0].rate_limit[0].rate  | missing
        rate_limit = [{ key = "host", rate = "20/s" }]   | route[0].rate_limit[0].key   | none of the values
        rate_limit = [{ key = "ip", rate = "0/s" }]      | route[0].rate_limit[0].rate  | not a rate
        rate_limit = [{ key = "ip", rate = "1/s", burst = 0 }] | route[0].rate_limit[0].burst | below the least
        rate_limit = [{ key = "ip", rate = "1/s", per = 1 }]   | route[0].rate_limit[0].per   | unknown key
        "#,
    );
    let by_user = "rate_limit = [{ key = \"user\", rate = \"20/s\" }]";
    let public = format!("access = \"public\"\n{by_user}");
    refused("[[route]]", &public, "route[0].rate_limit", "knows none");
    let config = accepted("[[route]]", by_user);
    let limits = &config.route_limits[&config.routes[0].name];
    assert_eq!((limits[0].key, limits[0].quota.burst), (LimitKey::User, 20));
    assert!(
        accepted("[[route]]", "max_body = \"1B\"")
            .route_limits
            .is_empty()
    );
}

#[test]
fn uri_3_routes_state_their_policy() {
    refused_each(
        "[[route]]",
        r#"
        name                    | route[0].name        | missing
        access                  | route[0].access      | missing
        access = ""             | route[0].access      | is empty
        access = "Public"       | route[0].access      | none of the values
        access = true           | route[0].access      | expected a string
        upstream                | route[0].upstream    | missing
        upstream = "ap"         | route[0].upstream    | no upstream is named
        methods = []            | route[0].methods     | empty list
        methods = ["get"]       | route[0].methods[0]  | not in capitals
        methods = ["TRACE"]     | route[0].methods[0]  | never forwarded
        methods = ["CONNECT"]   | route[0].methods[0]  | never forwarded
        methods = ["GE T"]      | route[0].methods[0]  | not a method
        methods = ["GET", "GET"]| route[0].methods[1]  | twice
        max_body = "0B"         | route[0].max_body    | below the least
        timeout = "0s"          | route[0].timeout     | below the least
        "#,
    );
    let project = Project::new();
    let none = with_in(
        &BASE.replace("[[route]]", "[ignored]"),
        "[log]",
        "level = \"info\"",
    );
    let report = project.read(&none).unwrap_err().to_string();
    assert!(report.contains("route: is missing"), "{report}");
    let (before, _) = BASE.split_once("[[route]]").unwrap();
    let empty = before.replace("version = 1", "route = []");
    project.refuses(&empty, "route", "empty list");
}

#[test]
fn uri_1_paths_are_written_as_they_are_matched() {
    refused_each(
        "[[route]]",
        r#"
        path_prefix              | route[0].path_prefix | missing
        path = "/x"              | route[0].path        | beside path_prefix
        path_prefix = ""         | route[0].path_prefix | is empty
        path_prefix = "app"      | route[0].path_prefix | begin with
        path_prefix = "//app"    | route[0].path_prefix | not normalised
        path_prefix = "/%61pp"   | route[0].path_prefix | not normalised
        path_prefix = "/a/../b"  | route[0].path_prefix | two ways
        path_prefix = "/a%2Fb"   | route[0].path_prefix | two ways
        path_prefix = "/a;b"     | route[0].path_prefix | two ways
        path_prefix = "/a\\b"    | route[0].path_prefix | two ways
        path_prefix = "/a?b"     | route[0].path_prefix | a query
        path_prefix = "/a#b"     | route[0].path_prefix | two ways
        "#,
    );
}

#[test]
fn uri_5_only_a_part_of_the_path_prefix_is_stripped() {
    let project = Project::new();
    let base = with("[[route]]", "path_prefix = \"/app/v1\"");
    for (line, words) in [
        ("strip_prefix = \"\"", "is empty"),
        ("strip_prefix = true", "expected a string"),
        ("strip_prefix = \"/\"", "strips nothing"),
        ("strip_prefix = \"app\"", "begin with"),
        ("strip_prefix = \"/ap\"", "not a prefix of path_prefix"),
        ("strip_prefix = \"/app/v\"", "not a prefix of path_prefix"),
        ("strip_prefix = \"/v1\"", "not a prefix of path_prefix"),
        (
            "strip_prefix = \"/app/v1/x\"",
            "not a prefix of path_prefix",
        ),
        ("strip_prefix = \"/app/../app\"", "two ways"),
        ("strip_prefix = \"/%61pp\"", "not normalised"),
        ("strip_prefix = \"//app\"", "not normalised"),
    ] {
        let text = with_in(&base, "[[route]]", line);
        project.refuses(&text, "route[0].strip_prefix", words);
    }
    let exact = with("[[route]]", "path = \"/app\"").replace("path_prefix = \"/\"", "");
    let exact = with_in(&exact, "[[route]]", "strip_prefix = \"/app\"");
    project.refuses(&exact, "route[0].strip_prefix", "with a path_prefix");
    for (written, want) in [("/app", "/app"), ("/app/", "/app"), ("/app/v1", "/app/v1")] {
        let text = with_in(&base, "[[route]]", &format!("strip_prefix = {written:?}"));
        let route = &project.accepts(&text).routes[0];
        assert_eq!(route.strip_prefix.as_deref(), Some(want));
    }
}

#[test]
fn cfg_1_addresses_of_a_route_are_networks() {
    refused_each(
        "[[route]]",
        r#"
        allow_ips = "10.0.0.0/8"          | route[0].allow_ips    | expected a list
        allow_ips = [""]                  | route[0].allow_ips[0] | is empty
        allow_ips = ["office"]            | route[0].allow_ips[0] | not a network
        allow_ips = ["10.0.0.1/8"]        | route[0].allow_ips[0] | bits beyond
        allow_ips = ["::ffff:10.0.0.1"]   | route[0].allow_ips[0] | IPv4 written as IPv6
        deny_ips = ["10.0.0.0/33"]        | route[0].deny_ips[0]  | not a network
        deny_ips = ["10.0.0.1", "10.0.0.1"] | route[0].deny_ips[1] | twice
        deny_ips = ["0.0.0.0/1", "128.0.0.0/1"] | route[0].deny_ips | every address
        "#,
    );
    let both = with("[[route]]", "allow_ips = [\"10.1.0.0/16\"]");
    let both = with_in(&both, "[[route]]", "deny_ips = [\"10.0.0.0/8\"]");
    Project::new().refuses(&both, "route[0].allow_ips", "which wins");
    let line = "allow_ips = [\"10.0.0.0/8\", \"2001:db8::1\"]";
    let addresses = accepted("[[route]]", line).routes[0].addresses.clone();
    assert_eq!((addresses.allow.len(), addresses.deny.len()), (2, 0));
    let none = accepted("[[route]]", "allow_ips = []").routes[0]
        .addresses
        .clone();
    assert!(none.allow.is_empty());
}

#[test]
fn hdr_7_header_edits_leave_what_is_the_gateways() {
    refused_each(
        "[[route]]",
        r#"
        request_headers = {}                                  | route[0].request_headers              | empty table
        request_headers = []                                  | route[0].request_headers              | expected a table
        request_headers = { add = {} }                        | route[0].request_headers.add          | unknown key
        request_headers = { set = { "X-A" = "" } }            | route[0].request_headers.set.X-A      | is empty
        request_headers = { set = { "X-A" = 1 } }             | route[0].request_headers.set.X-A      | expected a string
        request_headers = { set = { "X-A" = "a\r\nX-B: c" } } | route[0].request_headers.set.X-A      | may not be in
        request_headers = { set = { "X-A" = "é" } }           | route[0].request_headers.set.X-A      | may not be in
        request_headers = { set = { "X A" = "a" } }           | route[0].request_headers.set.X A      | not a header name
        request_headers = { set = { "X_A" = "a" } }           | route[0].request_headers.set.X_A      | underscore
        request_headers = { set = { "X-A" = "1", "x.a" = "2" } } | route[0].request_headers.set.x.a   | twice
        request_headers = { set = { "X-A" = "1" }, remove = ["x-a"] } | route[0].request_headers.remove[0] | twice
        request_headers = { set = { "Content-Length" = "1" } } | route[0].request_headers.set.Content-Length | reserved
        request_headers = { set = { "x_forwarded_user" = "r" } } | route[0].request_headers.set.x_forwarded_user | reserved
        request_headers = { set = { "Remote-User" = "root" } } | route[0].request_headers.set.Remote-User | reserved
        request_headers = { set = { "Cookie" = "a=b" } }      | route[0].request_headers.set.Cookie   | reserved
        request_headers = { set = { "Host" = "a" } }          | route[0].request_headers.set.Host     | reserved
        request_headers = { set = { "Authorization" = "a" } } | route[0].request_headers.set.Authorization | reserved
        request_headers = { remove = ["Authorization"] }      | route[0].request_headers.remove[0]    | reserved
        request_headers = { remove = ["X-Forwarded-For"] }    | route[0].request_headers.remove[0]    | reserved
        request_headers = { remove = ["Transfer.Encoding"] }  | route[0].request_headers.remove[0]    | reserved
        request_headers = { remove = ["Via"] }                | route[0].request_headers.remove[0]    | reserved
        request_headers = { remove = [""] }                   | route[0].request_headers.remove[0]    | is empty
        response_headers = { remove = ["Content-Length"] }    | route[0].response_headers.remove[0]   | reserved
        response_headers = { remove = ["transfer-encoding"] } | route[0].response_headers.remove[0]   | reserved
        response_headers = { set = { "Connection" = "a" } }   | route[0].response_headers.set.Connection | reserved
        response_headers = { set = { "Set-Cookie" = "a=b" } } | route[0].response_headers.set.Set-Cookie | reserved
        response_headers = { remove = ["X-Content-Type-Options"] } | route[0].response_headers.remove[0] | every answer
        "#,
    );
    let project = Project::new();
    let own = with(
        "[identity]",
        "headers = { \"X-Tenant\" = \"{claims.tenant}\" }",
    );
    for edits in [
        "{ set = { \"x-tenant\" = \"a\" } }",
        "{ remove = [\"X-Tenant\"] }",
    ] {
        let text = with_in(&own, "[[route]]", &format!("request_headers = {edits}"));
        let report = project.read(&text).unwrap_err().to_string();
        assert!(report.contains("is reserved"), "{report}");
    }
    let template = with(
        "[[route]]",
        "request_headers = { set = { \"X-A\" = \"{user}\" } }",
    );
    project.warns(&template, "route[0].request_headers.set.X-A", "as it is");
    let line =
        "response_headers = { set = { \"X-Frame-Options\" = \"DENY\" }, remove = [\"Server\"] }";
    let edits = accepted("[[route]]", line).routes[0]
        .response_headers
        .clone();
    assert_eq!((edits.set.len(), edits.remove.len()), (1, 1));
}

#[test]
fn cfg_1_cors_names_origins_exactly() {
    refused_each(
        "[[route]]",
        r#"
        cors = "*"                                              | route[0].cors            | expected a table
        cors = { credentials = true }                           | route[0].cors.origins    | missing
        cors = { origins = [] }                                 | route[0].cors.origins    | empty list
        cors = { origins = ["*"], credentials = true }          | route[0].cors.origins    | with credentials
        cors = { origins = ["*", "https://a.com"] }             | route[0].cors.origins    | beside others
        cors = { origins = ["null"] }                           | route[0].cors.origins[0] | not an origin
        cors = { origins = ["a.com"] }                          | route[0].cors.origins[0] | not an origin
        cors = { origins = ["https://a.com/"] }                 | route[0].cors.origins[0] | not written
        cors = { origins = ["https://A.com"] }                  | route[0].cors.origins[0] | not written
        cors = { origins = ["https://a.com:443"] }              | route[0].cors.origins[0] | not written
        cors = { origins = ["https://u@a.com"] }                | route[0].cors.origins[0] | not written
        cors = { origins = ["https://*.a.com"] }                | route[0].cors.origins[0] | `*` in it
        cors = { origins = ["ftp://a.com"] }                    | route[0].cors.origins[0] | not an http
        cors = { origins = ["https://a.com"], methods = [] }    | route[0].cors.methods    | empty list
        cors = { origins = ["https://a.com"], methods = ["*"], credentials = true } | route[0].cors.methods[0] | not a method
        cors = { origins = ["https://a.com"], headers = ["*"] } | route[0].cors.headers[0] | not a header name
        cors = { origins = ["https://a.com"], headers = ["a b"] } | route[0].cors.headers[0] | not a header name
        cors = { origins = ["https://a.com"], max_age = "2d" }  | route[0].cors.max_age    | above the most
        cors = { origins = ["https://a.com"], orgins = [] }     | route[0].cors.orgins     | unknown key
        "#,
    );
    let line =
        "cors = { origins = [\"https://a.com:8443\", \"http://[::1]\"], credentials = true }";
    let cors = accepted("[[route]]", line).routes[0].cors.clone().unwrap();
    assert!(cors.credentials && cors.methods.len() == 3);
}

#[test]
fn uri_4_hosts_are_names() {
    refused_each(
        "[[route]]",
        r#"
        hosts = []                 | route[0].hosts    | empty list
        hosts = [""]               | route[0].hosts[0] | is empty
        hosts = ["https://a.com"]  | route[0].hosts[0] | port or a scheme
        hosts = ["a.com:8443"]     | route[0].hosts[0] | port or a scheme
        hosts = ["[::1]:8443"]     | route[0].hosts[0] | port or a scheme
        hosts = ["*"]              | route[0].hosts[0] | not the first label
        hosts = ["a.*.com"]        | route[0].hosts[0] | not the first label
        hosts = ["*.*.com"]        | route[0].hosts[0] | not the first label
        hosts = ["*.10.0.0.1"]     | route[0].hosts[0] | over an address
        hosts = ["*."]             | route[0].hosts[0] | not a host
        hosts = ["a..com"]         | route[0].hosts[0] | not a host
        hosts = ["bücher.example"] | route[0].hosts[0] | not a host
        hosts = ["a.com", "A.com"] | route[0].hosts[1] | twice
        "#,
    );
    let line = "hosts = [\"APP.Example.com\", \"*.example.org\", \"[::1]\"]";
    let hosts = accepted("[[route]]", line).routes[0].hosts.clone();
    let want = [
        HostPattern::Exact("app.example.com".into()),
        HostPattern::Wildcard("example.org".into()),
        HostPattern::Exact("[::1]".into()),
    ];
    assert_eq!(hosts, want);
}

#[test]
fn cfg_1_a_requirement_that_requires_nothing_is_refused() {
    refused_each(
        "[[route]]",
        r#"
        require = {}                                | route[0].require               | empty table
        require = []                                | route[0].require               | expected a table
        require = { role = ["admin"] }              | route[0].require.role          | unknown key
        require = { roles = [] }                    | route[0].require.roles         | empty list
        require = { roles = [""] }                  | route[0].require.roles[0]      | is empty
        require = { roles = "admin" }               | route[0].require.roles         | expected a list
        require = { scopes = [] }                   | route[0].require.scopes        | empty list
        require = { scopes = ["a b"] }              | route[0].require.scopes[0]     | not a scope
        require = { audiences = [] }                | route[0].require.audiences     | empty list
        require = { issuers = [] }                  | route[0].require.issuers       | empty list
        require = { issuers = ["crop"] }            | route[0].require.issuers[0]    | no issuer is named
        require = { claims = {} }                   | route[0].require.claims        | empty table
        require = { claims = { "" = "a" } }         | route[0].require.claims.       | names no claim
        require = { claims = { tenant = [] } }      | route[0].require.claims.tenant | empty list
        require = { claims = { tenant = "" } }      | route[0].require.claims.tenant | is empty
        require = { claims = { tenant = [1.5] } }   | route[0].require.claims.tenant | compared exactly
        require = { claims = { tenant = [["a"]] } } | route[0].require.claims.tenant | compared exactly
        "#,
    );
}

#[test]
fn requirements_go_with_the_access() {
    let project = Project::new();
    let role = with("[[route]]", "require = { roles = [\"a\"] }");
    let public = with_in(&role, "[[route]]", "access = \"public\"");
    project.refuses(&public, "route[0].require", "can require nothing");
    let optional = with_in(&role, "[[route]]", "access = \"optional\"");
    project.warns(&optional, "route[0].require", "need not meet it");
    let own = with("[[route]]", "require = { issuers = [\"portcullis\"] }");
    project.accepts(&own);
    let off = with_in(&own, "[accounts]", "enabled = false");
    project.refuses(&off, "route[0].require.issuers[0]", "no issuer is named");
    let line =
        "require = { scopes = [\"a\", \"b\"], claims = { t = [\"x\", 1, true], \"a.b\" = \"y\" } }";
    let rule = accepted("[[route]]", line).routes[0].rule.clone();
    assert_eq!(&*rule.scopes_line, "a b");
    assert_eq!(rule.claims.len(), 2);
}

#[test]
fn websockets_need_an_upstream_of_http1() {
    let project = Project::new();
    let text = with("[[route]]", "websocket = true");
    project.accepts(&text);
    let upstream =
        |lines: &str| text.replacen("[[upstream]]\n", &format!("[[upstream]]\n{lines}\n"), 1);
    let secure = |text: String| text.replace("http://", "https://");
    project.accepts(&upstream("protocol = \"auto\""));
    project.accepts(&secure(upstream("protocol = \"http1\"")));
    for text in [
        upstream("protocol = \"h2\""),
        secure(upstream("protocol = \"auto\"")),
    ] {
        project.refuses(&text, "route[0].websocket", "may speak HTTP/2");
    }
}

#[test]
fn store_6_a_strict_route_that_no_user_of_ours_can_take_is_refused() {
    let takes_none = "takes none";
    for (line, words) in [
        ("strict = 1", "expected true or false"),
        (
            "strict = true\nrequire = { issuers = [\"corp\"] }",
            takes_none,
        ),
    ] {
        Project::new().refuses(&with("[[route]]", line), "route[0].strict", words);
    }
    let strict = with("[[route]]", "strict = true");
    let public = strict.replace("access = \"authenticated\"", "access = \"public\"");
    Project::new().refuses(&public, "route[0].strict", "does not look at credentials");
    let without = strict.replace("[accounts]", "[accounts]\nenabled = false");
    let without = without.replace(
        "[mail]\nfrom = \"Gate <no-reply@example.com>\"\nspool = \"data/mail\"\n",
        "",
    );
    Project::new().refuses(&without, "route[0].strict", takes_none);
    let ours = "strict = true\nrequire = { issuers = [\"corp\", \"portcullis\"] }";
    for line in ["strict = true", ours] {
        assert!(accepted("[[route]]", line).routes[0].strict);
    }
    assert!(!Project::new().accepts(BASE).routes[0].strict);
}

#[test]
fn store_6_the_bound_of_the_lag_has_bounds() {
    for (value, words) in [
        ("\"2s\"", "below the least"),
        ("\"16m\"", "above the most"),
        ("\"0s\"", "below the least"),
    ] {
        let text = with("[accounts]", &format!("max_lag = {value}"));
        Project::new().refuses(&text, "accounts.max_lag", words);
    }
    let lag = |config: Config| config.accounts.unwrap().max_lag;
    let default = lag(Project::new().accepts(BASE));
    assert_eq!(default, std::time::Duration::from_secs(15));
    let longest = lag(accepted("[accounts]", "max_lag = \"15m\""));
    assert_eq!(longest, std::time::Duration::from_secs(900));
}
