//! `accounts.store*`: where accounts are kept, and no secret in a URL.

use super::*;
use crate::store::settings::{PostgresSettings, StoreTls};

const SECRET: &str = "correct horse";

fn postgres(lines: &[&str]) -> String {
    lines.iter().fold(BASE.to_owned(), |text, line| {
        with_in(&text, "[accounts]", line)
    })
}

#[track_caller]
fn read(project: &Project, lines: &[&str]) -> PostgresSettings {
    let accounts = project.accepts(&postgres(lines)).accounts.unwrap();
    assert!(accounts.key_folder().ends_with("data/keys"));
    accounts.postgres.unwrap()
}

#[test]
fn up_5_a_store_on_another_machine_is_verified_unless_somebody_says_danger() {
    let project = Project::new();
    let store = "store = \"postgres://gate@db.example.com/portcullis\"";
    let plain = "store = \"postgres://gate@db.example.com/portcullis?sslmode=disable\"";
    let settings = read(&project, &[store]);
    assert_eq!(settings.tls, StoreTls::VerifyFull(None));
    assert_eq!((settings.connections, settings.password), (8, None));
    project.refuses(&postgres(&[plain]), "accounts.store", "without TLS");
    let danger = "danger_store_without_tls = true";
    assert_eq!(read(&project, &[plain, danger]).tls, StoreTls::Disable);
    let roots = "store = \"postgres://gate@db.example.com/portcullis?sslrootcert=db.pem\"";
    project.refuses(&postgres(&[roots]), "accounts.store", "does not exist");
    project.write("db.pem", "nonsense", 0o644);
    project.refuses(&postgres(&[roots]), "accounts.store", "no certificate");
    let certificate = fs::read(project.folder.path().join("certs/site.crt")).unwrap();
    project.write("db.pem", certificate, 0o644);
    let path = project.folder.path().join("db.pem");
    assert_eq!(
        read(&project, &[roots]).tls,
        StoreTls::VerifyFull(Some(path))
    );
}

#[test]
fn key_5_a_password_of_the_store_is_a_file_of_its_owner_or_in_the_environment() {
    let mut project = Project::new();
    let store = "store = \"postgres://gate@localhost/portcullis\"";
    for url in [
        "postgres://gate:hunter2@localhost/portcullis",
        "postgres://gate@localhost/portcullis?password=hunter2",
    ] {
        let text = postgres(&[&format!("store = {url:?}")]);
        project.refuses(&text, "accounts.store", "holds a password");
        let report = project.read(&text).map(drop).unwrap_err();
        let message = &report.problems()[0].message;
        assert!(!message.contains("hunter2"), "{message}");
    }
    for (written, shown) in [
        (
            "gate:hünter2@localhost/portcullis",
            "gate:********@localhost/portcullis",
        ),
        (
            "gate:a/b@c@localhost/portcullis",
            "gate:*****@localhost/portcullis",
        ),
        (
            "gate@localhost/db?password=pw&x=y",
            "gate@localhost/db?password=**&x=y",
        ),
    ] {
        let text = postgres(&[&format!("store = \"postgres://{written}\"")]);
        let report = project.read(&text).map(drop).unwrap_err().to_string();
        assert!(
            report.contains(&format!("\"postgres://{shown}\"")),
            "{report}"
        );
    }
    let file = "store_password_file = \"pw\"";
    let refused = |project: &Project, line: &str, words: &str| {
        let key = format!("accounts.{}", line.split(" =").next().unwrap());
        project.refuses(&postgres(&[store, line]), &key, words);
    };
    refused(&project, file, "does not exist");
    project.write("pw", "\n", 0o600);
    refused(&project, file, "is empty");
    project.write("pw", format!("{SECRET}\n"), 0o640);
    refused(&project, file, "by others");
    project.write("pw", format!("{SECRET}\n"), 0o600);
    let of_file = read(&project, &[store, file]);
    let env = "store_password_env = \"PW\"";
    refused(&project, env, "not set");
    project.variables = vec![("PW", String::new())];
    refused(&project, env, "holds no password");
    project.variables = vec![("PW", SECRET.to_owned())];
    let of_env = read(&project, &[store, env]);
    assert!(of_file.password.is_some() && of_file.password == of_env.password);
    let told = format!("{of_env:?} {of_env}");
    assert!(!told.contains(SECRET), "{told}");
    let both = postgres(&[store, file, env]);
    project.refuses(&both, "accounts.store_password_env", "second password");
}

#[test]
fn what_only_a_shared_store_has_is_refused_beside_a_file() {
    let mut project = Project::new();
    project.variables = vec![("PW", SECRET.to_owned())];
    for line in [
        "store_password_env = \"PW\"",
        "store_connections = 4",
        "danger_store_without_tls = true",
    ] {
        let key = format!("accounts.{}", line.split(" =").next().unwrap());
        project.refuses(&postgres(&[line]), &key, "no meaning");
    }
}

/// 32 bytes that nobody would take for text, as `openssl rand` writes them.
const KEY: &str = "pw7yB0/S2rtEMf+YnkPX4H+sFiWeHWMNOwAeLHtOojo=";
const OTHER: &str = "359b730d152779747f5ce0a6f172ecce8ee7b81e32e95ea7b4df0a9816ad6040";

#[test]
fn key_5_a_key_encryption_key_is_random_and_a_file_of_its_owner_or_in_the_environment() {
    let mut project = Project::new();
    let file = "key_encryption_file = \"kek\"";
    let env = "key_encryption_env = \"KEK\"";
    let key = "accounts.key_encryption_file";
    let none = project.accepts(BASE).accounts.unwrap().key_encryption;
    assert!(none.is_none(), "keys are files unless somebody says so");
    project.refuses(&postgres(&[file]), key, "does not exist");
    for open_to in [0o644, 0o640, 0o604, 0o660] {
        project.write("kek", KEY, open_to);
        project.refuses(&postgres(&[file]), key, "by others");
    }
    let thirty_one = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==";
    let many = "A".repeat(1000);
    for (text, words) in [
        ("\n", "is empty"),
        ("correct horse battery staple!!!!", "no key-encryption key"),
        (&KEY.replace('/', "*"), "no key-encryption key"),
        (&KEY.replacen('p', "", 1), "no key-encryption key"),
        (thirty_one, "no key-encryption key"),
        (&many, "no key-encryption key"),
        (&OTHER.replacen('3', "", 1), "no key-encryption key"),
        (&OTHER.replace('f', "+"), "no key-encryption key"),
        // Zeros, one word over and over, counting, text.
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "not random"),
        (&"deadbeef".repeat(8), "not random"),
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "not random"),
        ("Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZSEhISE=", "not random"),
    ] {
        project.write("kek", text, 0o600);
        project.refuses(&postgres(&[file]), key, words);
        let report = project.read(&postgres(&[file])).map(drop).unwrap_err();
        let report = report.to_string();
        assert!(text.trim().is_empty() || !report.contains(text), "{report}");
        assert!(
            words == "is empty" || report.contains("openssl rand -base64 32"),
            "{report}"
        );
    }
    project.write("kek", format!("{KEY}\n"), 0o600);
    let keyed = |project: &Project, lines: &[&str]| {
        let accounts = project.accepts(&postgres(lines)).accounts.unwrap();
        accounts.key_encryption.unwrap()
    };
    let of_file = keyed(&project, &[file]);
    project.refuses(&postgres(&[env]), "accounts.key_encryption_env", "not set");
    // The other alphabet, without padding.
    let url = KEY.replace('/', "_").replace('+', "-").replace('=', "");
    project.variables = vec![("KEK", url), ("OTHER", OTHER.to_uppercase())];
    let of_env = keyed(&project, &[env]);
    assert_eq!(of_file, of_env);
    assert_eq!(
        format!("{of_env:?}"),
        "KeyEncryption { current: [redacted], old: None }"
    );
    let both = postgres(&[file, env]);
    project.refuses(&both, "accounts.key_encryption_env", "a second");
    // The old one, while it is being changed.
    let old = "key_encryption_old_env = \"OTHER\"";
    project.refuses(
        &postgres(&[old]),
        "accounts.key_encryption_old_env",
        "of none",
    );
    let same = "key_encryption_old_env = \"KEK\"";
    project.refuses(
        &postgres(&[file, same]),
        "accounts.key_encryption_old_env",
        "present one",
    );
    let changed = keyed(&project, &[file, old]);
    assert!(changed.old.is_some_and(|old| old != changed.current));
}

#[test]
fn a_shared_store_without_a_key_encryption_key_is_warned_of() {
    let project = Project::new();
    let store = "store = \"postgres://gate@localhost/portcullis\"";
    let warned = |lines: &[&str]| {
        let warnings = project.read(&postgres(lines)).unwrap().warnings;
        let told = warnings.problems().iter();
        told.filter(|problem| problem.message.contains("files of each gateway"))
            .count()
    };
    assert_eq!((warned(&[]), warned(&[store])), (0, 1));
    project.write("kek", OTHER, 0o600);
    assert_eq!(warned(&[store, "key_encryption_file = \"kek\""]), 0);
}
