//! What the documents say of themselves and of the code: links lead somewhere, and every name that an operator may meet in a log
//! is explained.

use std::{collections::BTreeSet, fs, path::Path};

use super::{none, root, rust_files, tracked};

/// A page with its text, code blocks left out.
struct Page {
    name: String,
    text: String,
}

fn pages() -> Vec<Page> {
    let read = |name: String| {
        let text = fs::read_to_string(root().join(&name)).ok()?;
        let mut in_code = false;
        let prose = text.lines().filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            in_code ^= is_fence;
            !in_code && !is_fence
        });
        let text = prose.collect::<Vec<_>>().join("\n");
        Some(Page { name, text })
    };
    tracked()
        .into_iter()
        .filter(|name| name.ends_with(".md"))
        .filter_map(read)
        .collect()
}

/// The names under which a page's headings are found, as GitHub makes them.
fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = page
        .text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let spelled = heading.to_lowercase();
            let kept = spelled.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                _ => c.is_alphanumeric().then_some(c),
            });
            kept.collect()
        })
        .collect()
}

/// Where the links of a page lead, other sites left out.
fn links(page: &Page) -> impl Iterator<Item = &str> {
    page.text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
        .filter(|link| !link.contains("://"))
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    for page in &pages {
        let folder = Path::new(&page.name).parent().unwrap();
        for link in links(page) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root().join(&page.name),
                file => root().join(folder).join(file),
            };
            let Ok(target) = target.canonicalize() else {
                broken.push(format!("{}: {link} is not there", page.name));
                continue;
            };
            let heading_is_there = || {
                let mut named = pages.iter();
                named
                    .find(|page| root().join(&page.name).canonicalize().unwrap() == target)
                    .is_some_and(|page| anchors(page).contains(anchor))
            };
            if !anchor.is_empty() && !heading_is_there() {
                broken.push(format!("{}: {link} has no such heading", page.name));
            }
        }
    }
    none(&broken);
}

#[test]
fn every_event_is_explained() {
    let documents: String = pages().into_iter().map(|page| page.text).collect();
    let mut unexplained = Vec::new();
    for file in rust_files("src") {
        for (number, line) in file.code() {
            for rest in line.split("event = \"").skip(1) {
                let event = rest.split('"').next().unwrap();
                if !documents.contains(&format!("`{event}`")) {
                    unexplained.push(format!("{}:{number}: {event}", file.name));
                }
            }
        }
    }
    none(&unexplained);
}

#[test]
fn every_code_and_reason_of_a_refusal_is_explained() {
    let errors = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let files = rust_files("src");
    let table = files
        .iter()
        .find(|file| file.name == "src/policy/rejection.rs")
        .unwrap();
    let mut unexplained = Vec::new();
    for (number, line) in table.code() {
        // Titles and details have spaces or capitals; codes and reasons have neither.
        let words = line.split('"').skip(1).step_by(2).filter(|text| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        });
        let missing = words.filter(|word| !errors.contains(&format!("`{word}`")));
        unexplained.extend(missing.map(|word| format!("{}:{number}: {word}", table.name)));
    }
    none(&unexplained);
}
