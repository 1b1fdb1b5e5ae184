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
