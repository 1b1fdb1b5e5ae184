//! What is kept of a request without a body, to send it again should its connection end unanswered (UP-2).

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use super::{Lease, body::RequestBody};

/// What is needed to send a request again.
#[derive(Debug)]
pub(super) struct Spare {
    method: Method,
    fields: Fields,
}

#[derive(Debug)]
enum Fields {
    /// A second copy of them.
    Copied(HeaderMap),
    /// They are read out of what was written, which the connection keeps: most requests are answered, and nobody reads it.
    Written,
}

impl Spare {
    /// Of a request that goes out on a connection which shows nothing of its bytes.
    pub(super) fn copy(request: &Request<RequestBody>) -> Self {
        Self {
            method: request.method().clone(),
            fields: Fields::Copied(request.headers().clone()),
        }
    }

    /// Of a request whose head is kept as it is written.
    pub(super) fn written(request: &Request<RequestBody>) -> Self {
        Self {
            method: request.method().clone(),
            fields: Fields::Written,
        }
    }

    /// The request, for a server that is still to be chosen. `lease` is what it went out on; `None` where not all of its head
    /// was handed to the connection.
    pub(super) fn into_request(self, lease: &Lease) -> Option<Request<RequestBody>> {
        let headers = match self.fields {
            Fields::Copied(headers) => headers,
            Fields::Written => read(&lease.written()?)?,
        };
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.method;
        *request.headers_mut() = headers;
        Some(request)
    }
}

/// Reads the fields out of the head of an HTTP/1.1 request as hyper writes it: `name: value` and CR LF, of names and values that
/// were checked when they were made. Anything else is `None`. `Connection` speaks of the connection that it was written for.
fn read(head: &[u8]) -> Option<HeaderMap> {
    let lines = head.strip_suffix(b"\r\n")?;
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    let mut lines = lines.map(|line| line.strip_suffix(b"\r\n"));
    lines.next()?.filter(|line| line.ends_with(b" HTTP/1.1"))?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let line = line?;
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value.strip_prefix(b": ")?).ok()?;
        headers.append(name, value);
    }
    headers.remove(header::CONNECTION);
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_2_fields_are_read_as_they_were_written() {
        let head = b"GET /a?b=c HTTP/1.1\r\nhost: x:1\r\nx-one: 1\r\nx-two: a: b\r\nx-one: \r\nx-high: \xff\r\nconnection: te\r\n\r\n";
        let headers = read(head).unwrap();
        let fields: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let want: [(&str, &[u8]); 5] = [
            ("host", b"x:1"),
            ("x-one", b"1"),
            ("x-one", b""),
            ("x-two", b"a: b"),
            ("x-high", b"\xff"),
        ];
        assert_eq!(fields, want);
        assert_eq!(read(b"PUT / HTTP/1.1\r\n\r\n").unwrap().len(), 0);
    }

    #[test]
    fn up_2_what_is_no_whole_head_is_not_sent_again() {
        for head in [
            &b""[..],
            b"GET / HTTP/1.1\r\nhost: x\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\nrest",
            b"GET / HTTP/1.0\r\nhost: x\r\n\r\n",
            b"host: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\ny: z\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost:x\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost\r\n\r\n",
            b"GET / HTTP/1.1\r\nho st: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\nx: y\r\n\r\n",
        ] {
            assert_eq!(read(head), None, "{}", String::from_utf8_lossy(head));
        }
    }
}
