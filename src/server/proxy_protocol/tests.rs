//! Headers that are good, and far more that are not. What is read is never more than the header.

use proptest::prelude::*;

use super::*;

/// Reads from bytes as [`read`] reads from a socket; gives what is left too.
fn decode(bytes: &[u8]) -> (Result<Relayed, HeaderFault>, &[u8]) {
    let mut taken = 0;
    loop {
        let rest = &bytes[taken..];
        let wanted = match next(&bytes[..taken]) {
            Ok(Next::Done(relayed)) => return (Ok(relayed), rest),
            Err(fault) => return (Err(fault), rest),
            Ok(Next::Exactly(count)) => count,
            Ok(Next::Line(most)) => {
                let end = rest.iter().position(|byte| *byte == b'\n');
                end.map_or(rest.len().max(1), |end| end + 1).min(most)
            }
        };
        assert!(wanted > 0, "no progress");
        if rest.len() < wanted {
            let end = io::Error::from(io::ErrorKind::UnexpectedEof);
            return (Err(HeaderFault::Read(end)), rest);
        }
        taken += wanted;
    }
}

fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [SIGNATURE_V2, &[command, family], &length, payload].concat()
}

/// 192.0.2.1 to 198.51.100.1, ports 1 and 2.
const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0, 1, 0, 2];

#[track_caller]
fn good(header: &[u8], want: &str) {
    let bytes = [header, b"\x16\x03\x01"].concat();
    let (relayed, rest) = decode(&bytes);
    let want = if want.is_empty() {
        Relayed::Itself
    } else {
        Relayed::From(want.parse().unwrap())
    };
    assert_eq!(relayed.unwrap(), want);
    assert_eq!(rest, b"\x16\x03\x01", "what follows is not the header's");
}

#[track_caller]
fn refused(header: &[u8]) {
    let (relayed, _) = decode(header);
    assert!(relayed.is_err(), "{}: {relayed:?}", header.escape_ascii());
}

#[test]
fn net_10_what_is_no_header_is_refused() {
    for text in [
        "",
        "P",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03aaaa",
        "PROXYTCP4 192.0.2.1 198.51.100.1 1 2\r\n",
        "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
        " PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
        "\r\nPROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
        "\r\n\r\n\0\r\nQUIT\r!\x11\0\x0c",
    ] {
        refused(text.as_bytes());
    }
}

#[test]
fn net_10_malformed_lines_of_version_1_are_refused() {
    for line in [
        "",
        " ",
        "TCP4",
        "TCP4 192.0.2.1",
        "TCP4 192.0.2.1 198.51.100.1",
        "TCP4 192.0.2.1 198.51.100.1 1",
        "TCP4 192.0.2.1 198.51.100.1 1 2 3",
        "TCP4 192.0.2.1 198.51.100.1 1 2 ",
        "TCP4  192.0.2.1 198.51.100.1 1 2",
        "TCP4\t192.0.2.1\t198.51.100.1\t1\t2",
        "TCP4 192.0.2.1 198.51.100.1 1 65536",
        "TCP4 192.0.2.1 198.51.100.1 01 2",
        "TCP4 192.0.2.1 198.51.100.1 +1 2",
        "TCP4 192.0.2.1 198.51.100.1 -1 2",
        "TCP4 192.0.2.1 198.51.100.1 1 x",
        "TCP4 192.0.2 198.51.100.1 1 2",
        "TCP4 192.0.2.256 198.51.100.1 1 2",
        "TCP4 192.0.2.01 198.51.100.1 1 2",
        "TCP4 0xc0.0.2.1 198.51.100.1 1 2",
        "TCP4 3221225985 198.51.100.1 1 2",
        "TCP4 2001:db8::1 2001:db8::2 1 2",
        "TCP4 192.0.2.1 2001:db8::2 1 2",
        "TCP4 localhost localhost 1 2",
        "TCP4 192.0.2.1 198.51.100.1 1 2\r",
        "TCP4 192.0.2.1\r198.51.100.1 1 2",
        "TCP4 192.0.2.1\0 198.51.100.1 1 2",
        "TCP6 192.0.2.1 198.51.100.1 1 2",
        "TCP6 [2001:db8::1] [2001:db8::2] 1 2",
        "TCP6 fe80::1%eth0 2001:db8::2 1 2",
        "TCP6 2001:db8::1 198.51.100.1 1 2",
        "TCP 192.0.2.1 198.51.100.1 1 2",
        "UDP4 192.0.2.1 198.51.100.1 1 2",
        "tcp4 192.0.2.1 198.51.100.1 1 2",
        "UNKNOWNS",
        "unknown",
    ] {
        refused(format!("PROXY {line}\r\n").as_bytes());
    }
    refused(b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n");
    refused(b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r");
    refused(b"PROXY TCP4 \xff\xff.0.2.1 198.51.100.1 1 2\r\n");
    refused(format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)).as_bytes());
    refused("PROXY UNKNOWN ".repeat(1000).as_bytes());
}

#[test]
fn net_10_version_1_names_the_client() {
    good(
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
        "192.0.2.1",
    );
    good(
        b"PROXY TCP4 192.0.2.1 198.51.100.1 0 65535\r\n",
        "192.0.2.1",
    );
    good(
        b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n",
        "2001:db8::1",
    );
    let long = ["ffff"; 8].join(":");
    let line = format!("PROXY TCP6 {long} {long} 65535 65535\r\n");
    good(line.as_bytes(), &long);
    good(b"PROXY UNKNOWN\r\n", "");
    good(b"PROXY UNKNOWN 192.0.2.1 whatever\r\n", "");
    let full = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!(full.len(), LINE_MAX);
    good(full.as_bytes(), "");
}

#[test]
fn net_10_malformed_headers_of_version_2_are_refused() {
    // Commands and versions that there are not.
    for command in [0x00, 0x01, 0x10, 0x11, 0x22, 0x2f, 0x30, 0x31, 0xff] {
        refused(&v2(command, 0x11, &IPV4));
    }
    // Families and transports that are not TCP over IP.
    for family in [
        0x01, 0x02, 0x10, 0x12, 0x13, 0x20, 0x22, 0x31, 0x32, 0x41, 0xff,
    ] {
        refused(&v2(0x21, family, &[0; 216]));
    }
    // Addresses that are shorter than their family's.
    for length in 0..12 {
        refused(&v2(0x21, 0x11, &IPV4[..length]));
    }
    for length in 0..36 {
        refused(&v2(0x21, 0x21, &[1; 36][..length]));
    }
    // A length that nothing follows, and one beyond the limit.
    for length in 0..28 {
        refused(&v2(0x21, 0x11, &IPV4)[..length]);
    }
    refused(&v2(0x21, 0x11, &[0; PAYLOAD_MAX + 1]));
    refused(&v2(0x20, 0x00, &[0; 0xffff]));
    // TLVs that overrun.
    for tlvs in [
        &[1][..],
        &[1, 0],
        &[1, 0, 1],
        &[1, 0, 2, 9],
        &[1, 255, 255, 9],
        &[4, 0, 0, 4, 0, 1],
        &[4, 0, 1, 9, 4],
    ] {
        refused(&v2(0x21, 0x11, &[&IPV4[..], tlvs].concat()));
    }
}

#[test]
fn net_10_version_2_names_the_client() {
    good(&v2(0x21, 0x11, &IPV4), "192.0.2.1");
    let mut ipv6 = [0; 36];
    ipv6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    ipv6[15] = 1;
    good(&v2(0x21, 0x21, &ipv6), "2001:db8::1");
    let tlvs = [
        &IPV4[..],
        &[4, 0, 0],
        &[3, 0, 4, 1, 2, 3, 4],
        &[0xea, 0, 1, 9],
    ]
    .concat();
    good(&v2(0x21, 0x11, &tlvs), "192.0.2.1");
    let mut most = [&IPV4[..], &[4, 0x0f, 0xf1]].concat();
    most.resize(PAYLOAD_MAX, 0);
    good(&v2(0x21, 0x11, &most), "192.0.2.1");
}

#[test]
fn net_10_local_and_unspecified_keep_the_socket_s_peer() {
    good(&v2(0x20, 0x00, &[]), "");
    good(&v2(0x20, 0x11, &IPV4), "");
    good(&v2(0x20, 0xff, &[1, 2, 3]), "");
    good(&v2(0x21, 0x00, &[]), "");
    good(&v2(0x21, 0x00, &[1, 2, 3]), "");
}

proptest! {
    #[test]
    fn net_10_no_bytes_panic_or_are_read_beyond_the_header(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        for start in [SIGNATURE_V1, SIGNATURE_V2, b"PROXY TCP4 ", b"PROXY TCP6 "] {
            let bytes = [start, &bytes].concat();
            if let (Ok(Relayed::From(_)), rest) = decode(&bytes) {
                let header = &bytes[..bytes.len() - rest.len()];
                prop_assert!(header.len() <= HEAD_V2 + PAYLOAD_MAX);
                prop_assert!(decode(header).0.is_ok(), "the header alone says the same");
            }
        }
    }

    #[test]
    fn net_10_every_address_comes_through_with_any_tlvs(
        source: u32,
        destination: [u8; 4],
        wide: u128,
        ports: [u8; 4],
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        follows in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let tlvs: Vec<u8> = values
            .iter()
            .flat_map(|value| [&[7, 0, u8::try_from(value.len()).unwrap()][..], value].concat())
            .collect();
        let narrow = [&source.to_be_bytes()[..], &destination, &ports, &tlvs].concat();
        let broad = [&wide.to_be_bytes()[..], &[7; 16], &ports, &tlvs].concat();
        for (family, payload, want) in [
            (0x11, narrow, IpAddr::from(Ipv4Addr::from_bits(source))),
            (0x21, broad, IpAddr::from(Ipv6Addr::from_bits(wide))),
        ] {
            let bytes = [&v2(0x21, family, &payload)[..], &follows].concat();
            let (relayed, rest) = decode(&bytes);
            prop_assert_eq!(relayed.unwrap(), Relayed::From(want));
            prop_assert_eq!(rest, &follows[..]);
        }
        let line = format!("PROXY TCP6 {} ::1 1 2\r\n", Ipv6Addr::from_bits(wide));
        let (relayed, _) = decode(line.as_bytes());
        prop_assert_eq!(relayed.unwrap(), Relayed::From(Ipv6Addr::from_bits(wide).into()));
    }

    #[test]
    fn net_10_a_header_cut_short_is_never_taken(cut in 0_usize..28, tail in 0_usize..45) {
        let header = v2(0x21, 0x11, &IPV4);
        prop_assert!(decode(&header[..cut.min(header.len() - 1)]).0.is_err());
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
        prop_assert!(decode(&line[..tail.min(line.len() - 1)]).0.is_err());
    }
}
