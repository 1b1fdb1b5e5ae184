//! `portcullis ready`: whether the gateway of this configuration serves, for whoever has no other program to ask with, as in a
//! container without a shell.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::cli::say;

/// The longest wait for each step. A gateway that serves answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most that is read of the answer, which is far shorter.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Asks the admin listener whether the gateway is ready, and prints its answer. Exit code 0: it is; 1: it is not.
///
/// # Errors
/// When nobody listens there, or the answer is none of a gateway's.
pub fn run(admin_listen: SocketAddr) -> anyhow::Result<ExitCode> {
    let address = reachable(admin_listen);
    let answer =
        ask(address).with_context(|| format!("no answer from {address} (server.admin_listen)"))?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("{address} (server.admin_listen) answers with something that is no HTTP");
    };
    say(body.trim_end())?;
    let status = head.split(' ').nth(1);
    Ok(match status {
        Some("200") => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A connection of HTTP/1.0 ends with its answer.
    write!(stream, "GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Where a listener on this address is found from the same machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_on_loopback() {
        for (listener, want) in [
            ("0.0.0.0:9901", "127.0.0.1:9901"),
            ("[::]:9901", "[::1]:9901"),
            ("192.0.2.1:9901", "192.0.2.1:9901"),
        ] {
            let address = reachable(listener.parse().unwrap());
            assert_eq!(address.to_string(), want);
        }
    }
}
