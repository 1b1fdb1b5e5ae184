//! The way of a mail: encryption, servers that behave badly, crashes. RST-4, RST-5, UP-5, FAULT-5.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Answer, Gateway, Raw, Site, Upstream,
    certs::Authority,
    eventually, request,
    smtp::{Manner, Shield, Smtp},
};

const PASSWORD: &str = "correct horse battery staple";
const SMTP_PASSWORD: &str = "a password of the relay";

/// A site with accounts and the user `ann`, whose mail goes to this server. `scheme` begins its URL.
async fn site_with(smtp: &Smtp, scheme: &str, change: impl FnOnce(Site) -> Site) -> Site {
    let upstream = Upstream::start().await;
    let url = format!("\"{scheme}{}\"", smtp.address);
    let site = Site::new(upstream.address)
        .accounts()
        .set("mail", "from", "\"Gate <no-reply@example.com>\"")
        .set("mail", "smtp", &url);
    let site = change(site);
    site.write();
    site.user("ann", PASSWORD, &[]).await;
    site
}

/// Over an encrypted connection, with a login.
fn secure(authority: &Authority) -> impl FnOnce(Site) -> Site {
    let ca = authority.pem();
    move |site| {
        site.secret_file("certs/mail-ca.pem", &ca);
        site.secret_file("config/mail.password", &format!("{SMTP_PASSWORD}\n"));
        site.set("mail", "ca", "\"certs/mail-ca.pem\"").set(
            "mail",
            "password_file",
            "\"config/mail.password\"",
        )
    }
}

async fn forgot(gateway: &Gateway, email: &str) -> Answer {
    let body = json!({ "email": email }).to_string();
    let fields = [("Content-Type", "application/json")];
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("POST", "/auth/password/forgot", &fields, &body))
        .await
}

async fn arrives(smtp: &Smtp, count: usize) -> Vec<String> {
    eventually("the mails", async || {
        let mails = smtp.mails();
        (mails.len() >= count).then_some(mails)
    })
    .await
}

/// Waits for a metric of mails to be this.
async fn counts(gateway: &Gateway, result: &str, least: f64) {
    let series = format!("portcullis_mails_total{{result=\"{result}\"}}");
    eventually("a metric", async || {
        let value = gateway.metric(&series).await;
        value.filter(|value| *value >= least)
    })
    .await;
}

/// Waits until the queue is empty, by the gateway's word.
async fn empty(gateway: &Gateway) {
    eventually("an empty queue", async || {
        let value = gateway.metric("portcullis_mail_queue").await;
        value.filter(|value| *value == 0.0)
    })
    .await;
}

#[tokio::test]
async fn up_5_mail_goes_over_verified_tls_and_the_login_with_it() {
    let authority = Authority::new();
    let signed = authority.sign(&["127.0.0.1"]);
    for (shield, scheme) in [
        (
            Shield::Implicit(signed.clone()),
            "smtps://relay%40example.com@",
        ),
        (Shield::StartTls(signed), "smtp://relay%40example.com@"),
    ] {
        let smtp = Smtp::start(Manner::Fine, shield).await;
        let gateway = site_with(&smtp, scheme, secure(&authority))
            .await
            .start()
            .await;
        forgot(&gateway, "ann@example.com").await.is(202);
        let mails = arrives(&smtp, 1).await;
        assert!(
            mails[0].contains("\r\nTo: ann@example.com\r\n"),
            "{}",
            mails[0]
        );
        let lines = smtp.lines();
        for (secured, line) in &lines {
            let open = line.starts_with("EHLO") || line == "STARTTLS";
            assert!(*secured || open, "{line} in the clear");
        }
        assert!(
            lines
                .iter()
                .any(|(_, line)| line.starts_with("AUTH PLAIN "))
        );
        assert!(
            lines
                .iter()
                .any(|(_, line)| line.starts_with("RCPT TO:<ann@example.com>"))
        );
        counts(&gateway, "sent", 1.0).await;
        empty(&gateway).await;
        assert!(!gateway.err.text().contains(SMTP_PASSWORD));
    }
}

#[tokio::test]
async fn up_5_and_rst_5_a_server_that_is_not_trusted_gets_neither_mail_nor_login() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let long_ago = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    };
    let good = authority.sign(&["127.0.0.1"]);
    for (what, manner, shield, scheme) in [
        (
            "of a stranger",
            Manner::Fine,
            Shield::Implicit(stranger.sign(&["127.0.0.1"])),
            "smtps",
        ),
        (
            "of a stranger",
            Manner::Fine,
            Shield::StartTls(stranger.sign(&["127.0.0.1"])),
            "smtp",
        ),
        (
            "of another name",
            Manner::Fine,
            Shield::Implicit(authority.sign(&["mail.example.com"])),
            "smtps",
        ),
        (
            "over",
            Manner::Fine,
            Shield::Implicit(authority.sign_with(&["127.0.0.1"], long_ago)),
            "smtps",
        ),
        (
            "not offered",
            Manner::WithoutStarttls,
            Shield::StartTls(good.clone()),
            "smtp",
        ),
        ("not there", Manner::Fine, Shield::None, "smtp"),
        ("not there", Manner::Fine, Shield::None, "smtps"),
    ] {
        let smtp = Smtp::start(manner, shield).await;
        let scheme = format!("{scheme}://relay@");
        let gateway = site_with(&smtp, &scheme, secure(&authority)).await;
        let gateway = gateway.start().await;
        forgot(&gateway, "ann@example.com").await.is(202);
        counts(&gateway, "failed", 1.0).await;
        assert!(smtp.mails().is_empty(), "{what}");
        for (_, line) in smtp.lines() {
            assert!(
                !line.starts_with("AUTH") && !line.starts_with("MAIL"),
                "{what}: {line}"
            );
        }
        let queued = gateway.metric("portcullis_mail_queue").await;
        assert_eq!(queued, Some(1.0), "{what}: it is kept");
    }
}

#[tokio::test]
async fn rst_5_a_mail_is_tried_again_after_each_fault_that_may_pass() {
    for (manner, failures) in [
        (Manner::Recipient(451, 1), 1.0),
        (Manner::Recipient(421, 1), 1.0),
        (Manner::Drops(1), 1.0),
    ] {
        let smtp = Smtp::start(manner, Shield::None).await;
        let site = site_with(&smtp, "smtp://", |site| {
            site.set("mail", "starttls", "false")
        });
        let gateway = site.await.start().await;
        forgot(&gateway, "ann@example.com").await.is(202);
        counts(&gateway, "failed", failures).await;
        let mails = arrives(&smtp, 1).await;
        assert_eq!(mails.len(), 1, "{manner:?}");
        empty(&gateway).await;
    }
}

#[tokio::test]
async fn rst_5_a_mail_that_is_refused_for_good_is_given_up_and_one_without_login_is_not() {
    let smtp = Smtp::start(Manner::Recipient(550, 1), Shield::None).await;
    let plain = |site: Site| site.set("mail", "starttls", "false");
    let gateway = site_with(&smtp, "smtp://", plain).await.start().await;
    forgot(&gateway, "ann@example.com").await.is(202);
    counts(&gateway, "given_up", 1.0).await;
    empty(&gateway).await;
    assert!(smtp.mails().is_empty());
    let event = gateway.err.find("the event", |line| {
        line.contains("mail_given_up").then(|| line.to_owned())
    });
    let event = event.await;
    assert!(event.contains("550") && !event.contains("ann@"), "{event}");
    // The next one goes.
    forgot(&gateway, "ann@example.com").await.is(202);
    arrives(&smtp, 1).await;

    let authority = Authority::new();
    let shield = Shield::Implicit(authority.sign(&["127.0.0.1"]));
    let smtp = Smtp::start(Manner::Login(535), shield).await;
    let site = site_with(&smtp, "smtps://relay@", secure(&authority)).await;
    let gateway = site.start().await;
    forgot(&gateway, "ann@example.com").await.is(202);
    counts(&gateway, "failed", 1.0).await;
    smtp.behave(Manner::Fine);
    arrives(&smtp, 1).await;
}

#[tokio::test]
async fn rst_5_and_fault_5_mail_waits_for_a_server_over_restarts_and_kills_and_comes_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    // The server is down when the gateway starts: all else works.
    let smtp = Smtp::at(address, Manner::Fine, Shield::None).await;
    let site = site_with(&smtp, "smtp://", |site| {
        site.set("mail", "starttls", "false")
    });
    let site = site.await;
    drop(smtp);
    tokio::task::yield_now().await;
    let mut gateway = site.start().await;
    forgot(&gateway, "ann@example.com").await.is(202);
    counts(&gateway, "failed", 1.0).await;
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let mut gateway = gateway.again().await;
    gateway.signal("KILL");
    gateway.exit().await;
    let smtp = eventually("the port", async || {
        let free = tokio::net::TcpListener::bind(address).await.is_ok();
        if free {
            Some(Smtp::at(address, Manner::Fine, Shield::None).await)
        } else {
            None
        }
    })
    .await;
    let gateway = gateway.again().await;
    arrives(&smtp, 1).await;
    empty(&gateway).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(smtp.mails().len(), 1);
}

#[tokio::test]
async fn rst_4_a_server_that_stalls_delays_no_answer_and_holds_up_no_drain() {
    let smtp = Smtp::start(Manner::Silent, Shield::None).await;
    let site = site_with(&smtp, "smtp://", |site| {
        site.set("mail", "starttls", "false").set(
            "mail",
            "limit",
            r#"{ per_ip = "1000/1h", total = "1000/1h" }"#,
        )
    });
    let mut gateway = site.await.start().await;
    let mut answers = Vec::new();
    let begun = Instant::now();
    for turn in 0..20 {
        let known = if turn % 2 == 0 { "ann" } else { "nobody" };
        let answer = forgot(&gateway, &format!("{known}@example.com")).await;
        answer.is(202);
        answers.push((
            answer.text(),
            answer.header("content-type").map(str::to_owned),
        ));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    // One attempt takes 20 s at this server: nobody waited for it.
    assert!(begun.elapsed() < Duration::from_secs(15));
    eventually("a connection", async || {
        (smtp.connections() > 0).then_some(())
    })
    .await;
    gateway.signal("TERM");
    let begun = Instant::now();
    assert!(gateway.exit().await.success());
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn rst_5_the_server_of_the_configuration_is_checked() {
    let upstream = Upstream::start().await;
    for (keys, says) in [
        (
            vec![
                ("smtp", r#""smtp://mail.example.com""#),
                ("starttls", "false"),
            ],
            "mail.starttls",
        ),
        (
            vec![("smtp", r#""smtps://user:secret-in-url@mail.example.com""#)],
            "holds a password",
        ),
        (
            vec![("smtp", r#""smtps://user@mail.example.com""#)],
            "without a password",
        ),
        (
            vec![("smtp", r#""https://mail.example.com""#)],
            "neither smtps:// nor smtp://",
        ),
        (
            vec![("smtp", r#""smtps://mail.example.com/x""#)],
            "more than user, host and port",
        ),
        (vec![("smtp", r#""smtps://""#)], "mail.smtp"),
        (
            vec![
                ("smtp", r#""smtps://a.example""#),
                ("spool", r#""data/mail""#),
            ],
            "one way too many",
        ),
        (vec![], "mail.smtp: is missing"),
        (
            vec![("spool", r#""data/mail""#), ("ca", r#""certs/site.crt""#)],
            "is for a mail server",
        ),
        (
            vec![("spool", r#""data/mail""#), ("reset_ttl", r#""2h""#)],
            "mail.reset_ttl",
        ),
        (
            vec![("spool", r#""data/mail""#), ("reset_ttl", r#""10s""#)],
            "mail.reset_ttl",
        ),
        (
            vec![
                ("spool", r#""data/mail""#),
                ("from", "\"a@example.com\\r\\nBcc: b@example.com\""),
            ],
            "mail.from",
        ),
        (
            vec![
                ("spool", r#""data/mail""#),
                ("from", r#""a@example.com, b@example.com""#),
            ],
            "mail.from",
        ),
    ] {
        let mut site =
            Site::new(upstream.address)
                .accounts()
                .set("mail", "from", r#""no-reply@example.com""#);
        for (key, value) in &keys {
            site = site.set("mail", key, value);
        }
        site.write();
        let exit = site.run(&["check"], "").await;
        let said = format!("{}{}", exit.stdout, exit.stderr);
        assert_eq!(exit.code, Some(1), "{keys:?}: {said}");
        assert!(said.contains(says), "{keys:?}: {said}");
    }
    let site = Site::new(upstream.address).accounts();
    site.write();
    let exit = site.run(&["check"], "").await;
    let said = format!("{}{}", exit.stdout, exit.stderr);
    assert_eq!(exit.code, Some(0), "{said}");
    assert!(
        said.contains("forgotten passwords cannot be reset"),
        "{said}"
    );
}
