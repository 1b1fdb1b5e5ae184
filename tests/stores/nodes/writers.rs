//! People who sign in, refresh and sign out while things break. What was answered is remembered, and must be true afterwards.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

use super::{
    Grant, PASSWORD, Trio, caller::Caller, login_request, logout_request, refresh, refresh_request,
    status,
};
use crate::harness::{Answer, eventually};

/// Sessions that one of them keeps: fewer than an account may have, with those whose answer was lost.
const KEPT: usize = 4;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
}

/// Users at work.
pub(crate) struct Writers {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Known>>,
}

/// What one user was told.
#[derive(Default)]
struct Known {
    live: Vec<Grant>,
    ended: Vec<Grant>,
}

impl Writers {
    /// Begins. Each user asks one address after the other.
    pub(crate) fn begin(addresses: &[SocketAddr], users: &[&str]) -> Self {
        let shared = Arc::<Shared>::default();
        let work = |user: &&str| {
            let writer = Writer {
                addresses: addresses.to_vec(),
                next: 0,
                user: (*user).to_owned(),
                shared: Arc::clone(&shared),
                known: Known::default(),
                unsure: false,
            };
            tokio::spawn(writer.work())
        };
        let tasks = users.iter().map(work).collect();
        Self { shared, tasks }
    }

    /// Waits until so many more writes were acknowledged.
    pub(crate) async fn go_on(&self, more: usize) {
        let count = || self.shared.acknowledged.load(Ordering::SeqCst);
        let before = count();
        eventually("writes that are acknowledged", async || {
            (count() >= before + more).then_some(())
        })
        .await;
    }

    /// Ends, and looks at all nodes for what was acknowledged: nothing of it is lost.
    pub(crate) async fn end(mut self, trio: &Trio) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let (mut live, mut ended) = (0, 0);
        for task in std::mem::take(&mut self.tasks) {
            let known = task.await.unwrap();
            live += known.live.len();
            ended += known.ended.len();
            known.hold(&trio.addresses()).await;
        }
        println!(
            "{} writes acknowledged, {} refused; {live} sessions live, {ended} ended",
            self.shared.acknowledged.load(Ordering::SeqCst),
            self.shared.refused.load(Ordering::SeqCst),
        );
        assert!(live > 0);
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Known {
    async fn hold(&self, addresses: &[SocketAddr]) {
        for grant in &self.ended {
            for address in addresses {
                // A node that was away has seconds to hear of it.
                eventually("the end of a session that was ended", async || {
                    (status(*address, &grant.access).await == 401).then_some(())
                })
                .await;
            }
            let over = refresh(addresses[0], &grant.renewal).await;
            over.refused(401, "invalid_grant");
        }
        for (number, grant) in self.live.iter().enumerate() {
            let address = addresses[number % addresses.len()];
            let renewed = Grant::of(&refresh(address, &grant.renewal).await);
            for address in addresses {
                assert_eq!(status(*address, &renewed.access).await, 200);
            }
        }
    }
}

struct Writer {
    addresses: Vec<SocketAddr>,
    next: usize,
    user: String,
    shared: Arc<Shared>,
    known: Known,
    /// The last refresh has no answer yet.
    unsure: bool,
}

impl Writer {
    async fn work(mut self) -> Known {
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.round().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.known
    }

    async fn round(&mut self) {
        if !self.unsure
            && let Some(answer) = self.ask(&login_request(&self.user, PASSWORD)).await
        {
            self.known.live.push(Grant::of(&answer));
        }
        // Unanswered, the old token leads to the session for as long as the grace window, and is presented again.
        if let Some(last) = self.known.live.last().cloned() {
            let answer = self.ask(&refresh_request(&last.renewal)).await;
            self.unsure = answer.is_none();
            if let Some(answer) = answer {
                self.known.live.pop();
                self.known.live.push(Grant::of(&answer));
            }
        }
        if self.known.live.len() > KEPT {
            let oldest = self.known.live.remove(0);
            // Unanswered, it may be over or not.
            if let Some(answer) = self.ask(&logout_request(&oldest.renewal)).await {
                answer.is(204);
                self.known.ended.push(oldest);
            }
        }
    }

    /// An answer that says that it is done; `None` where the store or the node was away.
    async fn ask(&mut self, request: &str) -> Option<Answer> {
        self.next += 1;
        let address = self.addresses[self.next % self.addresses.len()];
        let answer = Caller::new(address).ask(request).await.ok();
        match answer {
            Some(answer) if answer.status != 503 => {
                assert!(answer.status < 300, "{} {}", answer.status, answer.text());
                self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
                Some(answer)
            }
            _ => {
                self.shared.refused.fetch_add(1, Ordering::SeqCst);
                None
            }
        }
    }
}
