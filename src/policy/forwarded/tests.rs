//! HDR-4: what of `Forwarded` is read, and what ends the reading.

use super::*;
use http::HeaderValue;
use proptest::prelude::*;

fn fields(lines: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(header::FORWARDED, value);
        }
    }
    headers
}

fn clients(lines: &[&str]) -> Vec<Option<IpAddr>> {
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    elements(&fields(&lines))
        .map(|element| element.client)
        .collect()
}

#[track_caller]
fn ends(line: &str) {
    // The proxy's own element before it is still read.
    let line = format!("{line}, for=192.0.2.1");
    let near: IpAddr = "192.0.2.1".parse().unwrap();
    assert_eq!(clients(&[&line]), [Some(near)], "{line}");
}

#[test]
fn hdr_4_an_element_that_cannot_be_read_ends_the_list() {
    for line in [
        "for",
        "for=",
        "=192.0.2.7",
        "for =192.0.2.7",
        "for= 192.0.2.7",
        "for=192.0.2.7:80",
        "for=2001:db8::1",
        "for=[2001:db8::1]",
        r#"for="2001:db8::1""#,
        r#"for="[2001:db8::1""#,
        r#"for="[2001:db8::1]80""#,
        r#"for="[192.0.2.7]""#,
        r#"for="[fe80::1%eth0]""#,
        r#"for="192.0.2.7:""#,
        r#"for="192.0.2.7:123456""#,
        r#"for="192.0.2.7:http""#,
        r#"for="192.0.2.7:_""#,
        "for=192.0.2.07",
        "for=192.0.2",
        "for=example.com",
        "for=_",
        r#"for="_a b""#,
        r#"for="192.0.2.7"#,
        r#"for=192.0.2.7""#,
        r#"for=a"192.0.2.7""#,
        r#"for="192.0.2.7"x"#,
        r#"for="192.0.2.7\""#,
        r"for=192.0.2.7\",
        "for=192.0.2.7;by=garbage",
        "for=192.0.2.7;proto",
        "for=192.0.2.7;proto=\"https",
        "for=192.0.2.7;pro to=https",
        "for=192.0.2.7 proto=https",
    ] {
        ends(line);
    }
    // A line that is no text is not read at all.
    assert_eq!(clients(&["for=192.0.2.7;x=\u{e9}"]), []);
}

#[test]
fn hdr_4_a_parameter_that_is_there_twice_ends_the_list() {
    for line in [
        "for=192.0.2.7;for=192.0.2.7",
        "for=192.0.2.7;FOR=192.0.2.8",
        "for=192.0.2.7;proto=https;proto=http",
        "for=192.0.2.7;x=1;X=2",
        "host=a;for=192.0.2.7;Host=b",
    ] {
        ends(line);
    }
}

#[test]
fn hdr_4_a_quote_that_a_client_leaves_open_hides_no_proxy() {
    for left in [
        "for=\"",
        "for=\"192.0.2.66",
        "for=\"\\",
        "for=192.0.2.66;x=\"",
        "for=192.0.2.66;x=\"\\\\\\",
    ] {
        let near: IpAddr = "198.51.100.7".parse().unwrap();
        let one = format!("{left}, for=198.51.100.7");
        assert_eq!(clients(&[&one]), [Some(near)], "{one}");
        assert_eq!(clients(&[left, "for=198.51.100.7"]), [Some(near)], "{left}");
        let quoted = format!("{left}, for=\"198.51.100.7:_a\";proto=https");
        assert_eq!(clients(&[&quoted]), [Some(near)], "{quoted}");
    }
}

#[test]
fn hdr_4_nodes_are_read_as_they_may_be_written() {
    for (line, want) in [
        ("for=192.0.2.7", Some("192.0.2.7")),
        ("For=\"192.0.2.7\"", Some("192.0.2.7")),
        ("for=\"192.0.2.7:4711\"", Some("192.0.2.7")),
        ("for=\"192.0.2.7:_port-1\"", Some("192.0.2.7")),
        ("FOR=\"[2001:db8::1]\"", Some("2001:db8::1")),
        ("for=\"[2001:DB8:0::1]:4711\"", Some("2001:db8::1")),
        ("for=\"[::ffff:192.0.2.7]\"", Some("192.0.2.7")),
        ("for=\"\\1\\92.0.2.7\"", Some("192.0.2.7")),
        (
            "proto=https ;\tfor=192.0.2.7; by=203.0.113.43",
            Some("192.0.2.7"),
        ),
        (
            "for=192.0.2.7;x=\"a;b,c\\\"d\";by=\"_gate\"",
            Some("192.0.2.7"),
        ),
        (";for=192.0.2.7;;", Some("192.0.2.7")),
        ("", None),
        (";", None),
        ("for=unknown", None),
        ("for=Unknown", None),
        ("for=\"unknown:_a\"", None),
        ("for=_gazonk", None),
        ("proto=https", None),
    ] {
        let want: Option<IpAddr> = want.map(|address| address.parse().unwrap());
        assert_eq!(clients(&[line]), [want], "{line}");
    }
}

#[test]
fn hdr_4_elements_come_nearest_first_over_all_lines() {
    let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let found = clients(&[
        "for=192.0.2.1, for=\"[2001:db8::1]\"",
        "for=unknown,for=192.0.2.3",
    ]);
    let want = [ip("192.0.2.3"), None, ip("2001:db8::1"), ip("192.0.2.1")];
    assert_eq!(found, want);
    let told = fields(&[b"for=192.0.2.1;host=\"app.example.com:8443\";proto=https"]);
    let element = elements(&told).next().unwrap();
    assert_eq!(element.host.as_deref(), Some("app.example.com:8443"));
    assert_eq!(element.proto.as_deref(), Some("https"));
}

proptest! {
    /// Whatever stands before it, what the nearest proxy wrote is read the same.
    #[test]
    fn hdr_4_nothing_before_a_proxys_element_changes_it(
        lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..4),
        telling in "[a-z=\";,\\\\ \\[\\]:.0-9]{0,60}",
        address in any::<IpAddr>(),
    ) {
        let own = match address {
            IpAddr::V4(address) => format!("for={address};proto=https"),
            IpAddr::V6(address) => format!("for=\"[{address}]:443\";proto=https"),
        };
        let last = format!("{telling}, {own}");
        let mut lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        lines.push(last.as_bytes());
        let headers = fields(&lines);
        let read = elements(&headers).next().unwrap();
        prop_assert_eq!(read.client, Some(address.to_canonical()));
        prop_assert_eq!(read.proto.as_deref(), Some("https"));
        // The list ends.
        prop_assert!(elements(&headers).count() <= 300);
    }
}
