//! The pages at which browsers sign in, and where they are sent for it. No page has a script.
//!
//! Sign-in happens at the origin of `public_url` alone. A browser that was turned away elsewhere is sent there
//! ([`Pages::sign_in`]), and comes back with a session cookie of the host that it came from ([`handover`]). One whose session
//! cookie has expired goes through [`renewal`] and sees no form.

mod account;
pub(super) mod form;
pub(super) mod handover;
mod login;
mod logout;
mod passwords;
mod registration;
mod renewal;

use std::{collections::HashSet, sync::Arc};

use aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use url::{Url, form_urlencoded};

use super::{
    cookies,
    endpoints::{Answered, Call},
    logo::Logo,
};
use crate::{
    accounts::{
        Accounts,
        settings::{AccountSettings, PageSettings},
    },
    policy::{
        HeadFault, HostPattern, RedirectTarget, RedirectTargets, Rejection, Route, head,
        headers::HANDOVER_COOKIE,
    },
    respond::{
        page::{Look, redirect},
        texts::Texts,
    },
};

const BAD: Rejection = Rejection::BadRequest(HeadFault::Body);

/// How long a browser may take from being sent away until it is back signed in, in seconds.
const AWAY: u64 = 600;

/// What is done at the pages.
#[derive(Debug, Clone, Copy)]
pub(super) enum Page {
    Account,
    Arrive,
    ChangeAccount,
    /// Asks for a link to a new password.
    Forgot,
    Handover,
    Login,
    Logout,
    Register,
    Renew,
    /// Where such a link leads.
    Reset,
    /// The form of [`Page::Forgot`]. Its row is that of the request for programs.
    SubmitForgot,
    /// The login page's form. Its row is that of the login for programs.
    SubmitLogin,
    /// The logout page's form, likewise.
    SubmitLogout,
    /// The registration's form, likewise.
    SubmitRegister,
    /// The form of [`Page::Reset`], likewise.
    SubmitReset,
    /// The form of [`Page::Verify`], likewise.
    SubmitVerify,
    /// Where the link of a registration leads.
    Verify,
}

/// What the pages of one configuration need to know.
#[derive(Debug)]
pub struct Pages {
    /// How they look.
    pub look: Look,
    /// The origin of `public_url`, where they are.
    pub origin: Box<str>,
    /// Its host.
    host: Box<str>,
    /// The prefix of the built-in routes.
    path: Box<str>,
    targets: RedirectTargets,
    /// The other hosts that routes name, and their origins.
    others: Vec<(Box<str>, Box<str>)>,
}

impl Pages {
    /// Makes the pages of these accounts at `public_url`. Browsers are sent back to the exact hosts that `routes` name, at the
    /// port of `public_url`.
    #[must_use]
    pub fn new(
        accounts: &AccountSettings,
        settings: &PageSettings,
        public_url: &Url,
        routes: &[Arc<Route>],
    ) -> Self {
        let own = public_url.host_str().unwrap_or_default();
        let mut others: Vec<(Box<str>, Box<str>)> = Vec::new();
        let mut listed = Vec::new();
        // Each once, found without comparing each with each: there may be ten thousand.
        let mut known = HashSet::from([own]);
        for host in routes.iter().flat_map(|route| &route.hosts) {
            let HostPattern::Exact(host) = host else {
                continue; // a redirect goes to an exact origin or nowhere (URI-6)
            };
            if !known.insert(host) {
                continue;
            }
            let mut url = public_url.clone();
            if url.set_host(Some(host)).is_ok() {
                others.push((host.clone(), url.origin().ascii_serialization().into()));
                listed.push(url);
            }
        }
        Self {
            look: look(settings),
            origin: public_url.origin().ascii_serialization().into(),
            host: own.into(),
            path: accounts.path.clone(),
            targets: RedirectTargets::new(public_url, &listed),
            others,
        }
    }

    /// Where a browser is sent that opens a page of `host` and must sign in first, with the cookie that it needs to come back.
    /// `None` where nobody could send it back: on a host that routes name by a wildcard alone.
    ///
    /// # Errors
    /// [`Rejection::Internal`] where the address cannot be written.
    pub fn sign_in(
        &self,
        route: &Route,
        host: &str,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Response<Bytes>>, Rejection> {
        let other = self.others.iter().find(|(other, _)| **other == *host);
        if let Some((_, origin)) = other {
            return self.send_to_handover(origin, target, headers).map(Some);
        }
        if *host != *self.host && !route.hosts.is_empty() {
            return Ok(None);
        }
        let location = format!("{}{}", self.origin, self.login_path(target));
        redirect(StatusCode::FOUND, &location).map(Some)
    }

    /// The address of the login page.
    #[must_use]
    pub fn login_url(&self) -> String {
        format!("{}{}/login", self.origin, self.path)
    }

    /// The other host's browser takes a random word with it as a cookie, and its digest goes along: whoever comes back
    /// without the word is another browser.
    fn send_to_handover(
        &self,
        origin: &str,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Bytes>, Rejection> {
        // Of two tabs that are sent away at once, both shall come back.
        let word = match cookies::find(headers, HANDOVER_COOKIE)? {
            Some(word) if is_word(&word) => word.to_string(),
            _ => random_word()?,
        };
        let to = query(&[("to", &format!("{origin}{target}")), ("bind", &hash(&word))]);
        let location = format!("{}{}/handover?{to}", self.origin, self.path);
        let response = redirect(StatusCode::FOUND, &location)?;
        cookies::set_host_cookie(response, HANDOVER_COOKIE, &word, AWAY)
    }

    /// Where somebody is sent once he has signed in: the page that he wanted, if it is one of ours (URI-6).
    fn next(&self, text: Option<&str>) -> Option<RedirectTarget> {
        self.targets.read(text?)
    }

    /// The same, or the account page.
    fn goal(&self, next: Option<&RedirectTarget>) -> String {
        match next {
            Some(next) => next.to_string(),
            None => format!("{}{}/account", self.origin, self.path),
        }
    }

    fn login_path(&self, next: &str) -> String {
        format!("{}/login?{}", self.path, query(&[("next", next)]))
    }

    /// Where the login form may lead by way of redirects, beside the own origin: browsers hold a form's redirects to the
    /// policy of its page.
    fn form_target(&self, next: Option<&RedirectTarget>) -> Option<&str> {
        let next = next?.as_str();
        let handover = format!("{}{}/handover?", self.origin, self.path);
        let to = match next.strip_prefix(&*handover) {
            Some(query) => form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "to"),
            None => None,
        };
        let goal = to.as_ref().map_or(next, |(_, to)| to);
        let origin = Url::parse(goal).ok()?.origin().ascii_serialization();
        let mut others = self.others.iter();
        let (_, other) = others.find(|(_, other)| **other == *origin)?;
        Some(other)
    }

    /// Sends a browser that opened a page at another of our hosts to the same page at `public_url`.
    fn elsewhere(&self, call: &Call) -> Option<Answered> {
        let target = call.parts.uri.path_and_query()?.as_str();
        self.away(call, target)
    }

    /// The same for a page whose query may have a secret, which no redirect repeats (SESS-7). Links of ours lead to
    /// `public_url` at once.
    fn elsewhere_bare(&self, call: &Call) -> Option<Answered> {
        self.away(call, call.parts.uri.path())
    }

    fn away(&self, call: &Call, target: &str) -> Option<Answered> {
        let authority = call.parts.headers.get(header::HOST)?.to_str().ok()?;
        let host = head::host(authority)?;
        if *host == *self.host {
            return None;
        }
        Some(redirect(
            StatusCode::FOUND,
            &format!("{}{target}", self.origin),
        ))
    }
}

/// How the pages look. The picture is read anew with each configuration; `check` has refused one that cannot be.
fn look(settings: &PageSettings) -> Look {
    let mut look = Look::new(&settings.title, &settings.accent);
    match settings.logo.as_deref().map(Logo::read).transpose() {
        Ok(logo) => look.logo = logo.map(|logo| logo.0),
        Err(error) => tracing::error!(%error, "the pages are without their logo"),
    }
    look
}

/// Does what a page is for.
pub(super) async fn serve(accounts: &Accounts, page: Page, call: Call) -> Answered {
    let pages = call.context.pages.clone().ok_or(Rejection::RouteNotFound)?;
    let pages = &*pages;
    match page {
        Page::Account => account::show(accounts, call, pages).await,
        Page::Arrive => handover::arrive(accounts, &call, pages),
        Page::ChangeAccount => account::submit(accounts, call, pages).await,
        Page::Forgot => passwords::show_forgot(&call, pages),
        Page::Handover => handover::begin(accounts, &call, pages),
        Page::Login => login::show(accounts, &call, pages),
        Page::Logout => logout::show(&call, pages),
        Page::Register => registration::show_register(accounts, &call, pages),
        Page::Renew => renewal::renew(accounts, call, pages).await,
        Page::Reset => passwords::show_reset(accounts, &call, pages),
        Page::SubmitForgot => passwords::submit_forgot(accounts, call, pages).await,
        Page::SubmitLogin => login::submit(accounts, call, pages).await,
        Page::SubmitLogout => logout::submit(accounts, call, pages).await,
        Page::SubmitRegister => registration::submit_register(accounts, call, pages).await,
        Page::SubmitReset => passwords::submit_reset(accounts, call, pages).await,
        Page::SubmitVerify => registration::submit_verify(accounts, call, pages).await,
        Page::Verify => registration::show_verify(&call, pages),
    }
}

/// The one value of a parameter of the query; a repeated one is none.
fn parameter(call: &Call, name: &str) -> Option<String> {
    let query = call.parts.uri.query()?;
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
    let (_, value) = values.next()?;
    values.next().is_none().then(|| value.into_owned())
}

/// A field for a password that is to be chosen.
fn new_password<'a>(accounts: &Accounts, label: &'a str, texts: &Texts) -> form::Field<'a> {
    form::Field {
        name: if label == texts.new_password {
            "new_password"
        } else {
            "password"
        },
        label,
        kind: "password",
        value: "",
        autocomplete: "new-password",
        hint: Some(form::password_hint(accounts.settings().password_min, texts)),
        most: 256,
    }
}

/// What was done just now, by the word that a redirect of ours added: one of our own sentences, or nothing.
fn done(call: &Call, texts: &Texts) -> Option<&'static str> {
    match parameter(call, "done")?.as_str() {
        "password" => Some(texts.password_done),
        "registered" => Some(texts.registered),
        _ => None,
    }
}

fn query(pairs: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    query.finish()
}

/// 32 random bytes in base64url.
fn random_word() -> Result<String, Rejection> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| Rejection::Internal)?;
    Ok(BASE64URL.encode(bytes))
}

fn is_word(text: &str) -> bool {
    let mut bytes = [0; 32];
    text.len() == 43 && BASE64URL.decode_slice(text, &mut bytes) == Ok(32)
}

fn hash(word: &str) -> String {
    BASE64URL.encode(digest::digest(&digest::SHA256, word.as_bytes()))
}
