//! Finds out that a peer is gone that never said so: its machine lost power, its address changed, a firewall forgot it.
//!
//! Whoever only waits for such a peer waits until a deadline of what he does ends it, which is minutes for a WebSocket or an event
//! stream, and for a connection that kept sending small things a quarter of an hour, until the kernel gives up. So the kernel
//! asks a silent peer, and gives up early on one that acknowledges nothing (FAULT-6; RFC 9293 §3.8.3 and §3.8.4).

use std::{io, os::fd::AsFd, time::Duration};

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
    let _ = set_questions(&SockRef::from(stream));
}

fn set_questions(socket: &SockRef<'_>) -> io::Result<()> {
    let asked = TcpKeepalive::new()
        .with_time(SILENCE)
        .with_interval(INTERVAL)
        .with_retries(QUESTIONS);
    socket.set_tcp_keepalive(&asked)
}

/// What the connections of a listener have of it, where the kernel copies a listener's options to each of them: six system calls
/// that a new connection does not cost.
///
/// Those that waited to be accepted before the listener had the options do not have them: on a socket that a service manager or an
/// earlier gateway bound, and when other options are loaded. They come first, for a listener hands its connections out in the order
/// in which they were made. So each is looked at until one has the options by itself.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// What the listener was told last.
    gone_after: Option<Duration>,
    /// A connection had it of the listener, so all that come after it have it.
    is_proven: bool,
}

impl Inherited {
    /// Sees to it that a connection which was just accepted has the options of clients' connections, and later ones of the listener:
    /// what is written goes at once; a silent peer is asked whether it is there; and the connection ends when the peer acknowledges
    /// nothing of what was sent for `gone_after`. That counts the time too in which a peer that is there takes nothing more, so it
    /// is to be longer than one may do that.
    pub(crate) fn see_to(
        &mut self,
        listener: &impl AsFd,
        accepted: &TcpStream,
        gone_after: Duration,
    ) {
        if self.gone_after != Some(gone_after) {
            self.is_proven = false;
            self.gone_after = Some(gone_after);
            // What a listener cannot be told is told to each connection.
            let _ = set_all(&SockRef::from(listener), gone_after);
        }
        if self.is_proven {
            return;
        }
        let accepted = SockRef::from(accepted);
        self.is_proven = has_all(&accepted, gone_after);
        if !self.is_proven {
            let _ = set_all(&accepted, gone_after);
        }
    }
}

/// The time to give up comes last: a socket that has it has the others.
fn set_all(socket: &SockRef<'_>, gone_after: Duration) -> io::Result<()> {
    // Answers are written whole; waiting for more to fill a segment only adds delay.
    let prompt = socket.set_tcp_nodelay(true);
    let asked = set_questions(socket);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(gone_after))?;
    #[cfg(not(target_os = "linux"))]
    let _ = gone_after;
    prompt.and(asked)
}

#[cfg(target_os = "linux")]
fn has_all(socket: &SockRef<'_>, gone_after: Duration) -> bool {
    let has = socket.tcp_user_timeout();
    has.is_ok_and(|has| has == Some(gone_after))
}

/// Elsewhere a listener's options are its own.
#[cfg(not(target_os = "linux"))]
fn has_all(_socket: &SockRef<'_>, _gone_after: Duration) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;

    const FIRST: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(90);

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[track_caller]
    fn check(accepted: &TcpStream, gone_after: Duration) {
        let socket = SockRef::from(accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), SILENCE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), QUESTIONS);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(gone_after));
    }

    #[tokio::test]
    async fn fault_6_a_connection_that_waited_before_the_listener_had_options_has_them() {
        let (listener, address) = listen().await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let mut inherited = Inherited::default();
        for _ in 0..3 {
            let (accepted, _) = listener.accept().await.unwrap();
            inherited.see_to(&listener, &accepted, FIRST);
            check(&accepted, FIRST);
            assert!(!inherited.is_proven, "these are older than the options");
        }
    }

    #[tokio::test]
    async fn fault_6_a_connection_has_the_options_of_the_listener_and_others_when_they_change() {
        let (listener, address) = listen().await;
        let mut inherited = Inherited::default();
        let mut kept = Vec::new();
        for gone_after in [FIRST, SECOND] {
            for is_first in [true, false, false] {
                kept.push(TcpStream::connect(address).await.unwrap());
                let (accepted, _) = listener.accept().await.unwrap();
                if !is_first {
                    check(&accepted, gone_after);
                }
                inherited.see_to(&listener, &accepted, gone_after);
                check(&accepted, gone_after);
                assert_eq!(inherited.is_proven, !is_first);
                kept.push(accepted);
            }
        }
    }
}
