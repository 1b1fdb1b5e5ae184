//! Is this the account's password? Argon2id (RFC 9106), off the threads that serve, a bounded number at once.
//!
//! One hash costs some 20 MiB and 15 ms, and a stranger may ask for it: without a bound a login flood is an attack on memory
//! and processor. The permit belongs to the job that hashes, so callers who leave do not free it (AUTH-2).

pub mod breached;
mod imported;
mod rules;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash as Phc, PasswordHasher, PasswordVerifier, Version,
    password_hash::phc::{Output, ParamsString, Salt},
};
use aws_lc_rs::rand;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use breached::Breached;
use imported::Imported;

use super::{AccountError, settings::Argon2Settings};
use crate::store::PasswordHash;

/// The most characters of a password.
pub const CHARS_MAX: usize = 256;

/// The most bytes of a password.
pub const BYTES_MAX: usize = 1024;

/// How long a caller waits for a permit.
const PATIENCE: Duration = Duration::from_secs(2);

/// Callers that wait, for each permit: what can be served within [`PATIENCE`] at 15 ms a hash, and then some.
const QUEUE_PER_PERMIT: usize = 128;

/// What a stored hash may cost at most: memory in KiB, passes, lanes. Beyond, it is not ours and not verified (AUTH-3).
const MEMORY_KIB_MAX: u32 = 256 << 10;
const ITERATIONS_MAX: u32 = 16;
const PARALLELISM_MAX: u32 = 16;

/// The shortest output of a stored hash that proves anything.
const OUTPUT_BYTES_MIN: usize = 16;

/// A password as it was typed: within the bounds, otherwise untouched (AUTH-4). It does not print, and is wiped when dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// What a verification found.
#[derive(Debug)]
pub enum Verdict {
    /// It is the password.
    Right {
        /// The hash to keep from now on, where the stored one has other parameters than the configuration.
        upgrade: Option<PasswordHash>,
    },
    /// It is not, or there is nothing that it could be compared with.
    Wrong,
}

/// Hashes and verifies.
pub struct Passwords {
    permits: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    places: usize,
    hasher: Argon2<'static>,
    dummy: Phc,
    chars_min: usize,
    breached: Option<Breached>,
}

impl Password {
    /// Takes a password of at most 256 characters and 1024 bytes.
    ///
    /// # Errors
    /// [`AccountError::PasswordTooLong`].
    pub fn new(text: Zeroizing<String>) -> Result<Self, AccountError> {
        if text.len() > BYTES_MAX || text.chars().count() > CHARS_MAX {
            return Err(AccountError::PasswordTooLong);
        }
        Ok(Self(text))
    }
}

impl Passwords {
    /// Prepares hashing with these parameters, new passwords having at least `chars_min` characters and being in no list of
    /// `breached`.
    ///
    /// # Errors
    /// [`AccountError::Internal`] where argon2 refuses the parameters.
    pub fn new(
        settings: &Argon2Settings,
        chars_min: usize,
        breached: Option<Breached>,
    ) -> Result<Self, AccountError> {
        let params = Params::new(
            settings.memory_kib,
            settings.iterations,
            settings.parallelism,
            None,
        )
        .map_err(|_| AccountError::Internal)?;
        let dummy = dummy(&params).ok_or(AccountError::Internal)?;
        let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let permits = settings.concurrent.max(1);
        let places = permits.saturating_mul(QUEUE_PER_PERMIT);
        Ok(Self {
            permits: Arc::new(Semaphore::new(permits)),
            queue: Arc::new(Semaphore::new(places)),
            places,
            hasher,
            dummy,
            chars_min,
            breached,
        })
    }

    /// Hashes a new password with a salt of its own. `words` are about its owner and this site: a password that is made of
    /// them, or of common ones, is not taken.
    ///
    /// # Errors
    /// [`AccountError::PasswordTooShort`], [`AccountError::PasswordCommon`], [`AccountError::PasswordBreached`];
    /// [`AccountError::Overloaded`] where no permit came free in 2 s or too many wait; [`AccountError::Internal`] also where the
    /// list of breached passwords cannot be read.
    pub async fn hash(
        self: &Arc<Self>,
        password: Password,
        words: &[&str],
    ) -> Result<PasswordHash, AccountError> {
        self.check(&password, words)?;
        self.run(move |passwords| {
            passwords.refuse_breached(&password)?;
            passwords.hash_now(&password)
        })
        .await?
    }

    /// Whether a new password is taken, as far as that is seen without a look into a file.
    ///
    /// # Errors
    /// [`AccountError::PasswordTooShort`], [`AccountError::PasswordCommon`].
    pub fn check(&self, password: &Password, words: &[&str]) -> Result<(), AccountError> {
        if password.0.chars().count() < self.chars_min {
            return Err(AccountError::PasswordTooShort {
                min: self.chars_min,
            });
        }
        if rules::is_common(&password.0, words) {
            return Err(AccountError::PasswordCommon);
        }
        Ok(())
    }

    /// Verifies a password against a stored hash. With `None`, or a hash that cannot be verified, as much is computed as for
    /// one with the current parameters, so that the time tells nothing (AUTH-1).
    ///
    /// # Errors
    /// [`AccountError::Overloaded`] where no permit came free in 2 s or too many wait.
    pub async fn verify(
        self: &Arc<Self>,
        password: Password,
        stored: Option<PasswordHash>,
    ) -> Result<Verdict, AccountError> {
        self.run(move |passwords| passwords.verify_now(&password, stored.as_ref()))
            .await
    }

    /// How many callers wait for a permit.
    pub(super) fn waiting(&self) -> usize {
        self.places.saturating_sub(self.queue.available_permits())
    }

    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, AccountError> {
        let place = Arc::clone(&self.queue)
            .try_acquire_owned()
            .map_err(|_| AccountError::Overloaded)?;
        let permit = tokio::time::timeout(PATIENCE, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| AccountError::Overloaded)?
            .map_err(|_| AccountError::Internal)?;
        drop(place);
        let passwords = Arc::clone(self);
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || {
            let _exchange = span.enter();
            let _permit = permit; // the job's own: it is held until the memory is free again
            job(&passwords)
        })
        .await
        .map_err(|_| AccountError::Internal)
    }

    fn refuse_breached(&self, password: &Password) -> Result<(), AccountError> {
        let Some(breached) = &self.breached else {
            return Ok(());
        };
        match breached.holds(password.0.as_bytes()) {
            Ok(false) => Ok(()),
            Ok(true) => Err(AccountError::PasswordBreached),
            Err(error) => {
                tracing::error!(
                    event = "breached_passwords_unreadable", %error,
                    "no new password is taken: accounts.breached_passwords cannot be read, or was changed in place"
                );
                Err(AccountError::Internal)
            }
        }
    }

    fn hash_now(&self, password: &Password) -> Result<PasswordHash, AccountError> {
        let hash = self
            .hasher
            .hash_password(password.0.as_bytes())
            .map_err(|_| AccountError::Internal)?;
        Ok(PasswordHash(hash.to_string().into()))
    }

    fn verify_now(&self, password: &Password, stored: Option<&PasswordHash>) -> Verdict {
        if let Some(imported) = stored.and_then(|stored| Imported::read(&stored.0)) {
            if !imported.fits(password.0.as_bytes()) {
                return Verdict::Wrong;
            }
            return Verdict::Right {
                upgrade: self.hash_now(password).ok(),
            };
        }
        let parsed = stored.and_then(|stored| {
            let parsed = read(&stored.0);
            if parsed.is_none() {
                tracing::error!(
                    target: "audit",
                    event = "password_hash_refused",
                    "a stored password hash is malformed or costs too much; its account cannot sign in"
                );
            }
            parsed
        });
        let known = parsed.is_some();
        let against = parsed.as_ref().unwrap_or(&self.dummy);
        let right = self
            .hasher
            .verify_password(password.0.as_bytes(), against)
            .is_ok();
        if !(right && known) {
            return Verdict::Wrong;
        }
        let upgrade = if self.is_current(against) {
            None
        } else {
            self.hash_now(password).ok()
        };
        Verdict::Right { upgrade }
    }

    fn is_current(&self, hash: &Phc) -> bool {
        let ours = self.hasher.params();
        hash.algorithm.as_str() == Algorithm::Argon2id.as_str()
            && hash.version == Some(Version::V0x13.into())
            && Params::try_from(hash).is_ok_and(|params| {
                (params.m_cost(), params.t_cost(), params.p_cost())
                    == (ours.m_cost(), ours.t_cost(), ours.p_cost())
            })
    }
}

/// What passwords of accounts that do not exist are compared with: of the form and cost of a new hash, and the hash of no password
/// that anybody knows. Its output is drawn and not computed, for a hash at each start and in each command would be work for nothing.
fn dummy(params: &Params) -> Option<Phc> {
    let mut salt = [0; Salt::RECOMMENDED_LENGTH];
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    rand::fill(&mut salt).ok()?;
    rand::fill(&mut output).ok()?;
    Some(Phc {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params).ok()?,
        salt: Some(Salt::new(&salt).ok()?),
        hash: Some(Output::new(&output).ok()?),
    })
}

/// Whether a hash is of a form and a cost that are verified.
pub(super) fn is_verifiable(hash: &str) -> bool {
    Imported::read(hash).is_some() || read(hash).is_some()
}

/// Reads a stored hash that may be verified: argon2, whole, and within the ceiling.
fn read(stored: &str) -> Option<Phc> {
    let hash = Phc::new(stored).ok()?;
    Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let params = Params::try_from(&hash).ok()?;
    let output = hash.hash.as_ref()?;
    hash.salt.as_ref()?;
    let within = params.m_cost() <= MEMORY_KIB_MAX
        && params.t_cost() <= ITERATIONS_MAX
        && params.p_cost() <= PARALLELISM_MAX
        && output.len() >= OUTPUT_BYTES_MIN;
    within.then_some(hash)
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords")
            .field("free", &self.permits.available_permits())
            .finish_non_exhaustive()
    }
}
