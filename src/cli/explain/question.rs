//! A question as a request, and the gateway that is asked: assembled from the configuration as `run` does, without a listener.

use std::{
    net::IpAddr,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use aws_lc_rs::rand;
use http::{
    HeaderName, HeaderValue, Request,
    header::{self},
    request::Parts,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::{ExplainCommand, line_of_input};
use crate::{
    accounts::Accounts,
    assertion::Assertions,
    authn::{
        LastToken, Revocations,
        remote::{Around, RemoteKeys},
        settings::{IssuerSettings, KeySource},
    },
    config::{
        Config,
        assemble::{Lasting, assemble},
    },
    gateway::{Gateway, Peer, explain::Explanation},
    limit::settings::Quota,
    policy::{head, original_request},
    portal,
    spans::Exporters,
    telemetry::{Telemetry, settings::LogSettings},
};

/// How long a token lives that is made for a question.
const LIFE_SECS: u64 = 300;

/// A request that somebody asks about.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) from: IpAddr,
    pub(super) headers: Vec<(String, String)>,
    pub(super) credential: Credential,
}

/// What the request carries.
#[derive(Debug)]
pub(super) enum Credential {
    /// These claims, as if their issuer had signed them.
    Claims(Map<String, Value>),
    /// Nothing but what the headers say.
    None,
    /// This token.
    Token(Zeroizing<String>),
}

/// The gateway of a configuration.
pub(super) struct Oracle {
    runtime: Runtime,
    config: Config,
    lasting: Lasting,
    gateway: Gateway,
}

impl Question {
    pub(super) fn read(command: &ExplainCommand) -> anyhow::Result<Self> {
        let credential = match (&command.token, &command.claims) {
            (Some(token), _) if token == "-" => {
                let line = line_of_input()?;
                Credential::Token(Zeroizing::new(line.trim().to_owned()))
            }
            (Some(token), _) => Credential::Token(Zeroizing::new(token.clone())),
            (None, Some(claims)) => {
                let claims = serde_json::from_str(claims);
                Credential::Claims(claims.context("--claims is not a JSON object")?)
            }
            (None, None) => Credential::None,
        };
        let headers = command.headers.iter().map(|line| {
            let (name, value) = line
                .split_once(':')
                .with_context(|| format!("--header `{line}` is not `Name: value`"))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        });
        Ok(Self {
            method: command.method.clone(),
            url: command.url.clone(),
            from: command.from,
            headers: headers.collect::<anyhow::Result<_>>()?,
            credential,
        })
    }

    /// The request, as a proxy would describe it that saw it.
    fn parts(&self, token: Option<&str>) -> anyhow::Result<Parts> {
        let described = Request::get("/")
            .header("x-original-method", &self.method)
            .header("x-original-url", &self.url)
            .body(())
            .context("method and URL cannot be written in a request")?;
        if !self.url.starts_with("https://") && !self.url.starts_with("http://") {
            bail!("`{}` is not an absolute URL: https://host/path", self.url);
        }
        let (described, ()) = described.into_parts();
        let mut parts = original_request(&described, None)
            .map_err(|rejection| anyhow::anyhow!("{}", super::named(&rejection)))
            .with_context(|| format!("`{} {}` is no request", self.method, self.url))?;
        let host = parts.headers.get(header::HOST).cloned();
        parts.headers.clear();
        parts.headers.extend(host.map(|host| (header::HOST, host)));
        for (name, value) in &self.headers {
            let name = HeaderName::from_str(name).with_context(|| format!("`{name}`"))?;
            parts.headers.append(
                name,
                HeaderValue::from_str(value).context("a header's value")?,
            );
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .context("the token cannot be written in a header")?;
            value.set_sensitive(true);
            parts.headers.append(header::AUTHORIZATION, value);
        }
        Ok(parts)
    }
}

impl Oracle {
    /// Makes the gateway. Accounts are opened as `token inspect` opens them; keys that are fetched are fetched.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let config = unlimited(config);
        let runtime = crate::cli::runtime()?;
        let lasting = lasting(&config, &runtime)?;
        let gateway = runtime.block_on(async { assemble(&config, &lasting) })?;
        Ok(Self {
            runtime,
            config,
            lasting,
            gateway,
        })
    }

    /// Asks, and waits once for keys that may be on their way, as a request would.
    pub(super) fn ask(&self, question: &Question) -> anyhow::Result<(Parts, Explanation)> {
        match &question.credential {
            Credential::None => self.ask_of(&self.gateway, question, None),
            Credential::Token(token) => self.ask_of(&self.gateway, question, Some(token)),
            Credential::Claims(claims) => {
                let (issuer, token) = self.sign(claims.clone())?;
                let mut config = self.config.clone();
                config.issuers.push(issuer);
                let assembled = async { assemble(&config, &self.lasting) };
                let gateway = self.runtime.block_on(assembled)?;
                self.ask_of(&gateway, question, Some(&token))
            }
        }
    }

    fn ask_of(
        &self,
        gateway: &Gateway,
        question: &Question,
        token: Option<&str>,
    ) -> anyhow::Result<(Parts, Explanation)> {
        let parts = question.parts(token)?;
        let authority = parts.headers.get(header::HOST);
        let host = authority.and_then(|host| head::host(host.to_str().ok()?));
        let peer = Peer::new(
            question.from,
            gateway.tls.of(host.as_deref()),
            LastToken::default(),
        );
        let mut explanation = gateway.explain(&peer, &parts);
        if let Some(arrival) = gateway.awaited(&explanation, &parts) {
            self.runtime.block_on(arrival.wait());
            explanation = gateway.explain(&peer, &parts);
        }
        Ok((parts, explanation))
    }

    /// A token with these claims, and an entry that believes it: that of their issuer, but for a secret that nobody else has and
    /// an algorithm that no other entry of the same issuer takes. Everything else is checked as it always is.
    fn sign(
        &self,
        mut claims: Map<String, Value>,
    ) -> anyhow::Result<(IssuerSettings, Zeroizing<String>)> {
        let mut known = self.config.issuers.clone();
        if let Some((accounts, _)) = &self.lasting.accounts {
            known.extend(accounts.issuers());
        }
        let wanted = claims.get("iss").and_then(Value::as_str);
        let is_wanted = |one: &&IssuerSettings| match wanted {
            Some(name) => *one.issuer == *name || *one.name == *name,
            None => true,
        };
        let issuer = known.iter().find(is_wanted);
        let issuer = issuer.context("the configuration knows no such issuer (`iss`)")?;
        let is_taken = |algorithm: &Algorithm| {
            let same = known.iter().filter(|one| one.issuer == issuer.issuer);
            same.flat_map(|one| &one.algorithms)
                .any(|taken| taken == algorithm)
        };
        let algorithm = [Algorithm::HS512, Algorithm::HS384, Algorithm::HS256]
            .into_iter()
            .find(|algorithm| !is_taken(algorithm))
            .context("the issuer takes every algorithm that a question could use")?;
        let mut secret = Zeroizing::new(vec![0; 64]);
        rand::fill(&mut secret).map_err(|_| anyhow::anyhow!("the system has no random bytes"))?;
        fill_in(&mut claims, issuer);
        let mut jose = Header::new(algorithm);
        jose.typ = issuer.token_types.first().map(ToString::to_string);
        jose.typ = jose.typ.filter(|name| !name.is_empty());
        let token = jsonwebtoken::encode(&jose, &claims, &EncodingKey::from_secret(&secret))?;
        let entry = IssuerSettings {
            algorithms: vec![algorithm],
            keys: KeySource::Secret(secret),
            ..issuer.clone()
        };
        Ok((entry, Zeroizing::new(token)))
    }
}

/// The configuration without limits: a question takes nothing from the next.
fn unlimited(config: &Config) -> Config {
    let mut config = config.clone();
    let everything = Quota {
        count: u32::MAX,
        window: Duration::from_secs(1),
        burst: u32::MAX,
    };
    config.limit.per_ip = everything;
    config.limit.bad_tokens = everything;
    config.route_limits.clear();
    config
}

/// What every good token of an issuer says, where the question says nothing of it.
fn fill_in(claims: &mut Map<String, Value>, issuer: &IssuerSettings) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    claims.insert("iss".to_owned(), json!(&*issuer.issuer));
    for (name, value) in [
        ("aud", json!(issuer.audience.first())),
        ("sub", json!("somebody")),
        ("iat", json!(now)),
        ("exp", json!(now + LIFE_SECS)),
    ] {
        claims.entry(name).or_insert(value);
    }
}

fn lasting(config: &Config, runtime: &Runtime) -> anyhow::Result<Lasting> {
    let settings = LogSettings {
        access: false,
        ..LogSettings::default()
    };
    let telemetry = Telemetry::with_sink(&settings, Box::new(std::io::sink()));
    let revocations = Arc::new(Revocations::new());
    let remote = RemoteKeys::new(Around {
        runtime: runtime.handle().clone(),
        folder: config.data_folder().join("issuers"),
        revocations: Arc::clone(&revocations),
        telemetry: Arc::clone(&telemetry),
        report: Arc::new(|_, _| {}),
    });
    let accounts = config.accounts.as_ref().map(|settings| {
        let accounts = Accounts::open(settings, Arc::clone(&revocations))?;
        let portal = portal::start(Arc::clone(&accounts), runtime.handle());
        anyhow::Ok((accounts, portal))
    });
    let nobody = Arc::new(|_| {});
    let exporters = Exporters::new(runtime.handle().clone(), Arc::clone(&telemetry), nobody);
    Ok(Lasting {
        exporters,
        telemetry,
        // Of a process that has just begun.
        memory: Arc::default(),
        revocations,
        remote,
        assertions: config.assertion.as_ref().map(Assertions::without_keys),
        cluster: None,
        accounts: accounts
            .transpose()
            .context("cannot open the account store")?,
    })
}
