//! Tests of header hygiene: HDR-1 to HDR-5, HDR-7, HDR-8, MSG-14.

use http::{Method, Version};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::policy::{
    Claims, PeerIp, Route,
    authorize::{authorize, tests::identity},
    rejection::ClaimFault,
    route::tests::route,
};

const PEER: [u8; 4] = [198, 51, 100, 7];
const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";
const PRESETS: [Preset; 4] = [
    Preset::Authelia,
    Preset::None,
    Preset::Oauth2Proxy,
    Preset::Portcullis,
];

fn own(list: &[(&str, &str)]) -> Vec<(HeaderName, Template)> {
    list.iter()
        .map(|(name, text)| (name.parse().unwrap(), Template::parse(text).unwrap()))
        .collect()
}

/// Two headers of the operator's: one of the identity alone, one of the request.
fn templates(preset: Preset, multi: MultiValue) -> Arc<IdentityHeaders> {
    let own = own(&[
        ("x-tenant", "{claims.tenant}"),
        ("x-seen-as", "{user} from {client_ip} on {route}"),
    ]);
    Arc::new(IdentityHeaders::new(preset, own, multi))
}

fn policy(templates: &Arc<IdentityHeaders>) -> HeaderPolicy {
    HeaderPolicy::new(Arc::clone(templates), "gate-1", false).unwrap()
}

fn claims() -> Claims {
    Claims {
        issuer: "https://idp.example.com".into(),
        subject: "u1".into(),
        user: Some("ada".into()),
        email: Some("ada@example.com".into()),
        name: Some("Ada".into()),
        roles: vec!["clerk".into(), "admin".into()],
        scopes: vec!["read".into()],
        all: json!({"tenant": "a"}).as_object().cloned().unwrap(),
        ..Claims::default()
    }
}

fn bare() -> Claims {
    Claims {
        issuer: "i".into(),
        subject: "s".into(),
        ..Claims::default()
    }
}

/// What `prepare` makes of these headers of a client.
struct Case<'a> {
    policy: &'a HeaderPolicy,
    caller: Caller,
    access: Access,
    trusted: bool,
    version: Version,
}

impl<'a> Case<'a> {
    fn new(policy: &'a HeaderPolicy, caller: Caller) -> Self {
        Self {
            policy,
            caller,
            access: Access::Optional,
            trusted: false,
            version: Version::HTTP_11,
        }
    }

    fn try_prepare(&self, headers: &mut HeaderMap) -> Result<(), Rejection> {
        let route = Route {
            access: self.access,
            methods: vec![Method::GET],
            ..route("orders")
        };
        let client = PeerIp::new(PEER.into()).into();
        let permit = authorize(&route, client, self.caller.clone()).unwrap();
        let from = Forwarding {
            peer: &std::net::IpAddr::from(PEER).to_string().parse().unwrap(),
            peer_is_trusted: self.trusted,
            host: &HeaderValue::from_static("app.example.com:8443"),
            version: self.version,
            request_id: &HeaderValue::from_static(REQUEST_ID),
        };
        self.policy.prepare(headers, &permit, &from)
    }

    fn prepare(&self, fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = map(fields);
        self.try_prepare(&mut headers).unwrap();
        headers
    }
}

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.get_all(name).iter().map(text).collect()
}

/// Every name that no client may send, with members of each reserved family.
fn reserved(templates: &IdentityHeaders) -> Vec<String> {
    let families = [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-uri",
        "x-forwarded-method",
        "x-forwarded-client-cert",
        "x-forwarded-access-token",
        "x-original-url",
        "x-original-uri",
        "x-original-host",
        "x-ssl-client-cert",
        "x-ssl-client-verify",
        "ssl-client-cert",
        "x-portcullis-assertion",
        "x-auth-request-user",
        "x-auth-request-email",
    ];
    let names = PRESET_NAMES
        .iter()
        .chain(&RESERVED_NAMES)
        .chain(&families)
        .map(ToString::to_string);
    names
        .chain(templates.names().map(ToString::to_string))
        .collect()
}

#[track_caller]
fn assert_no_forgery(headers: &HeaderMap) {
    for (name, value) in headers {
        assert!(
            !String::from_utf8_lossy(value.as_bytes()).contains("forged"),
            "{name}: {value:?}"
        );
    }
}

fn callers(templates: &IdentityHeaders) -> Vec<(Access, Caller)> {
    let mut cases = vec![
        (Access::Public, Caller::Anonymous),
        (Access::Optional, Caller::Anonymous),
    ];
    for claims in [claims(), bare()] {
        for access in [Access::Public, Access::Optional, Access::Authenticated] {
            cases.push((access, identity(claims.clone(), templates)));
        }
    }
    cases
}

#[test]
fn hdr_1_no_identity_header_of_a_client_survives_on_any_route() {
    for preset in PRESETS {
        let templates = templates(preset, MultiValue::Comma);
        let policy = policy(&templates);
        for (access, caller) in callers(&templates) {
            for name in reserved(&templates) {
                for trusted in [false, true] {
                    // The forwarding fields of a trusted peer are believed, and tested by HDR-4.
                    if trusted
                        && ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
                            .contains(&&*name)
                    {
                        continue;
                    }
                    let case = Case {
                        access,
                        trusted,
                        ..Case::new(&policy, caller.clone())
                    };
                    let headers = case.prepare(&[
                        (&name, "forged"),
                        (&name, "forged too"),
                        ("x-other", "kept"),
                    ]);
                    assert_no_forgery(&headers);
                    assert!(all(&headers, &name).len() <= 1, "{name}");
                    assert_eq!(all(&headers, "x-other"), ["kept"]);
                }
            }
        }
    }
}

#[test]
fn hdr_1_exactly_the_claims_are_told() {
    for (preset, want) in [
        (
            Preset::Authelia,
            &[
                ("remote-user", "ada"),
                ("remote-email", "ada@example.com"),
                ("remote-name", "Ada"),
                ("remote-groups", "clerk,admin"),
            ][..],
        ),
        (Preset::None, &[]),
        (
            Preset::Oauth2Proxy,
            &[
                ("x-forwarded-user", "ada"),
                ("x-forwarded-email", "ada@example.com"),
                ("x-forwarded-preferred-username", "Ada"),
                ("x-forwarded-groups", "clerk,admin"),
            ],
        ),
        (
            Preset::Portcullis,
            &[
                ("x-forwarded-user", "ada"),
                ("x-forwarded-email", "ada@example.com"),
                ("x-forwarded-preferred-username", "Ada"),
                ("x-forwarded-groups", "clerk,admin"),
                ("x-auth-issuer", "https://idp.example.com"),
                ("x-auth-scopes", "read"),
            ],
        ),
    ] {
        let templates = templates(preset, MultiValue::Comma);
        let policy = policy(&templates);
        let headers = Case::new(&policy, identity(claims(), &templates)).prepare(&[]);
        for (name, value) in want {
            assert_eq!(all(&headers, name), [*value]);
        }
        for name in PRESET_NAMES
            .iter()
            .filter(|name| want.iter().all(|(wanted, _)| wanted != *name))
        {
            assert!(!headers.contains_key(*name), "{name}");
        }
        assert_eq!(all(&headers, "x-tenant"), ["a"]);
        assert_eq!(
            all(&headers, "x-seen-as"),
            ["ada from 198.51.100.7 on orders"]
        );

        let headers = Case::new(&policy, identity(bare(), &templates)).prepare(&[]);
        for name in [
            "x-tenant",
            "x-seen-as",
            "x-forwarded-user",
            "x-forwarded-groups",
            "remote-user",
            "remote-groups",
        ] {
            assert!(
                !headers.contains_key(name),
                "{name}: an absent claim sends no header"
            );
        }
        let headers = Case::new(&policy, Caller::Anonymous).prepare(&[]);
        assert!(templates.names().all(|name| !headers.contains_key(name)));
    }
}

#[test]
fn hdr_2_every_spelling_of_a_separator_is_removed() {
    let templates = templates(Preset::Portcullis, MultiValue::Comma);
    let policy = policy(&templates);
    let case = Case::new(&policy, identity(claims(), &templates));
    for name in reserved(&templates) {
        let parts: Vec<&str> = name.split('-').collect();
        let gaps = u32::try_from(parts.len() - 1).unwrap();
        for number in 0..3_usize.pow(gaps) {
            let mut spelling = parts[0].to_owned();
            for (gap, part) in parts[1..].iter().enumerate() {
                let digit = number / 3_usize.pow(u32::try_from(gap).unwrap()) % 3;
                spelling.push(['-', '_', '.'][digit]);
                spelling.push_str(part);
            }
            for spelling in [spelling.clone(), spelling.to_uppercase()] {
                let headers = case.prepare(&[(&spelling, "forged")]);
                assert_no_forgery(&headers);
                let folded = |header: &HeaderName| fold(header.as_str()) == *name;
                assert!(
                    headers.keys().filter(|header| folded(header)).count() <= 1,
                    "{spelling}"
                );
            }
        }
    }
}

#[test]
fn hdr_2_names_with_underscores_are_removed_and_others_kept() {
    let templates = Arc::new(IdentityHeaders::default());
    let policy = policy(&templates);
    let headers = Case::new(&policy, Caller::Anonymous).prepare(&[
        ("x_custom", "1"),
        ("content_length", "9"),
        ("_", "1"),
        ("x-custom", "2"),
        ("x.custom", "3"),
        ("accept", "*/*"),
    ]);
    for name in ["x_custom", "content_length", "_"] {
        assert!(!headers.contains_key(name));
    }
    assert_eq!(
        (all(&headers, "x-custom"), all(&headers, "x.custom")),
        (vec!["2".into()], vec!["3".into()])
    );
    assert!(headers.contains_key("accept"));
}

#[test]
fn hdr_3_connection_options_take_away_nothing_that_is_injected() {
    let templates = templates(Preset::Portcullis, MultiValue::Comma);
    let policy = policy(&templates);
    let plain = Case::new(&policy, identity(claims(), &templates)).prepare(&[("host", "app")]);
    let names: Vec<String> = plain.keys().map(ToString::to_string).collect();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let case = Case {
            version,
            ..Case::new(&policy, identity(claims(), &templates))
        };
        for name in &names {
            for option in [
                name.clone(),
                name.to_uppercase(),
                format!("close, {name}"),
                format!("keep-alive,{name} ,x"),
            ] {
                let headers =
                    case.prepare(&[("host", "app"), ("connection", &option), (name, "forged")]);
                assert!(!headers.contains_key("connection"));
                if name != "host" {
                    assert_no_forgery(&headers);
                }
                for name in &names {
                    assert!(headers.contains_key(name), "{option} took {name}");
                }
            }
        }
        let list = names.join(", ");
        let headers = case.prepare(&[
            ("host", "app"),
            ("connection", "close"),
            ("connection", &list),
        ]);
        assert!(names.iter().all(|name| headers.contains_key(name)));
    }
}

#[test]
fn hdr_3_fields_of_one_connection_are_removed() {
    let mut headers = map(&[
        ("connection", "x-hop, \u{e9}"),
        ("connection", "x-second,, X-Third"),
        ("x-hop", "1"),
        ("x-second", "1"),
        ("x-third", "1"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAAA"),
        ("proxy-authorization", "x"),
        ("expect", "100-continue"),
        ("x-kept", "1"),
    ]);
    strip_hop_by_hop(&mut headers);
    let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["x-kept"]);

    let protected = [
        ("host", "app"),
        ("content-length", "3"),
        ("content-type", "a/b"),
        ("authorization", "x"),
        ("cookie", "a=b"),
    ];
    let mut headers = map(&protected);
    headers.insert(
        "connection",
        HeaderValue::from_static("host, content-length, Content-Type, authorization, cookie"),
    );
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers.len(), protected.len());
}

const SPOOFED: [(&str, &str); 9] = [
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-for", "10.0.0.2"),
    ("x-forwarded-host", "evil.example.com"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-port", "1"),
    ("x-forwarded-prefix", "/evil"),
    ("x-real-ip", "10.0.0.1"),
    ("forwarded", "for=10.0.0.1;host=evil"),
    ("x-original-url", "/evil"),
];

#[test]
fn hdr_4_forwarding_fields_of_an_untrusted_peer_are_replaced() {
    let policy = policy(&Arc::default());
    let headers = Case::new(&policy, Caller::Anonymous).prepare(&SPOOFED);
    for (name, value) in [
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-host", "app.example.com:8443"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "198.51.100.7"),
        ("x-request-id", REQUEST_ID),
    ] {
        assert_eq!(all(&headers, name), [value]);
    }
    for name in [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "forwarded",
        "x-original-url",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[test]
fn hdr_4_forwarding_fields_of_a_trusted_peer_are_continued() {
    let policy = policy(&Arc::default());
    let case = Case {
        trusted: true,
        ..Case::new(&policy, Caller::Anonymous)
    };
    let headers = case.prepare(&SPOOFED);
    assert_eq!(
        all(&headers, "x-forwarded-for"),
        ["10.0.0.1, 10.0.0.2, 198.51.100.7"]
    );
    assert_eq!(all(&headers, "x-forwarded-host"), ["evil.example.com"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["http"]);
    // What we decided, not what anybody says.
    assert_eq!(all(&headers, "x-real-ip"), ["198.51.100.7"]);
    for name in [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "forwarded",
        "x-original-url",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
    // Named as a connection option they are still the trusted peer's word.
    let headers = case.prepare(&[
        ("connection", "x-forwarded-for"),
        ("x-forwarded-for", "10.0.0.1"),
    ]);
    assert_eq!(all(&headers, "x-forwarded-for"), ["10.0.0.1, 198.51.100.7"]);
}

#[test]
fn hdr_4_unusable_words_of_a_trusted_peer_are_dropped() {
    let policy = policy(&Arc::default());
    let case = Case {
        trusted: true,
        ..Case::new(&policy, Caller::Anonymous)
    };
    for (name, value, want) in [
        ("x-forwarded-proto", "ftp", "https"),
        ("x-forwarded-proto", "", "https"),
        ("x-forwarded-proto", "http, https", "https"),
        ("x-forwarded-proto", "HTTP", "https"),
        ("x-forwarded-host", "a b", "app.example.com:8443"),
        ("x-forwarded-host", "a/b", "app.example.com:8443"),
        ("x-forwarded-host", "", "app.example.com:8443"),
        ("x-forwarded-host", "u@h", "app.example.com:8443"),
        ("x-forwarded-host", "é", "app.example.com:8443"),
    ] {
        assert_eq!(
            all(&case.prepare(&[(name, value)]), name),
            [want],
            "{value:?}"
        );
    }
    let twice = [
        ("x-forwarded-proto", "http"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a"),
        ("x-forwarded-host", "a"),
    ];
    let headers = case.prepare(&twice);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(all(&headers, "x-forwarded-host"), ["app.example.com:8443"]);
}

#[test]
fn hdr_5_control_characters_refuse_the_request() {
    for multi in [
        MultiValue::Comma,
        MultiValue::Json,
        MultiValue::Repeat,
        MultiValue::Space,
    ] {
        let templates = templates(Preset::Portcullis, multi);
        for bad in [
            "a\r\nx: y",
            "\n",
            "a\u{0}",
            "\t",
            "\u{7f}",
            "\u{9f}",
            "a\u{85}b",
            "\u{1b}[31m",
        ] {
            let unprintable = Rejection::ClaimMismatch(ClaimFault::Unprintable);
            for claims in [
                Claims {
                    user: Some(bad.into()),
                    ..claims()
                },
                Claims {
                    email: Some(bad.into()),
                    ..claims()
                },
                Claims {
                    roles: vec!["a".into(), bad.into()],
                    ..claims()
                },
                Claims {
                    scopes: vec![bad.into()],
                    ..claims()
                },
                Claims {
                    all: json!({"tenant": bad}).as_object().cloned().unwrap(),
                    ..claims()
                },
                Claims {
                    all: json!({"tenant": ["a", bad]}).as_object().cloned().unwrap(),
                    ..claims()
                },
            ] {
                assert_eq!(
                    templates.render(&claims).map(|_| ()),
                    Err(unprintable.clone()),
                    "{bad:?}"
                );
            }
        }
    }
}

/// The groups header of these roles.
fn groups(multi: MultiValue, roles: &[&str]) -> Vec<String> {
    let templates = templates(Preset::Portcullis, multi);
    let policy = policy(&templates);
    let roles = roles.iter().map(|role| (*role).into()).collect();
    let headers =
        Case::new(&policy, identity(Claims { roles, ..claims() }, &templates)).prepare(&[]);
    all(&headers, "x-forwarded-groups")
}

#[test]
fn hdr_5_one_role_never_becomes_two_nor_another() {
    assert_eq!(
        groups(MultiValue::Comma, &["a,admin", "b"]),
        ["a%2Cadmin,b"]
    );
    assert_eq!(groups(MultiValue::Comma, &["a%2Cadmin"]), ["a%252Cadmin"]);
    assert_eq!(
        groups(MultiValue::Space, &["a admin", "b"]),
        ["a%20admin b"]
    );
    assert_eq!(
        groups(MultiValue::Json, &["a\",\"admin", "é"]),
        [r#"["a\",\"admin","\u00e9"]"#]
    );
    assert_eq!(
        groups(MultiValue::Repeat, &["a,admin", "b"]),
        ["a,admin", "b"]
    );
    // Servers trim the elements of a list.
    assert_eq!(
        groups(MultiValue::Comma, &["b", " admin", "admin ", "  "]),
        ["b,%20admin,admin%20,%20%20"]
    );
    assert_eq!(groups(MultiValue::Repeat, &[" admin"]), ["%20admin"]);
    assert_eq!(
        groups(MultiValue::Comma, &["\u{a0}admin\u{3000}"]),
        ["%C2%A0admin%E3%80%80"]
    );
    for multi in [
        MultiValue::Comma,
        MultiValue::Json,
        MultiValue::Repeat,
        MultiValue::Space,
    ] {
        assert_eq!(groups(multi, &[]), Vec::<String>::new());
        assert_eq!(groups(multi, &["", ""]), Vec::<String>::new());
    }
    assert_eq!(groups(MultiValue::Comma, &["", "a", ""]), ["a"]);
}

#[test]
fn hdr_5_a_name_is_not_trimmed_into_another() {
    let templates = templates(Preset::Portcullis, MultiValue::Comma);
    let policy = policy(&templates);
    for (user, want) in [
        (" admin", "%20admin"),
        ("admin ", "admin%20"),
        ("ad min", "ad min"),
        (" ", "%20"),
        ("é", "%C3%A9"),
        ("50%", "50%25"),
    ] {
        let caller = identity(
            Claims {
                user: Some(user.into()),
                ..claims()
            },
            &templates,
        );
        assert_eq!(
            all(&Case::new(&policy, caller).prepare(&[]), "x-forwarded-user"),
            [want]
        );
    }
}

#[test]
fn hdr_5_more_than_eight_kib_is_refused() {
    let templates = templates(Preset::None, MultiValue::Comma);
    let policy = policy(&templates);
    let claims = |bytes: usize| Claims {
        all: json!({"tenant": "t".repeat(bytes)})
            .as_object()
            .cloned()
            .unwrap(),
        ..claims()
    };
    assert!(templates.render(&claims(8192 - 8)).is_ok());
    assert!(templates.render(&claims(8192 - 7)).is_err());
    // Headers of the identity and of the request count together.
    let caller = identity(claims(8192 - 8), &templates);
    assert_eq!(
        Case::new(&policy, caller).try_prepare(&mut HeaderMap::new()),
        Err(Rejection::ClaimMismatch(ClaimFault::Unprintable))
    );
    assert!(
        Case::new(&policy, identity(claims(8000), &templates))
            .try_prepare(&mut HeaderMap::new())
            .is_ok()
    );
}

proptest! {
    #[test]
    fn hdr_5_any_claims_give_exactly_the_expected_fields(
        user in "\\PC{0,20}", email in ".{0,20}", roles in prop::collection::vec(".{0,8}", 0..5), tenant in "\\PC{0,10}",
    ) {
        let plain = Claims {
            user: Some(user.as_str().into()),
            email: Some(email.as_str().into()),
            roles: roles.iter().map(|role| role.as_str().into()).collect(),
            all: json!({"tenant": tenant}).as_object().cloned().unwrap(),
            ..claims()
        };
        for multi in [MultiValue::Comma, MultiValue::Json, MultiValue::Repeat, MultiValue::Space] {
            let templates = templates(Preset::Portcullis, multi);
            let control = [&user, &email, &tenant].into_iter().chain(&roles).any(|text| text.chars().any(char::is_control));
            match templates.render(&plain) {
                Err(refusal) => {
                    prop_assert!(control);
                    prop_assert_eq!(refusal.status(), 403);
                }
                Ok(headers) => {
                    prop_assert!(!control);
                    let roles: Vec<_> = roles.iter().filter(|role| !role.is_empty()).collect();
                    let groups: Vec<_> = headers.iter().filter(|(name, _)| name == "x-forwarded-groups").collect();
                    let lines = if multi == MultiValue::Repeat { roles.len() } else { usize::from(!roles.is_empty()) };
                    prop_assert_eq!(groups.len(), lines);
                    // User, e-mail, name, issuer, scopes and tenant.
                    prop_assert_eq!(headers.len() - lines, 6);
                    prop_assert!(headers.iter().all(|(_, value)| value.as_bytes().is_ascii()));
                    for (_, value) in &headers {
                        let text = value.to_str().unwrap();
                        prop_assert_eq!(text, text.trim());
                    }
                    if let (MultiValue::Comma, [(_, value)]) = (multi, &groups[..]) {
                        prop_assert_eq!(value.to_str().unwrap().split(',').count(), roles.len());
                    }
                    if let (MultiValue::Json, [(_, value)]) = (multi, &groups[..]) {
                        let read: Vec<String> = serde_json::from_str(value.to_str().unwrap()).unwrap();
                        prop_assert!(read.iter().eq(roles));
                    }
                }
            }
        }
    }
}

#[test]
fn hdr_8_consumed_tokens_leave_only_where_told() {
    let templates = Arc::new(IdentityHeaders::default());
    for pass_token in [false, true] {
        let policy = HeaderPolicy::new(Arc::clone(&templates), "gate-1", pass_token).unwrap();
        for (access, caller) in callers(&templates) {
            let case = Case {
                access,
                ..Case::new(&policy, caller)
            };
            let headers = case.prepare(&[
                ("authorization", "Bearer canary"),
                ("connection", "authorization"),
            ]);
            let kept = pass_token || access == Access::Public;
            assert_eq!(
                headers.contains_key("authorization"),
                kept,
                "{access:?} {pass_token}"
            );
        }
    }
}

#[test]
fn hdr_8_cookies_of_the_gateway_never_leave() {
    let templates = Arc::new(IdentityHeaders::default());
    for pass_token in [false, true] {
        let policy = HeaderPolicy::new(Arc::clone(&templates), "gate-1", pass_token).unwrap();
        for (access, caller) in callers(&templates) {
            let case = Case {
                access,
                ..Case::new(&policy, caller)
            };
            for ours in [SESSION_COOKIE, REFRESH_COOKIE] {
                for (line, want) in [
                    (format!("{ours}=canary"), ""),
                    (format!("a=1; {ours}=canary; b=2"), "a=1; b=2"),
                    (format!("{ours}=canary;a=1"), "a=1"),
                    (format!(" ;; {ours} = canary ; a=1;"), "a=1"),
                    (format!("{ours}=canary; {ours}=canary2"), ""),
                    (format!("{ours}"), ""),
                    (format!("a=é; {ours}=canary"), "a=é"),
                    (format!("a=\"x; {ours}=canary\""), "a=\"x"),
                ] {
                    let headers = case.prepare(&[("cookie", &line)]);
                    assert_eq!(all(&headers, "cookie").join("|"), want, "{line}");
                }
                // Crumbs of HTTP/2, and a line that is ours alone.
                let headers = case.prepare(&[
                    ("cookie", "a=1"),
                    ("cookie", &format!("{ours}=canary")),
                    ("cookie", "b=2"),
                ]);
                assert_eq!(all(&headers, "cookie"), ["a=1", "b=2"]);
            }
            let untouched =
                " a=1;  b=2;c; x__Host-portcullis-session=1; __host-portcullis-session=2";
            assert_eq!(
                all(&case.prepare(&[("cookie", untouched)]), "cookie"),
                [untouched]
            );
        }
    }
}

#[test]
fn msg_14_a_request_that_passed_before_is_refused() {
    let policy = policy(&Arc::default());
    let case = Case::new(&policy, Caller::Anonymous);
    for lines in [
        &["1.1 gate-1"][..],
        &["2.0 gate-1"],
        &["1.0 a, 1.1 gate-1"],
        &["1.1 gate-1, 1.0 b"],
        &["1.0 a", "1.1 gate-1"],
        &["1.1 gate-1 (comment)"],
        &["  1.1   gate-1  "],
        &["HTTP/1.1 gate-1"],
        &["1.1 \u{e9}, 1.1 gate-1"],
    ] {
        let fields: Vec<_> = lines.iter().map(|line| ("via", *line)).collect();
        assert_eq!(
            case.try_prepare(&mut map(&fields)),
            Err(Rejection::LoopDetected),
            "{lines:?}"
        );
    }
    for line in [
        "1.1 gate-2",
        "1.1 gate-11",
        "1.1 agate-1",
        "gate-1",
        "1.1 x gate-1",
        "",
        "1.1",
        ",",
    ] {
        assert_eq!(
            case.try_prepare(&mut map(&[("via", line)])),
            Ok(()),
            "{line}"
        );
    }
    assert_eq!(
        all(&case.prepare(&[("via", "1.0 a")]), "via"),
        ["1.0 a", "1.1 gate-1"]
    );
    let h2 = Case {
        version: Version::HTTP_2,
        ..case
    };
    let headers = h2.prepare(&[]);
    assert_eq!(all(&headers, "via"), ["2.0 gate-1"]);
    // What leaves is refused when it comes back.
    assert_eq!(
        h2.try_prepare(&mut headers.clone()),
        Err(Rejection::LoopDetected)
    );
    assert!(HeaderPolicy::new(Arc::default(), "a\nb", false).is_err());
}

#[test]
fn msg_14_order_and_count_of_other_fields_are_kept() {
    let policy = policy(&Arc::default());
    let fields = [
        ("accept", "a"),
        ("x-list", "1"),
        ("accept", "b"),
        ("x-list", "2"),
        ("x-list", "1"),
    ];
    let headers = Case::new(&policy, Caller::Anonymous).prepare(&fields);
    assert_eq!(all(&headers, "accept"), ["a", "b"]);
    assert_eq!(all(&headers, "x-list"), ["1", "2", "1"]);
}

#[test]
fn traceparent_is_kept_when_well_formed_and_begun_otherwise() {
    let policy = policy(&Arc::default());
    let case = Case::new(&policy, Caller::Anonymous);
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(
        all(&case.prepare(&[("traceparent", good)]), "traceparent"),
        [good]
    );
    let begun = format!("00-{REQUEST_ID}-{}-00", &REQUEST_ID[16..]);
    for bad in [
        "",
        "x",
        "00-0-0-0",
        &good.to_uppercase(),
        &good.replacen("00", "ff", 1),
        &format!("{good}-x"),
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    ] {
        assert_eq!(
            all(&case.prepare(&[("traceparent", bad)]), "traceparent"),
            [&*begun],
            "{bad}"
        );
    }
}

#[test]
fn templates_with_unknown_or_unclosed_places_are_refused() {
    for bad in [
        "{",
        "{user",
        "a{nobody}",
        "{claims.}",
        "{claims}",
        "{}",
        "{User}",
        "{ user }",
        "{user}{",
    ] {
        assert!(Template::parse(bad).is_err(), "{bad}");
    }
    for preset in PRESETS {
        for (name, template) in preset.headers() {
            assert!(Template::parse(template).is_ok() && PRESET_NAMES.contains(name));
        }
    }
}
