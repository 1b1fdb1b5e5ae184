//! Pages for people: one look, one policy of content, and refusals as pages.

use askama::Template;
use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{self, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY, X_FRAME_OPTIONS},
};

use super::texts::{ENGLISH, Texts};
use crate::{policy::Rejection, telemetry::RequestId};

const STYLE: &str = include_str!("../../templates/style.css");

/// The name of a site where none is configured.
pub const TITLE: &str = "Portcullis";

/// The colour of buttons where none is configured.
pub const ACCENT: &str = "#1d4ed8";

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");
const DENY: HeaderValue = HeaderValue::from_static("DENY");
/// What decides whether there is a page at all.
const VARIES: HeaderValue = HeaderValue::from_static("Accept, Sec-Fetch-Mode");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");

/// How the pages look, and which words they say.
#[derive(Debug)]
pub struct Look {
    /// What the site is called.
    pub title: Box<str>,
    /// The style sheet, which is part of each page.
    pub style: Box<str>,
    /// The words.
    pub texts: &'static Texts,
    /// The picture at the head of each page, as a `data:` URL; `None`: a sign in the colour of buttons.
    pub logo: Option<Box<str>>,
    /// The digest of the style sheet, as a content security policy writes it.
    digest: Box<str>,
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct RefusalPage<'a> {
    look: &'a Look,
    status: u16,
    title: &'a str,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
    /// Where to sign in, for whom that would help.
    login: Option<&'a str>,
}

impl Look {
    /// Makes a look without a picture. `accent` is the colour of buttons, as `#rrggbb`.
    #[must_use]
    pub fn new(title: &str, accent: &str) -> Self {
        let style = format!(":root {{ --accent: {accent}; }}\n{STYLE}");
        let digest = digest::digest(&digest::SHA256, style.as_bytes());
        Self {
            title: title.into(),
            style: style.into(),
            texts: &ENGLISH,
            logo: None,
            digest: STANDARD.encode(digest).into(),
        }
    }

    /// Writes a page. Its forms may lead to its own origin, and, by a redirect, to `form_target`.
    ///
    /// No page has a script, a frame around it or anything from elsewhere; none is kept by a cache or named in `Referer`.
    ///
    /// # Errors
    /// [`Rejection::Internal`] where the template fails, which for text alone it does not.
    pub fn page(
        &self,
        status: StatusCode,
        page: &impl Template,
        form_target: Option<&str>,
    ) -> Result<Response<Bytes>, Rejection> {
        let body = page.render().map_err(|_| Rejection::Internal)?;
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let length = response.body().len();
        self.describe(response.headers_mut(), length, form_target)?;
        Ok(response)
    }

    fn describe(
        &self,
        headers: &mut HeaderMap,
        length: usize,
        form_target: Option<&str>,
    ) -> Result<(), Rejection> {
        let digest = &self.digest;
        let (space, target) = form_target.map_or(("", ""), |target| (" ", target));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{digest}'; img-src 'self' data:; form-action 'self'{space}{target}; \
             frame-ancestors 'none'; base-uri 'none'"
        );
        let policy = HeaderValue::try_from(policy).map_err(|_| Rejection::Internal)?;
        headers.insert(CONTENT_TYPE, HTML);
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(header::CACHE_CONTROL, super::NO_STORE);
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        headers.insert(CROSS_ORIGIN_OPENER_POLICY, SAME_ORIGIN);
        headers.insert(REFERRER_POLICY, NO_REFERRER);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, super::answer::NOSNIFF);
        headers.insert(X_FRAME_OPTIONS, DENY);
        Ok(())
    }

    /// Makes a page of a refusal, for a person who opened one: the same status, fields and code, and no word more. With `login`,
    /// the address of the login page, it says what a person does who is not signed in, and not what a program does.
    #[must_use]
    pub fn refusal(
        &self,
        rejection: &Rejection,
        request_id: &RequestId,
        document: Response<Bytes>,
        login: Option<&str>,
    ) -> Response<Bytes> {
        let status = document.status();
        let page = RefusalPage {
            look: self,
            status: status.as_u16(),
            title: rejection.title(),
            detail: rejection.detail(),
            code: rejection.code(),
            request_id: request_id.as_str(),
            login,
        };
        match self.page(status, &page, None) {
            Ok(page) => instead_of(document, page),
            Err(_) => document,
        }
    }
}

impl Default for Look {
    fn default() -> Self {
        Self::new(TITLE, ACCENT)
    }
}

/// Puts a page in the place of a refusal's document: its status and its other fields stay.
#[must_use]
pub fn instead_of(document: Response<Bytes>, page: Response<Bytes>) -> Response<Bytes> {
    let (mut parts, _) = document.into_parts();
    for (name, value) in page.headers() {
        parts.headers.insert(name, value.clone());
    }
    parts.headers.append(VARY, VARIES);
    Response::from_parts(parts, page.into_body())
}

/// Whether an answer is a page.
#[must_use]
pub fn is_one(response: &Response<Bytes>) -> bool {
    response.headers().get(CONTENT_TYPE) == Some(&HTML)
}

/// Sends a browser elsewhere. `location` is an absolute URL, or a path of our own.
///
/// # Errors
/// [`Rejection::Internal`] where it cannot be written, which what [`RedirectTargets`](crate::policy::RedirectTargets) reads can.
pub fn redirect(status: StatusCode, location: &str) -> Result<Response<Bytes>, Rejection> {
    let location = HeaderValue::try_from(location).map_err(|_| Rejection::Internal)?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::CONTENT_LENGTH, 0.into());
    headers.insert(header::CACHE_CONTROL, super::NO_STORE);
    headers.insert(REFERRER_POLICY, NO_REFERRER);
    headers.append(VARY, VARIES);
    Ok(response)
}

#[cfg(test)]
mod tests;
