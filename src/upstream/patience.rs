//! A time limit without a timer for whoever does not come near it.
//!
//! Nearly every answer comes within milliseconds, and its time limit is many seconds. A timer for each of them would be put into
//! the runtime's wheel and taken out again: more work than choosing the server. So a wait is put on a list first, which its worker
//! looks at every second; one that is still there a round later gets a timer of its own.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::moment;

/// A limit that is nearer than this gets its timer at once. More than two rounds of [`Patience::look`].
const NEAR: Duration = Duration::from_secs(3);

/// The waits of one worker that have no timer yet: one for each exchange under way at most.
#[derive(Debug, Default)]
pub(super) struct Patience {
    round: Cell<u64>,
    waiting: RefCell<Slab<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    since: u64,
}

/// A time limit.
#[derive(Debug)]
pub(super) struct Limit<'p> {
    patience: &'p Patience,
    due: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nobody has waited yet.
    New,
    /// On the list, at this place.
    Listed(usize),
    /// Waited for in earnest.
    Timed(Pin<Box<Sleep>>),
}

impl Patience {
    /// A time limit that ends at this moment.
    pub(super) fn until(&self, due: Instant) -> Limit<'_> {
        Limit {
            patience: self,
            due,
            state: State::New,
        }
    }

    /// Wakes those who have waited since the round before. To be called every second.
    pub(super) fn look(&self) {
        let round = self.round.get();
        self.round.set(round + 1);
        let waiting = self.waiting.borrow();
        let long = waiting.iter().filter(|(_, one)| one.since < round);
        for (_, one) in long {
            one.waker.wake_by_ref();
        }
    }

    fn list(&self, waker: &Waker) -> usize {
        self.waiting.borrow_mut().insert(Waiting {
            waker: waker.clone(),
            since: self.round.get(),
        })
    }

    /// Whether the wait at this place has lasted a round; if not, this is whom to wake.
    fn has_lasted(&self, place: usize, waker: &Waker) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let Some(one) = waiting.get_mut(place) else {
            return true;
        };
        one.waker.clone_from(waker);
        one.since + 1 < self.round.get()
    }
}

impl Limit<'_> {
    /// Completes when the limit is reached.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        match &mut self.state {
            State::Timed(timer) => return timer.as_mut().poll(cx),
            State::Listed(place) if !patience.has_lasted(*place, cx.waker()) => {
                return Poll::Pending;
            }
            State::New if self.due > moment::recent_timer() + NEAR => {
                self.state = State::Listed(patience.list(cx.waker()));
                return Poll::Pending;
            }
            State::Listed(_) | State::New => {}
        }
        self.set(State::Timed(Box::pin(sleep_until(self.due))));
        self.poll(cx)
    }

    /// Moves the limit.
    pub(super) fn reset(&mut self, due: Instant) {
        self.due = due;
        if let State::Timed(timer) = &mut self.state {
            timer.as_mut().reset(due);
        }
    }

    fn set(&mut self, state: State) {
        if let State::Listed(place) = std::mem::replace(&mut self.state, state) {
            self.patience.waiting.borrow_mut().try_remove(place);
        }
    }
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        self.set(State::New);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_kept_to_the_moment() {
        for limit in [0, 1, 2, 3, 4, 60] {
            let patience = Patience::default();
            let begun = Instant::now();
            let mut due = patience.until(begun + seconds(limit));
            let mut ticks = tokio::time::interval(seconds(1));
            loop {
                tokio::select! {
                    biased;
                    () = std::future::poll_fn(|cx| due.poll(cx)) => break,
                    _ = ticks.tick() => patience.look(),
                }
            }
            assert_eq!(begun.elapsed(), seconds(limit), "{limit}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken_to_make_a_timer_and_nobody_before() {
        let patience = Patience::default();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let woken = || wakes.0.load(Ordering::Relaxed);
        let mut due = patience.until(Instant::now() + seconds(60));
        assert!(due.poll(&mut cx).is_pending());
        patience.look();
        assert_eq!(woken(), 0, "it may have begun this moment");
        patience.look();
        assert_eq!(woken(), 1);
        assert!(due.poll(&mut cx).is_pending());
        assert!(patience.waiting.borrow().is_empty(), "it has a timer now");
        tokio::time::sleep(seconds(61)).await;
        assert_eq!(woken(), 2);
        assert!(due.poll(&mut cx).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_moved_counts_from_there() {
        let patience = Patience::default();
        let begun = Instant::now();
        let mut due = patience.until(begun + seconds(1));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(due.poll(&mut cx).is_pending());
        tokio::time::sleep(seconds(1)).await;
        due.reset(begun + seconds(10));
        std::future::poll_fn(|cx| due.poll(cx)).await;
        assert_eq!(begun.elapsed(), seconds(10));
    }

    #[test]
    fn waits_that_end_leave_nothing_behind() {
        let patience = Patience::default();
        let mut cx = Context::from_waker(Waker::noop());
        let later = Instant::now() + seconds(60);
        for _ in 0..1000 {
            let mut limit = patience.until(later);
            assert!(limit.poll(&mut cx).is_pending());
            assert_eq!(patience.waiting.borrow().len(), 1);
        }
        assert!(patience.waiting.borrow().is_empty());
        assert!(patience.waiting.borrow().capacity() < 10);
    }
}
