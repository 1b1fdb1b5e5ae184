//! The section `[tracing]`: one collector, its token in a private place (KEY-5), and warnings where others can read along.

use super::*;
use crate::spans::settings::TracingSettings;

fn text(lines: &str) -> String {
    format!("{BASE}[tracing]\n{lines}\n")
}

fn project() -> Project {
    let mut project = Project::new();
    project.write(
        "good",
        "authorization=Bearer%20s3cr3t\nx-tenant = a\n",
        0o600,
    );
    project.write("open", "authorization=s3cr3t", 0o644);
    project.variables = vec![("HEADERS", "api-key=s3cr3t==,x-a=1%2C2".into())];
    project
}

const NEAR: &str = "endpoint = \"http://127.0.0.1:4318/v1/traces\"";

#[track_caller]
fn tracing(lines: &str) -> TracingSettings {
    project().accepts(&text(lines)).tracing.unwrap()
}

#[test]
fn what_is_no_collector_is_refused() {
    project().refuses(&text(""), "tracing.endpoint", "is missing");
    for (endpoint, words) in [
        ("127.0.0.1:4318/v1/traces", "is not a URL"),
        ("grpc://127.0.0.1/v1/traces", "neither https:// nor http://"),
        (
            "http://u:s3cr3t@127.0.0.1/v1/traces",
            "holds a name or password",
        ),
        ("http://127.0.0.1/v1/traces#x", "has a fragment"),
        ("http://127.0.0.1:4318", "has no path"),
        ("https://collector.example.com/", "has no path"),
    ] {
        let lines = format!("endpoint = {endpoint:?}");
        project().refuses(&text(&lines), "tracing.endpoint", words);
    }
    for (line, key, words) in [
        ("sample = 1.001", "sample", "above the most"),
        ("sample = \"all\"", "sample", "expected a fraction"),
        ("queue = 15", "queue", "below the least"),
        ("queue = 65537", "queue", "above the most"),
        ("interval = \"99ms\"", "interval", "below the least"),
        ("interval = \"61s\"", "interval", "above the most"),
        ("timeout = \"31s\"", "timeout", "above the most"),
        ("service_name = \"a\\nb\"", "service_name", "is no name"),
        ("user = 1", "user", "expected true or false"),
        ("ca = \"certs/site.crt\"", "ca", "is for https://"),
        ("headers_file = \"open\"", "headers_file", ""),
        ("headers_file = \"gone\"", "headers_file", ""),
        ("headers_env = \"NOBODY\"", "headers_env", "is not set"),
        (
            "headers_env = \"HEADERS\"\nheaders_file = \"good\"",
            "headers_env",
            "one secret too many",
        ),
        ("headers = { a = \"b\" }", "headers", "unknown key"),
        ("token = \"s3cr3t\"", "token", "unknown key"),
    ] {
        let lines = format!("{NEAR}\n{line}");
        project().refuses(&text(&lines), &format!("tracing.{key}"), words);
    }
    let lines = "endpoint = \"https://h/v1/traces\"\nca = \"good\"";
    project().refuses(&text(lines), "tracing.ca", "no certificate");
}

#[test]
fn key_5_headers_that_fit_none_are_refused_and_not_repeated() {
    for (content, words) in [
        ("", "is empty"),
        (" ,\n, ", "no header"),
        ("s3cr3t", "place 1 has no `=`"),
        ("a=b,s3cr3t", "place 2 has no `=`"),
        ("=s3cr3t", "has no name"),
        ("s3 cr3t=x", "has no name"),
        ("a=", "has no value"),
        ("a=s3cr3t%00", "fits no header"),
        ("a=s3cr3t%0d%0ahost:x", "fits no header"),
        ("a=s3cr3t,A=b", "is there twice"),
        ("host=s3cr3t", "the gateway itself sets"),
        ("Content-Length=0", "the gateway itself sets"),
        ("transfer-encoding=s3cr3t", "the gateway itself sets"),
    ] {
        let project = project();
        project.write("good", content, 0o600);
        let lines = text(&format!("{NEAR}\nheaders_file = \"good\""));
        project.refuses(&lines, "tracing.headers_file", words);
        let report = project.read(&lines).map(|checked| checked.config);
        let report = report.unwrap_err().to_string();
        assert!(!report.contains("s3cr3t"), "{report}");
    }
}

#[test]
fn a_collector_is_what_the_section_says() {
    let least = tracing(NEAR);
    assert_eq!(least.endpoint, "http://127.0.0.1:4318/v1/traces");
    assert_eq!((least.thousandths, least.queue), (1000, 2048));
    assert_eq!(&*least.service_name, "portcullis");
    assert_eq!((least.headers.len(), least.user), (0, false));
    let all = tracing(
        "endpoint = \"https://c.example.com/otlp/v1/traces?tenant=a\"\nsample = 0.05\nqueue = 16\ninterval = \"100ms\"\n\
         timeout = \"2s\"\nservice_name = \"edge\"\nuser = true\nca = \"certs/site.crt\"\nheaders_file = \"good\"",
    );
    assert_eq!(
        all.endpoint,
        "https://c.example.com/otlp/v1/traces?tenant=a"
    );
    assert_eq!((all.thousandths, all.queue, all.user), (50, 16, true));
    assert!(
        all.ca
            .as_ref()
            .is_some_and(|path| path.ends_with("certs/site.crt"))
    );
    let header = |settings: &TracingSettings, name| {
        let value = settings.headers.get(name);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    let token = header(&all, "authorization");
    assert_eq!(token.as_deref(), Some("Bearer s3cr3t"));
    assert_eq!(header(&all, "x-tenant").as_deref(), Some("a"));
    let env = tracing(&format!("{NEAR}\nheaders_env = \"HEADERS\""));
    assert_eq!(header(&env, "api-key").as_deref(), Some("s3cr3t=="));
    assert_eq!(header(&env, "x-a").as_deref(), Some("1,2"));
    for settings in [&all, &env] {
        let shown = format!("{settings:?} {:?}", settings.headers);
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
    assert!(project().accepts(BASE).tracing.is_none());
}

#[test]
fn what_others_can_read_is_said() {
    let key = "tracing.endpoint";
    for host in ["collector.example.com", "10.0.0.1", "[2001:db8::1]"] {
        let line = text(&format!("endpoint = \"http://{host}:4318/v1/traces\""));
        project().warns(&line, key, "without encryption");
    }
    let lines = "endpoint = \"http://10.0.0.1/v1/traces\"\nheaders_env = \"HEADERS\"";
    project().warns(&text(lines), key, "and their token");
    let grpc = text("endpoint = \"http://127.0.0.1:4317/v1/traces\"");
    project().warns(&grpc, key, "the port of OTLP over gRPC");
    for near in ["127.0.0.1", "[::1]", "localhost"] {
        let line = text(&format!("endpoint = \"http://{near}:4318/v1/traces\""));
        let warnings = project().read(&line).unwrap().warnings;
        let about = |problem: &&Problem| problem.key.starts_with("tracing");
        assert_eq!(warnings.problems().iter().filter(about).count(), 0);
    }
}
