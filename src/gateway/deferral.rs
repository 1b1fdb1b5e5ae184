//! A refusal that comes later: whoever sends bad tokens as fast as he is refused is slowed down by it.
//!
//! Beyond its budget a client's unknown tokens are refused unseen, which costs next to nothing, a little less than an answer to a good
//! caller. So a few dozen connections that ask as fast as they are refused would take most of a worker's turns, and of the rate of the
//! others on it only their share by number would be left. Each refusal comes later instead: who waits costs memory, which the caps on
//! connections and streams bound, and no time.

use std::{pin::Pin, time::Duration};

use tokio::time::{Sleep, sleep};

use super::{Gateway, Peer};
use crate::{
    limit::MemoryStage,
    policy::{Rejection, rejection::Exceeded},
};

impl Gateway {
    /// The wait before this refusal is told; `None` where it is told at once: whatever is no refusal beyond the budget of bad tokens,
    /// what a trusted proxy passes on, for others wait for its connection too, and everything while memory is scarce.
    pub(super) fn defer(&self, rejection: &Rejection, peer: &Peer) -> Option<Pin<Box<Sleep>>> {
        let limit = self.bad_tokens.limit();
        let is_beyond = matches!(rejection, Rejection::RateLimited(Exceeded { limit: name, .. }) if *name == limit);
        let wait = self.bad_tokens.wait();
        let at_once = wait == Duration::ZERO
            || self.proxies.trusts(peer.ip)
            || self.memory.is_at(MemoryStage::Lean);
        // On the heap: few requests come to this, and all would have room for a timer.
        (is_beyond && !at_once).then(|| Box::pin(sleep(wait)))
    }
}
