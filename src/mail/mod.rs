//! Writes mails and hands them over: to a mail server over verified TLS, or into files of a folder.
//!
//! It knows nothing of accounts and keeps nothing: what is to be sent, and when again, is the business of whoever calls.

pub mod settings;
mod smtp;
mod spool;
#[cfg(test)]
mod tests;
mod texts;

use std::{fmt, time::SystemTime};

use lettre::{
    Address, Message,
    message::{
        Body, Mailbox,
        header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue},
    },
};

use self::{settings::TransportSettings, smtp::Smtp, spool::Spool};

pub use self::{
    settings::MailSettings,
    texts::{Facts, Purpose, Text},
};

/// A mail to be sent.
#[derive(Debug, Clone)]
pub struct Letter<'a> {
    /// Random, and the same for each attempt: half of the `Message-ID`, and the name of the spooled file.
    pub id: &'a str,
    /// A canonical address.
    pub recipient: &'a str,
    /// What it says.
    pub text: Text,
}

/// Why a mail was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The server will not take this one now.
    #[error("the server answered {0}")]
    Deferred(u16),
    /// Nothing can be sent now: no connection, no trust, no login, no space.
    #[error("{0}")]
    Down(String),
    /// The mail cannot be written, or the server will never take it.
    #[error("{0}")]
    Refused(String),
}

/// Hands mails over.
pub struct Mailer {
    from: Mailbox,
    host: Box<str>,
    transport: Transport,
}

enum Transport {
    Smtp(Smtp),
    Spool(Spool),
}

impl Mailer {
    /// Prepares the way that the settings name; nothing is connected or written yet. `host` is the host of the public URL.
    ///
    /// # Errors
    /// [`SendError::Down`] where the roots of certificates cannot be used.
    pub fn new(settings: &MailSettings, host: &str) -> Result<Self, SendError> {
        let transport = match &settings.transport {
            TransportSettings::Smtp(smtp) => Transport::Smtp(Smtp::new(smtp)?),
            TransportSettings::Spool(folder) => Transport::Spool(Spool::new(folder)),
        };
        Ok(Self {
            from: settings.from.clone(),
            host: host.into(),
            transport,
        })
    }

    /// Hands a mail over. When it is dropped half way, or the process ends, the mail may have been taken or not.
    ///
    /// # Errors
    /// [`SendError`] by variant; never with a part of the mail in it.
    pub async fn send(&self, letter: &Letter<'_>, now: SystemTime) -> Result<(), SendError> {
        let message = self.message(letter, now)?;
        match &self.transport {
            Transport::Smtp(smtp) => smtp.send(message).await,
            Transport::Spool(spool) => spool.write(letter.id, message.formatted()).await,
        }
    }

    /// The mail as RFC 5322 has it.
    fn message(&self, letter: &Letter<'_>, now: SystemTime) -> Result<Message, SendError> {
        let unfit = |what| SendError::Refused(format!("the {what} cannot be written"));
        let recipient: Address = letter.recipient.parse().map_err(|_| unfit("recipient"))?;
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, recipient))
            .subject(letter.text.subject.clone())
            .date(now)
            .message_id(Some(format!("<{}@{}>", letter.id, self.host)))
            // RFC 3834 §5.1: no answering machine shall answer.
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN)
            .body(body(&letter.text.body))
            .map_err(|_| unfit("mail"))
    }
}

/// Plain as it is where that can be: a link of more than 76 characters would be cut into lines otherwise, and not every program
/// that takes mails out of a folder puts it together again. Lines of ours are far shorter than 998 bytes (RFC 5322 §2.1.1).
fn body(text: &str) -> Body {
    let plain = |byte: u8| byte == b'\n' || (b' '..=b'~').contains(&byte);
    if text.bytes().all(plain) {
        let lines = text.replace('\n', "\r\n").into_bytes();
        Body::dangerous_pre_encoded(lines, ContentTransferEncoding::SevenBit)
    } else {
        Body::new(text.to_owned())
    }
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailer")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
