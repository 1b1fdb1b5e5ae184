//! Reads key, certificate and secret files: present, not empty, of the right shape, and secrets readable by their owner
//! alone (NET-7, KEY-5).

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::diagnostic::Fault;

/// No key set or chain comes near.
const BYTES_MAX: u64 = 1 << 20;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Anybody: what it holds is public.
    Anybody,
    /// Its owner alone.
    Owner,
}

/// Reads a whole file, never empty.
pub(super) fn read(path: &Path, reader: Reader) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let cannot = |error: &io::Error| {
        let what = if error.kind() == io::ErrorKind::NotFound {
            "does not exist".to_owned()
        } else {
            format!("cannot be read: {error}")
        };
        Fault::from(format!("{} {what}", path.display()))
    };
    // Asked before opening: opening a pipe would wait for whoever writes it.
    let kind = std::fs::metadata(path).map_err(|error| cannot(&error))?;
    if !kind.is_file() {
        return Err(format!("{} is not a file", path.display()).into());
    }
    let file = File::open(path).map_err(|error| cannot(&error))?;
    let metadata = file.metadata().map_err(|error| cannot(&error))?;
    if reader == Reader::Owner && metadata.permissions().mode() & 0o077 != 0 {
        return Err(Fault::new(
            format!("{} can be read or written by others", path.display()),
            format!("chmod 600 {}", path.display()),
        ));
    }
    let mut content = Zeroizing::new(Vec::new());
    file.take(BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|error| cannot(&error))?;
    if content.iter().all(u8::is_ascii_whitespace) {
        return Err(format!("{} is empty", path.display()).into());
    }
    if u64::try_from(content.len()).is_ok_and(|length| length > BYTES_MAX) {
        return Err(format!("{} is larger than 1MiB", path.display()).into());
    }
    Ok(content)
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
