//! One sign-in for every host that routes name: a code that is good once, for one host and one browser.
//!
//! 1. A browser is turned away on `app.example`. It gets a random word as a cookie of that host, and is sent to
//!    [`begin`] at `public_url` with the word's digest.
//! 2. There its session cookie is looked at; without one it signs in first. A code is made, and kept beside the access token,
//!    the host and the digest for half a minute.
//! 3. It comes back to [`arrive`] on `app.example` with the code. Host and word must fit; then the access token becomes a
//!    cookie of that host alone.
//!
//! No token is in an address (SESS-7). A code that a stranger made is of no use in another browser, which has not the word. All
//! hosts share the one session, so its end ends them all.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{StatusCode, header};
use zeroize::Zeroizing;

use super::{Pages, hash, is_word, parameter, query, random_word, renewal};
use crate::{
    accounts::Accounts,
    authn::credential,
    policy::{
        Rejection,
        headers::{HANDOVER_COOKIE, SESSION_COOKIE},
    },
    portal::{
        cookies,
        endpoints::{Answered, Call},
    },
    respond::page::redirect,
};

/// How long a code is good.
const LIFE: Duration = Duration::from_secs(30);

/// Codes at once: each needs a good session cookie, and some 2 KiB.
const CODES_MAX: usize = 10_000;

/// Codes that were handed out and have not come back.
#[derive(Default)]
pub(in crate::portal) struct Handovers(Mutex<HashMap<Box<str>, Handover>>);

/// What a code is good for.
struct Handover {
    /// The origin of the host.
    origin: Box<str>,
    /// The digest of the browser's word.
    bind: Box<str>,
    /// The access token that its cookie will carry.
    token: Zeroizing<String>,
    expires_at: SystemTime,
}

impl Handovers {
    /// Keeps what the code is good for, under the digest of the code.
    fn add(&self, code: &str, handover: Handover, now: SystemTime) -> Result<(), Rejection> {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if codes.len() >= CODES_MAX {
            codes.retain(|_, one| one.expires_at > now);
        }
        if codes.len() >= CODES_MAX {
            return Err(Rejection::Overloaded);
        }
        codes.insert(hash(code).into(), handover);
        Ok(())
    }

    /// Takes it back: a code is good once, whatever comes of it.
    fn take(&self, code: &str, now: SystemTime) -> Option<Handover> {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let handover = codes.remove(hash(code).as_str())?;
        (handover.expires_at > now).then_some(handover)
    }
}

/// At `public_url`: sends a browser that is signed in back to the host that it came from, and others to sign in first.
pub(super) fn begin(accounts: &Accounts, call: &Call, pages: &Pages) -> Answered {
    if let Some(answer) = pages.elsewhere(call) {
        return answer;
    }
    let to = pages.next(parameter(call, "to").as_deref());
    let bind = parameter(call, "bind").filter(|bind| is_word(bind));
    let (Some(to), Some(bind)) = (to, bind) else {
        return Err(super::BAD);
    };
    let others = pages.others.iter();
    let mut split = others.filter_map(|(_, origin)| {
        let target = to.as_str().strip_prefix(&**origin)?;
        target.starts_with('/').then_some((origin, target))
    });
    let (origin, target) = split.next().ok_or(super::BAD)?;
    if !super::login::is_signed_in(accounts, call)? {
        let here = call.parts.uri.path_and_query().ok_or(super::BAD)?.as_str();
        let login = format!("{}{}", pages.origin, pages.login_path(here));
        return redirect(StatusCode::FOUND, &login);
    }
    let token = credential::session(&call.parts.headers)?.unwrap_or_default();
    let code = random_word()?;
    let now = accounts.time();
    let handover = Handover {
        origin: origin.clone(),
        bind: bind.into(),
        token: Zeroizing::new(token.to_owned()),
        expires_at: now.checked_add(LIFE).ok_or(Rejection::Internal)?,
    };
    call.context.handovers.add(&code, handover, now)?;
    let arrival = query(&[("code", &code), ("next", target)]);
    redirect(
        StatusCode::FOUND,
        &format!("{origin}{}/arrive?{arrival}", pages.path),
    )
}

/// On the other host: makes the session cookie of a browser that comes back with a code of its own.
pub(super) fn arrive(accounts: &Accounts, call: &Call, pages: &Pages) -> Answered {
    let headers = &call.parts.headers;
    let now = accounts.time();
    let code = parameter(call, "code").filter(|code| is_word(code));
    let handover = code.and_then(|code| call.context.handovers.take(&code, now));
    let word = cookies::find(headers, HANDOVER_COOKIE)?.filter(|word| is_word(word));
    let (Some(handover), Some(word)) = (handover, word) else {
        return renewal::looping(pages);
    };
    let authority = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let here = format!(
        "https://{}",
        authority.unwrap_or_default().to_ascii_lowercase()
    );
    if *here != *handover.origin || *hash(&word) != *handover.bind {
        return renewal::looping(pages);
    }
    let context = &call.context;
    let budget = context.bad_tokens.of(context.client);
    let identity = context
        .authn
        .verify_session(&handover.token, now, &budget)?;
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let life = identity.claims().expires_at.saturating_sub(seconds);
    // A path of this very host: read as one, it cannot lead elsewhere.
    let next = parameter(call, "next").filter(|next| next.starts_with('/'));
    let next = pages.next(next.as_deref());
    let next = next
        .as_ref()
        .and_then(|next| next.as_str().strip_prefix(&*pages.origin));
    let location = format!("{}{}", handover.origin, next.unwrap_or("/"));
    let response = redirect(StatusCode::SEE_OTHER, &location)?;
    let response = cookies::set_host_cookie(response, SESSION_COOKIE, &handover.token, life)?;
    cookies::set_host_cookie(response, HANDOVER_COOKIE, "", 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handover(expires_at: SystemTime) -> Handover {
        Handover {
            origin: "https://app.example".into(),
            bind: "x".into(),
            token: Zeroizing::new("a.b.c".to_owned()),
            expires_at,
        }
    }

    #[test]
    fn sess_7_a_code_is_good_once_and_not_for_long() {
        let codes = Handovers::default();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        codes.add("one", handover(now + LIFE), now).unwrap();
        assert!(codes.take("two", now).is_none());
        assert!(codes.take("one", now).is_some());
        assert!(codes.take("one", now).is_none());
        codes.add("old", handover(now + LIFE), now).unwrap();
        assert!(codes.take("old", now + LIFE).is_none());
        assert!(codes.take("old", now).is_none());
    }

    #[test]
    fn codes_are_bounded_and_old_ones_make_room() {
        let codes = Handovers::default();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for number in 0..CODES_MAX {
            codes
                .add(&number.to_string(), handover(now + LIFE), now)
                .unwrap();
        }
        let full = codes.add("x", handover(now + LIFE), now);
        assert_eq!(full, Err(Rejection::Overloaded));
        codes
            .add("x", handover(now + 2 * LIFE), now + LIFE)
            .unwrap();
        assert_eq!(codes.0.lock().unwrap().len(), 1);
    }
}
