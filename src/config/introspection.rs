//! Issuers that are asked about their tokens: `introspection_url` and what belongs to it (RFC 7662).

use std::{sync::Arc, time::Duration};

use zeroize::Zeroizing;

use super::{
    bounds::Bounds,
    context::Context,
    diagnostic::{Fault, Place, Related},
    fetch,
    files::{self, Reader},
    keys,
    reader::Table,
    server::secs,
};
use crate::authn::settings::{IntrospectionSettings, KeySource};

/// The key that makes an issuer one of these.
pub(super) const URL: &str = "introspection_url";

/// What belongs to it alone.
const OWN: [&str; 4] = [
    "client_id",
    "client_secret_file",
    "client_secret_env",
    "token_prefix",
];

/// What says how JWTs are verified.
const OF_JWTS: [&str; 2] = ["algorithms", "token_types"];

/// Reports what has no meaning for an issuer whose tokens are JWTs.
pub(super) fn refuse_own(table: &mut Table<'_>) {
    for key in OWN {
        // Asked for, so that it is not unknown as well.
        if table.has(key) && table.text(key).is_some() {
            let hint = "it belongs to introspection_url, for an issuer whose tokens are opaque";
            table.fault(key, Fault::new("nobody is asked about tokens", hint));
        }
    }
}

/// Reads how an issuer is asked.
pub(super) fn read(table: &mut Table<'_>) -> Option<KeySource> {
    refuse_keys(table);
    table.need(
        "client_id",
        "the name by which the issuer knows this gateway",
    );
    let url = table.parsed(URL, fetch::address);
    let id = table.text("client_id");
    let secret = secret(table);
    let prefix = table.parsed("token_prefix", prefix);
    let mut how = table.section("fetch");
    let exchange = fetch::exchange(&mut how);
    let wait = how.duration("wait", Bounds::new(Duration::ZERO, secs(10)));
    let cooldown = Bounds::new(secs(1), secs(3600))
        .because("for so long new tokens are refused though the issuer may be well again");
    let cooldown = how.duration("cooldown", cooldown);
    let most = how.number("max_concurrent", Bounds::new(1, 1024));
    how.finish();
    Some(KeySource::Introspection(Arc::new(IntrospectionSettings {
        url: url?,
        client_id: id?.text.into(),
        client_secret: secret?,
        token_prefix: prefix.unwrap_or_default().into(),
        fetch: exchange,
        wait: wait.unwrap_or(secs(2)),
        cooldown: cooldown.unwrap_or(secs(30)),
        max_concurrent: most.unwrap_or(64),
    })))
}

/// The prefix of an issuer's tokens and where it stands; `None` for one whose tokens are JWTs.
pub(super) fn claimed(table: &Table<'_>, keys: Option<&KeySource>) -> Option<(Box<str>, Place)> {
    let Some(KeySource::Introspection(settings)) = keys else {
        return None;
    };
    let key = if table.has("token_prefix") {
        "token_prefix"
    } else {
        URL
    };
    Some((settings.token_prefix.clone(), table.place_of(key)))
}

/// Says where two issuers would be asked about the same token.
pub(super) fn collide(
    (prefix, place): &(Box<str>, Place),
    (other, other_place): &(Box<str>, Place),
) -> Option<(Related, Place, Fault)> {
    if !prefix.starts_with(&**other) && !other.starts_with(&**prefix) {
        return None;
    }
    let related = Related {
        span: other_place.span.clone(),
        label: "the first is here",
    };
    let hint =
        "give each issuer with introspection_url a token_prefix that begins no other's tokens";
    let fault = Fault::new(
        "an opaque token could be this issuer's or another's, and would be shown to the wrong one",
        hint,
    );
    Some((related, place.clone(), fault))
}

/// Opaque tokens have no key, no algorithm and no type. An issuer with tokens of both kinds has two entries.
fn refuse_keys(table: &mut Table<'_>) {
    let hint = "it belongs to JWTs; for an issuer with tokens of both kinds write two [[issuer]] entries with the same `issuer`";
    for key in keys::SOURCES.into_iter().chain(OF_JWTS) {
        if table.has(key) {
            table.know(key);
            let fault = Fault::new("has no meaning beside introspection_url", hint);
            table.fault(key, fault);
        }
    }
}

fn prefix(text: &str) -> Result<&str, Fault> {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    if text.len() <= 64 && text.bytes().all(in_token) {
        Ok(text)
    } else {
        let hint = "at most 64 letters, digits and -._~+/ : \"ory_at_\"";
        Err(Fault::new("is not the beginning of a token", hint))
    }
}

/// Our secret at the issuer, which chose it: any text or bytes that are there.
fn secret(table: &mut Table<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let given = ["client_secret_file", "client_secret_env"].map(|key| table.has(key));
    if given != [true, false] && given != [false, true] {
        let message = match given {
            [false, false] => "has no client secret",
            _ => "has two client secrets",
        };
        let hint = "exactly one of client_secret_file, client_secret_env";
        let place = table.place.clone();
        let fault = Fault::new(message, hint);
        table.context.problems.add(&place, fault);
    }
    let context = table.context;
    let file = table.parsed("client_secret_file", |text| {
        let path = context.file(text);
        let content = files::read(&path, Reader::Owner)?;
        checked(keys::without_newline(&content))
    });
    let env = table.parsed("client_secret_env", |text| of_env(context, text));
    file.or(env)
}

fn of_env(context: &Context<'_>, text: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let value = (context.env)(text)
        .ok_or_else(|| Fault::from(format!("the environment variable {text} is not set")))?;
    let value = Zeroizing::new(value.into_encoded_bytes());
    checked(&value)
}

fn checked(secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
    match secret.len() {
        0 => Err("the secret is empty".into()),
        1..=1024 => Ok(Zeroizing::new(secret.to_vec())),
        _ => Err("the secret is longer than 1024 bytes".into()),
    }
}
