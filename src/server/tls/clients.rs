//! Client certificates: whose are believed, and what a connection needs of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::CertificateDer;

use super::{fault::TlsFault, files::Stamp, pair::chain};
use crate::server::settings::{ClientAuth, ClientRule};

/// The authorities whose client certificates are believed, as read from their file at one time.
#[derive(Debug)]
pub struct Anchors {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
}

impl Anchors {
    /// Reads the file; every certificate in it must be of use.
    ///
    /// # Errors
    /// A file that is missing, empty, unreadable or being written, or holds what is no certificate (NET-7).
    pub fn load(path: &Path) -> Result<Self, TlsFault> {
        let stamp = Stamp::of(&[path]);
        let certificates = chain(path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            let added = roots.add(certificate.clone());
            added.map_err(|source| TlsFault::Anchor {
                path: path.to_owned(),
                source,
            })?;
        }
        if Stamp::of(&[path]) != stamp {
            return Err(TlsFault::Changing {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            stamp,
            certificates,
            roots: Arc::new(roots),
        })
    }

    /// Whether the same authorities are believed.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }

    /// What verifies client certificates.
    pub(super) fn verifier(
        &self,
        rule: &ClientRule,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::clone(&self.roots);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let builder = match rule.auth {
            ClientAuth::Optional => builder.allow_unauthenticated(),
            // Never made for `None`; should it be, it asks for too much and not for too little.
            ClientAuth::None | ClientAuth::Required => builder,
        };
        builder.build().map_err(|source| TlsFault::Verifier {
            path: self.path.clone(),
            source,
        })
    }
}
