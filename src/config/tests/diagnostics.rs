//! What a report looks like, character by character.

use super::*;

#[track_caller]
fn drawn(text: &str, want: &str) {
    let report = Project::new().read(text).unwrap_err();
    assert_eq!(report.to_string().trim_end(), want.trim(), "\n{report}");
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    let text = "[tls]\ncertificates = [{ cert = \"certs/site.crt\", key = \"certs/site.key\" }]
[[upstream]]\nname = \"app\"\nservers = [\"http://127.0.0.1:9000\"]\n[accounts]
[mail]\nfrom = \"no-reply@example.com\"\nspool = \"data/mail\"
[[route]]\nname = \"all\"\npath_prefix = \"/\"\nupstream = \"app\"\naccess = \"authenticated\"\nupsteam = \"app\"\n";
    drawn(
        text,
        r#"
error: route[0].upsteam: unknown key
  --> gateway.toml:15:1
   |
15 | upsteam = "app"
   | ^^^^^^^
   |
   = help: did you mean `upstream`?

gateway.toml: 1 error"#,
    );
}

#[test]
fn all_problems_are_drawn_in_the_order_of_the_file() {
    let text = "[server]\nlisten = [\"x\"]\nwokers = 2\n\n[[route]]\nname = \"ü\"; \n";
    let text = text.replace("; ", "");
    drawn(
        &text,
        r#"
error: tls.certificates: is missing
--> gateway.toml
 = help: certificates = [{ cert = "certs/site.crt", key = "certs/site.key" }]

error: server.listen[0]: `x` is not an address with a port
 --> gateway.toml:2:11
  |
2 | listen = ["x"]
  |           ^^^
  |
  = help: an IP address and a port: "0.0.0.0:8443", "[::]:8443"

error: server.wokers: unknown key
 --> gateway.toml:3:1
  |
3 | wokers = 2
  | ^^^^^^
  |
  = help: did you mean `workers`?

error: route[0].path_prefix: is missing
 --> gateway.toml:5:1
  |
5 | [[route]]
  | ^^^^^^^^^
  |
  = help: path_prefix = "/app", or path = "/exact"

error: route[0].upstream: is missing
 --> gateway.toml:5:1
  |
5 | [[route]]
  | ^^^^^^^^^
  |
  = help: the name of an [[upstream]]

error: route[0].access: is missing
 --> gateway.toml:5:1
  |
5 | [[route]]
  | ^^^^^^^^^
  |
  = help: who may: "authenticated", "optional" or "public"

error: route[0].name: `ü` is not a name
 --> gateway.toml:6:8
  |
6 | name = "ü"
  |        ^^^
  |
  = help: 1 to 64 letters, digits, `-`, `_` and `.`

gateway.toml: 7 errors"#,
    );
}

#[test]
fn syntax_errors_come_all_at_once_and_alone() {
    let text = "[server\nworkers = \n[log]\nlevel = \"info\nx = 1 2\n";
    let report = Project::new().read(text).unwrap_err();
    let lines: Vec<usize> = report
        .problems()
        .iter()
        .map(|problem| problem.line)
        .collect();
    assert_eq!(lines, [1, 4, 5], "{report}");
    assert!(
        report
            .problems()
            .iter()
            .all(|problem| problem.key.is_empty())
    );
}

#[test]
fn a_key_that_is_there_twice_is_a_syntax_error() {
    let text = BASE.replace(
        "access = \"authenticated\"",
        "access = \"authenticated\"\naccess = \"public\"",
    );
    Project::new().refuses(&text, "", "duplicate key");
    let text = format!("{BASE}[server]\n");
    Project::new().refuses(&text, "", "duplicate key");
}

#[test]
fn columns_count_characters_and_lines_may_end_in_crlf() {
    let text = "\u{feff}# größe\r\n[identity]\r\nheaders = { \"X-Ü\" = \"{user}\", \"Ä\" = \"ö\", X-User = \"{nobody}\" }\r\n";
    let report = Project::new().read(text).unwrap_err();
    let problem = report
        .problems()
        .iter()
        .find(|problem| problem.key.ends_with("X-User"))
        .unwrap();
    let line = "headers = { \"X-Ü\" = \"{user}\", \"Ä\" = \"ö\", X-User = ";
    assert_eq!(
        (problem.line, problem.column),
        (3, line.chars().count() + 1)
    );
    assert!(
        report
            .to_string()
            .contains(&format!("gateway.toml:3:{}", problem.column)),
        "{report}"
    );
}

#[test]
fn colour_is_for_terminals() {
    let report = Project::new().read("x = 1").unwrap_err();
    assert!(!report.to_string().contains('\u{1b}'));
    assert!(report.render(true).contains('\u{1b}'));
}

#[test]
fn hints_name_the_nearest_key_or_all_of_them() {
    let hint = |line: &str| {
        let report = Project::new().read(&with("[tls]", line)).unwrap_err();
        report.problems()[0].hint.clone().unwrap()
    };
    assert_eq!(hint("min_verison = 1"), "did you mean `min_version`?");
    assert_eq!(hint("min-version = 1"), "did you mean `min_version`?");
    assert_eq!(hint("Development = 1"), "did you mean `development`?");
    assert_eq!(hint("cliant_ca = 1"), "did you mean `client_ca`?");
    assert_eq!(
        hint("zzz = 1"),
        "known here: certificates, client_auth, client_ca, development, min_version"
    );
}

#[test]
fn a_file_that_is_not_there_is_a_report_too() {
    let folder = tempfile::tempdir().unwrap();
    let report = load(&folder.path().join("gateway.toml")).unwrap_err();
    assert_eq!(report.problems().len(), 1);
    assert!(
        report.to_string().contains("portcullis init makes one"),
        "{report}"
    );
    std::fs::write(folder.path().join("bad.toml"), b"\xff\xfe").unwrap();
    let report = load(&folder.path().join("bad.toml")).unwrap_err();
    assert!(report.to_string().contains("UTF-8"), "{report}");
}

#[test]
fn relative_paths_start_above_the_folder_of_the_file() {
    let project = Project::new();
    project.write("config/gateway.toml", BASE, 0o644);
    let config = load(&project.folder.path().join("config/gateway.toml")).unwrap();
    assert_eq!(config.root, project.folder.path());
    let certificate = project.folder.path().join("certs/site.crt");
    assert_eq!(config.tls.certificates[0].cert, certificate);
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(\\[\\[?(server|route|tls|x)\\]?\\]\n|[a-z_]{1,9} ?= ?(\"[^\"]{0,6}\"|[0-9]{0,3}|\\[.{0,5}\\]|\\{.{0,9}\\})\n|\\PC{0,9}){0,9}") {
        if let Err(report) = parse(&text, Path::new("x"), Path::new("/nowhere")) {
            let _ = report.to_string();
        }
    }

    #[test]
    fn every_problem_has_a_place_in_the_text(at in 0..BASE.len()) {
        let mut text = BASE.to_owned();
        text.insert(at, 'ü');
        if let Err(report) = parse(&text, Path::new("x"), Path::new("/nowhere")) {
            for problem in report.problems() {
                proptest::prop_assert!(problem.line <= text.lines().count() + 1);
            }
        }
    }
}

#[test]
fn the_sample_names_every_key() {
    let sample = include_str!("../../../config/gateway.toml");
    for header in BASE.lines().filter(|line| line.starts_with('[')) {
        let report = Project::new().read(&with(header, "zzz = 1")).unwrap_err();
        let section = header.trim_matches(['[', ']']);
        let unknown = report.problems().iter().find(|p| p.key.ends_with("zzz"));
        let hint = unknown.unwrap().hint.clone().unwrap();
        let keys = hint.strip_prefix("known here: ").unwrap().split(", ");
        for key in keys {
            assert!(sample.contains(key), "{section}.{key}");
        }
    }
}
