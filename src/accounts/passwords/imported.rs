//! Hashes that other programs made: bcrypt, PBKDF2 and scrypt. They are verified when their owner signs in, and then replaced by
//! argon2id with the current parameters (AUTH-3).
//!
//! Until then such an account answers a login in the time of its own hash and not in that of the dummy: whoever measures can
//! tell that it was imported and that it has not been used since.

use std::num::NonZeroU32;

use aws_lc_rs::{
    constant_time,
    pbkdf2::{self, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA512},
};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

/// The highest cost of bcrypt that is computed: each step doubles 200 ms at 12.
const BCRYPT_COST_MAX: u32 = 14;

/// The lowest that bcrypt has.
const BCRYPT_COST_MIN: u32 = 4;

/// Salt and hash of bcrypt, in its own base64.
const BCRYPT_REST_BYTES: usize = 53;

/// The most rounds of PBKDF2 that are computed: about half a second.
const ROUNDS_MAX: u32 = 2_000_000;

/// The most memory of scrypt, in bytes: `128 · r · 2^ln` (RFC 7914 §2). Programs use 16 to 128 MiB.
const SCRYPT_BYTES_MAX: u64 = 256 << 20;

/// The most work of scrypt: memory times `p`.
const SCRYPT_WORK_MAX: u64 = 1 << 30;

/// What a stored hash is derived to, in bytes.
const OUTPUT_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

const SALT_BYTES: std::ops::RangeInclusive<usize> = 4..=64;

/// A hash of another program's, whole and within the ceilings.
pub(super) enum Imported<'a> {
    /// bcrypt, as a whole.
    Bcrypt(&'a str),
    /// PBKDF2 (RFC 8018 §5.2).
    Pbkdf2 {
        /// With which hash function.
        algorithm: pbkdf2::Algorithm,
        /// The iteration count.
        rounds: NonZeroU32,
        /// Its salt.
        salt: Vec<u8>,
        /// What the password must be derived to.
        output: Vec<u8>,
    },
    /// scrypt (RFC 7914).
    Scrypt {
        /// Its cost.
        params: scrypt::Params,
        /// Its salt.
        salt: Vec<u8>,
        /// What the password must be derived to.
        output: Vec<u8>,
    },
}

impl<'a> Imported<'a> {
    /// Reads `$2a$`, `$2b$` and `$2y$`, and `$pbkdf2-sha256$` and `$pbkdf2-sha512$` in the forms of PHC (`i=…`) and passlib,
    /// and `$scrypt$ln=…,r=…,p=…$`. `None`: another form, or one that costs too much.
    pub(super) fn read(stored: &'a str) -> Option<Self> {
        let mut fields = stored.strip_prefix('$')?.split('$');
        let kind = fields.next()?;
        let cost = fields.next()?;
        match kind {
            "2a" | "2b" | "2y" => {
                let rest = fields.next()?;
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
                let number: u32 = cost.parse().ok()?;
                let fits = cost.len() == 2
                    && (BCRYPT_COST_MIN..=BCRYPT_COST_MAX).contains(&number)
                    && rest.len() == BCRYPT_REST_BYTES
                    && rest.bytes().all(plain)
                    && fields.next().is_none();
                fits.then_some(Self::Bcrypt(stored))
            }
            "pbkdf2-sha256" => Self::pbkdf2(PBKDF2_HMAC_SHA256, cost, fields),
            "pbkdf2-sha512" => Self::pbkdf2(PBKDF2_HMAC_SHA512, cost, fields),
            "scrypt" => Self::scrypt(cost, fields),
            _ => None,
        }
    }

    fn scrypt(cost: &str, mut fields: std::str::Split<'_, char>) -> Option<Self> {
        let mut numbers = cost.split(',');
        let mut number =
            |name: &str| -> Option<u32> { numbers.next()?.strip_prefix(name)?.parse().ok() };
        let (log_n, r, p) = (number("ln=")?, number("r=")?, number("p=")?);
        let n = 1_u64
            .checked_shl(log_n)
            .filter(|n| (2..1 << 32).contains(n))?;
        let bytes = n.checked_mul(u64::from(r))?.checked_mul(128)?;
        let work = bytes.checked_mul(u64::from(p))?;
        let salt = STANDARD_NO_PAD.decode(fields.next()?).ok()?;
        let output = STANDARD_NO_PAD.decode(fields.next()?).ok()?;
        let fits = numbers.next().is_none()
            && fields.next().is_none()
            && bytes <= SCRYPT_BYTES_MAX
            && work <= SCRYPT_WORK_MAX
            && SALT_BYTES.contains(&salt.len())
            && OUTPUT_BYTES.contains(&output.len());
        if !fits {
            return None;
        }
        let params = scrypt::Params::new(log_n.try_into().ok()?, r, p).ok()?;
        Some(Self::Scrypt {
            params,
            salt,
            output,
        })
    }

    fn pbkdf2(
        algorithm: pbkdf2::Algorithm,
        cost: &str,
        mut fields: std::str::Split<'_, char>,
    ) -> Option<Self> {
        let rounds = match cost.strip_prefix("i=") {
            Some(named) => named.split(',').next()?,
            None => cost,
        };
        let rounds: u32 = rounds.parse().ok()?;
        let bytes = |field: Option<&str>| {
            // passlib writes `.` for `+`.
            STANDARD_NO_PAD.decode(field?.replace('.', "+")).ok()
        };
        let salt = bytes(fields.next())?;
        let output = bytes(fields.next())?;
        let fits = rounds <= ROUNDS_MAX
            && SALT_BYTES.contains(&salt.len())
            && OUTPUT_BYTES.contains(&output.len())
            && fields.next().is_none();
        let rounds = NonZeroU32::new(rounds)?;
        fits.then_some(Self::Pbkdf2 {
            algorithm,
            rounds,
            salt,
            output,
        })
    }

    /// Whether it is the hash of this password. bcrypt sees 72 bytes alone: a longer password fits none of its hashes.
    pub(super) fn fits(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(stored) => {
                bcrypt::non_truncating_verify(password, stored).unwrap_or(false)
            }
            Self::Pbkdf2 {
                algorithm,
                rounds,
                salt,
                output,
            } => pbkdf2::verify(*algorithm, *rounds, salt, password, output).is_ok(),
            Self::Scrypt {
                params,
                salt,
                output,
            } => {
                let mut derived = vec![0; output.len()];
                scrypt::scrypt(password, salt, params, &mut derived).is_ok()
                    && constant_time::verify_slices_are_equal(&derived, output).is_ok()
            }
        }
    }
}
