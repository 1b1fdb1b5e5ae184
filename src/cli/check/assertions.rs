//! What `check` says of signed statements to upstreams.

use serde_json::{Value, json};

use crate::{accounts::AssertionKeys, config::Config};

/// What `run` would refuse about their keys. Keys that are not there yet are made at the first start.
pub(super) fn fault(config: &Config) -> Option<String> {
    let settings = config.assertion.as_ref()?;
    let fault = AssertionKeys::inspect(&settings.keys).err()?;
    let fault = anyhow::Error::from(fault);
    Some(format!("identity.assertion: {fault:#}"))
}

/// A line about them, where they are on.
pub(super) fn line(config: &Config) -> String {
    config
        .assertion
        .as_ref()
        .map_or_else(String::new, |settings| {
            let keys = settings.keys.display();
            format!("\nassertions: signed for every upstream, keys in {keys}")
        })
}

/// `iss` and the folder of the keys, where they are on.
pub(super) fn as_json(config: &Config) -> Option<Value> {
    let settings = config.assertion.as_ref()?;
    Some(json!({ "issuer": &*settings.issuer, "keys": settings.keys }))
}
