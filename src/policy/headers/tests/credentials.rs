//! HDR-8: tokens and cookies that the gateway consumed.

use super::*;

#[test]
fn hdr_8_consumed_tokens_leave_only_where_told() {
    let templates = Arc::new(IdentityHeaders::default());
    for pass_token in [false, true] {
        let policy = HeaderPolicy::new(Arc::clone(&templates), "gate-1", pass_token).unwrap();
        for (access, caller) in callers(&templates) {
            let case = Case {
                access,
                ..Case::new(&policy, caller)
            };
            let headers = case.prepare(&[
                ("authorization", "Bearer canary"),
                ("connection", "authorization"),
            ]);
            let kept = pass_token || access == Access::Public;
            assert_eq!(
                headers.contains_key("authorization"),
                kept,
                "{access:?} {pass_token}"
            );
        }
    }
}

#[test]
fn hdr_8_cookies_of_the_gateway_never_leave() {
    let templates = Arc::new(IdentityHeaders::default());
    for pass_token in [false, true] {
        let policy = HeaderPolicy::new(Arc::clone(&templates), "gate-1", pass_token).unwrap();
        for (access, caller) in callers(&templates) {
            let case = Case {
                access,
                ..Case::new(&policy, caller)
            };
            for ours in [SESSION_COOKIE, REFRESH_COOKIE] {
                for (line, want) in [
                    (format!("{ours}=canary"), ""),
                    (format!("a=1; {ours}=canary; b=2"), "a=1; b=2"),
                    (format!("{ours}=canary;a=1"), "a=1"),
                    (format!(" ;; {ours} = canary ; a=1;"), "a=1"),
                    (format!("{ours}=canary; {ours}=canary2"), ""),
                    (ours.to_owned(), ""),
                    (format!("a=é; {ours}=canary"), "a=é"),
                    (format!("a=\"x; {ours}=canary\""), "a=\"x"),
                ] {
                    let headers = case.prepare(&[("cookie", &line)]);
                    assert_eq!(all(&headers, "cookie").join("|"), want, "{line}");
                }
                // Crumbs of HTTP/2, and a line that is ours alone.
                let headers = case.prepare(&[
                    ("cookie", "a=1"),
                    ("cookie", &format!("{ours}=canary")),
                    ("cookie", "b=2"),
                ]);
                assert_eq!(all(&headers, "cookie"), ["a=1", "b=2"]);
            }
            let untouched =
                " a=1;  b=2;c; x__Host-portcullis-session=1; __host-portcullis-session=2";
            assert_eq!(
                all(&case.prepare(&[("cookie", untouched)]), "cookie"),
                [untouched]
            );
        }
    }
}
