//! Overrides by the environment: which are refused, what is said of them, and what the others change.

use std::os::unix::ffi::OsStrExt;

use super::*;

fn project(variables: &[(&str, &str)]) -> Project {
    Project {
        overrides: variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        ..Project::new()
    }
}

/// Asserts that a variable is refused with one error, which names it and has these words; gives the report.
#[track_caller]
fn refused(name: &str, value: &str, words: &str) -> String {
    refused_among(&[(name, value)], name, words)
}

#[track_caller]
fn refused_among(variables: &[(&str, &str)], name: &str, words: &str) -> String {
    let report = project(variables).read(BASE).unwrap_err();
    let mut errors = report
        .problems()
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    let error = errors.next().unwrap();
    assert!(errors.next().is_none(), "not one error:\n{report}");
    assert_eq!(error.variable.as_deref(), Some(name), "{report}");
    assert_eq!((error.line, error.column), (0, 0), "{report}");
    let said = format!("{}: {:?}", error.message, error.hint);
    assert!(said.contains(words), "{report}");
    let text = report.to_string();
    assert!(
        text.contains(&format!("the environment variable {name}")),
        "{text}"
    );
    text
}

#[test]
fn names_that_say_no_key_are_refused() {
    for (name, words) in [
        ("PORTCULLIS__", "names no key"),
        ("PORTCULLIS____SERVER", "names no key"),
        ("PORTCULLIS__SERVER__", "names no key"),
        ("PORTCULLIS__SERVER__ADMIN-LISTEN", "names no key"),
        ("PORTCULLIS__SERVER.ADMIN_LISTEN", "names no key"),
        ("PORTCULLIS__server__workers", "PORTCULLIS__SERVER__WORKERS"),
        ("portcullis__server__workers", "PORTCULLIS__SERVER__WORKERS"),
    ] {
        refused(name, "1", words);
    }
}

#[test]
fn cfg_1_unknown_keys_are_refused_with_the_nearest() {
    for (name, words) in [
        ("PORTCULLIS__SERVR__WORKERS", "did you mean `server`"),
        ("PORTCULLIS__SERVER__WORKER", "did you mean `workers`"),
        ("PORTCULLIS__SERVER_WORKERS", "known here"),
        (
            "PORTCULLIS__SERVER__TIMEOUTS__HEADERS",
            "did you mean `header`",
        ),
        (
            "PORTCULLIS__UPSTREAM__APP__SERVER",
            "did you mean `servers`",
        ),
    ] {
        refused(name, "1", words);
    }
}

#[test]
fn entries_of_lists_are_found_by_name_and_not_made() {
    for (name, words) in [
        ("PORTCULLIS__UPSTREAM__APQ__SERVERS", "did you mean `app`"),
        ("PORTCULLIS__UPSTREAM__0__SERVERS", "known here: app"),
        ("PORTCULLIS__ROUTE__ALL__NAME", "cannot be set"),
        ("PORTCULLIS__ROUTE__ALL__ACCESS__X", "is no table"),
        (
            "PORTCULLIS__TLS__CERTIFICATES__0__CERT",
            "the whole of it, as TOML",
        ),
        (
            "PORTCULLIS__ACCOUNTS__CLIENT__ORDERS__ID",
            "the file has no [[accounts.client]]",
        ),
    ] {
        refused(name, "\"public\"", words);
    }
    let twice = BASE.replace(
        "[[route]]",
        "[[upstream]]\nname = \"APP\"\nservers = [\"http://127.0.0.1:1\"]\n[[route]]",
    );
    let report = project(&[("PORTCULLIS__UPSTREAM__APP__MAX_PENDING", "1")]).read(&twice);
    let report = report.unwrap_err().to_string();
    assert!(report.contains("several [[upstream]]"), "{report}");
}

#[test]
fn names_of_the_operators_own_are_not_guessed() {
    let words = "set the whole table";
    refused("PORTCULLIS__IDENTITY__HEADERS__X_USER", "{user}", words);
    let claims = "PORTCULLIS__ROUTE__ALL__REQUIRE__CLAIMS__TENANT";
    refused(claims, "[\"a\"]", words);
}

#[test]
fn values_are_checked_as_those_of_the_file() {
    for (name, value, words) in [
        ("PORTCULLIS__SERVER__WORKERS", "", "is empty"),
        ("PORTCULLIS__SERVER__WORKERS", " \t", "is empty"),
        (
            "PORTCULLIS__SERVER__WORKERS",
            "many",
            "expected a whole number",
        ),
        ("PORTCULLIS__SERVER__WORKERS", "2000", "above the most"),
        (
            "PORTCULLIS__SERVER__DRAIN_DELAY",
            "5",
            "`5` is not a duration",
        ),
        ("PORTCULLIS__SERVER__DRAIN_DELAY", "2h", "above the most"),
        (
            "PORTCULLIS__SERVER__LISTEN",
            "127.0.0.1:0",
            "a variable is read as TOML",
        ),
        (
            "PORTCULLIS__SERVER__LISTEN",
            "[\"127.0.0.1:0\"",
            "expected a list",
        ),
        (
            "PORTCULLIS__SERVER__LISTEN",
            "[1]",
            "expected a string, found a whole number",
        ),
        ("PORTCULLIS__SERVER__LISTEN", "[]", "is an empty list"),
        ("PORTCULLIS__SERVER", "x", "expected a table"),
        (
            "PORTCULLIS__IDENTITY__PASS_TOKEN",
            "yes",
            "expected true or false",
        ),
        (
            "PORTCULLIS__ROUTE__ALL__ACCESS",
            "publik",
            "did you mean `public`",
        ),
    ] {
        refused(name, value, words);
    }
}

#[test]
fn what_is_no_text_is_refused() {
    let mut project = project(&[]);
    let value = std::ffi::OsStr::from_bytes(b"\xff");
    project.overrides = vec![("PORTCULLIS__SERVER__WORKERS".into(), value.into())];
    let report = project.read(BASE).unwrap_err().to_string();
    assert!(report.contains("server.workers: is not UTF-8"), "{report}");
    let name = std::ffi::OsStr::from_bytes(b"PORTCULLIS__SERVER__WORKERS\xff");
    project.overrides = vec![(name.into(), "1".into())];
    let report = project.read(BASE).unwrap_err().to_string();
    assert!(report.contains("names no key"), "{report}");
}

#[test]
fn of_two_variables_one_within_the_other_neither_is_preferred() {
    let both = [
        ("PORTCULLIS__SERVER", "{ workers = 1 }"),
        ("PORTCULLIS__SERVER__WORKERS", "2"),
    ];
    let inner = "PORTCULLIS__SERVER__WORKERS";
    refused_among(&both, inner, "lies within PORTCULLIS__SERVER,");
}

#[test]
fn log_1_a_value_is_never_shown() {
    let secret = "kX3-canary-1f0e";
    for name in [
        "PORTCULLIS__ACCOUNTS__STORE_PASSWORD",
        "PORTCULLIS__ISSUER__CORP__SECRET",
        "PORTCULLIS__MAIL__PASSWORD",
        "PORTCULLIS__SERVER__WORKERS",
        "PORTCULLIS__SERVER__TIMEOUTS",
    ] {
        let project = project(&[(name, secret)]);
        let report = project.read(BASE).unwrap_err();
        for text in [
            report.to_string(),
            report.render(true),
            format!("{report:?}"),
        ] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    let good = project(&[("PORTCULLIS__IDENTITY__HEADERS", "{ X-A = \"canary\" }")]);
    let checked = good.read(BASE).unwrap();
    assert!(!format!("{:?}", checked.overridden).contains("canary"));
}

#[test]
fn key_5_secrets_are_of_a_file_or_a_variable_over_both_sources() {
    let issuer = BASE
        .replace("algorithms = [\"RS256\"]", "algorithms = [\"HS256\"]")
        .replace("jwks_file = \"corp.json\"", "secret_file = \"corp.secret\"");
    let mut project = project(&[("PORTCULLIS__ISSUER__CORP__SECRET_ENV", "CORP")]);
    let secret = "8PTmCwWq1XyJ4nqGk7Zr0Vd2sHc9uLbA3eFiToKxMhY";
    project.variables = vec![("CORP", secret.to_owned())];
    project.write("corp.secret", secret, 0o600);
    let key = "issuer[0].secret_env";
    project.refuses(&issuer, key, "one source of keys too many");
    let other = issuer.replace("secret_file = \"corp.secret\"", "");
    project.accepts(&other);
}

#[test]
fn values_are_toml_or_the_text_that_a_string_key_wants() {
    let project = project(&[
        ("PORTCULLIS__SERVER__ADMIN_LISTEN", "127.0.0.1:9000"),
        ("PORTCULLIS__SERVER__WORKERS", "3"),
        (
            "PORTCULLIS__SERVER__TRUSTED_PROXIES",
            "[\"10.0.0.1/32\", '10.0.0.2/32']",
        ),
        ("PORTCULLIS__SERVER__TIMEOUTS__HEADER", "7s"),
        ("PORTCULLIS__TLS__MIN_VERSION", "1.3"),
        ("PORTCULLIS__IDENTITY__PASS_TOKEN", " true "),
        (
            "PORTCULLIS__RATE_LIMIT__PER_IP",
            "{ rate = \"7/s\", burst = 9 }",
        ),
        ("PORTCULLIS__RATE_LIMIT__BAD_TOKENS__BURST", "11"),
        ("PORTCULLIS__RATE_LIMIT__BAD_TOKENS__RATE", "10/1m"),
        ("PORTCULLIS__UPSTREAM__APP__HOST", "\"7\""),
        ("PORTCULLIS__ROUTE__ALL__ACCESS", "optional"),
        ("PORTCULLIS__ACCOUNTS__PAGES__TITLE", "2026"),
        ("PORTCULLIS__LOG__LEVEL", "\"warn\""),
    ]);
    let checked = project
        .read(BASE)
        .unwrap_or_else(|report| panic!("{report}"));
    let config = checked.config;
    assert_eq!(config.server.admin_listen.port(), 9000);
    assert_eq!(config.server.workers, 3);
    assert!(!config.server.trusted_proxies.is_empty());
    assert_eq!(config.server.timeouts.header.as_secs(), 7);
    assert_eq!(config.server.timeouts.body_idle.as_secs(), 30, "kept");
    assert!(config.identity.pass_token);
    assert_eq!(config.limit.per_ip.burst, 9);
    assert_eq!(config.limit.bad_tokens.burst, 11);
    assert_eq!(config.routes[0].access, crate::policy::Access::Optional);
    let pages = config.accounts.unwrap().pages.unwrap();
    assert_eq!(&*pages.title, "2026", "a number where a string is wanted");
    let keys: Vec<&str> = checked
        .overridden
        .iter()
        .map(|one| {
            assert!(one.variable.starts_with("PORTCULLIS__"));
            &*one.key
        })
        .collect();
    assert!(keys.contains(&"route[0].access"), "{keys:?}");
    assert!(keys.contains(&"server.timeouts.header"), "{keys:?}");
    assert_eq!(keys.len(), 13);
}

#[test]
fn names_of_entries_are_found_without_their_signs() {
    let text = BASE.replace("\"app\"", "\"Legacy-app.v2\"");
    let name = "PORTCULLIS__UPSTREAM__LEGACY_APP_V2__SERVERS";
    let config = project(&[(name, "[\"http://127.0.0.1:9009\"]")]).accepts(&text);
    assert_eq!(config.upstreams[0].servers[0].to_string(), "127.0.0.1:9009");
}

#[test]
fn a_section_that_the_file_lacks_is_made() {
    let text = BASE
        .replace("spool = \"data/mail\"", "")
        .replace("[mail]", "");
    let text = text.replace("from = \"Gate <no-reply@example.com>\"", "");
    let from = ("PORTCULLIS__MAIL__FROM", "Gate <no-reply@example.com>");
    let spool = ("PORTCULLIS__MAIL__SPOOL", "data/mail");
    let config = project(&[from, spool]).accepts(&text);
    assert!(config.accounts.unwrap().mail.is_some());
    // What such a section lacks is told of the variable that made it.
    let report = project(&[from]).read(&text).unwrap_err();
    let error = &report.problems()[report.problems().len() - 1];
    assert_eq!(
        error.variable.as_deref(),
        Some("PORTCULLIS__MAIL__FROM"),
        "{report}"
    );
}

#[test]
fn a_change_of_a_variable_is_a_change_of_the_configuration() {
    let outline = |value: &str| {
        let project = project(&[("PORTCULLIS__SERVER__WORKERS", value)]);
        let environment = Environment {
            lookup: &|_| None,
            overrides: project.overrides.clone(),
        };
        let root = project.folder.path();
        let reading = source::examine(BASE, Path::new("x"), root, &environment);
        reading.written.outline()
    };
    let changes = outline("1").changes_to(&outline("2"));
    assert_eq!(changes[0].to_string(), "server changed: workers");
}

#[test]
fn no_variable_panics_or_is_passed_over() {
    let project = Project::new();
    let root = project.folder.path();
    let names = "(SERVER|ROUTE|TLS|WORKERS|MIN_VERSION|X|_|__|ALL|[A-Z]){0,5}";
    let values = "\\PC{0,9}|\\[[a-z0-9\",]{0,9}\\]|[0-9.:-]{0,6}";
    proptest::proptest!(|(name in names, value in values)| {
        let name = format!("PORTCULLIS__{name}");
        let overrides = vec![(OsString::from(&name), value.into())];
        let environment = Environment { lookup: &|_| None, overrides };
        match check(BASE, Path::new("x"), root, &environment) {
            Err(report) => {
                let errors = report.problems().iter().filter(|one| one.severity == Severity::Error);
                for error in errors {
                    proptest::prop_assert_eq!(error.variable.as_ref(), Some(&name), "{}", report);
                }
            }
            Ok(checked) => proptest::prop_assert_eq!(checked.overridden.len(), 1),
        }
    });
}
