//! Is this JSON that can be read in one way only? Names once, nesting shallow, nothing built.
//!
//! Two readers of `{"iss":"a","iss":"b"}` may disagree about the issuer, and the attacker picks which one he talks to
//! (JWT-6), so a repeated name is refused at every level. Nothing of the document is kept but the members asked for: a
//! tree of what a stranger sent can be a hundred times the size of what he sent (JWT-7).

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// How deep objects and arrays may nest, the outermost counted.
const DEPTH_MAX: usize = 16;

/// A member of the outermost object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Member<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// Any other value, `null` included.
    Other,
}

/// Walks a JSON object and picks its members of these names, in the order of the names. `None` where the bytes are not one
/// JSON object, repeat a name at any level, nest deeper than 16, or hold a number that no `f64` does.
pub(super) fn members<'a, const N: usize>(
    json: &'a [u8],
    names: [&str; N],
) -> Option<[Option<Member<'a>>; N]> {
    // Looked at once, and not each string by itself.
    let json = str::from_utf8(json).ok()?;
    let mut reader = serde_json::Deserializer::from_str(json);
    let members = Outermost(names).deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(members)
}

struct Outermost<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Outermost<'_, N> {
    type Value = [Option<Member<'de>>; N];

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Outermost<'_, N> {
    type Value = [Option<Member<'de>>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = [const { None }; N];
        let mut seen = Vec::new();
        while let Some(name) = object.next_key_seed(Name)? {
            let value = object.next_value_seed(Walk { depth: 1 })?;
            let place = self.0.iter().position(|wanted| **wanted == *name);
            if let Some(slot) = place.and_then(|place| found.get_mut(place)) {
                *slot = Some(value);
            }
            seen.push(name);
        }
        all_differ(seen)?;
        Ok(found)
    }
}

/// A member's name, borrowed unless it is written with escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// Any value inside `depth` objects and arrays.
struct Walk {
    depth: usize,
}

impl Walk {
    fn into_deeper<E: serde::de::Error>(self) -> Result<usize, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom("nests too deep"));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = Member<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = Member<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Member::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Member::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Member::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Member::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Member::Other)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Member::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Member::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let depth = self.into_deeper()?;
        while list.next_element_seed(Walk { depth })?.is_some() {}
        Ok(Member::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let depth = self.into_deeper()?;
        let mut seen = Vec::new();
        while let Some(name) = object.next_key_seed(Name)? {
            object.next_value_seed(Walk { depth })?;
            seen.push(name);
        }
        all_differ(seen)?;
        Ok(Member::Other)
    }
}

/// Sorting keeps a thousand one-letter members from costing a million comparisons.
fn all_differ<E: serde::de::Error>(mut names: Vec<Cow<'_, str>>) -> Result<(), E> {
    names.sort_unstable();
    if names.is_sorted_by(|a, b| a < b) {
        Ok(())
    } else {
        Err(E::custom("repeats a name"))
    }
}
