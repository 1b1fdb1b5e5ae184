//! `portcullis user import`: accounts of an htpasswd file or of Authelia's users file, in bounded memory. A second run adds what
//! the first did not, and skips the rest.

mod authelia;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use tokio::runtime::Runtime;

use super::Console;
use crate::{
    accounts::{AccountError, Accounts, ImportedUser},
    store::ADMIN,
};

/// The longest line of an htpasswd file that is read.
const LINE_BYTES_MAX: u64 = 1024;

/// The largest users file of Authelia's, some 50 000 accounts: it is read as a whole.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What is imported, and as what.
#[derive(Debug, Args)]
pub struct ImportCommand {
    /// An htpasswd file (lines of NAME:HASH) or a users file of Authelia (YAML), with bcrypt, PBKDF2, scrypt or argon2
    file: PathBuf,
    /// The form of the file; by default what its first line looks like
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// The domain of the addresses that the file does not have: NAME@DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    email_domain: Option<String>,
    /// A role of every account that is made, beside its groups; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FileFormat {
    Authelia,
    Htpasswd,
}

/// One account of a file.
struct Entry {
    line: usize,
    name: String,
    email: Option<String>,
    display_name: Option<String>,
    hash: String,
    groups: Vec<String>,
    disabled: bool,
}

/// Where accounts go, and what became of them.
struct Import<'a, 'c> {
    command: &'a ImportCommand,
    accounts: &'a Accounts,
    runtime: &'a Runtime,
    console: &'a mut Console<'c>,
    added: usize,
    skipped: usize,
    refused: usize,
}

/// Fails, so that the exit code is 1, where an account was refused; all others were taken.
pub(super) fn run(
    command: &ImportCommand,
    accounts: &Accounts,
    runtime: &Runtime,
    console: &mut Console<'_>,
) -> anyhow::Result<()> {
    let file = File::open(&command.file)
        .map_err(|error| anyhow::anyhow!("{}: {error}", command.file.display()))?;
    let mut reader = BufReader::new(file);
    let format = match command.format {
        Some(format) => format,
        None => detected(reader.fill_buf()?),
    };
    let mut import = Import {
        command,
        accounts,
        runtime,
        console,
        added: 0,
        skipped: 0,
        refused: 0,
    };
    match format {
        FileFormat::Authelia => {
            let mut text = String::new();
            let read = reader.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
            anyhow::ensure!(
                u64::try_from(read)? <= FILE_BYTES_MAX,
                "the file has more than {FILE_BYTES_MAX} bytes; split it"
            );
            for entry in authelia::read(&text)? {
                import.take(&entry)?;
            }
        }
        FileFormat::Htpasswd => {
            anyhow::ensure!(
                command.email_domain.is_some(),
                "an htpasswd file has no addresses: say --email-domain DOMAIN"
            );
            htpasswd(&mut reader, &mut import)?;
        }
    }
    import.finish()
}

/// What the first line that says something looks like: a users file begins with `users:` or with a document's `---`.
fn detected(beginning: &[u8]) -> FileFormat {
    let mut lines = beginning
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    match first {
        Some(line) if line.starts_with(b"---") || line == b"users:" => FileFormat::Authelia,
        _ => FileFormat::Htpasswd,
    }
}

fn htpasswd(reader: &mut impl BufRead, import: &mut Import<'_, '_>) -> anyhow::Result<()> {
    for number in 1_usize.. {
        let mut line = Vec::new();
        let read = reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
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
        let (name, hash) = line.split_once(':').unwrap_or((line, ""));
        import.take(&Entry {
            line: number,
            name: name.into(),
            email: None,
            display_name: None,
            hash: hash.into(),
            groups: Vec::new(),
            disabled: false,
        })?;
    }
    Ok(())
}

impl Import<'_, '_> {
    fn take(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let line = entry.line;
        match self.add(entry) {
            Ok(name) => {
                self.added += 1;
                let done = if self.command.dry_run {
                    "would add"
                } else {
                    "added"
                };
                writeln!(self.console.output, "{done} {name}")?;
                if entry.groups.iter().any(|group| group == ADMIN) {
                    writeln!(
                        self.console.output,
                        "line {line}: the group {ADMIN} was not taken over, for here it is the role of administrators; `user set-role` gives it"
                    )?;
                }
            }
            Err(AccountError::Exists) => {
                self.skipped += 1;
                writeln!(
                    self.console.output,
                    "line {line}: skipped, name or address is taken"
                )?;
            }
            Err(error @ AccountError::Store(_)) => return Err(error.into()),
            Err(AccountError::HashUnknown) if is_crypt(&entry.hash) => {
                self.refused += 1;
                writeln!(
                    self.console.output,
                    "line {line}: SHA-crypt is not verified here; make the account with `user add` and a new password, or let Authelia hash it anew with argon2 first"
                )?;
            }
            Err(error) => {
                self.refused += 1;
                writeln!(self.console.output, "line {line}: {error}")?;
            }
        }
        Ok(())
    }

    fn add(&self, entry: &Entry) -> Result<String, AccountError> {
        let domain = self.command.email_domain.as_deref();
        let made = domain.map(|domain| format!("{}@{domain}", entry.name));
        let email = entry.email.as_deref().or(made.as_deref());
        let groups = entry.groups.iter().filter(|group| *group != ADMIN);
        let roles: Vec<String> = groups.chain(&self.command.roles).cloned().collect();
        let imported = ImportedUser {
            username: &entry.name,
            email: email.unwrap_or_default(),
            name: entry.display_name.as_deref(),
            hash: &entry.hash,
            disabled: entry.disabled,
            roles: &roles,
            dry_run: self.command.dry_run,
        };
        let user = self.runtime.block_on(self.accounts.import_user(imported))?;
        Ok(user.username.into())
    }

    fn finish(self) -> anyhow::Result<()> {
        let Self {
            added,
            skipped,
            refused,
            ..
        } = self;
        writeln!(
            self.console.output,
            "{added} added, {skipped} skipped, {refused} refused"
        )?;
        if refused > 0 {
            let lines = match refused {
                1 => "1 line was".to_owned(),
                _ => format!("{refused} lines were"),
            };
            anyhow::bail!("{lines} refused; `user add` makes such accounts, with new passwords");
        }
        Ok(())
    }
}

/// `$5$` and `$6$`, also with Authelia's old `{CRYPT}` before them.
fn is_crypt(hash: &str) -> bool {
    let hash = hash.strip_prefix("{CRYPT}").unwrap_or(hash);
    hash.starts_with("$5$") || hash.starts_with("$6$")
}
