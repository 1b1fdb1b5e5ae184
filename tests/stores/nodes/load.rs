//! Good traffic that goes on while things break, and what became of each request.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

use super::{
    caller::{Caller, Lost, Multiplexed},
    private_request,
};
use crate::harness::{Answer, Reply, Seen, Upstream, eventually};

/// A request that was not answered as it should be, and the connection that it was lost on, where there was one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) local: Option<SocketAddr>,
    #[expect(dead_code, reason = "shown by `Debug`")]
    pub(crate) what: String,
}

/// Who asks for what.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) user: String,
    pub(crate) token: String,
    /// Begins a new connection for each request.
    pub(crate) fresh: bool,
    /// Sends a body, which is never sent twice.
    pub(crate) posts: bool,
    /// Speaks HTTP/2, whatever the other two say.
    pub(crate) http2: bool,
}

#[derive(Default)]
struct Counts {
    served: AtomicUsize,
    repeated: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
    stop: AtomicBool,
}

/// Clients at work. Dropped, they stop.
pub(crate) struct Load {
    counts: Arc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a load came to.
#[derive(Debug)]
pub(crate) struct Sum {
    pub(crate) served: usize,
    pub(crate) repeated: usize,
    pub(crate) failures: Vec<Failure>,
}

/// An upstream that answers with who it was told is asking, and for what.
pub(crate) async fn telling() -> Upstream {
    Upstream::scripted(|seen| Reply::ok(&told(seen))).await
}

pub(crate) fn told(seen: &Seen) -> String {
    let user = seen.header("x-forwarded-user").unwrap_or_default();
    format!("{user} {}", seen.target)
}

impl Load {
    /// Begins. Each client asks `address`, one request after the other, with a pause for a machine that has other things to do.
    pub(crate) fn begin(address: SocketAddr, clients: &[Client]) -> Self {
        let counts = Arc::<Counts>::default();
        let work = |client: &Client| tokio::spawn(work(address, client.clone(), counts.clone()));
        let tasks = clients.iter().map(work).collect();
        Self { counts, tasks }
    }

    pub(crate) fn served(&self) -> usize {
        self.counts.served.load(Ordering::SeqCst)
    }

    /// Waits until so many more requests were served.
    pub(crate) async fn goes_on(&self, more: usize) {
        let before = self.served();
        eventually("requests that are served", async || {
            (self.served() >= before + more).then_some(())
        })
        .await;
    }

    /// Lets every client finish what it has begun.
    pub(crate) async fn end(mut self) -> Sum {
        self.counts.stop.store(true, Ordering::SeqCst);
        for task in std::mem::take(&mut self.tasks) {
            task.await.unwrap();
        }
        let failures = std::mem::take(&mut *self.counts.failures.lock().unwrap());
        Sum {
            served: self.served(),
            repeated: self.counts.repeated.load(Ordering::SeqCst),
            failures,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn work(address: SocketAddr, client: Client, counts: Arc<Counts>) {
    let (mut caller, mut multiplexed) = (Caller::new(address), Multiplexed::new(address));
    let mut number = 0_usize;
    while !counts.stop.load(Ordering::SeqCst) {
        number += 1;
        let target = format!("/private/{}/{number}", client.user);
        let mut request = private_request(&target, &client.token);
        if client.posts {
            request = request.replacen("GET ", "POST ", 1).replacen(
                "\r\n\r\n",
                "\r\nContent-Length: 4\r\n\r\nbody",
                1,
            );
        }
        let result = if client.http2 {
            multiplexed.get(&target, &client.token).await
        } else {
            caller.ask(&request).await
        };
        match failure(result, &format!("{} {target}", client.user)) {
            None => {
                counts.served.fetch_add(1, Ordering::SeqCst);
            }
            Some(failure) => counts.failures.lock().unwrap().push(failure),
        }
        if client.fresh {
            caller.leave();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let repeated = caller.repeated + multiplexed.repeated;
    counts.repeated.fetch_add(repeated, Ordering::SeqCst);
}

fn failure(result: Result<Answer, Lost>, want: &str) -> Option<Failure> {
    match result {
        Ok(answer) if answer.status == 200 => {
            // Somebody else's answer is no failure to be counted.
            assert_eq!(answer.text(), want, "crossed answers");
            None
        }
        Ok(answer) => Some(Failure {
            local: None,
            what: format!("{} {}", answer.status, answer.text()),
        }),
        Err(lost) => Some(Failure {
            local: lost.local(),
            what: format!("{lost:?}"),
        }),
    }
}
