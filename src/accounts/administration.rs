//! What administrators do with accounts. Each act is one transaction in which the store asks once more whether its actor is an
//! administrator, and in which the last one cannot go (AUTH-10).
//!
//! There is one role above all others, `admin`, and only its bearers come here: nobody grants a role above his own.

use super::{
    AccountError, Accounts,
    outbox::Mail,
    passwords::{Password, is_verifiable},
    users::{canonical_email, canonical_username, checked_roles, display_name},
};
use crate::{
    mail::Purpose,
    store::{Act, Acted, PasswordHash, User, UserEdit, UserKey},
};

/// On whose behalf something is done.
#[derive(Debug, Clone, Copy)]
pub enum Actor<'a> {
    /// An administrator, by `sub`.
    Administrator(&'a str),
    /// Whoever may run commands on the store, and so could do anything to it.
    Operator,
}

/// Whom or what an act is about, by id.
#[derive(Debug, Clone, Copy)]
pub(super) enum About<'a> {
    Invite(&'a str),
    User(&'a str),
}

/// An account that an administrator makes.
#[derive(Debug)]
pub struct NewAccount<'a> {
    /// The name, in any case.
    pub username: &'a str,
    /// The address, in any case.
    pub email: &'a str,
    /// For display.
    pub name: Option<&'a str>,
    /// `None`: nobody can sign in until it is set.
    pub password: Option<Password>,
    /// Words of 1 to 64 of `A-Z a-z 0-9 . _ : / -`, at most 32.
    pub roles: &'a [String],
}

/// An account of another program's, with its hash.
#[derive(Debug)]
pub struct ImportedUser<'a> {
    /// The name, in any case.
    pub username: &'a str,
    /// The address, in any case.
    pub email: &'a str,
    /// For display.
    pub name: Option<&'a str>,
    /// bcrypt, PBKDF2, scrypt or argon2; replaced when its owner signs in.
    pub hash: &'a str,
    /// Whether it is shut from the beginning.
    pub disabled: bool,
    /// Words, as in [`NewAccount`].
    pub roles: &'a [String],
    /// Whether nothing is to be written.
    pub dry_run: bool,
}

/// What an administrator changes; `None` stays as it is.
#[derive(Debug, Default)]
pub struct Edit<'a> {
    /// The address, in any case.
    pub email: Option<&'a str>,
    /// For display; `Some(None)`: none any more.
    pub name: Option<Option<&'a str>>,
    /// A new password.
    pub password: Option<Password>,
    /// All roles from now on.
    pub roles: Option<&'a [String]>,
    /// Whether every door is shut.
    pub disabled: Option<bool>,
}

impl Accounts {
    /// Finds an account by `sub`.
    ///
    /// # Errors
    /// [`AccountError::NotFound`]; [`AccountError::Store`].
    pub async fn user_by_id(&self, id: &str) -> Result<User, AccountError> {
        let user = self.store.find_user(UserKey::Id(id.into())).await?;
        user.ok_or(AccountError::NotFound)
    }

    /// Makes an account.
    ///
    /// # Errors
    /// [`AccountError`] by what is wrong with the input; [`AccountError::Exists`], [`AccountError::Forbidden`].
    pub async fn create_user(
        &self,
        actor: Actor<'_>,
        new: NewAccount<'_>,
    ) -> Result<User, AccountError> {
        let mut user = self.described(new.username, new.email, new.name)?;
        user.roles = checked_roles(new.roles)?;
        if let Some(password) = new.password {
            let hash = self.passwords.hash(password, &self.words(&user)).await?;
            user.password = Some(hash);
        }
        self.act(actor, Act::AddUser(Box::new(user.clone())))
            .await?;
        audit(
            "user_added",
            actor,
            About::User(&user.id),
            &user.roles.join(","),
        );
        Ok(user)
    }

    /// Changes an account, whose sessions then end, unless its display name alone is changed. Gives the account as it is then.
    ///
    /// # Errors
    /// [`AccountError`] by what is wrong with the input; [`AccountError::NotFound`], [`AccountError::Exists`],
    /// [`AccountError::LastAdmin`], [`AccountError::Forbidden`].
    pub async fn edit_user(
        &self,
        actor: Actor<'_>,
        id: &str,
        edit: Edit<'_>,
    ) -> Result<User, AccountError> {
        let name = match edit.name {
            Some(Some(name)) => Some(Some(display_name(name)?)),
            Some(None) => Some(None),
            None => None,
        };
        let email = edit
            .email
            .map(|email| canonical_email(email).ok_or(AccountError::EmailInvalid));
        let email = email.transpose()?;
        let roles = edit.roles.map(checked_roles).transpose()?;
        // Before anything is hashed for nobody.
        let user = self.user_by_id(id).await?;
        let password = match edit.password {
            Some(password) => Some(self.passwords.hash(password, &self.words(&user)).await?),
            None => None,
        };
        // Whoever had the old address learns that it is no longer the account's (AUTH-9).
        let old = user.email.as_deref();
        let old = old.filter(|old| email.as_deref().is_some_and(|new| new != *old));
        let notice = old.and_then(|recipient| {
            self.notice(Mail {
                purpose: Purpose::EmailChanged,
                recipient,
                username: Some(&user.username),
                client: None,
            })
        });
        let changes = UserEdit {
            notice,
            email,
            name,
            password,
            roles,
            disabled: edit.disabled,
        };
        let what = describe(&changes);
        self.act(actor, Act::EditUser(id.into(), Box::new(changes)))
            .await?;
        self.mail_was_queued();
        audit("user_changed", actor, About::User(id), &what);
        self.user_by_id(id).await
    }

    /// Erases an account and ends its sessions; its name stays taken.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::LastAdmin`], [`AccountError::Forbidden`].
    pub async fn erase_user(&self, actor: Actor<'_>, id: &str) -> Result<(), AccountError> {
        self.act(actor, Act::DeleteUser(id.into())).await?;
        audit("user_deleted", actor, About::User(id), "");
        Ok(())
    }

    /// Ends every session of an account.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::Forbidden`].
    pub async fn sign_out(&self, actor: Actor<'_>, id: &str) -> Result<(), AccountError> {
        self.act(actor, Act::EndSessions(id.into())).await?;
        audit("user_logged_out", actor, About::User(id), "");
        Ok(())
    }

    /// Takes over an account of another program, by an operator's command.
    ///
    /// # Errors
    /// [`AccountError::HashUnknown`] for a hash that could never be verified; by what is wrong with the input;
    /// [`AccountError::Exists`].
    pub async fn import_user(&self, new: ImportedUser<'_>) -> Result<User, AccountError> {
        let mut user = self.described(new.username, new.email, new.name)?;
        user.disabled = new.disabled;
        user.roles = checked_roles(new.roles)?;
        if !is_verifiable(new.hash) {
            return Err(AccountError::HashUnknown);
        }
        user.password = Some(PasswordHash(new.hash.into()));
        if new.dry_run {
            let email = user.email.clone().ok_or(AccountError::Internal)?;
            for key in [
                UserKey::Username(user.username.clone()),
                UserKey::Email(email),
            ] {
                if self.store.find_user(key).await?.is_some() {
                    return Err(AccountError::Exists);
                }
            }
            return Ok(user);
        }
        let add = Act::AddUser(Box::new(user.clone()));
        self.act(Actor::Operator, add).await?;
        audit(
            "user_imported",
            Actor::Operator,
            About::User(&user.id),
            &user.roles.join(","),
        );
        Ok(user)
    }

    /// An account without roles and password, not yet in the store.
    pub(super) fn described(
        &self,
        username: &str,
        email: &str,
        name: Option<&str>,
    ) -> Result<User, AccountError> {
        let now = self.clock.now();
        Ok(User {
            id: uuid::Uuid::new_v4().to_string().into(),
            username: canonical_username(username).ok_or(AccountError::NameInvalid)?,
            email: Some(canonical_email(email).ok_or(AccountError::EmailInvalid)?),
            name: name.map(display_name).transpose()?,
            password: None,
            roles: Vec::new(),
            disabled: false,
            pending: false,
            unlocks: 0,
            epoch: 1,
            created_at: now,
            updated_at: now,
        })
    }

    /// Does it, and makes this process refuse the sessions that it ended.
    pub(super) async fn act(&self, actor: Actor<'_>, act: Act) -> Result<(), AccountError> {
        match self.store.administer(actor.id(), act, self.times()).await? {
            Acted::Done(ended) => {
                self.forget(&ended);
                Ok(())
            }
            Acted::Forbidden => Err(AccountError::Forbidden),
            Acted::Full => Err(AccountError::TooManyInvites),
            Acted::LastAdmin => {
                tracing::warn!(target: "audit", event = "last_admin_kept", actor = actor.name());
                Err(AccountError::LastAdmin)
            }
            Acted::NoMail => Err(AccountError::TooMuchMail),
            Acted::NotFound => Err(AccountError::NotFound),
        }
    }
}

impl Actor<'_> {
    pub(super) fn id(self) -> Option<Box<str>> {
        match self {
            Self::Administrator(id) => Some(id.into()),
            Self::Operator => None,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Administrator(id) => id,
            Self::Operator => "operator",
        }
    }
}

/// Writes down who did what to whom (LOG-4).
pub(super) fn audit(event: &'static str, actor: Actor<'_>, about: About<'_>, what: &str) {
    let (user, invite) = match about {
        About::Invite(id) => (None, Some(id)),
        About::User(id) => (Some(id), None),
    };
    tracing::info!(target: "audit", event, actor = actor.name(), user, invite, what);
}

/// What is changed: names of fields, and values only where they are rights.
fn describe(edit: &UserEdit) -> String {
    let mut what = Vec::new();
    if let Some(roles) = &edit.roles {
        what.push(format!("roles={}", roles.join(",")));
    }
    if let Some(disabled) = edit.disabled {
        what.push(format!("disabled={disabled}"));
    }
    for (name, changed) in [
        ("email", edit.email.is_some()),
        ("name", edit.name.is_some()),
        ("password", edit.password.is_some()),
    ] {
        if changed {
            what.push(name.into());
        }
    }
    what.join(" ")
}
