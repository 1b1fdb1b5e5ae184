//! Everything at once, in an order that a seed chooses: nodes are killed and leave, engines die and return, configurations and
//! certificates change, bad tokens come by the hundred, and good traffic goes on (FAULT-7).
//!
//! `PORTCULLIS_CHAOS_SECONDS` is how long it lasts, 20 by default; every event comes once at least. `PORTCULLIS_CHAOS_SEED` plays
//! the order of a run again, which prints its seed. Each five minutes begin anew with the next seed.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    Trio, Way,
    balancer::Balancer,
    caller::{Caller, authority},
    engines, exchange, is_healthy,
    load::{Client, Load, Sum, told},
    login, misses, private_request, sealed,
    writers::Writers,
};
use crate::{
    harness::{
        Gateway, Kind, RedisServer, Reply, Site, Token, Upstream,
        certs::{handshake, shown},
        eventually, keys, request,
    },
    server::Server,
};

const SECONDS: &str = "PORTCULLIS_CHAOS_SECONDS";
const SEED: &str = "PORTCULLIS_CHAOS_SEED";

/// The longest time that one cluster is used: no token of the clients ends, and the upstream's record stays small.
const ROUND_MAX: u64 = 300;

#[derive(Debug, Clone, Copy)]
enum Event {
    BadConfiguration,
    BadTokens,
    Certificate,
    Configuration,
    KillNode,
    KillRedis,
    KillStore,
    KillStoreAndNode,
    LeaveInOrder,
}

const EVENTS: [Event; 9] = [
    Event::BadConfiguration,
    Event::BadTokens,
    Event::Certificate,
    Event::Configuration,
    Event::KillNode,
    Event::KillRedis,
    Event::KillStore,
    Event::KillStoreAndNode,
    Event::LeaveInOrder,
];

/// Who asks for targets that bear his name, and who signs in and out.
const READERS: [&str; 3] = ["alice", "bob", "zoe"];
const WRITERS: [&str; 2] = ["carol", "dave"];

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let sides = u64::try_from(sides).unwrap();
        usize::try_from((mixed ^ (mixed >> 31)) % sides).unwrap()
    }

    /// All events, in some order.
    fn deck(&mut self) -> Vec<Event> {
        let mut left = EVENTS.to_vec();
        let mut deck = Vec::new();
        while !left.is_empty() {
            deck.push(left.swap_remove(self.roll(left.len())));
        }
        deck
    }
}

struct Chaos {
    server: Server,
    redis: RedisServer,
    trio: Trio,
    balancer: Balancer,
    dice: Dice,
    /// Events yet to come.
    deck: Vec<Event>,
    count: usize,
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: not a number")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_7_in_any_order_of_faults_nobody_passes_unverified_and_nothing_acknowledged_is_lost()
{
    let mut left = number(SECONDS).unwrap_or(20);
    let mut seed = number(SEED).unwrap_or_else(keys::now);
    while left > 0 {
        let round = left.min(ROUND_MAX);
        println!("{SEED}={seed}, {round} s");
        if play(seed, Duration::from_secs(round)).await.is_none() {
            return;
        }
        left -= round;
        seed += 1;
    }
}

/// An upstream that notes whoever it was not told right about.
async fn judging() -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let wrong = Arc::<Mutex<Vec<String>>>::default();
    let notes = Arc::clone(&wrong);
    let upstream = Upstream::scripted(move |seen| {
        let users = seen.head.values("x-forwarded-user");
        let right = match (&*users, seen.target.split('/').nth(2)) {
            ([user], Some(owner)) => *user == owner && READERS.contains(user),
            ([user], None) => WRITERS.contains(user),
            _ => false,
        };
        if !right {
            let note = format!("{} as {users:?}", seen.head.start);
            notes.lock().unwrap().push(note);
        }
        Reply::ok(&told(seen))
    });
    (upstream.await, wrong)
}

async fn clients(trio: &Trio) -> Vec<Client> {
    let foreign = Token::good()
        .claim("sub", "zoe")
        .claim("exp", keys::now() + 2 * ROUND_MAX);
    let mut clients = Vec::new();
    for (user, token) in [
        ("alice", login(trio.nodes[0].tls, "alice").await.access),
        ("bob", login(trio.nodes[1].tls, "bob").await.access),
        ("zoe", foreign.sign()),
    ] {
        for (fresh, posts, http2) in [
            (false, false, false),
            (false, false, true),
            (true, true, false),
        ] {
            clients.push(Client {
                user: user.to_owned(),
                token: token.clone(),
                fresh,
                posts,
                http2,
            });
        }
    }
    clients
}

/// Plays for a time; `None` where there are no engines.
async fn play(seed: u64, time: Duration) -> Option<()> {
    let (server, redis, way) = engines().await?;
    let (upstream, wrong) = judging().await;
    let mut chaos = Chaos::begin(server, redis, &way, upstream, seed).await;
    let load = Load::begin(chaos.balancer.address, &clients(&chaos.trio).await);
    let writers = Writers::begin(&[chaos.balancer.address], &WRITERS);
    let begun = Instant::now();
    writers.go_on(5).await;
    while chaos.count < EVENTS.len() || begun.elapsed() < time {
        let next = chaos.deck.pop();
        let Some(event) = next else {
            chaos.deck = chaos.dice.deck();
            continue;
        };
        println!("{:?} {event:?}", begun.elapsed());
        chaos.happen(event, &load).await;
        load.goes_on(10).await;
    }
    writers.go_on(5).await;
    chaos.judge(&load.end().await);
    writers.end(&chaos.trio).await;
    let wrong = wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
    chaos.trio.upstream.saw_no_fault();
    Some(())
}

impl Chaos {
    async fn begin(
        server: Server,
        redis: RedisServer,
        way: &Way,
        upstream: Upstream,
        seed: u64,
    ) -> Self {
        let ways = [way.clone(), way.clone(), way.clone()];
        let users = ["alice", "bob", "carol", "dave"];
        let trio = Trio::by_ways(&ways, upstream, &users, |site| {
            sealed(site).set("server", "drain_delay", "\"3s\"").set(
                "server",
                "drain_timeout",
                "\"20s\"",
            )
        });
        let trio = trio.await;
        Self {
            server,
            redis,
            balancer: Balancer::before(&trio).await,
            trio,
            dice: Dice(seed),
            deck: Vec::new(),
            count: 0,
        }
    }

    /// Lets something happen, and waits until the cluster is whole again.
    async fn happen(&mut self, event: Event, load: &Load) {
        self.count += 1;
        let index = self.dice.roll(3);
        match event {
            Event::BadConfiguration => {
                let node = &self.trio.nodes[index];
                let good = node.site.toml();
                reload(node, "version = 1\n[server]\nlisten = 7\n", 400).await;
                reload(node, &good, 200).await;
            }
            Event::BadTokens => self.flood().await,
            Event::Certificate => swap_certificate(&self.trio.nodes[index]).await,
            Event::Configuration => {
                let node = &mut self.trio.nodes[index];
                let name = format!("extra{}", self.count);
                let site = std::mem::replace(&mut node.site, Site::bare());
                node.site = site.route(&name, &format!("/{name}"), "authenticated");
                reload(node, &node.site.toml(), 200).await;
            }
            Event::KillNode => {
                self.kill_node(index).await;
                load.goes_on(10).await;
                self.node_returns(index).await;
            }
            Event::KillRedis => {
                self.redis.kill();
                for node in &self.trio.nodes {
                    misses(node, "redis", true).await;
                }
                self.redis.again();
            }
            Event::KillStore => {
                self.server.kill();
                for node in &self.trio.nodes {
                    misses(node, "account store", true).await;
                }
                load.goes_on(10).await;
                self.server.resume();
            }
            Event::KillStoreAndNode => {
                self.server.kill();
                self.kill_node(index).await;
                load.goes_on(10).await;
                self.server.resume();
                self.node_returns(index).await;
            }
            Event::LeaveInOrder => {
                self.trio.nodes[index].signal("TERM");
                self.balancer.sees(index, false).await;
                assert!(self.trio.nodes[index].exit().await.success());
                self.node_returns(index).await;
            }
        }
        for node in &self.trio.nodes {
            is_healthy(node).await;
        }
    }

    async fn kill_node(&mut self, index: usize) {
        self.trio.kill(index).await;
        self.balancer.doom(index);
    }

    async fn node_returns(&mut self, index: usize) {
        self.trio.start_again(index, |site| site).await;
        self.balancer.sees(index, true).await;
    }

    /// Tokens of every bad kind, each with a name that it would like to have.
    async fn flood(&self) {
        let signed = Token::good().claim("sub", "alice");
        let bad = [
            String::new(),
            "x.y.z".to_owned(),
            signed.clone().claim("exp", keys::now() - 60).sign(),
            signed.clone().claim("aud", "others").sign(),
            signed.clone().without("exp").sign(),
            signed.sign_text(r#"{"alg":"none"}"#, &signed.claims_text()),
            Token::new(Kind::Es).sign_by(
                &keys::ec_key(&keys::keys().foreign_ec),
                jsonwebtoken::Algorithm::ES256,
            ),
            format!("{}x", signed.sign()),
        ];
        for number in 0..96 {
            let token = keys::bearer(&bad[number % bad.len()]);
            let fields = [("Authorization", &*token), ("X-Forwarded-User", "alice")];
            let target = format!("/private/evil/{number}");
            let request = request("GET", &target, &fields[usize::from(number % 24 == 0)..], "");
            let answer = exchange(self.balancer.address, request).await;
            assert!(
                matches!(answer.status, 400 | 401),
                "{} {}",
                answer.status,
                answer.text()
            );
        }
    }

    /// Good requests are served wherever there is a node that lives: only those that a killed one had may be lost.
    fn judge(&self, sum: &Sum) {
        let failures = sum.failures.iter();
        let lost: Vec<_> = failures
            .filter(|failure| {
                !failure
                    .local
                    .is_some_and(|local| self.balancer.is_doomed(local))
            })
            .collect();
        println!(
            "{} events; {} requests served, {} of them asked for again; {} under way on killed nodes, {} others lost",
            self.count,
            sum.served,
            sum.repeated,
            sum.failures.len() - lost.len(),
            lost.len(),
        );
        // 99.9 %.
        assert!(lost.len() * 1000 <= sum.served, "{lost:?}");
    }
}

/// Has a node read its configuration, which it takes or refuses.
async fn reload(node: &Gateway, toml: &str, want: u16) {
    node.site.put("config/gateway.toml", toml);
    let mut raw = crate::harness::Raw::plain(node.admin).await;
    let request = request("POST", "/reload", &[("connection", "close")], "");
    let answer = raw.exchange(request).await;
    let refused = answer.status >= 400;
    assert_eq!(refused, want >= 400, "{}", answer.text());
}

async fn swap_certificate(node: &Gateway) {
    let new = authority().sign(&["localhost"]);
    node.site.put_pair("site", &new);
    let client = Caller::trust();
    eventually("the new certificate", async || {
        let stream = handshake(node, &client, "localhost").await.ok()?;
        (shown(&stream) == new.der).then_some(())
    })
    .await;
    let foreign = Token::good().claim("sub", "zoe").sign();
    let answer = exchange(node.tls, private_request("/private/zoe/new", &foreign)).await;
    assert_eq!(answer.is(200).text(), "zoe /private/zoe/new");
}
