//! The corpus of raw requests: what each is answered, what becomes of its connection, and what the upstream received.
//!
//! Behind every request whose connection must end goes another that must never be executed; every connection that goes on
//! must serve the next request, and that one alone.

use std::time::Duration;

use crate::{
    corpus::{self, Case, unescape},
    harness::{Answer, Broken, Gateway, Raw, Seen, Site, Upstream, http1::Framing, request},
};

/// The files, and the fewest cases that each must hold.
pub(crate) const FILES: [(&str, usize); 10] = [
    ("requests/lengths.txt", 60),
    ("requests/codings.txt", 70),
    ("requests/chunks.txt", 50),
    ("requests/lines.txt", 80),
    ("requests/targets.txt", 50),
    ("requests/hosts.txt", 60),
    ("requests/fields.txt", 70),
    ("requests/connections.txt", 30),
    ("requests/sizes.txt", 20),
    ("requests/pipelines.txt", 25),
];

/// How long an answer may take before the case fails. The other cases are played all the same.
const ANSWERING: Duration = Duration::from_secs(20);

/// A site with a route of each kind that the corpus asks for.
async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server", "workers", "1")
        .route("small", "/small", "public")
        .on_route("max_body", "\"16B\"")
        .route("read", "/read", "public")
        .on_route("methods", r#"["GET"]"#)
        .route("app", "/app", "public")
        .on_route("hosts", r#"["app.example.com"]"#)
        .start()
        .await
}

/// Plays every case of a file and tells all faults together.
async fn all_as_expected(file: &str) {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let cases = corpus::read(file);
    let fewest = FILES.iter().find(|(name, _)| *name == file).unwrap().1;
    assert!(cases.len() >= fewest, "{file}: {} cases", cases.len());
    let mut faults = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let played = play(&gateway, &upstream, &tagged(case, number)).await;
        if let Err(fault) = played {
            faults.push(format!("{}: {fault}", case.name));
        }
    }
    assert!(
        faults.is_empty(),
        "{file}: {} of {}:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n")
    );
    upstream.saw_no_fault();
}

/// The same case, `/case` in it replaced by a number as long: the upstream may hear late of a request that was given up, and
/// it must not be taken for the next one.
fn tagged(case: &Case, number: usize) -> Case {
    let tag = format!("/c{number:03}");
    let mut tagged = case.clone();
    while let Some(at) = tagged.bytes.windows(5).position(|bytes| bytes == b"/case") {
        tagged.bytes[at..at + 5].copy_from_slice(tag.as_bytes());
    }
    for part in &mut tagged.expected {
        *part = part.replace("/case", &tag);
    }
    tagged
}

async fn play(gateway: &Gateway, upstream: &Upstream, case: &Case) -> Result<(), String> {
    let [statuses, connection, received, fields @ ..] = &*case.expected else {
        return Err("an expectation has three parts at least".into());
    };
    let before = upstream.count();
    let mut raw = Raw::connect(gateway).await;
    let mut bytes = case.bytes.clone();
    if connection == "closed" {
        bytes.extend_from_slice(request("GET", "/public/smuggled", &[], "").as_bytes());
    }
    raw.send(&bytes).await;
    if connection == "waits" {
        raw.finish().await;
    }
    for wanted in statuses.split(',') {
        match tokio::time::timeout(ANSWERING, raw.try_answer()).await {
            Ok(answer) => answered(answer, wanted)?,
            Err(_) => return Err("no answer".into()),
        }
    }
    let mut seen = upstream.seen().split_off(before);
    seen.retain(|seen| seen.complete || is_own(seen, &case.bytes));
    goes_on(&mut raw, connection, upstream).await?;
    saw(&seen, received)?;
    let smuggled = |seen: &Seen| seen.target == "/public/smuggled";
    if upstream.seen().split_off(before).iter().any(smuggled) {
        return Err("what came behind was executed".into());
    }
    seen.iter().try_for_each(|seen| carries(seen, fields))
}

fn is_own(seen: &Seen, bytes: &[u8]) -> bool {
    let target = seen.target.as_bytes();
    bytes.windows(target.len()).any(|window| window == target)
}

/// Compares an answer with the statuses that are wanted; `none` is the end of the connection.
fn answered(answer: Result<Answer, Broken>, wanted: &str) -> Result<(), String> {
    let mut wanted = wanted.split_whitespace();
    match answer {
        Ok(answer) => wanted
            .any(|status| status == answer.status.to_string())
            .then_some(())
            .ok_or_else(|| format!("answered {}: {}", answer.status, answer.text())),
        Err(Broken::Closed) if wanted.any(|status| status == "none") => Ok(()),
        Err(broken) => Err(format!("{broken:?}")),
    }
}

/// Looks what becomes of the connection: `closed`, `open`, `waits` (closed without a word after the client's end), or `any` of
/// the first two.
async fn goes_on(raw: &mut Raw, wanted: &str, upstream: &Upstream) -> Result<(), String> {
    if matches!(wanted, "closed" | "waits") {
        return match raw.end().await {
            Some(rest) if rest.is_empty() => Ok(()),
            Some(rest) => Err(format!("afterwards came {}", shown(&rest))),
            None => Err("the connection went on".into()),
        };
    }
    let before = upstream.count();
    let probe = request("GET", "/public/probe", &[("Connection", "close")], "");
    raw.send(probe).await;
    match raw.try_answer().await {
        Ok(answer) if answer.status == 200 => {}
        Err(Broken::Closed) if wanted == "any" => return Ok(()),
        other => return Err(format!("the next request: {other:?}")),
    }
    match raw.end().await {
        Some(rest) if rest.is_empty() => {}
        other => return Err(format!("after the next answer: {other:?}")),
    }
    let mut after = upstream.seen().split_off(before);
    after.retain(|seen| seen.complete);
    match &*after {
        [one] if one.target == "/public/probe" => Ok(()),
        other => Err(format!("for the next request the upstream saw {other:?}")),
    }
}

/// Compares what the upstream received: `nothing`, `partial` (at most one, not whole), `any` (at most one, whole), or the
/// requests, each as method, target and body.
fn saw(seen: &[Seen], wanted: &str) -> Result<(), String> {
    let lines: Vec<&str> = seen.iter().map(|seen| seen.head.start.as_str()).collect();
    let unwanted = || Err(format!("the upstream saw {lines:?}"));
    match (wanted, seen) {
        ("nothing" | "partial" | "any", []) => return Ok(()),
        ("partial", [one]) if !one.complete => return Ok(()),
        ("any", [one]) => return is_whole(one),
        ("nothing" | "partial" | "any", _) => return unwanted(),
        _ => {}
    }
    let wanted: Vec<&str> = wanted.split(" & ").collect();
    if wanted.len() != seen.len() {
        return unwanted();
    }
    for (seen, wanted) in seen.iter().zip(wanted) {
        is_whole(seen)?;
        let mut words = wanted.splitn(3, ' ');
        let mut word = || unescape(words.next().unwrap_or_default());
        let (method, target, body) = (word(), word(), word());
        if (seen.method.as_bytes(), seen.target.as_bytes()) != (&*method, &*target) {
            return Err(format!("the upstream saw {:?}", seen.head.start));
        }
        if seen.body != body {
            return Err(format!("the upstream read {}", shown(&seen.body)));
        }
    }
    Ok(())
}

/// Whether a request had one framing, as long as its body. The recorder has refused to read any with two.
fn is_whole(seen: &Seen) -> Result<(), String> {
    let length = match seen.framing {
        Framing::Length(length) => length,
        Framing::None => 0,
        Framing::Chunked | Framing::UntilClose => seen.body_length,
    };
    if !seen.complete || length != seen.body_length {
        return Err(format!(
            "{:?}, but {} bytes came",
            seen.framing, seen.body_length
        ));
    }
    if !seen.trailers.is_empty() {
        return Err(format!("trailers {:?}", seen.trailers));
    }
    Ok(())
}

/// Compares fields: `name: value` for one with this value, `name:` for none.
fn carries(seen: &Seen, fields: &[String]) -> Result<(), String> {
    for field in fields {
        let (name, value) = field.split_once(':').unwrap();
        let wanted: Vec<&str> = Some(value.trim())
            .into_iter()
            .filter(|v| !v.is_empty())
            .collect();
        let found = seen.head.values(name);
        if found != wanted {
            return Err(format!("{name}: {found:?}"));
        }
    }
    match seen.head.names().iter().find(|name| name.contains('_')) {
        Some(name) => Err(format!("the upstream was told {name}")),
        None => Ok(()),
    }
}

fn shown(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(300)];
    format!("{:?}", String::from_utf8_lossy(start))
}

#[tokio::test]
async fn msg_1_lengths_of_the_corpus() {
    all_as_expected("requests/lengths.txt").await;
}

#[tokio::test]
async fn msg_1_codings_of_the_corpus() {
    all_as_expected("requests/codings.txt").await;
}

#[tokio::test]
async fn msg_2_and_msg_13_chunks_of_the_corpus() {
    all_as_expected("requests/chunks.txt").await;
}

#[tokio::test]
async fn msg_1_and_msg_4_request_lines_of_the_corpus() {
    all_as_expected("requests/lines.txt").await;
}

#[tokio::test]
async fn uri_1_and_uri_2_targets_of_the_corpus() {
    all_as_expected("requests/targets.txt").await;
}

#[tokio::test]
async fn msg_9_and_uri_4_hosts_of_the_corpus() {
    all_as_expected("requests/hosts.txt").await;
}

#[tokio::test]
async fn msg_10_and_hdr_6_fields_of_the_corpus() {
    all_as_expected("requests/fields.txt").await;
}

#[tokio::test]
async fn msg_3_and_msg_12_and_hdr_3_connections_of_the_corpus() {
    all_as_expected("requests/connections.txt").await;
}

#[tokio::test]
async fn msg_7_and_msg_8_sizes_of_the_corpus() {
    all_as_expected("requests/sizes.txt").await;
}

#[tokio::test]
async fn msg_11_pipelines_of_the_corpus() {
    all_as_expected("requests/pipelines.txt").await;
}
