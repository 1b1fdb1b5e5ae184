//! JWT-11: every refusal as it is sent, against a file of all of them.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::*;
use crate::policy::{
    HeadFault, PasswordFault, PathFault, TokenFault,
    rejection::{ClaimFault, Exceeded},
};

/// One of each, and a match over the same names: a variant that is not in the list does not compile.
macro_rules! one_of_each {
    ($($variant:ident $(($data:expr))?),* $(,)?) => {
        fn one_of_each() -> Vec<Rejection> {
            let all = vec![$(Rejection::$variant $(($data))?),*];
            for rejection in &all {
                match rejection {
                    $(Rejection::$variant { .. } => {})*
                }
            }
            all
        }
    };
}

one_of_each! {
    AccountExists,
    AddressDenied,
    AmbiguousCredentials,
    AmbiguousPath(PathFault::EncodedSlash),
    BadRequest(HeadFault::HostSyntax),
    BodyTooLarge,
    ClaimMismatch(ClaimFault::Issuer),
    CredentialsMissing,
    ExpectationFailed,
    HeadersTooLarge,
    HttpsRequired,
    Internal,
    InvalidClient,
    InvalidCredentials,
    InvalidGrant,
    KeysUnavailable,
    LastAdmin,
    LinkInvalid,
    LoopDetected,
    MethodNotAllowed(vec![Method::GET, Method::POST]),
    MisdirectedRequest,
    NoHealthyUpstream,
    OriginDenied,
    Overloaded,
    PasswordRefused(PasswordFault::Common),
    RateLimited(PER_IP),
    RequestTimeout,
    RoleMissing,
    RouteNotFound,
    ScopeMissing(Arc::from("orders:read orders:write")),
    StoreUnavailable,
    TokenExpired,
    TokenInvalid(TokenFault::Signature),
    UnsupportedMediaType,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamTls,
    UpstreamUnreachable,
    UriTooLong,
}

const PER_IP: Exceeded = Exceeded {
    limit: "per_ip",
    retry_after: Duration::from_millis(10),
    quota: 100,
    window: Duration::from_secs(1),
};

fn id() -> RequestId {
    RequestId::accept("0123456789abcdef0123456789abcdef").unwrap()
}

/// The whole answer as text: status, fields in order of name, body.
fn render(response: &Response<Bytes>) -> String {
    let mut fields: Vec<String> = response
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    fields.sort();
    let body = std::str::from_utf8(response.body()).unwrap();
    format!("{}\n{}\n{body}\n", response.status(), fields.concat())
}

#[track_caller]
fn check_field(rejection: &Rejection, name: &str, want: Option<&str>) {
    let response = refusal(rejection, &id());
    let values: Vec<_> = response.headers().get_all(name).iter().collect();
    let want: Vec<&str> = want.into_iter().collect();
    assert_eq!(values, want, "{name} of {rejection:?}");
}

fn token_faults() -> [TokenFault; 19] {
    use TokenFault as F;
    let all = [
        F::Algorithm,
        F::Audience,
        F::ClaimType,
        F::CriticalHeader,
        F::ExpiryMissing,
        F::Header,
        F::Inactive,
        F::IssuedInFuture,
        F::Issuer,
        F::KeyUnknown,
        F::Payload,
        F::NotYetValid,
        F::Revoked,
        F::Scheme,
        F::Segments,
        F::Signature,
        F::Subject,
        F::TooLong,
        F::Type,
    ];
    // A fault that is missing above fails to compile here.
    for fault in all {
        match fault {
            F::Algorithm | F::Audience | F::ClaimType | F::CriticalHeader | F::ExpiryMissing => {}
            F::Header | F::IssuedInFuture | F::Issuer | F::KeyUnknown | F::Payload => {}
            F::NotYetValid | F::Revoked | F::Scheme | F::Segments | F::Signature => {}
            F::Subject | F::TooLong | F::Type | F::Inactive => {}
        }
    }
    all
}

#[test]
fn jwt_11_refusals_are_the_golden_ones() {
    let all: Vec<String> = one_of_each()
        .iter()
        .map(|rejection| render(&refusal(rejection, &id())))
        .collect();
    let got = all.join("\n");
    assert!(got == include_str!("tests.golden"), "got:\n{got}");
}

#[test]
fn jwt_11_every_token_fault_is_refused_alike() {
    let of = |fault| render(&refusal(&Rejection::TokenInvalid(fault), &id()));
    let want = of(TokenFault::Signature);
    for fault in token_faults() {
        assert_eq!(of(fault), want, "{fault:?}");
    }
}

#[test]
fn jwt_11_only_the_request_id_differs_between_two_refusals() {
    let other = RequestId::accept("another-request").unwrap();
    for rejection in one_of_each() {
        let one = refusal(&rejection, &id());
        let two = refusal(&rejection, &other);
        let body =
            |response: &Response<Bytes>| String::from_utf8(response.body().to_vec()).unwrap();
        assert_eq!(
            body(&one).replace(id().as_str(), other.as_str()),
            body(&two)
        );
        let fields = |response: &Response<Bytes>| {
            let mut headers = response.headers().clone();
            headers.remove(header::CONTENT_LENGTH);
            headers
        };
        assert_eq!(fields(&one), fields(&two));
    }
}

#[test]
fn jwt_11_finer_reasons_never_reach_the_client() {
    for rejection in one_of_each() {
        // The limit's name is the client's to know.
        if matches!(rejection, Rejection::RateLimited(_)) {
            continue;
        }
        if let Some(reason) = rejection.reason() {
            let text = render(&refusal(&rejection, &id()));
            assert!(!text.contains(reason), "{reason} in {text}");
        }
    }
    for fault in token_faults() {
        let text = render(&refusal(&Rejection::TokenInvalid(fault), &id()));
        let name = fault.name();
        // These are words that the fixed texts use for something else.
        if !matches!(name, "header" | "type") {
            assert!(!text.contains(name), "{name} in {text}");
        }
    }
}

#[test]
fn refusals_are_problem_documents_with_the_code_of_the_log() {
    for rejection in one_of_each() {
        let response = refusal(&rejection, &id());
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        let code = rejection.code();
        let mut want = serde_json::json!({
            "type": format!("urn:portcullis:problem:{code}"),
            "title": rejection.title(),
            "status": rejection.status().as_u16(),
            "detail": rejection.detail(),
            "code": code,
            "request_id": id().as_str(),
        });
        // RFC 6749 §5.2 names the member for clients.
        if rejection == Rejection::InvalidClient {
            want["error"] = code.into();
        }
        assert_eq!(body, want);
        assert_eq!(response.extensions().get::<Rejection>(), Some(&rejection));
        let length = response.body().len().to_string();
        check_field(&rejection, "content-length", Some(&length));
        check_field(&rejection, "cache-control", Some("no-store"));
        check_field(&rejection, "x-content-type-options", Some("nosniff"));
    }
}

#[test]
fn every_401_has_a_challenge_and_only_token_faults_have_an_error() {
    let plain = "Bearer realm=\"portcullis\"";
    let invalid = "Bearer realm=\"portcullis\", error=\"invalid_token\"";
    for rejection in one_of_each() {
        let want = match (rejection.code(), rejection.status()) {
            ("token_expired" | "token_invalid", _) => Some(invalid),
            ("scope_missing", _) => continue,
            ("invalid_client", _) => Some("Basic realm=\"portcullis\""),
            (_, StatusCode::UNAUTHORIZED) => Some(plain),
            _ => None,
        };
        check_field(&rejection, "www-authenticate", want);
    }
}

#[test]
fn missing_scopes_are_named_in_the_challenge() {
    let check = |scopes: &str, want: &str| {
        let want =
            format!("Bearer realm=\"portcullis\", error=\"insufficient_scope\", scope=\"{want}\"");
        let rejection = Rejection::ScopeMissing(scopes.into());
        check_field(&rejection, "www-authenticate", Some(&want));
    };
    check("a\", error=\"none\\", "a, error=none");
    check("a\r\nx: y\u{e9}", "ax: y");
    check(
        "orders:read https://x.example/y",
        "orders:read https://x.example/y",
    );
}

#[test]
fn rate_7_429_says_which_limit_and_how_long() {
    let check = |retry_after, window, policy, state, seconds| {
        let rejection = Rejection::RateLimited(Exceeded {
            retry_after,
            window,
            ..PER_IP
        });
        check_field(&rejection, "ratelimit-policy", Some(policy));
        check_field(&rejection, "ratelimit", Some(state));
        check_field(&rejection, "retry-after", Some(seconds));
    };
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let policy = r#""per_ip";q=100;w=1"#;
    check(s(0), s(1), policy, r#""per_ip";r=0;t=1"#, "1");
    check(ms(999), ms(250), policy, r#""per_ip";r=0;t=1"#, "1");
    check(s(1), s(1), policy, r#""per_ip";r=0;t=1"#, "1");
    check(ms(1001), s(1), policy, r#""per_ip";r=0;t=2"#, "2");
    let policy = r#""per_ip";q=100;w=900"#;
    check(s(180), s(900), policy, r#""per_ip";r=0;t=180"#, "180");
    check(
        Duration::MAX,
        s(900),
        policy,
        &format!(r#""per_ip";r=0;t={}"#, u64::MAX),
        &u64::MAX.to_string(),
    );
}

#[test]
fn rate_7_limit_fields_are_on_429_alone_and_retry_after_where_it_helps() {
    for rejection in one_of_each() {
        if !matches!(rejection, Rejection::RateLimited(_)) {
            check_field(&rejection, "ratelimit", None);
            check_field(&rejection, "ratelimit-policy", None);
        }
        let seconds = rejection.retry_after().map(|_| "1");
        check_field(&rejection, "retry-after", seconds);
    }
}

#[test]
fn allow_is_on_405_alone_even_when_nothing_is_allowed() {
    for rejection in one_of_each() {
        let want = (rejection.status() == StatusCode::METHOD_NOT_ALLOWED).then_some("GET, POST");
        check_field(&rejection, "allow", want);
    }
    check_field(&Rejection::MethodNotAllowed(Vec::new()), "allow", Some(""));
}

#[test]
fn every_code_is_on_the_page_that_operators_look_into() {
    let page = include_str!("../../docs/errors.md");
    for rejection in one_of_each() {
        let code = rejection.code();
        assert!(page.contains(&format!("`{code}`")), "{code} is not there");
    }
}
