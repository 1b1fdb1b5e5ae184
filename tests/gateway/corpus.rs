//! Reads the corpus of raw messages in `corpus/`: a name, bytes and an expectation for each case.
//!
//! ```text
//! @ MSG-1 length                     a block: the requirement and a name
//! | POST /public/case HTTP/1.1       a line of the message; CR LF is added
//! | {}                               where the text of a case goes
//! > abcde                            bytes as they are, nothing added
//! ! close                            answers only: the upstream closes after these bytes
//! = 400 ; closed ; nothing           what must happen; may be said again after a case, for that case alone
//! - plus: Content-Length: +5         a case; a block without any is a case itself
//! ```
//!
//! Escapes: `\r \n \t \0 \\ \xNN`, and `\{N*text}` for a text N times.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// One message and what must become of it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Area, block and case: `MSG-1 length/plus`.
    pub(crate) name: String,
    /// The requirement that the case is for.
    pub(crate) area: String,
    pub(crate) bytes: Vec<u8>,
    /// Whether the upstream closes its connection after the bytes.
    pub(crate) closes: bool,
    /// The parts of the expectation.
    pub(crate) expected: Vec<String>,
}

#[derive(Default)]
struct Block {
    area: String,
    name: String,
    template: String,
    closes: bool,
    expected: Vec<String>,
    /// Name, text and an expectation of its own, if any.
    cases: Vec<(String, String, Option<Vec<String>>)>,
}

/// Every case of a file of `corpus/`, in order.
pub(crate) fn read(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/gateway/corpus")
        .join(file);
    let text = fs::read_to_string(&path).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        assert!(
            read_line(line, &mut blocks).is_some(),
            "{file}:{}: {line:?}",
            number + 1
        );
    }
    let cases: Vec<Case> = blocks.into_iter().flat_map(Block::cases).collect();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "{file}: a name is there twice");
    cases
}

fn read_line(line: &str, blocks: &mut Vec<Block>) -> Option<()> {
    let (kind, rest) = line.split_at(1);
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    if kind == "@" {
        let (area, name) = rest.split_once(' ')?;
        blocks.push(Block {
            area: area.to_owned(),
            name: name.to_owned(),
            ..Block::default()
        });
        return Some(());
    }
    let block = blocks.last_mut()?;
    match kind {
        "|" => block.template.push_str(&format!("{rest}\\r\\n")),
        ">" => block.template.push_str(rest),
        "!" if rest == "close" => block.closes = true,
        "=" => {
            let parts = rest.split(';').map(|part| part.trim().to_owned()).collect();
            match block.cases.last_mut() {
                Some(case) => case.2 = Some(parts),
                None => block.expected = parts,
            }
        }
        "-" => {
            let (name, text) = rest.split_once(':')?;
            let text = text.strip_prefix(' ').unwrap_or(text);
            block.cases.push((name.to_owned(), text.to_owned(), None));
        }
        _ => return None,
    }
    Some(())
}

impl Block {
    fn cases(self) -> Vec<Case> {
        assert!(!self.expected.is_empty(), "{}: nothing expected", self.name);
        let one = |name: String, text: &str, expected: Option<Vec<String>>| Case {
            name,
            area: self.area.clone(),
            bytes: unescape(&self.template.replace("{}", text)),
            closes: self.closes,
            expected: expected.unwrap_or_else(|| self.expected.clone()),
        };
        let block = format!("{} {}", self.area, self.name);
        if self.cases.is_empty() {
            return vec![one(block, "{}", None)];
        }
        self.cases
            .iter()
            .map(|(name, text, expected)| one(format!("{block}/{name}"), text, expected.clone()))
            .collect()
    }
}

/// The bytes that a text with escapes stands for.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (kind, after) = escape.split_at(1);
        rest = after;
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "0" => bytes.push(0),
            "\\" => bytes.push(b'\\'),
            "x" => {
                bytes.push(u8::from_str_radix(&after[..2], 16).unwrap());
                rest = &after[2..];
            }
            "{" => {
                let (repeated, after) = after.split_once('}').unwrap();
                let (times, what) = repeated.split_once('*').unwrap();
                bytes.extend(unescape(what).repeat(times.parse().unwrap()));
                rest = after;
            }
            other => panic!("no such escape: \\{other} in {text:?}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[test]
fn the_format_is_read_as_it_is_described() {
    assert_eq!(
        unescape(r"a\r\n\t\0\\\x7f\{3*xy}b"),
        b"a\r\n\t\0\\\x7fxyxyxyb"
    );
    let cases = read("requests/lengths.txt");
    let plus = cases
        .iter()
        .find(|case| case.name == "MSG-1 length/plus")
        .unwrap();
    assert_eq!(
        plus.bytes,
        b"POST /public/case HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nabcde"
    );
    assert_eq!((plus.expected.len(), plus.closes), (3, false));
}

/// The table of `docs/conformance.md` for some files: cases by area. The tests of the files fail unless all of them pass.
fn table(files: &[(&str, usize)]) -> String {
    let mut areas: BTreeMap<String, usize> = BTreeMap::new();
    for case in files.iter().flat_map(|(file, _)| read(file)) {
        *areas.entry(case.area).or_default() += 1;
    }
    let total: usize = areas.values().sum();
    areas.insert("all".into(), total);
    areas
        .iter()
        .map(|(area, count)| format!("| {area} | {count} | {count} |\n"))
        .collect()
}

#[test]
fn ver_2_the_pass_table_is_that_of_the_corpus() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let text = fs::read_to_string(path).unwrap();
    for (files, fewest) in [
        (&crate::raw_requests::FILES[..], 500),
        (&crate::raw_answers::FILES[..], 140),
    ] {
        let table = table(files);
        assert!(
            text.contains(&table),
            "docs/conformance.md lacks this table:\n{table}"
        );
        let count: usize = files.iter().map(|(file, _)| read(file).len()).sum();
        assert!(count >= fewest, "{count}");
    }
}
