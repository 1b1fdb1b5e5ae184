//! The section `[accounts]`.

use std::{
    error::Error,
    path::{Path, PathBuf},
    time::Duration,
};

use jsonwebtoken::Algorithm;

use super::{
    bounds::Bounds,
    diagnostic::Fault,
    files,
    reader::Table,
    server::{cores, secs},
    words::{Choice, Choice::Is},
};
use crate::{
    accounts::{
        passwords::breached::Breached,
        settings::{AccountSettings, Argon2Settings, Registration},
    },
    limit::settings::Quota,
    policy::NormalPath,
    server::settings::ServerSettings,
};

const DAY: u64 = 24 * 3600;

const SIGNING: [(&str, Choice<Algorithm>); 4] = [
    ("ES256", Is(Algorithm::ES256)),
    ("EdDSA", Is(Algorithm::EdDSA)),
    ("HS256", Is(Algorithm::HS256)),
    ("RS256", Is(Algorithm::RS256)),
];

const REGISTRATION: [(&str, Choice<Registration>); 3] = [
    ("closed", Is(Registration::Closed)),
    ("invite", Is(Registration::Invite)),
    ("open", Is(Registration::Open)),
];

/// Reads the section. `present` is whether it is there at all: without it there are no accounts. `has_mail` is whether `[mail]` is.
pub(super) fn read(
    mut table: Table<'_>,
    (present, has_mail): (bool, bool),
    ipv6_site_factor: u32,
    server: Option<&ServerSettings>,
) -> Option<AccountSettings> {
    let enabled = table.flag("enabled").unwrap_or(true) && present;
    let path = table.parsed("path", path).unwrap_or_else(|| "/auth".into());
    let (database, postgres) = super::store::read(&mut table);
    let key_encryption = super::key_encryption::read(&mut table, postgres.is_some());
    let audience = table.texts("audience", "no token would be for anybody");
    let access_ttl = Bounds::new(secs(10), secs(15 * 60))
        .because("a token lives for so long after its session has ended elsewhere");
    let access_ttl = table.duration("access_ttl", access_ttl);
    let access_ttl = access_ttl.unwrap_or(secs(15 * 60));
    let (refresh_idle, refresh_max, refresh_grace) = refresh(&mut table);
    let refresh_per_session = refresh_limit(table.section("refresh_limit"), access_ttl);
    let max_lag = Bounds::new(secs(3), secs(15 * 60)).because(
        "the feed is read each second, and after 15 minutes every access token is dead by itself",
    );
    let max_lag = table.duration("max_lag", max_lag);
    let signing = table.choice("signing", &SIGNING);
    let cookie_session = table.flag("cookie_session").unwrap_or(true);
    let pages = super::pages::read(table.section("pages"));
    let registration = registration(&mut table, has_mail);
    let password_min = Bounds::new(8, 128).because("shorter ones are guessed");
    let password_min = table.number("password_min", password_min);
    let root = table.context.root;
    let breached_passwords =
        table.parsed("breached_passwords", |text| breached_passwords(root, text));
    let argon2 = argon2(table.section("argon2"));
    let clients = super::client::read(table.sections("client"));
    let (login_per_ip, login_per_account, login_failures) =
        login_limit(table.section("login_limit"));
    let register_per_ip = register_limit(table.section("register_limit"));
    table.finish();
    let issuer = server?.public_url.as_str().trim_end_matches('/');
    enabled.then(|| AccountSettings {
        path,
        database,
        postgres,
        key_encryption,
        issuer: issuer.into(),
        audience: audience.map_or_else(
            || vec!["portcullis".into()],
            |texts| super::issuer::boxed(&texts),
        ),
        signing: signing.unwrap_or(Algorithm::ES256),
        access_ttl,
        refresh_idle,
        refresh_max,
        refresh_grace,
        refresh_per_session,
        max_lag: max_lag.unwrap_or(secs(15)),
        password_min: password_min.unwrap_or(15),
        breached_passwords,
        argon2,
        clients,
        pages: cookie_session.then_some(pages),
        registration,
        register_per_ip,
        login_per_ip,
        ipv6_site_factor,
        login_per_account,
        login_failures,
        mail: None,
    })
}

/// The path of a place that holds routes of the gateway's own.
pub(super) fn path(text: &str) -> Result<Box<str>, Fault> {
    let hint = "begins with `/`, ends without, and is not the whole site: \"/auth\"";
    let normal = NormalPath::parse(text).ok();
    if normal.is_none_or(|path| path.as_str() != text) || text.ends_with('/') {
        return Err(Fault::new(
            format!("`{text}` cannot hold built-in routes"),
            hint,
        ));
    }
    Ok(text.into())
}

fn refresh(table: &mut Table<'_>) -> (Duration, Duration, Duration) {
    let life = Bounds::new(secs(60), secs(365 * DAY));
    let idle = table
        .duration("refresh_idle", life)
        .unwrap_or(secs(7 * DAY));
    let max = table
        .duration("refresh_max", life)
        .unwrap_or(secs(30 * DAY));
    if idle > max {
        let key = if table.has("refresh_idle") {
            "refresh_idle"
        } else {
            "refresh_max"
        };
        let hint = "an unused session cannot outlive the longest session";
        table.fault(
            key,
            Fault::new("refresh_idle is longer than refresh_max", hint),
        );
    }
    let grace = Bounds::new(Duration::ZERO, secs(60))
        .because("a stolen refresh token works beside its successor for so long");
    let grace = table.duration("refresh_grace", grace);
    (idle, max, grace.unwrap_or(secs(10)))
}

/// Whoever renews his session each time that its access token ends needs one in each `access_ttl`. Twice that is the least: in a
/// cluster without Redis a node gives half.
fn refresh_limit(mut table: Table<'_>, access_ttl: Duration) -> Quota {
    let needs = |window: Duration| {
        window
            .as_millis()
            .saturating_mul(2)
            .div_ceil(access_ttl.as_millis().max(1))
    };
    let default = u32::try_from(needs(secs(3600)))
        .unwrap_or(u32::MAX)
        .max(120);
    let per_session = table
        .rate("per_session")
        .unwrap_or_else(|| quota(default, 3600));
    if per_session.count < 10 || u128::from(per_session.count) < needs(per_session.window) {
        let message = "is not 10 or more, and two or more in each access_ttl";
        let hint =
            "a session is renewed once in each access_ttl, and by tabs at one moment: \"120/1h\"";
        table.fault("per_session", Fault::new(message, hint));
    }
    table.finish();
    per_session
}

fn registration(table: &mut Table<'_>, has_mail: bool) -> Registration {
    let registration = table.choice("registration", &REGISTRATION);
    if registration == Some(Registration::Open) && !has_mail {
        let hint = "without mail no address is proved to be its owner's, and the answers tell which names and addresses are \
                    taken; \"invite\" admits those alone whom somebody knows";
        let fault = Fault::new("anybody may make an account under any address", hint);
        let place = table.place_of("registration");
        table.context.problems.warn(&place, fault);
    }
    registration.unwrap_or(Registration::Closed)
}

/// Looks into the list, so that `check` and a start refuse one that could not be searched.
fn breached_passwords(root: &Path, text: &str) -> Result<PathBuf, Fault> {
    let path = files::resolve(root, text);
    match Breached::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}"));
            let says = format!("{error}{}", cause.unwrap_or_default());
            Err(Fault::new(says, error.hint()))
        }
    }
}

fn argon2(mut table: Table<'_>) -> Argon2Settings {
    let memory = Bounds::new(19 << 20, 4 << 30)
        .because("less makes a stolen database cheap to crack (RFC 9106)");
    let memory: Option<u64> = table.size("memory", memory);
    let iterations = table.number("iterations", Bounds::new(2, 100));
    let parallelism = table.number("parallelism", Bounds::new(1, 64));
    let concurrent = table.number("concurrent", Bounds::new(0, 1024));
    table.finish();
    let kib = memory.and_then(|bytes| u32::try_from(bytes >> 10).ok());
    let concurrent = concurrent.filter(|concurrent| *concurrent > 0);
    Argon2Settings {
        memory_kib: kib.unwrap_or(19 << 10),
        iterations: iterations.unwrap_or(2),
        parallelism: parallelism.unwrap_or(1),
        concurrent: concurrent.unwrap_or_else(|| (cores() / 2).max(1)),
    }
}

fn register_limit(mut table: Table<'_>) -> Quota {
    let per_ip = table.rate("per_ip");
    table.finish();
    per_ip.unwrap_or_else(|| quota(10, 3600))
}

fn quota(count: u32, window: u64) -> Quota {
    Quota {
        count,
        window: secs(window),
        burst: count,
    }
}

fn login_limit(mut table: Table<'_>) -> (Quota, Quota, Quota) {
    let per_ip = table.rate("per_ip").unwrap_or_else(|| quota(10, 60));
    let per_account = table
        .rate("per_account")
        .unwrap_or_else(|| quota(5, 15 * 60));
    let failures = table.rate("failures").unwrap_or_else(|| quota(100, DAY));
    if !(10..=100).contains(&failures.count) || failures.window < secs(3600) {
        let message = "is not 10 to 100 failures in a row, and then none for an hour to a day";
        let hint = "more in a row would be found by who knows what people choose, fewer would stop who mistypes: \"100/1d\"";
        table.fault("failures", Fault::new(message, hint));
    }
    table.finish();
    (per_ip, per_account, failures)
}
