//! Is the length of an answer said in one clear way? What is not would end elsewhere for the next reader.

use http::{HeaderMap, Version, header};

/// Whether an answer of HTTP/1 says its length in one way alone: `Transfer-Encoding`, where it is there, is exactly one
/// `chunked`, beside no `Content-Length` and not in HTTP/1.0 (RFC 9112 §6.1, §6.3). hyper has refused lengths that are
/// malformed or differ; codings that it does not know it leaves to whoever asks, and would read until the connection ends.
pub(super) fn is_clear(version: Version, headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return true;
    };
    coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        && codings.next().is_none()
        && version == Version::HTTP_11
        && !headers.contains_key(header::CONTENT_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clear(version: Version, fields: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        is_clear(version, &headers)
    }

    #[test]
    fn msg_10_a_coding_is_chunked_and_alone() {
        for coding in [
            "gzip",
            "identity",
            "gzip, chunked",
            "chunked, chunked",
            "xchunked",
            "",
            "chunked;q=1",
        ] {
            let fields = [("transfer-encoding", coding)];
            assert!(!clear(Version::HTTP_11, &fields), "{coding:?}");
        }
        let chunked = ("transfer-encoding", "chunked");
        let length = ("content-length", "5");
        assert!(!clear(Version::HTTP_11, &[chunked, chunked]));
        assert!(!clear(Version::HTTP_11, &[chunked, length]));
        assert!(!clear(Version::HTTP_10, &[chunked]));

        assert!(clear(Version::HTTP_11, &[chunked]));
        assert!(clear(Version::HTTP_11, &[("transfer-encoding", "Chunked")]));
        assert!(clear(Version::HTTP_11, &[length]));
        assert!(clear(Version::HTTP_10, &[length]));
        assert!(clear(Version::HTTP_2, &[]));
    }
}
