//! Where in its frames is a stream of WebSocket bytes? Only headers and lengths are read (RFC 6455 §5.2): enough to know where
//! a frame of ours may be put in.

/// A reader of frames that keeps nothing of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Frames {
    place: Place,
    has_close: bool,
}

/// What the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// The first of a frame.
    #[default]
    Start,
    /// The second: the mask bit, and the length or what it is written in.
    Length,
    /// One of the bytes of a long length: so many to come, the length so far, and the bytes of the mask's key.
    LongLength { left: u8, length: u64, key: u64 },
    /// One of so many of the key and the payload.
    Payload(u64),
}

/// The four bits of the first byte that name a close frame.
const CLOSE: u8 = 8;

/// What a control frame's 125 bytes leave beside a status (RFC 6455 §5.5).
const TEXT_BYTES_MAX: usize = 123;

impl Frames {
    /// Reads on.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            if let Place::Payload(left) = self.place {
                let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(left);
                self.place = Place::payload(left - here);
                let skipped = usize::try_from(here).unwrap_or(usize::MAX);
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            self.has_close |= self.place == Place::Start && byte & 0x0f == CLOSE;
            self.place = self.place.after(*byte);
            bytes = rest;
        }
    }

    /// Whether a frame may be put in here: the last one has ended, and none of them closed the connection.
    pub(super) fn takes_another(self) -> bool {
        self.place == Place::Start && !self.has_close
    }
}

impl Place {
    fn after(self, byte: u8) -> Self {
        match self {
            Self::Start => Self::Length,
            Self::Length => {
                let key = if byte & 0x80 == 0 { 0 } else { 4 };
                let long = |left| Self::LongLength {
                    left,
                    length: 0,
                    key,
                };
                match byte & 0x7f {
                    126 => long(2),
                    127 => long(8),
                    length => Self::payload(u64::from(length) + key),
                }
            }
            Self::LongLength { left, length, key } => {
                let length = length << 8 | u64::from(byte);
                if left > 1 {
                    let left = left - 1;
                    Self::LongLength { left, length, key }
                } else {
                    Self::payload(length.saturating_add(key))
                }
            }
            Self::Payload(left) => Self::payload(left.saturating_sub(1)),
        }
    }

    fn payload(left: u64) -> Self {
        if left == 0 {
            Self::Start
        } else {
            Self::Payload(left)
        }
    }
}

/// A close frame as a server writes it, with a status (RFC 6455 §7.4.1) and a text, of which 123 bytes fit.
pub(super) fn close_frame(status: u16, text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let text = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
    let length = u8::try_from(text.len() + 2).unwrap_or_default();
    let [high, low] = status.to_be_bytes();
    let mut frame = vec![0x80 | CLOSE, length, high, low];
    frame.extend_from_slice(text);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match payload {
            0..126 => bytes.push(mask | u8::try_from(payload).unwrap()),
            126..65536 => {
                bytes.push(mask | 126);
                bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend(u64::try_from(payload).unwrap().to_be_bytes());
            }
        }
        bytes.extend(vec![0x88; payload + if masked { 4 } else { 0 }]);
        bytes
    }

    fn read(bytes: &[u8], by: usize) -> Frames {
        let mut frames = Frames::default();
        for piece in bytes.chunks(by) {
            frames.advance(piece);
        }
        frames
    }

    #[test]
    fn up_7_a_boundary_is_where_a_frame_has_ended_and_nowhere_else() {
        for payload in [0, 1, 125, 126, 127, 65535, 65536, 70000] {
            for masked in [false, true] {
                let bytes = frame(2, payload, masked);
                for by in [1, 3, 1000, usize::MAX] {
                    assert!(read(&bytes, by).takes_another(), "{payload} by {by}");
                }
                for end in (1..bytes.len())
                    .rev()
                    .take(20)
                    .chain(1..15.min(bytes.len()))
                {
                    assert!(
                        !read(&bytes[..end], 7).takes_another(),
                        "{payload} to {end}"
                    );
                }
            }
        }
    }

    #[test]
    fn up_7_nothing_is_put_behind_a_close_frame() {
        let bytes = [frame(1, 5, false), close_frame(1000, "bye")].concat();
        assert!(!read(&bytes, 1).takes_another());
        assert!(read(&frame(9, 8, false), 1).takes_another());
        assert!(
            read(&frame(1, 8, false), 1).takes_another(),
            "a payload of 0x88"
        );
    }

    #[test]
    fn a_close_frame_has_status_and_text() {
        assert_eq!(close_frame(1008, "x"), [0x88, 3, 0x03, 0xf0, b'x']);
        assert_eq!(close_frame(1001, &"x".repeat(500)).len(), 2 + 125);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, by in 1..50_usize) {
            let mut whole = Frames::default();
            whole.advance(&bytes);
            prop_assert_eq!(read(&bytes, by).place, whole.place);
        }
    }
}
