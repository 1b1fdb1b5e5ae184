//! What `portcullis check` tells of TLS: what clients may negotiate, and each certificate with its names and its end (NET-5).

use std::time::SystemTime;

use jiff::Timestamp;
use rustls::{CipherSuite, ProtocolVersion};
use serde_json::{Value, json};

use super::table;
use crate::server::{
    settings::{CertificateFiles, ClientAuth, ClientRule, TlsSettings},
    tls::{ALPN, Leaf, Pair, offered},
};

/// Names of a certificate in the table; `--format json` has all.
const NAMES_SHOWN: usize = 4;

/// The table of versions and suites, and that of certificates.
pub(super) fn tables(settings: &TlsSettings, now: SystemTime) -> [String; 2] {
    [
        table(
            ["TLS", "KEY EXCHANGE", "CIPHERS", "ALPN"],
            &suites(settings),
        ),
        table(
            [
                "CERTIFICATE",
                "NAMES",
                "CLIENT CERTIFICATES",
                "ENDS",
                "DAYS LEFT",
            ],
            &certificates(settings, now),
        ),
    ]
}

pub(super) fn as_json(settings: &TlsSettings, now: SystemTime) -> Value {
    let versions = offered(settings.min_version).into_iter();
    let versions = versions.map(|(version, suites)| {
        let suites: Vec<String> = suites.into_iter().map(name).collect();
        json!({ "version": number(version), "suites": suites })
    });
    let certificates = settings.certificates.iter();
    let certificates = certificates.map(|files| certificate_json(files, now));
    json!({
        "versions": versions.collect::<Vec<_>>(),
        "alpn": ALPN,
        "early_data": false,
        "development": settings.development,
        "certificates": certificates.collect::<Vec<_>>(),
    })
}

/// One row for each version and key exchange, for suites one by one make a long list.
fn suites(settings: &TlsSettings) -> Vec<[String; 4]> {
    let mut rows: Vec<[String; 4]> = Vec::new();
    for (version, suites) in offered(settings.min_version) {
        let version = number(version);
        for suite in suites {
            let suite = name(suite);
            let suite = suite.trim_start_matches("TLS_");
            // TLS 1.3 agrees on keys apart from the suite, and always with forward secrecy.
            let (exchange, cipher) = suite.split_once("_WITH_").unwrap_or(("ECDHE", suite));
            match rows
                .iter_mut()
                .find(|[at, with, ..]| *at == version && with == exchange)
            {
                Some([_, _, ciphers, _]) => {
                    ciphers.push_str(", ");
                    ciphers.push_str(cipher);
                }
                None => {
                    rows.push([&*version, exchange, cipher, &ALPN.join(", ")].map(str::to_owned))
                }
            }
        }
    }
    rows
}

fn certificates(settings: &TlsSettings, now: SystemTime) -> Vec<[String; 5]> {
    let row = |files: &CertificateFiles| {
        let (names, ends, left) = match leaf(files) {
            Some(leaf) => (names(&leaf), date(&leaf), days_left(&leaf, now).to_string()),
            None => ["made at the start", "-", "-"].map(str::to_owned).into(),
        };
        let cert = files.cert.display().to_string();
        [cert, names, clients(&files.clients), ends, left]
    };
    settings.certificates.iter().map(row).collect()
}

fn certificate_json(files: &CertificateFiles, now: SystemTime) -> Value {
    let leaf = leaf(files);
    let names = leaf.iter().flat_map(|leaf| &leaf.names);
    let names: Vec<String> = names.map(ToString::to_string).collect();
    json!({
        "cert": files.cert,
        "names": names,
        "client_auth": auth(files.clients.auth),
        "client_ca": files.clients.ca,
        "not_after": leaf.as_ref().map(date),
        "days_left": leaf.as_ref().map(|leaf| days_left(leaf, now)),
    })
}

/// What the certificate says; nothing where it is a development certificate that is not there yet.
fn leaf(files: &CertificateFiles) -> Option<Leaf> {
    Pair::load(files).ok().map(|pair| pair.leaf)
}

fn names(leaf: &Leaf) -> String {
    let mut parts: Vec<String> = leaf.names.iter().map(ToString::to_string).collect();
    if parts.is_empty() {
        return "none".to_owned();
    }
    let more = parts.len().saturating_sub(NAMES_SHOWN);
    parts.truncate(NAMES_SHOWN);
    let shown = parts.join(", ");
    match more {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn clients(rule: &ClientRule) -> String {
    match &rule.ca {
        Some(ca) => format!("{}, of {}", auth(rule.auth), ca.display()),
        None => auth(rule.auth).to_owned(),
    }
}

/// The word of the configuration.
fn auth(auth: ClientAuth) -> &'static str {
    match auth {
        ClientAuth::None => "none",
        ClientAuth::Optional => "optional",
        ClientAuth::Required => "required",
    }
}

/// The last day, in UTC.
fn date(leaf: &Leaf) -> String {
    Timestamp::try_from(leaf.not_after).map_or_else(
        |_beyond_all_calendars| "never".to_owned(),
        |end| end.strftime("%Y-%m-%d").to_string(),
    )
}

/// Whole days; zero when it is over.
fn days_left(leaf: &Leaf, now: SystemTime) -> u64 {
    leaf.left_at(now).as_secs() / (24 * 60 * 60)
}

/// `1.3` where rustls says `TLSv1_3`.
fn number(version: ProtocolVersion) -> String {
    let name = version.as_str().unwrap_or("?");
    name.trim_start_matches("TLSv").replace('_', ".")
}

/// A suite as IANA calls it; rustls writes the version into those of TLS 1.3.
fn name(suite: CipherSuite) -> String {
    suite.as_str().unwrap_or("?").replacen("TLS13_", "TLS_", 1)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::policy::TlsPolicies;
    use crate::server::settings::TlsVersion;

    /// A pair that ends with the first of February 2031, in a folder.
    fn pair(folder: &Path, name: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(2031, 2, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let write = |end: &str, text: &str| {
            let path = folder.join(format!("{name}.{end}"));
            let mut options = std::fs::OpenOptions::new();
            let mut file = options
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&path)
                .unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
            path
        };
        CertificateFiles {
            cert: write("crt", &cert.pem()),
            key: write("key", &key.serialize_pem()),
            clients: ClientRule::default(),
        }
    }

    fn settings(min_version: TlsVersion, certificates: Vec<CertificateFiles>) -> TlsSettings {
        TlsSettings {
            certificates,
            development: true,
            min_version,
            policies: TlsPolicies::default(),
        }
    }

    /// Ten days and an hour before the end.
    fn now() -> SystemTime {
        let end = Timestamp::UNIX_EPOCH;
        let day: Timestamp = "2031-01-21T23:00:00Z".parse().unwrap();
        SystemTime::UNIX_EPOCH + Duration::try_from(day.duration_since(end)).unwrap()
    }

    #[test]
    fn net_5_the_policy_lists_forward_secret_aead_suites_alone() {
        let [text, _] = tables(&settings(TlsVersion::Tls12, Vec::new()), now());
        let want = "\
TLS  KEY EXCHANGE  CIPHERS                                                           ALPN
1.3  ECDHE         AES_256_GCM_SHA384, AES_128_GCM_SHA256, CHACHA20_POLY1305_SHA256  h2, http/1.1
1.2  ECDHE_ECDSA   AES_256_GCM_SHA384, AES_128_GCM_SHA256, CHACHA20_POLY1305_SHA256  h2, http/1.1
1.2  ECDHE_RSA     AES_256_GCM_SHA384, AES_128_GCM_SHA256, CHACHA20_POLY1305_SHA256  h2, http/1.1";
        assert_eq!(text, want);
        let json = as_json(&settings(TlsVersion::Tls12, Vec::new()), now());
        let suites = json["versions"][1]["suites"].as_array().unwrap();
        assert_eq!(suites.len(), 6);
        for suite in suites {
            let suite = suite.as_str().unwrap();
            assert!(suite.starts_with("TLS_ECDHE_"), "{suite}");
            assert!(
                suite.contains("_GCM_") || suite.contains("_POLY1305_"),
                "{suite}"
            );
        }
        assert_eq!(json["early_data"], false);
        assert_eq!(json["alpn"], json!(["h2", "http/1.1"]));
    }

    #[test]
    fn net_5_a_lowest_version_of_1_3_leaves_one_row() {
        let settings = settings(TlsVersion::Tls13, Vec::new());
        assert_eq!(suites(&settings).len(), 1);
        let json = as_json(&settings, now());
        assert_eq!(json["versions"].as_array().unwrap().len(), 1);
        assert_eq!(json["versions"][0]["version"], "1.3");
        assert_eq!(json["versions"][0]["suites"][0], "TLS_AES_256_GCM_SHA384");
    }

    #[test]
    fn certificates_are_told_with_names_clients_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let many = ["a.test", "b.test", "*.c.test", "d.test", "e.test", "f.test"];
        let mut first = pair(folder.path(), "many", &many);
        first.clients = ClientRule {
            auth: ClientAuth::Required,
            ca: Some("ca.pem".into()),
        };
        let bare = pair(folder.path(), "bare", &["127.0.0.1"]);
        let missing = CertificateFiles {
            cert: "dev.crt".into(),
            key: "dev.key".into(),
            clients: ClientRule::default(),
        };
        let path = |files: &CertificateFiles| files.cert.display().to_string();
        let (many_path, bare_path) = (path(&first), path(&bare));
        let settings = settings(TlsVersion::Tls12, vec![first, bare, missing]);
        let want = [
            [
                &*many_path,
                "a.test, b.test, *.c.test, d.test and 2 more",
                "required, of ca.pem",
                "2031-02-01",
                "10",
            ],
            [&*bare_path, "none", "none", "2031-02-01", "10"],
            ["dev.crt", "made at the start", "none", "-", "-"],
        ];
        let rows = certificates(&settings, now());
        assert_eq!(rows, want.map(|row| row.map(str::to_owned)));
        let json = as_json(&settings, now());
        let first = &json["certificates"][0];
        assert_eq!(first["names"], json!(many));
        assert_eq!(
            (&first["client_auth"], &first["client_ca"]),
            (&json!("required"), &json!("ca.pem"))
        );
        assert_eq!(
            (&first["not_after"], &first["days_left"]),
            (&json!("2031-02-01"), &json!(10))
        );
        assert_eq!(json["certificates"][2]["not_after"], Value::Null);
        // Over since long.
        let later = now() + Duration::from_secs(90 * 24 * 60 * 60);
        assert_eq!(certificates(&settings, later)[0][4], "0");
    }
}
