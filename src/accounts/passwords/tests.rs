//! The bound over hashing: AUTH-2.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use zeroize::Zeroizing;

use super::{Password, Passwords, QUEUE_PER_PERMIT, Verdict};
use crate::{
    accounts::{
        AccountError,
        tests::{ARGON2, Log},
    },
    store::PasswordHash,
};

/// A job that counts itself and does not end before it is let go.
struct Gate {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    started: mpsc::Sender<()>,
    release: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Gate {
    fn pass(&self) {
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.started.send(()).unwrap();
        self.release.lock().unwrap().recv().unwrap();
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn gate() -> (Arc<Gate>, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (started, starts) = mpsc::channel();
    let (let_go, release) = mpsc::channel();
    let gate = Gate {
        running: Arc::default(),
        most: Arc::default(),
        started,
        release: Arc::new(Mutex::new(release)),
    };
    (Arc::new(gate), starts, let_go)
}

fn passwords() -> Arc<Passwords> {
    Arc::new(Passwords::new(&ARGON2, 8, None).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_2_cancelled_callers_do_not_free_their_permit() {
    let passwords = passwords();
    let (gate, starts, let_go) = gate();
    let call = || {
        let (passwords, gate) = (Arc::clone(&passwords), Arc::clone(&gate));
        tokio::spawn(async move { passwords.run(move |_| gate.pass()).await })
    };
    let first = [call(), call()];
    starts.recv().unwrap();
    starts.recv().unwrap();
    for caller in &first {
        caller.abort();
    }
    for caller in first {
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    assert_eq!(passwords.permits.available_permits(), 0, "the jobs go on");
    let second = [call(), call(), call()];
    let none = starts.recv_timeout(Duration::from_millis(100));
    none.unwrap_err();
    for _ in 0..5 {
        let_go.send(()).unwrap();
    }
    for caller in second {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), ARGON2.concurrent);
    // Every permit comes back, those of the cancelled callers too.
    let all = passwords.permits.acquire_many(2);
    let patience = Duration::from_secs(5);
    drop(tokio::time::timeout(patience, all).await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_2_a_full_queue_refuses_at_once_and_a_long_wait_after_two_seconds() {
    let passwords = passwords();
    let (gate, starts, let_go) = gate();
    let mut callers = Vec::new();
    for _ in 0..ARGON2.concurrent {
        let (passwords, gate) = (Arc::clone(&passwords), Arc::clone(&gate));
        callers.push(tokio::spawn(async move {
            passwords.run(move |_| gate.pass()).await
        }));
        starts.recv().unwrap();
    }
    let places = ARGON2.concurrent * QUEUE_PER_PERMIT;
    let begun = std::time::Instant::now();
    let waiting: Vec<_> = (0..places)
        .map(|_| {
            let passwords = Arc::clone(&passwords);
            tokio::spawn(async move { passwords.run(|_| ()).await })
        })
        .collect();
    let all_wait = async {
        while passwords.queue.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    };
    assert!(passwords.waiting() <= places);
    let patience = Duration::from_secs(2);
    tokio::time::timeout(patience, all_wait).await.unwrap();
    assert_eq!(passwords.waiting(), places);
    let refused = passwords.run(|_| ()).await.unwrap_err();
    assert_eq!(refused, AccountError::Overloaded);
    assert!(begun.elapsed() < Duration::from_secs(2), "at once");
    for caller in waiting {
        assert_eq!(caller.await.unwrap().unwrap_err(), AccountError::Overloaded);
    }
    assert!(begun.elapsed() >= Duration::from_secs(2));
    for _ in 0..ARGON2.concurrent {
        let_go.send(()).unwrap();
    }
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    passwords.run(|_| ()).await.unwrap();
    assert_eq!(passwords.waiting(), 0);
}

#[test]
fn auth_12_no_two_hashes_of_a_password_are_the_same() {
    let passwords = passwords();
    let password = crate::accounts::tests::password("correct horse battery staple");
    let first = passwords.hash_now(&password).unwrap();
    let second = passwords.hash_now(&password).unwrap();
    assert_ne!(first, second);
    assert!(first.0.starts_with("$argon2id$v=19$m=64,t=2,p=1$"));
    assert_eq!(format!("{first:?} {password:?}"), "[redacted] [redacted]");
}

#[test]
fn auth_1_what_unknown_accounts_are_compared_with_costs_what_a_new_hash_does() {
    let passwords = passwords();
    let password = crate::accounts::tests::password("correct horse battery staple");
    let new = passwords.hash_now(&password).unwrap();
    let (new, dummy) = (super::read(&new.0).unwrap(), &passwords.dummy);
    assert_eq!(super::read(&dummy.to_string()).as_ref(), Some(dummy));
    assert!(passwords.is_current(dummy));
    assert_eq!(dummy.params, new.params);
    let lengths = |hash: &super::Phc| (hash.salt.unwrap().len(), hash.hash.unwrap().len());
    assert_eq!(lengths(dummy), lengths(&new));
    // Each process draws its own.
    let other = super::tests::passwords().dummy.clone();
    assert!(other.salt != dummy.salt && other.hash != dummy.hash);
}

#[test]
fn auth_3_a_stored_hash_that_cannot_be_verified_raises_an_alert_without_telling_it() {
    let passwords = passwords();
    let password = crate::accounts::tests::password("correct horse battery staple");
    let good = passwords.hash_now(&password).unwrap();
    for stored in ["", "hunter2", &good.0.replace("m=64", "m=4194304")] {
        let log = Log::default();
        let guard = log.listen();
        let verdict = passwords.verify_now(&password, Some(&PasswordHash(stored.into())));
        drop(guard);
        assert!(matches!(verdict, Verdict::Wrong), "{stored:?}");
        assert!(log.text().contains("password_hash_refused"));
        assert!(stored.is_empty() || !log.text().contains(stored));
    }
    let verdict = passwords.verify_now(&password, Some(&good));
    assert!(matches!(verdict, Verdict::Right { upgrade: None }));
    assert!(matches!(
        passwords.verify_now(&password, None),
        Verdict::Wrong
    ));
}

#[test]
fn auth_3_imported_hashes_are_verified_and_replaced() {
    let passwords = passwords();
    let bcrypt = |cost| bcrypt::hash("open sesame", cost).unwrap();
    let derived = |algorithm, rounds, salt: &[u8], output: &mut [u8]| {
        let rounds = std::num::NonZeroU32::new(rounds).unwrap();
        aws_lc_rs::pbkdf2::derive(algorithm, rounds, salt, b"open sesame", output);
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, output)
    };
    let salt = "c2FsdHNhbHRzYWx0c2FsdA";
    let short = derived(
        aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
        1000,
        b"saltsaltsaltsalt",
        &mut [0; 32],
    );
    let long = derived(
        aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA512,
        1000,
        b"saltsaltsaltsalt",
        &mut [0; 64],
    );
    let mut from_scrypt = [0; 32];
    let params = scrypt::Params::new(4, 8, 1).unwrap();
    scrypt::scrypt(
        b"open sesame",
        b"saltsaltsaltsalt",
        &params,
        &mut from_scrypt,
    )
    .unwrap();
    let from_scrypt = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD_NO_PAD,
        from_scrypt,
    );
    for stored in [
        format!("$scrypt$ln=4,r=8,p=1${salt}${from_scrypt}"),
        bcrypt(4),
        bcrypt(4).replace("$2b$", "$2y$"),
        format!("$pbkdf2-sha256$i=1000,l=32${salt}${short}"),
        format!("$pbkdf2-sha512$1000${salt}${}", long.replace('+', ".")),
    ] {
        let hash = PasswordHash(stored.as_str().into());
        let right = Password::new(Zeroizing::new("open sesame".into())).unwrap();
        let wrong = Password::new(Zeroizing::new("open sesamE".into())).unwrap();
        assert!(matches!(
            passwords.verify_now(&wrong, Some(&hash)),
            Verdict::Wrong
        ));
        let Verdict::Right {
            upgrade: Some(upgrade),
        } = passwords.verify_now(&right, Some(&hash))
        else {
            panic!("{stored}");
        };
        assert!(upgrade.0.starts_with("$argon2id$"));
        assert!(matches!(
            passwords.verify_now(&right, Some(&upgrade)),
            Verdict::Right { upgrade: None }
        ));
    }
}

#[test]
fn auth_3_imported_hashes_that_cost_too_much_or_are_malformed_fit_no_password() {
    let passwords = passwords();
    let good = bcrypt::hash("open sesame", 4).unwrap();
    let salt = "c2FsdHNhbHRzYWx0c2FsdA";
    for stored in [
        good.replace("$04$", "$15$"),
        good.replace("$04$", "$31$"),
        good.replace("$04$", "$4$"),
        good.replace("$04$", "$03$"),
        good.replace("$2b$", "$2x$"),
        format!("{good}x"),
        format!("{good}$"),
        good.chars().take(59).collect(),
        "$2b$04$".into(),
        "$apr1$salt$hash".into(),
        "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=".into(),
        format!("$pbkdf2-sha256$4000000000${salt}${salt}"),
        format!("$pbkdf2-sha256$0${salt}${salt}"),
        format!("$pbkdf2-sha256$1000${salt}$"),
        format!("$pbkdf2-sha256$1000$${salt}"),
        format!("$pbkdf2-sha256$1000${salt}$YWJj"),
        format!("$pbkdf2-sha1$1000${salt}${salt}"),
        "$2b$04$äöü".into(),
        format!("$scrypt$ln=19,r=8,p=1${salt}${salt}"),
        format!("$scrypt$ln=64,r=8,p=1${salt}${salt}"),
        format!("$scrypt$ln=0,r=8,p=1${salt}${salt}"),
        format!("$scrypt$ln=16,r=0,p=1${salt}${salt}"),
        format!("$scrypt$ln=16,r=8,p=0${salt}${salt}"),
        format!("$scrypt$ln=16,r=8,p=1000${salt}${salt}"),
        format!("$scrypt$ln=4,r=4294967295,p=4294967295${salt}${salt}"),
        format!("$scrypt$ln=4,r=8${salt}${salt}"),
        format!("$scrypt$ln=4,r=8,p=1,x=1${salt}${salt}"),
        format!("$scrypt$ln=4,r=8,p=1${salt}$"),
    ] {
        let password = Password::new(Zeroizing::new("open sesame".into())).unwrap();
        let hash = PasswordHash(stored.as_str().into());
        let log = Log::default();
        let guard = log.listen();
        let verdict = passwords.verify_now(&password, Some(&hash));
        drop(guard);
        assert!(matches!(verdict, Verdict::Wrong), "{stored}");
        // Whoever runs the gateway is told, once for each attempt, and not what the hash is.
        assert!(log.text().contains("password_hash_refused"), "{stored}");
        assert!(!log.text().contains(&stored), "{stored}");
    }
}
