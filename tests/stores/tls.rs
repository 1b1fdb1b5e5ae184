//! UP-5: the server proves who it is, by chain and name, or is not used.

use std::{net::TcpListener, os::unix::fs::PermissionsExt, path::Path};

use portcullis::store::{Postgres, Store, StoreError, settings::PostgresSettings};
use rcgen::{CertificateParams, KeyPair};

use crate::{
    place::user,
    server::{Server, give},
};

/// A certificate that signs itself, and its key.
fn certificate(names: &[&str], expired: bool) -> (String, String) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    if expired {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn prepare(data: &Path, (certificate, key): &(String, String)) {
    for (name, content) in [("server.crt", certificate), ("server.key", key)] {
        let path = data.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        give(&path);
    }
    let mut text = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
    text.push_str("\nssl = on\n");
    std::fs::write(data.join("postgresql.conf"), text).unwrap();
    let hba = "hostssl all all 127.0.0.1/32 trust\nlocal all all trust\n";
    std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
}

fn open(port: u16, host: &str, roots: Option<&Path>) -> Postgres {
    let roots = roots.map_or_else(String::new, |path| {
        format!("?sslrootcert={}", path.display())
    });
    let url = format!("postgres://postgres@{host}:{port}/postgres{roots}");
    Postgres::open(&PostgresSettings::parse(&url).unwrap()).unwrap()
}

async fn refused(store: &Postgres) {
    let result = store.add_user(user("ann")).await;
    assert_eq!(result, Err(StoreError::Unavailable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_5_a_server_of_another_root_or_name_is_not_spoken_to_and_the_right_one_is() {
    let right = certificate(&["localhost"], false);
    let Some(server) = Server::start(|data| prepare(data, &right)) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, &right.0).unwrap();
    let other = folder.path().join("other.pem");
    std::fs::write(&other, certificate(&["localhost"], false).0).unwrap();
    refused(&open(server.port, "localhost", None)).await;
    refused(&open(server.port, "localhost", Some(&other))).await;
    refused(&open(server.port, "127.0.0.1", Some(&root))).await;
    let store = open(server.port, "localhost", Some(&root));
    store.add_user(user("ann")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_5_a_server_whose_certificate_has_expired_is_not_spoken_to() {
    let old = certificate(&["localhost"], true);
    let Some(server) = Server::start(|data| prepare(data, &old)) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, &old.0).unwrap();
    refused(&open(server.port, "localhost", Some(&root))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_5_a_server_without_tls_is_not_spoken_to() {
    let Some(server) = Server::shared() else {
        return;
    };
    refused(&open(server.port, "localhost", None)).await;
    // One that answers with something else is no better, and one that never answers is given up.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    refused(&open(port, "localhost", None)).await;
}
