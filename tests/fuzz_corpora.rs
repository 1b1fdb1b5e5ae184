//! Plays the corpora of `fuzz/` through the entry points of the fuzz targets, as they are and changed a little: what was found
//! once is looked for in every run (VER-1).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a target fails by panicking"
)]

#[expect(unreachable_pub, reason = "the fuzz targets call them from outside")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::{fs, path::Path};

/// Changed inputs for each one that is committed.
const CHANGES: u64 = 100;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Numbers that are the same in every run (xorshift).
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap()
}

/// Changes an input: bytes replaced, taken out, doubled, or put in that mean something in one format or another.
fn changed(input: &[u8], state: &mut u64) -> Vec<u8> {
    const TELLING: &[u8] = b"\0\t\n\r \"#%&'()*+,-./0159:;<=>?@AZ[\\]_az{|}~\x7f\x80\xff";
    let mut bytes = input.to_vec();
    for _ in 0..=next(state) % 4 {
        let at = next(state) % (bytes.len() + 1);
        let byte = TELLING[next(state) % TELLING.len()];
        match next(state) % 4 {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => bytes[at] = byte,
            2 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {
                let end = (at + next(state) % 16).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

#[test]
fn ver_1_the_corpora_and_changes_of_them_break_nothing() {
    for (name, target) in fuzz::TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() >= 3, "{name} has {} inputs", inputs.len());
        target(b"");
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for input in &inputs {
            target(input);
            for _ in 0..CHANGES {
                target(&changed(input, &mut state));
            }
        }
    }
}

#[test]
fn ver_1_every_target_has_a_corpus_and_a_binary() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let names = |folder: &str| -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let targets = fuzz::TARGETS.map(|(name, _)| name.to_owned());
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("fuzz_targets"), targets);
    for name in &targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
