//! How one gateway takes the place of another that runs (CFG-3): it is handed the listening sockets themselves, over a Unix socket,
//! and says when it serves on them; then the other drains. The queue of a socket belongs to all who hold it, so no connection is
//! refused or reset in between, and what fails before the new one serves leaves the old one as it is.
//!
//! What is said: the new one `HELLO`, the old one its sockets, the new one `SERVES`, the old one `LEAVES`.

use std::{
    fs::{Permissions, remove_file, rename, set_permissions},
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt::socket_peercred,
    },
    process::{Uid, geteuid},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixListener,
    time::timeout,
};

use super::{StartError, handed::Handed};
use crate::files;

/// What a gateway says that wants to take the place of another; the number is that of this conversation.
const HELLO: &[u8] = b"portcullis takeover 1\n";
/// What it says when it serves.
const SERVES: &[u8] = b"serves\n";
/// What the one before answers: from now on it drains.
const LEAVES: &[u8] = b"leaves\n";

/// Sockets in one message; the kernel takes 253.
const PER_MESSAGE: usize = 64;
/// The byte of a message with sockets: more follow, or these were the last.
const MORE: u8 = b'+';
const LAST: u8 = b'.';
/// More sockets than any configuration has use for.
const SOCKETS_MAX: usize = 16 << 10;

/// How long a process that has connected may take for its first words, and each side for an answer.
const WORD: Duration = Duration::from_secs(10);
/// How long it may take, from the sockets on, to serve. Nothing is lost meanwhile, but nobody else can take over.
const START: Duration = Duration::from_secs(120);

/// The sockets of a gateway that runs, for the one that will take its place. Until it is dropped they stay open, whoever else
/// closes them.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    sockets: Vec<TcpListener>,
}

/// The conversation of a gateway that has been handed sockets, and starts.
#[derive(Debug)]
pub struct Takeover {
    stream: UnixStream,
    path: PathBuf,
}

impl Offer {
    /// Offers sockets at a path, to processes of the same user alone. What an ended gateway left there is replaced. To be called on
    /// a tokio runtime; blocks for a moment.
    ///
    /// # Errors
    /// When something else is at the path, above all a gateway that runs; when others may write into its folder; or when the socket
    /// cannot be made.
    pub fn open(path: &Path, sockets: Vec<TcpListener>) -> Result<Self, StartError> {
        let failed =
            |error: io::Error| StartError::Takeover(format!("{}: {error}", path.display()));
        make_folder(path)?;
        if let Some(what) = occupant(path) {
            return Err(StartError::Takeover(format!("{}: {what}", path.display())));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push("~");
        let beside = PathBuf::from(beside);
        let _ = remove_file(&beside);
        let listener = UnixListener::bind(&beside).map_err(failed)?;
        // Whoever may not write to a socket may not connect to it.
        set_permissions(&beside, Permissions::from_mode(0o600)).map_err(failed)?;
        rename(&beside, path).map_err(failed)?;
        Ok(Self { listener, sockets })
    }

    /// Waits until another gateway has taken the sockets and serves; its process id. From then on nobody else can take them. One
    /// that gives up half way changes nothing. Dropping the future ends the offer.
    pub async fn taken(self) -> u32 {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no process can take this gateway's place now");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            match self.hand_over(stream).await {
                Ok(process) => return process,
                Err(error) => {
                    tracing::warn!(%error, "another process asked for the listening sockets and gave up; this one goes on");
                }
            }
        }
    }

    async fn hand_over(&self, mut stream: tokio::net::UnixStream) -> io::Result<u32> {
        let peer = stream.peer_cred()?;
        if !may_take_over(Uid::from_raw(peer.uid())) {
            let told = format!("it runs as user {}, not as this one", peer.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, told));
        }
        expect(&mut stream, HELLO, WORD).await?;
        let mut messages = self.sockets.chunks(PER_MESSAGE).peekable();
        while let Some(sockets) = messages.next() {
            let tag = if messages.peek().is_some() {
                MORE
            } else {
                LAST
            };
            let sent = stream.async_io(Interest::WRITABLE, || send(&stream, tag, sockets));
            timeout(WORD, sent).await??;
        }
        expect(&mut stream, SERVES, START).await?;
        timeout(WORD, stream.write_all(LEAVES)).await??;
        Ok(peer.pid().map_or(0, i32::unsigned_abs))
    }
}

impl Takeover {
    /// Takes the sockets of the gateway that offers them at a path; `None` where none does. Blocks.
    ///
    /// # Errors
    /// [`StartError::Takeover`] when there is one that does not hand them over, or belongs to another user; [`StartError::Handed`]
    /// for a socket that is of no use.
    pub fn begin(path: &Path) -> Result<Option<(Self, Handed)>, StartError> {
        let failed = |error: io::Error| {
            StartError::Takeover(format!(
                "{}: the gateway that runs hands nothing over: {error}",
                path.display()
            ))
        };
        let mut stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if is_nobody(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let owner = socket_peercred(&stream).map_err(|error| failed(error.into()))?;
        if owner.uid != geteuid() {
            return Err(StartError::Takeover(format!(
                "{}: the gateway that runs is of user {}: start this one as that user",
                path.display(),
                owner.uid.as_raw()
            )));
        }
        stream.set_read_timeout(Some(WORD)).map_err(failed)?;
        stream.set_write_timeout(Some(WORD)).map_err(failed)?;
        stream.write_all(HELLO).map_err(failed)?;
        let sockets = receive_all(&stream).map_err(failed)?;
        let path = path.to_owned();
        Ok(Some((Self { stream, path }, Handed::taken_over(sockets)?)))
    }

    /// Says that this gateway serves, and hears that the other one drains. One that has ended meanwhile is not missed. Blocks.
    ///
    /// # Errors
    /// [`StartError::Takeover`] when the other one goes on: two would serve.
    pub fn finish(mut self) -> Result<(), StartError> {
        let mut heard = vec![0; LEAVES.len()];
        let said = self.stream.write_all(SERVES);
        let answer = said.and_then(|()| self.stream.read_exact(&mut heard));
        match answer {
            Ok(()) if heard == LEAVES => Ok(()),
            Ok(()) => Err(self.stays("it said something else")),
            Err(error) => match UnixStream::connect(&self.path) {
                Err(nobody) if is_nobody(&nobody) => Ok(()),
                Ok(_) | Err(_) => Err(self.stays(&error.to_string())),
            },
        }
    }

    fn stays(&self, why: &str) -> StartError {
        StartError::Takeover(format!(
            "{}: the gateway that runs goes on: {why}",
            self.path.display()
        ))
    }
}

/// Whoever is root can take the sockets in any case.
fn may_take_over(user: Uid) -> bool {
    user == geteuid() || user.is_root()
}

/// Whether a connect failed since no process listens.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// What must not be replaced at a path.
fn occupant(path: &Path) -> Option<&'static str> {
    let found = path.symlink_metadata().ok()?;
    if !found.file_type().is_socket() {
        return Some("is there and is no socket");
    }
    match UnixStream::connect(path) {
        Err(error) if is_nobody(&error) => None,
        Ok(_) | Err(_) => Some(
            "another gateway that runs offers its sockets here: stop it, or take its place with `portcullis run --takeover`",
        ),
    }
}

/// Others who may write into the folder could put a socket of theirs in the place of ours.
fn make_folder(path: &Path) -> Result<(), StartError> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    let failed = |error: io::Error| StartError::Takeover(format!("{}: {error}", folder.display()));
    files::make_folder(folder).map_err(failed)?;
    if files::is_open_to_others(folder).map_err(failed)? {
        return Err(StartError::Takeover(format!(
            "{0}: others may write here; run: chmod go-w {0}",
            folder.display()
        )));
    }
    Ok(())
}

async fn expect(
    stream: &mut tokio::net::UnixStream,
    word: &[u8],
    patience: Duration,
) -> io::Result<()> {
    let mut heard = vec![0; word.len()];
    timeout(patience, stream.read_exact(&mut heard)).await??;
    if heard != word {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it speaks another language",
        ));
    }
    Ok(())
}

fn send(stream: impl AsFd, tag: u8, sockets: &[TcpListener]) -> io::Result<()> {
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let tag = [tag];
    sendmsg(
        stream,
        &[IoSlice::new(&tag)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive_all(stream: &UnixStream) -> io::Result<Vec<TcpListener>> {
    let mut sockets = Vec::new();
    loop {
        let is_last = receive(stream, &mut sockets)?;
        if sockets.len() > SOCKETS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many sockets",
            ));
        }
        if is_last {
            return Ok(sockets);
        }
    }
}

/// Takes the sockets of one message; whether it was the last.
fn receive(stream: &UnixStream, sockets: &mut Vec<TcpListener>) -> io::Result<bool> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut tag = [0];
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut tag)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors.map(|descriptor: OwnedFd| TcpListener::from(descriptor)));
        }
    }
    match (received.bytes, tag) {
        (1, [MORE]) => Ok(false),
        (1, [LAST]) => Ok(true),
        (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests;
