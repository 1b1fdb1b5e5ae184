//! Answers that are cut short, at every byte (UP-3).

use crate::harness::{
    Answer, Broken, Gateway, H2, Raw, Reply, Site, Step, Upstream, client::full, request,
};

const LENGTH: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nx-own: yes\r\n\r\n0123456789";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                       4;ext=1\r\n0123\r\n6\r\n456789\r\n0\r\nx-trailer: t\r\n\r\n";

/// An upstream that sends the first bytes of an answer, as many as the path says, and ends as the path says.
async fn cutting(answer: &'static str) -> Upstream {
    Upstream::scripted(move |seen| {
        let mut words = seen.target.split('/').skip(2);
        let (Some(end), Some(count)) = (words.next(), words.next()) else {
            return Reply::ok("whole");
        };
        let count: usize = count.parse().unwrap();
        let end = match end {
            "close" => Step::Close,
            _ => Step::Reset,
        };
        Reply(vec![Step::Send(answer.as_bytes()[..count].to_vec()), end])
    })
    .await
}

/// A site with one worker that sends nothing again.
async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server", "workers", "1")
        .on_upstream("retry", "{ attempts = 0 }")
        .start()
        .await
}

fn head_length(answer: &str) -> usize {
    answer.find("\r\n\r\n").unwrap() + 4
}

/// What a client may see: a refusal where no head came whole, an error where one did.
#[track_caller]
fn assert_cut(outcome: &Result<Answer, Broken>, in_head: bool, what: &str) {
    match outcome {
        Ok(answer) => assert_eq!(answer.status, 502, "{what}: {:?}", answer.text()),
        Err(Broken::Cut(_) | Broken::Closed) => assert!(!in_head, "{what}: {outcome:?}"),
        Err(Broken::Malformed(_)) => panic!("{what}: {outcome:?}"),
    }
}

async fn each_boundary(answer: &'static str) {
    let upstream = cutting(answer).await;
    let gateway = gateway(&upstream).await;
    let mut h2 = H2::connect(&gateway).await;
    for end in ["close", "reset"] {
        for count in 0..answer.len() {
            let target = format!("/public/{end}/{count}");
            let in_head = count < head_length(answer);
            let mut raw = Raw::connect(&gateway).await;
            raw.send(request("GET", &target, &[], "")).await;
            assert_cut(&raw.try_answer().await, in_head, &target);
            let url = format!("https://localhost{target}");
            let get = http::Request::get(url).body(full("")).unwrap();
            let outcome = h2.send(get).await;
            assert_cut(&outcome, in_head, &format!("{target} over HTTP/2"));
            // The stream alone has ended.
            h2.get("/public", &[]).await.is(200);
        }
    }
}

#[tokio::test]
async fn up_3_an_answer_of_known_length_cut_at_any_byte_never_ends_well() {
    each_boundary(LENGTH).await;
}

#[tokio::test]
async fn up_3_a_chunked_answer_cut_at_any_byte_never_ends_well() {
    each_boundary(CHUNKED).await;
}

#[tokio::test]
async fn up_3_the_log_has_the_bytes_that_were_sent_before_the_cut() {
    for (answer, body) in [(LENGTH, 3), (CHUNKED, 4)] {
        let upstream = cutting(answer).await;
        let gateway = gateway(&upstream).await;
        let cut = match body {
            3 => head_length(answer) + 3,
            _ => answer.find("6\r\n456").unwrap(),
        };
        let target = format!("/public/close/{cut}");
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", &target, &[], "")).await;
        assert!(raw.try_answer().await.is_err());
        let line = gateway.access_line(|line| line["path"] == *target).await;
        assert_eq!(line["ending"], "upstream_aborted", "{line}");
        assert_eq!(
            (&line["status"], &line["bytes_out"]),
            (&200.into(), &body.into())
        );
        let id = upstream
            .last()
            .header("x-request-id")
            .map(ToOwned::to_owned);
        assert_eq!(line["request_id"].as_str(), id.as_deref(), "{line}");
    }
}

#[tokio::test]
async fn up_3_an_answer_that_stops_is_cut_at_the_route_s_timeout() {
    let upstream = Upstream::scripted(|_| {
        Reply(vec![
            Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123".to_vec()),
            Step::Hang,
        ])
    })
    .await;
    let gateway = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .route("public", "/public", "public")
        .on_route("timeout", "\"500ms\"")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/public", &[], "")).await;
    let outcome = raw.try_answer().await;
    assert!(matches!(outcome, Err(Broken::Cut(_))), "{outcome:?}");
    let mut h2 = H2::connect(&gateway).await;
    let get = http::Request::get("https://localhost/public")
        .body(full(""))
        .unwrap();
    let outcome = h2.send(get).await;
    assert!(matches!(outcome, Err(Broken::Cut(_))), "{outcome:?}");
    upstream
        .until("the upstream to be let go", |upstream| upstream.open() == 0)
        .await;
}
