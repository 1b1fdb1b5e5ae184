//! Reads key, certificate and secret files, and says what to do about those that cannot be taken (NET-7, KEY-5).

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::diagnostic::Fault;
pub(super) use crate::server::tls::files::Reader;
use crate::server::tls::files::{self, FileFault, Stamp};

/// A file that a configuration names and reads.
#[derive(Debug, Clone)]
pub(super) struct NamedFile {
    pub(super) path: PathBuf,
    /// What it looked like before it was read.
    pub(super) stamp: Stamp,
    /// The digest of its content; empty where it could not be read.
    pub(super) content: Vec<u8>,
    /// Whether somebody else sees to it that a change of it alone is noticed.
    pub(super) watched_elsewhere: bool,
}

impl NamedFile {
    /// Looks at a file, present or not.
    pub(super) fn look(path: PathBuf) -> Self {
        let stamp = Stamp::of(&[&path]);
        let content = files::read(&path, Reader::Anybody).ok();
        let content = content.map(|content| digest::digest(&digest::SHA256, &content));
        Self {
            path,
            stamp,
            watched_elsewhere: false,
            content: content.map_or_else(Vec::new, |digest| digest.as_ref().to_vec()),
        }
    }
}

/// Reads a whole file, never empty.
pub(super) fn read(path: &Path, reader: Reader) -> Result<Zeroizing<Vec<u8>>, Fault> {
    files::read(path, reader).map_err(|fault| match &fault {
        FileFault::Open(path) => {
            Fault::new(fault.to_string(), format!("chmod 600 {}", path.display()))
        }
        FileFault::Unreadable(_, error) => format!("{fault}: {error}").into(),
        FileFault::Empty(_) | FileFault::Kind(_) | FileFault::Large(_) | FileFault::Missing(_) => {
            fault.to_string().into()
        }
    })
}

/// Reads a certificate chain.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let pem = read(path, Reader::Anybody)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let hint = "PEM, the leaf first: -----BEGIN CERTIFICATE-----";
    match chain {
        Ok(chain) if chain.is_empty() => Err(Fault::new(
            format!("{} holds no certificate", path.display()),
            hint,
        )),
        Ok(chain) => Ok(chain),
        Err(error) => Err(Fault::new(
            format!("{} is not a certificate chain: {error}", path.display()),
            hint,
        )),
    }
}

/// Reads a private key.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Fault> {
    let pem = read(path, Reader::Owner)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        Fault::new(
            format!("{} holds no private key: {error}", path.display()),
            "PEM, PKCS#8, SEC1 or PKCS#1: -----BEGIN PRIVATE KEY-----",
        )
    })
}

/// Resolves a path of the configuration.
pub(super) fn resolve(root: &Path, text: &str) -> PathBuf {
    // An absolute path replaces the root.
    root.join(text)
}
