//! What finding a route costs, in nanoseconds on one core, by the size of the table: `cargo bench --bench routes`.
//!
//! Shapes: for each route a path prefix of two segments and a host of its own among 1 000, one in ten of them a wildcard; requests
//! for a thousand routes spread over the whole table, one after the other, so that no route is warm because it was asked for just
//! before. The slowest sample is the first, which nothing was asked for before. `configure` is the way from the text of a
//! configuration to the checked table, in milliseconds.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up must stop"
)]

use std::{fmt::Write, path::Path};

use divan::{Bencher, black_box};
use http::Method;
use portcullis::{config, policy::Routes};

const SIZES: [usize; 3] = [10, 1_000, 10_000];
const HOSTS: usize = 1_000;
/// As many searches as there are requests: fewer would measure how cold the processor's caches are.
const SAMPLE: u32 = 1_000;

fn main() {
    divan::main();
}

fn is_wildcard(host: usize) -> bool {
    host.is_multiple_of(10)
}

fn text(count: usize) -> String {
    let mut text = String::from(
        r#"version = 1
[server]
public_url = "https://localhost:8443"
[tls]
certificates = [{ cert = "certs/dev.crt", key = "certs/dev.key" }]
development = true
[accounts]
enabled = true
[[upstream]]
name = "legacy"
servers = ["http://127.0.0.1:9"]
"#,
    );
    for n in 0..count {
        let host = match n % HOSTS {
            host if is_wildcard(host) => format!("*.h{host}.example.com"),
            host => format!("h{host}.example.com"),
        };
        write!(
            text,
            r#"[[route]]
name = "route-{n}"
hosts = ["{host}"]
path_prefix = "/app{n}/v1"
upstream = "legacy"
access = "authenticated"
"#
        )
        .unwrap();
    }
    text
}

fn routes(count: usize) -> Routes {
    let config = config::parse(&text(count), Path::new("bench.toml"), Path::new("/nowhere"));
    Routes::new(config.unwrap().routes).unwrap()
}

/// Host and path of requests for routes all over a table.
fn requests(count: usize, is_wanted: fn(usize) -> bool) -> Vec<(String, String)> {
    (0..1_000)
        .map(|step| step * 7_919 % count)
        .filter(|n| is_wanted(n % HOSTS))
        .map(|n| {
            let host = n % HOSTS;
            let label = if is_wildcard(host) { "any." } else { "" };
            let host = format!("{label}h{host}.example.com");
            (host, format!("/app{n}/v1/orders/{n}"))
        })
        .collect()
}

fn find(bencher: Bencher<'_, '_>, table: &Routes, requests: &[(String, String)], hits: bool) {
    let mut all = requests.iter().cycle();
    bencher.bench_local(move || {
        let (host, path) = all.next().unwrap();
        let found = table.find(black_box(host), black_box(path), &Method::GET);
        assert_eq!(found.is_ok(), hits);
    });
}

#[divan::bench(args = SIZES, sample_size = SAMPLE)]
fn exact_host(bencher: Bencher<'_, '_>, count: usize) {
    let requests = requests(count, |host| !is_wildcard(host));
    find(bencher, &routes(count), &requests, true);
}

#[divan::bench(args = SIZES, sample_size = SAMPLE)]
fn wildcard_host(bencher: Bencher<'_, '_>, count: usize) {
    let requests = requests(count, is_wildcard);
    find(bencher, &routes(count), &requests, true);
}

#[divan::bench(args = SIZES, sample_size = SAMPLE)]
fn unknown_host(bencher: Bencher<'_, '_>, count: usize) {
    let mut requests = requests(count, |_| true);
    for (host, _) in &mut requests {
        host.push_str(".org");
    }
    find(bencher, &routes(count), &requests, false);
}

#[divan::bench(args = SIZES, sample_size = SAMPLE)]
fn unknown_path(bencher: Bencher<'_, '_>, count: usize) {
    let mut requests = requests(count, |host| !is_wildcard(host));
    for (_, path) in &mut requests {
        path.insert(1, 'x');
    }
    find(bencher, &routes(count), &requests, false);
}

/// A path with an escape that is compared as what it stands for.
#[divan::bench(args = SIZES, sample_size = SAMPLE)]
fn escaped_path(bencher: Bencher<'_, '_>, count: usize) {
    let mut requests = requests(count, |host| !is_wildcard(host));
    for (_, path) in &mut requests {
        path.push_str("/a%20b");
    }
    find(bencher, &routes(count), &requests, true);
}

#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn configure(bencher: Bencher<'_, '_>, count: usize) {
    let text = text(count);
    bencher.bench_local(|| {
        config::parse(
            black_box(&text),
            Path::new("bench.toml"),
            Path::new("/nowhere"),
        )
        .unwrap()
    });
}
