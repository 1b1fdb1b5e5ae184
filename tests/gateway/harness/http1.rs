//! HTTP/1.1 as strictly as it can be read: what is not exactly one way of saying a thing is a fault, never repaired.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// The largest head that is read.
const HEAD_MAX: usize = 1 << 20;

/// Start line and fields of a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) start: String,
    /// Names in lower case, values as they came.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) raw: Vec<u8>,
}

impl Head {
    /// Every value of a field, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let name = name.to_ascii_lowercase();
        self.fields
            .iter()
            .filter(|(field, _)| *field == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The one value of a field; several fail the test.
    #[track_caller]
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(
            values.len() < 2,
            "{name} came {} times: {values:?}",
            values.len()
        );
        values.first().copied()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn parse(raw: Vec<u8>) -> Result<Self, String> {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let body = text
            .strip_suffix("\r\n\r\n")
            .ok_or("the head does not end in CR LF CR LF")?;
        let mut lines = body.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines {
            if line.contains(['\r', '\n', '\0']) {
                return Err(format!("a control byte in {line:?}"));
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("no colon in {line:?}"))?;
            let token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(format!("not a field name: {name:?}"));
            }
            fields.push((
                name.to_ascii_lowercase(),
                value.trim_matches([' ', '\t']).to_owned(),
            ));
        }
        Ok(Self { start, fields, raw })
    }
}

/// How long a message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Chunked,
    Length(u64),
    None,
    UntilClose,
}

impl Framing {
    /// Reads the framing of a message that must have exactly one.
    pub(crate) fn of(head: &Head) -> Result<Self, String> {
        match (
            &*head.values("content-length"),
            &*head.values("transfer-encoding"),
        ) {
            ([], []) => Ok(Self::None),
            ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
                length
                    .parse()
                    .map(Self::Length)
                    .map_err(|_| format!("length {length}"))
            }
            ([], ["chunked"]) => Ok(Self::Chunked),
            (lengths, codings) => Err(format!(
                "ambiguous framing: content-length {lengths:?}, transfer-encoding {codings:?}"
            )),
        }
    }
}

fn fault(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Reads a head; `None` when the connection ends before its first byte.
pub(crate) async fn read_head(io: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Head>> {
    let mut raw = Vec::new();
    loop {
        let before = raw.len();
        let count = io.read_until(b'\n', &mut raw).await?;
        if count == 0 {
            if raw.is_empty() {
                return Ok(None);
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !raw.ends_with(b"\r\n") {
            return Err(fault(format!(
                "a line without CR LF: {:?}",
                String::from_utf8_lossy(&raw[before..])
            )));
        }
        if raw.ends_with(b"\r\n\r\n") || raw == b"\r\n" {
            return Head::parse(raw).map(Some).map_err(fault);
        }
        if raw.len() > HEAD_MAX {
            return Err(fault("a head without end"));
        }
    }
}

/// Reads a body piece by piece.
#[derive(Debug)]
pub(crate) struct BodyReader {
    framing: Framing,
    left: u64,
    ended: bool,
    pub(crate) trailers: Vec<(String, String)>,
}

impl BodyReader {
    pub(crate) fn new(framing: Framing) -> Self {
        let left = match framing {
            Framing::Length(length) => length,
            Framing::Chunked | Framing::None | Framing::UntilClose => 0,
        };
        let ended = matches!(framing, Framing::None | Framing::Length(0));
        Self {
            framing,
            left,
            ended,
            trailers: Vec::new(),
        }
    }

    /// The next piece; `None` at the end. A body cut short is an error.
    pub(crate) async fn next(
        &mut self,
        io: &mut (impl AsyncBufRead + Unpin),
    ) -> io::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        if self.framing == Framing::Chunked && self.left == 0 {
            self.left = chunk_size(io).await?;
            if self.left == 0 {
                self.trailers = trailers(io).await?;
                self.ended = true;
                return Ok(None);
            }
        }
        let room = match self.framing {
            Framing::UntilClose => 1 << 16,
            Framing::Chunked | Framing::Length(_) | Framing::None => self.left.min(1 << 16),
        };
        let mut piece = vec![0; usize::try_from(room).unwrap()];
        let count = io.read(&mut piece).await?;
        piece.truncate(count);
        if count == 0 {
            if self.framing == Framing::UntilClose {
                self.ended = true;
                return Ok(None);
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.framing != Framing::UntilClose {
            self.left -= u64::try_from(count).unwrap();
            if self.left == 0 {
                if self.framing == Framing::Chunked {
                    line_end(io).await?;
                } else {
                    self.ended = true;
                }
            }
        }
        Ok(Some(piece))
    }
}

async fn line(io: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    io.take(1 << 14).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    match text.strip_suffix("\r\n") {
        Some(text) => Ok(text.to_owned()),
        None => Err(if line.ends_with(b"\n") {
            fault(format!("a line without CR LF: {text:?}"))
        } else {
            io::ErrorKind::UnexpectedEof.into()
        }),
    }
}

async fn line_end(io: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
    let text = line(io).await?;
    text.is_empty()
        .then_some(())
        .ok_or_else(|| fault(format!("after a chunk: {text:?}")))
}

/// A chunk's size in its one canonical form: hex digits, no extension, no leading zero (MSG-2).
async fn chunk_size(io: &mut (impl AsyncBufRead + Unpin)) -> io::Result<u64> {
    let text = line(io).await?;
    let canonical = !text.is_empty()
        && text.len() <= 15
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(fault(format!("not a canonical chunk size: {text:?}")));
    }
    u64::from_str_radix(&text, 16).map_err(|error| fault(error.to_string()))
}

async fn trailers(io: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    loop {
        let text = line(io).await?;
        if text.is_empty() {
            return Ok(found);
        }
        let (name, value) = text
            .split_once(':')
            .ok_or_else(|| fault(format!("trailer {text:?}")))?;
        found.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Statuses of the interim answers before it.
    pub(crate) interim: Vec<u16>,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection ended without a byte of an answer.
    Closed,
    /// The stream or connection was reset, or ended inside an answer.
    Cut(#[expect(dead_code, reason = "shown by `Debug`")] String),
    /// The answer is not HTTP.
    Malformed(String),
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {:?}", self.status, self.text()))
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.value(name)
    }

    /// The code of a refusal, whose form is checked on the way.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        let kind = self.header("content-type").unwrap_or_default();
        assert!(
            kind.starts_with("application/problem+json"),
            "{} {kind:?} {}",
            self.status,
            self.text()
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        for name in ["type", "title", "detail", "code", "request_id"] {
            assert!(problem[name].is_string(), "no {name}: {problem}");
        }
        if self.status == 401 {
            assert!(
                !self.head.values("www-authenticate").is_empty(),
                "a 401 without challenge"
            );
        }
        problem["code"].as_str().unwrap().to_owned()
    }

    /// Fails unless this is the refusal that is wanted.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{}",
            self.text()
        );
    }

    /// Fails unless the status is the one that is wanted.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(
            self.status,
            status,
            "{:?} {}",
            self.head.fields,
            self.text()
        );
        self
    }
}

fn broken(error: &io::Error) -> Broken {
    let text = error.to_string();
    if error.kind() == io::ErrorKind::InvalidData && !text.contains("peer closed") {
        Broken::Malformed(text)
    } else {
        Broken::Cut(text)
    }
}

/// Reads an answer, skipping interim ones. `to_head` for the answer to a HEAD request.
pub(crate) async fn read_answer(
    io: &mut (impl AsyncBufRead + Unpin),
    to_head: bool,
) -> Result<Answer, Broken> {
    let mut interim = Vec::new();
    loop {
        let head = match read_head(io).await {
            Ok(Some(head)) => head,
            Ok(None) => return Err(Broken::Closed),
            // TLS without close_notify, or a reset, before any byte of an answer.
            Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(Broken::Closed),
            Err(error) => return Err(broken(&error)),
        };
        let status: u16 = head
            .start
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| head.start.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| Broken::Malformed(head.start.clone()))?;
        if (100..200).contains(&status) && status != 101 {
            interim.push(status);
            continue;
        }
        let framing = if to_head || status == 204 || status == 304 || status == 101 {
            Framing::None
        } else {
            let framing = Framing::of(&head).map_err(Broken::Malformed)?;
            if framing == Framing::None {
                Framing::UntilClose
            } else {
                framing
            }
        };
        let mut reader = BodyReader::new(framing);
        let mut body = Vec::new();
        while let Some(piece) = reader.next(io).await.map_err(|error| broken(&error))? {
            body.extend_from_slice(&piece);
        }
        return Ok(Answer {
            status,
            head,
            body,
            trailers: reader.trailers,
            interim,
        });
    }
}
