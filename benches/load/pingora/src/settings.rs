//! What the load test tells the gate: one file of JSON.

use std::{collections::HashMap, error::Error, fs, net::SocketAddr, path::Path};

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) listen: String,
    pub(crate) cert: String,
    pub(crate) cert_key: String,
    pub(crate) upstream: SocketAddr,
    pub(crate) threads: usize,
    pub(crate) audience: String,
    pub(crate) role: String,
    /// Requests a second of one client.
    pub(crate) rate: isize,
    /// By `alg`; each has an algorithm of its own.
    pub(crate) issuers: HashMap<String, Issuer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuer {
    pub(crate) issuer: String,
    /// A secret for HMAC, or a public key in PEM.
    pub(crate) key_file: String,
}

impl Settings {
    pub(crate) fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}
