//! Mail that is never lost: it is queued in the store and sent from there, off the way of every request.
//!
//! A mail is taken out of the queue only after it was handed over, so what a crash interrupts is sent again: at least once, and
//! twice only where the process ended between the server's yes and the store's. Both then bear one `Message-ID`. One
//! process has a mail in hand at a time. A link's token is made when its mail is sent and never kept: neither the queue nor
//! any copy of the database gives it (RST-2), and the link's time begins when it is on its way.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::Notify;

use super::{AccountError, Accounts, LIMIT_KEYS_MAX};
use crate::{
    cluster::{ClientLimiter, Cluster, SharedLimiter},
    limit::settings::Quota,
    mail::{MailSettings, Purpose},
    policy::Rejection,
    store::{Beyond, NewMail, Queued},
};

/// Requests for mail, those for nobody among them, for each mail that the total allows: what they leave in the store is bounded
/// by that.
const ASKED_PER_MAIL: u32 = 10;

/// What accounts need to queue mail.
pub(super) struct Outbox {
    pub(super) settings: MailSettings,
    pub(super) wake: Notify,
    per_ip: ClientLimiter,
    asked: SharedLimiter,
}

/// A mail to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    /// What it is about.
    pub purpose: Purpose,
    /// A canonical address.
    pub recipient: &'a str,
    /// Whom it greets; `None`: whose address it is when it is sent.
    pub username: Option<&'a str>,
    /// Where the request came from; `None`: from here.
    pub client: Option<IpAddr>,
}

impl Outbox {
    /// A /48 of IPv6 has what `site_factor` clients have.
    pub(super) fn new(
        settings: &MailSettings,
        site_factor: u32,
        cluster: Option<&Arc<Cluster>>,
    ) -> Self {
        let asked = Quota {
            count: settings.total.count.saturating_mul(ASKED_PER_MAIL),
            burst: settings.total.burst.saturating_mul(ASKED_PER_MAIL),
            ..settings.total
        };
        Self {
            settings: settings.clone(),
            wake: Notify::new(),
            per_ip: ClientLimiter::new(
                ["mail_per_ip", "mail_per_network"],
                settings.per_ip,
                site_factor,
                LIMIT_KEYS_MAX,
                cluster.cloned(),
            ),
            asked: SharedLimiter::new("mail_total", asked, 1, cluster.cloned()),
        }
    }
}

impl Accounts {
    /// Whether mail is on.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.outbox.is_some()
    }

    /// Charges a client for a mail that it asks for, before anything is known of the recipient.
    ///
    /// # Errors
    /// [`Rejection::RateLimited`]; [`Rejection::RouteNotFound`] where mail is off.
    pub async fn charge_for_mail(&self, client: IpAddr) -> Result<(), Rejection> {
        let outbox = self.outbox.as_ref().ok_or(Rejection::RouteNotFound)?;
        outbox
            .per_ip
            .check(client)
            .await
            .map_err(Rejection::RateLimited)?;
        outbox.asked.check("").await.map_err(Rejection::RateLimited)
    }

    /// Queues a mail. Every path that sends mail goes through here, or with what it tells of through one transaction, and so through one budget
    /// (RST-4): at most 3 an hour and 10 a day for a recipient, and the total of the configuration. What is beyond it is not
    /// an error, for whoever asks shall not learn of it.
    ///
    /// # Errors
    /// [`AccountError::Store`]; nothing is queued then.
    pub async fn send_mail(&self, mail: Mail<'_>) -> Result<(), AccountError> {
        let Some(new) = self.notice(mail) else {
            return Ok(());
        };
        let purpose = new.purpose;
        let queued = self.store.queue_mail(new, self.clock.now()).await?;
        self.heed(queued, purpose, mail.client);
        Ok(())
    }

    /// Writes down what became of a mail, and lets the sending task look at the queue.
    pub(super) fn heed(&self, queued: Queued, purpose: &str, client: Option<IpAddr>) {
        match queued {
            Queued::Yes | Queued::Waits => {}
            Queued::OverBudget => {
                let client = client.map(tracing::field::display);
                tracing::info!(target: "audit", event = "mail_over_budget", purpose, client);
            }
            Queued::Full => {
                tracing::error!(
                    event = "mail_queue_full",
                    purpose,
                    "the queue of mails is full"
                );
            }
        }
        self.mail_was_queued();
    }

    /// A mail as the store queues it, for a transaction that does more; `None` where mail is off.
    pub(super) fn notice(&self, mail: Mail<'_>) -> Option<NewMail> {
        let total = self.outbox.as_ref()?.settings.total;
        Some(NewMail {
            message_id: uuid::Uuid::new_v4().to_string().into(),
            purpose: mail.purpose.name(),
            recipient: mail.recipient.into(),
            username: mail.username.map(Into::into),
            client: mail.client.map(|client| client.to_string().into()),
            beyond: match mail.purpose {
                // Who could use up the budget could otherwise keep its owner from hearing of it.
                Purpose::EmailChanged | Purpose::PasswordChanged => Beyond::Delay,
                Purpose::AccountExists
                | Purpose::Invitation
                | Purpose::NameTaken
                | Purpose::PasswordReset
                | Purpose::Registration => Beyond::Drop,
            },
            total: (total.count, total.window),
        })
    }

    /// Lets the sending task look at the queue now.
    pub(super) fn mail_was_queued(&self) {
        if let Some(outbox) = &self.outbox {
            outbox.wake.notify_one();
        }
    }
}
