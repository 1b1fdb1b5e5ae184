//! `tls` of an upstream. The files are read here, so that what is wrong with them has a place in the text (NET-7).

use std::sync::Arc;

use rustls::{RootCertStore, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::ServerName;

use crate::{
    config::{diagnostic::Fault, files, reader::Table},
    upstream::settings::{ClientFiles, ServerAddress, TlsSettings},
};

pub(super) fn read(table: &mut Table<'_>, servers: Option<&[ServerAddress]>) -> TlsSettings {
    table.refuse_empty(
        "tls",
        "without it https:// servers are verified against the roots of the system",
    );
    let mut tls = table.section("tls");
    let settings = TlsSettings {
        ca: ca(&mut tls),
        client: client(&mut tls),
        server_name: tls.parsed("server_name", server_name),
        danger_accept_any_certificate: tls.flag("danger_accept_any_certificate").unwrap_or(false),
        content: Vec::new(),
    };
    let client = settings.client.iter();
    let files = client.flat_map(|client| [&client.cert, &client.key]);
    let content = files
        .chain(&settings.ca)
        .flat_map(|path| tls.context.content_of(path))
        .collect();
    let settings = TlsSettings {
        content,
        ..settings
    };
    if settings.danger_accept_any_certificate {
        warn(&tls);
    }
    if let (true, Some(servers)) = (tls.is_there(), servers) {
        fits(&tls, servers);
    }
    tls.finish();
    settings
}

fn ca(tls: &mut Table<'_>) -> Option<std::path::PathBuf> {
    let context = tls.context;
    tls.parsed("ca", |text| {
        let path = context.file(text);
        let mut roots = RootCertStore::empty();
        for certificate in files::chain(&path)? {
            let added = roots.add(certificate);
            added.map_err(|error| {
                format!(
                    "{} holds a certificate that cannot be a root: {error}",
                    path.display()
                )
            })?;
        }
        Ok(path)
    })
}

fn client(tls: &mut Table<'_>) -> Option<ClientFiles> {
    for (one, other, hint) in [
        (
            "client_cert",
            "client_key",
            "the file of its private key, as PEM",
        ),
        (
            "client_key",
            "client_cert",
            "the file of its certificate chain, as PEM",
        ),
    ] {
        if tls.has(one) {
            tls.need(other, hint);
        }
    }
    let context = tls.context;
    let cert = tls.text("client_cert");
    let key = tls.text("client_key");
    let (cert, key) = cert.zip(key)?;
    let client = ClientFiles {
        cert: context.file(cert.text),
        key: context.file(key.text),
    };
    if let Err((key, fault)) = check(&client) {
        tls.fault(key, fault);
    }
    Some(client)
}

/// Reads both files and sees that they belong together.
fn check(client: &ClientFiles) -> Result<(), (&'static str, Fault)> {
    let chain = files::chain(&client.cert).map_err(|fault| ("client_cert", fault))?;
    let key = files::private_key(&client.key).map_err(|fault| ("client_key", fault))?;
    let pair = CertifiedKey::from_der(chain, key, &Arc::new(aws_lc_rs::default_provider()));
    pair.map(drop).map_err(|error| {
        let message = format!("does not go with the certificate: {error}");
        ("client_key", message.into())
    })
}

fn server_name(text: &str) -> Result<Box<str>, Fault> {
    ServerName::try_from(text)
        .map(|_| text.into())
        .map_err(|_| {
            Fault::new(
                format!("`{text}` is neither a DNS name nor an address"),
                "the name in the server's certificate: server_name = \"app.internal\"",
            )
        })
}

fn warn(tls: &Table<'_>) {
    let hint = "name the certificate's issuer, or the certificate itself, in `ca` instead";
    let message =
        "whoever is in between can read and write everything, tokens and identities included";
    let place = tls.place_of("danger_accept_any_certificate");
    tls.context.problems.warn(&place, Fault::new(message, hint));
    if tls.has("ca") {
        tls.fault(
            "ca",
            Fault::new(
                "says nothing beside danger_accept_any_certificate",
                "take one of them out",
            ),
        );
    }
}

/// A policy for servers that are not reached by TLS would be a policy for nothing.
fn fits(tls: &Table<'_>, servers: &[ServerAddress]) {
    let plain = servers.iter().filter(|server| !server.is_tls()).count();
    if plain == servers.len() {
        let fault = Fault::new("no server is reached by TLS", "give their URLs as https://");
        tls.context.problems.add(&tls.place, fault);
    } else if plain > 0 {
        let fault = Fault::new(
            "some servers are not reached by TLS",
            "give their URLs as https://, or take them to another upstream",
        );
        tls.context.problems.warn(&tls.place, fault);
    }
}
