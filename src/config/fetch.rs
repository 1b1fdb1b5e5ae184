//! Keys that are fetched: `jwks_url`, discovery from `issuer`, and the table `fetch`, which says how.

use std::{sync::Arc, time::Duration};

use http::Uri;
use jsonwebtoken::Algorithm;
use url::{Host, Url};

use super::{
    bounds::Bounds,
    diagnostic::{Fault, Place},
    files,
    issuer::{boxed, is_symmetric},
    network,
    reader::{Table, Text},
    server::secs,
};
use crate::authn::settings::{FetchSettings, KeyPlace, KeySource, RemoteSettings};

/// Where a provider's discovery document lies, below its issuer (OpenID Connect Discovery 1.0 §4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Reads how and from where keys are fetched; `None` where they are not. `given` are the sources of keys that the issuer names.
pub(super) fn read(
    table: &mut Table<'_>,
    issuer: Option<(&str, &Place)>,
    algorithms: &[Algorithm],
    given: &[&str],
) -> Option<KeySource> {
    let url = table.parsed("jwks_url", address);
    let place = match given {
        [] => discovery(table, issuer),
        _ => url.map(KeyPlace::Jwks),
    };
    let is_remote = given.is_empty() || table.has("jwks_url");
    if !is_remote && table.has("fetch") {
        let hint = "it belongs to jwks_url, or to an issuer without a source of keys";
        table.fault("fetch", Fault::new("nothing is fetched", hint));
    }
    if is_remote && algorithms.iter().copied().any(is_symmetric) {
        let hint = "HS* need secret_file or secret_env";
        let key = if given.is_empty() {
            "algorithms"
        } else {
            "jwks_url"
        };
        let message = "a shared secret is never fetched, and the algorithms are HS*";
        table.fault(key, Fault::new(message, hint));
    }
    let settings = fetch(table.section("fetch"), place);
    settings.map(|settings| KeySource::Remote(Arc::new(settings)))
}

/// The discovery document of an issuer that names no source of keys.
fn discovery(table: &Table<'_>, issuer: Option<(&str, &Place)>) -> Option<KeyPlace> {
    let (text, _) = issuer?;
    let hint = "exactly one of jwks_url, jwks_file, public_key_file, secret_file, secret_env; or none, where `issuer` is an https URL whose discovery document names its keys";
    let document = format!("{}{DISCOVERY}", text.trim_end_matches('/'));
    match address(&document) {
        Ok(uri) if !text.contains(['?', '#']) => Some(KeyPlace::Discovery(uri)),
        Ok(_) | Err(_) => {
            let fault = Fault::new("has no source of keys", hint);
            table.context.problems.add(&table.place, fault);
            None
        }
    }
}

/// An address to fetch from: TLS, save on this machine itself, and nothing in it that belongs to no address.
pub(super) fn address(text: &str) -> Result<Uri, Fault> {
    let hint = "an https URL: \"https://idp.example.com/realms/corp/certs\"; http only for an address of this machine, as 127.0.0.1";
    let bad = |what: &str| Fault::new(format!("`{text}` {what}"), hint);
    let url = Url::parse(text).map_err(|error| bad(&format!("is not a URL: {error}")))?;
    let on_this_machine = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if on_this_machine => {}
        "http" => {
            return Err(bad(
                "is http: whoever is on the way could put in keys of his own",
            ));
        }
        _ => return Err(bad("is not https")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("holds a name or password"));
    }
    if url.fragment().is_some() {
        return Err(bad("has a fragment"));
    }
    url.as_str().parse().map_err(|_| bad("is not a URL"))
}

/// The table `fetch`: how an exchange is made, and when.
fn fetch(mut table: Table<'_>, place: Option<KeyPlace>) -> Option<RemoteSettings> {
    let fetch = exchange(&mut table);
    let hosts = table.texts_or_none("hosts").unwrap_or_default();
    for Text { text, place } in &hosts {
        if Host::parse(text).is_err() || text.contains(['/', ':', '*']) {
            let hint = "a host alone: \"www.example.com\"";
            let fault = Fault::new(format!("`{text}` is not a host"), hint);
            table.context.problems.add(place, fault);
        }
    }
    let hour = 3600;
    let cooldown = Bounds::new(secs(1), secs(hour))
        .because("strangers can make up key ids, and each would ask the provider");
    let cooldown = table.duration("cooldown", cooldown).unwrap_or(secs(30));
    let refresh = Bounds::new(secs(1), secs(24 * hour))
        .because("a key that its provider takes back is believed for so long");
    let refresh_max = table.duration("refresh_max", refresh);
    let refresh_min = table.duration("refresh_min", refresh);
    let max_stale = Bounds::new(secs(60), secs(30 * 24 * hour)).because(
        "a key that was stolen may be believed for so long while its provider cannot say so",
    );
    let max_stale = table.duration("max_stale", max_stale);
    let wait = Bounds::new(Duration::ZERO, secs(10));
    let wait = table.duration("wait", wait);
    let refresh_max = refresh_max.unwrap_or(secs(hour));
    let refresh_min = refresh_min.unwrap_or(secs(5 * 60).min(refresh_max));
    if refresh_min > refresh_max {
        table.fault(
            "refresh_min",
            Fault::new(
                "is longer than refresh_max",
                "the least cannot be more than the most",
            ),
        );
    }
    table.finish();
    Some(RemoteSettings {
        place: place?,
        fetch,
        hosts: boxed(&hosts),
        refresh_min,
        refresh_max,
        cooldown,
        max_stale: max_stale.unwrap_or(secs(24 * hour)),
        wait: wait.unwrap_or(secs(2)),
    })
}

pub(super) fn exchange(table: &mut Table<'_>) -> FetchSettings {
    let context = table.context;
    let roots = table.parsed("ca", |text| files::chain(&context.file(text)));
    let networks: Vec<_> = network::read(table, "networks")
        .into_iter()
        .flatten()
        .map(|(network, _)| network)
        .collect();
    network::refuse_everything(
        table,
        "networks",
        &networks,
        "a name could point at this machine or at the metadata service of its cloud",
    );
    let timeout = Bounds::new(Duration::from_millis(100), secs(30));
    let timeout = table.duration("timeout", timeout);
    FetchSettings {
        roots: roots.unwrap_or_default(),
        networks,
        timeout: timeout.unwrap_or(secs(5)),
    }
}
