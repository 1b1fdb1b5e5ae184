//! `portcullis user import`: accounts of an htpasswd file, line by line in bounded memory. A second run adds what the first did
//! not, and skips the rest.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
};

use clap::Args;
use tokio::runtime::Runtime;

use super::Console;
use crate::accounts::{AccountError, Accounts, ImportedUser};

/// The longest line that is read.
const LINE_BYTES_MAX: u64 = 1024;

/// What is imported, and as what.
#[derive(Debug, Args)]
pub struct ImportCommand {
    /// An htpasswd file: lines of NAME:HASH, with bcrypt, PBKDF2 or argon2
    file: PathBuf,
    /// The domain of the addresses, which the file does not have: NAME@DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    email_domain: String,
    /// A role of every account that is made; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
}

/// What became of the lines.
#[derive(Default)]
struct Counts {
    added: usize,
    skipped: usize,
    refused: usize,
}

/// Fails, so that the exit code is 1, where a line was refused; all others were taken.
pub(super) fn run(
    command: &ImportCommand,
    accounts: &Accounts,
    runtime: &Runtime,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let file = File::open(&command.file)
        .map_err(|error| anyhow::anyhow!("{}: {error}", command.file.display()))?;
    let mut reader = BufReader::new(file);
    let mut counts = Counts::default();
    for number in 1_usize.. {
        let mut line = Vec::new();
        let read = (&mut reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        if u64::try_from(read) == Ok(LINE_BYTES_MAX) && !line.ends_with(b"\n") {
            anyhow::bail!(
                "line {number} is longer than {LINE_BYTES_MAX} bytes; is this an htpasswd file?"
            );
        }
        let line = String::from_utf8(line).map_err(|_| {
            anyhow::anyhow!("line {number} is not UTF-8; is this an htpasswd file?")
        })?;
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match take(line, command, accounts, runtime) {
            Ok(name) => {
                counts.added += 1;
                let done = if command.dry_run {
                    "would add"
                } else {
                    "added"
                };
                writeln!(console.output, "{done} {name}")?;
            }
            Err(AccountError::Exists) => {
                counts.skipped += 1;
                writeln!(
                    console.output,
                    "line {number}: skipped, name or address is taken"
                )?;
            }
            Err(error @ AccountError::Store(_)) => return Err(error.into()),
            Err(error) => {
                counts.refused += 1;
                writeln!(console.output, "line {number}: {error}")?;
            }
        }
    }
    let Counts {
        added,
        skipped,
        refused,
    } = counts;
    writeln!(
        console.output,
        "{added} added, {skipped} skipped, {refused} refused"
    )?;
    if refused > 0 {
        anyhow::bail!(
            "{refused} lines were refused; `user add` makes those accounts with new passwords"
        );
    }
    Ok(())
}

fn take(
    line: &str,
    command: &ImportCommand,
    accounts: &Accounts,
    runtime: &Runtime,
) -> Result<String, AccountError> {
    let (name, hash) = line.split_once(':').ok_or(AccountError::HashUnknown)?;
    let imported = ImportedUser {
        username: name,
        email: &format!("{name}@{}", command.email_domain),
        hash,
        roles: &command.roles,
        dry_run: command.dry_run,
    };
    let user = runtime.block_on(accounts.import_user(imported))?;
    Ok(user.username.into())
}
