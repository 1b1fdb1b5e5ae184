//! LOG-2: whatever strangers write, an exchange is one line.

use std::sync::Arc;

use http::{Method, StatusCode};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    policy::Claims,
    telemetry::{
        Ending,
        tests::{address, caller, record, silent},
    },
};

const TOOK: Duration = Duration::from_nanos(1_234_567);

fn line(format: LogFormat, record: &Record) -> String {
    let mut out = String::new();
    write(&mut out, format, record, TOOK);
    out
}

fn full() -> Record {
    let telemetry = silent();
    let claims = Claims {
        issuer: "https://idp.example/realms/corp".into(),
        subject: "7d2".into(),
        user: Some("ada".into()),
        email: Some("ada@example.com".into()),
        session: Some("s-9".into()),
        ..Claims::default()
    };
    Record {
        method: Method::POST,
        route: Some(telemetry.route("orders")),
        upstream: Some(telemetry.upstream("legacy", "127.0.0.1:9000")),
        caller: Some(caller(claims)),
        status: StatusCode::FORBIDDEN,
        code: Some("claim_mismatch"),
        reason: Some("audience"),
        upstream_time: Some(Duration::from_micros(42)),
        bytes_in: 5,
        ending: Ending::ClientGone,
        ..record()
    }
}

#[test]
fn a_full_line_has_every_field() {
    let want = concat!(
        r#"{"time":"2026-01-02T03:04:05.678Z","request_id":"r-1","client":"2001:db8::1","peer":"10.0.0.2","#,
        r#""method":"POST","host":"app.example.com","path":"/orders/7","protocol":"HTTP/2.0","#,
        r#""route":"orders","upstream":"legacy","status":403,"code":"claim_mismatch","reason":"audience","#,
        r#""user":{"issuer":"https://idp.example/realms/corp","subject":"7d2"},"session":"s-9","#,
        r#""duration_ms":1.234,"upstream_ms":0.042,"bytes_in":5,"bytes_out":12,"ending":"client_gone"}"#,
        "\n"
    );
    assert_eq!(line(LogFormat::Json, &full()), want);
}

#[test]
fn a_bare_line_leaves_out_what_is_not_known() {
    let record = Record {
        client: None,
        host: None,
        path: None,
        ..record()
    };
    let want = concat!(
        r#"{"time":"2026-01-02T03:04:05.678Z","request_id":"r-1","peer":"10.0.0.2","method":"GET","#,
        r#""protocol":"HTTP/2.0","status":200,"duration_ms":1.234,"bytes_in":0,"bytes_out":12,"ending":"complete"}"#,
        "\n"
    );
    assert_eq!(line(LogFormat::Json, &record), want);
    let want = "2026-01-02T03:04:05.678Z 200 GET -- HTTP/2.0 1.234ms client=10.0.0.2 in=0 out=12 ending=complete id=r-1\n";
    assert_eq!(line(LogFormat::Text, &record), want);
}

#[test]
fn text_is_one_line_for_people() {
    let want = concat!(
        "2026-01-02T03:04:05.678Z 403 POST app.example.com/orders/7 HTTP/2.0 1.234ms client=2001:db8::1",
        r#" route="orders" upstream="legacy" code="claim_mismatch" reason="audience""#,
        r#" issuer="https://idp.example/realms/corp" subject="7d2" session="s-9" upstream_ms=0.042"#,
        " in=5 out=12 ending=client_gone id=r-1\n"
    );
    assert_eq!(line(LogFormat::Text, &full()), want);
}

#[test]
fn a_clock_beyond_the_calendar_does_not_panic() {
    let record = Record {
        time: std::time::UNIX_EPOCH + Duration::from_secs(u64::MAX >> 8),
        ..record()
    };
    assert!(line(LogFormat::Json, &record).contains(r#""time":"1970-01-01T00:00:00.000Z""#));
}

#[test]
fn log_2_controls_separators_and_direction_marks_are_escaped() {
    let check = |text: &str, want: &str| {
        let mut out = String::new();
        escape(&mut out, text);
        assert_eq!(out, want);
    };
    check("\u{1b}[31m", "\\u001b[31m");
    check("a\r\nb\tc\0", "a\\u000d\\u000ab\\u0009c\\u0000");
    check("\u{7f}\u{85}\u{9b}", "\\u007f\\u0085\\u009b");
    check(
        "\u{2028}\u{2029}\u{202e}\u{2066}",
        "\\u2028\\u2029\\u202e\\u2066",
    );
    check("\"\\/", "\\\"\\\\/");
    check("é😀", "é😀");
}

#[test]
fn log_2_fields_are_cut_at_1_kib_between_characters() {
    let check = |text: &str, want: &str| {
        let mut out = String::from("before");
        escape(&mut out, text);
        assert_eq!(out, format!("before{want}"));
    };
    check(&"a".repeat(1024), &"a".repeat(1024));
    check(&"a".repeat(1025), &format!("{}…", "a".repeat(1021)));
    check(&"é".repeat(512), &format!("{}…", "é".repeat(510)));
    check(
        &"\u{1b}".repeat(200),
        &format!("{}…", "\\u001b".repeat(170)),
    );
    check(&"\"".repeat(511), &format!("{}…", "\\\"".repeat(510)));
    check(&"\"".repeat(510), &"\\\"".repeat(510));
}

/// What a stranger can send: bytes that became text in some way.
fn stranger() -> impl Strategy<Value = String> {
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    prop_oneof![
        bytes.prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        prop::collection::vec(any::<char>(), 0..600).prop_map(String::from_iter),
        "[\\x00-\\x1f\"\\\\\\x7f-\\x9f]{0,400}",
    ]
}

proptest! {
    #[test]
    fn log_2_any_host_and_path_give_one_line(host in stranger(), path in stranger(), subject in stranger()) {
        let claims = Claims { subject: subject.into(), ..Claims::default() };
        let record = Record {
            host: Some(host.as_str().into()),
            path: Some(path.as_str().into()),
            caller: Some(caller(claims)),
            client: Some(address("192.0.2.1")),
            ..record()
        };
        for format in [LogFormat::Json, LogFormat::Text] {
            let line = line(format, &record);
            let inside = line.strip_suffix('\n').unwrap();
            prop_assert!(!inside.chars().any(char::is_control), "{:?}", line);
            prop_assert!(line.len() < 4 * 1024, "{}", line.len());
        }
        let value: Value = serde_json::from_str(&line(LogFormat::Json, &record)).unwrap();
        for (field, sent) in [("host", bare_host(&host)), ("path", bare_path(&path))] {
            let got = value[field].as_str().unwrap();
            match got.strip_suffix(CUT) {
                Some(start) => prop_assert!(sent.starts_with(start)),
                None => prop_assert_eq!(got, sent),
            }
        }
    }

    #[test]
    fn log_2_any_method_gives_one_line(method in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,2000}") {
        let record = Record { method: method.parse().unwrap(), ..record() };
        let value: Value = serde_json::from_str(&line(LogFormat::Json, &record)).unwrap();
        prop_assert!(value["method"].as_str().unwrap().len() <= FIELD_BYTES_MAX);
    }
}

#[test]
fn lines_share_a_buffer_without_mixing() {
    let mut out = String::new();
    let record = Arc::new(record());
    write(&mut out, LogFormat::Json, &record, TOOK);
    write(&mut out, LogFormat::Json, &record, TOOK);
    assert_eq!(out, line(LogFormat::Json, &record).repeat(2));
}
