//! Keys set by variables of the environment: obeyed by every command, checked as those of the file, never passed over (CFG-1).

use serde_json::Value;

use crate::harness::{Raw, Site, Upstream, keys::keys, request};

const ACCESS: &str = "PORTCULLIS__ROUTE__PUBLIC__ACCESS";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn cfg_1_a_variable_that_sets_no_key_stops_every_command() {
    let mut site = Site::new("127.0.0.1:9".parse().unwrap()).accounts();
    site.write();
    let secret = &keys().secret;
    let name = "PORTCULLIS__ISSUER__HS__SECRET";
    site.variable(name, secret);
    for arguments in [
        &["run"][..],
        &["check"],
        &["explain", "GET", "https://localhost/public"],
        &["user", "list"],
        &["key", "list"],
        &["token", "inspect", "a.b.c"],
    ] {
        let exit = site.run(arguments, "").await;
        assert_eq!(exit.code, Some(1), "{arguments:?}: {exit:?}");
        let said = format!("{}{}", exit.stdout, exit.stderr);
        assert!(said.contains(name), "{arguments:?}: {said}");
        assert!(said.contains("a secret is not written here"), "{said}");
        assert!(
            !said.contains(secret) && !said.contains("\"listening\""),
            "{said}"
        );
    }
    let exit = site.run(&["check", "--format", "json"], "").await;
    let told = json(&exit.stdout);
    assert_eq!(told["ok"], false);
    let problems = told["problems"].as_array().unwrap().iter();
    let errors: Vec<&Value> = problems.filter(|one| one["severity"] == "error").collect();
    assert_eq!(errors.len(), 1, "{told}");
    assert_eq!(errors[0]["variable"], name);
    assert_eq!(errors[0]["line"], 0);
}

#[tokio::test]
async fn cfg_1_what_a_variable_closes_is_closed_for_all_and_stays_so() {
    let upstream = Upstream::start().await;
    let mut site = Site::new(upstream.address);
    site.write();
    site.variable(ACCESS, "authenticated");
    site.variable("PORTCULLIS__LOG__LEVEL", "debug");
    let told = site.run(&["check", "--format", "json"], "").await;
    let told = json(&told.stdout);
    let keys: Vec<&Value> = told["environment"].as_array().unwrap().iter().collect();
    assert_eq!(keys.len(), 2, "{told}");
    assert_eq!(keys[0]["variable"], "PORTCULLIS__LOG__LEVEL");
    assert_eq!(keys[0]["key"], "log.level");
    let text = site.run(&["check"], "").await.stdout;
    assert!(text.contains(ACCESS), "{text}");
    let url = "https://localhost/public";
    let arguments = ["explain", "GET", url, "--format", "json"];
    let explained = json(&site.run(&arguments, "").await.stdout);
    assert_eq!(explained["status"], 401, "{explained}");
    let gateway = site.start().await;
    let variable = |line: &str| line.contains(ACCESS).then_some(());
    gateway.err.find("the variable's name", variable).await;
    let ask = || async {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request("GET", "/public", &[], ""))
            .await
            .status
    };
    assert_eq!(ask().await, 401);
    // Another reading of the file applies it again.
    let toml = gateway.site.toml();
    gateway.site.put(
        "config/gateway.toml",
        &toml.replace("/optional", "/elsewhere"),
    );
    let mut raw = Raw::plain(gateway.admin).await;
    let reload = request("POST", "/reload", &[("connection", "close")], "");
    let answer = raw.exchange(reload).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(ask().await, 401);
    upstream.saw_nothing();
    // A file in which the entry has another name is refused, and the old one goes on.
    let renamed = toml.replace("name = \"public\"", "name = \"open\"");
    gateway.site.put("config/gateway.toml", &renamed);
    let mut raw = Raw::plain(gateway.admin).await;
    let reload = request("POST", "/reload", &[("connection", "close")], "");
    let answer = raw.exchange(reload).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains(ACCESS), "{}", answer.text());
    assert_eq!(ask().await, 401);
}
