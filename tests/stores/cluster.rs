//! Two gateways over one PostgreSQL: what people do at one holds at the other. FAULT-5, AUTH-7, AUTH-10, RST-2, RST-3.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use crate::{
    harness::{Answer, Gateway, Raw, Site, Upstream, eventually, get, keys::bearer, request},
    server::Server,
};

const PASSWORD: &str = "correct horse battery staple";
const NEW: &str = "another horse battery staple";
const RESET_LINK: &str = "https://localhost:8443/auth/password/reset?token=";
const VERIFY_LINK: &str = "https://localhost:8443/auth/register/verify?token=";

fn site(upstream: &Upstream, url: &str) -> Site {
    let site = Site::new(upstream.address)
        .accounts()
        .set("accounts", "store", &format!("{url:?}"))
        .set("accounts", "registration", "\"invite\"")
        .set("mail", "from", "\"Gate <no-reply@example.com>\"")
        .set("mail", "spool", "\"data/mail\"");
    site.write();
    site
}

/// Gives a site the signing keys of another.
pub(crate) fn share_keys(from: &Site, to: &Site) {
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let folder = to.path().join("data/keys");
    fs::create_dir_all(&folder).unwrap();
    mode(&folder, 0o700);
    for entry in fs::read_dir(from.path().join("data/keys")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
}

/// Two gateways, and `root`, who administers.
async fn two_gateways(server: &Server) -> (Upstream, Gateway, Gateway) {
    let url = server.database().await;
    let upstream = Upstream::start().await;
    let (first, second) = (site(&upstream, &url), site(&upstream, &url));
    first.user("root", PASSWORD, &["admin"]).await;
    share_keys(&first, &second);
    let (first, second) = (first.start().await, second.start().await);
    (upstream, first, second)
}

async fn send(gateway: &Gateway, method: &str, target: &str, token: &str, body: &Value) -> Answer {
    let bearer = bearer(token);
    let mut fields = vec![("Content-Type", "application/json")];
    if !token.is_empty() {
        fields.push(("Authorization", &*bearer));
    }
    let request = request(method, target, &fields, &body.to_string());
    Raw::connect(gateway).await.exchange(request).await
}

async fn login(gateway: &Gateway, name: &str, password: &str) -> Answer {
    let body = json!({ "username": name, "password": password, "delivery": "body" });
    send(gateway, "POST", "/auth/login", "", &body).await
}

async fn access(gateway: &Gateway, name: &str) -> String {
    let answer = login(gateway, name, PASSWORD).await;
    answer.is(200).json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn proxied(gateway: &Gateway, token: &str) -> u16 {
    let field = bearer(token);
    let answer = get(gateway, "/private", &[("Authorization", &field)]).await;
    answer.status
}

/// Waits until a gateway refuses a token that the other one ended.
async fn ends(gateway: &Gateway, token: &str) {
    eventually("the end of a session", async || {
        (proxied(gateway, token).await == 401).then_some(())
    })
    .await;
}

fn account(name: &str) -> Value {
    json!({ "username": name, "email": format!("{name}@example.com"), "password": PASSWORD })
}

/// The mails in the folders of both gateways: either may have taken one.
fn mails(gateways: [&Gateway; 2]) -> Vec<String> {
    let folders = gateways.map(|gateway| gateway.path().join("data/mail"));
    let entries = folders
        .into_iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "eml"))
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect()
}

/// The tokens of the links in them that begin so, by recipient.
fn links(gateways: [&Gateway; 2], beginning: &str) -> Vec<(String, String)> {
    let mails = mails(gateways);
    let link = |mail: &String| {
        let after = |start| mail.lines().find_map(|line| line.strip_prefix(start));
        Some((after("To: ")?.to_owned(), after(beginning)?.to_owned()))
    };
    mails.iter().filter_map(link).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rst_2_and_rst_3_a_link_asked_for_at_one_gateway_works_once_at_either() {
    let Some(server) = Server::shared() else {
        return;
    };
    let (_upstream, first, second) = two_gateways(server).await;
    let (here, there) = (access(&first, "root").await, access(&second, "root").await);
    for email in ["root@example.com", "nobody@example.com"] {
        let body = json!({ "email": email });
        send(&first, "POST", "/auth/password/forgot", "", &body)
            .await
            .is(202);
    }
    let link = eventually("the mail", async || {
        links([&first, &second], RESET_LINK).pop()
    });
    let (_, link) = link.await;
    let reset = async |gateway: &Gateway, token: &str, new: &str| {
        let body = json!({ "token": token, "new_password": new });
        send(gateway, "POST", "/auth/password/reset", "", &body).await
    };
    assert_eq!(reset(&second, &"x".repeat(43), NEW).await.status, 401);
    let (one, two) = tokio::join!(reset(&first, &link, NEW), reset(&second, &link, NEW));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert!(statuses[0] < 300 && statuses[1] == 401, "{statuses:?}");
    assert_eq!(reset(&first, &link, PASSWORD).await.status, 401);
    for token in [&here, &there] {
        ends(&first, token).await;
        ends(&second, token).await;
    }
    for gateway in [&first, &second] {
        login(gateway, "root", PASSWORD).await.is(401);
        login(gateway, "root", NEW).await.is(200);
    }
    // One link, and word of the change, each sent by one of the two; nothing to nobody.
    eventually("word of the change", async || {
        (mails([&first, &second]).len() >= 2).then_some(())
    })
    .await;
    for gateway in [&first, &second] {
        eventually("an empty queue", async || {
            let queued = gateway.metric("portcullis_mail_queue").await;
            queued.filter(|queued| *queued == 0.0)
        })
        .await;
    }
    let all = mails([&first, &second]);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(links([&first, &second], RESET_LINK).len(), 1);
    assert!(
        all.iter()
            .all(|mail| mail.contains("\nTo: root@example.com"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_7_an_invitation_of_one_gateway_makes_one_account_at_the_other() {
    let Some(server) = Server::shared() else {
        return;
    };
    let (_upstream, first, second) = two_gateways(server).await;
    let root = access(&first, "root").await;
    let wanted = json!({ "roles": ["clerk"] });
    let made = send(&first, "POST", "/auth/users/invites", &root, &wanted).await;
    let made = made.is(201).json();
    let secret = made["invite"].as_str().unwrap_or_else(|| panic!("{made}"));
    let register = async |gateway: &Gateway, name: &str, secret: &str| {
        let mut body = account(name);
        body["invite"] = json!(secret);
        send(gateway, "POST", "/auth/register", "", &body).await
    };
    register(&second, "eve", &"x".repeat(43)).await.is(401);
    for (gateway, name) in [(&first, "ann"), (&second, "bob")] {
        register(gateway, name, secret).await.is(202);
    }
    let mut links = eventually("both links", async || {
        let links = links([&first, &second], VERIFY_LINK);
        (links.len() == 2).then_some(links)
    })
    .await;
    links.sort_unstable();
    let verify = async |gateway: &Gateway, token: &str| {
        let body = json!({ "token": token, "password": PASSWORD });
        send(gateway, "POST", "/auth/register/verify", "", &body).await
    };
    // Each at the gateway that the other registered at; there is one invitation.
    let (one, two) = tokio::join!(verify(&second, &links[0].1), verify(&first, &links[1].1));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 401]);
    let name = if one.status == 201 { "ann" } else { "bob" };
    for gateway in [&first, &second] {
        let token = access(gateway, name).await;
        assert_eq!(proxied(&first, &token).await, 200);
        assert_eq!(proxied(&second, &token).await, 200);
        let refused = send(&second, "GET", "/auth/users", &token, &json!({})).await;
        refused.is(403);
    }
    register(&first, "carl", secret).await.is(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_10_what_an_administrator_does_at_one_gateway_holds_at_the_other() {
    let Some(server) = Server::shared() else {
        return;
    };
    let (_upstream, first, second) = two_gateways(server).await;
    let root = access(&first, "root").await;
    let mut bob = account("bob");
    bob["roles"] = json!(["admin"]);
    let made = send(&first, "POST", "/auth/users", &root, &bob).await;
    made.is(201);
    let users = send(&second, "GET", "/auth/users", &root, &json!({})).await;
    let users = users.is(200).json();
    let id = |name: &str| {
        let all = users["users"].as_array().unwrap();
        let user = all.iter().find(|user| user["username"] == name).unwrap();
        format!("/auth/users/{}", user["id"].as_str().unwrap())
    };
    let (root_path, bob_path) = (id("root"), id("bob"));
    let bob = access(&second, "bob").await;
    assert_eq!(proxied(&first, &bob).await, 200);
    // Each takes the other's role at once: one of them is refused, and somebody is left to administer.
    let none = json!({ "roles": [] });
    let (one, two) = tokio::join!(
        send(&first, "PATCH", &bob_path, &root, &none),
        send(&second, "PATCH", &root_path, &bob, &none),
    );
    assert!(
        (one.status == 200) != (two.status == 200),
        "{one:?} {two:?}"
    );
    let (left, gone, left_path) = if one.status == 200 {
        ((&first, "root"), &bob, &root_path)
    } else {
        ((&second, "bob"), &root, &bob_path)
    };
    for gateway in [&first, &second] {
        ends(gateway, gone).await;
    }
    let token = access(left.0, left.1).await;
    for gateway in [&first, &second] {
        let kept = send(gateway, "PATCH", left_path, &token, &none).await;
        kept.refused(409, "last_admin");
        let listed = send(gateway, "GET", "/auth/users", &token, &json!({})).await;
        listed.is(200);
    }
}
