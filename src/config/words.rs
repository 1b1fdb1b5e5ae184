//! Words of the configuration: which are known, which is meant, which are there twice.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Display,
    hash::Hash,
    ops::Range,
};

use super::diagnostic::{Fault, Place, Problems, Related};

/// What a word of the configuration means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Choice<T> {
    /// This.
    Is(T),
}

/// Finds the meaning of a word.
pub(super) fn choose<T: Copy>(text: &str, words: &[(&str, Choice<T>)]) -> Result<T, Fault> {
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, Choice::Is(meaning))) => Ok(*meaning),
        None => {
            let words = words.iter().map(|(word, _)| *word);
            Err(Fault::new(
                format!("`{text}` is none of the values"),
                suggest(text, words),
            ))
        }
    }
}

/// Reports each name that was there before, pointing at the first.
pub(super) fn refuse_repeats<K: Hash + Eq + Display>(
    problems: &Problems,
    what: &str,
    named: impl IntoIterator<Item = (K, Place)>,
) {
    let mut seen: HashMap<K, Range<usize>> = HashMap::new();
    for (name, place) in named {
        match seen.entry(name) {
            Entry::Occupied(first) => problems.add_related(
                &place,
                Related {
                    span: first.get().clone(),
                    label: "the first is here",
                },
                format!("{what} `{}` is there twice", first.key()),
            ),
            Entry::Vacant(free) => drop(free.insert(place.span)),
        }
    }
}

/// The hint for a word that nobody knows: the nearest known one, or all of them.
pub(super) fn suggest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let near = known
        .iter()
        .map(|other| (edits(word, other), *other))
        .filter(|(edits, other)| *edits <= 1.max(word.len().max(other.len()) / 3))
        .min();
    match near {
        Some((_, other)) => format!("did you mean `{other}`?"),
        None => one_of(known),
    }
}

fn one_of<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let mut words: Vec<&str> = words.into_iter().collect();
    words.sort_unstable();
    words.dedup();
    format!("known here: {}", words.join(", "))
}

/// How many characters to insert, remove, replace or swap with their neighbour (optimal string alignment).
fn edits(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.to_lowercase().replace('-', "_").chars().collect();
    let other: Vec<char> = other.to_lowercase().replace('-', "_").chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        let mut left = i + 1;
        for (j, b) in other.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut least = (left + 1)
                .min(at(&above, j + 1) + 1)
                .min(at(&above, j) + usize::from(a != b));
            let swapped =
                i > 0 && j > 0 && one.get(i - 1) == Some(b) && other.get(j - 1) == Some(a);
            if swapped {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
            left = least;
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count_one_for_each_slip() {
        for (one, other, want) in [
            ("", "", 0),
            ("upstream", "upstream", 0),
            ("upsteam", "upstream", 1),
            ("upstraem", "upstream", 1),
            ("upstreamm", "upstream", 1),
            ("upstreem", "upstream", 1),
            ("UPSTREAM", "upstream", 0),
            ("max-body", "max_body", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edits(one, other), want, "{one} {other}");
        }
    }
}
