//! The protocol of Redis (RESP, version 2), as much of it as is needed, and no answer larger than is needed.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most bytes of one answer. Ours have a few dozen; whoever sends more is not believed.
const REPLY_MAX: usize = 4 << 10;

/// The most parts of one answer: a message has three.
const PARTS_MAX: usize = 8;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Text, or bytes, of any length within the bound; `None` is nothing.
    Bytes(Option<Vec<u8>>),
    /// It was not done, and the word that says why.
    Error(String),
    /// A number.
    Integer(i64),
    /// Several.
    Parts(Vec<Reply>),
}

/// Reads answers. Waiting for one may be given up and taken up again: nothing is lost.
#[derive(Debug)]
pub(super) struct Replies<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Replies<R> {
    pub(super) fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> io::Result<Reply> {
        loop {
            let mut rest: &[u8] = &self.buffer;
            if let Some(reply) = parse(&mut rest, true)? {
                let taken = self.buffer.len() - rest.len();
                self.buffer.advance(taken);
                return Ok(reply);
            }
            if self.buffer.len() > REPLY_MAX {
                return Err(malformed("it sent more than it was asked for"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A command as it is sent.
pub(super) fn command(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Takes one answer off the front; `None` where it is not complete.
fn parse(rest: &mut &[u8], may_have_parts: bool) -> io::Result<Option<Reply>> {
    let Some(line) = line(rest) else {
        return Ok(None);
    };
    let Some((kind, text)) = line.split_first() else {
        return Err(malformed("it sent an empty line"));
    };
    let text = str::from_utf8(text).map_err(|_| malformed("it sent a line that is no text"))?;
    match kind {
        b'+' => Ok(Some(Reply::Bytes(Some(text.into())))),
        b'-' => Ok(Some(Reply::Error(word(text)))),
        b':' => Ok(Some(Reply::Integer(number(text)?))),
        b'$' => match length(text, REPLY_MAX)? {
            None => Ok(Some(Reply::Bytes(None))),
            Some(length) => Ok(bulk(rest, length)?.map(|bytes| Reply::Bytes(Some(bytes)))),
        },
        b'*' if may_have_parts => {
            let count = length(text, PARTS_MAX)?.unwrap_or(0);
            let mut parts = Vec::with_capacity(count);
            for _ in 0..count {
                match parse(rest, false)? {
                    Some(part) => parts.push(part),
                    None => return Ok(None),
                }
            }
            Ok(Some(Reply::Parts(parts)))
        }
        _ => Err(malformed("it does not speak the protocol of Redis")),
    }
}

fn line<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, after) = rest.split_at_checked(end)?;
    *rest = after.get(2..)?;
    Some(line)
}

fn bulk(rest: &mut &[u8], length: usize) -> io::Result<Option<Vec<u8>>> {
    let Some((bytes, after)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    match after.split_at_checked(2) {
        None => Ok(None),
        Some((b"\r\n", after)) => {
            *rest = after;
            Ok(Some(bytes.to_vec()))
        }
        Some(_) => Err(malformed("it sent bytes of another length than it said")),
    }
}

fn length(text: &str, most: usize) -> io::Result<Option<usize>> {
    match number(text)? {
        -1 => Ok(None),
        number => usize::try_from(number)
            .ok()
            .filter(|length| *length <= most)
            .map(Some)
            .ok_or_else(|| malformed("it sent more than it was asked for")),
    }
}

fn number(text: &str) -> io::Result<i64> {
    text.parse()
        .map_err(|_| malformed("it sent a number that is none"))
}

/// The first word of an error, which is its kind: the rest may hold what was sent.
fn word(text: &str) -> String {
    let word = text.chars().take_while(char::is_ascii_alphanumeric);
    word.take(32).collect()
}

pub(super) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Vec<Result<Reply, io::ErrorKind>> {
        let mut replies = Replies::new(bytes);
        let mut read = Vec::new();
        loop {
            match replies.next().await {
                Ok(reply) => read.push(Ok(reply)),
                Err(error) => {
                    read.push(Err(error.kind()));
                    return read;
                }
            }
        }
    }

    fn text(text: &str) -> Reply {
        Reply::Bytes(Some(text.into()))
    }

    #[test]
    fn commands_have_lengths_and_nothing_in_them_is_syntax() {
        assert_eq!(
            command(&[b"GET", b"a\r\n$1\r\nb", b""]),
            b"*3\r\n$3\r\nGET\r\n$8\r\na\r\n$1\r\nb\r\n$0\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn answers_of_every_kind_are_read_one_after_the_other() {
        let bytes = b"+OK\r\n:-7\r\n$2\r\n\r\n\r\n$-1\r\n*3\r\n$1\r\na\r\n:1\r\n$0\r\n\r\n*-1\r\n-NOSCRIPT No 'secret'\r\n";
        let end = Err(io::ErrorKind::UnexpectedEof);
        assert_eq!(
            read(bytes).await,
            [
                Ok(text("OK")),
                Ok(Reply::Integer(-7)),
                Ok(text("\r\n")),
                Ok(Reply::Bytes(None)),
                Ok(Reply::Parts(vec![text("a"), Reply::Integer(1), text("")])),
                Ok(Reply::Parts(Vec::new())),
                Ok(Reply::Error("NOSCRIPT".into())),
                end,
            ]
        );
        // Cut anywhere, what was whole is read, and no more.
        for end in 0..bytes.len() {
            let replies = read(bytes.get(..end).unwrap()).await;
            assert_eq!(replies.last(), Some(&Err(io::ErrorKind::UnexpectedEof)));
        }
    }

    #[tokio::test]
    async fn what_is_too_large_or_no_answer_ends_the_connection() {
        let long = [b"+".as_slice(), &[b'a'; REPLY_MAX + 1]].concat();
        for bytes in [
            b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
            b"\r\n",
            b":x\r\n",
            b":99999999999999999999\r\n",
            b"$4097\r\n",
            b"$-2\r\n",
            b"$1\r\nabc",
            b"*9\r\n",
            b"*1\r\n*1\r\n:1\r\n",
            b"+\xff\r\n",
            &long,
        ] {
            let read = read(bytes).await;
            assert_eq!(read, [Err(io::ErrorKind::InvalidData)], "{bytes:?}");
        }
    }
}
