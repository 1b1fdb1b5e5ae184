//! Tests of header hygiene: HDR-1, HDR-2, HDR-7 here, and what the others share.

mod credentials;
mod forwarding;
mod trailers;
mod values;

use http::{Method, Version};
use serde_json::json;

use super::*;
use crate::policy::Access;
use crate::policy::{
    Claims, ForwardedHeaders, PeerIp, Route, TraceField,
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
    fields: ForwardedHeaders,
    version: Version,
}

impl<'a> Case<'a> {
    fn new(policy: &'a HeaderPolicy, caller: Caller) -> Self {
        Self {
            policy,
            caller,
            access: Access::Optional,
            trusted: false,
            fields: ForwardedHeaders::XForwarded,
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
        let permit = authorize(&route, client, Ok(self.caller.clone())).unwrap();
        let from = Forwarding {
            peer: &std::net::IpAddr::from(PEER).to_string().parse().unwrap(),
            believed: self.trusted.then_some(self.fields),
            host: &HeaderValue::from_static("app.example.com:8443"),
            version: self.version,
            request_id: &HeaderValue::from_static(REQUEST_ID),
            trace: TraceField::AsItCame,
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
