//! What signing keys in the store are encrypted with: the keys `key_encryption*` of `[accounts]` (KEY-5).

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

use super::{
    diagnostic::Fault,
    files::{self, Reader},
    reader::Table,
};
use crate::accounts::{ENCRYPTION_KEY_BYTES, EncryptionKey, KeyEncryption};

const HINT: &str = "make one: openssl rand -base64 32";

/// The fewest different values among 32 random bytes; fewer would be a wonder.
const VALUES_MIN: usize = 16;

/// The keys of the present key and of the old one: file, then variable.
const CURRENT: [&str; 2] = ["key_encryption_file", "key_encryption_env"];
const OLD: [&str; 2] = ["key_encryption_old_file", "key_encryption_old_env"];

/// Reads them; `None` where signing keys are files. `is_shared` is whether the store may be that of several nodes.
pub(super) fn read(table: &mut Table<'_>, is_shared: bool) -> Option<KeyEncryption> {
    let current = key(table, CURRENT);
    let old = key(table, OLD);
    let named = |keys: [&'static str; 2]| keys.into_iter().find(|key| table.has(key));
    match (named(CURRENT), named(OLD)) {
        (None, Some(key)) => {
            let hint = "name the new one: key_encryption_file or key_encryption_env";
            table.fault(key, Fault::new("is the old one of none", hint));
        }
        (Some(_), Some(key)) if current.is_some() && current == old => {
            let hint = "when `portcullis key rewrap` is done, take it out";
            table.fault(key, Fault::new("is the present one, not an old one", hint));
        }
        (None, None) if is_shared => {
            let hint = "name key_encryption_file: then the store carries them, encrypted; without it each gateway needs a copy of data/keys, \
                        after each change of keys too";
            let fault = Fault::new("signing keys are files of each gateway", hint);
            table.context.problems.warn(&table.place_of("store"), fault);
        }
        (None | Some(_), None | Some(_)) => {}
    }
    Some(KeyEncryption {
        current: current?,
        old,
    })
}

fn key(table: &mut Table<'_>, [file_key, env_key]: [&'static str; 2]) -> Option<EncryptionKey> {
    if table.has(file_key) && table.has(env_key) {
        let hint = format!("leave {file_key} or {env_key}");
        table.fault(env_key, Fault::new("is a second key-encryption key", hint));
    }
    let context = table.context;
    let file = table.parsed(file_key, |text| {
        let content = files::read(&context.file(text), Reader::Owner)?;
        checked(&content)
    });
    let env = table.parsed(env_key, |name| {
        let value = (context.env)(name)
            .ok_or_else(|| Fault::from(format!("the environment variable {name} is not set")))?;
        checked(&Zeroizing::new(value.into_encoded_bytes()))
    });
    file.or(env)
}

fn checked(text: &[u8]) -> Result<EncryptionKey, Fault> {
    let bytes = decoded(text.trim_ascii()).ok_or_else(|| {
        Fault::new(
            "holds no key-encryption key: 32 random bytes in base64 or in hexadecimal digits",
            HINT,
        )
    })?;
    if is_weak(&*bytes) {
        return Err(Fault::new("holds 32 bytes that are not random", HINT));
    }
    Ok(EncryptionKey::new(bytes))
}

fn decoded(text: &[u8]) -> Option<Zeroizing<[u8; ENCRYPTION_KEY_BYTES]>> {
    let mut bytes = Zeroizing::new([0; ENCRYPTION_KEY_BYTES]);
    if text.len() == 2 * ENCRYPTION_KEY_BYTES {
        for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
        }
        return Some(bytes);
    }
    let text = text.strip_suffix(b"=").unwrap_or(text);
    // Longer than what is right, so that what is too long is seen to be.
    let mut room = Zeroizing::new([0; 2 * ENCRYPTION_KEY_BYTES]);
    let alphabets = [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD];
    let mut read = alphabets.into_iter();
    let length = read.find_map(|alphabet| alphabet.decode_slice(text, &mut *room).ok())?;
    let found = room.get(..length)?;
    bytes.copy_from_slice(
        found
            .get(..ENCRYPTION_KEY_BYTES)
            .filter(|_| length == ENCRYPTION_KEY_BYTES)?,
    );
    Some(bytes)
}

/// Whether bytes are what somebody typed or counted: text, few different values, or even steps.
fn is_weak(bytes: &[u8]) -> bool {
    let mut values = bytes.to_vec();
    values.sort_unstable();
    values.dedup();
    let values = Zeroizing::new(values);
    let step = |pair: &[u8]| match pair {
        [one, next] => next.wrapping_sub(*one),
        _ => 0,
    };
    let first = bytes.get(..2).map_or(0, step);
    values.len() < VALUES_MIN
        || bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
        || bytes.windows(2).all(|pair| step(pair) == first)
}
