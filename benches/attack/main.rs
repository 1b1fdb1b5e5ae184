//! What a well-behaved client feels while another attacks: `cargo bench --bench attack`.
//!
//! A gateway with one worker runs as a process of its own, before an upstream in this process. For each attack a good client is
//! measured alone and then beside it: four kept HTTP/1.1 connections, a request on each every 20 ms, timed from when it was
//! due. Attacker and good client come from two loopback addresses, and the limit of requests is off for both, so that the
//! limits of connections and frames are all that helps. `--pin` puts the gateway on the first core by `taskset`; start this
//! program by `taskset -c 1` then. `--seconds N` is the length of each attack, 4 by default.
//!
//! `--scarce` instead takes memory from a gateway with 512 MiB, by several attacks at once: see `scarce.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a bench that cannot be set up must stop, and says how far it is"
)]

mod attacks;
mod gateway;
mod good;
mod scarce;

use std::time::Duration;

use attacks::{ATTACKS, Attack};
use gateway::{Additions, Gateway};
use good::Latencies;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let pin = arguments.iter().any(|argument| argument == "--pin");
    let number = |name: &str, otherwise: u64| {
        let mut from = arguments.iter().skip_while(|argument| *argument != name);
        from.nth(1).map_or(otherwise, |text| text.parse().unwrap())
    };
    let (seconds, limit) = (number("--seconds", 4), number("--limit", 512));
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let length = Duration::from_secs(seconds);
            match arguments.iter().any(|argument| argument == "--scarce") {
                true => scarce::run(length, limit).await,
                false => run(pin, length).await,
            }
        });
}

async fn run(pin: bool, length: Duration) {
    let mut rows = Vec::new();
    for attack in &ATTACKS {
        // A gateway of its own for each, so that memory is that attack's.
        let additions = Additions {
            server: "workers = 1",
            ..Additions::default()
        };
        let before: &[&str] = if pin { &["taskset", "-c", "0"] } else { &[] };
        let gateway = Gateway::start(before, &additions).await;
        good::measure(&gateway.process, Duration::from_secs(1)).await;
        let alone = good::measure(&gateway.process, length).await;
        rows.push(row(attack, &gateway, &alone, length).await);
        eprintln!("{} done", attack.name);
    }
    println!(
        "| attack | connections at once | opened | sent | p99 alone ms | p99 under attack ms | ratio | good answers, failed | memory MiB | CPU of the gateway |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        println!("{row}");
    }
}

async fn row(
    attack: &'static Attack,
    gateway: &Gateway,
    alone: &Latencies,
    length: Duration,
) -> String {
    let before = gateway.process.memory();
    let processor = gateway.process.processor_time();
    let running = attacks::start(attack, gateway, length);
    // The good client meets the attack when it is under way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let under = good::measure(&gateway.process, length - Duration::from_millis(600)).await;
    let sums = running.await.unwrap();
    let share = (gateway.process.processor_time() - processor).as_secs_f64() / length.as_secs_f64();
    let ratio = under.percentile(99) / alone.percentile(99);
    format!(
        "| {} | {} | {} | {} | {:.1} | {:.1} | {ratio:.1} | {}, {} | {before:.0} → {:.0} | {:.0}% |",
        attack.name,
        attack.connections,
        sums.opened,
        sums.sent,
        alone.percentile(99),
        under.percentile(99),
        under.answered(),
        under.failed,
        sums.memory,
        share * 100.0,
    )
}
