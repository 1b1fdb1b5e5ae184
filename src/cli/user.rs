//! `portcullis user …`: accounts. Passwords come from a prompt or one line of standard input, never from an argument, where
//! every process of the machine could read them.

mod import;
mod invites;
#[cfg(test)]
mod tests;

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    process::ExitCode,
    sync::Arc,
};

use clap::Subcommand;
use serde_json::json;
use zeroize::Zeroizing;

use super::Format;
use crate::{
    accounts::{
        AccountError, Accounts, Actor, LastAdmin, NewUser,
        passwords::{BYTES_MAX, Password},
        settings::AccountSettings,
    },
    authn::Revocations,
    server::settings::TlsSettings,
    store::User,
};

pub(super) use invites::bootstrap_text;

/// Accounts that one query of a listing reads.
const PAGE: u32 = 500;

/// What is to be done with accounts. A change is obeyed by every running node within 5 s.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add an account; the password comes from a prompt, or from one line of standard input
    Add {
        /// Name: 1 to 64 of a-z, 0-9, '.', '_' and '-'
        name: String,
        /// E-mail address
        #[arg(long)]
        email: String,
        /// Display name
        #[arg(long = "name", value_name = "DISPLAY NAME")]
        display_name: Option<String>,
        /// A role; may be given several times
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
    },
    /// Make the secret by which the first administrator makes his account, while there is none
    Bootstrap,
    /// Erase an account and end its sessions; its name stays taken
    Delete {
        /// Name or e-mail address
        name: String,
        /// Erase the last administrator too
        #[arg(long)]
        force: bool,
    },
    /// Shut an account and end its sessions
    Disable {
        /// Name or e-mail address
        name: String,
        /// Shut out the last administrator too
        #[arg(long)]
        force: bool,
    },
    /// Open a shut account
    Enable {
        /// Name or e-mail address
        name: String,
    },
    /// Take over accounts of an htpasswd file, or of Authelia's users file; their owners keep their passwords
    Import(import::ImportCommand),
    /// Make an invitation and print its secret, once, or send it by mail
    Invite(invites::InviteCommand),
    /// List the invitations that wait
    Invites {
        /// `text` for people; `json` for programs
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// List accounts by name
    List {
        /// `text` for people; `json` for programs
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// End every session of an account
    Logout {
        /// Name or e-mail address
        name: String,
    },
    /// Take an invitation back
    RevokeInvite {
        /// Its id, as `user invites` tells it
        id: String,
    },
    /// Set a new password and end every session
    SetPassword {
        /// Name or e-mail address
        name: String,
    },
    /// Replace the roles of an account and end its sessions; without roles it has none
    SetRole {
        /// Name or e-mail address
        name: String,
        /// Roles
        roles: Vec<String>,
        /// Take the role `admin` from the last administrator too
        #[arg(long)]
        force: bool,
    },
    /// Show one account
    Show {
        /// Name or e-mail address
        name: String,
        /// `text` for people; `json` for programs
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Give an account that is being guessed at its attempts anew; no session ends
    Unlock {
        /// Name or e-mail address
        name: String,
    },
}

/// Runs a command over the accounts of these settings.
///
/// # Errors
/// What could not be done; then nothing has changed.
pub fn run(
    command: UserCommand,
    settings: &AccountSettings,
    tls: &TlsSettings,
) -> anyhow::Result<ExitCode> {
    let stdin = io::stdin();
    let mut terminal = Console {
        output: &mut io::stdout().lock(),
        password: &mut || read_password(&stdin),
        curl: &curl(tls),
    };
    match execute(command, settings, &mut terminal) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if is_unread(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// curl, told to believe the development certificate where there is one.
fn curl(tls: &TlsSettings) -> String {
    let made = tls.certificates.first().filter(|_| tls.development);
    match made {
        Some(files) => format!("curl --cacert {}", files.cert.display()),
        None => "curl".to_owned(),
    }
}

/// Whether all that went wrong is that nobody reads the answer any more (`| head`).
fn is_unread(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Where a command reads a password and writes its answer.
struct Console<'a> {
    output: &'a mut dyn Write,
    password: &'a mut dyn FnMut() -> io::Result<Zeroizing<String>>,
    /// How curl is called in what it tells people to type.
    curl: &'a str,
}

impl Console<'_> {
    fn password(&mut self) -> anyhow::Result<Password> {
        let text = (self.password)().map_err(|error| anyhow::anyhow!("no password: {error}"))?;
        Ok(Password::new(text)?)
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.output, "{line}")
    }
}

fn execute(
    command: UserCommand,
    settings: &AccountSettings,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let accounts = Accounts::open(settings, Arc::new(Revocations::new()))?;
    let runtime = super::runtime()?;
    match command {
        UserCommand::Add {
            name,
            email,
            display_name,
            roles,
        } => {
            let new = NewUser {
                username: &name,
                email: &email,
                name: display_name.as_deref(),
                password: console.password()?,
                roles: &roles,
            };
            let user = runtime.block_on(accounts.add_user(new))?;
            console.say(&format!("added {}", user.username))?;
        }
        UserCommand::Bootstrap => invites::bootstrap(&accounts, &runtime, console)?,
        UserCommand::Delete { name, force } => {
            let done = runtime.block_on(accounts.delete_user(&name, last_admin(force)));
            done.map_err(say_how_on)?;
            console.say("deleted")?;
        }
        UserCommand::Disable { name, force } => {
            let done = runtime.block_on(accounts.disable_user(&name, last_admin(force)));
            done.map_err(say_how_on)?;
            console.say("disabled")?;
        }
        UserCommand::Enable { name } => {
            runtime.block_on(accounts.enable_user(&name))?;
            console.say("enabled")?;
        }
        UserCommand::Unlock { name } => {
            runtime.block_on(accounts.unlock(&name))?;
            console.say("unlocked")?;
        }
        UserCommand::Import(command) => import::run(&command, &accounts, &runtime, console)?,
        UserCommand::Invite(command) => invites::invite(&command, &accounts, &runtime, console)?,
        UserCommand::Invites { format } => invites::list(&accounts, &runtime, format, console)?,
        UserCommand::List { format } => list(&accounts, &runtime, format, console)?,
        UserCommand::Logout { name } => {
            let ended = runtime.block_on(accounts.end_sessions_of(&name))?;
            console.say(&format!("ended {ended} sessions"))?;
        }
        UserCommand::RevokeInvite { id } => {
            runtime.block_on(accounts.revoke_invite(Actor::Operator, &id))?;
            console.say("taken back")?;
        }
        UserCommand::SetPassword { name } => {
            // Before anybody types a password for nothing.
            runtime.block_on(accounts.user(&name))?;
            let password = console.password()?;
            runtime.block_on(accounts.set_password(&name, password))?;
            console.say("password set; every session has ended")?;
        }
        UserCommand::SetRole { name, roles, force } => {
            let done = runtime.block_on(accounts.set_roles(&name, &roles, last_admin(force)));
            done.map_err(say_how_on)?;
            console.say("roles set; every session has ended")?;
        }
        UserCommand::Show { name, format } => {
            let user = runtime.block_on(accounts.user(&name))?;
            match format {
                Format::Json => writeln!(console.output, "{:#}", describe(&user))?,
                Format::Text => write_line(&user, console)?,
            }
        }
    }
    Ok(())
}

fn last_admin(force: bool) -> LastAdmin {
    if force {
        LastAdmin::MayGo
    } else {
        LastAdmin::Stays
    }
}

fn say_how_on(error: AccountError) -> anyhow::Error {
    if matches!(error, AccountError::LastAdmin) {
        return anyhow::anyhow!(
            "{error}, and nobody could administer accounts over HTTP afterwards: make another one first (`user add --role admin`, or `user set-role` with all the roles of an account), or say --force; `user bootstrap` then makes a secret for the next one"
        );
    }
    error.into()
}

fn list(
    accounts: &Accounts,
    runtime: &tokio::runtime::Runtime,
    format: Format,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let mut described = Vec::new();
    let mut after: Box<str> = "".into();
    loop {
        let page: Result<Vec<User>, AccountError> = runtime.block_on(accounts.users(&after, PAGE));
        let page = page?;
        for user in &page {
            match format {
                Format::Json => described.push(describe(user)),
                Format::Text => write_line(user, console)?,
            }
        }
        match page.last() {
            Some(last) => after = last.username.clone(),
            None => break,
        }
    }
    if format == Format::Json {
        writeln!(console.output, "{:#}", json!({ "users": described }))?;
    }
    Ok(())
}

fn describe(user: &User) -> serde_json::Value {
    json!({
        "id": *user.id,
        "username": *user.username,
        "email": user.email.as_deref(),
        "name": user.name.as_deref(),
        "roles": user.roles.iter().map(|role| &**role).collect::<Vec<_>>(),
        "disabled": user.disabled,
        "created": user.created_at,
        "updated": user.updated_at,
    })
}

fn write_line(user: &User, console: &mut Console<'_>) -> io::Result<()> {
    let email = user.email.as_deref().unwrap_or("(deleted)");
    let state = if user.disabled { "disabled" } else { "enabled" };
    let roles = user.roles.join(",");
    writeln!(
        console.output,
        "{:<24} {email:<32} {state:<9} {roles}",
        user.username
    )
}

/// Asks twice on a terminal, reads one line otherwise. Only the line's end is taken away: spaces belong to the password.
fn read_password(stdin: &io::Stdin) -> io::Result<Zeroizing<String>> {
    if stdin.is_terminal() {
        let first = Zeroizing::new(rpassword::prompt_password("Password: ")?);
        let second = Zeroizing::new(rpassword::prompt_password("Once more: ")?);
        if *first != *second {
            return Err(io::Error::other("the two are not the same"));
        }
        return Ok(first);
    }
    read_line(&mut stdin.lock())
}

fn read_line(input: &mut impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(BYTES_MAX + 3));
    let limit = u64::try_from(BYTES_MAX + 2).unwrap_or(u64::MAX);
    if input.take(limit).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.ends_with('\n') {
        line.pop();
        if line.ends_with('\r') {
            line.pop();
        }
    }
    Ok(line)
}
