//! A small mail server that records what it is given, and can behave badly.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::certs::Signed;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It hangs up once it has the whole mail, without a word, this many times.
    Drops(u32),
    /// It takes everything.
    Fine,
    /// It answers each recipient with this code, this many times.
    Recipient(u16, u32),
    /// It answers the login with this code.
    Login(u16),
    /// It accepts connections and says nothing.
    Silent,
    /// It does not offer STARTTLS.
    WithoutStarttls,
}

/// How it is encrypted.
#[derive(Clone)]
pub(crate) enum Shield {
    Implicit(Signed),
    None,
    StartTls(Signed),
}

#[derive(Default)]
struct State {
    mails: Vec<String>,
    /// Lines of clients outside of mails, whether encrypted or not.
    lines: Vec<(bool, String)>,
    connections: u32,
    bad_turns: u32,
}

/// It, until it is dropped.
pub(crate) struct Smtp {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    manner: Arc<Mutex<Manner>>,
    task: JoinHandle<()>,
}

impl Smtp {
    pub(crate) async fn start(manner: Manner, shield: Shield) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), manner, shield).await
    }

    pub(crate) async fn at(address: SocketAddr, manner: Manner, shield: Shield) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let manner = Arc::new(Mutex::new(manner));
        let (shared, manners) = (Arc::clone(&state), Arc::clone(&manner));
        let task = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    return;
                };
                shared.lock().unwrap().connections += 1;
                let session = Session {
                    state: Arc::clone(&shared),
                    manner: *manners.lock().unwrap(),
                    secured: false,
                };
                tokio::spawn(serve(socket, session, shield.clone()));
            }
        });
        Self {
            address,
            state,
            manner,
            task,
        }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// The mails taken so far, head and body.
    pub(crate) fn mails(&self) -> Vec<String> {
        self.state.lock().unwrap().mails.clone()
    }

    /// What clients said, each line with whether it was encrypted.
    pub(crate) fn lines(&self) -> Vec<(bool, String)> {
        self.state.lock().unwrap().lines.clone()
    }

    pub(crate) fn connections(&self) -> u32 {
        self.state.lock().unwrap().connections
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Session {
    state: Arc<Mutex<State>>,
    manner: Manner,
    secured: bool,
}

fn acceptor(signed: &Signed) -> TlsAcceptor {
    let chain = vec![CertificateDer::from(signed.der.to_vec())];
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(socket: TcpStream, mut session: Session, shield: Shield) {
    if session.manner == Manner::Silent {
        // Longer than any test waits.
        tokio::time::sleep(Duration::from_secs(120)).await;
        return;
    }
    match &shield {
        Shield::Implicit(signed) => {
            if let Ok(stream) = acceptor(signed).accept(socket).await {
                session.secured = true;
                session.talk(stream, None, true).await;
            }
        }
        Shield::None => {
            session.talk(socket, None, true).await;
        }
        Shield::StartTls(signed) => {
            let offered = (session.manner != Manner::WithoutStarttls).then_some(());
            if let Some(socket) = session.talk(socket, offered, true).await
                && let Ok(stream) = acceptor(signed).accept(socket).await
            {
                session.secured = true;
                session.talk(stream, None, false).await;
            }
        }
    }
}

impl Session {
    /// One conversation; gives the stream back where the client wants to encrypt it.
    async fn talk<S>(&mut self, stream: S, starttls: Option<()>, greet: bool) -> Option<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = BufReader::new(stream);
        if greet {
            stream.write_all(b"220 mail.test ESMTP\r\n").await.ok()?;
        }
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            self.state
                .lock()
                .unwrap()
                .lines
                .push((self.secured, line.clone()));
            let verb = line.split(' ').next().unwrap_or_default().to_uppercase();
            let answer = match &*verb {
                "EHLO" if starttls.is_some() => "250-mail.test\r\n250 STARTTLS".to_owned(),
                "EHLO" => "250-mail.test\r\n250 AUTH PLAIN LOGIN".to_owned(),
                "STARTTLS" => {
                    stream.write_all(b"220 go\r\n").await.ok()?;
                    return Some(stream.into_inner());
                }
                "AUTH" => {
                    if let Manner::Login(code) = self.manner {
                        format!("{code} no")
                    } else {
                        "235 welcome".to_owned()
                    }
                }
                "RCPT" => match self.recipient() {
                    Some(code) => format!("{code} <ann@example.com> no"),
                    None => "250 fine".to_owned(),
                },
                "DATA" => {
                    stream.write_all(b"354 go\r\n").await.ok()?;
                    let mail = data(&mut stream).await?;
                    if self.drops() {
                        return None;
                    }
                    self.state.lock().unwrap().mails.push(mail);
                    "250 taken".to_owned()
                }
                "QUIT" => {
                    let _ = stream.write_all(b"221 bye\r\n").await;
                    return None;
                }
                _ => "250 fine".to_owned(),
            };
            stream
                .write_all(format!("{answer}\r\n").as_bytes())
                .await
                .ok()?;
        }
    }

    fn recipient(&self) -> Option<u16> {
        if let Manner::Recipient(code, times) = self.manner {
            self.turn(times).then_some(code)
        } else {
            None
        }
    }

    fn drops(&self) -> bool {
        matches!(self.manner, Manner::Drops(times) if self.turn(times))
    }

    /// Whether it is still to behave badly.
    fn turn(&self, times: u32) -> bool {
        let mut state = self.state.lock().unwrap();
        let bad = state.bad_turns < times;
        state.bad_turns += u32::from(bad);
        bad
    }
}

/// A mail until the line with a single dot, the dots of others taken out.
async fn data<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<String> {
    let mut mail = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line == ".\r\n" {
            return Some(mail);
        }
        mail.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
