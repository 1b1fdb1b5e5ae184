//! A connection to the server: encrypted where that is asked for, signed in, and not waited for without end.

use std::{io, sync::Arc, time::Duration};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    resp::{Replies, Reply, command, malformed},
    settings::ClusterSettings,
};
use crate::upstream::{SystemRoots, TlsFault, client_config, settings::TlsSettings};

/// From the first look at the name to the answer to the login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Where the server is and how it is spoken to.
pub(super) struct Target {
    settings: ClusterSettings,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// An open connection.
pub(super) struct Connection {
    writer: WriteHalf<Box<dyn Stream>>,
    pub(super) replies: Replies<ReadHalf<Box<dyn Stream>>>,
}

impl Target {
    pub(super) fn new(settings: &ClusterSettings) -> Result<Self, TlsFault> {
        let tls = if settings.tls {
            let roots = TlsSettings {
                ca: settings.ca.clone(),
                ..TlsSettings::default()
            };
            let config: Arc<ClientConfig> = client_config(&roots, &SystemRoots::default(), &[])?;
            let name = ServerName::try_from(settings.host.to_string());
            let name = name.map_err(|_| TlsFault::ServerName {
                name: settings.host.clone(),
            })?;
            Some((TlsConnector::from(config), name))
        } else {
            None
        };
        Ok(Self {
            settings: settings.clone(),
            tls,
        })
    }

    /// Connects and signs in.
    pub(super) async fn connect(&self) -> io::Result<Connection> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.open()).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn open(&self) -> io::Result<Connection> {
        let settings = &self.settings;
        let tcp = TcpStream::connect((&*settings.host, settings.port)).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some((connector, name)) => Box::new(connector.connect(name.clone(), tcp).await?),
            None => Box::new(tcp),
        };
        let (reader, writer) = split(stream);
        let mut connection = Connection {
            writer,
            replies: Replies::new(reader),
        };
        match &settings.login {
            Some((Some(user), password)) => {
                let parts = [b"AUTH".as_slice(), user.as_bytes(), password.as_bytes()];
                connection.ask(&command(&parts)).await?;
            }
            Some((None, password)) => {
                let parts = [b"AUTH".as_slice(), password.as_bytes()];
                connection.ask(&command(&parts)).await?;
            }
            None => {}
        }
        if settings.database != 0 {
            let number = settings.database.to_string();
            let select = command(&[b"SELECT", number.as_bytes()]);
            connection.ask(&select).await?;
        }
        Ok(connection)
    }
}

impl Connection {
    pub(super) async fn send(&mut self, command: &[u8]) -> io::Result<()> {
        self.writer.write_all(command).await?;
        self.writer.flush().await
    }

    /// Sends a command and waits for its answer, which must not be an error. For the beginning of a connection.
    async fn ask(&mut self, command: &[u8]) -> io::Result<Reply> {
        self.send(command).await?;
        refused(self.replies.next().await?)
    }

    /// The same within the time that connecting may take.
    pub(super) async fn ask_in_time(&mut self, command: &[u8]) -> io::Result<Reply> {
        let asked = tokio::time::timeout(CONNECT_TIMEOUT, self.ask(command)).await;
        asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// An answer that is no error; of an error the word alone.
pub(super) fn refused(reply: Reply) -> io::Result<Reply> {
    match reply {
        Reply::Error(word) => Err(io::Error::other(format!("it answered {word}"))),
        Reply::Bytes(_) | Reply::Integer(_) | Reply::Parts(_) => Ok(reply),
    }
}

/// The text of an answer.
pub(super) fn text(reply: Reply) -> io::Result<Vec<u8>> {
    match reply {
        Reply::Bytes(Some(bytes)) => Ok(bytes),
        Reply::Bytes(None) | Reply::Error(_) | Reply::Integer(_) | Reply::Parts(_) => {
            Err(malformed("it gave another answer than asked for"))
        }
    }
}
