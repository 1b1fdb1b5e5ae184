//! The section `[tls]`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};

use super::{
    development::NAMES,
    diagnostic::{Fault, Place},
    files,
    reader::Table,
    server::is_loopback,
    words::Choice::Is,
};
use crate::{
    policy::{HostPattern, TlsPolicies},
    server::{
        settings::{
            CertificateFiles, ClientAuth, ClientRule, ServerSettings, TlsSettings, TlsVersion,
        },
        tls::{Anchors, Leaf, WARNED_BEFORE},
    },
};

const DEVELOPMENT_PAIR: (&str, &str) = ("certs/dev.crt", "certs/dev.key");

pub(super) fn read(mut table: Table<'_>, server: Option<&ServerSettings>) -> TlsSettings {
    let development = development(&mut table, server);
    let clients = ClientKeys::read(&mut table);
    let entries = certificates(&mut table, development, &clients);
    let min_version = table.choice(
        "min_version",
        &[
            ("1.2", Is(TlsVersion::Tls12)),
            ("1.3", Is(TlsVersion::Tls13)),
        ],
    );
    if clients.ca.is_some() && entries.iter().all(|entry| entry.files.clients.ca.is_none()) {
        let hint = "set client_auth to \"required\" or \"optional\", here or for a certificate";
        table.fault(
            "client_ca",
            Fault::new("no client is asked for a certificate", hint),
        );
    }
    let policies = policies(&table, &entries);
    table.finish();
    TlsSettings {
        certificates: entries.into_iter().map(|entry| entry.files).collect(),
        development,
        min_version: min_version.unwrap_or_default(),
        policies,
    }
}

/// What a section says of client certificates.
#[derive(Debug, Clone, Default)]
struct ClientKeys {
    auth: Option<ClientAuth>,
    ca: Option<PathBuf>,
}

/// A certificate with the names for which it is.
struct Entry {
    files: CertificateFiles,
    names: Vec<HostPattern>,
    place: Place,
}

impl ClientKeys {
    fn read(table: &mut Table<'_>) -> Self {
        let auth = table.choice(
            "client_auth",
            &[
                ("none", Is(ClientAuth::None)),
                ("optional", Is(ClientAuth::Optional)),
                ("required", Is(ClientAuth::Required)),
            ],
        );
        let ca = table.text("client_ca");
        let ca = ca.map(|ca| table.context.served_file(ca.text));
        if let Some(path) = &ca
            && let Err(fault) = anchors(path)
        {
            table.fault("client_ca", fault);
        }
        Self { auth, ca }
    }

    /// The rule of a certificate with these keys, in a section with those of `around`.
    fn rule(self, table: &Table<'_>, around: &Self) -> ClientRule {
        let auth = self.auth.or(around.auth).unwrap_or_default();
        if auth == ClientAuth::None {
            if self.ca.is_some() {
                let hint = "set client_auth beside it";
                table.fault(
                    "client_ca",
                    Fault::new("no client is asked for a certificate", hint),
                );
            }
            return ClientRule::default();
        }
        let ca = self.ca.or_else(|| around.ca.clone());
        if ca.is_none() {
            table.need("client_ca", "whose certificates are believed, as PEM");
        }
        ClientRule { auth, ca }
    }
}

fn anchors(path: &Path) -> Result<(), Fault> {
    files::chain(path)?;
    Anchors::load(path).map(drop).map_err(|fault| {
        Fault::new(
            format!("{:#}", anyhow::Error::from(fault)),
            "PEM, certificates of authorities alone",
        )
    })
}

/// Which host has which rule. Clients that ask for a host of no certificate have the strictest of them.
fn policies(table: &Table<'_>, entries: &[Entry]) -> TlsPolicies {
    let rules = || entries.iter().map(|entry| &entry.files.clients);
    // Of several that are equally strict, the first.
    let strictest = rules().rev().max_by_key(|rule| rule.auth);
    let mut policies = TlsPolicies::only(strictest.map(ClientRule::id).unwrap_or_default());
    if rules().all(|rule| Some(rule) == strictest) {
        return policies;
    }
    for entry in entries {
        for name in &entry.names {
            if !policies.insert(name, entry.files.clients.id()) {
                let hint = "a host has one rule: give both the same client_auth and client_ca";
                let message =
                    format!("`{name}` is in another certificate with another client_auth");
                table
                    .context
                    .problems
                    .add(&entry.place, Fault::new(message, hint));
            }
        }
    }
    policies
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

fn certificates(table: &mut Table<'_>, development: bool, clients: &ClientKeys) -> Vec<Entry> {
    let tables = table.sections("certificates");
    if !table.has("certificates") {
        if !development {
            let hint = "certificates = [{ cert = \"certs/site.crt\", key = \"certs/site.key\" }]";
            table.need("certificates", hint);
        }
        let rule = ClientKeys::default().rule(table, clients);
        let pair = pair(table, DEVELOPMENT_PAIR.0, DEVELOPMENT_PAIR.1, rule);
        let checked = check(&pair, development);
        if development && let Err((_, fault)) = &checked {
            table.fault("certificates", fault.clone());
        }
        return vec![entry(
            pair,
            checked.ok().flatten(),
            table.place_of("certificates"),
        )];
    }
    tables
        .into_iter()
        .filter_map(|entry| certificate(entry, development, clients))
        .collect()
}

fn certificate(mut table: Table<'_>, development: bool, clients: &ClientKeys) -> Option<Entry> {
    table.need("cert", "the file of the chain, as PEM");
    table.need("key", "the file of the private key, as PEM");
    let (cert, key) = (table.text("cert"), table.text("key"));
    let rule = ClientKeys::read(&mut table).rule(&table, clients);
    let pair = cert
        .zip(key)
        .map(|(cert, key)| pair(&table, cert.text, key.text, rule));
    let entry = pair.map(|pair| {
        let leaf = match check(&pair, development) {
            Ok(leaf) => leaf,
            Err((key, fault)) => {
                table.fault(key, fault);
                None
            }
        };
        if let Some(leaf) = &leaf {
            warn_of_its_end(&table, leaf);
        }
        entry(pair, leaf, table.place_of("cert"))
    });
    table.finish();
    entry
}

/// `leaf` is absent where a development certificate is still to be made.
fn entry(files: CertificateFiles, leaf: Option<Leaf>, place: Place) -> Entry {
    let made = || NAMES.map(|name| HostPattern::Exact(name.into())).to_vec();
    Entry {
        files,
        names: leaf.map_or_else(made, |leaf| leaf.names),
        place,
    }
}

fn pair(table: &Table<'_>, cert: &str, key: &str, clients: ClientRule) -> CertificateFiles {
    CertificateFiles {
        cert: table.context.served_file(cert),
        key: table.context.served_file(key),
        clients,
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
