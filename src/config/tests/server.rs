//! `version`, `[server]`, `[rate_limit]`, `[token_cache]`, `[log]`.

use super::*;
use crate::policy::ForwardedHeaders;

#[test]
fn the_base_of_all_these_tests_is_good() {
    let config = Project::new().accepts(BASE);
    assert_eq!(config.server.max_connections, 20_000);
    assert_eq!(config.routes[0].max_body, 10 << 20);
    assert_eq!(config.limit.per_ip.burst, 200);
}

#[test]
fn version_is_one() {
    let project = Project::new();
    for (line, words) in [
        ("version = 2", "above the most allowed"),
        ("version = 0", "below the least"),
        ("version = \"1\"", "expected a whole number"),
    ] {
        project.refuses(&BASE.replace("version = 1", line), "version", words);
    }
    project.accepts(&BASE.replace("version = 1", ""));
}

#[test]
fn addresses() {
    refused_each(
        "[server]",
        r#"
        listen = []                      | server.listen    | empty list
        listen = [""]                    | server.listen[0] | is empty
        listen = ["8443"]                | server.listen[0] | not an address
        listen = ["localhost:8443"]      | server.listen[0] | not an address
        listen = "0.0.0.0:1"             | server.listen    | expected a list
        listen = [1]                     | server.listen[0] | expected a string
        listen = ["[::]:1", "[0::]:1"]   | server.listen[1] | twice
        admin_listen = ""                | server.admin_listen | is empty
        admin_listen = "9901"            | server.admin_listen | not an address
        takeover_socket = ""             | server.takeover_socket | is empty
        takeover_socket = 1              | server.takeover_socket | expected a string
        "#,
    );
    let same = with("[server]", "listen = [\"127.0.0.1:9901\"]");
    Project::new().refuses(&same, "server.admin_listen", "address of `listen`");
    let long = format!("takeover_socket = \"/{}\"", "x".repeat(106));
    let long = with("[server]", &long);
    Project::new().refuses(&long, "server.takeover_socket", "too long");
    refused_each(
        "[server]",
        r#"
        redirect_listen = "0.0.0.0:80"       | server.redirect_listen    | expected a list
        redirect_listen = ["80"]             | server.redirect_listen[0] | not an address
        redirect_listen = ["[::]:80", "[0::]:80"] | server.redirect_listen[1] | twice
        redirect_listen = ["127.0.0.1:9901"] | server.admin_listen       | address of `listen`
        "#,
    );
    let shared = "listen = [\"127.0.0.1:80\"]\nredirect_listen = [\"127.0.0.1:80\"]";
    let shared = with("[server]", shared);
    Project::new().refuses(&shared, "server.redirect_listen", "of `listen` too");
    let both = "redirect_listen = [\"0.0.0.0:80\", \"[::]:80\"]";
    assert_eq!(accepted("[server]", both).server.redirect_listen.len(), 2);
    let open = with("[server]", "admin_listen = \"0.0.0.0:9901\"");
    let words = "reachable from other machines";
    Project::new().warns(&open, "server.admin_listen", words);
    accepted("[server]", "listen = [\"127.0.0.1:0\", \"[::1]:0\"]");
}

#[test]
fn public_url() {
    refused_each(
        "[server]",
        r#"
        public_url = ""                              | server.public_url | is empty
        public_url = "gate.example.com"              | server.public_url | not a URL
        public_url = "https://"                      | server.public_url | not a URL
        public_url = "http://gate.example.com"       | server.public_url | not an https URL
        public_url = "https://user@gate.example.com" | server.public_url | user name
        public_url = "https://:pw@gate.example.com"  | server.public_url | user name
        public_url = "https://gate.example.com/app"  | server.public_url | a path
        public_url = "https://gate.example.com/?a=1" | server.public_url | a query
        public_url = "https://gate.example.com/#a"   | server.public_url | a fragment
        public_url = "https://gate.example.com:0"    | server.public_url | port 0
        "#,
    );
    let config = accepted(
        "[server]",
        "public_url = \"https://gate.example.com:8443/\"",
    );
    let issuer = config.accounts.unwrap().issuer;
    assert_eq!(&*issuer, "https://gate.example.com:8443");
}

#[test]
fn hdr_4_trusting_everybody_is_refused() {
    refused_each(
        "[server]",
        r#"
        trusted_proxies = ["0.0.0.0/0"]                | server.trusted_proxies    | every address
        trusted_proxies = ["::/0"]                     | server.trusted_proxies    | every address
        trusted_proxies = ["0.0.0.0/1", "128.0.0.0/1"] | server.trusted_proxies    | every address
        trusted_proxies = ["10.0.0.1/8"]               | server.trusted_proxies[0] | bits beyond
        trusted_proxies = ["10.0.0.0/33"]              | server.trusted_proxies[0] | not a network
        trusted_proxies = ["proxy"]                    | server.trusted_proxies[0] | not a network
        trusted_proxies = ["::ffff:10.0.0.0/104"]      | server.trusted_proxies[0] | IPv4 written as IPv6
        trusted_proxies = "10.0.0.0/8"                 | server.trusted_proxies    | expected a list
        "#,
    );
    let wide = with("[server]", "trusted_proxies = [\"100.0.0.0/8\"]");
    Project::new().warns(&wide, "server.trusted_proxies[0]", "wide");
    let good = "trusted_proxies = [\"10.0.0.0/8\", \"192.0.2.7\", \"2001:db8::/48\"]";
    accepted("[server]", good);
}

#[test]
fn hdr_4_one_field_is_believed_and_the_other_never() {
    refused_each(
        "[server]",
        r#"
        forwarded_headers = ""          | server.forwarded_headers | is empty
        forwarded_headers = "both"      | server.forwarded_headers | none of the values
        forwarded_headers = "Forwarded" | server.forwarded_headers | none of the values
        forwarded_headers = ["forwarded", "x-forwarded"] | server.forwarded_headers | expected a string
        "#,
    );
    let fields = |config: Config| config.server.trusted_proxies.fields();
    let default = Project::new().accepts(BASE);
    assert_eq!(fields(default), ForwardedHeaders::XForwarded);
    let chosen = accepted("[server]", "forwarded_headers = \"forwarded\"");
    assert_eq!(fields(chosen), ForwardedHeaders::Forwarded);
}

#[test]
fn net_10_requiring_a_header_that_nobody_may_send_is_refused() {
    let words = "trusted_proxies is empty";
    for line in [
        "proxy_protocol = true",
        "proxy_protocol = true\ntrusted_proxies = []",
    ] {
        let text = with("[server]", line);
        Project::new().refuses(&text, "server.proxy_protocol", words);
    }
    let line = "proxy_protocol = true\ntrusted_proxies = [\"10.0.0.0/24\"]";
    assert!(accepted("[server]", line).server.proxy_protocol);
    assert!(!Project::new().accepts(BASE).server.proxy_protocol);
}

#[test]
fn numbers_are_neither_zero_nor_absurd() {
    refused_each(
        "[server]",
        r#"
        workers = -1                 | server.workers | negative
        workers = 1025               | server.workers | above the most
        workers = 1.5                | server.workers | expected a whole number
        max_connections = 0          | server.max_connections | below the least
        max_connections = 9223372036854775808 | server.max_connections | above the most
        max_connections = 99999999999999999999999999999999999999999 | server.max_connections | far too large
        max_connections_per_ip = 0   | server.max_connections_per_ip | below the least
        drain_delay = "2d"           | server.drain_delay | above the most
        "#,
    );
    refused_each(
        "[server.timeouts]",
        r#"
        handshake = "0s"  | server.timeouts.handshake  | below the least
        header = ""       | server.timeouts.header     | is empty
        body_idle = 30    | server.timeouts.body_idle  | expected a string
        keep_alive = "1d" | server.timeouts.keep_alive | above the most
        keep_alive = "75" | server.timeouts.keep_alive | not a duration
        max_age = "0s"    | server.timeouts.max_age    | below the least
        max_age = "8d"    | server.timeouts.max_age    | above the most
        "#,
    );
    refused_each(
        "[server.limits]",
        r#"
        header_bytes = "1KiB" | server.limits.header_bytes | below the least
        header_count = 0      | server.limits.header_count | below the least
        uri_bytes = "0B"      | server.limits.uri_bytes    | below the least
        uri_bytes = "64KiB"   | server.limits.uri_bytes    | more than header_bytes
        body = "0B"           | server.limits.body         | below the least
        body = "10MB"         | server.limits.body         | not a size
        h2_streams = 0        | server.limits.h2_streams   | below the least
        min_body_rate = "0B/s"   | server.limits.min_body_rate | below the least
        min_body_rate = "2GiB/s" | server.limits.min_body_rate | above the most
        min_body_rate = "240B"   | server.limits.min_body_rate | not a rate of bytes
        min_body_rate = "240/s"  | server.limits.min_body_rate | not a rate of bytes
        min_body_rate = 240      | server.limits.min_body_rate | expected a string
        h2_control_frames = "99/s"      | server.limits.h2_control_frames | below the least
        h2_control_frames = "2000000/s" | server.limits.h2_control_frames | above the most
        h2_control_frames = "2000/2h"   | server.limits.h2_control_frames | above the most
        h2_control_frames = "2000"      | server.limits.h2_control_frames | not a rate
        "#,
    );
    refused_each(
        "[token_cache]",
        r#"
        max_bytes = "1KiB" | token_cache.max_bytes | below the least
        max_ttl = "0s"     | token_cache.max_ttl   | below the least
        max_ttl = "1h"     | token_cache.max_ttl   | above the most
        "#,
    );
}

#[test]
fn rate_limits() {
    refused_each(
        "[rate_limit]",
        r#"
        bad_tokens_wait = "5001ms"           | rate_limit.bad_tokens_wait | above the most
        ipv6_prefix = 31                     | rate_limit.ipv6_prefix   | below the least
        ipv6_prefix = 129                    | rate_limit.ipv6_prefix   | above the most
        ipv6_site_factor = 0                 | rate_limit.ipv6_site_factor | below the least
        ipv6_site_factor = 65537             | rate_limit.ipv6_site_factor | above the most
        ipv6_site_factor = "4"               | rate_limit.ipv6_site_factor | expected a whole number
        x_headers = "yes"                    | rate_limit.x_headers        | expected true or false
        max_keys = 0                         | rate_limit.max_keys      | below the least
        exempt = ["0.0.0.0/0"]               | rate_limit.exempt        | every address
        per_ip = {}                          | rate_limit.per_ip.rate   | missing
        per_ip = { burst = 5 }               | rate_limit.per_ip.rate   | missing
        per_ip = "100/s"                     | rate_limit.per_ip        | expected a table
        per_ip = { rate = "0/s" }            | rate_limit.per_ip.rate   | not a rate
        per_ip = { rate = "5/2d" }           | rate_limit.per_ip.rate   | above the most
        per_ip = { rate = "5/s", burst = 0 } | rate_limit.per_ip.burst  | below the least
        per_ip = { rate = "5/s", brust = 9 } | rate_limit.per_ip.brust  | unknown key
        bad_tokens = "20/1m"                 | rate_limit.bad_tokens    | expected a table
        bad_tokens = { burst = 5 }           | rate_limit.bad_tokens.rate  | missing
        bad_tokens = { rate = "1/61s" }      | rate_limit.bad_tokens    | more than a minute
        bad_tokens = { rate = "23/1d" }      | rate_limit.bad_tokens    | more than a minute
        bad_tokens = { rate = "5/s", burst = 0 } | rate_limit.bad_tokens.burst | below the least
        "#,
    );
    let config = accepted("[rate_limit]", "per_ip = { rate = \"5/s\" }");
    assert_eq!(
        config.limit.per_ip.burst, 5,
        "as many at once as the rate says"
    );
    let quota = config.limit.bad_tokens;
    assert_eq!(
        (quota.count, quota.window.as_secs(), quota.burst),
        (20, 60, 50)
    );
    let config = accepted("[rate_limit]", "bad_tokens = { rate = \"1/1m\" }");
    assert_eq!(config.limit.bad_tokens.burst, 1);
}

#[test]
fn log() {
    refused_each(
        "[log]",
        r#"
        level = "warning" | log.level  | none of the values
        server_timing = "10.0.0.0/8" | log.server_timing | expected a list
        server_timing = ["ten"] | log.server_timing[0] | not
        server_timing = ["0.0.0.0/0"] | log.server_timing | every address
        server_timing = ["0.0.0.0/1", "128.0.0.0/1"] | log.server_timing | every address
        server_timing = ["::/0"] | log.server_timing | every address
        format = ""       | log.format | is empty
        access = "yes"    | log.access | expected true or false
        "#,
    );
    let off = with("[log]", "access = false");
    Project::new().warns(&off, "log.access", "no exchange is logged");
}

#[test]
fn fault_1_a_limit_of_memory_leaves_room_to_work() {
    for (value, words) in [
        ("\"15MiB\"", "below the least"),
        ("\"17TiB\"", "above the most"),
        ("512", "expected a string"),
        ("\"\"", "is empty"),
    ] {
        let text = with("[server]", &format!("memory_limit = {value}"));
        Project::new().refuses(&text, "server.memory_limit", words);
    }
    let limit = accepted("[server]", "memory_limit = \"512MiB\"")
        .server
        .memory_limit;
    assert_eq!(limit, Some(512 << 20));
    assert_eq!(Project::new().accepts(BASE).server.memory_limit, None);
}
