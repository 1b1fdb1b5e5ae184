//! What two routes mean together (CFG-1).

use super::*;

/// [`BASE`] with its one route replaced by these: name, access, and further lines.
fn routes(list: &[(&str, &str, &str)]) -> String {
    let (before, rest) = BASE.split_once("[[route]]").unwrap();
    let (_, after) = rest.split_once("[accounts]").unwrap();
    let mut text = before.to_owned();
    for (name, access, lines) in list {
        let lines = lines.replace("; ", "\n");
        text.push_str(&format!(
            "[[route]]\nname = {name:?}\nupstream = \"app\"\naccess = {access:?}\n{lines}\n"
        ));
    }
    text + "[accounts]" + after
}

#[track_caller]
fn refused(list: &[(&str, &str, &str)], key: &str, words: &str) {
    Project::new().refuses(&routes(list), key, words);
}

#[track_caller]
fn silent(list: &[(&str, &str, &str)]) {
    let warnings = Project::new().read(&routes(list)).unwrap().warnings;
    let routes = warnings
        .problems()
        .iter()
        .filter(|problem| !problem.message.contains("several issuers"));
    assert_eq!(routes.count(), 0, "{warnings}");
}

const A: &str = "authenticated";
const P: &str = "public";

#[test]
fn cfg_1_routes_that_tie_are_refused() {
    let root = "path_prefix = \"/\"";
    refused(&[("a", A, root), ("b", P, root)], "route[1]", "tie");
    refused(
        &[
            ("a", A, "path_prefix = \"/x\""),
            ("b", P, "path_prefix = \"/x/\""),
        ],
        "route[1]",
        "tie",
    );
    refused(
        &[("a", A, "path = \"/x\""), ("b", P, "path = \"/x\"")],
        "route[1]",
        "tie",
    );
    let get = "path = \"/x\"; methods = [\"GET\"]";
    let both = "path = \"/x\"; methods = [\"POST\", \"GET\"]";
    refused(&[("a", A, get), ("b", P, both)], "route[1]", "tie");
    let one = "path_prefix = \"/\"; hosts = [\"a.com\", \"b.com\"]";
    let two = "path_prefix = \"/\"; hosts = [\"B.com\"]";
    refused(&[("a", A, one), ("b", P, two)], "route[1]", "tie");
    refused(
        &[("a", A, root), ("a", A, "path = \"/x\"")],
        "route[1].name",
        "twice",
    );
}

#[test]
fn a_tie_points_at_both_routes() {
    let root = "path_prefix = \"/\"";
    let text = routes(&[("first", A, root), ("second", A, root)]);
    let report = Project::new().read(&text).unwrap_err().to_string();
    assert!(report.contains("`first` and `second` tie"), "{report}");
    assert!(
        report.contains("this one takes the same requests"),
        "{report}"
    );
}

#[test]
fn cfg_1_an_open_host_does_not_open_what_is_protected_elsewhere() {
    let admin = ("admin", A, "path_prefix = \"/admin\"");
    let site = (
        "site",
        P,
        "path_prefix = \"/\"; hosts = [\"www.example.com\"]",
    );
    refused(&[admin, site], "route[1]", "it opens `/admin`");
    let optional = (
        "site",
        "optional",
        "path_prefix = \"/\"; hosts = [\"www.example.com\"]",
    );
    refused(&[admin, optional], "route[1]", "it opens `/admin`");
    let wildcard = (
        "site",
        P,
        "path_prefix = \"/\"; hosts = [\"*.example.com\"]",
    );
    refused(&[admin, wildcard], "route[1]", "it opens `/admin`");
    let below = (
        "admin",
        A,
        "path_prefix = \"/admin\"; hosts = [\"*.example.com\"]",
    );
    refused(&[below, site], "route[1]", "it opens `/admin`");
    let post = ("admin", A, "path = \"/admin\"; methods = [\"POST\"]");
    refused(&[post, site], "route[1]", "it opens `/admin`");
    // What the hint says helps.
    let there = (
        "there",
        A,
        "path_prefix = \"/admin\"; hosts = [\"www.example.com\"]",
    );
    Project::new().accepts(&routes(&[admin, site, there]));
    // A host of its own that is public as a whole is no surprise, nor is another one's path.
    silent(&[("all", A, "path_prefix = \"/\""), site]);
    silent(&[
        (
            "other",
            A,
            "path_prefix = \"/admin\"; hosts = [\"a.example.org\"]",
        ),
        site,
    ]);
}

#[test]
fn doors_that_are_open_on_purpose_are_pointed_at() {
    let around = routes(&[
        ("site", P, "path_prefix = \"/\""),
        ("admin", A, "path_prefix = \"/admin\""),
    ]);
    Project::new().warns(&around, "route[0]", "all of `/` is public except");
    let read = routes(&[
        ("read", P, "path_prefix = \"/x\"; methods = [\"GET\"]"),
        ("write", A, "path_prefix = \"/x\""),
    ]);
    Project::new().warns(&read, "route[0]", "some methods");
    silent(&[
        ("app", A, "path_prefix = \"/\""),
        ("health", P, "path = \"/healthz\""),
    ]);
    silent(&[
        ("x", P, "path_prefix = \"/x\""),
        ("xy", A, "path_prefix = \"/xy\""),
    ]);
}

#[test]
fn own_routes_are_not_taken() {
    for path in ["/auth", "/auth/", "/auth/login", "/.well-known/jwks.json"] {
        refused(
            &[("x", P, &format!("path = {path:?}"))],
            "route[0]",
            "the gateway's own",
        );
    }
    refused(
        &[("x", P, "path_prefix = \"/auth\"")],
        "route[0]",
        "the gateway's own",
    );
    silent(&[("x", P, "path_prefix = \"/authors\"")]);
    let moved = with_in(
        &routes(&[("x", P, "path_prefix = \"/auth\"")]),
        "[accounts]",
        "path = \"/login\"",
    );
    Project::new().accepts(&moved);
    let off = with_in(
        &routes(&[("x", P, "path_prefix = \"/auth\"")]),
        "[accounts]",
        "enabled = false",
    );
    Project::new().accepts(&off);
}

#[test]
fn uri_5_a_cut_prefix_is_no_back_door() {
    let static_files = "path_prefix = \"/static\"; strip_prefix = \"/static\"";
    let everything = ("all", A, "path_prefix = \"/\"");
    for open in ["public", "optional"] {
        refused(
            &[everything, ("files", open, static_files)],
            "route[1]",
            "reaches what route",
        );
        let admin = ("admin", A, "path_prefix = \"/admin\"");
        refused(
            &[admin, ("files", open, static_files)],
            "route[1]",
            "reaches what route",
        );
        let moved = (
            "moved",
            A,
            "path_prefix = \"/x/admin\"; strip_prefix = \"/x\"",
        );
        refused(
            &[moved, ("files", open, static_files)],
            "route[1]",
            "reaches what route",
        );
    }
    let narrow = "path_prefix = \"/v1/assets\"; strip_prefix = \"/v1\"";
    silent(&[everything, ("files", P, narrow)]);
    silent(&[everything, ("files", A, static_files)]);
}

#[test]
fn cfg_1_a_method_that_is_left_to_a_weaker_route_is_pointed_at() {
    let admin = "path_prefix = \"/admin\"; require = { roles = [\"admin\"] }; methods = [\"GET\", \"POST\"]";
    let all = "path_prefix = \"/\"";
    for (access, lines) in [
        (A, all),
        (P, all),
        ("optional", all),
        (
            A,
            "path_prefix = \"/\"; require = { roles = [\"admin\", \"clerk\"] }",
        ),
        (A, "path_prefix = \"/\"; require = { scopes = [\"admin\"] }"),
        (
            A,
            "path_prefix = \"/\"; require = { roles = [\"admin\"] }; enforce = false",
        ),
    ] {
        let text = routes(&[("all", access, lines), ("admin", A, admin)]);
        let words = "PUT, PATCH, DELETE, HEAD of `/admin` are not its own: route `all` takes them";
        Project::new().warns(&text, "route[1]", words);
    }
    let host = "path_prefix = \"/admin\"; hosts = [\"a.com\", \"*.b.com\"]; methods = [\"POST\"]; allow_ips = [\"10.0.0.0/8\"]";
    let text = routes(&[("all", A, all), ("admin", A, host)]);
    Project::new().warns(&text, "route[1]", "PUT, PATCH, DELETE of");
}

#[test]
fn cfg_1_methods_that_are_left_to_nobody_or_to_a_rule_as_strict_are_no_gap() {
    let admin = "path_prefix = \"/admin\"; require = { roles = [\"admin\", \"root\"] }; methods = [\"POST\"]";
    silent(&[("admin", A, admin), ("x", A, "path_prefix = \"/x\"")]);
    silent(&[
        ("admin", A, admin),
        (
            "all",
            A,
            "path_prefix = \"/\"; require = { roles = [\"root\"] }",
        ),
    ]);
    // What is written for this very path is meant so.
    silent(&[
        ("admin", A, admin),
        ("rest", A, "path_prefix = \"/admin/\""),
        ("all", A, "path_prefix = \"/\""),
    ]);
    silent(&[
        (
            "read",
            A,
            "path_prefix = \"/x\"; methods = [\"GET\"]; require = { roles = [\"a\"] }",
        ),
        ("all", A, "path_prefix = \"/\"; methods = [\"GET\"]"),
    ]);
    silent(&[
        ("open", P, "path = \"/x\"; methods = [\"GET\", \"HEAD\"]"),
        ("all", A, "path_prefix = \"/\""),
    ]);
}
