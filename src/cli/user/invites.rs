//! Invitations and the first administrator's secret, by command. Their secrets are printed once and are nowhere else.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::runtime::Runtime;

use super::Console;
use crate::{
    accounts::{Accounts, Actor, InviteSecret, NewInvitation, settings::Registration},
    cli::{Format, arguments::duration, show_time},
    store::Invite,
};

/// Whom an invitation is for, and how it comes to him.
#[derive(Debug, Args)]
pub struct InviteCommand {
    /// A role of the account that it makes; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// The only e-mail address that may use it
    #[arg(long)]
    email: Option<String>,
    /// Its life, 1s to 30d
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = life)]
    ttl: Duration,
    /// Have a running gateway send it to the address, and print no secret
    #[arg(long, requires = "email")]
    send: bool,
}

/// Reads the life of an invitation.
fn life(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(30 * 24 * 3600));
    duration(text, &(least..=most))
}

pub(super) fn bootstrap(
    accounts: &Accounts,
    runtime: &Runtime,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let made = runtime.block_on(accounts.bootstrap())?;
    writeln!(
        console.output,
        "{}",
        bootstrap_text(accounts, &made, console.curl)
    )?;
    Ok(())
}

/// The secret, and how it is used: `curl` is the program, with what it needs to believe the gateway's certificate.
pub(in crate::cli) fn bootstrap_text(
    accounts: &Accounts,
    made: &InviteSecret,
    curl: &str,
) -> String {
    let settings = accounts.settings();
    let secret = made.secret.reveal();
    format!(
        r#"The first administrator makes his account with this secret, which works once, for 24 hours:
  {}
  {curl} {}{}/bootstrap -H 'Content-Type: application/json' \
    -d '{{"secret":"{}","username":"...","email":"...","password":"..."}}'
Lost, or too late: portcullis user bootstrap"#,
        *secret, settings.issuer, settings.path, *secret
    )
}

/// Makes an invitation, and prints its secret; or, where it goes by mail, its id.
pub(super) fn invite(
    command: &InviteCommand,
    accounts: &Accounts,
    runtime: &Runtime,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    require_registration(accounts)?;
    let new = NewInvitation {
        roles: &command.roles,
        email: command.email.as_deref(),
        ttl: command.ttl,
        send: command.send,
    };
    let made = runtime.block_on(accounts.invite(Actor::Operator, new))?;
    match made.secret {
        Some(secret) => writeln!(console.output, "{}", *secret.reveal())?,
        None => writeln!(console.output, "queued for mail: {}", made.invite.id)?,
    }
    Ok(())
}

/// Refuses to make what could not be used.
fn require_registration(accounts: &Accounts) -> anyhow::Result<()> {
    if accounts.settings().registration == Registration::Closed {
        anyhow::bail!(
            "nobody could use an invitation: accounts.registration is \"closed\"; set it to \"invite\""
        );
    }
    Ok(())
}

pub(super) fn list(
    accounts: &Accounts,
    runtime: &Runtime,
    format: Format,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let invites = runtime.block_on(accounts.invites())?;
    match format {
        Format::Json => {
            let invites: Vec<_> = invites.iter().map(describe).collect();
            writeln!(console.output, "{:#}", json!({ "invites": invites }))?;
        }
        Format::Text => {
            for invite in &invites {
                let email = invite.email.as_deref().unwrap_or("(anybody)");
                let roles = invite.roles.join(",");
                let expires = show_time(invite.expires_at);
                writeln!(
                    console.output,
                    "{} {email:<32} until {expires} {roles}",
                    invite.id
                )?;
            }
        }
    }
    Ok(())
}

fn describe(invite: &Invite) -> serde_json::Value {
    json!({
        "id": *invite.id,
        "roles": invite.roles.iter().map(|role| &**role).collect::<Vec<_>>(),
        "email": invite.email.as_deref(),
        "created_by": invite.created_by.as_deref(),
        "created": invite.created_at,
        "expires": invite.expires_at,
    })
}
