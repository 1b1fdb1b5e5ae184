//! The target of a request line as it arrives: whether there is a fragment in it, which nobody sees later (URI-2).

/// How far a request line has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// In its target is a `#`.
    Fragment,
    /// In the method.
    Method,
    /// Its target has ended and has no `#`; or it is no request line, and hyper will say so.
    Plain,
    /// In the target.
    Target,
}

impl Line {
    /// Reads on. The `#` that matters is the one in the target, the second word.
    pub(super) fn read(self, bytes: &[u8]) -> Self {
        let mut line = self;
        for byte in bytes {
            line = match (line, byte) {
                (Self::Method, b'A'..=b'Z') => Self::Method,
                (Self::Method, b' ') | (Self::Target, 0x21..=0x22 | 0x24..) => Self::Target,
                (Self::Target, b'#') => Self::Fragment,
                (Self::Method | Self::Target, _) => Self::Plain,
                (Self::Fragment | Self::Plain, _) => return line,
            };
        }
        line
    }
}
