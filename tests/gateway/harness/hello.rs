//! The first message of a TLS handshake, byte by byte, for clients that no library would be, and what the gateway answers.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Gateway, within};

/// What a client offers. TLS 1.2 with one good suite as it starts.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    /// The newest version: 0x0301 is TLS 1.0.
    pub(crate) version: u16,
    /// The versions of the extension that came with TLS 1.3; without any, it is not sent.
    pub(crate) versions: Vec<u16>,
    pub(crate) suites: Vec<u16>,
    /// Ways to compress: 0 is none.
    pub(crate) compression: Vec<u8>,
    /// Whether there is any extension, as there was none in SSL 3.0.
    pub(crate) extensions: bool,
    pub(crate) groups: Vec<u16>,
    /// Kinds of signatures.
    pub(crate) schemes: Vec<u16>,
    /// The name asked for, byte for byte.
    pub(crate) sni: Option<&'static str>,
    /// Bytes of the message in one record.
    pub(crate) record: usize,
    /// Bytes in one write.
    pub(crate) write: usize,
}

/// What the gateway answers with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It breaks off before it has chosen anything, with the description of its alert where there is one.
    Refused(Option<u8>),
    /// It goes on, or had begun to.
    Accepted(Flight),
}

/// The first messages of a server that speaks TLS 1.2.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Flight {
    pub(crate) version: u16,
    /// The last bytes of its random: they tell of a version that is lower than it need be (RFC 8446 §4.1.3).
    pub(crate) downgrade: [u8; 8],
    pub(crate) suite: u16,
    pub(crate) compression: u8,
    /// The kinds of its extensions.
    pub(crate) extensions: Vec<u16>,
    /// The first certificate as DER.
    pub(crate) leaf: Vec<u8>,
    /// Whether the client is asked for a certificate.
    pub(crate) asks_client: bool,
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;

pub(crate) const ECDHE_ECDSA_AES128_GCM: u16 = 0xc02b;

impl Hello {
    pub(crate) fn new() -> Self {
        Self {
            version: 0x0303,
            versions: Vec::new(),
            suites: vec![ECDHE_ECDSA_AES128_GCM],
            compression: vec![0],
            extensions: true,
            // X25519 and P-256.
            groups: vec![0x001d, 0x0017],
            // ECDSA, RSA-PSS and RSA with SHA-256, RSA and ECDSA with SHA-1.
            schemes: vec![0x0403, 0x0804, 0x0401, 0x0201, 0x0203],
            sni: Some("localhost"),
            record: 1 << 14,
            write: usize::MAX,
        }
    }

    fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(with_length::<2>(&words(&self.suites)));
        body.extend(with_length::<1>(&self.compression));
        if self.extensions {
            body.extend(with_length::<2>(&self.extensions()));
        }
        [&[1][..], &with_length::<3>(&body)].concat()
    }

    fn extensions(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        if let Some(name) = self.sni {
            let entry = [&[0][..], &with_length::<2>(name.as_bytes())].concat();
            extensions.extend(extension(0, &with_length::<2>(&entry)));
        }
        // Uncompressed points.
        extensions.extend(extension(10, &with_length::<2>(&words(&self.groups))));
        extensions.extend(extension(11, &[1, 0]));
        extensions.extend(extension(13, &with_length::<2>(&words(&self.schemes))));
        // Heartbeats, extended master secret and secure renegotiation.
        extensions.extend(extension(15, &[1]));
        extensions.extend(extension(23, &[]));
        extensions.extend(extension(0xff01, &[0]));
        if !self.versions.is_empty() {
            extensions.extend(extension(43, &with_length::<1>(&words(&self.versions))));
        }
        extensions
    }

    /// Sends it and reads what comes back.
    #[track_caller]
    pub(crate) fn send(&self, gateway: &Gateway) -> impl Future<Output = Reply> {
        let records: Vec<u8> = self
            .message()
            .chunks(self.record)
            .flat_map(|part| [&[HANDSHAKE, 3, 1][..], &with_length::<2>(part)].concat())
            .collect();
        send(gateway, records, self.write)
    }
}

/// Sends any bytes, so many in one write, and reads what comes back.
#[track_caller]
pub(crate) fn send(gateway: &Gateway, bytes: Vec<u8>, write: usize) -> impl Future<Output = Reply> {
    let address = gateway.tls;
    within("an answer to a ClientHello", async move {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        for part in bytes.chunks(write) {
            // A gateway that has closed already is no fault: the answer tells.
            let _ = socket.write_all(part).await;
        }
        read(&mut socket).await
    })
}

async fn read(socket: &mut TcpStream) -> Reply {
    let mut flight = Flight::default();
    let mut messages = Vec::new();
    loop {
        let mut head = [0; 5];
        if socket.read_exact(&mut head).await.is_err() {
            return flight.broken_off(None);
        }
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        socket.read_exact(&mut payload).await.unwrap();
        match head[0] {
            ALERT => return flight.broken_off(payload.get(1).copied()),
            HANDSHAKE => messages.extend(payload),
            // What TLS 1.3 goes on with.
            CHANGE_CIPHER_SPEC | APPLICATION_DATA => return Reply::Accepted(flight),
            other => panic!("a record of type {other}"),
        }
        while messages.len() >= 4 {
            let length = u32::from_be_bytes([0, messages[1], messages[2], messages[3]]);
            let end = 4 + usize::try_from(length).unwrap();
            if messages.len() < end {
                break;
            }
            let message: Vec<u8> = messages.drain(..end).collect();
            if flight.take(message[0], &message[4..]) {
                return Reply::Accepted(flight);
            }
        }
    }
}

impl Flight {
    /// The connection has ended, or will.
    fn broken_off(self, alert: Option<u8>) -> Reply {
        if self == Self::default() {
            Reply::Refused(alert)
        } else {
            Reply::Accepted(self)
        }
    }

    /// Takes a message; says whether it was the last.
    fn take(&mut self, kind: u8, body: &[u8]) -> bool {
        match kind {
            SERVER_HELLO => {
                self.version = word(&body[0..2]);
                self.downgrade.copy_from_slice(&body[26..34]);
                let after = 35 + usize::from(body[34]);
                self.suite = word(&body[after..after + 2]);
                self.compression = body[after + 2];
                let mut rest = body.get(after + 5..).unwrap_or_default();
                while rest.len() >= 4 {
                    self.extensions.push(word(rest));
                    rest = &rest[4 + usize::from(word(&rest[2..4]))..];
                }
            }
            CERTIFICATE => {
                let length = u32::from_be_bytes([0, body[3], body[4], body[5]]);
                self.leaf = body[6..6 + usize::try_from(length).unwrap()].to_vec();
            }
            CERTIFICATE_REQUEST => self.asks_client = true,
            _ => {}
        }
        kind == SERVER_HELLO_DONE
    }
}

fn word(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &with_length::<2>(body)].concat()
}

/// Bytes after their length in `N` bytes.
fn with_length<const N: usize>(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[4 - N..], bytes].concat()
}
