//! New files in the place of old ones, look by look, without a clock.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::{reload::Watcher, *};
use crate::{
    server::settings::CertificateFiles,
    telemetry::{Telemetry, settings::LogSettings},
};

/// A folder of certificates.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self, name: &str) -> CertificateFiles {
        CertificateFiles {
            cert: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            clients: ClientRule::default(),
        }
    }

    /// Puts a file in its place that only its owner may read. A new one: what is written twice within the clock's grain could
    /// look the same.
    fn write(&self, name: &str, content: &str) {
        let (path, new) = (self.path(name), self.path("new"));
        std::fs::write(&new, content).unwrap();
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// Writes `site.crt` and `site.key`.
    fn put(&self, (cert, key): &(String, String)) {
        self.write("site.crt", cert);
        self.write("site.key", key);
    }

    /// A pair for these names.
    pub(super) fn pair(&self, file: &str, names: &[&str]) -> Pair {
        let (cert, key) = made(names, |_| {});
        self.write(&format!("{file}.crt"), &cert);
        self.write(&format!("{file}.key"), &key);
        Pair::load(&self.files(file)).unwrap()
    }
}

/// A certificate and its key as PEM.
fn made(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    (cert.pem(), key.serialize_pem())
}

fn half(text: &str) -> &str {
    text.split_at(text.len() / 2).0
}

fn good() -> (String, String) {
    made(&["site.test"], |_| {})
}

fn expired(year: i32) -> (String, String) {
    made(&["site.test"], |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
    })
}

/// A gateway's certificates with their watcher.
struct Watch {
    tls: Arc<Tls>,
    telemetry: Arc<Telemetry>,
    watcher: Watcher,
}

impl Watch {
    fn of(folder: &Folder) -> Self {
        let settings = TlsSettings {
            certificates: vec![folder.files("site")],
            development: false,
            min_version: TlsVersion::default(),
            policies: TlsPolicies::default(),
        };
        let tls = Arc::new(Tls::load(&settings).unwrap());
        let telemetry = Telemetry::with_sink(&LogSettings::default(), Box::new(std::io::sink()));
        let watcher = Watcher::new(Arc::clone(&tls), Arc::clone(&telemetry));
        Self {
            tls,
            telemetry,
            watcher,
        }
    }

    fn look(&mut self) {
        self.watcher.look(SystemTime::now());
    }

    /// Looks often enough for whatever is to be taken.
    fn settle(&mut self) {
        (0..3).for_each(|_| self.look());
    }

    /// Whether this certificate is shown.
    #[track_caller]
    fn shows(&self, (cert, _): &(String, String)) {
        use rustls_pki_types::{CertificateDer, pem::PemObject};
        let want = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        let shown = self.tls.pairs();
        assert_eq!(shown[0].key.cert[0], want);
    }

    /// How many changes were taken, and how many refused.
    #[track_caller]
    fn counts(&self, taken: usize, refused: usize) {
        let text = self.telemetry.encode();
        for (result, count) in [("taken", taken), ("refused", refused)] {
            let name = "portcullis_certificate_reloads_total";
            let series = format!("{name}{{result=\"{result}\"}} {count}\n");
            assert!(text.contains(&series), "{series} in {text}");
        }
    }
}

#[test]
fn net_9_no_bad_pair_takes_the_place_of_a_good_one() {
    let (old, other) = (good(), good());
    type Spoil = Box<dyn Fn(&Folder)>;
    let cases: [(&str, Spoil); 9] = [
        ("garbage", Box::new(|folder| folder.write("site.crt", "x"))),
        ("empty", Box::new(|folder| folder.write("site.crt", "\n"))),
        (
            "half",
            Box::new(|folder| {
                let (cert, _) = good();
                folder.write("site.crt", half(&cert));
            }),
        ),
        (
            "wrong key",
            Box::new(|folder| folder.write("site.key", &good().1)),
        ),
        (
            "wrong certificate",
            Box::new(move |folder| folder.write("site.crt", &other.0)),
        ),
        (
            "open key",
            Box::new(|folder| {
                folder.put(&good());
                let open = PermissionsExt::from_mode(0o644);
                std::fs::set_permissions(folder.path("site.key"), open).unwrap();
            }),
        ),
        ("expired", Box::new(|folder| folder.put(&expired(2002)))),
        (
            "deleted",
            Box::new(|folder| {
                std::fs::remove_file(folder.path("site.crt")).unwrap();
            }),
        ),
        (
            "not valid yet",
            Box::new(|folder| {
                folder.put(&made(&["site.test"], |params| {
                    params.not_before = date_time_ymd(2999, 1, 1);
                    params.not_after = date_time_ymd(3000, 1, 1);
                }));
            }),
        ),
    ];
    for (what, spoil) in cases {
        let folder = Folder::new();
        folder.put(&old);
        let mut watch = Watch::of(&folder);
        watch.settle();
        spoil(&folder);
        watch.settle();
        println!("{what}");
        watch.shows(&old);
        // Told once, and not at every look.
        watch.counts(0, 1);
        // What was wrong is put right.
        let new = good();
        folder.put(&new);
        watch.settle();
        watch.shows(&new);
        watch.counts(1, 1);
    }
}

#[test]
fn net_9_a_pair_is_taken_once_it_has_come_to_rest() {
    let folder = Folder::new();
    let (old, new) = (good(), good());
    folder.put(&old);
    let mut watch = Watch::of(&folder);
    watch.look();
    folder.write("site.crt", &new.0);
    watch.look();
    // Between the two files, and between the halves of one.
    folder.write("site.key", half(&new.1));
    watch.look();
    folder.write("site.key", &new.1);
    watch.look();
    watch.shows(&old);
    watch.counts(0, 0);
    watch.look();
    watch.shows(&new);
    watch.counts(1, 0);
}

#[test]
fn net_9_files_behind_links_that_are_swapped_as_a_whole_are_seen() {
    // As Kubernetes does: site.crt -> ..data/tls.crt, ..data -> a folder, and ..data is replaced.
    let folder = Folder::new();
    let (old, new) = (good(), good());
    for (name, (cert, key)) in [("one", &old), ("two", &new)] {
        std::fs::create_dir(folder.path(name)).unwrap();
        folder.write(&format!("{name}/tls.crt"), cert);
        folder.write(&format!("{name}/tls.key"), key);
    }
    symlink("one", folder.path("..data")).unwrap();
    symlink("..data/tls.crt", folder.path("site.crt")).unwrap();
    symlink("..data/tls.key", folder.path("site.key")).unwrap();
    let mut watch = Watch::of(&folder);
    watch.shows(&old);
    symlink("two", folder.path("..data_tmp")).unwrap();
    std::fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    watch.settle();
    watch.shows(&new);
    watch.counts(1, 0);
}

#[test]
fn net_9_where_neither_is_valid_the_new_one_is_taken() {
    let folder = Folder::new();
    folder.put(&expired(2002));
    let mut watch = Watch::of(&folder);
    watch.settle();
    let new = expired(2003);
    folder.put(&new);
    watch.settle();
    watch.shows(&new);
    watch.counts(1, 0);
}

#[test]
fn net_9_a_pair_that_is_not_valid_yet_is_taken_when_it_is() {
    let folder = Folder::new();
    let now = SystemTime::now();
    let hour = Duration::from_secs(60 * 60);
    let old = good();
    folder.put(&old);
    let mut watch = Watch::of(&folder);
    let new = made(&["site.test"], |params| {
        params.not_before = (now + hour).into()
    });
    folder.put(&new);
    watch.settle();
    watch.shows(&old);
    watch.watcher.look(now + hour * 2);
    watch.shows(&new);
    watch.counts(1, 1);
}

#[test]
fn files_that_are_only_touched_are_no_news() {
    let folder = Folder::new();
    let pair = good();
    folder.put(&pair);
    let mut watch = Watch::of(&folder);
    folder.put(&pair);
    watch.settle();
    watch.counts(0, 0);
}

#[test]
fn net_9_sessions_are_resumed_beyond_a_change() {
    let folder = Folder::new();
    folder.put(&good());
    let mut watch = Watch::of(&folder);
    let before = Arc::clone(&watch.tls.live.load().policies[0].config);
    folder.put(&good());
    watch.settle();
    let after = Arc::clone(&watch.tls.live.load().policies[0].config);
    assert!(!Arc::ptr_eq(&before, &after));
    assert!(Arc::ptr_eq(&before.ticketer, &after.ticketer));
    assert!(Arc::ptr_eq(&before.session_storage, &after.session_storage));
}

#[test]
fn net_9_metrics_say_when_the_certificate_in_use_ends() {
    let folder = Folder::new();
    folder.put(&expired(2002));
    let watch = Watch::of(&folder);
    let tls = Arc::clone(&watch.tls);
    watch
        .telemetry
        .on_scrape("tls", Box::new(move |scrape| tls.sample(scrape)));
    let series = r#"portcullis_certificate_expiry_timestamp_seconds{name="site.test"} 1009843200"#;
    let text = watch.telemetry.encode();
    assert!(text.contains(series), "{text}");
}

#[test]
fn net_7_the_first_file_that_is_of_no_use_is_named() {
    let folder = Folder::new();
    let settings = |name| TlsSettings {
        certificates: vec![folder.files("site"), folder.files(name)],
        development: false,
        min_version: TlsVersion::default(),
        policies: TlsPolicies::default(),
    };
    folder.put(&good());
    let fault = Tls::load(&settings("missing")).unwrap_err();
    assert!(
        fault.to_string().ends_with("missing.crt does not exist"),
        "{fault}"
    );
    let (cert, _) = good();
    folder.write("half.crt", &cert);
    let fault = Tls::load(&settings("half")).unwrap_err();
    assert!(
        fault.to_string().ends_with("half.key does not exist"),
        "{fault}"
    );
    folder.write("half.key", &good().1);
    let fault = Tls::load(&settings("half")).unwrap_err();
    assert!(fault.to_string().contains("do not go together"), "{fault}");
    assert!(Tls::load(&settings("site")).is_ok());
}

#[test]
fn cfg_2_another_list_of_certificates_is_taken_whole_or_not_at_all() {
    let folder = Folder::new();
    let settings = |names: &[&str]| TlsSettings {
        certificates: names.iter().map(|name| folder.files(name)).collect(),
        development: false,
        min_version: TlsVersion::default(),
        policies: TlsPolicies::default(),
    };
    let (one, two) = (good(), good());
    folder.put(&one);
    folder.write("more.crt", &two.0);
    folder.write("more.key", &two.1);
    let mut watch = Watch::of(&folder);
    watch.settle();
    let before = watch.tls.pairs();
    for wrong in [&["more", "missing"][..], &["missing"], &["site", "missing"]] {
        assert!(watch.tls.prepare(&settings(wrong)).is_err(), "{wrong:?}");
    }
    drop(watch.tls.prepare(&settings(&["more"])).unwrap());
    watch.shows(&one);
    watch
        .tls
        .prepare(&settings(&["more", "site"]))
        .unwrap()
        .install();
    watch.shows(&two);
    assert!(
        Arc::ptr_eq(&watch.tls.pairs()[1], &before[0]),
        "what looks the same is not read again"
    );
    // The watch follows the new list.
    let three = good();
    folder.write("more.crt", &three.0);
    folder.write("more.key", &three.1);
    watch.settle();
    watch.shows(&three);
    folder.write("more.key", "");
    watch.settle();
    watch.shows(&three);
    assert!(watch.tls.prepare(&settings(&["more", "site"])).is_err());
    watch.tls.prepare(&settings(&["site"])).unwrap().install();
    watch.settle();
    watch.shows(&one);
}
