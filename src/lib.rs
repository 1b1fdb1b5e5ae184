//! Portcullis, a reverse-proxy authentication gateway.
//!
//! One request's way, in the order of the modules: [`server`] accepts and decrypts, [`gateway`] decides with [`policy`],
//! [`authn`] and [`limit`], [`upstream`] forwards, [`respond`] refuses, [`telemetry`] records. [`accounts`] over [`store`]
//! know what login means and [`portal`] how it looks over HTTP. [`config`] alone knows TOML.
//!
//! What holds everywhere: `policy` reads no clock and performs no I/O; only `authn::verifier` makes an identity; only
//! `policy::authorize` makes a permit, and nothing is forwarded without one; only `respond` makes a refusal; no request
//! body is buffered to be forwarded.

pub mod accounts;
pub mod admin;
pub mod assertion;
pub mod authn;
pub mod cli;
pub mod cluster;
pub mod config;
mod files;
pub mod gateway;
mod jitter;
mod keepalive;
pub mod limit;
pub mod mail;
mod moment;
pub mod policy;
pub mod portal;
pub mod respond;
pub mod server;
mod socket;
pub mod spans;
pub mod store;
pub mod telemetry;
pub mod upstream;
