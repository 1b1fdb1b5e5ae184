//! `portcullis explain` and policy tests: what they tell is what the live path does.

use serde_json::Value;

use crate::harness::{Kind, Raw, Site, Token, Upstream, keys::bearer, request};

fn site(upstream: &Upstream) -> Site {
    Site::new(upstream.address)
        .route("trial", "/trial", "authenticated")
        .on_route("require", r#"{ roles = ["admin"] }"#)
        .on_route("enforce", "false")
        .route("near", "/near", "public")
        .on_route("allow_ips", r#"["192.0.2.0/24"]"#)
        .route("reads", "/reads", "public")
        .on_route("methods", r#"["GET"]"#)
}

async fn explained(site: &Site, arguments: &[&str]) -> Value {
    let arguments = [&["explain"], arguments, &["--format", "json"]].concat();
    let exit = site.run(&arguments, "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    serde_json::from_str(&exit.stdout).unwrap()
}

#[tokio::test]
async fn uri_3_what_is_told_is_what_the_live_path_does() {
    let upstream = Upstream::start().await;
    let site = site(&upstream);
    site.write();
    let good = Token::good().sign();
    let admin = Token::new(Kind::Es).claim("roles", vec!["admin"]).sign();
    let expired = Token::good().claim("exp", 1).sign();
    let (body, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{body}.{}", "A".repeat(43));
    let mut cases = Vec::new();
    for token in ["", &good, &admin, &expired, &forged, "a.b", "a.b.c"] {
        for (method, target) in [
            ("GET", "/public"),
            ("GET", "/optional"),
            ("GET", "/private/7?x=1"),
            ("POST", "/admin"),
            ("GET", "/scoped"),
            ("GET", "/trial"),
            ("GET", "/near"),
            ("POST", "/reads"),
            ("GET", "/nowhere"),
            ("GET", "/private/../public"),
            ("GET", "/private%2fx"),
        ] {
            cases.push((token, method, target));
        }
    }
    let mut told = Vec::new();
    for (token, method, target) in &cases {
        let url = format!("https://localhost{target}");
        let mut arguments = vec![*method, &url];
        if !token.is_empty() {
            arguments.extend(["--token", token]);
        }
        told.push(explained(&site, &arguments).await);
    }
    let gateway = site.start().await;
    for ((token, method, target), told) in cases.iter().zip(told) {
        let credential = bearer(token);
        let mut fields = vec![("Host", "localhost")];
        if !token.is_empty() {
            fields.push(("Authorization", &credential));
        }
        let mut raw = Raw::connect(&gateway).await;
        let answer = raw.exchange(request(method, target, &fields, "")).await;
        let code = if answer.status == 200 {
            "admitted".to_owned()
        } else {
            answer.code()
        };
        assert_eq!(told["code"], code, "{method} {target} {token:?}: {told}");
        assert_eq!(told["status"], answer.status);
        // The story ends where the decision does.
        let steps = told["steps"].as_array().unwrap();
        let last = steps.last().unwrap();
        assert_eq!(last["passed"].as_bool(), Some(code == "admitted"), "{told}");
        if code != "admitted" {
            assert_eq!(last["code"], code, "{told}");
            assert!(
                steps[..steps.len() - 1]
                    .iter()
                    .all(|step| step["passed"] == true || told["unenforced"] != Value::Null)
            );
        }
    }
}

#[tokio::test]
async fn hdr_1_what_the_upstream_would_be_told_is_told() {
    let upstream = Upstream::start().await;
    let site = site(&upstream);
    site.write();
    let claims = r#"{"iss":"hs","sub":"alice","roles":["clerk","admin"]}"#;
    let told = explained(
        &site,
        &[
            "GET",
            "https://localhost/admin",
            "--claims",
            claims,
            "--header",
            "X-Forwarded-User: root",
            "--header",
            "X_Forwarded_Groups: all",
            "--from",
            "192.0.2.9",
        ],
    )
    .await;
    assert_eq!(told["code"], "admitted", "{told}");
    assert_eq!(told["upstream"], "legacy");
    let set = |name: &str| {
        let fields = told["set"].as_array().unwrap();
        let found = fields.iter().find(|field| field[0] == name);
        found.map(|field| field[1].as_str().unwrap().to_owned())
    };
    assert_eq!(set("x-forwarded-user").as_deref(), Some("alice"));
    assert_eq!(set("x-forwarded-groups").as_deref(), Some("clerk,admin"));
    assert_eq!(set("x-real-ip").as_deref(), Some("192.0.2.9"));
    let removed = told["removed"].to_string();
    assert!(
        removed.contains("x_forwarded_groups") && removed.contains("authorization"),
        "{told}"
    );
    // The claims are checked like those of any token.
    for (claims, reason) in [
        (r#"{"iss":"hs","sub":""}"#, "subject"),
        (r#"{"iss":"hs","aud":"others"}"#, "audience"),
        (r#"{"iss":"hs","exp":"soon"}"#, "claim_type"),
    ] {
        let told = explained(
            &site,
            &["GET", "https://localhost/private", "--claims", claims],
        )
        .await;
        assert_eq!(told["code"], "token_invalid");
        assert_eq!(told["reason"], reason, "{told}");
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn the_text_names_the_step_that_refuses() {
    let upstream = Upstream::start().await;
    let site = site(&upstream);
    site.write();
    let url = "https://localhost/admin";
    let claims = r#"{"iss":"https://es.issuer.test","roles":["clerk"]}"#;
    let exit = site
        .run(&["explain", "GET", url, "--claims", claims], "")
        .await;
    for words in [
        "rule",
        "REFUSED role_missing",
        "403 role_missing: The caller has none",
    ] {
        assert!(exit.stdout.contains(words), "{words}: {}", exit.stdout);
    }
    let token = Token::good().claim("exp", 1).sign();
    let exit = site
        .run(
            &["explain", "GET", url, "--token", "-"],
            &format!("{token}\n"),
        )
        .await;
    assert!(exit.stdout.contains("401 token_expired"), "{exit:?}");
    let lines: Vec<Vec<&str>> = exit
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(lines.contains(&vec!["signature", "passed"]), "{exit:?}");
    assert!(lines.contains(&vec!["expiry", "FAILED"]), "{exit:?}");
    for (arguments, words) in [
        (&["GET", "/admin"][..], "not an absolute URL"),
        (&["G T", url], "is no request"),
        (&["GET", "https://localhost/a b"], "is no request"),
        (&["GET", url, "--claims", "[]"], "not a JSON object"),
        (
            &["GET", url, "--claims", r#"{"iss":"nobody"}"#],
            "no such issuer",
        ),
        (&["GET", url, "--header", "X"], "is not `Name: value`"),
    ] {
        let arguments = [&["explain"], arguments].concat();
        let exit = site.run(&arguments, "").await;
        assert_eq!(exit.code, Some(1), "{arguments:?}: {exit:?}");
        assert!(exit.stderr.contains(words), "{arguments:?}: {exit:?}");
    }
}

#[tokio::test]
async fn policy_tests_pass_and_fail() {
    let upstream = Upstream::start().await;
    let site = site(&upstream).accounts();
    site.write();
    let cases = r#"
[[case]]
name = "clerks do not administer"
url = "https://localhost/admin"
claims = { iss = "hs", sub = "alice", roles = ["clerk"] }
expect = { code = "role_missing", route = "admin" }

[[case]]
name = "administrators do, and are named"
method = "POST"
url = "https://localhost/admin"
from = "192.0.2.1"
headers = { X-Forwarded-User = "root" }
claims = { iss = "portcullis", preferred_username = "ann", roles = ["admin"] }
expect = { code = "admitted", upstream = "legacy", headers = { X-Forwarded-User = "ann", X-Real-IP = "192.0.2.1" }, absent = ["Remote-User"] }

[[case]]
name = "the trial would refuse strangers"
url = "https://localhost/trial"
expect = { code = "admitted", unenforced = "credentials_missing" }
"#;
    let file = site.path().join("policy.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, cases).unwrap();
    let exit = site.run(&["check", "--tests", path], "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stdout.contains("3 passed, 0 failed"), "{exit:?}");
    std::fs::write(&file, cases.replace("role_missing", "admitted")).unwrap();
    let exit = site.run(&["check", "--tests", path], "").await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(
        exit.stdout.contains("code role_missing, not admitted"),
        "{exit:?}"
    );
    for broken in [
        "",
        "[[case]]\nname = 1",
        &cases.replace("expect", "expects"),
    ] {
        std::fs::write(&file, broken).unwrap();
        let exit = site.run(&["check", "--tests", path], "").await;
        assert_eq!(exit.code, Some(1), "{broken}: {exit:?}");
    }
}

#[tokio::test]
async fn questions_take_nothing_from_any_limit() {
    let upstream = Upstream::start().await;
    let site = site(&upstream)
        .set("rate_limit", "per_ip", r#"{ rate = "1/1h", burst = 1 }"#)
        .route("limited", "/limited", "public")
        .on_route("rate_limit", r#"[{ key = "route", rate = "1/1h" }]"#);
    site.write();
    let case = "[[case]]\nname = \"again\"\nurl = \"https://localhost/limited\"\nexpect = { code = \"admitted\" }\n";
    let file = site.path().join("policy.toml");
    std::fs::write(&file, case.repeat(3)).unwrap();
    let exit = site
        .run(&["check", "--tests", file.to_str().unwrap()], "")
        .await;
    assert!(exit.stdout.contains("3 passed, 0 failed"), "{exit:?}");
}
