//! Who is behind the load balancer? The PROXY protocol, versions 1 and 2, in front of TLS (NET-10).
//!
//! A header names the client that a proxy relays, so it is read only where it is required and only from peers that are
//! trusted; there a connection without one is closed. `next` decides from the bytes so far and asks for no byte beyond
//! the header, for what follows belongs to TLS. The format is that of HAProxy's `proxy-protocol.txt`, §2.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::{io::AsyncReadExt, net::TcpStream};

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const HEAD_V2: usize = 16;
/// The longest line of version 1, with its end (§2.1).
const LINE_MAX: usize = 107;
/// The most that may follow the head of version 2: addresses, and what proxies say besides (TLVs), of which nothing is used.
const PAYLOAD_MAX: usize = 4 << 10;

/// For whom a proxy has opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relayed {
    /// For this client.
    From(IpAddr),
    /// For itself (a health check), or for one that it cannot name: the socket's peer stays.
    Itself,
}

/// Why there is no good header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderFault {
    /// It begins like one and is none.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// The connection begins with something else.
    #[error("no PROXY header")]
    Missing,
    /// The connection ended or broke.
    #[error("the connection ended in its PROXY header")]
    Read(#[from] io::Error),
    /// It says more than it may.
    #[error("the PROXY header is too long")]
    TooLong,
}

/// What the bytes so far call for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing: the header is whole.
    Done(Relayed),
    /// So many more bytes.
    Exactly(usize),
    /// The rest of a line, at most so many bytes.
    Line(usize),
}

/// Reads a header and not one byte more. Has no deadline of its own.
///
/// # Errors
/// What is wrong with it; the connection is of no use then.
pub async fn read(stream: &mut TcpStream) -> Result<Relayed, HeaderFault> {
    let mut bytes = Vec::with_capacity(LINE_MAX);
    loop {
        let wanted = match next(&bytes)? {
            Next::Done(relayed) => return Ok(relayed),
            Next::Exactly(count) => count,
            Next::Line(most) => peek_line(stream, most).await?,
        };
        let from = bytes.len();
        bytes.resize(from + wanted, 0);
        stream
            .read_exact(bytes.get_mut(from..).unwrap_or_default())
            .await?;
    }
}

/// How many bytes are there up to the end of a line, or without one; at least one.
async fn peek_line(stream: &TcpStream, most: usize) -> io::Result<usize> {
    let mut buffer = [0; LINE_MAX];
    let room = buffer.get_mut(..most).unwrap_or_default();
    let count = stream.peek(room).await?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let there = room.iter().take(count);
    let end = there.take_while(|byte| **byte != b'\n').count();
    Ok(count.min(end + 1))
}

fn next(bytes: &[u8]) -> Result<Next, HeaderFault> {
    // Twelve bytes tell the versions apart, and no header is shorter.
    let missing = SIGNATURE_V2.len().saturating_sub(bytes.len());
    if missing > 0 {
        return Ok(Next::Exactly(missing));
    }
    if bytes.starts_with(SIGNATURE_V2) {
        next_v2(bytes)
    } else if bytes.starts_with(SIGNATURE_V1) {
        next_v1(bytes)
    } else {
        Err(HeaderFault::Missing)
    }
}

fn next_v1(bytes: &[u8]) -> Result<Next, HeaderFault> {
    match bytes.split_last() {
        Some((b'\n', line)) => {
            let text = line.strip_suffix(b"\r").ok_or(HeaderFault::Malformed)?;
            let text = std::str::from_utf8(text).map_err(|_| HeaderFault::Malformed)?;
            parse_v1(text).map(Next::Done).ok_or(HeaderFault::Malformed)
        }
        _ if bytes.len() >= LINE_MAX => Err(HeaderFault::TooLong),
        _ => Ok(Next::Line(LINE_MAX - bytes.len())),
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`, with single spaces.
fn parse_v1(line: &str) -> Option<Relayed> {
    if line.contains(['\r', '\n', '\0']) {
        return None;
    }
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever else the line says is to be ignored (§2.1).
        return Some(Relayed::Itself);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let ports = [words.next()?, words.next()?];
    if words.next().is_some() || !ports.into_iter().all(is_port) {
        return None;
    }
    let source: IpAddr = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            source.parse::<Ipv4Addr>().ok()?.into()
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            source.parse::<Ipv6Addr>().ok()?.into()
        }
        _ => return None,
    };
    Some(Relayed::From(source))
}

/// Digits alone, no leading zero, 0 to 65535.
fn is_port(text: &str) -> bool {
    text.parse::<u16>()
        .is_ok_and(|port| port.to_string() == text)
}

fn next_v2(bytes: &[u8]) -> Result<Next, HeaderFault> {
    let Some((head, payload)) = bytes.split_first_chunk::<HEAD_V2>() else {
        return Ok(Next::Exactly(HEAD_V2.saturating_sub(bytes.len())));
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > PAYLOAD_MAX {
        return Err(HeaderFault::TooLong);
    }
    // The upper half is the version; 0 is LOCAL, 1 is PROXY.
    if !matches!(command, 0x20 | 0x21) {
        return Err(HeaderFault::Malformed);
    }
    let missing = length.saturating_sub(payload.len());
    if missing > 0 {
        return Ok(Next::Exactly(missing));
    }
    // What LOCAL and an unspecified family say besides is to be skipped (§2.2).
    if command == 0x20 || family == 0 {
        return Ok(Next::Done(Relayed::Itself));
    }
    parse_v2(family, payload)
        .map(Next::Done)
        .ok_or(HeaderFault::Malformed)
}

/// The addresses of TCP over IPv4 and over IPv6. Datagrams and unix sockets reach no TLS listener.
fn parse_v2(family: u8, payload: &[u8]) -> Option<Relayed> {
    let (source, rest): (IpAddr, _) = match family {
        0x11 => {
            let (source, rest) = payload.split_first_chunk::<4>()?;
            ((*source).into(), rest.get(8..)?)
        }
        0x21 => {
            let (source, rest) = payload.split_first_chunk::<16>()?;
            ((*source).into(), rest.get(20..)?)
        }
        _ => return None,
    };
    are_tlvs(rest).then_some(Relayed::From(source))
}

/// Whether these are whole TLVs: type, length in two bytes, value.
fn are_tlvs(mut bytes: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = bytes {
        match rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    bytes.is_empty()
}

#[cfg(test)]
mod tests;
