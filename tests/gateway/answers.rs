//! Answers that are no HTTP, that say two things at once, or that belong to nobody: none reaches a client, and no client gets
//! another one's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::harness::{
    Broken, Gateway, H2, Raw, Reply, Site, Step, Upstream, client::full, get, request,
};

async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server", "workers", "1")
        .start()
        .await
}

/// Whatever comes after this head or in it, the answer would be good.
const GOOD: &str = "content-length: 2\r\n\r\nok";

fn malformed_heads() -> Vec<Vec<u8>> {
    let fields: [&[u8]; 17] = [
        b"x-a: b\r\n folded\r\n",
        b"x-a: b\r\n\tfolded\r\n",
        b" x-a: b\r\n",
        b"\tx-a: b\r\n",
        b"x-a : b\r\n",
        b"x-a\t: b\r\n",
        b"x a: b\r\n",
        b": b\r\n",
        b"x-a\r\n",
        b"x-\x00a: b\r\n",
        b"x-a: b\x00c\r\n",
        b"x-a: b\x01c\r\n",
        b"x-a: b\x7fc\r\n",
        b"x-a: b\rc\r\n",
        b"x\xc3\xa4: b\r\n",
        b"x(a): b\r\n",
        b"\"x\": b\r\n",
    ];
    let framings: [&[u8]; 16] = [
        b"content-length: +2\r\n",
        b"content-length: -2\r\n",
        b"content-length: 0x2\r\n",
        b"content-length: 2.0\r\n",
        b"content-length: 2 2\r\n",
        b"content-length: 2, 3\r\n",
        b"content-length:\r\n",
        b"content-length: 2\r\ncontent-length: 3\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"transfer-encoding: gzip, chunked\r\n",
        b"transfer-encoding: chunked, gzip\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: identity\r\n",
        b"transfer-encoding: chunked, chunked\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding:\r\n",
    ];
    let lines: [&[u8]; 16] = [
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n",
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/1.1 2000 OK\r\n",
        b"HTTP/1.1 -20 OK\r\n",
        b"HTTP/1.1 099 Low\r\n",
        b"HTTP/1.1 2x0 OK\r\n",
        b"HTTP/1.1  200 OK\r\n",
        b"HTTP/1.2 200 OK\r\n",
        b"HTTP/2.0 200 OK\r\n",
        b"HTTP/0.9 200 OK\r\n",
        b"http/1.1 200 OK\r\n",
        b"ICY 200 OK\r\n",
        b"HTTP/1.1 200 O\x00K\r\n",
        b"HTTP/1.1 200 O\rK\r\n",
        b"220 mail.example.com ESMTP\r\n",
        b"\x16\x03\x01\x00\x05\x01\r\n",
    ];
    let with = |head: &[&[u8]]| head.concat();
    let ok: &[u8] = b"HTTP/1.1 200 OK\r\n";
    let fields = fields
        .iter()
        .map(|field| with(&[ok, field, GOOD.as_bytes()]));
    let framings = framings
        .iter()
        .map(|framing| with(&[ok, framing, b"\r\n2\r\nok\r\n0\r\n\r\n"]));
    let lines = lines.iter().map(|line| with(&[line, GOOD.as_bytes()]));
    fields.chain(framings).chain(lines).collect()
}

#[tokio::test]
async fn msg_10_an_answer_that_is_malformed_is_502_and_ends_its_connection() {
    let heads = malformed_heads();
    let count = heads.len();
    let upstream = Upstream::scripted(move |seen| {
        let number = seen.target.rsplit('/').next().unwrap_or_default();
        match number.parse::<usize>() {
            Ok(number) => Reply::raw(&heads[number]),
            Err(_) => Reply::ok("mine"),
        }
    })
    .await;
    let gateway = gateway(&upstream).await;
    let shown = malformed_heads();
    let mut taken = Vec::new();
    for number in 0..count {
        let shown = String::from_utf8_lossy(&shown[number]).into_owned();
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("POST", &format!("/public/{number}"), &[], ""))
            .await;
        match raw.try_answer().await {
            Ok(answer) if answer.status == 502 => {
                assert_eq!(answer.code(), "upstream_invalid", "{shown:?}")
            }
            outcome => taken.push(format!("{shown:?}: {outcome:?}")),
        }
        let poisoned = upstream.last().connection;
        assert_eq!(get(&gateway, "/public/next", &[]).await.text(), "mine");
        assert_ne!(upstream.last().connection, poisoned, "{shown:?}");
    }
    assert!(taken.is_empty(), "{}", taken.join("\n"));
}

#[tokio::test]
async fn msg_2_chunks_of_an_answer_that_are_malformed_never_end_well() {
    for chunks in [
        "g\r\nok\r\n0\r\n\r\n",
        "-2\r\nok\r\n0\r\n\r\n",
        "+2\r\nok\r\n0\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "2\r\nok0\r\n\r\n",
        "2\r\noks\r\n0\r\n\r\n",
        "\r\nok\r\n0\r\n\r\n",
        "11111111111111111\r\nok\r\n0\r\n\r\n",
        "2\rok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\nbad trailer\r\n\r\n",
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let upstream = Upstream::scripted(move |seen| match &*seen.target {
            "/public/bad" => Reply::raw(&bytes),
            _ => Reply::ok("mine"),
        })
        .await;
        let gateway = gateway(&upstream).await;
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("POST", "/public/bad", &[], "")).await;
        let outcome = raw.try_answer().await;
        let is_refused = matches!(&outcome, Ok(answer) if answer.status == 502);
        let is_broken = matches!(&outcome, Err(Broken::Cut(_) | Broken::Closed));
        assert!(is_refused || is_broken, "{chunks:?}: {outcome:?}");
        assert_eq!(get(&gateway, "/public/next", &[]).await.text(), "mine");
        assert_ne!(upstream.last().connection, 1, "{chunks:?}");
    }
}

#[tokio::test]
async fn up_8_a_head_of_ten_mebibytes_is_502() {
    let line = format!("x-a: {}\r\n", "b".repeat(1000));
    let many = (1..=101).map(|number| format!("x-{number}: y\r\n"));
    let many = many.collect::<String>();
    let begin = Step::Send(b"HTTP/1.1 200 OK\r\n".to_vec());
    let scripts: Vec<Vec<Step>> = vec![
        vec![
            begin.clone(),
            Step::Repeat(line.into_bytes(), 10 << 10),
            Step::Hang,
        ],
        vec![
            begin.clone(),
            Step::Send(b"x-a: ".to_vec()),
            Step::Repeat(vec![b'b'; 1 << 10], 10 << 10),
            Step::Hang,
        ],
        vec![Step::Repeat(vec![b'b'; 1 << 10], 10 << 10), Step::Hang],
        vec![
            begin,
            Step::Send(many.into_bytes()),
            Step::Send(GOOD.as_bytes().to_vec()),
        ],
    ];
    let upstream = Upstream::scripted(move |seen| {
        let number = seen.target.rsplit('/').next().unwrap_or_default();
        match number.parse::<usize>() {
            Ok(number) => Reply(scripts[number].clone()),
            Err(_) => Reply::ok("mine"),
        }
    })
    .await;
    let gateway = gateway(&upstream).await;
    get(&gateway, "/public", &[]).await.is(200);
    let mut first_lap = None;
    for _lap in 0..3 {
        for number in 0..4 {
            let target = format!("/public/{number}");
            get(&gateway, &target, &[])
                .await
                .refused(502, "upstream_invalid");
            let mut h2 = H2::connect(&gateway).await;
            h2.get(&target, &[]).await.refused(502, "upstream_invalid");
        }
        // The first lap also brings in code and makes the tables of connections.
        first_lap.get_or_insert_with(|| gateway.memory());
    }
    let grown = gateway
        .memory()
        .saturating_sub(first_lap.unwrap_or_default());
    assert!(grown < 8 << 10, "{grown} KiB more");
    upstream
        .until("all but the good connections to end", |upstream| {
            upstream.open() <= 1
        })
        .await;
    get(&gateway, "/public", &[]).await.is(200);
}

/// Answers of a treacherous upstream to a request that is to be answered with `body`.
fn treachery(turn: usize, is_head: bool, body: &str) -> Reply {
    let whole = |length: usize| {
        let body = if is_head { "" } else { body };
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let good = whole(body.len());
    let stolen = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen";
    match turn % 13 {
        0 => Reply::raw(format!("{good}{stolen}")),
        1 => Reply::raw(format!("{good}\r\n")),
        2 => Reply::raw(whole(body.len() - 2)),
        3 => Reply::raw_and_close(whole(body.len() + 5)),
        4 => Reply::raw_and_close(format!("HTTP/1.1 200 OK\r\n\r\n{body}")),
        5 => Reply::raw(format!("HTTP/1.1 204 No Content\r\n\r\n{body}")),
        6 => Reply::raw("HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\nstolen"),
        7 => Reply::raw(format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n{stolen}",
            body.len()
        )),
        8 => Reply(vec![Step::Early, Step::Send(good.into_bytes())]),
        9 => Reply(vec![
            Step::Early,
            Step::Send(good.into_bytes()),
            Step::Close,
        ]),
        10 => Reply::raw(format!("HTTP/1.1 103 Early Hints\r\n\r\n{good}")),
        _ => Reply::raw(good),
    }
}

/// Whether a client may see this: an own body, whole or cut where the upstream lied about its length, or an error.
fn is_own(outcome: &Result<crate::harness::Answer, Broken>, tag: &str) -> bool {
    match outcome {
        Ok(answer) => match answer.status {
            502 => true,
            204 | 304 => answer.body.is_empty(),
            200 => tag.starts_with(&answer.text()),
            _ => false,
        },
        Err(Broken::Malformed(_)) => false,
        Err(_) => true,
    }
}

#[tokio::test]
async fn up_1_a_thousand_users_of_a_treacherous_upstream_get_their_own() {
    const USERS: usize = 100;
    const EACH: usize = 10;
    let turns = Arc::new(AtomicUsize::new(0));
    let turn = Arc::clone(&turns);
    let upstream = Upstream::scripted(move |seen| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        treachery(turn, seen.method == "HEAD", &format!("for {}", seen.target))
    })
    .await;
    let gateway = gateway(&upstream).await;
    let users = (0..USERS).map(|user| {
        let gateway = &gateway;
        async move {
            let mut own = 0;
            for number in 0..EACH {
                let target = format!("/public/{user}/{number}");
                let outcome = match number % 4 {
                    0 => {
                        let mut h2 = H2::connect(gateway).await;
                        let url = format!("https://localhost{target}");
                        let post = http::Request::post(url).body(full(target.clone())).unwrap();
                        h2.send(post).await
                    }
                    1 => {
                        let mut raw = Raw::connect(gateway).await;
                        raw.send(request("POST", &target, &[], &"b".repeat(5000)))
                            .await;
                        raw.try_answer().await
                    }
                    _ => {
                        let mut raw = Raw::connect(gateway).await;
                        raw.send(request("GET", &target, &[], "")).await;
                        raw.try_answer().await
                    }
                };
                let tag = format!("for {target}");
                assert!(is_own(&outcome, &tag), "{target}: {outcome:?}");
                own += usize::from(matches!(outcome, Ok(answer) if answer.text() == tag));
            }
            own
        }
    });
    let own: usize = futures_util::future::join_all(users).await.iter().sum();
    // Most answers were good, and came.
    assert!(own > USERS * EACH / 2, "{own} of {}", USERS * EACH);
    // Nothing stays behind but kept connections, each of which is in step.
    for number in 0..50 {
        let target = format!("/public/after/{number}");
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", &target, &[], "")).await;
        let outcome = raw.try_answer().await;
        assert!(
            is_own(&outcome, &format!("for {target}")),
            "{target}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn up_1_bytes_that_come_while_a_connection_is_idle_end_it() {
    let upstream = Upstream::scripted(|seen| match &*seen.target {
        "/public/late" => Reply(vec![
            Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()),
            Step::Pause(Duration::from_millis(50)),
            Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen".to_vec()),
        ]),
        _ => Reply::ok("mine"),
    })
    .await;
    let gateway = gateway(&upstream).await;
    assert_eq!(get(&gateway, "/public/late", &[]).await.text(), "ok");
    upstream
        .until("the connection to be closed", |upstream| {
            upstream.open() == 0
        })
        .await;
    assert_eq!(get(&gateway, "/public/next", &[]).await.text(), "mine");
    assert_eq!(upstream.last().connection, 2);
}
