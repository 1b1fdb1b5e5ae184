//! The account page: who one is, and where one is signed in. A change of the password will have its form here.

use askama::Template;
use http::StatusCode;
use jiff::Timestamp;

use super::{BAD, Pages, logout};
use crate::{
    accounts::Accounts,
    portal::{
        endpoints::{Answered, Call, claims},
        forms,
    },
    respond::page::{Look, redirect},
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
    let claims = claims(&call)?;
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
    };
    pages.look.page(StatusCode::OK, &page, None)
}

/// Ends one session of the caller's own, or all.
pub(super) async fn submit(accounts: &Accounts, call: Call, pages: &Pages) -> Answered {
    let headers = &call.parts.headers;
    let [end] = forms::read(headers, accounts.settings(), &call.body, ["end"])?;
    let end = end.filter(|id| id.len() <= 64).ok_or(BAD)?;
    let claims = claims(&call)?;
    if *end == "all" {
        accounts.logout_all(&claims.subject).await?;
        return logout::signed_out(accounts, pages);
    }
    // Sought among the caller's own; one that has ended meanwhile needs nothing.
    accounts.end_session(&claims.subject, &end).await?;
    if claims.session.as_deref() == Some(end.as_str()) {
        return logout::signed_out(accounts, pages);
    }
    let account = format!("{}{}/account", pages.origin, pages.path);
    redirect(StatusCode::SEE_OTHER, &account)
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
