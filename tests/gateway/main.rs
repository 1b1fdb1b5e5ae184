//! The gateway from outside: the real binary, real TLS, real HTTP, and an upstream in this process that reports what it
//! received. What counts is what the upstream saw; the status comes second.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::too_many_lines,
    reason = "a broken step fails its test; a table has a line for each case"
)]

mod harness;

mod administration;
mod answers;
mod assertions;
mod audit_file;
mod bad_tokens;
mod browser;
mod bypasses;
mod cache;
mod certificates;
mod claimed_addresses;
mod client_certificates;
mod clients;
mod cluster;
mod corpus;
mod cuts;
mod dead_peers;
mod deadlines;
mod development;
mod devices;
mod disk;
mod early_hints;
mod environment;
mod exhaustion;
mod expectations;
mod explain;
mod flapping;
mod floods;
mod forward_auth;
mod framing;
mod grpc;
mod guesses;
mod headers;
mod heads;
mod hops;
mod http2;
mod lag;
mod last_requests;
mod lifecycle;
mod limits;
mod mail;
mod memory;
mod metrics;
mod multiplexed;
mod networks;
mod ntlm;
mod opaque;
mod openapi;
mod outages;
mod own_keys;
mod passwords;
mod paths;
mod providers;
mod proxied;
mod raw_answers;
mod raw_requests;
mod registration;
mod reload;
mod retries;
mod route_limits;
mod routes;
mod secrets;
mod servers;
mod service;
mod sessions;
mod shared_limits;
mod stalls;
mod start;
mod status;
mod streams;
mod takeover;
mod timing;
mod tls_matrix;
mod tokens;
mod traces;
mod trailers;
mod transport;
mod unencrypted;
mod upstreams;
mod websocket;

mod harness_works;
