//! What `portcullis check` tells of upstreams: what they are spoken to, and who is believed there.

use serde_json::{Value, json};

use crate::{
    config::Config,
    upstream::settings::{Protocol, ServerAddress, TlsSettings, UpstreamSettings},
};

pub(super) const COLUMNS: [&str; 4] = ["UPSTREAM", "SERVERS", "PROTOCOL", "TLS"];

/// An upstream, in words, in the order of [`COLUMNS`].
pub(super) fn rows(config: &Config) -> Vec<[String; 4]> {
    let row = |upstream: &UpstreamSettings| {
        let servers: Vec<String> = upstream.servers.iter().map(ToString::to_string).collect();
        [
            upstream.name.to_string(),
            servers.join(", "),
            protocol(upstream.protocol).to_owned(),
            tls(upstream),
        ]
    };
    config.upstreams.iter().map(row).collect()
}

pub(super) fn as_json(upstream: &UpstreamSettings) -> Value {
    let TlsSettings {
        ca,
        client,
        server_name,
        content: _,
        danger_accept_any_certificate,
    } = &upstream.tls;
    let servers: Vec<String> = upstream.servers.iter().map(ToString::to_string).collect();
    json!({
        "name": &*upstream.name,
        "servers": servers,
        "protocol": protocol(upstream.protocol),
        "tls": upstream.servers.iter().any(ServerAddress::is_tls).then(|| json!({
            "ca": ca,
            "client_cert": client.as_ref().map(|client| &client.cert),
            "server_name": server_name,
            "danger_accept_any_certificate": danger_accept_any_certificate,
        })),
    })
}

/// The word of the configuration.
fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Auto => "auto",
        Protocol::Http1 => "http1",
        Protocol::Http2 => "h2",
    }
}

fn tls(upstream: &UpstreamSettings) -> String {
    if !upstream.servers.iter().any(ServerAddress::is_tls) {
        return "-".to_owned();
    }
    let tls = &upstream.tls;
    let mut parts = vec![match &tls.ca {
        _ if tls.danger_accept_any_certificate => "ANY CERTIFICATE".to_owned(),
        Some(ca) => format!("roots of {}", ca.display()),
        None => "roots of the system".to_owned(),
    }];
    parts.extend(tls.server_name.iter().map(|name| format!("name {name}")));
    let client = tls.client.iter();
    parts.extend(client.map(|client| format!("shows {}", client.cert.display())));
    parts.join(", ")
}
