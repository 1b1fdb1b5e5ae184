//! Self-signed certificates for trying things out, and the writing of key files.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use jiff::{ToSpan, civil::Date};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

/// The names of a development certificate where none are given.
pub const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What keeps a development certificate from being made.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    /// A name is neither a host name nor an address.
    #[error("`{0}` is not a name for a certificate")]
    Name(String),
    /// The cryptography failed.
    #[error("the certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// A file could not be written.
    #[error("{0} could not be written")]
    Write(Box<str>, #[source] io::Error),
}

/// Whether a file that is there already is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays, and that is an error.
    Never,
    /// It is replaced.
    Yes,
}

/// Makes a self-signed ECDSA P-256 certificate and its key, both as PEM. It is an end-entity certificate: a browser may be
/// told to trust it, and then trusts this name alone and not whatever the key signs.
///
/// # Errors
/// [`DevelopmentError::Name`] or [`DevelopmentError::Make`].
pub fn development_certificate(names: &[String]) -> Result<(String, String), DevelopmentError> {
    let bad = names.iter().find(|name| !is_name(name));
    if let Some(name) = bad {
        return Err(DevelopmentError::Name(name.clone()));
    }
    let mut params = CertificateParams::new(names)?;
    let mut subject = DistinguishedName::new();
    let common = names.first().map_or("localhost", String::as_str);
    subject.push(DnType::CommonName, common);
    subject.push(DnType::OrganizationName, "Portcullis development");
    params.distinguished_name = subject;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Browsers take no certificate that is good for longer than 398 days.
    let today = jiff::Zoned::now().date();
    let (year, month, yesterday) = day(today.saturating_sub(1.day()));
    params.not_before = date_time_ymd(year, month, yesterday);
    let (year, month, last) = day(today.saturating_add(396.days()));
    params.not_after = date_time_ymd(year, month, last);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Writes a certificate, readable by all, and its key, readable by its owner alone. Folders are made where missing. With
/// [`Overwrite::Never`] nothing is written where either file exists.
///
/// # Errors
/// [`DevelopmentError::Write`]; its source is `AlreadyExists` where [`Overwrite::Never`] stopped it.
pub fn write_pair(
    certificate: (&Path, &str),
    key: (&Path, &str),
    overwrite: Overwrite,
) -> Result<(), DevelopmentError> {
    let failed = |path: &Path| {
        let path = path.display().to_string().into();
        move |error| DevelopmentError::Write(path, error)
    };
    if overwrite == Overwrite::Never
        && let Some((path, _)) = [certificate, key].iter().find(|(path, _)| path.exists())
    {
        return Err(failed(path)(io::ErrorKind::AlreadyExists.into()));
    }
    for ((path, pem), mode) in [(key, 0o600), (certificate, 0o644)] {
        write(path, pem, mode, overwrite).map_err(failed(path))?;
    }
    Ok(())
}

/// Writes a file with its final mode from the first byte on. An old file is replaced as a whole, so that no reader sees
/// half of it and its mode does not outlive it.
fn write(path: &Path, content: &str, mode: u32, overwrite: Overwrite) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let create = |path: &Path| -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
    };
    match overwrite {
        Overwrite::Never => create(path)?.write_all(content.as_bytes()),
        Overwrite::Yes => {
            let mut name = path.as_os_str().to_owned();
            name.push(".new");
            let new = Path::new(&name);
            // Left by a run that was cut off.
            let _ = std::fs::remove_file(new);
            let mut file = create(new)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(new, path)
        }
    }
}

/// Year, month and day.
fn day(date: Date) -> (i32, u8, u8) {
    let number = |part: i8| u8::try_from(part).unwrap_or(1);
    (date.year().into(), number(date.month()), number(date.day()))
}

fn is_name(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    name.parse::<std::net::IpAddr>().is_ok()
        || (!host.contains(['[', ':']) && crate::policy::head::host(host).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in [
            "",
            "a b",
            "https://a",
            "a:443",
            "[::1]",
            "*",
            "a/b",
            "bücher",
        ] {
            let made = development_certificate(&names(&["localhost", name]));
            assert!(matches!(made, Err(DevelopmentError::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn nothing_is_written_where_one_of_the_two_exists() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        std::fs::write(&cert, "mine").unwrap();
        let error = write_pair((&cert, "c"), (&key, "k"), Overwrite::Never).unwrap_err();
        assert!(matches!(error, DevelopmentError::Write(path, _) if path.ends_with("a.crt")));
        assert!(!key.exists());
        assert_eq!(std::fs::read_to_string(&cert).unwrap(), "mine");
    }

    #[test]
    fn key_5_a_replaced_key_loses_its_open_mode() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        std::fs::write(&key, "old").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o666)).unwrap();
        write_pair((&cert, "c"), (&key, "k"), Overwrite::Yes).unwrap();
        assert_eq!(std::fs::read_to_string(&key).unwrap(), "k");
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.path().read_dir().unwrap().count(), 2);
    }

    #[test]
    fn any_kind_of_name_gives_a_pair_that_goes_together() {
        let made = development_certificate(&names(&["localhost", "127.0.0.1", "::1", "*.test"]));
        let (cert, key) = made.unwrap();
        assert!(cert.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }
}
