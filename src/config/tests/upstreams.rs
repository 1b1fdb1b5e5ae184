//! `[[upstream]]`.

use super::*;
use crate::upstream::settings::{Balance, Endpoint};

#[test]
fn upstreams() {
    refused_each(
        "[[upstream]]",
        r#"
        servers                          | upstream[0].servers    | missing
        servers = []                     | upstream[0].servers    | empty list
        servers = [""]                   | upstream[0].servers[0] | is empty
        servers = ["https://"]           | upstream[0].servers[0] | not a URL
        servers = ["https://x", "https://x:443"] | upstream[0].servers[1] | twice
        servers = ["unix:"]              | upstream[0].servers[0] | names no socket
        servers = ["unix://x"]           | upstream[0].servers[0] | names no socket
        servers = ["unix:/run/"]         | upstream[0].servers[0] | names no socket
        servers = ["unix:/a\u0000b"]     | upstream[0].servers[0] | no path of a socket
        servers = ["http://x", "http://x"]    | upstream[0].servers[1] | twice
        servers = ["http://x", "http://X:80/"] | upstream[0].servers[1] | twice
        servers = ["http://x", "ftp://x"] | upstream[0].servers[1] | neither http, https nor unix
        balance = "least_connections"    | upstream[0].balance    | none of the values
        resolve_every = "0s"             | upstream[0].resolve_every | below the least
        resolve_every = "2h"             | upstream[0].resolve_every | above the most
        protocol = ""                    | upstream[0].protocol   | is empty
        protocol = "http2"               | upstream[0].protocol   | none of the values
        protocol = 2                     | upstream[0].protocol   | expected a string
        h2_streams = 0                   | upstream[0].h2_streams | below the least
        h2_streams = 1001                | upstream[0].h2_streams | above the most
        balance = ""                     | upstream[0].balance    | is empty
        servers = ["ftp://x"]            | upstream[0].servers[0] | neither http, https nor unix
        servers = ["127.0.0.1:9000"]     | upstream[0].servers[0] | not a URL
        servers = ["http://u:p@x"]       | upstream[0].servers[0] | user name
        servers = ["http://x/?a"]        | upstream[0].servers[0] | query
        servers = ["http://x:0"]         | upstream[0].servers[0] | port 0
        servers = ["http://x/a/../b"]    | upstream[0].servers[0] | two ways
        servers = ["http://x/a//b"]      | upstream[0].servers[0] | two ways
        eject = {}                       | upstream[0].eject          | empty table
        eject = true                     | upstream[0].eject          | expected a table
        eject = { failures = 0 }         | upstream[0].eject.failures | below the least
        eject = { window = "0s" }        | upstream[0].eject.window   | below the least
        eject = { for = "2h" }           | upstream[0].eject.for      | above the most
        eject = { after = 3 }            | upstream[0].eject.after    | unknown key
        retry = {}                       | upstream[0].retry          | empty table
        retry = true                     | upstream[0].retry          | expected a table
        retry = { attempts = 4 }         | upstream[0].retry.attempts | above the most
        retry = { attempts = -1 }        | upstream[0].retry.attempts | negative
        retry = { budget = 0.201 }       | upstream[0].retry.budget   | 0.201 is above
        retry = { budget = 1 }           | upstream[0].retry.budget   | 1 is above
        retry = { budget = -0.1 }        | upstream[0].retry.budget   | not a fraction
        retry = { budget = 0.1234 }      | upstream[0].retry.budget   | not a fraction
        retry = { budget = 1e-1 }        | upstream[0].retry.budget   | not a fraction
        retry = { budget = nan }         | upstream[0].retry.budget   | not a fraction
        retry = { budget = "0.2" }       | upstream[0].retry.budget   | expected a fraction
        retry = { share = 0.2 }          | upstream[0].retry.share    | unknown key
        health = {}                      | upstream[0].health.path    | missing
        health = { path = "healthz" }    | upstream[0].health.path    | not a path
        health = { path = "/x#y" }       | upstream[0].health.path    | not a path
        health = { path = "/x y" }       | upstream[0].health.path    | not a path
        health = { path = "/", interval = "0s" } | upstream[0].health.interval | below the least
        health = { path = "/", timeout = "2h" }  | upstream[0].health.timeout  | above the most
        health = { path = "/", healthy = 0 }     | upstream[0].health.healthy  | below the least
        health = { path = "/", unhealthy = 0 }   | upstream[0].health.unhealthy | below the least
        health = { path = "/", port = 80 }       | upstream[0].health.port     | unknown key
        host = ""                        | upstream[0].host       | is empty
        host = "a b"                     | upstream[0].host       | not a host
        connect_timeout = "0s"           | upstream[0].connect_timeout  | below the least
        response_timeout = "2d"          | upstream[0].response_timeout | above the most
        max_connections = 0              | upstream[0].max_connections  | below the least
        "#,
    );
    let twice = format!("{BASE}[[upstream]]\nname = \"app\"\nservers = [\"http://y\"]\n");
    Project::new().refuses(&twice, "upstream[1].name", "twice");
    let nameless = Project::new().read(&with("[[upstream]]", "name"));
    let report = nameless.unwrap_err();
    assert_eq!(report.problems()[0].key, "upstream[0].name", "{report}");
}

#[test]
fn addresses_of_upstreams() {
    let address = |url: &str| {
        let config = accepted("[[upstream]]", &format!("servers = [{url:?}]"));
        let server = config.upstreams[0].servers[0].clone();
        let Endpoint::Tcp { host, port, tls } = server.endpoint else {
            panic!("{server}");
        };
        format!("{host} {port} {tls} {}", server.base_path)
    };
    assert_eq!(address("http://app"), "app 80 false ");
    assert_eq!(address("https://app"), "app 443 true ");
    assert_eq!(address("https://app:80/"), "app 80 true ");
    assert_eq!(address("http://[::1]:81/"), "::1 81 false ");
    assert_eq!(
        address("http://10.0.0.1:9000/app/"),
        "10.0.0.1 9000 false /app"
    );
}

#[test]
fn sockets_of_upstreams() {
    let project = Project::new();
    let socket = |url: &str| {
        let config = project.accepts(&with("[[upstream]]", &format!("servers = [{url:?}]")));
        let server = config.upstreams[0].servers[0].clone();
        (server.to_string(), server.authority())
    };
    let local = "localhost".to_owned();
    assert_eq!(
        socket("unix:/run/app.sock"),
        ("unix:/run/app.sock".to_owned(), local.clone())
    );
    let below = project.folder.path().join("run/app.sock");
    assert_eq!(
        socket("unix:run/app.sock"),
        (format!("unix:{}", below.display()), local)
    );
    let long = format!("servers = [\"unix:/{}\"]", "x".repeat(107));
    let text = with("[[upstream]]", &long);
    project.refuses(&text, "upstream[0].servers[0]", "no path of a socket");
    let longest = format!("servers = [\"unix:/{}\"]", "x".repeat(106));
    project.accepts(&with("[[upstream]]", &longest));
}

#[test]
fn servers_and_the_choice_among_them() {
    let of = |line: &str| accepted("[[upstream]]", line).upstreams[0].clone();
    assert_eq!(
        of("servers = [\"http://x\"]").balance,
        Balance::LeastRequests
    );
    for (word, balance) in [
        ("least_requests", Balance::LeastRequests),
        ("round_robin", Balance::RoundRobin),
        ("hash_ip", Balance::HashIp),
        ("hash_user", Balance::HashUser),
    ] {
        assert_eq!(of(&format!("balance = {word:?}")).balance, balance);
    }
    assert_eq!(of("max_pending = 1").eject, None);
    let eject = of("eject = { failures = 3, for = \"30s\" }").eject.unwrap();
    assert_eq!(
        (
            eject.failures,
            eject.window.as_secs(),
            eject.duration.as_secs()
        ),
        (3, 10, 30)
    );
    assert_eq!(of("max_pending = 1").health, None);
    let health = of("health = { path = \"/healthz?deep=1\", unhealthy = 4 }").health;
    let health = health.unwrap();
    assert_eq!(
        (&*health.path, health.healthy, health.unhealthy),
        ("/healthz?deep=1", 2, 4)
    );
    let upstream = of("servers = [\"http://x\", \"http://x/base\", \"http://y:81\"]");
    let servers: Vec<String> = upstream.servers.iter().map(|one| one.authority()).collect();
    assert_eq!(servers, ["x", "x", "y:81"]);
}
