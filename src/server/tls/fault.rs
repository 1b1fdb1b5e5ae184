//! Why certificates and keys cannot be used.

use std::path::PathBuf;

use rustls::server::VerifierBuilderError;
use rustls_pki_types::pem;

use super::{files::FileFault, leaf::LeafFault};

/// Why TLS cannot be set up as the configuration asks, or a changed file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// An authority that cannot be used.
    #[error("cannot believe a certificate in {}", path.display())]
    Anchor {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A chain that cannot be read.
    #[error("cannot read the certificate chain {}", path.display())]
    Chain {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file that changes while it is read.
    #[error("{} is being written", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// A file without a certificate.
    #[error("no certificate in {}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A file that is not read.
    #[error(transparent)]
    File(#[from] FileFault),
    /// A key that cannot be read.
    #[error("cannot read the private key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A leaf that cannot be read.
    #[error("cannot use the certificate {}", path.display())]
    Leaf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: LeafFault,
    },
    /// A key that does not belong to its certificate, or is of no use.
    #[error("certificate {} and key {} do not go together", cert.display(), key.display())]
    Pair {
        /// The chain's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A TLS library that refuses the policy.
    #[error("the TLS policy cannot be set up")]
    Policy(#[from] rustls::Error),
    /// Authorities by which nobody could be verified.
    #[error("cannot verify client certificates by {}", path.display())]
    Verifier {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// A certificate that is not valid now, while the one in use is.
    #[error("{} is not valid now, and the certificate in use is", path.display())]
    Validity {
        /// The file.
        path: PathBuf,
    },
}
