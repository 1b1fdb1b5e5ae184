//! How signing keys are encrypted for the store, and with what.
//!
//! Each with AES-256-GCM under a random nonce, authenticated together with its purpose, name and algorithm, so that no row can stand
//! in for another one. Its times are not part of it: whoever may write into the store decides over accounts anyway.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf::{HKDF_SHA256, KeyType, Prk},
};
use zeroize::Zeroizing;

use super::KeyError;
use crate::store::{PURPOSE, SealedKey};

/// Bytes of a key-encryption key.
pub const ENCRYPTION_KEY_BYTES: usize = 32;

/// What each use of the key begins with, so that a later form cannot be taken for this one.
const FORM: &[u8] = b"portcullis signing key 1";

/// Bytes of its name in the store.
const NAME_BYTES: usize = 8;

/// A key-encryption key: random bytes, known to the nodes and not to the store. It does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionKey(Zeroizing<[u8; ENCRYPTION_KEY_BYTES]>);

impl EncryptionKey {
    /// Takes it over. Whether it is random is for the caller to see.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; ENCRYPTION_KEY_BYTES]>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What the configuration says of the encryption of signing keys in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEncryption {
    /// Keys are encrypted with it.
    pub current: EncryptionKey,
    /// The one before, while it is being replaced: keys are decrypted with it, too.
    pub old: Option<EncryptionKey>,
}

/// Encrypts and decrypts with one key.
pub(super) struct Sealer {
    /// The key's name in the store, derived from it.
    pub(super) name: Box<str>,
    key: RandomizedNonceKey,
}

/// Those of a configuration.
pub(super) struct Sealers {
    pub(super) current: Sealer,
    pub(super) old: Option<Sealer>,
}

impl Sealers {
    pub(super) fn new(encryption: &KeyEncryption) -> Result<Self, KeyError> {
        Ok(Self {
            current: Sealer::new(&encryption.current)?,
            old: encryption.old.as_ref().map(Sealer::new).transpose()?,
        })
    }

    /// The one of this name.
    pub(super) fn named(&self, name: &str) -> Option<&Sealer> {
        let old = self.old.as_ref();
        let mut all = std::iter::once(&self.current).chain(old);
        all.find(|sealer| *sealer.name == *name)
    }

    /// Decrypts a key; gives the text of its file.
    pub(super) fn open(&self, key: &SealedKey) -> Result<Zeroizing<String>, KeyError> {
        let sealer = self.named(&key.encryption);
        let sealer = sealer.ok_or_else(|| self.unknown(&key.encryption))?;
        sealer.open(key).ok_or_else(|| KeyError::Tampered {
            kid: key.kid.clone(),
        })
    }

    /// That a key is encrypted with one that is not here.
    pub(super) fn unknown(&self, found: &str) -> KeyError {
        KeyError::OtherEncryption {
            found: found.into(),
            known: self.current.name.clone(),
        }
    }
}

impl Sealer {
    fn new(key: &EncryptionKey) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Encrypt;
        let root = Prk::new_less_safe(HKDF_SHA256, &*key.0);
        let derive = |what: &[u8], out: &mut [u8]| {
            let info = [FORM, what];
            let length = Length(out.len());
            root.expand(&info, length).and_then(|okm| okm.fill(out))
        };
        let mut name = [0; NAME_BYTES];
        derive(b" name", &mut name).map_err(failed)?;
        let mut secret = Zeroizing::new([0; ENCRYPTION_KEY_BYTES]);
        derive(b" aes-256-gcm", &mut *secret).map_err(failed)?;
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            name: name.into(),
            key: RandomizedNonceKey::new(&AES_256_GCM, &*secret).map_err(failed)?,
        })
    }

    /// Encrypts the text of a key's file into a key that has everything else.
    pub(super) fn seal(&self, key: &mut SealedKey, text: &str) -> Result<(), KeyError> {
        // Encrypted where it lies; what is appended afterwards does not move it.
        let mut content = Vec::with_capacity(text.len() + AES_256_GCM.tag_len());
        content.extend_from_slice(text.as_bytes());
        let bound = Aad::from(bound(key));
        let sealed = self.key.seal_in_place_append_tag(bound, &mut content);
        let Ok(nonce) = sealed else {
            drop(Zeroizing::new(content));
            return Err(KeyError::Encrypt);
        };
        key.encryption = self.name.clone();
        key.sealed = [nonce.as_ref().as_slice(), &content].concat().into();
        Ok(())
    }

    fn open(&self, key: &SealedKey) -> Option<Zeroizing<String>> {
        let (nonce, content) = key.sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut content = Zeroizing::new(content.to_vec());
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(bound(key)), &mut content)
            .ok()?;
        let text = std::str::from_utf8(opened).ok()?;
        Some(Zeroizing::new(text.to_owned()))
    }
}

/// What is authenticated besides: each part with its length, so that no two keys give the same bytes.
fn bound(key: &SealedKey) -> Vec<u8> {
    let mut bytes = FORM.to_vec();
    for part in [PURPOSE, &key.kid, &key.algorithm] {
        bytes.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "-----BEGIN PRIVATE KEY-----\nnobody knows this\n";

    pub(in crate::accounts) fn encryption(first: u8, old: Option<u8>) -> KeyEncryption {
        let key = |first: u8| {
            let bytes =
                std::array::from_fn(|index| first.wrapping_add(u8::try_from(index).unwrap()));
            EncryptionKey::new(Zeroizing::new(bytes))
        };
        KeyEncryption {
            current: key(first),
            old: old.map(key),
        }
    }

    fn sealers(first: u8, old: Option<u8>) -> Sealers {
        Sealers::new(&encryption(first, old)).unwrap()
    }

    fn sealed(sealer: &Sealer) -> SealedKey {
        let mut key = SealedKey {
            kid: "one".into(),
            algorithm: "ES256".into(),
            from: 1,
            until: None,
            encryption: "".into(),
            sealed: Box::default(),
        };
        sealer.seal(&mut key, TEXT).unwrap();
        key
    }

    #[track_caller]
    fn is_tampered(sealers: &Sealers, key: &SealedKey) {
        let refused = sealers.open(key).unwrap_err();
        assert!(matches!(refused, KeyError::Tampered { .. }), "{refused}");
    }

    #[test]
    fn key_5_what_was_changed_swapped_or_cut_is_not_decrypted() {
        let sealers = sealers(1, None);
        let good = sealed(&sealers.current);
        assert_eq!(*sealers.open(&good).unwrap(), TEXT);
        for index in 0..good.sealed.len() {
            let mut key = good.clone();
            key.sealed[index] ^= 1;
            is_tampered(&sealers, &key);
        }
        for length in 0..good.sealed.len() {
            let mut key = good.clone();
            key.sealed = key.sealed[..length].into();
            is_tampered(&sealers, &key);
        }
        let longer = SealedKey {
            sealed: [&*good.sealed, b"x"].concat().into(),
            ..good.clone()
        };
        is_tampered(&sealers, &longer);
        for (kid, algorithm) in [
            ("two", "ES256"),
            ("one", "EdDSA"),
            ("oneE", "S256"),
            ("", ""),
        ] {
            let key = SealedKey {
                kid: kid.into(),
                algorithm: algorithm.into(),
                ..good.clone()
            };
            is_tampered(&sealers, &key);
        }
    }

    #[test]
    fn key_5_another_key_opens_nothing_and_the_refusal_says_what_to_do() {
        let good = sealed(&sealers(1, None).current);
        let other = sealers(2, None);
        let refused = other.open(&good).unwrap_err();
        assert!(
            matches!(refused, KeyError::OtherEncryption { .. }),
            "{refused}"
        );
        let text = refused.to_string();
        for word in [
            "accounts.key_encryption_file",
            "key revoke --all",
            &good.encryption,
        ] {
            assert!(text.contains(word), "{text}");
        }
        // Nor does it by another's name.
        let named = SealedKey {
            encryption: other.current.name.clone(),
            ..good.clone()
        };
        is_tampered(&other, &named);
        assert_eq!(*sealers(2, Some(1)).open(&good).unwrap(), TEXT);
    }

    #[test]
    fn key_5_two_encryptions_of_one_key_have_nothing_in_common_and_nothing_prints() {
        let sealers = sealers(1, None);
        let (one, two) = (sealed(&sealers.current), sealed(&sealers.current));
        assert_ne!(one.sealed[..NONCE_LEN], two.sealed[..NONCE_LEN]);
        assert_ne!(one.sealed[NONCE_LEN..], two.sealed[NONCE_LEN..]);
        assert_eq!(
            one.sealed.len(),
            NONCE_LEN + TEXT.len() + AES_256_GCM.tag_len()
        );
        assert_eq!(
            format!("{:?}", encryption(1, None)),
            "KeyEncryption { current: [redacted], old: None }"
        );
    }
}
