//! What mails say: every text, in one place, so that it can be read and translated as one.
//!
//! Texts are plain, without a remote picture or a styled link. What comes from outside goes through [`plain`], so that nobody
//! can add lines of his own to a mail that bears our name.

use std::time::Duration;

/// What a mail is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A password was changed or reset: whoever did not do it must know.
    PasswordChanged,
    /// A link that sets a new password.
    PasswordReset,
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
    pub(super) const ALL: [Self; 2] = [Self::PasswordChanged, Self::PasswordReset];

    /// The word for it in the store, the log and the documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PasswordChanged => "password_changed",
            Self::PasswordReset => "password_reset",
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
            Self::PasswordChanged => None,
            Self::PasswordReset => Some("/password/reset?token="),
        }
    }

    /// What the mail says.
    #[must_use]
    pub fn text(self, facts: &Facts<'_>) -> Text {
        let site = plain(facts.site);
        let username = plain(facts.username);
        let at = plain(facts.at);
        let from = facts.client.map(plain);
        let from = from.map_or_else(String::new, |client| format!(" from the address {client}"));
        match self {
            Self::PasswordChanged => Text {
                subject: format!("Your password at {site} was changed"),
                body: format!(
                    "Hello {username},\n\n\
                     the password of your account at {site} was changed on {at}{from}.\n\n\
                     If that was you, there is nothing to do.\n\n\
                     If it was not, somebody else may have your account: ask for a new password at\n\
                     once, where you sign in, and tell whoever runs {site}.\n"
                ),
            },
            Self::PasswordReset => {
                let (link, ttl) = facts.link.unwrap_or_default();
                let minutes = ttl.as_secs().div_ceil(60);
                Text {
                    subject: format!("A new password for {site}"),
                    body: format!(
                        "Hello {username},\n\n\
                         on {at} somebody{from} asked for a new password for your account at {site}.\n\
                         This link sets one. It works once, for {minutes} minutes:\n\n\
                         {link}\n\n\
                         If it was not you, there is nothing to do: your password stays as it is, as long\n\
                         as nobody else has this mail.\n"
                    ),
                }
            }
        }
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
