//! Two outlines tell what differs and never what it says.

use super::*;

fn outline_of(text: &str, files: &[NamedFile]) -> Outline {
    let (document, faults) = DeTable::parse_recoverable(text);
    assert!(faults.is_empty(), "{faults:?}");
    Outline::of(document.get_ref(), Path::new("/site"), files)
}

#[track_caller]
fn check(before: &str, next: &str, want: &[&str]) {
    let (before, next) = (outline_of(before, &[]), outline_of(next, &[]));
    let changes = before.changes_to(&next);
    let told: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(told, want);
    assert_eq!(changes.is_empty(), before == next);
}

#[test]
fn cfg_2_what_differs_is_named_by_section_name_and_key() {
    let route = "[[route]]\nname = \"orders\"\naccess = \"public\"\n";
    check(
        route,
        "[[route]]\nname = \"orders\"\naccess = \"optional\"\nrequire = {}\n",
        &["route \"orders\" changed: access, require"],
    );
    check(
        "[[route]]\nname = \"a\"\n[[route]]\nname = \"b\"\n",
        "[[route]]\nname = \"b\"\n[[route]]\nname = \"c\"\n",
        &["route \"a\" removed", "route \"c\" added"],
    );
    check(
        "[server]\nworkers = 1\n[server.timeouts]\nheader = \"1s\"\n",
        "[server]\nworkers = 1\n[server.timeouts]\nheader = \"2s\"\nhandshake = \"1s\"\n",
        &["server changed: timeouts.handshake, timeouts.header"],
    );
    check("[log]\n", "[mail]\n", &["log removed", "mail added"]);
    check("version = 1", "version = 2", &["version changed: version"]);
}

#[test]
fn values_of_every_kind_that_differ_are_seen() {
    for (one, other) in [
        ("1", "2"),
        ("1", "0x1"),
        ("1", "\"1\""),
        ("1.0", "1.1"),
        ("true", "false"),
        ("[\"ab\"]", "[\"a\", \"b\"]"),
        ("[[\"a\"], [\"b\"]]", "[[\"a\", \"b\"], []]"),
        ("2024-01-01", "2024-01-02"),
        ("[{ a = 1 }]", "[{ a = 2 }]"),
        ("[{ a = 1 }]", "[{ b = 1 }]"),
    ] {
        let text = |value: &str| format!("[tls]\nkey = {value}\n");
        check(&text(one), &text(other), &["tls changed: key"]);
        check(&text(one), &text(one), &[]);
    }
}

#[test]
fn comments_blanks_and_order_are_no_difference() {
    check(
        "[log]\nlevel = \"info\"\n[tls]\na = 1\nb = 2\n[[route]]\nname = \"a\"\n[[route]]\nname = \"b\"\n",
        "# new\n[tls]\nb = 2\na    = 1 # kept\n[log]\nlevel = 'info'\n[[route]]\nname = \"b\"\n[[route]]\nname = \"a\"\n",
        &[],
    );
}

#[test]
fn cfg_2_the_content_of_a_named_file_is_part_of_the_value() {
    let text = "[[issuer]]\nname = \"corp\"\nsecret_file = \"keys/a\"\naudience = [\"keys/b\"]\n";
    let file = |path: &str, content: &[u8]| NamedFile {
        path: path.into(),
        content: content.to_vec(),
        ..NamedFile::look("/nonexistent".into())
    };
    let before = outline_of(text, &[file("/site/keys/a", b"one")]);
    let next = outline_of(text, &[file("/site/keys/a", b"two")]);
    let told: Vec<String> = before
        .changes_to(&next)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(told, ["issuer \"corp\" changed: secret_file"]);
    assert!(
        before
            .changes_to(&outline_of(text, &[file("/site/keys/a", b"one")]))
            .is_empty()
    );
}

#[test]
fn log_1_an_outline_does_not_hold_what_it_is_of() {
    let outline = outline_of("[mail]\npassword = \"hunter2hunter2\"\n", &[]);
    let next = outline_of("[mail]\npassword = \"hunter3hunter3\"\n", &[]);
    let told = format!("{outline:?} {:?}", outline.changes_to(&next));
    assert!(
        told.contains("password") && !told.contains("hunter"),
        "{told}"
    );
}
