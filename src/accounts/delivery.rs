//! Sends what is queued: a task on the control runtime, which owns what is under way.
//!
//! One process has a mail in hand at a time. One that cannot be sent is tried again later, less and less often; a server that is
//! down is tried with one mail, after a wait for all. Nothing here is ever waited for by a request.

mod said;

use std::{
    sync::{Arc, Weak},
    time::{Duration, UNIX_EPOCH},
};

use tokio::{
    runtime::Handle,
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{Accounts, seconds};
use crate::{
    jitter,
    mail::{Facts, Letter, Mailer, Purpose, SendError},
    store::{Claim, MailStatus, QueuedMail, StoreError},
    telemetry::{MailResult, Telemetry},
};

/// How often the queue is looked at; what is queued here is looked at at once.
const POLL_PERIOD: Duration = Duration::from_secs(1);

/// Mails under way at once.
const SENDING_MAX: usize = 4;

/// How long a process has a mail in hand: longer than sending one may take.
const CLAIM_SECONDS: u64 = 90;

/// The first wait before a mail is tried again; each is twice the last.
const RETRY_FIRST: Duration = Duration::from_secs(2);

/// The longest wait before a mail is tried again.
const RETRY_MAX: Duration = Duration::from_secs(15 * 60);

/// The longest wait before a server that could not be reached is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A link is not sent later than this after it was asked for: nobody waits for it any more.
pub(super) const LINK_GIVE_UP: Duration = Duration::from_secs(3600);

/// Batches of mails for nobody that are taken out in a row: together as many as wait.
const DROPS_MAX: usize = 20;

/// How long mails under way are waited for at the end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The task that sends. Dropping this stops it, and whatever is under way.
#[derive(Debug)]
pub struct Delivery {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Accounts {
    /// Starts to send what is queued, until the answer is stopped or dropped; `None` where mail is off.
    #[must_use]
    pub fn deliver(
        self: &Arc<Self>,
        runtime: &Handle,
        telemetry: Arc<Telemetry>,
    ) -> Option<Delivery> {
        self.outbox.as_ref()?;
        let stop = CancellationToken::new();
        let accounts = Arc::downgrade(self);
        let task = runtime.spawn(run(accounts, telemetry, stop.clone()));
        Some(Delivery { stop, task })
    }

    /// One attempt at a mail that is in hand.
    async fn attempt(&self, mailer: &Mailer, mail: &QueuedMail) -> Result<Attempt, StoreError> {
        let Some(outbox) = &self.outbox else {
            return Ok(Attempt::Void);
        };
        let Some(purpose) = Purpose::named(&mail.purpose) else {
            return Ok(Attempt::Refused("its purpose is not known".to_owned()));
        };
        let now = seconds(self.settled().time);
        let late = |give_up: Duration| now > mail.first_due_at.saturating_add(give_up.as_secs());
        let give_up = outbox.settings.give_up;
        let over = match purpose {
            // Word of a change is worth an attempt however late, as after a long stop.
            Purpose::EmailChanged | Purpose::PasswordChanged => mail.attempts > 1 && late(give_up),
            // Nobody waits for it at a screen; its own end is looked at when its link is made.
            Purpose::Invitation => late(give_up),
            Purpose::AccountExists
            | Purpose::NameTaken
            | Purpose::PasswordReset
            | Purpose::Registration => late(give_up.min(LINK_GIVE_UP)),
        };
        if over {
            return Ok(Attempt::Refused("it could not be sent in time".to_owned()));
        }
        let Some(said) = self.said(purpose, mail).await? else {
            return Ok(Attempt::Void);
        };
        let link = said.link.as_ref().map(|(path, token, life)| {
            // From the configuration alone, whatever any request said of hosts (RST-1).
            let prefix = format!("{}{}", self.settings.issuer, self.settings.path);
            let link = format!("{prefix}{path}{}", token.reveal().as_str());
            (Zeroizing::new(link), *life)
        });
        let at = i64::try_from(mail.created_at).unwrap_or_default();
        let at = jiff::Timestamp::from_second(at).unwrap_or_default();
        let facts = Facts {
            site: self.settings.host(),
            username: &said.username,
            client: mail.client.as_deref(),
            at: &at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            link: link.as_ref().map(|(link, life)| (link.as_str(), *life)),
        };
        let letter = Letter {
            id: &mail.message_id,
            recipient: &mail.recipient,
            text: said.purpose.text(&facts),
        };
        Ok(
            match mailer
                .send(&letter, UNIX_EPOCH + Duration::from_secs(now))
                .await
            {
                Ok(()) => Attempt::Sent,
                Err(error @ SendError::Deferred(_)) => Attempt::Deferred(error.to_string()),
                Err(SendError::Down(why)) => Attempt::Down(why),
                Err(SendError::Refused(why)) => Attempt::Refused(why),
            },
        )
    }
}

/// What came of an attempt.
enum Attempt {
    /// Not now, this one.
    Deferred(String),
    /// Not now, none.
    Down(String),
    /// Never.
    Refused(String),
    /// It was handed over.
    Sent,
    /// There is nobody to send it to.
    Void,
}

/// The state of the sending task.
struct Sender {
    mailer: Arc<Mailer>,
    telemetry: Arc<Telemetry>,
    under_way: JoinSet<Option<bool>>,
    /// Attempts in a row that found the server down.
    failures: u32,
    paused_until: Instant,
}

async fn run(accounts: Weak<Accounts>, telemetry: Arc<Telemetry>, stop: CancellationToken) {
    let Some(mailer) = mailer(&accounts) else {
        return;
    };
    let mut sender = Sender {
        mailer: Arc::new(mailer),
        telemetry,
        under_way: JoinSet::new(),
        failures: 0,
        paused_until: Instant::now(),
    };
    loop {
        let Some(accounts) = accounts.upgrade() else {
            return;
        };
        sender.fill(&accounts).await;
        let Some(outbox) = &accounts.outbox else {
            return;
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = sender.under_way.join_next() => sender.heard(ended.unwrap_or(None)),
            () = outbox.wake.notified() => {}
            () = tokio::time::sleep(POLL_PERIOD) => {}
        }
    }
    let rest = async { while sender.under_way.join_next().await.is_some() {} };
    // What does not end in time is sent by whoever comes next, once its claim is over.
    let _ = tokio::time::timeout(STOP_PATIENCE, rest).await;
}

fn mailer(accounts: &Weak<Accounts>) -> Option<Mailer> {
    let accounts = accounts.upgrade()?;
    let settings = accounts.settings.mail.as_ref()?;
    match Mailer::new(settings, accounts.settings.host()) {
        Ok(mailer) => Some(mailer),
        Err(error) => {
            tracing::error!(event = "mail_off", %error, "no mail can be sent; those queued wait for the next start");
            None
        }
    }
}

impl Sender {
    /// Takes as many mails in hand as there is room for.
    async fn fill(&mut self, accounts: &Arc<Accounts>) {
        let status = self.look(accounts).await;
        let room = match self.failures {
            0 => SENDING_MAX.saturating_sub(self.under_way.len()),
            // A server that was down is tried with one mail.
            _ if self.under_way.is_empty() && Instant::now() >= self.paused_until => 1,
            _ => 0,
        };
        let (true, Ok(count @ 1..)) = (
            status.is_some_and(|status| status.due > 0),
            u32::try_from(room),
        ) else {
            return;
        };
        let now = accounts.clock.now();
        let claim = Claim {
            count,
            until: now.saturating_add(CLAIM_SECONDS),
            now,
        };
        for mail in accounts.store.claim_mail(claim).await.unwrap_or_default() {
            let accounts = Arc::clone(accounts);
            let mailer = Arc::clone(&self.mailer);
            let telemetry = Arc::clone(&self.telemetry);
            self.under_way
                .spawn(async move { one(&accounts, &mailer, &telemetry, mail).await });
        }
    }

    /// Looks at the queue, and takes out what is for nobody: that needs no server. A store that fails is told of elsewhere, and
    /// looked at again soon.
    async fn look(&self, accounts: &Accounts) -> Option<MailStatus> {
        let store = &accounts.store;
        let mut status = store.mail_status(accounts.clock.now()).await.ok()?;
        if status.due > 0 {
            let reset = Purpose::PasswordReset.name();
            let mut dropped = 0;
            for _ in 0..DROPS_MAX {
                match store.drop_mail_to_nobody(reset).await.ok()? {
                    0 => break,
                    more => dropped += more,
                }
            }
            if dropped > 0 {
                let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
                self.telemetry.mail(MailResult::Dropped, dropped);
                status = store.mail_status(accounts.clock.now()).await.ok()?;
            }
        }
        self.telemetry.mail_queued(status.queued);
        Some(status)
    }

    /// Notes whether the server was there, where an attempt tells.
    fn heard(&mut self, reached: Option<bool>) {
        match reached {
            None => {}
            Some(true) => {
                if self.failures > 0 {
                    tracing::info!(event = "mail_up", "mail can be sent again");
                }
                self.failures = 0;
            }
            Some(false) => {
                self.failures = self.failures.saturating_add(1);
                self.paused_until = Instant::now() + back_off(self.failures, PAUSE_MAX);
            }
        }
    }
}

/// Tries a mail and settles it; says whether the server was there, where that is known.
async fn one(
    accounts: &Accounts,
    mailer: &Mailer,
    telemetry: &Telemetry,
    mail: QueuedMail,
) -> Option<bool> {
    let (id, purpose, attempts) = (&*mail.message_id, &*mail.purpose, mail.attempts);
    // Without the store nothing is settled: the claim ends by itself.
    let attempt = accounts.attempt(mailer, &mail).await.ok()?;
    let (result, again, reached) = match attempt {
        Attempt::Sent => {
            tracing::info!(event = "mail_sent", mail = id, purpose, attempts);
            (MailResult::Sent, false, Some(true))
        }
        Attempt::Void => (MailResult::Dropped, false, None),
        Attempt::Refused(why) => {
            tracing::error!(event = "mail_given_up", mail = id, purpose, attempts, why);
            (MailResult::GivenUp, false, None)
        }
        Attempt::Deferred(why) => {
            tracing::warn!(event = "mail_failed", mail = id, purpose, attempts, why);
            (MailResult::Failed, true, Some(true))
        }
        Attempt::Down(why) => {
            tracing::warn!(event = "mail_failed", mail = id, purpose, attempts, why);
            (MailResult::Failed, true, Some(false))
        }
    };
    telemetry.mail(result, 1);
    let wait = back_off(u32::try_from(attempts).unwrap_or(u32::MAX), RETRY_MAX);
    let again_at = again.then(|| accounts.clock.now().saturating_add(wait.as_secs()));
    if let Err(error) = accounts.store.settle_mail(mail.id, again_at).await {
        tracing::error!(event = "mail_unsettled", mail = id, purpose, %error, "a mail may be sent twice");
    }
    reached
}

/// How long to wait after so many failures: twice as long each time, and of that a random part between half and all, so that
/// nodes do not come back together (FAULT-5).
fn back_off(failures: u32, most: Duration) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    jitter::half_to_all(RETRY_FIRST.saturating_mul(doubled).min(most))
}

impl Delivery {
    /// Takes no more mails in hand, and waits a few seconds for those under way.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_5_waits_double_have_jitter_and_an_end() {
        for (failures, least, most) in [
            (1, 1, 2),
            (2, 2, 4),
            (5, 16, 32),
            (20, 30, 60),
            (u32::MAX, 30, 60),
        ] {
            for _ in 0..50 {
                let wait = back_off(failures, PAUSE_MAX);
                let range = Duration::from_secs(least)..=Duration::from_secs(most);
                assert!(range.contains(&wait), "{failures}: {wait:?}");
            }
        }
        let waits: std::collections::HashSet<_> = (0..50).map(|_| back_off(9, PAUSE_MAX)).collect();
        assert!(waits.len() > 10);
    }
}
