//! What mails say: every text, in one place, so that it can be read and translated as one.
//!
//! Texts are plain, without a remote picture or a styled link. What comes from outside goes through [`plain`], so that nobody
//! can add lines of his own to a mail that bears our name.

use std::time::Duration;

/// What a mail is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody wants an account for an address that has one.
    AccountExists,
    /// An account has another address: told to the old one.
    EmailChanged,
    /// A link by which somebody who was invited makes an account.
    Invitation,
    /// The name that somebody wants to register is taken. Not a word of whose it is.
    NameTaken,
    /// A password was changed or reset: whoever did not do it must know.
    PasswordChanged,
    /// A link that sets a new password.
    PasswordReset,
    /// A link that finishes a registration. Which of the texts about registrations is sent is decided when it is sent.
    Registration,
}

/// What a text is made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The host of the public URL.
    pub site: &'a str,
    /// Whom it greets.
    pub username: &'a str,
    /// Where the request came from, if it is known.
    pub client: Option<&'a str>,
    /// When, in UTC.
    pub at: &'a str,
    /// The whole link and how long it works, where there is one.
    pub link: Option<(&'a str, Duration)>,
}

/// Subject and body of a mail.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// One line.
    pub subject: String,
    /// Lines that end with a line feed.
    pub body: String,
}

impl Purpose {
    pub(super) const ALL: [Self; 7] = [
        Self::AccountExists,
        Self::EmailChanged,
        Self::Invitation,
        Self::NameTaken,
        Self::PasswordChanged,
        Self::PasswordReset,
        Self::Registration,
    ];

    /// The word for it in the store, the log and the documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccountExists => "account_exists",
            Self::EmailChanged => "email_changed",
            Self::Invitation => "invitation",
            Self::NameTaken => "name_taken",
            Self::PasswordChanged => "password_changed",
            Self::PasswordReset => "password_reset",
            Self::Registration => "registration",
        }
    }

    /// The purpose of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }

    /// Where its link leads, below the prefix of the account routes; `None` where it has none.
    #[must_use]
    pub const fn link(self) -> Option<&'static str> {
        match self {
            Self::AccountExists | Self::EmailChanged | Self::NameTaken | Self::PasswordChanged => {
                None
            }
            Self::Invitation => Some("/register?invite="),
            Self::PasswordReset => Some("/password/reset?token="),
            Self::Registration => Some("/register/verify?token="),
        }
    }

    /// What the mail says.
    #[must_use]
    #[expect(
        clippy::too_many_lines,
        reason = "every text of a mail, one after the other, and nothing else"
    )]
    pub fn text(self, facts: &Facts<'_>) -> Text {
        let site = plain(facts.site);
        let (username, at) = (plain(facts.username), plain(facts.at));
        let client = facts.client.map(plain);
        let from = client.map_or_else(String::new, |client| format!(" from the address {client}"));
        let (link, ttl) = facts.link.unwrap_or_default();
        let life = span(ttl);
        let (subject, body) = match self {
            Self::AccountExists => (
                format!("You have an account at {site} already"),
                format!(
                    "Hello {username},\n\n\
                     on {at} somebody{from} asked for a new account at {site} with your address.\n\
                     You have one already, so none was made. Its user name is the one above.\n\n\
                     If that was you, sign in, or ask for a new password where you sign in. If it\n\
                     was not you, there is nothing to do.\n"
                ),
            ),
            Self::EmailChanged => (
                format!("The address of your account at {site} was changed"),
                format!(
                    "Hello {username},\n\n\
                     on {at} an administrator gave your account at {site} another e-mail address.\n\
                     This one is no longer part of it.\n\n\
                     If you do not know why, ask whoever runs {site}.\n"
                ),
            ),
            Self::Invitation => (
                format!("You are invited to {site}"),
                format!(
                    "Hello,\n\n\
                     on {at} you were invited to make an account at {site}, with this address.\n\
                     Choose a name and a password where this link leads. It works once, for {life}:\n\n\
                     {link}\n\n\
                     If you do not know why, there is nothing to do: without the link there is no\n\
                     account.\n"
                ),
            ),
            Self::NameTaken => (
                format!("Your account at {site} needs another name"),
                format!(
                    "Hello,\n\n\
                     on {at} somebody{from} asked for an account at {site} with this address and the\n\
                     user name {username}. That name is taken, so no account was made.\n\n\
                     If that was you, register again with another name. If it was not you, there is\n\
                     nothing to do.\n"
                ),
            ),
            Self::PasswordChanged => (
                format!("Your password at {site} was changed"),
                format!(
                    "Hello {username},\n\n\
                     the password of your account at {site} was changed on {at}{from}.\n\n\
                     If that was you, there is nothing to do.\n\n\
                     If it was not, somebody else may have your account: ask for a new password at\n\
                     once, where you sign in, and tell whoever runs {site}.\n"
                ),
            ),
            Self::PasswordReset => (
                format!("A new password for {site}"),
                format!(
                    "Hello {username},\n\n\
                     on {at} somebody{from} asked for a new password for your account at {site}.\n\
                     This link sets one. It works once, for {life}:\n\n\
                     {link}\n\n\
                     If it was not you, there is nothing to do: your password stays as it is, as long\n\
                     as nobody else has this mail.\n"
                ),
            ),
            Self::Registration => (
                format!("Confirm your account at {site}"),
                format!(
                    "Hello {username},\n\n\
                     on {at} somebody{from} asked for an account\n\
                     at {site} with this address. This link makes it, with the password that was\n\
                     chosen then. It works once, for {life}:\n\n\
                     {link}\n\n\
                     If it was not you, do not use it: without it there is no account.\n"
                ),
            ),
        };
        Text { subject, body }
    }
}

/// A life as people say it, the longer unit once there are two of it. No link is said to work longer than it does.
fn span(life: Duration) -> String {
    let minutes = life.as_secs() / 60;
    match (minutes / (24 * 60), minutes / 60) {
        (days @ 2.., _) => format!("{days} days"),
        (_, hours @ 2..) => format!("{hours} hours"),
        _ => format!("{} minutes", minutes.max(1)),
    }
}

/// One line of text: controls, line breaks of every script and marks that change the direction of writing are taken out.
fn plain(text: &str) -> String {
    let harmless = |char: &char| {
        !char.is_control()
            && !matches!(
                *char,
                '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}'
            )
            && !matches!(*char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(harmless).collect()
}

impl std::fmt::Debug for Text {
    /// The body may hold a link that works.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}
