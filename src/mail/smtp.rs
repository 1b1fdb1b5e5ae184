//! To a mail server (RFC 5321, RFC 6409): its certificate verified, every phase under a deadline.

use std::{error::Error, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    transport::smtp::{
        self, PoolConfig,
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
    },
};

use super::{
    SendError,
    settings::{Encryption, SmtpSettings},
};

/// One step of the conversation, the connection among them.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// The whole conversation.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Connections at once. Mails are few and small.
const CONNECTIONS_MAX: u32 = 4;

/// How long a connection is kept for the next mail.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// Answers that speak of us and not of the mail: no login, or none that is good (RFC 4954 §6).
const LOGIN_CODES: [u16; 4] = [530, 534, 535, 538];

/// Answers that speak of the server and not of the mail: it closes, or cannot encrypt or let anybody in now.
const SERVER_CODES: [u16; 2] = [421, 454];

pub(super) struct Smtp(AsyncSmtpTransport<Tokio1Executor>);

impl Smtp {
    pub(super) fn new(settings: &SmtpSettings) -> Result<Self, SendError> {
        let pool = PoolConfig::new()
            .max_size(CONNECTIONS_MAX)
            .idle_timeout(IDLE_MAX);
        let tls = match settings.encryption {
            Encryption::Implicit => Tls::Wrapper(parameters(settings)?),
            Encryption::None => Tls::None,
            Encryption::StartTls => Tls::Required(parameters(settings)?),
        };
        // `dangerous`, for it begins without encryption; what there is of it is set here.
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&*settings.host)
            .port(settings.port)
            .timeout(Some(STEP_TIMEOUT))
            .pool_config(pool)
            .tls(tls);
        if let Some((user, password)) = &settings.login {
            let (user, password) = (user.to_string(), password.to_string());
            builder = builder.credentials(Credentials::new(user, password));
        }
        Ok(Self(builder.build()))
    }

    pub(super) async fn send(&self, message: Message) -> Result<(), SendError> {
        match tokio::time::timeout(TIMEOUT, self.0.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) => Err(SendError::Down("the server is too slow".to_owned())),
        }
    }
}

fn parameters(settings: &SmtpSettings) -> Result<TlsParameters, SendError> {
    let failed = |error: smtp::Error| SendError::Down(chain(&error));
    let mut builder = TlsParameters::builder(settings.host.to_string());
    if let Some(roots) = &settings.ca {
        builder = builder.certificate_store(CertificateStore::None);
        for root in roots {
            let root = Certificate::from_der(root.to_vec()).map_err(failed)?;
            builder = builder.add_root_certificate(root);
        }
    }
    builder.build_rustls().map_err(failed)
}

/// Whose fault it is. Of an answer only the code is kept: its text may quote what we sent.
fn classify(error: &smtp::Error) -> SendError {
    let Some(code) = error.status().map(u16::from) else {
        return SendError::Down(if error.is_response() {
            "the server does not speak SMTP".to_owned()
        } else {
            chain(error)
        });
    };
    let answered = format!("the server answered {code}");
    if LOGIN_CODES.contains(&code) || SERVER_CODES.contains(&code) {
        SendError::Down(answered)
    } else if error.is_permanent() {
        SendError::Refused(answered)
    } else {
        SendError::Deferred(code)
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
