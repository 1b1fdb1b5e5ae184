//! The account page: who one is, and where one is signed in. The password is changed here.

use askama::Template;
use http::StatusCode;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{BAD, Pages, form, logout};
use crate::{
    accounts::{Accounts, ChangePassword, passwords::Password},
    policy::Rejection,
    portal::{
        cookies,
        endpoints::{Answered, Call, claims},
        forms,
    },
    respond::{
        self,
        page::{Look, redirect},
    },
    store::Session,
};

/// How much of a device's own description is shown, in characters.
const DEVICE_CHARS_MAX: usize = 60;

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage<'a> {
    look: &'a Look,
    path: &'a str,
    username: &'a str,
    name: Option<&'a str>,
    email: Option<&'a str>,
    roles: String,
    sessions: Vec<Row<'a>>,
    /// Why the password was not changed.
    error: Option<String>,
    /// What was done just now.
    done: Option<&'static str>,
    password_hint: String,
}

/// A session, as it is shown.
struct Row<'a> {
    id: &'a str,
    device: String,
    ip: &'a str,
    created: String,
    created_shown: String,
    last_used: String,
    last_used_shown: String,
    is_current: bool,
}

/// Shows the page to whoever is signed in; others do not come this far.
pub(super) async fn show(accounts: &Accounts, call: Call, pages: &Pages) -> Answered {
    if let Some(answer) = pages.elsewhere(&call) {
        return answer;
    }
    let done = super::done(&call, pages.look.texts);
    write(accounts, &call, pages, (StatusCode::OK, None, done)).await
}

async fn write(
    accounts: &Accounts,
    call: &Call,
    pages: &Pages,
    (status, error, done): (StatusCode, Option<String>, Option<&'static str>),
) -> Answered {
    let claims = claims(call)?;
    let sessions = accounts.sessions(&claims.subject).await?;
    let current = claims.session.as_deref();
    let page = AccountPage {
        look: &pages.look,
        path: &pages.path,
        username: claims.user.as_deref().unwrap_or(&claims.subject),
        name: claims.all.get("name").and_then(|name| name.as_str()),
        email: claims.email.as_deref(),
        roles: claims.roles.join(", "),
        sessions: sessions
            .iter()
            .map(|session| row(session, current))
            .collect(),
        error,
        done,
        password_hint: form::password_hint(accounts.settings().password_min, pages.look.texts),
    };
    pages.look.page(status, &page, None)
}

/// Changes the password of the caller, ends one of his sessions, or all.
///
/// The route over passwords for programs takes no cookie, so the form of this page is sent here.
pub(super) async fn submit(accounts: &Accounts, call: Call, pages: &Pages) -> Answered {
    let headers = &call.parts.headers;
    let names = ["end", "current_password", "new_password"];
    let fields = forms::read(headers, accounts.settings(), &call.body, names)?;
    match fields {
        [Some(end), None, None] => self::end(accounts, &call, pages, &end).await,
        [None, Some(current), Some(new)] => change(accounts, &call, pages, (current, new)).await,
        _ => Err(BAD),
    }
}

async fn end(accounts: &Accounts, call: &Call, pages: &Pages, end: &str) -> Answered {
    if end.len() > 64 {
        return Err(BAD);
    }
    let claims = claims(call)?;
    if end == "all" {
        accounts.logout_all(&claims.subject).await?;
        return logout::signed_out(accounts, pages);
    }
    // Sought among the caller's own; one that has ended meanwhile needs nothing.
    accounts.end_session(&claims.subject, end).await?;
    if claims.session.as_deref() == Some(end) {
        return logout::signed_out(accounts, pages);
    }
    let account = format!("{}{}/account", pages.origin, pages.path);
    redirect(StatusCode::SEE_OTHER, &account)
}

type Secret = Zeroizing<String>;

/// The session of this browser goes on, all others end (AUTH-9).
async fn change(
    accounts: &Accounts,
    call: &Call,
    pages: &Pages,
    (current, new): (Secret, Secret),
) -> Answered {
    let claims = claims(call)?;
    // Every token of ours names its session.
    let session_id = claims.session.as_deref().ok_or(Rejection::Internal)?;
    let device = cookies::device(&call.parts.headers)?;
    let changed = match (Password::new(current), Password::new(new)) {
        (Ok(current), Ok(new)) => {
            let change = ChangePassword {
                user_id: &claims.subject,
                session_id,
                current,
                new,
                device: device.as_ref(),
                ip: call.context.client.ip(),
            };
            accounts.change_password(change).await
        }
        (_, Err(error)) => Err(error.into()),
        (Err(_), _) => Err(Rejection::InvalidCredentials),
    };
    let rejection = match changed {
        Ok(device) => {
            let account = format!("{}{}/account?done=password", pages.origin, pages.path);
            return cookies::set_device(redirect(StatusCode::SEE_OTHER, &account)?, &device);
        }
        Err(rejection) => rejection,
    };
    let texts = pages.look.texts;
    let error = if rejection == Rejection::InvalidCredentials {
        texts.current_wrong.into()
    } else {
        form::told(&rejection, texts)
    };
    let document = respond::refusal(&rejection, &call.context.request_id);
    let shown = (document.status(), Some(error), None);
    let page = write(accounts, call, pages, shown).await?;
    Ok(respond::page::instead_of(document, page))
}

fn row<'a>(session: &'a Session, current: Option<&str>) -> Row<'a> {
    let (created, created_shown) = time(session.created_at);
    let (last_used, last_used_shown) = time(session.last_used_at);
    Row {
        id: &session.id,
        device: device(&session.device),
        ip: &session.ip,
        created,
        created_shown,
        last_used,
        last_used_shown,
        is_current: current == Some(&*session.id),
    }
}

/// A time for machines (RFC 3339), and for people.
fn time(seconds: u64) -> (String, String) {
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    let Some(time) = time else {
        return (String::new(), String::new());
    };
    (
        time.to_string(),
        time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

/// What a user agent is called by people: `Firefox, Linux`. One that is not known is shown as it calls itself, cut.
fn device(agent: &str) -> String {
    const BROWSERS: [(&str, &str); 6] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 7] = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let find = |table: &[(&str, &'static str)]| {
        let mut rows = table.iter();
        rows.find(|(sign, _)| agent.contains(sign))
            .map(|(_, name)| *name)
    };
    match (find(&BROWSERS), find(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser}, {system}"),
        _ => agent.chars().take(DEVICE_CHARS_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_called_by_their_names() {
        for (agent, want) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
                "Chrome, Linux",
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
                "Firefox, Linux",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari, iPhone",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36 Edg/142.0",
                "Edge, Windows",
            ),
            ("curl/8.14.1", "curl/8.14.1"),
            ("unknown", "unknown"),
        ] {
            assert_eq!(device(agent), want);
        }
        assert_eq!(device(&"é".repeat(200)).chars().count(), DEVICE_CHARS_MAX);
    }

    #[test]
    fn times_are_shown_to_the_minute() {
        let (machine, person) = time(1_800_000_000);
        assert_eq!(
            (&*machine, &*person),
            ("2027-01-15T08:00:00Z", "2027-01-15 08:00 UTC")
        );
        assert_eq!(time(u64::MAX), (String::new(), String::new()));
    }
}
