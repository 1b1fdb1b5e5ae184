//! Both sides of the conversation, and what neither takes from a stranger.

use std::{fs, io::Write, net::SocketAddr, os::unix::fs::PermissionsExt, sync::Arc, thread};

use tokio::task::JoinHandle;

use super::*;

fn sockets(count: usize) -> (Vec<TcpListener>, Vec<SocketAddr>) {
    let sockets = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let sockets: Vec<_> = sockets.collect();
    let addresses = sockets.iter().map(|socket| socket.local_addr().unwrap());
    let addresses = addresses.collect();
    (sockets, addresses)
}

/// A gateway that offers this many sockets.
struct Old {
    folder: tempfile::TempDir,
    taken: JoinHandle<u32>,
    addresses: Vec<SocketAddr>,
}

impl Old {
    fn offer(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (sockets, addresses) = sockets(count);
        let offer = Offer::open(&folder.path().join("s"), sockets).unwrap();
        let taken = tokio::spawn(offer.taken());
        Self {
            folder,
            taken,
            addresses,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Has a thread do what a process would that starts beside it.
    async fn beside<T: Send + 'static>(&self, job: impl FnOnce(&Path) -> T + Send + 'static) -> T {
        let path = self.path();
        tokio::task::spawn_blocking(move || job(&path))
            .await
            .unwrap()
    }

    /// It has given nothing away, and whoever comes now gets it all.
    async fn goes_on(self) {
        assert!(!self.taken.is_finished());
        let mut handed = self
            .beside(|path| {
                let (takeover, handed) = Takeover::begin(path).unwrap().unwrap();
                takeover.finish().unwrap();
                handed
            })
            .await;
        for address in &self.addresses {
            handed.claim_one(*address).unwrap();
        }
        assert!(handed.is_empty());
        assert_eq!(self.taken.await.unwrap(), std::process::id());
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, StartError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn cfg_3_whoever_does_not_say_that_it_serves_takes_nothing_away() {
    let old = Old::offer(2);
    old.beside(|path| drop(Takeover::begin(path).unwrap().unwrap()))
        .await;
    old.goes_on().await;
}

#[tokio::test]
async fn cfg_3_a_stranger_gets_no_socket() {
    for words in [
        "",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "portcullis takeover 2\n",
    ] {
        let old = Old::offer(1);
        let heard = old
            .beside(move |path| {
                let mut stream = UnixStream::connect(path).unwrap();
                stream.write_all(words.as_bytes()).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut sockets = Vec::new();
                let ended = receive(&stream, &mut sockets);
                (ended.is_err(), sockets.len())
            })
            .await;
        assert_eq!(heard, (true, 0), "{words:?}");
        old.goes_on().await;
    }
}

#[test]
fn cfg_4_another_user_takes_over_nothing() {
    assert!(may_take_over(geteuid()));
    assert!(may_take_over(Uid::ROOT));
    let other = Uid::from_raw(geteuid().as_raw() + 1);
    assert!(!may_take_over(other));
}

#[tokio::test]
async fn cfg_3_more_sockets_than_one_message_holds_are_all_handed_over() {
    Old::offer(PER_MESSAGE).goes_on().await;
    Old::offer(2 * PER_MESSAGE + 1).goes_on().await;
}

#[tokio::test]
async fn cfg_3_nobody_to_take_over_from_is_no_error() {
    let old = Old::offer(1);
    let path = old.path();
    assert!(
        Takeover::begin(&path.with_extension("none"))
            .unwrap()
            .is_none()
    );
    old.taken.abort();
    let _ = old.taken.await;
    // The file is there still.
    assert!(path.exists());
    assert!(Takeover::begin(&path).unwrap().is_none());
    // And is replaced by the next one.
    Offer::open(&path, Vec::new()).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test]
async fn cfg_3_one_that_ended_meanwhile_is_not_missed_and_one_that_goes_on_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let begin = |listener: std::os::unix::net::UnixListener| {
        let stream = UnixStream::connect(&path).unwrap();
        let other = listener.accept().unwrap().0;
        let takeover = Takeover {
            stream,
            path: path.clone(),
        };
        (takeover, other, listener)
    };
    let bind = || std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (takeover, other, listener) = begin(bind());
    drop(other);
    assert!(refusal(takeover.finish()).contains("goes on"));
    drop(listener);
    fs::remove_file(&path).unwrap();
    let (takeover, mut other, listener) = begin(bind());
    other.write_all(b"stays!\n").unwrap();
    assert!(refusal(takeover.finish()).contains("goes on"));
    drop(listener);
    fs::remove_file(&path).unwrap();
    let (takeover, other, listener) = begin(bind());
    drop((other, listener));
    takeover.finish().unwrap();
}

#[tokio::test]
async fn cfg_3_a_path_that_somebody_has_is_left_alone() {
    let old = Old::offer(1);
    let told = refusal(Offer::open(&old.path(), Vec::new()));
    assert!(told.contains("--takeover"), "{told}");
    old.goes_on().await;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "kept").unwrap();
    let told = refusal(Offer::open(&path, Vec::new()));
    assert!(told.contains("no socket"), "{told}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");

    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let told = refusal(Offer::open(&folder.path().join("s"), Vec::new()));
    assert!(told.contains("chmod go-w"), "{told}");
}

#[tokio::test]
async fn cfg_3_what_does_not_listen_is_not_served_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sockets, addresses) = sockets(1);
    let connected = std::net::TcpStream::connect(addresses[0]).unwrap();
    sockets.push(TcpListener::from(OwnedFd::from(connected)));
    let path = folder.path().join("s");
    let offer = Arc::new(Offer::open(&path, sockets).unwrap());
    let begun = thread::spawn(move || refusal(Takeover::begin(&path)));
    let (stream, _) = offer.listener.accept().await.unwrap();
    offer.hand_over(stream).await.unwrap_err();
    assert!(begun.join().unwrap().contains("does not listen"));
}
