//! `portcullis token …`: a token for a test, and what a token says.

use std::{
    io::{self, Read},
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use clap::Subcommand;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    accounts::{Accounts, settings::AccountSettings},
    authn::{
        Authenticator, Revocations,
        settings::{CacheSettings, IssuerSettings},
    },
    policy::{
        IdentityHeaders, Unlimited,
        headers::{MultiValue, Preset},
    },
};

/// No token that any issuer of ours accepts is longer.
const TOKEN_BYTES_MAX: u64 = 8 << 10;

/// What is to be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Say what a token says, and whether it verifies; exit code 1 if it does not
    Inspect {
        /// The token; standard input when it is absent
        token: Option<String>,
    },
    /// Print an access token for an account, in a session of its own that ends with the token
    Issue {
        /// Name or e-mail address
        #[arg(long)]
        user: String,
        /// Its life, at most 15m
        #[arg(long, default_value = "5m", value_parser = life)]
        ttl: Duration,
    },
}

/// Runs a command. `accounts` and `issuers` are those of the configuration. Exit code 1 for a token that does not verify.
///
/// # Errors
/// What could not be done.
pub fn run(
    command: TokenCommand,
    accounts: Option<&AccountSettings>,
    issuers: &[IssuerSettings],
) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::Inspect { token } => inspect(token, accounts, issuers),
        TokenCommand::Issue { user, ttl } => issue(&user, ttl, accounts),
    }
}

fn issue(
    user: &str,
    ttl: Duration,
    accounts: Option<&AccountSettings>,
) -> anyhow::Result<ExitCode> {
    let settings = accounts
        .ok_or_else(|| anyhow::anyhow!("accounts are off: the configuration has no [accounts]"))?;
    let accounts = Accounts::open(settings, Arc::new(Revocations::new()))?;
    let grant = super::runtime()?.block_on(accounts.issue(user, ttl))?;
    super::say(&grant.access_token)?;
    Ok(ExitCode::SUCCESS)
}

fn inspect(
    token: Option<String>,
    accounts: Option<&AccountSettings>,
    issuers: &[IssuerSettings],
) -> anyhow::Result<ExitCode> {
    let mut text = Zeroizing::new(token.unwrap_or_default());
    if text.is_empty() {
        // One byte more than may be, so that a token that is too long is seen to be.
        io::stdin()
            .take(TOKEN_BYTES_MAX + 1)
            .read_to_string(&mut text)?;
    }
    let token = text.trim();
    let revocations = Arc::new(Revocations::new());
    let mut issuers = issuers.to_vec();
    // The keys and the feed of the accounts, so that a revoked token is seen to be; kept open until the end.
    let accounts = accounts
        .map(|settings| Accounts::open(settings, Arc::clone(&revocations)))
        .transpose()?;
    issuers.extend(accounts.iter().flat_map(|accounts| accounts.issuers()));
    let authn = authenticator(&issuers, revocations)?;
    let (report, verified) = report(token, &authn, SystemTime::now());
    super::say(&format!("{report:#}"))?;
    Ok(if verified {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn authenticator(
    issuers: &[IssuerSettings],
    revocations: Arc<Revocations>,
) -> anyhow::Result<Authenticator> {
    let templates = IdentityHeaders::new(Preset::None, Vec::new(), MultiValue::Comma);
    Authenticator::new(
        issuers,
        &CacheSettings::default(),
        revocations,
        Arc::new(templates),
    )
    .map_err(|faults| {
        let faults: Vec<_> = faults
            .iter()
            .map(|fault| format!("issuer {}: {}", fault.issuer, fault.fault))
            .collect();
        anyhow::anyhow!("{}", faults.join("; "))
    })
}

/// A token's header and claims, as far as they can be read. Anybody can have written them.
pub(super) fn unverified(token: &str) -> (Option<Value>, Option<Value>) {
    let mut segments = token.split('.').map(|segment| {
        let bytes = BASE64URL.decode(segment).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()
    });
    (segments.next().flatten(), segments.next().flatten())
}

/// What the token says, and whether that is true.
fn report(token: &str, authn: &Authenticator, now: SystemTime) -> (Value, bool) {
    let (header, claims) = unverified(token);
    match authn.verify(token, now, &Unlimited) {
        Ok(identity) => {
            let issuer = &*identity.claims().issuer_name;
            let report =
                json!({ "verified": true, "issuer": issuer, "header": header, "claims": claims });
            (report, true)
        }
        Err(rejection) => {
            let report = json!({
                "verified": false, "code": rejection.code(), "reason": rejection.reason(), "header": header, "claims": claims,
            });
            (report, false)
        }
    }
}

/// Reads the life of a token.
fn life(text: &str) -> Result<Duration, String> {
    super::arguments::duration(text, &(Duration::from_secs(1)..=Duration::from_secs(900)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::Site;

    fn check(site: &Site, token: &str, code: &str, reason: Option<&str>) {
        let (report, verified) = report(token, &site.authn, site.time());
        assert!(!verified);
        assert_eq!(report["verified"], false);
        assert_eq!(report["code"], code);
        assert_eq!(report["reason"].as_str(), reason);
    }

    #[tokio::test]
    async fn what_does_not_verify_is_told_with_its_reason() {
        let site = Site::new();
        site.add("ann", &[]).await;
        let token = site.login("ann").await.access_token;
        check(&site, "", "token_invalid", Some("segments"));
        check(&site, "a.b", "token_invalid", Some("segments"));
        let (body, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{body}.{}", signature.chars().rev().collect::<String>());
        let (report, verified) = report(&forged, &site.authn, site.time());
        assert!(!verified);
        assert_eq!(report["claims"]["preferred_username"], "ann");
        site.accounts.end_sessions_of("ann").await.unwrap();
        check(&site, &token, "token_invalid", Some("revoked"));
        let token = site.login("ann").await.access_token;
        site.advance(3600);
        check(&site, &token, "token_expired", None);
    }

    #[tokio::test]
    async fn what_verifies_is_told_with_its_issuer() {
        let site = Site::new();
        site.add("ann", &[]).await;
        let ttl = Duration::from_secs(60);
        let grant = site.accounts.issue("ann", ttl).await.unwrap();
        let (report, verified) = report(&grant.access_token, &site.authn, site.time());
        assert!(verified);
        assert_eq!(report["issuer"], "portcullis");
        assert_eq!(report["header"]["typ"], "at+jwt");
        assert_eq!(report["header"]["alg"], "ES256");
        assert_eq!(report["claims"]["sid"], *grant.session);
    }

    #[test]
    fn a_life_is_from_a_second_to_fifteen_minutes() {
        for text in ["", "x", "0s", "-5m", "16m", "1h", "500ms"] {
            life(text).unwrap_err();
        }
        assert_eq!(life("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(life("15m"), Ok(Duration::from_secs(900)));
    }
}
