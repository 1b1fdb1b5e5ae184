//! Finds out that a peer is gone that never said so: its machine lost power, its address changed, a firewall forgot it.
//!
//! Whoever only waits for such a peer waits until a deadline of what he does ends it, which is minutes for a WebSocket or an event
//! stream, and for a connection that kept sending small things a quarter of an hour, until the kernel gives up. So the kernel
//! asks a silent peer, and gives up early on one that acknowledges nothing (FAULT-6; RFC 9293 §3.8.3 and §3.8.4).

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A peer is asked after this silence,
const SILENCE: Duration = Duration::from_secs(20);

/// then at this interval,
const INTERVAL: Duration = Duration::from_secs(10);

/// and is gone when it has not answered so often: 50 seconds after its last word.
const QUESTIONS: u32 = 3;

/// Has the kernel end a connection whose peer is gone. Where the system cannot, deadlines alone end it.
pub(crate) fn ask(stream: &TcpStream) {
    let asked = TcpKeepalive::new()
        .with_time(SILENCE)
        .with_interval(INTERVAL)
        .with_retries(QUESTIONS);
    let _ = SockRef::from(stream).set_tcp_keepalive(&asked);
}

/// Has the kernel end a connection whose peer acknowledges nothing of what was sent for so long. It counts the time too in which a
/// peer that is there takes nothing more, so this is for those who may not do that for as long.
pub(crate) fn give_up(stream: &TcpStream, after: Duration) {
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(after));
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, after);
}
