//! The signing key: KEY-5.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Site, settings};
use crate::accounts::signing::{KeyError, KeyFolder, SigningKeys};

/// The private key of the ES256 example that jwt.io shows.
const EXAMPLE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2
OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r
1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G
-----END PRIVATE KEY-----
";

fn key_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    folder
}

fn open(folder: &Path) -> Result<SigningKeys, KeyError> {
    let keys = KeyFolder::open(folder, jsonwebtoken::Algorithm::ES256, 1)?;
    SigningKeys::open(keys, Arc::default(), 1)
}

#[test]
fn key_5_a_folder_that_others_may_use_is_refused_with_the_remedy() {
    for open_to in [0o755, 0o770, 0o701] {
        let folder = key_folder();
        fs::set_permissions(folder.path(), Permissions::from_mode(open_to)).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
        assert!(key_files(folder.path()).is_empty());
    }
}

fn key_files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pem"))
        .collect()
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn key_5_a_key_that_others_may_read_is_refused_with_the_remedy() {
    for open_to in [0o644, 0o640, 0o604, 0o620, 0o660] {
        let folder = key_folder();
        open(folder.path()).unwrap();
        let path = key_files(folder.path()).remove(0);
        fs::set_permissions(&path, Permissions::from_mode(open_to)).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(
            matches!(error, KeyError::ReadableByOthers { .. }),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(&format!("chmod 600 {}", path.display())),
            "{text}"
        );
    }
}

#[test]
fn key_5_published_example_keys_are_refused() {
    let folder = key_folder();
    write(&folder.path().join("example.pem"), EXAMPLE);
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, KeyError::Example { .. }), "{error}");
}

#[test]
fn key_5_other_keys_and_rubbish_are_refused() {
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    for text in ["", "secret", EXAMPLE.split_at(90).0, &other.serialize_pem()] {
        let folder = key_folder();
        write(&folder.path().join("key.pem"), text);
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
    }
}

#[test]
fn key_5_a_lost_active_key_is_not_replaced_silently() {
    let folder = key_folder();
    open(folder.path()).unwrap();
    fs::remove_file(key_files(folder.path()).remove(0)).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, KeyError::Missing { .. }), "{error}");
}

#[test]
fn key_5_first_start_makes_one_private_key_and_keeps_it() {
    let site = Site::new();
    let folder = site.settings.database.with_file_name("keys");
    let paths = key_files(&folder);
    assert_eq!(paths.len(), 1);
    assert_eq!(mode(&folder), 0o700);
    for entry in fs::read_dir(&folder).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let again = site.beside();
    assert_eq!(key_files(&folder), paths);
    assert_eq!(site.accounts.jwks(), again.accounts.jwks());
}

#[test]
fn key_5_processes_that_start_together_agree_on_one_key() {
    for _ in 0..20 {
        let folder = key_folder();
        let keys: Vec<SigningKeys> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| open(folder.path()).unwrap()))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        let kid = |keys: &SigningKeys| format!("{keys:?}");
        assert!(keys.iter().all(|other| kid(other) == kid(&keys[0])));
        assert_eq!(key_files(folder.path()).len(), 1);
    }
}

#[test]
fn key_5_jwks_has_public_parameters_only_and_kid_is_the_thumbprint() {
    let site = Site::new();
    let jwks: serde_json::Value = serde_json::from_slice(&site.accounts.jwks()).unwrap();
    let keys = jwks["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    let key = keys[0].as_object().unwrap();
    let mut names: Vec<_> = key.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    let file = site.settings.database.with_file_name("keys");
    let kid = key["kid"].as_str().unwrap();
    assert!(file.join(format!("{kid}.pem")).exists());
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(keys[0].clone()).unwrap();
    let thumbprint = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256);
    assert_eq!(thumbprint.unwrap(), kid);
}

#[test]
fn key_5_nothing_prints_the_private_key() {
    let site = Site::new();
    let path = key_files(&site.settings.database.with_file_name("keys")).remove(0);
    let pem = fs::read_to_string(path).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let printed = format!(
        "{:?} {:?} {:?}",
        site.accounts,
        site.accounts.signing,
        site.accounts.issuers()
    );
    assert!(!printed.contains(body.split_at(32).0), "{printed}");
    assert!(printed.len() < 2000, "{printed}");
}

#[test]
fn store_5_files_are_private_in_a_private_folder() {
    let folder = key_folder();
    let settings = settings(&folder);
    let _site = Site::open(
        std::sync::Arc::new(folder),
        settings.clone(),
        std::sync::Arc::default(),
    );
    let database = &settings.database;
    assert_eq!(mode(database.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        let path = PathBuf::from(format!("{}{suffix}", database.display()));
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}
