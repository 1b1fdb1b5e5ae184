//! A gateway that is killed and comes back.

use std::{fs, path::PathBuf, sync::Arc};

use serde_json::{Value, json};

use crate::{
    halt::{Halt, Step},
    harness::{Answer, Gateway, Raw, Site, Upstream, eventually, get, keys::bearer, request},
    place::Place,
};

pub(crate) const LINK: &str = "https://localhost:8443/auth/password/reset?token=";

/// It, and its user `ann`.
pub(crate) struct Story {
    pub(crate) place: Arc<Place>,
    gateway: Option<Gateway>,
    /// What opens the account now.
    pub(crate) password: String,
    turn: u32,
    _upstream: Upstream,
}

/// The two tokens of a session.
pub(crate) struct Pair {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl Story {
    pub(crate) async fn begin(place: Place) -> Self {
        let upstream = Upstream::start().await;
        let password = "correct horse battery staple".to_owned();
        let site = Site::new(upstream.address)
            .accounts()
            .set("accounts", "store", &format!("{:?}", place.url()))
            .set("mail", "from", "\"Gate <no-reply@example.com>\"")
            .set("mail", "spool", "\"data/mail\"")
            .set(
                "mail",
                "limit",
                r#"{ per_ip = "1000/1h", total = "1000/1h" }"#,
            );
        site.write();
        site.user("ann", &password, &[]).await;
        let gateway = Some(site.start().await);
        Self {
            place: Arc::new(place),
            gateway,
            password,
            turn: 0,
            _upstream: upstream,
        }
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    /// Another password than any before.
    pub(crate) fn other_password(&mut self) -> String {
        self.turn += 1;
        format!("horse number {} battery staple", self.turn)
    }

    pub(crate) async fn kill(&mut self) {
        let gateway = self.gateway.as_mut().unwrap();
        gateway.signal("KILL");
        gateway.exit().await;
    }

    pub(crate) async fn resume(&mut self) {
        let gateway = self.gateway.take().unwrap();
        self.gateway = Some(gateway.again().await);
    }

    /// Sends a request, stops the gateway after a statement of what it does for it, and kills it there.
    pub(crate) async fn kill_at(&mut self, step: Step, target: &str, body: &Value) {
        let halt = Halt::at(&self.place, step).await;
        let asked = async {
            loop {
                let answer = try_post(self.gateway(), target, body).await;
                let answer = answer.unwrap_or_else(|broken| panic!("{step:?}: {broken}"));
                // A machine with much to do: the store gave up before the test saw where it stood.
                assert_eq!(answer.status, 503, "{step:?}: {}", answer.text());
            }
        };
        tokio::select! {
            () = asked => {}
            () = halt.reached() => {}
        }
        self.kill().await;
        halt.lift().await;
    }

    /// Sends a request, and kills the gateway as soon as it has happened: once `count` is another number. Whether the answer was
    /// still given is not known.
    pub(crate) async fn kill_when_done(&mut self, target: &str, body: &Value, count: &str) {
        let was = self.place.number(count).await;
        let happened = eventually("what was asked for", async || {
            (self.place.number(count).await != was).then_some(())
        });
        tokio::select! {
            () = happened => {}
            answer = try_post(self.gateway(), target, body) => {
                let answer = answer.unwrap();
                assert!(answer.status < 300, "{target}: {}", answer.text());
            }
        }
        self.kill().await;
    }

    /// Asks for a link, and kills the sender of its mail after a statement.
    pub(crate) async fn kill_sender_at(&mut self, step: Step) {
        let halt = Halt::at(&self.place, step).await;
        self.forgot().await.is(202);
        halt.reached().await;
        self.kill().await;
        halt.lift().await;
    }

    /// As if the ninety seconds were over for which a dead process had its mails in hand, and the hour of the limits.
    pub(crate) async fn later(&self) {
        self.place
            .execute("UPDATE mail SET claimed_until = 0, due_at = 0; DELETE FROM mail_budget")
            .await;
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let rows = format!("SELECT count(*) FROM {table}");
        self.place.number(&rows).await
    }

    pub(crate) async fn login(&self, password: &str) -> Answer {
        let body = json!({ "username": "ann", "password": password, "delivery": "body" });
        post(self.gateway(), "/auth/login", &body).await
    }

    pub(crate) async fn session(&self) -> Pair {
        pair(&self.login(&self.password).await)
    }

    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        let body = json!({ "refresh_token": token });
        post(self.gateway(), "/auth/refresh", &body).await
    }

    pub(crate) async fn forgot(&self) -> Answer {
        post(self.gateway(), "/auth/password/forgot", &forgot()).await
    }

    pub(crate) async fn reset(&self, token: &str, new: &str) -> Answer {
        let body = reset(token, new);
        post(self.gateway(), "/auth/password/reset", &body).await
    }

    pub(crate) async fn opens(&self, access: &str) -> bool {
        let field = bearer(access);
        let answer = get(self.gateway(), "/private", &[("Authorization", &field)]).await;
        answer.status == 200
    }

    pub(crate) fn mails(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.spool()) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "eml"))
            .filter_map(|path| fs::read_to_string(path).ok())
            .collect()
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.gateway().path().join("data/mail")
    }

    pub(crate) fn empty_spool(&self) {
        for entry in fs::read_dir(self.spool()).into_iter().flatten() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }

    /// Waits until nothing is queued, and gives the mails with these words.
    pub(crate) async fn sent(&self, words: &str) -> Vec<String> {
        eventually("an empty queue", async || {
            (self.count("mail").await == 0).then_some(())
        })
        .await;
        let mut mails = self.mails();
        mails.retain(|mail| mail.contains(words));
        mails
    }

    /// Asks for a link, and reads it out of the one mail that comes.
    pub(crate) async fn link(&self) -> String {
        self.later().await;
        self.empty_spool();
        self.forgot().await.is(202);
        let mails = self.sent(LINK).await;
        assert_eq!(mails.len(), 1, "{mails:?}");
        token(&mails[0])
    }

    /// The link sets another password, once, and everything of before is over.
    pub(crate) async fn works_once(&mut self, link: &str) {
        let old = self.password.clone();
        let new = self.other_password();
        self.empty_spool();
        self.reset(link, &new).await.is(204);
        let again = self.reset(link, "yet another horse battery").await;
        again.refused(401, "invalid_grant");
        assert_eq!(self.login(&old).await.status, 401);
        self.login(&new).await.is(200);
        self.password = new;
        self.later().await;
        assert_eq!(self.sent("was changed").await.len(), 1, "told once");
    }
}

pub(crate) fn forgot() -> Value {
    json!({ "email": "ann@example.com" })
}

pub(crate) fn reset(token: &str, new: &str) -> Value {
    json!({ "token": token, "new_password": new })
}

async fn try_post(gateway: &Gateway, target: &str, body: &Value) -> Result<Answer, String> {
    let fields = [("Content-Type", "application/json")];
    let mut raw = Raw::connect(gateway).await;
    raw.send(request("POST", target, &fields, &body.to_string()))
        .await;
    raw.try_answer()
        .await
        .map_err(|broken| format!("{broken:?}"))
}

async fn post(gateway: &Gateway, target: &str, body: &Value) -> Answer {
    try_post(gateway, target, body).await.unwrap()
}

pub(crate) fn pair(answer: &Answer) -> Pair {
    let grant = answer.is(200).json();
    let text = |name: &str| grant[name].as_str().unwrap().to_owned();
    Pair {
        access: text("access_token"),
        refresh: text("refresh_token"),
    }
}

pub(crate) fn token(mail: &str) -> String {
    let line = mail.lines().find_map(|line| line.strip_prefix(LINK));
    line.unwrap_or_else(|| panic!("no link: {mail}")).to_owned()
}
