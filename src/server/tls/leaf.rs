//! What a certificate says of itself: for which names it is, and for how long.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time,
};

use crate::policy::{HostPattern, head};

/// What is read of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The host names that it is for, lower case, in its order. Addresses are not among them: no client names one (RFC 6066
    /// §3).
    pub names: Vec<HostPattern>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

/// A certificate that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("not an X.509 certificate: {0}")]
pub struct LeafFault(String);

impl Leaf {
    /// Reads a certificate. Names that no client could ask for are left out.
    ///
    /// # Errors
    /// [`LeafFault`] for what is no certificate.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, LeafFault> {
        let fault = |error: &dyn std::fmt::Display| LeafFault(error.to_string());
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|error| fault(&error))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| fault(&error))?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let validity = certificate.validity();
        Ok(Self {
            names: names.filter_map(name).collect(),
            not_before: time(validity.not_before),
            not_after: time(validity.not_after),
        })
    }

    /// Whether it is valid at this time.
    #[must_use]
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// How long it is valid from this time on; zero when it is over.
    #[must_use]
    pub fn left_at(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }
}

fn name(name: &GeneralName<'_>) -> Option<HostPattern> {
    let GeneralName::DNSName(name) = name else {
        return None;
    };
    let pattern = match name.strip_prefix("*.") {
        Some(parent) => HostPattern::Wildcard(head::host(parent)?.into()),
        None => HostPattern::Exact(head::host(name)?.into()),
    };
    Some(pattern)
}

fn time(time: ASN1Time) -> SystemTime {
    // Before 1970 is as invalid as 1970.
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn leaf(change: impl FnOnce(&mut CertificateParams), names: &[&str]) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf::read(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for bytes in [&b""[..], b"nonsense", b"\x30\x03\x02\x01\x01"] {
            assert!(Leaf::read(&CertificateDer::from(bytes)).is_err());
        }
    }

    #[test]
    fn names_are_hosts_in_lower_case_and_no_addresses() {
        let leaf = leaf(|_| {}, &["App.Example.COM", "*.Example.org", "127.0.0.1"]);
        let want = [
            HostPattern::Exact("app.example.com".into()),
            HostPattern::Wildcard("example.org".into()),
        ];
        assert_eq!(leaf.names, want);
    }

    #[test]
    fn the_ends_of_validity_are_valid() {
        let leaf = leaf(
            |params| {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2001, 1, 2);
            },
            &[],
        );
        let (first, last) = (leaf.not_before, leaf.not_after);
        let second = Duration::from_secs(1);
        assert!(leaf.is_valid_at(first) && leaf.is_valid_at(last));
        assert!(!leaf.is_valid_at(first - second) && !leaf.is_valid_at(last + second));
        assert_eq!(leaf.left_at(first), Duration::from_secs(24 * 60 * 60));
        assert_eq!(leaf.left_at(last + second), Duration::ZERO);
        assert!(leaf.names.is_empty());
    }

    #[test]
    fn times_before_1970_are_over() {
        let leaf = leaf(|params| params.not_after = date_time_ymd(1960, 1, 1), &[]);
        assert!(!leaf.is_valid_at(SystemTime::now()));
    }
}
