//! Several nodes in one process, by a clock of the test, and a model of what Redis does. RATE-3, RATE-5, RATE-6.

use std::collections::{HashMap, VecDeque};

use futures_util::FutureExt;
use governor::clock::FakeRelativeClock;

use super::*;
use crate::limit::keyed::{KeyedLimiter, Sharing};

const STEP: Duration = Duration::from_millis(10);

impl Named for u64 {
    fn name(&self) -> [Box<str>; 2] {
        ["".into(), self.to_string().into()]
    }
}

type Limiter = Arc<KeyedLimiter<u64, FakeRelativeClock>>;

struct Node {
    limiter: Limiter,
    settlements: Settlements,
    /// Answers that are under way: after how many steps they arrive.
    answers: VecDeque<(u64, Due, Spent, Duration)>,
    /// The step of the next round.
    round: u64,
}

/// Some nodes, and what Redis holds: when each budget is full again.
struct Nodes {
    nodes: Vec<Node>,
    clock: FakeRelativeClock,
    redis: HashMap<String, Duration>,
    step: u64,
    chance: u64,
}

const QUOTA: Quota = Quota {
    count: 100,
    window: Duration::from_secs(1),
    burst: 200,
};

fn sharing(share: Share, wait_max: Duration) -> Option<Sharing> {
    let title = "test".into();
    Some(Sharing {
        share,
        title,
        wait_max,
    })
}

fn node(quota: Quota, clock: &FakeRelativeClock, nodes: u32, wait_max: Duration) -> Node {
    let (share, settlements) = Share::new();
    settlements.set_nodes(nodes);
    let sharing = sharing(share, wait_max);
    Node {
        limiter: Arc::new(KeyedLimiter::shared(
            "test",
            quota,
            10_000,
            clock.clone(),
            sharing,
        )),
        settlements,
        answers: VecDeque::new(),
        round: 0,
    }
}

fn taken(settlements: &mut Settlements) -> Vec<Due> {
    let mut due = Vec::new();
    let _ = settlements.next(&mut due, 10_000).now_or_never();
    due
}

impl Nodes {
    fn new(count: u32, quota: Quota, seed: u64) -> Self {
        let clock = FakeRelativeClock::default();
        let nodes = (0..count).map(|_| node(quota, &clock, count, Duration::MAX));
        Self {
            nodes: nodes.collect(),
            clock,
            redis: HashMap::new(),
            step: 0,
            chance: seed,
        }
    }

    /// A number below `limit`, the same in each run.
    fn chance(&mut self, limit: u64) -> u64 {
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % limit
    }

    /// Asks a node so often for a key; how many pass.
    fn ask(&self, node: usize, key: u64, times: u64) -> u64 {
        let limiter = &self.nodes[node].limiter;
        let passed = (0..times).filter(|_| limiter.check_shared(&key).is_ok());
        u64::try_from(passed.count()).unwrap()
    }

    /// Goes one step on in time: rounds each 50 to 100 ms, whose answers take 20 ms more.
    fn step(&mut self) {
        self.clock.advance(STEP);
        self.step += 1;
        let now = STEP * u32::try_from(self.step).unwrap();
        for place in 0..self.nodes.len() {
            let pause = 5 + self.chance(6);
            let node = &mut self.nodes[place];
            while node.answers.front().is_some_and(|one| one.0 <= self.step) {
                let (_, due, spent, debt) = node.answers.pop_front().unwrap();
                due.learn(spent, debt);
            }
            if node.round > self.step {
                continue;
            }
            node.round = self.step + pause;
            for due in taken(&mut node.settlements) {
                let Some(spent) = due.settle() else { continue };
                let full = self.redis.entry(due.name().join("|")).or_default();
                let one = due.quota().window / due.quota().count;
                *full = (*full).max(now) + one * spent.requests;
                let debt = *full - now;
                node.answers.push_back((self.step + 2, due, spent, debt));
            }
        }
    }
}

/// The longest time from a request until all that it has to know is known: a round, its answer, and the steps of the test.
const LATE: f64 = 0.15;

/// What one node lets through in so many seconds.
fn exact(quota: Quota, secs: f64) -> f64 {
    f64::from(quota.burst) + rate(quota) * secs
}

fn rate(quota: Quota) -> f64 {
    f64::from(quota.count) / quota.window.as_secs_f64()
}

/// What a client may get through in so many seconds: the limit, the burst of each other node with what it lets through before it
/// knows, and a sixteenth of the rate. One for each node is the test's own grain.
fn bound(nodes: u32, quota: Quota, secs: f64) -> f64 {
    exact(quota, secs)
        + f64::from(nodes - 1) * exact(quota, LATE)
        + rate(quota) * secs / 16.0
        + f64::from(nodes)
}

#[test]
fn rate_6_no_way_of_spreading_requests_gets_more_than_the_limit_and_the_overshoot() {
    let small = Quota {
        count: 5,
        window: Duration::from_secs(10),
        burst: 5,
    };
    for (nodes, quota) in [(2, QUOTA), (3, QUOTA), (7, QUOTA), (3, small), (20, small)] {
        for way in 0..6 {
            let mut all = Nodes::new(nodes, quota, u64::from(nodes) + way);
            let count = u64::from(nodes);
            let mut passed = vec![0.0];
            for step in 0..2500_u64 {
                for place in 0..count {
                    let times = match way {
                        // Everything everywhere.
                        0 => 20,
                        // One node after the other, each until its budget would be full again.
                        1 => u64::from(step / 250 % count == place) * 500,
                        // All nodes at once, and then nothing for as long as a budget needs to fill.
                        2 => u64::from(step % 400 == 0) * 500,
                        // By chance, now much, now little.
                        3 => all.chance(3) * all.chance(4),
                        // One node alone gets all, the others so little that nobody is told.
                        4 if place == 0 => 20,
                        4 => u64::from((step + place) % 90 == 0),
                        // As an honest load balancer spreads somebody who is twice too fast.
                        _ => u64::from(step % count == place) * 2,
                    };
                    let got = all.ask(usize::try_from(place).unwrap(), 1, times);
                    *passed.last_mut().unwrap() += f64::from(u32::try_from(got).unwrap());
                }
                all.step();
                let sum = *passed.last().unwrap();
                passed.push(sum);
            }
            // Windows of any length, ten steps apart.
            let mut beyond = 0.0_f64;
            for from in (0..passed.len()).step_by(10) {
                for to in (from + 10..passed.len()).step_by(10) {
                    let secs = f64::from(u32::try_from(to - from).unwrap()) * 0.01;
                    let got = passed[to] - passed[from];
                    let most = bound(nodes, quota, secs);
                    beyond = beyond.max(got - exact(quota, secs));
                    assert!(
                        got <= most,
                        "{nodes} nodes, way {way}: {got} of {most} in {secs} s"
                    );
                }
            }
            println!("{nodes} nodes, way {way}: {beyond} beyond the limit at most");
            // And what it may have, it gets: nobody pays for more than was let through.
            if way == 0 {
                let (secs, sum) = (25.0, *passed.last().unwrap());
                let least = rate(quota) * secs * 0.9;
                assert!(sum >= least, "{nodes} nodes: {sum} of {least}");
            }
        }
    }
}

#[test]
fn the_bound_is_one_that_nodes_of_their_own_do_not_keep() {
    let mut all = Nodes::new(3, QUOTA, 1);
    for node in &all.nodes {
        node.settlements.set_nodes(1);
    }
    let mut passed = 0;
    for _ in 0..1000 {
        passed += (0..3).map(|place| all.ask(place, 1, 50)).sum::<u64>();
        all.step();
    }
    assert!(all.redis.is_empty());
    let passed = f64::from(u32::try_from(passed).unwrap());
    assert!(passed > bound(3, QUOTA, 10.0) * 1.5, "{passed}");
}

#[test]
fn rate_6_somebody_within_half_of_the_burst_is_never_refused_for_the_others() {
    for nodes in [2, 3, 10] {
        for seed in 0..4 {
            let mut all = Nodes::new(nodes, QUOTA, seed);
            // A budget of half the burst, at the whole rate, as one node would keep it.
            let mut left = 100.0_f64;
            for step in 0..6000_u64 {
                left = (left + 1.0).min(100.0);
                let wanted = if all.chance(200) == 0 { 100 } else { 2 };
                for _ in 0..wanted {
                    if left < 1.0 {
                        break;
                    }
                    left -= 1.0;
                    let place = all.chance(nodes.into());
                    let place = usize::try_from(place).unwrap();
                    assert_eq!(all.ask(place, 1, 1), 1, "{nodes} nodes, step {step}");
                }
                // Others use up all they have, meanwhile.
                if step % 10 == 0 {
                    for place in 0..all.nodes.len() {
                        all.ask(place, 2, 100);
                    }
                }
                all.step();
            }
        }
    }
}

#[test]
fn rate_3_a_flood_of_addresses_and_a_flood_of_refusals_tell_nobody_of_anything() {
    let clock = FakeRelativeClock::default();
    let mut node = node(QUOTA, &clock, 50, Duration::MAX);
    for key in 0..50_000 {
        let _ = node.limiter.check_shared(&key);
    }
    assert_eq!(taken(&mut node.settlements).len(), 0);
    // One that is refused all the time is told of while it has something, and no more.
    let mut told = 0;
    for _ in 0..50 {
        for _ in 0..1000 {
            let _ = node.limiter.check_shared(&1);
        }
        told += taken(&mut node.settlements)
            .iter()
            .filter_map(Due::settle)
            .map(|spent| spent.requests)
            .sum::<u32>();
    }
    assert_eq!(told, 200, "its burst, and none of 50 000 refusals");
}

#[test]
fn rate_3_a_full_queue_loses_nothing_but_time() {
    let clock = FakeRelativeClock::default();
    let mut node = node(QUOTA, &clock, 2, Duration::MAX);
    let all = u64::try_from(WAITING_MAX).unwrap() + 500;
    for key in 0..all {
        for _ in 0..25 {
            node.limiter.check_shared(&key).unwrap();
        }
    }
    assert_eq!(node.settlements.take_lost(), 500);
    assert_eq!(node.settlements.take_lost(), 0);
    let first = taken(&mut node.settlements);
    assert_eq!(first.len(), WAITING_MAX);
    // The next request of the others hands them over, with all that was untold.
    let last = all - 1;
    node.limiter.check_shared(&last).unwrap();
    let due = taken(&mut node.settlements).pop().unwrap();
    assert_eq!(due.name(), ["test", "", &last.to_string()]);
    assert_eq!(due.settle().unwrap().requests, 26);
    assert!(due.settle().is_none());
}

#[test]
fn rate_5_nothing_is_counted_or_kept_for_later_while_there_is_nobody_to_share_with() {
    let clock = FakeRelativeClock::default();
    let mut node = node(QUOTA, &clock, 1, Duration::MAX);
    let pass = |node: &Node, times: u32| {
        (0..times)
            .filter(|_| node.limiter.check_shared(&1).is_ok())
            .count()
    };
    assert_eq!(pass(&node, 150), 150);
    assert_eq!(taken(&mut node.settlements).len(), 0);
    node.settlements.set_nodes(2);
    // What it used alone is its own affair; from now on it is counted.
    assert_eq!(pass(&node, 24), 24);
    assert_eq!(taken(&mut node.settlements).len(), 0);
    assert_eq!(pass(&node, 1), 1);
    assert_eq!(
        taken(&mut node.settlements)[0].settle().unwrap().requests,
        25
    );
    // A receiver that is gone is nobody to share with, and no fault.
    drop(node.settlements);
    let (limiter, passed) = (node.limiter, 25);
    let more = (0..100).filter(|_| limiter.check_shared(&1).is_ok());
    assert_eq!(more.count(), passed);
}

#[test]
fn what_others_used_is_taken_in_once_and_waits_no_longer_than_it_may() {
    let secs = Duration::from_secs;
    let clock = FakeRelativeClock::default();
    let mut node = node(QUOTA, &clock, 2, secs(60));
    let pass = |node: &Node| {
        (0..1000)
            .filter(|_| node.limiter.check_shared(&1).is_ok())
            .count()
    };
    for _ in 0..25 {
        node.limiter.check_shared(&1).unwrap();
    }
    let due = taken(&mut node.settlements).pop().unwrap();
    let spent = due.settle().unwrap();
    for _ in 0..5 {
        node.limiter.check_shared(&1).unwrap();
    }
    // All have used 100, this one 5 more: 95 of 200 are left, however often it is heard.
    for _ in 0..3 {
        due.learn(spent, secs(1));
    }
    assert_eq!(pass(&node), 95);
    // Less than this node knows of itself makes nothing fuller.
    due.learn(spent, Duration::ZERO);
    assert_eq!(pass(&node), 0);
    // Whatever is claimed, a minute beyond an empty budget is the most.
    due.learn(spent, Duration::MAX);
    let wait = node.limiter.check_shared(&1).unwrap_err().retry_after;
    assert_eq!(wait, secs(60) + Duration::from_millis(10));
    clock.advance(wait);
    assert_eq!(pass(&node), 1);
}

#[test]
fn a_key_that_was_forgotten_is_blocked_by_what_others_used() {
    let secs = Duration::from_secs;
    let clock = FakeRelativeClock::default();
    let mut node = node(QUOTA, &clock, 2, Duration::MAX);
    for _ in 0..25 {
        node.limiter.check_shared(&1).unwrap();
    }
    let due = taken(&mut node.settlements).pop().unwrap();
    let spent = due.settle().unwrap();
    clock.advance(secs(10));
    // Full again, and swept away by others.
    for key in 100..5000 {
        node.limiter.check_shared(&key).unwrap();
    }
    assert!(due.settle().is_none());
    due.learn(spent, secs(13));
    let wait = node.limiter.check_shared(&1).unwrap_err().retry_after;
    assert_eq!(wait, secs(1) + Duration::from_millis(10));
    // And one that is full by now is not kept for nothing.
    clock.advance(secs(100));
    for key in 10_000..30_000 {
        let _ = node.limiter.check_shared(&key);
    }
    let kept = node.limiter.len();
    due.learn(spent, secs(13));
    assert_eq!(node.limiter.len(), kept);
}
