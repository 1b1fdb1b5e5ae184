//! What sessions cost the engines, counted: the figures of `docs/cluster.md` come from here, and more than they say is a fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Instant,
};

use super::{
    Grant, Trio, Way, exchange, is_healthy, login, logout_request, misses, refresh, sealed, status,
};
use crate::{
    harness::{RedisServer, eventually},
    place::Place,
    server::Server,
};

/// How often each thing is done.
const TIMES: usize = 12;

/// Has the server write down each statement, and by which connection.
fn tell_all(data: &Path) {
    let file = data.join("postgresql.conf");
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str("\nlog_statement = all\nlog_line_prefix = '%p|'\n");
    std::fs::write(&file, text).unwrap();
}

/// The transactions of a log, each with the beginnings of its statements.
fn transactions(log: &str) -> Vec<Vec<String>> {
    let mut open = BTreeMap::<&str, Vec<String>>::new();
    let mut done = Vec::new();
    for line in log.lines() {
        let Some((process, rest)) = line.split_once('|') else {
            continue;
        };
        let Some(text) = rest.strip_prefix("LOG:  ") else {
            continue;
        };
        let text = text.strip_prefix("statement: ").or_else(|| {
            text.strip_prefix("execute ")?
                .split_once(": ")
                .map(|(_, text)| text)
        });
        match text {
            Some("BEGIN" | "START TRANSACTION") => {
                open.insert(process, Vec::new());
            }
            Some("COMMIT" | "ROLLBACK") => done.extend(open.remove(process)),
            Some(text) => {
                if let Some(statements) = open.get_mut(process) {
                    statements.push(text.to_owned());
                }
            }
            None => {}
        }
    }
    done
}

fn writes(transaction: &[String]) -> bool {
    let changing = ["INSERT", "UPDATE", "DELETE", "WITH"];
    let begins = |text: &String| changing.iter().any(|word| text.starts_with(word));
    transaction.iter().any(begins)
}

/// Nodes look for news more often while there are some.
fn reads_feed(transaction: &[String]) -> bool {
    let first = transaction.first();
    first.is_some_and(|text| text.starts_with("SELECT id, kind, key, until FROM revocations"))
}

/// What one of something costs on average.
#[derive(Debug, Default, PartialEq)]
struct Cost {
    transactions: usize,
    that_write: usize,
    statements: usize,
    scripts: usize,
    messages: usize,
}

struct Meter {
    server: Server,
    redis: RedisServer,
    place: Place,
    /// What nodes ask when nobody does anything.
    idle: BTreeSet<Vec<String>>,
}

impl Meter {
    fn log_length(&self) -> usize {
        self.server.log().len()
    }

    fn since(&self, start: usize) -> Vec<Vec<String>> {
        transactions(&self.server.log()[start..])
    }

    fn redis_calls(&self, command: &str) -> usize {
        let stats = self.redis.ask("INFO commandstats");
        let calls = stats.lines().find_map(|line| {
            let rest = line.strip_prefix(&format!("cmdstat_{command}:calls="))?;
            rest.split(',').next()?.parse().ok()
        });
        calls.unwrap_or(0)
    }

    /// Bytes of the write-ahead log so far.
    async fn log_bytes(&self) -> i64 {
        let place = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
        self.place.number(place).await
    }

    /// Counts what [`TIMES`] of something cost, beside what the nodes do anyway.
    async fn measure<T>(&self, what: &str, work: impl Future<Output = T>) -> (Cost, T) {
        let (start, bytes) = (self.log_length(), self.log_bytes().await);
        let [scripts, messages] = ["evalsha", "publish"].map(|name| self.redis_calls(name));
        let done = work.await;
        let bytes = usize::try_from(self.log_bytes().await - bytes).unwrap();
        // Something may be done once more than usual: by a pause, or where a connection is new.
        let each = |count: usize| (count + TIMES / 2) / TIMES;
        let all = self.since(start);
        let is_ours = |one: &&Vec<String>| !self.idle.contains(*one) && !reads_feed(one);
        let ours: Vec<_> = all.iter().filter(is_ours).collect();
        let cost = Cost {
            transactions: each(ours.len()),
            that_write: each(ours.iter().filter(|one| writes(one)).count()),
            statements: each(ours.iter().map(|one| one.len()).sum()),
            scripts: each(self.redis_calls("evalsha") - scripts),
            messages: each(self.redis_calls("publish") - messages),
        };
        println!("{what}: {cost:?}, about {} bytes of log", each(bytes));
        (cost, done)
    }
}

async fn meter() -> Option<(Meter, Trio)> {
    let (server, redis) = (Server::start(tell_all)?, RedisServer::start(None)?);
    let way = Way {
        store: server.database().await,
        redis: Some(redis.port),
    };
    let trio = Trio::start(&way, &["alice"], sealed).await;
    let mut meter = Meter {
        place: Place::Postgres(way.store),
        server,
        redis,
        idle: BTreeSet::new(),
    };
    // Once each, so that what is done the first time is over.
    let grant = login(trio.nodes[0].tls, "alice").await;
    let grant = Grant::of(&refresh(trio.nodes[0].tls, &grant.renewal).await);
    exchange(trio.nodes[0].tls, logout_request(&grant.renewal))
        .await
        .is(204);
    let start = meter.log_length();
    // Polls, and what is erased at each tenth of them.
    eventually("all that idle nodes do", async || {
        let all = meter.since(start);
        let purges = all.iter().filter(|one| writes(one)).count();
        (purges >= 2 && all.len() > 30).then_some(())
    })
    .await;
    meter.idle = meter.since(start).into_iter().collect();
    Some((meter, trio))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_cost_the_engines_what_the_documentation_says() {
    let Some((meter, trio)) = meter().await else {
        return;
    };
    let address = trio.nodes[0].tls;
    for one in &meter.idle {
        println!("idle: {one:?}");
    }
    let (cost, mut grants) = meter
        .measure("login", async {
            let mut grants = Vec::new();
            for _ in 0..TIMES {
                grants.push(login(address, "alice").await);
            }
            grants
        })
        .await;
    // One reads the account, one makes the session; one script for each of the two limits.
    let want = Cost {
        transactions: 2,
        that_write: 1,
        statements: 5,
        scripts: 2,
        messages: 0,
    };
    assert_eq!(cost, want);
    let (cost, ()) = meter
        .measure("proxied request", async {
            for grant in &grants {
                assert_eq!(status(address, &grant.access).await, 200);
            }
        })
        .await;
    assert_eq!(cost, Cost::default());
    let (cost, ()) = meter
        .measure("refresh", async {
            for grant in &mut grants {
                *grant = Grant::of(&refresh(address, &grant.renewal).await);
            }
        })
        .await;
    // One reads whose token it is, so that its session can be charged; one replaces it.
    let want = Cost {
        transactions: 2,
        that_write: 1,
        statements: 7,
        scripts: 1,
        messages: 0,
    };
    assert_eq!(cost, want);
    let (cost, ()) = meter
        .measure("logout", async {
            for grant in &grants {
                exchange(address, logout_request(&grant.renewal))
                    .await
                    .is(204);
            }
        })
        .await;
    let want = Cost {
        transactions: 1,
        that_write: 1,
        statements: 4,
        scripts: 0,
        messages: 1,
    };
    assert_eq!(cost, want);
}

/// Waits for this many transactions, and says how many there were in which time.
async fn some(meter: &Meter, start: usize, begun: Instant, least: usize) -> (usize, f64) {
    let count = eventually("transactions of nodes", async || {
        let count = meter.since(start).len();
        (count >= least).then_some(count)
    })
    .await;
    (count, begun.elapsed().as_secs_f64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_5_a_database_that_returns_is_asked_at_most_twice_as_often_as_usual() {
    let Some((mut meter, trio)) = meter().await else {
        return;
    };
    let (usual, time) = some(&meter, meter.log_length(), Instant::now(), 12).await;
    let usual_rate = f64::from(u32::try_from(usual).unwrap()) / time;
    meter.server.kill();
    for node in &trio.nodes {
        misses(node, "account store", true).await;
    }
    let (start, begun) = (meter.log_length(), Instant::now());
    meter.server.resume();
    for node in &trio.nodes {
        is_healthy(node).await;
    }
    let so_far = meter.since(start).len();
    let (count, time) = some(&meter, start, begun, so_far + 12).await;
    println!("{usual_rate:.1} in a second as usual; after the return {count} in {time:.1} s");
    // Each node begins by reading the feed once from its start.
    let most = 2.0 * usual_rate * time + 2.0 * 3.0;
    assert!(
        f64::from(u32::try_from(count).unwrap()) <= most,
        "{count} > {most}"
    );
}
