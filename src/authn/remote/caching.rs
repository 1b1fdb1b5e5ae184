//! How long does an answer say that it is good (RFC 9111 §4.2), and how long is it taken for?

use std::time::Duration;

use http::{
    HeaderMap, HeaderName,
    header::{AGE, CACHE_CONTROL, DATE, EXPIRES},
};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};

use crate::authn::settings::RemoteSettings;

/// Where the answer says nothing.
const UNTOLD: Duration = Duration::from_secs(15 * 60);

/// The wait until the next refresh, within the bounds of the configuration.
pub(super) fn refresh_after(headers: &HeaderMap, settings: &RemoteSettings) -> Duration {
    let told = lifetime(headers).unwrap_or(UNTOLD);
    // The configuration sees to it that the least is not more than the most.
    told.min(settings.refresh_max).max(settings.refresh_min)
}

/// `Cache-Control` before `Expires`; what an intermediary kept is as much older.
fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let mut max_age = None;
    for field in headers.get_all(CACHE_CONTROL) {
        for directive in field.to_str().ok()?.split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            if directive == "no-cache" || directive == "no-store" {
                return Some(Duration::ZERO);
            }
            if let Some(seconds) = directive.strip_prefix("max-age=") {
                max_age = Some(seconds.trim_matches('"').parse().ok()?);
            }
        }
    }
    if let Some(seconds) = max_age {
        let age = text(headers, &AGE).and_then(|age| age.trim().parse().ok());
        return Some(
            Duration::from_secs(seconds).saturating_sub(Duration::from_secs(age.unwrap_or(0))),
        );
    }
    let expires = text(headers, &EXPIRES)?;
    // RFC 9111 §5.3: an invalid date, the much-used `0` among them, is one in the past.
    let Some(expires) = date(expires) else {
        return Some(Duration::ZERO);
    };
    let now = text(headers, &DATE)
        .and_then(date)
        .unwrap_or_else(Timestamp::now);
    Some(Duration::try_from(expires.duration_since(now)).unwrap_or_default())
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// An HTTP date: the form of RFC 5322, in GMT.
fn date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;
    use crate::authn::remote::tests::settings;

    #[track_caller]
    fn check(fields: &[(HeaderName, &str)], want: Option<u64>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(
            lifetime(&headers),
            want.map(Duration::from_secs),
            "{fields:?}"
        );
    }

    #[test]
    fn key_2_what_answers_say_of_their_age_is_read() {
        const DAY: &str = "Thu, 26 Nov 2026 10:00:00 GMT";
        const LATER: &str = "Thu, 26 Nov 2026 10:10:00 GMT";
        check(&[], None);
        check(&[(CACHE_CONTROL, "public")], None);
        check(&[(CACHE_CONTROL, "public, max-age=600")], Some(600));
        check(&[(CACHE_CONTROL, "Max-Age=\"600\"")], Some(600));
        check(&[(CACHE_CONTROL, "max-age=600"), (AGE, "590")], Some(10));
        check(&[(CACHE_CONTROL, "max-age=600"), (AGE, "700")], Some(0));
        check(&[(CACHE_CONTROL, "max-age=600, no-cache")], Some(0));
        check(&[(CACHE_CONTROL, "no-store")], Some(0));
        check(&[(CACHE_CONTROL, "max-age=-1")], None);
        check(&[(CACHE_CONTROL, "max-age=99999999999999999999999")], None);
        check(&[(EXPIRES, LATER), (DATE, DAY)], Some(600));
        check(&[(EXPIRES, DAY), (DATE, LATER)], Some(0));
        check(&[(EXPIRES, "0")], Some(0));
        check(&[(EXPIRES, "soon")], Some(0));
        let both = [(CACHE_CONTROL, "max-age=60"), (EXPIRES, LATER), (DATE, DAY)];
        check(&both, Some(60));
    }

    #[test]
    fn key_2_the_configuration_bounds_what_answers_say() {
        let settings = settings(http::Uri::from_static("http://127.0.0.1:1/"));
        let after = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
            refresh_after(&headers, &settings)
        };
        assert_eq!(after("max-age=0"), settings.refresh_min);
        assert_eq!(after("max-age=31536000"), settings.refresh_max);
        assert_eq!(after("max-age=1200"), Duration::from_secs(1200));
        assert_eq!(refresh_after(&HeaderMap::new(), &settings), UNTOLD);
    }
}
