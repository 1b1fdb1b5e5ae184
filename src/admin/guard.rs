//! Who may talk to the admin listener: programs that were given its address, not pages in a browser (LOG-3).
//!
//! A page on a foreign site can make a browser beside this machine send requests here, under the site's own name when that
//! name is made to resolve to this machine (DNS rebinding). Such a request bears the site's name in `Host` or `Origin`.

use std::net::IpAddr;

use http::{HeaderMap, Request, Version, header};

use crate::policy::{HeadFault, Rejection};

/// Lets a request pass whose `Host` is an address or `localhost`, which no foreign page can bear, and whose `Origin`, if any,
/// is that same host.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Rejection> {
    let host = single(request.headers(), header::HOST)?;
    match host {
        // HTTP/1.0 has no `Host`, and no browser speaks it.
        None if request.version() == Version::HTTP_10 => {}
        None => return Err(Rejection::BadRequest(HeadFault::HostMissing)),
        Some(host) if is_own(host) => {}
        Some(_) => return Err(Rejection::OriginDenied),
    }
    if let Some(authority) = request.uri().authority()
        && !is_own(authority.as_str())
    {
        return Err(Rejection::OriginDenied);
    }
    match (single(request.headers(), header::ORIGIN)?, host) {
        (None, _) => Ok(()),
        (Some(origin), Some(host)) if is_same(origin, host) => Ok(()),
        (Some(_), _) => Err(Rejection::OriginDenied),
    }
}

/// The one value of a field, as text.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<&str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Rejection::BadRequest(HeadFault::RepeatedField));
    }
    let text = value.map(|value| value.to_str()).transpose();
    text.map_err(|_| Rejection::BadRequest(HeadFault::HostSyntax))
}

/// Whether `host[:port]` is `localhost` or an address: names that lie with us, not with whoever runs a domain.
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bracketed = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    match bracketed {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => name.eq_ignore_ascii_case("localhost") || matches!(name.parse(), Ok(IpAddr::V4(_))),
    }
}

fn is_same(origin: &str, host: &str) -> bool {
    origin
        .strip_prefix("http://")
        .is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_head(version: Version, target: &str, fields: &[(&str, &str)], want: Option<u16>) {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let got = check(&request.body(()).unwrap());
        assert_eq!(got.err().map(|rejection| rejection.status().as_u16()), want);
    }

    #[track_caller]
    fn check_host(host: &str, want: Option<u16>) {
        check_head(Version::HTTP_11, "/metrics", &[("host", host)], want);
    }

    #[test]
    fn log_3_foreign_hosts_are_refused() {
        for host in [
            "evil.example",
            "evil.example:9901",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "[::1].evil.example",
            "[127.0.0.1]",
            "::1",
            "127.1",
            "0x7f000001",
            "2130706433",
            "",
            ":9901",
            "localhost:9901:1",
            "localhost:http",
            "localhost.",
        ] {
            check_host(host, Some(403));
        }
    }

    #[test]
    fn log_3_missing_or_repeated_host_is_refused() {
        check_head(Version::HTTP_11, "/", &[], Some(400));
        let twice = [("host", "localhost"), ("host", "evil.example")];
        check_head(Version::HTTP_11, "/", &twice, Some(400));
        check_head(Version::HTTP_11, "/", &[("host", "\u{e9}")], Some(400));
    }

    #[test]
    fn log_3_foreign_authority_of_the_target_is_refused() {
        let host = [("host", "localhost")];
        check_head(Version::HTTP_11, "http://evil.example/", &host, Some(403));
        check_head(Version::HTTP_11, "http://localhost:1/", &host, None);
    }

    #[test]
    fn log_3_foreign_origins_are_refused() {
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost",
            "https://localhost:9901",
            "http://127.0.0.1:9901",
            "http://localhost:9901.evil.example",
            "",
        ] {
            let fields = [("host", "localhost:9901"), ("origin", origin)];
            check_head(Version::HTTP_11, "/", &fields, Some(403));
        }
        let without_host = [("origin", "http://localhost")];
        check_head(Version::HTTP_10, "/", &without_host, Some(403));
    }

    #[test]
    fn addresses_and_localhost_pass() {
        for host in [
            "localhost",
            "LOCALHOST:9901",
            "127.0.0.1",
            "127.0.0.1:9901",
            "10.1.2.3:9901",
            "[::1]",
            "[::1]:9901",
            "[fd00::5]:1",
        ] {
            check_host(host, None);
        }
        check_head(Version::HTTP_10, "/", &[], None);
        let same = [
            ("host", "localhost:9901"),
            ("origin", "http://localhost:9901"),
        ];
        check_head(Version::HTTP_11, "/", &same, None);
    }
}
