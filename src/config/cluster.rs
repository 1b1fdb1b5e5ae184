//! The section `[cluster]`.

use std::path::PathBuf;

use rustls_pki_types::ServerName;
use url::Url;

use super::{
    diagnostic::{Fault, Place},
    files,
    mail::{is_loopback, secret},
    reader::Table,
};
use crate::{
    accounts::settings::AccountSettings, cluster::settings::ClusterSettings,
    server::settings::ServerSettings,
};

const HINT: &str = "redis = \"rediss://redis.example.com\"; redis:// without TLS is for this host";
const PASSWORD_HINT: &str = "redis_password_file, a file of mode 0600, or redis_password_env";

/// What the URL says.
struct Redis {
    host: Box<str>,
    port: u16,
    tls: bool,
    database: u32,
    user: Option<Box<str>>,
}

/// Reads the section; `None` where it is absent or wrong.
pub(super) fn read(
    mut table: Table<'_>,
    server: Option<&ServerSettings>,
    accounts: Option<&AccountSettings>,
) -> Option<ClusterSettings> {
    if !table.is_there() {
        table.finish();
        return None;
    }
    table.need("redis", HINT);
    let redis = table.parsed("redis", redis);
    let danger = table.flag("danger_plaintext").unwrap_or(false);
    let ca = ca(&mut table);
    let password = secret(&mut table, "redis_password_file", "redis_password_env");
    let has_password = table.has("redis_password_file") || table.has("redis_password_env");
    if let Some(redis) = &redis {
        check_encryption(&table, redis, danger);
        if redis.user.is_some() && !has_password {
            let fault = Fault::new("names a user without a password", PASSWORD_HINT);
            table.fault("redis", fault);
        }
    }
    warn(&table, accounts, has_password);
    table.finish();
    let redis = redis?;
    if has_password && password.is_none() {
        return None;
    }
    Some(ClusterSettings {
        host: redis.host,
        port: redis.port,
        tls: redis.tls,
        database: redis.database,
        login: password.map(|password| (redis.user, password)),
        ca,
        site: server?.public_url.as_str().into(),
    })
}

/// The file of the roots of a server that is not an upstream.
pub(super) fn ca(table: &mut Table<'_>) -> Option<PathBuf> {
    let context = table.context;
    table.parsed("ca", |text| {
        let path = context.file(text);
        files::chain(&path).map(|_| path)
    })
}

fn check_encryption(table: &Table<'_>, redis: &Redis, danger: bool) {
    if redis.tls {
        if danger {
            let hint = "take it out: rediss:// is encrypted";
            table.fault("danger_plaintext", Fault::new("is for redis://", hint));
        }
        return;
    }
    if table.has("ca") {
        table.fault("ca", Fault::new("is for rediss://", HINT));
    }
    if danger {
        let hint = "whoever is on the way reads the password and lifts the limits; use rediss://";
        warn_at(
            table,
            &table.place_of("danger_plaintext"),
            Fault::new("speaks to Redis without encryption", hint),
        );
    } else if !is_loopback(&redis.host) {
        let hint = "rediss://; or danger_plaintext = true says that whoever is on the way may read the password and lift the limits";
        table.fault(
            "redis",
            Fault::new("speaks to another host without encryption", hint),
        );
    }
}

fn warn(table: &Table<'_>, accounts: Option<&AccountSettings>, has_password: bool) {
    let place = table.place_of("redis");
    if accounts.is_some_and(|accounts| accounts.postgres.is_none()) {
        let hint = "each machine has accounts and sessions of its own; only limits are shared";
        warn_at(
            table,
            &place,
            Fault::new("accounts.store is SQLite, a file of one machine", hint),
        );
    }
    if !has_password {
        let hint = "whoever reaches it can lift the limits, and find out whose they are by trying";
        warn_at(
            table,
            &place,
            Fault::new("Redis is used without a password", hint),
        );
    }
}

fn warn_at(table: &Table<'_>, place: &Place, fault: Fault) {
    table.context.problems.warn(place, fault);
}

fn redis(text: &str) -> Result<Redis, Fault> {
    // The text may hold a password, so it is not repeated.
    let wrong = |message: &str| Fault::new(message.to_owned(), HINT);
    let url = Url::parse(text).map_err(|_| wrong("is not the URL of a Redis server"))?;
    let tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(wrong("is neither rediss:// nor redis://")),
    };
    if url.password().is_some() {
        return Err(Fault::new("holds a password", PASSWORD_HINT));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has more than user, host, port and database"));
    }
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || ServerName::try_from(host).is_err() {
        return Err(wrong("has no host name or address"));
    }
    let database = match url.path().trim_start_matches('/') {
        "" => 0,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
            .parse()
            .map_err(|_| wrong("has a database that is no number"))?,
        _ => return Err(wrong("has a database that is no number")),
    };
    let user = url.username();
    if user.contains('%') {
        return Err(wrong("has a user that is not plain"));
    }
    Ok(Redis {
        host: host.into(),
        port: url.port().unwrap_or(6379),
        tls,
        database,
        user: (!user.is_empty()).then(|| user.into()),
    })
}
