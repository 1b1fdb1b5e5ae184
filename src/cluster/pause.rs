//! How long to wait before another attempt: longer each time, never as long as the next node.

use std::time::Duration;

use crate::jitter;

const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(5);

/// A connection that held for so long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// The attempts so far.
#[derive(Debug, Default)]
pub(super) struct Pauses(u32);

impl Pauses {
    /// The wait after a connection that held for this long.
    pub(super) fn after(&mut self, held: Duration) -> Duration {
        if held >= GOOD {
            self.0 = 0;
        }
        let whole = LEAST.saturating_mul(1 << self.0.min(10)).min(MOST);
        self.0 = self.0.saturating_add(1);
        jitter::half_to_all(whole)
    }

    /// Whether a connection that has held for this long is a good one.
    pub(super) fn settled(held: Duration) -> bool {
        held >= GOOD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_5_waits_grow_have_jitter_and_an_end_and_begin_anew() {
        let mut pauses = Pauses::default();
        let mut whole = LEAST;
        for _ in 0..20 {
            let pause = pauses.after(Duration::from_secs(1));
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} {whole:?}");
            whole = (whole * 2).min(MOST);
        }
        assert!(pauses.after(GOOD) <= LEAST);
    }
}
