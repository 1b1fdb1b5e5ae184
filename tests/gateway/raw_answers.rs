//! The corpus of raw answers: an upstream that speaks badly is a 502 or a transfer that breaks off, never a clean end, and never
//! another user's answer.

use crate::{
    corpus::{self, Case},
    harness::{Answer, Broken, Gateway, H2, Raw, Reply, Site, Step, Upstream, request},
};

/// The files, and the fewest cases that each must hold.
pub(crate) const FILES: [(&str, usize); 2] =
    [("answers/heads.txt", 70), ("answers/bodies.txt", 60)];

/// An upstream that plays a case for `/public/case/N`, and answers anything else with its target.
async fn playing(cases: &[Case]) -> Upstream {
    let replies: Vec<Reply> = cases
        .iter()
        .map(|case| {
            let mut steps = vec![Step::Send(case.bytes.clone())];
            if case.closes {
                steps.push(Step::Close);
            }
            Reply(steps)
        })
        .collect();
    Upstream::scripted(move |seen| {
        let number = seen.target.strip_prefix("/public/case/");
        match number.map(|number| number.parse::<usize>().unwrap()) {
            Some(number) => replies[number].clone(),
            None => Reply::ok(&seen.target),
        }
    })
    .await
}

async fn all_as_expected(file: &str) {
    let cases = corpus::read(file);
    let fewest = FILES.iter().find(|(name, _)| *name == file).unwrap().1;
    assert!(cases.len() >= fewest, "{file}: {} cases", cases.len());
    let upstream = playing(&cases).await;
    let gateway = Site::new(upstream.address)
        .on_upstream("response_timeout", "\"5s\"")
        .set("server", "workers", "1")
        .start()
        .await;
    let mut faults = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        if let Err(fault) = play(&gateway, number, case).await {
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

/// Asks for a case's answer over both protocols; right after each, other users get their own.
async fn play(gateway: &Gateway, number: usize, case: &Case) -> Result<(), String> {
    let target = format!("/public/case/{number}");
    let mut raw = Raw::connect(gateway).await;
    raw.send(request("GET", &target, &[], "")).await;
    matches(raw.try_answer().await, case)?;
    others_get_their_own(gateway, number).await?;
    let mut h2 = H2::connect(gateway).await;
    let request = http::Request::get(format!("https://localhost{target}"))
        .body(crate::harness::client::full(""))
        .unwrap();
    matches(h2.send(request).await, case).map_err(|fault| format!("over HTTP/2: {fault}"))?;
    others_get_their_own(gateway, number).await
}

/// Compares an answer: `502` is the gateway's refusal, `cut` a transfer that breaks off, any other status one with the body that
/// follows it.
fn matches(answer: Result<Answer, Broken>, case: &Case) -> Result<(), String> {
    let (expected, closes) = (&case.expected, case.closes);
    let wanted = expected[0].split_whitespace();
    let body = expected.get(1).map(String::as_str).unwrap_or_default();
    match answer {
        Err(Broken::Cut(_) | Broken::Closed) if wanted.clone().any(|word| word == "cut") => Ok(()),
        Ok(answer) if answer.status == 502 && wanted.clone().any(|word| word == "502") => {
            // Where the server closed inside the head, there is no answer rather than a bad one.
            let code = answer.code();
            let is_right = code == "upstream_invalid" || closes && code == "upstream_unreachable";
            is_right.then_some(()).ok_or(code)
        }
        Ok(answer) => {
            let status = answer.status.to_string();
            let is_wanted = status != "502" && wanted.clone().any(|word| word == status);
            (is_wanted && answer.text() == body)
                .then_some(())
                .ok_or_else(|| format!("{status} {:?}", answer.text()))
        }
        Err(broken) => Err(format!("{broken:?}")),
    }
}

async fn others_get_their_own(gateway: &Gateway, number: usize) -> Result<(), String> {
    let mut raw = Raw::connect(gateway).await;
    for user in ["one", "two"] {
        let target = format!("/public/{user}/{number}");
        let answer = raw.exchange(request("GET", &target, &[], "")).await;
        if (answer.status, answer.text()) != (200, target) {
            return Err(format!(
                "the next user got {} {:?}",
                answer.status,
                answer.text()
            ));
        }
    }
    Ok(())
}

#[tokio::test]
async fn msg_10_heads_of_answers_of_the_corpus() {
    all_as_expected("answers/heads.txt").await;
}

#[tokio::test]
async fn msg_10_bodies_of_answers_of_the_corpus() {
    all_as_expected("answers/bodies.txt").await;
}
