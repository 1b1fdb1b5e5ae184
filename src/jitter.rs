//! How much of a wait is left to chance?
//!
//! Gateways that start together, or that lose one server at one moment, must not come to it together ever after. So no wait for
//! something that others wait for too is a fixed one.

use std::time::Duration;

use aws_lc_rs::rand;

/// A time between these two, both included, any as likely as another; the longer one where the system has no randomness, and the
/// first one where the second is not longer.
#[must_use]
pub(crate) fn between(least: Duration, most: Duration) -> Duration {
    let mut bytes = [0xff; 2];
    // Without randomness all wait for the longest, which is no reason to stop.
    let _ = rand::fill(&mut bytes);
    let part = u32::from(u16::from_ne_bytes(bytes));
    let left_to_chance = most.saturating_sub(least);
    least.saturating_add(left_to_chance.saturating_mul(part) / u32::from(u16::MAX))
}

/// Half to all of a wait before another attempt.
#[must_use]
pub(crate) fn half_to_all(whole: Duration) -> Duration {
    between(whole / 2, whole)
}

/// A wait, or up to a tenth less: for what may be done earlier.
#[must_use]
pub(crate) fn tenth_less(wait: Duration) -> Duration {
    between(wait.saturating_sub(wait / 10), wait)
}

/// A wait, or up to a tenth more: for what must not be done earlier.
#[must_use]
pub(crate) fn tenth_more(wait: Duration) -> Duration {
    between(wait, wait.saturating_add(wait / 10))
}

/// A wait, or up to a tenth less or more: for what is done again and again.
#[must_use]
pub(crate) fn about(wait: Duration) -> Duration {
    let tenth = wait / 10;
    between(wait.saturating_sub(tenth), wait.saturating_add(tenth))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn fault_5_waits_differ_and_stay_within_their_bounds() {
        let (least, most) = (Duration::from_secs(9), Duration::from_secs(11));
        let waits: HashSet<_> = (0..200).map(|_| between(least, most)).collect();
        assert!(waits.iter().all(|wait| (least..=most).contains(wait)));
        assert!(waits.len() > 100, "{}", waits.len());
        // In the first half and in the second one: all on one side are as likely as one in 2^199.
        let middle = Duration::from_secs(10);
        assert!(waits.iter().any(|wait| *wait < middle) && waits.iter().any(|wait| *wait > middle));
        let ten = |tenths| middle * tenths / 10;
        type Kind = fn(Duration) -> Duration;
        let kinds: [(Kind, Duration, Duration); 4] = [
            (half_to_all, ten(5), ten(10)),
            (tenth_less, ten(9), ten(10)),
            (tenth_more, ten(10), ten(11)),
            (about, ten(9), ten(11)),
        ];
        for (kind, least, most) in kinds {
            let waits: HashSet<_> = (0..200).map(|_| kind(middle)).collect();
            let mut bounds = waits.iter().map(|wait| (least..=most).contains(wait));
            assert!(
                bounds.all(|within| within) && waits.len() > 100,
                "{waits:?}"
            );
        }
    }

    #[test]
    fn the_ends_of_time_are_no_fault() {
        assert_eq!(between(Duration::ZERO, Duration::ZERO), Duration::ZERO);
        let (one, two) = (Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(between(two, one), two);
        assert!(between(Duration::MAX, Duration::MAX) == Duration::MAX);
        assert!(half_to_all(Duration::MAX) >= Duration::MAX / 2);
        assert_eq!(tenth_more(Duration::MAX), Duration::MAX);
        assert_eq!(about(Duration::ZERO), Duration::ZERO);
    }
}
