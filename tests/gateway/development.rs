//! Certificates for trying things out: for the names that were asked for, in files of the right mode, and never in the place of
//! a real one.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::harness::{Site, Upstream, certs::handshake, client::over, request};

fn der(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// Everything that a certificate is for.
fn names(der: &CertificateDer<'_>) -> BTreeSet<String> {
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let name = |name: &GeneralName<'_>| {
        if let GeneralName::DNSName(name) = name {
            return (*name).to_owned();
        }
        let GeneralName::IPAddress(bytes) = name else {
            panic!("{name:?}");
        };
        format!("{bytes:?}")
    };
    names.value.general_names.iter().map(name).collect()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn key_5_cert_dev_makes_a_pair_for_the_names_given() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address).set(
        "tls",
        "certificates",
        r#"[{ cert = "certs/dev.crt", key = "certs/dev.key" }]"#,
    );
    let arguments = ["cert", "dev", "app.test", "*.apps.test", "127.0.0.1", "::1"];
    let exit = site.run(&arguments, "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let (cert, key) = (
        site.path().join("certs/dev.crt"),
        site.path().join("certs/dev.key"),
    );
    assert_eq!((mode(&key), mode(&cert) & 0o022), (0o600, 0));
    assert!(!format!("{exit:?}").contains("PRIVATE KEY"));
    let der = der(&cert);
    let ipv6 = format!("{:?}", std::net::Ipv6Addr::LOCALHOST.octets());
    let want = ["app.test", "*.apps.test", "[127, 0, 0, 1]", &ipv6];
    assert_eq!(names(&der), want.map(str::to_owned).into());
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(!certificate.is_ca(), "whoever trusts it trusts these names");
    let validity = certificate.validity();
    let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / (24 * 60 * 60);
    assert!((1..=398).contains(&days), "{days}");

    // The gateway takes it, and a client that was told to trust it agrees to these names alone.
    let gateway = site.start().await;
    let mut roots = RootCertStore::empty();
    roots.add(der).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    for name in ["other.test", "a.b.apps.test", "localhost"] {
        let refused = handshake(&gateway, &client, name).await;
        assert!(refused.is_err(), "{name}");
    }
    upstream.saw_nothing();
    for name in ["app.test", "a.apps.test", "127.0.0.1"] {
        let mut raw = over(handshake(&gateway, &client, name).await.unwrap());
        raw.exchange(request("GET", "/public", &[], ""))
            .await
            .is(200);
    }
}

#[tokio::test]
async fn cert_dev_never_overwrites_unless_told_to() {
    let site = Site::bare();
    let [cert, key] = ["dev.crt", "dev.key"].map(|name| site.path().join("certs").join(name));
    for bad in ["a b", "https://a.test", "a.test:443", "", "*"] {
        let exit = site.run(&["cert", "dev", "localhost", bad], "").await;
        assert_eq!(exit.code, Some(1), "{bad:?}: {exit:?}");
        assert!(!cert.exists() && !key.exists(), "{bad:?}");
    }
    // One of the two is enough.
    for (there, other) in [(&cert, &key), (&key, &cert)] {
        fs::write(there, "mine").unwrap();
        let exit = site.run(&["cert", "dev"], "").await;
        assert_eq!(exit.code, Some(1), "{exit:?}");
        assert!(exit.stderr.contains("--force replaces it"), "{exit:?}");
        assert_eq!(fs::read_to_string(there).unwrap(), "mine");
        assert!(!other.exists());
        fs::remove_file(there).unwrap();
    }
    fs::write(&key, "mine").unwrap();
    site.mode("certs/dev.key", 0o666);
    let exit = site.run(&["cert", "dev", "--force"], "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(mode(&key), 0o600);
    assert!(fs::read_to_string(&key).unwrap().contains("PRIVATE KEY"));
    assert!(names(&der(&cert)).contains("localhost"));
}

fn development(upstream: &Upstream, public_url: &str) -> Site {
    Site::new(upstream.address)
        .set("server", "public_url", &format!("{public_url:?}"))
        .set("tls", "development", "true")
        .set(
            "tls",
            "certificates",
            r#"[{ cert = "certs/made.crt", key = "certs/made.key" }]"#,
        )
}

#[tokio::test]
async fn development_is_refused_where_others_could_come() {
    let upstream = Upstream::start().await;
    for url in [
        "https://app.example.com",
        "https://localhost.example.com",
        "https://10.0.0.1:8443",
        "https://notlocalhost",
    ] {
        let site = development(&upstream, url);
        site.write();
        for command in ["check", "run"] {
            let exit = site.run(&[command], "").await;
            assert_eq!(exit.code, Some(1), "{url} {command}: {exit:?}");
            let told = exit.stderr.contains("not a loopback name");
            assert!(told, "{url} {command}: {exit:?}");
        }
        assert!(!site.path().join("certs/made.crt").exists(), "{url}");
        assert!(!site.path().join("certs/made.key").exists(), "{url}");
    }
}

#[tokio::test]
async fn key_5_development_makes_a_missing_pair_once() {
    let upstream = Upstream::start().await;
    let mut gateway = development(&upstream, "https://localhost:8443")
        .start()
        .await;
    let [cert, key] = ["made.crt", "made.key"].map(|name| gateway.path().join("certs").join(name));
    assert_eq!(mode(&key), 0o600);
    let made = der(&cert);
    assert!(names(&made).contains("localhost"));
    let inode = key.metadata().unwrap().ino();
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let gateway = gateway.again().await;
    assert_eq!(der(&gateway.path().join("certs/made.crt")), made);
    assert_eq!(key.metadata().unwrap().ino(), inode);
}
