//! What `docs/audit-log.md` says of events is what happens: LOG-4, LOG-1.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{CLIENT, Log, PASSWORD, Site, password, shared_keys::encryption};
use crate::{
    accounts::{
        Actor, Edit, Enrolled, ImportedUser, KeyEncryption, LastAdmin, NewAccount, NewInvitation,
        RefreshToken, Registered, StoredKeys, settings::Registration, signing::KeyFolder,
    },
    limit::settings::Quota,
};

const DOCUMENT: &str = include_str!("../../../docs/audit-log.md");

/// What needs mail is tested with mail, and what is of the whole program with the program.
const ELSEWHERE: [&str; 9] = [
    "config_refused",
    "config_reloaded",
    "mail_over_budget",
    "password_hash_refused",
    "password_reset",
    "password_reset_asked",
    "password_reset_refused",
    "registration_asked",
    "token_revoked",
];

/// A row of the document.
struct Row {
    level: String,
    fields: BTreeSet<String>,
    optional: BTreeSet<String>,
}

fn rows() -> BTreeMap<String, Row> {
    let words = |cell: &str| -> Vec<String> {
        let words = cell.split('`').skip(1).step_by(2);
        words.map(str::to_owned).collect()
    };
    let mut rows = BTreeMap::new();
    for line in DOCUMENT.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let (optional, fields) = words(cells[3])
            .into_iter()
            .partition(|field| field.ends_with('?'));
        let row = Row {
            level: cells[2].to_owned(),
            fields,
            optional,
        };
        assert!(rows.insert(words(cells[1]).remove(0), row).is_none());
    }
    rows
}

/// The names of the events in a log, each of which is as its row says.
pub(super) fn told(log: &Log) -> BTreeSet<String> {
    let rows = rows();
    let mut names = BTreeSet::new();
    for line in log.text().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["target"] != "audit" {
            continue;
        }
        let mut fields = line["fields"].as_object().unwrap().clone();
        let name = fields.remove("event").unwrap().as_str().unwrap().to_owned();
        let row = rows
            .get(&name)
            .unwrap_or_else(|| panic!("{name} is not in the document"));
        assert_eq!(line["level"], row.level, "{name}");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        let found: BTreeSet<String> = fields.keys().cloned().collect();
        assert!(row.fields.is_subset(&found), "{line}");
        for more in found.difference(&row.fields) {
            assert!(row.optional.contains(&format!("{more}?")), "{more}: {line}");
        }
        names.insert(name);
    }
    names
}

async fn sessions(site: &Site) {
    let accounts = &site.accounts;
    let grant = site.login("ann").await;
    site.try_login("ann", "canary of a wrong password")
        .await
        .unwrap_err();
    site.try_login("canary-of-a-name", PASSWORD)
        .await
        .unwrap_err();
    let next = site.refresh(grant.token()).await.unwrap();
    site.refresh(&RefreshToken::random().unwrap())
        .await
        .unwrap_err();
    accounts.logout(next.token()).await.unwrap();
    let stolen = site.login("ann").await;
    site.refresh(stolen.token()).await.unwrap();
    site.advance(60);
    site.refresh(stolen.token()).await.unwrap_err();
    let last = site.login("ann").await;
    accounts.logout_all(&last.user.id).await.unwrap();
    accounts
        .issue("ann", std::time::Duration::from_secs(60))
        .await
        .unwrap();
}

async fn operator(site: &Site) {
    let accounts = &site.accounts;
    let hash = bcrypt::hash("open sesame", 4).unwrap();
    let imported = ImportedUser {
        username: "old",
        email: "canary-of-an-address@example.com",
        name: None,
        hash: &hash,
        disabled: false,
        roles: &[],
        dry_run: false,
    };
    accounts.import_user(imported).await.unwrap();
    accounts
        .set_roles("old", &["clerk".into()], LastAdmin::Stays)
        .await
        .unwrap();
    accounts
        .set_password("old", password(PASSWORD))
        .await
        .unwrap();
    accounts
        .disable_user("old", LastAdmin::Stays)
        .await
        .unwrap();
    site.try_login("old", PASSWORD).await.unwrap_err();
    accounts.enable_user("old").await.unwrap();
    accounts.unlock("old").await.unwrap();
    accounts.delete_user("old", LastAdmin::Stays).await.unwrap();
}

/// Gives the secrets that it made.
async fn administrators(site: &Site) -> Vec<String> {
    let accounts = &site.accounts;
    let bootstrap = accounts.bootstrap().await.unwrap().secret.reveal();
    let new = |username, email| NewAccount {
        username,
        email,
        name: None,
        password: Some(password(PASSWORD)),
        roles: &[],
    };
    let by = Registered::Bootstrap(&bootstrap);
    let root = accounts
        .register(by, new("root", "r@example.com"), CLIENT)
        .await
        .unwrap();
    let Enrolled::Made(root) = root else {
        panic!("the first administrator's account waits for nothing");
    };
    let by = Registered::Invite("canary-of-an-invitation");
    accounts
        .register(by, new("eve", "e@example.com"), CLIENT)
        .await
        .unwrap_err();
    let actor = Actor::Administrator(&root.id);
    let shut = || Edit {
        disabled: Some(true),
        ..Edit::default()
    };
    accounts
        .edit_user(actor, &root.id, shut())
        .await
        .unwrap_err();
    let invitation = NewInvitation {
        roles: &[],
        email: None,
        ttl: std::time::Duration::from_secs(60),
        send: false,
    };
    let invite = accounts.invite(actor, invitation).await.unwrap();
    accounts
        .revoke_invite(actor, &invite.invite.id)
        .await
        .unwrap();
    let user = accounts
        .create_user(actor, new("bob", "b@example.com"))
        .await
        .unwrap();
    accounts.edit_user(actor, &user.id, shut()).await.unwrap();
    accounts.sign_out(actor, &user.id).await.unwrap();
    accounts.erase_user(actor, &user.id).await.unwrap();
    vec![
        bootstrap.to_string(),
        invite.secret.unwrap().reveal().to_string(),
    ]
}

/// Key files are taken over into the store, and encrypted anew.
async fn stored_keys(site: &Site) {
    let keys = |encryption: Option<KeyEncryption>| {
        let (store, folder) = (site.accounts.store.clone(), site.settings.key_folder());
        let encryption = encryption.unwrap();
        StoredKeys::new(store, &encryption, site.settings.signing, folder).unwrap()
    };
    keys(encryption(1, None)).begin(super::START).await.unwrap();
    let rewrapped = keys(encryption(2, Some(1))).rewrap().await.unwrap();
    assert_eq!(rewrapped, 1);
}

#[tokio::test]
async fn log_4_every_event_is_as_the_document_says_and_log_1_has_no_secret() {
    let log = Log::default();
    let _guard = log.listen();
    let site = Site::with(|settings| settings.registration = Registration::Invite);
    site.add("ann", &["clerk"]).await;
    sessions(&site).await;
    operator(&site).await;
    let mut secrets = administrators(&site).await;
    let grant = site.login("ann").await;
    let change = |current: &str| crate::accounts::ChangePassword {
        user_id: &grant.user.id,
        session_id: &grant.session,
        current: password(current),
        new: password("another long canary of a password"),
        device: None,
        ip: CLIENT,
    };
    site.accounts
        .change_password(change("wrong horse battery staple"))
        .await
        .unwrap_err();
    site.accounts
        .change_password(change(PASSWORD))
        .await
        .unwrap();
    let keys = KeyFolder::open(
        &site.settings.key_folder(),
        site.settings.signing,
        super::START,
    );
    let kid: Value = serde_json::from_slice(&site.accounts.jwks()).unwrap();
    let kid = kid["keys"][0]["kid"].as_str().unwrap();
    keys.unwrap().revoke(kid, super::START).unwrap();
    stored_keys(&site).await;
    let limited = Site::with(|settings| {
        let one = Quota {
            count: 1,
            window: std::time::Duration::from_secs(3600),
            burst: 1,
        };
        settings.login_per_account = one;
        settings.refresh_per_session = one;
    });
    limited.add("ann", &[]).await;
    let grant = limited.login("ann").await;
    let grant = limited.refresh(grant.token()).await.unwrap();
    limited.refresh(grant.token()).await.unwrap_err();
    limited.try_login("ann", PASSWORD).await.unwrap_err();

    let mut wanted: BTreeSet<String> = rows().into_keys().collect();
    wanted.retain(|name| !ELSEWHERE.contains(&name.as_str()));
    assert_eq!(told(&log), wanted);
    let text = log.text();
    secrets.push(grant.access_token.to_string());
    secrets.push(grant.token().reveal().to_string());
    secrets.extend([
        PASSWORD.into(),
        "canary".into(),
        "@example".into(),
        "$2b$".into(),
    ]);
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret}");
    }
    for reason in ["account_unknown", "account_shut", "password_wrong"] {
        assert!(
            text.contains(&format!("\"reason\":\"{reason}\"")),
            "{reason}"
        );
    }
}
