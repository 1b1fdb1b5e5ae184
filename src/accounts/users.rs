//! Names, addresses and roles: one canonical form of each, and the operations over accounts.
//!
//! A user name is 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit; capitals are read as small letters. An
//! address is one plain ASCII mailbox, read as small letters. Both alphabets are closed on purpose: two names that look alike
//! or fold alike cannot both exist (AUTH-6), and as no name has an `@`, one field can take either.

use super::{
    AccountError, Accounts, Actor,
    administration::{About, audit},
    passwords::Password,
};
use crate::store::{Act, Ending, User, UserChange, UserEdit, UserKey};

const NAME_BYTES_MAX: usize = 64;
const EMAIL_BYTES_MAX: usize = 254; // RFC 5321 §4.5.3.1.3, less the angle brackets
const LOCAL_BYTES_MAX: usize = 64; // RFC 5321 §4.5.3.1.1
const LABEL_BYTES_MAX: usize = 63; // RFC 1035 §2.3.4
const DISPLAY_CHARS_MAX: usize = 128;
const ROLES_MAX: usize = 32;

/// Names that backends give rights to by themselves, or that people take for the site's own. Whoever registers himself gets none of
/// them; an administrator or operator gives them to whom he will.
const SITE_NAMES: [&str; 16] = [
    "abuse",
    "admin",
    "administrator",
    "anonymous",
    "hostmaster",
    "portcullis",
    "postmaster",
    "root",
    "security",
    "superadmin",
    "superuser",
    "support",
    "sysadmin",
    "system",
    "webmaster",
    "www-data",
];

/// An account to be made.
#[derive(Debug, Clone)]
pub struct NewUser<'a> {
    /// The name, in any case.
    pub username: &'a str,
    /// The address, in any case.
    pub email: &'a str,
    /// For display.
    pub name: Option<&'a str>,
    /// The password.
    pub password: Password,
    /// Words of 1 to 64 of `A-Z a-z 0-9 . _ : / -`, at most 32.
    pub roles: &'a [String],
}

/// What becomes of a change after which nobody could administer accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastAdmin {
    /// It is refused.
    Stays,
    /// It is done all the same.
    MayGo,
}

impl Accounts {
    /// Adds an account, which may sign in at once.
    ///
    /// # Errors
    /// [`AccountError`] by what is wrong with the input; [`AccountError::Exists`] where the name or the address is taken.
    pub async fn add_user(&self, new: NewUser<'_>) -> Result<User, AccountError> {
        let username = canonical_username(new.username).ok_or(AccountError::NameInvalid)?;
        let email = canonical_email(new.email).ok_or(AccountError::EmailInvalid)?;
        let name = new.name.map(display_name).transpose()?;
        let roles = checked_roles(new.roles)?;
        let words = [&*username, &*email, self.settings.host()];
        let password = self.passwords.hash(new.password, &words).await?;
        let now = self.clock.now();
        let user = User {
            id: uuid::Uuid::new_v4().to_string().into(),
            username,
            email: Some(email),
            name,
            password: Some(password),
            roles,
            disabled: false,
            pending: false,
            unlocks: 0,
            epoch: 1,
            created_at: now,
            updated_at: now,
        };
        self.store.add_user(user.clone()).await?;
        audit(
            "user_added",
            Actor::Operator,
            About::User(&user.id),
            &user.roles.join(","),
        );
        Ok(user)
    }

    /// Finds an account by its name or its address.
    ///
    /// # Errors
    /// [`AccountError::NotFound`]; [`AccountError::Store`].
    pub async fn user(&self, name: &str) -> Result<User, AccountError> {
        let key = user_key(name).ok_or(AccountError::NotFound)?;
        let user = self.store.find_user(key).await?;
        user.ok_or(AccountError::NotFound)
    }

    /// Accounts by name, at most `limit`, beginning after the name `after` (empty: the first).
    ///
    /// # Errors
    /// [`AccountError::Store`].
    pub async fn users(&self, after: &str, limit: u32) -> Result<Vec<User>, AccountError> {
        Ok(self.store.users(after.into(), limit).await?)
    }

    /// Gives an account a new password and ends its sessions.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], or by what is wrong with the password.
    pub async fn set_password(&self, name: &str, password: Password) -> Result<(), AccountError> {
        let user = self.user(name).await?;
        let hash = self.passwords.hash(password, &self.words(&user)).await?;
        self.change(&user, UserChange::Password(hash)).await?;
        audit("password_set", Actor::Operator, About::User(&user.id), "");
        Ok(())
    }

    /// Gives an account other roles and ends its sessions: the old ones are written in tokens that are out.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::RoleInvalid`], [`AccountError::LastAdmin`].
    pub async fn set_roles(
        &self,
        name: &str,
        roles: &[String],
        last: LastAdmin,
    ) -> Result<(), AccountError> {
        let roles = checked_roles(roles)?;
        let user = self.user(name).await?;
        let what = roles.join(",");
        let edit = UserEdit {
            roles: Some(roles.clone()),
            ..UserEdit::default()
        };
        let act = Act::EditUser(user.id.clone(), Box::new(edit));
        self.remove(&user, act, UserChange::Roles(roles), last)
            .await?;
        audit("roles_set", Actor::Operator, About::User(&user.id), &what);
        Ok(())
    }

    /// Shuts an account and ends its sessions.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::LastAdmin`].
    pub async fn disable_user(&self, name: &str, last: LastAdmin) -> Result<(), AccountError> {
        let user = self.user(name).await?;
        let edit = UserEdit {
            disabled: Some(true),
            ..UserEdit::default()
        };
        let act = Act::EditUser(user.id.clone(), Box::new(edit));
        self.remove(&user, act, UserChange::Disabled(true), last)
            .await?;
        audit("user_disabled", Actor::Operator, About::User(&user.id), "");
        Ok(())
    }

    /// Opens an account that was shut.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn enable_user(&self, name: &str) -> Result<(), AccountError> {
        let user = self.user(name).await?;
        self.change(&user, UserChange::Disabled(false)).await?;
        audit("user_enabled", Actor::Operator, About::User(&user.id), "");
        Ok(())
    }

    /// Gives an account whose password somebody guesses at a new budget of attempts, on every node. Ends no session, and opens no
    /// account that is shut.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn unlock(&self, name: &str) -> Result<(), AccountError> {
        let user = self.user(name).await?;
        match self.store.unlock_user(user.id.clone()).await? {
            true => {
                audit("user_unlocked", Actor::Operator, About::User(&user.id), "");
                Ok(())
            }
            false => Err(AccountError::NotFound),
        }
    }

    /// Erases an account and ends its sessions. Its name stays taken, so that nobody inherits what backends know of it.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::LastAdmin`].
    pub async fn delete_user(&self, name: &str, last: LastAdmin) -> Result<(), AccountError> {
        let user = self.user(name).await?;
        let act = Act::DeleteUser(user.id.clone());
        self.remove(&user, act, UserChange::Delete, last).await?;
        audit("user_deleted", Actor::Operator, About::User(&user.id), "");
        Ok(())
    }

    /// Ends every session of an account, and says how many those were.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn end_sessions_of(&self, name: &str) -> Result<usize, AccountError> {
        let user = self.user(name).await?;
        let ended = self.end(Ending::AllOf { user_id: user.id }).await?;
        Ok(ended.len())
    }

    /// What a password of this account may not be made of.
    pub(super) fn words<'a>(&'a self, user: &'a User) -> [&'a str; 4] {
        let email = user.email.as_deref().unwrap_or_default();
        let name = user.name.as_deref().unwrap_or_default();
        [&user.username, email, name, self.settings.host()]
    }

    /// Makes a change that may take an administrator away: as an act of administration, in whose transaction the store spares the
    /// last one, for another node may be removing the other one; or as the same change that spares nobody.
    async fn remove(
        &self,
        user: &User,
        act: Act,
        change: UserChange,
        last: LastAdmin,
    ) -> Result<(), AccountError> {
        match last {
            LastAdmin::Stays => self.act(Actor::Operator, act).await,
            LastAdmin::MayGo => self.change(user, change).await,
        }
    }

    async fn change(&self, user: &User, change: UserChange) -> Result<(), AccountError> {
        let ended = self
            .store
            .change_user(user.id.clone(), change, self.times())
            .await?
            .ok_or(AccountError::NotFound)?;
        self.forget(&ended);
        Ok(())
    }
}

/// The key of what was typed into a field that takes a name or an address; `None`: no account can have it.
pub(super) fn user_key(typed: &str) -> Option<UserKey> {
    if typed.contains('@') {
        canonical_email(typed).map(UserKey::Email)
    } else {
        canonical_username(typed).map(UserKey::Username)
    }
}

/// The one form of a user name.
#[must_use]
pub fn canonical_username(text: &str) -> Option<Box<str>> {
    let name = text.to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(plain)
        && name
            .bytes()
            .all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'));
    fits.then(|| name.into())
}

/// Whether a user name, in any case, is one that nobody gets who registers himself.
#[must_use]
pub fn is_site_name(text: &str) -> bool {
    SITE_NAMES
        .iter()
        .any(|name| text.eq_ignore_ascii_case(name))
}

/// The one form of an address: a dot-atom (RFC 5322 §3.2.3), `@`, and a host name of two labels or more.
#[must_use]
pub fn canonical_email(text: &str) -> Option<Box<str>> {
    let email = text.to_ascii_lowercase();
    let (local, domain) = email.split_once('@')?;
    let atom = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte))
    };
    let label = |part: &str| {
        (1..=LABEL_BYTES_MAX).contains(&part.len())
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let fits = email.len() <= EMAIL_BYTES_MAX
        && local.len() <= LOCAL_BYTES_MAX
        && local.split('.').all(atom)
        && domain.contains('.')
        && domain.split('.').all(label);
    fits.then(|| email.into())
}

pub(super) fn display_name(text: &str) -> Result<Box<str>, AccountError> {
    // Ends of lines and changes of direction that reach beyond the name: in a list or a terminal they would rewrite what is beside it.
    let reaches_out = |char: char| {
        char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let fits = !text.trim().is_empty()
        && text.chars().count() <= DISPLAY_CHARS_MAX
        && !text.chars().any(reaches_out);
    if fits {
        Ok(text.into())
    } else {
        Err(AccountError::DisplayNameInvalid)
    }
}

pub(super) fn checked_roles(roles: &[String]) -> Result<Vec<Box<str>>, AccountError> {
    let word = |role: &String| {
        (1..=64).contains(&role.len())
            && role.bytes().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-')
            })
    };
    if roles.len() > ROLES_MAX || !roles.iter().all(word) {
        return Err(AccountError::RoleInvalid);
    }
    let mut unique: Vec<Box<str>> = Vec::with_capacity(roles.len());
    for role in roles {
        if !unique.iter().any(|known| **known == **role) {
            unique.push(role.as_str().into());
        }
    }
    Ok(unique)
}
