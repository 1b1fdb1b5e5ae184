//! What moves an HTTP/1.1 connection: reads what comes, writes what is to go.
//!
//! hyper's half of a connection is a future, and mostly gets a task of its own. A request then goes from the client's task to that
//! one and its answer back, and each time one wakes the other. Here whoever uses the connection polls it: its exchange while there
//! is one, nobody while it waits in a pool. A task is made where an exchange cannot do it, because it waits for its client
//! while the connection has more to do.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::task::AbortHandle;

/// A connection without its owner: it completes when it has ended.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// Moves one connection. Dropped, it closes it, whatever is still under way.
pub(super) struct Driver(State);

enum State {
    /// Whoever uses the connection polls it.
    Polled(Polled),
    /// A task does.
    Task(AbortHandle),
    /// Nobody does any more: it has ended.
    Ended,
}

struct Polled {
    connection: Connection,
    bell: Arc<Bell>,
    /// What the connection is polled with, whoever polls it: it has only one, and must not wake the one who had it before.
    waker: Waker,
}

/// Rings when the connection has something to do.
#[derive(Default)]
struct Bell {
    has_rung: AtomicBool,
    listener: Mutex<Option<Waker>>,
}

impl Driver {
    pub(super) fn new(connection: impl Future<Output = hyper::Result<()>> + 'static) -> Self {
        let bell = Arc::new(Bell::default());
        Self(State::Polled(Polled {
            connection: Box::pin(connection),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }))
    }

    /// Moves the connection, and then polls `waiting`, which waits for something that it brings. Without a task that wakes nobody:
    /// what it brings is there by then.
    pub(super) fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        waiting: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match &mut self.0 {
            State::Task(_) => return waiting(cx),
            State::Ended => {}
            State::Polled(polled) => {
                polled.bell.be_heard_by(Some(cx.waker()));
                self.poll();
            }
        }
        waiting(&mut Context::from_waker(Waker::noop()))
    }

    /// Polls what may be there already. `None`: it is not, or only a task would say so.
    pub(super) fn peek<T>(&self, waiting: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        let State::Polled(polled) = &self.0 else {
            return None;
        };
        // Taking something out makes room in the connection. It is polled before anyone waits again.
        polled.bell.be_heard_by(None);
        match waiting(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(there) => Some(there),
            Poll::Pending => None,
        }
    }

    /// Leaves the connection to itself until it is used again.
    pub(super) fn rest(&self) {
        if let State::Polled(polled) = &self.0 {
            polled.bell.be_heard_by(None);
            polled.bell.has_rung.store(false, Ordering::Relaxed);
        }
    }

    /// Whether something has come to a connection that rests: most likely its end.
    pub(super) fn has_rung(&self) -> bool {
        match &self.0 {
            State::Polled(polled) => polled.bell.has_rung.load(Ordering::Relaxed),
            State::Task(_) | State::Ended => false,
        }
    }

    /// Has a connection that rests take note of what has come.
    pub(super) fn look(&mut self) {
        self.rest();
        self.poll();
    }

    /// Gives the connection a task of its own.
    pub(super) fn detach(&mut self) {
        self.0 = match std::mem::replace(&mut self.0, State::Ended) {
            State::Polled(polled) => {
                let connection = polled.connection;
                let task = tokio::task::spawn_local(async move { log(connection.await) });
                State::Task(task.abort_handle())
            }
            kept @ (State::Task(_) | State::Ended) => kept,
        };
    }

    fn poll(&mut self) {
        let State::Polled(polled) = &mut self.0 else {
            return;
        };
        let mut cx = Context::from_waker(&polled.waker);
        if let Poll::Ready(ended) = polled.connection.as_mut().poll(&mut cx) {
            log(ended);
            // What it held goes with it: a request that was not taken comes back by that.
            self.0 = State::Ended;
        }
    }
}

impl Bell {
    fn be_heard_by(&self, listener: Option<&Waker>) {
        let mut heard = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *heard, listener) {
            (Some(before), Some(listener)) => before.clone_from(listener),
            (heard, listener) => *heard = listener.cloned(),
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Relaxed);
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = &*listener {
            listener.wake_by_ref();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let State::Task(task) = &self.0 {
            task.abort();
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Polled(_) => "Driver(polled)",
            State::Task(_) => "Driver(task)",
            State::Ended => "Driver(ended)",
        })
    }
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "upstream connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        future::poll_fn,
        rc::Rc,
        sync::atomic::AtomicUsize,
    };

    use tokio::task::LocalSet;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection that does nothing: how often it was polled, who wakes it, and whether it is to end.
    #[derive(Default)]
    struct Fake {
        polls: Cell<usize>,
        waker: RefCell<Option<Waker>>,
        ends: Cell<bool>,
    }

    impl Fake {
        fn driven() -> (Driver, Rc<Self>) {
            let fake = Rc::new(Self::default());
            let inner = Rc::clone(&fake);
            let connection = poll_fn(move |cx| {
                inner.polls.set(inner.polls.get() + 1);
                inner.waker.replace(Some(cx.waker().clone()));
                match inner.ends.get() {
                    true => Poll::Ready(Ok(())),
                    false => Poll::Pending,
                }
            });
            (Driver::new(connection), fake)
        }

        fn ring(&self) {
            self.waker.borrow().as_ref().unwrap().wake_by_ref();
        }
    }

    fn pending(_: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    #[test]
    fn a_connection_wakes_whoever_polled_it_last_and_nobody_while_it_rests() {
        let (mut driver, fake) = Fake::driven();
        let users = [(); 2].map(|()| Arc::new(Wakes::default()));
        let woken = || [0, 1].map(|user: usize| users[user].0.load(Ordering::Relaxed));
        for user in &users {
            let waker = Waker::from(Arc::clone(user));
            let polled = driver.poll_with(&mut Context::from_waker(&waker), pending);
            assert!(polled.is_pending());
            fake.ring();
        }
        assert_eq!(woken(), [1, 1]);

        assert_eq!(driver.peek(pending), None);
        fake.ring();
        driver.rest();
        assert!(!driver.has_rung());
        fake.ring();
        assert!(driver.has_rung());
        assert_eq!(woken(), [1, 1], "nobody waits for it");
        assert!(users.iter().all(|user| Arc::strong_count(user) == 1));

        assert_eq!(fake.polls.get(), 2);
        driver.look();
        assert_eq!((fake.polls.get(), driver.has_rung()), (3, false));
    }

    #[test]
    fn what_ends_is_dropped_at_once_and_polled_no_more() {
        let (mut driver, fake) = Fake::driven();
        fake.ends.set(true);
        let mut cx = Context::from_waker(Waker::noop());
        let polled = driver.poll_with(&mut cx, |_| match Rc::strong_count(&fake) {
            1 => Poll::Ready("gone"),
            _ => Poll::Pending,
        });
        assert_eq!(polled, Poll::Ready("gone"));
        assert!(driver.poll_with(&mut cx, pending).is_pending());
        driver.look();
        driver.detach();
        assert_eq!(fake.polls.get(), 1);
    }

    #[tokio::test]
    async fn a_task_goes_on_by_itself_and_ends_with_its_driver() {
        let tasks = LocalSet::new();
        let test = async {
            let (mut driver, fake) = Fake::driven();
            driver.detach();
            driver.detach();
            for polls in 1..4 {
                tokio::task::yield_now().await;
                assert_eq!(fake.polls.get(), polls);
                fake.ring();
            }
            // Whoever waits is woken by what comes, and must not be polled with a waker that wakes nobody.
            let user = Waker::from(Arc::new(Wakes::default()));
            let mut cx = Context::from_waker(&user);
            let polled = driver.poll_with(&mut cx, |cx| Poll::Ready(cx.waker().will_wake(&user)));
            assert_eq!(polled, Poll::Ready(true));
            assert_eq!(driver.peek(|_| Poll::Ready(())), None);
            drop(driver);
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            assert_eq!(Rc::strong_count(&fake), 1);
        };
        tasks.run_until(test).await;
    }
}
