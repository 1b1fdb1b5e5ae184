//! Makes the limits of clients and routes those of all nodes, behind the requests' backs.
//!
//! A key whose lease is used up is told of: one script call for many keys takes what they have used from the budgets in Redis, and
//! says how much all nodes have. That is taken into this node's own budgets, which alone decide. Rounds are limited in keys and
//! in number, so that no flood reaches Redis; how slow it is slows down rounds and nothing else.

use std::{cmp::max, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    link::{Command, Link},
    name,
    resp::Reply,
};
use crate::{
    jitter,
    limit::{Due, Settlements, Spent, settings::Quota},
    telemetry::Telemetry,
};

/// The least time between the beginnings of two rounds, half of it by chance.
const PERIOD: Duration = Duration::from_millis(100);

/// Between two rounds there is this much time for each that the last one took, half of it by chance: where many nodes make Redis
/// slow, each makes fewer rounds, and those who wait for it find it idle.
const REST: u32 = 9;

/// A round is never put off for longer than this.
const REST_MAX: Duration = Duration::from_secs(2);

/// Keys in a round.
const ROUND_KEYS: usize = 1024;

/// Keys in a script call: the server does nothing else meanwhile, and its answer has to stay small.
const CALL_KEYS: usize = 128;

/// How long a call may take. Nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked whether Redis is there, and how often the nodes are counted.
const LOOK: Duration = Duration::from_millis(250);
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// For how long a node that is not heard of any more is counted: its connection may be about to return.
const MISSED_FOR: Duration = Duration::from_secs(60);

/// The most nodes that make a difference: a lease is one request then, if a burst is not beyond reason.
const NODES_MAX: u32 = 1024;

/// Settles until nobody can ask for it any more.
pub(super) struct Settler {
    pub(super) link: Arc<Link>,
    pub(super) keys: hmac::Key,
    /// Where nodes listen, and say nothing.
    pub(super) channel: Vec<u8>,
    pub(super) settlements: Settlements,
    pub(super) telemetry: Arc<Telemetry>,
}

/// How many nodes there are.
struct Count {
    /// When it was asked last, while Redis was there.
    asked: Option<Instant>,
    nodes: u32,
    until: Instant,
}

impl Settler {
    pub(super) async fn run(mut self) {
        let mut count = Count {
            asked: None,
            nodes: 1,
            until: Instant::now(),
        };
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = looks.tick() => self.look(&mut count).await,
                more = self.settlements.next(&mut round, ROUND_KEYS) => {
                    if !more {
                        return;
                    }
                    let begun = Instant::now();
                    self.settle(round.split_off(0)).await;
                    let rest = max(begun.elapsed() * REST, PERIOD).min(REST_MAX);
                    sleep(jitter::half_to_all(rest)).await;
                }
            }
        }
    }

    /// Sees to it that keys are handed over while there is somebody to share with, and only then: what is used while Redis is
    /// away is not told of later, for by then it is long past.
    async fn look(&self, count: &mut Count) {
        let now = Instant::now();
        if !self.link.is_up() {
            count.asked = None;
            self.set_nodes(0);
        } else if count
            .asked
            .is_none_or(|asked| now.duration_since(asked) >= COUNT_EVERY)
        {
            count.asked = Some(now);
            let hearing = Command::Publish(self.channel.clone());
            if let Some(Reply::Integer(hearing)) = self.link.ask_within(hearing, PATIENCE).await {
                let nodes = u32::try_from(hearing).unwrap_or(1).clamp(1, NODES_MAX);
                if nodes >= count.nodes || now >= count.until {
                    count.nodes = nodes;
                    count.until = now + MISSED_FOR;
                }
                self.set_nodes(count.nodes);
            }
        }
        self.telemetry
            .cluster_unsettled(self.settlements.take_lost());
    }

    fn set_nodes(&self, nodes: u32) {
        self.settlements.set_nodes(nodes);
        self.telemetry.cluster_nodes(nodes);
    }

    /// Tells of keys, and takes in what is answered.
    async fn settle(&self, round: Vec<Due>) {
        let spent = round.into_iter().filter_map(|due| {
            let spent = due.settle()?;
            Some((due, spent))
        });
        let spent: Vec<(Due, Spent)> = spent.collect();
        join_all(spent.chunks(CALL_KEYS).map(|call| self.call(call))).await;
    }

    async fn call(&self, keys: &[(Due, Spent)]) {
        let nodes = self.settlements.nodes();
        let mut arguments = Vec::with_capacity(keys.len() * 3);
        let mut mosts = Vec::with_capacity(keys.len());
        for (due, _) in keys {
            let [title, kind, key] = due.name();
            arguments.push(name(&self.keys, &["share", title, kind, key]));
        }
        for (due, spent) in keys {
            let (charge, most) = terms(due.quota(), spent.requests, nodes);
            arguments.extend([charge, most].map(|number| number.to_string().into_bytes()));
            mosts.push(most);
        }
        let command = Command::Settle {
            keys: keys.len(),
            arguments,
        };
        let reply = self.link.ask_within(command, PATIENCE).await;
        let Some(debts) = reply.and_then(|reply| debts(&reply, &mosts)) else {
            let count = u64::try_from(keys.len()).unwrap_or(u64::MAX);
            self.telemetry.cluster_unsettled(count);
            return;
        };
        let mut oldest = Duration::ZERO;
        for ((due, spent), debt) in keys.iter().zip(debts) {
            due.learn(*spent, debt);
            oldest = oldest.max(due.since().elapsed());
        }
        self.telemetry.cluster_settled(keys.len(), oldest);
    }
}

/// The times in an answer, none longer than the most that it was asked for: whatever a server says, nobody is locked out for
/// longer than by what the nodes could let through. `None` where it is no answer to so many keys.
fn debts(reply: &Reply, mosts: &[u64]) -> Option<Vec<Duration>> {
    let Reply::Bytes(Some(text)) = reply else {
        return None;
    };
    let numbers = str::from_utf8(text).ok()?.split(' ').map(str::parse);
    let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().ok()?;
    let debts = numbers.iter().zip(mosts);
    let debts = debts.map(|(debt, most)| Duration::from_micros(*debt.min(most)));
    (numbers.len() == mosts.len()).then(|| debts.collect())
}

/// What the script is told, in microseconds: the time that so many requests stand for, and that of all that the nodes together
/// can let through before they know of each other. Within what Lua counts exactly, with the time of day added.
fn terms(quota: Quota, requests: u32, nodes: u32) -> (u64, u64) {
    const MOST: u64 = 1 << 51;
    let window = quota.window.as_micros().min(u128::from(MOST));
    let time = |requests: u32| {
        let time = window * u128::from(requests) / u128::from(quota.count.max(1));
        u64::try_from(time).unwrap_or(MOST).min(MOST)
    };
    let late = (PERIOD + REST_MAX + PATIENCE).as_micros();
    let late = u64::try_from(late).unwrap_or(MOST);
    let most = time(quota.burst).saturating_add(late);
    let most = most.saturating_mul(nodes.max(1).into());
    (time(requests).max(1), most.min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(count: u32, secs: u64, burst: u32) -> Quota {
        Quota {
            count,
            window: Duration::from_secs(secs),
            burst,
        }
    }

    #[test]
    fn terms_stay_within_what_lua_counts_exactly() {
        assert_eq!(terms(quota(100, 1, 200), 17, 3).0, 170_000);
        assert_eq!(terms(quota(3, 1, 3), 3, 3).0, 1_000_000);
        assert_eq!(
            terms(quota(100, 1, 200), 1, 3).1,
            3 * (2_000_000 + 3_100_000)
        );
        for quota in [
            quota(0, 0, 0),
            quota(1, u64::MAX, u32::MAX),
            quota(u32::MAX, 1, u32::MAX),
        ] {
            for (requests, nodes) in [(0, 0), (1, 2), (u32::MAX, NODES_MAX)] {
                let (charge, most) = terms(quota, requests, nodes);
                assert!((1..=1 << 51).contains(&charge), "{quota:?}");
                assert!((1..=1 << 51).contains(&most), "{quota:?}");
            }
        }
    }

    #[test]
    fn an_answer_of_another_length_or_kind_is_none_and_no_answer_locks_anybody_out() {
        let text = |text: &str| Reply::Bytes(Some(text.into()));
        let secs = Duration::from_secs;
        assert_eq!(
            debts(&text("0 1000000 99999999999"), &[1, 1_000_000, 2_000_000]),
            Some(vec![secs(0), secs(1), secs(2)])
        );
        for (reply, keys) in [
            (text("0 1"), 3),
            (text("0 1 2 3"), 3),
            (text(""), 1),
            (text("0  1"), 3),
            (text("-1"), 1),
            (text("1e3"), 1),
            (text("99999999999999999999"), 1),
            (Reply::Integer(0), 1),
            (Reply::Bytes(None), 1),
            (Reply::Parts(vec![Reply::Integer(0)]), 1),
        ] {
            assert_eq!(debts(&reply, &vec![u64::MAX; keys]), None, "{reply:?}");
        }
    }
}
