//! The section `[mail]`.

use std::{net::IpAddr, time::Duration};

use rustls_pki_types::ServerName;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::{
    bounds::Bounds,
    context::Context,
    diagnostic::Fault,
    files::{self, Reader},
    reader::Table,
    server::secs,
};
use crate::{
    limit::settings::Quota,
    mail::settings::{Encryption, MailSettings, SmtpSettings, TransportSettings},
};

const FROM_HINT: &str = "from = \"Portcullis <no-reply@example.com>\"";
const SMTP_HINT: &str = "smtp = \"smtps://user@mail.example.com\", or smtp:// for STARTTLS";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// What the URL of a mail server says.
struct Server {
    host: Box<str>,
    port: Option<u16>,
    implicit: bool,
    user: Option<Box<str>>,
}

/// Reads the section; `None` where it is absent or wrong.
pub(super) fn read(mut table: Table<'_>) -> Option<MailSettings> {
    if !table.is_there() {
        table.finish();
        return None;
    }
    table.need("from", FROM_HINT);
    let from = table.parsed("from", |text| {
        let wrong = || Fault::new(format!("`{text}` is not one mailbox"), FROM_HINT);
        text.parse().map_err(|_| wrong())
    });
    let transport = transport(&mut table);
    let reset_ttl = Bounds::new(secs(60), secs(HOUR))
        .because("whoever reads the mailbox later could use the link");
    let reset_ttl = table.duration("reset_ttl", reset_ttl);
    let verify_ttl = Bounds::new(secs(300), secs(DAY))
        .because("whoever reads the mailbox later could use the link");
    let verify_ttl = table.duration("verify_ttl", verify_ttl);
    let give_up = Bounds::new(secs(HOUR), secs(7 * DAY))
        .because("the queue must not keep for ever what nobody takes");
    let give_up = table.duration("give_up", give_up);
    let (per_ip, total) = limit(table.section("limit"));
    table.finish();
    Some(MailSettings {
        from: from?,
        transport: transport?,
        reset_ttl: reset_ttl.unwrap_or(secs(600)),
        verify_ttl: verify_ttl.unwrap_or(secs(HOUR)),
        give_up: give_up.unwrap_or(secs(2 * DAY)),
        per_ip,
        total,
    })
}

fn transport(table: &mut Table<'_>) -> Option<TransportSettings> {
    let root = table.context.root;
    let spool = table.parsed("spool", |text| Ok(files::resolve(root, text)));
    let has_smtp = table.has("smtp");
    let server = table.parsed("smtp", server);
    let smtp = smtp(table, server);
    match (has_smtp, spool) {
        (true, None) => smtp.map(TransportSettings::Smtp),
        (false, Some(folder)) => {
            refuse_without_smtp(table);
            Some(TransportSettings::Spool(folder))
        }
        (true, Some(_)) => {
            table.fault(
                "spool",
                Fault::new("is one way too many", "leave smtp or spool"),
            );
            None
        }
        (false, None) => {
            table.need("smtp", "or spool, a folder that mails are written into");
            None
        }
    }
}

/// Keys that speak of a server need one.
fn refuse_without_smtp(table: &Table<'_>) {
    for key in [
        "password_file",
        "password_env",
        "ca",
        "starttls",
        "danger_plaintext",
    ] {
        if table.has(key) {
            table.fault(
                key,
                Fault::new("is for a mail server", "take it out, or use smtp"),
            );
        }
    }
}

fn smtp(table: &mut Table<'_>, server: Option<Server>) -> Option<SmtpSettings> {
    let starttls = table.flag("starttls");
    let danger = table.flag("danger_plaintext").unwrap_or(false);
    let ca = table.parsed("ca", {
        let context = table.context;
        move |text| files::chain(&context.file(text))
    });
    let password = secret(table, "password_file", "password_env");
    let server = server?;
    let encryption = encryption(table, &server, starttls, danger);
    let login = match (server.user, password) {
        (None, None) => None,
        (Some(user), Some(password)) => Some((user, password)),
        (Some(_), None) => {
            if !table.has("password_file") && !table.has("password_env") {
                let hint = "password_file, a file of mode 0600, or password_env";
                table.fault("smtp", Fault::new("names a user without a password", hint));
            }
            return None;
        }
        (None, Some(_)) => {
            table.fault(
                "smtp",
                Fault::new("names no user for the password", SMTP_HINT),
            );
            return None;
        }
    };
    // RFC 8314 §7.3, RFC 6409 §3.1; without encryption it is a relay on this host (RFC 5321 §4.5.4.2).
    let usual = match encryption {
        Encryption::Implicit => 465,
        Encryption::None => 25,
        Encryption::StartTls => 587,
    };
    Some(SmtpSettings {
        port: server.port.unwrap_or(usual),
        host: server.host,
        encryption,
        login,
        ca,
    })
}

fn encryption(
    table: &Table<'_>,
    server: &Server,
    starttls: Option<bool>,
    danger: bool,
) -> Encryption {
    match (server.implicit, starttls) {
        (true, None) => Encryption::Implicit,
        (true, Some(_)) => {
            table.fault(
                "starttls",
                Fault::new("is for smtp://", "smtps:// is encrypted at once"),
            );
            Encryption::Implicit
        }
        (false, None | Some(true)) => Encryption::StartTls,
        (false, Some(false)) => {
            if danger {
                let hint = "passwords and links can be read and changed on the way; use smtps://";
                let fault = Fault::new("sends mail without encryption", hint);
                let place = table.place_of("danger_plaintext");
                table.context.problems.warn(&place, fault);
            } else if !is_loopback(&server.host) {
                let hint = "only for a server on this host; for another, danger_plaintext = true says that whoever is on the way may read it";
                table.fault(
                    "starttls",
                    Fault::new("sends mail without encryption", hint),
                );
            }
            Encryption::None
        }
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn server(text: &str) -> Result<Server, Fault> {
    let wrong = |message: &str| Fault::new(message.to_owned(), SMTP_HINT);
    // The text may hold a password, so it is not repeated.
    let url = Url::parse(text).map_err(|_| wrong("is not the URL of a mail server"))?;
    let implicit = match url.scheme() {
        "smtps" => true,
        "smtp" => false,
        _ => return Err(wrong("is neither smtps:// nor smtp://")),
    };
    if url.password().is_some() {
        let hint = "password_file, a file of mode 0600, or password_env";
        return Err(Fault::new("holds a password", hint));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has more than user, host and port"));
    }
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || ServerName::try_from(host).is_err() {
        return Err(wrong("has no host name or address"));
    }
    let user = decoded(url.username());
    if user.chars().any(char::is_control) {
        return Err(wrong("has a control character in the user"));
    }
    Ok(Server {
        host: host.into(),
        port: url.port(),
        implicit,
        user: (!user.is_empty()).then(|| user.into()),
    })
}

/// The user, who may be an address with `%40`. A plus is one here.
fn decoded(user: &str) -> String {
    let pair = format!("user={}", user.replace('+', "%2B").replace('&', "%26"));
    let mut pairs = form_urlencoded::parse(pair.as_bytes());
    pairs
        .next()
        .map_or_else(String::new, |(_, user)| user.into_owned())
}

/// Reads a password from the file or the variable that these keys name.
pub(super) fn secret(
    table: &mut Table<'_>,
    file_key: &'static str,
    env_key: &'static str,
) -> Option<Zeroizing<String>> {
    let context = table.context;
    if table.has(file_key) && table.has(env_key) {
        let hint = format!("leave {file_key} or {env_key}");
        table.fault(env_key, Fault::new("is one password too many", hint));
    }
    let file = table.parsed(file_key, |text| {
        let path = context.file(text);
        let content = files::read(&path, Reader::Owner)?;
        let text = String::from_utf8(content.to_vec());
        let text =
            Zeroizing::new(text.map_err(|_| Fault::from("the password is not UTF-8".to_owned()))?);
        one_line(text.trim_end_matches(['\r', '\n']))
    });
    let env = table.parsed(env_key, |name| password_env(context, name));
    file.or(env)
}

fn password_env(context: &Context<'_>, name: &str) -> Result<Zeroizing<String>, Fault> {
    let value = (context.env)(name).and_then(|value| value.into_string().ok());
    let value = value.map(Zeroizing::new);
    let missing = || {
        Fault::from(format!(
            "the environment variable {name} is not set, or is no text"
        ))
    };
    one_line(&value.ok_or_else(missing)?)
}

fn one_line(text: &str) -> Result<Zeroizing<String>, Fault> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("the password is empty, or is not one line"
            .to_owned()
            .into());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn limit(mut table: Table<'_>) -> (Quota, Quota) {
    let quota = |count| Quota {
        count,
        window: Duration::from_secs(HOUR),
        burst: count,
    };
    let per_ip = table.rate("per_ip").unwrap_or_else(|| quota(20));
    // A rate counts over a day at most, for as long as sent mails are remembered.
    let total = table.rate("total").unwrap_or_else(|| quota(1000));
    table.finish();
    (per_ip, total)
}
