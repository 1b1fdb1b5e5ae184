//! What the commands over accounts say and do.

use clap::{CommandFactory, Parser};

use super::*;
use crate::{
    accounts::{
        settings::Registration,
        tests::{PASSWORD, settings},
    },
    policy::TlsPolicies,
    server::settings::{CertificateFiles, ClientRule, TlsVersion},
};

#[derive(Debug, Parser)]
struct Program {
    #[command(subcommand)]
    command: UserCommand,
}

struct Shell {
    folder: tempfile::TempDir,
    typed: &'static str,
}

impl Shell {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            typed: PASSWORD,
        }
    }

    fn run(&self, command: UserCommand) -> Result<String, String> {
        let (output, done) = self.run_over(&settings(&self.folder), command);
        done.map(|()| output)
    }

    /// Runs the command of these words, and gives what it printed, and why it failed.
    fn type_line(&self, settings: &AccountSettings, words: &[&str]) -> (String, String) {
        let line = ["p"].iter().chain(words);
        let command = Program::parse_from(line).command;
        let (output, done) = self.run_over(settings, command);
        (output, done.err().unwrap_or_default())
    }

    fn run_over(
        &self,
        settings: &AccountSettings,
        command: UserCommand,
    ) -> (String, Result<(), String>) {
        let mut output = Vec::new();
        let mut typed = || Ok(Zeroizing::new(self.typed.to_owned()));
        let mut console = Console {
            output: &mut output,
            password: &mut typed,
            curl: "curl",
        };
        let done = execute(command, settings, &mut console);
        let done = done.map_err(|error| format!("{error:#}"));
        (String::from_utf8(output).unwrap(), done)
    }

    fn add(&self, name: &str, roles: &[&str]) -> Result<String, String> {
        self.run(UserCommand::Add {
            name: name.into(),
            email: format!("{name}@example.com"),
            display_name: None,
            roles: roles.iter().map(|role| (*role).into()).collect(),
        })
    }

    fn list(&self) -> serde_json::Value {
        let format = Format::Json;
        let text = self.run(UserCommand::List { format }).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn bad_input_is_refused_with_a_sentence_and_adds_nobody() {
    let mut shell = Shell::new();
    assert!(
        shell
            .add("no spaces", &[])
            .unwrap_err()
            .contains("user name")
    );
    assert!(
        shell
            .add("ann", &["two words"])
            .unwrap_err()
            .contains("roles")
    );
    shell.typed = "too short";
    assert!(shell.add("ann", &[]).unwrap_err().contains("at least 15"));
    shell.typed = PASSWORD;
    for command in [
        UserCommand::Disable {
            name: "ann".into(),
            force: false,
        },
        UserCommand::SetPassword { name: "ann".into() },
        UserCommand::Logout { name: "ann".into() },
    ] {
        assert_eq!(shell.run(command).unwrap_err(), "no such account");
    }
    assert_eq!(shell.list()["users"], json!([]));
}

#[test]
fn a_name_is_added_once_and_listed_without_its_hash() {
    let shell = Shell::new();
    assert_eq!(
        shell.add("ann", &["admin", "admin"]).unwrap(),
        "added ann\n"
    );
    assert!(shell.add("ANN", &[]).unwrap_err().contains("exists"));
    shell.add("bob", &[]).unwrap();
    let users = &shell.list()["users"];
    assert_eq!(users[0]["username"], "ann");
    assert_eq!(users[0]["roles"], json!(["admin"]));
    assert_eq!(users[1]["username"], "bob");
    let format = Format::Text;
    let text = shell.run(UserCommand::List { format }).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(!format!("{users} {text}").contains("argon2"));
}

#[test]
fn state_and_roles_change_and_are_shown() {
    let shell = Shell::new();
    shell.add("ann", &["clerk"]).unwrap();
    let name = || "ann@example.com".to_owned();
    shell
        .run(UserCommand::Disable {
            name: name(),
            force: false,
        })
        .unwrap();
    let roles = vec!["admin".into(), "clerk".into()];
    shell
        .run(UserCommand::SetRole {
            name: name(),
            roles,
            force: false,
        })
        .unwrap();
    let format = Format::Json;
    let shown = shell
        .run(UserCommand::Show {
            name: name(),
            format,
        })
        .unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["disabled"], true);
    assert_eq!(shown["roles"], json!(["admin", "clerk"]));
    shell.run(UserCommand::Unlock { name: name() }).unwrap();
    assert_eq!(shell.list()["users"][0]["disabled"], true);
    shell.run(UserCommand::Enable { name: name() }).unwrap();
    assert_eq!(shell.list()["users"][0]["disabled"], false);
    let delete = |force| UserCommand::Delete {
        name: name(),
        force,
    };
    let refused = shell.run(delete(false)).unwrap_err();
    assert!(refused.contains("last administrator"), "{refused}");
    assert!(refused.contains("--force"), "{refused}");
    assert_eq!(shell.list()["users"][0]["email"], "ann@example.com");
    assert_eq!(shell.run(delete(true)).unwrap(), "deleted\n");
    assert_eq!(shell.list()["users"][0]["email"], json!(null));
}

#[test]
fn auth_10_no_command_removes_the_last_administrator_unforced() {
    let shell = Shell::new();
    shell.add("ann", &["admin"]).unwrap();
    let name = || "ann".to_owned();
    let removals = |force| {
        [
            UserCommand::Delete {
                name: name(),
                force,
            },
            UserCommand::Disable {
                name: name(),
                force,
            },
            UserCommand::SetRole {
                name: name(),
                roles: vec!["clerk".into()],
                force,
            },
        ]
    };
    for command in removals(false) {
        let refused = shell.run(command).unwrap_err();
        assert!(refused.contains("this is the last administrator"));
    }
    let ann = &shell.list()["users"][0];
    assert_eq!(ann["roles"], json!(["admin"]));
    assert_eq!(ann["disabled"], false);
    let [delete, _, set_role] = removals(true);
    shell.run(set_role).unwrap();
    assert_eq!(shell.list()["users"][0]["roles"], json!(["clerk"]));
    shell.run(delete).unwrap();
}

#[test]
fn auth_4_a_line_of_input_is_the_password_without_its_end_alone() {
    for (input, want) in [
        (" with spaces \n", " with spaces "),
        ("dos\r\n", "dos"),
        ("no end", "no end"),
        ("first\nsecond\n", "first"),
        ("\n", ""),
        ("cr\r", "cr\r"),
    ] {
        assert_eq!(*read_line(&mut input.as_bytes()).unwrap(), want);
    }
    read_line(&mut "".as_bytes()).unwrap_err();
    read_line(&mut b"\xff\n".as_slice()).unwrap_err();
    let long = "x".repeat(5000);
    let line = read_line(&mut long.as_bytes()).unwrap();
    Password::new(line).unwrap_err();
}

#[test]
fn no_argument_takes_a_password() {
    Program::command().debug_assert();
    let line = [
        "p",
        "add",
        "ann",
        "--email",
        "a@example.com",
        "--password",
        "x",
    ];
    Program::try_parse_from(line).unwrap_err();
    Program::try_parse_from(["p", "set-password", "ann", "secret"]).unwrap_err();
}

#[test]
fn auth_3_an_htpasswd_file_is_imported_once_and_what_cannot_be_verified_is_named() {
    let shell = Shell::new();
    shell.add("ann", &[]).unwrap();
    let hash = bcrypt::hash("open sesame", 4).unwrap();
    let file = shell.folder.path().join("htpasswd");
    let text = format!(
        "# users\n\nann:{hash}\nBob:{hash}\nold:$apr1$salt$hash\nsha:{{SHA}}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\nno colon\nbad name:{hash}\n"
    );
    std::fs::write(&file, text).unwrap();
    let import = |more: &[&str]| {
        let mut line = vec!["import", file.to_str().unwrap()];
        line.extend(["--email-domain", "example.org", "--role", "clerk"]);
        line.extend(more);
        let (output, error) = shell.type_line(&settings(&shell.folder), &line);
        assert!(error.contains("refused"), "{error}");
        output
    };
    let text = import(&["--dry-run"]);
    assert!(text.contains("would add bob"), "{text}");
    assert_eq!(shell.list()["users"].as_array().unwrap().len(), 1);
    let text = import(&[]);
    assert!(text.contains("line 5: the hash is not"), "{text}");
    assert!(text.contains("line 6: ") && text.contains("line 7: "));
    assert!(text.contains("line 8: a user name"), "{text}");
    assert!(text.ends_with("1 added, 1 skipped, 4 refused\n"), "{text}");
    assert!(!text.contains(&hash));
    assert!(import(&[]).ends_with("0 added, 2 skipped, 4 refused\n"));
    let users = &shell.list()["users"];
    assert_eq!(users[1]["email"], "bob@example.org");
    assert_eq!(users[1]["roles"], json!(["clerk"]));
}

#[test]
fn auth_3_a_users_file_of_authelia_is_imported_with_groups_and_state() {
    let shell = Shell::new();
    let hash = bcrypt::hash("open sesame", 4).unwrap();
    let file = shell.folder.path().join("users.yml");
    let import = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let mut line = vec!["import", file.to_str().unwrap()];
        line.extend(more);
        shell.type_line(&settings(&shell.folder), &line)
    };
    for (text, wanted) in [
        ("---\nnobody: 1\n", "no mapping `users`"),
        ("---\n- a\n", "no mapping with `users`"),
        ("users:\n  ann: &a\n    password: x\n", "anchors"),
        ("users:\n  ann: *a\n", "not YAML"),
        ("users:\n  ann: !x y\n", "tags"),
        ("users:\n  ann: 1\n", "line 2: the account"),
        ("users:\n  ann:\n    groups: staff\n", "line 3: `groups`"),
        ("users:\n  ann:\n    disabled: 'no'\n", "line 3: `disabled`"),
        (
            "users:\n  ann: {}\n  ann: {}\n",
            "line 3: a key is there twice",
        ),
        ("users:\n  ann: [\n", "not YAML"),
    ] {
        let (output, error) = import(text, &[]);
        assert!(error.contains(wanted), "{text}: {error}");
        assert_eq!(output, "");
    }
    let (_, error) = import(&format!("users:\n{}", "  - ".repeat(40)), &[]);
    assert!(!error.is_empty());
    assert_eq!(shell.list()["users"], json!([]));

    let text = format!(
        "# Authelia\nusers:\n  Ann:\n    disabled: false\n    displayname: 'Ann Example'\n    password: \"{hash}\"\n    email: ann@example.org\n    groups:\n      - admin\n      - staff\n    given_name: Ann\n  bob:\n    disabled: true\n    password: '{hash}'\n    email: bob@example.org\n    groups: []\n  old:\n    password: '$6$rounds=50000$salt$hash'\n    email: old@example.org\n  bare:\n    password: '{hash}'\n"
    );
    let (output, _) = import(&text, &["--dry-run"]);
    assert!(output.contains("would add ann"), "{output}");
    assert_eq!(shell.list()["users"], json!([]));
    let (output, error) = import(&text, &["--role", "clerk"]);
    assert!(error.contains("2 lines were refused"), "{error}");
    assert!(
        output.contains("line 3: the group admin was not"),
        "{output}"
    );
    assert!(output.contains("line 17: SHA-crypt"), "{output}");
    assert!(output.contains("line 20: an e-mail address"), "{output}");
    assert!(
        output.ends_with("2 added, 0 skipped, 2 refused\n"),
        "{output}"
    );
    assert!(!output.contains(&hash));
    let (output, _) = import(&text, &["--email-domain", "example.net"]);
    assert!(
        output.ends_with("1 added, 2 skipped, 1 refused\n"),
        "{output}"
    );
    let users = &shell.list()["users"];
    assert_eq!(users[0]["email"], "ann@example.org");
    assert_eq!(users[0]["roles"], json!(["staff", "clerk"]));
    assert_eq!(users[0]["disabled"], false);
    assert_eq!(users[1]["email"], "bare@example.net");
    assert_eq!(users[2]["disabled"], true);
    let (_, error) = import("ann:x\n", &[]);
    assert!(error.contains("--email-domain"), "{error}");
}

#[test]
fn invitations_are_listed_with_the_time_at_which_they_end() {
    let shell = Shell::new();
    let open = AccountSettings {
        registration: Registration::Invite,
        ..settings(&shell.folder)
    };
    let run = |words: &[&str]| {
        let (output, error) = shell.type_line(&open, words);
        assert_eq!(error, "");
        output
    };
    run(&["invite", "--role", "clerk"]);
    let listed = run(&["invites", "--format", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let ends = listed["invites"][0]["expires"].as_u64().unwrap();
    let text = run(&["invites"]);
    let words: Vec<&str> = text.split_whitespace().collect();
    let want = crate::cli::show_time(ends);
    assert_eq!(words[1..], ["(anybody)", "until", &want, "clerk"]);
    assert!(want.starts_with("20") && want.ends_with('Z'), "{want}");
}

#[test]
fn the_request_that_is_printed_believes_the_certificate_that_was_made() {
    let files = CertificateFiles {
        cert: "certs/dev.crt".into(),
        key: "certs/dev.key".into(),
        clients: ClientRule::default(),
    };
    let mut tls = TlsSettings {
        certificates: vec![files],
        development: true,
        min_version: TlsVersion::default(),
        policies: TlsPolicies::default(),
    };
    assert_eq!(curl(&tls), "curl --cacert certs/dev.crt");
    tls.development = false;
    assert_eq!(curl(&tls), "curl");
}
