//! How a session begins, how it ends, and what it gives.

use std::{net::IpAddr, time::Duration};

use zeroize::Zeroizing;

use super::{
    ACCESS_TTL_MAX, AccountError, Accounts, DeviceToken, Password, passwords::Verdict,
    refresh_token::RefreshToken, signing::AccessClaims, users::user_key,
};
use crate::{
    policy::{Rejection, rejection::Exceeded},
    store::{Ending, NewSession, Session, User},
};

/// Live sessions of one account (SESS-9).
const SESSIONS_MAX: u32 = 20;

/// Sessions that are counted at most.
const COUNTED_MAX: u32 = 100_000;

/// How much of the user agent is kept, in characters.
const DEVICE_CHARS_MAX: usize = 200;

/// Who presents credentials, from where.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// The address that the request is charged to.
    pub ip: IpAddr,
    /// The user agent, for the list of sessions.
    pub device: Option<&'a str>,
}

/// What a login presents.
#[derive(Debug)]
pub struct Login<'a> {
    /// A user name or an address.
    pub name: &'a str,
    /// The password.
    pub password: Password,
    /// Who and from where.
    pub client: Client<'a>,
    /// What an earlier login gave this browser.
    pub device: Option<&'a DeviceToken>,
}

/// What login and refresh give.
#[derive(Debug)]
pub struct Grant {
    /// The access token.
    pub access_token: Zeroizing<String>,
    /// Its life, in seconds.
    pub expires_in: u64,
    /// The refresh token; `None` for a session that cannot be renewed.
    pub refresh_token: Option<RefreshToken>,
    /// How long the refresh token is good if it is not used, in seconds.
    pub refresh_expires_in: u64,
    /// Whose.
    pub user: User,
    /// `sid`.
    pub session: Box<str>,
    /// For the next login in this browser; `None` for whoever did not sign in with a password.
    pub device: Option<DeviceToken>,
}

impl Accounts {
    /// Signs an account in: a new session, whatever was presented before (AUTH-8).
    ///
    /// # Errors
    /// [`Rejection::InvalidCredentials`] without saying why; [`Rejection::RateLimited`] for known and unknown accounts alike;
    /// [`Rejection::Overloaded`], [`Rejection::StoreUnavailable`].
    pub async fn login(&self, login: Login<'_>) -> Result<Grant, Rejection> {
        let outcome = self.sign_in(login).await;
        let counted = outcome.as_ref().map(|_| ()).map_err(Rejection::code);
        self.metrics.login(counted);
        outcome
    }

    async fn sign_in(&self, login: Login<'_>) -> Result<Grant, Rejection> {
        let ip = login.client.ip;
        self.logins_per_ip
            .check(ip)
            .await
            .map_err(|exceeded| limited(None, ip, exceeded))?;
        let user = match user_key(login.name) {
            Some(key) => self.store.find_user(key).await.map_err(unavailable)?,
            None => None,
        };
        // One budget for an account, whether it is called by its name or its address.
        let account: Box<str> = match &user {
            Some(user) => user.id.clone(),
            None => login.name.to_ascii_lowercase().into(),
        };
        let known = user.as_ref().map(|user| user.id.clone());
        let attempt = self
            .charge_attempt(&account, user.as_ref(), login.device)
            .await
            .map_err(|exceeded| limited(known.as_deref(), ip, exceeded))?;
        let user = user.filter(may_enter);
        let reason = match (&known, &user) {
            (None, _) => "account_unknown",
            (Some(_), None) => "account_shut",
            (Some(_), Some(_)) => "password_wrong",
        };
        let stored = user.as_ref().and_then(|user| user.password.clone());
        let verdict = self.passwords.verify(login.password, stored).await?;
        let (Some(mut user), Verdict::Right { upgrade }) = (user, verdict) else {
            return Err(refused(known.as_deref(), ip, reason));
        };
        attempt.succeeded();
        if let (Some(new), Some(old)) = (upgrade, user.password.clone()) {
            self.store
                .upgrade_password(user.id.clone(), old, new.clone())
                .await
                .map_err(unavailable)?;
            user.password = Some(new);
        }
        let password = user.password.as_ref();
        let device = password
            .map(|password| DeviceToken::new(&user.id, password, self.clock.now()))
            .transpose()?;
        let token = RefreshToken::random()?;
        let session = self.new_session(&user, login.client);
        let mut grant = match self.begin(user, session, Some(token)).await {
            // The account was changed while its password was being verified.
            Err(AccountError::NotFound) => {
                return Err(refused(known.as_deref(), ip, "account_changed"));
            }
            begun => begun?,
        };
        grant.device = device;
        tracing::info!(
            target: "audit", event = "login", user = %grant.user.id, session = %grant.session, client = %ip
        );
        Ok(grant)
    }

    /// Ends the session of a refresh token, if there is one.
    ///
    /// # Errors
    /// [`Rejection::StoreUnavailable`]: it may still be alive.
    pub async fn logout(&self, presented: &RefreshToken) -> Result<(), Rejection> {
        self.end(Ending::OfToken(presented.digest())).await?;
        Ok(())
    }

    /// Ends one session of a user, and says whether there was one to end.
    ///
    /// # Errors
    /// [`Rejection::StoreUnavailable`]: it may still be alive.
    pub async fn end_session(&self, user_id: &str, session_id: &str) -> Result<bool, Rejection> {
        let ended = self
            .end(Ending::One {
                user_id: user_id.into(),
                session_id: session_id.into(),
            })
            .await?;
        Ok(!ended.is_empty())
    }

    /// Ends every session of a user, by `sub`.
    ///
    /// # Errors
    /// [`Rejection::StoreUnavailable`]: some may still be alive.
    pub async fn logout_all(&self, user_id: &str) -> Result<(), Rejection> {
        self.end(Ending::AllOf {
            user_id: user_id.into(),
        })
        .await?;
        Ok(())
    }

    /// The live sessions of a user, the last used first.
    ///
    /// # Errors
    /// [`Rejection::StoreUnavailable`].
    pub async fn sessions(&self, user_id: &str) -> Result<Vec<Session>, Rejection> {
        self.store
            .sessions(user_id.into(), self.times())
            .await
            .map_err(unavailable)
    }

    /// How many sessions are alive, of everybody; 100 000 at most, whose cost is some milliseconds of the store.
    ///
    /// # Errors
    /// [`AccountError::Store`].
    pub async fn count_sessions(&self) -> Result<u64, AccountError> {
        let alive = self.store.count_sessions(self.times(), COUNTED_MAX).await;
        alive.map_err(AccountError::from)
    }

    /// Issues an access token without a password, for an operator's test: a session of its own that cannot be renewed and
    /// ends with its token.
    ///
    /// # Errors
    /// [`AccountError::NotFound`] where no account of this name may sign in.
    pub async fn issue(&self, name: &str, ttl: Duration) -> Result<Grant, AccountError> {
        let user = self.user(name).await?;
        if !may_enter(&user) {
            return Err(AccountError::NotFound);
        }
        let client = Client {
            ip: IpAddr::from([127, 0, 0, 1]),
            device: Some("portcullis token issue"),
        };
        let mut session = self.new_session(&user, client);
        session.ends_at = session
            .created_at
            .saturating_add(ttl.min(ACCESS_TTL_MAX).as_secs());
        let grant = self.begin(user, session, None).await?;
        tracing::info!(
            target: "audit", event = "token_issued", user = %grant.user.id, session = %grant.session
        );
        Ok(grant)
    }

    pub(super) fn new_session(&self, user: &User, client: Client<'_>) -> Session {
        let now = self.clock.now();
        let device = client.device.unwrap_or("unknown");
        Session {
            id: uuid::Uuid::new_v4().to_string().into(),
            user_id: user.id.clone(),
            created_at: now,
            last_used_at: now,
            ends_at: now.saturating_add(self.settings.refresh_max.as_secs()),
            device: device
                .chars()
                .filter(|char| !char.is_control())
                .take(DEVICE_CHARS_MAX)
                .collect::<String>()
                .into(),
            ip: client.ip.to_string().into(),
        }
    }

    pub(super) async fn begin(
        &self,
        user: User,
        session: Session,
        token: Option<RefreshToken>,
    ) -> Result<Grant, AccountError> {
        self.signing.check(self.clock.now())?;
        let new = NewSession {
            session: session.clone(),
            token: token.as_ref().map(RefreshToken::digest),
            user_epoch: user.epoch,
            cap: SESSIONS_MAX,
            times: self.times(),
        };
        let ended = self.store.add_session(new).await?;
        let ended = ended.ok_or(AccountError::NotFound)?;
        self.forget(&ended);
        self.grant(user, &session, token, self.settings.access_ttl)
    }

    pub(super) fn grant(
        &self,
        user: User,
        session: &Session,
        refresh_token: Option<RefreshToken>,
        ttl: Duration,
    ) -> Result<Grant, AccountError> {
        let now = self.clock.now();
        let session_left = session.ends_at.saturating_sub(now);
        // No access token outlives its session, so that one entry about the session reaches all of them.
        let expires_in = ttl.min(ACCESS_TTL_MAX).as_secs().min(session_left);
        let claims = AccessClaims {
            iss: &self.settings.issuer,
            aud: &self.settings.audience,
            sub: &user.id,
            exp: now.saturating_add(expires_in),
            iat: now,
            nbf: now,
            jti: uuid::Uuid::new_v4().to_string(),
            sid: &session.id,
            roles: &user.roles,
            scope: "",
            email: user.email.as_deref(),
            preferred_username: &user.username,
            name: user.name.as_deref(),
        };
        let access_token = self
            .signing
            .sign(&claims, now)
            .map_err(|_| AccountError::Internal)?;
        Ok(Grant {
            access_token: Zeroizing::new(access_token),
            expires_in,
            refresh_token,
            refresh_expires_in: self.settings.refresh_idle.as_secs().min(session_left),
            user,
            session: session.id.clone(),
            device: None,
        })
    }

    /// Ends sessions on the disk, then in this process.
    pub(super) async fn end(&self, ending: Ending) -> Result<Vec<Box<str>>, AccountError> {
        let (user, reason) = match &ending {
            Ending::AllOf { user_id } => (Some(user_id.clone()), "logout_all"),
            Ending::OfToken(_) => (None, "logout"),
            Ending::One { user_id, .. } => (Some(user_id.clone()), "logout"),
        };
        let ended = self.store.end_sessions(ending, self.times()).await?;
        self.forget(&ended);
        for session in &ended {
            tracing::info!(target: "audit", event = "session_ended", user = user.as_deref(), session = %session, reason);
        }
        Ok(ended)
    }
}

fn limited(user: Option<&str>, ip: IpAddr, exceeded: Exceeded) -> Rejection {
    tracing::warn!(target: "audit", event = "login_limited", user, client = %ip, reason = exceeded.limit);
    Rejection::RateLimited(exceeded)
}

/// The log learns why, the client does not (AUTH-1).
fn refused(user: Option<&str>, ip: IpAddr, reason: &str) -> Rejection {
    tracing::info!(target: "audit", event = "login_refused", user, client = %ip, reason);
    Rejection::InvalidCredentials
}

/// Whether an account may sign in: the one place that decides it (AUTH-11). Refresh asks the same of the store, in its
/// transaction.
pub(super) fn may_enter(user: &User) -> bool {
    !user.disabled && !user.pending
}

pub(super) fn unavailable(_: crate::store::StoreError) -> Rejection {
    Rejection::StoreUnavailable
}
