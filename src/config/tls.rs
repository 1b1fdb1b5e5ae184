//! The section `[tls]`.

use std::{sync::Arc, time::SystemTime};

use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};

use super::{diagnostic::Fault, files, reader::Table, server::is_loopback, words::Choice::Is};
use crate::server::{
    settings::{CertificateFiles, ServerSettings, TlsSettings, TlsVersion},
    tls::{Leaf, WARNED_BEFORE},
};

const DEVELOPMENT_PAIR: (&str, &str) = ("certs/dev.crt", "certs/dev.key");

pub(super) fn read(mut table: Table<'_>, server: Option<&ServerSettings>) -> TlsSettings {
    let development = development(&mut table, server);
    let certificates = certificates(&mut table, development);
    let min_version = table.choice(
        "min_version",
        &[
            ("1.2", Is(TlsVersion::Tls12)),
            ("1.3", Is(TlsVersion::Tls13)),
        ],
    );
    table.finish();
    TlsSettings {
        certificates,
        development,
        min_version: min_version.unwrap_or_default(),
    }
}

fn development(table: &mut Table<'_>, server: Option<&ServerSettings>) -> bool {
    let development = table.flag("development").unwrap_or(false);
    if !development {
        return false;
    }
    if server.is_some_and(|server| !is_loopback(&server.public_url)) {
        table.fault(
            "development",
            Fault::new(
                "server.public_url is not a loopback name",
                "clients would learn to accept a certificate that anybody can make; give a real one",
            ),
        );
    } else {
        table.context.problems.warn(
            &table.place_of("development"),
            "a missing certificate is made, self-signed: for this machine only",
        );
    }
    true
}

fn certificates(table: &mut Table<'_>, development: bool) -> Vec<CertificateFiles> {
    let tables = table.sections("certificates");
    if !table.has("certificates") {
        if !development {
            let hint = "certificates = [{ cert = \"certs/site.crt\", key = \"certs/site.key\" }]";
            table.need("certificates", hint);
        }
        let pair = pair(table, DEVELOPMENT_PAIR.0, DEVELOPMENT_PAIR.1);
        if development && let Err((_, fault)) = check(&pair, true) {
            table.fault("certificates", fault);
        }
        return vec![pair];
    }
    tables
        .into_iter()
        .filter_map(|entry| certificate(entry, development))
        .collect()
}

fn certificate(mut table: Table<'_>, development: bool) -> Option<CertificateFiles> {
    table.need("cert", "the file of the chain, as PEM");
    table.need("key", "the file of the private key, as PEM");
    let cert = table.text("cert");
    let key = table.text("key");
    let pair = cert
        .zip(key)
        .map(|(cert, key)| pair(&table, cert.text, key.text));
    match pair.as_ref().map(|pair| check(pair, development)) {
        Some(Err((key, fault))) => table.fault(key, fault),
        Some(Ok(Some(leaf))) => warn_of_its_end(&table, &leaf),
        Some(Ok(None)) | None => {}
    }
    table.finish();
    pair
}

fn pair(table: &Table<'_>, cert: &str, key: &str) -> CertificateFiles {
    CertificateFiles {
        cert: files::resolve(table.context.root, cert),
        key: files::resolve(table.context.root, key),
    }
}

/// Warns of a certificate that clients refuse, or soon will.
fn warn_of_its_end(table: &Table<'_>, leaf: &Leaf) {
    let now = SystemTime::now();
    let what = if now < leaf.not_before {
        "is not valid yet".to_owned()
    } else if leaf.is_valid_at(now) {
        let left = leaf.left_at(now);
        if left >= WARNED_BEFORE {
            return;
        }
        format!("ends in {} days", left.as_secs() / (24 * 60 * 60))
    } else {
        "has expired".to_owned()
    };
    let hint = "put a new one in its place: it is taken without a restart";
    let place = table.place_of("cert");
    table
        .context
        .problems
        .warn(&place, Fault::new(format!("the certificate {what}"), hint));
}

/// Reads both files and sees that they belong together. A pair that will be made may be missing, as a whole: there is nothing
/// to be said of its certificate then.
fn check(
    pair: &CertificateFiles,
    development: bool,
) -> Result<Option<Leaf>, (&'static str, Fault)> {
    if development && !pair.cert.exists() && !pair.key.exists() {
        return Ok(None);
    }
    let chain = files::chain(&pair.cert).map_err(|fault| ("cert", fault))?;
    let leaf = chain.first().map(Leaf::read).transpose();
    let leaf = leaf.map_err(|fault| ("cert", fault.to_string().into()))?;
    let key = files::private_key(&pair.key).map_err(|fault| ("key", fault))?;
    CertifiedKey::from_der(chain, key, &Arc::new(aws_lc_rs::default_provider()))
        .map_err(|error| {
            (
                "key",
                format!("does not go with the certificate: {error}").into(),
            )
        })
        .map(|_| leaf)
}
