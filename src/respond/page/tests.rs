//! Pages run nothing, load nothing and are kept by nobody.

use super::*;
use crate::respond;

fn id() -> RequestId {
    RequestId::accept("0123456789abcdef").unwrap()
}

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

fn page(look: &Look, rejection: &Rejection) -> Response<Bytes> {
    look.refusal(rejection, &id(), respond::refusal(rejection, &id()), None)
}

#[test]
fn a_person_who_is_not_signed_in_is_told_where_to_sign_in() {
    let look = Look::default();
    let rejection = Rejection::TokenExpired;
    let document = respond::refusal(&rejection, &id());
    let login = Some("https://gate.example/auth/login");
    let page = look.refusal(&rejection, &id(), document, login);
    assert_eq!(page.status(), 401);
    assert!(text(&page).contains("<a href=\"https://gate.example/auth/login\">"));
    assert!(text(&page).contains(rejection.code()));
    assert!(!text(&page).contains(rejection.detail()));
}

#[test]
fn a_page_says_what_its_document_says_and_no_more() {
    let look = Look::default();
    for rejection in [
        Rejection::CredentialsMissing,
        Rejection::RoleMissing,
        Rejection::UpstreamTimeout,
    ] {
        let document = respond::refusal(&rejection, &id());
        let page = page(&look, &rejection);
        assert_eq!(page.status(), document.status());
        for said in [
            rejection.title(),
            rejection.detail(),
            rejection.code(),
            id().as_str(),
        ] {
            assert!(text(&page).contains(said), "{said}");
        }
        assert_eq!(page.extensions().get::<Rejection>(), Some(&rejection));
        for name in ["www-authenticate", "retry-after"] {
            assert_eq!(
                page.headers().get(name),
                document.headers().get(name),
                "{name}"
            );
        }
    }
}

#[test]
fn pages_run_nothing_load_nothing_and_are_kept_by_nobody() {
    let page = page(&Look::default(), &Rejection::RoleMissing);
    let field = |name: &str| page.headers()[name].to_str().unwrap();
    assert_eq!(field("content-type"), "text/html; charset=utf-8");
    assert_eq!(field("cache-control"), "no-store");
    assert_eq!(field("referrer-policy"), "no-referrer");
    assert_eq!(field("x-content-type-options"), "nosniff");
    assert_eq!(field("x-frame-options"), "DENY");
    assert_eq!(field("vary"), "Accept, Sec-Fetch-Mode");
    assert_eq!(field("content-length"), page.body().len().to_string());
    let policy = field("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    for part in [
        "form-action 'self';",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    for absent in ["unsafe", "script", "http:", "https:"] {
        assert!(!policy.contains(absent), "{policy}");
    }
    assert!(!text(&page).contains("<script"));
}

#[test]
fn the_policy_allows_the_very_style_of_the_page() {
    for look in [Look::default(), Look::new("Example", "#b91c1c")] {
        let page = page(&look, &Rejection::RoleMissing);
        let (_, rest) = text(&page).split_once("<style>").unwrap();
        let (style, _) = rest.split_once("</style>").unwrap();
        let digest = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains(&format!("style-src 'sha256-{digest}'")),
            "{policy}"
        );
    }
}

#[test]
fn what_an_operator_writes_is_text_in_a_page() {
    let look = Look::new("<b>&\"x\"</b><script>", ACCENT);
    let page = page(&look, &Rejection::RoleMissing);
    assert!(!text(&page).contains("<b>") && !text(&page).contains("<script>"));
    assert!(text(&page).contains("&#60;b&#62;&#38;"));
}

#[test]
fn a_logo_is_a_part_of_the_page_and_runs_nothing() {
    let mut look = Look::default();
    assert!(text(&page(&look, &Rejection::RoleMissing)).contains("class=\"mark\""));
    look.logo = Some("data:image/svg+xml;base64,PHN2Zy8+".into());
    let page = page(&look, &Rejection::RoleMissing);
    let image = "<img class=\"logo\" src=\"data:image/svg+xml;base64,PHN2Zy";
    assert!(text(&page).contains(image), "{}", text(&page));
    assert!(!text(&page).contains("<script") && !text(&page).contains("class=\"mark\""));
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("img-src 'self' data:"), "{policy}");
}

#[test]
fn sess_7_a_redirect_is_kept_by_nobody_and_cannot_be_split() {
    let response = redirect(StatusCode::FOUND, "https://localhost/auth/login?next=%2F").unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["referrer-policy"], "no-referrer");
    assert_eq!(
        redirect(StatusCode::FOUND, "/a\r\nx: y").unwrap_err(),
        Rejection::Internal
    );
}
