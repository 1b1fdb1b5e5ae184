//! HTTP/2 frame by frame, for requests that no client library would write.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{Gateway, client::tls, within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The connection ended, or was told to.
    Closed,
    /// The stream was reset.
    Reset,
    /// An answer began.
    Status(u16),
}

/// A connection on which a test may write any frame.
pub(crate) struct Frames {
    stream: TlsStream<TcpStream>,
}

impl Frames {
    pub(crate) async fn connect(gateway: &Gateway) -> Self {
        Self::connect_with(gateway, &[]).await
    }

    /// A client that takes the head of an answer and nothing of its body (SETTINGS_INITIAL_WINDOW_SIZE is 0).
    pub(crate) async fn connect_taking_nothing(gateway: &Gateway) -> Self {
        Self::connect_with(gateway, &[0, 4, 0, 0, 0, 0]).await
    }

    async fn connect_with(gateway: &Gateway, settings: &[u8]) -> Self {
        let stream = within("a connection", tls(gateway.tls, "localhost", &[b"h2"]))
            .await
            .unwrap();
        let mut frames = Self { stream };
        frames.stream.write_all(PREFACE).await.unwrap();
        frames.frame(SETTINGS, 0, 0, settings).await;
        frames
    }

    async fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        // A gateway that has closed already is no fault: the outcome tells.
        let _ = self.try_frame(kind, flags, id, payload).await;
    }

    /// Sends any frame; an error when the connection takes no more.
    pub(crate) async fn try_frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(id.to_be_bytes());
        bytes.extend(payload);
        within("a write", async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Sends a request's fields exactly as they are, in this order, and its body in one frame.
    pub(crate) async fn request(
        &mut self,
        id: u32,
        fields: &[(&[u8], &[u8])],
        body: Option<&[u8]>,
    ) {
        let end = if body.is_none() { END_STREAM } else { 0 };
        self.head(id, fields, end).await;
        if let Some(body) = body {
            self.frame(DATA, END_STREAM, id, body).await;
        }
    }

    /// Sends a request's fields and nothing of the body that they promise.
    pub(crate) async fn begin(&mut self, id: u32, fields: &[(&[u8], &[u8])]) {
        self.head(id, fields, 0).await;
    }

    async fn head(&mut self, id: u32, fields: &[(&[u8], &[u8])], flags: u8) {
        self.frame(HEADERS, END_HEADERS | flags, id, &block(fields))
            .await;
    }

    /// Sends a piece of a body, not the last.
    pub(crate) async fn data(&mut self, id: u32, piece: &[u8]) -> std::io::Result<()> {
        self.try_frame(DATA, 0, id, piece).await
    }

    /// Reads to the end of the connection, which must come; the error code of its last GOAWAY.
    pub(crate) async fn farewell(&mut self) -> Option<u32> {
        within("the end of the connection", async {
            let mut told = None;
            loop {
                let mut head = [0; 9];
                if self.stream.read_exact(&mut head).await.is_err() {
                    return told;
                }
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                if self.stream.read_exact(&mut payload).await.is_err() {
                    return told;
                }
                if head[3] == GOAWAY {
                    told = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
            }
        })
        .await
    }

    /// Reads an answer to its end: how many heads it had, interim ones included, and its body. Heads are counted and not read.
    pub(crate) async fn whole(&mut self, id: u32) -> (usize, Vec<u8>) {
        within("a whole answer", async {
            let (mut heads, mut body) = (0, Vec::new());
            loop {
                let mut head = [0; 9];
                self.stream.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                self.stream.read_exact(&mut payload).await.unwrap();
                if u32::from_be_bytes([head[5], head[6], head[7], head[8]]) != id {
                    assert_ne!(head[3], GOAWAY, "{payload:?}");
                    continue;
                }
                match head[3] {
                    HEADERS => heads += 1,
                    DATA => body.extend_from_slice(&payload),
                    kind => panic!("a frame of type {kind}: {payload:?}"),
                }
                if head[4] & END_STREAM != 0 {
                    return (heads, body);
                }
            }
        })
        .await
    }

    /// Sends the last piece of a body.
    pub(crate) async fn last_data(&mut self, id: u32, piece: &[u8]) {
        self.frame(DATA, END_STREAM, id, piece).await;
    }

    /// Waits for what becomes of a stream. Only the first answer of a connection can be read.
    pub(crate) async fn outcome(&mut self, id: u32) -> Outcome {
        within("an outcome", async {
            loop {
                let mut head = [0; 9];
                if self.stream.read_exact(&mut head).await.is_err() {
                    return Outcome::Closed;
                }
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                if self.stream.read_exact(&mut payload).await.is_err() {
                    return Outcome::Closed;
                }
                let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                match head[3] {
                    GOAWAY if payload[4..8] != [0; 4] => return Outcome::Closed,
                    RST_STREAM if of == id => return Outcome::Reset,
                    HEADERS if of == id => return Outcome::Status(status(&payload)),
                    _ => {}
                }
            }
        })
        .await
    }
}

/// Fields as a header block.
fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        // A literal without indexing, with a new name, not Huffman-coded (RFC 7541 §6.2.2).
        block.push(0);
        for text in [name, value] {
            integer(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn integer(mut value: usize, out: &mut Vec<u8>) {
    let byte = |value: usize| u8::try_from(value).unwrap();
    if value < 127 {
        out.push(byte(value));
        return;
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push(byte(value % 128) | 128);
        value /= 128;
    }
    out.push(byte(value));
}

/// Reads `:status`, the first field of the first answer of a connection.
fn status(block: &[u8]) -> u16 {
    // A table size update may come first (RFC 7541 §6.3).
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap();
    let block = &block[start..];
    if let Some(index) = (0x88..=0x8e_u8).position(|byte| byte == block[0]) {
        return [200, 204, 206, 304, 400, 404, 500][index];
    }
    assert!(matches!(block[0], 0x48 | 0x08), "not a status: {block:?}");
    let length = usize::from(block[1] & 0x7f);
    let value = &block[2..2 + length];
    if block[1] & 0x80 == 0 {
        return std::str::from_utf8(value).unwrap().parse().unwrap();
    }
    // The Huffman codes of digits: five bits for 0 to 2, six for the others (RFC 7541, appendix B).
    let bits: String = value.iter().map(|byte| format!("{byte:08b}")).collect();
    let mut rest = &*bits;
    let mut digits = String::new();
    while digits.len() < 3 {
        let (code, digit) = match &rest[..5] {
            "00000" => (5, 0),
            "00001" => (5, 1),
            "00010" => (5, 2),
            _ => (
                6,
                u8::from_str_radix(&rest[..6], 2).unwrap() - 0b01_1001 + 3,
            ),
        };
        digits.push_str(&digit.to_string());
        rest = &rest[code..];
    }
    digits.parse().unwrap()
}
