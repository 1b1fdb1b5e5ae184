//! The access log and its sink: what is slow or broken drops lines and stops nobody. And what the tests of telemetry share.

use std::{
    io,
    net::IpAddr,
    sync::mpsc,
    time::{Instant, SystemTime},
};

use http::{Method, StatusCode, Version};
use proptest::prelude::*;

use super::{settings::LogFormat, *};
use crate::policy::{Claims, Identity, IdentityHeaders};

/// A moment with a known text: 2026-01-02T03:04:05.678Z.
pub(super) const MOMENT: Duration = Duration::from_millis(1_767_323_045_678);

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A `GET` that was answered with 200 and took no route.
pub(super) fn record() -> Record {
    Record {
        started: Instant::now(),
        time: SystemTime::UNIX_EPOCH + MOMENT,
        request_id: RequestId::accept("r-1").unwrap(),
        peer: address("10.0.0.2"),
        client: Some(address("2001:db8::1")),
        method: Method::GET,
        version: Version::HTTP_2,
        trace: None,
        host: Some("app.example.com".into()),
        path: Some("/orders/7".into()),
        route: None,
        upstream: None,
        caller: None,
        status: StatusCode::OK,
        code: None,
        reason: None,
        unenforced: None,
        upstream_asked: None,
        upstream_time: None,
        bytes_in: 0,
        bytes_out: 12,
        ending: Ending::Complete,
    }
}

pub(super) fn silent() -> Arc<Telemetry> {
    let settings = LogSettings {
        access: false,
        ..LogSettings::default()
    };
    Telemetry::with_sink(&settings, Box::new(io::sink()))
}

pub(super) fn caller(claims: Claims) -> Arc<Identity> {
    Arc::new(Identity::assert_verified(claims, &IdentityHeaders::default()).unwrap())
}

/// The value of a series in the encoded text.
#[track_caller]
pub(super) fn check_series(telemetry: &Telemetry, series: &str, want: Option<&str>) {
    let text = telemetry.encode();
    let values: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .collect();
    let want: Vec<&str> = want.into_iter().collect();
    assert_eq!(values, want, "{series} in\n{text}");
}

/// Keeps what is written, for the test to read.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hangs in its first write until the test drops the sender.
struct Stalled(mpsc::Receiver<()>, Shared);

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.0.recv().is_ok() {}
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

fn dropped(telemetry: &Telemetry) -> u64 {
    telemetry.metrics.faults.log_dropped.get()
}

#[test]
fn log_4_stalled_sink_drops_and_counts_but_never_blocks() {
    const TOTAL: u64 = 30_000;
    let (stall, stalled) = mpsc::channel();
    let written = Shared::default();
    let sink = Stalled(stalled, written.clone());
    let telemetry = Telemetry::with_sink(&LogSettings::default(), Box::new(sink));
    // Were one of these to wait for the sink, the test would not end: only its last line lets the sink go on.
    for _ in 0..TOTAL {
        telemetry.record(record());
    }
    assert!(dropped(&telemetry) > TOTAL / 2, "{}", dropped(&telemetry));
    let log = telemetry.access_log.as_ref().unwrap();
    log.flush(Duration::from_millis(1));
    let text = telemetry.encode();
    let counted = format!("portcullis_log_dropped_total {}\n", dropped(&telemetry));
    assert!(text.contains(&counted), "{text}");
    // Requests were counted all the same.
    let series = "portcullis_requests_total{route=\"none\",method=\"GET\",status=\"200\"}";
    check_series(&telemetry, series, Some("30000"));

    drop(stall);
    log.flush(Duration::from_secs(60));
    let lines = u64::try_from(written.text().lines().count()).unwrap();
    assert_eq!(lines + dropped(&telemetry), TOTAL);
}

#[test]
fn log_4_lines_for_a_broken_sink_are_counted() {
    let telemetry = Telemetry::with_sink(&LogSettings::default(), Box::new(Broken));
    for _ in 0..10 {
        telemetry.record(record());
    }
    telemetry.flush();
    assert_eq!(dropped(&telemetry), 10);
}

#[test]
fn lines_come_in_order_and_flush_waits_for_them() {
    let written = Shared::default();
    let telemetry = Telemetry::with_sink(&LogSettings::default(), Box::new(written.clone()));
    assert!(telemetry.access_log());
    for bytes_in in 0..5000 {
        let record = Record {
            bytes_in,
            ..record()
        };
        telemetry.record(&record);
    }
    telemetry.flush();
    let text = written.text();
    let order: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["bytes_in"].as_u64().unwrap())
        .collect();
    assert!(order.iter().copied().eq(0..5000), "{order:?}");
    assert_eq!(dropped(&telemetry), 0);
}

#[test]
fn without_access_log_nothing_is_written_and_all_is_counted() {
    let written = Shared::default();
    let settings = LogSettings {
        access: false,
        ..LogSettings::default()
    };
    let telemetry = Telemetry::with_sink(&settings, Box::new(written.clone()));
    assert!(!telemetry.access_log());
    telemetry.record(record());
    telemetry.flush();
    assert_eq!(written.text(), "");
    let series = "portcullis_decisions_total{route=\"none\",code=\"admitted\"}";
    check_series(&telemetry, series, Some("1"));
}

#[test]
fn log_1_a_canary_in_token_cookie_or_query_is_never_written() {
    const CANARY: &str = "canary-7f3a";
    for format in [LogFormat::Json, LogFormat::Text] {
        let written = Shared::default();
        let settings = LogSettings {
            format,
            ..LogSettings::default()
        };
        let telemetry = Telemetry::with_sink(&settings, Box::new(written.clone()));
        let claims = Claims {
            issuer: "https://idp.example".into(),
            subject: "u-1".into(),
            token_id: Some(CANARY.into()),
            all: [("secret".to_owned(), CANARY.into())].into_iter().collect(),
            ..Claims::default()
        };
        for tail in ["?token=", "?", "#", "?a=b&session="] {
            telemetry.record(Record {
                host: Some(format!("{CANARY}:{CANARY}@app.example.com").into()),
                path: Some(format!("/auth/password/reset{tail}{CANARY}").into()),
                caller: Some(caller(claims.clone())),
                ..record()
            });
        }
        telemetry.flush();
        let text = written.text();
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("/auth/password/reset"), "{text}");
        assert!(!text.contains(CANARY), "{text}");
        assert!(!telemetry.encode().contains(CANARY));
    }
}

fn series(telemetry: &Telemetry) -> usize {
    let text = telemetry.encode();
    text.lines().filter(|line| !line.starts_with('#')).count()
}

/// Every label that requests can bring about, once.
fn saturated() -> (Arc<Telemetry>, Arc<RouteMetrics>) {
    let telemetry = silent();
    let route = telemetry.route("orders");
    let methods = "GET HEAD POST PUT DELETE PATCH OPTIONS CONNECT TRACE X";
    for method in methods.split(' ') {
        for status in 100..1000 {
            telemetry.record(Record {
                method: method.parse().unwrap(),
                status: StatusCode::from_u16(status).unwrap(),
                route: Some(Arc::clone(&route)),
                ..record()
            });
        }
    }
    (telemetry, route)
}

#[test]
fn log_5_strangers_make_no_series() {
    let (telemetry, route) = saturated();
    let before = series(&telemetry);
    // Ten methods with some sixty registered statuses and nine classes.
    assert!(before < 800, "{before}");
    let strange = ("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}", ".{0,40}", 100..1000u16);
    proptest!(|((method, text, status) in strange)| {
        let claims = Claims {
            subject: text.as_str().into(),
            ..Claims::default()
        };
        telemetry.record(Record {
            method: method.parse().unwrap(),
            host: Some(text.as_str().into()),
            path: Some(text.as_str().into()),
            status: StatusCode::from_u16(status).unwrap(),
            route: Some(Arc::clone(&route)),
            caller: Some(caller(claims)),
            ..record()
        });
    });
    assert_eq!(series(&telemetry), before);
}
