//! The keys that sign access tokens: files beside the database, one of them in use.
//!
//! `keys/<kid>.pem` holds a P-256 key as PKCS#8, `keys/active` names the one that signs. Both are made at the first start,
//! each in one step, so that of two processes that start together one wins and the other takes the winner's key. Every key
//! found is published, only the active one signs.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

const ACTIVE: &str = "active";

/// No key file of ours is longer.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// The `x` of keys that were printed in public: RFC 7515 appendix A.3, and the example of jwt.io (KEY-5).
const KNOWN_EXAMPLES: [&str; 2] = [
    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "EVs_o5-uQbTjL3chynL4wXgUg2R9q9UU8I5mEovUf84",
];

/// Why there are no keys to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key is known to the world.
    #[error("{}: this key was published as an example; remove the file, a new key is made at the next start", path.display())]
    Example {
        /// Which file.
        path: PathBuf,
    },
    /// A file or folder could not be made or read.
    #[error("{}: cannot be read or made", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No key could be made.
    #[error("cannot make a signing key")]
    Generate,
    /// Not a P-256 key as PKCS#8 in PEM.
    #[error("{}: not a P-256 private key in PEM (PKCS#8)", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// The active key has no file.
    #[error("{}: names a key that is not there", path.display())]
    Missing {
        /// The file that names it.
        path: PathBuf,
    },
    /// Others may reach the folder: a key of theirs in it would be published as ours.
    #[error("{}: others may use this folder; run: chmod 700 {}", path.display(), path.display())]
    FolderOpen {
        /// Which.
        path: PathBuf,
    },
    /// Others may read what signs every token.
    #[error("{}: others may read this key; run: chmod 600 {}", path.display(), path.display())]
    ReadableByOthers {
        /// Which file.
        path: PathBuf,
    },
}

/// The keys, read once.
pub(super) struct SigningKeys {
    active: SigningKey,
    jwks: Vec<u8>,
}

struct SigningKey {
    kid: Box<str>,
    private: EncodingKey,
    x: String,
    y: String,
}

impl SigningKeys {
    /// Reads the keys in `folder`, and makes folder and key where there is none. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] by variant, about the first file with a fault.
    pub(super) fn open(folder: &Path) -> Result<Self, KeyError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| file_error(folder, source))?;
        if is_open(folder)? {
            return Err(KeyError::FolderOpen {
                path: folder.into(),
            });
        }
        let pointer = folder.join(ACTIVE);
        if !pointer.exists() {
            choose(folder, &pointer)?;
        }
        let active = read_text(&pointer)?;
        let (in_use, others): (Vec<_>, Vec<_>) = read_all(folder)?
            .into_iter()
            .partition(|key| *key.kid == *active.trim());
        let keys = in_use.iter().chain(&others).map(SigningKey::public);
        let jwks = json!({ "keys": keys.collect::<Vec<_>>() });
        Ok(Self {
            jwks: jwks.to_string().into_bytes(),
            active: in_use
                .into_iter()
                .next()
                .ok_or(KeyError::Missing { path: pointer })?,
        })
    }

    /// The public keys as a JSON Web Key Set (RFC 7517 §5), the active one first.
    #[must_use]
    pub(super) fn jwks(&self) -> &[u8] {
        &self.jwks
    }

    /// Signs claims as an access token (RFC 9068 §2.1).
    ///
    /// # Errors
    /// [`KeyError::Generate`] where the cryptographic library fails.
    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".into());
        header.kid = Some(self.active.kid.to_string());
        jsonwebtoken::encode(&header, claims, &self.active.private).map_err(|_| KeyError::Generate)
    }
}

impl SigningKey {
    fn read(path: &Path) -> Result<Self, KeyError> {
        let malformed = || KeyError::Malformed { path: path.into() };
        if is_open(path)? {
            return Err(KeyError::ReadableByOthers { path: path.into() });
        }
        let pair = KeyPair::from_pem(&read_text(path)?).map_err(|_| malformed())?;
        if pair.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(malformed());
        }
        let key = Self::new(&pair).ok_or_else(malformed)?;
        if KNOWN_EXAMPLES.contains(&key.x.as_str()) {
            return Err(KeyError::Example { path: path.into() });
        }
        Ok(key)
    }

    fn new(pair: &KeyPair) -> Option<Self> {
        // SEC 1 §2.3.3: 4, then the coordinates, 32 bytes each.
        let point = pair.der_bytes().strip_prefix(&[4])?;
        let (x, y) = point.split_at_checked(32).filter(|(_, y)| y.len() == 32)?;
        let (x, y) = (BASE64URL.encode(x), BASE64URL.encode(y));
        Some(Self {
            kid: thumbprint(&x, &y).into(),
            private: EncodingKey::from_ec_der(pair.serialized_der()),
            x,
            y,
        })
    }

    /// The public parameters, and no other.
    fn public(&self) -> serde_json::Value {
        json!({
            "kty": "EC", "crv": "P-256", "x": self.x, "y": self.y,
            "kid": self.kid, "alg": "ES256", "use": "sig",
        })
    }
}

/// RFC 7638 §3: the digest of the required members, in order, without spaces.
fn thumbprint(x: &str, y: &str) -> String {
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    BASE64URL.encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        members.as_bytes(),
    ))
}

/// Decides which key signs: one that lies there already, or a new one. Another process may decide first; then its word holds.
fn choose(folder: &Path, pointer: &Path) -> Result<(), KeyError> {
    let found = read_all(folder)?
        .into_iter()
        .map(|key| key.kid)
        .min_by(Ord::cmp);
    let (kid, made) = match found {
        Some(kid) => (kid, None),
        None => {
            let (kid, path) = generate(folder)?;
            (kid, Some(path))
        }
    };
    if write_once(pointer, kid.as_bytes())? {
        return Ok(());
    }
    // The other may have chosen the key that we just made.
    let chosen = read_text(pointer)?;
    if let Some(path) = made.filter(|_| *chosen.trim() != *kid) {
        fs::remove_file(&path).map_err(|source| file_error(&path, source))?;
    }
    Ok(())
}

fn generate(folder: &Path) -> Result<(Box<str>, PathBuf), KeyError> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| KeyError::Generate)?;
    let key = SigningKey::new(&pair).ok_or(KeyError::Generate)?;
    let path = folder.join(format!("{}.pem", key.kid));
    let pem = Zeroizing::new(pair.serialize_pem());
    write_once(&path, pem.as_bytes())?;
    tracing::info!(target: "audit", event = "key_made", kid = %key.kid);
    Ok((key.kid, path))
}

/// Whether anybody but the owner has any right.
fn is_open(path: &Path) -> Result<bool, KeyError> {
    let metadata = fs::metadata(path).map_err(|source| file_error(path, source))?;
    Ok(metadata.permissions().mode() & 0o077 != 0)
}

fn read_all(folder: &Path) -> Result<Vec<SigningKey>, KeyError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| file_error(folder, source))? {
        let path = entry.map_err(|source| file_error(folder, source))?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut keys = Vec::with_capacity(paths.len());
    for path in paths {
        match SigningKey::read(&path) {
            Ok(key) => keys.push(key),
            // A process that starts beside us took back the key that it made in vain.
            Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(keys)
}

fn read_text(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let failed = |source| file_error(path, source);
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .map_err(failed)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

/// Writes a file of mode 0600 that appears whole and on the disk, or not at all. Says `false` where it was there already.
fn write_once(path: &Path, content: &[u8]) -> Result<bool, KeyError> {
    let failed = |source| file_error(path, source);
    let draft = path.with_extension(format!("{}.draft", uuid::Uuid::new_v4()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        // A link, not a rename: it fails where the name is taken.
        .and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match written {
        Ok(()) => {
            removed.map_err(failed)?;
            let folder = path.parent().unwrap_or(Path::new("."));
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn file_error(path: &Path, source: io::Error) -> KeyError {
    KeyError::File {
        path: path.into(),
        source,
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys")
            .field("kid", &self.active.kid)
            .finish_non_exhaustive()
    }
}
