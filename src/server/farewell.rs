//! The last bytes of a connection: what is still written, and what is still read so that the client gets it.

use std::{io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{policy::Rejection, respond, telemetry::RequestId};

/// The longest wait for a client to take the last bytes of a connection that is being closed.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// The most that is read of what a client sends after the last answer.
const FAREWELL_BYTES_MAX: usize = 64 << 10;

/// Reads what a client still sends after our last answer, and throws it away, at most [`FAREWELL_BYTES_MAX`]. A socket that is
/// closed with unread bytes resets the connection, and the client may lose the answer that it has not read yet.
pub(super) async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.shutdown().await?;
    let mut buffer = vec![0; 4 << 10];
    let mut left = FAREWELL_BYTES_MAX;
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

/// Writes the refusal that hyper cannot write any more, for no head ever came.
pub(super) async fn refuse_slow_head(
    mut stream: impl AsyncWrite + Unpin,
    request_id: &RequestId,
) -> io::Result<()> {
    let refusal = respond::refusal(&Rejection::RequestTimeout, request_id);
    let mut bytes = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n".to_vec();
    for (name, value) in refusal.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(refusal.body());
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}
