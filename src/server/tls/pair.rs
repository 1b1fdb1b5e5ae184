//! A certificate chain with its key, as read from its files at one time.

use std::{path::Path, sync::Arc, time::SystemTime};

use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    fault::TlsFault,
    files::{Reader, Stamp, read},
    leaf::Leaf,
};
use crate::server::settings::CertificateFiles;

/// A pair that goes together.
#[derive(Debug)]
pub struct Pair {
    /// The files it is from.
    pub files: CertificateFiles,
    /// What they looked like.
    pub(super) stamp: Stamp,
    /// What handshakes use.
    pub(super) key: Arc<CertifiedKey>,
    /// What the first certificate says.
    pub leaf: Leaf,
}

impl Pair {
    /// Reads both files and checks that they go together.
    ///
    /// # Errors
    /// The first file that is missing, empty, unreadable or being written, or that the two do not go together (NET-7).
    pub fn load(files: &CertificateFiles) -> Result<Self, TlsFault> {
        let stamp = Self::stamp_of(files);
        let chain = chain(&files.cert)?;
        let Some(first) = chain.first() else {
            return Err(TlsFault::Empty {
                path: files.cert.clone(),
            });
        };
        let leaf = Leaf::read(first).map_err(|source| TlsFault::Leaf {
            path: files.cert.clone(),
            source,
        })?;
        let key = private_key(&files.key)?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let key = key.map_err(|source| TlsFault::Pair {
            cert: files.cert.clone(),
            key: files.key.clone(),
            source,
        })?;
        if Self::stamp_of(files) != stamp {
            return Err(TlsFault::Changing {
                path: files.cert.clone(),
            });
        }
        Ok(Self {
            files: files.clone(),
            stamp,
            key: Arc::new(key),
            leaf,
        })
    }

    /// Reads the pair anew, to take the place of this one.
    ///
    /// # Errors
    /// As [`Pair::load`], and a certificate that is not valid now while this one is (NET-9).
    pub fn renew(&self, now: SystemTime) -> Result<Self, TlsFault> {
        let new = Self::load(&self.files)?;
        if self.leaf.is_valid_at(now) && !new.leaf.is_valid_at(now) {
            return Err(TlsFault::Validity {
                path: self.files.cert.clone(),
            });
        }
        Ok(new)
    }

    /// Whether clients would see no difference.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }

    /// What the files look like now.
    pub(super) fn stamp_of(files: &CertificateFiles) -> Stamp {
        Stamp::of(&[&files.cert, &files.key])
    }
}

/// Reads the certificates of a file; at least one.
///
/// # Errors
/// A file that cannot be read or holds none.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let pem = read(path, Reader::Anybody)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(TlsFault::Empty {
            path: path.to_owned(),
        }),
        Ok(chain) => Ok(chain),
        Err(source) => Err(TlsFault::Chain {
            path: path.to_owned(),
            source,
        }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let pem = read(path, Reader::Owner)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|source| TlsFault::Key {
        path: path.to_owned(),
        source,
    })
}
