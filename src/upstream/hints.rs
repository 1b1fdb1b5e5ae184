//! Interim answers on their way from an upstream connection to the exchange that they belong to.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use http::Request;

use crate::policy::interim;

/// The interim answers to one request that were not yet taken. Filled where the upstream connection is polled, emptied in the task
/// of the client's; both are on one thread, but hyper wants a callback that need not be.
#[derive(Debug, Default)]
pub struct Hints(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    heads: Vec<Vec<u8>>,
    count: usize,
    waker: Option<Waker>,
}

impl Hints {
    /// Listens for the interim answers to a request. HTTP/2 has none here: its client drops them.
    pub(super) fn listen<B>(self: &Arc<Self>, request: &mut Request<B>) {
        let hints = Arc::clone(self);
        hyper::ext::on_informational(request, move |answer| {
            if let Some(head) = interim::head(answer.status(), answer.headers()) {
                hints.heard(head);
            }
        });
    }

    /// Takes what has been heard, and wakes the task when there is more.
    pub fn take(&self, cx: &Context<'_>) -> Vec<Vec<u8>> {
        let mut heard = self.lock();
        match &mut heard.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        std::mem::take(&mut heard.heads)
    }

    fn heard(&self, head: Vec<u8>) {
        let mut heard = self.lock();
        if heard.count == interim::INTERIM_HEADS_MAX {
            return;
        }
        heard.count += 1;
        heard.heads.push(head);
        let waker = heard.waker.take();
        drop(heard);
        waker.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_14_a_few_interim_answers_go_on_and_no_more() {
        let hints = Hints::default();
        let cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            hints.heard(b"head".to_vec());
        }
        assert_eq!(hints.take(&cx).len(), 3);
        for _ in 0..100 {
            hints.heard(b"head".to_vec());
        }
        assert_eq!(hints.take(&cx).len(), interim::INTERIM_HEADS_MAX - 3);
        assert!(hints.take(&cx).is_empty());
    }
}
