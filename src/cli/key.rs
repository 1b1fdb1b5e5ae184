//! `portcullis key …`: the keys that sign access tokens, or assertions to upstreams, in a folder or in the store. A change is obeyed
//! by every running node within 5 s.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Format, say, show_time, tell};
use crate::{
    accounts::{
        ASSERTION_ALGORITHM, Clock, KeyFolder, KeyInfo, KeyWrapping, PUBLISH_AHEAD,
        PUBLISHED_MAX_AGE, StoredKeys, open_store,
    },
    config::{Config, show_duration},
};

/// The longest time that a key may wait for its turn.
const AHEAD_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Which keys, and what is to be done with them.
#[derive(Debug, Args)]
pub struct KeyArguments {
    /// The keys that sign assertions to upstreams (identity.assertion), instead of those of access tokens
    #[arg(long, global = true)]
    assertion: bool,
    #[command(subcommand)]
    command: KeyCommand,
}

/// What is to be done with signing keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys: the one that signs, those that wait, those whose last tokens are still believed
    List {
        /// `text` for people; `json` for programs
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Make a key that takes over after a while; until then it is published, and the old one signs
    Rotate {
        /// How long it is published before it signs; 10m where it is left out. Below 5m it warns, for verifiers elsewhere keep the
        /// published keys so long
        #[arg(long, value_name = "DURATION", value_parser = ahead)]
        after: Option<Duration>,
        /// `text` for people; `json` for programs
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Take a key away at once, and with it every token that it has signed
    ///
    /// Whoever has such a token must refresh or sign in again. For a key that was stolen; `rotate` disturbs nobody.
    Revoke {
        /// Its kid
        #[arg(
            value_name = "KID",
            allow_hyphen_values = true,
            required_unless_present = "all"
        )]
        kid: Option<String>,
        /// All keys; a new one signs. Also where the key-encryption key is lost
        #[arg(long, conflicts_with = "kid")]
        all: bool,
        /// `text` for people; `json` for programs
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Encrypt the keys in the store with the new key-encryption key, once every node has it
    Rewrap {
        /// `text` for people; `json` for programs
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Where the keys are.
enum Keys {
    Folder(KeyFolder),
    Store(StoredKeys),
}

/// Reads how long a key is published before it signs.
fn ahead(text: &str) -> Result<Duration, String> {
    super::arguments::duration(text, &(Duration::ZERO..=AHEAD_MAX))
}

/// Carries out a command. Exit code 1 where it could not be done; then nothing has changed.
///
/// # Errors
/// What could not be read, made or written.
pub fn run(arguments: &KeyArguments, config: &Config) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    let runtime = super::runtime()?;
    let keys = open(arguments.assertion, config, &runtime, now)?;
    let format = match &arguments.command {
        KeyCommand::List { format } => *format,
        KeyCommand::Rotate { after, format } => {
            let after = after.unwrap_or(PUBLISH_AHEAD);
            if after < PUBLISHED_MAX_AGE {
                tell(&format!(
                    "warning: verifiers elsewhere may keep the published keys for {}, and refuse tokens of a key that they do not know",
                    show_duration(PUBLISHED_MAX_AGE)
                ));
            }
            match &keys {
                Keys::Folder(keys) => keys.rotate(after, now)?,
                Keys::Store(keys) => runtime.block_on(keys.rotate(after, now))?,
            };
            *format
        }
        KeyCommand::Revoke { kid, format, .. } => {
            match (&keys, kid.as_deref()) {
                (Keys::Folder(keys), Some(kid)) => keys.revoke(kid, now)?,
                (Keys::Folder(keys), None) => keys.revoke_all(now)?,
                (Keys::Store(keys), kid) => runtime.block_on(keys.revoke(kid, now))?,
            }
            *format
        }
        KeyCommand::Rewrap { format } => {
            let Keys::Store(keys) = &keys else {
                bail!(
                    "these keys are files, which are not encrypted: accounts.key_encryption_file is for those in the store"
                );
            };
            let count = runtime.block_on(keys.rewrap())?;
            tell(&format!("{count} encrypted anew"));
            *format
        }
    };
    let listed = match &keys {
        Keys::Folder(keys) => keys.list(now)?,
        Keys::Store(keys) => runtime.block_on(keys.list(now))?,
    };
    show(&listed, format)?;
    Ok(ExitCode::SUCCESS)
}

fn open(of_assertions: bool, config: &Config, runtime: &Runtime, now: u64) -> anyhow::Result<Keys> {
    if of_assertions {
        let settings = config.assertion.as_ref();
        let settings = settings.context(
            "assertions are off: the configuration has no `assertion = true` in [identity]",
        )?;
        let keys = KeyFolder::open(&settings.keys, ASSERTION_ALGORITHM, now)?;
        return Ok(Keys::Folder(keys));
    }
    let settings = config.accounts.as_ref();
    let settings = settings.context("accounts are off: the configuration has no [accounts]")?;
    let (folder, algorithm) = (settings.key_folder(), settings.signing);
    let store = open_store(settings).context("cannot open the account store")?;
    let Some(encryption) = &settings.key_encryption else {
        runtime.block_on(StoredKeys::refuse_any(&*store))?;
        return Ok(Keys::Folder(KeyFolder::open(&folder, algorithm, now)?));
    };
    Ok(Keys::Store(StoredKeys::new(
        store, encryption, algorithm, folder,
    )?))
}

fn show(keys: &[KeyInfo], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let keys: Vec<Value> = keys.iter().map(describe).collect();
            say(&format!("{:#}", json!({ "keys": keys })))
        }
        Format::Text => {
            let are_wrapped = keys.iter().any(|key| key.wrapping.is_some());
            let last = if are_wrapped {
                "UNTIL                KEY-ENCRYPTION KEY"
            } else {
                "UNTIL"
            };
            say(&format!(
                "{:<44} {:<9} {:<9} {:<20} {last}",
                "KID", "ALGORITHM", "STATE", "FROM"
            ))?;
            keys.iter().try_for_each(|key| say(&line(key)))
        }
    }
}

fn describe(key: &KeyInfo) -> Value {
    json!({
        "kid": *key.kid,
        "algorithm": format!("{:?}", key.algorithm),
        "state": key.state.name(),
        "from": key.from,
        "until": key.until,
        "key_encryption_key": key.wrapping.map(KeyWrapping::name),
    })
}

fn line(key: &KeyInfo) -> String {
    let algorithm = format!("{:?}", key.algorithm);
    // The first key of all signs since nobody knows when.
    let from = match key.from {
        0 | 1 => "-".to_owned(),
        from => show_time(from),
    };
    let until = key.until.map_or_else(|| "-".to_owned(), show_time);
    let state = key.state.name();
    let wrapping = key.wrapping.map_or("", KeyWrapping::name);
    let line = format!(
        "{:<44} {algorithm:<9} {state:<9} {from:<20} {until:<20} {wrapping}",
        key.kid
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::KeyState;

    #[test]
    fn a_key_is_shown_with_its_times() {
        let key = KeyInfo {
            kid: "k".into(),
            algorithm: jsonwebtoken::Algorithm::EdDSA,
            state: KeyState::Retiring,
            from: 0,
            until: Some(1_800_000_000),
            wrapping: None,
        };
        let words: Vec<String> = line(&key).split_whitespace().map(Into::into).collect();
        assert_eq!(
            words,
            ["k", "EdDSA", "retiring", "-", "2027-01-15T08:00:00Z"]
        );
        let shown = describe(&key);
        assert_eq!(shown["until"], 1_800_000_000);
    }

    #[test]
    fn a_key_does_not_wait_for_ever() {
        for text in ["721h", "now", "10", "-1s", ""] {
            ahead(text).unwrap_err();
        }
        assert_eq!(ahead("0s"), Ok(Duration::ZERO));
    }
}
