//! How many control frames does an HTTP/2 client send? Counted in the decrypted bytes, for the library that reads the frames
//! limits some kinds and answers the others for ever (MSG-6).
//!
//! Nine bytes of each frame are looked at and its payload is skipped; nothing is allocated, and the clock is read only by
//! a client whose budget is used up. A frame that belongs to a request or carries a body costs nothing.

use std::time::{Duration, Instant};

use crate::limit::settings::Quota;

const PREFACE_BYTES: u32 = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// What a reset costs: it throws away work that was begun.
const RESET_COST: u32 = 10;
/// So many bytes of answers earn one frame: who reads much opens many windows and pings now and then.
const BYTES_PER_FRAME: u32 = 1 << 10;

/// What a client's control frames may still cost.
#[derive(Debug)]
pub(super) struct FrameBudget {
    quota: Quota,
    left: u32,
    refilled: Instant,
    /// Bytes written that have earned nothing yet.
    unpaid: u32,
    /// What has come of a frame's head.
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// Bytes of payload that are still to come.
    skip: u32,
    last_stream: u32,
}

impl FrameBudget {
    /// The budget of a connection that has just begun.
    pub(super) fn new(quota: Quota, now: Instant) -> Self {
        Self {
            quota,
            left: quota.burst,
            refilled: now,
            unpaid: 0,
            head: [0; HEAD_BYTES],
            filled: 0,
            skip: PREFACE_BYTES,
            last_stream: 0,
        }
    }

    /// Counts the frames that begin in these bytes; false when they are too many.
    pub(super) fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = bytes
                    .len()
                    .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let missing = HEAD_BYTES.saturating_sub(self.filled).min(bytes.len());
            let (piece, rest) = bytes.split_at_checked(missing).unwrap_or_default();
            let end = self.filled + missing;
            if let Some(place) = self.head.get_mut(self.filled..end) {
                place.copy_from_slice(piece);
            }
            (self.filled, bytes) = (end, rest);
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                if !self.count(&now) {
                    return false;
                }
            }
        }
        true
    }

    /// Pays for bytes that were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        let unpaid = self
            .unpaid
            .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.unpaid = unpaid % BYTES_PER_FRAME;
        self.earn(unpaid / BYTES_PER_FRAME);
    }

    /// The frame that tells why the connection ends: GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 §6.8, §7).
    pub(super) fn go_away(&self) -> [u8; 17] {
        let [a, b, c, d] = self.last_stream.to_be_bytes();
        [0, 0, 8, 7, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, 11]
    }

    fn count(&mut self, now: &impl Fn() -> Instant) -> bool {
        let [high, middle, low, kind, flags, id @ ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.skip = length;
        let cost = match kind {
            HEADERS => {
                let id = u32::from_be_bytes(id) & 0x7fff_ffff;
                self.last_stream = self.last_stream.max(id);
                self.earn(1);
                0
            }
            // A piece of a body, or its end. Padding could hide that there is nothing in it.
            DATA if flags & PADDED == 0 && (length > 0 || flags & END_STREAM != 0) => 0,
            RST_STREAM => RESET_COST,
            _ => 1,
        };
        if self.left < cost {
            self.refill(now());
        }
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn earn(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(self.quota.burst);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let nanos = |duration: Duration| duration.as_nanos();
        let earned = nanos(passed) * u128::from(self.quota.count) / nanos(self.quota.window).max(1);
        self.refilled = now;
        self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    const QUOTA: Quota = Quota {
        count: 100,
        window: Duration::from_secs(1),
        burst: 100,
    };

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.resize(HEAD_BYTES + length, 0xff);
        frame
    }

    /// A budget that has seen the preface, at a clock that stands still.
    struct Still(FrameBudget, Instant);

    impl Still {
        fn new() -> Self {
            let now = Instant::now();
            let mut budget = FrameBudget::new(QUOTA, now);
            assert!(budget.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now));
            Self(budget, now)
        }

        fn read(&mut self, bytes: &[u8]) -> bool {
            self.0.read(bytes, || self.1)
        }

        /// How many of these frames are taken, up to a thousand.
        fn taken(&mut self, frame: &[u8]) -> usize {
            (0..1000).take_while(|_| self.read(frame)).count()
        }
    }

    #[test]
    fn msg_6_each_kind_of_control_frame_uses_the_budget_up() {
        for (kind, length) in [
            (2, 5),
            (4, 0),
            (4, 36),
            (5, 8),
            (6, 8),
            (7, 8),
            (8, 4),
            (9, 0),
            (9, 99),
            (0xfa, 3),
        ] {
            let mut still = Still::new();
            assert_eq!(still.taken(&frame(kind, 0, 1, length)), 100, "{kind}");
        }
        assert_eq!(Still::new().taken(&frame(RST_STREAM, 0, 1, 4)), 10);
    }

    #[test]
    fn msg_6_data_with_nothing_in_it_counts() {
        assert_eq!(Still::new().taken(&frame(DATA, 0, 1, 0)), 100);
        assert_eq!(Still::new().taken(&frame(DATA, PADDED, 1, 200)), 100);
        assert_eq!(Still::new().taken(&frame(DATA, 0, 1, 1)), 1000);
        assert_eq!(Still::new().taken(&frame(DATA, END_STREAM, 1, 0)), 1000);
    }

    #[test]
    fn msg_6_requests_that_are_reset_are_not_paid_by_themselves() {
        let both = [frame(HEADERS, 5, 1, 40), frame(RST_STREAM, 0, 1, 4)].concat();
        let mut still = Still::new();
        let taken = still.taken(&both);
        assert!((10..=12).contains(&taken), "{taken}");
    }

    #[test]
    fn requests_and_the_answers_that_are_read_cost_nothing() {
        let mut still = Still::new();
        assert_eq!(still.taken(&frame(HEADERS, 5, 1, 40)), 1000);
        for _ in 0..10_000 {
            still.0.wrote(16 << 10);
            let windows = frame(WINDOW_UPDATE, 0, 1, 4).repeat(2);
            assert!(still.read(&windows) && still.read(&frame(PING, 0, 0, 8)));
        }
        for _ in 0..5000 {
            still.0.wrote(300);
        }
        assert_eq!(still.taken(&frame(PING, 0, 0, 8)), 100, "no hoard");
    }

    #[test]
    fn msg_6_the_budget_comes_back_with_time() {
        let mut still = Still::new();
        let ping = frame(PING, 0, 0, 8);
        // A connection ends with the head of the one too many; this one reads its payload too, and goes on.
        let payload = [0; 8];
        for (passed, want) in [(0, 100), (500, 50), (3_600_000, 100)] {
            still.1 += Duration::from_millis(passed);
            assert_eq!(still.taken(&ping), want, "after {passed} ms");
            assert!(still.read(&payload));
        }
    }

    #[test]
    fn the_last_frame_names_the_last_stream() {
        let mut still = Still::new();
        for stream in [1, 7, 3] {
            assert!(still.read(&frame(HEADERS, 5, stream, 10)));
        }
        assert_eq!(
            still.0.go_away(),
            [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 11]
        );
    }

    proptest! {
        #[test]
        fn msg_6_frames_are_counted_however_they_are_cut(
            frames in prop::collection::vec((0_u8..12, any::<u8>(), 0_usize..50), 0..60),
            cut in 1_usize..40,
        ) {
            let bytes: Vec<u8> = frames
                .iter()
                .flat_map(|(kind, flags, length)| frame(*kind, *flags, 1, *length))
                .collect();
            let (mut whole, mut pieces) = (Still::new(), Still::new());
            let by_whole = whole.read(&bytes);
            let by_pieces = bytes.chunks(cut).all(|piece| pieces.read(piece));
            prop_assert_eq!(by_whole, by_pieces);
            prop_assert_eq!(whole.0.left, pieces.0.left);
        }

        #[test]
        fn msg_6_no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Still::new().read(&bytes);
        }
    }
}
