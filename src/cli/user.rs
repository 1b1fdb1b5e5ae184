//! `portcullis user …`: accounts. Passwords come from a prompt or one line of standard input, never from an argument, where
//! every process of the machine could read them.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    process::ExitCode,
    sync::Arc,
};

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    accounts::{
        AccountError, Accounts, NewUser,
        passwords::{BYTES_MAX, Password},
        settings::AccountSettings,
    },
    authn::Revocations,
    store::User,
};

/// Accounts that one query of a listing reads.
const PAGE: u32 = 500;

/// What is to be done with accounts. A change is obeyed by every running node within 5 s.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Adds an account; the password comes from a prompt, or from one line of standard input
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
    /// Erases an account and ends its sessions; its name stays taken
    Delete {
        /// Name or e-mail address
        name: String,
    },
    /// Shuts an account and ends its sessions
    Disable {
        /// Name or e-mail address
        name: String,
    },
    /// Opens a shut account
    Enable {
        /// Name or e-mail address
        name: String,
    },
    /// Lists accounts by name
    List {
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Ends every session of an account
    Logout {
        /// Name or e-mail address
        name: String,
    },
    /// Sets a new password and ends every session
    SetPassword {
        /// Name or e-mail address
        name: String,
    },
    /// Replaces the roles of an account and ends its sessions; without roles it has none
    SetRole {
        /// Name or e-mail address
        name: String,
        /// Roles
        roles: Vec<String>,
    },
    /// Shows one account
    Show {
        /// Name or e-mail address
        name: String,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Form of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON
    Json,
    /// For people
    #[default]
    Text,
}

/// Runs a command over the accounts of these settings. Exit code 0 when it is done and durable, 1 otherwise.
#[must_use]
pub fn run(command: UserCommand, settings: &AccountSettings) -> ExitCode {
    let stdin = io::stdin();
    let mut terminal = Console {
        output: &mut io::stdout().lock(),
        password: &mut || read_password(&stdin),
    };
    match execute(command, settings, &mut terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_unread(&error) => ExitCode::SUCCESS,
        Err(error) => super::token::fail(&error),
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
}

impl Console<'_> {
    fn password(&mut self) -> anyhow::Result<Password> {
        let text = (self.password)().map_err(|error| anyhow::anyhow!("no password: {error}"))?;
        Ok(Password::new(text)?)
    }
}

fn execute(
    command: UserCommand,
    settings: &AccountSettings,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let accounts = Accounts::open(settings, Arc::new(Revocations::new()))?;
    let runtime = super::token::runtime()?;
    let wait = |done: &str, console: &mut Console<'_>| writeln!(console.output, "{done}");
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
            wait(&format!("added {}", user.username), console)?;
        }
        UserCommand::Delete { name } => {
            runtime.block_on(accounts.delete_user(&name))?;
            wait("deleted", console)?;
        }
        UserCommand::Disable { name } => {
            runtime.block_on(accounts.set_disabled(&name, true))?;
            wait("disabled", console)?;
        }
        UserCommand::Enable { name } => {
            runtime.block_on(accounts.set_disabled(&name, false))?;
            wait("enabled", console)?;
        }
        UserCommand::List { format } => list(&accounts, &runtime, format, console)?,
        UserCommand::Logout { name } => {
            let ended = runtime.block_on(accounts.end_sessions_of(&name))?;
            wait(&format!("ended {ended} sessions"), console)?;
        }
        UserCommand::SetPassword { name } => {
            // Before anybody types a password for nothing.
            runtime.block_on(accounts.user(&name))?;
            let password = console.password()?;
            runtime.block_on(accounts.set_password(&name, password))?;
            wait("password set; every session has ended", console)?;
        }
        UserCommand::SetRole { name, roles } => {
            runtime.block_on(accounts.set_roles(&name, &roles))?;
            wait("roles set; every session has ended", console)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::{PASSWORD, settings};

    struct Shell {
        folder: tempfile::TempDir,
        typed: &'static str,
    }

    impl Shell {
        fn new() -> Self {
            Self {
                folder: tempfile::tempdir().unwrap(),
                typed: PASSWORD,
            }
        }

        fn run(&self, command: UserCommand) -> Result<String, String> {
            let mut output = Vec::new();
            let mut typed = || Ok(Zeroizing::new(self.typed.to_owned()));
            let mut console = Console {
                output: &mut output,
                password: &mut typed,
            };
            execute(command, &settings(&self.folder), &mut console)
                .map_err(|error| format!("{error:#}"))?;
            Ok(String::from_utf8(output).unwrap())
        }

        fn add(&self, name: &str, roles: &[&str]) -> Result<String, String> {
            self.run(UserCommand::Add {
                name: name.into(),
                email: format!("{name}@example.com"),
                display_name: None,
                roles: roles.iter().map(|role| (*role).into()).collect(),
            })
        }

        fn list(&self) -> serde_json::Value {
            let format = Format::Json;
            let text = self.run(UserCommand::List { format }).unwrap();
            serde_json::from_str(&text).unwrap()
        }
    }

    #[test]
    fn bad_input_is_refused_with_a_sentence_and_adds_nobody() {
        let mut shell = Shell::new();
        assert!(
            shell
                .add("no spaces", &[])
                .unwrap_err()
                .contains("user name")
        );
        assert!(
            shell
                .add("ann", &["two words"])
                .unwrap_err()
                .contains("roles")
        );
        shell.typed = "too short";
        assert!(shell.add("ann", &[]).unwrap_err().contains("at least 15"));
        shell.typed = PASSWORD;
        for command in [
            UserCommand::Disable { name: "ann".into() },
            UserCommand::SetPassword { name: "ann".into() },
            UserCommand::Logout { name: "ann".into() },
        ] {
            assert_eq!(shell.run(command).unwrap_err(), "no such account");
        }
        assert_eq!(shell.list()["users"], json!([]));
    }

    #[test]
    fn a_name_is_added_once_and_listed_without_its_hash() {
        let shell = Shell::new();
        assert_eq!(
            shell.add("ann", &["admin", "admin"]).unwrap(),
            "added ann\n"
        );
        assert!(shell.add("ANN", &[]).unwrap_err().contains("exists"));
        shell.add("bob", &[]).unwrap();
        let users = &shell.list()["users"];
        assert_eq!(users[0]["username"], "ann");
        assert_eq!(users[0]["roles"], json!(["admin"]));
        assert_eq!(users[1]["username"], "bob");
        let format = Format::Text;
        let text = shell.run(UserCommand::List { format }).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(!format!("{users} {text}").contains("argon2"));
    }

    #[test]
    fn state_and_roles_change_and_are_shown() {
        let shell = Shell::new();
        shell.add("ann", &["clerk"]).unwrap();
        let name = || "ann@example.com".to_owned();
        shell.run(UserCommand::Disable { name: name() }).unwrap();
        let roles = vec!["admin".into(), "clerk".into()];
        shell
            .run(UserCommand::SetRole {
                name: name(),
                roles,
            })
            .unwrap();
        let format = Format::Json;
        let shown = shell
            .run(UserCommand::Show {
                name: name(),
                format,
            })
            .unwrap();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["disabled"], true);
        assert_eq!(shown["roles"], json!(["admin", "clerk"]));
        shell.run(UserCommand::Enable { name: name() }).unwrap();
        assert_eq!(shell.list()["users"][0]["disabled"], false);
        shell.run(UserCommand::Delete { name: name() }).unwrap();
        assert_eq!(shell.list()["users"][0]["email"], json!(null));
    }

    #[test]
    fn auth_4_a_line_of_input_is_the_password_without_its_end_alone() {
        for (input, want) in [
            (" with spaces \n", " with spaces "),
            ("dos\r\n", "dos"),
            ("no end", "no end"),
            ("first\nsecond\n", "first"),
            ("\n", ""),
            ("cr\r", "cr\r"),
        ] {
            assert_eq!(*read_line(&mut input.as_bytes()).unwrap(), want);
        }
        read_line(&mut "".as_bytes()).unwrap_err();
        read_line(&mut b"\xff\n".as_slice()).unwrap_err();
        let long = "x".repeat(5000);
        let line = read_line(&mut long.as_bytes()).unwrap();
        Password::new(line).unwrap_err();
    }

    #[test]
    fn no_argument_takes_a_password() {
        use clap::{CommandFactory, Parser};

        #[derive(Debug, Parser)]
        struct Program {
            #[command(subcommand)]
            _command: UserCommand,
        }
        Program::command().debug_assert();
        let line = [
            "p",
            "add",
            "ann",
            "--email",
            "a@example.com",
            "--password",
            "x",
        ];
        Program::try_parse_from(line).unwrap_err();
        Program::try_parse_from(["p", "set-password", "ann", "secret"]).unwrap_err();
    }
}
