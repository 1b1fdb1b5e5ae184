//! What the configuration says of mail.

use std::{fmt, path::PathBuf, time::Duration};

use lettre::message::Mailbox;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::limit::settings::Quota;

/// The checked section `[mail]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailSettings {
    /// Whom mails are from.
    pub from: Mailbox,
    /// The way that they take.
    pub transport: TransportSettings,
    /// How long a link in a mail works, from the moment when the mail is sent: at most an hour.
    pub reset_ttl: Duration,
    /// How long the link that finishes a registration works, from the moment when the mail is sent: at most a day.
    pub verify_ttl: Duration,
    /// How long a mail that cannot be sent is tried again.
    pub give_up: Duration,
    /// Mails that one client address (IPv4) or network of 64 bits (IPv6) may ask for.
    pub per_ip: Quota,
    /// Mails to all recipients together.
    pub total: Quota,
}

/// The way that mails take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportSettings {
    /// To a mail server.
    Smtp(SmtpSettings),
    /// Into files of a folder.
    Spool(PathBuf),
}

/// A mail server.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpSettings {
    /// A host name, which its certificate must bear, or an address.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub encryption: Encryption,
    /// Name and password, where the server wants them.
    pub login: Option<(Box<str>, Zeroizing<String>)>,
    /// The roots that its certificate must lead to; `None`: the system's.
    pub ca: Option<Vec<CertificateDer<'static>>>,
}

/// How a connection to a mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// From the first byte (RFC 8314 §3.3).
    Implicit,
    /// Not at all.
    None,
    /// After `STARTTLS` (RFC 3207); a server that does not offer it gets nothing.
    StartTls,
}

impl fmt::Debug for SmtpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}
