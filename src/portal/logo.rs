//! The picture at the head of each page, written into the page itself: no page asks for anything from elsewhere.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};

/// It goes over the wire with each page.
const BYTES_MAX: u64 = 64 << 10;

/// A picture as a `data:` URL. A script in an SVG does not run there, and it loads nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logo(pub Box<str>);

/// Why a file is no logo.
#[derive(Debug, thiserror::Error)]
pub enum LogoError {
    /// It is of another kind.
    #[error("{}: is neither SVG, PNG, WebP nor JPEG", .0.display())]
    Kind(PathBuf),
    /// It is larger than 64 KiB.
    #[error("{}: is larger than 64 KiB", .0.display())]
    TooLarge(PathBuf),
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Logo {
    /// Reads a file of at most 64 KiB. Blocks.
    ///
    /// # Errors
    /// [`LogoError`] by what is wrong.
    pub fn read(path: &Path) -> Result<Self, LogoError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|source| LogoError::Unreadable {
                path: path.into(),
                source,
            })?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > BYTES_MAX) {
            return Err(LogoError::TooLarge(path.into()));
        }
        let kind = kind(&bytes).ok_or_else(|| LogoError::Kind(path.into()))?;
        let bytes = STANDARD.encode(&bytes);
        Ok(Self(format!("data:image/{kind};base64,{bytes}").into()))
    }
}

/// The kind of a picture, by how it begins.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some("png");
    }
    if bytes.starts_with(b"\xff\xd8\xff") {
        return Some("jpeg");
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some("webp");
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let begins = ["<svg", "<?xml", "<!--", "<!DOCTYPE svg"];
    let is_svg = begins.iter().any(|begin| text.starts_with(begin)) && text.contains("<svg");
    is_svg.then_some("svg+xml")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(content: &[u8]) -> Result<Logo, LogoError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logo");
        fs::write(&path, content).unwrap();
        Logo::read(&path)
    }

    #[test]
    fn pictures_alone_are_logos() {
        for content in [
            &b""[..],
            b"<html><svg></svg></html>",
            b"<?xml version=\"1.0\"?><page/>",
            b"GIF89a",
            b"RIFF....AVI ",
            b"\x89PNG",
            b"<svg\xff",
        ] {
            let refused = read(content);
            assert!(matches!(refused, Err(LogoError::Kind(_))), "{content:?}");
        }
        let large = read(&vec![b' '; (64 << 10) + 1]);
        assert!(matches!(large, Err(LogoError::TooLarge(_))));
        let missing = Logo::read(Path::new("/no/such/file"));
        assert!(matches!(missing, Err(LogoError::Unreadable { .. })));
        for (content, begins) in [
            (&b"\x89PNG\r\n\x1a\n..."[..], "data:image/png;base64,iVBORw"),
            (b"\xff\xd8\xff\xe0...", "data:image/jpeg;base64,/9j/4"),
            (b"RIFF\0\0\0\0WEBPVP8 ", "data:image/webp;base64,UklGR"),
            (b"<svg xmlns=\"x\"/>", "data:image/svg+xml;base64,PHN2Z"),
            (
                b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<svg/>",
                "data:image/svg+xml;base64,",
            ),
        ] {
            let logo = read(content).unwrap();
            assert!(logo.0.starts_with(begins), "{}", logo.0);
        }
    }
}
