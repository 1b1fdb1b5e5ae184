//! Lists of digests and of passwords, good and bad.

use std::fs;

use tempfile::TempDir;

use super::*;

fn hex(password: &str) -> String {
    let digest = sha1(password.as_bytes());
    digest.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Digests of passwords, in order.
fn digests(count: usize) -> Vec<String> {
    let mut digests: Vec<_> = (0..count).map(|n| hex(&format!("stolen {n}"))).collect();
    digests.sort();
    digests
}

fn open(content: &str) -> Result<Breached, BreachedError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("list.txt");
    fs::write(&path, content).unwrap();
    Breached::open(&path)
}

#[test]
fn auth_5_every_digest_of_a_list_is_found_and_no_other() {
    for (count, end) in [
        (1, "\n"),
        (2, "\n"),
        (3, ""),
        (7, "\r\n"),
        (400, "\n"),
        (20_000, "\r\n"),
    ] {
        for counted in [true, false] {
            let line = |(index, digest): (usize, String)| match counted {
                true => format!(
                    "{digest}:{}",
                    7_usize.pow(u32::try_from(index % 11).unwrap())
                ),
                false => digest,
            };
            let lines: Vec<_> = digests(count).into_iter().enumerate().map(line).collect();
            let end = if end.is_empty() { "\n" } else { end };
            let text = lines.join(end) + if count == 3 { "" } else { end };
            let list = open(&text).unwrap();
            assert!(matches!(list.0, List::OnDisk(..)));
            for n in 0..count {
                let held = list.holds(format!("stolen {n}").as_bytes());
                assert!(held.unwrap(), "{count} {n}");
            }
            for n in 0..500 {
                let held = list.holds(format!("fresh {n}").as_bytes());
                assert!(!held.unwrap(), "{count} {n}");
            }
        }
    }
}

#[test]
fn auth_5_the_published_form_of_the_list_is_read() {
    // "password" as it stands there, and in small letters.
    let list = "000000005AD76BD555C1D6D771DE417A4B87E4B4:10\r\n\
                5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:10437277\r\n\
                FFFFFFFEE791CBAC0F6305CAF0CEE06BBE131160:2\r\n";
    for text in [list.to_owned(), list.to_lowercase()] {
        let list = open(&text).unwrap();
        assert!(list.holds(b"password").unwrap());
        for other in ["Password", "password ", ""] {
            assert!(!list.holds(other.as_bytes()).unwrap());
        }
    }
}

#[test]
fn auth_5_a_list_of_ones_own_is_of_whole_passwords() {
    let list = open("our old password\r\n\n  with spaces \nlast").unwrap();
    for held in ["our old password", "  with spaces ", "last"] {
        assert!(list.holds(held.as_bytes()).unwrap(), "{held}");
    }
    for other in ["our old", "OUR OLD PASSWORD", "with spaces", ""] {
        assert!(!list.holds(other.as_bytes()).unwrap(), "{other}");
    }
}

#[test]
fn auth_5_what_could_not_be_searched_is_refused() {
    let folder = TempDir::new().unwrap();
    let missing = Breached::open(&folder.path().join("none"));
    assert!(matches!(missing, Err(BreachedError::Unreadable { .. })));
    let a_folder = Breached::open(folder.path());
    assert!(matches!(a_folder, Err(BreachedError::Unreadable { .. })));
    assert!(matches!(open(""), Err(BreachedError::Empty(_))));
    // NTLM, SHA-256, and a count that is none.
    for other in [
        "32ED87BDB5FDC5E9CBA88547376818D4:10\n",
        &"a".repeat(64),
        &format!("{}:\n", "a".repeat(40)),
    ] {
        let refused = open(other);
        assert!(
            matches!(refused, Err(BreachedError::OtherDigests(_))),
            "{other}"
        );
    }
    let mut lines = digests(5000);
    lines.swap(1000, 4000);
    // Two lines of five thousand may be missed; an order of another kind is not.
    lines.sort_by_key(|line| line.chars().rev().collect::<String>());
    let refused = open(&lines.join("\n"));
    assert!(matches!(refused, Err(BreachedError::Unsorted { .. })));
    let last = format!("{}\n{}\n", hex("x"), "0".repeat(40));
    assert!(matches!(open(&last), Err(BreachedError::Unsorted { .. })));
    let mut lines = digests(300);
    lines[150] = "not a digest".into();
    let refused = open(&lines.join("\n"));
    assert!(
        matches!(refused, Err(BreachedError::Line { .. })),
        "{refused:?}"
    );
    let path = folder.path().join("large");
    let file = File::create(&path).unwrap();
    file.set_len(PLAIN_BYTES_MAX + 1).unwrap();
    let refused = Breached::open(&path);
    assert!(matches!(refused, Err(BreachedError::TooLarge(_))));
}

#[test]
fn auth_5_a_file_that_was_cut_or_changed_is_an_error_and_never_a_no() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("list.txt");
    fs::write(&path, digests(1000).join("\n")).unwrap();
    let list = Breached::open(&path).unwrap();
    fs::write(&path, "x".repeat(41_000)).unwrap();
    assert!(list.holds(b"stolen 1").is_err());
}
