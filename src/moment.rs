//! What time is it, near enough for a limit of seconds?
//!
//! A worker polls its tasks in turns of a few dozen, which take less than a millisecond together. A request would read the clock
//! a dozen times on its way, each time some tens of nanoseconds; most of what it asks for is when a wait or a silence began. So
//! the time is read once a turn. What is measured, and what a token is judged by, is read anew.

use std::{cell::Cell, time::Instant};

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Ends the turn, also where it panics.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        BEGUN.set(None);
    }
}

/// Makes a turn that began at this moment: until it ends, that is the recent time on this thread.
pub(crate) fn turn<T>(begun: Instant, turn: impl FnOnce() -> T) -> T {
    BEGUN.set(Some(begun));
    let _turn = Turn;
    turn()
}

/// When this thread's present turn began; now, where it is in none.
#[must_use]
pub(crate) fn recent() -> Instant {
    BEGUN.get().unwrap_or_else(Instant::now)
}

/// The same by the clock of timers.
#[must_use]
pub(crate) fn recent_timer() -> tokio::time::Instant {
    let begun = BEGUN.get();
    begun.map_or_else(tokio::time::Instant::now, tokio::time::Instant::from_std)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_time_stands_still_in_a_turn_and_goes_on_after_it() {
        let begun = Instant::now() - Duration::from_secs(5);
        let (first, second) = turn(begun, || (recent(), recent_timer()));
        assert_eq!((first, second.into_std()), (begun, begun));
        assert!(recent() > begun && recent_timer().into_std() > begun);
    }

    #[test]
    fn a_turn_that_panics_ends() {
        let begun = Instant::now() - Duration::from_secs(5);
        let panicked = std::panic::catch_unwind(|| turn(begun, || panic!("on purpose")));
        assert!(panicked.is_err());
        assert!(recent() > begun);
    }
}
